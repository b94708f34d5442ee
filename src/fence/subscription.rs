//! A channel whose invalidations are received by a notifier.

use std::sync::Arc;
use std::time::Instant;

use crate::fence::channel::ChannelCore;
use crate::fence::epoch::LinkState;
use crate::fence::invalidator::Invalidator;
use crate::fence::source::SourceId;
use crate::notifier::{Delivery, ReceptionObserver, SubscriptionTarget};

/// A source of a channel, which is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct ChannelSource {
    channel: Arc<ChannelCore>,
    id: SourceId,
}

impl ChannelSource {
    pub(crate) fn new(channel: &Arc<ChannelCore>) -> Self {
        Self { channel: Arc::clone(channel), id: channel.add_source() }
    }

    pub(crate) fn channel(&self) -> &Arc<ChannelCore> {
        &self.channel
    }

    pub(crate) fn set(&self, state: LinkState) {
        self.channel.set_source(self.id, state);
    }

    /// Records that everything committed before a time has been applied.
    pub(crate) fn prove(&self, as_of: Instant) {
        self.channel.prove(self.id, Some(as_of));
    }

    /// Forgets everything, because notifications may be missing that should have come here.
    pub(crate) fn forget(&self) {
        self.channel.prove(self.id, None);
        self.channel.forget();
    }
}

impl Drop for ChannelSource {
    fn drop(&mut self) {
        self.channel.remove_source(self.id);
    }
}

/// States are reported when they change, and not in the order of the queue: everything that was stored before the channel is
/// listened to again is forgotten then, and what still waits in the queue is only applied once more.
impl ReceptionObserver for ChannelSource {
    fn on_listening(&self) {
        self.set(LinkState::Open);
    }

    fn on_disconnected(&self) {
        self.set(LinkState::Away);
    }

    fn on_silenced(&self) {
        self.set(LinkState::Closed);
    }

    fn on_ended(&self) {
        self.channel.remove_source(self.id);
    }

    fn on_caught_up(&self, as_of: Instant) {
        self.prove(as_of);
    }
}

/// Returns the callback and the observer of a subscription that invalidates what a channel protects.
pub(crate) fn target<I: 'static, K: 'static>(
    channel: &Arc<ChannelCore>,
    mut invalidator: Invalidator<K>,
) -> SubscriptionTarget<I> {
    let source = Arc::new(ChannelSource::new(channel));
    let observer = Arc::clone(&source);
    let call = Box::new(move |delivery: &Delivery<'_, I>| match delivery {
        Delivery::Notification(n) => invalidator.apply(source.channel(), n.notification()),
        Delivery::Missed(missed) if missed.is_known_to_observer() => {}
        Delivery::Missed(_) => source.forget(),
    });
    SubscriptionTarget { call, observer: Some(observer) }
}
