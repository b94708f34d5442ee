//! The periodic checks of an installation by a worker: how it delivers, and whether anything is missing.

use std::time::{Duration, Instant};

use super::installation::{self, Objects};
use super::options::InstallOptions;
use super::request::DatabaseRequest;
use super::rows::from_json;
use super::sql;
use crate::row::Row;

/// The time between two checks of every table.
const CHECK_TABLES: Duration = Duration::from_secs(300);

/// The path by which an installation delivers changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryPath {
    Notify {
        /// `true` if long payloads are stored in the table `spilled`.
        spills: bool,
    },
    Log,
}

impl DeliveryPath {
    pub(crate) fn of(options: &InstallOptions) -> Self {
        match options.has_log() {
            true => Self::Log,
            false => Self::Notify { spills: options.spills() },
        }
    }
}

/// The checks of one installation. They need no privileges.
#[derive(Debug, Default)]
pub(crate) struct CoverageCheck {
    options: Option<InstallOptions>,
    /// The time at which to check every table again.
    next: Option<Instant>,
}

impl CoverageCheck {
    /// Returns the queries that are due for an installation with these options.
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
    pub(crate) fn check_tables_next(&mut self) {
        self.next = None;
    }

    /// Returns the problems that the reply to one of the queries shows.
    pub(crate) fn problems(&self, request: DatabaseRequest, rows: &[Row]) -> Vec<String> {
        match (request, rows.first(), &self.options) {
            (DatabaseRequest::Objects, Some(row), Some(options)) => match from_json::<Objects>(row) {
                Ok(objects) => [objects.problems(options), objects.warnings(options)].concat(),
                Err(error) => vec![error.to_string()],
            },
            (DatabaseRequest::Coverage, ..) => rows.iter().map(installation::uncovered_problem).collect(),
            _ => Vec::new(),
        }
    }
}
