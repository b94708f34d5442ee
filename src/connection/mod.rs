//! One session with one server, and the calls that wait for its answers.
//!
//! ```text
//!   Connection       the public face: calls that block, `wait`
//!      └─ Link       the driver: a session on a stream, moved by `pump` alone
//!           ├─ Session    the protocol (see `proto`)
//!           └─ stream     a socket (see `net`)
//!   Dial             opens a link without blocking; used by `connect`, `connect_many` and the manager
//! ```
//!
//! A connection has no poller. A blocking call makes one for as long as it lasts; a manager watches many connections
//! with one. Notifications that arrive during a call are kept, in order, for the next `wait` or turn.

mod attempt_limit;
mod blocking;
mod cancel;
mod connector;
mod diagnosis;
mod dial;
mod history;
pub(crate) mod idle;
mod link;
mod many;
mod opening;
mod password;
mod preparation;
mod read_context;
mod shuffle;
mod target;
mod thread_buffer;
mod tls_upgrade;
mod transcript;
mod wait;

use std::fmt;
use std::os::fd::AsRawFd;
use std::time::Duration;

use self::blocking::{BlockingPoll, call};
pub(crate) use self::blocking::{GRACE, QUERY_CANCELED};
pub(crate) use self::cancel::{Cancel, CancelProgress};
pub use self::diagnosis::{Diagnosis, Finding, FindingKind, Severity};
use self::dial::LOGIN_READ;
pub(crate) use self::dial::{Dial, DialProgress};
pub(crate) use self::link::{ConnectionInterner, Link, Linked, READS_PER_TURN};
pub use self::many::ConnectMany;
pub(crate) use self::opening::{Opening, OpeningProgress};
pub(crate) use self::read_context::ReadContext;
pub(crate) use self::transcript::{TraceLabel, database_of, host_of};
pub(crate) use self::wait::DRAIN_MAX;
pub use self::wait::Wait;
use crate::clock;
use crate::config::Config;
use crate::error::{Error, ServerError};
use crate::gap::Gap;
use crate::net::Stream;
pub(crate) use crate::net::Transport;
use crate::notification::Notification;
use crate::proto::{ReadBuffer, Request, TransactionStatus, refuse_canary_channel, sql};
use crate::row::Row;
use crate::ticket::Ticket;

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
/// # Guarantees
///
/// - Every notification that the server sends is returned, once and in order, whichever calls are made meanwhile. Up to
///   256 MiB wait to be taken; if more arrive during a call, the connection is closed with [`Error::Overflow`].
/// - No call takes longer than its timeout ([`set_call_timeout`](Self::set_call_timeout)) and a second.
/// - An invalid argument sends nothing and changes nothing. A fault of the network or the server closes the connection, and
///   [`error`](Self::error) returns the reason.
///
/// A connection is `Send`, and is used by one thread at a time. Dropping it sends Terminate without waiting.
pub struct Connection {
    link: Link<Stream>,
}

impl Connection {
    /// Opens a connection: resolves the host name, connects, and logs in.
    ///
    /// The argument is a connection string, as for `psql`, or a [`Config`]. Several hosts, and several addresses of a host,
    /// are tried in turn; a refused login ends the attempt. All of it takes no longer than `connect_timeout` (30 seconds by
    /// default).
    ///
    /// ```no_run
    /// use notifyman::{Config, Connection};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// let a = Connection::connect(
    ///     "postgres://app:secret@db1,db2/shop?connect_timeout=5",
    /// )?;
    /// let b = Connection::connect("host=/var/run/postgresql dbname=shop")?;
    /// let c = Connection::connect(
    ///     Config::new().host("db1").user("app").dbname("shop"),
    /// )?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for invalid settings; otherwise [`Error::Connect`] with the server, the role and the cause.
    #[doc(alias = "open")]
    pub fn connect<C>(config: C) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        C::Error: Into<Error>,
    {
        let config = config.try_into().map_err(Into::into)?;
        Self::open(Dial::new(&config, clock::now())?)
    }

