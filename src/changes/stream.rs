//! The events of a worker as an iterator, or by callbacks.

use std::borrow::Cow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::change::{Change, SchemaChange};
use super::event::ChangeEvent;
use super::filter::TableFilter;
use super::log::Position;
use super::payload::ChangePayload;
use super::queue::{EventQueue, QueueItem};
use super::watch::WorkerWatch;
use crate::clock;

/// An iterator over the events of databases: `Some((database, event))`, or `None` when idle.
///
/// It ends after [`Stop::stop`], and when every database is lost. A thread of its own reads, so a slow consumer never makes a
/// server wait. Up to 64 MiB wait for the consumer. Notifications beyond that are [counted](ChangeEvent::Dropped), and no more
/// rows of a log are read than there is room for.
///
/// # At least once
///
/// A log is read from a [`Position`]. For a worker with a [name](super::Worker::name), the database keeps the position of the
/// last event that was processed. An event counts as processed when the next one is requested, or by
/// [`acknowledge`](Self::acknowledge). The position is saved once per second, so after a crash the changes of about a second
/// are reported again, and none is missed. To process each change exactly once, save the [position](Self::log_position)
/// yourself, in the transaction that contains the effect of the change.
///
/// Dropping the iterator ends its sessions. The drop waits until the position is saved, or 5 seconds for a server that does
/// not respond.
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
///     changes.acknowledge(); // as requesting the next event does
/// # } else { panic!("no change");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Changes {
    pub(super) queue: Arc<EventQueue>,
    pub(super) watch: WorkerWatch,
    pub(super) filter: TableFilter,
    pub(super) timeout: Option<Duration>,
    /// The payload of the last change.
    pub(super) payload: Box<[u8]>,
    /// The database of the last event and the position after it, until the event is acknowledged.
    pub(super) unacknowledged: Option<(usize, Position)>,
    /// The position after the last event, if that is from a log.
    pub(super) position: Option<Position>,
    pub(super) thread: Option<JoinHandle<()>>,
}

/// Stops [`Changes`] from any thread.
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
    /// Makes the iterator end after the events that were received before.
    pub fn stop(&self) {
        self.queue.stop();
    }
}

impl Changes {
    /// Returns a handle that stops the iterator from any thread.
    pub fn stopper(&self) -> Stop {
        Stop { queue: Arc::clone(&self.queue) }
    }

    /// Returns the state of the databases, for other threads.
    pub fn watch(&self) -> WorkerWatch {
        self.watch.clone()
    }

    /// Returns the number of events that wait for the consumer.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Returns the JSON text of the last change, as the trigger wrote it: with every digit of its numbers, with the columns in
    /// their order, and with values that no [`serde_json::Value`] can hold.
    pub fn payload(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.payload)
    }

    /// Returns the position after the last event, if that is a change or a gap from a log.
    ///
    /// Save its text together with the effect of the event, and give it to [`Worker::position`](super::Worker::position) at the
    /// next start.
    pub fn log_position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Acknowledges the last event: the position that is kept under the worker's name moves past it. Requesting the next event
    /// does the same.
    pub fn acknowledge(&mut self) {
        if let Some((database, position)) = self.unacknowledged.take() {
            self.queue.acknowledge(database, position);
        }
    }

    /// Calls the first function with each change to rows, the second with each change to a definition, and the third with
    /// every other event, until the iterator ends.
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
    #[doc(alias = "PG_EVENTS_DATA_UPDATE_CALLBACK")]
    #[doc(alias = "PG_EVENTS_DB_SCHEMA_UPDATE_CALLBACK")]
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

    fn set_position(&mut self, database: usize, position: Position) {
        self.position = Some(position.clone());
        self.unacknowledged = Some((database, position));
    }

    /// Parses a payload. Returns `None` if the filter does not accept its table.
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
            let Some((database, item)) = self.queue.take(until)? else { return Some(None) };
            let event = match item {
                QueueItem::Notified(payload) => self.parse(payload),
                QueueItem::Logged(position, payload) => {
                    let event = self.parse(payload);
                    match event {
                        Some(_) => self.set_position(database, position),
                        None => self.queue.acknowledge(database, position),
                    }
                    event
                }
                QueueItem::LoggedGap(position, gap) => {
                    self.set_position(database, position);
                    Some(ChangeEvent::Gap(gap))
                }
                QueueItem::Event(event) => Some(event),
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
            // If the loop has panicked, the iterator has ended before.
            let _ = thread.join();
        }
    }
}
