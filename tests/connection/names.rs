//! C03 and C04: the limits of names and payloads, and their quoting.

use std::time::Duration;

use notifyman::{Connection, Error, NotificationManager};

use crate::support::Proxy;
use crate::support::server::{
    ask, config, connect, euc_jp, everything, latin1, next, pairs, pending, session, sql_ascii, utf8,
};

/// Names with every character that has a meaning in SQL.
const AWKWARD: [&str; 14] = [
    "c03 Foo",
    "c03 foo",
    "c03\"; DROP TABLE c03_table; --",
    "c03'; DROP TABLE c03_table; --",
    "c03 \\'; DROP TABLE c03_table; --",
    "c03\"\"",
    "c03 $$ $1 %s ?",
    "c03 /* comment",
    "c03\nnew\r\nline\ttab",
    "c03 日本語 ж é 🦀",
    "c03 \u{feff}\u{202e}",
    " c03 ",
    "c03;LISTEN \"c03 other\"",
    "*",
];

#[test]
fn c03_a_channel_keeps_its_case_and_cannot_carry_sql() {
    let (mut db, mut other) = (session(), session());
    db.execute("CREATE TABLE IF NOT EXISTS c03_table ()").unwrap();
    for standard in ["on", "off"] {
        for db in [&mut db, &mut other] {
            db.execute(&format!("SET standard_conforming_strings = {standard}")).unwrap();
            db.execute("SET backslash_quote = on").unwrap();
        }
        for name in AWKWARD {
            db.listen([name]).unwrap();
            assert_eq!(db.listening_channels().unwrap(), [name]);
            for (n, payload) in AWKWARD.into_iter().enumerate() {
                other.notify(AWKWARD[n], payload).unwrap();
            }
            assert_eq!(everything(&mut db), pairs([(name, name)]), "its own and no other");
            db.unlisten([name]).unwrap();
            assert_eq!(db.listening_channels().unwrap(), [""; 0]);
        }
        db.listen(AWKWARD).unwrap();
        other.notify_many(AWKWARD.map(|name| (name, name))).unwrap();
        assert_eq!(next(&mut db, AWKWARD.len()), pairs(AWKWARD.map(|name| (name, name))));
        db.unlisten_all().unwrap();
        assert_eq!(db.listening_channels().unwrap(), [""; 0]);
    }
    db.execute("SELECT FROM c03_table").unwrap();
}

#[test]
fn c03_a_channel_equals_a_quoted_name_in_sql() {
    let (mut db, mut other) = (session(), session());
    db.listen(["c03_Mixed"]).unwrap();
    other.execute("NOTIFY c03_Mixed, 'folded'").unwrap();
    other.execute("NOTIFY \"c03_Mixed\", 'quoted'").unwrap();
    assert_eq!(everything(&mut db), pairs([("c03_Mixed", "quoted")]));
}

#[test]
fn c03_a_search_path_cannot_replace_pg_notify() {
    let mut db = session();
    db.execute("CREATE SCHEMA c03_fake").unwrap();
    for name in ["pg_notify(text, text)", "pg_listening_channels()"] {
        let returns = if name.starts_with("pg_n") { "void" } else { "SETOF text" };
        let body = "$$BEGIN RAISE 'fake'; END$$";
        db.execute(&format!("CREATE FUNCTION c03_fake.{name} RETURNS {returns} LANGUAGE plpgsql AS {body}")).unwrap();
    }
    db.execute("SET search_path = c03_fake, pg_catalog").unwrap();
    db.listen(["c03 path"]).unwrap();
    db.notify("c03 path", "real").unwrap();
    assert_eq!(db.listening_channels().unwrap(), ["c03 path"]);
    assert_eq!(next(&mut db, 1), pairs([("c03 path", "real")]));
}

/// A session behind a proxy that counts bytes.
fn counted() -> (Proxy, Connection) {
    let proxy = Proxy::start(([127, 0, 0, 1], utf8().port()).into());
    let db = connect(&format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port()));
    (proxy, db)
}

#[test]
fn c04_names_and_payloads_of_maximum_length_work() {
    let mut db = session();
    let (long, wide, full) = ("c".repeat(63), "é".repeat(31) + "x", "p".repeat(7_999));
    db.listen([&long, &wide]).unwrap();
    assert_eq!(db.listening_channels().unwrap(), [long.as_str(), wide.as_str()]);
    db.notify(&long, &full).unwrap();
    db.notify(&wide, &("é".repeat(3_999) + "x")).unwrap();
    assert_eq!(next(&mut db, 2), [(long, full), (wide, "é".repeat(3_999) + "x")]);
    assert!(db.take_notices().is_empty(), "nothing was cut");
}

