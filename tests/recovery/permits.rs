//! M13: every attempt to connect releases its permit when it ends.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use notifyman::{ConnId, Event, NotificationManager};

use super::crowd::Crowd;
use super::support::{backoff, listener};
use crate::support::{Peer, Step, msg};

/// The time limit of every wait.
const LIMIT: Duration = Duration::from_secs(20);
/// The most connections that are opened concurrently for the first time.
const FIRST_DIALS: usize = 256;

/// Iterates until the condition holds.
fn until(nm: &mut NotificationManager, condition: &str, mut is_true: impl FnMut(&NotificationManager) -> bool) {
    let begun = Instant::now();
    while !is_true(nm) {
        assert!(begun.elapsed() < LIMIT, "not {condition}: {nm:?}");
        nm.next_event().expect("the loop continues");
    }
}

/// Iterates until this connection is open.
fn until_open(nm: &mut NotificationManager, id: ConnId) {
    until(nm, "open", |nm| nm.get(id).is_some());
}

/// A manager that also iterates without connections, and makes one attempt to reconnect at a time.
fn one_at_once() -> NotificationManager {
    NotificationManager::new([])
        .park_when_empty(true)
        .timeout(Duration::from_millis(10))
        .reconnect(backoff().at_once(1).per_second(1000))
}

fn first_dials() -> NotificationManager {
    NotificationManager::new([]).park_when_empty(true).timeout(Duration::from_millis(10))
}

/// A server that accepts connections, and never answers.
fn silent() -> (TcpListener, String) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://postgres@{}/postgres?connect_timeout=600", server.local_addr().unwrap());
    (server, url)
}

/// A server that refuses connections.
fn absent() -> String {
    silent().1
}

#[test]
fn m13_a_failed_attempt_releases_its_permit() {
    let (down, up) = (Crowd::start(Duration::ZERO), Crowd::start(Duration::ZERO));
    let mut nm = one_at_once();
    nm.insert(listener(&down.url()));
    let id = nm.insert(listener(&up.url()));
    down.close_all(LIMIT);
    until(&mut nm, "tried repeatedly", |_| down.dials().len() >= 3);
    up.close_all(Duration::ZERO);
    until(&mut nm, "lost and restored", |nm| nm.stats().restores == 1);
    assert!(nm.get(id).is_some());
}

#[test]
fn m13_a_successful_attempt_releases_its_permit() {
    let crowd = Crowd::start(Duration::ZERO);
    let mut nm = one_at_once();
    for db in crowd.listeners(3) {
        nm.insert(db);
    }
    crowd.close_all(Duration::ZERO);
    until(&mut nm, "all restored", |nm| nm.stats().restores == 3);
}

#[test]
fn m13_an_attempt_whose_connection_is_removed_releases_its_permit() {
    let acknowledge = Step::send([msg::command_complete("LISTEN"), msg::ready(b'I')]);
    let first = vec![Step::startup(), Step::login_ok(), Step::expect_any_query(), acknowledge, Step::close()];
    let (dialled, is_dialled) = Step::mark();
    let peer = Peer::play_each(vec![first, vec![Step::startup(), is_dialled, Step::expect_eof()]]);
    let crowd = Crowd::start(Duration::ZERO);
    let mut nm = one_at_once();
    let hanging = nm.insert(listener(&peer.url()));
    let id = nm.insert(listener(&crowd.url()));
    let handle = nm.handle();
    let dialled = std::thread::spawn(move || {
        dialled.wait();
        handle.stop();
    });
    while nm.next_event().is_some() {}
    dialled.join().unwrap();
    crowd.close_all(Duration::ZERO);
    until(&mut nm, "lost", |nm| nm.restoring().count() == 2);
    assert!(nm.remove(hanging).unwrap().is_err());
    until_open(&mut nm, id);
    peer.finish();
}

