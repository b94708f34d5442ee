//! C14 and C15: `wait` without a timeout, with one, and with a zero timeout; and continuing where a loop stopped.

use std::time::{Duration, Instant};

use notifyman::{Connection, Error, NotificationManager};

use crate::support::server::{LIMIT, Pair, connect, eventually, next, pair, pairs, pending, session, terminate, utf8};
use crate::support::{Peer, Proxy, Step, msg};

const TICK: Duration = Duration::from_millis(100);

#[test]
fn c14_without_a_timeout_there_are_only_notifications() {
    let mut db = session();
    db.listen(["c14 ever"]).unwrap();
    let sender = std::thread::spawn(|| {
        let mut other = session();
        for n in 0..3 {
            std::thread::sleep(TICK);
            other.notify("c14 ever", n.to_string()).unwrap();
        }
    });
    let received: Vec<String> =
        db.wait(None).take(3).map(|event| event.expect("no idle").payload().into_owned()).collect();
    assert_eq!(received, ["0", "1", "2"]);
    sender.join().unwrap();
}

#[test]
fn c14_with_a_timeout_idle_events_come_and_are_never_early() {
    let mut db = session();
    let begin = Instant::now();
    for (n, event) in db.wait(TICK).take(5).enumerate() {
        assert!(event.is_none());
        assert!(begin.elapsed() >= TICK * (n as u32 + 1), "{n}: {:?}", begin.elapsed());
    }
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
}

#[test]
fn c14_idle_events_come_under_a_steady_stream() {
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::run("a stream without an end", |wire| {
            // Ends when the client closes the connection.
            while wire.write(&msg::notification(7, "a", "x").repeat(100)).is_ok() {}
            Ok(())
        }),
    ]);
    let mut db = connect(&peer.url());
    let begin = Instant::now();
    let (mut idle, mut received) = (0, 0);
    for event in db.wait(TICK) {
        match event {
            Some(_) => received += 1,
            None => idle += 1,
        }
        if idle == 3 {
            break;
        }
        assert!(begin.elapsed() < LIMIT, "{idle} idle events among {received} notifications");
    }
    assert!(received > 0);
}

#[test]
fn c14_a_zero_timeout_reads_the_socket_and_ends() {
    let mut db = session();
    db.listen(["c14 zero"]).unwrap();
    assert_eq!(db.wait(Duration::ZERO).count(), 0);
    session().notify("c14 zero", "from another session").unwrap();
    let mut received = Vec::new();
    eventually("a wait of zero alone has brought it", || {
        received.extend(pending(&mut db));
        !received.is_empty()
    });
    assert_eq!(received, pairs([("c14 zero", "from another session")]));
    assert_eq!(db.wait(Duration::ZERO).count(), 0, "and no idle event");
}

#[test]
fn c14_a_poll_returns_what_is_pending_and_then_the_end_as_an_error() {
    let (mark, here) = Step::mark();
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::send([msg::notification(7, "a", "1"), msg::notification(7, "a", "2")]),
        Step::send([msg::error("FATAL", "57P01", "terminating connection")]),
        here,
    ]);
    let mut db = connect(&peer.url());
    mark.wait();
    let mut received = Vec::new();
    let mut reason = None;
    eventually("the end is an error", || {
        match db.poll() {
            Ok(pending) => received.extend(pending.iter().map(|n| n.payload().into_owned())),
            Err(error) => reason = Some(error),
        }
        reason.is_some()
    });
    assert_eq!(received, ["1", "2"]);
    assert_eq!(reason.unwrap().sqlstate(), Some("57P01"));
    assert_eq!(db.poll().unwrap_err().sqlstate(), Some("57P01"), "each time");
}

#[test]
fn c14_a_poll_reads_the_socket_although_a_pass_was_left() {
    let (first, here) = Step::mark();
    let (go, gate) = Step::gate();
    let (second, there) = Step::mark();
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::send([msg::notification(7, "a", "1")]),
        here,
        gate,
        Step::send([msg::notification(7, "a", "2")]),
        there,
        Step::expect_eof(),
    ]);
    let mut db = connect(&peer.url());
    first.wait();
    // The pass is left at its last item, and has nothing more to read.
    assert_eq!(db.wait(Duration::ZERO).flatten().next().unwrap().payload(), "1");
    go.open();
    second.wait();
    let received: Vec<_> = db.poll().unwrap().iter().map(|n| n.payload().into_owned()).collect();
    assert_eq!(received, ["2"], "one call is enough");
}

