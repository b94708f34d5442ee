//! What changed, in many databases, as an iterator or by callbacks.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::event::{Change, Payload, SchemaChange};
use super::glob;
use super::queue::{Item, Queue, Taken};
use super::reader::{self, CHANNEL, Clerk, Ways};
use super::server::{cannot, first};
use super::sql;
use crate::clock;
use crate::config::Config;
use crate::connection::Connection;
use crate::error::Error;
use crate::gap::Gap;
use crate::manager::{Backoff, Handle, NotificationManager};

/// Follows the changes of databases in which an [`Installer`](super::Installer) has built.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// use notifyman::changes::{Installer, News, Worker};
/// use notifyman::{Config, Connection};
///
/// # fn main() -> Result<(), notifyman::Error> {
/// # let mut db = Connection::connect(database())?;
/// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
/// # Installer::new().build(&mut db)?;
/// let changes = Worker::new([database().parse::<Config>()?]).tables(["price"]).start()?;
/// # db.execute("INSERT INTO price VALUES (1, 42)")?;
/// for (database, news) in changes.flatten() {
///     match news {
///         News::Change(change) => println!("{database}: {:?} {:?}", change.method, change.new_data),
///         News::Schema(change) => println!("{database}: {}", change.object_identity),
///         News::Gap(gap) => println!("{database}: {:?} unheard", gap.duration()),
///         other => println!("{database}: {other:?}"),
///     }
/// #   break;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Worker {
    configs: Vec<Config>,
    tables: Vec<String>,
    timeout: Option<Duration>,
    keep_spilled: Duration,
}

impl Worker {
    /// Of these databases, which are counted from 1 in this order.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use std::time::Duration;
    /// use notifyman::changes::{Installer, Worker};
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
    /// assert!(matches!(changes.next(), Some(None)), "idle, as nothing changes");
    /// # Ok(()) }
    /// ```
    pub fn new(configs: impl IntoIterator<Item = Config>) -> Self {
        let configs = configs.into_iter().collect();
        Self { configs, tables: Vec::new(), timeout: None, keep_spilled: Duration::from_secs(600) }
    }

    /// Only the tables that fit one of these, by their name or as `schema.name`; `*` is any text, `?` any character. A
    /// partition's changes come under the name of the root, and fit by either.
    #[must_use]
    pub fn tables<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.tables.extend(globs.into_iter().map(Into::into));
        self
    }

    /// With an idle event (`None`) where nothing has come for so long.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// How long what was too long for NOTIFY is kept, so that every worker can read it; ten minutes, unless set.
    #[must_use]
    pub fn keep_spilled(mut self, time: Duration) -> Self {
        self.keep_spilled = time;
        self
    }

    /// Connects to every database and begins to listen.
    ///
    /// Each takes a session that looks after the tables, and unless it has an outbox one that listens. From then on lost
    /// connections are brought back by themselves, and what may have been missed is told.
    ///
    /// # Errors
    ///
    /// [`Error::Changes`] where nothing is installed; else as [`Connection::connect`] and [`Connection::listen`].
    pub fn start(self) -> Result<Changes, Error> {
        let mut manager = NotificationManager::new([])
            .reconnect(Backoff::default())
            .heartbeat(Duration::from_secs(15), Duration::from_secs(10));
        let (mut databases, mut outboxes) = (HashMap::new(), Vec::new());
        for (number, config) in (1..).zip(&self.configs) {
            let mut db = Connection::connect(config)?;
            if Ways::ask(&mut db)?.outbox {
                outboxes.push(number);
            } else {
                db.listen([CHANNEL])?;
                databases.insert(manager.insert(db), number);
            }
        }
        // An outbox needs no listener to go on.
        manager = manager.park_when_empty(!outboxes.is_empty());
        let queue = Arc::new(Queue::default());
        let mut changes = Changes {
            handle: manager.handle(),
            queue: Arc::clone(&queue),
            tables: self.tables,
            timeout: self.timeout,
            spill: self.configs.iter().map(|config| (config.clone(), None)).collect(),
            payload: Vec::new(),
            given: None,
            threads: Vec::new(),
        };
        let listener = Arc::clone(&queue);
        changes.spawn("changes", move || reader::listen(manager, &databases, &listener))?;
        for (database, config) in (1..).zip(self.configs) {
            let listens = !outboxes.contains(&database);
            let clerk = Clerk { database, config, listens, keep_spilled: self.keep_spilled, queue: Arc::clone(&queue) };
            changes.spawn("clerk", move || clerk.work())?;
        }
        Ok(changes)
    }
}

