//! C18: SQL that each new session executes before it listens.

use std::time::Duration;

use notifyman::{Backoff, Config, Connection, Error, Event, NotificationManager};

use crate::support::server::{ask, config, connect, eventually, refused, session, sql_ascii, terminate, utf8};
use crate::support::{Peer, Step, msg};

const SQL: &str = "SET lock_timeout = '77s'";
const SHOW: &str = "SHOW lock_timeout";

fn prepared() -> Config {
    config(&utf8().url()).after_connect(SQL)
}

/// A session that executes the SQL with this answer.
fn script(answer: &[Vec<u8>]) -> Vec<Step> {
    vec![Step::startup(), Step::login_ok(), Step::expect_query(SQL), Step::send(answer.to_vec())]
}

fn done() -> [Vec<u8>; 2] {
    [msg::command_complete("SET"), msg::ready(b'I')]
}

#[test]
fn c18_it_is_executed_by_every_way_to_connect() {
    let mut db = Connection::connect(prepared()).unwrap();
    assert_eq!(ask(&mut db, SHOW), "77s");
    let many = Connection::connect_many([prepared(), prepared()]).listen(["c18"]).unwrap();
    for (_, db) in many {
        assert_eq!(ask(&mut db.unwrap(), SHOW), "77s");
    }
    // In a manager, also after a loss, and by a `Dead`.
    let mut nm = NotificationManager::new([]).reconnect(Backoff::default().first(Duration::from_millis(5)));
    let id = nm.dial(prepared(), ["c18"]).unwrap();
    assert!(matches!(nm.next_event(), Some(Event::Opened(_))));
    let shown =
        |nm: &mut NotificationManager| nm.get_mut(id).unwrap().query(SHOW).unwrap()[0].get(0).unwrap().into_owned();
    assert_eq!(shown(&mut nm), "77s");
    terminate(utf8(), nm.get(id).unwrap().pid());
    assert!(matches!(nm.next_event(), Some(Event::Disconnected(..))));
    assert!(matches!(nm.next_event(), Some(Event::Restored(..))));
    assert_eq!(shown(&mut nm), "77s");

    let mut nm = NotificationManager::new([Connection::connect(prepared()).unwrap()]);
    let pid = nm.connections().next().unwrap().1.pid();
    terminate(utf8(), pid);
    assert!(matches!(nm.next_event(), Some(Event::Lost(..))));
    let (_, dead) = nm.take_garbage().remove(0);
    assert_eq!(ask(&mut dead.reconnect().unwrap(), SHOW), "77s");
}

#[test]
fn c18_it_comes_before_the_channels_are_listened_to_again() {
    let listen =
        || [Step::expect_query("LISTEN \"a\""), Step::send([msg::command_complete("LISTEN"), msg::ready(b'I')])];
    let first = script(&done()).into_iter().chain(listen()).chain([Step::close()]).collect();
    let second = script(&done()).into_iter().chain(listen()).chain([Step::serve()]).collect();
    let peer = Peer::play_each(vec![first, second]);
    let mut nm = NotificationManager::new([]).reconnect(Backoff::default().first(Duration::from_millis(5)));
    nm.dial(config(&peer.url()).after_connect(SQL), ["a"]).unwrap();
    assert!(matches!(nm.next_event(), Some(Event::Opened(_))));
    assert!(matches!(nm.next_event(), Some(Event::Disconnected(..))));
    assert!(matches!(nm.next_event(), Some(Event::Restored(..))));
    drop(nm);
    peer.finish();
}

#[test]
fn c18_sql_that_fails_fails_the_attempt() {
    let refused = |sql: &str| {
        let error = refused(config(&utf8().url()).after_connect(sql));
        let Error::Connect(failed) = &error else { panic!("{error}") };
        assert!(!error.is_auth() && !error.is_usage(), "{error}");
        (failed.cause().clone(), format!("{error:#}"), error.sqlstate().unwrap_or_default().to_owned())
    };
    let (cause, text, code) = refused("SELEC 1");
    assert!(
        matches!(cause, Error::AfterConnect(_)) && text.contains("the SQL of after_connect failed: ERROR"),
        "{text}"
    );
    assert_eq!(code, "42601");
    for unusable in ["COPY pg_class FROM STDIN", "SELECT 1/0"] {
        assert!(matches!(refused(unusable).0, Error::AfterConnect(_)), "{unusable}");
    }
    for open in ["BEGIN", "BEGIN; SELECT 1"] {
        let (cause, text, _) = refused(open);
        assert!(matches!(cause, Error::LeftInTransaction) && text.contains("end it with COMMIT"), "{text}");
    }
    let (cause, text, _) = refused("SET client_encoding = 'LATIN1'");
    assert!(matches!(cause, Error::AfterConnect(_)) && text.contains("client_encoding to \"LATIN1\""), "{text}");
    Connection::connect(config(&utf8().url()).after_connect("BEGIN; SELECT 1; COMMIT")).unwrap();
}