#[test]
fn c04_strings_that_are_too_long_or_contain_nul_are_refused_before_anything_is_sent() {
    let (proxy, mut db) = counted();
    db.listen(["c04 before"]).unwrap();
    let sent = proxy.bytes_from_client();
    let (long, wide) = ("c".repeat(64), "é".repeat(32));
    for (bad, limit) in [("", "63"), ("a\0b", "NUL"), ("\0", "NUL"), (&long, "63"), (&wide, "63")] {
        let errors = [
            db.listen([bad]).unwrap_err(),
            db.listen(["c04 fine", bad]).unwrap_err(),
            db.unlisten([bad]).unwrap_err(),
            db.notify(bad, "").unwrap_err(),
            db.notify_many([("c04 before", ""), (bad, "")]).unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, Error::Value(_)) && error.is_usage(), "{bad:?}: {error}");
            assert!(format!("{error:#}").contains(limit), "{bad:?}: {error}");
        }
    }
    let (long, wide) = ("p".repeat(8_000), "é".repeat(4_000));
    for (bad, limit) in [("a\0b", "NUL"), (long.as_str(), "7999"), (&wide, "7999")] {
        for error in [
            db.notify("c04 before", bad).unwrap_err(),
            db.notify_many([("c04 before", "fine"), ("c04 before", bad)]).unwrap_err(),
        ] {
            assert!(matches!(error, Error::Value(_)), "{error}");
            assert!(format!("{error:#}").contains(limit) && format!("{error:#}").len() < 300, "{error}");
        }
    }
    assert!(matches!(db.query("SELECT 1; \0 SELECT 2"), Err(Error::Value(_))));
    assert_eq!(proxy.bytes_from_client(), sent);
    assert!(!db.is_closed());
    assert_eq!(db.listening_channels().unwrap(), ["c04 before"]);
    assert!(pending(&mut db).is_empty());
}

#[test]
fn c04_one_name_too_long_refuses_the_whole_call() {
    let mut db = session();
    assert!(db.listen(["c04 first", &"c".repeat(64), "c04 last"]).is_err());
    assert!(db.listening_channels().unwrap().is_empty());
}

#[test]
fn c04_a_latin1_server_counts_a_character_as_a_byte() {
    let mut db = connect(&latin1().url());
    let name = "é".repeat(63);
    db.listen([&name]).unwrap();
    assert_eq!(db.listening_channels().unwrap(), [name.as_str()]);
    let payload = "é".repeat(7_999);
    db.notify(&name, &payload).unwrap();
    assert_eq!(next(&mut db, 1), [(name.clone(), payload)], "16 kB in the client");

    let error = db.notify(&name, "é".repeat(8_000)).unwrap_err();
    assert!(matches!(error, Error::Value(_)) || error.sqlstate() == Some("22023"), "{error}");
    assert!(db.notify("é".repeat(64), "").is_err());
    assert!(everything(&mut db).is_empty());
}

#[test]
fn c04_a_name_too_long_for_latin1_is_refused_by_its_characters() {
    let mut db = connect(&latin1().url());
    db.listen(["c04 kept"]).unwrap();
    for long in ["é".repeat(64), "é".repeat(63) + "x"] {
        let error = db.listen(["c04 new", &long]).unwrap_err();
        assert!(matches!(error, Error::Value(_)) && format!("{error:#}").contains("63"), "{error}");
    }
    assert_eq!(db.listening_channels().unwrap(), ["c04 kept"]);
}

// In EUC_JP a 日 has two bytes, in UTF-8 three. Only the server can report that it truncates a name.

#[test]
fn c04_a_name_that_the_server_truncates_is_not_listened_to() {
    let mut db = connect(&euc_jp().url());
    let fits = "日".repeat(31);
    db.listen(["c04 kept", &fits]).unwrap();
    let before = db.listening_channels().unwrap();
    assert_eq!(before, ["c04 kept", &fits]);
    for long in ["x".to_owned() + &"日".repeat(32), "本".repeat(32), "本".repeat(63)] {
        let error = db.listen(["c04 new", &long]).unwrap_err();
        assert!(matches!(error, Error::Value(_)) && format!("{error:#}").contains("63"), "{error}");
        assert!(db.take_notices().iter().any(|notice| notice.code() == "42622"), "the server's notice was received");
        assert_eq!(db.listening_channels().unwrap(), before);
    }
    db.notify(&fits, "日本").unwrap();
    assert_eq!(everything(&mut db), [(fits, "日本".to_owned())]);
}

