//! All interleavings of two threads at one subscriber with up to four preemptions (three for the longest), from a state in
//! which a dispatching thread serves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use shuttle::scheduler::{DfsScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::thread;

use crate::notification::{Notification, NotificationRef};
use crate::notifier::channel::FanoutChannel;
use crate::notifier::counters::NotifierCounters;
use crate::notifier::log::LogLimits;
use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::pending_queue::PendingContent;
use crate::notifier::place_ranges::PlaceRanges;
use crate::notifier::queue::{Policy, Queue};
use crate::notifier::subscriber::Subscriber;
use crate::notifier::visit::{SegmentReader, Taken, Visit};
use crate::sync::explore::run;

/// Chooses all schedules in which a thread that could continue is interrupted at most a number of times.
#[derive(Debug)]
struct BoundedScheduler {
    all: DfsScheduler,
    most: usize,
    preemptions: usize,
}

impl Scheduler for BoundedScheduler {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.preemptions = 0;
        self.all.new_execution()
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> Option<TaskId> {
        let continued = runnable.iter().find(|task| Some(task.id()) == current);
        match continued {
            Some(task) if self.preemptions == self.most => self.all.next_task(&[task], current, is_yielding),
            _ => {
                let next = self.all.next_task(runnable, current, is_yielding);
                self.preemptions += usize::from(continued.is_some() && next != current);
                next
            }
        }
    }

    fn next_u64(&mut self) -> u64 {
        self.all.next_u64()
    }
}

#[derive(Debug)]
struct TestSubscription;

/// A subscriber of one channel, and its calls.
struct ServedSubscriber {
    subscriber: Subscriber<TestSubscription>,
    channel: Arc<FanoutChannel<TestSubscription>>,
    label: Arc<TestSubscription>,
    counters: NotifierCounters,
    received: std::sync::Mutex<Vec<Received>>,
    /// The notifications with smaller numbers have been dropped.
    least: AtomicU64,
    /// The subscription that takes the place of the first.
    replacing: std::sync::Mutex<Option<Arc<TestSubscription>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    Notification(u64),
    Dropped(u64),
}

impl ServedSubscriber {
    fn new(queue: Queue) -> Arc<Self> {
        let served = Self {
            subscriber: Subscriber::new(queue),
            channel: Arc::new(FanoutChannel::new("c", &Arc::default())),
            label: Arc::new(TestSubscription),
            counters: NotifierCounters::new(1),
            received: std::sync::Mutex::default(),
            least: AtomicU64::new(0),
            replacing: std::sync::Mutex::default(),
        };
        served.channel.lock_receivers().add(Arc::clone(&served.label));
        served.subscriber.attach(&served.label, &served.channel, &served.counters);
        served.subscriber.receive(&served.label, None, &served.counters);
        Arc::new(served)
    }

    /// Adds notifications with these positions to the log.
    fn publish(&self, positions: std::ops::RangeInclusive<u64>) {
        let mut entries = self.channel.entries();
        let end = *positions.end();
        for position in positions {
            entries.push(position, Notification::for_test("c", &position.to_string()).as_ref());
        }
        self.channel.publish(entries);
        self.counters.published.store(end, Relaxed);
    }

