//! Reports that notifications may be missing.

use std::fmt;

use crate::error::Error;
use crate::gap::Gap;

/// A report that notifications of a channel may be missing, in
/// [`Delivery::Missed`](crate::notifier::Delivery::Missed): whatever depends on the channel must be read again.
///
/// The call comes in order: after all notifications received before, and before all later ones. Unless the reason says
/// that nothing arrives, the channel is already listened to again, so reading it now misses nothing.
/// [`Reason::Disconnected`] is reported when the session is lost: a cache can stop serving until the next call.
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
}

/// A report in a subscriber's queue.
#[derive(Debug, Clone)]
pub(crate) struct MissedReport {
    reason: Reason,
    dropped: u64,
    /// A gap that had not been reported when the session was lost again.
    unreported: Option<Gap>,
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
        Self { id, channel, reason, dropped, unreported: None }
    }

    pub(crate) fn to_report(&self) -> MissedReport {
        let unreported = self.unreported.cloned();
        MissedReport { reason: self.reason.clone(), dropped: self.dropped, unreported }
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

    /// Returns `true` if an observer of the subscription knows already of all that may be missing: it was called when nothing was
    /// received, and when that ended.
    pub(crate) fn is_known_to_observer(&self) -> bool {
        let is_known = match self.reason {
            Reason::Disconnected(_) | Reason::Opened | Reason::Muted | Reason::Stopped => true,
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
        Self { reason, dropped, unreported: None }
    }

    pub(crate) fn missed<'a, I>(&'a self, id: &'a I, channel: &'a str) -> Missed<'a, I> {
        let unreported = self.unreported.as_ref();
        Missed { id, channel, reason: &self.reason, dropped: self.dropped, unreported }
    }

    /// Adds a report that follows this one directly.
    pub(crate) fn merge(&mut self, mut later: MissedReport) {
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
        f.write_str("notifications may be missing: ")?;
        match self.reason() {
            Reason::Opened => f.write_str("the session was opened after the notifier's start")?,
            Reason::Disconnected(error) => write!(f, "the session was lost and is being restored: {error:#}")?,
            Reason::Restored(gap) => {
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
}
