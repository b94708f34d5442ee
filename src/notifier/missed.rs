//! What a subscriber is told where notifications may be missing.

use std::fmt;

use crate::error::Error;
use crate::gap::Gap;

/// Notifications of a channel may be missing here: whatever the channel guards is to be read afresh.
///
/// It comes in order, after all that was heard before and before all that is heard later, and only once the channel is
/// listened to again: read afresh when it comes, and nothing is missed.
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
}

/// Why notifications are [missing](Missed).
///
/// ```
/// use notifyman::notifier::{Missed, Reason};
///
/// /// Whether the subscriber itself is too slow.
/// fn is_our_fault(missed: &Missed) -> bool {
///     matches!(missed.reason(), Reason::Overflow | Reason::Disconnected)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Reason {
    /// The session was lost, and is back: see the gap.
    Restored(Gap),
    /// The subscriber's [`Queue`](crate::notifier::Queue) was full.
    Overflow,
    /// The subscriber or the channel was muted, and is so no more.
    Muted,
    /// The notifier was stopped, and has been started again.
    Stopped,
    /// The subscriber was unsubscribed from everything, because its queue was full. Nothing more comes.
    Disconnected,
    /// The session is lost and can't be opened again. Nothing more comes until the notifier is restarted.
    Lost(Error),
}

impl Missed {
    pub(crate) fn new(reason: Reason, dropped: u64) -> Self {
        Self { reason, dropped }
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
        if let (Reason::Restored(before), Reason::Restored(after)) = (&self.reason, &mut later.reason) {
            after.begin_with(before);
        }
        self.reason = later.reason;
        self.dropped += later.dropped;
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("notifications may be missing: ")?;
        match &self.reason {
            Reason::Restored(gap) => {
                write!(f, "nobody listened for {:?}, because {}", gap.duration(), gap.cause())?;
            }
            Reason::Overflow => f.write_str("the subscriber is slower than its channels")?,
            Reason::Muted => f.write_str("the channel or the subscriber was muted")?,
            Reason::Stopped => f.write_str("the notifier was stopped")?,
            Reason::Disconnected => f.write_str("the subscriber was too slow, and is unsubscribed")?,
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
    use crate::gap::Span;

    #[test]
    fn n07_two_restores_in_a_row_are_one_gap_from_the_first_loss_to_the_last_restore() {
        let start = (Instant::now(), SystemTime::now());
        let at = |seconds| (start.0 + Duration::from_secs(seconds), start.1 + Duration::from_secs(seconds));
        let restored = |since, until, epoch| {
            let (since, until) = (at(since), at(until));
            let span = Span { channels: [].into(), cause: Error::Disconnected, since, until, epoch };
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
