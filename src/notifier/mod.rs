//! Functions called by channel: for whoever doesn't want a loop.
//!
//! Subscribe a function to a channel, and it is called, for ever, through restarts of the server, and is told where
//! notifications may be missing.
//!
#![cfg_attr(feature = "json", doc = "```")]
#![cfg_attr(not(feature = "json"), doc = "```ignore")]
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
//! use notifyman::Notifier;
//! use notifyman::notifier::{Delivery, Id};
//! use serde_json::{Map, Value};
//!
//! # fn main() -> Result<(), notifyman::Error> {
//! # let conf = database();
//! let n: Notifier = Notifier::new(conf)?;
//! n.add_channels(["my_app_name", "ch3"])?;
//!
//! n.subscribe(42.into(), "ch1", |n| {
//!     println!("callback id: {}, channel: {}, payload: {}, pid: {}", n.id(), n.channel(), n.payload(), n.pid())
//! })?;
//!
//! n.subscribe("an_id".into(), "ch2", |_| println!("I'm just going to ignore that."))?;
//!
//! fn do_complex_thing(n: &Delivery<'_, Id>) {
//!     match n.payload().json::<Map<String, Value>>() {
//!         Ok(payload) => {
//!             for (k, v) in payload {
//!                 println!("doing something with {k}: {v}");
//!                 // do something else
//!                 // I think you get the idea...
//!             }
//!         }
//!         Err(error) => println!("not what I wanted: {}", error.raw()),
//!     }
//! }
//!
//! // subscriber with tuple id
//! n.subscribe((2, "another_id").into(), "ch2", do_complex_thing)?;
//! # let (heard, told) = std::sync::mpsc::channel();
//! # for channel in ["my_app_name", "ch1", "ch2", "ch3"] {
//! #     let heard = heard.clone();
//! #     n.subscribe("test".into(), channel, move |n| heard.send(n.payload().value().unwrap()).unwrap())?;
//! # }
//! # let mut psql = notifyman::Connection::connect(database())?;
//! # for sql in [
//! #     r#"select pg_notify('my_app_name', '"WARNING: Something really bad happened"')"#,
//! #     r#"select pg_notify('ch1', '{"topic": "abc", "data": "some data", "something": "else"}')"#,
//! #     r#"select pg_notify('ch2', '{"topic": "xyz", "notice": "update", "data": [2, "stuff"]}')"#,
//! #     r#"select pg_notify('ch3', '[1,2,3,4,5]')"#,
//! # ] {
//! #     psql.query(sql)?;
//! # }
//! # let told: Vec<Value> = told.iter().take(4).collect();
//! # assert_eq!(told, [
//! #     Value::from("WARNING: Something really bad happened"),
//! #     serde_json::json!({"topic": "abc", "data": "some data", "something": "else"}),
//! #     serde_json::json!({"topic": "xyz", "notice": "update", "data": [2, "stuff"]}),
//! #     serde_json::json!([1, 2, 3, 4, 5]),
//! # ]);
//! # n.stop();
//! # Ok(()) }
//! ```
//!
//! An id is anything that can be compared: a number, a text, an enum of yours, or an [`Id`], which may be any of these.
//! One function belongs to one id on one channel; two functions on a channel have two ids.
//!
//! # Nothing lost in silence
//!
//! Where notifications may be missing, a function is called with that: [`Delivery::missed`] says why. So it is after a
//! session was lost and came back, after it was muted, after the notifier was stopped, and where the function is slower
//! than its channel and its [`Queue`] ran over. Whoever caches by notification reads afresh then.
//!
//! Changes are LISTEN and UNLISTEN on the live session: whoever subscribes, unsubscribes, mutes or unmutes, the others
//! miss nothing.
//!
//! # Threads, and order
//!
//! ```text
//!   server ──▶ loop's thread: reads, always ──▶ a queue for each subscriber ──▶ dispatcher: calls
//! ```
//!
//! Two threads by default. The loop's never waits for a callback, so a slow one holds nothing up at the server. The
//! dispatcher calls: one subscriber's callbacks one by one, in the order in which the server sent, over all its channels;
//! between subscribers there is no order. A callback that blocks delays the other subscribers' callbacks, not the
//! reading; with [`workers`](NotifierBuilder::workers), it takes as many blocked callbacks as there are workers.
//!
//! A callback that panics is caught and counted, and goes on being called; [`Notifier::take_panics`] tells. (Not in a
//! program that is built with `panic = "abort"`.)
//!
//! A callback may call its notifier: whatever doesn't wait works there, also [`stop`](Notifier::stop). What waits for the
//! server has a form with a [`Ticket`]; waiting inside a callback is an error. A notifier that one of its own functions
//! has captured goes on until that is unsubscribed, or it is stopped.
//!
//! # One session for many
//!
//! A listening session slows every NOTIFY of its database, before PostgreSQL 19; a thousand of them sink it. However many
//! subscribers and channels there are, a notifier has one session for a database: see [`Notifier::at`].
//!
//! Each listens to the channel `PGNOTIFIER` besides, which is the notifier's own: what is sent there reaches nobody. It
//! carries the [canary](NotifierBuilder::canary), if there is one.
//!
//! # States
#![doc = include_str!("states.md")]
//!
//! A process that ends doesn't wait for its notifiers. One that is dropped without a stop stops by itself, after the
//! callback that runs.
//!
//! # Payloads
//!
//! A [`Payload`] is text, bytes, or a value, as it is asked for. pgnotifier ran each through Python's `literal_eval`, and
//! ended where that failed; here a payload that can't be read is an error value, which has the raw text.
//! (With the features `json` and `python`:)
//!
#![cfg_attr(feature = "python", doc = include_str!("payload/readings.md"))]

