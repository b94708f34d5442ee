//! The requests that a worker sends to the session of a database.

use super::log::LogRequest;

/// A request to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DatabaseRequest {
    /// Sets the session's settings with this index.
    Settings(usize),
    /// Reads the options of the installation.
    Installation,
    Listen,
    /// Reads the objects of the installation.
    Objects,
    /// Reads the tables that are not covered.
    Coverage,
    QueueUsage,
    ClearSpilled,
    /// Reads the spilled payload with this number.
    ReadSpilled(i64),
    Log(LogRequest),
}

impl DatabaseRequest {
    /// Returns the request without its arguments.
    pub(crate) fn kind(self) -> Self {
        match self {
            DatabaseRequest::Settings(_) => DatabaseRequest::Settings(0),
            DatabaseRequest::ReadSpilled(_) => DatabaseRequest::ReadSpilled(0),
            request => request,
        }
    }

    /// Returns `true` if no changes are received until the request succeeds.
    pub(crate) fn is_necessary(self, reads_log: bool) -> bool {
        match self {
            DatabaseRequest::Settings(_) | DatabaseRequest::Installation | DatabaseRequest::Listen => true,
            DatabaseRequest::Log(LogRequest::Elect | LogRequest::Send | LogRequest::Rotate) => false,
            DatabaseRequest::Log(_) => reads_log,
            _ => false,
        }
    }

    /// Returns the purpose of the request, as the continuation of "could not".
    pub(crate) fn purpose(self) -> &'static str {
        match self {
            DatabaseRequest::Settings(_) => "set the session's settings",
            DatabaseRequest::Installation => "read the options of the installation",
            DatabaseRequest::Listen => "listen for changes",
            DatabaseRequest::Objects | DatabaseRequest::Coverage => "check the installation",
            DatabaseRequest::QueueUsage => "read the usage of the NOTIFY queue",
            DatabaseRequest::ClearSpilled => "delete old payloads from notifyman.spilled",
            DatabaseRequest::ReadSpilled(_) => "read a long payload from notifyman.spilled",
            DatabaseRequest::Log(LogRequest::Prepare) => "check whether the log can be read here",
            DatabaseRequest::Log(LogRequest::Claim) => "read the position from notifyman.position",
            DatabaseRequest::Log(LogRequest::FindMark) => "find the time in the log",
            DatabaseRequest::Log(LogRequest::BeginEra) => "begin to read the log after a start of the server",
            DatabaseRequest::Log(LogRequest::Read) => "read the log",
            DatabaseRequest::Log(LogRequest::Save) => "save the position in the log",
            DatabaseRequest::Log(LogRequest::Elect) => "elect the reader that polls the log",
            DatabaseRequest::Log(LogRequest::Send) => "wake other readers of the log",
            DatabaseRequest::Log(LogRequest::Rotate) => "remove old changes from the log",
        }
    }
}