#[test]
fn c04_a_name_that_the_server_would_truncate_is_refused_without_a_notice() {
    let mut db = Connection::connect(config(&euc_jp().url()).options("-c client_min_messages=error")).unwrap();
    let (fits, long) = ("é".repeat(21), "é".repeat(40));
    db.listen(["c04 kept", &fits]).unwrap();
    let before = db.listening_channels().unwrap();
    assert_eq!(before.len(), 2);
    for error in [db.listen(["c04 new", &long]).unwrap_err(), db.unlisten(["c04 kept", &long]).unwrap_err()] {
        assert!(matches!(error, Error::Value(_)) && format!("{error:#}").contains("63"), "{error}");
        assert_eq!(db.listening_channels().unwrap(), before, "including the name that it would be truncated to");
    }
    db.notify(&fits, "still").unwrap();
    assert_eq!(next(&mut db, 1), [(fits, "still".to_owned())]);

    // By a handle, and for a connection that is being opened.
    let mut nm = NotificationManager::new([db]);
    let id = nm.connections().next().unwrap().0;
    let mut ticket = nm.handle().listen(id, [&long]);
    nm.set_timeout(Duration::from_millis(20));
    let resolved = (0..200).find_map(|_| nm.next().and_then(|_| ticket.try_get()));
    assert!(matches!(resolved, Some(Err(Error::Value(_)))), "{resolved:?}");
    let many = Connection::connect_many([config(&euc_jp().url())]).listen([&long]).unwrap();
    assert!(many.into_iter().all(|(_, opened)| matches!(opened, Err(Error::Value(_)))));
}

#[test]
fn c04_a_truncated_name_that_equals_a_valid_one_does_not_unlisten_it() {
    let mut db = connect(&euc_jp().url());
    // Another test uses another character in the same database.
    let good = "語".repeat(31);
    db.listen([&good]).unwrap();
    assert!(db.listen([good.clone() + "語"]).is_err());
    assert_eq!(db.listening_channels().unwrap(), [good.as_str()]);
    db.notify(&good, "still").unwrap();
    assert_eq!(next(&mut db, 1), [(good, "still".to_owned())]);
}

#[test]
fn c04_a_notification_that_is_too_long_for_the_server_is_an_error_of_the_server() {
    let mut db = connect(&euc_jp().url());
    let error = db.notify("日".repeat(32), "").unwrap_err();
    assert_eq!(error.sqlstate(), Some("22023"), "{error}");
    let error = db.notify("c04", "日".repeat(4_000)).unwrap_err();
    assert_eq!(error.sqlstate(), Some("22023"), "{error}");
    db.listen(["c04 wide"]).unwrap();
    db.notify("c04 wide", "日".repeat(3_999)).unwrap();
    assert_eq!(everything(&mut db), [("c04 wide".to_owned(), "日".repeat(3_999))]);
}

#[test]
fn c04_a_sql_ascii_server_counts_the_clients_bytes() {
    let mut db = connect(&sql_ascii().url());
    let (name, payload) = ("é".repeat(31) + "x", "é".repeat(3_999) + "x");
    db.listen([&name]).unwrap();
    db.notify(&name, &payload).unwrap();
    assert_eq!(next(&mut db, 1), [(name.clone(), payload.clone())]);
    for error in [db.listen([name + "x"]).unwrap_err(), db.notify("c04", &(payload + "x")).unwrap_err()] {
        assert!(matches!(error, Error::Value(_)), "{error}");
    }
}

#[test]
fn c04_the_server_refuses_a_character_that_its_encoding_lacks() {
    let mut db = connect(&latin1().url());
    let error = db.listen(["c04 fine", "c04 ж"]).unwrap_err();
    assert_eq!(error.sqlstate(), Some("22P05"), "{error}");
    assert!(db.listening_channels().unwrap().is_empty(), "all or none");
    assert_eq!(ask(&mut db, "SELECT 1"), "1");
}
