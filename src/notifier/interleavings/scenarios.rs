//! Scenarios, each with the rules that all of its schedules keep.

use std::sync::Arc;

use shuttle::thread;

use super::ledger::{Call, SeatKey};
use super::model::{CHANNELS, Model, Reaction};
use crate::notifier::queue::{Policy, Queue};
use crate::sync::explore::{explore, one_in, random};

/// Policies that keep their subscribers.
const LASTING: [Policy; 3] = [Policy::DropOldest, Policy::DropNewest, Policy::Coalesce];

/// The payload of the last notification of each channel, which no other has.
const LAST: u8 = b'z';

/// Returns a queue, which is large if that is all that it may be.
fn queue(policies: &[Policy], is_large: bool) -> Queue {
    let queue = Queue::new(policies[random(0..policies.len())]);
    if is_large {
        return queue;
    }
    let queue = if one_in(2) { queue.items(random(1..5)) } else { queue };
    // A notification takes 66 bytes.
    if one_in(4) { queue.bytes(random(1..5) * 66) } else { queue }
}

/// Returns batches of notifications, and a last one for each channel.
fn batches(most: usize) -> Vec<Vec<(usize, u8)>> {
    let notification = || (random(0..CHANNELS.len()), b'0' + random(0..2) as u8);
    let batch = || (0..random(1..5)).map(|_| notification()).collect();
    let mut batches: Vec<Vec<_>> = (0..random(1..most + 1)).map(|_| batch()).collect();
    batches.push((0..CHANNELS.len()).map(|channel| (channel, LAST)).collect());
    batches
}

/// Returns the number of notifications for seats that are always there which no call accounts for.
fn missing(model: &Model, seats: &[SeatKey]) -> u64 {
    let ledger = model.ledger.lock();
    let missing = seats.iter().map(|seat| {
        let (sent, accounted) = ledger.balance(*seat, usize::MAX);
        sent.checked_sub(accounted).unwrap_or_else(|| panic!("{seat:?}: {accounted} of {sent}"))
    });
    missing.sum()
}

/// Checks that the queue of a seat, which is large, never dropped a notification.
fn assert_nothing_dropped(model: &Model, seat: SeatKey) {
    let ledger = model.ledger.lock();
    let is_drop = |call: &Call| matches!(call, Call::Report { dropped: 1.., .. });
    assert!(!ledger.seats[&seat].calls.iter().any(is_drop), "{:?}", ledger.seats[&seat].calls);
}

/// Subscribers that are always there receive or count each notification, whatever the limits, reports and policies.
fn keep_the_balance() {
    let model = Model::new(random(1..3), Queue::default());
    let is_large = one_in(2);
    let mut seats: Vec<SeatKey> = vec![(1, 0), (2, 0), (2, 1), (3, 1)];
    seats.truncate(random(1..5));
    for seat in &seats {
        let reaction = if one_in(4) { Reaction::Panic } else { Reaction::None };
        model.subscribe(*seat, reaction, random(1..4));
        model.set_queue(seat.0, queue(&LASTING, is_large));
    }
    let run = model.start(batches(3));
    let user = {
        let (model, seats) = (Arc::clone(&model), seats.clone());
        thread::spawn(move || {
            for _ in 0..random(0..4) {
                let seat = seats[random(0..seats.len())];
                match random(0..4) {
                    0 => {
                        model.stats();
                    }
                    1 => model.report(seat),
                    2 => model.set_queue(seat.0, queue(&LASTING, is_large)),
                    _ => model.subscribe(seat, Reaction::None, 0),
                }
            }
        })
    };
    user.join().unwrap();
    model.wait_until_sent();
    model.wait_until("each is delivered or counted", |model| missing(model, &seats) == 0);
    model.wait_until_read();
    let stats = model.finish(run);
    assert!(!is_large || stats.dropped == 0, "{}", model.ledger.history());
}

/// Subscriptions that come and go, each by one thread: two threads share a subscriber.
fn change_subscriptions() {
    let model = Model::new(random(1..3), Queue::default());
    let is_large = one_in(2);
    model.subscribe((1, 0), Reaction::None, 0);
    let run = model.start(batches(3));
    let users = [(2, 0), (2, 1), (3, 0)].map(|seat| {
        let model = Arc::clone(&model);
        thread::spawn(move || change_seat(&model, seat, is_large))
    });
    users.into_iter().for_each(|user| user.join().unwrap());
    model.wait_until_sent();
    model.wait_until_settled();
    model.wait_until_read();
    assert_nothing_dropped(&model, (1, 0));
    let stats = model.finish(run);
    if is_large && stats.dropped > 0 {
        let seats = format!("{:#?}", model.ledger.lock().seats);
        panic!("{stats:?}\n{seats}\n{}", model.ledger.history());
    }
}

