//! The loop of a notifier: the events of a manager or of another source in, queued notifications and reports out.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Error;
use crate::gap::Gap;
use crate::manager::{ConnId, Event};
use crate::notification::NotificationRef;
use crate::notifier::channel::{ChannelTable, FanoutChannel};
use crate::notifier::database::DatabaseSession;
use crate::notifier::deferred::DeferredActions;
use crate::notifier::running_source::RunningSource;
#[cfg(feature = "metrics")]
use crate::notifier::samples::SampleTimer;
use crate::notifier::segment::SegmentEntries;
use crate::notifier::shared::{NotifierCore, NotifierState, RunPhase};
use crate::notifier::source::{OpenConnection, RunSource};
use crate::notifier::subscription::Subscription;
use crate::proto::sql::Limits;
use crate::sync::atomic::Ordering::{Relaxed, Release};

/// The number of notifications that are published together.
const PORTION: usize = 1024;

/// The loop of one run. However it ends, the run is stopped with it.
pub(crate) struct NotifierLoop<I: Clone + Eq + Hash + Send + 'static> {
    core: Arc<NotifierCore<I>>,
    run: u64,
}

/// Notifications that are published together.
struct Portion<I: 'static> {
    /// The number of notifications, with those that have no subscriber.
    count: u64,
    /// The position of the last one.
    position: u64,
    channels: Vec<(Arc<FanoutChannel<Subscription<I>>>, SegmentEntries)>,
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

    /// Handles events until the source ends, or until a session cannot be opened at the start.
    pub(crate) fn run(self, mut running: RunningSource<I>) {
        // A local variable is dropped before the argument: nothing is requested from a manager that is gone.
        let this = self;
        let core = &this.core;
        let settings = &core.settings;
        let mut is_starting = !settings.keep_trying;
        if is_starting && core.fail_undialled() {
            return;
        }
        #[cfg(feature = "metrics")]
        let mut samples = SampleTimer::default();
        loop {
            // The first attempt to open a session is the only one, unless the notifier keeps trying.
            if is_starting && core.lock().phase != RunPhase::Starting {
                is_starting = false;
                running.supervise(settings);
            }
            let Some(source) = running.get_mut() else { return };
            match source.next_event() {
                Some(Event::Notifies(id, batch)) => this.distribute(id, batch.iter()),
                Some(Event::Opened(id)) => {
                    if let Err(error) = this.check_carried(source, id, is_starting) {
                        core.lock().failure = Some(error);
                        return;
                    }
                    this.handle_open(source, id, None);
                }
                Some(Event::Restored(id, gap)) => this.handle_open(source, id, Some(gap)),
                // Without supervision, a manager does not try again.
                Some(Event::Lost(_, error) | Event::Disconnected(_, error)) if is_starting => {
                    core.lock().failure = Some(error);
                    return;
                }
                Some(Event::Disconnected(id, error)) => this.handle_disconnect(id, &error),
                Some(Event::Lost(id, error)) => this.handle_final_loss(id, &error),
                // The manager logs a refused check.
                Some(Event::CanaryReceived(id, sent)) => this.handle_canary(id, sent),
                // A manager's connections do not listen to what this notifier has requested not to listen to.
                Some(Event::Unlistened(id, channels)) if source.is_external() => this.handle_unlisten(id, &channels),
                Some(Event::Idle | Event::InTransaction(_) | Event::CheckRefused(..) | Event::Unlistened(..)) => {}
                None => {
                    let failure = source.take_failure();
                    let mut state = core.lock();
                    if state.phase != RunPhase::Stopping {
                        state.failure = failure;
                    }
                    return;
                }
            }
            #[cfg(feature = "metrics")]
            samples.handle_event(core, source);
        }
    }

    /// Changes the state for a connection's database, if the connection is known.
    fn change<T>(
        &self,
        id: ConnId,
        change: impl FnOnce(&mut NotifierState<I>, usize, &mut DeferredActions<I>) -> T,
    ) -> Option<T> {
        let result = self.core.change(|state, actions| {
            let at = state.by_connection.get(&id).copied()?;
            Some(change(state, at, actions))
        });
        // The state of the database may have changed.
        self.core.notify_phase_changed();
        result
    }

    /// Adds the notifications of a batch to the logs of their channels, portion by portion.
    pub(crate) fn distribute<'b>(&self, id: ConnId, mut batch: impl Iterator<Item = NotificationRef<'b>>) {
        let (channels, dispatcher) = {
            let state = self.core.lock();
            let database = state.by_connection.get(&id).and_then(|at| state.databases.get(*at));
            let Some(database) = database else { return };
            (Arc::clone(&database.subscriptions.channels), state.dispatcher.clone())
        };
        loop {
            let portion = self.collect(&channels, batch.by_ref().take(PORTION));
            if portion.count == 0 {
                return;
            }
            let mut published = Vec::with_capacity(portion.channels.len());
            for (channel, entries) in portion.channels {
                channel.publish(entries);
                published.push(channel);
            }
            let counters = &self.core.context.counters;
            // Subscribers of several channels read these together, in the order of the positions.
            let several = published.iter().flat_map(|channel| channel.always_checked());
            several.for_each(|subscription| subscription.subscriber().add_unread(&subscription));
            counters.published.store(portion.position, Release);
            if let Some(dispatcher) = &dispatcher {
                dispatcher.publish(portion.position, published.iter().cloned());
            }
            let due = published.iter().flat_map(|channel| channel.due());
            for subscription in due {
                if subscription.subscriber().check(counters).is_some() {
                    self.disconnect(id, &subscription);
                }
            }
            published.iter().for_each(|channel| channel.trim());
            self.core.context.deferred_drop.drop_all();
        }
    }

    /// Sorts the notifications of a portion by channel.
    fn collect<'b>(
        &self,
        channels: &ChannelTable<Subscription<I>>,
        notifications: impl Iterator<Item = NotificationRef<'b>>,
    ) -> Portion<I> {
        let counters = &self.core.context.counters;
        let mut portion = Portion { count: 0, position: counters.published.load(Relaxed), channels: Vec::new() };
        let table = channels.lock();
        let mut place_of: HashMap<&str, usize> = HashMap::new();
        let mut last: Option<usize> = None;
        for n in notifications {
            portion.count += 1;
            let is_last =
                |at: &usize| portion.channels.get(*at).is_some_and(|(it, _)| it.name().as_bytes() == n.channel_bytes());
            if !last.as_ref().is_some_and(is_last) {
                let Ok(name) = std::str::from_utf8(n.channel_bytes()) else { continue };
                let Some((name, channel)) = table.get_key_value(name) else { continue };
                last = Some(*place_of.entry(name).or_insert_with(|| {
                    portion.channels.push((Arc::clone(channel), channel.entries()));
                    portion.channels.len() - 1
                }));
            }
            if let Some((_, entries)) = last.and_then(|at| portion.channels.get_mut(at)) {
                portion.position += 1;
                entries.push(portion.position, n);
            }
        }
        // Counted before a callback can be called.
        counters.received.add(portion.count);
        portion
    }

    /// Unsubscribes a subscriber whose queue was found full.
    fn disconnect(&self, id: ConnId, checked: &Arc<Subscription<I>>) {
        self.change(id, |state, at, actions| {
            let Some(database) = state.databases.get_mut(at) else { return };
            // Again, under the lock: the subscriber may have been unsubscribed since, and have begun with an empty queue.
            let Some(dropped) = checked.subscriber().check(&self.core.context.counters) else { return };
            database.subscriptions.disconnect(&checked.id(), &dropped, actions);
            if state.is_autorun {
                self.core.sync(state, at, actions);
            }
        });
    }

    /// Checks, at the start, that an external source carries the channels that are wanted.
    fn check_carried(&self, source: &RunSource, id: ConnId, is_starting: bool) -> Result<(), Error> {
        if !is_starting || !source.is_external() {
            return Ok(());
        }
        let check = |open: OpenConnection<'_>| {
            self.change(id, |state, at, _| state.database(at)?.check_carried(&open.channels))
        };
        source.with_open(id, check).flatten().unwrap_or(Ok(()))
    }

    /// Handles a session that is open for the first time, or again with a gap.
    fn handle_open(&self, source: &RunSource, id: ConnId, gap: Option<Gap>) {
        source.with_open(id, |OpenConnection { pid, channels, limits }| {
            match pid {
                Some(pid) => drop(self.core.lock().pids.insert(id, pid)),
                None => _ = self.change(id, |state, at, _| state.database(at).map(|it| it.set_carried(&channels))),
            }
            self.record_open(id, gap, &channels, limits);
        });
    }

    pub(crate) fn record_open(&self, id: ConnId, gap: Option<Gap>, channels: &BTreeSet<&str>, limits: Limits) {
        self.change(id, |state, at, actions| {
            let Some(database) = state.databases.get_mut(at) else { return };
            if let Some(gap) = gap {
                // After an audit there is a gap although the session was not lost.
                if !matches!(gap.cause(), Error::Unregistered) {
                    self.core.context.counters.restores.add(1);
                }
                database.report_gap(&gap, channels, actions);
            }
            let diff = database.handle_open(id, channels, limits, actions);
            self.core.request(state, at, diff);
        });
        // Last, so that all subscriptions receive when a start is over.
        let mut state = self.core.lock();
        let are_all_open = state.databases.iter().all(|database| database.session.is_open());
        if state.phase == RunPhase::Starting && state.run == self.run && are_all_open {
            (state.phase, state.last_running) = (RunPhase::Running, state.run);
            self.core.notify_phase_changed();
        }
    }

    fn handle_disconnect(&self, id: ConnId, error: &Error) {
        self.change(id, |state, at, actions| {
            let Some(database) = state.databases.get_mut(at) else { return };
            self.core.context.counters.losses.add(1);
            database.handle_disconnect(id, error, actions);
        });
    }

    /// Handles channels that an external source does not carry any more.
    fn handle_unlisten(&self, id: ConnId, channels: &[Box<str>]) {
        self.change(id, |state, at, actions| {
            let Some(database) = state.databases.get_mut(at) else { return };
            database.handle_unlisten(channels, actions);
        });
    }

    /// Handles a canary, which has come after all notifications that were distributed.
    fn handle_canary(&self, id: ConnId, sent: Instant) {
        let (passed, dispatcher) = {
            let state = self.core.lock();
            let database = state.by_connection.get(&id).and_then(|at| state.databases.get(*at));
            let observed = database.into_iter().flat_map(|database| database.subscriptions.observed(None));
            (observed.filter(|it| it.pass_canary(sent)).collect(), state.dispatcher.clone())
        };
        if let Some(dispatcher) = dispatcher {
            dispatcher.visit(passed);
        }
    }

    fn handle_final_loss(&self, id: ConnId, error: &Error) {
        self.change(id, |state, at, actions| {
            let Some(database) = state.databases.get_mut(at) else { return };
            // A session that was being restored was counted when it was disconnected.
            self.core.context.counters.losses.add(u64::from(!matches!(database.session, DatabaseSession::Away(_))));
            database.handle_final_loss(error, actions);
            state.by_connection.remove(&id);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::error::ValueError;
    use crate::gap::GapData;
    use crate::notification::notifications_in;
    use crate::notifier::Notifier;
    use crate::notifier::counters::held_work;
    use crate::notifier::dispatcher::Dispatcher;
    use crate::notifier::lifecycle::ThreadExit;
    use crate::notifier::log::LogLimits;
    use crate::notifier::pending_queue::{PendingContent, PendingItem};
    use crate::notifier::queue::{Policy, Queue};
    use crate::notifier::segment::StoredNotification;
    use crate::notifier::visit::{SegmentReader, Taken, Visit};
    use crate::proto::script;

    /// Creates a notifier of which a connection is known, and its loop.
    fn notifier() -> (Notifier<u32>, NotifierLoop<u32>, ConnId) {
        let n = Notifier::builder("host=localhost user=shop").unwrap().autorun(false).build::<u32>();
        let id = ConnId::for_test(1);
        n.core().lock().by_connection.insert(id, 0);
        let notifier_loop = NotifierLoop::new(Arc::clone(n.core()), 0);
        (n, notifier_loop, id)
    }

    fn subscription_of(n: &Notifier<u32>, subscriber: u32) -> Arc<Subscription<u32>> {
        Arc::clone(n.core().lock().databases[0].subscriptions.registry.get(&subscriber, "prices").unwrap().value)
    }

    /// Returns the most work of one hold of the lock of the state, while subscribers for which a notification waits are muted,
    /// unmuted, and informed of losses, a stop and the removal of their channel.
    fn largest_hold(subscribers: u32) -> usize {
        let (n, notifier_loop, id) = notifier();
        n.autorun(true);
        let core = Arc::clone(n.core());
        let subscribe = |subscribers: u32| {
            (0..subscribers).for_each(|subscriber| drop(n.subscribe_ticket(subscriber, "prices", |_| ()).unwrap()));
        };
        let start = || {
            let mut actions = DeferredActions::default();
            let mut state = core.lock();
            state.phase = RunPhase::Running;
            state.databases[0].begin_session(None, false, &mut actions);
            state.databases[0].session = DatabaseSession::Opening(Some(id));
            drop(state);
            core.run_actions(actions, None);
        };
        let open = |gap| notifier_loop.record_open(id, gap, &["prices"].into(), Limits::Exact);
        let gap = || {
            let (since, until) = ((clock::now(), clock::wall()), (clock::now(), clock::wall()));
            Gap::from(GapData {
                channels: ["prices".into()].into(),
                cause: Error::Disconnected,
                since,
                until,
                epoch: 1,
            })
        };
        held_work::largest(|| {
            start();
            subscribe(subscribers);
            open(None);
            notifier_loop.distribute(id, notifications_in(&batch(&["1"])));
            assert_eq!(n.stats().waiting, u64::from(subscribers));
            n.mute_channels(["prices"]).unwrap();
            drop(n.unmute_channels(["prices"]).unwrap());
            open(None);
            notifier_loop.handle_disconnect(id, &Error::Disconnected);
            open(Some(gap()));
            assert_eq!(n.subscriptions()["prices"].len(), subscribers as usize);
            assert!(n.muted_subscribers().is_empty());
            notifier_loop.handle_final_loss(id, &Error::Disconnected);
            assert_eq!(n.stats().waiting, u64::from(subscribers));
            // The threads of the run.
            let dispatcher = Arc::new(Dispatcher::new(0));
            core.halt(None);
            drop(ThreadExit { core: Arc::clone(&core), dispatcher, run: 0 });
            assert_eq!((n.stats().waiting, n.stats().dropped), (0, u64::from(subscribers)));
            n.remove_channel("prices").unwrap();
            // A channel that the server refuses.
            start();
            core.lock().by_connection.insert(id, 0);
            subscribe(subscribers);
            let refusal = Error::from(ValueError { message: String::new() });
            core.change(|state, actions| {
                let generation = state.databases[0].generation("prices");
                state.databases[0].handle_reply(vec![("prices".into(), generation)], &Err(refusal), actions);
            });
            assert!(n.channels().is_empty());
        })
    }

    #[test]
    fn n07_no_hold_of_the_lock_grows_with_the_number_of_subscribers() {
        let [few, many] = [100, 1_000].map(largest_hold);
        assert!(few == many && few > 0, "work for {few} subscriptions, and for {many}");
    }

    /// The steps of a mute find the channel unmuted: it has not been listened to in between, and is again.
    #[test]
    fn n06_what_is_lost_between_a_mute_and_an_unmute_is_reported_although_the_mute_was_overtaken() {
        let (n, notifier_loop, id) = notifier();
        n.autorun(true);
        let core = n.core();
        core.lock().phase = RunPhase::Running;
        core.lock().databases[0].session = DatabaseSession::Opening(Some(id));
        drop(n.subscribe_ticket(7, "prices", |_| ()).unwrap());
        let acknowledge = || {
            core.change(|state, actions| {
                let listened = vec![("prices".into(), state.databases[0].generation("prices"))];
                state.databases[0].session = DatabaseSession::Open(id);
                state.databases[0].handle_reply(listened, &Ok(()), actions);
            });
        };
        acknowledge();
        let mut steps = DeferredActions::default();
        {
            let mut state = core.lock();
            state.databases[0].subscriptions.registry.mute_channels(&["prices"], true).unwrap();
            state.databases[0].refresh("prices", None, &mut steps);
            core.sync(&mut state, 0, &mut steps);
        }
        drop(n.unmute_channels(["prices"]).unwrap());
        core.run_actions(steps, None);
        acknowledge();
        notifier_loop.distribute(id, notifications_in(&batch(&["1"])));
        assert_eq!(take_all(&n, &subscription_of(&n, 7), true), ["Muted-0", "1"]);
        // A restored session reports its gap, and no mute.
        notifier_loop.handle_disconnect(id, &Error::Disconnected);
        notifier_loop.record_open(id, None, &["prices"].into(), Limits::Exact);
        assert_eq!(take_all(&n, &subscription_of(&n, 7), true), ["Disconnected(Disconnected)-0"]);
    }

    fn batch(payloads: &[&str]) -> Vec<u8> {
        payloads.iter().flat_map(|payload| script::notification(1, "prices", payload)).collect()
    }

    /// Serves a subscriber, which a report may have scheduled. Returns payloads, and reports with the number of dropped
    /// notifications.
    fn take_all(n: &Notifier<u32>, subscription: &Arc<Subscription<u32>>, is_scheduled: bool) -> Vec<String> {
        let channel = subscription.channel();
        let (until, limits, counters) = (channel.head(), LogLimits::default(), &n.core().context.counters);
        let mut visit = Visit { subscription, channel, until, limits, counters };
        let mut reader = SegmentReader::default();
        let mut items = Vec::new();
        let mut taken = match is_scheduled {
            false => subscription.subscriber().begin(&mut visit, &mut reader),
            true => subscription.subscriber().take(&mut visit, &mut reader),
        };
        loop {
            items.push(match taken {
                Taken::Logged(index) => reader.entry(index).unwrap().notification.payload().into_owned(),
                Taken::Pending(PendingItem { content, .. }) => match content {
                    PendingContent::Notification { notification, .. } => notification.as_ref().payload().into_owned(),
                    PendingContent::Missed(missed) => format!("{:?}-{}", missed.reason(), missed.dropped()),
                },
                Taken::Idle => return items,
                _ => panic!("a folded notification, or another thread serves the subscriber"),
            });
            taken = subscription.subscriber().take(&mut visit, &mut reader);
        }
    }

    #[test]
    fn n07_a_disconnected_subscriber_receives_nothing_after_the_first_drop() {
        // In the second case, the first batch is outside of all limits when the second one is checked.
        for (items, batches, expected) in [
            (1, &[&["1", "2", "3", "4"][..]][..], &["1", "Unsubscribed-3"][..]),
            (2, &[&["1"], &["2", "3", "4"]], &["1", "2", "Unsubscribed-2"]),
        ] {
            let (n, notifier_loop, id) = notifier();
            n.subscribe(7, "prices", |_| ()).unwrap();
            n.set_queue(&7, Queue::new(Policy::Disconnect).items(items)).unwrap();
            let subscription = subscription_of(&n, 7);
            batches.iter().for_each(|it| notifier_loop.distribute(id, notifications_in(&batch(it))));
            assert!(n.subscriptions().is_empty());
            assert_eq!(take_all(&n, &subscription, true), expected);
            assert_eq!(n.stats().dropped, 4 - items as u64);
        }
    }

    #[test]
    fn n07_a_subscriber_that_subscribes_again_before_it_is_disconnected_stays_subscribed() {
        let (n, notifier_loop, id) = notifier();
        n.subscribe(7, "prices", |_| ()).unwrap();
        n.set_queue(&7, Queue::new(Policy::Disconnect).items(1)).unwrap();
        let checked = subscription_of(&n, 7);
        let (channel, counters) = (checked.channel(), &n.core().context.counters);
        let mut entries = channel.entries();
        let bytes = batch(&["1", "2"]);
        (1..).zip(notifications_in(&bytes)).for_each(|(position, n)| entries.push(position, n));
        channel.publish(entries);
        counters.published.store(2, Relaxed);
        assert!(checked.subscriber().check(counters).is_some());

        n.unsubscribe(&7, "prices").unwrap();
        n.subscribe(7, "prices", |_| ()).unwrap();
        notifier_loop.disconnect(id, &checked);
        let subscription = subscription_of(&n, 7);
        assert!(Arc::ptr_eq(subscription.subscriber(), checked.subscriber()));
        // The queue is a new one, also in its limits.
        notifier_loop.distribute(id, notifications_in(&batch(&["3", "4", "5"])));
        assert_eq!(take_all(&n, &subscription, false), ["3", "4", "5"]);
    }

    #[test]
    fn n10_a_stop_discards_and_counts_what_waits_for_a_disconnected_subscriber() {
        let (n, notifier_loop, id) = notifier();
        n.subscribe(7, "prices", |_| ()).unwrap();
        n.set_queue(&7, Queue::new(Policy::Disconnect).items(1)).unwrap();
        let subscription = subscription_of(&n, 7);
        notifier_loop.distribute(id, notifications_in(&batch(&["1", "2"])));
        assert!(n.subscriptions().is_empty());
        assert_eq!((n.stats().dropped, n.stats().waiting), (1, 1));
        let (core, dispatcher) = (Arc::clone(n.core()), Arc::new(Dispatcher::new(0)));
        drop(ThreadExit { core, dispatcher, run: 0 });
        assert_eq!(n.stats().dropped, 2);
        n.subscribe(7, "prices", |_| ()).unwrap();
        let again = subscription_of(&n, 7);
        // No callback runs, so there is none to wait for.
        assert!(!Arc::ptr_eq(subscription.subscriber(), again.subscriber()));
        notifier_loop.distribute(id, notifications_in(&batch(&["3"])));
        assert_eq!(take_all(&n, &again, false), ["3"]);
        assert_eq!(n.stats().waiting, 0);
    }

    #[test]
    fn n07_subscribers_of_several_channels_share_a_notification_that_waits() {
        let (n, notifier_loop, id) = notifier();
        for subscriber in [1, 2] {
            n.subscribe(subscriber, "prices", |_| ()).unwrap();
            n.subscribe(subscriber, "stocks", |_| ()).unwrap();
        }
        let batch = ["prices", "stocks"].map(|channel| script::notification(1, channel, "1")).concat();
        notifier_loop.distribute(id, notifications_in(&batch));
        let state = n.core().lock();
        let shared = [1, 2].map(|subscriber| {
            let subscription = &state.databases[0].subscriptions.registry.get(&subscriber, "prices").unwrap().value;
            let channel = subscription.channel();
            let counters = &n.core().context.counters;
            let limits = LogLimits::default();
            let mut visit = Visit { subscription, channel, until: channel.head(), limits, counters };
            match subscription.subscriber().take(&mut visit, &mut SegmentReader::default()) {
                Taken::Pending(PendingItem {
                    content: PendingContent::Notification { notification: StoredNotification::Shared(segment, 0), .. },
                    ..
                }) => segment,
                _ => panic!("it waits in the segment of the channel"),
            }
        });
        assert!(Arc::ptr_eq(&shared[0], &shared[1]));
    }
}
