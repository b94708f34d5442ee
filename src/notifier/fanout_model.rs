//! Subscribers with cursors in shared logs, compared with a naive model: a queue for each subscriber, to which every
//! notification is added when it arrives.

mod cases;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;

use crate::notification::Notification;
use crate::notifier::channel::FanoutChannel;
use crate::notifier::counters::NotifierCounters;
use crate::notifier::cursor::SubscriptionRef;
use crate::notifier::log::LogLimits;
use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::pending_queue::{PendingContent, PendingItem, naive::NaiveQueue};
use crate::notifier::queue::{Policy, Queue};
use crate::notifier::segment::{SegmentEntries, StoredNotification};
use crate::notifier::subscriber::Subscriber;
use crate::notifier::visit::{SegmentReader, Taken, Visit};

const CHANNELS: usize = 3;
const SUBSCRIBERS: usize = 4;

/// A subscription of a subscriber to a channel.
#[derive(Debug)]
struct Label(usize, usize);

#[derive(Debug, Clone)]
enum Step {
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    Replace(usize, usize),
    Mute(usize, usize),
    Unmute(usize, usize),
    Report(usize, usize),
    SetQueue(usize, Queue),
    /// Channels, each with the number of a payload. Meanwhile a subscription is made or replaced, before or after
    /// subscribers of several channels know of the notifications.
    Publish(Vec<(usize, u8)>, Option<(bool, usize, usize)>),
    /// A pass of a channel, with the number of calls after which a subscriber is postponed.
    Pass(usize, usize),
    /// Further calls for a subscriber that was postponed.
    Resume(usize, usize),
    Stats,
}

fn step() -> impl Strategy<Value = Step> {
    let pair = || (0..SUBSCRIBERS, 0..CHANNELS);
    prop_oneof![
        3 => pair().prop_map(|(s, c)| Step::Subscribe(s, c)),
        1 => pair().prop_map(|(s, c)| Step::Unsubscribe(s, c)),
        1 => pair().prop_map(|(s, c)| Step::Replace(s, c)),
        1 => pair().prop_map(|(s, c)| Step::Mute(s, c)),
        2 => pair().prop_map(|(s, c)| Step::Unmute(s, c)),
        1 => pair().prop_map(|(s, c)| Step::Report(s, c)),
        1 => (0..SUBSCRIBERS, queue()).prop_map(|(s, queue)| Step::SetQueue(s, queue)),
        8 => (
            prop::collection::vec((0..CHANNELS, 0..6u8), 1..12),
            prop::option::weighted(0.3, (any::<bool>(), 0..SUBSCRIBERS, 0..CHANNELS)),
        )
            .prop_map(|(notifications, meanwhile)| Step::Publish(notifications, meanwhile)),
        8 => (0..CHANNELS, 1..20usize).prop_map(|(c, calls)| Step::Pass(c, calls)),
        4 => (0..SUBSCRIBERS, 1..20usize).prop_map(|(s, calls)| Step::Resume(s, calls)),
        1 => Just(Step::Stats),
    ]
}

fn queue() -> impl Strategy<Value = Queue> {
    let policies = [Policy::DropOldest, Policy::DropNewest, Policy::Coalesce, Policy::Disconnect];
    let bytes = prop_oneof![3 => Just(1 << 20), 1 => 60..800usize];
    (prop::sample::select(policies.to_vec()), 1..12usize, bytes)
        .prop_map(|(policy, items, bytes)| Queue::new(policy).items(items).bytes(bytes))
}

/// A subscriber of the model.
struct NaiveSubscriber {
    pending: NaiveQueue<SubscriptionRef<Label>>,
    queue: Queue,
    /// The channels, each with its subscription and `true` while it is muted.
    channels: BTreeMap<usize, (Arc<Label>, bool)>,
    refused: Option<HashMap<usize, u64>>,
}

struct Harness {
    channels: Vec<Arc<FanoutChannel<Label>>>,
    places: HashMap<(usize, usize), usize>,
    subscribers: Vec<Subscriber<Label>>,
    naive: Vec<NaiveSubscriber>,
    counters: NotifierCounters,
    /// Channels with notifications that no pass has handed out.
    ready: BTreeSet<usize>,
    /// Subscribers that are served, by one of their subscriptions.
    scheduled: BTreeMap<usize, Arc<Label>>,
    dropped: u64,
    folded: u64,
}