mod ack_group;
mod batcher;
mod builder;
mod counters;
mod database;
mod deferred;
mod deferred_drop;
mod delivery;
mod dispatcher;
mod hearing;
mod id;
mod lifecycle;
mod listening;
mod looking;
mod missed;
mod muting;
mod panics;
mod payload;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod queue;
mod registry;
mod shared;
mod subscribing;
mod subscription;

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

pub use self::batcher::Batcher;
pub use self::builder::NotifierBuilder;
use self::builder::NotifierSettings;
pub use self::counters::NotifierStats;
use self::database::DatabaseSession;
pub use self::delivery::Delivery;
pub use self::id::Id;
pub use self::missed::{Missed, Reason};
pub use self::panics::Panicked;
pub use self::payload::Payload;
#[cfg(feature = "json")]
pub use self::payload::PayloadError;
pub use self::queue::{Policy, Queue};
use self::shared::{NotifierCore, RunPhase};
use crate::config::Config;
use crate::error::Error;
use crate::manager::Ticket;

/// Calls functions for what is notified: see the [module](self).
///
/// It is a handle: clones and what [`at`](Self::at) gives are the same notifier, which stops when the last is dropped.
/// All of them can be used from any thread.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// # fn main() -> Result<(), notifyman::Error> {
/// # let conf = database();
/// use notifyman::Notifier;
///
/// let n: Notifier<u32> = Notifier::new(conf)?;
/// let same = n.clone();
/// same.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
/// assert_eq!(n.channels(), ["prices"]);
/// # Ok(()) }
/// ```
pub struct Notifier<I = Id>
where
    I: Clone + Eq + Hash + Send + 'static,
{
    owner: Arc<StopOnDrop<I>>,
    /// Which of its databases this one is about.
    at: usize,
}

/// Stops the notifier when nobody has it any more but its own threads.
struct StopOnDrop<I: Clone + Eq + Hash + Send + 'static>(Arc<NotifierCore<I>>);

