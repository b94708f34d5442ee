//! Reads changes from the log of a database, by the difference of two snapshots.
//!
//! ```text
//!   LogFollower (queries, replies) ──> LogReader (decisions) ──> Position ──> Snapshot
//! ```
//!
//! Nothing in this directory has a connection or a clock: the reader returns actions, and is given replies and times.

mod action;
mod claim;
#[cfg(test)]
mod model;
mod position;
pub(super) mod queries;
mod reader;
mod reply;
mod saves;
mod schedule;
mod snapshot;

pub(crate) use self::action::{Begin, LogAction, LogNeed, LogOptions, LogOutput, LogRequest};
pub use self::position::Position;
pub(crate) use self::queries::LOG_CHANNEL;
pub(crate) use self::reader::LogReader;
pub(crate) use self::reply::{Claimed, LogView, Marked};
