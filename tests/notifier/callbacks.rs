//! Callbacks that call their own notifier.

use std::time::Duration;

use notifyman::Error;
use notifyman::notifier::{Delivery, Queue};

use super::support::*;

#[test]
fn n07_a_callback_may_subscribe_unsubscribe_mute_and_send() {
    let n = notifier();
    let mut db = session();
    let (recorder, records) = recorder();
    let (orders, more) = (new_channel(), new_channel());
    n.subscribe(2, &orders, |_| ()).unwrap();
    n.subscribe(1, &orders, {
        let (n, recorder, orders, more) = (n.clone(), recorder.clone(), orders.clone(), more.clone());
        move |call| {
            let (same, done) = (n.clone(), recorder.clone());
            n.subscribe_ticket(3, &more, move |call| {
                // The short mute of its channel is reported first.
                if let Delivery::Notification(n) = call {
                    done.record(n.payload().text());
                    let _ = same.unsubscribe(&3, n.channel());
                }
            })
            .unwrap();
            n.mute_subscriber(&2).unwrap();
            n.unmute_subscriber(&2).unwrap();
            n.mute_channels([&more]).unwrap();
            n.unmute_channels([&more]).unwrap();
            n.add_channel("from inside").unwrap();
            n.remove_channel("from inside").unwrap();
            n.unsubscribe(&1, &orders).unwrap();
            n.notify(&more, notification(call).payload().text());
        }
    })
    .unwrap();
    send(&mut db, &orders, ["an order"]);
    assert_eq!(records.next(), "an order");
    eventually("the callback has unsubscribed itself", || n.channels() == [orders.as_str()]);
    assert_eq!(n.subscriptions(), [(orders, vec![2])].into());
    assert_eq!(n.stats().panics, 0, "{:?}", n.take_panics());
}

#[test]
fn n07_waiting_inside_a_callback_is_an_error_and_changes_nothing() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    n.subscribe(1, &channel, {
        let n = n.clone();
        move |_| {
            let subscribed = n.subscribe(2, "from inside", |_| ()).unwrap_err();
            assert!(matches!(subscribed, Error::InsideCallback { .. }));
            // `wait` returns immediately if the ticket has been resolved.
            let ticket = n.subscribe_ticket(3, "by ticket", |_| ()).unwrap().wait(LIMIT);
            assert!(matches!(ticket, Ok(()) | Err(Error::WouldDeadlock)));
            assert!((0..1000).any(|_| matches!(n.notify("x", "y").wait(LIMIT), Err(Error::WouldDeadlock))));
            assert!(matches!(n.restart().unwrap_err(), Error::InsideCallback { .. }));
            n.start().unwrap();
            recorder.record(subscribed.to_string());
        }
    })
    .unwrap();
    session().notify(&channel, "").unwrap();
    assert!(records.next().contains("subscribe_ticket"));
    assert_eq!(n.channels().len(), 2, "{:?}", n.channels());
}

#[test]
fn n10_a_callback_may_stop_its_notifier_and_no_other_begins() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    n.subscribe(1, &channel, {
        let (n, recorder) = (n.clone(), recorder.clone());
        move |call| {
            n.stop();
            n.stop_within(Duration::ZERO).unwrap();
            assert!(!n.is_running());
            recorder.record(text(call));
        }
    })
    .unwrap();
    session().notify_many([(&channel, "1"), (&channel, "2"), (&channel, "3")]).unwrap();
    assert_eq!(records.next(), "1");
    n.stop();
    assert!(records.so_far().is_empty());
    // The report of the stop may have stopped the notifier again before `start` returns.
    match n.start() {
        Ok(()) | Err(Error::Stopped) => {}
        Err(error) => panic!("{error}"),
    }
    assert_eq!(records.next(), "[stopped 0]");
}

#[test]
fn n10_callbacks_of_several_workers_may_all_stop_the_notifier() {
    let n = notifyman::Notifier::builder(config()).unwrap().workers(4).start::<u32>().unwrap();
    let (recorder, records) = recorder();
    let channel = new_channel();
    let latch = Latch::default();
    for id in 0..4 {
        let (n2, recorder, latch) = (n.clone(), recorder.clone(), latch.clone());
        n.subscribe(id, &channel, move |_| {
            recorder.record("in");
            latch.wait();
            n2.stop();
            recorder.record("out");
        })
        .unwrap();
    }
    session().notify(&channel, "").unwrap();
    assert_eq!(records.take(4), ["in"; 4]);
    latch.open();
    assert_eq!(records.take(4), ["out"; 4]);
    n.stop();
}

/// A captured value may call the notifier when it is dropped, on whichever thread that happens.
#[test]
fn n07_a_callback_whose_drop_calls_the_notifier_does_not_deadlock() {
    struct Guard(notifyman::Notifier<u32>, Recorder);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.1.record(format!("dropped, {} channels", self.0.channels().len()));
        }
    }
    let n = notifyman::Notifier::builder(config()).unwrap().queue(Queue::default().items(2)).start::<u32>().unwrap();
    let (recorder, records) = recorder();
    let (a, b) = (new_channel(), new_channel());
    let guarded = |latch: &Latch| {
        let (guard, latch) = (Guard(n.clone(), recorder.clone()), latch.clone());
        move |_: &Delivery<'_, u32>| {
            latch.wait();
            let _held = &guard;
        }
    };
    let open = Latch::default();
    open.open();
    // Refused because of its channel name.
    n.subscribe(1, "", guarded(&open)).unwrap_err();
    assert_eq!(records.next(), "dropped, 0 channels");
    // Replaced before the server has acknowledged the first.
    let mut first = n.subscribe_ticket(1, &a, guarded(&open)).unwrap();
    n.subscribe(1, &a, guarded(&open)).unwrap();
    first.wait(LIMIT).unwrap();
    assert_eq!(records.next(), "dropped, 1 channels");
    // Unsubscribed.
    n.unsubscribe(&1, &a).unwrap();
    assert_eq!(records.next(), "dropped, 0 channels");
    // Unsubscribed while a notification for it waits in a full queue.
    let (latch, mut db) = (Latch::default(), session());
    n.subscribe(1, &a, blocking(&latch, &recorder)).unwrap();
    n.subscribe(1, &b, guarded(&open)).unwrap();
    send(&mut db, &a, [""]);
    assert_eq!(records.next(), "blocked");
    send(&mut db, &b, ["waits"]);
    eventually("the notification waits", || n.stats().waiting == 1);
    n.unsubscribe(&1, &b).unwrap();
    send(&mut db, &a, ["1", "2", "3", "4"]);
    receive(&n, 6);
    latch.open();
    while records.next() != "dropped, 1 channels" {}
    // Stopped, and removed from the stopped notifier.
    n.subscribe(2, &b, guarded(&open)).unwrap();
    n.stop();
    n.remove_channel(&b).unwrap();
    while records.next() != "dropped, 1 channels" {}
}
