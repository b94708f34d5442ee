//! How a notifier is to be.

use std::hash::Hash;
use std::time::Duration;

use crate::config::Config;
use crate::error::Error;
use crate::manager::{Backoff, CANARY_PERIOD_MIN, NotificationManager};
use crate::notifier::Notifier;
use crate::notifier::database::SYSTEM_CHANNEL;
use crate::notifier::queue::Queue;

/// How a [`Notifier`] is to be, before it is: see [`Notifier::builder`].
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
    pub(crate) backoff: Backoff,
    pub(crate) heartbeat: (Duration, Duration),
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

    /// How many threads call callbacks; at least one, the default.
    ///
    /// A subscriber's calls come one by one and in order with any number. With one thread a callback that blocks delays
    /// everybody else's; with n, that takes n of them.
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

    /// How much may wait for each subscriber, unless it gets another [queue](Notifier::set_queue). Default:
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

    /// How lost sessions are opened again; see [`NotificationManager::reconnect`](crate::NotificationManager::reconnect).
    /// Default: [`Backoff::default`].
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

    /// How silent servers are asked whether they are there; see
    /// [`NotificationManager::heartbeat`](crate::NotificationManager::heartbeat). Default: after 15 seconds, with 5 for
    /// the answer.
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

    /// With a canary: in every `period`, one session of each database sends a notification on the channel `PGNOTIFIER`,
    /// which every session there must hear. One that is delivered nothing, though its server answers, is lost with
    /// [`Error::NotDelivering`] and opened again, and its subscribers are told as of any loss. Default: none.
    ///
    /// It is for what a [heartbeat](Self::heartbeat) can't see, such as a pooler in transaction mode between the notifier
    /// and the server. `deadline` is how long a canary may take before the session is asked why.
    /// [`NotifierStats::canary_micros`](crate::notifier::NotifierStats::canary_micros) tells how long the latest took.
    ///
    /// Each canary is a NOTIFY, which wakes every session that listens in that database, whoever's it is: so there is none
    /// unless asked for, and the period is at least 30 seconds; a shorter one is taken for that. For what it costs, see
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
    /// assert_eq!(n.stats().canary_micros, 0); // the first hasn't come yet
    /// # Ok(()) }
    /// ```
    pub fn canary(self, period: Duration, deadline: Duration) -> Self {
        self.canary_at_any_pace(period.max(CANARY_PERIOD_MIN), deadline)
    }

    /// For the project's own tests, which can't wait for half a minute.
    #[doc(hidden)]
    pub fn canary_at_any_pace(mut self, period: Duration, deadline: Duration) -> Self {
        self.settings.canary = Some((period, deadline));
        self
    }

    /// With an audit: in every `period`, each session is asked what its server listens to. What that has forgotten is
    /// listened to again, and the subscribers of these channels are told of the gap, whose cause is
    /// [`Error::Unregistered`]. Default: none.
    ///
    /// The period is at least a second. For what it costs, see
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

    /// Whether to start also while a server is away, and go on trying, rather than to fail. Default: no.
    ///
    /// What can't be mended by trying again, such as a wrong password, is told by [`Notifier::state`].
    ///
    /// ```
    /// # fn main() -> Result<(), notifyman::Error> {
    /// use notifyman::Notifier;
    /// use notifyman::notifier::State;
    ///
    /// // Nobody is there yet.
    /// let n = Notifier::builder("host=127.0.0.1 port=1 user=shop")?.keep_trying(true).start::<u32>()?;
    /// assert!(matches!(n.state(), State::Away));
    /// # Ok(()) }
    /// ```
    pub fn keep_trying(mut self, keep_trying: bool) -> Self {
        self.settings.keep_trying = keep_trying;
        self
    }

    /// Whether changes reach the server by themselves; see [`Notifier::autorun`]. Default: yes.
    ///
    /// ```
    /// # fn main() -> Result<(), notifyman::Error> {
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?; // without a server
    /// assert_eq!(n.channels(), ["prices"]);
    /// # Ok(()) }
    /// ```
    pub fn autorun(mut self, autorun: bool) -> Self {
        self.settings.autorun = autorun;
        self
    }

    /// A notifier that isn't started yet.
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

    /// A notifier that runs.
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
    /// As [`Notifier::start`].
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
    /// A loop of its own, which begins without anybody.
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

    /// The channel that sessions are to listen to for the notifier itself; the canary sees to its own.
    pub(crate) fn own_channel(&self) -> Option<&'static str> {
        self.canary.is_none().then_some(SYSTEM_CHANNEL)
    }
}
