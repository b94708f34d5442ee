//! Channels whose invalidations are received by a manager, as events or as batches.

use std::sync::Arc;

use crate::connection::Linked as _;
use crate::error::Error;
use crate::fence::channel::ChannelCore;
use crate::fence::epoch::LinkState;
use crate::fence::invalidator::Invalidator;
use crate::fence::subscription::ChannelSource;
use crate::manager::{ConnId, Event, EventSource, NotificationManager};
use crate::notification::Batch;

/// Applies the events of one connection to a channel of a fence: see
/// [`FenceChannel::events`](crate::fence::FenceChannel::events).
///
/// While it exists, the channel is open except while the connection is lost; once it is dropped, nothing of the channel is served.
///
/// [`Event::Unlistened`] closes the channel, also if the connection was [removed](NotificationManager::remove) from the manager. It
/// stays closed, even if the connection listens to it again, until this is dropped and another one is made. Make that after the event.
#[derive(Debug)]
#[must_use = "a channel is open only as long as this exists and is given the events"]
pub struct FencedEvents<K> {
    source: ChannelSource,
    conn: ConnId,
    invalidator: Invalidator<K>,
    /// `true` once the connection has not listened to the channel, so that its events say nothing about that.
    has_ended: bool,
}

/// Applies the batches of one connection to a channel of a fence that [serves](crate::fence::Serve) also while its
/// connection is away: see [`FenceChannel::batches`](crate::fence::FenceChannel::batches).
#[derive(Debug)]
#[must_use = "a channel is open only as long as this exists and is given the batches"]
pub struct FencedBatches<K>(FencedEvents<K>);

impl<K> FencedEvents<K> {
    pub(crate) fn new(
        channel: &Arc<ChannelCore>,
        nm: &NotificationManager,
        conn: ConnId,
        invalidator: Invalidator<K>,
    ) -> Result<Self, Error> {
        let name = &*channel.name;
        let source = ChannelSource::new(channel, Some(conn));
        if let Some(db) = nm.get(conn) {
            if !db.link().channels().any(|channel| channel == name) {
                return Err(Error::NotListening { channel: name.into() });
            }
            source.set(LinkState::Open);
        } else {
            let (_, dead) = nm.restoring().find(|(id, _)| *id == conn).ok_or(Error::UnknownConnection)?;
            if !dead.channels().iter().any(|channel| **channel == *name) {
                return Err(Error::NotListening { channel: name.into() });
            }
        }
        Ok(Self { source, conn, invalidator, has_ended: false })
    }

    /// Follows a connection of a source that is no manager.
    pub(crate) fn of_source(
        channel: &Arc<ChannelCore>,
        source: &(impl EventSource + ?Sized),
        conn: ConnId,
        invalidator: Invalidator<K>,
    ) -> Result<Self, Error> {
        let name = &*channel.name;
        if !source.connections().contains(&conn) {
            return Err(Error::UnknownConnection);
        }
        let carried = source.channels(conn).ok_or(Error::Unopened)?;
        if !carried.iter().any(|channel| **channel == *name) {
            return Err(Error::NotRelayed { channel: name.into() });
        }
        let source = ChannelSource::new(channel, Some(conn));
        source.set(LinkState::Open);
        Ok(Self { source, conn, invalidator, has_ended: false })
    }

    /// Applies an event. Those of other connections and channels have no effect.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Notifies(conn, batch) if *conn == self.conn => self.apply_batch(batch),
            _ if self.has_ended => {}
            Event::Opened(conn) if *conn == self.conn => self.source.set(LinkState::Open),
            Event::Restored(conn, gap) if *conn == self.conn => {
                if self.is_among(gap.channels()) {
                    // Perhaps only the channel was lost, and not the session.
                    self.source.forget();
                } else {
                    self.source.resume();
                }
                self.source.set(LinkState::Open);
            }
            Event::Disconnected(conn, _) if *conn == self.conn => self.source.set(LinkState::Away),
            Event::Lost(conn, _) if *conn == self.conn => self.source.set(LinkState::Closed),
            Event::CanaryReceived(conn, sent) if *conn == self.conn => self.source.prove(*sent),
            Event::Unlistened(conn, channels) if *conn == self.conn && self.is_among(channels) => {
                self.has_ended = true;
                self.source.set(LinkState::Closed);
            }
            _ => {}
        }
    }

    fn is_among(&self, channels: &[Box<str>]) -> bool {
        channels.contains(&self.source.channel().name)
    }

    fn apply_batch(&mut self, batch: &Batch) {
        if batch.gap().is_some_and(|gap| self.is_among(gap.channels())) {
            self.source.forget();
        }
        let name = self.source.channel().name.as_bytes();
        for n in batch.iter().filter(|n| n.channel_bytes() == name) {
            self.invalidator.apply(self.source.channel(), n);
        }
    }
}

