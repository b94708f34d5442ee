//! A channel whose invalidations are received by a notifier.

use std::sync::Arc;
use std::time::Instant;

use crate::fence::channel::ChannelCore;
use crate::fence::epoch::LinkState;
use crate::fence::invalidator::Invalidator;
use crate::fence::source::SourceId;
use crate::manager::ConnId;
use crate::notifier::{Delivery, ReceptionObserver, SubscriptionTarget};

/// A source of a channel, which is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct ChannelSource {
    channel: Arc<ChannelCore>,
    id: SourceId,
}

impl ChannelSource {
    /// Creates a source: a subscription, or this connection of a manager.
    pub(crate) fn new(channel: &Arc<ChannelCore>, conn: Option<ConnId>) -> Self {
        Self { channel: Arc::clone(channel), id: channel.add_source(conn) }
    }

    pub(crate) fn channel(&self) -> &Arc<ChannelCore> {
        &self.channel
    }

    pub(crate) fn set(&self, state: LinkState) {
        self.channel.set_source(self.id, state);
    }

    /// Opens the source again if it was away, since nothing was missed.
    pub(crate) fn resume(&self) {
        self.channel.resume_source(self.id);
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

    fn on_resumed(&self) {
        self.resume();
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
    let source = Arc::new(ChannelSource::new(channel, None));
    let observer = Arc::clone(&source);
    let call = Box::new(move |delivery: &Delivery<'_, I>| match delivery {
        Delivery::Notification(n) => invalidator.apply(source.channel(), n.notification()),
        Delivery::Missed(missed) if missed.is_known_to_observer() => {}
        Delivery::Missed(_) => source.forget(),
    });
    SubscriptionTarget { call, observer: Some(observer) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::error::Error;
    use crate::fence::channel::FenceCore;
    use crate::gap::Gap;
    use crate::notification::Notification;
    use crate::notifier::{Missed, Reason};

    fn channel() -> Arc<ChannelCore> {
        Arc::new(ChannelCore::new(&Arc::new(FenceCore::new(4, None)), "c", 0))
    }

    fn subscribe(channel: &Arc<ChannelCore>) -> SubscriptionTarget<u32> {
        target(channel, Invalidator::<u64>::by_key(|n| n.payload().parse().ok(), |_| ()))
    }

    #[test]
    fn f02_a_report_of_missed_notifications_forgets_unless_the_state_has_said_so() {
        let channel = channel();
        let mut target = subscribe(&channel);
        let observer = target.observer.clone().unwrap();
        let restored = |cause| Reason::Restored(Gap::new(["c"], cause, Duration::from_secs(1)));
        let reports = [
            (Reason::Opened, 0, false),
            (Reason::Disconnected(Error::Disconnected), 0, false),
            (restored(Error::Disconnected), 0, false),
            (Reason::Muted, 0, false),
            (Reason::Stopped, 0, false),
            (Reason::Muted, 1, true),
            (restored(Error::Disconnected), 1, true),
            (restored(Error::Unregistered), 0, true),
            (Reason::Overflow, 0, true),
            (Reason::Unsubscribed, 0, true),
            (Reason::Lost(Error::Disconnected), 0, true),
        ];
        observer.on_listening();
        for (reason, dropped, forgets) in reports {
            observer.on_caught_up(clock::now());
            let epoch = channel.epoch.number();
            (target.call)(&Delivery::Missed(Missed::new(&1, "c", &reason, dropped)));
            let is_forgotten = channel.epoch.number() > epoch;
            assert_eq!((is_forgotten, channel.as_of().is_none()), (forgets, forgets), "{reason:?}, {dropped}");
        }
        let (epoch, notification) = (channel.epoch.number(), Notification::new("c", "7", 1));
        (target.call)(&Delivery::notification(&1, "c", notification.as_ref(), 0));
        assert_eq!((channel.epoch.number(), channel.begin::<crate::fence::Bypass>(0).epoch.is_open()), (epoch, true));
    }

    #[test]
    fn f02_the_state_of_a_subscription_is_that_of_its_channel() {
        let channel = channel();
        let target = subscribe(&channel);
        let observer = target.observer.clone().unwrap();
        assert_eq!(channel.epoch.state(), LinkState::Closed);
        let changes: [(&dyn Fn(), LinkState); 5] = [
            (&|| observer.on_listening(), LinkState::Open),
            (&|| observer.on_disconnected(), LinkState::Away),
            (&|| observer.on_listening(), LinkState::Open),
            (&|| observer.on_silenced(), LinkState::Closed),
            (&|| observer.on_listening(), LinkState::Open),
        ];
        for (change, expected) in changes {
            change();
            assert_eq!(channel.epoch.state(), expected);
        }
        let now = clock::now();
        observer.on_caught_up(now);
        assert_eq!(channel.as_of(), Some(now));
        observer.on_ended();
        assert_eq!((channel.epoch.state(), channel.as_of()), (LinkState::Closed, None));
    }

    #[test]
    fn f02_a_subscription_that_is_dropped_closes_its_channel() {
        let channel = channel();
        let target = subscribe(&channel);
        target.observer.as_ref().unwrap().on_listening();
        assert_eq!(channel.epoch.state(), LinkState::Open);
        drop(target);
        assert_eq!(channel.epoch.state(), LinkState::Closed);
    }
}
