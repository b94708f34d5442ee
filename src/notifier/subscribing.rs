//! The calls that change what is listened to, and who is called.

use std::hash::Hash;
use std::time::Duration;

use crate::error::Error;
use crate::manager::Ticket;
use crate::notifier::database::Database;
use crate::notifier::deferred::{DeferredActions, Undo};
use crate::notifier::delivery::Delivery;
use crate::notifier::queue::Queue;
use crate::notifier::subscription::Subscription;
use crate::notifier::{Notifier, State};

/// Channels and subscriptions, of this database.
///
/// Changes take effect on the live session; whoever isn't concerned misses nothing. A call that fails leaves everything
/// as it was. Where a change has the server listen to more, there is a [`Ticket`], which resolves once the server has
/// acknowledged it: from then on what is sent is heard. It may be dropped, and the change takes place all the same.
impl<I: Clone + Eq + Hash + Send + 'static> Notifier<I> {
    /// Subscribes a function to a channel, and returns once the server has acknowledged it, so that what is sent from
    /// then on is heard. A function that this id already has on this channel is replaced, also for what waits.
    ///
    /// The function gets a [`Delivery`]: `(id, channel, payload, pid)`, or that some may be [missing](Delivery::missed).
    ///
    /// It waits for as long as the configuration's call timeout allows, for a server that is away, too. On a channel that
    /// is muted, and with [`autorun`](Self::autorun) off, it doesn't wait.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let (heard, told) = std::sync::mpsc::channel();
    /// use notifyman::Notifier;
    ///
    /// #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    /// enum Who {
    ///     Cache,
    ///     Screen(u32),
    /// }
    ///
    /// let n = Notifier::new(conf)?;
    /// n.subscribe(Who::Screen(2), "prices", move |n| {
    ///     println!("{:?}: {}", n.id(), n.payload());
    /// #   heard.send(n.payload().text().into_owned()).unwrap();
    /// })?;
    /// n.subscribe(Who::Cache, "prices", |n| println!("forget {}", n.payload()))?;
    /// n.notify("prices", "42");
    /// # assert_eq!(told.recv().unwrap(), "42");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a channel's name that PostgreSQL would refuse, or that is the notifier's own (`PGNOTIFIER`);
    /// [`Error::NotRunning`]; [`Error::InsideCallback`]; what the server answers; [`Error::Timeout`]; and why the session
    /// is lost, if it is for good. Nothing is subscribed then, and a function that was there before is still there.
    pub fn subscribe<F>(&self, id: I, channel: &str, function: F) -> Result<(), Error>
    where
        F: FnMut(&Delivery<'_, I>) + Send + 'static,
    {
        if self.core().is_inside() {
            return Err(Error::InsideCallback { instead: "take subscribe_ticket" });
        }
        let (undo, mut ticket) = self.put(&id, channel, function)?;
        let after = self.patience();
        let waited = ticket.wait(after).map_err(|error| match error {
            Error::Timeout { .. } => self.too_late(after),
            other => other,
        });
        match waited {
            Ok(()) => drop(undo),
            Err(_) => self.core().revert(self.at, channel, undo),
        }
        self.core().deferred_drop.empty();
        waited
    }

    /// The same without waiting: inside a callback, while the server is away, or for many at a time.
    ///
    /// Whether the server is there or not, the subscription holds at once; it is taken back where the server refuses it.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// let same = n.clone();
    /// n.subscribe(1, "orders", move |n| {
    ///     let order = format!("order {}", n.payload());
    ///     let _ = same.subscribe_ticket(1, &order, |n| println!("{}: {}", n.channel(), n.payload()));
    /// })?;
    /// # n.stop();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Value`], [`Error::NotRunning`] and why the session is lost, at once; what the server answers by the
    /// ticket.
    pub fn subscribe_ticket<F>(&self, id: I, channel: &str, function: F) -> Result<Ticket<()>, Error>
    where
        F: FnMut(&Delivery<'_, I>) + Send + 'static,
    {
        let (undo, ticket) = self.put(&id, channel, function)?;
        drop(undo);
        self.core().deferred_drop.empty();
        Ok(ticket)
    }

    /// What the server didn't acknowledge in time.
    fn too_late(&self, after: Option<Duration>) -> Error {
        let is_away = !matches!(self.state(), State::Listening);
        let action = if is_away { "waiting for the server to be back" } else { "the server's acknowledgement" };
        Error::Timeout { action, after: after.unwrap_or_default(), closed: is_away }
    }

    fn put<F>(&self, id: &I, channel: &str, function: F) -> Result<(Undo<I>, Ticket<()>), Error>
    where
        F: FnMut(&Delivery<'_, I>) + Send + 'static,
    {
        let core = self.core();
        // Kept out here, so that it isn't dropped in there where it isn't taken.
        let mut function = Some(Box::new(function));
        core.follow(self.at, |database, after| {
            database.check_channel(channel)?;
            let Some(function) = function.take() else { return Err(Error::NotRunning) };
            let subscriber = database.subscriber(id, core.settings.queue);
            let before = database.registry.get(id, channel).map(|before| &before.value);
            let entry = Subscription::new(id, channel, subscriber, function, &core.deferred_drop, before);
            let before = database.subscribe(id, &entry, after);
            let undo = Undo::Subscribed(entry, before);
            Ok((undo.clone(), vec![(channel.into(), Some(undo))]))
        })
    }

    /// Ends a subscription. The channel goes with its last, unless it was [added](Self::add_channels) by name.
    ///
    /// What waits for it isn't delivered; a call that runs, or is about to begin as this returns, goes on. Only
    /// [`stop`](Self::stop) waits for calls.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
    /// n.unsubscribe(&7, "prices")?;
    /// assert!(n.channels().is_empty());
    /// assert!(n.unsubscribe(&7, "prices").is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownChannel`], [`Error::UnknownSubscriber`].
    pub fn unsubscribe(&self, id: &I, channel: &str) -> Result<(), Error> {
        self.core().change(self.at, |database, _| database.unsubscribe(id, channel))
    }

    /// Gives a subscriber another queue than the notifier's; what waits in it stays.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// use notifyman::notifier::{Policy, Queue};
    ///
    /// n.subscribe(7, "prices", |n| println!("forget {}", n.payload()))?;
    /// n.set_queue(&7, Queue::new(Policy::Coalesce).items(1_000))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSubscriber`].
    pub fn set_queue(&self, id: &I, queue: Queue) -> Result<(), Error> {
        let mut state = self.core().lock();
        let database = state.databases.get_mut(self.at).ok_or(Error::NotRunning)?;
        database.set_queue(id, queue)
    }

    /// Listens to channels, whether anybody subscribes to them or not. One that is there already stays as it is.
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
    /// [`Error::Value`], [`Error::NotRunning`] and why the session is lost, at once, and then none is added; what the
    /// server answers by the ticket.
    pub fn add_channels<C>(&self, channels: C) -> Result<Ticket<()>, Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        let channels: Vec<C::Item> = channels.into_iter().collect();
        let add = |database: &mut Database<I>, _: &mut DeferredActions<I>| {
            channels.iter().try_for_each(|channel| database.check_channel(channel.as_ref()))?;
            let added = channels.iter().map(|channel| {
                let is_new = database.registry.add(channel.as_ref());
                (channel.as_ref().into(), is_new.then_some(Undo::Added))
            });
            Ok(((), added.collect()))
        };
        self.core().follow(self.at, add).map(|((), ticket)| ticket)
    }

    /// As [`add_channels`](Self::add_channels), for one.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// n.add_channel("prices")?;
    /// assert_eq!(n.channels(), ["prices"]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The same.
    pub fn add_channel(&self, channel: &str) -> Result<Ticket<()>, Error> {
        self.add_channels([channel])
    }

    /// Removes channels, with all that is subscribed to them.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// n.add_channels(["prices", "orders"])?;
    /// n.subscribe(7, "orders", |n| println!("{}", n.payload()))?;
    /// n.remove_channels(["prices", "orders"])?;
    /// assert!(n.subscriptions().is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownChannel`], and then none is removed.
    pub fn remove_channels<C>(&self, channels: C) -> Result<(), Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        let channels: Vec<C::Item> = channels.into_iter().collect();
        self.core().change(self.at, |database, _| {
            channels.iter().try_for_each(|channel| database.registry.check_known(channel.as_ref()))?;
            // One that is named twice is gone the second time.
            for channel in &channels {
                let _ = database.remove(channel.as_ref());
            }
            Ok(())
        })
    }

    /// As [`remove_channels`](Self::remove_channels), for one.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// n.add_channel("prices")?;
    /// n.remove_channel("prices")?;
    /// assert!(n.remove_channel("prices").is_err(), "it isn't there any more");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The same.
    pub fn remove_channel(&self, channel: &str) -> Result<(), Error> {
        self.remove_channels([channel])
    }
}

