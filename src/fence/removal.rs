//! A removal from a cache that takes time.

use std::hash::Hash;
use std::sync::Arc;

use crate::error::Error;
use crate::fence::channel::ChannelCore;

/// A key to remove from a cache whose removal is awaited. Until it is [done](Self::done), no
/// [`AwaitedEntry`](crate::fence::AwaitedEntry) that shares the key's stripe is fresh.
///
/// A removal that is dropped before it is done invalidates everything on the channel.
#[derive(Debug)]
#[must_use = "a removal that is dropped invalidates everything on the channel"]
pub struct Removal<K> {
    channel: Arc<ChannelCore>,
    stripe: usize,
    key: K,
    is_done: bool,
}

impl<K> Removal<K> {
    /// Refuses the fills of a key that have begun.
    pub(crate) fn begin(channel: &Arc<ChannelCore>, key: K) -> Result<Self, Error>
    where
        K: Hash,
    {
        let stripe = channel.stripe_of(&key);
        channel.invalidate(stripe, |locked| locked.begin_removal())?;
        Ok(Self { channel: Arc::clone(channel), stripe, key, is_done: false })
    }

    /// Returns the key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Ends the removal, once the cache no longer has the key.
    pub fn done(mut self) {
        self.is_done = true;
    }
}

impl<K> Drop for Removal<K> {
    fn drop(&mut self) {
        if !self.is_done {
            self.channel.forget();
        }
        self.channel.fence.stripe(self.stripe).end_removal();
    }
}
