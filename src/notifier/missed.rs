//! Reports that notifications may be missing.

use std::fmt;

use crate::error::Error;
use crate::gap::Gap;

/// A report that notifications of a channel may be missing, in
/// [`Delivery::Missed`](crate::notifier::Delivery::Missed): whatever depends on the channel must be read again.
///
/// The call comes in order: after all notifications received before, and before all later ones. Unless the reason says
/// that nothing arrives, the channel is already listened to again, so reading it now misses nothing.
/// [`Reason::Disconnected`] is reported when the session is lost: a cache can stop serving until the next call. Only
/// [`Reason::Resumed`] says that nothing is missing.
///
/// ```
/// use notifyman::notifier::{Delivery, Id};
///
/// # fn flush(_: &str) {}
/// fn invalidate(delivery: &Delivery<'_, Id>) {
///     match delivery {
///         Delivery::Notification(n) => flush(&n.payload().text()),
///         Delivery::Missed(missed) => {
///             println!("on {}: {missed}", missed.channel());
///             flush("everything");
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Missed<'a, I> {
    id: &'a I,
    channel: &'a str,
    reason: &'a Reason,
    dropped: u64,
    /// See [`MissedReport`].
    unreported: Option<&'a Gap>,
    has_loss: bool,
}

/// A report in a subscriber's queue.
#[derive(Debug, Clone)]
pub(crate) struct MissedReport {
    reason: Reason,
    dropped: u64,
    /// A gap that had not been reported when the session was lost again.
    unreported: Option<Gap>,
    /// `true` if something may be missing, and not only later.
    has_loss: bool,
}

/// The reason why notifications are [missing](Missed).
///
/// ```
/// use notifyman::notifier::Reason;
///
/// /// Returns `true` if the subscriber itself is too slow.
/// fn is_too_slow(reason: &Reason) -> bool {
///     matches!(reason, Reason::Overflow | Reason::Unsubscribed)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Reason {
    /// The session was opened for the first time, after the start of a notifier that
    /// [keeps trying](crate::notifier::NotifierBuilder::keep_trying).
    Opened,
    /// The session was lost just now, and is being restored. Nothing arrives until then.
    Disconnected(Error),
    /// The session was lost, and has been restored: see the gap.
    Restored(Gap),
    /// The session was lost, as reported by [`Disconnected`](Self::Disconnected), and is back. **Nothing is missing:** the
    /// gap, which has other channels or none, says how long nothing arrived. What arrived too late follows. Only a source in the
    /// place of a database does so: see [`Notifier::over`](crate::Notifier::over).
    Resumed(Gap),
    /// The subscriber's [`Queue`](crate::notifier::Queue) was full.
    Overflow,
    /// The subscriber or the channel was muted, and has been unmuted.
    Muted,
    /// The notifier was stopped, and has been started again.
    Stopped,
    /// The subscriber was unsubscribed from everything, because its queue was full. Nothing arrives any more.
    Unsubscribed,
    /// The session is lost and is not opened again. Nothing arrives until the notifier is restarted.
    Lost(Error),
}

impl<'a, I> Missed<'a, I> {
    /// Creates a report, for tests of callbacks.
    ///
    /// ```
    /// use notifyman::notifier::{Delivery, Missed, Reason};
    ///
    /// fn is_stale(delivery: &Delivery<'_, u32>) -> bool {
    ///     matches!(delivery, Delivery::Missed(_))
    /// }
    ///
    /// let missed = Missed::new(&7, "prices", &Reason::Overflow, 3);
    /// assert!(is_stale(&Delivery::Missed(missed)));
    /// ```
    pub fn new(id: &'a I, channel: &'a str, reason: &'a Reason, dropped: u64) -> Self {
        Self { id, channel, reason, dropped, unreported: None, has_loss: is_loss(reason, dropped) }
    }

    pub(crate) fn to_report(&self) -> MissedReport {
        let Self { reason, dropped, unreported, has_loss, .. } = *self;
        MissedReport { reason: reason.clone(), dropped, unreported: unreported.cloned(), has_loss }
    }

