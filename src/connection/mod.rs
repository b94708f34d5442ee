//! One session with one server: a [`Session`] on a [`Stream`], and the calls that wait for its answers.
//!
//! A connection owns no poller. A blocking call makes one for as long as it lasts; a manager watches many connections
//! with one. Whatever notifications arrive during a call are kept, in order, for the next wait or turn.

mod attempt_limit;
mod cancel;
mod converse;
mod diagnosis;
mod dial;
mod ear;
pub(crate) mod idle;
mod lent;
mod many;
mod opening;
mod past;
mod securing;
mod shuffle;
mod target;
mod wait;
mod waiter;

use std::fmt;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

pub(crate) use self::cancel::{Cancel, CancelProgress};
pub use self::diagnosis::{Diagnosis, Finding, FindingKind, Severity};
use self::dial::LOGIN_READ;
pub(crate) use self::dial::{Dial, READS_AT_ONCE, Step};
pub(crate) use self::ear::Ear;
use self::lent::LentBuffer;
pub use self::many::ConnectMany;
use self::past::Rare;
pub(crate) use self::wait::DRAIN_MAX;
pub use self::wait::Wait;
use self::waiter::Waiter;
use crate::clock::{self, CompactInstant};
use crate::config::Config;
use crate::error::{Error, ServerError};
use crate::gap::Gap;
use crate::net::Stream;
use crate::notification::Batch;
use crate::proto::{self, Interner, ReadBuffer, Reply, Request, RequestId, Session, TransactionStatus, sql};
use crate::row::Row;

/// The longest that a call goes on waiting after it has asked the server to cancel.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// The SQLSTATE of what was cancelled.
pub(crate) const QUERY_CANCELED: &str = "57014";

/// A session with a PostgreSQL server, which listens and notifies.
///
/// ```no_run
/// use std::time::Duration;
/// use notifyman::Connection;
///
/// # fn main() -> Result<(), notifyman::Error> {
/// let mut db = Connection::connect("postgres://app@db.example/shop")?;
/// db.listen(["prices", "stock"])?;
/// db.notify("prices", "42")?;
/// for n in db.wait(Some(Duration::ZERO)).flatten() {
///     println!("{}: {}", n.channel(), n.payload());
/// }
/// # Ok(()) }
/// ```
///
/// # What it promises
///
/// - Every notification that the server sent comes out, once and in order, whatever else is called meanwhile.
/// - No call lasts longer than its timeout ([`set_call_timeout`](Self::set_call_timeout)) and a second.
/// - A caller's mistake sends nothing and harms nothing; a broken link closes the connection, and
///   [`error`](Self::error) says why.
///
/// It is `Send`, and belongs to one thread at a time. Dropping it says goodbye to the server without waiting.
pub struct Connection {
    pub(crate) session: Session,
    stream: Stream,
    config: Config,
    /// When bytes were last read.
    last_read: CompactInstant,
    rare: Option<Box<Rare>>,
}

/// What many connections have in common.
#[derive(Debug, Default)]
pub(crate) struct Common {
    configs: Interner<Config>,
    sessions: proto::SessionInterner,
}

impl Connection {
    pub(crate) fn new(session: Session, stream: Stream, config: Config, now: Instant) -> Self {
        Self { session, stream, config, last_read: now.into(), rare: None }
    }

    /// Opens a connection: looks the host up, dials, and logs in.
    ///
    /// Takes a connection string, as `psql` does, or a [`Config`]. Several hosts, and the several addresses of a host,
    /// are tried in turn, except after a refused login. The whole takes no longer than `connect_timeout`.
    ///
    /// ```no_run
    /// use notifyman::{Config, Connection};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// let a = Connection::connect("postgres://app:secret@db1,db2/shop?connect_timeout=5")?;
    /// let b = Connection::connect("host=/var/run/postgresql dbname=shop")?;
    /// let c = Connection::connect(Config::new().host("db1").user("app").dbname("shop"))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for settings that can't be used; else [`Error::Connect`], which says where, as whom and why.
    pub fn connect<C>(config: C) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        C::Error: Into<Error>,
    {
        let config = config.try_into().map_err(Into::into)?;
        Self::open(Dial::new(&config, clock::now())?)
    }

