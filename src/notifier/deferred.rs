//! Work that a change leaves until the lock of the notifier's state is released.

use std::sync::{Arc, PoisonError};

use crate::error::Error;
use crate::manager::{Resolver, ThreadMark, Ticket};
use crate::notifier::dispatcher::Dispatcher;
use crate::notifier::missed::MissedReport;
use crate::notifier::subscription::Subscription;
use crate::sync::Mutex;

/// Calls to schedule and tickets to resolve, both of which may run code of the user.
pub(crate) struct DeferredActions<I: 'static> {
    scheduled: Vec<Arc<Subscription<I>>>,
    completed: Vec<(Arc<AckGroup>, Result<(), Error>)>,
}

impl<I: 'static> Default for DeferredActions<I> {
    fn default() -> Self {
        Self { scheduled: Vec::new(), completed: Vec::new() }
    }
}

impl<I: 'static> DeferredActions<I> {
    /// Queues a report of missed notifications.
    pub(crate) fn report(&mut self, subscription: &Arc<Subscription<I>>, missed: MissedReport) {
        if subscription.push_missed(missed) {
            self.scheduled.push(Arc::clone(subscription));
        }
    }

    /// Lets a subscription receive, and queues the report that is due.
    pub(crate) fn start_receiving(&mut self, subscription: &Arc<Subscription<I>>) {
        if subscription.start_receiving() {
            self.scheduled.push(Arc::clone(subscription));
        }
    }

    pub(crate) fn complete(&mut self, group: Arc<AckGroup>, result: Result<(), Error>) {
        self.completed.push((group, result));
    }

    pub(crate) fn run(self, dispatcher: Option<&Dispatcher<I>>) {
        if let Some(dispatcher) = dispatcher.filter(|_| !self.scheduled.is_empty()) {
            dispatcher.resume(self.scheduled);
        }
        for (group, result) in self.completed {
            group.complete(result);
        }
    }
}

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
