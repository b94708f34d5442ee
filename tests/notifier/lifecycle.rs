//! Starting and stopping.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::notifier::{State, StillRunning};
use notifyman::{Config, Error, Notifier};

use super::support::*;
use crate::support::{Options, server};

/// The time limit of a stop on a busy machine: half of the time limit of a dial.
const PROMPT: Duration = Duration::from_secs(15);

#[test]
fn n10_stop_is_a_barrier() {
    let n = Notifier::builder(config()).unwrap().workers(3).start::<u32>().unwrap();
    let channel = new_channel();
    let (stopped, late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let calls = Arc::new(AtomicU64::new(0));
    for id in 0..10 {
        let (stopped, late, calls) = (Arc::clone(&stopped), Arc::clone(&late), Arc::clone(&calls));
        n.subscribe(id, &channel, move |_| {
            calls.fetch_add(1, SeqCst);
            thread::sleep(Duration::from_micros(200));
            late.fetch_add(u64::from(stopped.load(SeqCst)), SeqCst);
        })
        .unwrap();
    }
    let writing = Arc::new(AtomicBool::new(true));
    let writer = thread::spawn({
        let (writing, channel) = (Arc::clone(&writing), channel.clone());
        move || {
            let mut db = session();
            while writing.load(SeqCst) {
                db.notify(&channel, "").unwrap();
            }
        }
    });
    for _ in 0..20 {
        let before = calls.load(SeqCst);
        eventually("callbacks are called", || calls.load(SeqCst) > before);
        n.stop();
        stopped.store(true, SeqCst);
        let at_stop = calls.load(SeqCst);
        assert!(!n.is_running() && matches!(n.state(), State::Stopped));
        thread::sleep(Duration::from_millis(2));
        assert_eq!((calls.load(SeqCst), late.load(SeqCst)), (at_stop, 0));
        stopped.store(false, SeqCst);
        n.start().unwrap();
        assert!(n.is_running() && matches!(n.state(), State::Listening));
    }
    writing.store(false, SeqCst);
    writer.join().unwrap();
}

#[test]
fn n10_stop_within_returns_the_callback_that_does_not_return() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    let latch = Latch::default();
    n.subscribe(7, &channel, blocking(&latch, &recorder)).unwrap();
    session().notify(&channel, "x").unwrap();
    assert_eq!(records.next(), "blocked");

    let StillRunning { id, channel: at, .. } = n.stop_within(Duration::from_millis(20)).unwrap_err();
    assert_eq!((id, &*at), (7, channel.as_str()));
    assert!(!n.is_running() && matches!(n.state(), State::Stopping));
    let error = n.start().unwrap_err();
    assert!(matches!(&error, Error::StillRunning { channel: at } if **at == *channel), "{error}");
    latch.open();
    n.stop();
    assert_eq!(records.so_far(), ["x"], "the stop waited for the callback");
    n.start().unwrap();
}

#[test]
fn n10_stopping_twice_and_starting_twice_have_no_effect() {
    let n = notifier();
    n.start().unwrap();
    n.stop();
    n.stop();
    n.stop_within(Duration::ZERO).unwrap();
    n.start().unwrap();
    assert!(n.is_running());
}

#[test]
fn n09_after_a_restart_each_subscriber_receives_a_report() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    let mut db = session();
    n.subscribe(1, &channel, recorder.payloads()).unwrap();
    n.stop();
    send(&mut db, &channel, ["lost"]);
    n.start().unwrap();
    send(&mut db, &channel, ["received"]);
    assert_eq!(records.take(2), ["[stopped 0]", "received"]);
    n.restart().unwrap();
    assert_eq!(records.next(), "[stopped 0]");
}

#[test]
fn subscribing_to_a_stopped_notifier_fails_and_changes_nothing() {
    let n = notifier();
    n.stop();
    let (_, ticket) = (n.subscribe(1, "a", |_| ()).unwrap_err(), n.subscribe_ticket(1, "a", |_| ()).unwrap_err());
    assert!(matches!(ticket, Error::NotRunning) && ticket.to_string().contains("start it"), "{ticket}");
    assert!(matches!(n.add_channel("a").unwrap_err(), Error::NotRunning));
    assert!(matches!(n.notify("a", "").wait(LIMIT).unwrap_err(), Error::NotRunning));
    assert!(n.channels().is_empty());
    n.start().unwrap();
    n.subscribe(1, "a", |_| ()).unwrap();
}

#[test]
fn subscriptions_of_a_stopped_notifier_can_be_removed_and_muted() {
    let n = notifier();
    n.subscribe(1, "a", |_| ()).unwrap();
    n.subscribe(2, "b", |_| ()).unwrap();
    n.add_channel("c").unwrap();
    n.stop();
    n.unsubscribe(&1, "a").unwrap();
    n.mute_subscriber(&2).unwrap();
    n.remove_channel("c").unwrap();
    n.start().unwrap();
    assert_eq!((n.channels(), n.stats().channels), (vec!["b".to_owned()], 0));
    n.unmute_subscriber(&2).unwrap().wait(LIMIT).unwrap();
    assert_eq!(n.stats().channels, 1);
}

