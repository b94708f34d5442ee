//! The tests of the predecessor for one connection, and its faults that they did not find.

use std::time::Duration;

use crate::support::server::{Pair, connect, eventually, everything, next, pair, pairs, pending, session};
use crate::support::{Peer, Step, msg};

const TICK: Duration = Duration::from_millis(50);

#[test]
fn c14_idle_events_and_notifications_alternate() {
    let (mut db, mut other) = (session(), session());
    db.listen(["old idle"]).unwrap();
    for round in 0..4 {
        let sent = format!("round {round}");
        assert!(db.wait(TICK).next().unwrap().is_none(), "idle before");
        other.notify("old idle", &sent).unwrap();
        // There may be idle events before the notification.
        let received = db.wait(TICK).flatten().next().unwrap();
        assert_eq!(pair(&received), ("old idle".to_owned(), sent));
        assert!(db.wait(TICK).next().unwrap().is_none(), "idle after");
    }
}

#[test]
fn c14_idle_and_notifications_in_one_loop() {
    let (mut db, mut other) = (session(), session());
    db.listen(["old loop"]).unwrap();
    let mut reported: Vec<Option<Pair>> = Vec::new();
    let mut sent = 0;
    for event in db.wait(TICK) {
        let event = event.as_ref().map(pair);
        // A late notification comes after idle events; their number does not matter.
        if event.is_some() || reported.last().is_none_or(Option::is_some) {
            reported.push(event.clone());
        }
        if event.is_none() && sent < 4 && reported.iter().flatten().count() == sent {
            other.notify("old loop", sent.to_string()).unwrap();
            sent += 1;
        } else if reported.iter().flatten().count() == 4 && reported.last().unwrap().is_none() {
            break;
        }
    }
    let received = pairs([("old loop", "0"), ("old loop", "1"), ("old loop", "2"), ("old loop", "3")]);
    let expected: Vec<Option<Pair>> = received.into_iter().flat_map(|pair| [None, Some(pair)]).chain([None]).collect();
    assert_eq!(reported, expected);
}

#[test]
fn c14_a_zero_timeout_yields_what_is_pending_and_ends() {
    let (mut db, mut other) = (session(), session());
    db.listen(["old zero"]).unwrap();
    assert!(pending(&mut db).is_empty());
    assert!(pending(&mut db).is_empty());
    other.notify_many([("old zero", "1"), ("old zero", "2")]).unwrap();
    let mut received = Vec::new();
    eventually("both are there", || {
        received.extend(pending(&mut db));
        received.len() >= 2
    });
    assert_eq!(received, pairs([("old zero", "1"), ("old zero", "2")]));
    assert!(pending(&mut db).is_empty());
}

#[test]
fn c07_listening_twice_and_unlistening_changes_the_list() {
    let mut db = session();
    db.listen(["old list"]).unwrap();
    db.listen(["old list"]).unwrap();
    assert_eq!(db.listening_channels().unwrap(), ["old list"]);
    db.listen(["old other"]).unwrap();
    assert_eq!(db.listening_channels().unwrap(), ["old list", "old other"]);
    db.unlisten(["old list"]).unwrap();
    assert_eq!(db.listening_channels().unwrap(), ["old other"]);
    db.unlisten(["old list"]).unwrap();
    db.unlisten(["old other"]).unwrap();
    assert!(db.listening_channels().unwrap().is_empty());
}

#[test]
fn c09_a_channel_that_was_listened_to_twice_delivers_once() {
    let mut db = session();
    db.listen(["old self"]).unwrap();
    db.listen(["old self", "old self"]).unwrap();
    db.notify("old self", "me").unwrap();
    let n = db.wait(None).flatten().next().unwrap();
    assert_eq!(n.pid(), db.pid());
    assert_eq!(pair(&n), ("old self".to_owned(), "me".to_owned()));
    assert!(everything(&mut db).is_empty());
}

#[test]
fn c09_payloads_of_every_form_are_delivered_in_order() {
    let long = "x".repeat(7_999);
    let payloads = [
        "",
        "text",
        " ",
        "'",
        "''",
        "\"quoted\"",
        "\\",
        "\\\\",
        "\\'; SELECT 1; --",
        "E'\\x41'",
        "one\ntwo\r\nthree\ttabbed",
        "unicode: é ß 日本語 🦀 \u{10ffff}",
        "{\"json\": [1, null, \"\\u0041\"]}",
        "$1 $$ %s ? :name",
        &long,
        "\u{1}\u{7f}",
        "last",
    ];
    let (mut db, mut other) = (session(), session());
    db.listen(["old forms"]).unwrap();
    other.execute("NOTIFY \"old forms\"").unwrap();
    for payload in payloads {
        other.notify("old forms", payload).unwrap();
    }
    other.notify_many(payloads.map(|payload| ("old forms", payload))).unwrap();
    let received: Vec<String> = next(&mut db, 1 + 2 * payloads.len()).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(received[0], "", "no payload equals an empty payload");
    assert_eq!(received[1..=payloads.len()], payloads);
    assert_eq!(received[1 + payloads.len()..], payloads);
}

// Faults of the predecessor, each observed with PostgreSQL 15.

#[test]
fn c14_a_zero_timeout_receives_notifications_of_other_sessions_without_a_query() {
    let (go, gate) = Step::gate();
    let (mark, here) = Step::mark();
    let sent = Step::send([msg::notification(7, "a", "x")]);
    let peer = Peer::play(vec![Step::startup(), Step::login_ok(), gate, sent, here, Step::expect_eof()]);
    let mut db = connect(&peer.url());
    assert!(pending(&mut db).is_empty());
    go.open();
    mark.wait();
    // The server has written it to the loopback interface, so it has arrived or will soon.
    eventually("it is seen", || !pending(&mut db).is_empty());
    drop(db);
    assert!(peer.finish()[0].queries().is_empty(), "nothing was asked for it");
}

#[test]
fn c09_equal_messages_in_one_read_are_not_dropped() {
    let (mut db, mut other) = (session(), session());
    db.listen(["old equal"]).unwrap();
    for _ in 0..3 {
        other.notify("old equal", "same").unwrap();
    }
    assert_eq!(everything(&mut db), vec![("old equal".to_owned(), "same".to_owned()); 3]);
}

#[test]
fn c08_a_notification_in_the_same_read_as_ready_for_query_is_not_stuck() {
    let mut db = session();
    // It arrives with the answer to the query that sends it.
    db.listen(["old stuck"]).unwrap();
    db.notify("old stuck", "pending").unwrap();
    let mut received = pending(&mut db);
    if received.is_empty() {
        // Before version 14, a server sends it shortly after the answer.
        received = next(&mut db, 1);
    }
    assert_eq!(received, pairs([("old stuck", "pending")]));
}

#[test]
fn c03_a_name_in_capitals_keeps_its_case() {
    let mut db = session();
    db.listen(["OldCase"]).unwrap();
    db.notify("OldCase", "1").unwrap();
    db.notify("oldcase", "2").unwrap();
    assert_eq!(everything(&mut db), pairs([("OldCase", "1")]));
}

#[test]
fn c10_bytes_that_are_not_utf8_cause_no_permanent_error() {
    let (go, gate) = Step::gate();
    let sent = [msg::notification_bytes(7, b"a", b"\xff"), msg::notification(7, "a", "next")];
    let peer = Peer::play(vec![Step::startup(), Step::login_ok(), gate, Step::send(sent), Step::expect_eof()]);
    let mut db = connect(&peer.url());
    go.open();
    assert_eq!(next(&mut db, 2), pairs([("a", "\u{fffd}"), ("a", "next")]));
}
