//! Control of a running manager from any thread.
//!
//! A call puts a message into a queue and wakes the poll. The loop runs the message between two events.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::Config;
use crate::connection::{Connection, Linked as _};
use crate::error::{Error, ErrorWith};
use crate::manager::command::{Command, ControlMessage, RequestTicket, checked_dial};
use crate::manager::conn_id::ConnId;
use crate::manager::dead::Dead;
use crate::manager::stats::{Counters, Stats};
use crate::net::PollWaker;
use crate::proto::sql::Limits;
use crate::row::Row;
use crate::ticket::{MemoryBudget, Resolver, ThreadMark, Ticket};

/// The state that a manager and its handles share.
pub(crate) struct Shared<C = Connection> {
    queue: Mutex<MessageQueue<C>>,
    /// `true` if the queue holds a message. The loop checks this in each turn without taking the lock.
    has_messages: AtomicBool,
    pub(crate) counters: Arc<Counters>,
    pub(crate) iterating: Arc<ThreadMark>,
    /// The memory of the requests that are in the queue or have not been answered.
    pending: Arc<MemoryBudget>,
}

/// The limit of the memory that all unanswered requests take together, in bytes.
const PENDING_MAX: usize = 64 * 1024 * 1024;
/// The memory that a request takes in addition to its strings, in bytes.
const REQUEST_SIZE: usize = 512;

struct MessageQueue<C> {
    messages: VecDeque<ControlMessage<C>>,
    waker: Option<PollWaker>,
    /// `true` once the manager has been dropped.
    is_closed: bool,
}