    /// Opens a connection like [`connect`](Self::connect), without waiting, for async code. The ticket is a future.
    ///
    /// One thread of the process opens all of these connections, concurrently and up to 256 at a time; it exists while there
    /// are any. The attempt begins immediately. Dropping the ticket does not withdraw it: the connection is closed when it is
    /// open. The calls of a connection block, so in async code give it to a manager, or let the manager open it:
    /// [`NotificationManager::dial`](crate::NotificationManager::dial).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), notifyman::Error> {
    /// # let (berlin, oslo) = (database(), database());
    /// use notifyman::Connection;
    ///
    /// let berlin = Connection::connect_ticket(berlin);
    /// let oslo = Connection::connect_ticket(oslo);
    /// let (berlin, oslo) = (berlin.await?, oslo.await?);
    /// # drop((berlin, oslo));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The ticket resolves to the errors of [`connect`](Self::connect), and to [`Error::Io`] if no thread can be started.
    pub fn connect_ticket<C>(config: C) -> Ticket<Self>
    where
        C: TryInto<Config>,
        C::Error: Into<Error>,
    {
        connector::connect(config.try_into().map_err(Into::into))
    }

    /// Opens many connections concurrently: returns an iterator over the results as they finish, each with the index of its
    /// configuration, counted from 0.
    ///
    /// Up to [256](ConnectMany::at_once) attempts are in progress at a time, and one that fails or hangs delays no other.
    /// The attempts advance while the iterator is used, on the caller's thread. Neighbours with equal settings share them.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use std::collections::HashMap;
    /// use notifyman::{Connection, NotificationManager};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let (berlin, oslo) = (database(), database());
    /// # let nowhere = "host=127.0.0.1 port=1 user=app".to_owned();
    /// let shops = [("Berlin", berlin), ("Oslo", oslo), ("Nowhere", nowhere)];
    /// let mut nm = NotificationManager::new([]);
    /// let mut names = HashMap::new();
    /// let attempts = Connection::connect_many(shops.iter().map(|(_, dsn)| dsn));
    /// for (i, opened) in attempts.listen(["prices"])? {
    ///     match opened {
    ///         Ok(db) => drop(names.insert(nm.insert(db), shops[i].0)),
    ///         Err(error) => eprintln!("{}: {error:#}", shops[i].0),
    ///     }
    /// }
    /// # assert_eq!(names.len(), 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Each result has the errors of [`connect`](Self::connect) and, with [channels](ConnectMany::listen), of
    /// [`listen`](Self::listen).
    pub fn connect_many<I>(configs: I) -> ConnectMany
    where
        I: IntoIterator,
        I::Item: TryInto<Config>,
        <I::Item as TryInto<Config>>::Error: Into<Error>,
    {
        ConnectMany::new(configs)
    }

    /// Opens a second connection to the same address, with the same encryption; `limit` is its connect timeout and its call
    /// timeout.
    fn connect_again(&self, limit: Duration) -> Result<Self, Error> {
        let stream = self.link.stream();
        let peer = stream.peer().map_err(|e| Error::io("reading the peer's address", e))?;
        let connect_timeout = self.config().get_connect_timeout().map_or(limit, |timeout| timeout.min(limit));
        let config = self.config().clone().connect_timeout(connect_timeout).call_timeout(limit);
        Self::open(Dial::like(&config, peer, stream.encryption(), clock::now()))
    }

    /// Dials until the connection is open, or until nothing is left to try.
    fn open(mut dial: Dial<Stream>) -> Result<Self, Error> {
        let mut poll = BlockingPoll::new();
        let waker = poll.waker();
        let mut buffer = ReadBuffer::new(LOGIN_READ);
        let mut watched = 0;
        loop {
            let mut cx = ReadContext::new(&mut buffer, clock::now(), true, waker.as_ref());
            let until = match dial.advance(&mut cx) {
                DialProgress::Wait(until) => until,
                DialProgress::Open(link, _) => return Ok(Self::from(*link)),
                DialProgress::Failed(error) => return Err(error),
            };
            if let Some((number, stream)) = dial.stream()
                && number != watched
            {
                poll.watch(stream);
                watched = number;
            }
            poll.wait_until(until);
        }
    }

