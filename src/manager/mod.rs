//! Many connections on one poll loop.
//!
//! ```text
//!   for event in nm ──▶ NotificationManager ──▶ EventLoop: poll and clock ──▶ Fleet: the connections
//!                            ▲                      ▲
//!   Handle (any thread) ─────┴── messages ──────────┘           Ticket ◀── resolved by the loop
//! ```
//!
//! The manager is the public face of the event loop. The [`fleet`] decides everything, without I/O.

mod command;
mod conn_id;
mod connection_mut;
mod dead;
mod event;
mod event_loop;
mod fleet;
mod handle;
mod id_name;
mod source;
mod stats;
#[cfg(feature = "stream")]
mod stream;

use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use self::command::checked_dial;
pub use self::conn_id::ConnId;
pub use self::connection_mut::ConnectionMut;
pub use self::dead::Dead;
pub use self::event::{Check, Event};
use self::event_loop::EventLoop;
pub use self::fleet::Backoff;
pub(crate) use self::fleet::CanaryPace;
#[cfg(feature = "relay")]
pub(crate) use self::fleet::Jitter;
use self::fleet::{Canaries, Heartbeat};
pub use self::handle::Handle;
pub use self::source::EventSource;
pub use self::stats::Stats;
#[cfg(feature = "stream")]
pub use self::stream::EventStream;
#[cfg(feature = "stream")]
use self::stream::STREAM_BYTES;
use crate::clock;
use crate::config::Config;
use crate::connection::{Connection, Linked as _};
use crate::error::Error;
use crate::notification::Batch;
use crate::proto::sql;
pub use crate::ticket::Ticket;
pub(crate) use crate::ticket::{Resolver, ThreadMark};

/// The canary's channel, unless another one is given.
pub(crate) const CANARY_CHANNEL: &str = "notifyman_canary";

/// An iterator over the notifications of many connections: `Some((conn, batch))`, or `None` when idle.
///
/// *Idle* is `Some(None)`, a safe place to stop or to do other work. *The end* is `None`.
///
/// ```no_run
/// use std::time::Duration;
/// use notifyman::{Connection, NotificationManager};
///
/// # fn main() -> Result<(), notifyman::Error> {
/// let mut conns = Vec::new();
/// for shop in ["berlin", "oslo"] {
///     let mut db = Connection::connect(format!("postgres://db.example/{shop}"))?;
///     db.listen(["prices"])?;
///     conns.push(db);
/// }
/// for event in NotificationManager::new(conns).timeout(Duration::from_secs(2)) {
///     match event {
///         None => println!("idle"),
///         Some((conn, notifies)) => {
///             for n in &notifies {
///                 println!("{conn} {} {} {}", n.channel(), n.payload(), n.pid());
///             }
///         }
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # Iteration
///
/// One pass of the poll loop is a *turn*: it waits until sockets are ready, or a time has come, and then serves them.
///
/// - **No timeout:** batches, as long as there are connections.
/// - **A timeout:** also an idle event about that often, never early, also under load. At an idle event, the manager
///   holds nothing undelivered.
/// - **A zero timeout:** reads every socket once until it is empty, yields the notifications, and ends, without an idle
///   event. Notifications that arrive later, even because of the loop's body, belong to the next iteration.
/// - **The iterator ends immediately** when there is no live connection and none is being restored, unless
///   [`park_when_empty`](Self::park_when_empty) is set. So inspect the garbage after the loop, too.
///
/// The iterator is not fused: after an end (a zero timeout, no connections, a stop) it can be iterated again.
///
/// The order is fair: each ready connection is read once (64 KiB) and then goes to the back of the queue. A connection waits
/// for at most two such reads of each other ready connection; if more than 1,024 become ready together, for one more for each
/// 1,024 of them.
///
/// # Lost connections
///
/// After its notifications have been yielded, a lost connection is in the [garbage](Self::garbage) with the reason, until it
/// is taken, and perhaps [revived](Self::revive). With [`reconnect`](Self::reconnect) it is restored instead.
/// [`next_event`](Self::next_event) reports each loss when it happens.
///
/// # Limits
///
/// The manager never stops reading because a consumer is slow: a listener that does not read fills the server's NOTIFY queue
/// and blocks VACUUM. So move slow work from the loop's body to other threads. Dropping the manager closes its sessions; to
/// keep them, use [`into_connections`](Self::into_connections).
#[doc(alias("PgListener", "NewListener", "Listener"))]
pub struct NotificationManager {
    event_loop: EventLoop,
}

