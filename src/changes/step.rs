//! The requests that a worker makes to the session of a database, and what it warns of.

use super::status;

/// A request to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FollowStep {
    /// The settings of the session, by their index.
    Settings(usize),
    Installation,
    Listen,
    QueueUsage,
    ClearSpilled,
    /// The payload that was spilled under this number.
    ReadSpilled(i64),
    LockOutbox,
    ReadOutbox,
    ClearOutbox,
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

    /// The purpose of the request, to follow "could not".
    pub(crate) fn purpose(self) -> &'static str {
        match self {
            FollowStep::Settings(_) => "make the settings of the session",
            FollowStep::Installation => "read what is installed",
            FollowStep::Listen => "listen for changes",
            FollowStep::QueueUsage => "read the usage of the NOTIFY queue",
            FollowStep::ClearSpilled => "delete old payloads of notifyman.spilled",
            FollowStep::ReadSpilled(_) => "read a long payload from notifyman.spilled",
            FollowStep::LockOutbox | FollowStep::ReadOutbox => "read the table notifyman.outbox",
            FollowStep::ClearOutbox => "delete from the table notifyman.outbox what was reported",
        }
    }
}

/// Returns a warning if the NOTIFY queue is at least half full.
pub(crate) fn queue_warning(usage: f64) -> Option<String> {
    (usage >= status::QUEUE_WARNING).then(|| {
        format!(
            "the server's NOTIFY queue is {:.0} % full; once it is full, every write to a covered table fails at commit: \
             `notifyman doctor` names the session that holds it",
            usage * 100.0
        )
    })
}
