//! What the loop tells of its sessions, and what comes of it.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::error::Error;
use crate::gap::Gap;
use crate::manager::ConnId;
use crate::notification::NotificationRef;
use crate::notifier::database::DatabaseSession;
use crate::notifier::deferred::DeferredActions;
use crate::notifier::shared::{NotifierCore, NotifierState, RunPhase};
use crate::notifier::subscription::Reception;
use crate::proto::sql::Limits;

/// How many places in queues are filled before others may change something: about a millisecond's worth. One notification
/// goes to all its subscribers at once, however many.
const PORTION: usize = 1024;

impl<I: Clone + Eq + Hash + Send + 'static> NotifierCore<I> {
    /// Does something for a session, unless that isn't there any more.
    fn on_event<T>(
        self: &Arc<Self>,
        id: ConnId,
        act: impl FnOnce(&Arc<Self>, &mut NotifierState<I>, usize, &mut DeferredActions<I>) -> T,
    ) -> Option<T> {
        self.act(|state, after| {
            let at = state.by_connection.get(&id).copied()?;
            Some(act(self, state, at, after))
        })
    }

    /// A batch came: everybody's share goes into their queues; one portion after the other, and whoever else wants the
    /// lock gets it in between.
    pub(crate) fn share_out<'b>(self: &Arc<Self>, id: ConnId, mut batch: impl Iterator<Item = NotificationRef<'b>>) {
        let mut portion = || self.on_event(id, |core, state, at, after| core.queue_some(&mut batch, state, at, after));
        while portion() == Some(true) {}
    }

    /// Puts a portion into the queues of whom it is for; says whether there may be more.
    fn queue_some<'b>(
        self: &Arc<Self>,
        batch: &mut impl Iterator<Item = NotificationRef<'b>>,
        state: &mut NotifierState<I>,
        at: usize,
        after: &mut DeferredActions<I>,
    ) -> bool {
        let Some(database) = state.databases.get_mut(at) else { return false };
        // How many were one too many, by subscriber and channel.
        let mut too_slow: HashMap<I, HashMap<Box<str>, u64>> = HashMap::new();
        let mut room = PORTION;
        while room > 0
            && let Some(n) = batch.next()
        {
            // Before anybody can be called with it.
            self.counters.heard.add(1);
            let Ok(channel) = std::str::from_utf8(n.channel_bytes()) else { continue };
            // One copy for all, which keeps nothing of the buffer that it came in.
            let mut copy = None;
            // Who has just been unmuted is told first that it missed something: it hears what comes after that.
            for entry in database.registry.audience(channel).filter(|entry| entry.reception() != Reception::Muted) {
                room = room.saturating_sub(1);
                // Nothing comes behind what was one too many, though there may be room again.
                if !too_slow.is_empty()
                    && let Some(dropped) = too_slow.get_mut(&entry.id())
                {
                    *dropped.entry(channel.into()).or_default() += 1;
                    self.counters.dropped.add(1);
                    continue;
                }
                let (pushed, schedule) = entry.push(copy.get_or_insert_with(|| n.to_owned()));
                if schedule {
                    after.schedule.push(Arc::clone(entry.subscriber()));
                }
                if pushed.dropped > 0 {
                    self.counters.dropped.add(pushed.dropped);
                }
                if pushed.folded {
                    self.counters.folded.add(1);
                }
                if pushed.disconnects {
                    too_slow.insert(entry.id(), HashMap::from([(channel.into(), 1)]));
                }
            }
        }
        let disconnects = !too_slow.is_empty();
        for (id, dropped) in too_slow {
            database.disconnect(&id, &dropped, after);
        }
        if disconnects && state.autorun {
            self.sync(state, at, after);
        }
        room == 0
    }

    /// A session is open for the first time, or once more with a gap.
    pub(crate) fn opened(self: &Arc<Self>, id: ConnId, gap: Option<Gap>, channels: &BTreeSet<&str>, limits: Limits) {
        self.on_event(id, |core, state, at, after| {
            let Some(database) = state.databases.get_mut(at) else { return };
            if let Some(gap) = gap {
                // What an audit has mended is told likewise, and the session was there all the time.
                if !matches!(gap.cause(), Error::Unregistered) {
                    core.counters.restores.add(1);
                }
                database.report_gap(&gap, after);
            }
            let asks = database.is_open(id, channels, limits, after);
            core.ask(state, at, asks);
            let all_open = state.databases.iter().all(|it| matches!(it.session, DatabaseSession::Open(_)));
            if state.phase == RunPhase::Starting && all_open {
                (state.phase, state.started) = (RunPhase::Running, state.run);
                core.changed.notify_all();
            }
        });
    }

    /// A session is lost; for good, if it doesn't come back by itself.
    pub(crate) fn lost(self: &Arc<Self>, id: ConnId, error: &Error, comes_back: bool) {
        self.on_event(id, |core, state, at, after| {
            let Some(database) = state.databases.get_mut(at) else { return };
            // A session that was being restored was counted when it was lost.
            core.counters.losses.add(u64::from(!matches!(database.session, DatabaseSession::Away(_))));
            if comes_back {
                database.is_away(id, error, after);
            } else {
                database.is_lost(error, after);
                state.by_connection.remove(&id);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::notification::notifications_in;
    use crate::notifier::Notifier;
    use crate::notifier::missed::Reason;
    use crate::notifier::queue::{PendingItem, Policy, Queue};
    use crate::proto::script;

    /// A batch for many subscribers takes long, and nobody is to wait for the whole of it.
    #[test]
    fn n07_others_have_their_turn_while_a_batch_is_shared_out() {
        const SUBSCRIBERS: u32 = 2000;
        const NOTIFICATIONS: usize = 200;
        let n = Notifier::builder("host=localhost user=shop").unwrap().autorun(false).build::<u32>();
        for id in 0..SUBSCRIBERS {
            n.subscribe(id, "prices", |_| ()).unwrap();
        }
        let id = ConnId::for_test(1);
        n.core().lock().by_connection.insert(id, 0);
        let batch = script::notification(1, "prices", "42").repeat(NOTIFICATIONS);

        let all = u64::from(SUBSCRIBERS) * NOTIFICATIONS as u64;
        let core = Arc::clone(n.core());
        let sharing = thread::spawn(move || core.share_out(id, notifications_in(&batch)));
        let mut seen = BTreeSet::new();
        while seen.last() != Some(&all) {
            seen.insert(n.stats().waiting);
        }
        sharing.join().unwrap();
        assert!(seen.len() > 10, "looked while it was shared out: {seen:?}");
    }

    /// Its queue is full, and emptied again while the batch is still being shared out.
    #[test]
    fn n07_who_is_to_be_disconnected_hears_nothing_behind_what_it_missed() {
        let n = Notifier::builder("host=localhost user=shop").unwrap().autorun(false).build::<u32>();
        n.subscribe(7, "prices", |_| ()).unwrap();
        n.set_queue(&7, Queue::new(Policy::Disconnect).items(1)).unwrap();
        let id = ConnId::for_test(1);
        let subscriber = {
            let mut state = n.core().lock();
            state.by_connection.insert(id, 0);
            Arc::clone(state.databases[0].registry.get(&7, "prices").unwrap().value.subscriber())
        };
        let n_heard = || n.core().counters.read().heard;
        let batch = ["1", "2", "3", "4"].map(|payload| script::notification(1, "prices", payload)).concat();
        let taken_before = |n: &NotificationRef<'_>| {
            if n.payload_bytes() == b"3" {
                assert_eq!(n_heard(), 2, "what is in a queue was counted before");
                assert!(matches!(subscriber.take(), Some(PendingItem::Heard(..))));
            }
        };
        n.core().share_out(id, notifications_in(&batch).inspect(taken_before));
        let Some(PendingItem::Missed(_, missed)) = subscriber.take() else { panic!("it hears what came later") };
        assert!(matches!(missed.reason(), Reason::Unsubscribed));
        assert_eq!((missed.dropped(), n.stats().dropped), (3, 3));
        assert!(subscriber.take().is_none());
    }
}
