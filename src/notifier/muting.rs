//! The calls that have somebody not be called for a while.

use std::hash::Hash;

use crate::error::Error;
use crate::manager::Ticket;
use crate::notifier::Notifier;
use crate::notifier::database::Database;
use crate::notifier::deferred::DeferredActions;

/// Muting, of this database: who is muted keeps its subscriptions, isn't called, and misses what is sent meanwhile. As it
/// is unmuted, it is [told so](crate::notifier::Reason::Muted).
///
/// A channel that nobody wants to hear is not listened to. A subscriber's mute outlasts its channels'.
impl<I: Clone + Eq + Hash + Send + 'static> Notifier<I> {
    /// Mutes channels, for all their subscribers.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
    /// n.mute_channels(["prices"])?;
    /// assert_eq!(n.muted_channels(), ["prices"]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownChannel`], and then none is muted.
    pub fn mute_channels<C>(&self, channels: C) -> Result<(), Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        self.set_channels(channels, true).map(drop)
    }

    /// Unmutes channels; each subscriber is as it was before.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// # use std::time::Duration;
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
    /// n.mute_channels(["prices"])?;
    /// n.unmute_channels(["prices"])?.wait(Duration::from_secs(5))?; // what is sent from now on is heard
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`mute_channels`](Self::mute_channels); what the server answers by the ticket.
    pub fn unmute_channels<C>(&self, channels: C) -> Result<Ticket<()>, Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        self.set_channels(channels, false)
    }

    fn set_channels<C>(&self, channels: C, mute: bool) -> Result<Ticket<()>, Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        let channels: Vec<C::Item> = channels.into_iter().collect();
        let names: Vec<&str> = channels.iter().map(AsRef::as_ref).collect();
        self.set(&names, None, |database| database.registry.mute_channels(&names, mute))
    }

    /// Mutes a subscriber on all channels that it subscribes to now.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
    /// n.mute_subscriber(&7)?;
    /// assert_eq!(n.muted_subscribers()["prices"], [7]);
    /// # Ok(()) }
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
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// # use std::time::Duration;
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
    /// n.mute_subscriber(&7)?;
    /// n.unmute_subscriber(&7)?.wait(Duration::from_secs(5))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`mute_subscriber`](Self::mute_subscriber); what the server answers by the ticket.
    pub fn unmute_subscriber(&self, id: &I) -> Result<Ticket<()>, Error> {
        self.unmute_subscriber_on(id, self.channels_of(id)?)
    }

    /// Mutes a subscriber on these channels.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
    /// n.mute_subscriber_on(&7, ["prices"])?;
    /// assert!(n.mute_subscriber_on(&7, ["orders"]).is_err(), "it isn't subscribed there");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownChannel`] and [`Error::UnknownSubscriber`], and then it is muted on none.
    pub fn mute_subscriber_on<C>(&self, id: &I, channels: C) -> Result<(), Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        self.set_subscriber(id, channels, true).map(drop)
    }

    /// Unmutes a subscriber on these channels.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
    /// n.mute_subscriber(&7)?;
    /// n.unmute_subscriber_on(&7, ["prices"])?;
    /// assert!(n.muted_subscribers().is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`mute_subscriber_on`](Self::mute_subscriber_on); what the server answers by the ticket.
    pub fn unmute_subscriber_on<C>(&self, id: &I, channels: C) -> Result<Ticket<()>, Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        self.set_subscriber(id, channels, false)
    }

    fn set_subscriber<C>(&self, id: &I, channels: C, mute: bool) -> Result<Ticket<()>, Error>
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        let channels: Vec<C::Item> = channels.into_iter().collect();
        let names: Vec<&str> = channels.iter().map(AsRef::as_ref).collect();
        self.set(&names, Some(id), |database| database.registry.mute_subscriber(id, &names, mute))
    }

    /// Mutes or unmutes, and has everybody on these channels know, or one of them.
    fn set(
        &self,
        channels: &[&str],
        only: Option<&I>,
        set: impl FnOnce(&mut Database<I>) -> Result<(), Error>,
    ) -> Result<Ticket<()>, Error> {
        let change = |database: &mut Database<I>, after: &mut DeferredActions<I>| {
            set(database)?;
            channels.iter().for_each(|channel| database.refresh(channel, only, after));
            Ok(((), channels.iter().map(|channel| ((*channel).into(), None)).collect()))
        };
        self.core().change_and_wait(self.at, change).map(|((), ticket)| ticket)
    }

    fn channels_of(&self, id: &I) -> Result<Vec<Box<str>>, Error> {
        self.look(|database| database.registry.channels_of(id).map(|channels| channels.iter().cloned().collect()))
            .flatten()
            .ok_or(Error::UnknownSubscriber { channel: None })
    }
}
