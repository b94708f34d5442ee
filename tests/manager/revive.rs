//! Manual revival: the same id, the gap first, and no waiting.

use std::task::Poll;
use std::time::{Duration, Instant};

use notifyman::{Error, Event, NotificationManager};

use super::fake::Fake;
use super::support::*;
use crate::support::{Cluster, Options, Peer, Proxy, Step, msg};

/// Returns a manager whose only connection was terminated by the server, and its channel.
fn with_one_dead(timeout: Duration) -> (NotificationManager, String) {
    let channel = channel();
    let db = listener(&channel);
    let pid = db.pid();
    let mut nm = NotificationManager::new([db]).timeout(timeout);
    terminate(pid);
    assert_eq!(until_end(&mut nm).0, []);
    assert_eq!(nm.garbage().count(), 1);
    (nm, channel)
}

#[test]
fn m13_a_revived_connection_keeps_its_id_and_listens_to_its_channels() {
    let (mut nm, channel) = with_one_dead(LIMIT);
    let (id, dead) = nm.take_garbage().pop().unwrap();
    assert_eq!(nm.revive(id, dead), id);
    assert_eq!((nm.restoring().map(|(id, _)| id).collect::<Vec<_>>(), ids(&nm)), (vec![id], vec![]));
    assert!(nm.get(id).is_none() && nm.get_mut(id).is_none(), "it is being restored");

    let (conn, first) = batch(&mut nm);
    assert_eq!(conn, id);
    let gap = first.gap().expect("the first batch carries the gap");
    assert_eq!((gap.channels(), gap.epoch()), (&[channel.as_str().into()][..], 1));
    assert_eq!(gap.cause().sqlstate(), Some("57P01"));
    assert!(gap.since() < gap.until() && gap.since_wall() <= gap.until_wall());
    assert_eq!(gap.duration(), gap.until() - gap.since());
    assert_eq!((nm.restoring().count(), ids(&nm)), (0, vec![id]));

    open().notify(&channel, "again").unwrap();
    let (_, second) = batch(&mut nm);
    assert!(second.gap().is_none(), "the gap is reported once");
    assert_eq!(payloads(&second), ["again"]);
}

#[test]
fn m14_next_event_returns_the_gap_as_an_event_of_its_own() {
    let (mut nm, channel) = with_one_dead(LIMIT);
    for epoch in 1..=3 {
        let (id, dead) = nm.take_garbage().pop().unwrap();
        nm.revive(id, dead);
        let Some(Event::Restored(conn, gap)) = event(&mut nm) else { panic!("restored") };
        assert_eq!((conn, gap.epoch()), (id, epoch));
        open().notify(&channel, "received").unwrap();
        let Some(Event::Notifies(conn, batch)) = event(&mut nm) else { panic!("the notification") };
        assert_eq!((conn, payloads(&batch), batch.gap().is_some()), (id, vec!["received".into()], false));
        terminate(nm.get(id).unwrap().pid());
        assert!(matches!(event(&mut nm), Some(Event::Lost(conn, _)) if conn == id));
    }
    let stats = nm.stats();
    assert_eq!((stats.restores, stats.gaps, stats.losses), (3, 3, 4));
}

