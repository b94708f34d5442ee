//! What a callback gets.

use std::fmt;

use crate::notification::Notification;
use crate::notifier::missed::Missed;
use crate::notifier::payload::Payload;

/// What a callback is called with: a notification, or the word that some [may be missing](Missed).
///
/// ```
/// use notifyman::notifier::{Delivery, Id};
///
/// fn print(n: &Delivery<'_, Id>) {
///     match n.missed() {
///         None => println!("{} {} {} {}", n.id(), n.channel(), n.payload(), n.pid()),
///         Some(missed) => println!("{} {}: {missed}", n.id(), n.channel()),
///     }
/// }
/// ```
pub struct Delivery<'a, I> {
    pub(crate) id: &'a I,
    pub(crate) channel: &'a str,
    pub(crate) what: What<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum What<'a> {
    Heard(&'a Notification, u64),
    Missed(&'a Missed),
}

impl<'a, I> Delivery<'a, I> {
    /// The subscriber's id.
    pub fn id(&self) -> &'a I {
        self.id
    }

    /// The channel that was subscribed to.
    pub fn channel(&self) -> &'a str {
        self.channel
    }

    /// What was notified. Empty where there is no notification but something [`missed`](Self::missed).
    pub fn payload(&self) -> Payload<'a> {
        match self.what {
            What::Heard(n, _) => Payload::new(n.payload_bytes()),
            What::Missed(_) => Payload::new(b""),
        }
    }

    /// The server's process for the session that notified; 0 where there is no notification.
    pub fn pid(&self) -> i32 {
        match self.what {
            What::Heard(n, _) => n.pid(),
            What::Missed(_) => 0,
        }
    }

    /// How many equal notifications were folded into this one, by
    /// [`Policy::Coalesce`](crate::notifier::Policy::Coalesce).
    pub fn folded(&self) -> u64 {
        match self.what {
            What::Heard(_, folded) => folded,
            What::Missed(_) => 0,
        }
    }

    /// What may be missing here, in which case there is no notification.
    pub fn missed(&self) -> Option<&'a Missed> {
        match self.what {
            What::Heard(..) => None,
            What::Missed(missed) => Some(missed),
        }
    }
}

impl<I: fmt::Debug> fmt::Debug for Delivery<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", self.id)
            .field("channel", &self.channel)
            .field("what", &self.what)
            .finish()
    }
}