    /// Opens many connections side by side: an iterator of results as they finish, each with the number of its
    /// configuration, counted from 0.
    ///
    /// Up to [256](ConnectMany::at_once) are on their way at a time, so that they wait for their servers together, and one
    /// that fails or hangs holds up no other. They go on while it is iterated, on this thread. Neighbours of equal
    /// settings share them.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use std::collections::HashMap;
    /// use notifyman::{Connection, NotificationManager};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let (berlin, oslo) = (database(), database());
    /// # let nowhere = "host=127.0.0.1 port=1 user=nobody".to_owned();
    /// let shops = [("Berlin", berlin), ("Oslo", oslo), ("Nowhere", nowhere)];
    /// let mut nm = NotificationManager::new([]);
    /// let mut names = HashMap::new();
    /// for (i, opened) in Connection::connect_many(shops.iter().map(|(_, dsn)| dsn)).listen(["prices"])? {
    ///     match opened {
    ///         Ok(db) => drop(names.insert(nm.insert(db), shops[i].0)),
    ///         Err(error) => eprintln!("{}: {error}", shops[i].0),
    ///     }
    /// }
    /// # assert_eq!(names.len(), 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Each result's are those of [`connect`](Self::connect) and, with [channels](ConnectMany::listen), of
    /// [`listen`](Self::listen).
    pub fn connect_many<I>(configs: I) -> ConnectMany
    where
        I: IntoIterator,
        I::Item: TryInto<Config>,
        <I::Item as TryInto<Config>>::Error: Into<Error>,
    {
        ConnectMany::new(configs)
    }

    /// Dials until it is open, or until there is nothing left to try.
    fn open(mut dial: Dial) -> Result<Self, Error> {
        let mut waiter = Waiter::new();
        let waker = waiter.waker();
        let mut buffer = ReadBuffer::new(LOGIN_READ);
        let mut ear = Ear { buffer: &mut buffer, thorough: true };
        let mut watched = 0;
        loop {
            let until = match dial.step(clock::now(), waker.as_ref(), &mut ear) {
                Step::Wait(until) => until,
                Step::Done(connection, _) => return Ok(*connection),
                Step::Failed(error) => return Err(error),
            };
            if let Some((number, stream)) = dial.stream()
                && number != watched
            {
                waiter.watch(stream);
                watched = number;
            }
            waiter.wait_until(until);
        }
    }

    // ---- listening ----------------------------------------------------------------------------------------------