/// What a notifier does, with respect to one database; the [table](self#states) has what leads where.
///
/// ```
/// # fn main() -> Result<(), notifyman::Error> {
/// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
/// use notifyman::notifier::State;
///
/// match n.state() {
///     State::Listening => println!("all is well"),
///     State::Lost(error) | State::Failed(error) => eprintln!("somebody must look: {error}"),
///     other => println!("for now: {other:?}"),
/// }
/// # assert!(matches!(n.state(), State::Stopped));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum State {
    /// It was stopped, or hasn't been started.
    Stopped,
    /// It couldn't be started, or ended by itself.
    Failed(Error),
    /// It opens its sessions.
    Starting,
    /// The session listens.
    Listening,
    /// The session isn't open now, and is being opened.
    Away,
    /// The session is lost, and trying again can't help.
    Lost(Error),
    /// It has been stopped, and a callback still runs.
    Stopping,
}

/// A callback that is still running: see [`Notifier::stop_within`].
///
/// ```
/// # fn main() -> Result<(), notifyman::Error> {
/// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
/// use std::time::Duration;
/// use notifyman::notifier::StillRunning;
///
/// if let Err(StillRunning { id, channel, .. }) = n.stop_within(Duration::from_secs(2)) {
///     eprintln!("subscriber {id} doesn't return from {channel}");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StillRunning<I> {
    /// The subscriber.
    pub id: I,
    /// The channel of the callback.
    pub channel: Box<str>,
}

impl<I> fmt::Display for StillRunning<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the notifier is stopped, but a callback for channel {:?} is still running", self.channel)
    }
}

impl<I: fmt::Debug> std::error::Error for StillRunning<I> {}

