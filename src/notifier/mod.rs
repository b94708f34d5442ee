#![doc = include_str!("overview.md")]
#![cfg_attr(feature = "python", doc = include_str!("payload/values.md"))]

// Crate-private: the notifier uses the layers below by their public interface, except for
// - `Handle::dial_then` and `Handle::listen_then`: they call back on the thread of the loop, before the next event, and do
//   not count against the memory of the user's requests;
// - `Ticket::new`, `Ticket::resolved`, `Resolver` and `ThreadMark`: a notifier has tickets of its own, and refuses to wait
//   for them on its own threads;
// - `Linked`: the channels of an open session, and the limits of names there, without a query;
// - `sql::check_channel`, `sql::check_payload` and `Limits`: names are checked before a request is queued, by the same rules;
// - `Config::shares_session_with` and `Gap::extend_back_to`: databases share a session, and losses in a row one gap;
// - `clock` and `Error::io`: the time, and errors of threads that cannot be started;
// - `CanaryPace` and `canary_at_any_pace`: the same least period, for which the tests cannot wait.

mod batcher;
mod builder;
mod channel;
mod counters;
mod cursor;
mod cursor_list;
mod database;
mod databases;
mod deferred;
mod deferred_drop;
mod delivery;
mod dispatcher;
mod event_loop;
#[cfg(test)]
mod fanout_model;
mod id;
#[cfg(test)]
mod interleavings;
mod lifecycle;
mod log;
mod merged_ranges;
#[cfg(feature = "metrics")]
mod meters;
mod missed;
mod observer;
mod owner;
mod panic_log;
mod payload;
mod pending_queue;
mod place_list;
mod place_ranges;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod queue;
mod receivers;
mod registry;
mod requests;
mod running_source;
#[cfg(feature = "metrics")]
mod samples;
mod segment;
mod settings;
mod shared;
mod source;
mod state_watch;
#[cfg(feature = "stream")]
mod stream;
mod subscriber;
mod subscriber_index;
mod subscriber_queue;
mod subscription;
mod subscriptions;
mod turn_timer;
mod visit;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

pub use self::batcher::Batcher;
pub use self::builder::NotifierBuilder;
pub use self::counters::NotifierStats;
use self::database::Database;
use self::deferred::Undo;
pub use self::delivery::{DeliveredNotification, Delivery, OwnedDelivery, OwnedMissed, OwnedNotification};
pub use self::id::Id;
pub use self::lifecycle::{State, StillRunning};
pub use self::missed::{Missed, Reason};
pub(crate) use self::observer::ReceptionObserver;
use self::owner::StopOnDrop;
pub use self::panic_log::CallbackPanic;
pub use self::payload::Payload;
#[cfg(feature = "json")]
pub use self::payload::PayloadError;
pub use self::queue::{Policy, Queue};
use self::shared::NotifierCore;
pub use self::state_watch::StateChange;
#[cfg(feature = "stream")]
pub use self::stream::{NotifierStream, StreamId, StreamOpening, StreamRequest};
pub(crate) use self::subscription::SubscriptionTarget;
use crate::config::Config;
use crate::error::Error;
use crate::manager::{EventSource, Ticket};

/// A set of callbacks by channel, with the threads that call them: see the [module](self).
///
/// A notifier is a handle: its clones and the results of [`at`](Self::at) are the same notifier, which stops when the last
/// of them is dropped. All methods can be called from any thread.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// # fn main() -> Result<(), notifyman::Error> {
/// # let conf = database();
/// use notifyman::Notifier;
///
/// let n: Notifier<u32> = Notifier::new(conf)?;
/// let clone = n.clone();
/// clone.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
/// assert_eq!(n.channels(), ["prices"]);
/// # Ok(()) }
/// ```
#[doc(alias("pgnotifier", "add_notify_handler", "get_muted_channels", "get_muted_subscribers"))]
pub struct Notifier<I = Id>
where
    I: Clone + Eq + Hash + Send + 'static,
{
    owner: Arc<StopOnDrop<I>>,
    /// The index of the database that the methods refer to.
    at: usize,
}

impl Notifier {
    /// Returns a builder for a notifier with other settings than the defaults.
    ///
    /// The type of the ids is chosen when the notifier is built or started.
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
    /// [`Error::Config`] if the connection string is invalid.
    pub fn builder<C>(config: C) -> Result<NotifierBuilder, Error>
    where
        C: TryInto<Config>,
        Error: From<C::Error>,
    {
        Ok(NotifierBuilder::new(config.try_into()?))
    }

