//! C10: SQL_ASCII databases, whose bytes are in no particular encoding.

use notifyman::{Connection, Error, ProtocolError};

use crate::support::server::{ask, config, connect, next, pairs, session, sql_ascii};
use crate::support::{Peer, Step, msg};

#[test]
fn c10_a_sql_ascii_database_delivers_any_bytes_and_ends_no_session() {
    let (mut db, mut other) = (connect(&sql_ascii().url()), connect(&sql_ascii().url()));
    db.listen(["c10"]).unwrap();
    other.execute(r"SELECT pg_notify('c10', E'x\377\303(')").unwrap();
    other.notify("c10", "é").unwrap();
    let received: Vec<Vec<u8>> = db.wait(None).flatten().take(2).map(|n| n.payload_bytes().to_vec()).collect();
    assert_eq!(received, [&b"x\xff\xc3("[..], "é".as_bytes()]);
    assert_eq!(ask(&mut db, "SELECT 1"), "1");
    let rows = db.query(r"SELECT E'\377'").unwrap();
    assert_eq!(rows[0].get_bytes(0), Some(&b"\xff"[..]));
}

#[test]
fn c10_a_reset_does_not_change_the_encoding_of_a_sql_ascii_database() {
    let (mut db, mut other) = (connect(&sql_ascii().url()), connect(&sql_ascii().url()));
    for reset in ["DISCARD ALL", "RESET ALL", "BEGIN; SET client_encoding = 'UTF8'; ROLLBACK", "SET NAMES 'UTF8'"] {
        db.execute(reset).unwrap();
        db.listen(["c10 reset"]).unwrap();
        other.execute(r"SELECT pg_notify('c10 reset', E'\200')").unwrap();
        let n = db.wait(None).flatten().next().unwrap_or_else(|| panic!("{reset}: {:?}", db.error()));
        assert_eq!(n.payload_bytes(), b"\x80", "{reset}");
    }
}

#[test]
fn c10_an_invalid_byte_during_a_call_fails_neither_the_call_nor_the_notification() {
    let mut db = connect(&sql_ascii().url());
    db.listen(["c10 call"]).unwrap();
    assert_eq!(db.query(r"SELECT 'row' FROM (SELECT pg_notify('c10 call', E'\377')) AS sent").unwrap().len(), 1);
    db.notify("c10 call", "it's \\ 'é'").unwrap();
    let received: Vec<Vec<u8>> = db.wait(None).flatten().take(2).map(|n| n.payload_bytes().to_vec()).collect();
    assert_eq!(received, [&b"\xff"[..], "it's \\ 'é'".as_bytes()]);
}

#[test]
fn c10_only_a_sql_ascii_database_may_send_without_an_encoding() {
    let mut db = session();
    let error = db.execute("SET client_encoding = 'SQL_ASCII'").unwrap_err();
    assert!(matches!(error, Error::Protocol(ProtocolError::Encoding(_))), "{error}");
    let mut db = connect(&sql_ascii().url());
    for other in ["LATIN1", "SJIS", "BIG5"] {
        // A SQL_ASCII server cannot convert, and may refuse.
        let result = db.execute(&format!("SET client_encoding = '{other}'"));
        assert!(result.is_err() && db.is_closed(), "{other}");
        db = connect(&sql_ascii().url());
    }
}

#[test]
fn c10_a_refused_change_of_the_encoding_is_not_repeated() {
    let login = [msg::auth_ok(), msg::parameter_status("server_encoding", "SQL_ASCII"), msg::ready(b'I')];
    let refuse = || Step::send([msg::error("ERROR", "55P02", "not now"), msg::ready(b'I')]);
    let mut script = vec![Step::startup(), Step::send(login), Step::expect(b'Q'), refuse()];
    for _ in 0..2 {
        // The call, then one query each for the encoding and the channels.
        script.extend([
            Step::expect_query("LISTEN a"),
            refuse(),
            Step::expect(b'Q'),
            refuse(),
            Step::expect(b'Q'),
            refuse(),
        ]);
    }
    script.push(Step::expect_eof());
    let peer = Peer::play(script);
    let mut db = connect(&peer.url());
    for _ in 0..2 {
        assert_eq!(db.execute("LISTEN a").unwrap_err().sqlstate(), Some("55P02"));
    }
    drop(db);
    peer.finish();
}

#[test]
fn c10_a_session_is_ready_once_the_encoding_is_set() {
    let login = [
        msg::auth_ok(),
        msg::parameter_status("server_encoding", "SQL_ASCII"),
        msg::parameter_status("client_encoding", "UTF8"),
        msg::ready(b'I'),
    ];
    let done = [
        msg::parameter_status("client_encoding", "SQL_ASCII"),
        msg::command_complete("SET"),
        msg::ready(b'I'),
        msg::notification_bytes(7, b"a", b"\xff"),
    ];
    let peer = Peer::play(vec![
        Step::startup(),
        Step::send(login),
        Step::expect_query("SET client_encoding = 'SQL_ASCII'"),
        Step::send(done),
        Step::expect_eof(),
    ]);
    let mut db = Connection::connect(config(&peer.url())).unwrap();
    assert_eq!(next(&mut db, 1), pairs([("a", "\u{fffd}")]));
    drop(db);
    assert_eq!(
        peer.finish()[0].startup["client_encoding"],
        "UTF8",
        "the startup packet requests an encoding that is always safe"
    );
}