impl Harness {
    fn new(queues: &[Queue]) -> Self {
        let naive = |queue: &Queue| NaiveSubscriber {
            pending: NaiveQueue::new(*queue),
            queue: *queue,
            channels: BTreeMap::new(),
            refused: None,
        };
        Self {
            channels: (0..CHANNELS).map(|c| Arc::new(FanoutChannel::new(&c.to_string(), &Arc::default()))).collect(),
            places: HashMap::new(),
            subscribers: queues.iter().map(|queue| Subscriber::new(*queue)).collect(),
            naive: queues.iter().map(naive).collect(),
            counters: NotifierCounters::new(1),
            ready: BTreeSet::new(),
            scheduled: BTreeMap::new(),
            dropped: 0,
            folded: 0,
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Subscribe(s, c) if !self.naive[s].channels.contains_key(&c) => {
                let label = Arc::new(Label(s, c));
                let place = self.channels[c].lock_receivers().add(Arc::clone(&label));
                self.places.insert((s, c), place);
                self.subscribers[s].attach(&label, &self.channels[c], &self.counters);
                self.subscribers[s].receive(&label, None, &self.counters);
                self.naive[s].channels.insert(c, (label, false));
            }
            Step::Unsubscribe(s, c) if self.naive[s].channels.contains_key(&c) => {
                let label = self.unsubscribe(s, c);
                self.subscribers[s].discard(&label);
                self.naive[s].pending.remove_all(&SubscriptionRef(label));
            }
            Step::Replace(s, c) => {
                let Some((before, _)) = self.naive[s].channels.get(&c).cloned() else { return };
                let label = Arc::new(Label(s, c));
                self.channels[c].lock_receivers().replace(self.places[&(s, c)], Some(Arc::clone(&label)));
                self.subscribers[s].replace(&before, &label, &self.counters);
                let refs = [&before, &label].map(|label| SubscriptionRef(Arc::clone(label)));
                self.naive[s].pending.rename(&refs[0], &refs[1]);
                self.naive[s].channels.entry(c).and_modify(|it| it.0 = label);
            }
            Step::Mute(s, c) => {
                let Some((label, is_muted)) = self.naive[s].channels.get_mut(&c) else { return };
                *is_muted = true;
                self.subscribers[s].pause(label, &self.counters);
            }
            Step::Unmute(s, c) => {
                let Some((label, is_muted)) = self.naive[s].channels.get_mut(&c) else { return };
                if std::mem::take(is_muted) {
                    let (label, report) = (Arc::clone(label), MissedReport::new(Reason::Muted, 0));
                    if self.subscribers[s].receive(&label, Some(report.clone()), &self.counters) {
                        self.scheduled.insert(s, Arc::clone(&label));
                    }
                    self.naive[s].pending.push_missed(&SubscriptionRef(label), report);
                }
            }
            Step::Report(s, c) => {
                let Some((label, _)) = self.naive[s].channels.get(&c).cloned() else { return };
                self.report(s, &label, MissedReport::new(Reason::Stopped, 0));
            }
            Step::SetQueue(s, queue) => {
                self.subscribers[s].set_queue(queue, &self.counters);
                if queue != self.naive[s].queue {
                    self.naive[s].queue = queue;
                    self.naive[s].pending.set_queue(queue);
                }
            }
            Step::Publish(notifications, meanwhile) => self.publish(&notifications, meanwhile),
            Step::Pass(c, calls) => self.pass(c, calls),
            Step::Resume(s, calls) => {
                let Some(label) = self.scheduled.remove(&s) else { return };
                let until = self.channels[label.1].head();
                self.visit(&label, until, calls, false);
            }
            Step::Stats => self.compare_stats(),
            Step::Subscribe(..) | Step::Unsubscribe(..) => {}
        }
    }

    fn unsubscribe(&mut self, s: usize, c: usize) -> Arc<Label> {
        let (label, _) = self.naive[s].channels.remove(&c).unwrap();
        self.subscribers[s].detach(&label, &self.counters);
        self.channels[c].lock_receivers().replace(self.places[&(s, c)], None);
        label
    }

    fn report(&mut self, s: usize, label: &Arc<Label>, report: MissedReport) {
        if self.subscribers[s].push_missed(label, report.clone(), &self.counters) {
            self.scheduled.insert(s, Arc::clone(label));
        }
        self.naive[s].pending.push_missed(&SubscriptionRef(Arc::clone(label)), report);
    }

