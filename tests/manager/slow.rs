//! Slow bodies, many requests and unusual settings, none of which may lose a healthy connection.

use std::thread;
use std::time::{Duration, Instant};

use notifyman::{Backoff, Config, Connection, Error, Event, NotificationManager};

use super::support::{LIMIT, Watchdog, channel, connect, listener, open, server};

/// A time limit that a server meets even on a busy machine.
const DEADLINE: Duration = Duration::from_millis(1000);
/// The duration of a body that exceeds the time limit.
const LONGER: Duration = Duration::from_millis(1200);

/// Runs the loop until it is stopped; a connection that is lost fails the test.
fn run(nm: &mut NotificationManager, mut body: impl FnMut(&Event)) {
    let _watchdog = Watchdog::over(nm);
    while let Some(event) = nm.next_event() {
        assert!(!matches!(event, Event::Lost(..) | Event::Disconnected(..)), "{event:?}");
        body(&event);
    }
}

#[test]
fn m15_a_slow_body_loses_no_healthy_connection() {
    let channel = channel();
    let mut connections: Vec<_> = (0..10).map(|_| open()).collect();
    connections.push(listener(&channel));
    let mut nm = NotificationManager::new(connections).heartbeat(Duration::from_millis(200), DEADLINE);
    let handle = nm.handle();
    let writer = thread::spawn(move || {
        let mut db = open();
        for n in 0..5 {
            db.notify(&channel, n.to_string()).unwrap();
            thread::sleep(DEADLINE);
        }
        handle.stop();
    });
    run(&mut nm, |_| thread::sleep(LONGER));
    writer.join().unwrap();
    assert_eq!(nm.connections().count(), 11);
}

#[test]
fn m18_a_slow_body_does_not_shorten_the_time_limit_of_a_request() {
    let config = Config::without_env(&server().url()).unwrap().call_timeout(DEADLINE);
    let mut nm = NotificationManager::new([Connection::connect(&config).unwrap()]).timeout(Duration::from_millis(10));
    let (handle, id) = (nm.handle(), nm.connections().next().unwrap().0);
    let asked = thread::spawn(move || {
        for _ in 0..3 {
            handle.listen(id, ["slow"]).wait(LIMIT).unwrap();
        }
        handle.stop();
    });
    run(&mut nm, |_| thread::sleep(LONGER));
    asked.join().unwrap();
}

#[test]
fn m18_many_concurrent_requests_are_all_answered_and_lose_no_connection() {
    let mut nm = NotificationManager::new([open()]);
    let (handle, id) = (nm.handle(), nm.connections().next().unwrap().0);
    let asked = thread::spawn(move || {
        for (burst, times) in [(1, 300), (100, 30), (300, 10), (3000, 1)] {
            for _ in 0..times {
                let tickets: Vec<_> = (0..burst).map(|n| handle.notify(id, "no listener", n.to_string())).collect();
                tickets.into_iter().for_each(|mut ticket| ticket.wait(LIMIT).unwrap());
            }
        }
        handle.stop();
    });
    run(&mut nm, |_| {});
    asked.join().unwrap();
}

#[test]
fn m13_the_longest_backoff_does_not_panic() {
    let mut nm = NotificationManager::new([open(), open()])
        .reconnect(Backoff::default().first(Duration::MAX).longest(Duration::MAX));
    let pid = nm.connections().next().unwrap().1.pid();
    open().query(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    assert!(matches!(nm.next_event(), Some(Event::Disconnected(..))));
    assert_eq!(nm.restoring().count(), 1);
}

#[test]
fn m18_an_invalid_name_fails_its_ticket_and_not_the_restore() {
    let mut nm = NotificationManager::new([open()])
        .timeout(Duration::from_millis(10))
        .reconnect(Backoff::default().first(Duration::from_millis(400)).longest(Duration::from_millis(400)));
    let (handle, (id, pid)) = (nm.handle(), nm.connections().next().map(|(id, db)| (id, db.pid())).unwrap());
    open().query(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    while nm.restoring().count() == 0 {
        nm.next_event().unwrap();
    }
    let mut bad = handle.listen(id, ["é".repeat(40)]);
    let mut good = handle.listen(id, ["é"]);
    let begun = Instant::now();
    while nm.stats().restores == 0 && begun.elapsed() < LIMIT {
        nm.next_event().unwrap();
    }
    assert!(matches!(bad.try_get(), Some(Err(Error::Value(_)))));
    assert!(matches!(good.try_get(), Some(Ok(()))));
    assert_eq!(nm.get_mut(id).unwrap().listening_channels().unwrap(), ["é"]);
}

#[test]
fn m19_two_stops_cause_two_ends() {
    let mut nm = NotificationManager::new([open()]).timeout(Duration::from_millis(1));
    nm.handle().stop();
    nm.handle().stop();
    assert!(nm.next().is_none() && nm.next().is_none());
    assert!(matches!(nm.next(), Some(None)), "then the iterator continues");
}

#[test]
fn m18_after_an_end_another_thread_can_iterate_while_this_one_waits() {
    let mut nm = NotificationManager::new([open()]).timeout(Duration::ZERO);
    (&mut nm).for_each(drop);
    nm.set_timeout(None);
    let handle = nm.handle();
    let mut ticket = handle.insert(connect(&server().url()));
    let loop_thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        nm.by_ref().for_each(drop);
    });
    assert!(ticket.wait(LIMIT).is_ok());
    handle.stop();
    loop_thread.join().unwrap();
}

#[test]
fn c11_the_error_for_a_too_long_answer_says_that_the_query_was_executed() {
    let mut db = open();
    let error = db.query("SELECT repeat('x', 17 * 1024 * 1024)").unwrap_err();
    assert!(matches!(error, Error::AnswerTooLong(_)) && !error.is_usage(), "{error}");
    assert!(format!("{error:#}").contains("was executed"), "{error}");
    assert_eq!(db.query("SELECT 1").unwrap().len(), 1);
}
