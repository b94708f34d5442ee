//! The loop of a notifier: the manager's events in, queued notifications and reports out.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::connection::Linked as _;
use crate::error::Error;
use crate::gap::Gap;
use crate::manager::{ConnId, Event, NotificationManager};
use crate::notification::NotificationRef;
use crate::notifier::database::DatabaseSession;
use crate::notifier::deferred::DeferredActions;
use crate::notifier::shared::{NotifierCore, NotifierState, RunPhase};
use crate::notifier::subscription::Reception;
use crate::proto::sql::Limits;

/// The number of items queued before other threads get the lock, which takes about a millisecond. One notification is
/// queued for all its subscribers in the same portion, whatever their number.
const PORTION: usize = 1024;

/// The loop of one run. However it ends, the run is stopped with it.
pub(crate) struct NotifierLoop<I: Clone + Eq + Hash + Send + 'static> {
    core: Arc<NotifierCore<I>>,
    run: u64,
}

impl<I: Clone + Eq + Hash + Send + 'static> Drop for NotifierLoop<I> {
    fn drop(&mut self) {
        self.core.halt(Some(self.run));
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> NotifierLoop<I> {
    pub(crate) fn new(core: Arc<NotifierCore<I>>, run: u64) -> Self {
        Self { core, run }
    }

    /// Handles events until the manager ends, or until a session cannot be opened at the start.
    pub(crate) fn run(self, mut manager: NotificationManager) {
        // A local variable is dropped before the argument: nothing is requested from a manager that is gone.
        let this = self;
        let core = &this.core;
        let settings = &core.settings;
        let mut is_starting = !settings.keep_trying;
        if is_starting && core.fail_undialled() {
            return;
        }
        loop {
            // The first attempt to open a session is the only one, unless the notifier keeps trying.
            if is_starting && core.lock().phase != RunPhase::Starting {
                is_starting = false;
                manager = settings.supervise(manager);
            }
            match manager.next_event() {
                Some(Event::Notifies(id, batch)) => this.distribute(id, batch.iter()),
                Some(Event::Opened(id)) => this.handle_open(&manager, id, None),
                Some(Event::Restored(id, gap)) => this.handle_open(&manager, id, Some(gap)),
                Some(Event::Lost(_, error)) if is_starting => {
                    core.lock().failure = Some(error);
                    return;
                }
                Some(Event::Disconnected(id, error)) => this.handle_disconnect(id, &error),
                Some(Event::Lost(id, error)) => this.handle_final_loss(id, &error),
                // The manager logs a refused check.
                Some(Event::Idle | Event::InTransaction(_) | Event::CheckRefused(..)) => {}
                None => {
                    // Without a stop, the manager ends only if its poll fails, which moves all connections to the garbage.
                    let failure = manager.take_garbage().pop().map(|(_, dead)| dead.error().clone());
                    let mut state = core.lock();
                    if state.phase != RunPhase::Stopping {
                        state.failure = failure;
                    }
                    return;
                }
            }
        }
    }

    /// Changes the state for a connection's database, if the connection is known.
    fn change<T>(
        &self,
        id: ConnId,
        change: impl FnOnce(&mut NotifierState<I>, usize, &mut DeferredActions<I>) -> T,
    ) -> Option<T> {
        self.core.change(|state, actions| {
            let at = state.by_connection.get(&id).copied()?;
            Some(change(state, at, actions))
        })
    }

    /// Queues the notifications of a batch for their subscribers, portion by portion. Other threads can take the lock
    /// between two portions.
    fn distribute<'b>(&self, id: ConnId, mut batch: impl Iterator<Item = NotificationRef<'b>>) {
        let mut queue_portion =
            || self.change(id, |state, at, actions| self.queue_portion(&mut batch, state, at, actions));
        while queue_portion() == Some(true) {}
    }

    /// Queues one portion of a batch. Returns `true` if there may be more.
    fn queue_portion<'b>(
        &self,
        batch: &mut impl Iterator<Item = NotificationRef<'b>>,
        state: &mut NotifierState<I>,
        at: usize,
        actions: &mut DeferredActions<I>,
    ) -> bool {
        let Some(database) = state.databases.get_mut(at) else { return false };
        let counters = &self.core.counters;
        // Subscribers to disconnect, with the number of notifications dropped in each channel.
        let mut disconnects: HashMap<I, HashMap<Box<str>, u64>> = HashMap::new();
        let mut left = PORTION;
        while left > 0
            && let Some(n) = batch.next()
        {
            // Counted before a callback can be called with it.
            counters.received.add(1);
            let Ok(channel) = std::str::from_utf8(n.channel_bytes()) else { continue };
            // One copy for all subscribers, which does not keep the read buffer alive.
            let mut copy = None;
            // A subscription that has just been unmuted receives nothing until the LISTEN is acknowledged and its report
            // is queued.
            let receivers = database.subscriptions.registry.receivers(channel);
            for subscription in receivers.filter(|it| it.reception() != Reception::Muted) {
                left = left.saturating_sub(1);
                // Nothing follows the first notification that a disconnected subscriber missed, even if there is room
                // again.
                if !disconnects.is_empty()
                    && let Some(dropped) = disconnects.get_mut(&subscription.id())
                {
                    *dropped.entry(channel.into()).or_default() += 1;
                    counters.dropped.add(1);
                    continue;
                }
                let (outcome, is_ready) = subscription.push(copy.get_or_insert_with(|| n.to_owned()));
                if is_ready {
                    actions.schedule(subscription.subscriber());
                }
                if outcome.dropped > 0 {
                    counters.dropped.add(outcome.dropped);
                }
                if outcome.is_folded {
                    counters.folded.add(1);
                }
                if outcome.is_disconnected {
                    disconnects.insert(subscription.id(), HashMap::from([(channel.into(), 1)]));
                }
            }
        }
        for (id, dropped) in &disconnects {
            database.subscriptions.disconnect(id, dropped, actions);
        }
        if !disconnects.is_empty() && state.is_autorun {
            self.core.sync(state, at, actions);
        }
        left == 0
    }

    /// Handles a session that is open for the first time, or again with a gap.
    fn handle_open(&self, manager: &NotificationManager, id: ConnId, gap: Option<Gap>) {
        if let Some(db) = manager.get(id) {
            self.record_open(id, gap, &db.link().channels().collect(), db.link().limits());
        }
    }

    fn record_open(&self, id: ConnId, gap: Option<Gap>, channels: &BTreeSet<&str>, limits: Limits) {
        self.change(id, |state, at, actions| {
            let Some(database) = state.databases.get_mut(at) else { return };
            if let Some(gap) = gap {
                // After an audit there is a gap although the session was not lost.
                if !matches!(gap.cause(), Error::Unregistered) {
                    self.core.counters.restores.add(1);
                }
                database.report_gap(&gap, actions);
            }
            let diff = database.handle_open(id, channels, limits, actions);
            self.core.request(state, at, diff);
            let are_all_open = state.databases.iter().all(|database| database.session.is_open());
            if state.phase == RunPhase::Starting && are_all_open {
                (state.phase, state.last_running) = (RunPhase::Running, state.run);
                self.core.phase_changed.notify_all();
            }
        });
    }

    fn handle_disconnect(&self, id: ConnId, error: &Error) {
        self.change(id, |state, at, actions| {
            let Some(database) = state.databases.get_mut(at) else { return };
            self.core.counters.losses.add(1);
            database.handle_disconnect(id, error, actions);
        });
    }

    fn handle_final_loss(&self, id: ConnId, error: &Error) {
        self.change(id, |state, at, actions| {
            let Some(database) = state.databases.get_mut(at) else { return };
            // A session that was being restored was counted when it was disconnected.
            self.core.counters.losses.add(u64::from(!matches!(database.session, DatabaseSession::Away(_))));
            database.handle_final_loss(error, actions);
            state.by_connection.remove(&id);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::notification::notifications_in;
    use crate::notifier::Notifier;
    use crate::notifier::missed::Reason;
    use crate::notifier::queue::{PendingContent, Policy, Queue};
    use crate::proto::script;

    /// Creates a notifier of which a connection is known, and its loop.
    fn notifier() -> (Notifier<u32>, NotifierLoop<u32>, ConnId) {
        let n = Notifier::builder("host=localhost user=shop").unwrap().autorun(false).build::<u32>();
        let id = ConnId::for_test(1);
        n.core().lock().by_connection.insert(id, 0);
        let notifier_loop = NotifierLoop::new(Arc::clone(n.core()), 0);
        (n, notifier_loop, id)
    }

    #[test]
    fn n07_other_threads_get_the_lock_while_a_batch_is_distributed() {
        const SUBSCRIBERS: u32 = 2000;
        const NOTIFICATIONS: usize = 200;
        let (n, notifier_loop, id) = notifier();
        for subscriber in 0..SUBSCRIBERS {
            n.subscribe(subscriber, "prices", |_| ()).unwrap();
        }
        let batch = script::notification(1, "prices", "42").repeat(NOTIFICATIONS);

        let all = u64::from(SUBSCRIBERS) * NOTIFICATIONS as u64;
        let distributing = thread::spawn(move || notifier_loop.distribute(id, notifications_in(&batch)));
        let mut seen = BTreeSet::new();
        while seen.last() != Some(&all) {
            seen.insert(n.stats().waiting);
        }
        distributing.join().unwrap();
        assert!(seen.len() > 10, "seen while the batch was distributed: {seen:?}");
    }

    /// The queue is full, and has room again before the end of the batch.
    #[test]
    fn n07_a_disconnected_subscriber_receives_nothing_after_the_first_drop() {
        let (n, notifier_loop, id) = notifier();
        n.subscribe(7, "prices", |_| ()).unwrap();
        n.set_queue(&7, Queue::new(Policy::Disconnect).items(1)).unwrap();
        let subscriber = {
            let state = n.core().lock();
            Arc::clone(state.databases[0].subscriptions.registry.get(&7, "prices").unwrap().value.subscriber())
        };
        let received = || n.core().counters.read().received;
        let batch = ["1", "2", "3", "4"].map(|payload| script::notification(1, "prices", payload)).concat();
        let take_before_third = |n: &NotificationRef<'_>| {
            if n.payload_bytes() == b"3" {
                assert_eq!(received(), 2, "a notification is counted before it is queued");
                let item = subscriber.take().unwrap();
                assert!(matches!(item.content, PendingContent::Notification { .. }));
            }
        };
        notifier_loop.distribute(id, notifications_in(&batch).inspect(take_before_third));
        let content = subscriber.take().unwrap().content;
        let PendingContent::Missed(missed) = content else { panic!("a later notification was queued: {content:?}") };
        assert!(matches!(missed.reason(), Reason::Unsubscribed));
        assert_eq!((missed.dropped(), n.stats().dropped), (3, 3));
        assert!(subscriber.take().is_none());
    }
}
