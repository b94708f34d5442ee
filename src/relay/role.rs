//! The parts that a relay can take in one stream, and what belongs to each.

use std::time::{Duration, Instant};

use crate::relay::outbox::Outbox;
use crate::relay::pace::RelayPace;
use crate::relay::takeover::{ClaimedStream, OpenStream};
use crate::relay::watch::StreamWatch;

#[allow(clippy::large_enum_variant, reason = "there is one for each stream")]
pub(crate) enum Role<K> {
    /// There is no session.
    Away,
    /// The session is open, and is prepared at this time.
    Unprepared(Instant),
    Engaged(Engagement<K>),
}

/// The part that a relay takes with a session that is prepared.
pub(crate) struct Engagement<K> {
    pub(crate) stream: OpenStream<K>,
    pub(crate) next_marker: Instant,
    /// The time at which a marker was last received.
    pub(crate) last_marker: Option<Instant>,
    pub(crate) part: Part,
}

pub(crate) enum Part {
    Candidate(Candidacy),
    TakingOver(Takeover),
    Leader(Leadership),
}

pub(crate) struct Candidacy {
    pub(crate) next_attempt: Instant,
    pub(crate) watch: StreamWatch,
    /// The stream could not be claimed, and has no other leader.
    pub(crate) has_failed: bool,
}

pub(crate) struct Takeover {
    pub(crate) claimed: ClaimedStream,
    /// The first and the last marker that were sent since the claim: the first one is lost if the session could not send it.
    pub(crate) barriers: [Box<str>; 2],
    /// The own session has missed notifications since the claim.
    pub(crate) has_gap: bool,
}

pub(crate) struct Leadership {
    pub(crate) outbox: Outbox,
    /// The number of notifications since the last marker.
    pub(crate) unmarked: usize,
    /// A marker was received since the history was trimmed.
    pub(crate) has_marker: bool,
    /// The engine has failed, and is tried again at this time.
    pub(crate) retry: Option<Instant>,
}

impl Part {
    /// Returns a candidate that tries to lead at this time.
    pub(crate) fn candidate(now: Instant, next_attempt: Instant) -> Self {
        Self::Candidate(Candidacy { next_attempt, watch: StreamWatch::new(now), has_failed: false })
    }

    /// Returns the time without a marker after which this relay sends one.
    pub(crate) fn marker_period(&self, pace: RelayPace) -> Duration {
        match self {
            Self::Candidate(Candidacy { watch, .. }) => pace.candidate_period(watch.silence(pace.silence())),
            Self::TakingOver(_) | Self::Leader(_) => pace.period,
        }
    }
}