    /// Returns the id of the subscriber.
    pub fn id(&self) -> &'a I {
        self.id
    }

    /// Returns the channel that was subscribed to.
    pub fn channel(&self) -> &'a str {
        self.channel
    }

    /// Returns the reason: the latest one, if there were several in a row.
    pub fn reason(&self) -> &'a Reason {
        self.reason
    }

    /// Returns `true` if something may be missing already. That is so except for a [`Reason::Disconnected`] that no other report came
    /// just before, and a [`Reason::Resumed`].
    ///
    /// A cache that keeps what it has during a disconnect, without serving it, must forget everything if this is `true`:
    ///
    /// ```
    /// use notifyman::notifier::{Missed, Reason};
    ///
    /// # struct Cache { serves: bool }
    /// # impl Cache { fn forget(&mut self) {} }
    /// fn handle(cache: &mut Cache, missed: &Missed<'_, u32>) {
    ///     if missed.is_loss() {
    ///         cache.forget();
    ///     }
    ///     cache.serves = !matches!(missed.reason(), Reason::Disconnected(_));
    /// }
    /// # let mut cache = Cache { serves: true };
    /// # let reason = Reason::Disconnected(notifyman::Error::Disconnected);
    /// # handle(&mut cache, &Missed::new(&7, "prices", &reason, 0));
    /// # assert!(!cache.serves);
    /// ```
    pub fn is_loss(&self) -> bool {
        self.has_loss
    }

    /// Returns `true` if an observer of the subscription knows already of all that may be missing: it was called when nothing was
    /// received, and when that ended.
    pub(crate) fn is_known_to_observer(&self) -> bool {
        let is_known = match self.reason {
            Reason::Disconnected(_) | Reason::Resumed(_) | Reason::Opened | Reason::Muted | Reason::Stopped => true,
            Reason::Restored(gap) => !matches!(gap.cause(), Error::Unregistered),
            Reason::Overflow | Reason::Unsubscribed | Reason::Lost(_) => false,
        };
        is_known && self.dropped == 0 && self.unreported.is_none()
    }

    /// Returns the number of notifications that the [`Policy`](crate::notifier::Policy) of the subscriber's queue dropped
    /// here, with those that had been folded into them.
    ///
    /// Notifications that were sent while the channel was not listened to are not counted: their number is unknown.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl MissedReport {
    pub(crate) fn new(reason: Reason, dropped: u64) -> Self {
        let has_loss = is_loss(&reason, dropped);
        Self { reason, dropped, unreported: None, has_loss }
    }

    pub(crate) fn missed<'a, I>(&'a self, id: &'a I, channel: &'a str) -> Missed<'a, I> {
        let unreported = self.unreported.as_ref();
        let MissedReport { reason, dropped, has_loss, .. } = self;
        Missed { id, channel, reason, dropped: *dropped, unreported, has_loss: *has_loss }
    }

    /// Adds a report that follows this one directly.
    pub(crate) fn merge(&mut self, mut later: MissedReport) {
        if let (Reason::Resumed(gap), true) = (&later.reason, self.has_loss) {
            // Since the loss was reported first, nothing is missing; but something is from before.
            return self.merge_resumed(gap.clone());
        }
        self.has_loss |= later.has_loss;
        let before = match &self.reason {
            Reason::Restored(gap) => Some(gap.clone()),
            _ => self.unreported.take(),
        };
        self.unreported = match (before, &mut later.reason) {
            (Some(before), Reason::Restored(after)) => {
                after.extend_back_to(&before);
                None
            }
            (before, _) => before,
        };
        self.reason = later.reason;
        self.dropped += later.dropped;
    }

    /// Adds the report that nothing more is missing.
    fn merge_resumed(&mut self, mut gap: Gap) {
        let earlier = match &self.reason {
            Reason::Restored(earlier) => Some(earlier),
            _ => self.unreported.as_ref(),
        };
        if let Some(earlier) = earlier {
            gap.extend_back_to(earlier);
        }
        // That gap stays unreported: an observer must still learn of it.
        self.unreported = earlier.cloned();
        self.reason = Reason::Restored(gap);
    }
}

/// Returns `true` if something may be missing by a report that no other has been added to.
fn is_loss(reason: &Reason, dropped: u64) -> bool {
    dropped > 0 || !matches!(reason, Reason::Disconnected(_) | Reason::Resumed(_))
}