/// Making one.
impl Notifier {
    /// A notifier that is to be otherwise than by default.
    ///
    /// The type of its ids is told as it is built or started.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder(conf)?.workers(4).start::<u32>()?;
    /// assert!(n.is_running());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a connection string that can't be used.
    pub fn builder<C>(config: C) -> Result<NotifierBuilder, Error>
    where
        C: TryInto<Config>,
        Error: From<C::Error>,
    {
        Ok(NotifierBuilder::new(config.try_into()?))
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> Notifier<I> {
    /// A notifier that runs, over one session with this database.
    ///
    /// It fails at once where the server is away; [`keep_trying`](NotifierBuilder::keep_trying) changes that.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use notifyman::Notifier;
    ///
    /// let n: Notifier<u32> = Notifier::new(conf)?;
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a connection string that can't be used, and what [`start`](Self::start) fails with.
    pub fn new<C>(config: C) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        Error: From<C::Error>,
    {
        NotifierBuilder::new(config.try_into()?).start()
    }

    fn stopped(config: Config, settings: NotifierSettings) -> Self {
        let core = Arc::new(NotifierCore::new(settings));
        let at = core.database(config);
        Self { owner: Arc::new(StopOnDrop(core)), at }
    }

    fn core(&self) -> &Arc<NotifierCore<I>> {
        &self.owner.0
    }

    /// The same notifier, with respect to another database: what is subscribed there is heard from there.
    ///
    /// Databases whose whole effective configuration is equal (the password included, the application's name apart)
    /// are one, with one session. All sessions are on one loop. That of a new database is opened at once where the
    /// notifier runs, and until it is open, calls that wait for it wait for that, too. It stays for as long as the
    /// notifier does: one that can't be opened also fails later starts, unless it is to keep trying.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let (berlin, oslo) = (database(), database().trim_end_matches("postgres").to_owned() + "template1");
    /// use notifyman::Notifier;
    ///
    /// let n: Notifier<u32> = Notifier::new(berlin)?;
    /// n.subscribe(7, "prices", |n| println!("Berlin: {}", n.payload()))?;
    /// n.at(oslo)?.subscribe(7, "prices", |n| println!("Oslo: {}", n.payload()))?;
    /// assert_eq!(n.stats().sessions, 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a connection string that can't be used.
    pub fn at<C>(&self, config: C) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        Error: From<C::Error>,
    {
        let at = self.core().database(config.try_into()?);
        Ok(Self { owner: Arc::clone(&self.owner), at })
    }
}

/// Starting and stopping, for all databases together.
impl<I: Clone + Eq + Hash + Send + 'static> Notifier<I> {
    /// Starts it, and returns once every session listens; or at once, with
    /// [`keep_trying`](NotifierBuilder::keep_trying). Does nothing where it runs.
    ///
    /// Subscribers that were there before are told what they may have [missed](Reason::Stopped).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder(conf)?.build::<u32>();
    /// n.start()?;
    /// assert!(n.is_running());
    /// n.start()?; // as it was
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What the first session fails with that can't be opened, and then it isn't started; [`Error::StillRunning`] as
    /// long as a callback runs since it was stopped; [`Error::Stopped`] where it was stopped meanwhile.
    pub fn start(&self) -> Result<(), Error> {
        self.core().start()
    }

    /// Stops it, and returns when no callback runs any more: none begins after it returns. Does nothing where it doesn't
    /// run.
    ///
    /// What waits in the queues isn't delivered; it counts as dropped. Inside a callback it returns at once, and that
    /// callback is the last that its thread calls.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
    /// n.stop();
    /// assert!(!n.is_running());
    /// assert_eq!(n.channels(), ["prices"]); // for the next start
    /// # Ok(()) }
    /// ```
    pub fn stop(&self) {
        // Without a limit it ends only by being over.
        let _ = self.core().stop_within(None);
    }

    /// Stops it, and gives up waiting after `limit` for callbacks that run.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use std::time::Duration;
    /// use notifyman::Notifier;
    ///
    /// let n: Notifier<u32> = Notifier::new(conf)?;
    /// if let Err(still) = n.stop_within(Duration::from_secs(2)) {
    ///     eprintln!("subscriber {} doesn't return from {}", still.id, still.channel);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StillRunning`] names one of them. It is stopped all the same: no other begins.
    pub fn stop_within(&self, limit: Duration) -> Result<(), StillRunning<I>> {
        self.core().stop_within(Some(limit))
    }

    /// Stops and starts it, on new sessions. It is needed only where a session is [lost](State::Lost) for good.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
    /// n.restart()?;
    /// assert_eq!(n.stats().channels, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start); [`Error::InsideCallback`] inside a callback, and then it goes on as it was.
    pub fn restart(&self) -> Result<(), Error> {
        if self.core().is_inside() {
            return Err(Error::InsideCallback { instead: "restart it from another thread" });
        }
        self.stop();
        self.start()
    }

    /// Returns `true` between a start and a stop, while notifications can arrive, now or after a session is restored.
    ///
    /// Returns `false` once the session of every database is finally lost: see [`State::Lost`].
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// assert!(n.is_running());
    /// n.stop();
    /// assert!(!n.is_running());
    /// # Ok(()) }
    /// ```
    pub fn is_running(&self) -> bool {
        self.core().lock().can_receive()
    }

    /// What it does, with respect to this database.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// use notifyman::notifier::State;
    ///
    /// assert!(matches!(n.state(), State::Listening));
    /// n.stop();
    /// assert!(matches!(n.state(), State::Stopped));
    /// # Ok(()) }
    /// ```
    pub fn state(&self) -> State {
        let state = self.core().lock();
        match (state.phase, state.databases.get(self.at).map(|database| &database.session)) {
            (RunPhase::Stopped, _) => state.failure.clone().map_or(State::Stopped, State::Failed),
            (RunPhase::Starting, _) => State::Starting,
            (RunPhase::Stopping, _) => State::Stopping,
            (RunPhase::Running, Some(DatabaseSession::Open(_))) => State::Listening,
            (RunPhase::Running, Some(DatabaseSession::Lost(error))) => State::Lost(error.clone()),
            (RunPhase::Running, _) => State::Away,
        }
    }

    /// The counters, as they are now, over all databases.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// for id in 0..3 {
    ///     n.subscribe(id, "prices", |n| println!("{}", n.payload()))?;
    /// }
    /// let stats = n.stats();
    /// assert_eq!((stats.subscribers, stats.channels, stats.sessions), (3, 1, 1));
    /// assert_eq!(stats.sessions_saved, 2);
    /// # Ok(()) }
    /// ```
    pub fn stats(&self) -> NotifierStats {
        let state = self.core().lock();
        let mut stats = self.core().counters.read();
        stats.canary_micros = state.handle.as_ref().map_or(0, |handle| handle.stats().canary_micros);
        for database in &state.databases {
            let (subscribers, waiting) = database.waiting();
            stats.subscribers += subscribers as u64;
            stats.waiting += waiting as u64;
            stats.channels += database.heard() as u64;
            if matches!(database.session, DatabaseSession::Open(_)) {
                stats.sessions += 1;
                stats.sessions_saved += (subscribers as u64).saturating_sub(1);
            }
        }
        stats
    }

    /// What callbacks panicked with, since this was last asked: the latest 64.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// for panicked in n.take_panics() {
    ///     eprintln!("subscriber {} on {}: {}", panicked.id, panicked.channel, panicked.message);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn take_panics(&self) -> Vec<Panicked<I>> {
        self.core().panics.take()
    }
}