impl<C> Shared<C> {
    pub(crate) fn new(waker: Option<PollWaker>) -> Self {
        Self {
            queue: Mutex::new(MessageQueue { messages: VecDeque::new(), waker, is_closed: false }),
            has_messages: AtomicBool::new(false),
            counters: Arc::default(),
            iterating: Arc::default(),
            pending: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, MessageQueue<C>> {
        // The queue is consistent whenever the lock is released.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message to the loop, or refuses it if the manager has been dropped.
    pub(crate) fn send(&self, message: ControlMessage<C>) {
        let mut queue = self.lock();
        if queue.is_closed {
            drop(queue);
            return message.refuse();
        }
        queue.messages.push_back(message);
        self.has_messages.store(true, Ordering::Release);
        if let Some(waker) = &queue.waker {
            waker.wake();
        }
    }

    /// Takes all messages, for the loop.
    pub(crate) fn take_commands(&self) -> VecDeque<ControlMessage<C>> {
        if !self.has_commands() {
            return VecDeque::new();
        }
        let mut queue = self.lock();
        self.has_messages.store(false, Ordering::Relaxed);
        std::mem::take(&mut queue.messages)
    }

    pub(crate) fn has_commands(&self) -> bool {
        self.has_messages.load(Ordering::Acquire)
    }

    /// Refuses all messages, now and later, because the manager is being dropped.
    pub(crate) fn close(&self) {
        let messages = {
            let mut queue = self.lock();
            queue.is_closed = true;
            std::mem::take(&mut queue.messages)
        };
        messages.into_iter().for_each(ControlMessage::refuse);
    }
}

/// Control of a running [`NotificationManager`](crate::NotificationManager) from any thread.
///
/// A handle can be cloned and sent to other threads. A waiting manager notices a call immediately. Most calls return a
/// [`Ticket`], which the loop resolves; a ticket can be waited for, polled as a `Future`, or dropped.
///
/// Requests that have not been answered may take 64 MiB together. Beyond that limit, tickets resolve to
/// [`Error::TooManyRequests`] immediately. The limit does not apply to `insert`, `dial` and `stop`.
///
/// If a connection is removed before the server has answered a request, the ticket resolves to [`Error::UnknownConnection`]:
/// nothing observes the answer any more. The request is still sent, so a `listen` takes effect on the removed connection.
///
/// ```
/// use std::time::Duration;
/// use notifyman::NotificationManager;
///
/// let mut nm = NotificationManager::new([]).park_when_empty(true);
/// let handle = nm.handle();
/// std::thread::spawn(move || {
///     handle.stop();
/// });
/// assert!(nm.next().is_none(), "it was stopped from another thread");
/// ```
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    /// Sends a message that takes `size` bytes until it is answered, unless the limit would be exceeded.
    fn send_within<T, E: From<Error>>(
        &self,
        size: usize,
        message: impl FnOnce(Resolver<T, E>) -> ControlMessage<Connection>,
    ) -> Ticket<T, E> {
        match self.shared.pending.reserve(REQUEST_SIZE + size, PENDING_MAX) {
            Some(permit) => self.send(|resolver| message(resolver.with_permit(permit))),
            None => Ticket::resolved(&self.shared.iterating, Err(Error::TooManyRequests { limit: PENDING_MAX }.into())),
        }
    }

    fn request(&self, id: ConnId, command: Command) -> Ticket<()> {
        self.send_within(command.size(), |ticket| ControlMessage::Request(id, command, RequestTicket::Done(ticket)))
    }

    fn send<T, E: From<Error>>(
        &self,
        message: impl FnOnce(Resolver<T, E>) -> ControlMessage<Connection>,
    ) -> Ticket<T, E> {
        let (resolver, ticket) = Ticket::new(&self.shared.iterating);
        self.shared.send(message(resolver));
        ticket
    }

    /// Like [`dial`](Self::dial), but calls `then` on the loop's thread with the id. An invalid channel is reported later,
    /// as the error that ends the connection.
    pub(crate) fn dial_then(
        &self,
        config: Config,
        channels: Vec<Box<str>>,
        then: impl FnOnce(Result<ConnId, Error>) + Send + 'static,
    ) {
        self.shared.send(ControlMessage::Dial(config, channels, Limits::Exact, Resolver::call(then)));
    }

    /// Like [`listen`](Self::listen), but calls `then` on the loop's thread with the result.
    pub(crate) fn listen_then(
        &self,
        id: ConnId,
        channels: Vec<String>,
        then: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        let ticket = RequestTicket::Done(Resolver::call(then));
        self.shared.send(ControlMessage::Request(id, Command::Listen(channels), ticket));
    }

    /// Like [`query`](Self::query), but calls `then` on the loop's thread with the result.
    #[cfg(feature = "changes")]
    pub(crate) fn query_then(
        &self,
        id: ConnId,
        sql: String,
        then: impl FnOnce(Result<Vec<Row>, Error>) + Send + 'static,
    ) {
        self.shared.send(ControlMessage::Request(id, Command::Query(sql), RequestTicket::Rows(Resolver::call(then))));
    }

    /// Inserts a connection into the manager. The ticket resolves to the id.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] if the manager has been dropped; the connection is returned with it.
    pub fn insert(&self, connection: Connection) -> Ticket<ConnId, ErrorWith<Connection>> {
        self.send(|resolver| ControlMessage::Insert(Box::new(connection), resolver))
    }

    /// Inserts a connection with a label: see [`NotificationManager::insert_as`](crate::NotificationManager::insert_as).
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn insert_as(
        &self,
        label: impl Into<String>,
        mut connection: Connection,
    ) -> Ticket<ConnId, ErrorWith<Connection>> {
        connection.link_mut().set_label(label.into());
        self.insert(connection)
    }

    /// Opens a connection in the loop, without blocking it, and listens to these channels, as
    /// [`NotificationManager::dial`](crate::NotificationManager::dial) does.
    ///
    /// The ticket resolves to the id when the loop has taken the request, before the first attempt begins. The loop reports the
    /// result:
    /// [`Event::Opened`](crate::Event::Opened) or [`Event::Lost`](crate::Event::Lost).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use std::time::Duration;
    /// use notifyman::{Event, NotificationManager};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let dsn = database();
    /// let mut nm = NotificationManager::new([]).park_when_empty(true);
    /// let handle = nm.handle();
    /// let running = std::thread::spawn(move || nm.next_event());
    ///
    /// let id = handle.dial(dsn, ["prices"]).wait(Duration::from_secs(10))?;
    /// let event = running.join().unwrap();
    /// assert!(matches!(event, Some(Event::Opened(opened)) if opened == id));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The ticket resolves to [`Error::Config`] for invalid settings and to [`Error::Value`] for an invalid channel name. In
    /// both cases no connection is attempted.
    pub fn dial<C, I>(&self, config: C, channels: I) -> Ticket<ConnId>
    where
        C: TryInto<Config>,
        C::Error: Into<Error>,
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        match checked_dial(config, channels) {
            Ok((config, channels)) => {
                self.send(|resolver| ControlMessage::Dial(config, channels, Limits::ServerDecides, resolver))
            }
            Err(error) => Ticket::resolved(&self.shared.iterating, Err(error)),
        }
    }

    /// Opens a connection with a label: see [`NotificationManager::dial_as`](crate::NotificationManager::dial_as).
    ///
    /// # Errors
    ///
    /// As [`dial`](Self::dial).
    pub fn dial_as<C, I>(&self, label: impl Into<String>, config: C, channels: I) -> Ticket<ConnId>
    where
        C: TryInto<Config>,
        C::Error: Into<Error>,
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        match config.try_into() {
            Ok(config) => self.dial(config.label(label), channels),
            Err(error) => Ticket::resolved(&self.shared.iterating, Err(error.into())),
        }
    }

