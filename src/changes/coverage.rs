//! The checks that a worker makes of an installation: the way of delivery, and that nothing is missing.

use std::time::{Duration, Instant};

use super::installation::{self, Objects};
use super::options::{DeliveryMode, InstallOptions, Oversize};
use super::request::DatabaseRequest;
use super::sql;
use crate::row::Row;

/// The time between two checks of every table.
const CHECK_TABLES: Duration = Duration::from_secs(300);

/// The way in which an installation delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DeliveryWay {
    /// By its log rather than by NOTIFY.
    pub(crate) log: bool,
    /// Long payloads by the table `spilled`.
    pub(crate) spills: bool,
}

impl DeliveryWay {
    pub(crate) fn of(options: &InstallOptions) -> Self {
        let log = options.delivery == DeliveryMode::Log;
        Self { log, spills: options.oversize == Oversize::Spill && !log }
    }
}

/// The checks of one installation, as far as the role may read what was asked for.
#[derive(Debug, Default)]
pub(crate) struct CoverageCheck {
    options: Option<InstallOptions>,
    /// When to check every table again.
    next: Option<Instant>,
}

impl CoverageCheck {
    /// Returns the queries that are due, for an installation with these options.
    pub(crate) fn queries(&mut self, options: InstallOptions, now: Instant) -> Vec<(DatabaseRequest, String)> {
        let mut queries = vec![(DatabaseRequest::Objects, sql::objects())];
        if self.next.is_none_or(|at| at <= now) || self.options.as_ref() != Some(&options) {
            self.next = now.checked_add(CHECK_TABLES);
            queries.push((DatabaseRequest::Coverage, sql::uncovered(&options)));
        }
        self.options = Some(options);
        queries
    }

    /// Makes the check of every table due.
    pub(crate) fn hasten(&mut self) {
        self.next = None;
    }

    /// Returns the problems that the answer to one of the queries shows.
    pub(crate) fn problems(&self, step: DatabaseRequest, rows: &[Row]) -> Vec<String> {
        match (step, rows.first(), &self.options) {
            (DatabaseRequest::Objects, Some(row), Some(options)) => {
                let objects = Objects::parse(row);
                [objects.problems(options), objects.warnings(options)].concat()
            }
            (DatabaseRequest::Coverage, ..) => rows.iter().map(installation::uncovered_problem).collect(),
            _ => Vec::new(),
        }
    }
}
