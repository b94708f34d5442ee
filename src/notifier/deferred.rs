//! What a change leaves to be done, and what it may have to take back.

use std::sync::Arc;

use crate::error::Error;
use crate::notifier::ack_group::AckGroup;
use crate::notifier::missed::Missed;
use crate::notifier::subscription::{Subscriber, Subscription};

/// What is to be done once nothing is locked.
pub(crate) struct DeferredActions<I: 'static> {
    /// Who is to be handed to a dispatcher.
    pub(crate) schedule: Vec<Arc<Subscriber<I>>>,
    /// Which tickets are to be resolved.
    pub(crate) kept: Vec<(Arc<AckGroup>, Result<(), Error>)>,
}

impl<I: 'static> Default for DeferredActions<I> {
    fn default() -> Self {
        Self { schedule: Vec::new(), kept: Vec::new() }
    }
}

impl<I: 'static> DeferredActions<I> {
    pub(crate) fn miss(&mut self, entry: &Arc<Subscription<I>>, missed: Missed) {
        if entry.miss(missed) {
            self.schedule.push(Arc::clone(entry.subscriber()));
        }
    }
}

/// How to take back what the server refuses.
pub(crate) enum Undo<I: 'static> {
    Added,
    /// A subscription, and what it took the place of.
    Subscribed(Arc<Subscription<I>>, Option<Arc<Subscription<I>>>),
}

impl<I: 'static> Clone for Undo<I> {
    fn clone(&self) -> Self {
        match self {
            Undo::Added => Undo::Added,
            Undo::Subscribed(entry, before) => Undo::Subscribed(Arc::clone(entry), before.clone()),
        }
    }
}