/// Sending.
impl<I: Clone + Eq + Hash + Send + 'static> Notifier<I> {
    /// Sends a notification by the session that listens; the ticket resolves once the server has committed it.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// use std::time::Duration;
    ///
    /// n.notify("prices", "42").wait(Duration::from_secs(5))?; // committed
    /// n.notify("prices", "43"); // and this one will be
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The ticket resolves to [`Error::Value`] for a channel or payload that PostgreSQL would refuse,
    /// [`Error::NotRunning`], and where the session is lost or away to the reason.
    pub fn notify(&self, channel: impl AsRef<str>, payload: impl AsRef<str>) -> Ticket<()> {
        send(self.core(), self.at, vec![(channel.as_ref().to_owned(), payload.as_ref().to_owned())])
    }

    /// Sends what many threads notify in few transactions, by the session that listens: what comes within `linger`
    /// together, up to `size` at a time.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// use std::time::Duration;
    ///
    /// let batcher = n.batcher(Duration::from_millis(2), 1_000)?;
    /// let mut sent: Vec<_> = (0..100).map(|key| batcher.send("prices", key.to_string())).collect();
    /// for ticket in &mut sent {
    ///     ticket.wait(Duration::from_secs(5))?; // all have gone in a few statements
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the system gives no thread.
    pub fn batcher(&self, linger: Duration, size: usize) -> Result<Batcher, Error> {
        let (core, at) = (Arc::clone(self.core()), self.at);
        Batcher::new(linger, size, &self.core().threads, move |pairs| send(&core, at, pairs))
    }
}

fn send<I: 'static>(core: &NotifierCore<I>, at: usize, pairs: Vec<(String, String)>) -> Ticket<()> {
    let (handle, session) = {
        let state = core.lock();
        let session = state.databases.get(at).map(|database| match &database.session {
            DatabaseSession::Lost(error) => Err(error.clone()),
            session => session.id().ok_or(Error::Unopened),
        });
        (state.handle.clone(), session)
    };
    match (handle, session) {
        (Some(handle), Some(Ok(id))) => handle.notify_many(id, pairs),
        (Some(_), Some(Err(error))) => Ticket::resolved(&core.threads, Err(error)),
        _ => Ticket::resolved(&core.threads, Err(Error::NotRunning)),
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> Clone for Notifier<I> {
    fn clone(&self) -> Self {
        Self { owner: Arc::clone(&self.owner), at: self.at }
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> Drop for StopOnDrop<I> {
    fn drop(&mut self) {
        self.0.halt(None);
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> fmt::Debug for Notifier<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").field("state", &self.state()).field("stats", &self.stats()).finish()
    }
}
