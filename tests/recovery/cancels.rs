//! C11 and M18: a late request by a handle is cancelled, and the connection stays open if possible.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use notifyman::{ConnId, Connection, Error, Handle, NotificationManager};

use super::control::{LIMIT, Running, parked};
use super::support::*;
use crate::support::peer::Gate;
use crate::support::{Peer, Step, msg};

const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a manager of one connection with a short call timeout.
fn running(mut db: Connection) -> (Running, Handle, ConnId) {
    db.set_call_timeout(CALL_TIMEOUT);
    let running = Running::start(parked([db]));
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    (running, handle, id)
}

fn cancelled() -> Step {
    Step::send([msg::error("ERROR", "57014", "canceling statement due to user request"), msg::ready(b'I')])
}

#[track_caller]
fn assert_timeout(error: Error, is_closed: bool) {
    assert!(matches!(error, Error::Timeout { closed, .. } if closed == is_closed), "{error:?}");
}

/// Makes up to ten attempts. A server has as much time to end a cancelled request as the request had, at most a second; on
/// a busy machine a healthy one may need more, and then the connection is closed.
fn until_it_stays_open(attempt: impl Fn() -> bool) {
    assert!((0..10).any(|_| attempt()), "it was closed each time");
}

/// Returns `false` if the connection was closed.
fn is_open_after(error: &Error) -> bool {
    match error {
        Error::Timeout { closed, .. } => !closed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn c11_a_request_that_is_late_is_cancelled_and_the_connection_stays() {
    let server = cluster();
    until_it_stays_open(|| {
        let (running, handle, id) = running(open(&server.url()));
        let error = handle.query(id, "SELECT pg_sleep(60)").wait(LIMIT).unwrap_err();
        let answer = handle.query(id, "SELECT 1").wait(LIMIT);
        let is_open = is_open_after(&error) && answer.is_ok();
        if is_open {
            assert_eq!((answer.unwrap().len(), handle.stats().losses, handle.stats().connections), (1, 0, 1));
        }
        running.stop();
        is_open
    });
}

#[test]
fn m18_requests_that_wait_behind_a_late_one_are_withdrawn_and_not_sent() {
    let server = cluster();
    until_it_stays_open(|| {
        let (running, handle, id) = running(open(&server.url()));
        let mut late = handle.query(id, "SELECT pg_sleep(60)");
        let mut waiting: Vec<_> = (0..5).map(|n| handle.query(id, format!("CREATE TABLE t{n} ()"))).collect();
        let is_open = is_open_after(&late.wait(LIMIT).unwrap_err());
        for ticket in &mut waiting {
            let is_unsent = is_open_after(&ticket.wait(LIMIT).unwrap_err());
            assert!(is_unsent || !is_open);
        }
        running.stop();
        is_open
    });
    assert!(open(&server.url()).query("SELECT 1 FROM pg_class WHERE relname LIKE 't_'").unwrap().is_empty());
}

#[test]
fn c11_the_next_request_is_sent_only_when_nothing_can_cancel_it() {
    until_it_stays_open(|| {
        let is_over = Arc::new(AtomicBool::new(false));
        let (ends, checks) = (Arc::clone(&is_over), is_over);
        let (sent, cancel_sent) = Step::gate();
        let session = vec![
            Step::startup(),
            Step::login_ok(),
            Step::expect_query("SELECT 1"),
            cancel_sent,
            cancelled(),
            // The end, if the connection was closed.
            Step::run("the next request", move |wire| match wire.read_message()? {
                Some((b'Q', _)) if !checks.load(SeqCst) => Err("sent too early".into()),
                Some((b'Q', _)) => wire.write(&[msg::command_complete("SELECT 0"), msg::ready(b'I')].concat()),
                _ => Ok(()),
            }),
        ];
        let mut sent = Some(sent);
        let cancel = vec![
            Step::expect_cancel(),
            Step::run("end later", move |_| {
                sent.take().ok_or("twice")?.open();
                std::thread::sleep(Duration::from_millis(200));
                ends.store(true, SeqCst);
                Ok(())
            }),
        ];
        let peer = Peer::play_each(vec![session, cancel]);
        let (running, handle, id) = running(open(&peer.url()));
        let is_open = is_open_after(&handle.query(id, "SELECT 1").wait(LIMIT).unwrap_err());
        let answer = handle.query(id, "SELECT 2").wait(LIMIT);
        running.stop();
        peer.finish();
        is_open && answer.is_ok()
    });
}

#[test]
fn c11_a_connection_is_closed_if_the_cancel_request_may_still_act() {
    let (over, end) = Step::gate();
    let (sent, cancel_sent) = Step::gate();
    let session = vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_query("SELECT 1"),
        cancel_sent,
        cancelled(),
        Step::expect_eof(),
    ];
    // The CancelRequest is answered, but its connection stays open.
    let mut sent = Some(sent);
    let sent = Step::run("sent", move |_| sent.take().map(Gate::open).ok_or("twice".into()));
    let cancel = vec![Step::expect_cancel(), sent, end];
    let peer = Peer::play_each(vec![session, cancel]);
    let mut db = open(&peer.url());
    db.set_call_timeout(CALL_TIMEOUT);
    let running = Running::start(parked([db]));
    let mut late = running.handle.query(running.ids[0], "SELECT 1");
    assert!(late.wait(LIMIT).unwrap_err().is_timeout());
    running.until("closed", |handle| handle.stats().garbage == 1);
    over.open();
    running.stop();
    peer.finish();
}

#[test]
fn c11_a_connection_that_is_removed_while_a_cancel_request_may_act_is_closed() {
    let (over, end) = Step::gate();
    let (mark, here) = Step::mark();
    let session = vec![Step::startup(), Step::login_ok(), Step::expect_query("SELECT 1"), Step::expect_eof()];
    let cancel = vec![Step::expect_cancel(), here, end];
    let peer = Peer::play_each(vec![session, cancel]);
    let mut db = open(&peer.url());
    db.set_call_timeout(CALL_TIMEOUT);
    let running = Running::start(parked([db]));
    let mut late = running.handle.query(running.ids[0], "SELECT 1");
    mark.wait();
    let removed = running.handle.remove(running.ids[0]).wait(LIMIT);
    // An error means that the connection has been closed meanwhile.
    if let Ok(db) = removed {
        assert_timeout(db.error().cloned().unwrap(), true);
    }
    assert!(late.wait(LIMIT).is_err());
    over.open();
    running.stop();
    peer.finish();
}

#[test]
fn c11_a_call_while_a_late_request_is_cancelled_fails_and_the_connection_stays() {
    until_it_stays_open(|| {
        let (end, cancel_ends) = Step::gate();
        let (here, is_cancelling) = Step::mark();
        let (sent, cancel_sent) = Step::gate();
        let session = vec![
            Step::startup(),
            Step::login_ok(),
            Step::expect_query("SELECT 1"),
            cancel_sent,
            cancelled(),
            Step::serve(),
        ];
        let peer = Peer::play_each(vec![session, vec![Step::expect_cancel(), is_cancelling, cancel_ends]]);
        let mut db = open(&peer.url());
        db.set_call_timeout(CALL_TIMEOUT);
        let mut nm = NotificationManager::new([db]).timeout(Duration::from_millis(10));
        let id = nm.connections().next().unwrap().0;
        let mut late = nm.handle().query(id, "SELECT 1");
        let has_begun = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&has_begun);
        let waiting = std::thread::spawn(move || {
            here.wait();
            seen.store(true, SeqCst);
        });
        while !has_begun.load(SeqCst) {
            assert!(nm.next_event().is_some());
        }
        waiting.join().unwrap();
        let call = nm.get_mut(id).map(|mut db| db.query("SELECT 2"));
        let is_open = matches!(call, Some(Err(Error::Cancelling))) && !nm.get(id).unwrap().is_closed();
        sent.open();
        end.open();
        let error = loop {
            if let Some(resolved) = late.try_get() {
                break resolved.unwrap_err();
            }
            assert!(nm.next_event().is_some());
        };
        is_open && is_open_after(&error) && nm.get_mut(id).unwrap().query("SELECT 2").is_ok()
    });
}
