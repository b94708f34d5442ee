//! M03: idle events come about every T, never early, and never before pending notifications.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::NotificationManager;

use super::fake::Fake;
use super::support::*;
use crate::support::{Cluster, Options, cluster, msg};

const T: Duration = Duration::from_millis(60);

#[test]
fn m03_idle_events_come_about_every_t_and_never_early() {
    let mut fake = Fake::new();
    let (db, _line) = fake.open();
    let mut nm = NotificationManager::new([db]).timeout(T);
    let begin = Instant::now();
    for n in 1..=10 {
        assert!(matches!(nm.next(), Some(None)));
        assert!(begin.elapsed() >= n * T, "idle {n} after {:?}", begin.elapsed());
    }
    assert!(begin.elapsed() < LIMIT);
}

#[test]
fn m03_idle_events_come_about_every_t_under_a_steady_stream() {
    let mut fake = Fake::new();
    let (db, mut line) = fake.open();
    let (over, speaking) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let sender = thread::spawn({
        let (over, speaking) = (Arc::clone(&over), Arc::clone(&speaking));
        move || {
            while !over.load(SeqCst) {
                line.notify("on and on");
                speaking.store(true, SeqCst);
            }
        }
    });
    until("the stream flows", || speaking.load(SeqCst));

    let mut nm = NotificationManager::new([db]).timeout(T);
    let begin = Instant::now();
    // An idle event is due no earlier than the call that reports it.
    let (mut idle, mut last) = (0, begin);
    let (mut received, mut periods) = (0, 0);
    while idle < 10 || periods <= 5 {
        let asked = Instant::now();
        match nm.next().expect("the loop continues") {
            Some((_, batch)) => received += batch.len(),
            None => {
                idle += 1;
                assert!(begin.elapsed() >= idle * T, "idle {idle} after {:?}", begin.elapsed());
                assert!(last.elapsed() >= T, "{:?} after the one before", last.elapsed());
                last = asked;
                periods += u32::from(std::mem::take(&mut received) > 0);
            }
        }
        assert!(begin.elapsed() < LIMIT, "{idle} idle events, {periods} of them after notifications");
    }
    over.store(true, SeqCst);
    drop(nm); // this also ends a sender whose socket is full
    let _ = sender.join();
}

#[test]
fn m03_idle_events_come_about_every_t_although_every_socket_stays_readable() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(2);
    let mut nm = NotificationManager::new(connections).timeout(T);
    let _watchdog = Watchdog::over(&nm);
    let begin = Instant::now();
    let (mut idle, mut received) = (0, 0);
    while idle < 5 {
        lines.iter_mut().for_each(|line| _ = line.flood()); // a slow body, and every socket stays readable
        match nm.next().expect("the loop continues") {
            Some((_, batch)) => received += batch.len(),
            None => idle += 1,
        }
        assert!(begin.elapsed() >= idle * T);
    }
    assert!(received > 100, "{received}");
}

#[test]
fn m03_an_idle_event_comes_after_what_arrived_during_a_slow_body() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(3);
    let mut nm = NotificationManager::new(connections).timeout(T);
    let ids = ids(&nm);
    let _watchdog = Watchdog::over(&nm);
    for round in 0..5 {
        nm.set_timeout(T); // so that the idle event is not due yet
        lines[0].notify("slow");
        assert_eq!(receive(&mut nm, 1), [(ids[0], "slow".into())]);
        // A slow body, during which other connections receive notifications.
        lines[1].notify("meanwhile");
        thread::sleep(2 * T);
        lines[2].notify("later");
        let mut received = until_idle(&mut nm);
        received.sort();
        assert_eq!(received, [(ids[1], "meanwhile".into()), (ids[2], "later".into())], "round {round}");
    }
}

#[test]
fn m03_an_idle_event_comes_after_what_a_call_has_read() {
    let channel = channel();
    let mut nm = NotificationManager::new([listener(&channel)]).timeout(T);
    let id = ids(&nm)[0];
    for _ in 0..5 {
        assert_eq!(until_idle(&mut nm), []);
        let mut db = nm.get_mut(id).unwrap();
        db.notify(&channel, "picked up").unwrap();
        db.query("select pg_sleep(0.1)").unwrap(); // the idle event is due by now
        assert_eq!(until_idle(&mut nm), [(id, "picked up".into())]);
    }
}

#[test]
fn m03_a_due_idle_event_comes_after_what_a_call_has_read_since() {
    let channel = channel();
    let mut fake = Fake::new();
    let (db, mut line) = fake.open();
    let mut nm = NotificationManager::new([db, listener(&channel)]).timeout(T);
    let [notified, called] = ids(&nm)[..] else { panic!("two connections") };
    assert_eq!(until_idle(&mut nm), []);
    for _ in 0..5 {
        thread::sleep(2 * T);
        line.notify("as it came due");
        let (id, _) = batch(&mut nm);
        assert_eq!(id, notified);
        // Only the idle event is left to be reported when a call is made.
        let mut db = nm.get_mut(called).unwrap();
        db.notify(&channel, "picked up").unwrap();
        db.query("select 1").unwrap();
        assert_eq!(until_idle(&mut nm), [(called, "picked up".into())]);

        thread::sleep(2 * T);
        line.notify("as it came due");
        assert_eq!(batch(&mut nm).0, notified);
        let mut db = listener(&channel);
        db.notify(&channel, "brought along").unwrap();
        db.query("select 1").unwrap();
        let inserted = nm.insert(db);
        let mut received = until_idle(&mut nm);
        received.sort();
        assert!(received.contains(&(inserted, "brought along".into())), "{received:?}");
        assert!(nm.remove(inserted).unwrap().is_ok());
        // The notification to the other listener may not have arrived yet.
        if received.len() == 1 {
            assert_eq!(receive(&mut nm, 1), [(called, "brought along".into())]);
        }
        assert_eq!(until_idle(&mut nm), []);
    }
}

