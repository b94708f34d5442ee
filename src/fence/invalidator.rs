//! The invalidations of a notification.

use std::borrow::Borrow;
use std::cell::Cell;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::error::Error;
use crate::fence::channel::ChannelCore;
use crate::fence::removal::Removal;
use crate::notification::NotificationRef;

type Apply<K> = dyn FnMut(NotificationRef<'_>, &Outdated<'_, K>) + Send;

/// Functions that read the key in a notification, and remove it from a cache.
///
/// A notification whose key cannot be read invalidates the whole channel, and so does a panic of these functions.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::{Arc, Mutex};
/// use notifyman::fence::{Entry, Invalidator};
///
/// let cache: Arc<Mutex<HashMap<u64, Entry<String>>>> = Arc::default();
/// let invalidator = Invalidator::by_key(
///     |n| n.payload().parse().ok(),
///     move |key| drop(cache.lock().unwrap().remove(key)),
/// );
/// # drop(invalidator);
/// ```
pub struct Invalidator<K>(Box<Apply<K>>);

/// The invalidations of one notification, for [`Invalidator::new`]. If none is made, the whole channel is invalidated.
#[derive(Debug)]
pub struct Outdated<'c, K> {
    channel: &'c Arc<ChannelCore>,
    is_handled: Cell<bool>,
    key: PhantomData<fn(K)>,
}

