//! The calls that tell what there is.

use std::collections::BTreeMap;
use std::hash::Hash;

use crate::notifier::Notifier;
use crate::notifier::database::Database;

/// What there is, of this database.
impl<I: Clone + Eq + Hash + Send + 'static> Notifier<I> {
    /// The channels that were added or are subscribed to, sorted.
    ///
    /// ```
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
    /// n.add_channel("orders")?;
    /// assert_eq!(n.channels(), ["orders", "prices"]);
    /// # Ok(()) }
    /// ```
    pub fn channels(&self) -> Vec<String> {
        self.look(|database| database.registry.channels().into_iter().map(str::to_owned).collect()).unwrap_or_default()
    }

    /// Who subscribes to what: the ids of each channel that has any, in the order of their subscribing.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// n.subscribe(7, "prices", |_| ())?;
    /// n.subscribe(3, "prices", |_| ())?;
    /// assert_eq!(n.subscriptions()["prices"], [7, 3]);
    /// # Ok(()) }
    /// ```
    pub fn subscriptions(&self) -> BTreeMap<String, Vec<I>> {
        self.ids(|_| true)
    }

    /// The channels that are muted, sorted.
    ///
    /// ```
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
    /// n.mute_channels(["prices"])?;
    /// assert_eq!(n.muted_channels(), ["prices"]);
    /// # Ok(()) }
    /// ```
    pub fn muted_channels(&self) -> Vec<String> {
        let muted = |database: &Database<I>| {
            let channels = database.registry.channels().into_iter();
            channels.filter(|channel| database.registry.is_muted(channel)).map(str::to_owned).collect()
        };
        self.look(muted).unwrap_or_default()
    }

    /// The subscribers that are muted, by channel, whether that is muted or not.
    ///
    /// ```
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
    /// n.subscribe(7, "prices", |n| println!("{}", n.payload()))?;
    /// n.mute_subscriber(&7)?;
    /// assert_eq!(n.muted_subscribers()["prices"], [7]);
    /// # Ok(()) }
    /// ```
    pub fn muted_subscribers(&self) -> BTreeMap<String, Vec<I>> {
        self.ids(|muted| muted)
    }

    fn ids(&self, wanted: impl Fn(bool) -> bool) -> BTreeMap<String, Vec<I>> {
        let ids = |database: &Database<I>| {
            let of = |channel: &str| {
                let subscriptions = database.registry.subscriptions(channel);
                subscriptions.filter(|it| wanted(it.muted)).map(|it| it.id.clone()).collect::<Vec<_>>()
            };
            let channels = database.registry.channels().into_iter();
            channels.map(|channel| (channel.to_owned(), of(channel))).filter(|(_, ids)| !ids.is_empty()).collect()
        };
        self.look(ids).unwrap_or_default()
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&Database<I>) -> T) -> Option<T> {
        self.core().lock().databases.get(self.at).map(look)
    }

    /// How long a call may wait for the server.
    pub(super) fn patience(&self) -> Option<std::time::Duration> {
        self.look(|database| database.config.get_call_timeout())
    }
}