#[test]
fn a_start_fails_while_the_server_is_down_and_a_later_one_succeeds() {
    let mut server = server::start(Options::new());
    let n = Notifier::builder(server.url()).unwrap().autorun(false).build::<u32>();
    let (recorder, records) = recorder();
    n.subscribe(1, "a", recorder.payloads()).unwrap();
    server.stop().unwrap();
    let begin = Instant::now();
    let error = n.start().unwrap_err();
    assert!(matches!(error, Error::Connect(_)) && begin.elapsed() < PROMPT, "{error}");
    assert!(!n.is_running() && matches!(n.state(), State::Failed(_)));
    server.restart().unwrap();
    n.start().unwrap();
    connect(&server.url()).notify("a", "at last").unwrap();
    assert_eq!(records.next(), "at last");
}

#[test]
fn a_notifier_that_keeps_trying_starts_while_the_server_is_down() {
    let mut server = server::start(Options::new());
    server.stop().unwrap();
    let n = Notifier::builder(server.url()).unwrap().keep_trying(true).start::<u32>().unwrap();
    assert!(n.is_running() && matches!(n.state(), State::Away));
    let (recorder, records) = recorder();
    let mut ticket = n.subscribe_ticket(1, "a", recorder.payloads()).unwrap();
    assert!(ticket.wait(Duration::from_millis(50)).unwrap_err().is_timeout());
    server.restart().unwrap();
    ticket.wait(LIMIT).unwrap();
    assert!(matches!(n.state(), State::Listening));
    connect(&server.url()).notify("a", "at last").unwrap();
    assert_eq!(records.next(), "at last");
}

#[test]
fn an_error_that_retrying_cannot_fix_is_reported() {
    let wrong = config().dbname("no such database");
    let error = Notifier::<u32>::new(&wrong).unwrap_err();
    assert_eq!(error.sqlstate(), Some("3D000"), "{error}");

    let n = Notifier::builder(wrong).unwrap().keep_trying(true).start::<u32>().unwrap();
    eventually("the session is lost", || matches!(n.state(), State::Lost(_)));
    let error = n.subscribe(1, "a", |_| ()).unwrap_err();
    assert_eq!(error.sqlstate(), Some("3D000"), "{error}");
    assert!(n.channels().is_empty());
}

#[test]
fn a_configuration_that_cannot_be_dialled_fails_the_start() {
    let invalid = config().options("x".repeat(20_000));
    let error = Notifier::<u32>::new(&invalid).unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error}");
    let n = Notifier::builder(invalid).unwrap().keep_trying(true).start::<u32>().unwrap();
    assert!(!n.is_running() && matches!(n.state(), State::Lost(Error::Config(_))), "{:?}", n.state());
}

/// Returns a server that accepts connections and sends nothing.
fn silent() -> (TcpListener, Config) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config::new().host("127.0.0.1").port(listener.local_addr().unwrap().port()).user("u");
    (listener, config)
}

#[test]
fn n10_a_stop_during_dialling_is_prompt() {
    let (_listener, config) = silent();
    let n = Notifier::builder(config).unwrap().build::<u32>();
    let starting = thread::spawn({
        let n = n.clone();
        move || n.start()
    });
    eventually("the notifier dials", || matches!(n.state(), State::Starting));
    let begin = Instant::now();
    n.stop();
    let error = starting.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
    assert!(begin.elapsed() < PROMPT, "{:?}", begin.elapsed());
    assert!(matches!(n.state(), State::Stopped));
}

#[test]
fn n10_a_stop_during_backoff_is_prompt_and_resolves_tickets() {
    let config = Config::new().host("127.0.0.1").port(server::refusing_port()).user("u");
    let n = Notifier::builder(config).unwrap().keep_trying(true).start::<u32>().unwrap();
    let mut ticket = n.subscribe_ticket(1, "a", |_| ()).unwrap();
    thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    n.stop();
    assert!(begin.elapsed() < PROMPT);
    assert!(matches!(ticket.wait(LIMIT).unwrap_err(), Error::Stopped));
}

#[test]
fn n10_a_dropped_notifier_stops_by_itself() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    let name = format!("dropped {}", std::process::id());
    let named = Notifier::new(config().application_name(&name)).unwrap();
    named.subscribe(1, &channel, recorder.payloads()).unwrap();
    n.subscribe(1, &channel, |_| ()).unwrap();
    let mut db = session();
    drop(named);
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
    eventually("the session has ended", || ask(&mut db, &sessions) == "0");
    send(&mut db, &channel, ["lost"]);
    eventually("the other notifier has received it", || n.stats().delivered == 1);
    assert!(records.so_far().is_empty());
}