/// What one database had.
///
/// ```
/// use notifyman::changes::News;
///
/// /// Whether a cache of a whole database must be emptied.
/// fn empties(news: &News) -> bool {
///     matches!(news, News::Gap(_) | News::Dropped(_) | News::Lost(_))
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum News {
    /// Rows of a table.
    Change(Box<Change>),
    /// A table's definition.
    Schema(Box<SchemaChange>),
    /// A connection is back, and what changed meanwhile wasn't heard: treat everything as changed. It doesn't come with
    /// an outbox, which keeps.
    Gap(Gap),
    /// So many changes came faster than they were taken, and weren't kept: treat everything as changed.
    Dropped(u64),
    /// A connection was lost, and is being brought back: a gap will follow.
    Away(Error),
    /// A connection was lost, and can't be brought back.
    Lost(Error),
    /// A payload that no trigger of ours has sent, and why it can't be read.
    Unreadable {
        /// The payload, with anything that isn't UTF-8 replaced.
        payload: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something had better be done, such as about a NOTIFY queue that fills.
    Warning(String),
}

/// The changes of databases: `Some((database, news))`, or `None` when idle; the end after [`Stop::stop`], or when no
/// connection is left.
///
/// Threads of its own read, so that a slow consumer never keeps the server waiting. Up to 64 MiB wait to be taken; what
/// comes beyond that is [counted](News::Dropped).
///
/// What came by an outbox is cleared there once the next is asked for, or by [`acknowledge`](Self::acknowledge): what
/// was under way when a worker died is told again.
///
/// Dropping it ends its sessions, and waits for that: where one is being dialled just then, up to the connect timeout.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// use notifyman::changes::{Installer, News, Worker};
/// use notifyman::{Config, Connection};
///
/// # fn main() -> Result<(), notifyman::Error> {
/// # let mut db = Connection::connect(database())?;
/// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
/// # Installer::new().build(&mut db)?;
/// let mut changes = Worker::new([database().parse::<Config>()?]).start()?;
/// # db.execute("INSERT INTO price VALUES (1, 42)")?;
/// if let Some(Some((database, News::Change(_)))) = changes.next() {
///     println!("database {database}: {}", changes.payload());
/// #   assert!(changes.payload().contains("42"));
///     changes.acknowledge(); // as asking for the next would do
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Changes {
    handle: Handle,
    queue: Arc<Queue>,
    tables: Vec<String>,
    timeout: Option<Duration>,
    /// For each database, a connection that reads what was spilled, once it is needed.
    spill: Vec<(Config, Option<Connection>)>,
    /// What the last change came as.
    payload: Vec<u8>,
    /// What was last given from an outbox.
    given: Option<(usize, i64)>,
    threads: Vec<JoinHandle<()>>,
}

/// Ends [`Changes`] from any thread.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// use notifyman::changes::{Installer, Worker};
/// use notifyman::{Config, Connection};
///
/// # fn main() -> Result<(), notifyman::Error> {
/// # let mut db = Connection::connect(database())?;
/// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
/// # Installer::new().build(&mut db)?;
/// let changes = Worker::new([database().parse::<Config>()?]).start()?;
/// let stopper = changes.stopper();
/// std::thread::spawn(move || stopper.stop());
/// assert_eq!(changes.count(), 0);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Stop {
    handle: Handle,
    queue: Arc<Queue>,
}

impl Stop {
    /// Makes the iterator end, after what has come by then.
    pub fn stop(&self) {
        self.queue.stop();
        drop(self.handle.stop());
    }
}

impl Changes {
    /// What ends it from any thread.
    pub fn stopper(&self) -> Stop {
        Stop { handle: self.handle.clone(), queue: Arc::clone(&self.queue) }
    }