#[test]
fn c18_a_database_without_an_encoding_keeps_its_own() {
    let sql = "SET client_encoding = 'UTF8'";
    let mut db = Connection::connect(config(&sql_ascii().url()).after_connect(sql)).unwrap();
    assert_eq!(ask(&mut db, "SHOW client_encoding"), "SQL_ASCII");
}

#[test]
fn c18_sql_that_takes_too_long_fails_the_attempt_after_the_call_timeout() {
    let limit = Duration::from_millis(300);
    let slow = |url: &str, sql: &str| {
        let error = refused(config(url).connect_timeout(None).call_timeout(limit).after_connect(sql));
        assert!(error.is_timeout() && error.is_transient(), "{error}");
        assert!(format!("{error:#}").contains("the SQL of after_connect failed: executing it took longer"), "{error}");
    };
    slow(&utf8().url(), "SELECT pg_sleep(60)");
    let session = vec![Step::startup(), Step::login_ok(), Step::expect_query(SQL), Step::expect(b'X')];
    let peer = Peer::play_each(vec![session, vec![Step::expect_cancel()]]);
    slow(&peer.url(), SQL);
    peer.finish();
    // The limit of the connection attempt does not apply to it.
    let config = config(&utf8().url()).connect_timeout(Duration::from_secs(1)).after_connect("SELECT pg_sleep(1.5)");
    Connection::connect(config).unwrap();
}

#[test]
fn c18_sql_that_takes_too_long_is_cancelled() {
    let mut observer = connect(&utf8().url());
    let mut is_over = |sleep: &str| {
        let running =
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query = ";
        eventually("the SQL is cancelled", || ask(&mut observer, &format!("{running}'{sleep}'")) == "0");
    };
    let with = |sleep: &str| config(&utf8().url()).call_timeout(Duration::from_millis(200)).after_connect(sleep);
    let sleep = "SELECT pg_sleep(301)";
    assert!(refused(with(sleep)).is_timeout());
    is_over(sleep);

    let sleep = "SELECT pg_sleep(302)";
    let mut nm = NotificationManager::new([]);
    nm.dial(with(sleep), ["a"]).unwrap();
    let Some(Event::Lost(_, error)) = nm.next_event() else { panic!("{nm:?}") };
    assert!(error.is_timeout(), "{error:#}");
    is_over(sleep);

    let sleep = "SELECT pg_sleep(303)";
    let (_, result) = Connection::connect_many([with(sleep)]).next().unwrap();
    assert!(result.unwrap_err().is_timeout());
    is_over(sleep);
}

#[test]
fn c18_the_next_host_is_tried() {
    let broken = Peer::play(script(&[msg::error("ERROR", "42704", "no such parameter"), msg::ready(b'I')]));
    let good = Peer::play(script(&done()).into_iter().chain([Step::expect_eof()]).collect());
    let (one, other) = (broken.addr().port(), good.addr().port());
    let both = config(&format!("host=127.0.0.1,127.0.0.1 port={one},{other} user=app sslmode=disable"));
    let mut db = Connection::connect(both.after_connect(SQL)).unwrap();
    db.close().unwrap();
    good.finish();
}

#[test]
fn c18_a_manager_tries_again_after_sql_that_failed() {
    session().execute("CREATE TABLE IF NOT EXISTS c18_count (n int)").unwrap();
    let sql = "DO $$ BEGIN IF (SELECT count(*) FROM c18_count) < 1 THEN RAISE 'not yet'; END IF; END $$";
    let mut nm = NotificationManager::new([]).reconnect(Backoff::default().first(Duration::from_millis(5)));
    nm.dial(config(&utf8().url()).after_connect(sql), ["c18"]).unwrap();
    let event = nm.next_event();
    assert!(
        matches!(&event, Some(Event::Disconnected(_, error)) if format!("{error:#}").contains("not yet")),
        "{event:?}"
    );
    session().execute("INSERT INTO c18_count VALUES (1)").unwrap();
    assert!(matches!(nm.next_event(), Some(Event::Opened(_))));
}

#[test]
fn c18_a_channel_that_it_listens_to_is_received() {
    let mut db = Connection::connect(config(&utf8().url()).after_connect("LISTEN \"c18 own\"")).unwrap();
    connect(&utf8().url()).notify("c18 own", "1").unwrap();
    eventually("it arrives", || !db.poll().unwrap().is_empty());
}

#[test]
fn c18_the_text_is_checked_and_not_shown() {
    let error = refused(config(&utf8().url()).after_connect("SELECT 'a\0'"));
    assert!(error.is_usage() && format!("{error:#}").contains("after_connect contains a NUL"), "{error}");
    let shown = format!("{:?}", config("").after_connect("SELECT login('s3cr3t')"));
    assert!(shown.contains("after_connect: Some(***)") && !shown.contains("s3cr3t"), "{shown}");
    assert_ne!(config("").after_connect("SELECT 1"), config(""));
}
