//! The events of a manager.

use std::sync::Arc;
use std::time::Instant;

use crate::config::named;
use crate::error::Error;
use crate::gap::Gap;
use crate::manager::conn_id::ConnId;
use crate::notification::Batch;

/// An event of a manager: see [`NotificationManager::next_event`](crate::NotificationManager::next_event).
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The timeout has passed since the last idle event. Everything received before has been yielded.
    Idle,
    /// The notifications that one connection has received, in the server's order; never empty.
    Notifies(ConnId, Batch),
    /// A connection that was [dialled](crate::NotificationManager::dial) is open, and listens.
    Opened(ConnId),
    /// A connection was lost, or the first attempt to open it has failed, for this reason. It is being restored:
    /// [`Restored`](Self::Restored), [`Opened`](Self::Opened) or [`Lost`](Self::Lost) follows. Reported only with
    /// [`reconnect`](crate::NotificationManager::reconnect).
    #[doc(alias = "ListenerEventDisconnected")]
    Disconnected(ConnId, Error),
    /// A connection is restored, or listens again to channels that its server had forgotten. The gap says what may have been
    /// missed; it comes before every notification received since. In a stream of the manager (feature `stream`) also
    /// notifications that were dropped because the program was too slow: [`Error::TooSlow`].
    ///
    /// If the gap has no channels, nothing was missed: `for channel in gap.channels() { flush(channel) }` is right in every case. A
    /// manager reports such a gap only for a connection without channels; an [`EventSource`](crate::EventSource) also after a
    /// silence that turned out to be harmless, and when it carries further channels.
    #[doc(alias = "ListenerEventReconnected")]
    Restored(ConnId, Gap),
    /// A connection was lost for good, or could not be opened or restored, for this reason. It is in the
    /// [garbage](crate::NotificationManager::garbage).
    Lost(ConnId, Error),
    /// A connection's transaction has been open for more than a second. Until it ends, the server delivers nothing.
    InTransaction(ConnId),
    /// The server has refused a check of delivery, with this error: until the session ends, faults that only this check
    /// finds remain unnoticed. Reported once for each session and check.
    CheckRefused(ConnId, Check, Error),
    /// A connection has received the [canary](crate::NotificationManager::canary) that was sent at this time: everything that
    /// was committed in its database before, and notifies its channels, has been yielded, or is covered by a reported gap.
    /// Reported only with [`report_canaries`](crate::NotificationManager::report_canaries).
    CanaryReceived(ConnId, Instant),
    /// A connection does not listen to these channels any more, however that was requested, or was
    /// [removed](crate::NotificationManager::remove). It comes before everything that was received since. While the connection is being
    /// restored, the channels are those of the request.
    Unlistened(ConnId, Arc<[Box<str>]>),
}

/// A check of delivery: see [`Event::CheckRefused`].
///
/// ```
/// use notifyman::Check;
///
/// assert_eq!(Check::Audit.to_string(), "audit");
/// assert_eq!("canary".parse(), Ok(Check::Canary));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Check {
    /// The [canary](crate::NotificationManager::canary).
    Canary,
    /// The [audit](crate::NotificationManager::audit), also after a canary that did not arrive.
    Audit,
}

named!(Check { Canary: "canary", Audit: "audit" });
