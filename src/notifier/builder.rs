//! The settings of a notifier.

use std::hash::Hash;
use std::time::Duration;

use crate::config::Config;
use crate::error::Error;
use crate::manager::{Backoff, CANARY_PERIOD_MIN, NotificationManager};
use crate::notifier::Notifier;
use crate::notifier::database::SYSTEM_CHANNEL;
use crate::notifier::queue::Queue;

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
#[derive(Debug, Clone)]
#[must_use]
pub struct NotifierBuilder {
    config: Config,
    settings: NotifierSettings,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct NotifierSettings {
    pub(crate) workers: usize,
    pub(crate) queue: Queue,
    backoff: Backoff,
    heartbeat: (Duration, Duration),
    canary: Option<(Duration, Duration)>,
    audit: Option<Duration>,
    pub(crate) keep_trying: bool,
    pub(crate) autorun: bool,
}

impl NotifierBuilder {
    pub(crate) fn new(config: Config) -> Self {
        let settings = NotifierSettings {
            workers: 1,
            queue: Queue::default(),
            backoff: Backoff::default(),
            heartbeat: (Duration::from_secs(15), Duration::from_secs(5)),
            canary: None,
            audit: None,
            keep_trying: false,
            autorun: true,
        };
        Self { config, settings }
    }

    /// Sets the number of threads that call callbacks. Default: 1.
    ///
    /// With any number, a subscriber's callbacks are called one at a time and in order. With one thread, a callback that
    /// blocks delays those of all other subscribers; with n threads, n callbacks must block for that.
    ///
    /// ```
    /// # fn main() -> Result<(), notifyman::Error> {
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder("host=localhost user=shop")?.workers(4).build::<u32>();
    /// # Ok(()) }
    /// ```
    pub fn workers(mut self, workers: usize) -> Self {
        self.settings.workers = workers.max(1);
        self
    }

    /// Sets the queue of each subscriber that is not given [one of its own](Notifier::set_queue). Default:
    /// [`Queue::default`].
    ///
    /// ```
    /// # fn main() -> Result<(), notifyman::Error> {
    /// use notifyman::notifier::{Policy, Queue};
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder("host=localhost user=shop")?.queue(Queue::new(Policy::Coalesce)).build::<u32>();
    /// # Ok(()) }
    /// ```
    pub fn queue(mut self, queue: Queue) -> Self {
        self.settings.queue = queue;
        self
    }

    /// Sets the policy for restoring lost sessions: see
    /// [`NotificationManager::reconnect`](crate::NotificationManager::reconnect). Default: [`Backoff::default`].
    ///
    /// ```
    /// # fn main() -> Result<(), notifyman::Error> {
    /// use std::time::Duration;
    /// use notifyman::{Backoff, Notifier};
    ///
    /// let n = Notifier::builder("host=localhost user=shop")?
    ///     .reconnect(Backoff::default().longest(Duration::from_secs(5)))
    ///     .build::<u32>();
    /// # Ok(()) }
    /// ```
    pub fn reconnect(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Sets the time without a received byte after which a session is checked, and the deadline of the reply: see
    /// [`NotificationManager::heartbeat`](crate::NotificationManager::heartbeat). Default: 15 and 5 seconds.
    ///
    /// ```
    /// # fn main() -> Result<(), notifyman::Error> {
    /// use std::time::Duration;
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder("host=localhost user=shop")?
    ///     .heartbeat(Duration::from_secs(30), Duration::from_secs(10))
    ///     .build::<u32>();
    /// # Ok(()) }
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
    /// [`NotifierStats::canary_micros`](crate::notifier::NotifierStats::canary_micros) is the delivery time of the latest
    /// canary.
    ///
    /// Each canary is a NOTIFY, which wakes every session that listens in the database, also those of other programs.
    /// Therefore the period is at least 30 seconds; a shorter one is raised to that. The cost is described at
    /// [`NotificationManager::canary`](crate::NotificationManager::canary).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use std::time::Duration;
    /// use notifyman::Notifier;
    ///
    /// let n: Notifier<u32> = Notifier::builder(conf)?
    ///     .canary(Duration::from_secs(60), Duration::from_secs(5))
    ///     .start()?;
    /// assert_eq!(n.stats().canary_micros, 0); // before the first canary
    /// # Ok(()) }
    /// ```
    pub fn canary(self, period: Duration, deadline: Duration) -> Self {
        self.canary_at_any_pace(period.max(CANARY_PERIOD_MIN), deadline)
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
    /// let n: Notifier<u32> = Notifier::builder(conf)?.audit(Duration::from_secs(300)).start()?;
    /// # Ok(()) }
    /// ```
    pub fn audit(mut self, period: Duration) -> Self {
        self.settings.audit = Some(period);
        self
    }

    /// Starts the notifier even if a server cannot be reached, and keeps trying to connect. By default, the start fails.
    ///
    /// An error that trying again cannot fix, such as a wrong password, is reported by [`Notifier::state`] and to the
    /// subscribers.
    ///
    /// ```
    /// # fn main() -> Result<(), notifyman::Error> {
    /// use notifyman::Notifier;
    /// use notifyman::notifier::State;
    ///
    /// // No server listens on this port yet.
    /// let n = Notifier::builder("host=127.0.0.1 port=1 user=shop")?.keep_trying(true).start::<u32>()?;
    /// assert!(matches!(n.state(), State::Away));
    /// # Ok(()) }
    /// ```
    pub fn keep_trying(mut self, keep_trying: bool) -> Self {
        self.settings.keep_trying = keep_trying;
        self
    }

    /// Sets whether changes reach the server without a call of [`Notifier::apply`]: see [`Notifier::autorun`]. Default:
    /// `true`.
    ///
    /// ```
    /// # fn main() -> Result<(), notifyman::Error> {
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.subscribe(7, "prices", |delivery| println!("{delivery}"))?; // without a server
    /// assert_eq!(n.channels(), ["prices"]);
    /// # Ok(()) }
    /// ```
    pub fn autorun(mut self, autorun: bool) -> Self {
        self.settings.autorun = autorun;
        self
    }

    /// Builds a notifier that is not started.
    ///
    /// ```
    /// # fn main() -> Result<(), notifyman::Error> {
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder("host=localhost user=shop")?.build::<u32>();
    /// assert!(!n.is_running());
    /// # Ok(()) }
    /// ```
    pub fn build<I>(self) -> Notifier<I>
    where
        I: Clone + Eq + Hash + Send + 'static,
    {
        Notifier::stopped(self.config, self.settings)
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

impl NotifierSettings {
    /// Creates a manager without connections, and without heartbeat and reconnection.
    pub(crate) fn manager(&self) -> NotificationManager {
        let mut manager = NotificationManager::new([]).park_when_empty(true);
        if let Some((period, deadline)) = self.canary {
            manager = manager.canary_at_any_pace(SYSTEM_CHANNEL, period, deadline);
        }
        match self.audit {
            Some(period) => manager.audit(period),
            None => manager,
        }
    }

    /// Makes a manager restore lost connections and check silent ones.
    pub(crate) fn supervise(&self, manager: NotificationManager) -> NotificationManager {
        let (idle, deadline) = self.heartbeat;
        manager.reconnect(self.backoff).heartbeat(idle, deadline)
    }

    /// Returns the channel that sessions listen to for the notifier itself, unless the canary listens to it.
    pub(crate) fn own_channel(&self) -> Option<&'static str> {
        self.canary.is_none().then_some(SYSTEM_CHANNEL)
    }
}