    fn visit(&self, until: u64) -> Visit<'_, TestSubscription> {
        let limits = LogLimits::default();
        Visit { subscription: &self.label, channel: &self.channel, until, limits, counters: &self.counters }
    }

    fn receive(&self, received: Received) {
        self.received.lock().unwrap().push(received);
    }

    /// Receives one item. Returns `false` if there is none.
    fn receive_taken(&self, taken: Taken<TestSubscription>, reader: &SegmentReader) -> bool {
        let number = |n: NotificationRef<'_>| Received::Notification(n.payload().parse().unwrap());
        match taken {
            Taken::Idle | Taken::Busy => return false,
            Taken::Logged(index) => self.receive(number(reader.entry(index).unwrap().notification)),
            Taken::Folded(at) => self.receive(number(reader.folded(at).unwrap().0)),
            Taken::Pending(item) => self.receive(match &item.content {
                PendingContent::Notification { notification, .. } => number(notification.as_ref()),
                PendingContent::Missed(report) => Received::Dropped(report.dropped()),
            }),
        }
        true
    }

    /// Serves the subscriber to the end, like a dispatching thread.
    fn serve(&self, visit: &mut Visit<'_, TestSubscription>, reader: &mut SegmentReader) {
        loop {
            let (least, received) = (self.least.load(Relaxed), self.received.lock().unwrap().len());
            if let Some(taken) = self.subscriber.take_unlocked(visit, reader, 2) {
                for (notification, _) in taken.filter_map(|index| reader.taken(index)) {
                    self.receive(Received::Notification(notification.payload().parse().unwrap()));
                }
            } else {
                let taken = self.subscriber.take(visit, reader);
                if !self.receive_taken(taken, reader) {
                    return;
                }
            }
            for received in &self.received.lock().unwrap()[received..] {
                assert!(!matches!(received, Received::Notification(number) if *number < least), "{received:?}");
            }
        }
    }

    /// Visits the subscriber in a pass of its channel.
    fn pass(&self, until: u64) {
        let mut reader = SegmentReader::default();
        let mut visit = self.visit(until);
        let read = match self.subscriber.begin(&mut visit, &mut reader) {
            Taken::Busy => self.subscriber.next_index(&self.channel),
            taken => {
                if self.receive_taken(taken, &reader) {
                    self.serve(&mut visit, &mut reader);
                }
                until
            }
        };
        self.channel.complete_pass(until, read);
    }

    /// Receives what waits now.
    fn serve_rest(&self) {
        let mut visit = self.visit(self.channel.head());
        self.serve(&mut visit, &mut SegmentReader::default());
    }

    /// Returns the number of notifications that were received, after a check of their order, and of dropped ones.
    fn counts(&self) -> (usize, u64) {
        let (mut numbers, mut dropped) = (Vec::new(), 0);
        for received in &*self.received.lock().unwrap() {
            match received {
                Received::Notification(number) => numbers.push(*number),
                Received::Dropped(count) => dropped += count,
            }
        }
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        (numbers.len(), dropped)
    }
}

/// Runs a program in all interleavings with up to four preemptions.
fn check_all(program: impl Fn(&Arc<ServedSubscriber>) + Send + Sync + 'static) {
    check_with(4, program);
}

fn check_with(preemptions: usize, program: impl Fn(&Arc<ServedSubscriber>) + Send + Sync + 'static) {
    run_all(preemptions, move || program(&ServedSubscriber::new(Queue::default())));
}

/// Runs a program in all interleavings with at most a number of preemptions.
pub(super) fn run_all(preemptions: usize, program: impl Fn() + Send + Sync + 'static) {
    let scheduler = BoundedScheduler { all: DfsScheduler::new(None, false), most: preemptions, preemptions: 0 };
    let schedules = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&schedules);
    run(
        scheduler,
        || Duration::ZERO,
        move || {
            count.fetch_add(1, Relaxed);
            program();
        },
    );
    println!("{} schedules", schedules.load(Relaxed));
}

/// Runs a change while a thread takes the second and the third notification without the lock, and then takes what waits.
/// Returns the numbers of received and of dropped notifications.
fn change_while_unlocked(served: &Arc<ServedSubscriber>, change: fn(&ServedSubscriber)) -> (usize, u64) {
    served.publish(1..=3);
    let mut reader = SegmentReader::default();
    let mut visit = served.visit(3);
    let taken = served.subscriber.begin(&mut visit, &mut reader);
    assert!(served.receive_taken(taken, &reader));
    let user = {
        let served = Arc::clone(served);
        thread::spawn(move || change(&served))
    };
    served.serve(&mut visit, &mut reader);
    user.join().unwrap();
    served.serve_rest();
    served.counts()
}