/// Returns a manager that revives a connection whose server sends these bytes before and after the acknowledgement of the
/// LISTEN.
fn restoring_with(before: Vec<Vec<u8>>, after: Vec<Vec<u8>>) -> (NotificationManager, Peer) {
    let listen = || Step::expect_query(r#"LISTEN "news""#);
    let acknowledged = || vec![msg::command_complete("LISTEN"), msg::ready(b'I')];
    let answer = [before, acknowledged(), after].concat();
    let first = vec![Step::startup(), Step::login_ok(), listen(), Step::send(acknowledged()), Step::close()];
    let second = vec![Step::startup(), Step::login_ok(), listen(), Step::send(answer), Step::serve()];
    let peer = Peer::play_each(vec![first, second]);
    let mut db = connect(&peer.url());
    db.listen(["news"]).unwrap();
    let mut nm = NotificationManager::new([db]).timeout(LIMIT);
    assert!(matches!(event(&mut nm), Some(Event::Lost(..))));
    let (id, dead) = nm.take_garbage().pop().unwrap();
    nm.revive(id, dead);
    (nm, peer)
}

fn news(text: &str) -> Vec<u8> {
    msg::notification(7, "news", text)
}

#[test]
fn m14_notifications_of_the_new_session_come_after_the_gap() {
    let (mut nm, _peer) = restoring_with(vec![news("before the answer")], vec![news("after the answer")]);
    let mut reported = Vec::new();
    while reported.len() < 2 {
        let (_, batch) = batch(&mut nm);
        assert_eq!(batch.gap().is_some(), reported.is_empty(), "the gap comes first, and once");
        reported.extend(payloads(&batch));
    }
    assert_eq!(reported, ["before the answer", "after the answer"]);
}

#[test]
fn m14_notifications_of_the_new_session_come_after_the_event() {
    let (mut nm, _peer) = restoring_with(vec![news("before the answer")], vec![news("after the answer")]);
    assert!(matches!(event(&mut nm), Some(Event::Restored(..))));
    assert_eq!(receive(&mut nm, 2).len(), 2);
}

#[test]
fn m14_a_session_that_ends_while_it_is_restored_reports_the_gap_and_its_notifications() {
    let fatal = msg::error("FATAL", "57P01", "terminating connection due to administrator command");
    let (mut nm, _peer) = restoring_with(vec![], vec![news("the last"), fatal]);
    let id = nm.restoring().map(|(id, _)| id).next().unwrap();
    let mut reported = Vec::new();
    while let Some(event) = event(&mut nm) {
        reported.push(match event {
            Event::Restored(conn, gap) if conn == id => format!("gap {}", gap.epoch()),
            Event::Notifies(conn, batch) if conn == id => payloads(&batch).concat(),
            Event::Lost(conn, error) if conn == id => error.sqlstate().unwrap_or("?").to_owned(),
            other => panic!("{other:?}"),
        });
    }
    // A session that ends before the loop polls it again may count as never restored.
    assert!(reported == ["gap 1", "the last", "57P01"] || reported == ["57P01"], "{reported:?}");
    assert_eq!(dead(&nm), [id]);
}

/// In some rounds the login arrives before the first poll has returned, and in others the loop has to wait.
#[test]
fn m13_no_answer_is_missed_however_fast_the_server_is() {
    let mut fake = Fake::new();
    let (db, line) = fake.open();
    drop(line);
    // Without a timeout there are no idle events, however long the test takes.
    let mut nm = NotificationManager::new([db]);
    let id = ids(&nm)[0];
    for round in 1..=1000 {
        assert!(matches!(event(&mut nm), Some(Event::Lost(..))));
        let (_, dead) = nm.take_garbage().pop().unwrap();
        nm.revive(id, dead);
        let mut line = None;
        until("it is restored", || match nm.try_next_event() {
            Poll::Ready(Some(Event::Restored(_, gap))) => gap.epoch() == round,
            Poll::Ready(other) => panic!("{other:?}"),
            Poll::Pending => {
                // The test does not sleep longer than the loop, either.
                line = line.take().or_else(|| fake.strays().pop());
                line.iter_mut().for_each(|(_, line)| _ = line.answer());
                false
            }
        });
    }
}

#[test]
fn m13_a_revival_that_fails_returns_to_the_garbage_with_the_new_error() {
    let proxy = Proxy::start(([127, 0, 0, 1], server().port()).into());
    let channel = channel();
    let mut db = connect(&format!("postgres://postgres@{}/postgres", proxy.addr()));
    db.listen([&channel]).unwrap();
    let mut nm = NotificationManager::new([db]).timeout(LIMIT);
    let id = ids(&nm)[0];
    proxy.refuse();
    proxy.cut_fin();
    assert!(matches!(event(&mut nm), Some(Event::Lost(conn, Error::Disconnected)) if conn == id));

    for _ in 0..2 {
        let (_, dead) = nm.take_garbage().pop().unwrap();
        assert_eq!(nm.revive(id, dead), id);
        assert!(matches!(event(&mut nm), Some(Event::Lost(conn, Error::Connect(_))) if conn == id));
        assert_eq!((nm.stats().losses, nm.stats().restores, nm.restoring().count()), (1, 0, 0));
        let (conn, dead) = nm.garbage().next().unwrap();
        assert!(conn == id && matches!(dead.error(), Error::Connect(_)) && dead.error().is_transient(), "{dead:?}");
        assert_eq!(dead.channels(), [channel.as_str().into()]);
        assert!(nm.next().is_none(), "only one attempt is made");
    }
    proxy.resume();
    let (_, dead) = nm.take_garbage().pop().unwrap();
    nm.revive(id, dead);
    assert!(matches!(event(&mut nm), Some(Event::Restored(conn, _)) if conn == id));
}

#[test]
fn m13_remove_cancels_a_revival_and_returns_the_dead() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], server().port()).into());
    let db = connect(&format!("postgres://postgres@{}/postgres", proxy.addr()));
    let mut nm = NotificationManager::new([db]).timeout(Duration::from_millis(10));
    proxy.set_upstream(silent.local_addr().unwrap());
    proxy.cut_fin();
    assert_eq!(until_end(&mut nm).0, []);
    let (id, dead) = nm.take_garbage().pop().unwrap();
    nm.revive(id, dead);
    for _ in 0..3 {
        assert!(matches!(nm.next(), Some(None)), "the iterator does not end during the restore");
    }
    let Some(Err(dead)) = nm.remove(id) else { panic!("a dead connection") };
    assert!(matches!(dead.error(), Error::Disconnected), "the first cause: {dead:?}");
    assert!(nm.remove(id).is_none());
    assert_eq!((nm.restoring().count(), nm.garbage().count(), nm.stats().restoring), (0, 0, 0));
    assert!(nm.next().is_none());
}

