//! The changes of databases, as an iterator or by callbacks.

use std::borrow::Cow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::change::{Change, SchemaChange};
use super::filter::TableFilter;
use super::log::Position;
use super::payload::ChangePayload;
use super::queue::{EventQueue, QueueItem, TakenItem};
use crate::clock;
use crate::error::Error;
use crate::gap::Gap;

/// An event of one database.
///
/// ```
/// use notifyman::changes::ChangeEvent;
///
/// /// Returns `true` if a cache of the whole database must be emptied.
/// fn invalidates_all(event: &ChangeEvent) -> bool {
///     use ChangeEvent::{Connected, Dropped, Gap, Lost};
///     matches!(event, Connected | Gap(_) | Dropped(_) | Lost(_))
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ChangeEvent {
    /// Rows of a table have changed.
    Change(Box<Change>),
    /// The definition of a table has changed.
    Schema(Box<SchemaChange>),
    /// A session is open: each change that is committed from now on is reported. After a [`Disconnected`](Self::Disconnected)
    /// the gap follows, before any change. A worker that reads a log from its name or from a position has missed nothing
    /// before it, unless a gap follows.
    Connected,
    /// The server cannot be reached, or the session was lost. The worker goes on trying to connect.
    Disconnected(Error),
    /// Changes may be missing that were committed before: treat everything as changed. With delivery by NOTIFY it comes with
    /// each restored session. With a log it comes only where the log has not kept what was to be read next, and its
    /// [`cause`](Gap::cause) says why; its beginning is the time up to which had been read, and 1 January 1970 where that is
    /// not known.
    Gap(Gap),
    /// The number of changes that came faster than they were taken, and were not kept: treat everything as changed.
    Dropped(u64),
    /// The database is no longer followed: trying again cannot help, or nothing is installed there.
    Lost(Error),
    /// A payload that no trigger has sent.
    Unreadable {
        /// The payload; what is not UTF-8 is replaced.
        payload: String,
        /// The reason why it cannot be a change.
        reason: String,
    },
    /// A condition that an administrator should know of, such as a NOTIFY queue that fills.
    Warning(String),
}

/// The changes of databases: `Some((database, event))`, or `None` when idle. It ends after [`Stop::stop`], and when every
/// database is lost.
///
/// A thread of its own reads, so that a slow consumer never keeps a server waiting. Up to 64 MiB wait to be taken;
/// notifications beyond that are [counted](ChangeEvent::Dropped), and a log is read only as far as there is room.
///
/// # At least once
///
/// A log is read from a [`Position`]. A worker with a [name](super::Worker::name) has its position kept in the database: that
/// of the last event that was dealt with, which it is once the next one is asked for, or by
/// [`acknowledge`](Self::acknowledge). It is written once a second, so after a crash the changes of about a second are
/// reported again, and none is left out. To have each change take effect exactly once, write the
/// [position](Self::log_position) together with the effect, in one transaction of your own database.
///
/// Dropping it ends its sessions. It waits until the position is written, at most 5 seconds for a server that does not
/// answer.
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
/// let mut changes = Worker::new([database().parse::<Config>()?]).start()?;
/// # assert!(matches!(changes.next(), Some(Some((1, ChangeEvent::Connected)))));
/// # db.execute("INSERT INTO price VALUES (1, 42)")?;
/// if let Some(Some((database, ChangeEvent::Change(_)))) = changes.next() {
///     println!("database {database}: {}", changes.payload());
/// #   assert!(changes.payload().contains("42"));
///     changes.acknowledge(); // as asking for the next event would do
/// # } else { panic!("no change");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Changes {
    queue: Arc<EventQueue>,
    filter: TableFilter,
    timeout: Option<Duration>,
    /// The payload of the last change.
    payload: Box<[u8]>,
    /// The position after the last event, which has not been acknowledged, and its database.
    given: Option<(usize, Position)>,
    /// The position after the last event, if that was read from a log.
    position: Option<Position>,
    thread: Option<JoinHandle<()>>,
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
/// changes.for_each(|event| println!("{event:?}"));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Stop {
    queue: Arc<EventQueue>,
}

impl Stop {
    /// Makes the iterator end, after what has come by then.
    pub fn stop(&self) {
        self.queue.stop();
    }
}

impl Changes {
    pub(crate) fn new(
        queue: Arc<EventQueue>,
        filter: TableFilter,
        timeout: Option<Duration>,
        thread: JoinHandle<()>,
    ) -> Self {
        Self { queue, filter, timeout, payload: Box::default(), given: None, position: None, thread: Some(thread) }
    }

