//! The report of notifications that may have been missed.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::clock;
use crate::error::Error;

/// A period in which a connection may have missed notifications, because it was lost, or because its server no longer
/// listed some of its channels.
///
/// PostgreSQL stores nothing for a listener that is not connected, so a cache that is invalidated by notifications must
/// treat all data of these channels as stale. A gap is reported after the server has acknowledged the restored LISTENs and
/// before any later notification: if the program reads the data again when it receives the gap, it misses nothing.
///
/// ```no_run
/// # fn flush(_: &[Box<str>]) {}
/// # let mut nm = notifyman::NotificationManager::new([]);
/// while let Some(event) = nm.next() {
///     let Some((conn, batch)) = event else { continue };
///     if let Some(gap) = batch.gap() {
///         println!(
///             "{conn}: {:?} missed on {:?}: {}",
///             gap.duration(),
///             gap.channels(),
///             gap.cause()
///         );
///         flush(gap.channels());
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Gap(Box<GapData>);

/// The contents of a [`Gap`]. They are in a box because every event reserves space for a gap, and few contain one.
#[derive(Debug, Clone)]
pub(crate) struct GapData {
    pub(crate) channels: Arc<[Box<str>]>,
    pub(crate) cause: Error,
    /// The beginning, on the monotonic clock and on the wall clock; likewise `until`.
    pub(crate) since: (Instant, SystemTime),
    pub(crate) until: (Instant, SystemTime),
    pub(crate) epoch: u64,
}

impl From<GapData> for Gap {
    fn from(data: GapData) -> Self {
        Self(Box::new(data))
    }
}

impl Gap {
    /// Creates a gap that has lasted for some time and ends now, for tests of code that receives gaps.
    ///
    /// ```
    /// use std::time::Duration;
    /// use notifyman::{Error, Gap};
    ///
    /// let gap = Gap::new(["prices"], Error::Disconnected, Duration::from_secs(3));
    /// assert_eq!((&*gap.channels()[0], gap.duration().as_secs()), ("prices", 3));
    /// ```
    pub fn new<C>(channels: impl IntoIterator<Item = C>, cause: Error, duration: Duration) -> Self
    where
        C: Into<Box<str>>,
    {
        let (channels, until) = (channels.into_iter().map(C::into).collect(), (clock::now(), clock::wall()));
        let since = until.0.checked_sub(duration).unwrap_or(until.0);
        let since_wall = until.1.checked_sub(duration).unwrap_or(until.1);
        GapData { channels, cause, since: (since, since_wall), until, epoch: 1 }.into()
    }

    /// Ends the gap at `now`, for these channels, and merges an earlier gap that has not been reported yet.
    pub(crate) fn finish(
        mut self,
        mut channels: Vec<Box<str>>,
        now: Instant,
        epoch: u64,
        unreported: Option<Self>,
    ) -> Self {
        let data = &mut *self.0;
        let lasted = now.saturating_duration_since(data.since.0);
        data.until = (now, data.since.1.checked_add(lasted).unwrap_or(data.since.1));
        if let Some(unreported) = unreported {
            channels.extend(unreported.channels().iter().cloned());
            channels.sort_unstable();
            channels.dedup();
            data.since = data.since.min(unreported.0.since);
        }
        (data.channels, data.epoch) = (channels.into(), epoch);
        self
    }

    /// Moves the beginning back to the beginning of an earlier gap.
    pub(crate) fn extend_back_to(&mut self, earlier: &Self) {
        self.0.since = earlier.0.since;
    }

    /// Adds an earlier gap of the same connection, which has not been reported.
    #[cfg(feature = "stream")]
    pub(crate) fn merge_earlier(&mut self, earlier: &Self) {
        self.extend_back_to(earlier);
        let mut channels: Vec<_> = self.channels().iter().chain(earlier.channels()).cloned().collect();
        channels.sort_unstable();
        channels.dedup();
        self.0.channels = channels.into();
    }

