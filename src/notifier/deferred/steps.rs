//! Work for all subscriptions of a channel, which takes the lock of the notifier's state for one bounded step at a time.

use std::sync::Arc;

use crate::error::Error;
use crate::notifier::deferred::ack_group::AckWaiter;
use crate::notifier::missed::Reason;
use crate::notifier::receivers::{CHUNK, ReceiverSnapshot};
use crate::notifier::subscription::Subscription;

/// The largest number of subscriptions in a step.
pub(crate) const STEP: usize = CHUNK;

/// Work for the subscriptions of a channel of a database. Others may change the state between two steps, so a step acts on
/// the state that it finds.
pub(crate) struct ChannelSteps<I: 'static> {
    /// The index of the database.
    pub(crate) at: usize,
    pub(crate) channel: Box<str>,
    pub(crate) work: StepWork<I>,
}

pub(crate) enum StepWork<I: 'static> {
    /// Changes the subscriptions that the channel had at the beginning, or those that have replaced them.
    Change(ReceiverSteps<I>, ReceiverChange),
    /// Removes the channel with all of its subscriptions.
    Remove,
    /// Reverts changes that the server refused.
    Fail(std::vec::IntoIter<AckWaiter<I>>, Error),
}

/// A change of one subscription.
#[derive(Debug, Clone)]
pub(crate) enum ReceiverChange {
    /// Applies mutes, and lets the subscription receive if its channel is listened to.
    Refresh,
    /// Records that the session will be opened, if the channel has never been listened to.
    Open,
    /// Reports something to a subscription that receives.
    Report(Reason),
    /// Reports that the session is lost for good.
    Lose(Error),
    /// Discards what waits, since the notifier has stopped.
    Stop,
}

/// The subscriptions of a channel, chunk by chunk.
pub(crate) struct ReceiverSteps<I: 'static> {
    receivers: ReceiverSnapshot<Subscription<I>>,
    next: usize,
}

impl<I: 'static> ReceiverSteps<I> {
    pub(crate) fn new(receivers: ReceiverSnapshot<Subscription<I>>) -> Self {
        Self { receivers, next: 0 }
    }

    /// Returns the subscriptions of the next step, or `None` after the last one.
    pub(crate) fn next(&mut self) -> Option<impl Iterator<Item = &Arc<Subscription<I>>>> {
        self.next += 1;
        self.receivers.chunk(self.next - 1)
    }
}