    /// Returns a builder for a notifier that receives from a source in the place of a database, such as a relay's reader:
    /// [`EventSource`] has an example.
    ///
    /// All rules of notifiers hold, and each connection of the source is a database of the notifier, in the order of
    /// [`databases`](Self::databases), with the label in its [`config`](Self::config). A subscription is acknowledged at once if the
    /// source carries the channel, and otherwise refused with [`Error::NotRelayed`]; before the connection is open, it waits for
    /// that. If the source no longer carries a channel, its subscribers receive [`Reason::Lost`] with that error. A silence of
    /// the source is a [`Reason::Disconnected`], after which [`Reason::Restored`] follows if anything may be missing, and otherwise
    /// [`Reason::Resumed`].
    ///
    /// Nothing can be sent: [`notify`](Self::notify) fails with [`Error::NoDatabase`]. The settings of the builder for sessions
    /// (reconnect, heartbeat, canary and audit) have no effect: the source has its own.
    pub fn over(source: impl EventSource) -> NotifierBuilder {
        NotifierBuilder::over(Box::new(source))
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> Notifier<I> {
    /// Creates a notifier with one session for a database, and starts it. The type of the ids is inferred from their use.
    ///
    /// Fails if the server cannot be reached, unless the notifier [keeps trying](NotifierBuilder::keep_trying).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::new(conf)?;
    /// // The ids are strings.
    /// n.subscribe("cache", "prices", |delivery| println!("{delivery}"))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the connection string is invalid, and the errors of [`start`](Self::start).
    pub fn new<C>(config: C) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        Error: From<C::Error>,
    {
        Notifier::builder(config)?.start()
    }

    /// Creates the first handle of a notifier, for the database with an index.
    pub(crate) fn from_core(core: Arc<NotifierCore<I>>, at: usize) -> Self {
        Self { owner: Arc::new(StopOnDrop(core)), at }
    }

    fn core(&self) -> &Arc<NotifierCore<I>> {
        &self.owner.0
    }

    /// Returns the same notifier for another database: its methods subscribe, mute and notify there.
    ///
    /// Databases with the same effective configuration (with the password, without the application name) share one
    /// session. All sessions are driven by one loop. If the notifier is running, the session of a new database is opened
    /// immediately, and calls that wait for the server also wait for that. A database stays for the lifetime of the
    /// notifier: if it cannot be opened, later starts fail too, unless the notifier
    /// [keeps trying](NotifierBuilder::keep_trying).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let (berlin, oslo) = (database(), database().trim_end_matches("postgres").to_owned() + "template1");
    /// use notifyman::Notifier;
    ///
    /// let n: Notifier<u32> = Notifier::new(berlin)?;
    /// n.subscribe(7, "prices", |delivery| println!("Berlin: {delivery}"))?;
    /// n.at(oslo)?.subscribe(7, "prices", |delivery| println!("Oslo: {delivery}"))?;
    /// assert_eq!(n.stats().sessions, 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the connection string is invalid. [`Error::NoDatabase`] if the notifier is [over](Notifier::over) a
    /// source, whose connections [`databases`](Self::databases) returns.
    pub fn at<C>(&self, config: C) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        Error: From<C::Error>,
    {
        let at = databases::add_database(self.core(), config.try_into()?)?;
        Ok(Self { owner: Arc::clone(&self.owner), at })
    }

    // ---- starting and stopping, for all databases -----------------------------------------------------------------

    /// Starts the notifier, and returns once every session listens. Does nothing if it is running.
    ///
    /// A notifier that [keeps trying](NotifierBuilder::keep_trying) does not wait for its sessions. Subscribers that were
    /// there before receive a [report](Reason::Stopped).
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
    /// n.start()?; // does nothing
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of the first session that cannot be opened; the notifier is stopped then. [`Error::StillRunning`] while a
    /// callback from before the last stop still runs, [`Error::Stopped`] if another thread stops the notifier meanwhile.
    #[doc(alias = "run")]
    pub fn start(&self) -> Result<(), Error> {
        lifecycle::start(self.core())
    }

    /// Stops the notifier, and returns when no callback runs: none begins afterwards. Does nothing if it is not running.
    ///
    /// Notifications that wait in queues are dropped and counted. Inside a callback, `stop` returns immediately, and that
    /// callback is the last that its thread calls.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.stop();
    /// assert!(!n.is_running());
    /// assert_eq!(n.channels(), ["prices"]); // for the next start
    /// # Ok(()) }
    /// ```
    pub fn stop(&self) {
        // Without a limit there is no error.
        let _ = lifecycle::stop_within(self.core(), None);
    }

    /// Starts the notifier without waiting, for async code and inside callbacks. The ticket resolves as [`start`](Self::start)
    /// returns; until then a thread waits for that.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder(conf)?.build::<u32>();
    /// n.start_ticket().await?;
    /// assert!(n.is_running());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The ticket resolves to the errors of [`start`](Self::start), and to [`Error::Io`] if no thread can be started.
    pub fn start_ticket(&self) -> Ticket<()> {
        lifecycle::start_ticket(self.core())
    }

    /// Stops the notifier without waiting, for async code. No callback begins afterwards; the ticket resolves once none runs,
    /// as [`stop`](Self::stop) returns. Until then a thread waits for that.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n = notifyman::Notifier::builder(conf)?.build::<u32>();
    /// # n.start_ticket().await?;
    /// let stopped = n.stop_ticket();
    /// assert!(!n.is_running());
    /// stopped.await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The ticket resolves to [`Error::Io`] if no thread can be started; the notifier is stopped all the same.
    pub fn stop_ticket(&self) -> Ticket<()> {
        lifecycle::stop_ticket(self.core())
    }

    /// Stops the notifier, and waits for callbacks that run, but not longer than `limit`.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// use std::time::Duration;
    ///
    /// if let Err(running) = n.stop_within(Duration::from_secs(2)) {
    ///     let (id, channel) = (running.id, running.channel);
    ///     eprintln!("the callback of {id} for {channel} does not return");
    /// }
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`StillRunning`] with one of the callbacks. The notifier is stopped all the same: no other callback begins.
    pub fn stop_within(&self, limit: Duration) -> Result<(), StillRunning<I>> {
        lifecycle::stop_within(self.core(), Some(limit))
    }

    /// Stops the notifier, and starts it with new sessions. This is needed only if a session is [lost](State::Lost).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.restart()?;
    /// assert_eq!(n.stats().channels, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`start`](Self::start); [`Error::InsideCallback`] inside a callback, with no effect.
    pub fn restart(&self) -> Result<(), Error> {
        if self.core().is_own_thread() {
            return Err(Error::InsideCallback { instead: "restart it from another thread" });
        }
        self.stop();
        self.start()
    }

    /// Returns `true` between a start and a stop, while notifications can arrive, now or after a session is restored.
    ///
    /// Returns `false` once the sessions of all databases are lost for good: see [`State::Lost`].
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

    /// Returns the state with respect to this database.
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
        State::of(&self.core().lock(), self.at)
    }