#[test]
fn m03_a_slow_body_does_not_cause_two_idle_events_in_a_row() {
    let mut fake = Fake::new();
    let (db, _line) = fake.open();
    let mut nm = NotificationManager::new([db]).timeout(T);
    for _ in 0..3 {
        assert!(matches!(nm.next(), Some(None)));
        thread::sleep(3 * T);
        let asked = Instant::now();
        assert!(matches!(nm.next(), Some(None))); // was due before
        assert!(matches!(nm.next(), Some(None)));
        assert!(asked.elapsed() >= T, "{:?} after the one before", asked.elapsed());
    }
}

#[test]
fn m03_a_tiny_timeout_still_reads_the_sockets() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(2);
    let mut nm = NotificationManager::new(connections).timeout(Duration::from_secs_f64(1e-7));
    for (id, line) in ids(&nm).into_iter().zip(&mut lines) {
        assert!(matches!(nm.next(), Some(None)));
        line.notify("read");
        assert_eq!(until_idle(&mut nm), [(id, "read".into())], "pending notifications come before the next idle event");
    }
}

#[test]
fn m03_the_longest_timeout_never_expires() {
    let mut fake = Fake::new();
    let (db, mut line) = fake.open();
    let mut nm = NotificationManager::new([db]).timeout(Duration::MAX);
    let sender = thread::spawn(move || {
        thread::sleep(T);
        line.notify("at last");
        line
    });
    let _watchdog = Watchdog::over(&nm);
    assert_eq!(nm.next().unwrap().map(|(_, batch)| payloads(&batch)), Some(vec!["at last".into()]));
    drop(sender.join().unwrap());
}

#[test]
fn m03_a_frozen_server_does_not_delay_idle_events() {
    // A separate server, because a frozen backend that holds a lock blocks every other session.
    let cluster = Cluster::start(Options::new().max_connections(10)).unwrap();
    let mut db = connect(&cluster.url());
    db.listen(["c"]).unwrap();
    let frozen = db.pid() as u32;
    let mut nm = NotificationManager::new([db]).timeout(T);
    let id = ids(&nm)[0];
    cluster::signal(frozen, "STOP").unwrap();
    let begin = Instant::now();
    connect(&cluster.url()).notify("c", "kept by the server").unwrap();
    for n in 1..=5 {
        assert!(matches!(nm.next(), Some(None)));
        assert!(begin.elapsed() >= n * T);
    }
    assert!(begin.elapsed() < LIMIT / 2);
    cluster::signal(frozen, "CONT").unwrap();
    assert_eq!(receive(&mut nm, 1), [(id, "kept by the server".into())]);
}

#[test]
fn m03_a_new_timeout_begins_a_new_period() {
    let mut fake = Fake::new();
    let (db, mut line) = fake.open();
    let mut nm = NotificationManager::new([db]).timeout(T);
    assert!(matches!(nm.next(), Some(None)));
    thread::sleep(2 * T);
    line.notify("as it came due");
    assert_eq!(receive(&mut nm, 1).len(), 1);
    nm.set_timeout(3 * T);
    assert_eq!(nm.current_timeout(), Some(3 * T));
    let begin = Instant::now();
    assert!(matches!(nm.next(), Some(None)));
    assert!(begin.elapsed() >= 3 * T);
}

#[test]
fn m04_at_an_idle_event_no_complete_notification_is_pending() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(3);
    let mut nm = NotificationManager::new(connections).timeout(Duration::from_micros(50));
    let mut received = 0;
    for round in 1..=200 {
        lines[round % 3].send(&[msg::notification(1, "c", "a"), msg::notification(1, "c", "b")].concat());
        received += until_idle(&mut nm).len();
        assert_eq!(received, 2 * round);
    }
    for (_, mut db) in nm.into_connections() {
        assert_eq!(db.wait(Duration::ZERO).count(), 0);
    }
}

#[test]
fn m04_a_partial_frame_stays_with_its_connection() {
    let mut fake = Fake::new();
    let (db, mut line) = fake.open();
    let mut nm = NotificationManager::new([db]).timeout(T);
    let bytes = [msg::notification(1, "c", "whole"), msg::notification(1, "c", "in two pieces")].concat();
    let (first, second) = bytes.split_at(bytes.len() - 5);
    line.send(first);
    assert_eq!(until_idle(&mut nm).len(), 1);
    let (_, mut db) = nm.into_connections().pop().unwrap();
    line.send(second);
    let rest: Vec<_> = db.wait(Duration::ZERO).flatten().map(|n| n.payload().into_owned()).collect();
    assert_eq!(rest, ["in two pieces"]);
}