/// When changes reach the servers, for all databases together.
impl<I: Clone + Eq + Hash + Send + 'static> Notifier<I> {
    /// Whether changes reach the servers by themselves: they do unless told otherwise.
    ///
    /// While it is off, calls only record what is to be listened to, also where the notifier is stopped, and their tickets
    /// resolve at once; [`apply`](Self::apply), [`start`](Self::start) and [`restart`](Self::restart) carry it out. Who is
    /// called for what is heard already changes at once, though.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use notifyman::Notifier;
    ///
    /// let n = Notifier::builder(conf)?.autorun(false).build::<u32>();
    /// for id in 0..1000 {
    ///     n.subscribe(id, &format!("channel {id}"), |n| println!("{}", n.payload()))?;
    /// }
    /// n.start()?; // one LISTEN for all
    /// # assert_eq!(n.stats().channels, 1000);
    /// # Ok(()) }
    /// ```
    pub fn autorun(&self, autorun: bool) {
        self.core().lock().autorun = autorun;
    }

    /// Has the servers follow what was recorded; the ticket resolves once they have.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// use std::time::Duration;
    ///
    /// n.autorun(false);
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
    /// n.add_channel("orders")?;
    /// assert_eq!(n.stats().channels, 0);
    /// n.apply()?.wait(Duration::from_secs(5))?; // one LISTEN for both
    /// assert_eq!(n.stats().channels, 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]; what a server answers by the ticket.
    pub fn apply(&self) -> Result<Ticket<()>, Error> {
        self.core().apply()
    }
}
