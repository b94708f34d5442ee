//! Reading changes from the log of a database, by the difference of two snapshots.
//!
//! ```text
//!   DatabaseFollower ──> LogFollower (SQL, answers) ──> LogReader (decisions) ──> Position ──> Snapshot
//! ```

mod action;
mod answer;
mod claim;
mod follower;
#[cfg(test)]
mod model;
mod position;
mod reader;
mod saves;
mod schedule;
mod snapshot;
mod sql;

pub(crate) use self::action::{Begin, LogOptions, LogOutput};
pub(crate) use self::follower::{LogFollower, LogStep};
pub use self::position::Position;
pub(crate) use self::sql::CHANNEL;
