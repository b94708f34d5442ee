//! C13 and C16: the end of a connection by the client or by the server, and the server's notices.

use std::time::{Duration, Instant};

use notifyman::{Connection, Error};

use crate::support::server::{
    LIMIT, PausedProcess, ask, config, connect, eventually, next, pairs, session, start, terminate, utf8,
    wait_until_idle,
};
use crate::support::{Cluster, Options, Peer, Step, cluster, msg};

/// Reads exactly one Terminate, and then the end.
fn expect_terminate() -> Step {
    Step::run("Terminate", |wire| match (wire.read_message()?, wire.read_message()?) {
        (Some((b'X', body)), None) if body.is_empty() => Ok(()),
        other => Err(format!("got {other:?}")),
    })
}

#[test]
fn c13_close_sends_terminate_once() {
    let peer = Peer::play_each((0..2).map(|_| vec![Step::startup(), Step::login_ok(), expect_terminate()]).collect());
    let mut db = connect(&peer.url());
    db.close().unwrap();
    db.close().unwrap();
    assert!(db.is_closed() && matches!(db.error(), Some(Error::Closed)));
    assert!(matches!(db.query("SELECT 1"), Err(Error::Closed)));
    drop(db);
    drop(connect(&peer.url()));
    peer.finish();
}

#[test]
fn c13_the_server_ends_a_session_that_was_closed_or_dropped() {
    let mut other = session();
    for close in [|mut db: Connection| db.close().unwrap(), drop] {
        let db = session();
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {}", db.pid());
        assert_eq!(ask(&mut other, &sql), "1");
        close(db);
        eventually("the session has gone", || ask(&mut other, &sql) == "0");
    }
    assert!(!utf8().log().contains("unexpected EOF"));
}

#[test]
fn c13_close_reports_why_the_connection_was_closed_before() {
    let mut db = session();
    terminate(utf8(), db.pid());
    assert_eq!(db.wait(None).count(), 0);
    assert_eq!(db.close().unwrap_err().sqlstate(), Some("57P01"));
}

#[test]
fn c13_pending_notifications_can_be_taken_after_a_close() {
    let peer = Peer::play(vec![
        Step::startup(),
        Step::send([msg::login(), msg::notification(7, "a", "x")]),
        Step::expect_any_query(),
        Step::send([msg::notification(7, "a", "y"), msg::command_complete("SELECT"), msg::ready(b'I')]),
        expect_terminate(),
    ]);
    let mut db = connect(&peer.url());
    db.query("SELECT").unwrap();
    db.close().unwrap();
    assert_eq!(db.wait(None).flatten().count(), 2);
}

#[test]
fn c13_dropping_never_waits_for_a_server_that_does_not_read() {
    let (done, gate) = Step::gate();
    let script = || vec![Step::startup(), Step::login_ok()];
    let peer = Peer::play_each(vec![script().into_iter().chain([gate]).collect(), vec![Step::expect_cancel()]]);
    let mut db = Connection::connect(config(&peer.url()).call_timeout(Duration::from_millis(200))).unwrap();
    // More than the sockets' buffers hold, so neither the rest nor Terminate can be sent.
    let begin = Instant::now();
    let error = db.execute(&format!("SELECT '{}'", "x".repeat(64 << 20))).unwrap_err();
    assert!(matches!(error, Error::Timeout { closed: true, .. }), "{error}");
    drop(db);
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
    done.open();
}

#[test]
fn c13_dropping_and_closing_never_wait_for_a_frozen_server() {
    for close in [|mut db: Connection| drop(db.close()), drop] {
        let db = session();
        let _frozen = PausedProcess::session(&db);
        let begin = Instant::now();
        close(db);
        assert!(begin.elapsed() < LIMIT / 4, "{:?}", begin.elapsed());
    }
}

#[test]
fn c13_dropping_after_the_peer_has_closed_does_not_panic() {
    for end in [Step::close, Step::reset] {
        let peer = Peer::play(vec![Step::startup(), Step::login_ok(), end()]);
        let mut db = connect(&peer.url());
        peer.finish();
        let _ = db.close();
        drop(db);
    }
}

#[test]
fn c16_notices_are_taken_once_in_order() {
    let mut db = session();
    db.take_notices();
    db.execute("DO $$BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING HINT = 'h', DETAIL = 'd'; END$$").unwrap();
    let notices = db.take_notices();
    let reported: Vec<_> = notices.iter().map(|n| (n.severity(), n.code(), n.message())).collect();
    assert_eq!(reported, [("NOTICE", "00000", "one"), ("WARNING", "01000", "two")]);
    assert_eq!((notices[1].detail(), notices[1].hint()), (Some("d"), Some("h")));
    assert!(db.take_notices().is_empty());
}