#[test]
fn c14_a_zero_timeout_yields_everything_pending() {
    let (mark, here) = Step::mark();
    let many: Vec<u8> = (0..50_000).flat_map(|n: u32| msg::notification(7, "a", &n.to_string())).collect();
    let peer = Peer::play(vec![Step::startup(), Step::login_ok(), Step::send([many]), here, Step::expect_eof()]);
    // The peer can write everything only if the client reads meanwhile, or if it fits into the sockets' buffers.
    let mut db = connect(&peer.url());
    mark.wait();
    let received = pending(&mut db);
    assert_eq!(received.len(), 50_000);
    assert!(received.iter().enumerate().all(|(n, (_, payload))| *payload == n.to_string()));
}

#[test]
fn c14_a_zero_timeout_ends_under_a_steady_stream() {
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::run("a stream without an end", |wire| {
            while wire.write(&msg::notification(7, "a", &"x".repeat(7_000)).repeat(100)).is_ok() {}
            Ok(())
        }),
    ]);
    let mut db = connect(&peer.url());
    for _ in 0..3 {
        let size: usize = db.wait(Duration::ZERO).flatten().map(|n| n.payload_bytes().len()).sum();
        assert!(size < 40 << 20, "{size}");
    }
}

/// Waits until a session that is not being iterated has received the notifications sent.
fn arrived() {
    std::thread::sleep(Duration::from_millis(50));
}

#[test]
fn c14_a_zero_timeout_ends_although_the_body_notifies() {
    let (mut db, mut other) = (session(), session());
    db.listen(["c14 body"]).unwrap();
    other.notify_many([("c14 body", "1"), ("c14 body", "2")]).unwrap();
    let mut passes: Vec<Vec<String>> = Vec::new();
    eventually("three passes have received notifications", || {
        let mut received = Vec::new();
        for n in db.wait(Duration::ZERO).flatten() {
            received.push(n.payload().into_owned());
            other.notify("c14 body", format!("{}+", n.payload())).unwrap();
            arrived();
        }
        passes.extend((!received.is_empty()).then_some(received));
        passes.len() == 3
    });
    assert_eq!(passes, [["1", "2"], ["1+", "2+"], ["1++", "2++"]]);
}

#[test]
fn c15_a_pass_of_a_zero_timeout_that_was_left_is_continued_and_then_ends() {
    let (mut db, mut other) = (session(), session());
    db.listen(["c15 pass"]).unwrap();
    other.notify_many([("c15 pass", "1"), ("c15 pass", "2")]).unwrap();
    let first = |db: &mut Connection| {
        db.wait(Duration::ZERO).next().map(|event| event.expect("no idle event").payload().into_owned())
    };
    eventually("the first has come", || first(&mut db).as_deref() == Some("1"));
    other.notify("c15 pass", "3").unwrap();
    arrived();
    assert_eq!(first(&mut db).as_deref(), Some("2"));
    assert_eq!(first(&mut db), None, "later notifications are for the next pass");
    assert_eq!(first(&mut db).as_deref(), Some("3"));
    assert_eq!(first(&mut db), None);
    // A connection that notifies itself at each step also reaches the end.
    db.notify("c15 pass", "0").unwrap();
    let mut received = 0;
    while first(&mut db).is_some() {
        received += 1;
        db.notify("c15 pass", received.to_string()).unwrap();
    }
    assert_eq!(received, 1);
    // With another timeout there are no passes.
    assert_eq!(db.wait(None).next().flatten().unwrap().payload(), "1");
}

