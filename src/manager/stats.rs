//! The counters of a manager. The thread of the loop writes them, and any thread may read them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of a manager: what it has done so far, and what it holds now.
///
/// Reading them costs a few loads. The values are read one after the other, so they need not be of the same moment.
///
/// ```
/// let nm = notifyman::NotificationManager::new([]);
/// assert_eq!(nm.stats().connections, 0);
/// assert_eq!(nm.handle().stats().notifications, 0);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Live connections, now.
    pub connections: u64,
    /// Connections being restored, now.
    pub restoring: u64,
    /// Lost connections in the garbage, now.
    pub garbage: u64,
    /// Connections whose transaction has been open for more than a second, now. They receive nothing until it ends.
    pub in_transaction: u64,
    /// Notifications delivered.
    pub notifications: u64,
    /// Bytes read from all servers.
    pub bytes: u64,
    /// Turns of the loop (see [`NotificationManager`](crate::NotificationManager#iteration)).
    pub turns: u64,
    /// Sockets found ready.
    pub wakeups: u64,
    /// Connections lost.
    pub losses: u64,
    /// Connections restored.
    pub restores: u64,
    /// Gaps reported.
    pub gaps: u64,
    /// Time from the sending of the latest [canary](crate::NotificationManager::canary) until the last connection received
    /// it, in microseconds; 0 before the first one.
    pub canary_micros: u64,
    /// Connections lost because the server delivered no notifications to them, although it answered requests.
    pub not_delivering: u64,
    /// Checks of delivery (canary or audit) that servers have refused: see
    /// [`Event::CheckRefused`](crate::Event::CheckRefused).
    pub checks_refused: u64,
    /// Channels that servers no longer listened to, as [audits](crate::NotificationManager::audit) have found.
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
    not_delivering,
    checks_refused,
    unregistered
);

/// A counter that one thread writes.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, n: usize) {
        // There is one writer, and a load and a store cost less than an atomic addition.
        self.0.store(self.0.load(Relaxed).wrapping_add(n as u64), Relaxed);
    }

    pub(crate) fn set(&self, n: usize) {
        self.0.store(n as u64, Relaxed);
    }
}
