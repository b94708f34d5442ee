//! Work that a change leaves until the lock of the notifier's state is released.

mod ack_group;
pub(crate) mod steps;

use std::sync::Arc;

pub(crate) use self::ack_group::{AckGroup, AckWaiter, Undo};
use self::steps::ChannelSteps;
use crate::error::Error;
use crate::notifier::dispatcher::Dispatcher;
use crate::notifier::missed::MissedReport;
use crate::notifier::subscription::Subscription;

/// Calls to schedule and tickets to resolve, both of which may run code of the user, and work for many subscriptions. The
/// tickets are resolved last.
pub(crate) struct DeferredActions<I: 'static> {
    scheduled: Vec<Arc<Subscription<I>>>,
    steps: Vec<ChannelSteps<I>>,
    completed: Vec<CompletedWaiters<I>>,
}

type CompletedWaiters<I> = (Vec<AckWaiter<I>>, Result<(), Error>);

impl<I: 'static> Default for DeferredActions<I> {
    fn default() -> Self {
        Self { scheduled: Vec::new(), steps: Vec::new(), completed: Vec::new() }
    }
}

impl<I: 'static> DeferredActions<I> {
    /// Queues a report of missed notifications.
    pub(crate) fn report(&mut self, subscription: &Arc<Subscription<I>>, missed: MissedReport) {
        if subscription.push_missed(missed) {
            self.scheduled.push(Arc::clone(subscription));
        }
    }

    /// Lets a subscription receive by a LISTEN of this generation, and queues the report that is due.
    pub(crate) fn start_receiving(&mut self, subscription: &Arc<Subscription<I>>, generation: u32) {
        if subscription.start_receiving(generation) {
            self.scheduled.push(Arc::clone(subscription));
        }
    }

    /// Adds work for the subscriptions of a channel.
    pub(crate) fn add_steps(&mut self, steps: ChannelSteps<I>) {
        self.steps.push(steps);
    }

    pub(crate) fn complete(&mut self, waiters: Vec<AckWaiter<I>>, result: Result<(), Error>) {
        self.completed.push((waiters, result));
    }

    pub(crate) fn take_steps(&mut self) -> Vec<ChannelSteps<I>> {
        std::mem::take(&mut self.steps)
    }

    /// Hands subscribers to a dispatcher.
    pub(crate) fn schedule(&mut self, dispatcher: Option<&Dispatcher<I>>) {
        let scheduled = std::mem::take(&mut self.scheduled);
        if let Some(dispatcher) = dispatcher.filter(|_| !scheduled.is_empty()) {
            dispatcher.resume(scheduled);
        }
    }

    /// Takes in the tickets of other actions, to be resolved with these.
    pub(crate) fn add_completed(&mut self, other: Self) {
        self.completed.extend(other.completed);
    }

    /// Resolves tickets.
    pub(crate) fn resolve(self) {
        for (waiters, result) in self.completed {
            waiters.into_iter().for_each(|waiter| waiter.group.complete(result.clone()));
        }
    }
}