#[test]
fn n07_a_pause_while_notifications_are_taken_without_the_lock() {
    check_all(|served| {
        let counts = change_while_unlocked(served, |it| it.subscriber.pause(&it.label, &it.counters));
        assert_eq!(counts, (3, 0));
    });
}

#[test]
fn n07_a_look_at_the_queue_while_notifications_are_taken_without_the_lock() {
    check_all(|served| {
        let counts = change_while_unlocked(served, |it| assert!(it.subscriber.waiting(&it.counters) <= 2));
        assert_eq!(counts, (3, 0));
    });
}

#[test]
fn n07_a_report_while_notifications_are_taken_without_the_lock() {
    check_all(|served| {
        let counts = change_while_unlocked(served, |it| {
            it.subscriber.push_missed(&it.label, MissedReport::new(Reason::Opened, 7), &it.counters);
        });
        assert_eq!(counts, (3, 7));
    });
}

#[test]
fn n07_smaller_limits_while_notifications_are_taken_without_the_lock() {
    check_all(|served| {
        let counts = change_while_unlocked(served, |it| {
            it.subscriber.set_queue(Queue::default().items(1), &it.counters);
        });
        assert_eq!(counts, (3, 0), "notifications that wait stay");
    });
}

#[test]
fn n07_an_overflow_while_notifications_are_taken_without_the_lock() {
    check_with(3, |served| {
        served.subscriber.set_queue(Queue::default().items(2), &served.counters);
        let counts = change_while_unlocked(served, |it| {
            it.publish(4..=5);
            it.channel.trim();
            it.least.store(4, Relaxed);
        });
        assert_eq!(counts.0 as u64 + counts.1, 5);
    });
}

#[test]
fn n07_a_replacement_while_notifications_are_taken_without_the_lock() {
    check_all(|served| {
        let replacing = Arc::new(TestSubscription);
        *served.replacing.lock().unwrap() = Some(Arc::clone(&replacing));
        let counts = change_while_unlocked(served, |it| {
            let replacing = it.replacing.lock().unwrap().clone().unwrap();
            it.subscriber.replace(&it.label, &replacing, &it.counters);
        });
        assert_eq!(counts, (3, 0));
    });
}

#[test]
fn n07_an_end_while_notifications_are_taken_without_the_lock() {
    check_all(|served| {
        let counts = change_while_unlocked(served, |it| {
            it.subscriber.detach(&it.label, &it.counters);
            it.subscriber.discard(&it.label);
        });
        assert!(counts.0 >= 1 && counts.1 == 0);
    });
}

/// A pass finds that another thread serves the subscriber, which therefore may be behind when the pass is complete.
#[test]
fn n07_a_pass_while_another_thread_serves_the_subscriber() {
    check_all(|served| {
        served.publish(1..=1);
        let mut reader = SegmentReader::default();
        let mut visit = served.visit(1);
        let taken = served.subscriber.begin(&mut visit, &mut reader);
        assert!(served.receive_taken(taken, &reader));
        served.publish(2..=2);
        let pass = {
            let served = Arc::clone(served);
            thread::spawn(move || served.pass(2))
        };
        served.serve(&mut visit, &mut reader);
        pass.join().unwrap();
        assert_eq!(served.counts(), (2, 0));
        served.channel.complete_pass(1, 1);
        assert_eq!(served.channel.read(|log| (log.head() - log.base(), log.bytes_from(log.base()))), (0, 0));
    });
}

