//! The requests that a worker makes to the session of a database.

use std::collections::BTreeMap;

use super::log::LogStep;
use crate::error::Error;

/// The last warning about each step, until the step succeeds.
#[derive(Debug, Default)]
pub(crate) struct StepWarnings(BTreeMap<FollowStep, String>);

impl StepWarnings {
    /// Remembers a warning; returns `true` unless it is the one that was given last.
    pub(crate) fn is_new(&mut self, step: FollowStep, warning: &str) -> bool {
        self.0.insert(step.kind(), warning.to_owned()).as_deref() != Some(warning)
    }

    /// The step has succeeded.
    pub(crate) fn clear(&mut self, step: FollowStep) {
        self.0.remove(&step.kind());
    }
}

/// A request to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FollowStep {
    /// The settings of the session, by their index.
    Settings(usize),
    Installation,
    Listen,
    /// The objects of the installation, and the tables that are not covered.
    Objects,
    Coverage,
    QueueUsage,
    ClearSpilled,
    /// The payload that was spilled under this number.
    ReadSpilled(i64),
    Log(LogStep),
}

impl FollowStep {
    /// The step without its details.
    pub(crate) fn kind(self) -> Self {
        match self {
            FollowStep::Settings(_) => FollowStep::Settings(0),
            FollowStep::ReadSpilled(_) => FollowStep::ReadSpilled(0),
            step => step,
        }
    }

    /// What to do about a failure, to follow the error.
    pub(crate) fn remedy(self, error: &Error) -> &'static str {
        match (self, error.sqlstate()) {
            (FollowStep::Log(_), Some("42501")) => ". Grant its role the privileges that `notifyman build` prints",
            _ => "",
        }
    }

    /// The purpose of the request, to follow "could not".
    pub(crate) fn purpose(self) -> &'static str {
        match self {
            FollowStep::Settings(_) => "make the settings of the session",
            FollowStep::Installation => "read what is installed",
            FollowStep::Listen => "listen for changes",
            FollowStep::Objects | FollowStep::Coverage => "check what is installed",
            FollowStep::QueueUsage => "read the usage of the NOTIFY queue",
            FollowStep::ClearSpilled => "delete old payloads of notifyman.spilled",
            FollowStep::ReadSpilled(_) => "read a long payload from notifyman.spilled",
            FollowStep::Log(step) => step.purpose(),
        }
    }
}
