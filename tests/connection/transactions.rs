//! C12: LISTEN in transactions and in raw SQL, and the workaround for a server bug.

use std::time::{Duration, Instant};

use notifyman::{Connection, NotificationManager, TransactionStatus};

use crate::support::server::{LIMIT, ask, connect, everything, pairs, session, terminate, utf8};
use crate::support::{Peer, Step, msg};

/// Returns the channels that the library would restore for a session: those of its `Dead`.
fn channels_to_restore(db: Connection) -> Vec<String> {
    let pid = db.pid();
    let mut manager = NotificationManager::new([db]);
    terminate(utf8(), pid);
    while manager.next().is_some() {}
    let (_, dead) = manager.take_garbage().remove(0);
    dead.channels().iter().map(|channel| channel.to_string()).collect()
}

#[test]
fn c12_listen_in_a_transaction_takes_effect_at_commit() {
    let (mut db, mut other) = (session(), session());
    db.execute("BEGIN").unwrap();
    assert_eq!(db.transaction_status(), TransactionStatus::InTransaction);
    db.listen(["c12 commit"]).unwrap();
    other.notify("c12 commit", "too early").unwrap();
    db.execute("COMMIT").unwrap();
    assert_eq!(db.transaction_status(), TransactionStatus::Idle);
    other.notify("c12 commit", "received").unwrap();
    assert_eq!(everything(&mut db), pairs([("c12 commit", "received")]));
    assert_eq!(channels_to_restore(db), ["c12 commit"]);
}

#[test]
fn c12_listen_in_a_transaction_that_is_rolled_back_has_no_effect() {
    let mut db = session();
    db.listen(["c12 kept", "c12 stays"]).unwrap();
    db.execute("BEGIN").unwrap();
    db.listen(["c12 undone"]).unwrap();
    db.unlisten(["c12 kept"]).unwrap();
    db.execute("ROLLBACK").unwrap();
    assert_eq!(db.listening_channels().unwrap(), ["c12 kept", "c12 stays"]);
    assert_eq!(channels_to_restore(db), ["c12 kept", "c12 stays"]);
}

#[test]
fn c12_without_a_commit_the_channels_do_not_change() {
    let mut db = session();
    db.listen(["c12 old"]).unwrap();
    db.execute("BEGIN").unwrap();
    db.listen(["c12 new"]).unwrap();
    db.unlisten(["c12 old"]).unwrap();
    assert_eq!(channels_to_restore(db), ["c12 old"]);
}

#[test]
fn c12_in_a_failed_transaction_the_servers_error_is_returned() {
    let mut db = session();
    db.execute("BEGIN").unwrap();
    assert_eq!(db.execute("SELECT 1/0").unwrap_err().sqlstate(), Some("22012"));
    assert_eq!(db.transaction_status(), TransactionStatus::Failed);
    for error in [
        db.listen(["c12 failed"]).unwrap_err(),
        db.unlisten_all().unwrap_err(),
        db.notify("c12 failed", "").unwrap_err(),
        db.listening_channels().unwrap_err(),
    ] {
        assert_eq!(error.sqlstate(), Some("25P02"), "{error}");
        assert!(!error.is_usage() && !error.is_protocol());
    }
    db.execute("ROLLBACK").unwrap();
    db.listen(["c12 afterwards"]).unwrap();
    assert_eq!(channels_to_restore(db), ["c12 afterwards"]);
}

#[test]
fn c12_listen_in_raw_sql_is_noticed() {
    for (sql, expected) in [
        (&["LISTEN c12_raw"][..], &["c12 api", "c12_raw"][..]),
        (&["listen C12_Raw; select 1"], &["c12 api", "c12_raw"]),
        (&["UNLISTEN \"c12 api\""], &[]),
        (&["LISTEN c12_raw", "UNLISTEN *"], &[]),
        (&["DISCARD ALL"], &[]),
        (&["discard all"], &[]),
        (&["BEGIN; LISTEN c12_raw; COMMIT"], &["c12 api", "c12_raw"]),
        (&["BEGIN; LISTEN c12_raw; ROLLBACK"], &["c12 api"]),
        (&["BEGIN", "LISTEN c12_raw", "COMMIT"], &["c12 api", "c12_raw"]),
        (
            &["BEGIN", "SAVEPOINT s", "LISTEN c12_raw", "ROLLBACK TO s", "LISTEN c12_other", "END"],
            &["c12 api", "c12_other"],
        ),
        (&["BEGIN", "UNLISTEN *", "ABORT"], &["c12 api"]),
        (&["DO $$BEGIN EXECUTE 'LISTEN c12_raw'; END$$"], &["c12 api", "c12_raw"]),
        (&["/* nothing */ SELECT 'LISTEN'"], &["c12 api"]),
    ] {
        let mut db = session();
        db.listen(["c12 api"]).unwrap();
        for sql in sql {
            db.execute(sql).unwrap();
        }
        assert_eq!(channels_to_restore(db), expected, "{sql:?}");
    }
}

