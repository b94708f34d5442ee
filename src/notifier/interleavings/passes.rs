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

    /// Creates a callback, which also calls a function.
    fn callback(&self, id: u32, mut react: impl FnMut() + Send + 'static) -> Box<Callback<u32>> {
        let (calls, calls_max, dispatcher) = (Arc::clone(&self.calls), self.calls_max, Arc::clone(&self.dispatcher));
        Box::new(move |delivery: &Delivery<'_, u32>| {
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
        })
    }

    /// Subscribes a callback, which also calls a function.
    fn subscribe(&self, id: u32, react: impl FnMut() + Send + 'static) -> Arc<Subscription<u32>> {
        let subscription = self.subscription(Arc::new(Subscriber::new(Queue::default())), id, self.callback(id, react));
        subscription.attach(None);
        assert!(!subscription.start_receiving(1));
        subscription
    }

    fn subscription(
        &self,
        subscriber: Arc<Subscriber<Subscription<u32>>>,
        id: u32,
        callback: Box<Callback<u32>>,
    ) -> Arc<Subscription<u32>> {
        let context = ReceptionContext::new(&self.context, None);
        Subscription::new(&id, Arc::clone(&self.channel), subscriber, callback, context)
    }

    /// Makes a callback with another id take the place of a subscription.
    fn replace(&self, replaced: &Arc<Subscription<u32>>, id: u32) {
        let subscriber = Arc::clone(replaced.subscriber());
        self.subscription(subscriber, id, self.callback(id, || ())).attach(Some(replaced));
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

#[test]
fn n07_a_callback_that_is_replaced_is_called_no_more_although_notifications_were_taken_for_it() {
    run_with_clock(
        || Duration::ZERO,
        || {
            let served = Arc::new(ServedChannel::new(7));
            let replaced = Arc::new(std::sync::OnceLock::<Arc<Subscription<u32>>>::new());
            let (in_callback, of_callback, mut call) = (Arc::clone(&served), Arc::clone(&replaced), 0);
            let subscription = served.subscribe(1, move || {
                call += 1;
                // The first one of two that were taken together.
                if call == 2 {
                    in_callback.replace(of_callback.get().unwrap(), 2);
                }
            });
            assert!(replaced.set(subscription).is_ok());
            served.publish(1..=7);
            served.dispatch();
            assert_eq!(*served.calls.lock().unwrap(), ["1:1", "1:2", "2:3", "2:4", "2:5", "2:6", "2:7"]);
        },
    );
}

#[test]
fn n06_notifications_that_were_taken_together_are_discarded_together_by_a_mute() {
    run_all(2, || {
        let served = Arc::new(ServedChannel::new(usize::MAX));
        let muted = Arc::new(std::sync::OnceLock::<Arc<Subscription<u32>>>::new());
        let (of_callback, mut call) = (Arc::clone(&muted), 0);
        let subscription = served.subscribe(1, move || {
            call += 1;
            // The first one of four that were taken together.
            if call == 4 {
                let subscription = Arc::clone(of_callback.get().unwrap());
                subscription.mute();
                thread::spawn(move || subscription.unmute());
            }
        });
        assert!(muted.set(subscription).is_ok());
        let dispatcher = Arc::clone(&served.dispatcher);
        let _last = served.subscribe(2, move || dispatcher.halt());
        served.publish(1..=7);
        served.dispatch();
        let calls = served.calls.lock().unwrap();
        let before = calls.len() - 1;
        assert_eq!(calls[..before], ["1:1", "1:2", "1:3", "1:4", "1:5", "1:6", "1:7"][..before]);
    });
}
