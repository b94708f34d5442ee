//! The builder: the settings of a notifier, before it is built.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::error::Error;
use crate::manager::{Backoff, CanaryPace, EventSource};
use crate::notifier::Notifier;
use crate::notifier::databases;
use crate::notifier::queue::Queue;
use crate::notifier::settings::NotifierSettings;
use crate::notifier::shared::NotifierCore;

/// A builder for a [`Notifier`] with other settings than the defaults: see [`Notifier::builder`].
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// # fn main() -> Result<(), notifyman::Error> {
/// # let conf = database();
/// use std::time::Duration;
/// use notifyman::notifier::{Policy, Queue};
/// use notifyman::{Backoff, Notifier};
///
/// let n: Notifier<u32> = Notifier::builder(conf)?
///     .workers(4)
///     .queue(Queue::new(Policy::Coalesce))
///     .reconnect(Backoff::default().longest(Duration::from_secs(5)))
///     .start()?;
/// # Ok(()) }
/// ```
#[must_use]
pub struct NotifierBuilder {
    /// The configurations of the databases.
    databases: Vec<Config>,
    /// The source in the place of databases.
    external: Option<Box<dyn EventSource>>,
    settings: NotifierSettings,
}

impl NotifierBuilder {
    pub(crate) fn new(config: Config) -> Self {
        Self { databases: vec![config], external: None, settings: NotifierSettings::default() }
    }

    pub(crate) fn over(source: Box<dyn EventSource>) -> Self {
        Self { databases: Vec::new(), external: Some(source), settings: NotifierSettings::default() }
    }

    /// Adds a database. A start opens the sessions of all databases, concurrently, and fails if one cannot be opened;
    /// [`Notifier::databases`] returns a handle for each.
    ///
    /// The notifier that is built refers to the first database until [`at`](Notifier::at) names another. Databases with equal
    /// configurations share one session.
    ///
    /// ```
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder("host=berlin user=app")?
    ///     .database("host=oslo user=app")?
    ///     .build::<u32>();
    /// let host = |shop: &Notifier<u32>| shop.config().get_hosts()[0].clone();
    /// let hosts: Vec<_> = n.databases().iter().map(host).collect();
    /// assert_eq!(hosts, ["berlin", "oslo"]);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the connection string is invalid. [`Error::NoDatabase`] for a notifier [over](Notifier::over) a source.
    pub fn database<C>(mut self, config: C) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        Error: From<C::Error>,
    {
        if self.external.is_some() {
            let instead = "create another notifier for the database";
            return Err(Error::NoDatabase { action: "add a database", instead });
        }
        self.databases.push(config.try_into()?);
        Ok(self)
    }

    /// Sets the number of threads that call callbacks. Default: 1.
    ///
    /// With any number, a subscriber's callbacks are called one at a time and in order. With one thread, a callback that
    /// blocks delays those of all other subscribers; with n threads, others are delayed only while n callbacks block.
    ///
    /// ```
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder("host=localhost user=shop")?
    ///     .workers(4)
    ///     .build::<u32>();
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn workers(mut self, workers: usize) -> Self {
        self.settings.workers = workers.max(1);
        self
    }

    /// Sets the queue of each subscriber that is not given [one of its own](Notifier::set_queue). Default:
    /// [`Queue::default`].
    ///
    /// ```
    /// use notifyman::notifier::{Policy, Queue};
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder("host=localhost user=shop")?
    ///     .queue(Queue::new(Policy::Coalesce))
    ///     .build::<u32>();
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn queue(mut self, queue: Queue) -> Self {
        self.settings.queue = Arc::new(queue);
        self
    }