    /// Listens to channels: all of them, or after an error none.
    ///
    /// One round trip, however many they are. Names keep their case: `listen(["Foo"])` hears `notify("Foo", ..)`, and
    /// SQL's `NOTIFY "Foo"`, but not `NOTIFY Foo`. Listening twice is harmless; no channels at all is nothing to do.
    /// Inside a transaction it takes effect with the commit.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let mut db = notifyman::Connection::connect("postgres://localhost/app")?;
    /// db.listen(["prices"])?;
    /// db.listen((0..100).map(|shard| format!("shard_{shard}")))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a name that isn't 1 to 63 bytes without a NUL (NAMEDATALEN - 1), before anything is sent;
    /// [`Error::Server`] for what the server refuses, such as 25006 from a standby.
    pub fn listen<I>(&mut self, channels: I) -> Result<(), Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let names = sql::checked_channels(channels, self.session.limits())?;
        self.session.refuse_canary_channel(&names)?;
        if names.is_empty() {
            return Ok(());
        }
        self.call(Request::Listen(names), "LISTEN").map(drop)
    }

    /// Stops listening to channels; one that isn't listened to is no error.
    ///
    /// What the server sent before still comes out.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    pub fn unlisten<I>(&mut self, channels: I) -> Result<(), Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let names = sql::checked_channels(channels, self.session.limits())?;
        if names.is_empty() {
            return Ok(());
        }
        self.call(Request::Unlisten(names), "UNLISTEN").map(drop)
    }

    /// Stops listening to anything.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub fn unlisten_all(&mut self) -> Result<(), Error> {
        self.call(Request::UnlistenAll, "UNLISTEN").map(drop)
    }

    /// Asks the server which channels this session listens to; sorted. Without a manager's own, which is its canary's.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub fn listening_channels(&mut self) -> Result<Vec<String>, Error> {
        let reply = self.call(Request::ReadChannels, "reading the channels")?;
        let mut channels: Vec<String> = reply.rows.iter().filter_map(|row| Some(row.get(0)?.into_owned())).collect();
        channels.retain(|channel| self.session.canary_channel() != Some(channel));
        channels.sort_unstable();
        Ok(channels)
    }

    // ---- notifying ----------------------------------------------------------------------------------------------

    /// Sends one notification; an empty payload is none.
    ///
    /// Whoever sends many should send them together, with [`notify_many`](Self::notify_many).
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a name that isn't 1 to 63 bytes or a payload of over 7,999 bytes, or either with a NUL;
    /// else as [`query`](Self::query).
    pub fn notify(&mut self, channel: &str, payload: &str) -> Result<(), Error> {
        self.notify_many([(channel, payload)])
    }

    /// Sends notifications in one statement, in order: all of them, or after an error none.
    ///
    /// Of those that are equal in channel and payload the server delivers one, as of any that one transaction sends
    /// (<https://www.postgresql.org/docs/current/sql-notify.html>).
    ///
    /// ```no_run
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let mut db = notifyman::Connection::connect("postgres://localhost/app")?;
    /// db.notify_many([("prices", "41"), ("prices", "42"), ("stock", "")])?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`notify`](Self::notify); of several pairs it says which one is bad, counted from 0.
    pub fn notify_many<I, C, P>(&mut self, pairs: I) -> Result<(), Error>
    where
        I: IntoIterator<Item = (C, P)>,
        C: AsRef<str>,
        P: AsRef<str>,
    {
        let pairs: Vec<(C, P)> = pairs.into_iter().collect();
        if pairs.is_empty() {
            return Ok(());
        }
        let statement = sql::checked_notify_many(&pairs, self.session.limits())?;
        self.call(Request::Notify(statement), "NOTIFY").map(drop)
    }

    // ---- queries ------------------------------------------------------------------------------------------------

    /// Runs SQL by the simple protocol, and gives the rows of all its statements as text.
    ///
    /// Several statements in one call are one transaction, unless they say otherwise. Up to 64 MiB of answer are kept.
    /// (16 MiB of a row); for a longer one the call fails with [`Error::AnswerTooLong`], though the SQL was carried out.
    /// `COPY .. TO STDOUT` runs, and its data is passed over; `COPY .. FROM STDIN` is refused.
    ///
    /// A `LISTEN` in the text is noticed, also in a `DO` block; one that a function makes is not, and is not listened to
    /// again when the connection is brought back.
    ///
    /// # Errors
    ///
    /// [`Error::Server`] for what the server reports; [`Error::Timeout`] when it takes longer than the call timeout,
    /// which says whether the connection is still good; else what closed the connection.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        sql::check_query(sql)?;
        self.call(Request::Query(sql.to_owned()), "the query").map(|reply| reply.rows)
    }

    /// Runs SQL by the simple protocol, and gives how many rows its statements touched, added up.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub fn execute(&mut self, sql: &str) -> Result<u64, Error> {
        sql::check_query(sql)?;
        self.call(Request::Query(sql.to_owned()), "the query").map(|reply| reply.affected)
    }

    /// Asks, and waits for the answer.
    fn call(&mut self, ask: Request, action: &'static str) -> Result<Reply, Error> {
        if let Some(reason) = self.session.reason() {
            return Err(reason.clone());
        }
        let id = self.session.request(ask);
        let deadline = self.call_timeout().and_then(|timeout| clock::now().checked_add(timeout));
        let mut exchange = Exchange { id, reply: None, buffer: LentBuffer::default(), waiter: None };
        if self.drive(&mut exchange, deadline) {
            return exchange.reply.unwrap_or(Err(Error::Disconnected));
        }

        let after = self.call_timeout().unwrap_or_default();
        let grace = clock::now().checked_add(after.min(GRACE));
        let over = self.begin_cancel(grace).is_none_or(Cancel::finish);
        // A request that is still on its way might cancel the next call instead.
        if !self.drive(&mut exchange, grace) || !over {
            self.close_for(Error::Timeout { action, after, closed: true });
        }
        let closed = self.is_closed();
        match exchange.reply {
            // It was done just before it could be cancelled.
            Some(Ok(reply)) => Ok(reply),
            Some(Err(error)) if error.sqlstate() != Some(QUERY_CANCELED) => Err(error),
            _ => Err(Error::Timeout { action, after, closed }),
        }
    }

    /// Begins a CancelRequest for the running query; returns `None` if the server cannot be reached.
    pub(crate) fn begin_cancel(&self, until: Option<Instant>) -> Option<Cancel> {
        let peer = self.stream.peer().ok()?;
        Cancel::begin(&peer, &self.config, self.stream.encryption(), self.session.cancel_request(), until)
    }

    /// Sends and receives until the exchange is over, or until the deadline; says which.
    fn drive(&mut self, exchange: &mut Exchange, deadline: Option<Instant>) -> bool {
        let mut late = false;
        loop {
            self.transmit();
            if let Some(reply) = self.session.take_reply(exchange.id) {
                exchange.reply = Some(reply);
            }
            if exchange.reply.is_some() && self.session.is_settled() {
                return true;
            }
            // Also a server that never stops talking comes to its end: after the deadline there is one more read.
            if late && !self.is_closed() {
                return false;
            }
            let now = clock::now();
            late = deadline.is_some_and(|deadline| deadline <= now);
            if self.receive(exchange.buffer.get(), now) || self.is_closed() || late {
                continue;
            }
            exchange.waiter.get_or_insert_with(|| Waiter::on(&self.stream)).wait_until(deadline);
        }
    }

    // ---- waiting ------------------------------------------------------------------------------------------------

    /// Waits for notifications: an iterator of `Some(notification)`, and of `None` for idle events.
    ///
    /// - `None`: notifications for ever.
    /// - `Some(T)`: also an idle event about every T, never early, also under a steady stream.
    /// - `Some(Duration::ZERO)`: reads the socket once until it is empty, at most 16 MiB, yields all pending
    ///   notifications, and ends. Notifications that arrive later, even because of the loop's body, belong to the next
    ///   iteration. The next `wait` with a zero timeout continues an iteration that was left before its end.
    ///
    /// It ends when the connection does, after everything that had come; [`error`](Self::error) has the reason.
    /// Breaking out of the loop loses nothing: the next `wait` goes on where it was left.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let mut db = notifyman::Connection::connect("postgres://localhost/app")?;
    /// for event in db.wait(Duration::from_secs(2)) {
    ///     match event {
    ///         Some(n) => println!("{} {} {}", n.channel(), n.payload(), n.pid()),
    ///         None => println!("nothing new"),
    ///     }
    /// }
    /// println!("the connection has ended: {:?}", db.error());
    /// # Ok(()) }
    /// ```
    pub fn wait(&mut self, timeout: impl Into<Option<Duration>>) -> Wait<'_> {
        Wait::new(self, timeout.into())
    }

    /// What may have been missed before this connection took over from one that died, or before it listened again to
    /// what its server had forgotten; told once.
    ///
    /// In a manager it comes with the first batch.
    pub fn take_gap(&mut self) -> Option<Gap> {
        self.end_relistening();
        self.rare.as_mut()?.gap.take()
    }

    // ---- state --------------------------------------------------------------------------------------------------

    /// The server's process for this session, as in a notification's [`pid`](crate::Notification::pid).
    pub fn pid(&self) -> i32 {
        self.session.pid()
    }

    /// The server's version, such as `17.2 (Debian 17.2-1)`; empty if it told none.
    pub fn server_version(&self) -> &str {
        self.parameter("server_version").unwrap_or_default()
    }

    /// A setting that the server reports unasked, such as `server_encoding`.
    ///
    /// Which they are: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-ASYNC>
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.session.parameter(name)
    }

    /// Whether the session is in a transaction: while it is, the server delivers no notifications to it.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.session.status()
    }

    /// What it was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Why the connection is closed; nothing while it is open.
    pub fn error(&self) -> Option<&Error> {
        self.session.reason()
    }

    /// Whether it is closed, by whichever side. Notifications that came before may still be waiting.
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// Takes the notices and warnings that the server sent; of more than 64, the latest.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let mut db = notifyman::Connection::connect("postgres://localhost/app")?;
    /// db.execute("DROP TABLE IF EXISTS nothing_of_that_name")?;
    /// for notice in db.take_notices() {
    ///     println!("{notice}");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn take_notices(&mut self) -> Vec<ServerError> {
        self.session.take_notices()
    }

    /// Bounds every call from now on; `None` for no bound. The default is the configuration's, 30 seconds.
    ///
    /// A call that takes longer is cancelled at the server. If that answers within a second the connection is good,
    /// else it is closed; the error tells. No answer comes within [`Duration::ZERO`]: it fails every call, and leaves no
    /// grace, so that the first one closes the connection.
    pub fn set_call_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.rarer_mut().call_timeout = Some(timeout.into());
    }

    /// Says goodbye to the server and closes. Notifications that had been read can still be taken with
    /// [`wait`](Self::wait); those that the system held are gone.
    ///
    /// # Errors
    ///
    /// Why it was closed already, if that wasn't by this call before.
    pub fn close(&mut self) -> Result<(), Error> {
        match self.session.reason() {
            None => {}
            Some(Error::Closed) => return Ok(()),
            Some(reason) => return Err(reason.clone()),
        }
        self.session.terminate();
        let result = self.send_close_notify();
        self.stream.shut_down();
        result.map_err(|e| Error::io("saying goodbye to the server", e))
    }

    /// Sends what is left to be sent, as far as that goes without waiting.
    fn send_close_notify(&mut self) -> std::io::Result<()> {
        let bytes = self.session.poll_transmit();
        let said = if bytes.is_empty() { Ok(()) } else { self.stream.write(bytes).map(drop) };
        self.stream.send_close_notify();
        said
    }

    /// What bounds every call.
    pub(crate) fn call_timeout(&self) -> Option<Duration> {
        let own = self.rarer().and_then(|rarer| rarer.call_timeout);
        own.unwrap_or_else(|| Some(self.config.get_call_timeout()))
    }

    // ---- for the loops ------------------------------------------------------------------------------------------

    /// The stream, while the session on it is open.
    pub(crate) fn stream(&self) -> Option<&Stream> {
        (!self.is_closed()).then_some(&self.stream)
    }

    /// The stream, to stop watching it.
    pub(crate) fn any_stream(&self) -> &Stream {
        &self.stream
    }

    /// Sends what is to be sent, as far as that goes without waiting.
    pub(crate) fn transmit(&mut self) {
        while !self.is_closed() && !self.session.poll_transmit().is_empty() {
            match self.stream.write(self.session.poll_transmit()) {
                Ok(sent) => self.session.handle_transmitted(sent),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                // What the server said last may still be there to be read: the reading tells of the end.
                Err(e) if is_gone(&e) => {
                    let pending = self.session.poll_transmit().len();
                    self.session.handle_transmitted(pending);
                }
                Err(e) => self.session.handle_io_error("writing to the server", e),
            }
        }
    }

    /// Reads once. Says whether something came, so that there may be more.
    pub(crate) fn receive(&mut self, buffer: &mut ReadBuffer, now: Instant) -> bool {
        self.receive_some(buffer, now).is_some()
    }

    /// Reads once; nothing where nothing came.
    #[inline]
    pub(crate) fn receive_some(&mut self, buffer: &mut ReadBuffer, now: Instant) -> Option<Received> {
        if self.is_closed() {
            return None;
        }
        let space = self.session.space(buffer);
        let room = space.len();
        let received = match self.stream.read(space) {
            Ok(0) => {
                self.session.handle_eof();
                None
            }
            Ok(bytes) => {
                self.last_read = now.into();
                self.session.handle_input(buffer, bytes);
                Some(Received { bytes, full: bytes == room || !self.stream.short_read_means_drained() })
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(e) => {
                self.session.handle_io_error("reading from the server", e);
                None
            }
        };
        if self.is_closed() {
            self.stream.shut_down();
        }
        received
    }

    /// Whether there is something to be sent for which the socket must be watched.
    pub(crate) fn wants_write(&self) -> bool {
        !self.is_closed() && !self.session.poll_transmit().is_empty()
    }

    /// Everything that came, with the gap before it.
    #[inline]
    pub(crate) fn take_batch(&mut self) -> Option<Batch> {
        if self.rare.is_some() && !self.end_relistening() {
            return None;
        }
        let batch = self.session.take_notifications();
        match self.take_gap() {
            None => batch,
            Some(gap) => Some(batch.unwrap_or_else(Batch::empty).with_gap(gap)),
        }
    }

    /// When bytes were last read.
    pub(crate) fn last_read(&self) -> Instant {
        self.last_read.into()
    }

    #[cfg(test)]
    pub(crate) fn set_last_read(&mut self, at: Instant) {
        self.last_read = at.into();
    }

    /// Shares the memory of what equals another connection's.
    #[inline]
    pub(crate) fn share(&mut self, common: &mut Common) {
        if self.session.is_unshared() {
            self.config = common.configs.intern(&self.config);
            self.session.share(&mut common.sessions);
        }
    }

    /// Where it is connected to, as far as can be told from here.
    pub(crate) fn peer(&self) -> Option<String> {
        Some(format!("{:?}", self.stream.peer().ok()?))
    }

    /// Closes for a reason of our own.
    pub(crate) fn close_for(&mut self, reason: Error) {
        self.session.fail(reason);
        self.stream.shut_down();
    }
}

/// What one read brought.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) bytes: usize,
    /// Whether it filled the space: then there may be more. A read that came back short has drained the socket,
    /// unless the peer has said that it will send no more: only a read of nothing tells the end.
    pub(crate) full: bool,
}

/// One call under way.
struct Exchange {
    id: RequestId,
    reply: Option<Result<Reply, Error>>,
    buffer: LentBuffer,
    /// Made when it is first needed: many an answer is there at once.
    waiter: Option<Waiter>,
}

/// Whether a write failed because nobody is there to read it.
fn is_gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset | ConnectionAborted)
}

impl Drop for Connection {
    fn drop(&mut self) {
        // What was closed before has said its goodbye, or has nobody to say it to.
        if !self.is_closed() {
            self.session.terminate();
            // Nobody is left to be told how that went.
            let _ = self.send_close_notify();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("to", &format_args!("{}", self.config))
            .field("pid", &self.pid())
            .field("descriptor", &self.stream.as_raw_fd())
            .field("channels", &self.session.channels())
            .field("error", &self.error())
            .finish()
    }
}
