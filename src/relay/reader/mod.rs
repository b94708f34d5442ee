//! Readers of streams, for programs that receive notifications behind a relay.
//!
//! ```text
//!   engine ──XREAD──▶ thread: feed (for each stream) ──▶ queue ──▶ next_event
//!                        ▲ follower: the rule              bounded
//! ```
//!
//! The thread reads; each stream's [`feed`] turns entries into events, and does no I/O.

mod builder;
#[cfg(test)]
mod clients;
mod engine_clock;
mod feed;
mod queue;
mod reading;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub use self::builder::RelayReaderBuilder;
use self::engine_clock::EngineClock;
use self::feed::{CarriedChannels, FeedOutput, FeedSilence, StreamFeed};
use self::queue::{ReaderQueue, Waited};
use self::reading::StreamThread;
use crate::clock;
use crate::error::Error;
use crate::manager::{ConnId, Event, EventSource};
use crate::notification::Batch;
use crate::relay::redis::{EngineConfig, Interrupt, commands};

/// The silence of a stream until an entry names that of its leader: the default period of the canary, and its deadline.
const SILENCE: Duration = Duration::from_secs(20);

/// Receives the notifications of databases from the streams to which relays append them.
///
/// A reader returns the events of a [`NotificationManager`](crate::NotificationManager), with a [`ConnId`] for each stream whose
/// label is the stream's name. A thousand readers cost the databases no more than the relays do.
///
/// ```no_run
/// use notifyman::Event;
/// use notifyman::relay::RelayReader;
///
/// # fn main() -> Result<(), notifyman::Error> {
/// # fn flush(_: &str) {}
/// let mut reader = RelayReader::builder(["redis://cache1", "redis://cache2"])?
///     .stream("shop")
///     .build()?;
/// while let Some(event) = reader.next_event() {
///     match event {
///         Event::Notifies(stream, batch) => {
///             for n in &batch {
///                 println!("{stream} {} {}", n.channel(), n.payload());
///             }
///         }
///         // Nothing was missed if the gap has no channels.
///         Event::Restored(_, gap) => {
///             for channel in gap.channels() {
///                 flush(channel);
///             }
///         }
///         Event::Lost(stream, error) => eprintln!("{stream}: {error:#}"),
///         _ => {}
///     }
/// }
/// # Ok(()) }
/// ```
///
/// As an iterator, a reader yields what a manager does: `Some((id, batch))`, `None` when idle, and gaps as batches that contain
/// nothing else.
///
/// # Events
///
/// | event | meaning |
/// |---|---|
/// | [`Opened`](Event::Opened) | the position in the stream and its channels are known; what is relayed from now on is returned |
/// | [`Notifies`](Event::Notifies) | notifications, in the order in which the server sent them |
/// | [`Disconnected`](Event::Disconnected) | the first attempt to read has failed, the stream has no entry yet, or it is silent: no relay leads, or the engine cannot be reached |
/// | [`Restored`](Event::Restored) | entries arrive again, or a gap: notifications on its channels may be missing; without channels, none are |
/// | [`Unlistened`](Event::Unlistened) | the relay no longer carries these channels |
/// | [`CanaryReceived`](Event::CanaryReceived) | everything that was committed before this time was returned, if [requested](RelayReaderBuilder::report_canaries) |
/// | [`Lost`](Event::Lost) | the stream cannot be read: the login is refused, the key is no stream of a relay, or an entry is of a newer version |
///
/// An engine that cannot be reached is no loss: the reader connects again and continues at its position. If the stream was silent
/// for longer than the canary of its relay [allows](RelayReaderBuilder::silence), it is reported as disconnected. A gap is reported if the
/// relay reports one, if entries were trimmed or lost, or if the stream was deleted or replaced by an older one.
///
/// # Limits
///
/// - A reader begins at the end of the stream: what was relayed earlier is not returned.
/// - One thread and one connection serve all streams of a reader; all are in one engine. An idle reader wakes up for the
///   canaries alone, four times a minute for each stream.
/// - Events that the program has not taken yet are bounded to about 4,096 and 16 MiB. Then the thread stops reading, and the
///   engine keeps the entries; if it trims them before they are read, there is a gap.
/// - Notifications that are relayed behind a gap may have been received before it.
pub struct RelayReader {
    settings: RelayReaderBuilder,
    engine: Arc<EngineConfig>,
    ids: Vec<ConnId>,
    /// The channels of the streams that are open, according to the events that were returned.
    open: HashMap<ConnId, CarriedChannels>,
    queue: Arc<ReaderQueue>,
    /// Ends the calls of the thread, if one was started.
    interrupt: Option<Arc<Interrupt>>,
    /// The time of the next idle event.
    idle_at: Option<Instant>,
}

