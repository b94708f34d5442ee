//! The configuration and the start of a worker.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use super::context::LoopContext;
use super::database::DatabaseFollower;
use super::filter::TableFilter;
use super::log::{Begin, LogOptions, Position};
use super::mailbox::LoopWaker;
use super::queue::EventQueue;
use super::rows::changes_error;
use super::source_loop::SourceLoop;
use super::stream::Changes;
use super::watch::WorkerWatch;
use super::worker_loop::WorkerLoop;
use crate::clock;
use crate::config::Config;
use crate::error::{Error, ValueError};
use crate::manager::{Backoff, EventSource, NotificationManager};

/// The heartbeat: the time without a byte after which a server is queried, and the time for its reply.
const HEARTBEAT: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));
/// The shortest interval at which a log is polled.
const POLL_MIN: Duration = Duration::from_millis(1);
/// The maximum length of a name, in bytes.
const NAME_MAX: usize = 63;
/// The longest wait between two attempts to connect.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Follows the changes of databases in which an [`Installer`](super::Installer) has built.
///
/// One loop on one thread follows all databases, with one session each. A server that is down or does not respond delays no
/// other, also at the start: all databases are connected concurrently, and
/// [`ChangeEvent::Connected`](super::ChangeEvent::Connected) reports each one from which changes are received.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// use notifyman::changes::{ChangeEvent, Installer, Worker};
/// use notifyman::{Config, Connection};
///
/// # fn main() -> Result<(), notifyman::Error> {
/// # let mut db = Connection::connect(database())?;
/// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
/// # Installer::new().build(&mut db)?;
/// let config: Config = database().parse()?;
/// let changes = Worker::new([config]).tables(["price"]).start()?;
/// for (database, event) in changes.flatten() {
///     match event {
///         ChangeEvent::Connected => {
///             println!("{database}: connected");
/// #           db.execute("INSERT INTO price VALUES (1, 42)")?;
///         }
///         ChangeEvent::Change(change) => {
///             println!("{database}: {:?} {:?}", change.method, change.new_data);
/// #           break;
///         }
///         ChangeEvent::Schema(change) => {
///             println!("{database}: {}", change.object_identity);
///         }
///         ChangeEvent::Gap(gap) => {
///             println!("{database}: a gap of {:?}", gap.duration());
///         }
///         other => println!("{database}: {other:?}"),
///     }
/// }
/// # Ok(()) }
/// ```
#[doc(alias = "pg_events")]
#[must_use]
#[derive(Debug, Clone)]
pub struct Worker {
    configs: Vec<Config>,
    filter: TableFilter,
    timeout: Option<Duration>,
    keep_spilled: Duration,
    canary: Option<(Duration, Duration)>,
    log: LogOptions,
    positions: Vec<(usize, Position)>,
}

impl Worker {
    /// Creates a worker for these databases, which are numbered from 1 in this order.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use std::time::{Duration, SystemTime};
    /// use notifyman::changes::{ChangeEvent, Installer, Worker};
    /// use notifyman::{Config, Connection};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let mut db = Connection::connect(database())?;
    /// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
    /// # Installer::new().build(&mut db)?;
    /// let databases = [database().parse::<Config>()?];
    /// let mut changes = Worker::new(databases)
    ///     .tables(["price", "stock_*"])
    ///     .timeout(Duration::from_millis(20))
    ///     .keep_spilled(Duration::from_secs(60))
    ///     .start()?;
    /// let connected = changes.by_ref().flatten().next();
    /// assert!(matches!(connected, Some((1, ChangeEvent::Connected))));
    /// assert!(matches!(changes.next(), Some(None)), "idle, as nothing changes");
    /// # Ok(()) }
    /// ```
    #[doc(alias = "PG_EVENTS_DATABASE_URL")]
    pub fn new(configs: impl IntoIterator<Item = Config>) -> Self {
        let configs = configs.into_iter().collect();
        Self {
            configs,
            filter: TableFilter::default(),
            timeout: None,
            keep_spilled: Duration::from_secs(600),
            canary: None,
            log: LogOptions::default(),
            positions: Vec::new(),
        }
    }

    /// Adds patterns of tables, which match a table's name or `schema.name`; changes of other tables are not reported. `*`
    /// matches any text, `?` any character. A change of a partition matches by the partition or by the root of its tree.
    pub fn tables<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.filter.patterns.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Sets the time without an event after which an idle event (`None`) is returned. The default is never.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Sets the time for which a payload that was too long for NOTIFY is kept, so that every worker can read it. The default
    /// is ten minutes.
    pub fn keep_spilled(mut self, time: Duration) -> Self {
        self.keep_spilled = time;
        self
    }

