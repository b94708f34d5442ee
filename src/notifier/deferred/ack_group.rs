//! Tickets that wait for acknowledgements, and the changes that a refusal reverts.

use std::sync::{Arc, PoisonError};

use crate::error::Error;
use crate::manager::{Resolver, ThreadMark, Ticket};
use crate::notifier::subscription::Subscription;
use crate::sync::Mutex;

/// The way to revert a change that the server refuses.
pub(crate) enum Undo<I: 'static> {
    /// A channel was added by name.
    Added,
    /// A channel was subscribed to; the second subscription is the one that was replaced.
    Subscribed(Arc<Subscription<I>>, Option<Arc<Subscription<I>>>),
}

impl<I: 'static> Clone for Undo<I> {
    fn clone(&self) -> Self {
        match self {
            Undo::Added => Undo::Added,
            Undo::Subscribed(subscription, replaced) => Undo::Subscribed(Arc::clone(subscription), replaced.clone()),
        }
    }
}

/// One ticket for several acknowledgements: it resolves with the last of them, or with the first failure.
pub(crate) struct AckGroup(Mutex<AckGroupState>);

struct AckGroupState {
    outstanding: usize,
    resolver: Option<Resolver<()>>,
}

impl AckGroup {
    /// Creates a group that waits for one call of [`complete`](Self::complete), which follows when all acknowledgements
    /// have been [added](Self::add).
    pub(crate) fn new(threads: &Arc<ThreadMark>) -> (Arc<Self>, Ticket<()>) {
        let (resolver, ticket) = Ticket::new(threads);
        (Arc::new(Self(Mutex::new(AckGroupState { outstanding: 1, resolver: Some(resolver) }))), ticket)
    }

    pub(crate) fn add(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).outstanding += 1;
    }

    pub(crate) fn complete(&self, result: Result<(), Error>) {
        let resolver = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.outstanding = state.outstanding.saturating_sub(1);
            let is_over = state.outstanding == 0 || result.is_err();
            state.resolver.take_if(|_| is_over)
        };
        // Resolving may wake a task of the user, so the lock is released first.
        if let Some(resolver) = resolver {
            resolver.resolve(result);
        }
    }
}

/// A ticket that waits for an acknowledgement, with the way to revert its change.
pub(crate) struct AckWaiter<I: 'static> {
    pub(crate) group: Arc<AckGroup>,
    pub(crate) undo: Option<Undo<I>>,
}