    fn change_meanwhile(&mut self, s: usize, c: usize) {
        let is_known = self.naive[s].channels.contains_key(&c);
        self.run(if is_known { Step::Replace(s, c) } else { Step::Subscribe(s, c) });
    }

    fn publish(&mut self, notifications: &[(usize, u8)], meanwhile: Option<(bool, usize, usize)>) {
        let mut entries: BTreeMap<usize, SegmentEntries> = BTreeMap::new();
        let mut position = self.counters.published.load(Relaxed);
        for (c, payload) in notifications {
            position += 1;
            let notification = Notification::for_test(&c.to_string(), &"x".repeat(usize::from(*payload) * 7));
            for it in &mut self.naive {
                let Some((label, false)) = it.channels.get(c) else { continue };
                if let Some(refused) = &mut it.refused {
                    *refused.entry(*c).or_default() += 1;
                    self.dropped += 1;
                    continue;
                }
                let stored = StoredNotification::Copied(notification.clone());
                let outcome = it.pending.push(&SubscriptionRef(Arc::clone(label)), &stored);
                self.dropped += outcome.dropped;
                self.folded += outcome.folded;
                if outcome.refused > 0 {
                    self.dropped += outcome.refused;
                    it.refused = Some(HashMap::from([(*c, outcome.refused)]));
                }
            }
            let entries = entries.entry(*c).or_insert_with(|| self.channels[*c].entries());
            entries.push(position, notification.as_ref());
        }
        let published: Vec<usize> = entries.keys().copied().collect();
        for (c, entries) in entries {
            self.channels[c].publish(entries);
        }
        let several: Vec<_> = published.iter().flat_map(|c| self.channels[*c].always_checked()).collect();
        if let Some((false, s, c)) = meanwhile {
            self.change_meanwhile(s, c);
        }
        several.iter().for_each(|label| self.subscribers[label.0].add_unread(label));
        if let Some((true, s, c)) = meanwhile {
            self.change_meanwhile(s, c);
        }
        self.counters.published.store(position, Relaxed);
        self.ready.extend(&published);
        let due: Vec<_> = published.iter().flat_map(|c| self.channels[*c].due()).collect();
        for label in due {
            if let Some(dropped) = self.subscribers[label.0].check(&self.counters) {
                self.disconnect(label.0, &dropped);
            }
        }
        published.iter().for_each(|c| self.channels[*c].trim());
        published.iter().for_each(|c| self.check_log(*c));
        assert!(self.naive.iter().all(|it| it.refused.is_none()), "a full queue was not found");
    }

    /// Checks that the log of a channel keeps no segment of which every notification is outside of all limits.
    fn check_log(&self, c: usize) {
        let queues = || self.naive.iter().filter(|it| it.channels.contains_key(&c)).map(|it| it.queue);
        let items = queues().map(|queue| queue.items as u64).max().unwrap_or_default();
        let bytes = queues().map(|queue| queue.bytes as u64).max().unwrap_or_default();
        self.channels[c].read(|log| {
            let Some(first) = log.segment(log.base()) else { return };
            assert!(log.head() - first.end() < items && log.bytes_from(first.end()) < bytes, "a log is not trimmed");
        });
    }

    fn disconnect(&mut self, s: usize, dropped: &HashMap<Box<str>, u64>) {
        let expected = self.naive[s].refused.take().expect("the queue is not full");
        for c in 0..CHANNELS {
            let count = expected.get(&c).copied().unwrap_or_default();
            assert_eq!(dropped.get(&*c.to_string()).copied().unwrap_or_default(), count);
            if self.naive[s].channels.contains_key(&c) {
                let label = self.unsubscribe(s, c);
                self.report(s, &label, MissedReport::new(Reason::Unsubscribed, count));
            }
        }
    }

    fn pass(&mut self, c: usize, calls: usize) {
        if !self.ready.remove(&c) {
            return;
        }
        let until = self.channels[c].read(|log| log.end_at(self.counters.published.load(Relaxed)));
        let mut read = u64::MAX;
        let receivers = self.channels[c].receivers();
        for label in receivers.iter() {
            read = read.min(self.visit(label, until, calls, true));
        }
        self.channels[c].complete_pass(until, read);
    }

