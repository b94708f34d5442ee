//! C11: no call exceeds its time limit, whatever the server does, and the error reports the connection's state correctly.

use std::time::{Duration, Instant};

use notifyman::{Connection, Error};

use crate::support::server::{LIMIT, PausedProcess, ask, config, connect, in_time, next, pairs, session, start, utf8};
use crate::support::{Options, Peer, Proxy, Step, cluster, msg};

const CALL: Duration = Duration::from_secs(1);

fn impatient(url: &str) -> Connection {
    Connection::connect(config(url).call_timeout(CALL)).unwrap()
}

/// Asserts that a call ends with a timeout within its limit. Returns `true` if the connection was closed.
fn times_out<T: std::fmt::Debug>(db: &mut Connection, call: impl FnOnce(&mut Connection) -> Result<T, Error>) -> bool {
    times_out_after(CALL, db, call)
}

fn times_out_after<T: std::fmt::Debug>(
    limit: Duration,
    db: &mut Connection,
    call: impl FnOnce(&mut Connection) -> Result<T, Error>,
) -> bool {
    let begin = Instant::now();
    let error = call(db).expect_err("a call that takes too long");
    assert!(begin.elapsed() >= limit, "{:?}", begin.elapsed());
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
    let Error::Timeout { closed, after, .. } = error else { panic!("{error}") };
    assert_eq!((closed, after), (db.is_closed(), limit));
    assert!(error.is_timeout() && error.is_transient());
    let state = if closed { "the connection is not open" } else { "the connection is still open" };
    assert!(format!("{error:#}").contains(state), "{error}");
    closed
}

fn cancelled() -> Vec<u8> {
    msg::error("ERROR", "57014", "canceling statement due to user request")
}

/// A scripted server whose session plays `before`, waits for the CancelRequest, and plays `after`.
fn cancelling(before: Vec<Step>, after: Vec<Step>) -> Peer {
    let (go, gate) = Step::gate();
    let reported = Step::run("release the session", move |_| {
        go.open();
        Ok(())
    });
    let session = [Step::startup(), Step::login_ok()].into_iter().chain(before).chain([gate]).chain(after);
    Peer::play_each(vec![session.collect(), vec![Step::expect_cancel(), reported]])
}

#[test]
fn c11_a_frozen_server_blocks_no_call() {
    type Call = fn(&mut Connection) -> Result<(), Error>;
    let calls: [Call; 8] = [
        |db| db.query("SELECT 1").map(drop),
        |db| db.execute("SELECT 1").map(drop),
        |db| db.listen(["c11"]),
        |db| db.unlisten(["c11"]),
        |db| db.unlisten_all(),
        |db| db.notify("c11", ""),
        |db| db.notify_many([("c11", "")]),
        |db| db.listening_channels().map(drop),
    ];
    std::thread::scope(|scope| {
        for call in calls {
            scope.spawn(move || {
                let mut db = impatient(&utf8().url());
                let _frozen = PausedProcess::session(&db);
                assert!(times_out(&mut db, call), "the CancelRequest is not answered");
                assert!(matches!(db.error(), Some(Error::Timeout { closed: true, .. })), "{:?}", db.error());
                assert!(matches!(call(&mut db), Err(Error::Timeout { .. })), "and so it stays");
                assert_eq!(db.wait(None).count(), 0);
            });
        }
    });
}

#[test]
fn c11_a_server_whose_processes_are_all_frozen_blocks_no_call() {
    let server = start(Options::new());
    let mut db = impatient(&server.url());
    let session = PausedProcess::session(&db);
    let postmaster = PausedProcess::process(server.pid().unwrap());
    assert!(times_out(&mut db, |db| db.query("SELECT 1")));
    drop((session, postmaster));
}

#[test]
fn c11_a_black_hole_blocks_no_call() {
    let proxy = Proxy::start(([127, 0, 0, 1], utf8().port()).into());
    let mut db = impatient(&format!("postgres://postgres@{}/postgres", proxy.addr()));
    proxy.black_hole();
    assert!(times_out(&mut db, |db| db.query("SELECT 1")));
}

#[test]
fn c11_a_slow_query_is_cancelled_and_the_connection_remains_usable() {
    in_time(|| {
        let mut db = session();
        db.set_call_timeout(Duration::from_secs(2));
        if times_out_after(Duration::from_secs(2), &mut db, |db| db.query("SELECT pg_sleep(600)")) {
            return false;
        }
        db.set_call_timeout(LIMIT);
        for n in 0..20 {
            assert_eq!(ask(&mut db, &format!("SELECT {n}")), n.to_string());
        }
        db.listen(["c11 after"]).is_ok()
    });
}

