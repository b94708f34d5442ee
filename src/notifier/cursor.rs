//! The place of a subscription in the log of its channel.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use crate::notifier::channel::{FanoutChannel, PlannedCheck};

/// The place of a subscription in the log of its channel.
#[derive(Debug)]
pub(crate) struct Cursor<S> {
    pub(crate) subscription: Weak<S>,
    pub(crate) channel: Arc<FanoutChannel<S>>,
    /// The index of the next notification, or [`PAUSED`].
    pub(crate) next: u64,
    pub(crate) check: Option<Box<PlannedCheck>>,
}

/// The index of the next notification while a subscription receives nothing.
pub(crate) const PAUSED: u64 = u64::MAX;

/// A subscription that is equal only to itself.
#[derive(Debug)]
pub(crate) struct SubscriptionRef<S>(pub(crate) Arc<S>);

impl<S> Clone for SubscriptionRef<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> PartialEq for SubscriptionRef<S> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<S> Eq for SubscriptionRef<S> {}

impl<S> Hash for SubscriptionRef<S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

pub(crate) fn address<S>(subscription: &S) -> usize {
    std::ptr::from_ref(subscription).addr()
}

impl<S> Cursor<S> {
    pub(crate) fn address(&self) -> usize {
        self.subscription.as_ptr().addr()
    }

    pub(crate) fn is_of(&self, subscription: &S) -> bool {
        self.address() == address(subscription)
    }

    /// Has the loop check the subscriber whenever the channel has new notifications.
    pub(crate) fn watch(&mut self) {
        let check = self.channel.check_always(&self.subscription);
        self.set_check(Some(check));
    }

    /// Sets the planned check, and then cancels the former one: the loop finds one at any time.
    pub(crate) fn set_check(&mut self, check: Option<PlannedCheck>) {
        if let Some(former) = std::mem::replace(&mut self.check, check.map(Box::new)) {
            self.channel.cancel_check(*former);
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.next == PAUSED
    }

    /// Returns the number of notifications that have not been read.
    pub(crate) fn unread(&self) -> u64 {
        self.channel.head().saturating_sub(self.next)
    }

    /// Returns the size of the notifications that have not been read, as far as the log keeps them.
    pub(crate) fn unread_bytes(&self) -> u64 {
        self.channel.read(|log| log.bytes_from(self.next))
    }
}