impl NotificationManager {
    /// Creates a manager of these connections, with ids counted from 1 in their order.
    ///
    /// This does not fail: if the system has no poller left, the first turn moves every connection to the garbage with
    /// that reason.
    pub fn new(connections: impl IntoIterator<Item = Connection>) -> Self {
        let mut manager = Self { event_loop: EventLoop::new() };
        for connection in connections {
            manager.insert(connection);
        }
        manager
    }

    /// Sets the timeout: `None` for no idle events, [`Duration::ZERO`] to read what is there and end, [`Duration::MAX`] for
    /// never. Default: none.
    #[must_use]
    #[doc(alias("settimeout", "idle"))]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.set_timeout(timeout);
        self
    }

    /// Changes the timeout, also between two events. A new period begins with the next event.
    pub fn set_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.event_loop.fleet.set_timeout(timeout.into());
    }

    /// Returns the timeout.
    #[doc(alias = "gettimeout")]
    pub fn current_timeout(&self) -> Option<Duration> {
        self.event_loop.fleet.timeout()
    }

    /// Sets whether to wait for the [handle](Self::handle) when there is no connection, rather than to end: for a service
    /// that starts empty. Then the iteration ends by [`Handle::stop`], or with a zero timeout.
    #[must_use]
    pub fn park_when_empty(mut self, parks: bool) -> Self {
        self.event_loop.parks = parks;
        self
    }

    /// Restores lost connections inside the loop, without blocking it: under the same id, listening to the same channels.
    ///
    /// Meanwhile a connection is [restoring](Self::restoring): neither among the [connections](Self::connections) nor
    /// in the garbage. Its first batch afterwards carries the [`Gap`](crate::Gap). Few failures are final: refused
    /// credentials, a missing database and a refused certificate move the connection to the garbage, unless
    /// [`Backoff::retry_all`] is set. A connection that this program closes also moves to the garbage, even with
    /// `retry_all`. Names are resolved again for each attempt. Each request listens to up to 10,000 channels.
    ///
    /// Default: none, so a lost connection moves to the garbage. A [`Notifier`](crate::Notifier) reconnects by default.
    ///
    /// ```no_run
    /// # let conns: [notifyman::Connection; 0] = [];
    /// use std::time::Duration;
    /// use notifyman::{Backoff, NotificationManager};
    ///
    /// let nm = NotificationManager::new(conns)
    ///     .reconnect(Backoff::default())
    ///     .heartbeat(Duration::from_secs(15), Duration::from_secs(5));
    /// for (conn, batch) in nm.flatten() {
    ///     if let Some(gap) = batch.gap() {
    ///         println!(
    ///             "{conn} received nothing for {:?}: {:?} are stale",
    ///             gap.duration(),
    ///             gap.channels()
    ///         );
    ///     }
    /// }
    /// ```
    #[must_use]
    #[doc(alias = "retry")]
    pub fn reconnect(mut self, backoff: Backoff) -> Self {
        self.event_loop.fleet.set_backoff(backoff);
        self
    }

    /// Sets a heartbeat: a connection from which no byte has arrived for `idle` is sent a `Sync`, the cheapest message of the
    /// protocol; if no byte arrives within `deadline`, the connection is lost.
    ///
    /// So a link that has failed silently is found within `idle + deadline`, whatever the network does. TCP keepalive does
    /// not detect a frozen server, nor anything behind a proxy. Any byte from the server is a sign of life. While a request by
    /// the handle or a canary is unanswered, its own limit, the call timeout, applies instead.
    ///
    /// The heartbeats of many connections are spread over time, up to a quarter of `idle` early. The loop wakes for all of
    /// them together, at most 32 times per `idle` or `deadline`, whichever is shorter.
    ///
    /// Default: none. A [`Notifier`](crate::Notifier) has a heartbeat of 15 and 5 seconds by default. There is no minimum, and
    /// zero does not disable the heartbeat: a connection is then queried about every millisecond, and is lost if its answer
    /// takes longer than the deadline.
    #[must_use]
    #[doc(alias("keepalive", "ping"))]
    pub fn heartbeat(mut self, idle: Duration, deadline: Duration) -> Self {
        self.event_loop.with_fleet(|fleet, io| fleet.set_heartbeat(Heartbeat { idle, deadline }, io));
        self
    }

    /// Sets a canary: in every `period`, one connection of each database sends a notification on a channel of the
    /// manager's own, `notifyman_canary`, and every connection to that database must receive it. A connection that has not
    /// received it `deadline` after its commit is queried for its channels; if it listens and still nothing has arrived, it
    /// delivers nothing, and is lost with [`Error::NotDelivering`].
    ///
    /// It proves what no other sign does: a pooler in transaction mode answers everything and delivers nothing. The gap
    /// that follows begins when the last canary that arrived was sent. [`Stats::canary_time`](crate::Stats) is the
    /// delivery time of the latest canary.
    ///
    /// Default: none.
    ///
    /// ```no_run
    /// # let conns: [notifyman::Connection; 0] = [];
    /// use std::time::Duration;
    /// use notifyman::{Backoff, NotificationManager};
    ///
    /// let nm = NotificationManager::new(conns)
    ///     .reconnect(Backoff::default())
    ///     .heartbeat(Duration::from_secs(15), Duration::from_secs(5))
    ///     .canary(Duration::from_secs(60), Duration::from_secs(5))?
    ///     .audit(Duration::from_secs(300));
    /// # drop(nm);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a period of less than a second.
    ///
    /// # Costs
    ///
    /// In each period, every database commits one NOTIFY, which takes the cluster's lock for it, and wakes every session
    /// that listens there: a server of version 18 or earlier takes about 15 µs for each of them (measured on 15), so a canary
    /// for 1,000 sessions costs as much as 1,000 notifications to one. A period of a second takes 1.5 % of a processor of the
    /// server then, and one of a minute 0.025 %. Each session is sent about 60 bytes. Programs do not share canaries, but each
    /// receives those of the others: with 100 programs of one session each and a period of a second, the server wakes 10,000
    /// sessions a second, which takes 15 % of a processor.
    ///
    /// A canary is sent only after the deadline of the last one, so the interval is the longer of the two times. The
    /// certificate of a [fence](crate::fence), [`as_of`](crate::fence::FenceChannel::as_of), is never finer than that.
    ///
    /// # Limits
    ///
    /// - Notifications on the canary's channel are not yielded. [`Connection::listen`] refuses the channel; a connection
    ///   that listened to it before it was inserted keeps it, and has no canary.
    /// - Nothing is requested inside a transaction. While one is open, the connection has no canary, and
    ///   [`Event::InTransaction`] reports it.
    /// - A canary that a session sends to itself arrives with the answer, and does not prove delivery to an idle session. So
    ///   for the only connection to a database, another session is opened to send the first canary; behind a pooler, every
    ///   canary.
    /// - One late canary is no fault. [`Error::HeldBack`] is reported if, in two periods in a row, the canary arrived only
    ///   with the answer to a request (the query after the deadline, a heartbeat or an audit) that was sent to an idle
    ///   session after the canary's commit.
    /// - A refusal by the server is reported by [`Event::CheckRefused`], once for each session.
    /// - After `UNLISTEN *`, `DISCARD ALL` or a rollback the channel is listened to again. Only a session whose server forgets
    ///   it before two canaries in a row counts as delivering nothing.
    /// - A database is identified by its address, the start time of its server and its number there. Two addresses of one
    ///   database have a canary each.
    pub fn canary(self, period: Duration, deadline: Duration) -> Result<Self, Error> {
        self.canary_on(CANARY_CHANNEL, period, deadline)
    }

    /// Sets a [canary](Self::canary) on another channel.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a name that is not 1 to 63 ASCII characters without NUL: the server must not truncate it,
    /// whatever its encoding. [`Error::Config`] for a period of less than a second.
    ///
    /// ```
    /// # let conns: [notifyman::Connection; 0] = [];
    /// use std::time::Duration;
    /// use notifyman::NotificationManager;
    ///
    /// let (period, deadline) = (Duration::from_secs(60), Duration::from_secs(5));
    /// let nm = NotificationManager::new(conns).canary_on(
    ///     "PGNOTIFIER",
    ///     period,
    ///     deadline,
    /// )?;
    /// # drop(nm);
    /// assert!(NotificationManager::new([]).canary_on("", period, deadline).is_err());
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn canary_on(self, channel: impl AsRef<str>, period: Duration, deadline: Duration) -> Result<Self, Error> {
        let channel = channel.as_ref();
        sql::check_canary_channel(channel)?;
        let CanaryPace { period, deadline } = CanaryPace::checked(period, deadline)?;
        Ok(self.canary_at_any_pace(channel, period, deadline))
    }

    /// Reports each [canary](Self::canary) that a connection receives, by [`Event::CanaryReceived`]: a proof that everything
    /// committed before a known time has been received.
    ///
    /// The event comes after all notifications that were received before the canary. Default: not reported.
    ///
    /// ```no_run
    /// # let conns: [notifyman::Connection; 0] = [];
    /// use std::time::{Duration, Instant};
    /// use notifyman::{Event, NotificationManager};
    ///
    /// let (period, deadline) = (Duration::from_secs(5), Duration::from_secs(2));
    /// let mut nm = NotificationManager::new(conns)
    ///     .canary(period, deadline)?
    ///     .report_canaries();
    /// while let Some(event) = nm.next_event() {
    ///     if let Event::CanaryReceived(conn, sent) = event {
    ///         let age = Instant::now().duration_since(sent);
    ///         println!("{conn} has received all until {age:?} ago");
    ///     }
    /// }
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn report_canaries(mut self) -> Self {
        self.event_loop.fleet.report_canaries();
        self
    }

    /// For the project's own tests, which cannot wait for seconds.
    #[doc(hidden)]
    #[must_use]
    pub fn canary_at_any_pace(mut self, channel: &str, period: Duration, deadline: Duration) -> Self {
        let canaries = Canaries::new(channel, CanaryPace { period, deadline });
        self.event_loop.with_fleet(|fleet, io| fleet.set_canary(canaries, io));
        self
    }

    /// Sets an audit: in every `period`, each connection's server is queried for its channels, and channels that it has
    /// forgotten are listened to again. A gap with these channels reports that, with the cause
    /// [`Error::Unregistered`]: in [`Event::Restored`], or in
    /// [`Batch::gap`](crate::Batch::gap). The connection itself continues. Default: none.
    ///
    /// Registrations are lost by an `UNLISTEN` in a function or behind a pooler. The gap begins when the last audit found
    /// every channel, or with the session. A channel that the server listens to and the manager did not know of is recorded,
    /// and listened to again when the connection is restored.
    ///
    /// ```
    /// use std::time::Duration;
    /// use notifyman::NotificationManager;
    ///
    /// # let conns: [notifyman::Connection; 0] = [];
    /// let nm = NotificationManager::new(conns).audit(Duration::from_secs(300));
    /// # drop(nm);
    /// ```
    ///
    /// # Costs
    ///
    /// A query of some 100 bytes for each connection and period, and its answer, which names all channels: about
    /// 0.1 ms of the server's time. The audits are spread over the period, which is at least a second. A connection in a
    /// transaction, or with another request in progress, is audited in the next period.
    #[must_use]
    pub fn audit(mut self, period: Duration) -> Self {
        self.event_loop.fleet.set_audit(period, clock::now());
        self
    }

    // ---- events -------------------------------------------------------------------------------------------------

    /// Returns the next event; `None` is the end.
    ///
    /// The iterator takes from the same queue, but leaves out [`Event::Disconnected`], [`Event::Lost`] (see the garbage),
    /// [`Event::Opened`], [`Event::InTransaction`], [`Event::Unlistened`] and [`Event::CheckRefused`], and puts the gap of [`Event::Restored`] into a
    /// [batch](Batch::gap): the first one with notifications, or an empty one.
    ///
    /// ```no_run
    /// use notifyman::Event;
    /// # let mut nm = notifyman::NotificationManager::new([]);
    /// while let Some(event) = nm.next_event() {
    ///     match event {
    ///         Event::Idle => println!("idle"),
    ///         Event::Notifies(id, batch) => {
    ///             println!("{id}: {} notifications", batch.len())
    ///         }
    ///         Event::Disconnected(id, error) => {
    ///             eprintln!("{id} is being restored: {error:#}")
    ///         }
    ///         Event::Restored(id, gap) => println!(
    ///             "{id} is restored; treat {:?} as stale",
    ///             gap.channels()
    ///         ),
    ///         Event::Lost(id, error) => eprintln!("{id} is lost: {error:#}"),
    ///         _ => {}
    ///     }
    /// }
    /// ```
    #[doc(alias("recv", "try_recv", "poll_message"))]
    pub fn next_event(&mut self) -> Option<Event> {
        match self.event_loop.next(true, true) {
            Poll::Ready(event) => event,
            // A loop that waits is never pending.
            Poll::Pending => Some(Event::Idle),
        }
    }

    /// Returns the next event if there is one now; for running inside another event loop.
    ///
    /// Call it until it returns `Pending`. Then wait until the manager's descriptor is readable or
    /// [`next_deadline`](Self::next_deadline) has passed, whichever comes first, and call it again. `Ready(None)` is the
    /// end, as in [`next_event`](Self::next_event).
    ///
    /// In async code use `into_stream` instead (feature `stream`), which needs no descriptor. In a loop with `mio`:
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use std::os::fd::AsRawFd;
    /// use std::task::Poll;
    /// use std::time::Instant;
    /// use mio::{Events, Interest, Token, unix::SourceFd};
    /// use notifyman::{Connection, Event, NotificationManager};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut db = Connection::connect(database())?;
    /// # db.listen(["prices"])?;
    /// # db.notify("prices", "42")?;
    /// let mut nm = NotificationManager::new([db]);
    /// let mut poll = mio::Poll::new()?;
    /// let source = nm.as_raw_fd();
    /// poll.registry().register(
    ///     &mut SourceFd(&source),
    ///     Token(0),
    ///     Interest::READABLE,
    /// )?;
    /// let mut ready = Events::with_capacity(64);
    /// 'events: loop {
    ///     while let Poll::Ready(event) = nm.try_next_event() {
    ///         match event {
    ///             Some(Event::Notifies(id, batch)) => {
    ///                 println!("{id}: {}", batch.len());
    /// #               break 'events;
    ///             }
    ///             Some(event) => println!("{event:?}"),
    ///             None => break 'events,
    ///         }
    ///     }
    ///     let timeout = nm
    ///         .next_deadline()
    ///         .map(|at| at.saturating_duration_since(Instant::now()));
    ///     poll.poll(&mut ready, timeout)?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn try_next_event(&mut self) -> Poll<Option<Event>> {
        self.event_loop.next(false, true)
    }

    /// Returns the time at which [`try_next_event`](Self::try_next_event) must be called, whatever the descriptor reports;
    /// `None` for never. The time is in the past while there is work left, which the descriptor does not show.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.event_loop.deadline()
    }

    // ---- connections --------------------------------------------------------------------------------------------

    /// Adds a connection, also between two events. The notifications that it holds are yielded; a closed connection moves to
    /// the garbage with the next turn.
    #[doc(alias = "append")]
    pub fn insert(&mut self, connection: Connection) -> ConnId {
        self.event_loop.with_fleet(|fleet, io| fleet.insert(connection, io))
    }

    /// Adds a connection with a label, by which messages name it: as [`insert`](Self::insert), after
    /// [`Config::label`].
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::{Connection, NotificationManager};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let url = database();
    /// let mut nm = NotificationManager::new([]);
    /// let id = nm.insert_as("berlin", Connection::connect(url)?);
    /// assert_eq!(format!("{id} is added"), "berlin is added");
    /// assert_eq!(nm.get(id).unwrap().config().get_label(), Some("berlin"));
    /// # Ok(()) }
    /// ```
    pub fn insert_as(&mut self, label: impl Into<String>, mut connection: Connection) -> ConnId {
        connection.link_mut().set_label(label.into());
        self.insert(connection)
    }

    /// Opens a connection inside the loop, which will listen to these channels, and returns its id immediately.
    ///
    /// Up to 256 connections are opened concurrently, without delaying those that are open: so a manager of a thousand
    /// databases serves each as soon as it is connected. Until a connection is open it is [restoring](Self::restoring); then
    /// [`Event::Opened`] reports it. One that fails moves to the garbage with the reason; with
    /// [`reconnect`](Self::reconnect), if another attempt can help, attempts follow until one succeeds. The time of the loop's
    /// body counts towards `connect_timeout`.
    ///
    /// To have all connections open before the loop begins, use [`Connection::connect_many`].
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::{Event, NotificationManager};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let dsns = [database(), database(), "host=127.0.0.1 port=1 user=nobody".to_owned()];
    /// let mut nm = NotificationManager::new([]);
    /// for dsn in &dsns {
    ///     nm.dial(dsn, ["prices"])?;
    /// }
    /// # let (mut opened, mut lost) = (0, 0);
    /// while let Some(event) = nm.next_event() {
    ///     match event {
    ///         Event::Opened(id) => println!("{id} listens"),
    ///         Event::Lost(id, error) => eprintln!("{id}: {error:#}"),
    ///         event => println!("{event:?}"),
    ///     }
    /// #   opened = nm.connections().count();
    /// #   lost = nm.garbage().count();
    /// #   if opened + lost == 3 { break }
    /// }
    /// # assert_eq!((opened, lost), (2, 1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for invalid settings, and [`Error::Value`] for an invalid channel; then nothing is opened.
    #[doc(alias("connect", "open"))]
    pub fn dial<C, I>(&mut self, config: C, channels: I) -> Result<ConnId, Error>
    where
        C: TryInto<Config>,
        C::Error: Into<Error>,
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let (config, channels) = checked_dial(config, channels)?;
        Ok(self.event_loop.fleet.dial(config, Ok(channels), sql::Limits::ServerDecides, clock::now()))
    }

    /// Opens a connection with a label, by which messages name it: as [`dial`](Self::dial), after [`Config::label`].
    ///
    /// ```
    /// let mut nm = notifyman::NotificationManager::new([]);
    /// let id = nm.dial_as("berlin", "host=db1 user=app", ["prices"])?;
    /// assert_eq!(id.to_string(), "berlin");
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`dial`](Self::dial).
    pub fn dial_as<C, I>(&mut self, label: impl Into<String>, config: C, channels: I) -> Result<ConnId, Error>
    where
        C: TryInto<Config>,
        C::Error: Into<Error>,
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.dial(config.try_into().map_err(Into::into)?.label(label), channels)
    }

    /// Removes a connection, also between two events, with its undelivered notifications.
    ///
    /// With a [canary](Self::canary), the connection leaves its channel, without waiting for the answer; in an open
    /// transaction, when that ends. Notifications on that channel are never yielded.
    ///
    /// Returns `None` for an unknown id, and `Err` with what is left of a connection that is lost or being restored; the
    /// restore is cancelled.
    ///
    /// ```no_run
    /// # let mut nm = notifyman::NotificationManager::new([]);
    /// # let id = nm.connections().next().unwrap().0;
    /// if let Some(Ok(mut db)) = nm.remove(id) {
    ///     db.unlisten_all()?;
    /// }
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[doc(alias = "discard")]
    pub fn remove(&mut self, id: ConnId) -> Option<Result<Connection, Dead>> {
        self.event_loop.with_fleet(|fleet, io| fleet.remove(id, io))
    }

    /// Opens a lost connection again, inside the loop and without blocking it: with the same id and the same channels.
    ///
    /// Until then it is [restoring](Self::restoring). Its first batch afterwards carries the [`Gap`](crate::Gap); or it is in
    /// the garbage again, with the new reason. One attempt is made; with [`reconnect`](Self::reconnect), as many as needed.
    ///
    /// Returns the id of the connection. It is the given one if the connection had it in this manager and has left the
    /// garbage; otherwise it is a new one, so that an id never refers to two connections.
    pub fn revive(&mut self, id: ConnId, dead: Dead) -> ConnId {
        self.event_loop.fleet.revive(id, dead, clock::now())
    }

    /// Returns a live connection.
    pub fn get(&self, id: ConnId) -> Option<&Connection> {
        self.event_loop.fleet.get(id)
    }

    /// Returns a live connection to make calls on it. Each call blocks the loop for a round trip, or up to its timeout.
    ///
    /// ```no_run
    /// # let mut nm = notifyman::NotificationManager::new([]);
    /// # let id = nm.connections().next().unwrap().0;
    /// if let Some(mut db) = nm.get_mut(id) {
    ///     db.listen(["one_more"])?;
    /// }
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn get_mut(&mut self, id: ConnId) -> Option<ConnectionMut<'_>> {
        self.event_loop.fleet.get_mut(id).map(ConnectionMut::new)
    }

    /// Returns the live connections, in the order of ids.
    pub fn connections(&self) -> impl Iterator<Item = (ConnId, &Connection)> {
        self.event_loop.fleet.connections()
    }

    /// Returns the connections that are being restored or opened, in the order of ids, each with the reason for the loss or
    /// for the failure of the last attempt.
    pub fn restoring(&self) -> impl Iterator<Item = (ConnId, &Dead)> {
        self.event_loop.fleet.restoring()
    }

    /// Returns the lost connections, in the order of their losses.
    pub fn garbage(&self) -> impl Iterator<Item = (ConnId, &Dead)> {
        self.event_loop.fleet.garbage().iter().map(|(id, dead)| (*id, dead))
    }

    /// Empties the garbage, and returns what was in it.
    pub fn take_garbage(&mut self) -> Vec<(ConnId, Dead)> {
        self.event_loop.fleet.take_garbage()
    }

    /// Returns the live connections, with their undelivered notifications: at an idle event there are none.
    pub fn into_connections(mut self) -> Vec<(ConnId, Connection)> {
        self.event_loop.with_fleet(|fleet, io| fleet.remove_all(io))
    }

    // ---- control ------------------------------------------------------------------------------------------------

    /// Returns a handle to control this manager from other threads.
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.event_loop.shared) }
    }

    /// Runs the loop on a thread of its own, and returns its events as a stream for async code, on any runtime.
    ///
    /// The stream keeps up to 16 MiB of notifications: see [`EventStream`] for a task that is slower, for the end and for the
    /// drop. Nothing blocks: [`dial`](Self::dial) opens connections in the loop, and the stream's
    /// [`handle`](EventStream::handle) controls it. Lost connections in the garbage are dropped, so take them before.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::{Backoff, Event, NotificationManager};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), notifyman::Error> {
    /// # let (berlin, oslo) = (database(), database());
    /// let mut nm = NotificationManager::new([]).reconnect(Backoff::default());
    /// nm.dial(berlin, ["prices"])?;
    /// nm.dial(oslo, ["prices"])?;
    /// let mut events = nm.into_stream()?;
    /// let mut open = 0;
    /// while open < 2 {
    ///     if let Some(Event::Opened(_)) = events.recv().await {
    ///         open += 1;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if no thread can be started. The connections are closed then.
    #[cfg(feature = "stream")]
    pub fn into_stream(self) -> Result<EventStream, Error> {
        self.into_stream_within(STREAM_BYTES)
    }

    /// Like [`into_stream`](Self::into_stream), with another limit for the notifications that wait, in bytes.
    ///
    /// A batch counts with its notifications as they were sent and 256 bytes. There is no minimum: a batch that is larger than
    /// the limit is dropped and reported.
    ///
    /// ```
    /// # let conns: [notifyman::Connection; 0] = [];
    /// use notifyman::NotificationManager;
    ///
    /// let events = NotificationManager::new(conns).into_stream_within(1 << 20)?;
    /// # drop(events);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`into_stream`](Self::into_stream).
    #[cfg(feature = "stream")]
    pub fn into_stream_within(mut self, bytes: usize) -> Result<EventStream, Error> {
        EventStream::start(self.handle(), bytes, move || {
            let event = self.next_event();
            if let Some(Event::Lost(..)) = event {
                // Only this thread could take it.
                self.take_garbage();
            }
            event
        })
    }

    /// Returns the counters.
    pub fn stats(&self) -> Stats {
        self.event_loop.shared.counters.read()
    }
}