    /// Takes items as a dispatching thread does. Returns the index before which everything has been read.
    fn visit(&mut self, label: &Arc<Label>, until: u64, calls: usize, is_first: bool) -> u64 {
        let subscriber = &self.subscribers[label.0];
        let channel = &*self.channels[label.1];
        let counters = &self.counters;
        let mut visit = Visit { subscription: label, channel, until, limits: LogLimits::default(), counters };
        let mut reader = SegmentReader::default();
        let mut taken = match is_first {
            true => subscriber.begin(&mut visit, &mut reader),
            false => subscriber.take(&mut visit, &mut reader),
        };
        let mut call = 0;
        loop {
            let pending = &mut self.naive[label.0].pending;
            let report = match &taken {
                Taken::Busy => return subscriber.next_index(channel),
                Taken::Pending(PendingItem { to, content: PendingContent::Missed(_) }) => pending.pop_report(to),
                _ => None,
            };
            let expected = report.or_else(|| pending.pop()).map(|(to, content)| text(&to.0, &content));
            let got = match taken {
                Taken::Idle | Taken::Busy => None,
                Taken::Logged(index) => {
                    let entry = reader.entry(index).unwrap();
                    let notification = StoredNotification::Copied(entry.notification.to_owned());
                    Some(text(label, &PendingContent::Notification { notification, folded: 0 }))
                }
                Taken::Folded(at) => {
                    let (notification, folded) = reader.folded(at).unwrap();
                    let notification = StoredNotification::Copied(notification.to_owned());
                    Some(text(label, &PendingContent::Notification { notification, folded }))
                }
                Taken::Pending(item) => Some(text(&item.to.0, &item.content)),
            };
            assert_eq!(got, expected);
            if got.is_none() {
                break;
            }
            call += 1;
            // Some calls take every item under the lock.
            while !calls.is_multiple_of(3)
                && call < calls
                && let Some(taken) = subscriber.take_unlocked(&visit, &reader, (calls - call).min(3) as u64)
            {
                for (notification, folded) in taken.filter_map(|index| reader.taken(index)) {
                    let notification = StoredNotification::Copied(notification.to_owned());
                    let content = PendingContent::Notification { notification, folded };
                    let expected = self.naive[label.0].pending.pop().map(|(to, content)| text(&to.0, &content));
                    assert_eq!(Some(text(label, &content)), expected);
                    call += 1;
                }
            }
            if call == calls {
                subscriber.postpone(&self.counters);
                self.scheduled.insert(label.0, Arc::clone(label));
                return subscriber.next_index(channel);
            }
            taken = subscriber.take(&mut visit, &mut reader);
        }
        until
    }

    fn compare_stats(&self) {
        for (subscriber, naive) in self.subscribers.iter().zip(&self.naive) {
            assert_eq!(subscriber.waiting(&self.counters), naive.pending.len());
        }
        let stats = self.counters.read();
        assert_eq!((stats.dropped, stats.folded), (self.dropped, self.folded));
    }

    /// Takes everything that waits.
    fn finish(&mut self) {
        for round in 0..2 {
            for c in 0..CHANNELS {
                self.pass(c, usize::MAX);
            }
            for (s, label) in std::mem::take(&mut self.scheduled) {
                assert_eq!(label.0, s);
                let until = self.channels[label.1].head();
                self.visit(&label, until, usize::MAX, false);
            }
            assert!(round == 0 || self.naive.iter().all(|it| it.pending.len() == 0));
        }
        self.compare_stats();
        for channel in &self.channels {
            assert_eq!(
                channel.read(|log| (log.base(), log.bytes_from(log.base()))),
                (channel.head(), 0),
                "a log keeps what was read"
            );
        }
    }
}

/// Returns a delivery as text. A replaced subscription counts as the one that replaced it.
fn text(label: &Label, content: &PendingContent) -> String {
    match content {
        PendingContent::Notification { notification, folded } => {
            format!("{} {} {}+{folded}", label.0, label.1, notification.as_ref().payload().len())
        }
        PendingContent::Missed(missed) => format!("{} {} {:?}-{}", label.0, label.1, missed.reason(), missed.dropped()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn n07_logs_with_cursors_deliver_like_a_queue_for_each_subscriber(
        queues in prop::collection::vec(queue(), SUBSCRIBERS),
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut harness = Harness::new(&queues);
        steps.into_iter().for_each(|step| harness.run(step));
        harness.finish();
    }
}
