//! Passes of the dispatching thread that ships, in all short interleavings with a change of a subscription, or alone.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use shuttle::scheduler::DfsScheduler;
use shuttle::thread;

use super::exhaustive::run_all;
use crate::notification::Notification;
use crate::notifier::channel::FanoutChannel;
use crate::notifier::counters::NotifierCounters;
use crate::notifier::deferred_drop::DeferredDrop;
use crate::notifier::delivery::Delivery;
use crate::notifier::dispatcher::Dispatcher;
use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::panic_log::PanicLog;
use crate::notifier::queue::Queue;
use crate::notifier::subscriber::Subscriber;
use crate::notifier::subscription::{Callback, ReceptionContext, Subscription, SubscriptionContext};
use crate::sync::explore::run;

/// A channel whose subscriptions one dispatching thread serves, until it has made a number of calls.
struct ServedChannel {
    channel: Arc<FanoutChannel<Subscription<u32>>>,
    context: Arc<SubscriptionContext>,
    dispatcher: Arc<Dispatcher<u32>>,
    /// The calls in their order: the id with the payload, or with the number of dropped notifications.
    calls: Arc<std::sync::Mutex<Vec<String>>>,
    calls_max: usize,
}

impl ServedChannel {
    fn new(calls_max: usize) -> Self {
        let counters = NotifierCounters::new(1);
        Self {
            channel: Arc::new(FanoutChannel::new("c", &Arc::default())),
            context: Arc::new(SubscriptionContext { counters, deferred_drop: DeferredDrop::default() }),
            dispatcher: Arc::new(Dispatcher::new(1)),
            calls: Arc::default(),
            calls_max,
        }
    }

    /// Subscribes a callback, which also calls a function.
    fn subscribe(&self, id: u32, mut react: impl FnMut() + Send + 'static) -> Arc<Subscription<u32>> {
        let (calls, calls_max, dispatcher) = (Arc::clone(&self.calls), self.calls_max, Arc::clone(&self.dispatcher));
        let callback: Box<Callback<u32>> = Box::new(move |delivery: &Delivery<'_, u32>| {
            let mut calls = calls.lock().unwrap();
            calls.push(match delivery {
                Delivery::Notification(n) => format!("{id}:{}", n.payload()),
                Delivery::Missed(missed) => format!("{id}:-{}", missed.dropped()),
            });
            let is_last = calls.len() == calls_max;
            drop(calls);
            react();
            if is_last {
                dispatcher.halt();
            }
        });
        let subscriber = Arc::new(Subscriber::new(Queue::default()));
        let subscription = Subscription::new(
            &id,
            Arc::clone(&self.channel),
            subscriber,
            callback,
            ReceptionContext::new(&self.context, None),
        );
        subscription.attach(None);
        assert!(!subscription.start_receiving(1));
        subscription
    }

    /// Publishes notifications with these positions.
    fn publish(&self, positions: RangeInclusive<u64>) {
        let mut entries = self.channel.entries();
        let end = *positions.end();
        for position in positions {
            entries.push(position, Notification::for_test("c", &position.to_string()).as_ref());
        }
        self.channel.publish(entries);
        self.context.counters.published.store(end, Relaxed);
        self.dispatcher.publish(end, [Arc::clone(&self.channel)]);
    }

    fn dispatch(&self) {
        self.dispatcher.run(0, &self.context, &PanicLog::default());
    }
}

#[test]
fn n07_a_pass_keeps_what_a_subscription_has_not_read_that_is_removed_meanwhile() {
    run_all(2, || {
        let served = Arc::new(ServedChannel::new(3));
        let subscription = served.subscribe(7, || ());
        served.publish(1..=2);
        let dispatching = {
            let served = Arc::clone(&served);
            thread::spawn(move || served.dispatch())
        };
        // Like a subscriber that is disconnected.
        subscription.detach();
        if subscription.push_missed(MissedReport::new(Reason::Unsubscribed, 0)) {
            served.dispatcher.resume(vec![Arc::clone(&subscription)]);
        }
        dispatching.join().unwrap();
        assert_eq!(*served.calls.lock().unwrap(), ["7:1", "7:2", "7:-0"]);
    });
}

/// Runs a program with one thread and a clock.
fn run_with_clock(step: fn() -> Duration, program: fn()) {
    run(DfsScheduler::new(None, false), step, program);
}

#[test]
fn n07_subscribers_with_slow_callbacks_take_turns_after_each_call() {
    run_with_clock(
        || Duration::from_millis(2),
        || {
            let served = ServedChannel::new(8);
            let _subscriptions = [1, 2].map(|id| served.subscribe(id, || ()));
            served.publish(1..=4);
            served.dispatch();
            let calls = served.calls.lock().unwrap();
            assert_eq!(*calls, ["1:1", "2:1", "1:2", "2:2", "1:3", "2:3", "1:4", "2:4"]);
        },
    );
}

#[test]
fn n07_a_pass_keeps_what_a_subscriber_has_not_read_that_is_being_served() {
    run_with_clock(
        || Duration::from_millis(2),
        || {
            let served = Arc::new(ServedChannel::new(4));
            let (in_callback, mut batches) = (Arc::clone(&served), [3..=4].into_iter());
            // The next pass precedes the next turn of the subscriber.
            let _subscription = served.subscribe(1, move || batches.by_ref().for_each(|it| in_callback.publish(it)));
            served.publish(1..=2);
            served.dispatch();
            assert_eq!(*served.calls.lock().unwrap(), ["1:1", "1:2", "1:3", "1:4"]);
        },
    );
}
