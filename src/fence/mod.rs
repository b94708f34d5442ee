#![doc = include_str!("overview.md")]

mod channel;
mod entry;
mod epoch;
mod events;
mod fill;
mod floor;
mod floors;
#[cfg(test)]
mod guards;
#[cfg(test)]
mod interleavings;
mod invalidator;
mod lease;
#[cfg(test)]
mod model;
mod removal;
mod source;
mod stripe;
mod stripe_set;
mod subscription;

use std::any::TypeId;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use self::channel::{ChannelCore, FenceCore};
pub use self::entry::{AwaitedEntry, Entry};
use self::epoch::LinkState;
pub use self::epoch::{Bypass, Serve, WhenAway};
pub use self::events::{FencedBatches, FencedEvents};
pub use self::fill::Admission;
pub use self::floor::{Lsn, LsnError};
pub use self::floors::FloorQuestion;
use self::floors::QuestionSink;
pub use self::invalidator::{Invalidator, Outdated};
pub use self::lease::{Lease, UnconfirmedLease};
pub use self::removal::Removal;
use crate::error::Error;
use crate::manager::{ConnId, EventSource, NotificationManager, Ticket};
use crate::notifier::Notifier;
use crate::sync::Mutex;
use crate::sync::atomic::Ordering::Relaxed;

/// The default number of stripes.
const STRIPES: usize = 4_096;
/// The largest number of stripes, which takes 32 MiB.
const STRIPES_MAX: usize = 1 << 20;

/// A guard of caches that are invalidated by notifications: see the [module](self).
///
/// A fence is a handle: its clones are the same fence. It has no thread, and a fixed size: by default 4,096 stripes, which
/// take 96 KiB.
///
/// ```
/// use notifyman::fence::Fence;
///
/// let fence = Fence::new();
/// let prices = fence.channel::<u64>("prices");
/// assert!(!prices.is_open()); // nothing listens for it yet
/// ```
#[doc(alias("cache", "cache-aside", "read-through", "stale", "invalidation"))]
#[derive(Debug, Clone)]
pub struct Fence {
    core: Arc<FenceCore>,
    channels: Arc<Mutex<FenceChannels>>,
}

/// The channels by their names and the types of their keys.
type FenceChannels = HashMap<(Box<str>, TypeId), Arc<ChannelCore>>;

/// The settings of a fence: see [`Fence::builder`].
#[derive(Default)]
pub struct FenceBuilder {
    stripes: Option<usize>,
    ask: Option<Box<QuestionSink>>,
}

/// A channel of a fence: what protects the entries of one cache whose keys are of type `K`.
///
/// It is a handle: its clones, and other results of [`Fence::channel`] with the same name and type, are the same channel.
pub struct FenceChannel<K, A = Bypass> {
    core: Arc<ChannelCore>,
    key: PhantomData<fn(K) -> A>,
}

/// The counters of a channel: see [`FenceChannel::stats`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FenceStats {
    /// The channel is open: what is stored is served.
    pub is_open: bool,
    /// Everything committed before this time has been applied: see [`FenceChannel::as_of`].
    pub as_of: Option<Instant>,
    /// The number of the epoch, which begins at 1: another one begins whenever everything is forgotten.
    pub epoch: u64,
    /// The number of invalidations.
    pub invalidated: u64,
    /// The number of fills that were not stored.
    pub refused: u64,
}

impl Fence {
    /// Creates a fence with the default settings.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Returns a builder for a fence with other settings.
    ///
    /// ```
    /// use notifyman::fence::Fence;
    ///
    /// let fence = Fence::builder().stripes(65_536).build();
    /// # drop(fence);
    /// ```
    pub fn builder() -> FenceBuilder {
        FenceBuilder::default()
    }

    /// Returns the channel with a name, for keys of type `K`. Its invalidations arrive by
    /// [`subscribe`](FenceChannel::subscribe), [`events`](FenceChannel::events) or [`batches`](FenceChannel::batches).
    ///
    /// Another type makes it another channel, also if the name is equal.
    ///
    /// ```
    /// use notifyman::fence::Fence;
    ///
    /// let fence = Fence::new();
    /// let prices = fence.channel::<u64>("prices");
    /// prices.forget();
    /// assert_eq!(fence.channel::<u64>("prices").stats().epoch, 2);
    /// ```
    pub fn channel<K: Hash + 'static>(&self, name: &str) -> FenceChannel<K> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let number = channels.len();
        let core = channels
            .entry((name.into(), TypeId::of::<K>()))
            .or_insert_with(|| Arc::new(ChannelCore::new(&self.core, name, number)));
        FenceChannel { core: Arc::clone(core), key: PhantomData }
    }
}