impl RelayReader {
    /// Returns the settings of a reader of an engine: an [`EngineConfig`], or one or several URLs, `redis://`, `rediss://` for TLS, or
    /// `unix://`. If there are several, the server that is a master is used.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there is no URL, or one is invalid.
    pub fn builder<E>(engine: E) -> Result<RelayReaderBuilder, Error>
    where
        E: TryInto<EngineConfig>,
        E::Error: Into<Error>,
    {
        Ok(RelayReaderBuilder::new(engine.try_into().map_err(Into::into)?))
    }

    fn new(settings: RelayReaderBuilder, engine: Arc<EngineConfig>) -> Self {
        let ids = settings.streams.iter().zip(1..).map(|(name, number)| ConnId::of_source(number, name)).collect();
        let queue = Arc::default();
        Self { settings, engine, ids, open: HashMap::new(), queue, interrupt: None, idle_at: None }
    }

    /// Returns the streams, in the order in which they were given.
    pub fn streams(&self) -> impl ExactSizeIterator<Item = ConnId> + '_ {
        self.ids.iter().copied()
    }

    /// Returns the channels that a stream carries, or `None` while it is not open: both according to the events that were
    /// returned.
    pub fn channels(&self, stream: ConnId) -> Option<Vec<Box<str>>> {
        self.open.get(&stream).map(|channels| channels.to_vec())
    }

    /// Sets the time after which [`Event::Idle`] is returned. It comes about every `timeout`, also under load, and not before
    /// everything has been returned that had been received when it was due. Zero does not wait: everything received is returned, and
    /// then `None`.
    pub fn set_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.settings.timeout = timeout.into();
        self.idle_at = None;
    }

    /// Returns a handle that stops the reader from any thread.
    pub fn handle(&self) -> RelayReaderHandle {
        RelayReaderHandle { queue: Arc::clone(&self.queue) }
    }

    /// Begins to read at the end of the streams, also again: events that were not returned are discarded, and
    /// [`Event::Opened`] is reported again. The first call of [`next_event`](Self::next_event) does this, too.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the system starts no thread.
    pub fn start(&mut self) -> Result<(), Error> {
        if let Some(interrupt) = self.interrupt.take() {
            interrupt.stop();
        }
        (self.idle_at, self.open) = (None, HashMap::new());
        let (number, interrupt) = (self.queue.restart(), Arc::<Interrupt>::default());
        let now = reading::read_time();
        let settings = &self.settings;
        let silence = settings.silence.map_or(FeedSilence::OfLeader(SILENCE), FeedSilence::Fixed);
        let feeds = self.ids.iter().zip(&settings.streams).map(|(id, name)| {
            let key = commands::key_of(name);
            StreamFeed::new(*id, name, key, silence, settings.reports_canaries, now)
        });
        let thread = StreamThread {
            config: (*self.engine).clone(),
            feeds: feeds.collect(),
            reports_canaries: settings.reports_canaries,
            queue: Arc::clone(&self.queue),
            number,
            interrupt: Arc::clone(&interrupt),
            clock: EngineClock::new(now.0),
            out: Vec::new(),
        };
        let spawned = thread::Builder::new().name("notifyman-reader".into()).spawn(move || thread.run());
        spawned.map_err(|error| Error::io("starting a thread that reads from the engine", error))?;
        self.interrupt = Some(interrupt);
        Ok(())
    }

    /// Returns the next event, and waits for it. `None` is the end: the reader was stopped, or every stream is lost.
    ///
    /// After a stop, the next call continues at the same place.
    pub fn next_event(&mut self) -> Option<Event> {
        if self.interrupt.is_none()
            && let Err(error) = self.start()
        {
            // There is no thread to report it.
            let lost = |id: &ConnId| FeedOutput { event: Event::Lost(*id, error.clone()), channels: None };
            let number = self.queue.restart();
            self.queue.add(number, &mut self.ids.iter().map(lost).collect());
            self.queue.end(number);
            self.interrupt = Some(Arc::default());
        }
        let timeout = self.settings.timeout;
        let until = timeout.and_then(|timeout| match self.idle_at.filter(|_| !timeout.is_zero()) {
            Some(at) => Some(at),
            None => clock::now().checked_add(timeout),
        });
        self.idle_at = until;
        match self.queue.next(until) {
            Waited::Event(output) => Some(self.take(output)),
            Waited::Due if timeout.is_some_and(|timeout| timeout.is_zero()) => None,
            Waited::Due => {
                self.idle_at = None;
                Some(Event::Idle)
            }
            Waited::End => None,
        }
    }

    fn take(&mut self, output: FeedOutput) -> Event {
        let id = match &output.event {
            Event::Opened(id)
            | Event::Notifies(id, _)
            | Event::Disconnected(id, _)
            | Event::Restored(id, _)
            | Event::Lost(id, _)
            | Event::CanaryReceived(id, _)
            | Event::Unlistened(id, _) => *id,
            _ => return output.event,
        };
        match output.channels {
            Some(channels) => self.open.insert(id, channels),
            None => self.open.remove(&id),
        };
        output.event
    }
}