#[test]
fn m13_failed_first_attempts_release_their_permits() {
    let crowd = Crowd::start(Duration::ZERO);
    let absent = absent();
    for reconnects in [false, true] {
        let mut nm = first_dials();
        if reconnects {
            // The delay prevents a second attempt.
            nm = nm.reconnect(backoff().first(Duration::from_secs(3600)).longest(Duration::from_secs(3600)));
        }
        let failing: Vec<_> = (0..FIRST_DIALS).map(|_| nm.dial(&*absent, ["news"]).unwrap()).collect();
        let id = nm.dial(crowd.url(), ["news"]).unwrap();
        until_open(&mut nm, id);
        assert_eq!(nm.restoring().count() + nm.garbage().count(), failing.len());
    }
}

#[test]
fn m13_successful_first_attempts_release_their_permits() {
    let crowd = Crowd::start(Duration::ZERO);
    let mut nm = first_dials();
    let mut opened = 0;
    for _ in 0..FIRST_DIALS + 20 {
        nm.dial(crowd.url(), ["news"]).unwrap();
    }
    let begun = Instant::now();
    while opened < FIRST_DIALS + 20 {
        assert!(begun.elapsed() < LIMIT, "{opened} opened: {nm:?}");
        match nm.next_event() {
            Some(Event::Opened(_)) => opened += 1,
            Some(Event::Idle) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn m13_first_attempts_whose_connections_are_removed_release_their_permits() {
    let (_server, silent) = silent();
    let crowd = Crowd::start(Duration::ZERO);
    let mut nm = first_dials();
    let mut hanging: Vec<_> = (0..FIRST_DIALS).map(|_| nm.dial(&*silent, ["news"]).unwrap()).collect();
    let waiting = nm.dial(crowd.url(), ["news"]).unwrap();
    let id = nm.dial(crowd.url(), ["news"]).unwrap();
    for _ in 0..5 {
        assert!(matches!(nm.next_event(), Some(Event::Idle)), "no permit is available");
    }
    // Remove the first waiting connection, and then one that is in progress.
    assert!(nm.remove(waiting).unwrap().is_err());
    assert!(nm.remove(hanging.pop().unwrap()).unwrap().is_err());
    until_open(&mut nm, id);

    // All attempts in progress release their permits.
    hanging.into_iter().for_each(|id| drop(nm.remove(id)));
    let more: Vec<_> = (0..FIRST_DIALS).map(|_| nm.dial(&*silent, ["news"]).unwrap()).collect();
    nm.next_event();
    assert!(nm.remove(more[0]).unwrap().is_err());
    let id = nm.dial(crowd.url(), ["news"]).unwrap();
    until_open(&mut nm, id);
}

#[test]
fn m13_removed_connections_that_wait_for_an_attempt_delay_no_other() {
    const REMOVED: usize = 60;
    let mut nm = NotificationManager::new([])
        .park_when_empty(true)
        .timeout(Duration::from_millis(10))
        .reconnect(backoff().first(Duration::ZERO).longest(Duration::ZERO).per_second(1));
    let ids: Vec<_> = (0..REMOVED).map(|_| nm.dial("postgres://x@127.0.0.1:1/x", ["c"]).unwrap()).collect();
    let mut lost = 0;
    until(&mut nm, "refused", |nm| {
        lost = nm.restoring().filter(|(_, dead)| dead.error().is_transient()).count();
        lost == REMOVED
    });
    let begun = Instant::now();
    until(&mut nm, "queued", |_| begun.elapsed() > Duration::from_millis(300));
    ids.into_iter().for_each(|id| drop(nm.remove(id)));
    // Another lost connection is dialled next, and not after all that were removed.
    let lost = nm.dial("postgres://x@127.0.0.1:1/x", ["c"]).unwrap();
    let begun = Instant::now();
    let attempts = |nm: &NotificationManager| format!("{nm:?}").contains("failed_attempts: 2");
    until(&mut nm, "dialled again", attempts);
    assert!(begun.elapsed() < Duration::from_secs(REMOVED as u64 / 4), "{:?}", begun.elapsed());
    nm.remove(lost);
}