#[test]
fn c11_the_call_timeout_can_be_changed_and_removed() {
    let mut db = impatient(&utf8().url());
    assert_eq!(db.config().get_call_timeout(), Some(CALL));
    for limit in [None, Some(LIMIT), Some(Duration::MAX)] {
        db.set_call_timeout(limit);
        assert_eq!(db.query("SELECT pg_sleep(1.5)").unwrap().len(), 1);
    }
}

#[test]
fn c11_a_statement_timeout_is_reported_as_an_error_of_the_server() {
    let mut db = session();
    db.execute("SET statement_timeout = '50ms'").unwrap();
    let error = db.query("SELECT pg_sleep(60)").unwrap_err();
    assert_eq!(error.sqlstate(), Some("57014"), "the limit is the server's: {error}");
}

#[test]
fn c11_a_cancel_request_uses_a_separate_connection() {
    in_time(|| {
        let asked = vec![Step::expect_query("SELECT slow")];
        let peer = cancelling(asked, vec![Step::send([cancelled(), msg::ready(b'I')]), Step::serve()]);
        let mut db = impatient(&peer.url());
        if times_out(&mut db, |db| db.query("SELECT slow")) {
            return false;
        }
        db.set_call_timeout(LIMIT);
        assert!(db.execute("SELECT").is_ok());
        drop(db);
        peer.finish();
        true
    });
}

#[test]
fn c11_a_cancel_request_that_arrives_late_cancels_no_other_query() {
    let server = start(Options::new());
    let mut db = Connection::connect(config(&server.url()).call_timeout(Duration::from_secs(1))).unwrap();
    // The session answers while the CancelRequest is still in the server's backlog.
    let postmaster = PausedProcess::process(server.pid().unwrap());
    db.query("SELECT pg_sleep(1.3)").map(drop).unwrap_or_else(|error| assert!(error.is_timeout(), "{error}"));
    drop(postmaster);
    db.set_call_timeout(LIMIT);
    match db.query("SELECT pg_sleep(3)") {
        Ok(rows) => assert_eq!(rows.len(), 1),
        Err(error) => assert!(db.is_closed() && error.is_timeout(), "{error}"),
    }
}

#[test]
fn c11_an_answer_that_arrives_before_the_cancellation_counts() {
    in_time(|| {
        let done = [msg::row_description(&["x"]), msg::data_row(&[Some("7")]), msg::command_complete("SELECT 1")];
        let after = vec![Step::send(done), Step::send([msg::ready(b'I')]), Step::serve()];
        let peer = cancelling(vec![Step::expect_any_query()], after);
        let mut db = impatient(&peer.url());
        match db.query("SELECT x") {
            Err(error) if error.is_timeout() && db.is_closed() => return false,
            answer => assert_eq!(answer.unwrap()[0].get(0).as_deref(), Some("7")),
        }
        db.set_call_timeout(LIMIT);
        db.execute("SELECT").is_ok()
    });
}

#[test]
fn c11_a_timeout_never_leaves_the_stream_in_the_middle_of_a_frame() {
    let row = msg::data_row(&[Some("split by the timeout")]);
    let news = msg::notification(7, "a", "split too");
    let answer = [msg::row_description(&["x"]), msg::data_row(&[Some("right")]), msg::command_complete("SELECT 1")];
    let split_at = |partial: &Vec<u8>, cut: usize| {
        let mut before = vec![Step::expect_any_query()];
        before.push(Step::send([msg::row_description(&["x"]), msg::notification(7, "a", "whole")]));
        before.push(Step::send([&partial[..cut]]));
        let after = vec![
            Step::send([&partial[cut..]]),
            Step::send([cancelled(), msg::ready(b'I')]),
            Step::expect_query("SELECT next"),
            Step::send([&answer.concat(), &msg::ready(b'I')]),
            Step::expect_eof(),
        ];
        let peer = cancelling(before, after);
        let mut db = impatient(&peer.url());
        if times_out(&mut db, |db| db.query("SELECT slow")) {
            return false;
        }
        db.set_call_timeout(LIMIT);
        assert_eq!(ask(&mut db, "SELECT next"), "right");
        let received =
            if partial == &news { pairs([("a", "whole"), ("a", "split too")]) } else { pairs([("a", "whole")]) };
        assert_eq!(next(&mut db, received.len()), received);
        drop(db);
        peer.finish();
        true
    };
    for (partial, cut) in [(&row, 3), (&row, 11), (&news, 1), (&news, 8), (&news, news.len() - 1)] {
        in_time(|| split_at(partial, cut));
    }
}

