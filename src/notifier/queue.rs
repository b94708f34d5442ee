//! The limits of a subscriber's queue, and the policy for a subscriber that is too slow.

use crate::config::named;

/// Limits for the notifications that wait for a subscriber, and a policy for a subscriber that is slower than its channels.
///
/// A notification counts with its channel, its payload and 64 bytes. Dropped notifications are counted
/// ([`NotifierStats::dropped`](crate::notifier::NotifierStats::dropped)), and reported to the subscriber by
/// [`Delivery::Missed`](crate::notifier::Delivery::Missed).
///
/// The limits are for one subscriber over all of its channels. The notifications themselves are stored once for each channel. While
/// all [workers](crate::notifier::NotifierBuilder::workers) are busy, a channel keeps as many of them as the largest queue of its
/// subscribers has room for, and up to 1,023 more. So n channels may keep n times as many, even for one subscriber.
///
/// ```
/// use notifyman::notifier::{Policy, Queue};
///
/// let queue = Queue::new(Policy::Coalesce).items(1_000).bytes(1 << 20);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    pub(crate) policy: Policy,
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

/// The action when a subscriber's [`Queue`] has no room for a notification.
///
/// ```
/// # fn main() -> Result<(), notifyman::Error> {
/// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
/// use notifyman::notifier::{Policy, Queue};
///
/// # n.subscribe(7, "prices", |_| ())?;
/// # n.subscribe(8, "prices", |_| ())?;
/// // A cache, which needs each key once.
/// n.set_queue(&7, Queue::new(Policy::Coalesce))?;
/// // A client that must keep up.
/// n.set_queue(&8, Queue::new(Policy::Disconnect).items(100))?;
/// # assert_eq!(Policy::DropOldest.to_string(), "drop-oldest");
/// let configured: Policy = "coalesce".parse().unwrap();
/// assert_eq!(configured, Policy::Coalesce);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Policy {
    /// Drops the oldest notifications, and reports that in their place.
    #[default]
    DropOldest,
    /// Drops the new notification, and reports that in its place.
    DropNewest,
    /// Folds waiting notifications of the same channel and payload into the latest one, even if the queue is not full; if
    /// that is not enough, drops the oldest. For cache invalidation: a slow subscriber receives each key once. (A
    /// [`Batcher`](super::Batcher), which sends, folds into the first one.)
    Coalesce,
    /// Unsubscribes the subscriber from everything. It still receives what waits, and a report at the end.
    Disconnect,
}

named!(Policy { DropOldest: "drop-oldest", DropNewest: "drop-newest", Coalesce: "coalesce", Disconnect: "disconnect" });

impl Queue {
    /// Creates a queue of 10,000 notifications or 16 MiB, whichever is reached first.
    pub fn new(policy: Policy) -> Self {
        Self { policy, items: 10_000, bytes: 16 << 20 }
    }

    /// Sets the number of notifications that may wait, which is at least one. Up to 8 more are being handed out to a subscriber
    /// whose calls are quick.
    #[must_use]
    pub fn items(mut self, items: usize) -> Self {
        self.items = items.max(1);
        self
    }

    /// Sets the number of bytes that may wait. One notification takes at most 8,126 in a UTF8 database.
    #[must_use]
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}
