//! What may have been missed, told when a connection is back.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::error::Error;

/// A span of time in which notifications of a connection may have been lost: it was away, or its server had forgotten
/// some of its channels.
///
/// PostgreSQL keeps nothing for a listener that is away, so whoever caches by notification must treat everything
/// that these channels guard as stale. A gap comes after the server acknowledged the restored LISTENs and before any
/// later notification: read afresh when it comes, and nothing is missed.
///
/// ```no_run
/// # fn flush(_: &[Box<str>]) {}
/// # let mut nm = notifyman::NotificationManager::new([]);
/// while let Some(event) = nm.next() {
///     let Some((conn, batch)) = event else { continue };
///     if let Some(gap) = batch.gap() {
///         println!("{conn}: {:?} unheard on {:?}, because {}", gap.duration(), gap.channels(), gap.cause());
///         flush(gap.channels());
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Gap(Box<GapData>);

/// What a gap tells: kept apart, since everything that a loop tells has room for one, and hardly ever is one.
#[derive(Debug, Clone)]
pub(crate) struct GapData {
    pub(crate) channels: Arc<[Box<str>]>,
    pub(crate) cause: Error,
    /// On both clocks.
    pub(crate) since: (Instant, SystemTime),
    pub(crate) until: (Instant, SystemTime),
    pub(crate) epoch: u64,
}

impl From<GapData> for Gap {
    fn from(span: GapData) -> Self {
        Self(Box::new(span))
    }
}

impl Gap {
    /// The same, over at `now`; of these channels, and of those of another that hasn't been told yet.
    pub(crate) fn finish(
        mut self,
        mut channels: Vec<Box<str>>,
        now: Instant,
        epoch: u64,
        untold: Option<Self>,
    ) -> Self {
        let span = &mut *self.0;
        let lasted = now.saturating_duration_since(span.since.0);
        span.until = (now, span.since.1.checked_add(lasted).unwrap_or(span.since.1));
        if let Some(untold) = untold {
            channels.extend(untold.channels().iter().cloned());
            channels.sort_unstable();
            channels.dedup();
            span.since = span.since.min(untold.0.since);
        }
        (span.channels, span.epoch) = (channels.into(), epoch);
        self
    }

    /// From now on it begins when an earlier one does.
    pub(crate) fn extend_back_to(&mut self, earlier: &Self) {
        self.0.since = earlier.0.since;
    }

    /// The channels that were listened to, and are again.
    pub fn channels(&self) -> &[Box<str>] {
        &self.0.channels
    }

    /// Why the old session ended; [`Error::Unregistered`] where it went on, and had lost channels.
    pub fn cause(&self) -> &Error {
        &self.0.cause
    }

    /// When bytes were last read from the old session, on the monotonic clock.
    ///
    /// That is earlier than the loss was noticed: a half-open link loses notifications before anybody can tell. Of a
    /// session to which nothing was delivered ([`Error::Deaf`]), and of one that lost channels, it is when that was last
    /// known to be well: when the last canary was sent that came, and when the last audit found all, or when the session
    /// began.
    pub fn since(&self) -> Instant {
        self.0.since.0
    }

    /// When the server acknowledged the restored LISTENs, on the monotonic clock.
    pub fn until(&self) -> Instant {
        self.0.until.0
    }

    /// [`since`](Self::since) on the wall clock, for people; it may jump.
    pub fn since_wall(&self) -> SystemTime {
        self.0.since.1
    }

    /// [`until`](Self::until) on the wall clock, for people; it may jump.
    pub fn until_wall(&self) -> SystemTime {
        self.0.until.1
    }

    /// How long the connection was deaf.
    pub fn duration(&self) -> std::time::Duration {
        self.until().saturating_duration_since(self.since())
    }

    /// How many times this connection has been restored, or has lost channels, this time included: it only grows.
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn m14_a_gap_that_was_not_reported_is_joined_with_the_next() {
        let start = (Instant::now(), SystemTime::now());
        let at = |seconds| (start.0 + Duration::from_secs(seconds), start.1 + Duration::from_secs(seconds));
        let gap = |channels: &[&str], since, epoch| {
            let channels = channels.iter().map(|channel| (*channel).into()).collect();
            Gap::from(GapData { channels, cause: Error::Unregistered, since: at(since), until: at(since), epoch })
        };
        let names = |names: &[&str]| names.iter().map(|name| Box::<str>::from(*name)).collect::<Vec<_>>();
        let joined = |since, earlier| {
            gap(&[], since, 0).finish(names(&["b", "c"]), at(9).0, 4, Some(gap(&["c", "a"], earlier, 3)))
        };
        for (since, earlier) in [(5, 2), (2, 5)] {
            let joined = joined(since, earlier);
            assert_eq!(joined.channels(), names(&["a", "b", "c"]));
            assert_eq!((joined.since(), joined.until(), joined.epoch()), (at(2).0, at(9).0, 4));
            assert_eq!(joined.since_wall(), at(2).1);
        }
        let alone = gap(&["c"], 5, 0).finish(names(&["b"]), at(9).0, 1, None);
        assert_eq!((alone.channels(), alone.since(), alone.until_wall()), (&names(&["b"])[..], at(5).0, at(9).1));
    }
}