#[test]
fn m13_after_a_restart_of_the_server_all_connections_can_be_revived() {
    let mut cluster = Cluster::start(Options::new().max_connections(30)).unwrap();
    let connections = (0..10).map(|n| {
        let mut db = connect(&cluster.url());
        db.listen(["all".to_owned(), format!("of {n}")]).unwrap();
        db
    });
    let mut nm = NotificationManager::new(connections.collect::<Vec<_>>()).timeout(LIMIT);
    let all = ids(&nm);
    cluster.kill().unwrap();
    assert_eq!(until_end(&mut nm), (vec![], 0));
    cluster.restart().unwrap();

    for (id, dead) in nm.take_garbage() {
        nm.revive(id, dead);
    }
    assert_eq!(nm.restoring().map(|(id, _)| id).collect::<Vec<_>>(), all);
    let mut restored = Vec::new();
    while restored.len() < 10 {
        match event(&mut nm) {
            Some(Event::Restored(id, gap)) => restored.push((id, gap.channels().to_vec())),
            other => panic!("{other:?}"),
        }
    }
    restored.sort();
    for (n, (id, channels)) in restored.into_iter().enumerate() {
        assert_eq!((id, channels), (all[n], vec!["all".into(), format!("of {n}").into()]));
    }
    connect(&cluster.url()).notify("all", "hello").unwrap();
    let mut received = receive(&mut nm, 10);
    received.sort();
    assert_eq!(received, all.iter().map(|id| (*id, "hello".into())).collect::<Vec<_>>());
}

#[test]
fn m02_a_zero_timeout_advances_a_revival_without_waiting_for_it() {
    let (mut nm, _) = with_one_dead(Duration::ZERO);
    let (id, dead) = nm.take_garbage().pop().unwrap();
    nm.revive(id, dead);
    until("it is restored", || {
        if let Some(event) = nm.next_event() {
            assert!(matches!(event, Event::Restored(..)), "{event:?}");
            return true;
        }
        assert_eq!(nm.restoring().map(|(id, _)| id).collect::<Vec<_>>(), [id]);
        false
    });
    assert_eq!(ids(&nm), [id]);
}