    /// Sets the policy for restoring lost sessions: see
    /// [`NotificationManager::reconnect`](crate::NotificationManager::reconnect). Default: [`Backoff::default`]. (A
    /// manager alone does not reconnect by default.)
    ///
    /// ```
    /// use std::time::Duration;
    /// use notifyman::{Backoff, Notifier};
    ///
    /// let n = Notifier::builder("host=localhost user=shop")?
    ///     .reconnect(Backoff::default().longest(Duration::from_secs(5)))
    ///     .build::<u32>();
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn reconnect(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Sets the time without a received byte after which a session is checked, and the deadline of the reply: see
    /// [`NotificationManager::heartbeat`](crate::NotificationManager::heartbeat). Default: 15 and 5 seconds. (A manager
    /// alone has no heartbeat by default.)
    ///
    /// ```
    /// use std::time::Duration;
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder("host=localhost user=shop")?
    ///     .heartbeat(Duration::from_secs(30), Duration::from_secs(10))
    ///     .build::<u32>();
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn heartbeat(mut self, idle: Duration, deadline: Duration) -> Self {
        self.settings.heartbeat = (idle, deadline);
        self
    }

    /// Enables the canary: in every `period`, one session of each database sends a notification on the channel
    /// `PGNOTIFIER`, which every session must receive. A session that does not receive it, although its server replies, is
    /// lost with [`Error::NotDelivering`] and restored, and its subscribers receive the reports of any loss. Default: no canary.
    ///
    /// A canary detects faults that a [heartbeat](Self::heartbeat) cannot, such as a connection pooler in transaction mode.
    /// `deadline` is the time after which a session that has not received the canary is checked.
    /// [`NotifierStats::canary_time`](crate::notifier::NotifierStats::canary_time) is the delivery time of the latest
    /// canary.
    ///
    /// Each canary is a NOTIFY, which wakes every session that listens in the database, also those of other programs, and
    /// takes about 15 µs of the server's time for each of them: see the costs at
    /// [`NotificationManager::canary`](crate::NotificationManager::canary).
    ///
    /// A [fence](crate::fence) learns by the canary how fresh it is: its
    /// [`as_of`](crate::fence::FenceChannel::as_of) is never finer than the interval, which is the longer of the period and the
    /// deadline.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use std::time::Duration;
    /// use notifyman::Notifier;
    ///
    /// let n: Notifier<u32> = Notifier::builder(conf)?
    ///     .canary(Duration::from_secs(60), Duration::from_secs(5))?
    ///     .start()?;
    /// assert_eq!(n.stats().canary_time, None); // before the first canary
    /// # Ok(()) }
    /// ```
    ///
    /// It has no effect on a notifier that is [over a source](crate::Notifier::over): a relay has a canary of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a period of less than a second.
    pub fn canary(self, period: Duration, deadline: Duration) -> Result<Self, Error> {
        let CanaryPace { period, deadline } = CanaryPace::checked(period, deadline)?;
        Ok(self.canary_at_any_pace(period, deadline))
    }

    /// Enables a canary of any period, for the tests of this crate.
    #[doc(hidden)]
    pub fn canary_at_any_pace(mut self, period: Duration, deadline: Duration) -> Self {
        self.settings.canary = Some((period, deadline));
        self
    }

    /// Enables the audit: in every `period`, the channels that each session listens to are read from its server. Channels
    /// that are missing there are listened to again, and their subscribers receive a report with a gap, whose cause is
    /// [`Error::Unregistered`]. Default: no audit.
    ///
    /// The period is at least one second. The cost is described at
    /// [`NotificationManager::audit`](crate::NotificationManager::audit).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use std::time::Duration;
    /// use notifyman::Notifier;
    ///
    /// let period = Duration::from_secs(300);
    /// let n: Notifier<u32> = Notifier::builder(conf)?.audit(period).start()?;
    /// # Ok(()) }
    /// ```
    pub fn audit(mut self, period: Duration) -> Self {
        self.settings.audit = Some(period);
        self
    }

    /// Starts the notifier even if a server cannot be reached, and keeps trying to connect. By default, the start fails.
    ///
    /// An error that trying again cannot fix, such as a wrong password, is reported by [`Notifier::state`] and to the
    /// subscribers. While a server cannot be reached, [`Notifier::subscribe`] waits for it up to the call timeout, and then
    /// fails: use [`Notifier::subscribe_ticket`]. The feature `tracing` writes the reason of each failure.
    ///
    /// ```
    /// use notifyman::Notifier;
    /// use notifyman::notifier::State;
    ///
    /// // No server listens on this port yet.
    /// let n = Notifier::builder("host=127.0.0.1 port=1 user=shop")?
    ///     .keep_trying(true)
    ///     .start::<u32>()?;
    /// assert!(matches!(n.state(), State::Away));
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn keep_trying(mut self, keep_trying: bool) -> Self {
        self.settings.keep_trying = keep_trying;
        self
    }

    /// Sets whether changes reach the server without a call of [`Notifier::apply`]: see [`Notifier::autorun`]. Default:
    /// `true`.
    ///
    /// ```
    /// use notifyman::Notifier;
    ///
    /// let builder = Notifier::builder("host=localhost user=shop")?;
    /// let n = builder.autorun(false).build::<u32>();
    /// // This needs no server.
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?;
    /// assert_eq!(n.channels(), ["prices"]);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn autorun(mut self, autorun: bool) -> Self {
        self.settings.autorun = autorun;
        self
    }

    /// Builds a notifier that is not started.
    ///
    /// ```
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder("host=localhost user=shop")?.build::<u32>();
    /// assert!(!n.is_running());
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn build<I>(self) -> Notifier<I>
    where
        I: Clone + Eq + Hash + Send + 'static,
    {
        let core = Arc::new(NotifierCore::new(self.settings));
        for config in self.databases {
            // It fails only with a source.
            let _ = databases::add_database(&core, config);
        }
        if let Some(source) = self.external {
            databases::set_external(&core, source);
        }
        Notifier::from_core(core, 0)
    }

    /// Builds a notifier and starts it.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder(conf)?.start::<u32>()?;
    /// assert!(n.is_running());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Fails like [`Notifier::start`].
    pub fn start<I>(self) -> Result<Notifier<I>, Error>
    where
        I: Clone + Eq + Hash + Send + 'static,
    {
        let notifier = self.build();
        notifier.start()?;
        Ok(notifier)
    }
}

impl fmt::Debug for NotifierBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = self.external.as_ref().map(|source| source.connections());
        let mut builder = f.debug_struct("NotifierBuilder");
        builder.field("databases", &self.databases).field("connections", &connections);
        builder.field("settings", &self.settings).finish()
    }
}
