//! The actions of a reader, and what comes of them.

use std::time::{Duration, SystemTime};

use super::position::Position;

/// The place at which a reader begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(test, derive(Hash))]
pub(crate) enum Begin {
    /// At the position of its name, else at what is committed from now on.
    #[default]
    Default,
    /// At what was committed after this time.
    Since(SystemTime),
    /// At this position.
    At(Position),
}

/// The options of a reader.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct LogOptions {
    /// The name under which its position is kept in the database.
    pub(crate) name: Option<String>,
    pub(crate) begin: Begin,
    /// The time between two looks, and that while the log is quiet.
    pub(crate) interval: Duration,
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

/// An option that has no meaning without a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogNeed {
    /// A position or a time to begin at.
    Begin,
    /// A name under which a position is kept.
    Name,
}

/// The next thing to do about a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogAction {
    /// Ask whether this server and this session can be read from.
    Prepare,
    /// Take the name for this session, and read its position. The process of this reader's last session is given.
    Claim(String, Option<i32>),
    /// Read the last snapshot that was marked before this time.
    FindMark(SystemTime),
    /// Begin an era, unless another reader has.
    BeginEra,
    /// Read what is new since the position, if it is not too much. Without a position, nothing.
    Poll(Option<Position>),
    /// Read the next rows of the batch that the position is in.
    Page(Position),
    Save(String, Position),
    /// Become the reader that looks, and wakes the others.
    Elect,
    /// Wake the other readers.
    Wake,
    /// Report to the reader that has this name that another one waits.
    ReportWaiting(String),
    /// Rotate the tables, and mark the time.
    Rotate,
}

/// A result of reading, for the consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogOutput {
    /// Changes may be missing; the position after it.
    Gap(LogGap, Position),
    /// A change, and the position after it.
    Change(Position, Box<[u8]>),
    /// It cannot be read, for a reason that does not pass.
    Refused(String),
    /// It cannot be read now.
    Waiting(String),
}

/// The reason why changes may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogGap {
    pub(crate) reason: &'static str,
    /// The time up to which the reader had read, if it is known.
    pub(crate) since: Option<SystemTime>,
}

pub(super) const NEW_NAME: &str =
    "no position was kept under this name, so the reading begins with what is committed from now on";
pub(super) const OTHER_ERA: &str = "the log began again, after a crash, a failover, the restoration of the database or another build, so changes may \
                         be missing";
pub(super) const REMOVED: &str =
    "changes were removed from the log before they were read: it keeps them for a time and up to a size";
pub(super) const NOT_APPENDED: &str = "the log was full, and changes were not appended to it";
pub(super) const BEGAN_LATER: &str =
    "a transaction has ended that had written before the log began, so its changes may be missing";
pub(super) const OLDER: &str = "the log does not go back to the time that was asked for";
