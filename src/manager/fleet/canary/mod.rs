//! The canary proves that notifications are delivered, and measures how long that takes.
//!
//! ```text
//!   one session ──NOTIFY──▶ its database ──▶ every session of the manager there
//!                                              └─ not in time? ──▶ audit: does the server know the channel?
//!                                                    yes, and still nothing has arrived: delivery fails, lost
//!                                                    no: it is listened to again, and the next canary must arrive
//! ```
//!
//! A server's answer comes after everything that it has delivered before. So a connection is judged by that answer, and
//! never by a clock: a slow loop, a busy reader and a frozen server are not mistaken for failing delivery.

mod record;
mod schedule;

use std::hash::{BuildHasher as _, RandomState};

pub(super) use self::record::{CanaryOutcome, CanaryRecord, MissedCanary, note_prompt};
use self::schedule::CanarySchedule;
pub(crate) use self::schedule::{CanaryDue, CanaryPace};
use crate::manager::conn_id::ConnId;

/// The canaries of a manager.
#[derive(Debug)]
pub(crate) struct Canaries {
    pub(super) channel: Box<str>,
    pub(super) schedule: CanarySchedule<ConnId>,
    /// Makes payloads that cannot be guessed.
    secret: RandomState,
    count: u64,
}

impl Canaries {
    pub(crate) fn new(channel: &str, pace: CanaryPace) -> Self {
        Self { channel: channel.into(), schedule: CanarySchedule::new(pace), secret: RandomState::new(), count: 0 }
    }

    pub(super) fn next_payload(&mut self) -> String {
        self.count += 1;
        format!("canary {:016x}", self.secret.hash_one(self.count))
    }
}