    /// Sets the number of the gap.
    #[cfg(feature = "stream")]
    pub(crate) fn set_epoch(&mut self, epoch: u64) {
        self.0.epoch = epoch;
    }

    /// Returns the affected channels. The connection listens to them again. If there are none, nothing was missed.
    pub fn channels(&self) -> &[Box<str>] {
        &self.0.channels
    }

    /// Returns the error that ended the previous session, or [`Error::Unregistered`] if the session continued and only
    /// lost channels, or [`Error::TooSlow`] if the program was too slow for a stream.
    pub fn cause(&self) -> &Error {
        &self.0.cause
    }

    /// Returns the beginning on the monotonic clock: the time at which bytes were last read from the previous session.
    ///
    /// This is earlier than the time at which the loss was detected, because a half-open connection loses notifications
    /// before anything can detect it. If the cause is [`Error::NotDelivering`], it is the time at which the last canary
    /// that arrived was sent. If the cause is [`Error::Unregistered`], it is the time of the last audit that found every
    /// channel. Without such a canary or audit, it is the beginning of the session. If the cause is [`Error::TooSlow`], it is
    /// the time at which the first notification was received that was dropped.
    pub fn since(&self) -> Instant {
        self.0.since.0
    }

    /// Returns the end on the monotonic clock: the time at which the server acknowledged the restored LISTENs.
    pub fn until(&self) -> Instant {
        self.0.until.0
    }

    /// Returns the beginning on the wall clock, for display. That clock may be set forward or back.
    pub fn since_wall(&self) -> SystemTime {
        self.0.since.1
    }

    /// Returns the end on the wall clock, for display. That clock may be set forward or back.
    pub fn until_wall(&self) -> SystemTime {
        self.0.until.1
    }

    /// Returns the beginning and the end on the wall clock, in milliseconds since 1970.
    #[cfg(any(feature = "json", feature = "relay"))]
    pub(crate) fn unix_ms(&self) -> [u64; 2] {
        [self.since_wall(), self.until_wall()].map(|at| at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis))
    }

    /// Returns the time between [`since`](Self::since) and [`until`](Self::until).
    pub fn duration(&self) -> Duration {
        self.until().saturating_duration_since(self.since())
    }

    /// Returns the number of gaps of this connection, including this one. The number only grows: compare it with a stored
    /// value to see whether a gap has been reported since.
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }
}

#[cfg(any(feature = "json", feature = "relay"))]
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Serializes `channels`, `cause` (its text), `since_unix_ms` and `until_unix_ms` (on the wall clock), `gap_ms` and `epoch`.
#[cfg(feature = "json")]
impl serde::Serialize for Gap {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let [since, until] = self.unix_ms();
        let mut gap = serializer.serialize_struct("Gap", 6)?;
        gap.serialize_field("channels", self.channels())?;
        gap.serialize_field("cause", &format!("{:#}", self.cause()))?;
        gap.serialize_field("since_unix_ms", &since)?;
        gap.serialize_field("until_unix_ms", &until)?;
        gap.serialize_field("gap_ms", &millis(self.duration()))?;
        gap.serialize_field("epoch", &self.epoch())?;
        gap.end()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(not(feature = "json"))]
    use std::time::Duration;

    use super::*;

    #[cfg(feature = "json")]
    #[test]
    fn m14_a_gap_is_serialized_with_its_times_in_milliseconds() {
        let (now, epoch) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let at = |millis| (now + Duration::from_millis(millis), epoch + Duration::from_millis(millis));
        let (channels, cause) = (["a".into()].into(), Error::Disconnected);
        let gap = Gap::from(GapData { channels, cause, since: at(1_500), until: at(4_000), epoch: 3 });
        let json = serde_json::to_value(&gap).unwrap();
        let expected = serde_json::json!({
            "channels": ["a"], "cause": Error::Disconnected.to_string(),
            "since_unix_ms": 1500, "until_unix_ms": 4000, "gap_ms": 2500, "epoch": 3,
        });
        assert_eq!(json, expected);
    }

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