/// A subscriber that is served later than others keeps the log, until it has read everything.
#[test]
fn n07_a_laggard_catches_up_while_a_pass_is_completed() {
    check_all(|served| {
        served.publish(1..=2);
        let mut reader = SegmentReader::default();
        let mut visit = served.visit(2);
        let taken = served.subscriber.begin(&mut visit, &mut reader);
        assert!(served.receive_taken(taken, &reader));
        served.subscriber.postpone(&served.counters);
        let read = served.subscriber.next_index(&served.channel);
        let pass = {
            let served = Arc::clone(served);
            thread::spawn(move || served.channel.complete_pass(2, read))
        };
        served.serve(&mut visit, &mut SegmentReader::default());
        pass.join().unwrap();
        assert_eq!(served.counts(), (2, 0));
        assert_eq!(served.channel.read(|log| (log.head() - log.base(), log.bytes_from(log.base()))), (0, 0));
    });
}

/// After the last laggard has caught up, the log is trimmed only as far as a new one has read.
#[test]
fn n07_a_laggard_catches_up_while_another_falls_behind() {
    check_all(|served| {
        served.publish(1..=1);
        served.channel.add_laggard();
        served.channel.complete_pass(1, 0);
        let other = {
            let served = Arc::clone(served);
            thread::spawn(move || served.channel.remove_laggard())
        };
        served.publish(2..=2);
        served.channel.add_laggard();
        served.channel.complete_pass(2, 1);
        other.join().unwrap();
        assert_eq!(served.channel.read(|log| log.base()), 1);
        served.channel.remove_laggard();
        assert_eq!(served.channel.read(|log| log.base()), 2);
    });
}

#[test]
fn n07_changed_limits_keep_the_log_while_it_is_trimmed() {
    check_all(|served| {
        let user = {
            let served = Arc::clone(served);
            thread::spawn(move || served.subscriber.set_queue(Queue::default().items(100), &served.counters))
        };
        served.publish(1..=1);
        served.channel.trim();
        user.join().unwrap();
        served.serve_rest();
        assert_eq!(served.counts(), (1, 0));
    });
}

/// The loop finds a full queue although its check is being planned again.
fn check_while_planned(change: fn(&ServedSubscriber)) {
    check_all(move |served| {
        served.subscriber.set_queue(Queue::new(Policy::Disconnect).items(2), &served.counters);
        served.publish(1..=2);
        let user = {
            let served = Arc::clone(served);
            thread::spawn(move || change(&served))
        };
        served.publish(3..=3);
        assert!(served.channel.due().count() > 0);
        user.join().unwrap();
    });
}

#[test]
fn n07_a_full_queue_is_found_while_its_check_is_planned() {
    check_while_planned(|served| assert!(!served.subscriber.receive(&served.label, None, &served.counters)));
}

#[test]
fn n07_a_full_queue_is_found_while_its_limits_change() {
    check_while_planned(|served| {
        served.subscriber.set_queue(Queue::new(Policy::Disconnect).items(2).bytes(500), &served.counters);
    });
}

#[test]
fn n07_threads_take_each_place_of_a_pass_once() {
    check_with(3, |_| {
        let ranges = Arc::new(PlaceRanges::new(4, 2));
        let threads = [0, 1].map(|number| {
            let ranges = Arc::clone(&ranges);
            thread::spawn(move || {
                let taken: Vec<_> = std::iter::from_fn(|| ranges.next(number)).collect();
                assert!(ranges.is_over(), "a thread has ended while there were places");
                taken
            })
        });
        let mut taken = threads.map(|thread| thread.join().unwrap()).concat();
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2, 3]);
    });
}

#[test]
fn n07_a_pass_is_not_over_while_a_place_is_left() {
    check_with(3, |_| {
        let ranges = Arc::new(PlaceRanges::new(6, 2));
        assert_eq!([0, 0, 0].map(|thread| ranges.next(thread)), [0, 1, 2].map(Some));
        // The first thread takes over a part of the three places of the second.
        let threads = [0, 1].map(|number| {
            let ranges = Arc::clone(&ranges);
            thread::spawn(move || assert!(ranges.next(number).is_some()))
        });
        assert!(!ranges.is_over());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(!ranges.is_over());
    });
}
