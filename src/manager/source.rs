//! Sources of a manager's events that are no manager.

use std::time::Duration;

use crate::error::Error;
use crate::manager::conn_id::ConnId;
use crate::manager::event::Event;

/// A source of the events of a [`NotificationManager`](crate::NotificationManager) that listens to nothing itself: it passes on what
/// something else has received. [`Notifier::over`](crate::Notifier::over) takes one in the place of a database.
///
/// A source has a fixed number of connections. What each of them carries is decided elsewhere, so nothing is listened to, and
/// nothing is sent. The events of a connection mean what those of a manager mean, and have the same order:
///
/// - [`Event::Opened`] first. From then on its channels are known.
/// - [`Event::Disconnected`] when it may be that nothing is received, also if the first attempt to receive has failed, and
///   [`Event::Restored`] when that is over. If the gap has no channels, nothing was missed.
/// - [`Event::Restored`] with the affected channels wherever notifications may be missing, before every later notification.
/// - [`Event::Unlistened`] when channels are no longer carried. After channels have been added, [`Event::Restored`] with a gap without
///   channels.
/// - [`Event::CanaryReceived`] only for a time before which everything that was committed has been returned, or is covered by a gap.
/// - [`Event::Lost`] at the end, if trying again cannot help.
///
/// ```
/// use std::sync::mpsc::{Receiver, Sender, channel};
/// use std::time::Duration;
/// use notifyman::{Batch, ConnId, Error, Event, EventSource};
/// use notifyman::{Notification, Notifier};
///
/// /// A source for tests: its events are those that are sent to it.
/// struct Script {
///     id: ConnId,
///     stop: Sender<Option<Event>>,
///     events: Receiver<Option<Event>>,
///     is_open: bool,
/// }
///
/// impl EventSource for Script {
///     fn connections(&self) -> Vec<ConnId> {
///         vec![self.id]
///     }
///     fn start(&mut self) -> Result<(), Error> {
///         Ok(())
///     }
///     fn next_event(&mut self) -> Option<Event> {
///         let event = self.events.recv().ok().flatten();
///         self.is_open |= matches!(event, Some(Event::Opened(_)));
///         event
///     }
///     fn channels(&self, _: ConnId) -> Option<Vec<Box<str>>> {
///         self.is_open.then(|| vec!["prices".into()])
///     }
///     fn set_timeout(&mut self, _: Option<Duration>) {}
///     fn stopper(&self) -> Box<dyn Fn() + Send + Sync> {
///         let stop = self.stop.clone();
///         Box::new(move || drop(stop.send(None)))
///     }
/// }
///
/// # fn main() -> Result<(), Error> {
/// let (sender, events) = channel();
/// let id = ConnId::of_source(1, "berlin");
/// let script = Script { id, stop: sender.clone(), events, is_open: false };
/// let send = |event| sender.send(Some(event)).unwrap();
///
/// send(Event::Opened(id));
/// let n = Notifier::over(script).start()?;
/// # let (seen, received) = channel();
/// n.subscribe("cache", "prices", move |delivery| {
///     println!("{delivery}"); // prints "prices: 42"
/// #   seen.send(delivery.to_string()).unwrap();
/// })?;
/// let batch: Batch = [Notification::new("prices", "42", 1)].into_iter().collect();
/// send(Event::Notifies(id, batch));
/// # assert_eq!(received.recv().unwrap(), "prices: 42");
/// # Ok(()) }
/// ```
pub trait EventSource: Send + 'static {
    /// Returns the connections, each of which is like one to a database. They are always the same, in the same order.
    fn connections(&self) -> Vec<ConnId>;

    /// Begins to receive, also after an end. Does not wait for the network: an event of each connection reports the result.
    ///
    /// # Errors
    ///
    /// The reason why the source cannot be started at all.
    fn start(&mut self) -> Result<(), Error>;

    /// Returns the next event, and waits for it. `None` is the end, after a [stop](Self::stopper).
    fn next_event(&mut self) -> Option<Event>;

    /// Returns the channels that a connection carries, or `None` unless it is open: both according to the events that have been
    /// returned, and not to any that wait.
    fn channels(&self, conn: ConnId) -> Option<Vec<Box<str>>>;

    /// Sets the time after which [`Event::Idle`] is returned: see
    /// [`NotificationManager::timeout`](crate::NotificationManager::timeout).
    fn set_timeout(&mut self, timeout: Option<Duration>);

    /// Returns a function that stops the source from any thread: [`next_event`](Self::next_event) then returns `None` immediately, also
    /// if it waits. One that is called while the source is not running stops nothing later.
    fn stopper(&self) -> Box<dyn Fn() + Send + Sync>;
}
