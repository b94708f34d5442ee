//! What the loop tells of its sessions, and what comes of it.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::error::Error;
use crate::gap::Gap;
use crate::manager::ConnId;
use crate::notification::Batch;
use crate::notifier::after::After;
use crate::notifier::core::{Inner, Phase, World};
use crate::notifier::database::Session;
use crate::notifier::entry::Ear;
use crate::proto::sql::Limits;

impl<I: Clone + Eq + Hash + Send + 'static> Inner<I> {
    fn on_event(self: &Arc<Self>, id: ConnId, act: impl FnOnce(&Arc<Self>, &mut World<I>, usize, &mut After<I>)) {
        self.act(|world, after| {
            if let Some(at) = world.by_connection.get(&id).copied() {
                act(self, world, at, after);
            }
        });
    }

    /// A batch came: everybody's share goes into their queues.
    pub(crate) fn heard(self: &Arc<Self>, id: ConnId, batch: &Batch) {
        self.on_event(id, |inner, world, at, after| {
            let Some(database) = world.databases.get_mut(at) else { return };
            // How many were one too many, by subscriber and channel.
            let mut too_slow: HashMap<I, HashMap<Box<str>, u64>> = HashMap::new();
            for n in batch {
                let Ok(channel) = std::str::from_utf8(n.channel_bytes()) else { continue };
                // One copy for all, which keeps nothing of the buffer that it came in.
                let mut copy = None;
                // Who has just been unmuted is told first that it missed something: it hears what comes after that.
                for entry in database.registry.audience(channel).filter(|entry| entry.ear() != Ear::Muted) {
                    let (pushed, schedule) = entry.push(copy.get_or_insert_with(|| n.to_owned()));
                    if schedule {
                        after.schedule.push(Arc::clone(entry.subscriber()));
                    }
                    if pushed.dropped > 0 {
                        inner.tally.dropped.add(pushed.dropped);
                    }
                    if pushed.folded {
                        inner.tally.folded.add(1);
                    }
                    if pushed.disconnects {
                        *too_slow.entry(entry.id()).or_default().entry(channel.into()).or_default() += 1;
                    }
                }
            }
            let disconnects = !too_slow.is_empty();
            for (id, dropped) in too_slow {
                database.disconnect(&id, &dropped, after);
            }
            if disconnects && world.autorun {
                inner.sync(world, at, after);
            }
        });
        self.tally.heard.add(batch.len() as u64);
    }

    /// A session is open for the first time, or once more with a gap.
    pub(crate) fn opened(self: &Arc<Self>, id: ConnId, gap: Option<Gap>, channels: &BTreeSet<&str>, limits: Limits) {
        self.on_event(id, |inner, world, at, after| {
            let Some(database) = world.databases.get_mut(at) else { return };
            if let Some(gap) = gap {
                // What an audit has mended is told likewise, and the session was there all the time.
                if !matches!(gap.cause(), Error::Unregistered) {
                    inner.tally.restores.add(1);
                }
                database.was_deaf(&gap, after);
            }
            let asks = database.is_open(id, channels, limits, after);
            inner.ask(world, at, asks);
            let all_open = world.databases.iter().all(|it| matches!(it.session, Session::Open(_)));
            if world.phase == Phase::Starting && all_open {
                (world.phase, world.started) = (Phase::Running, world.run);
                inner.changed.notify_all();
            }
        });
    }

    /// A session is lost; for good, if it doesn't come back by itself.
    pub(crate) fn lost(self: &Arc<Self>, id: ConnId, error: &Error, comes_back: bool) {
        self.tally.losses.add(1);
        self.on_event(id, |_, world, at, after| {
            let Some(database) = world.databases.get_mut(at) else { return };
            if comes_back {
                database.is_away(id);
            } else {
                database.is_lost(error, after);
                world.by_connection.remove(&id);
            }
        });
    }
}