    /// Returns the state over all databases: that of the one that is worst off. [`State::Lost`] comes before
    /// [`State::Away`], and this before [`State::Listening`].
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let (berlin, oslo) = (database(), database().trim_end_matches("postgres").to_owned() + "template1");
    /// use notifyman::Notifier;
    /// use notifyman::notifier::State;
    ///
    /// let n = Notifier::builder(berlin)?.database(oslo)?.start::<u32>()?;
    /// assert!(matches!(n.overall_state(), State::Listening)); // both listen
    /// # Ok(()) }
    /// ```
    pub fn overall_state(&self) -> State {
        State::of_all(&self.core().lock())
    }

    /// Calls a function with the state of each database now, and whenever the state of one changes: for health checks, logs
    /// and metrics.
    ///
    /// The function runs on a thread of its own, so it may block and may use the notifier, for example restart it. Changes are
    /// reported one at a time. States that have passed again before the function is called are left out. A panic is
    /// caught, and later changes are reported all the same.
    ///
    /// The calls end when the last handle of the notifier has been dropped, after [`State::Stopped`]. A function that owns a
    /// handle prevents that.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let url = database();
    /// # let (sender, received) = std::sync::mpsc::channel();
    /// use notifyman::{Config, Notifier};
    ///
    /// let config: Config = url.parse()?;
    /// let n = Notifier::builder(config.label("berlin"))?.build::<u32>();
    /// n.on_state_change(move |change| {
    ///     println!("{:?} is {:?}", change.config().get_label(), change.state());
    /// #   let _ = sender.send(format!("{:?}", change.state()));
    /// })?;
    /// n.start()?; // Stopped, Starting, Listening
    /// # while received.recv().unwrap() != "Listening" {}
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if no thread can be started.
    #[doc(alias("health", "subscribe_state"))]
    pub fn on_state_change<F>(&self, callback: F) -> Result<(), Error>
    where
        F: FnMut(&StateChange) + Send + 'static,
    {
        state_watch::start(&self.owner, callback)
    }