impl Default for Fence {
    fn default() -> Self {
        Self::new()
    }
}

impl FenceBuilder {
    /// Sets the number of stripes, which is rounded up to a power of two, up to 1,048,576. Default: 4,096, of 24 bytes each.
    ///
    /// Keys share stripes, and an invalidation refuses the fills of all keys of its stripe that have begun: with s stripes,
    /// n invalidations a second and fills that take t seconds, n × t / s of the fills are refused in vain.
    #[must_use]
    pub fn stripes(mut self, stripes: usize) -> Self {
        self.stripes = Some(stripes);
        self
    }

    /// Sets the function that asks the primary for its position, so that caches can be filled from standbys: see
    /// [standbys](self#standbys).
    ///
    /// It is called where an invalidation arrives, at most once until it is answered, and must not block: it passes the
    /// question on to a thread that queries the primary.
    ///
    /// ```
    /// use notifyman::fence::{Fence, FloorQuestion};
    ///
    /// let (sender, questions) = std::sync::mpsc::channel::<FloorQuestion>();
    /// let fence = Fence::builder()
    ///     .primary(move |question| drop(sender.send(question)))
    ///     .build();
    /// # drop((fence, questions));
    /// ```
    #[must_use]
    #[doc(alias("standby", "replica"))]
    pub fn primary(mut self, ask: impl Fn(FloorQuestion) + Send + Sync + 'static) -> Self {
        self.ask = Some(Box::new(ask));
        self
    }

    /// Creates the fence.
    pub fn build(self) -> Fence {
        let stripes = self.stripes.unwrap_or(STRIPES).clamp(1, STRIPES_MAX).next_power_of_two();
        Fence { core: Arc::new(FenceCore::new(stripes, self.ask)), channels: Arc::default() }
    }
}

