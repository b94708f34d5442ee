//! C05 and C07: many channels in one call, and the channels that the server reports.

use crate::support::server::{ask, connect, everything, pairs, session, utf8};
use crate::support::{Peer, Proxy, Step, msg};

#[test]
fn c05_many_channels_take_one_round_trip() {
    let names: Vec<String> = (0..300).map(|n| format!("c05_{n}")).collect();
    let sql = |command: &str| names.iter().map(|name| format!("{command} \"{name}\"")).collect::<Vec<_>>().join(";");
    let done = |tag: &str| Step::send([msg::command_complete(tag).repeat(300), msg::ready(b'I')]);
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_query(&sql("LISTEN")),
        done("LISTEN"),
        Step::expect_query(&sql("UNLISTEN")),
        done("UNLISTEN"),
        Step::expect_eof(),
    ]);
    let mut db = connect(&peer.url());
    db.listen(&names).unwrap();
    db.unlisten(names).unwrap();
    drop(db);
    peer.finish();
}

#[test]
fn c05_a_thousand_channels_are_all_listened_to() {
    let mut db = session();
    let mut names: Vec<String> = (0..1_000).map(|n| format!("c05 thousand {n}")).collect();
    db.listen(&names).unwrap();
    names.sort();
    assert_eq!(db.listening_channels().unwrap(), names);
    db.unlisten(names.iter().skip(1)).unwrap();
    assert_eq!(db.listening_channels().unwrap(), names[..1]);
}

#[test]
fn c05_an_error_for_one_channel_listens_to_none() {
    let mut script = vec![Step::startup(), Step::login_ok(), Step::expect_any_query()];
    script.push(Step::send([
        msg::command_complete("LISTEN"),
        msg::error("ERROR", "53200", "out of memory"),
        msg::ready(b'I'),
    ]));
    script
        .extend([Step::expect_query("LISTEN \"c\""), Step::send([msg::command_complete("LISTEN"), msg::ready(b'I')])]);
    let (mark, here) = Step::mark();
    script.extend([here, Step::close()]);
    let peer = Peer::play(script);
    let mut db = connect(&peer.url());
    assert_eq!(db.listen(["a", "b"]).unwrap_err().sqlstate(), Some("53200"));
    db.listen(["c"]).unwrap();
    mark.wait();
    // A manager would restore the channels that the library knows.
    let mut manager = notifyman::NotificationManager::new([db]);
    assert!(manager.next().is_none());
    assert_eq!(manager.take_garbage().remove(0).1.channels(), ["c".into()]);
}

#[test]
fn c05_listening_twice_is_harmless_and_delivers_once() {
    let mut db = session();
    db.listen(["c05 twice", "c05 twice"]).unwrap();
    db.listen(["c05 twice"]).unwrap();
    assert_eq!(db.listening_channels().unwrap(), ["c05 twice"]);
    db.notify("c05 twice", "once").unwrap();
    assert_eq!(everything(&mut db), pairs([("c05 twice", "once")]));
}

#[test]
fn c05_unlistening_to_an_unknown_channel_is_harmless() {
    let mut db = session();
    db.unlisten(["c05 never"]).unwrap();
    db.listen(["c05 kept"]).unwrap();
    db.unlisten(["c05 never", "c05 kept", "c05 kept"]).unwrap();
    assert!(db.listening_channels().unwrap().is_empty());
    db.unlisten_all().unwrap();
    db.unlisten_all().unwrap();
}

#[test]
fn c05_without_channels_nothing_is_sent() {
    let proxy = Proxy::start(([127, 0, 0, 1], utf8().port()).into());
    let mut db = connect(&format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port()));
    let sent = proxy.bytes_from_client();
    db.listen([""; 0]).unwrap();
    db.unlisten(Vec::<String>::new()).unwrap();
    db.notify_many([("", ""); 0]).unwrap();
    assert_eq!(proxy.bytes_from_client(), sent);
}

#[test]
fn c05_notifications_sent_before_an_unlisten_are_returned() {
    let mut db = session();
    db.listen(["c05 before"]).unwrap();
    db.notify("c05 before", "1").unwrap();
    db.unlisten(["c05 before"]).unwrap();
    db.notify("c05 before", "2").unwrap();
    assert_eq!(everything(&mut db), pairs([("c05 before", "1")]));
}

#[test]
fn c07_listening_channels_queries_the_server() {
    let mut db = session();
    assert!(db.listening_channels().unwrap().is_empty());
    db.listen(["c07 b", "c07 A", "c07 é"]).unwrap();
    db.execute("LISTEN c07_by_hand").unwrap();
    db.execute("UNLISTEN \"c07 b\"").unwrap();
    assert_eq!(db.listening_channels().unwrap(), ["c07 A", "c07 é", "c07_by_hand"]);
    db.execute("DISCARD ALL").unwrap();
    assert!(db.listening_channels().unwrap().is_empty());
    assert_eq!(ask(&mut db, "SELECT count(*) FROM pg_listening_channels()"), "0");
}

#[test]
fn c07_the_channels_of_the_server_can_differ_from_the_requested_ones() {
    // A pooler that gives each transaction another session: LISTEN succeeds without effect.
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_query("LISTEN \"a\""),
        Step::send([msg::command_complete("LISTEN"), msg::ready(b'I')]),
        Step::expect_any_query(),
        Step::send([msg::row_description(&["channel"]), msg::command_complete("SELECT 0"), msg::ready(b'I')]),
        Step::expect_eof(),
    ]);
    let mut db = connect(&peer.url());
    db.listen(["a"]).unwrap();
    assert!(db.listening_channels().unwrap().is_empty());
    drop(db);
    assert!(peer.finish()[0].queries()[1].contains("pg_catalog.pg_listening_channels()"));
}
