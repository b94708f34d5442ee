//! The hand-over that ships, run over chosen interleavings of a dispatching thread and of a task: see
//! `crate::sync::explore` for how to replay a schedule.

use std::sync::{Arc, Weak};

use shuttle::thread;

use super::waiting_deliveries::WaitingDeliveries;
use super::{StreamEnd, StreamSubscription};
use crate::handoff::Handoff;
use crate::notification::NotificationRef;
use crate::notifier::delivery::{Delivery, OwnedDelivery};
use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::queue::{Policy, Queue};
use crate::sync::explore::{ModelTask, explore, one_in, random};

/// The frame of a notification without a payload on the channel `c`, whose process is its number.
fn frame(number: i32) -> Vec<u8> {
    [&b"A\0\0\0\x0b"[..], &number.to_be_bytes(), b"c\0\0"].concat()
}

fn subscriptions(handoff: &Arc<Handoff<WaitingDeliveries>>, count: usize) -> Vec<StreamSubscription> {
    let end = Arc::new(StreamEnd(Arc::clone(handoff)));
    let new = |_| StreamSubscription { channel: "c".into(), end: Arc::clone(&end), context: Weak::new() };
    (0..count).map(new).collect()
}

fn queue() -> Queue {
    let policies = [Policy::DropOldest, Policy::DropNewest, Policy::Coalesce, Policy::Disconnect];
    let queue = Queue::new(policies[random(0..policies.len())]);
    if one_in(3) { queue } else { queue.items(random(1..4)) }
}

/// A dispatching thread delivers notifications and reports, and drops the subscriptions; the task takes everything.
fn a_task_that_takes_everything() {
    let queue = queue();
    let handoff = Arc::new(Handoff::new(WaitingDeliveries::new(queue, ["c".into()])));
    let subscriptions = subscriptions(&handoff, 2);
    let (sent, reported_at) = (random(1..8) as i32, random(0..9) as i32);
    let dispatcher = thread::spawn(move || {
        for number in 1..=sent {
            if number == reported_at {
                let report = MissedReport::new(Reason::Muted, 0);
                subscriptions[0].deliver(&Delivery::missed(&7, "c", &report));
            }
            let frame = frame(number);
            let notification = NotificationRef::in_frame(&frame, 1);
            subscriptions[number as usize % 2].deliver(&Delivery::notification(&7, "c", notification, 0));
        }
        drop(subscriptions);
    });
    let mut task = ModelTask::default();
    let (mut accounted, mut last, mut muted, mut unsubscribed) = (0, 0, 0, 0);
    while let Some(delivery) = task.block_on(|context| handoff.poll(context)) {
        assert_eq!(unsubscribed, 0, "nothing follows the last report");
        match delivery {
            OwnedDelivery::Notification(n) => {
                assert!(n.pid() > last, "{} after {last}", n.pid());
                last = n.pid();
                accounted += 1 + n.folded() as i32;
            }
            OwnedDelivery::Missed(missed) => {
                accounted += missed.dropped() as i32;
                match missed.reason() {
                    Reason::Muted => muted += 1,
                    Reason::Unsubscribed => unsubscribed += 1,
                    _ => {}
                }
            }
        }
    }
    dispatcher.join().unwrap();
    match queue.policy {
        // After the last report, the stream has ended: what follows is not counted to the task.
        Policy::Disconnect if unsubscribed > 0 => assert!(accounted <= sent),
        // The payloads are equal, and a folded notification may be dropped with the one that it was folded into.
        Policy::Coalesce => assert!(accounted <= sent && last == sent),
        _ => assert_eq!(accounted, sent, "sent = delivered + reported"),
    }
    assert!(muted <= 1 && unsubscribed <= 1);
}

#[test]
fn each_delivery_is_taken_or_reported_and_the_end_of_subscriptions_is_the_end() {
    explore("each_delivery_is_taken_or_reported", 40, a_task_that_takes_everything);
}