#[test]
fn c14_the_iterator_ends_with_the_connection_after_everything_pending() {
    for timeout in [None, Some(LIMIT), Some(Duration::ZERO)] {
        let mut db = session();
        db.listen(["c14 end"]).unwrap();
        db.notify("c14 end", "last").unwrap();
        terminate(utf8(), db.pid());
        let mut received: Vec<Pair> = Vec::new();
        eventually("it has ended", || {
            received.extend(db.wait(timeout).map(|event| pair(&event.expect("no idle"))));
            db.is_closed()
        });
        assert_eq!(received, pairs([("c14 end", "last")]), "{timeout:?}");
        assert_eq!(db.error().unwrap().sqlstate(), Some("57P01"), "{timeout:?}");
        assert_eq!(db.wait(timeout).count(), 0, "for good");
    }
}

#[test]
fn c14_error_returns_the_reason_of_the_end() {
    let mut db = session();
    db.close().unwrap();
    assert_eq!(db.wait(None).count(), 0);
    assert!(matches!(db.error(), Some(Error::Closed)));

    let proxy = Proxy::start(([127, 0, 0, 1], utf8().port()).into());
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let (mut fin, mut rst) = (connect(&url), connect(&url));
    assert!(fin.error().is_none());
    proxy.cut_fin();
    assert_eq!(fin.wait(None).count(), 0);
    assert!(matches!(fin.error(), Some(Error::Disconnected)), "{:?}", fin.error());
    assert_eq!(rst.wait(None).count(), 0);

    rst = connect(&url);
    proxy.cut_rst();
    assert_eq!(rst.wait(None).count(), 0);
    assert!(matches!(rst.error(), Some(Error::Io { .. })), "{:?}", rst.error());
}

/// A peer that sends fifty notifications, and pauses within each of the last three.
fn fifty() -> (Peer, Vec<Pair>) {
    let expected: Vec<Pair> = (0..50).map(|n| ("a".to_owned(), format!("{n} {}", "x".repeat(n * 20)))).collect();
    let bytes: Vec<u8> =
        expected.iter().flat_map(|(channel, payload)| msg::notification(7, channel, payload)).collect();
    let mut script = vec![Step::startup(), Step::login_ok()];
    script.extend(bytes.chunks(997).map(|chunk| Step::send([chunk])));
    script.push(Step::expect_eof());
    (Peer::play(script), expected)
}

#[test]
fn c15_breaking_out_at_any_point_loses_nothing() {
    let (peer, expected) = fifty();
    let mut db = connect(&peer.url());
    let mut received = Vec::new();
    for at_once in (1..).take_while(|n| n * (n - 1) / 2 < 50) {
        let left = 50 - received.len();
        received.extend(next(&mut db, at_once.min(left)));
        received.extend(db.wait(Duration::ZERO).flatten().take(1).map(|n| pair(&n)));
    }
    assert_eq!(received, expected);
}

#[test]
fn c15_a_wait_continues_where_one_of_another_kind_stopped() {
    let (peer, expected) = fifty();
    let mut db = connect(&peer.url());
    let mut received: Vec<Pair> = Vec::new();
    for timeout in [None, Some(LIMIT), Some(Duration::MAX), Some(Duration::ZERO)].into_iter().cycle() {
        let left = 50 - received.len();
        received.extend(db.wait(timeout).flatten().take(left.min(3)).map(|n| pair(&n)));
        if received.len() == 50 {
            break;
        }
    }
    assert_eq!(received, expected);
}

#[test]
fn c15_pending_notifications_are_kept_in_and_out_of_a_manager() {
    let (peer, expected) = fifty();
    let mut db = connect(&peer.url());
    let mut received = next(&mut db, 7);
    let mut manager = NotificationManager::new([db]);
    let (id, batch) = manager.next().unwrap().unwrap();
    received.extend(batch.iter().map(|n| (n.channel().into_owned(), n.payload().into_owned())));
    let mut db: Connection = manager.remove(id).unwrap().unwrap();
    received.extend(next(&mut db, 50 - received.len()));
    assert_eq!(received, expected);
}

#[test]
fn c15_a_wait_that_is_not_iterated_consumes_nothing() {
    let mut db = session();
    db.listen(["c15"]).unwrap();
    db.notify("c15", "kept").unwrap();
    drop(db.wait(None));
    let waiting = db.wait(None);
    assert!(!waiting.connection().is_closed());
    drop(waiting);
    assert_eq!(next(&mut db, 1), pairs([("c15", "kept")]));
}
