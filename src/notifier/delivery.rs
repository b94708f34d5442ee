//! The argument of a callback.

mod owned;

use std::fmt;

pub use self::owned::{OwnedDelivery, OwnedMissed, OwnedNotification};
use crate::notification::{Notification, NotificationRef};
use crate::notifier::missed::{Missed, MissedReport};
use crate::notifier::payload::Payload;

/// A call of a callback: a notification, or a report that notifications may be missing.
///
/// ```
/// use notifyman::notifier::{Delivery, Id};
///
/// fn print(delivery: &Delivery<'_, Id>) {
///     match delivery {
///         Delivery::Notification(n) => println!(
///             "{} {} {} {}",
///             n.id(),
///             n.channel(),
///             n.payload(),
///             n.pid()
///         ),
///         Delivery::Missed(missed) => {
///             println!("{} {}: {missed}", missed.id(), missed.channel())
///         }
///     }
/// }
/// ```
///
/// A callback that needs only notifications says so: `if let Delivery::Notification(n) = delivery`. As text, a delivery is
/// the channel, and the payload or the report:
///
/// ```
/// # fn main() -> Result<(), notifyman::Error> {
/// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
/// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub enum Delivery<'a, I> {
    /// A notification was received.
    Notification(DeliveredNotification<'a, I>),
    /// Notifications of the channel may be missing: whatever depends on them must be read again.
    Missed(Missed<'a, I>),
}

/// A notification for one subscriber, in [`Delivery::Notification`].
#[derive(Debug)]
pub struct DeliveredNotification<'a, I> {
    id: &'a I,
    channel: &'a str,
    notification: NotificationRef<'a>,
    folded: u64,
}

impl<'a, I> Delivery<'a, I> {
    pub(crate) fn notification(id: &'a I, channel: &'a str, notification: NotificationRef<'a>, folded: u64) -> Self {
        Self::Notification(DeliveredNotification { id, channel, notification, folded })
    }

    pub(crate) fn missed(id: &'a I, channel: &'a str, report: &'a MissedReport) -> Self {
        Self::Missed(report.missed(id, channel))
    }

    /// Returns the id of the subscriber.
    pub fn id(&self) -> &'a I {
        match self {
            Self::Notification(n) => n.id(),
            Self::Missed(missed) => missed.id(),
        }
    }

    /// Returns the channel that was subscribed to.
    pub fn channel(&self) -> &'a str {
        match self {
            Self::Notification(n) => n.channel(),
            Self::Missed(missed) => missed.channel(),
        }
    }

    /// Creates a copy, without the id, that can be kept and sent to another thread: see [`OwnedDelivery`].
    pub fn to_owned(&self) -> OwnedDelivery {
        match self {
            Self::Notification(n) => OwnedDelivery::notification(n.channel.into(), n.notification.to_owned(), n.folded),
            Self::Missed(missed) => OwnedDelivery::missed(missed.channel().into(), missed.to_report()),
        }
    }
}

impl<'a, I> DeliveredNotification<'a, I> {
    /// Creates a delivery of a notification, for tests of callbacks. An invalid channel name becomes an empty one.
    ///
    /// ```
    /// use notifyman::Notification;
    /// use notifyman::notifier::{DeliveredNotification, Delivery};
    ///
    /// fn key(delivery: &Delivery<'_, u32>) -> Option<String> {
    ///     match delivery {
    ///         Delivery::Notification(n) => Some(n.payload().text().into_owned()),
    ///         Delivery::Missed(_) => None,
    ///     }
    /// }
    ///
    /// let sent = Notification::new("prices", "42", 1234);
    /// let delivery = Delivery::Notification(DeliveredNotification::new(&7, &sent));
    /// assert_eq!(key(&delivery).as_deref(), Some("42"));
    /// ```
    pub fn new(id: &'a I, notification: &'a Notification) -> Self {
        let notification = notification.as_ref();
        let channel = std::str::from_utf8(notification.channel_bytes()).unwrap_or_default();
        Self { id, channel, notification, folded: 0 }
    }

    /// Returns the id of the subscriber.
    pub fn id(&self) -> &'a I {
        self.id
    }

    /// Returns the channel that was subscribed to.
    pub fn channel(&self) -> &'a str {
        self.channel
    }

    pub(crate) fn notification(&self) -> NotificationRef<'a> {
        self.notification
    }

    /// Returns the payload, which is empty if there was none.
    pub fn payload(&self) -> Payload<'a> {
        Payload::new(self.notification.payload_bytes())
    }

    /// Returns the process ID of the server process whose session sent the notification.
    pub fn pid(&self) -> i32 {
        self.notification.pid()
    }

    /// Returns the number of equal notifications that
    /// [`Policy::Coalesce`](crate::notifier::Policy::Coalesce) folded into this one.
    pub fn folded(&self) -> u64 {
        self.folded
    }
}

impl<I> fmt::Display for Delivery<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Notification(n) => write!(f, "{}: {}", n.channel(), n.payload()),
            Self::Missed(missed) => write!(f, "{}: {missed}", missed.channel()),
        }
    }
}