impl Iterator for NotificationManager {
    type Item = Option<(ConnId, Batch)>;

    /// Returns the next batch, `Some(None)` for an idle event, or `None` at the end.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.event_loop.next(true, false) {
                Poll::Ready(None) => return None,
                Poll::Ready(Some(Event::Idle)) | Poll::Pending => return Some(None),
                Poll::Ready(Some(Event::Notifies(id, batch))) => return Some(Some((id, batch))),
                Poll::Ready(Some(Event::Restored(id, gap))) => {
                    return Some(Some((id, Batch::empty().with_gap(gap))));
                }
                Poll::Ready(Some(
                    Event::Opened(_)
                    | Event::Disconnected(..)
                    | Event::Lost(..)
                    | Event::InTransaction(_)
                    | Event::CheckRefused(..)
                    | Event::CanaryReceived(..)
                    | Event::Unlistened(..),
                )) => {}
            }
        }
    }
}

impl Drop for NotificationManager {
    fn drop(&mut self) {
        self.event_loop.shared.close();
    }
}

impl AsRawFd for NotificationManager {
    /// Returns the poll's descriptor, for another event loop to watch for reading; -1 if there is no poll, which
    /// [`try_next_event`](NotificationManager::try_next_event) reports.
    fn as_raw_fd(&self) -> RawFd {
        self.event_loop.poll.0.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl fmt::Debug for NotificationManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotificationManager")
            .field("timeout", &self.current_timeout())
            .field("stats", &self.stats())
            .field("fleet", &self.event_loop.fleet.describe(clock::now()))
            .finish()
    }
}
