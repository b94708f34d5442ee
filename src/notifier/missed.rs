//! What a subscriber is told where notifications may be missing.

use std::fmt;

use crate::error::Error;
use crate::gap::Gap;

/// Notifications of a channel may be missing here: whatever the channel guards must be read again.
///
/// The call comes in order: after all notifications received before, and before all later ones. Unless the reason says
/// that nothing arrives, the channel is already listened to again, so reading it now misses nothing.
/// [`Reason::Disconnected`] is reported when the session is lost: a cache can stop serving until the next call.
///
/// ```
/// use notifyman::notifier::{Delivery, Id};
///
/// # fn flush(_: &str) {}
/// fn invalidate(n: &Delivery<'_, Id>) {
///     match n.missed() {
///         Some(missed) => {
///             println!("on {}: {missed}", n.channel());
///             flush("everything");
///         }
///         None => flush(&n.payload().text()),
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Missed {
    reason: Reason,
    dropped: u64,
    /// A gap that had not been reported when the session was lost again.
    unreported: Option<Gap>,
}

/// Why notifications are [missing](Missed).
///
/// ```
/// use notifyman::notifier::{Missed, Reason};
///
/// /// Returns `true` if the subscriber itself is too slow.
/// fn is_too_slow(missed: &Missed) -> bool {
///     matches!(missed.reason(), Reason::Overflow | Reason::Unsubscribed)
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
    /// The subscriber or the channel was muted, and is so no more.
    Muted,
    /// The notifier was stopped, and has been started again.
    Stopped,
    /// The subscriber was unsubscribed from everything, because its queue was full. Nothing arrives any more.
    Unsubscribed,
    /// The session is lost and is not opened again. Nothing arrives until the notifier is restarted.
    Lost(Error),
}

impl Missed {
    pub(crate) fn new(reason: Reason, dropped: u64) -> Self {
        Self { reason, dropped, unreported: None }
    }

    /// Why. Where there were several reasons in a row, the latest.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// How many notifications were dropped here, by the [`Policy`](crate::notifier::Policy) of the subscriber's queue.
    /// What was sent while nobody listened isn't counted: that nobody knows.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Another one comes right after this.
    pub(crate) fn merge(&mut self, mut later: Missed) {
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

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("notifications may be missing: ")?;
        match &self.reason {
            Reason::Opened => f.write_str("the session was opened after the notifier's start")?,
            Reason::Disconnected(error) => write!(f, "the session was lost and is being restored: {error}")?,
            Reason::Restored(gap) => {
                write!(f, "nobody listened for {:?}, because {}", gap.duration(), gap.cause())?;
            }
            Reason::Overflow => f.write_str("the subscriber is slower than its channels")?,
            Reason::Muted => f.write_str("the channel or the subscriber was muted")?,
            Reason::Stopped => f.write_str("the notifier was stopped")?,
            Reason::Unsubscribed => f.write_str("the subscriber was too slow, and has been unsubscribed")?,
            Reason::Lost(error) => write!(f, "the session is lost: {error}")?,
        }
        match self.dropped {
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
            Missed::new(Reason::Restored(span.into()), epoch)
        };
        let mut missed = restored(1, 2, 5);
        missed.merge(restored(7, 9, 6));
        assert_eq!(missed.dropped(), 11);
        let Reason::Restored(gap) = missed.reason() else { panic!("{missed}") };
        assert_eq!((gap.since(), gap.until(), gap.epoch()), (at(1).0, at(9).0, 6));
        assert_eq!((gap.since_wall(), gap.until_wall()), (at(1).1, at(9).1));
        assert!(missed.to_string().contains("8s") && missed.to_string().contains("11 dropped"), "{missed}");

        missed.merge(Missed::new(Reason::Muted, 0));
        assert!(matches!(missed.reason(), Reason::Muted), "the latest reason is reported");
    }
}