    /// Removes a connection from the manager, with its undelivered notifications still in it: see
    /// [`NotificationManager::remove`](crate::NotificationManager::remove).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::{Connection, NotificationManager};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let db = Connection::connect(database())?;
    /// let mut nm = NotificationManager::new([db]);
    /// let (id, _) = nm.connections().next().unwrap();
    /// let handle = nm.handle();
    /// let running = std::thread::spawn(move || nm.by_ref().for_each(drop));
    ///
    /// match handle.remove(id).wait(None) {
    ///     Ok(mut db) => db.notify("removed", "1")?,
    ///     Err(error) => {
    ///         let (error, dead) = error.into_parts();
    ///         eprintln!("{id}: {error:#}; it was lost: {}", dead.is_some());
    ///     }
    /// }
    /// # running.join().unwrap();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The reason if the connection is lost or being restored, or was never open: what is left of it is returned with the error,
    /// and the restore is cancelled. [`Error::UnknownConnection`] for an unknown id.
    pub fn remove(&self, id: ConnId) -> Ticket<Connection, ErrorWith<Dead>> {
        self.send_within(0, |resolver| ControlMessage::Remove(id, resolver))
    }

    /// Listens to channels on one connection, without blocking the loop.
    ///
    /// The ticket resolves when the server has acknowledged the request. Every notification that is sent after that is
    /// received. If the connection is being restored, the call changes the set of channels to restore, and the ticket
    /// resolves when the connection is restored.
    ///
    /// # Errors
    ///
    /// The ticket resolves to the errors of [`Connection::listen`]; to the reason why the connection was lost; or to
    /// [`Error::UnknownConnection`].
    pub fn listen<I>(&self, id: ConnId, channels: I) -> Ticket<()>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let command = Command::Listen(channels.into_iter().map(|channel| channel.as_ref().to_owned()).collect());
        self.request(id, command)
    }

    /// Stops listening to channels, without blocking the loop. The ticket resolves as for [`listen`](Self::listen).
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    pub fn unlisten<I>(&self, id: ConnId, channels: I) -> Ticket<()>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let command = Command::Unlisten(channels.into_iter().map(|channel| channel.as_ref().to_owned()).collect());
        self.request(id, command)
    }

    /// Stops listening to all channels, without blocking the loop. The ticket resolves as for [`listen`](Self::listen).
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    pub fn unlisten_all(&self, id: ConnId) -> Ticket<()> {
        self.request(id, Command::UnlistenAll)
    }

    /// Sends a notification on one connection, without blocking the loop. The ticket resolves when the server has committed
    /// it.
    ///
    /// # Errors
    ///
    /// The ticket resolves to the errors of [`Connection::notify`]; to the reason why the connection was lost, and then the
    /// notification may have been sent or not; to the reason why the connection is being restored; or to
    /// [`Error::UnknownConnection`].
    pub fn notify(&self, id: ConnId, channel: impl AsRef<str>, payload: impl AsRef<str>) -> Ticket<()> {
        self.notify_many(id, [(channel, payload)])
    }

    /// Sends notifications on one connection in one statement, without blocking the loop: all of them, or after an error
    /// none. The ticket resolves as for [`notify`](Self::notify).
    ///
    /// # Errors
    ///
    /// As [`notify`](Self::notify).
    pub fn notify_many<I, C, P>(&self, id: ConnId, pairs: I) -> Ticket<()>
    where
        I: IntoIterator<Item = (C, P)>,
        C: AsRef<str>,
        P: AsRef<str>,
    {
        let command =
            Command::Notify(pairs.into_iter().map(|(c, p)| (c.as_ref().to_owned(), p.as_ref().to_owned())).collect());
        self.request(id, command)
    }

    /// Runs SQL on one connection without blocking the loop, as [`Connection::query`]; resolves to the rows.
    ///
    /// Requests of one connection run one at a time, in the order in which they were made; notifications are received
    /// meanwhile. Several statements in one string are one transaction, and the result holds the rows of all of them. A
    /// LISTEN, UNLISTEN or DISCARD in it is noticed: the ticket resolves after the channels have been read from the
    /// server again, so that a later restore listens to the right ones.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use std::time::Duration;
    /// use notifyman::{Connection, NotificationManager};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let db = Connection::connect(database())?;
    /// let mut nm = NotificationManager::new([db]);
    /// let (id, _) = nm.connections().next().unwrap();
    /// let handle = nm.handle();
    /// let running = std::thread::spawn(move || nm.by_ref().for_each(drop));
    ///
    /// let rows = handle.query(id, "SELECT 6 * 7").wait(Duration::from_secs(10))?;
    /// assert_eq!(rows[0].get(0).as_deref(), Some("42"));
    /// handle.stop();
    /// # running.join().unwrap();
    /// # Ok(()) }
    /// ```
    ///
    /// # Limits
    ///
    /// - A result of more than 64 MiB, or a row of more than 16 MiB, is not kept. The SQL counts towards the 64 MiB of
    ///   requests that wait for an answer; a result belongs to its ticket, and is freed with it.
    /// - The call timeout of the connection (30 s by default) counts from when the loop accepts the request. When it
    ///   expires, the connection is closed; the server may complete the statement all the same.
    /// - A request is never sent twice. While the connection is being restored, it is refused; if the connection is lost
    ///   before the answer, the SQL may have been executed or not.
    /// - COPY is refused (FROM STDIN) or its data discarded (TO STDOUT). A transaction that is left open keeps
    ///   notifications back: see [`Event::InTransaction`](crate::Event::InTransaction).
    ///
    /// # Errors
    ///
    /// The ticket resolves to the server's error, after which the connection remains usable; to
    /// [`Error::AnswerTooLong`]; to [`Error::TooManyRequests`]; to the reason why the connection was lost or is being
    /// restored; and to [`Error::UnknownConnection`] if there is none of this id.
    pub fn query(&self, id: ConnId, sql: impl AsRef<str>) -> Ticket<Vec<Row>> {
        let command = Command::Query(sql.as_ref().to_owned());
        self.send_within(command.size(), |ticket| ControlMessage::Request(id, command, RequestTicket::Rows(ticket)))
    }

    /// Changes the manager's timeout; see [`NotificationManager::timeout`](crate::NotificationManager::timeout).
    pub fn set_timeout(&self, timeout: impl Into<Option<Duration>>) -> Ticket<()> {
        let timeout = timeout.into();
        self.send_within(0, |resolver| ControlMessage::SetTimeout(timeout, resolver))
    }

    /// Ends the iterator after it has yielded what was collected. No connection is closed, and iterating again continues.
    ///
    /// Each stop causes one end. If the manager is not being iterated, the next iteration ends immediately.
    pub fn stop(&self) -> Ticket<()> {
        self.send(ControlMessage::Stop)
    }

    /// Returns the counters of the manager.
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("stats", &self.stats()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::NotificationManager;

    #[test]
    fn m18_a_manager_and_its_handle_can_be_sent_to_another_thread() {
        fn is_send<T: Send>() {}
        fn is_sync<T: Sync>() {}
        is_send::<NotificationManager>();
        is_send::<Connection>();
        is_send::<Dead>();
        is_send::<Handle>();
        is_sync::<Handle>();
        is_send::<Ticket<Connection>>();
        is_send::<Error>();
        is_sync::<Error>();
    }

    #[test]
    fn m19_unanswered_requests_are_limited_and_free_their_memory_when_answered() {
        let mut nm = NotificationManager::new([]).timeout(Duration::ZERO).park_when_empty(true);
        let (handle, id) = (nm.handle(), ConnId::for_test(1));
        let payload = "x".repeat(1_000_000);
        let is_full = |ticket: &mut Ticket<()>| matches!(ticket.try_get(), Some(Err(Error::TooManyRequests { .. })));
        for _ in 0..3 {
            let mut tickets: Vec<_> = (0..100).map(|_| handle.notify(id, "c", &payload)).collect();
            let refused = tickets.iter_mut().filter_map(|ticket| is_full(ticket).then_some(())).count();
            assert_eq!(refused, 100 - PENDING_MAX / 1_000_600, "as many as fit within the limit");
            assert!(is_full(&mut handle.notify(id, "c", &payload)), "dropping a ticket does not withdraw its request");
            // A stop is always possible.
            let mut stop = handle.stop();
            assert!(nm.next().is_none());
            assert!(matches!(stop.try_get(), Some(Ok(()))));
        }
        drop(nm);
        for _ in 0..100 {
            assert!(matches!(handle.notify(id, "c", &payload).try_get(), Some(Err(Error::Stopped))));
        }
    }
}
