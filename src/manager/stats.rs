//! The counters of a manager. The thread of the loop writes them, and any thread may read them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Declares [`Stats`], and the counters that they are read from.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of a manager: what it has done so far, and what it holds now.
        ///
        /// Reading them costs a few loads. The values are read one after the other, so they need not be of the same moment.
        ///
        /// ```
        /// let nm = notifyman::NotificationManager::new([]);
        /// assert_eq!(nm.stats().connections, 0);
        /// assert_eq!(nm.handle().stats().notifications, 0);
        /// ```
        ///
        /// With the feature `json`, they can be serialized: each counter under its name.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "json", derive(serde::Serialize))]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Time from the sending of the latest [canary](crate::NotificationManager::canary) until the last connection
            /// received it; `None` before the first one. In JSON, `canary_micros` in microseconds.
            #[cfg_attr(feature = "json", serde(rename = "canary_micros", serialize_with = "serialize_micros"))]
            pub canary_time: Option<Duration>,
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
            /// In nanoseconds; 0 for none.
            pub(crate) canary_time: Counter,
        }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                let canary_time = Some(self.canary_time.0.load(Relaxed)).filter(|nanos| *nanos > 0);
                Stats { $($name: self.$name.0.load(Relaxed),)* canary_time: canary_time.map(Duration::from_nanos) }
            }
        }
    };
}

counters! {
    /// Live connections, now.
    connections,
    /// Connections being restored, now.
    restoring,
    /// Lost connections in the garbage, now.
    garbage,
    /// Connections whose transaction has been open for more than a second, now. They receive nothing until it ends.
    in_transaction,
    /// Notifications delivered.
    notifications,
    /// Bytes read from all servers.
    bytes,
    /// Turns of the loop (see [`NotificationManager`](crate::NotificationManager#iteration)).
    turns,
    /// Sockets found ready.
    wakeups,
    /// Connections lost.
    losses,
    /// Connections restored.
    restores,
    /// Gaps reported.
    gaps,
    /// Connections lost because the server delivered no notifications to them, although it answered requests.
    not_delivering,
    /// Checks of delivery (canary or audit) that servers have refused: see
    /// [`Event::CheckRefused`](crate::Event::CheckRefused).
    checks_refused,
    /// Channels that servers no longer listened to, as [audits](crate::NotificationManager::audit) have found.
    unregistered,
}

#[cfg(feature = "json")]
fn serialize_micros<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)), serializer)
}

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

#[cfg(all(test, feature = "json"))]
mod tests {
    use super::*;

    #[test]
    fn m12_counters_are_serialized_under_their_names() {
        let counters = Counters::default();
        counters.losses.add(2);
        let json = serde_json::to_value(counters.read()).unwrap();
        assert_eq!((&json["losses"], &json["connections"]), (&2.into(), &0.into()));
        assert_eq!(json["canary_micros"], serde_json::Value::Null);
        counters.canary_time.set(1_500_000);
        assert_eq!(serde_json::to_value(counters.read()).unwrap()["canary_micros"], 1500);
    }
}
