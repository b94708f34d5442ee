//! A relay of notifications onto the streams of an engine such as Redis or Valkey, and readers of such streams.
//!
//! ```text
//!   PostgreSQL ──▶ leader ──append──▶ stream of the database ──read──▶ readers
//!        └───────▶ candidate (hot)
//! ```
//!
//! Each entry of a stream ([`entry`]) is at a [`position`]: the term of a leader, and a number without a hole within it.

#![allow(dead_code, reason = "the leader and the readers, which use the formats, follow")]

mod entry;
mod follower;
mod history;
#[cfg(test)]
mod model;
#[cfg(test)]
mod naive;
mod position;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod reader;
mod redis;
mod sink;
mod tail;

pub use self::reader::{RelayReader, RelayReaderBuilder, RelayReaderHandle};
