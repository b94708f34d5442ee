//! What a connection knows of its past: what it took over from, and since when nothing can have been lost in silence.
//!
//! Most know nothing, and pay a pointer for it.

use std::time::{Duration, Instant};

use super::Connection;
use super::wait::Pass;
use crate::clock::{self, CompactInstant};
use crate::gap::Gap;

/// What most connections have none of, kept apart so that they cost nothing for it.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// What few have. Apart once more: the rest is everybody's who has been brought back.
    rarer: Option<Box<Rarer>>,
    /// What may have been missed before this session took over from another, or before it listened again.
    pub(super) gap: Option<Gap>,
    /// The time at which the LISTENs of a session that a manager opened were acknowledged.
    established: Option<CompactInstant>,
    attempts: u32,
    /// How many sessions there have been before this one.
    epoch: u32,
}

/// What a connection has whose calls aren't bounded by the configuration, or which an audit or a canary has looked at.
#[derive(Debug, Default)]
pub(super) struct Rarer {
    pub(super) call_timeout: Option<Option<Duration>>,
    /// The unfinished pass of a [`wait`](Connection::wait) with a zero timeout.
    pass: Option<Pass>,
    /// The gap that is told once the server listens again to what it had forgotten.
    relistening: Option<Gap>,
    proven: Proven,
}

/// What is known of the past: earlier than this, nothing can have been lost in silence. As long as nothing is known, that
/// is the beginning of the session.
#[derive(Debug, Clone, Copy, Default)]
struct Proven {
    /// When the last notification was sent of which it is known that it came because delivery works.
    delivery: Option<CompactInstant>,
    /// When the server was last asked, and knew every channel.
    channels: Option<CompactInstant>,
}

impl Connection {
    /// What may have been missed, as long as nobody has taken it.
    pub(crate) fn gap(&self) -> Option<&Gap> {
        self.rare.as_ref()?.gap.as_ref()
    }

    /// How many sessions there have been before this one.
    pub(crate) fn epoch(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| rare.epoch.into())
    }

    /// Returns the time at which the LISTENs of a session that a manager opened were acknowledged, and the number of
    /// attempts that had failed before.
    pub(crate) fn established(&self) -> Option<(Instant, u32)> {
        let rare = self.rare.as_ref()?;
        Some((rare.established?.into(), rare.attempts))
    }

    /// Records that the LISTENs are acknowledged, after this number of failed attempts.
    pub(crate) fn establish(&mut self, now: Instant, attempts: u32) {
        let rare = self.rare.get_or_insert_default();
        (rare.established, rare.attempts) = (Some(now.into()), attempts);
    }

    /// It takes over from another at `now`, after so many attempts.
    pub(crate) fn succeed(&mut self, gap: Gap, now: Instant, attempts: u32) {
        self.establish(now, attempts);
        let rare = self.rare.get_or_insert_default();
        rare.epoch = u32::try_from(gap.epoch()).unwrap_or(u32::MAX);
        rare.gap = Some(gap);
    }

    /// Since when it has been known that notifications come.
    pub(crate) fn delivery_proven(&self) -> Instant {
        self.proven(|proven| proven.delivery)
    }

    /// Since when it has been known that the server listens to every channel.
    pub(crate) fn channels_proven(&self) -> Instant {
        self.proven(|proven| proven.channels)
    }

    fn proven(&self, what: impl FnOnce(Proven) -> Option<CompactInstant>) -> Instant {
        let proven = self.rarer().and_then(|rarer| what(rarer.proven));
        // What took over has told by its gap what came before.
        let begun = || self.rare.as_ref().and_then(|rare| rare.established);
        proven.or_else(begun).map_or(self.stream.opened(), Instant::from)
    }

    /// What was sent at this time has come.
    pub(crate) fn prove_delivery(&mut self, at: Instant) {
        self.rarer_mut().proven.delivery = Some(at.into());
    }

    /// The server was asked at this time, and listens to every channel.
    pub(crate) fn prove_channels(&mut self, at: Instant) {
        self.rarer_mut().proven.channels = Some(at.into());
    }

    /// What may have been missed until the server listens again to what it had forgotten, as long as it hasn't told that
    /// it does.
    pub(crate) fn relistening(&self) -> Option<&Gap> {
        self.rarer()?.relistening.as_ref()
    }

    /// The server has been told to listen again to the gap's channels.
    pub(crate) fn relisten(&mut self, gap: Gap) {
        self.rarer_mut().relistening = Some(gap);
    }

    /// Once the server listens again to what it had forgotten, that is the end of a gap; until then, what comes is held:
    /// the server may send it before it acknowledges. Whether nothing is to be held.
    pub(super) fn end_relistening(&mut self) -> bool {
        let Some(rare) = &mut self.rare else { return true };
        let Some(rarer) = &mut rare.rarer else { return true };
        if rarer.relistening.is_none() {
            return true;
        }
        if self.session.is_relistening() {
            return false;
        }
        if let Some(gap) = rarer.relistening.take()
            && let Some(channels) = self.session.take_relistened(gap.channels())
        {
            let now = clock::now();
            rarer.proven.channels = Some(now.into());
            rare.epoch = rare.epoch.saturating_add(1);
            rare.gap = Some(gap.finish(channels, now, rare.epoch.into(), rare.gap.take()));
        }
        true
    }

    /// Returns the unfinished pass of a zero timeout.
    pub(super) fn pass(&self) -> Option<Pass> {
        self.rarer()?.pass
    }

    pub(super) fn keep_pass(&mut self, pass: Pass) {
        self.rarer_mut().pass = Some(pass);
    }

    /// Ends the pass of a zero timeout, also if another consumer reads the connection from now on.
    pub(crate) fn forget_pass(&mut self) {
        if let Some(rarer) = self.rare.as_mut().and_then(|rare| rare.rarer.as_mut()) {
            rarer.pass = None;
        }
    }

    pub(super) fn rarer(&self) -> Option<&Rarer> {
        self.rare.as_ref()?.rarer.as_deref()
    }

    pub(super) fn rarer_mut(&mut self) -> &mut Rarer {
        self.rare.get_or_insert_default().rarer.get_or_insert_default()
    }
}
