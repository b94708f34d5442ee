//! The requests that a worker makes to the session of a database.

use std::collections::BTreeMap;

use crate::error::Error;

/// The last warning about each step, until the step succeeds.
#[derive(Debug, Default)]
pub(crate) struct RequestWarnings(BTreeMap<DatabaseRequest, String>);

impl RequestWarnings {
    /// Remembers a warning; returns `true` unless it is the one that was given last.
    pub(crate) fn is_new(&mut self, step: DatabaseRequest, warning: &str) -> bool {
        self.0.insert(step.kind(), warning.to_owned()).as_deref() != Some(warning)
    }

    /// The step has succeeded.
    pub(crate) fn clear(&mut self, step: DatabaseRequest) {
        self.0.remove(&step.kind());
    }
}

/// A request to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DatabaseRequest {
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
    Log(LogRequest),
}

impl DatabaseRequest {
    /// The step without its details.
    pub(crate) fn kind(self) -> Self {
        match self {
            DatabaseRequest::Settings(_) => DatabaseRequest::Settings(0),
            DatabaseRequest::ReadSpilled(_) => DatabaseRequest::ReadSpilled(0),
            step => step,
        }
    }

    /// What to do about a failure, to follow the error.
    pub(crate) fn remedy(self, error: &Error) -> &'static str {
        match (self, error.sqlstate()) {
            (DatabaseRequest::Log(_), Some("42501")) => ". Grant its role the privileges that `notifyman build` prints",
            _ => "",
        }
    }

    /// The purpose of the request, to follow "could not".
    pub(crate) fn purpose(self) -> &'static str {
        match self {
            DatabaseRequest::Settings(_) => "make the settings of the session",
            DatabaseRequest::Installation => "read what is installed",
            DatabaseRequest::Listen => "listen for changes",
            DatabaseRequest::Objects | DatabaseRequest::Coverage => "check what is installed",
            DatabaseRequest::QueueUsage => "read the usage of the NOTIFY queue",
            DatabaseRequest::ClearSpilled => "delete old payloads of notifyman.spilled",
            DatabaseRequest::ReadSpilled(_) => "read a long payload from notifyman.spilled",
            DatabaseRequest::Log(step) => step.purpose(),
        }
    }
}

/// An action without its details, by which its answer is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogRequest {
    Prepare,
    Claim,
    Mark,
    Draw,
    View,
    Save,
    Lead,
    Send,
    Keep,
}

impl LogRequest {
    /// The purpose of the request, to follow "could not".
    pub(crate) fn purpose(self) -> &'static str {
        match self {
            LogRequest::Prepare => "see whether the log can be read here",
            LogRequest::Claim => "read the position in the log from notifyman.position",
            LogRequest::Mark => "find the time in the log",
            LogRequest::Draw => "begin to read the log after a start of the server",
            LogRequest::View => "read the log",
            LogRequest::Save => "save the position in the log",
            LogRequest::Lead => "agree with other readers on who looks",
            LogRequest::Send => "wake other readers of the log",
            LogRequest::Keep => "remove old changes from the log",
        }
    }
}
