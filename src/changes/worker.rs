//! Starting a worker.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use super::database::DatabaseFollower;
use super::filter::TableFilter;
use super::log::{Begin, LogOptions, Position};
use super::mailbox::Mailbox;
use super::queue::EventQueue;
use super::rows::changes_error;
use super::stream::Changes;
use super::worker_loop::WorkerLoop;
use crate::config::Config;
use crate::error::{Error, ValueError};
use crate::manager::{Backoff, NotificationManager};

/// A server that has been silent for the first time is asked for a sign of life, which it must give within the second.
const HEARTBEAT: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));
/// The shortest time between two looks into a log.
const LOOK_MIN: Duration = Duration::from_millis(1);
/// The most bytes of a name.
const NAME_MAX: usize = 63;
/// The longest wait between two attempts to connect.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Follows the changes of databases in which an [`Installer`](super::Installer) has built.
///
/// All databases are followed by one loop on one thread, each by one session. A server that is down or does not answer
/// holds up no other, also at the start: the databases are connected concurrently, and
/// [`ChangeEvent::Connected`](super::ChangeEvent::Connected) reports each from which changes are received.
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
/// let changes = Worker::new([database().parse::<Config>()?]).tables(["price"]).start()?;
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
///         ChangeEvent::Schema(change) => println!("{database}: {}", change.object_identity),
///         ChangeEvent::Gap(gap) => println!("{database}: nothing was received for {:?}", gap.duration()),
///         other => println!("{database}: {other:?}"),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Worker {
    configs: Vec<Config>,
    filter: TableFilter,
    timeout: Option<Duration>,
    keep_spilled: Duration,
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
    pub fn new(configs: impl IntoIterator<Item = Config>) -> Self {
        let configs = configs.into_iter().collect();
        Self {
            configs,
            filter: TableFilter::default(),
            timeout: None,
            keep_spilled: Duration::from_secs(600),
            log: LogOptions::default(),
            positions: Vec::new(),
        }
    }

    /// Reports only the tables that match one of these patterns, by their name or as `schema.name`; `*` matches any text,
    /// `?` any character. The changes of a partition are reported under the name of the root, and match by either.
    #[must_use]
    pub fn tables<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.filter.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Yields an idle event (`None`) whenever nothing has come for this time. The default is never.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Sets how long a payload that was too long for NOTIFY is kept, so that every worker can read it. The default is ten
    /// minutes.
    #[must_use]
    pub fn keep_spilled(mut self, time: Duration) -> Self {
        self.keep_spilled = time;
        self
    }

    /// Sets the name under which each database that has a log keeps the position of this worker; 1 to 63 bytes.
    ///
    /// A worker that is started again under its name goes on where the last one ended, and what was committed meanwhile is
    /// reported. Where nothing is kept under the name, a [`Gap`](super::ChangeEvent::Gap) is reported first. If two workers have
    /// one name, the second waits until the first ends, and then continues from its position; a
    /// [`Warning`](super::ChangeEvent::Warning) says so to both. In a database without a log a warning says that no position
    /// is kept.
    ///
    /// Without a name, a worker begins with what is committed from now on.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.log.name = Some(name.into());
        self
    }

    /// Begins to read the log of a database at this position; databases are numbered from 1.
    ///
    /// The log keeps rows for positions that have a [name](Self::name), and waits for no other. With both, this position is
    /// where the reading begins, and the one that is kept under the name moves there. A position that is not moved for
    /// [`Installer::keep_for`](super::Installer::keep_for) is overtaken, also if no change was for a worker of some
    /// [tables](Self::tables) only: give it a name, too.
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
    /// A position of another database, or one that is newer than the server, is refused: the database is
    /// [lost](super::ChangeEvent::Lost), as is one without a log.
    #[must_use]
    pub fn position(mut self, database: usize, position: Position) -> Self {
        self.positions.push((database, position));
        self
    }

    /// Begins to read logs at this time, to report again what was committed after it.
    ///
    /// The time is marked in the log about once a minute while workers read it, so reading begins up to a minute earlier, or
    /// as much earlier as no worker was there. Where the log does not go back that far, a
    /// [`Gap`](super::ChangeEvent::Gap) comes first. With a [name](Self::name), the position that is kept moves back, too. A
    /// database without a log is [lost](super::ChangeEvent::Lost).
    #[must_use]
    pub fn replay_since(mut self, time: SystemTime) -> Self {
        self.log.begin = Begin::Since(time);
        self
    }

    /// Sets the time between two looks into a log, and that of a log in which nothing has come for 10 s. The defaults are
    /// 20 ms and 200 ms; the shortest is 1 ms.
    ///
    /// Of several workers of a database one looks, and wakes the others.
    #[must_use]
    pub fn look_every(mut self, interval: Duration, when_quiet: Duration) -> Self {
        self.log.interval = interval.max(LOOK_MIN);
        self.log.quiet_interval = when_quiet.max(LOOK_MIN);
        self
    }

    /// Starts to connect to every database, and returns without waiting for any.
    ///
    /// What becomes of each database is reported as it happens: [`Connected`](super::ChangeEvent::Connected),
    /// [`Disconnected`](super::ChangeEvent::Disconnected) while the server cannot be reached, and
    /// [`Lost`](super::ChangeEvent::Lost) where trying again cannot help, or where nothing is installed. Lost connections
    /// are restored, and what may have been missed is reported.
    ///
    /// Each session makes the settings on which it depends, so that no default of a role or a database ends it, or has it
    /// disturb other sessions: it runs at READ COMMITTED and without timeouts, whatever `default_transaction_isolation`,
    /// `idle_session_timeout` and `statement_timeout` say.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for settings that cannot be used, [`Error::Value`] for a name that is too long and for a position
    /// of a database that is not there, and [`Error::Changes`] if no thread can be started.
    pub fn start(self) -> Result<Changes, Error> {
        self.check()?;
        let (idle, deadline) = HEARTBEAT;
        // Databases that do not answer keep their places among the dials, so there is one for each.
        let backoff = Backoff::default().longest(BACKOFF_MAX).at_once(self.configs.len().max(64));
        let mut manager = NotificationManager::new([]).reconnect(backoff).heartbeat(idle, deadline);
        let mut databases = Vec::new();
        for (number, config) in (1..).zip(self.configs) {
            let place = config.to_string();
            let id = manager.dial(config, [] as [&str; 0])?;
            let mut log = self.log.clone();
            if let Some((_, position)) = self.positions.iter().rev().find(|(database, _)| *database == number) {
                log.begin = Begin::At(position.clone());
            }
            databases.push(DatabaseFollower::new(number, id, place, log));
        }
        let mailbox = Arc::new(Mailbox::new(manager.handle()));
        let queue = Arc::new(EventQueue::new(Arc::clone(&mailbox)));
        let ends = (Arc::clone(&queue), mailbox);
        let worker_loop = WorkerLoop::new(manager, databases, ends, self.filter.clone(), self.keep_spilled);
        let thread = thread::Builder::new().name("changes".to_owned()).spawn(move || worker_loop.run());
        let thread = thread.map_err(|error| changes_error(format!("could not start a thread: {error}")))?;
        Ok(Changes::new(queue, self.filter, self.timeout, thread))
    }

    fn check(&self) -> Result<(), ValueError> {
        let name = self.log.name.as_deref();
        if let Some(name) = name.filter(|name| name.is_empty() || name.len() > NAME_MAX || name.contains('\0')) {
            let length = name.len();
            let message = format!("a worker's name has 1 to {NAME_MAX} bytes without NUL, and {name:?} has {length}");
            return Err(ValueError { message });
        }
        let count = self.configs.len();
        match self.positions.iter().find(|(database, _)| !(1..=count).contains(database)) {
            Some((database, _)) => Err(ValueError {
                message: format!(
                    "there is no database {database} to begin at a position: they are numbered from 1 to {count}"
                ),
            }),
            None => Ok(()),
        }
    }
}