#[test]
fn c12_a_transaction_that_was_left_open_delivers_when_it_ends() {
    let (mut db, mut other) = (session(), session());
    db.listen(["c12 open"]).unwrap();
    db.execute("BEGIN").unwrap();
    other.notify("c12 open", "meanwhile").unwrap();
    assert_eq!(ask(&mut db, "SELECT 1"), "1");
    assert_eq!(db.wait(Duration::ZERO).count(), 0, "the server holds it back");
    db.execute("COMMIT").unwrap();
    assert_eq!(everything(&mut db), pairs([("c12 open", "meanwhile")]));
}

#[test]
fn c12_a_managed_transaction_that_stays_open_is_reported() {
    let (mut stuck, fine) = (session(), session());
    stuck.execute("BEGIN").unwrap();
    let mut manager = NotificationManager::new([stuck, fine]).timeout(Duration::from_millis(200));
    let begin = Instant::now();
    let told_after = loop {
        assert!(manager.next().unwrap().is_none());
        if manager.stats().in_transaction > 0 {
            break begin.elapsed();
        }
        assert!(begin.elapsed() < LIMIT, "{:?}", manager.stats());
    };
    assert!(told_after >= Duration::from_secs(1), "{told_after:?}");
    assert_eq!(manager.stats().in_transaction, 1);
    let id = manager.connections().next().unwrap().0;
    manager.get_mut(id).unwrap().execute("ROLLBACK").unwrap();
    while manager.stats().in_transaction > 0 {
        assert!(manager.next().unwrap().is_none());
        assert!(begin.elapsed() < LIMIT);
    }
}

const BROKEN: &str = "could not access status of transaction 0";

#[test]
fn c12_a_listen_that_fails_with_58p01_is_retried_once() {
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_query("LISTEN \"a\";LISTEN \"b\""),
        Step::send([msg::error("ERROR", "58P01", BROKEN), msg::notification(7, "old", "kept"), msg::ready(b'I')]),
        Step::expect_query("SELECT pg_catalog.pg_notification_queue_usage()"),
        Step::send([msg::row_description(&["usage"]), msg::data_row(&[Some("0")])]),
        Step::send([msg::command_complete("SELECT 1"), msg::ready(b'I')]),
        Step::expect_query("LISTEN \"a\";LISTEN \"b\""),
        Step::send([msg::command_complete("LISTEN").repeat(2), msg::ready(b'I')]),
        Step::expect_eof(),
    ]);
    let mut db = connect(&peer.url());
    db.listen(["a", "b"]).unwrap();
    assert_eq!(db.wait(None).flatten().next().unwrap().payload(), "kept");
    drop(db);
    peer.finish();
}

#[test]
fn c12_a_listen_that_fails_with_58p01_twice_is_an_error() {
    let broken = || Step::send([msg::error("ERROR", "58P01", BROKEN), msg::ready(b'I')]);
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_any_query(),
        broken(),
        Step::expect_any_query(),
        broken(),
        Step::expect_query("LISTEN \"a\""),
        broken(),
        Step::expect_eof(),
    ]);
    let mut db = connect(&peer.url());
    let error = db.listen(["a"]).unwrap_err();
    assert_eq!(error.sqlstate(), Some("58P01"), "{error}");
    drop(db);
    peer.finish();
}

#[test]
fn c12_in_a_transaction_a_listen_that_fails_with_58p01_is_not_retried() {
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_query("BEGIN"),
        Step::send([msg::command_complete("BEGIN"), msg::ready(b'T')]),
        Step::expect_query("LISTEN \"a\""),
        Step::send([msg::error("ERROR", "58P01", BROKEN), msg::ready(b'E')]),
        Step::expect_eof(),
    ]);
    let mut db = connect(&peer.url());
    db.execute("BEGIN").unwrap();
    assert_eq!(db.listen(["a"]).unwrap_err().sqlstate(), Some("58P01"));
    assert_eq!(db.transaction_status(), TransactionStatus::Failed);
    drop(db);
    peer.finish();
}