#[test]
fn n10_a_notifier_dropped_inside_its_own_callback_stops() {
    let name = format!("dropped inside {}", std::process::id());
    let n = Notifier::new(config().application_name(&name)).unwrap();
    let channel = new_channel();
    let mut own = Some(n.clone());
    n.subscribe(1, &channel, move |_| drop(own.take())).unwrap();
    drop(n);
    let mut db = session();
    send(&mut db, &channel, [""]);
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
    eventually("the session has ended", || ask(&mut db, &sessions) == "0");
}

#[test]
fn n10_two_notifiers_in_one_process_are_independent() {
    let (one, two) = (notifier(), notifier());
    let (recorder, records) = recorder();
    let channel = new_channel();
    one.subscribe(1, &channel, {
        let (two, recorder) = (two.clone(), recorder.clone());
        move |call| {
            // Waiting for another notifier does not deadlock.
            two.subscribe(1, call.channel(), recorder.payloads()).unwrap();
            recorder.record("subscribed");
        }
    })
    .unwrap();
    let mut db = session();
    send(&mut db, &channel, ["1"]);
    assert_eq!(records.next(), "subscribed");
    one.stop();
    send(&mut db, &channel, ["2"]);
    // The session already listened to another channel, and may not have read the first notification when it listens to
    // this one. PostgreSQL then delivers that notification, too.
    let first = records.next();
    assert!(first == "2" || first == "1" && records.next() == "2", "{first}");
    assert!(two.is_running() && !one.is_running());
}

#[test]
fn n10_a_process_with_a_running_notifier_can_exit() {
    let begin = Instant::now();
    crate::support::subprocess::run(
        "notifier::lifecycle::a_process_that_leaves_its_notifier_running",
        "true",
        &[("NOTIFYMAN_TEST_URL", &utf8().url())],
    );
    assert!(begin.elapsed() < LIMIT);
}

#[test]
#[ignore = "the other half of n10_a_process_with_a_running_notifier_can_exit"]
fn a_process_that_leaves_its_notifier_running() {
    if !crate::support::subprocess::is_subprocess() {
        return;
    }
    let n: Notifier<u32> = Notifier::new(std::env::var("NOTIFYMAN_TEST_URL").unwrap()).unwrap();
    let latch = Latch::default();
    let (recorder, records) = recorder();
    n.subscribe(1, "exit", blocking(&latch, &recorder)).unwrap();
    n.notify("exit", "");
    assert_eq!(records.next(), "blocked");
    // The process ends with an open session, and a callback that never returns.
    std::mem::forget(n);
}

#[test]
fn n10_starts_and_stops_from_many_threads_leave_a_consistent_state() {
    let n = notifier();
    let threads: Vec<_> = (0..6)
        .map(|i| {
            let n = n.clone();
            thread::spawn(move || {
                for _ in 0..15 {
                    match i % 3 {
                        0 => n.stop(),
                        1 => drop(n.restart()),
                        _ => drop(n.subscribe(i, "shared", |_| ())),
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    n.stop();
    assert!(matches!(n.state(), State::Stopped));
    n.start().unwrap();
    assert!(matches!(n.state(), State::Listening));
}

#[test]
fn n10_notifications_that_wait_at_a_stop_count_as_dropped() {
    let n = notifier();
    let (channel, latch, (recorder, records)) = (new_channel(), Latch::default(), recorder());
    n.subscribe(1, &channel, blocking(&latch, &recorder)).unwrap();
    send(&mut connect(&utf8().url()), &channel, ["1", "2", "3", "4", "5"]);
    assert_eq!(records.next(), "blocked");
    eventually("all are received", || n.stats().waiting == 4);
    let stopping = std::thread::spawn({
        let n = n.clone();
        move || n.stop()
    });
    eventually("the notifier stops", || !n.is_running());
    latch.open();
    stopping.join().unwrap();
    let stats = n.stats();
    assert_eq!((stats.delivered, stats.dropped, stats.waiting), (1, 4, 0), "{stats:?}");
}

/// The channel still has notifications to hand out when the notifier stops.
#[test]
fn n10_a_channel_that_waits_at_a_stop_is_served_after_the_next_start() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    let latch = Latch::default();
    n.subscribe(7, &channel, blocking(&latch, &recorder)).unwrap();
    let mut db = session();
    send(&mut db, &channel, ["1"]);
    assert_eq!(records.next(), "blocked");
    send(&mut db, &channel, ["2", "3"]);
    receive(&n, 3);
    n.stop_within(Duration::ZERO).unwrap_err();
    latch.open();
    n.stop();
    assert_eq!((records.so_far(), n.stats().waiting, n.stats().dropped), (vec!["1".to_owned()], 0, 2));
    n.start().unwrap();
    send(&mut db, &channel, ["4"]);
    assert_eq!(records.take(2), ["[stopped 0]", "4"]);
}