    /// Returns a handle for each database, in the order in which they were given.
    ///
    /// All are the same notifier, and none is special: each refers to its database, as those of [`at`](Self::at).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let (berlin, oslo) = (database(), database().trim_end_matches("postgres").to_owned() + "template1");
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder(berlin)?.database(oslo)?.start()?;
    /// for shop in n.databases() {
    ///     let name = shop.config().to_string();
    ///     shop.subscribe("cache", "prices", move |delivery| {
    ///         println!("{name}: {delivery}");
    ///     })?;
    /// }
    /// assert_eq!(n.stats().subscribers, 2);
    /// # Ok(()) }
    /// ```
    pub fn databases(&self) -> Vec<Self> {
        let count = self.core().lock().databases.len();
        (0..count).map(|at| Self { owner: Arc::clone(&self.owner), at }).collect()
    }

    /// Returns the configuration of this database. If several share the session, it is that of the first.
    pub fn config(&self) -> Config {
        self.read(|database| database.config.clone())
    }

    /// Returns the process ID of the backend of this database's session, while it listens: that of
    /// [`DeliveredNotification::pid`] for notifications that this notifier has sent, so that they can be skipped.
    ///
    /// A restored session has another one, and a notification of the former session may still arrive.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use notifyman::Notifier;
    /// use notifyman::notifier::Delivery;
    ///
    /// let n = Notifier::new(conf)?;
    /// let own = n.session_pid();
    /// n.subscribe("cache", "prices", move |delivery| {
    ///     let Delivery::Notification(n) = delivery else { return };
    ///     if Some(n.pid()) != own {
    ///         println!("{} has changed prices", n.pid());
    ///     }
    /// })?;
    /// assert!(own.is_some());
    /// # Ok(()) }
    /// ```
    #[doc(alias = "backend_pid")]
    pub fn session_pid(&self) -> Option<i32> {
        self.core().lock().session_pid(self.at)
    }

    /// Returns the counters over all databases.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// for id in 0..3 {
    ///     n.subscribe(id, "prices", |delivery| println!("{delivery}"))?;
    /// }
    /// let stats = n.stats();
    /// assert_eq!((stats.subscribers, stats.channels, stats.sessions), (3, 1, 1));
    /// assert_eq!(stats.sessions_saved, 2);
    /// # Ok(()) }
    /// ```
    pub fn stats(&self) -> NotifierStats {
        self.core().stats()
    }

    /// Takes the panics of callbacks since the last call, but not more than the latest 64.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// for panic in n.take_panics() {
    ///     let (id, channel) = (panic.id, &panic.channel);
    ///     eprintln!("subscriber {id} on {channel}: {}", panic.message);
    /// }
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn take_panics(&self) -> Vec<CallbackPanic<I>> {
        self.core().panics.take()
    }

    // ---- subscriptions and channels of this database --------------------------------------------------------------