#[test]
fn c16_the_latest_notices_are_kept() {
    let mut db = session();
    db.execute("DO $$BEGIN FOR i IN 1..1000 LOOP RAISE NOTICE '%', i; END LOOP; END$$").unwrap();
    let notices = db.take_notices();
    assert!((1..=64).contains(&notices.len()), "{}", notices.len());
    assert_eq!(notices.last().unwrap().message(), "1000");
}

#[test]
fn c16_a_long_notice_is_truncated() {
    let mut db = session();
    db.execute("DO $$BEGIN RAISE NOTICE '%', repeat('x', 10000000); END$$").unwrap();
    let notices = db.take_notices();
    assert_eq!(notices[0].code(), "00000");
    assert!((1_000..1_000_000).contains(&notices[0].message().len()));
    assert_eq!(ask(&mut db, "SELECT 1"), "1");
}

#[test]
fn c16_a_notice_to_an_idle_session_is_kept() {
    let (go, gate) = Step::gate();
    let sent = [msg::notice("WARNING", "01000", "by the way"), msg::notification(7, "a", "x")];
    let peer = Peer::play(vec![Step::startup(), Step::login_ok(), gate, Step::send(sent), Step::expect_eof()]);
    let mut db = connect(&peer.url());
    go.open();
    assert_eq!(next(&mut db, 1), pairs([("a", "x")]));
    assert_eq!(db.take_notices()[0].message(), "by the way");
}

/// Two sessions of a separate server, of which the second listens.
fn two() -> (Cluster, Connection, Connection) {
    let server = start(Options::new());
    let (one, mut other) = (connect(&server.url()), connect(&server.url()));
    other.listen(["c16"]).unwrap();
    (server, one, other)
}

#[test]
fn c16_the_warning_of_a_crash_is_the_cause_of_the_loss() {
    let (server, mut victim, mut other) = two();
    other.notify("c16", "last").unwrap();
    wait_until_idle(&server, [victim.pid(), other.pid()]);
    cluster::signal(victim.pid().unsigned_abs(), "KILL").unwrap();
    assert_eq!(other.wait(None).flatten().count(), 1, "pending notifications are yielded before the loss");
    let error = other.error().unwrap();
    assert_eq!(error.sqlstate(), Some("57P02"), "{error}");
    assert!(error.is_transient());
    assert_eq!(error.server().unwrap().severity(), "WARNING");
    // The killed backend could not send a message.
    assert_eq!(victim.wait(None).count(), 0);
    assert!(matches!(victim.error(), Some(Error::Disconnected | Error::Io { .. })), "{:?}", victim.error());
    assert!(victim.error().unwrap().is_transient());
}

#[test]
fn c16_an_immediate_and_a_fast_shutdown_give_the_cause() {
    for (stop, severity) in [(Cluster::stop as fn(&mut Cluster) -> _, "FATAL"), (Cluster::stop_immediate, "WARNING")] {
        let (mut server, mut one, mut other) = two();
        wait_until_idle(&server, [one.pid(), other.pid()]);
        stop(&mut server).unwrap();
        for db in [&mut one, &mut other] {
            assert_eq!(db.wait(None).count(), 0);
            // 57P01 or 57P02, depending on the server's version.
            let error = db.error().unwrap();
            assert!(error.sqlstate().is_some_and(|code| code.starts_with("57P0")), "{error}");
            assert_eq!(error.server().unwrap().severity(), severity, "{error}");
        }
        let mut manager = notifyman::NotificationManager::new([one, other]);
        assert!(manager.next().is_none());
        let garbage = manager.take_garbage();
        assert_eq!(garbage.len(), 2);
        assert!(garbage.iter().all(|(_, dead)| dead.error().server().unwrap().severity() == severity));
    }
}

#[test]
fn c16_a_warning_before_a_reset_is_the_cause_of_the_loss() {
    let (go, gate) = Step::gate();
    let warning = msg::notice("WARNING", "57P02", "terminating connection because of crash");
    let script = vec![Step::startup(), Step::login_ok(), Step::send([warning]), gate, Step::reset()];
    let peer = Peer::play(script);
    let mut db = connect(&peer.url());
    go.open();
    assert_eq!(db.wait(None).count(), 0);
    assert_eq!(db.error().unwrap().sqlstate(), Some("57P02"), "{:?}", db.error());
}