    // ---- listening ----------------------------------------------------------------------------------------------

    /// Listens to channels: to all of them, or after an error to none.
    ///
    /// The call takes one round trip, however many channels there are. Names keep their case: `listen(["Foo"])` receives
    /// `notify("Foo", ..)` and SQL's `NOTIFY "Foo"`, but not `NOTIFY Foo`. Listening to a channel twice is harmless; with no
    /// channels, the call does nothing. Inside a transaction, LISTEN takes effect at commit.
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
    /// [`Error::Value`] for a name that is not 1 to 63 bytes without NUL (NAMEDATALEN - 1), before anything is sent;
    /// [`Error::Server`] for an error of the server, such as 25006 from a standby.
    #[doc(alias("subscribe", "add_listener", "listen_all"))]
    pub fn listen<I>(&mut self, channels: I) -> Result<(), Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let names = sql::checked_channels(channels, self.link.limits())?;
        refuse_canary_channel(self.link.canary_channel(), &names)?;
        if names.is_empty() {
            return Ok(());
        }
        call(&mut self.link, Request::Listen(names), "LISTEN").map(drop)
    }

    /// Stops listening to channels. A channel that is not listened to is no error.
    ///
    /// Notifications that the server has sent before are still returned.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    #[doc(alias = "remove_listener")]
    pub fn unlisten<I>(&mut self, channels: I) -> Result<(), Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let names = sql::checked_channels(channels, self.link.limits())?;
        if names.is_empty() {
            return Ok(());
        }
        call(&mut self.link, Request::Unlisten(names), "UNLISTEN").map(drop)
    }

    /// Stops listening to all channels.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    #[doc(alias = "UnlistenAll")]
    pub fn unlisten_all(&mut self) -> Result<(), Error> {
        call(&mut self.link, Request::UnlistenAll, "UNLISTEN").map(drop)
    }

    /// Queries the server for the channels that this session listens to, sorted. The channel of a manager's canary is left
    /// out.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub fn listening_channels(&mut self) -> Result<Vec<String>, Error> {
        let reply = call(&mut self.link, Request::ReadChannels, "reading the channels")?;
        let mut channels: Vec<String> = reply.rows.iter().filter_map(|row| Some(row.get(0)?.into_owned())).collect();
        channels.retain(|channel| self.link.canary_channel() != Some(channel));
        channels.sort_unstable();
        Ok(channels)
    }

    // ---- notifying ----------------------------------------------------------------------------------------------

    /// Sends one notification; an empty payload is the same as none.
    ///
    /// To send many notifications, use [`notify_many`](Self::notify_many), which is faster.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a name that is not 1 to 63 bytes, for a payload of more than 7,999 bytes, and for a NUL in
    /// either; otherwise as [`query`](Self::query).
    #[doc(alias("publish", "pg_notify"))]
    pub fn notify(&mut self, channel: impl AsRef<str>, payload: impl AsRef<str>) -> Result<(), Error> {
        self.notify_many([(channel, payload)])
    }

    /// Sends notifications in one statement, in order: all of them, or after an error none.
    ///
    /// Of notifications with equal channel and payload, the server delivers one, as for all that one transaction sends
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
    /// As [`notify`](Self::notify); the error gives the index of the invalid pair, counted from 0.
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
        let statement = sql::checked_notify_many(&pairs, self.link.limits())?;
        call(&mut self.link, Request::Notify(statement), "NOTIFY").map(drop)
    }

    // ---- queries ------------------------------------------------------------------------------------------------

    /// Executes SQL by the simple query protocol, and returns the rows of all statements as text.
    ///
    /// There are no parameters: never insert untrusted values into the text. For queries with values, use a general client.
    ///
    /// Several statements in one call are one transaction, unless they control transactions themselves. Up to 64 MiB of
    /// an answer are kept, and 16 MiB of a row; for a longer answer the call fails with [`Error::AnswerTooLong`], although
    /// the SQL was executed. `COPY .. TO STDOUT` is executed and its data discarded; `COPY .. FROM STDIN` is refused.
    ///
    /// A `LISTEN` in the text is noticed, also in a `DO` block. A `LISTEN` in a stored function is not, and its channel is
    /// not restored when the connection is.
    ///
    /// # Errors
    ///
    /// [`Error::Server`] for an error of the server; [`Error::Timeout`] if the call takes longer than the call timeout, which
    /// says whether the connection is still usable; otherwise the reason why the connection was closed.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        sql::check_query(sql)?;
        call(&mut self.link, Request::Query(sql.to_owned()), "the query").map(|reply| reply.rows)
    }

    /// Executes SQL by the simple query protocol, and returns the number of rows that its statements affected, added up.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub fn execute(&mut self, sql: &str) -> Result<u64, Error> {
        sql::check_query(sql)?;
        call(&mut self.link, Request::Query(sql.to_owned()), "the query").map(|reply| reply.affected)
    }

    // ---- waiting ------------------------------------------------------------------------------------------------

    /// Waits for notifications: returns an iterator over `Some(notification)`, and `None` for idle events.
    ///
    /// - `None`: notifications, without an end.
    /// - `Some(T)`: also an idle event about every T, never early, also under a steady stream.
    /// - `Some(Duration::ZERO)`: reads the socket once until it is empty, at most 16 MiB, yields all pending
    ///   notifications, and ends. Notifications that arrive later, even because of the loop's body, belong to the next
    ///   iteration. The next `wait` with a zero timeout continues an iteration that was left before its end.
    ///
    /// The iterator ends when the connection does, after all its notifications; [`error`](Self::error) returns the reason.
    /// Leaving the loop loses nothing: the next `wait` continues where it stopped.
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
    #[doc(alias("notifies", "iternotifies", "wait_for_notification"))]
    pub fn wait(&mut self, timeout: impl Into<Option<Duration>>) -> Wait<'_> {
        Wait::new(self, timeout.into())
    }

    /// Returns all pending notifications without waiting; a connection that has ended is an error.
    ///
    /// The call reads the socket until it is empty, at most 16 MiB. Notifications that were received before the end of the
    /// connection are returned first, and the next call returns the error. So a program that polls between other work
    /// notices that nothing more will arrive; a [`wait`](Self::wait) with a zero timeout only ends, as if nothing were
    /// pending.
    ///
    /// A link that died silently is no error: a call sends nothing. A [`query`](Self::query) finds it, or the heartbeat of
    /// a [manager](crate::NotificationManager).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # use notifyman::Connection;
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let mut db = Connection::connect(database())?;
    /// # db.listen(["prices"])?;
    /// # db.notify("prices", "42")?;
    /// # let mut received = 0;
    /// for n in db.poll()? {
    ///     println!("{} {}", n.channel(), n.payload());
    /// #   received += 1;
    /// }
    /// # assert_eq!(received, 1);
    /// db.close()?;
    /// assert!(db.poll().is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The reason why the connection is closed, once everything received before has been returned.
    #[doc(alias("PQnotifies", "drain"))]
    pub fn poll(&mut self) -> Result<Vec<Notification>, Error> {
        // A pass that a loop has left may be over, and would end without a read.
        self.link.history.set_pass(None);
        let pending: Vec<_> = self.wait(Duration::ZERO).flatten().collect();
        match self.link.error() {
            Some(reason) if pending.is_empty() => Err(reason.clone()),
            _ => Ok(pending),
        }
    }

    /// Takes the gap: what may have been missed before this connection succeeded a lost one, or before it listened again to
    /// a channel that its server had forgotten.
    ///
    /// In a manager, the gap comes with the first batch.
    pub fn take_gap(&mut self) -> Option<Gap> {
        self.link.take_gap(clock::now())
    }

    // ---- state --------------------------------------------------------------------------------------------------

    /// Returns the process ID of the backend, as in [`Notification::pid`](crate::Notification::pid).
    #[doc(alias("backend_pid", "backend_id", "PQbackendPID"))]
    pub fn pid(&self) -> i32 {
        self.link.pid()
    }

    /// Returns the server's version, such as `17.2 (Debian 17.2-1)`; empty if the server has not reported it.
    pub fn server_version(&self) -> &str {
        self.parameter("server_version").unwrap_or_default()
    }

    /// Returns the value of a parameter that the server reports, such as `server_encoding`.
    ///
    /// The parameters are listed at <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-ASYNC>.
    #[doc(alias("parameter_status", "PQparameterStatus"))]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.link.parameter(name)
    }

    /// Returns the transaction status. Inside a transaction, the server delivers no notifications.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.link.transaction_status()
    }

    /// Returns the configuration with which the connection was opened.
    pub fn config(&self) -> &Config {
        self.link.config()
    }

    /// Returns the reason why the connection is closed; `None` while it is open.
    pub fn error(&self) -> Option<&Error> {
        self.link.error()
    }

    /// Returns `true` if either side has closed the connection. Notifications received before may still be pending.
    #[doc(alias = "closed")]
    pub fn is_closed(&self) -> bool {
        self.link.is_closed()
    }

    /// Takes the notices and warnings that the server has sent: the latest 64.
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
        self.link.take_notices()
    }

    /// Sets the time limit of each call; `None` for no limit. The default is the configuration's, 30 seconds.
    ///
    /// A call that takes longer is cancelled at the server. If the server answers within a second, the connection remains
    /// usable; otherwise it is closed. The error says which. With [`Duration::ZERO`], every call fails, and the first one
    /// closes the connection.
    pub fn set_call_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.link.history.audit_mut().call_timeout = Some(timeout.into());
    }

    /// Sends Terminate and closes the connection. Notifications that have been read can still be taken with
    /// [`wait`](Self::wait); those in the system's buffers are lost.
    ///
    /// # Errors
    ///
    /// The reason why the connection was closed before, except by this call.
    pub fn close(&mut self) -> Result<(), Error> {
        match self.link.error() {
            None => {}
            Some(Error::Closed) => return Ok(()),
            Some(reason) => return Err(reason.clone()),
        }
        let result = self.link.terminate();
        self.link.stream().shut_down();
        result.map_err(|e| Error::io("terminating the session", e))
    }

    /// Diagnoses whether notifications arrive, and what prevents them or will prevent them.
    ///
    /// The call queries the server, listens to a channel of its own (`notifyman_diagnosis_`, the pid and a random number),
    /// causes one notification there, waits up to three seconds for it without sending anything, and stops listening to the
    /// channel. That notification is not returned; all others are kept, in order, for the next `wait` or turn.
    ///
    /// - The [call timeout](Self::set_call_timeout) limits each query.
    /// - In a transaction the server is not queried, since an error would abort that transaction: the result is what is known
    ///   without a query.
    /// - A second connection to the same address is opened briefly and sends the notification, because a proxy or
    ///   pooler may deliver to a session that sends a request, but not to an idle one. If the second connection cannot
    ///   be opened, this connection notifies itself, and the finding says so.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::{Connection, FindingKind};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// let mut db = Connection::connect(database())?;
    /// let diagnosis = db.diagnose()?;
    /// assert!(diagnosis.find(FindingKind::Delivery).is_some());
    /// assert!(db.listening_channels()?.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The reason why the connection is closed, or was closed meanwhile. An error of the server is a finding.
    pub fn diagnose(&mut self) -> Result<Diagnosis, Error> {
        Diagnosis::examine(self)
    }
}

impl Linked for Connection {
    type Stream = Stream;

    fn link(&self) -> &Link<Stream> {
        &self.link
    }

    fn link_mut(&mut self) -> &mut Link<Stream> {
        &mut self.link
    }
}

impl From<Link<Stream>> for Connection {
    fn from(link: Link<Stream>) -> Self {
        Self { link }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut entry = f.debug_struct("Connection");
        self.link.describe(&mut entry);
        entry.field("descriptor", &self.link.stream().as_raw_fd()).finish()
    }
}
