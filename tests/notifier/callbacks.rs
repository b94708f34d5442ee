//! Callbacks that call their own notifier.

use std::time::Duration;

use notifyman::Error;
use notifyman::notifier::Queue;

use super::support::*;

#[test]
fn n07_a_callback_may_subscribe_unsubscribe_mute_and_send() {
    let n = notifier();
    let mut db = session();
    let (scribe, told) = scribe();
    let (orders, more) = (fresh(), fresh());
    n.subscribe(2, &orders, |_| ()).unwrap();
    n.subscribe(1, &orders, {
        let (n, scribe, orders, more) = (n.clone(), scribe.clone(), orders.clone(), more.clone());
        move |call| {
            let (same, done) = (n.clone(), scribe.clone());
            n.subscribe_ticket(3, &more, move |call| {
                // That its channel was muted for a moment is told, too.
                if call.missed().is_none() {
                    done.write(call.payload().text());
                    let _ = same.unsubscribe(&3, call.channel());
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
            n.notify(&more, call.payload().text());
        }
    })
    .unwrap();
    send(&mut db, &orders, ["an order"]);
    assert_eq!(told.next(), "an order");
    eventually("it has unsubscribed itself", || n.channels() == [orders.as_str()]);
    assert_eq!(n.subscriptions(), [(orders, vec![2])].into());
    assert_eq!(n.stats().panics, 0, "{:?}", n.take_panics());
}

#[test]
fn n07_waiting_inside_a_callback_is_an_error_and_changes_nothing() {
    let n = notifier();
    let (scribe, told) = scribe();
    let channel = fresh();
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
            scribe.write(subscribed.to_string());
        }
    })
    .unwrap();
    session().notify(&channel, "").unwrap();
    assert!(told.next().contains("subscribe_ticket"));
    assert_eq!(n.channels().len(), 2, "{:?}", n.channels());
}

#[test]
fn n10_a_callback_may_stop_its_notifier_and_is_the_last() {
    let n = notifier();
    let (scribe, told) = scribe();
    let channel = fresh();
    n.subscribe(1, &channel, {
        let (n, scribe) = (n.clone(), scribe.clone());
        move |call| {
            n.stop();
            n.stop_within(Duration::ZERO).unwrap();
            assert!(!n.is_running());
            scribe.write(call.payload().text());
        }
    })
    .unwrap();
    session().notify_many([(&channel, "1"), (&channel, "2"), (&channel, "3")]).unwrap();
    assert_eq!(told.next(), "1");
    n.stop();
    assert!(told.so_far().is_empty());
    n.start().unwrap();
    session().notify(&channel, "4").unwrap();
    assert_eq!(told.next(), "", "it is told that it missed something");
}

#[test]
fn n10_callbacks_of_several_workers_may_all_stop_it() {
    let n = notifyman::Notifier::builder(config()).unwrap().workers(4).start::<u32>().unwrap();
    let (scribe, told) = scribe();
    let channel = fresh();
    let door = Door::default();
    for id in 0..4 {
        let (n2, scribe, door) = (n.clone(), scribe.clone(), door.clone());
        n.subscribe(id, &channel, move |_| {
            scribe.write("in");
            door.pass();
            n2.stop();
            scribe.write("out");
        })
        .unwrap();
    }
    session().notify(&channel, "").unwrap();
    assert_eq!(told.take(4), ["in"; 4]);
    door.open();
    assert_eq!(told.take(4), ["out"; 4]);
    n.stop();
}

/// What a function has captured may call the notifier as it is dropped, wherever that happens.
#[test]
fn n07_a_function_that_calls_the_notifier_as_it_is_dropped_is_no_deadlock() {
    struct Guard(notifyman::Notifier<u32>, Scribe);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.1.write(format!("dropped, {} channels", self.0.channels().len()));
        }
    }
    let n = notifyman::Notifier::builder(config()).unwrap().queue(Queue::default().items(2)).start::<u32>().unwrap();
    let (scribe, told) = scribe();
    let (a, b) = (fresh(), fresh());
    let guarded = |door: &Door| {
        let (guard, door) = (Guard(n.clone(), scribe.clone()), door.clone());
        move |_: &notifyman::notifier::Delivery<'_, u32>| {
            door.pass();
            let _held = &guard;
        }
    };
    let open = Door::default();
    open.open();
    // Refused, by its name.
    n.subscribe(1, "", guarded(&open)).unwrap_err();
    assert_eq!(told.next(), "dropped, 0 channels");
    // Replaced, while the server hasn't acknowledged the first yet.
    let mut first = n.subscribe_ticket(1, &a, guarded(&open)).unwrap();
    n.subscribe(1, &a, guarded(&open)).unwrap();
    first.wait(LIMIT).unwrap();
    assert_eq!(told.next(), "dropped, 1 channels");
    // Unsubscribed.
    n.unsubscribe(&1, &a).unwrap();
    assert_eq!(told.next(), "dropped, 0 channels");
    // Unsubscribed while it waits in a queue that runs over.
    let (door, mut db) = (Door::default(), session());
    n.subscribe(1, &a, at_the_door(&door, &scribe)).unwrap();
    n.subscribe(1, &b, guarded(&open)).unwrap();
    send(&mut db, &a, [""]);
    assert_eq!(told.next(), "at the door");
    send(&mut db, &b, ["waits"]);
    eventually("it waits", || n.stats().waiting == 1);
    n.unsubscribe(&1, &b).unwrap();
    send(&mut db, &a, ["1", "2", "3", "4"]);
    eventually("all have come", || n.stats().heard == 6);
    door.open();
    while told.next() != "dropped, 1 channels" {}
    // Stopped, and dropped with the notifier itself.
    n.subscribe(2, &b, guarded(&open)).unwrap();
    n.stop();
    n.remove_channel(&b).unwrap();
    while told.next() != "dropped, 1 channels" {}
}
