//! C08: notifications that arrive during other calls are kept, in order.

use notifyman::Connection;

use crate::support::server::{ask, connect, everything, next, pairs, pending, session, utf8};
use crate::support::{Peer, Proxy, Step, msg};

fn one(n: usize) -> Vec<u8> {
    msg::notification(7, "a", &n.to_string())
}

fn numbers(count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| ("a".to_owned(), n.to_string())).collect()
}

/// A server that answers any query with numbered notifications at every position at which one can arrive.
fn answer(n: usize) -> Step {
    Step::send([
        one(n),
        msg::row_description(&["x"]),
        one(n + 1),
        msg::data_row(&[Some("1")]),
        one(n + 2),
        msg::command_complete("SELECT 1"),
        one(n + 3),
        msg::ready(b'I'),
        one(n + 4),
    ])
}

fn answering(queries: usize) -> Peer {
    let mut script = vec![Step::startup(), Step::login_ok()];
    for n in 0..queries {
        script.extend([Step::expect_any_query(), answer(5 * n)]);
    }
    script.push(Step::expect_eof());
    Peer::play(script)
}

fn ask_in_every_way(db: &mut Connection) {
    assert_eq!(db.query("SELECT x").unwrap()[0].get(0).as_deref(), Some("1"));
    assert_eq!(db.execute("SELECT x").unwrap(), 1);
    db.listen(["a"]).unwrap();
    db.unlisten(["b"]).unwrap();
    db.unlisten_all().unwrap();
    db.notify("a", "").unwrap();
    db.notify_many([("a", "1"), ("a", "2")]).unwrap();
    assert_eq!(db.listening_channels().unwrap(), ["1"]);
}

#[test]
fn c08_notifications_during_any_call_are_kept_in_order() {
    let peer = answering(8);
    let mut db = connect(&peer.url());
    ask_in_every_way(&mut db);
    assert_eq!(next(&mut db, 40), numbers(40));
    drop(db);
    peer.finish();
}

#[test]
fn c08_the_division_of_the_stream_changes_nothing() {
    let peer = answering(8);
    let proxy = Proxy::start(peer.addr());
    proxy.one_byte_at_a_time();
    let mut db = connect(&format!("postgres://postgres@{}/postgres", proxy.addr()));
    ask_in_every_way(&mut db);
    assert_eq!(next(&mut db, 40), numbers(40));
}

#[test]
fn c08_a_notification_in_the_same_read_as_ready_for_query_is_returned_without_a_query() {
    let (go, gate) = Step::gate();
    let peer = Peer::play(vec![
        Step::startup(),
        Step::send([msg::login(), one(0)]),
        Step::expect_any_query(),
        Step::send([msg::command_complete("LISTEN"), msg::ready(b'I'), one(1)]),
        gate,
        Step::send([one(2)]),
        Step::expect_eof(),
    ]);
    let mut db = connect(&peer.url());
    db.listen(["a"]).unwrap();
    assert_eq!(next(&mut db, 2), numbers(2), "also one that came with the login");
    go.open();
    assert_eq!(next(&mut db, 1), numbers(3)[2..]);
}

#[test]
fn c08_a_manager_yields_notifications_that_arrived_before_the_insert() {
    let peer = answering(2);
    let mut db = connect(&peer.url());
    db.query("SELECT x").unwrap();
    let mut manager = notifyman::NotificationManager::new([db]);
    let (id, batch) = manager.next().unwrap().unwrap();
    let received: Vec<String> = batch.iter().map(|n| n.payload().into_owned()).collect();
    assert_eq!(received[..4], ["0", "1", "2", "3"]);
    let mut count = received.len();
    manager.get_mut(id).unwrap().query("SELECT x").unwrap();
    while count < 10 {
        count += manager.next().unwrap().unwrap().1.len();
    }
}

#[test]
fn c08_a_failed_call_loses_no_notification() {
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_any_query(),
        Step::send([one(0), msg::error("ERROR", "42601", "no"), one(1), msg::ready(b'I')]),
        Step::expect_eof(),
    ]);
    let mut db = connect(&peer.url());
    assert_eq!(db.query("nonsense").unwrap_err().sqlstate(), Some("42601"));
    assert_eq!(next(&mut db, 2), numbers(2));
}

#[test]
fn c08_a_real_server_interleaves_and_nothing_is_lost() {
    let mut db = session();
    db.listen(["c08 busy"]).unwrap();
    let sender = std::thread::spawn(|| {
        let mut other = connect(&utf8().url());
        (0..500).for_each(|n| other.notify("c08 busy", n.to_string()).unwrap());
    });
    let mut received = Vec::new();
    while !sender.is_finished() {
        assert_eq!(ask(&mut db, "SELECT 42"), "42");
        db.listen(["c08 other"]).unwrap();
        received.extend(pending(&mut db));
    }
    sender.join().unwrap();
    received.extend(everything(&mut db));
    let expected: Vec<_> = (0..500).map(|n| ("c08 busy".to_owned(), n.to_string())).collect();
    assert_eq!(received, expected);
}

#[test]
fn c08_a_notification_within_copy_data_is_not_lost() {
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_any_query(),
        Step::send([
            msg::copy_out_response(1),
            msg::copy_data(b"x\n"),
            one(0),
            msg::copy_data(&[b'y'; 100_000]),
            one(1),
            msg::copy_done(),
            msg::command_complete("COPY 2"),
            one(2),
            msg::ready(b'I'),
        ]),
        Step::expect_eof(),
    ]);
    let mut db = connect(&peer.url());
    assert_eq!(db.execute("COPY t TO STDOUT").unwrap(), 2);
    assert_eq!(next(&mut db, 3), numbers(3));

    let mut db = session();
    db.listen(["c08 copy"]).unwrap();
    db.notify("c08 copy", "before").unwrap();
    assert_eq!(db.execute("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 20000)) TO STDOUT").unwrap(), 20_000);
    assert_eq!(next(&mut db, 1), pairs([("c08 copy", "before")]));
}