    /// Enables the canary of the sessions: in every `period`, one session of each database sends a notification, and one that
    /// does not receive it within the `deadline` is checked, and restored if nothing arrives. The default is none.
    ///
    /// It proves delivery by NOTIFY also while nothing changes: see [`WorkerWatch`]. The
    /// [costs](crate::NotificationManager::canary) are those of a manager. A worker that follows a source ignores it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use notifyman::Config;
    /// use notifyman::changes::Worker;
    ///
    /// let config: Config = "postgres://app@db1.example/shop".parse()?;
    /// let (period, deadline) = (Duration::from_secs(60), Duration::from_secs(10));
    /// let worker = Worker::new([config]).canary(period, deadline);
    /// # drop(worker);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn canary(mut self, period: Duration, deadline: Duration) -> Self {
        self.canary = Some((period, deadline));
        self
    }

    /// Sets the name under which each database with a log keeps the position of this worker, of 1 to 63 bytes.
    ///
    /// A worker that is started again under its name continues where the last one ended, and reports the changes that were
    /// committed meanwhile. If no position is kept under the name, it reports a [`Gap`](super::ChangeEvent::Gap) first. If two
    /// workers have the same name, the second one waits until the first one ends, and then continues from its position; both
    /// report a [`Warning`](super::ChangeEvent::Warning). In a database without a log, the worker reports a warning that no
    /// position is kept.
    ///
    /// Without a name, a worker begins with the changes that are committed from now on.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.log.name = Some(name.into());
        self
    }

    /// Sets the position at which to begin to read the log of a database. Databases are numbered from 1.
    ///
    /// The log only keeps rows for positions with a [name](Self::name). With a name and a position, the worker begins at this
    /// position, and the one under the name moves there. Without a name, the rows after a position that has not moved for
    /// [`Installer::keep_for`](super::Installer::keep_for) may be removed, even if the worker has reported every change of its
    /// [tables](Self::tables): so also give a name.
    ///
    /// ```no_run
    /// use notifyman::Config;
    /// use notifyman::changes::{ChangeEvent, Position, Worker};
    ///
    /// # fn read_position() -> Option<String> { None }
    /// # fn apply_and_write(_: &ChangeEvent, _: Option<&Position>) {}
    /// # fn main() -> Result<(), notifyman::Error> {
    /// let mut worker = Worker::new([Config::from_env()?]).name("orders");
    /// if let Some(position) = read_position() {
    ///     worker = worker.position(1, position.parse()?);
    /// } // else treat everything as changed
    /// let mut changes = worker.start()?;
    /// while let Some(event) = changes.next() {
    ///     if let Some((_, event)) = event {
    ///         apply_and_write(&event, changes.log_position()); // in one transaction
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// A database is [lost](super::ChangeEvent::Lost) if it has no log, and if the position is of another database, or newer than
    /// the server.
    pub fn position(mut self, database: usize, position: Position) -> Self {
        self.positions.push((database, position));
        self
    }

    /// Sets the time at which to begin to read logs, to report again the changes that were committed after it.
    ///
    /// While workers read a log, the time is marked in it about once a minute. Reading begins at the last mark before this time,
    /// so it repeats up to a minute, or more if no worker ran. If the log does not go back that far, a
    /// [`Gap`](super::ChangeEvent::Gap) is reported first. With a [name](Self::name), the position under that name moves back as
    /// well. A database without a log is [lost](super::ChangeEvent::Lost).
    pub fn replay_since(mut self, time: SystemTime) -> Self {
        self.log.begin = Begin::Since(time);
        self
    }

    /// Sets the interval at which a log is polled, and the interval once nothing has been appended for 10 s. The defaults are
    /// 20 ms and 200 ms, the minimum is 1 ms.
    ///
    /// Of several workers of a database, one polls and wakes the others.
    #[doc(alias = "poll_interval")]
    pub fn look_every(mut self, interval: Duration, when_quiet: Duration) -> Self {
        self.log.interval = interval.max(POLL_MIN);
        self.log.quiet_interval = when_quiet.max(POLL_MIN);
        self
    }

    /// Starts to connect to every database, and returns without waiting for them.
    ///
    /// The state of each database is reported as it changes: [`Connected`](super::ChangeEvent::Connected),
    /// [`Disconnected`](super::ChangeEvent::Disconnected) while the server cannot be reached, and
    /// [`Lost`](super::ChangeEvent::Lost) if retrying cannot help or nothing is installed. Lost connections are restored, with
    /// a gap where changes may have been missed.
    ///
    /// Each session sets everything on which it depends, so that the defaults of a role or a database neither end it nor make it
    /// disturb other sessions. It runs at READ COMMITTED and without timeouts, regardless of `default_transaction_isolation`,
    /// `idle_session_timeout` and `statement_timeout`.
    ///
    /// # Errors
    ///
    /// - [`Error::Config`] for invalid connection settings, and for a period of the canary of less than a second.
    /// - [`Error::Value`] for a name that is too long, and for the position of a database that does not exist.
    /// - [`Error::Changes`] if the thread cannot be started.
    pub fn start(self) -> Result<Changes, Error> {
        self.check()?;
        let (idle, deadline) = HEARTBEAT;
        // A database that does not respond occupies one of the concurrent attempts, so there is one for each.
        let backoff = Backoff::default().longest(BACKOFF_MAX).at_once(self.configs.len().max(64));
        let mut manager = NotificationManager::new([]).reconnect(backoff).heartbeat(idle, deadline);
        if let Some((period, deadline)) = self.canary {
            manager = manager.canary(period, deadline)?.report_canaries();
        }
        let mut databases = Vec::new();
        for (number, config) in (1..).zip(self.configs) {
            let place = config.to_string();
            let id = manager.dial(config, [] as [&str; 0])?;
            let mut log = self.log.clone();
            if let Some((_, position)) = self.positions.iter().rev().find(|(database, _)| *database == number) {
                log.begin = Begin::At(position.clone());
            }
            databases.push(DatabaseFollower::new(id, place, log));
        }
        let queue = Arc::new(EventQueue::new(LoopWaker::Manager(manager.handle())));
        let watch = WorkerWatch::new(databases.len());
        let cx = LoopContext {
            handle: manager.handle(),
            queue: Arc::clone(&queue),
            watch: watch.clone(),
            filter: self.filter.clone(),
            keep_spilled: self.keep_spilled,
            databases: databases.len(),
            database: 0,
            now: clock::now(),
        };
        let worker_loop = WorkerLoop::new(manager, databases, cx);
        spawn((queue, watch), self.filter, self.timeout, move || worker_loop.run())
    }

    /// Follows a source in the place of databases, such as a relay's reader: the databases are its connections, numbered from 1 in
    /// their order. The worker has no databases of its own, and no name.
    ///
    /// The source carries the channel `notifyman` of databases that deliver changes by NOTIFY. No session is opened, so
    /// the installation is not checked, and payloads that were too long for NOTIFY are not read: a change then says that it is
    /// [spilled](super::Change::spilled). A database whose source says that nothing was missed is
    /// [connected](super::ChangeEvent::Connected) again without a gap.
    ///
    /// # Errors
    ///
    /// - [`Error::NoDatabase`] if the worker has databases, or settings of a log.
    /// - [`Error::Changes`] if the thread cannot be started.
    ///
    /// A database is [lost](super::ChangeEvent::Lost) with [`Error::NotRelayed`] if its connection does not carry the channel.
    pub fn follow(self, source: impl EventSource) -> Result<Changes, Error> {
        if !self.configs.is_empty() || self.log.name.is_some() || !matches!(self.log.begin, Begin::Default) {
            let instead = "follow the database in another worker, which is started";
            return Err(Error::NoDatabase { action: "read a log or connect to a database", instead });
        }
        let queue = Arc::new(EventQueue::new(LoopWaker::Source(source.stopper())));
        let watch = WorkerWatch::new(source.connections().len());
        let source_loop = SourceLoop::new(Box::new(source), Arc::clone(&queue), watch.clone());
        spawn((queue, watch), self.filter, self.timeout, move || source_loop.run())
    }

    fn check(&self) -> Result<(), ValueError> {
        let name = self.log.name.as_deref();
        if let Some(name) = name.filter(|name| name.is_empty() || name.len() > NAME_MAX || name.contains('\0')) {
            let length = name.len();
            let message = format!("a worker's name has 1 to {NAME_MAX} bytes without NUL, and {name:?} has {length}");
            return Err(ValueError { message });
        }
        let count = self.configs.len();
        let is_unknown = |(database, _): &&(usize, Position)| !(1..=count).contains(database);
        let Some((database, _)) = self.positions.iter().find(is_unknown) else { return Ok(()) };
        let message =
            format!("there is no database {database} to begin at a position: they are numbered from 1 to {count}");
        Err(ValueError { message })
    }
}

/// Runs a loop on a thread of its own, and returns the consumer's end of its queue.
fn spawn(
    (queue, watch): (Arc<EventQueue>, WorkerWatch),
    filter: TableFilter,
    timeout: Option<Duration>,
    run: impl FnOnce() + Send + 'static,
) -> Result<Changes, Error> {
    let thread = thread::Builder::new().name("changes".to_owned()).spawn(run);
    let thread = thread.map_err(|error| changes_error(format!("could not start a thread: {error}")))?;
    Ok(Changes {
        queue,
        watch,
        filter,
        timeout,
        payload: Box::default(),
        unacknowledged: None,
        position: None,
        thread: Some(thread),
    })
}