    /// Returns a handle that ends the iterator from any thread.
    pub fn stopper(&self) -> Stop {
        Stop { queue: Arc::clone(&self.queue) }
    }

    /// Returns the number of events that wait to be taken.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Returns the last change as it came: JSON text, with every digit of its numbers, with the columns in their order,
    /// and with values that no [`serde_json::Value`] can hold.
    pub fn payload(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.payload)
    }

    /// Returns the position after the last event, if that is a change or a gap that was read from a log.
    ///
    /// Keep its text with the effect of the event, and begin there the next time: see [`Worker::position`](super::Worker::position).
    pub fn log_position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Reports that the last event has been dealt with: the position that is kept under the worker's name moves behind it.
    /// Asking for the next event does the same.
    pub fn acknowledge(&mut self) {
        if let Some((database, position)) = self.given.take() {
            self.queue.acknowledge(database, position);
        }
    }

    /// Calls back with each change of rows, each change of a definition, and every other event, until the end.
    ///
    /// ```no_run
    /// use notifyman::Config;
    /// use notifyman::changes::Worker;
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// Worker::new([Config::from_env()?]).start()?.run(
    ///     |_, change| println!("{} {:?}", change.table_name, change.method),
    ///     |_, change| println!("{} {}", change.command_tag, change.object_identity),
    ///     |_, event| eprintln!("{event:?}"),
    /// );
    /// # Ok(()) }
    /// ```
    pub fn run(
        self,
        mut on_change: impl FnMut(usize, Change),
        mut on_schema_change: impl FnMut(usize, SchemaChange),
        mut on_other: impl FnMut(usize, ChangeEvent),
    ) {
        for (database, event) in self.flatten() {
            match event {
                ChangeEvent::Change(change) => on_change(database, *change),
                ChangeEvent::Schema(change) => on_schema_change(database, *change),
                other => on_other(database, other),
            }
        }
    }

    fn give(&mut self, database: usize, position: Position) {
        self.position = Some(position.clone());
        self.given = Some((database, position));
    }

    /// Parses a payload; `None` if its table is not wanted.
    fn parse(&mut self, payload: Box<[u8]>) -> Option<ChangeEvent> {
        let parsed = ChangePayload::parse(&payload);
        self.payload = payload;
        match parsed {
            Ok(ChangePayload::Change(change)) => {
                self.filter.accepts_change(&change).then_some(ChangeEvent::Change(change))
            }
            Ok(ChangePayload::Schema(change)) => {
                self.filter.accepts_schema(&change).then_some(ChangeEvent::Schema(change))
            }
            Ok(ChangePayload::Incomplete(coverage)) => Some(ChangeEvent::Warning(coverage.warning())),
            Err(error) => {
                let payload = self.payload().into_owned();
                Some(ChangeEvent::Unreadable { payload, reason: error.to_string() })
            }
        }
    }
}

impl Iterator for Changes {
    type Item = Option<(usize, ChangeEvent)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.acknowledge();
        self.position = None;
        let until = self.timeout.and_then(|timeout| clock::now().checked_add(timeout));
        loop {
            let (database, item) = match self.queue.take(until) {
                TakenItem::Item(database, item) => (database, item),
                TakenItem::TimedOut => return Some(None),
                TakenItem::Over => return None,
            };
            let event = match item {
                QueueItem::Notified(payload) => self.parse(payload),
                QueueItem::Logged(position, payload) => {
                    let event = self.parse(payload);
                    match event {
                        Some(_) => self.give(database, position),
                        None => self.queue.acknowledge(database, position),
                    }
                    event
                }
                QueueItem::LoggedGap(position, gap) => {
                    self.give(database, position);
                    Some(ChangeEvent::Gap(gap))
                }
                QueueItem::Dropped(count) => Some(ChangeEvent::Dropped(count)),
                QueueItem::Connected => Some(ChangeEvent::Connected),
                QueueItem::Disconnected(error) => Some(ChangeEvent::Disconnected(error)),
                QueueItem::Gap(gap) => Some(ChangeEvent::Gap(gap)),
                QueueItem::Lost(error) => Some(ChangeEvent::Lost(error)),
                QueueItem::Warning(warning) => Some(ChangeEvent::Warning(warning)),
            };
            if let Some(event) = event {
                return Some(Some((database, event)));
            }
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the loop has ended the iterator already.
            let _ = thread.join();
        }
    }
}
