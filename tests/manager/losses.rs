//! M06 and M07: a lost connection is reported after its pending notifications, and kept in the garbage with the cause; the
//! iterator ends with the last one.

use std::time::{Duration, Instant};

use notifyman::{Connection, Error, Event, NotificationManager};

use super::fake::Fake;
use super::support::*;
use crate::support::server::wait_until_idle;
use crate::support::{Cluster, Options, Peer, Proxy, Step, msg};

/// The last message of a server that is stopped.
fn fatal() -> Vec<u8> {
    msg::error("FATAL", "57P01", "terminating connection due to administrator command")
}

/// Returns a manager of one connection whose server, after the manager was created, sends all of this in one write and
/// then does `end`.
fn everything_in_one_write(sent: Vec<Vec<u8>>, end: Step) -> NotificationManager {
    let (go, gate) = Step::gate();
    let (was_sent, mark) = Step::mark();
    let peer = Peer::play(vec![Step::startup(), Step::login_ok(), gate, Step::send(sent), end, mark]);
    let nm = NotificationManager::new([connect(&peer.url())]).timeout(LIMIT);
    go.open();
    was_sent.wait();
    nm
}

/// Asserts that these payloads are yielded, then the loss, then the end. Returns the cause.
fn assert_received_then_lost(nm: &mut NotificationManager, expected: &[&str]) -> Error {
    let id = ids(nm)[0];
    let (mut reported, _watchdog) = (Vec::new(), Watchdog::over(nm));
    let error = loop {
        match nm.next_event() {
            Some(Event::Notifies(conn, batch)) if conn == id => reported.extend(payloads(&batch)),
            Some(Event::Lost(conn, error)) if conn == id => break error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reported, expected);
    assert!(nm.next_event().is_none(), "it ends without an idle event");
    assert_eq!(dead(nm), [id]);
    assert_eq!(format!("{:#}", nm.garbage().next().unwrap().1.error()), format!("{error:#}"));
    assert_eq!(ids(nm), []);
    error
}

fn two() -> Vec<Vec<u8>> {
    vec![msg::notification(7, "c", "one"), msg::notification(7, "c", "two")]
}

#[test]
fn m06_a_fatal_error_is_reported_after_the_pending_notifications() {
    let mut nm = everything_in_one_write([two(), vec![fatal()]].concat(), Step::close());
    assert_eq!(assert_received_then_lost(&mut nm, &["one", "two"]).sqlstate(), Some("57P01"));
}

#[test]
fn m06_an_unexpected_end_is_reported_after_the_pending_notifications() {
    let mut nm = everything_in_one_write(two(), Step::close());
    assert!(matches!(assert_received_then_lost(&mut nm, &["one", "two"]), Error::Disconnected));
}

#[test]
fn m06_a_reset_is_reported_after_the_pending_notifications() {
    let mut nm = everything_in_one_write(two(), Step::reset());
    assert!(matches!(assert_received_then_lost(&mut nm, &["one", "two"]), Error::Io { .. }));
}

#[test]
fn m06_the_warning_of_a_crash_is_the_cause() {
    let warning = msg::notice("WARNING", "57P02", "terminating connection because of crash of another server process");
    let mut nm = everything_in_one_write([two(), vec![warning]].concat(), Step::close());
    let error = assert_received_then_lost(&mut nm, &["one", "two"]);
    assert_eq!((error.sqlstate(), error.is_transient()), (Some("57P02"), true));
}

#[test]
fn m06_a_partial_frame_at_the_end_is_discarded() {
    let mut sent = two();
    sent.push(msg::notification(7, "c", "three")[..10].to_vec());
    let mut nm = everything_in_one_write(sent, Step::close());
    assert!(matches!(assert_received_then_lost(&mut nm, &["one", "two"]), Error::Disconnected));
}

#[test]
fn m06_more_notifications_than_fit_into_one_read_come_before_the_loss() {
    let mut fake = Fake::new();
    let (db, mut line) = fake.open();
    let there = line.flood();
    drop(line);
    let mut nm = NotificationManager::new([db]).timeout(LIMIT);
    let (received, idle) = until_end(&mut nm);
    assert_eq!((received.len(), idle, nm.garbage().count()), (there, 0, 1));
}

#[test]
fn m06_a_terminated_session_is_reported_after_the_pending_notifications() {
    let (channel, proxy) = (channel(), Proxy::start(([127, 0, 0, 1], server().port()).into()));
    let mut db = connect(&format!("postgres://postgres@{}/postgres", proxy.addr()));
    db.listen([&channel]).unwrap();
    let (pid, healthy) = (db.pid(), listener(&channel));
    let mut nm = NotificationManager::new([db, healthy]).timeout(LIMIT);
    let [lost, good] = ids(&nm)[..] else { panic!("two connections") };
    let before = proxy.bytes_from_server();
    open().notify(&channel, "pending").unwrap();
    until("the server has sent it", || proxy.bytes_from_server() > before);
    terminate(pid);

    let mut reported = Vec::new();
    while reported.len() < 3 {
        reported.push(match event(&mut nm).unwrap() {
            Event::Notifies(id, batch) => (id, payloads(&batch).concat()),
            Event::Lost(id, error) => (id, error.sqlstate().unwrap_or_default().to_owned()),
            other => panic!("{other:?}"),
        });
    }
    let of =
        |conn| reported.iter().filter(|(id, _)| *id == conn).map(|(_, result)| result.as_str()).collect::<Vec<_>>();
    assert_eq!(of(lost), ["pending", "57P01"]);
    assert_eq!(of(good), ["pending"]);
    assert_eq!((ids(&nm), dead(&nm)), (vec![good], vec![lost]));
}

#[test]
fn m06_a_connection_that_a_proxy_resets_moves_to_the_garbage() {
    let proxy = Proxy::start(([127, 0, 0, 1], server().port()).into());
    let channel = channel();
    let mut db = connect(&format!("postgres://postgres@{}/postgres", proxy.addr()));
    db.listen([&channel]).unwrap();
    let mut nm = NotificationManager::new([db]).timeout(Duration::from_millis(20));
    let id = ids(&nm)[0];
    open().notify(&channel, "before").unwrap();
    assert_eq!(receive(&mut nm, 1), [(id, "before".into())]);
    proxy.cut_rst();
    assert_eq!(until_end(&mut nm).0, []);
    let (_, dead) = nm.take_garbage().pop().unwrap();
    assert!(dead.error().is_transient(), "{dead:?}");
    assert_eq!(dead.channels(), [channel.into()]);
    assert_eq!(dead.config().get_ports(), [proxy.port()]);
    assert_eq!((nm.garbage().count(), nm.stats().garbage), (0, 0), "the garbage is empty");
}

#[test]
fn m06_connections_that_are_already_closed_move_to_the_garbage_in_the_first_turn() {
    let channel = channel();
    let mut closed = open();
    closed.close().unwrap();
    let mut with_pending = listener(&channel);
    with_pending.notify(&channel, "kept").unwrap();
    with_pending.query("select 1").unwrap();
    with_pending.close().unwrap();
    let mut terminated = open();
    terminate(terminated.pid());
    terminated.query("select 1").unwrap_err();
    assert!(terminated.is_closed());

    let mut nm = NotificationManager::new([closed, with_pending, terminated]).timeout(LIMIT);
    let all = ids(&nm);
    assert_eq!(until_end(&mut nm), (vec![(all[1], "kept".into())], 0));
    let causes: Vec<_> = nm.garbage().map(|(id, dead)| (id, dead.error().clone())).collect();
    assert_eq!(causes.len(), 3);
    for (id, error) in causes {
        match id == all[2] {
            true => assert_eq!(error.sqlstate(), Some("57P01")),
            false => assert!(matches!(error, Error::Closed), "{id}: {error}"),
        }
    }
}

#[test]
fn m06_when_a_server_stops_all_its_connections_move_to_the_garbage_with_the_cause() {
    // A fast shutdown, an immediate shutdown, and a killed postmaster.
    for (stop, code) in [
        (Cluster::stop as fn(&mut Cluster) -> _, Some("57P01")),
        (Cluster::stop_immediate, None),
        (Cluster::kill, Some("57P01")),
    ] {
        let mut cluster = Cluster::start(Options::new().max_connections(20)).unwrap();
        let connections = [(); 5].map(|()| {
            let mut db = connect(&cluster.url());
            db.listen(["c"]).unwrap();
            db
        });
        let pids = connections.each_ref().map(Connection::pid);
        let mut nm = NotificationManager::new(connections).timeout(LIMIT);
        let all = ids(&nm);
        connect(&cluster.url()).notify("c", "last").unwrap();
        let received = receive(&mut nm, 5);
        assert!(received.iter().all(|(_, payload)| payload == "last"));
        wait_until_idle(&cluster, pids);
        stop(&mut cluster).unwrap();

        let begin = Instant::now();
        assert_eq!(until_end(&mut nm), (vec![], 0));
        assert!(begin.elapsed() < LIMIT / 2);
        let mut garbage = nm.take_garbage();
        garbage.sort_by_key(|(id, _)| *id);
        assert_eq!(garbage.iter().map(|(id, _)| *id).collect::<Vec<_>>(), all);
        for (_, dead) in garbage {
            assert!(dead.error().is_transient(), "{dead:?}");
            match code {
                Some(code) => assert_eq!(dead.error().sqlstate(), Some(code), "{dead:?}"),
                // 57P01, 57P02 or 57P05, depending on the version.
                None => assert!(dead.error().sqlstate().is_some_and(|code| code.starts_with("57P0")), "{dead:?}"),
            }
        }
    }
}

#[test]
fn m07_when_the_last_connection_is_lost_the_iterator_ends_without_an_idle_event() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(2);
    let mut nm = NotificationManager::new(connections).timeout(LIMIT);
    let all = ids(&nm);
    lines[0].notify("first goes");
    drop(lines.remove(0));
    assert_eq!(receive(&mut nm, 1).len(), 1);
    lines[0].notify("last goes");
    drop(lines);
    let begin = Instant::now();
    assert_eq!(until_end(&mut nm), (vec![(all[1], "last goes".into())], 0));
    assert!(begin.elapsed() < LIMIT / 2);
    let mut dead = dead(&nm);
    dead.sort(); // the loss of the first may be reported later
    assert_eq!(dead, all);
}