    /// How many events wait to be taken.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The last change as it came: JSON, with every digit of its numbers, and the columns in their order.
    pub fn payload(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.payload)
    }

    /// Says that the last event has been dealt with: what came from an outbox is cleared there. Asking for the next
    /// says so, too.
    pub fn acknowledge(&mut self) {
        if let Some((database, number)) = self.given.take() {
            self.queue.settle(database, [number]);
        }
    }

    /// Calls back: with each change of rows, with each of a definition, and with everything else; until the end.
    ///
    /// ```no_run
    /// use notifyman::Config;
    /// use notifyman::changes::Worker;
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// Worker::new([Config::from_env()?]).start()?.run(
    ///     |_, change| println!("{} {:?}", change.table_name, change.method),
    ///     |_, change| println!("{} {}", change.command_tag, change.object_identity),
    ///     |_, news| eprintln!("{news:?}"),
    /// );
    /// # Ok(()) }
    /// ```
    pub fn run(
        self,
        mut on_change: impl FnMut(usize, Change),
        mut on_schema_change: impl FnMut(usize, SchemaChange),
        mut on_other: impl FnMut(usize, News),
    ) {
        for (database, news) in self.flatten() {
            match news {
                News::Change(change) => on_change(database, *change),
                News::Schema(change) => on_schema_change(database, *change),
                other => on_other(database, other),
            }
        }
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let queue = Arc::clone(&self.queue);
        let is_listener = self.threads.is_empty();
        if is_listener {
            queue.add_reader();
        }
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            work();
            // Without the listener nothing will come.
            if is_listener {
                queue.remove_reader();
            }
        });
        self.threads.push(thread.map_err(|error| cannot(format!("a thread can't be started: {error}")))?);
        Ok(())
    }

    /// What a payload says; nothing where it isn't asked for.
    fn read(&mut self, database: usize, payload: Box<[u8]>) -> Option<News> {
        self.payload = payload.into();
        let mut read = Payload::read(&self.payload);
        if let Ok(Payload::Change(change)) = &read
            && change.spilled
            && self.wants_change(change)
            && let Some(payload) = self.read_spilled(database, change.number)
        {
            self.payload = payload;
            read = Payload::read(&self.payload);
        }
        match read {
            Ok(Payload::Change(change)) => self.wants_change(&change).then_some(News::Change(change)),
            Ok(Payload::Schema(change)) => self.wants_schema(&change).then_some(News::Schema(change)),
            Err(error) => Some(News::Unreadable { payload: self.payload().into_owned(), reason: error.to_string() }),
        }
    }

    /// The whole of a change that was put away; nothing where it can't be had any more.
    fn read_spilled(&mut self, database: usize, number: i64) -> Option<Vec<u8>> {
        let (config, connection) = self.spill.get_mut(database.checked_sub(1)?)?;
        for _ in 0..2 {
            if connection.as_ref().is_none_or(Connection::is_closed) {
                *connection = Connection::connect(&*config).ok();
            }
            match first(connection.as_mut()?, &sql::read_spilled(number)) {
                Ok(row) => return Some(row?.get_bytes(0)?.to_vec()),
                Err(_) => *connection = None,
            }
        }
        None
    }

    fn wants(&self, schema: &str, name: &str) -> bool {
        self.tables.is_empty() || self.tables.iter().any(|pattern| glob::fits_table(pattern, schema, name))
    }

    fn wants_change(&self, change: &Change) -> bool {
        let partition = change.partition_schema.as_deref().zip(change.partition_name.as_deref());
        self.wants(&change.table_schema, &change.table_name)
            || partition.is_some_and(|(schema, name)| self.wants(schema, name))
    }

    fn wants_schema(&self, change: &SchemaChange) -> bool {
        self.wants(change.schema_name.as_deref().unwrap_or_default(), change.object_name.as_deref().unwrap_or_default())
    }
}

impl Iterator for Changes {
    type Item = Option<(usize, News)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.acknowledge();
        let until = self.timeout.and_then(|timeout| clock::now().checked_add(timeout));
        loop {
            let (database, item) = match self.queue.take(until) {
                Taken::Item(database, item) => (database, item),
                Taken::TimedOut => return Some(None),
                Taken::Over => return None,
            };
            let news = match item {
                Item::Notified(payload) => self.read(database, payload),
                Item::Posted(number, payload) => {
                    let news = self.read(database, payload);
                    match news {
                        Some(_) => self.given = Some((database, number)),
                        None => self.queue.settle(database, [number]),
                    }
                    news
                }
                Item::Dropped(count) => Some(News::Dropped(count)),
                Item::Gap(gap) => Some(News::Gap(gap)),
                Item::Away(error) => Some(News::Away(error)),
                Item::Lost(error) => Some(News::Lost(error)),
                Item::Warning(warning) => Some(News::Warning(warning)),
            };
            if let Some(news) = news {
                return Some(Some((database, news)));
            }
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.queue.close();
        drop(self.handle.stop());
        for thread in self.threads.drain(..) {
            // One that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}