impl<K: Hash + 'static, A: WhenAway> FenceChannel<K, A> {
    // ---- reading and filling ----------------------------------------------------------------------------------------

    /// Returns the value of an entry that has just been looked up in the cache, or `None` if it may be stale: read it again then.
    ///
    /// Look the entry up for each read. One that is kept from an earlier read is not removed by an invalidation of its key, so it
    /// stays fresh.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use notifyman::fence::{Entry, Fence};
    ///
    /// let cache: HashMap<u64, Entry<String>> = HashMap::new();
    /// let prices = Fence::new().channel::<u64>("prices");
    /// let price = cache.get(&42).and_then(|entry| prices.fresh(entry));
    /// assert_eq!(price, None);
    /// ```
    #[inline]
    pub fn fresh<'e, V>(&self, entry: &'e Entry<V>) -> Option<&'e V> {
        self.core.fresh::<A, V>(entry)
    }

    /// Begins to fill the cache with the value of a key. Call it before the query is sent, and pass the value to
    /// [`Lease::admit`].
    ///
    /// In a transaction, call it before the first query if the isolation level is REPEATABLE READ or SERIALIZABLE: the whole
    /// transaction sees the database as it was then.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use notifyman::fence::Fence;
    ///
    /// # fn query(_: u64) -> String { "9.95".into() }
    /// let mut cache = HashMap::new();
    /// let prices = Fence::new().channel::<u64>("prices");
    ///
    /// let lease = prices.begin(&42);
    /// let price = query(42);
    /// lease.admit(price, |entry| drop(cache.insert(42, entry)));
    /// ```
    #[doc(alias("lease", "fill", "lock"))]
    #[inline]
    pub fn begin<Q>(&self, key: &Q) -> Lease<'_, A>
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        Lease::new(&self.core, self.core.begin::<A>(self.core.stripe_of(key)))
    }

    // ---- invalidating -----------------------------------------------------------------------------------------------

    /// Invalidates a key: refuses its fills that have begun, and calls `remove` to remove it from the cache. Notifications
    /// do so by themselves; this is for what the program learns in another way, such as its own writes.
    ///
    /// `remove` runs under a lock, as in [`Lease::admit`].
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use notifyman::fence::{Entry, Fence};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// let mut cache: HashMap<u64, Entry<String>> = HashMap::new();
    /// let prices = Fence::new().channel::<u64>("prices");
    /// // After the program itself has committed a change of item 42:
    /// prices.invalidate(&42, || drop(cache.remove(&42)))?;
    /// # assert_eq!(prices.stats().invalidated, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InsideFence`] inside a closure that a fence calls under a lock; everything on the channel was forgotten
    /// instead.
    #[doc(alias("remove", "evict", "expire"))]
    pub fn invalidate<Q>(&self, key: &Q, remove: impl FnOnce()) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.core.invalidate(self.core.stripe_of(key), |_| remove())
    }

    /// Invalidates a key of a cache whose removal is awaited: refuses its fills that have begun, and returns the removal to end
    /// once the cache no longer has the key. Until then no entry that shares the key's stripe is fresh.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), notifyman::Error> {
    /// # struct Cache;
    /// # impl Cache { async fn remove(&self, _: &u64) {} }
    /// # let cache = Cache;
    /// use notifyman::fence::Fence;
    ///
    /// let prices = Fence::new().channel::<u64>("prices");
    /// let removal = prices.begin_removal(42)?;
    /// cache.remove(removal.key()).await;
    /// removal.done();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`invalidate`](Self::invalidate).
    pub fn begin_removal(&self, key: K) -> Result<Removal<K>, Error> {
        Removal::begin(&self.core, key)
    }

    /// Invalidates any number of keys: refuses all fills of the channel that have begun, and calls `remove` to remove the
    /// keys from the cache. What stays there stays fresh.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use notifyman::fence::{Entry, Fence};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// let mut cache: HashMap<String, Entry<String>> = HashMap::new();
    /// let pages = Fence::new().channel::<String>("pages");
    /// pages.invalidate_matching(|| {
    ///     cache.retain(|path, _| !path.starts_with("/customers/7/"));
    /// })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`invalidate`](Self::invalidate).
    #[doc(alias("prefix", "tag", "invalidate_entries_if"))]
    pub fn invalidate_matching(&self, remove: impl FnOnce()) -> Result<(), Error> {
        self.core.sweep(remove)
    }

    /// Invalidates everything on the channel, in the time of one store, however much there is.
    ///
    /// Entries stay in the memory of the cache until they are replaced or evicted, and are never fresh again.
    ///
    /// ```
    /// use notifyman::fence::Fence;
    ///
    /// let prices = Fence::new().channel::<u64>("prices");
    /// let epoch = prices.stats().epoch;
    /// prices.forget();
    /// assert_eq!(prices.stats().epoch, epoch + 1);
    /// ```
    #[doc(alias("clear", "flush", "invalidate_all"))]
    pub fn forget(&self) {
        self.core.forget();
    }

    // ---- state ------------------------------------------------------------------------------------------------------

    /// Returns the time before which everything that was committed in the database has been applied: nothing that is served
    /// is older.
    ///
    /// It is the time at which the latest canary was sent that has come back, behind all notifications before it. So it needs
    /// [`NotifierBuilder::canary`](crate::notifier::NotifierBuilder::canary), or
    /// [`report_canaries`](NotificationManager::report_canaries), and is never finer than the period of the canary, or its deadline if
    /// that is longer. `None` while the connection is away, after notifications were dropped, until the next canary, and without
    /// a canary.
    ///
    /// Keep the latest time, and raise an alarm if it is too long ago: then invalidations do not arrive, or the callbacks are
    /// too slow. The [module](self#how-fresh-it-is) has an example.
    #[doc(alias("freshness", "staleness", "lag"))]
    pub fn as_of(&self) -> Option<Instant> {
        self.core.as_of()
    }

    /// Returns `true` if the channel is listened to: what is stored is served.
    pub fn is_open(&self) -> bool {
        self.core.epoch.state() == LinkState::Open
    }

    /// Returns the state and the counters of the channel.
    ///
    /// ```
    /// use notifyman::fence::Fence;
    ///
    /// let stats = Fence::new().channel::<u64>("prices").stats();
    /// assert!(!stats.is_open && stats.as_of.is_none());
    /// ```
    pub fn stats(&self) -> FenceStats {
        FenceStats {
            is_open: self.is_open(),
            as_of: self.as_of(),
            epoch: self.core.epoch.number(),
            invalidated: self.core.counters.invalidated.load(Relaxed),
            refused: self.core.counters.refused.load(Relaxed),
        }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Returns the same channel for a cache that is also used while the connection is away: see [`Serve`].
    ///
    /// ```
    /// use notifyman::fence::{Fence, FenceChannel, Serve};
    ///
    /// let prices: FenceChannel<u64, Serve> =
    ///     Fence::new().channel("prices").serve_when_away();
    /// # drop(prices);
    /// ```
    pub fn serve_when_away(&self) -> FenceChannel<K, Serve> {
        FenceChannel { core: Arc::clone(&self.core), key: PhantomData }
    }

    // ---- sources ----------------------------------------------------------------------------------------------------

    /// Subscribes the channel at a notifier, with the name of this channel and this id, and waits until the server has
    /// acknowledged that: from then on the channel is open. The [module](self) has an example.
    ///
    /// The id is any value by which the subscription is muted and ended later. An id has one callback for a channel, so each
    /// subscription needs one of its own, also if two channels of a fence have the same name. One channel can have several
    /// subscriptions, for several databases, and is open only while all of them are. If one ends, the channel stays closed until
    /// another one is made. For certificates that are as fresh as they can be, give each channel an id of its own.
    ///
    /// Muting, a stop of the notifier and unsubscribing close the channel; a loss of the session makes it away until the session is
    /// restored, when everything is forgotten. So does a [`Queue`](crate::notifier::Queue) that is full, and one with
    /// [`Policy::Disconnect`](crate::notifier::Policy::Disconnect) ends the subscription.
    ///
    /// # Errors
    ///
    /// As for [`Notifier::subscribe`], and [`Error::AlreadySubscribed`] if the id has a callback for the channel. The channel
    /// is closed then, unless it has another subscription.
    pub fn subscribe<I>(&self, notifier: &Notifier<I>, id: I, invalidator: Invalidator<K>) -> Result<(), Error>
    where
        I: Clone + Eq + Hash + Send + 'static,
    {
        notifier.subscribe_target(&id, self.name(), subscription::target(&self.core, invalidator))
    }

    /// Subscribes without waiting, for async code and inside callbacks: the ticket resolves once the channel is open. An example
    /// is on the page [`caching`](crate::docs::caching#moka-in-async-code).
    ///
    /// # Errors
    ///
    /// As for [`Notifier::subscribe_ticket`], and [`Error::AlreadySubscribed`].
    pub fn subscribe_ticket<I>(
        &self,
        notifier: &Notifier<I>,
        id: I,
        invalidator: Invalidator<K>,
    ) -> Result<Ticket<()>, Error>
    where
        I: Clone + Eq + Hash + Send + 'static,
    {
        notifier.subscribe_target_ticket(&id, self.name(), subscription::target(&self.core, invalidator))
    }

    /// Follows a connection of a manager by its events. Give each event to [`FencedEvents::apply`], before anything else
    /// relies on it. An example is on the page [`caching`](crate::docs::caching#with-events).
    ///
    /// # Errors
    ///
    /// [`Error::NotListening`] if the connection does not listen to the channel; [`Error::UnknownConnection`] if it is neither
    /// open nor being opened or restored.
    pub fn events(
        &self,
        nm: &NotificationManager,
        conn: ConnId,
        invalidator: Invalidator<K>,
    ) -> Result<FencedEvents<K>, Error> {
        FencedEvents::new(&self.core, nm, conn, invalidator)
    }

    /// Follows a connection of an [`EventSource`], such as a relay's reader, by its events, as [`events`](Self::events) follows one of a
    /// manager. The connection must be open and carry the channel, so make it after [`Event::Opened`](crate::Event::Opened).
    ///
    /// Give each event that the source returns from now on to [`FencedEvents::apply`], in order. One that is left out may be an
    /// invalidation, or the end of them.
    ///
    /// # Errors
    ///
    /// [`Error::NotRelayed`] if the connection does not carry the channel; [`Error::Unopened`] if it is not open, or not now;
    /// [`Error::UnknownConnection`].
    pub fn events_of<S>(&self, source: &S, conn: ConnId, invalidator: Invalidator<K>) -> Result<FencedEvents<K>, Error>
    where
        S: EventSource + ?Sized,
    {
        FencedEvents::of_source(&self.core, source, conn, invalidator)
    }
}

impl<K: Hash + 'static> FenceChannel<K, Serve> {
    /// Follows a connection of a manager by the batches of a plain loop, which does not report a loss when it happens: only
    /// once the connection is restored, everything is forgotten. So only a channel that serves while the connection is away
    /// can use it, and [`as_of`](Self::as_of) is always `None`. An example is on the page
    /// [`caching`](crate::docs::caching#a-plain-loop).
    ///
    /// # Errors
    ///
    /// As for [`events`](Self::events), and [`Error::Unopened`] while the connection is being opened or restored.
    pub fn batches(
        &self,
        nm: &NotificationManager,
        conn: ConnId,
        invalidator: Invalidator<K>,
    ) -> Result<FencedBatches<K>, Error> {
        FencedBatches::new(&self.core, nm, conn, invalidator)
    }
}

impl<K, A> Clone for FenceChannel<K, A> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), key: PhantomData }
    }
}

impl<K, A> fmt::Debug for FenceChannel<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FenceChannel").field("name", &self.core.name).field("epoch", &self.core.epoch).finish()
    }
}

impl fmt::Debug for FenceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FenceBuilder").field("stripes", &self.stripes).finish_non_exhaustive()
    }
}