impl<K: Hash + 'static> Invalidator<K> {
    /// Creates an invalidator for notifications with one key.
    ///
    /// `key_of` returns `None` if the key is not known, which invalidates everything on the channel: an unreadable payload,
    /// TRUNCATE, or a change of the table that was reduced to a marker. `remove` runs under a lock, like the closure of
    /// [`Lease::admit`](crate::fence::Lease::admit): it must be short, and must not use the fence.
    pub fn by_key(
        mut key_of: impl FnMut(NotificationRef<'_>) -> Option<K> + Send + 'static,
        mut remove: impl FnMut(&K) + Send + 'static,
    ) -> Self {
        Self::new(move |n, outdated| {
            if let Some(key) = key_of(n) {
                // After an error the whole channel has been invalidated.
                let _ = outdated.key(&key, || remove(&key));
            }
        })
    }

    /// Creates an invalidator for notifications with several keys, for example those of a row before and after an update.
    ///
    /// The functions are as in [`by_key`](Self::by_key). No key at all invalidates nothing.
    ///
    /// ```
    /// # fn remove(_: &String) {}
    /// use notifyman::fence::Invalidator;
    ///
    /// let invalidator = Invalidator::by_keys(
    ///     |n| Some(n.payload().split(' ').map(String::from).collect()),
    ///     |key| remove(key),
    /// );
    /// # drop(invalidator);
    /// ```
    pub fn by_keys(
        mut keys_of: impl FnMut(NotificationRef<'_>) -> Option<Vec<K>> + Send + 'static,
        mut remove: impl FnMut(&K) + Send + 'static,
    ) -> Self {
        Self::new(move |n, outdated| {
            if let Some(keys) = keys_of(n) {
                outdated.nothing();
                for key in keys {
                    let _ = outdated.key(&key, || remove(&key));
                }
            }
        })
    }

    /// Creates an invalidator for a cache whose removal is awaited: `hand_over` passes each [`Removal`] on to a task, for
    /// example by a queue.
    ///
    /// No entry that shares the key's stripe is fresh until the removal is [done](Removal::done). Dropping it, for example
    /// because the queue is full, invalidates everything on the channel.
    ///
    /// ```
    /// use notifyman::fence::Invalidator;
    ///
    /// let (sender, removals) = std::sync::mpsc::sync_channel(1_000);
    /// let invalidator = Invalidator::awaited(
    ///     |n| n.payload().parse::<u64>().ok(),
    ///     move |removal| drop(sender.try_send(removal)),
    /// );
    /// # drop((invalidator, removals));
    /// ```
    pub fn awaited(
        mut key_of: impl FnMut(NotificationRef<'_>) -> Option<K> + Send + 'static,
        mut hand_over: impl FnMut(Removal<K>) + Send + 'static,
    ) -> Self {
        Self::new(move |n, outdated| {
            if let Some(removal) = key_of(n).and_then(|key| outdated.begin_removal(key).ok()) {
                hand_over(removal);
            }
        })
    }

    /// Creates an invalidator by a function that makes the invalidations of each notification itself, for example of all
    /// keys with a prefix.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use std::sync::{Arc, Mutex};
    /// use notifyman::fence::{Entry, Invalidator};
    ///
    /// let cache: Arc<Mutex<HashMap<String, Entry<String>>>> = Arc::default();
    /// let invalidator = Invalidator::<String>::new(move |n, outdated| {
    ///     let cache = || cache.lock().unwrap();
    ///     let _ = match n.payload().strip_suffix('*') {
    ///         Some(prefix) => outdated
    ///             .matching(|| cache().retain(|key, _| !key.starts_with(prefix))),
    ///         None => {
    ///             outdated.key(&*n.payload(), || drop(cache().remove(&*n.payload())))
    ///         }
    ///     };
    /// });
    /// # drop(invalidator);
    /// ```
    pub fn new(apply: impl FnMut(NotificationRef<'_>, &Outdated<'_, K>) + Send + 'static) -> Self {
        Self(Box::new(apply))
    }
}

impl<K> Invalidator<K> {
    /// Applies a notification.
    pub(crate) fn apply(&mut self, channel: &Arc<ChannelCore>, n: NotificationRef<'_>) {
        let outdated = Outdated { channel, is_handled: Cell::new(false), key: PhantomData };
        (self.0)(n, &outdated);
    }
}

impl<'c, K> Outdated<'c, K> {
    /// Refuses fills of a key that have begun, and calls `remove` to remove it from the cache, under a lock.
    ///
    /// # Errors
    ///
    /// [`Error::InsideFence`] inside a closure that a fence calls under a lock; everything was invalidated instead.
    pub fn key<Q>(&self, key: &Q, remove: impl FnOnce()) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.handled(|| self.channel.invalidate(self.channel.stripe_of(key), |_| remove()))
    }

    /// Refuses all fills of the channel that have begun, and then calls `remove` to remove any number of keys. What stays in
    /// the cache stays fresh. This takes the lock of each stripe once, about 70 µs.
    ///
    /// # Errors
    ///
    /// As for [`key`](Self::key).
    pub fn matching(&self, remove: impl FnOnce()) -> Result<(), Error> {
        self.handled(|| self.channel.sweep(remove))
    }

    /// Invalidates nothing: the notification says nothing about what is cached.
    pub fn nothing(&self) {
        self.is_handled.set(true);
    }

    #[cfg(test)]
    pub(crate) fn for_test(channel: &'c Arc<ChannelCore>) -> Self {
        Self { channel, is_handled: Cell::new(false), key: PhantomData }
    }

    /// Refuses fills of a key that have begun, and returns its removal, for a cache whose removals are awaited: pass it on to a
    /// task. For notifications with several keys, call it for each.
    ///
    /// # Errors
    ///
    /// As for [`key`](Self::key).
    pub fn begin_removal(&self, key: K) -> Result<Removal<K>, Error>
    where
        K: Hash,
    {
        self.handled(|| Removal::begin(self.channel, key))
    }

    fn handled<T>(&self, invalidate: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let result = invalidate();
        self.is_handled.set(true);
        result
    }
}

impl<K> Drop for Outdated<'_, K> {
    /// Without an invalidation, or because of a panic, the whole channel is invalidated.
    fn drop(&mut self) {
        if !self.is_handled.get() || std::thread::panicking() {
            self.channel.forget();
        }
    }
}

impl<K> fmt::Debug for Invalidator<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invalidator").finish_non_exhaustive()
    }
}