#[test]
fn m13_a_revival_continues_when_its_host_name_is_resolved() {
    let channel = channel();
    let proxy = Proxy::start(([127, 0, 0, 1], server().port()).into());
    let config = format!("host=localhost port={} user=postgres dbname=postgres", proxy.port());
    for timeout in [None, Some(Duration::ZERO), Some(Duration::from_millis(10)), Some(LIMIT)] {
        let mut db = connect(&config);
        db.listen([&channel]).unwrap();
        let mut nm = NotificationManager::new([db]);
        proxy.cut_fin();
        assert_eq!(until_end(&mut nm).0, []);
        nm.set_timeout(timeout);
        let (id, dead) = nm.take_garbage().pop().unwrap();
        nm.revive(id, dead);
        let _watchdog = Watchdog::over(&nm);
        until("it is restored", || match nm.next_event() {
            Some(Event::Restored(conn, _)) => conn == id,
            Some(Event::Idle) => false,
            None if timeout == Some(Duration::ZERO) => false,
            other => panic!("{timeout:?}: {other:?}"),
        });
    }
}

#[test]
fn m13_a_connection_that_was_reconnected_manually_reports_its_gap_in_any_manager() {
    let (mut nm, channel) = with_one_dead(LIMIT);
    let (id, dead) = nm.take_garbage().pop().unwrap();
    let mut db = dead.reconnect().unwrap();
    assert_eq!(db.listening_channels().unwrap(), [channel.as_str()]);
    db.notify(&channel, "already received").unwrap();
    db.query("select 1").unwrap();
    let new = nm.insert(db);
    assert_ne!(new, id, "it is another connection");
    let (conn, batch) = batch(&mut nm);
    assert_eq!((conn, batch.gap().unwrap().epoch(), payloads(&batch)), (new, 1, vec!["already received".into()]));
}

#[test]
fn m13_a_failed_reconnect_can_be_repeated() {
    let mut cluster = Cluster::start(Options::new().max_connections(10)).unwrap();
    let mut nm = NotificationManager::new([connect(&cluster.url())]).timeout(LIMIT);
    cluster.stop().unwrap();
    assert_eq!(until_end(&mut nm).0, []);
    let (_, dead) = nm.take_garbage().pop().unwrap();
    assert!(dead.reconnect().unwrap_err().is_transient());
    assert_eq!(dead.error().sqlstate(), Some("57P01"));
    cluster.restart().unwrap();
    assert!(dead.reconnect().is_ok());
}

#[test]
fn m13_a_revival_with_a_used_or_unknown_id_gets_a_new_id() {
    let (mut nm, _) = with_one_dead(LIMIT);
    let (id, dead) = nm.take_garbage().pop().unwrap();
    let mut other = NotificationManager::new([]).timeout(LIMIT);
    let new = other.revive(id, dead);
    assert_eq!(new.number(), 1);
    assert!(matches!(event(&mut other), Some(Event::Restored(conn, _)) if conn == new));
    // In this manager, another connection has the id 1.
    let (mut third, _) = with_one_dead(LIMIT);
    let (id, dead) = third.take_garbage().pop().unwrap();
    assert_eq!(other.revive(id, dead).number(), 2);
}

