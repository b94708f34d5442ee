//! Channels whose invalidations are received by a manager, as events or as batches.

use std::sync::Arc;

use crate::connection::Linked as _;
use crate::error::Error;
use crate::fence::channel::ChannelCore;
use crate::fence::epoch::LinkState;
use crate::fence::invalidator::Invalidator;
use crate::fence::subscription::ChannelSource;
use crate::manager::{ConnId, Event, NotificationManager};
use crate::notification::Batch;

/// Applies the events of one connection to a channel of a fence: see
/// [`FenceChannel::events`](crate::fence::FenceChannel::events).
///
/// While it exists, the channel is open as long as the connection listens; once it is dropped, nothing of the channel is
/// served.
#[derive(Debug)]
#[must_use = "a channel is open only as long as this exists and is given the events"]
pub struct FencedEvents<K> {
    source: ChannelSource,
    conn: ConnId,
    invalidator: Invalidator<K>,
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
        let source = ChannelSource::new(channel);
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
        Ok(Self { source, conn, invalidator })
    }

    /// Applies an event. Those of other connections and channels have no effect.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Notifies(conn, batch) if *conn == self.conn => self.apply_batch(batch),
            Event::Opened(conn) if *conn == self.conn => self.source.set(LinkState::Open),
            Event::Restored(conn, gap) if *conn == self.conn && self.is_among(gap.channels()) => {
                // Perhaps only the channel was lost, and not the session.
                self.source.forget();
                self.source.set(LinkState::Open);
            }
            Event::Disconnected(conn, _) if *conn == self.conn => self.source.set(LinkState::Away),
            Event::Lost(conn, _) if *conn == self.conn => self.source.set(LinkState::Closed),
            Event::CanaryReceived(conn, sent) if *conn == self.conn => self.source.prove(*sent),
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
