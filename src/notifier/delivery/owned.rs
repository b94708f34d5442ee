//! Deliveries that own their contents.

use std::fmt;
use std::sync::Arc;

use crate::notification::Notification;
use crate::notifier::missed::{Missed, MissedReport, Reason};
use crate::notifier::payload::Payload;

/// A [`Delivery`](crate::notifier::Delivery) that can be kept, cloned and sent to another thread: made by
/// [`Delivery::to_owned`](crate::notifier::Delivery::to_owned), and the item of a stream.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// # fn main() -> Result<(), notifyman::Error> {
/// # let conf = database();
/// use notifyman::Notifier;
/// use notifyman::notifier::OwnedDelivery;
///
/// let n: Notifier<u32> = Notifier::new(conf)?;
/// let (sender, receiver) = std::sync::mpsc::channel();
/// n.subscribe(7, "prices", move |delivery| {
///     let _ = sender.send(delivery.to_owned());
/// })?;
/// # n.notify("prices", "42");
/// match receiver.recv() {
///     Ok(OwnedDelivery::Notification(n)) => println!("{}", n.payload()),
///     Ok(OwnedDelivery::Missed(missed)) => println!("read again: {missed}"),
///     Err(_) => println!("unsubscribed"),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub enum OwnedDelivery {
    /// A notification was received.
    Notification(OwnedNotification),
    /// Notifications of the channel may be missing: whatever depends on them must be read again.
    Missed(OwnedMissed),
}

/// A notification for one subscriber, in [`OwnedDelivery::Notification`].
#[derive(Debug, Clone)]
pub struct OwnedNotification {
    channel: Arc<str>,
    notification: Notification,
    folded: u64,
}

/// A report that notifications of a channel may be missing, in [`OwnedDelivery::Missed`]; see
/// [`Missed`].
#[derive(Debug, Clone)]
pub struct OwnedMissed {
    channel: Arc<str>,
    report: MissedReport,
}

impl OwnedDelivery {
    pub(crate) fn notification(channel: Arc<str>, notification: Notification, folded: u64) -> Self {
        Self::Notification(OwnedNotification { channel, notification, folded })
    }

    pub(crate) fn missed(channel: Arc<str>, report: MissedReport) -> Self {
        Self::Missed(OwnedMissed { channel, report })
    }

    /// Returns the channel that was subscribed to.
    pub fn channel(&self) -> &str {
        match self {
            Self::Notification(n) => n.channel(),
            Self::Missed(missed) => missed.channel(),
        }
    }
}

impl OwnedNotification {
    /// Returns the channel that was subscribed to.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Returns the payload, which is empty if there was none.
    pub fn payload(&self) -> Payload<'_> {
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

impl OwnedMissed {
    /// Returns the channel that was subscribed to.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Returns the reason: the latest one, if there were several in a row.
    pub fn reason(&self) -> &Reason {
        self.borrowed().reason()
    }

    /// Returns the number of notifications that the queue's policy dropped here: see
    /// [`Missed::dropped`](crate::notifier::Missed::dropped).
    pub fn dropped(&self) -> u64 {
        self.borrowed().dropped()
    }

    /// Returns `true` if something may be missing already: see [`Missed::is_loss`](crate::notifier::Missed::is_loss).
    pub fn is_loss(&self) -> bool {
        self.borrowed().is_loss()
    }

    fn borrowed(&self) -> Missed<'_, ()> {
        self.report.missed(&(), &self.channel)
    }
}

impl fmt::Display for OwnedDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Notification(n) => write!(f, "{}: {}", n.channel(), n.payload()),
            Self::Missed(missed) => write!(f, "{}: {missed}", missed.channel()),
        }
    }
}

impl fmt::Display for OwnedMissed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrowed().fmt(f)
    }
}
