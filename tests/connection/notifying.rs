//! C06, C09 and C10: notifications are sent singly and together, and all of them are delivered, with any bytes.

use crate::support::server::{connect, everything, latin1, next, pairs, session};
use crate::support::{Peer, Step, msg};

#[test]
fn c06_many_notifications_are_one_statement_in_order() {
    let peer = Peer::play(vec![Step::startup(), Step::login_ok(), Step::serve()]);
    let mut db = connect(&peer.url());
    db.notify_many((0..1_000).map(|n| ("c06", n.to_string()))).unwrap();
    drop(db);
    let queries = peer.finish()[0].queries();
    assert_eq!(queries.len(), 1);
    assert!(!queries[0].contains(';'), "one statement");

    let (mut db, mut other) = (session(), session());
    let sent: Vec<(String, String)> =
        (0..10_000).map(|n| (format!("c06 {}", n % 3), format!("{n} {}", "x".repeat(n % 50)))).collect();
    db.listen(["c06 0", "c06 1", "c06 2"]).unwrap();
    other.notify_many(sent.iter().map(|(channel, payload)| (channel, payload))).unwrap();
    assert_eq!(next(&mut db, sent.len()), sent);
}

#[test]
fn c06_one_invalid_pair_sends_nothing() {
    let mut db = session();
    db.listen(["c06 all"]).unwrap();
    let long = "p".repeat(8_000);
    assert!(db.notify_many([("c06 all", "1"), ("c06 all", &long), ("c06 all", "3")]).is_err());
    assert!(db.notify_many([("c06 all", "1"), ("", "2")]).is_err());
    assert!(everything(&mut db).is_empty());
    db.notify_many([("c06 all", "1"), ("c06 all", "2")]).unwrap();
    assert_eq!(everything(&mut db), pairs([("c06 all", "1"), ("c06 all", "2")]));

    // A pair that only the server can refuse.
    let mut db = connect(&latin1().url());
    db.listen(["c06 all"]).unwrap();
    let error = db.notify_many([("c06 all", "1"), ("c06 all", "ж")]).unwrap_err();
    assert_eq!(error.sqlstate(), Some("22P05"), "{error}");
    assert!(everything(&mut db).is_empty());
}

#[test]
fn c06_the_server_folds_equal_pairs_of_one_call() {
    let mut db = session();
    db.listen(["c06 x", "c06 y"]).unwrap();
    db.notify_many([("c06 x", "a"), ("c06 y", "a"), ("c06 x", "a"), ("c06 x", "b"), ("c06 y", "a")]).unwrap();
    assert_eq!(everything(&mut db), pairs([("c06 x", "a"), ("c06 y", "a"), ("c06 x", "b")]));
}

#[test]
fn c06_notifications_in_a_transaction_are_sent_at_commit() {
    let mut db = session();
    db.listen(["c06 in"]).unwrap();
    for (end, received) in [("ROLLBACK", vec![]), ("COMMIT", pairs([("c06 in", "1"), ("c06 in", "2")]))] {
        db.execute("BEGIN").unwrap();
        db.notify("c06 in", "1").unwrap();
        db.notify_many([("c06 in", "2")]).unwrap();
        db.execute(end).unwrap();
        assert_eq!(everything(&mut db), received, "{end}");
    }
}

#[test]
fn c09_equal_notifications_of_different_transactions_are_all_delivered() {
    let (mut db, mut other) = (session(), session());
    db.listen(["c09"]).unwrap();
    for n in 0..20 {
        if n % 2 == 0 { &mut other } else { &mut db }.notify("c09", "equal").unwrap();
    }
    assert_eq!(everything(&mut db), vec![("c09".to_owned(), "equal".to_owned()); 20]);
}

#[test]
fn c09_equal_notifications_in_one_read_are_all_delivered() {
    let three = msg::notification(7, "a", "equal").repeat(3);
    let (go, gate) = Step::gate();
    let peer = Peer::play(vec![Step::startup(), Step::login_ok(), gate, Step::send([three]), Step::expect_eof()]);
    let mut db = connect(&peer.url());
    go.open();
    assert_eq!(next(&mut db, 3), vec![("a".to_owned(), "equal".to_owned()); 3]);
}

#[test]
fn c09_a_notification_has_the_pid_of_its_sender() {
    let (mut db, mut other) = (session(), session());
    db.listen(["c09 pid"]).unwrap();
    other.notify("c09 pid", "").unwrap();
    let n = db.wait(None).flatten().next().unwrap();
    assert_eq!((n.pid(), n.channel().as_ref(), n.payload().as_ref()), (other.pid(), "c09 pid", ""));
}

#[test]
fn c10_bytes_that_are_not_utf8_are_delivered_unchanged() {
    let (go, gate) = Step::gate();
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        gate,
        Step::send([
            msg::notification_bytes(7, b"\xffa\xfe", b"x\xc3(\x80"),
            msg::notification_bytes(7, b"nul", b"before\0after"),
            msg::notification(7, "fine", "é"),
        ]),
        Step::expect_eof(),
    ]);
    let mut db = connect(&peer.url());
    go.open();
    let received: Vec<_> = db.wait(None).flatten().take(3).collect();
    assert_eq!((received[0].channel_bytes(), received[0].payload_bytes()), (&b"\xffa\xfe"[..], &b"x\xc3(\x80"[..]));
    assert_eq!(
        (received[0].channel().as_ref(), received[0].payload().as_ref()),
        ("\u{fffd}a\u{fffd}", "x\u{fffd}(\u{fffd}")
    );
    assert!(received[0].payload_str().is_err());
    assert_eq!(received[1].payload_bytes(), b"before\0after");
    assert_eq!(received[2].payload_str(), Ok("é"));
    assert!(!db.is_closed());
}