#[test]
fn c12_a_transaction_left_open_is_reported() {
    let channel = channel();
    let mut nm = NotificationManager::new([listener(&channel)]).timeout(LIMIT);
    let id = ids(&nm)[0];
    nm.get_mut(id).unwrap().execute("begin").unwrap();
    assert!(matches!(event(&mut nm), Some(Event::InTransaction(conn)) if conn == id));
    assert_eq!(nm.stats().in_transaction, 1);
    open().notify(&channel, "kept back").unwrap();
    nm.get_mut(id).unwrap().execute("commit").unwrap();
    assert_eq!(receive(&mut nm, 1), [(id, "kept back".into())]);
    assert_eq!(nm.stats().in_transaction, 0);
    // A short transaction is not reported.
    nm.set_timeout(Duration::from_millis(1500));
    nm.get_mut(id).unwrap().execute("begin").unwrap();
    nm.get_mut(id).unwrap().execute("commit").unwrap();
    assert!(matches!(nm.next_event(), Some(Event::Idle)));
}

#[test]
fn c12_consecutive_transactions_are_not_reported_as_one_long_one() {
    let channel = channel();
    let mut nm = NotificationManager::new([listener(&channel)]).timeout(Duration::from_millis(100));
    let id = ids(&nm)[0];
    nm.get_mut(id).unwrap().execute("BEGIN").unwrap();
    let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut reported = 0;
    while begun.elapsed() < Duration::from_millis(2500) {
        nm.get_mut(id).unwrap().execute("COMMIT; BEGIN").unwrap();
        longest = longest.max(last.elapsed());
        last = Instant::now();
        reported += usize::from(matches!(nm.next_event(), Some(Event::InTransaction(_))));
    }
    // On a busy machine one of the transactions may have been long.
    assert!(reported == 0 || longest > Duration::from_millis(800), "{reported} reports, the longest took {longest:?}");
}

/// A connection with a gap and a notification behind it, neither of which has been reported.
fn with_a_gap() -> notifyman::Connection {
    let (mut nm, channel) = with_one_dead(LIMIT);
    let mut db = nm.take_garbage().pop().unwrap().1.reconnect().unwrap();
    db.notify(&channel, "behind the gap").unwrap();
    db.query("SELECT 1").unwrap();
    db
}

#[test]
fn m02_a_zero_timeout_yields_what_is_behind_a_gap_in_the_same_pass() {
    let mut nm = NotificationManager::new([with_a_gap()]).timeout(Duration::ZERO);
    let _watchdog = Watchdog::over(&nm);
    assert!(matches!(nm.next_event(), Some(Event::Restored(..))));
    assert!(matches!(nm.next_event(), Some(Event::Notifies(_, batch)) if payloads(&batch) == ["behind the gap"]));
    assert!(nm.next_event().is_none());
}

#[test]
fn m03_an_idle_event_comes_after_the_notifications_behind_a_gap() {
    let channel = channel();
    let mut tx = open();
    let mut nm = NotificationManager::new([listener(&channel)]).timeout(Duration::from_millis(100));
    let _watchdog = Watchdog::over(&nm);
    for payload in ["1", "2"] {
        tx.notify(&channel, payload).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        until("the notification arrives", || matches!(nm.next_event(), Some(Event::Notifies(..))));
    }
    // The idle event is due, and the sockets have been polled.
    nm.insert(with_a_gap());
    let is_idle = |event: &Option<Event>| matches!(event, Some(Event::Idle));
    let mut events = std::iter::from_fn(|| Some(nm.next_event()));
    assert!(matches!(events.by_ref().find(|event| !is_idle(event)), Some(Some(Event::Restored(..)))));
    assert!(matches!(events.next(), Some(Some(Event::Notifies(..)))), "directly behind the gap");
}

#[test]
fn m18_the_ticket_of_an_answered_request_resolves_to_the_answer_when_the_connection_is_removed() {
    let mut nm = NotificationManager::new([open()]).timeout(Duration::from_millis(10));
    let id = ids(&nm)[0];
    let mut ticket = nm.handle().query(id, "SELECT pg_sleep(0.3)");
    assert!(matches!(nm.next_event(), Some(Event::Idle)));
    nm.get_mut(id).unwrap().query("SELECT 1").unwrap();
    assert!(nm.remove(id).unwrap().is_ok());
    assert_eq!(ticket.try_get().unwrap().unwrap().len(), 1);
}