/// A channel is muted and unmuted, in steps, while its subscribers are served and receive reports.
fn mute_a_channel() {
    let model = Model::new(random(1..3), Queue::default());
    for id in 1..6 {
        model.subscribe((id, 0), Reaction::None, 0);
    }
    let run = model.start(batches(3));
    let users = [
        {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                for _ in 0..random(1..3) {
                    model.mute_channel(0);
                    model.unmute_channel(0);
                }
            })
        },
        {
            let model = Arc::clone(&model);
            thread::spawn(move || change_seat(&model, (2, 1), true))
        },
        {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.report((3, 0));
                model.stats();
            })
        },
    ];
    users.into_iter().for_each(|user| user.join().unwrap());
    model.wait_until_sent();
    model.wait_until_settled();
    model.wait_until_read();
    model.finish(run);
}

/// A subscription of a subscriber with another channel is replaced while both channels have new notifications.
fn replace_one_of_two() {
    let model = Model::new(1, Queue::default());
    model.subscribe((2, 0), Reaction::None, 0);
    model.subscribe((2, 1), Reaction::None, 0);
    let run = model.start(vec![vec![(0, b'0'), (1, b'1')]]);
    model.subscribe((2, 0), Reaction::None, 0);
    model.wait_until_sent();
    model.wait_until_settled();
    model.wait_until_read();
    model.finish(run);
}

fn change_seat(model: &Arc<Model>, seat: SeatKey, is_large: bool) {
    let (mut is_subscribed, mut is_muted) = (false, false);
    for _ in 0..random(1..5) {
        match random(0..6) {
            _ if !is_subscribed => {
                model.subscribe(seat, Reaction::None, 0);
                (is_subscribed, is_muted) = (true, false);
            }
            0 => {
                model.unsubscribe(seat);
                is_subscribed = false;
            }
            1 | 2 => {
                if is_muted {
                    model.unmute(seat)
                } else {
                    model.mute(seat)
                }
                is_muted = !is_muted;
            }
            3 if !is_muted => model.subscribe(seat, Reaction::None, 0),
            4 => model.set_queue(seat.0, queue(&LASTING, is_large)),
            _ => model.report(seat),
        }
    }
}

/// Callbacks that panic, or that change subscriptions.
fn call_back() {
    const REACTIONS: [Reaction; 6] =
        [Reaction::None, Reaction::Panic, Reaction::Unsubscribe, Reaction::Mute, Reaction::Replace, Reaction::Stats];
    let model = Model::new(random(1..3), Queue::default());
    let is_large = one_in(2);
    for seat in [(1, 0), (2, 0), (2, 1), (3, 0)] {
        model.subscribe(seat, REACTIONS[random(0..REACTIONS.len())], random(1..4));
        if one_in(2) {
            model.set_queue(seat.0, queue(&LASTING, is_large));
        }
    }
    let run = model.start(batches(3));
    if one_in(2) {
        model.report((3, 0));
    }
    model.wait_until_sent();
    model.wait_until_settled();
    model.wait_until_read();
    let stats = model.finish(run);
    assert!(!is_large || stats.dropped == 0, "{}", model.ledger.history());
}

/// A stop, also by a callback, and another run: each notification was delivered, folded or dropped.
fn stop_and_start() {
    let model = Model::new(random(1..3), Queue::default());
    let seats: [SeatKey; 4] = [(1, 0), (2, 0), (2, 1), (3, 1)];
    for seat in &seats {
        let reaction = if one_in(4) { Reaction::Halt } else { Reaction::None };
        model.subscribe(*seat, reaction, random(1..4));
        model.set_queue(seat.0, queue(&LASTING, false));
    }
    let run = model.start(batches(3));
    let user = {
        let model = Arc::clone(&model);
        thread::spawn(move || {
            for _ in 0..random(0..3) {
                model.stats();
            }
            model.report(seats[random(0..seats.len())]);
        })
    };
    (0..random(0..40)).for_each(|_| thread::yield_now());
    model.stop();
    run.join();
    user.join().unwrap();
    assert!(model.logs().iter().all(|log| *log == (0, 0)), "{:?}", model.logs());
    let run = model.start(batches(2));
    if one_in(2) {
        model.wait_until_sent();
        model.wait_until_settled();
    }
    let stats = model.finish(run);
    let sent: u64 = seats.iter().map(|seat| model.ledger.lock().balance(*seat, usize::MAX).0).sum();
    assert_eq!(sent, stats.delivered + stats.dropped + stats.folded, "{}", model.ledger.history());
}

