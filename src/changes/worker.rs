//! Starting a worker.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::database::DatabaseFollower;
use super::filter::TableFilter;
use super::mailbox::Mailbox;
use super::queue::EventQueue;
use super::server::cannot;
use super::stream::Changes;
use super::worker_loop::WorkerLoop;
use crate::config::Config;
use crate::error::Error;
use crate::manager::{Backoff, NotificationManager};

/// A server that has been silent for the first time is asked for a sign of life, which it must give within the second.
const HEARTBEAT: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));
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
}

impl Worker {
    /// Creates a worker for these databases, which are numbered from 1 in this order.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use std::time::Duration;
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
        Self { configs, filter: TableFilter::default(), timeout: None, keep_spilled: Duration::from_secs(600) }
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
    /// [`Error::Config`] for settings that cannot be used, and [`Error::Changes`] if no thread can be started.
    pub fn start(self) -> Result<Changes, Error> {
        let (idle, deadline) = HEARTBEAT;
        // Databases that do not answer keep their places among the dials, so there is one for each.
        let backoff = Backoff::default().longest(BACKOFF_MAX).at_once(self.configs.len().max(64));
        let mut manager = NotificationManager::new([]).reconnect(backoff).heartbeat(idle, deadline);
        let mut databases = Vec::new();
        for (number, config) in (1..).zip(self.configs) {
            let place = config.to_string();
            let id = manager.dial(config, [] as [&str; 0])?;
            databases.push(DatabaseFollower::new(number, id, place));
        }
        let mailbox = Arc::new(Mailbox::new(manager.handle()));
        let queue = Arc::new(EventQueue::new(Arc::clone(&mailbox)));
        let ends = (Arc::clone(&queue), mailbox);
        let worker_loop = WorkerLoop::new(manager, databases, ends, self.filter.clone(), self.keep_spilled);
        let thread = thread::Builder::new().name("changes".to_owned()).spawn(move || worker_loop.run());
        let thread = thread.map_err(|error| cannot(format!("could not start a thread: {error}")))?;
        Ok(Changes::new(queue, self.filter, self.timeout, thread))
    }
}