    /// Subscribes a callback to a channel, and returns once the server has acknowledged that: later notifications are
    /// received.
    ///
    /// If the id already has a callback for the channel, the new one replaces it, also for notifications that wait.
    ///
    /// The call waits at most for the call timeout of the configuration, also for a session that is being restored. It
    /// does not wait if the channel is muted, or while [`autorun`](Self::autorun) is off.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let (sender, received) = std::sync::mpsc::channel();
    /// use notifyman::Notifier;
    /// use notifyman::notifier::Delivery;
    ///
    /// #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    /// enum Subscriber {
    ///     Cache,
    ///     Screen(u32),
    /// }
    ///
    /// let n = Notifier::new(conf)?;
    /// n.subscribe(Subscriber::Screen(2), "prices", move |delivery| {
    ///     println!("{:?}: {delivery}", delivery.id());
    /// #   sender.send(delivery.to_string()).unwrap();
    /// })?;
    /// n.subscribe(Subscriber::Cache, "prices", |delivery| match delivery {
    ///     Delivery::Notification(n) => println!("invalidate {}", n.payload()),
    ///     Delivery::Missed(missed) => println!("invalidate everything: {missed}"),
    /// })?;
    /// n.notify("prices", "42");
    /// # assert_eq!(received.recv().unwrap(), "prices: 42");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Value`] if PostgreSQL would refuse the channel name, or if it is reserved (`PGNOTIFIER`);
    /// [`Error::NotRunning`]; [`Error::InsideCallback`]; the error of the server; [`Error::Timeout`]; the reason why the
    /// session is lost for good. Nothing is subscribed then, and an earlier callback remains.
    pub fn subscribe<F>(&self, id: I, channel: impl AsRef<str>, callback: F) -> Result<(), Error>
    where
        F: FnMut(&Delivery<'_, I>) + Send + 'static,
    {
        self.subscribe_target(&id, channel.as_ref(), SubscriptionTarget { call: Box::new(callback), observer: None })
    }

    /// Subscribes a callback with an observer.
    pub(crate) fn subscribe_target(&self, id: &I, channel: &str, target: SubscriptionTarget<I>) -> Result<(), Error> {
        requests::subscribe(self.core(), self.at, id, channel, target)
    }

    /// Subscribes a callback with an observer, without waiting.
    pub(crate) fn subscribe_target_ticket(
        &self,
        id: &I,
        channel: &str,
        target: SubscriptionTarget<I>,
    ) -> Result<Ticket<()>, Error> {
        let core = self.core();
        let (undo, ticket): (Undo<I>, _) = core.subscribe(self.at, id, channel, target)?;
        drop(undo);
        core.context.deferred_drop.drop_all();
        Ok(ticket)
    }

    /// Subscribes a callback without waiting: inside a callback, while a session is being restored, or for many at a time.
    ///
    /// The subscription is effective immediately. If the server refuses it, it is reverted.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// use notifyman::notifier::Delivery;
    ///
    /// let clone = n.clone();
    /// n.subscribe(1, "orders", move |delivery| {
    ///     let Delivery::Notification(n) = delivery else { return };
    ///     let order = format!("order {}", n.payload());
    ///     let _ = clone.subscribe_ticket(1, &order, |d| println!("{d}"));
    /// })?;
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Immediately: [`Error::Value`], [`Error::NotRunning`] and the reason why the session is lost for good. The ticket
    /// resolves to the error of the server.
    pub fn subscribe_ticket<F>(&self, id: I, channel: impl AsRef<str>, callback: F) -> Result<Ticket<()>, Error>
    where
        F: FnMut(&Delivery<'_, I>) + Send + 'static,
    {
        self.subscribe_target_ticket(
            &id,
            channel.as_ref(),
            SubscriptionTarget { call: Box::new(callback), observer: None },
        )
    }

    /// Returns a request for a stream of the deliveries of a channel, for async code on any runtime. Awaiting it subscribes, and
    /// waits until the server has acknowledged that: later notifications are received.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use notifyman::Notifier;
    /// use notifyman::notifier::OwnedDelivery;
    ///
    /// let notifier: Notifier = Notifier::builder(conf)?.build();
    /// notifier.start_ticket().await?;
    ///
    /// let mut prices = notifier.stream("prices").await?;
    /// # notifier.notify("prices", "42").await?;
    /// while let Some(delivery) = prices.recv().await {
    ///     match delivery {
    ///         OwnedDelivery::Notification(n) => {
    ///             println!("{} changed", n.payload());
    /// #           break;
    ///         }
    ///         OwnedDelivery::Missed(missed) => {
    ///             println!("read again: {missed}");
    ///         }
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// See [`NotifierStream`] for a task that is slower than the channel, for the end and for the drop. The wait has no limit
    /// of its own while the session is being restored: use a timeout of the runtime, or [`StreamRequest::open`].
    ///
    /// # Errors
    ///
    /// [`Error::Value`] if PostgreSQL would refuse the channel name, or if it is reserved; [`Error::NotRunning`]; the error of
    /// the server; the reason why the session is lost for good. Nothing is subscribed then.
    #[cfg(feature = "stream")]
    pub fn stream(&self, channel: impl AsRef<str>) -> StreamRequest<I>
    where
        I: From<StreamId>,
    {
        self.stream_as(StreamId::next().into(), channel)
    }

    /// Like [`stream`](Self::stream), with an id of the program, which no other subscriber may have.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let notifier: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// let prices = notifier.stream_as(7, "prices").await?;
    /// assert_eq!(notifier.subscriptions()["prices"], [7]);
    /// # drop(prices);
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "stream")]
    pub fn stream_as(&self, id: I, channel: impl AsRef<str>) -> StreamRequest<I> {
        StreamRequest::new(self.core(), Arc::clone(&self.owner) as _, self.at, id, channel.as_ref())
    }