/// A subscriber whose queue is full is unsubscribed, and receives what waited and a report.
fn disconnect() {
    let model = Model::new(random(1..3), Queue::default());
    let seats: [SeatKey; 4] = [(1, 0), (2, 0), (2, 1), (3, 0)];
    for seat in &seats {
        model.subscribe(*seat, Reaction::None, 0);
        if seat.0 != 1 {
            model.set_queue(seat.0, queue(&[Policy::Disconnect], false));
        }
    }
    let run = model.start(batches(3));
    let user = {
        let model = Arc::clone(&model);
        thread::spawn(move || {
            for _ in 0..random(0..3) {
                if one_in(2) {
                    model.stats();
                } else {
                    model.report(seats[random(0..seats.len())])
                }
            }
        })
    };
    user.join().unwrap();
    model.wait_until_sent();
    model.wait_until("each is delivered, or counted up to the end of a batch", |model| {
        let ledger = model.ledger.lock();
        [1, 2, 3].iter().all(|id| {
            let of_id: Vec<_> = seats.iter().filter(|seat| seat.0 == *id).collect();
            let is_last = of_id.iter().all(|seat| ledger.has_ended(**seat));
            let is_balanced = |end: &usize| {
                of_id.iter().all(|seat| {
                    let (sent, accounted) = ledger.balance(**seat, *end);
                    sent == accounted
                })
            };
            if is_last { ledger.batch_ends.iter().any(is_balanced) } else { is_balanced(&usize::MAX) }
        })
    });
    model.wait_until_read();
    assert_nothing_dropped(&model, (1, 0));
    model.finish(run);
}

/// A subscription with a queue that becomes full is replaced meanwhile: no notification is dropped without a report.
fn replace_a_full_one() {
    let model = Model::new(1, Queue::default());
    let seat = (3, 0);
    model.ledger.lock().allows_late_calls = true;
    model.subscribe(seat, Reaction::None, 0);
    model.set_queue(seat.0, Queue::new(Policy::Disconnect).items(random(1..3)));
    let run = model.start(vec![vec![(0, b'0'); 3], vec![(0, b'1')]]);
    (0..random(1..3)).for_each(|_| model.subscribe(seat, Reaction::None, 0));
    model.wait_until_sent();
    model.wait_until_settled();
    model.wait_until_read();
    model.finish(run);
}

/// A queue gets a policy to disconnect while it becomes full.
fn limit_a_full_one() {
    let model = Model::new(1, Queue::default());
    let seat = (3, 0);
    model.subscribe(seat, Reaction::None, 0);
    let run = model.start(vec![vec![(0, b'0'); 3], vec![(0, b'1')]]);
    model.set_queue(seat.0, Queue::new(Policy::Disconnect).items(random(1..3)));
    model.wait_until_sent();
    model.wait_until_settled();
    model.wait_until_read();
    model.finish(run);
}

macro_rules! explored {
    ($($name:ident: $seeds:expr, $scenario:expr;)*) => {$(
        #[test]
        fn $name() {
            explore(stringify!($name), $seeds, $scenario);
        }
    )*};
}

explored! {
    n07_each_notification_is_delivered_or_counted: 20, keep_the_balance;
    n03_a_replaced_subscription_keeps_the_order_of_its_channels: 20, replace_one_of_two;
    n04_subscriptions_that_change_lose_nothing: 20, change_subscriptions;
    n06_a_channel_that_is_muted_in_steps_loses_no_report: 20, mute_a_channel;
    n07_callbacks_that_panic_or_change_subscriptions_harm_no_other: 20, call_back;
    n10_a_stop_lets_no_call_begin_and_counts_what_waited: 20, stop_and_start;
    n07_a_full_queue_is_found_although_its_subscription_is_replaced: 20, replace_a_full_one;
    n07_a_policy_to_disconnect_applies_to_a_queue_that_becomes_full: 20, limit_a_full_one;
    n07_a_subscriber_with_a_full_queue_is_unsubscribed_with_a_report: 20, disconnect;
}
