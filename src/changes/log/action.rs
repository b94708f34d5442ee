//! The options, actions and outputs of a reader.

use std::time::{Duration, SystemTime};

use super::position::Position;

/// The point at which a reader begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(test, derive(Hash))]
pub(crate) enum Begin {
    /// At the position of its name, or else with the changes that are committed from now on.
    #[default]
    Default,
    /// With the changes that were committed after this time.
    Since(SystemTime),
    /// At this position.
    At(Position),
}

/// The options of a reader.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct LogOptions {
    /// The name under which the database keeps the position.
    pub(crate) name: Option<String>,
    pub(crate) begin: Begin,
    /// The poll interval.
    pub(crate) interval: Duration,
    /// The poll interval while nothing is appended.
    pub(crate) quiet_interval: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            name: None,
            begin: Begin::Default,
            interval: Duration::from_millis(20),
            quiet_interval: Duration::from_millis(200),
        }
    }
}

/// An option that needs a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogNeed {
    /// A position or a time at which to begin.
    Begin,
    /// A name under which a position is kept.
    Name,
}

/// The next action of a reader. Each is one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogAction {
    /// Check whether the log can be read on this server.
    Prepare,
    /// Claim the name for this session, and read its position. The process of this reader's last session may be terminated for
    /// that.
    Claim(String, Option<i32>),
    /// Read the last mark before this time.
    FindMark(SystemTime),
    /// Begin an era, unless another reader has begun it.
    BeginEra,
    /// Read the new rows since the position, if they fit one reply. Without a position, read no rows.
    Poll(Option<Position>),
    /// Read the next rows of the batch in which the position is.
    Page(Position),
    Save(String, Position),
    /// Take part in the election of the reader that polls and wakes the others.
    Elect,
    /// Wake the other readers.
    Wake,
    /// Report to the reader with this name that another reader waits for it.
    ReportWaiting(String),
    /// Rotate the tables, and mark the time.
    Rotate,
}

/// An action without its arguments. It identifies the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogRequest {
    Prepare,
    Claim,
    FindMark,
    BeginEra,
    /// Polls for new rows, or reads the next page.
    Read,
    Save,
    Elect,
    /// Sends a message to other readers.
    Send,
    Rotate,
}

/// An output for the consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogOutput {
    /// Changes may be missing.
    Gap {
        reason: &'static str,
        /// The time up to which the reader had read, if known.
        since: Option<SystemTime>,
        /// The position after the gap.
        position: Position,
    },
    /// The position after a change, and its payload.
    Change(Position, Box<[u8]>),
    /// The log cannot be read, for a permanent reason.
    Refused(String),
    /// The log cannot be read now.
    Waiting(String),
}

pub(super) const NEW_NAME: &str =
    "no position was kept under this name, so reading begins with the changes that are committed from now on";
pub(super) const OTHER_ERA: &str = "the log began again after a crash, a failover, a restore of the database or another build, so changes may be missing";
pub(super) const REMOVED: &str =
    "changes were removed from the log before they were read: see --keep-for and --keep-size";
pub(super) const NOT_APPENDED: &str = "the log was full, and changes were not appended to it";
pub(super) const BEGAN_LATER: &str =
    "a transaction has ended that had written before the log began, so its changes may be missing";
pub(super) const OLDER: &str = "the log does not go back to the requested time";