#[cfg(test)]
impl MissedReport {
    pub(crate) fn reason(&self) -> &Reason {
        &self.reason
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl<I> fmt::Display for Missed<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Reason::Resumed(gap) = self.reason() {
            return write!(f, "nothing is missing, though nothing arrived for {:?}: {:#}", gap.duration(), gap.cause());
        }
        f.write_str("notifications may be missing: ")?;
        match self.reason() {
            Reason::Opened => f.write_str("the session was opened after the notifier's start")?,
            Reason::Disconnected(error) => write!(f, "the session was lost and is being restored: {error:#}")?,
            Reason::Restored(gap) | Reason::Resumed(gap) => {
                write!(f, "the channel was not listened to for {:?}: {:#}", gap.duration(), gap.cause())?;
            }
            Reason::Overflow => f.write_str("the subscriber is slower than its channels")?,
            Reason::Muted => f.write_str("the channel or the subscriber was muted")?,
            Reason::Stopped => f.write_str("the notifier was stopped")?,
            Reason::Unsubscribed => f.write_str("the subscriber was too slow, and has been unsubscribed")?,
            Reason::Lost(error) => write!(f, "the session is lost: {error:#}")?,
        }
        match self.dropped() {
            0 => Ok(()),
            dropped => write!(f, " ({dropped} dropped)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::*;
    use crate::gap::GapData;

    #[test]
    fn n07_two_restores_in_a_row_are_one_gap_from_the_first_loss_to_the_last_restore() {
        let start = (Instant::now(), SystemTime::now());
        let at = |seconds| (start.0 + Duration::from_secs(seconds), start.1 + Duration::from_secs(seconds));
        let restored = |since, until, epoch| {
            let (since, until) = (at(since), at(until));
            let span = GapData { channels: [].into(), cause: Error::Disconnected, since, until, epoch };
            MissedReport::new(Reason::Restored(span.into()), epoch)
        };
        let mut missed = restored(1, 2, 5);
        missed.merge(restored(7, 9, 6));
        assert_eq!(missed.dropped(), 11);
        let Reason::Restored(gap) = missed.reason() else { panic!("{missed:?}") };
        assert_eq!((gap.since(), gap.until(), gap.epoch()), (at(1).0, at(9).0, 6));
        assert_eq!((gap.since_wall(), gap.until_wall()), (at(1).1, at(9).1));
        let text = missed.missed(&1, "c").to_string();
        assert!(text.contains("8s") && text.contains("11 dropped"), "{text}");

        missed.merge(MissedReport::new(Reason::Muted, 0));
        assert!(matches!(missed.reason(), Reason::Muted), "the latest reason is reported");
    }

    #[test]
    fn n14_a_report_that_nothing_is_missing_hides_no_loss_before_it() {
        let gap = || Gap::new(["d"], Error::Disconnected, Duration::from_secs(1));
        let disconnected = || MissedReport::new(Reason::Disconnected(Error::Disconnected), 0);
        let merged = |first: MissedReport, mut then: MissedReport| {
            // As a stream's queue does, which keeps what has been delivered.
            let mut first = first.missed(&1, "c").to_report();
            then.merge(MissedReport::new(Reason::Resumed(gap()), 0));
            first.merge(then);
            first
        };
        let harmless = merged(disconnected(), disconnected());
        assert!(matches!(harmless.reason(), Reason::Resumed(_)));
        let missed = harmless.missed(&1, "c");
        assert!(!missed.is_loss() && missed.is_known_to_observer());
        assert!(missed.to_string().starts_with("nothing is missing"), "{missed}");
        assert!(!disconnected().missed(&1, "c").is_loss());
        let unregistered = Gap::new(["c"], Error::Unregistered, Duration::from_secs(5));
        for (reason, dropped, is_known) in [
            (Reason::Muted, 0, true),
            (Reason::Overflow, 3, false),
            (Reason::Restored(unregistered), 0, false),
            (Reason::Disconnected(Error::Disconnected), 3, false),
        ] {
            let mut first = MissedReport::new(reason.clone(), dropped);
            first.merge(disconnected());
            assert!(first.missed(&1, "c").is_loss(), "{reason:?}");
            let report = merged(first, disconnected());
            let missed = report.missed(&1, "c");
            assert!(matches!(missed.reason(), Reason::Restored(_)) && missed.is_loss(), "{reason:?}: {missed}");
            assert_eq!((missed.dropped(), missed.is_known_to_observer()), (dropped, is_known), "{reason:?}");
        }
    }
}
