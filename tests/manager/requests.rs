//! M18: the sending and the timeouts of requests by the handle, with a scripted server.

use std::thread;
use std::time::{Duration, Instant};

use notifyman::{Config, Connection, Event, NotificationManager, Ticket};

use super::support::{LIMIT, connect};
use crate::support::peer::Gate;
use crate::support::unix_peer::TOO_MUCH;
use crate::support::{Step, UnixPeer, msg};

const TICK: Duration = Duration::from_millis(20);

fn answer() -> Step {
    Step::send([msg::command_complete("SELECT"), msg::ready(b'I')])
}

fn script(steps: impl IntoIterator<Item = Step>) -> UnixPeer {
    UnixPeer::play([Step::startup(), Step::login_ok()].into_iter().chain(steps).collect())
}

fn limited(peer: &UnixPeer, call_timeout: Duration) -> NotificationManager {
    let config = Config::without_env(&peer.url()).unwrap().call_timeout(call_timeout);
    NotificationManager::new([Connection::connect(&config).unwrap()]).timeout(TICK)
}

/// Iterates for a time, and fails at any event other than notifications.
fn iterate_for(nm: &mut NotificationManager, time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        assert!(matches!(nm.next_event(), Some(Event::Idle | Event::Notifies(..))));
    }
}

/// Iterates until the ticket resolves.
fn result<T>(nm: &mut NotificationManager, ticket: &mut Ticket<T>) -> Result<T, notifyman::Error> {
    let begun = Instant::now();
    loop {
        if let Some(result) = ticket.try_get() {
            return result;
        }
        assert!(begun.elapsed() < LIMIT, "the ticket is not resolved: {nm:?}");
        // `None` only means that the last connection is lost.
        nm.next_event();
    }
}

#[test]
fn m18_a_request_that_a_slow_server_reads_in_parts_is_sent_completely() {
    let (read_on, gate) = Step::gate();
    let peer = script([gate, Step::expect_any_query(), answer(), Step::serve()]);
    let mut nm = NotificationManager::new([connect(&peer.url())]).timeout(TICK);
    let id = nm.connections().next().unwrap().0;
    iterate_for(&mut nm, TICK);
    let mut ticket = nm.handle().query(id, format!("SELECT '{}'", "x".repeat(TOO_MUCH)));
    // The client writes as much as the socket accepts.
    iterate_for(&mut nm, 10 * TICK);
    read_on.open();
    assert!(result(&mut nm, &mut ticket).unwrap().is_empty());
    drop(nm);
    peer.finish();
}

#[test]
fn m18_the_time_of_a_request_counts_from_when_the_loop_has_accepted_it() {
    let call_timeout = Duration::from_secs(3);
    let (respond, gate): (Gate, Step) = Step::gate();
    let peer = script([Step::expect_any_query(), gate, answer(), Step::serve()]);
    let mut nm = limited(&peer, call_timeout);
    let id = nm.connections().next().unwrap().0;
    assert!(matches!(nm.next_event(), Some(Event::Idle)));
    // The request is made in a slow body, and the server delays its answer.
    let mut ticket = nm.handle().query(id, "SELECT");
    thread::sleep(call_timeout);
    iterate_for(&mut nm, Duration::from_millis(200));
    respond.open();
    result(&mut nm, &mut ticket).unwrap();
    drop(nm);
    peer.finish();
}

#[test]
fn m18_a_later_request_has_a_time_limit_of_its_own() {
    let call_timeout = Duration::from_secs(4);
    let (respond, gate) = Step::gate();
    let peer = script([Step::expect_any_query(), gate, answer(), Step::expect_any_query(), Step::expect_eof()]);
    let mut nm = limited(&peer, call_timeout);
    let (handle, id) = (nm.handle(), nm.connections().next().unwrap().0);
    let mut answered = handle.query(id, "SELECT 1");
    iterate_for(&mut nm, call_timeout / 16);
    let asked = Instant::now();
    let mut unanswered = handle.query(id, "SELECT 2");
    iterate_for(&mut nm, call_timeout / 16);
    respond.open();
    result(&mut nm, &mut answered).unwrap();
    let error = result(&mut nm, &mut unanswered).unwrap_err();
    assert!(error.is_timeout() && asked.elapsed() >= call_timeout, "{error} after {:?}", asked.elapsed());
    assert_eq!((nm.connections().count(), nm.garbage().count()), (0, 1));
    drop(nm);
    peer.finish();
}

#[test]
fn m18_an_answer_that_arrived_in_time_counts_although_many_notifications_precede_it() {
    let call_timeout = Duration::from_secs(2);
    // A read of 64 KiB contains only notifications.
    let notification = msg::notification(7, "news", &"x".repeat(4_000));
    let before = notification.repeat((64_usize << 10).div_ceil(notification.len()));
    let (asked, is_asked) = Step::mark();
    let (respond, gate) = Step::gate();
    let (responded, is_done) = Step::mark();
    let reply = Step::send([before, msg::command_complete("SELECT"), msg::ready(b'I')]);
    let peer = script([Step::expect_any_query(), is_asked, gate, reply, is_done, Step::serve()]);
    let mut nm = limited(&peer, call_timeout);
    let id = nm.connections().next().unwrap().0;
    let mut ticket = nm.handle().query(id, "SELECT");
    assert!(matches!(nm.next_event(), Some(Event::Idle)));
    asked.wait();
    respond.open();
    responded.wait();
    // A slow body.
    thread::sleep(call_timeout);
    result(&mut nm, &mut ticket).unwrap();
    assert_eq!(nm.connections().count(), 1);
    drop(nm);
    peer.finish();
}