    /// Removes a subscription. The channel is removed with its last one, unless it was [added](Self::add_channels) by name.
    ///
    /// Notifications that wait for the subscription are dropped. A call that runs, or is about to begin, is not waited
    /// for; only [`stop`](Self::stop) does that.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.unsubscribe(&7, "prices")?;
    /// assert!(n.channels().is_empty());
    /// assert!(n.unsubscribe(&7, "prices").is_err());
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownChannel`], [`Error::UnknownSubscriber`].
    pub fn unsubscribe(&self, id: &I, channel: impl AsRef<str>) -> Result<(), Error> {
        let channel = channel.as_ref();
        self.core().change_database(self.at, |database, _| database.subscriptions.unsubscribe(id, channel))
    }

    /// Removes a subscription, as [`unsubscribe`](Self::unsubscribe), with a ticket that resolves once the server has
    /// acknowledged that it sends no more notifications of the channel.
    ///
    /// The ticket resolves immediately if the server is not involved: another subscriber needs the channel, the changes
    /// wait for [`apply`](Self::apply), or the notifier is not running. If the session is lost meanwhile, the ticket resolves to
    /// the reason; the next session does not listen to the channel.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use std::time::Duration;
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::new(conf)?;
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.unsubscribe_ticket(&7, "prices")?.wait(Duration::from_secs(10))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Immediately: as [`unsubscribe`](Self::unsubscribe).
    pub fn unsubscribe_ticket(&self, id: &I, channel: impl AsRef<str>) -> Result<Ticket<()>, Error> {
        requests::unsubscribe(self.core(), self.at, id, channel.as_ref())
    }

    /// Sets the limits and the policy of a subscriber's queue. Notifications that wait in it stay.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// use notifyman::notifier::{Policy, Queue};
    ///
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.set_queue(&7, Queue::new(Policy::Coalesce).items(1_000))?;
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSubscriber`].
    pub fn set_queue(&self, id: &I, queue: Queue) -> Result<(), Error> {
        self.core().lock().database(self.at)?.subscriptions.set_queue(id, queue)
    }

    /// Adds channels to listen to, with or without subscribers. Channels that are there already do not change.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// use std::time::Duration;
    ///
    /// n.add_channels(["prices", "orders"])?.wait(Duration::from_secs(5))?;
    /// assert_eq!(n.channels(), ["orders", "prices"]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Immediately: [`Error::Value`], [`Error::NotRunning`] and the reason why the session is lost for good; no channel is
    /// added then. The ticket resolves to the error of the server.
    pub fn add_channels<C>(&self, channels: C) -> Result<Ticket<()>, Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        let channels: Vec<C::Item> = channels.into_iter().collect();
        let added = self.core().listen_and_wait(self.at, |database, _| {
            channels.iter().try_for_each(|channel| database.check_channel(channel.as_ref()))?;
            let added = channels.iter().map(|channel| {
                let is_new = database.subscriptions.registry.add(channel.as_ref());
                (channel.as_ref().into(), is_new.then_some(Undo::Added))
            });
            Ok(((), added.collect()))
        });
        added.map(|((), ticket)| ticket)
    }

    /// Adds one channel, like [`add_channels`](Self::add_channels).
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.add_channel("prices")?;
    /// assert_eq!(n.channels(), ["prices"]);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`add_channels`](Self::add_channels).
    pub fn add_channel(&self, channel: impl AsRef<str>) -> Result<Ticket<()>, Error> {
        self.add_channels([channel])
    }

    /// Removes channels with all their subscriptions.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.add_channels(["prices", "orders"])?;
    /// n.subscribe(7, "orders", |delivery| println!("{delivery}"))?;
    /// n.remove_channels(["prices", "orders"])?;
    /// assert!(n.subscriptions().is_empty());
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownChannel`]; no channel is removed then.
    pub fn remove_channels<C>(&self, channels: C) -> Result<(), Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        let channels: Vec<C::Item> = channels.into_iter().collect();
        let names: Vec<&str> = channels.iter().map(AsRef::as_ref).collect();
        requests::remove_channels(self.core(), self.at, &names)
    }

    /// Removes one channel, like [`remove_channels`](Self::remove_channels).
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.add_channel("prices")?;
    /// n.remove_channel("prices")?;
    /// assert!(n.remove_channel("prices").is_err(), "it was removed");
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`remove_channels`](Self::remove_channels).
    pub fn remove_channel(&self, channel: impl AsRef<str>) -> Result<(), Error> {
        self.remove_channels([channel])
    }

    /// Returns the channels that were added or are subscribed to, sorted.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.add_channel("orders")?;
    /// assert_eq!(n.channels(), ["orders", "prices"]);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[doc(alias = "get_channels")]
    pub fn channels(&self) -> Vec<String> {
        self.read(|database| database.subscriptions.registry.channels().into_iter().map(str::to_owned).collect())
    }

    /// Returns the ids of the subscribers of each channel that has any, in the order in which they subscribed.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.subscribe(7, "prices", |_| ())?;
    /// n.subscribe(3, "prices", |_| ())?;
    /// assert_eq!(n.subscriptions()["prices"], [7, 3]);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[doc(alias = "get_subscriptions")]
    pub fn subscriptions(&self) -> BTreeMap<String, Vec<I>> {
        requests::ids(self.core(), self.at, false)
    }

    fn read<T: Default>(&self, read: impl FnOnce(&Database<I>) -> T) -> T {
        self.core().read(self.at, read).unwrap_or_default()
    }

    // ---- muting, of this database ---------------------------------------------------------------------------------

    /// Mutes channels for all their subscribers.
    ///
    /// Muted subscriptions remain, but their callbacks are not called, and notifications that are sent meanwhile are lost
    /// to them. When they are unmuted, they receive a [report](Reason::Muted). A channel without an unmuted subscription
    /// is not listened to. The mute of a subscriber survives muting and unmuting of its channels.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.mute_channels(["prices"])?;
    /// assert_eq!(n.muted_channels(), ["prices"]);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownChannel`]; no channel is muted then.
    pub fn mute_channels<C>(&self, channels: C) -> Result<(), Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        self.set_muted(None, channels, true).map(drop)
    }

    /// Unmutes channels. The ticket resolves once the server has acknowledged that: later notifications are received.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// # use std::time::Duration;
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.mute_channels(["prices"])?;
    /// n.unmute_channels(["prices"])?.wait(Duration::from_secs(5))?;
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`mute_channels`](Self::mute_channels). The ticket resolves to the error of the server.
    pub fn unmute_channels<C>(&self, channels: C) -> Result<Ticket<()>, Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        self.set_muted(None, channels, false)
    }

    /// Mutes a subscriber on all channels that it subscribes to now.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.mute_subscriber(&7)?;
    /// assert_eq!(n.muted_subscribers()["prices"], [7]);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSubscriber`].
    pub fn mute_subscriber(&self, id: &I) -> Result<(), Error> {
        self.mute_subscriber_on(id, self.channels_of(id)?)
    }

    /// Unmutes a subscriber on all its channels.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// # use std::time::Duration;
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.mute_subscriber(&7)?;
    /// n.unmute_subscriber(&7)?.wait(Duration::from_secs(5))?;
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`mute_subscriber`](Self::mute_subscriber). The ticket resolves to the error of the server.
    pub fn unmute_subscriber(&self, id: &I) -> Result<Ticket<()>, Error> {
        self.unmute_subscriber_on(id, self.channels_of(id)?)
    }

    /// Mutes a subscriber on these channels.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.mute_subscriber_on(&7, ["prices"])?;
    /// // It is not subscribed to this channel.
    /// assert!(n.mute_subscriber_on(&7, ["orders"]).is_err());
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownChannel`] and [`Error::UnknownSubscriber`]; the subscriber is muted on no channel then.
    pub fn mute_subscriber_on<C>(&self, id: &I, channels: C) -> Result<(), Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        self.set_muted(Some(id), channels, true).map(drop)
    }

    /// Unmutes a subscriber on these channels.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.mute_subscriber(&7)?;
    /// n.unmute_subscriber_on(&7, ["prices"])?;
    /// assert!(n.muted_subscribers().is_empty());
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`mute_subscriber_on`](Self::mute_subscriber_on). The ticket resolves to the error of the server.
    pub fn unmute_subscriber_on<C>(&self, id: &I, channels: C) -> Result<Ticket<()>, Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        self.set_muted(Some(id), channels, false)
    }

    /// Mutes or unmutes channels for one subscriber, or for all.
    fn set_muted<C>(&self, only: Option<&I>, channels: C, mute: bool) -> Result<Ticket<()>, Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        let channels: Vec<C::Item> = channels.into_iter().collect();
        let names: Vec<&str> = channels.iter().map(AsRef::as_ref).collect();
        requests::set_muted(self.core(), self.at, only, &names, mute)
    }

    fn channels_of(&self, id: &I) -> Result<Vec<Box<str>>, Error> {
        self.read(|database| {
            let channels = database.subscriptions.registry.channels_of(id)?;
            Some(channels.into_iter().map(|channel| (**channel).into()).collect())
        })
        .ok_or(Error::UnknownSubscriber { channel: None })
    }

    /// Returns the muted channels, sorted.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.mute_channels(["prices"])?;
    /// assert_eq!(n.muted_channels(), ["prices"]);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn muted_channels(&self) -> Vec<String> {
        self.read(|database| {
            let registry = &database.subscriptions.registry;
            let muted = registry.channels().into_iter().filter(|channel| registry.is_muted(channel));
            muted.map(str::to_owned).collect()
        })
    }

    /// Returns the ids of the muted subscribers of each channel that has any, also if the channel itself is not muted.
    ///
    /// ```
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.mute_subscriber(&7)?;
    /// assert_eq!(n.muted_subscribers()["prices"], [7]);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn muted_subscribers(&self) -> BTreeMap<String, Vec<I>> {
        requests::ids(self.core(), self.at, true)
    }

    // ---- applying changes, for all databases ----------------------------------------------------------------------

    /// Sets whether changes reach the servers without a call of [`apply`](Self::apply). Default: `true`.
    ///
    /// With `false`, calls only record the wanted channels, also while the notifier is stopped, and their tickets resolve
    /// immediately. [`apply`](Self::apply), [`start`](Self::start) and [`restart`](Self::restart) apply the changes.
    /// Subscriptions to channels that are already listened to take effect immediately all the same.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder(conf)?.autorun(false).build::<u32>();
    /// for id in 0..1000 {
    ///     let channel = format!("channel {id}");
    ///     n.subscribe(id, &channel, |delivery| println!("{delivery}"))?;
    /// }
    /// n.start()?; // one request for all
    /// # assert_eq!(n.stats().channels, 1000);
    /// # Ok(()) }
    /// ```
    pub fn autorun(&self, autorun: bool) {
        self.core().lock().is_autorun = autorun;
    }

    /// Applies recorded changes. The ticket resolves once the servers have acknowledged them.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// use std::time::Duration;
    ///
    /// n.autorun(false);
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// n.add_channel("orders")?;
    /// assert_eq!(n.stats().channels, 0);
    /// n.apply()?.wait(Duration::from_secs(5))?; // one request for both
    /// assert_eq!(n.stats().channels, 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]. The ticket resolves to the error of a server.
    pub fn apply(&self) -> Result<Ticket<()>, Error> {
        self.core().apply()
    }

    // ---- sending, to this database --------------------------------------------------------------------------------

    /// Sends a notification by the session that listens. The ticket resolves once the server has committed it.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// use std::time::Duration;
    ///
    /// n.notify("prices", "42").wait(Duration::from_secs(5))?; // committed
    /// n.notify("prices", "43"); // not waited for
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The ticket resolves to [`Error::Value`] if PostgreSQL would refuse the channel or the payload, to
    /// [`Error::NotRunning`], and to the reason if the session is lost or not open.
    pub fn notify(&self, channel: impl AsRef<str>, payload: impl AsRef<str>) -> Ticket<()> {
        self.core().notify(self.at, vec![(channel.as_ref().to_owned(), payload.as_ref().to_owned())])
    }

    /// Creates a batcher, which sends the notifications of many threads in few transactions by the session that listens.
    ///
    /// Notifications that arrive within `linger` are sent together, up to `size` in one transaction.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// use std::time::Duration;
    ///
    /// let batcher = n.batcher(Duration::from_millis(2), 1_000)?;
    /// let send = |key: u32| batcher.send("prices", key.to_string());
    /// let mut tickets: Vec<_> = (0..100).map(send).collect();
    /// for ticket in &mut tickets {
    ///     ticket.wait(Duration::from_secs(5))?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the system cannot start a thread.
    pub fn batcher(&self, linger: Duration, size: usize) -> Result<Batcher, Error> {
        let (core, at) = (Arc::clone(self.core()), self.at);
        Batcher::new(linger, size, &self.core().threads, move |pairs| core.notify(at, pairs))
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> Clone for Notifier<I> {
    fn clone(&self) -> Self {
        Self { owner: Arc::clone(&self.owner), at: self.at }
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> fmt::Debug for Notifier<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").field("state", &self.state()).field("stats", &self.stats()).finish()
    }
}