/// See the [type](RelayReader).
impl Iterator for RelayReader {
    type Item = Option<(ConnId, Batch)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_event()? {
                Event::Idle => return Some(None),
                Event::Notifies(id, batch) => return Some(Some((id, batch))),
                Event::Restored(id, gap) => return Some(Some((id, Batch::empty().with_gap(gap)))),
                _ => {}
            }
        }
    }
}

/// For a [`Notifier`](crate::Notifier) behind a relay: see [`Notifier::over`](crate::Notifier::over).
impl EventSource for RelayReader {
    fn connections(&self) -> Vec<ConnId> {
        self.ids.clone()
    }

    fn start(&mut self) -> Result<(), Error> {
        self.start()
    }

    fn next_event(&mut self) -> Option<Event> {
        self.next_event()
    }

    fn channels(&self, conn: ConnId) -> Option<Vec<Box<str>>> {
        self.channels(conn)
    }

    fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.set_timeout(timeout);
    }

    fn stopper(&self) -> Box<dyn Fn() + Send + Sync> {
        let handle = self.handle();
        Box::new(move || handle.stop())
    }
}

impl Drop for RelayReader {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(interrupt) = &self.interrupt {
            interrupt.stop();
        }
    }
}

/// Shows the addresses and the streams; a login is never shown.
impl fmt::Debug for RelayReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayReader").field("engine", &self.engine).field("streams", &self.ids).finish()
    }
}

/// Stops a [`RelayReader`] from any thread.
///
/// ```no_run
/// # fn main() -> Result<(), notifyman::Error> {
/// # use notifyman::relay::RelayReader;
/// let mut reader =
///     RelayReader::builder(["redis://cache1"])?.stream("shop").build()?;
/// let handle = reader.handle();
/// std::thread::spawn(move || {
///     std::thread::sleep(std::time::Duration::from_secs(60));
///     handle.stop();
/// });
/// while let Some(event) = reader.next_event() {
///     println!("{event:?}");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RelayReaderHandle {
    queue: Arc<ReaderQueue>,
}

impl RelayReaderHandle {
    /// Makes [`next_event`](RelayReader::next_event) return `None` immediately, also if it waits. Has no effect before the first call,
    /// and after an end until the next call.
    pub fn stop(&self) {
        self.queue.stop();
    }
}

impl fmt::Debug for RelayReaderHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayReaderHandle").finish_non_exhaustive()
    }
}
