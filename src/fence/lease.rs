//! The lease of a fill: what a cache may store is decided by what was invalidated since.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::fence::channel::ChannelCore;
use crate::fence::entry::{AwaitedEntry, Confirmation, Entry};
use crate::fence::epoch::{Bypass, WhenAway};
use crate::fence::fill::{Admission, FillStamps};
use crate::fence::floor::Lsn;

/// The permission to store the value of a key that is being read, unless the key is invalidated meanwhile: see
/// [`FenceChannel::begin`](crate::fence::FenceChannel::begin).
///
/// A lease that is dropped stores nothing. It may be kept as long as the query takes, and holds no lock.
#[derive(Debug)]
#[must_use = "a lease stores nothing by itself: pass the value to `admit`"]
pub struct Lease<'c, A = Bypass> {
    channel: &'c ChannelCore,
    stamps: FillStamps,
    mode: PhantomData<fn() -> A>,
}

/// A lease whose entry is being stored by an awaited call, and fresh only once it is [confirmed](Self::confirm).
#[derive(Debug)]
#[must_use = "an entry that is not confirmed is never fresh"]
pub struct UnconfirmedLease<'c, A = Bypass> {
    lease: Lease<'c, A>,
    confirmation: Arc<Confirmation>,
}

impl<'c, A: WhenAway> Lease<'c, A> {
    pub(crate) fn new(channel: &'c ChannelCore, stamps: FillStamps) -> Self {
        Self { channel, stamps, mode: PhantomData }
    }

    /// Calls `insert` with the entry to store, unless it may be stale already.
    ///
    /// `insert` runs under a lock that an invalidation of the key waits for. So it must be short, and it must not use the
    /// fence, not even in a listener that the cache calls for an evicted entry.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use notifyman::fence::{Admission, Fence};
    ///
    /// let mut cache = HashMap::new();
    /// let fence = Fence::new();
    /// let prices = fence.channel::<u64>("prices");
    ///
    /// let lease = prices.begin(&42);
    /// // Nothing listens for the channel yet, so the price may be stale soon.
    /// let admission = lease.admit("9.95", |entry| {
    ///     cache.insert(42, entry);
    /// });
    /// assert_eq!(admission, Admission::Away);
    /// assert!(cache.is_empty());
    /// ```
    pub fn admit<V>(self, value: V, insert: impl FnOnce(Entry<V>)) -> Admission {
        self.channel.admit::<A>(&self.stamps, |stamp| insert(Entry::new(value, stamp)))
    }

    /// Returns the value of an entry that was read from a cache whose calls are awaited, after the lease began, or `None` if
    /// it may be stale.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # struct Cache;
    /// # impl Cache {
    /// #     async fn get(&self, _: u64) -> Option<AwaitedEntry<String>> { None }
    /// #     async fn insert(&self, _: u64, _: AwaitedEntry<String>) {}
    /// # }
    /// # async fn query(_: u64) -> String { "9.95".into() }
    /// use notifyman::fence::{AwaitedEntry, Fence, FenceChannel};
    ///
    /// async fn price(prices: &FenceChannel<u64>, cache: &Cache) -> String {
    ///     let lease = prices.begin(&42); // before the cache is asked
    ///     let entry = cache.get(42).await;
    ///     let fresh = entry.as_ref().and_then(|entry| lease.fresh(entry));
    ///     if let Some(price) = fresh {
    ///         return price.clone();
    ///     }
    ///     let price = query(42).await;
    ///     let (entry, lease) = lease.unconfirmed(price.clone());
    ///     cache.insert(42, entry).await;
    ///     lease.confirm();
    ///     price
    /// }
    /// # let prices = Fence::new().channel::<u64>("prices");
    /// # assert_eq!(price(&prices, &Cache).await, "9.95");
    /// # }
    /// ```
    pub fn fresh<'e, V>(&self, entry: &'e AwaitedEntry<V>) -> Option<&'e V> {
        self.channel.fresh_since::<A, V>(&self.stamps, entry)
    }

    /// Returns an entry for a cache whose insert is awaited, and a lease to confirm it afterwards: see [`fresh`](Self::fresh).
    pub fn unconfirmed<V>(self, value: V) -> (AwaitedEntry<V>, UnconfirmedLease<'c, A>) {
        let (entry, confirmation) = AwaitedEntry::new(value);
        (entry, UnconfirmedLease { lease: self, confirmation })
    }

    /// Makes this the lease of a fill that reads a standby, which had replayed the primary's log up to this position: the
    /// value of `pg_last_wal_replay_lsn()` in a query after `begin` and before the one that fills.
    ///
    /// See [standbys](crate::fence#standbys). Without [`FenceBuilder::primary`](crate::fence::FenceBuilder::primary), such a
    /// fill is always refused.
    pub fn on_standby(mut self, replayed: Lsn) -> Self {
        self.stamps.replayed = Some(replayed);
        self
    }
}

impl<A: WhenAway> UnconfirmedLease<'_, A> {
    /// Makes the entry fresh, if its key has not been invalidated since the fill began. Call it after the cache has stored
    /// the entry: one that is confirmed before could be stored after its removal.
    pub fn confirm(self) -> Admission {
        let Self { lease, confirmation } = self;
        lease.channel.admit::<A>(&lease.stamps, |stamp| confirmation.confirm(stamp))
    }
}