impl<K> FencedBatches<K> {
    pub(crate) fn new(
        channel: &Arc<ChannelCore>,
        nm: &NotificationManager,
        conn: ConnId,
        invalidator: Invalidator<K>,
    ) -> Result<Self, Error> {
        if nm.get(conn).is_none() && nm.restoring().any(|(id, _)| id == conn) {
            // The plain loop does not report when it is open.
            return Err(Error::Unopened);
        }
        let events = FencedEvents::new(channel, nm, conn, invalidator)?;
        // A loss is not reported when it happens.
        events.source.set(LinkState::Away);
        Ok(Self(events))
    }

    /// Applies a batch. Those of other connections and channels have no effect.
    pub fn apply(&mut self, conn: ConnId, batch: &Batch) {
        if conn == self.0.conn {
            self.0.apply_batch(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::fence::channel::FenceCore;
    use crate::fence::entry::Entry;
    use crate::fence::epoch::{Bypass, Serve};
    use crate::gap::Gap;
    use crate::notification::Notification;
    use crate::sync::atomic::Ordering::Relaxed;

    /// Returns an open channel that follows connection 1.
    fn followed() -> (Arc<ChannelCore>, FencedEvents<u64>) {
        let channel = Arc::new(ChannelCore::new(&Arc::new(FenceCore::new(4, None)), "c", 0));
        let invalidator = Invalidator::by_key(|n| n.payload().parse().ok(), |_| ());
        let source = ChannelSource::new(&channel, Some(ConnId::for_test(1)));
        source.set(LinkState::Open);
        (channel, FencedEvents { source, conn: ConnId::for_test(1), invalidator, has_ended: false })
    }

    fn gap(channel: &str) -> Gap {
        Gap::new([channel], Error::Disconnected, Duration::from_secs(1))
    }

    fn batch(channel: &str, payload: &str) -> Batch {
        [Notification::new(channel, payload, 1)].into_iter().collect()
    }

    /// Returns all that an event can change.
    fn state(channel: &ChannelCore) -> (LinkState, u64, u64, bool) {
        let invalidated = channel.counters.invalidated.load(Relaxed);
        (channel.epoch.state(), channel.epoch.number(), invalidated, channel.as_of().is_some())
    }

    #[test]
    fn f02_events_of_other_connections_and_channels_have_no_effect() {
        let (channel, mut events) = followed();
        let [mine, other] = [1, 2].map(ConnId::for_test);
        events.apply(&Event::CanaryReceived(mine, clock::now()));
        let before = state(&channel);
        let without_effect = [
            Event::Idle,
            Event::Notifies(other, batch("c", "7").with_gap(gap("c"))),
            Event::Notifies(mine, batch("d", "7").with_gap(gap("d"))),
            Event::Opened(other),
            Event::Restored(other, gap("c")),
            Event::Restored(mine, gap("d")),
            Event::Unlistened(other, ["c".into()].into()),
            Event::Unlistened(mine, ["d".into()].into()),
            Event::Disconnected(other, Error::Disconnected),
            Event::Lost(other, Error::Disconnected),
        ];
        for event in &without_effect {
            events.apply(event);
            assert_eq!(state(&channel), before, "{event:?}");
        }
        events.apply(&Event::Disconnected(mine, Error::Disconnected));
        events.apply(&Event::Opened(other));
        assert_eq!(channel.epoch.state(), LinkState::Away);
        let (channel, mut events) = followed();
        events.apply(&Event::CanaryReceived(other, clock::now()));
        assert_eq!(channel.as_of(), None);
    }

    #[test]
    fn f02_each_event_of_the_connection_has_its_effect() {
        let (channel, mut events) = followed();
        let conn = ConnId::for_test(1);
        let sent = clock::now();
        events.apply(&Event::CanaryReceived(conn, sent));
        assert_eq!(channel.as_of(), Some(sent));
        let (_, epoch, invalidated, _) = state(&channel);
        events.apply(&Event::Notifies(conn, batch("c", "7")));
        assert_eq!(state(&channel), (LinkState::Open, epoch, invalidated + 1, true));
        events.apply(&Event::Notifies(conn, batch("c", "no key")));
        assert_eq!(state(&channel), (LinkState::Open, epoch + 1, invalidated + 2, true), "it proves as much as before");

        events.apply(&Event::Notifies(conn, batch("d", "7").with_gap(gap("c"))));
        assert_eq!(state(&channel), (LinkState::Open, epoch + 2, invalidated + 3, false));
        // The server had forgotten the channel.
        events.apply(&Event::CanaryReceived(conn, sent));
        events.apply(&Event::Restored(conn, gap("c")));
        assert_eq!(state(&channel), (LinkState::Open, epoch + 3, invalidated + 4, false));

        events.apply(&Event::Disconnected(conn, Error::Disconnected));
        assert_eq!(channel.epoch.state(), LinkState::Away);
        events.apply(&Event::CanaryReceived(conn, sent));
        assert_eq!(channel.as_of(), None);
        let epoch = channel.epoch.number();
        events.apply(&Event::Restored(conn, gap("c")));
        assert_eq!(channel.epoch.state(), LinkState::Open);
        assert!(channel.epoch.number() > epoch);

        events.apply(&Event::Lost(conn, Error::Disconnected));
        assert_eq!(channel.epoch.state(), LinkState::Closed);
        events.apply(&Event::Opened(conn));
        assert_eq!(channel.epoch.state(), LinkState::Open);
        drop(events);
        assert_eq!(channel.epoch.state(), LinkState::Closed);
    }

    #[test]
    fn f02_after_a_silence_without_a_gap_the_channel_is_open_and_only_readers_that_bypassed_it_forget() {
        let (channel, mut events) = followed();
        let conn = ConnId::for_test(1);
        let mut stored = None;
        channel.admit::<Serve>(&channel.begin::<Serve>(0), |stamp| stored = Some(Entry::new(1, stamp)));
        let entry = stored.unwrap();
        let is_fresh = || (channel.fresh::<Bypass, _>(&entry).is_some(), channel.fresh::<Serve, _>(&entry).is_some());
        assert_eq!(is_fresh(), (true, true));
        let (_, epoch, invalidated, _) = state(&channel);
        for channels in [&[][..], &["d"]] {
            events.apply(&Event::CanaryReceived(conn, clock::now()));
            events.apply(&Event::Disconnected(conn, Error::Disconnected));
            assert_eq!((channel.epoch.state(), is_fresh()), (LinkState::Away, (false, true)));
            let gap = Gap::new(channels.iter().copied(), Error::Disconnected, Duration::from_secs(1));
            events.apply(&Event::Restored(conn, gap));
            assert_eq!(state(&channel), (LinkState::Open, epoch, invalidated, false), "{channels:?}");
            assert_eq!(is_fresh(), (false, true));
        }
        events.apply(&Event::Disconnected(conn, Error::Disconnected));
        events.apply(&Event::Restored(conn, gap("c")));
        assert_eq!((channel.epoch.state(), is_fresh()), (LinkState::Open, (false, false)));
    }

    #[test]
    fn f02_an_unlisten_closes_the_channel_until_another_one_follows_it() {
        let (channel, mut events) = followed();
        let conn = ConnId::for_test(1);
        events.apply(&Event::CanaryReceived(conn, clock::now()));
        events.apply(&Event::Unlistened(conn, ["b".into(), "c".into()].into()));
        assert_eq!((channel.epoch.state(), channel.as_of()), (LinkState::Closed, None));
        for event in [
            Event::Opened(conn),
            Event::Disconnected(conn, Error::Disconnected),
            Event::Restored(conn, gap("d")),
            Event::Restored(conn, gap("c")),
            Event::CanaryReceived(conn, clock::now()),
            Event::Notifies(conn, batch("c", "7").with_gap(gap("c"))),
        ] {
            events.apply(&event);
            assert_eq!((channel.epoch.state(), channel.as_of()), (LinkState::Closed, None), "{event:?}");
        }
        let next = ChannelSource::new(&channel, Some(conn));
        next.set(LinkState::Open);
        drop(events);
        assert_eq!(channel.epoch.state(), LinkState::Open);
    }

    #[test]
    fn f02_batches_of_other_connections_have_no_effect() {
        let (channel, events) = followed();
        let mut batches = FencedBatches(events);
        let before = state(&channel);
        batches.apply(ConnId::for_test(2), &batch("c", "7").with_gap(gap("c")));
        assert_eq!(state(&channel), before);
        batches.apply(ConnId::for_test(1), &batch("c", "7").with_gap(gap("c")));
        assert_eq!(state(&channel), (before.0, before.1 + 1, before.2 + 2, false));
    }
}
