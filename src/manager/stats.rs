//! Counters of a manager: one thread counts, any may read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a manager has done so far, and what it holds now.
///
/// Reading it costs a few loads. The numbers are each true, and taken one after the other.
///
/// ```
/// let nm = notifyman::NotificationManager::new([]);
/// assert_eq!(nm.stats().connections, 0);
/// assert_eq!(nm.handle().stats().notifications, 0);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Good connections, now.
    pub connections: u64,
    /// Connections being restored, now.
    pub restoring: u64,
    /// Dead connections in the garbage, now.
    pub garbage: u64,
    /// Connections whose transaction has been open for over a second, now: they receive nothing.
    pub in_transaction: u64,
    /// Notifications handed out.
    pub notifications: u64,
    /// Bytes read from all servers.
    pub bytes: u64,
    /// Turns of the loop: looks at the sockets.
    pub turns: u64,
    /// Sockets found ready.
    pub wakeups: u64,
    /// Connections lost.
    pub losses: u64,
    /// Connections restored.
    pub restores: u64,
    /// Gaps told.
    pub gaps: u64,
    /// How long the latest [canary](crate::NotificationManager::canary) took to whom heard it last, in microseconds, from
    /// its sending; nothing yet: 0.
    pub canary_micros: u64,
    /// Connections lost because nothing was delivered to them, though their servers answered.
    pub deaf: u64,
    /// Checks of delivery (canary or audit) that servers have refused: see
    /// [`Event::CheckRefused`](crate::Event::CheckRefused).
    pub checks_refused: u64,
    /// Registrations that servers had forgotten, as [audits](crate::NotificationManager::audit) found: channels.
    pub unregistered: u64,
}

macro_rules! counters {
    ($($name:ident),*) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.0.load(Relaxed),)* }
            }
        }
    };
}

counters!(
    connections,
    restoring,
    garbage,
    in_transaction,
    notifications,
    bytes,
    turns,
    wakeups,
    losses,
    restores,
    gaps,
    canary_micros,
    deaf,
    checks_refused,
    unregistered
);

/// A number that one thread writes.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, n: usize) {
        // One writer: a load and a store cost less than a locked addition.
        self.0.store(self.0.load(Relaxed).wrapping_add(n as u64), Relaxed);
    }

    pub(crate) fn set(&self, n: usize) {
        self.0.store(n as u64, Relaxed);
    }
}