#[test]
fn c11_a_limit_holds_while_the_answer_streams() {
    // Rows arrive faster than they are read, so the socket is never empty.
    let mut db = impatient(&utf8().url());
    let begin = Instant::now();
    let error = db.query("SELECT repeat('x', 1000) FROM generate_series(1, 100000000)").unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
}

/// A server that answers a query with these messages repeatedly until the client closes the connection.
fn babbling(message: &[u8]) -> Peer {
    let messages = message.repeat(1_000);
    let babble = Step::run("babble", move |wire| {
        while wire.write(&messages).is_ok() {}
        Ok(())
    });
    let script = vec![Step::startup(), Step::login_ok(), Step::expect_any_query(), babble];
    Peer::play_each(vec![script, vec![Step::expect_cancel()]])
}

#[test]
fn c11_a_server_that_never_stops_sending_is_abandoned_at_the_limit() {
    for message in
        [msg::notice("NOTICE", "00000", "and"), msg::parameter_status("TimeZone", "UTC"), msg::copy_data(b"x")]
    {
        let peer = babbling(&message);
        assert!(times_out(&mut impatient(&peer.url()), |db| db.query("SELECT 1")));
    }
}

#[test]
fn c11_a_call_ends_at_its_limit_under_a_flood_of_notifications_and_keeps_them() {
    let peer = babbling(&msg::notification(7, "a", ""));
    let mut db = impatient(&peer.url());
    let begin = Instant::now();
    let error = db.query("SELECT 1").unwrap_err();
    // A fast machine may reach the limit of kept notifications first.
    assert!(matches!(error, Error::Timeout { closed: true, .. } | Error::Overflow { .. }), "{error}");
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
    assert!(db.wait(None).flatten().count() > 0);
}

#[test]
fn c11_copy_from_stdin_is_refused_immediately() {
    let mut db = session();
    db.execute("CREATE TEMP TABLE c11 (x text)").unwrap();
    for sql in
        ["COPY c11 FROM STDIN", "SELECT 1; COPY c11 FROM STDIN; SELECT 2", "COPY c11 FROM STDIN; COPY c11 FROM STDIN"]
    {
        let error = db.query(sql).unwrap_err();
        assert_eq!(error.sqlstate(), Some("57014"), "{error}");
        assert!(format!("{error:#}").contains("COPY"), "{error}");
        assert_eq!(ask(&mut db, "SELECT count(*) FROM c11"), "0");
    }
}

#[test]
fn c11_copy_in_is_answered_with_copy_fail() {
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_any_query(),
        Step::send([msg::copy_in_response(1)]),
        Step::expect(b'f'),
        Step::send([msg::error("ERROR", "57014", "COPY from stdin failed"), msg::ready(b'I')]),
        Step::expect_eof(),
    ]);
    assert!(connect(&peer.url()).query("COPY t FROM STDIN").is_err());
    peer.finish();
}

#[test]
fn c11_a_server_that_repeats_copy_in_is_abandoned_at_the_limit() {
    let peer = babbling(&msg::copy_in_response(1));
    let mut db = connect(&peer.url());
    let error = db.query("COPY t FROM STDIN").unwrap_err();
    assert!(error.is_protocol() && db.is_closed(), "{error}");
}

#[test]
fn c11_copy_both_closes_the_connection() {
    let script = vec![Step::startup(), Step::login_ok(), Step::expect_any_query()];
    let both = vec![Step::send([msg::copy_both_response(1)]), Step::expect_eof()];
    let peer = Peer::play(script.into_iter().chain(both).collect());
    let mut db = connect(&peer.url());
    let error = db.query("START_REPLICATION").unwrap_err();
    assert!(error.is_protocol() && db.is_closed(), "{error}");
    drop(db);
    peer.finish();
}

#[test]
fn c11_a_session_that_ends_during_a_call_ends_the_call() {
    let mut db = session();
    let pid = db.pid().unsigned_abs();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        cluster::signal(pid, "TERM").unwrap();
    });
    let begin = Instant::now();
    let error = db.query("SELECT pg_sleep(600)").unwrap_err();
    killer.join().unwrap();
    assert_eq!(error.sqlstate(), Some("57P01"), "{error}");
    assert!(db.is_closed() && begin.elapsed() < LIMIT);
}
