//! Changes on the open session, during which other subscribers lose no notification.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use notifyman::notifier::Delivery;
use notifyman::{Error, Notifier};

use super::support::*;

#[test]
fn n04_a_steady_subscriber_receives_each_notification_once_and_in_order_while_others_change() {
    check_steady_subscriber(1);
}

#[test]
fn n04_a_steady_subscriber_receives_each_notification_once_and_in_order_with_several_workers() {
    check_steady_subscriber(3);
}

fn check_steady_subscriber(workers: usize) {
    const THREADS: u32 = 4;
    const ROUNDS: usize = 150;
    let n = Notifier::builder(config()).unwrap().workers(workers).start::<u32>().unwrap();
    let steady = new_channel();
    let (next, wrong) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    n.subscribe(0, &steady, {
        let (next, wrong) = (Arc::clone(&next), Arc::clone(&wrong));
        move |n| {
            let expected = next.fetch_add(1, SeqCst);
            if !matches!(n, Delivery::Notification(n) if n.payload().text() == expected.to_string()) {
                wrong.fetch_add(1, SeqCst);
            }
        }
    })
    .unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (done, steady) = (Arc::clone(&done), steady.clone());
        move || {
            let mut db = session();
            let mut sent = 0;
            while !done.load(SeqCst) {
                db.notify(&steady, sent.to_string()).unwrap();
                sent += 1;
            }
            sent
        }
    });
    let changers: Vec<_> = (1..=THREADS)
        .map(|id| {
            let (n, steady) = (n.clone(), steady.clone());
            thread::spawn(move || change(&n, id, &steady, ROUNDS))
        })
        .collect();
    for changer in changers {
        changer.join().unwrap();
    }
    done.store(true, SeqCst);
    let sent = writer.join().unwrap();
    eventually("all have been delivered", || next.load(SeqCst) == sent);
    assert_eq!(wrong.load(SeqCst), 0, "of {sent}");
    assert!(sent > 100, "{sent}");
    assert_eq!((n.stats().losses, n.stats().dropped), (0, 0));
}

/// Subscribes, mutes, unmutes and unsubscribes, also on the steady channel, and checks that notifications sent after a
/// subscribe are received.
fn change(n: &Notifier<u32>, id: u32, steady: &str, rounds: usize) {
    let mut db = session();
    for round in 0..rounds {
        let channel = format!("changing {}", (id as usize + round) % 5);
        let mine = format!("only {id}");
        let (recorder, records) = recorder();
        n.subscribe(id, &channel, |_| ()).unwrap();
        n.subscribe(id, steady, |_| ()).unwrap();
        n.subscribe(id, &mine, recorder.payloads()).unwrap();
        db.notify(&mine, "received").unwrap();
        n.mute_subscriber_on(&id, [&channel, steady]).unwrap();
        n.unmute_subscriber(&id).unwrap();
        assert_eq!(records.next(), "received", "sent after subscribe returned");
        // Another thread may have removed the channel with its last subscription.
        let _ = n.mute_channels([&channel]);
        let _ = n.unmute_channels([&channel]);
        for channel in [&*channel, steady, &mine] {
            n.unsubscribe(&id, channel).unwrap();
        }
    }
}

#[test]
fn n04_notifications_sent_after_subscribe_returns_are_received() {
    let n = notifier();
    let mut db = session();
    let (recorder, records) = recorder();
    for id in 0..100 {
        let channel = format!("immediate {id}");
        n.subscribe(id, &channel, recorder.payloads()).unwrap();
        db.notify(&channel, id.to_string()).unwrap();
        assert_eq!(records.next(), id.to_string());
    }
}

#[test]
fn n04_tickets_of_many_subscriptions_resolve() {
    let n = notifier();
    let mut tickets: Vec<_> =
        (0..300).map(|id| n.subscribe_ticket(id, format!("many {}", id % 30), |_| ()).unwrap()).collect();
    for ticket in &mut tickets {
        ticket.wait(LIMIT).unwrap();
    }
    assert_eq!(n.stats().channels, 30);
}

#[test]
fn n05_without_autorun_changes_are_recorded_until_they_are_applied() {
    let n = notifier();
    let mut db = session();
    let (recorder, records) = recorder();
    let channel = new_channel();
    n.autorun(false);
    n.subscribe(1, &channel, recorder.payloads()).unwrap();
    assert_eq!((n.channels(), n.stats().channels), (vec![channel.clone()], 0));
    send(&mut db, &channel, ["too early"]);
    n.apply().unwrap().wait(LIMIT).unwrap();
    send(&mut db, &channel, ["applied"]);
    assert_eq!(records.next(), "applied");
    n.unsubscribe(&1, &channel).unwrap();
    assert_eq!(n.stats().channels, 1, "not yet");
    n.restart().unwrap();
    assert_eq!(n.stats().channels, 0);
}

#[test]
fn n05_without_autorun_a_notifier_is_filled_before_it_starts() {
    let n = Notifier::builder(config()).unwrap().autorun(false).build::<u32>();
    let (recorder, records) = recorder();
    let channel = new_channel();
    n.subscribe(1, &channel, recorder.payloads()).unwrap();
    assert!(matches!(n.apply().unwrap_err(), Error::NotRunning));
    n.start().unwrap();
    session().notify(&channel, "first").unwrap();
    assert_eq!(records.next(), "first", "no report before it: the channel has never been listened to");
}

#[test]
fn the_cost_of_a_notification_depends_only_on_the_subscribers_of_its_channel() {
    let n = Notifier::builder(config()).unwrap().autorun(false).build::<u32>();
    let (recorder, records) = recorder();
    let channel = new_channel();
    for id in 0..10_000 {
        n.subscribe(id, format!("quiet {}", id % 500), |_| ()).unwrap();
    }
    n.subscribe(10_000, &channel, recorder.payloads()).unwrap();
    n.start().unwrap();
    let mut db = session();
    let begin = Instant::now();
    db.notify_many((0..20_000).map(|i| (&channel, i.to_string()))).unwrap();
    while records.next() != "19999" {}
    // A search through 10,000 subscribers for each notification would take minutes in a debug build.
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
}
