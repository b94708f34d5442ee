//! Reading changes from the log of a database, by the difference of two snapshots.
//!
//! ```text
//!   DatabaseFollower ──> LogFollower (SQL, answers) ──> LogReader (decisions) ──> Position ──> Snapshot
//! ```

mod action;
mod answer;
mod claim;
#[cfg(test)]
mod model;
mod position;
pub(super) mod queries;
mod reader;
mod saves;
mod schedule;
mod snapshot;

pub(crate) use self::action::{Begin, LogAction, LogNeed, LogOptions, LogOutput};
pub(crate) use self::answer::{Claimed, LogView, Marked};
pub use self::position::Position;
pub(crate) use self::queries::LOG_CHANNEL;
pub(crate) use self::reader::LogReader;
