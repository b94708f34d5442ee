//! Revived connections: the same id, the gap first, and no other connection waits.

use std::task::Poll;
use std::time::{Duration, Instant};

use notifyman::{Error, Event, NotificationManager};

use super::fake::Fake;
use super::support::*;
use crate::support::{Cluster, Options, Peer, Proxy, Step, msg};

/// A manager whose one connection has just died by a server's order, and its channel.
fn with_one_dead(timeout: Duration) -> (NotificationManager, String) {
    let channel = channel();
    let db = listener(&channel);
    let pid = db.pid();
    let mut nm = NotificationManager::new([db]).timeout(timeout);
    terminate(pid);
    assert_eq!(until_end(&mut nm).0, []);
    assert_eq!(nm.garbage().count(), 1);
    (nm, channel)
}

#[test]
fn m13_a_revived_connection_has_its_id_and_hears_its_channels_again() {
    let (mut nm, channel) = with_one_dead(LIMIT);
    let (id, dead) = nm.take_garbage().pop().unwrap();
    assert_eq!(nm.revive(id, dead), id);
    assert_eq!((nm.restoring().map(|(id, _)| id).collect::<Vec<_>>(), ids(&nm)), (vec![id], vec![]));
    assert!(nm.get(id).is_none() && nm.get_mut(id).is_none(), "it is neither good nor dead");

    let (which, first) = batch(&mut nm);
    assert_eq!(which, id);
    let gap = first.gap().expect("the first batch carries the gap");
    assert_eq!((gap.channels(), gap.epoch()), (&[channel.as_str().into()][..], 1));
    assert_eq!(gap.cause().sqlstate(), Some("57P01"));
    assert!(gap.since() < gap.until() && gap.since_wall() <= gap.until_wall());
    assert_eq!(gap.duration(), gap.until() - gap.since());
    assert_eq!((nm.restoring().count(), ids(&nm)), (0, vec![id]));

    open().notify(&channel, "again").unwrap();
    let (_, second) = batch(&mut nm);
    assert!(second.gap().is_none(), "it is reported once");
    assert_eq!(payloads(&second), ["again"]);
}

#[test]
fn m14_in_events_the_gap_stands_by_itself() {
    let (mut nm, channel) = with_one_dead(LIMIT);
    for epoch in 1..=3 {
        let (id, dead) = nm.take_garbage().pop().unwrap();
        nm.revive(id, dead);
        let Some(Event::Restored(which, gap)) = event(&mut nm) else { panic!("restored") };
        assert_eq!((which, gap.epoch()), (id, epoch));
        open().notify(&channel, "received").unwrap();
        let Some(Event::Notifies(which, batch)) = event(&mut nm) else { panic!("what it received") };
        assert_eq!((which, payloads(&batch), batch.gap().is_some()), (id, vec!["received".into()], false));
        terminate(nm.get(id).unwrap().pid());
        assert!(matches!(event(&mut nm), Some(Event::Lost(which, _)) if which == id));
    }
    let stats = nm.stats();
    assert_eq!((stats.restores, stats.gaps, stats.losses), (3, 3, 4));
}

/// A server that loses its first client; its second says these around the acknowledgement of the LISTEN.
fn says(before: Vec<Vec<u8>>, after: Vec<Vec<u8>>) -> (NotificationManager, Peer) {
    let listen = || Step::expect_query(r#"LISTEN "news""#);
    let acknowledged = || vec![msg::command_complete("LISTEN"), msg::ready(b'I')];
    let answer = [before, acknowledged(), after].concat();
    let first = vec![Step::startup(), Step::login_ok(), listen(), Step::send(acknowledged()), Step::close()];
    let second = vec![Step::startup(), Step::login_ok(), listen(), Step::send(answer), Step::serve()];
    let peer = Peer::play_each(vec![first, second]);
    let mut db = connect(&peer.url());
    db.listen(["news"]).unwrap();
    let mut nm = NotificationManager::new([db]).timeout(LIMIT);
    assert!(matches!(event(&mut nm), Some(Event::Lost(..))));
    let (id, dead) = nm.take_garbage().pop().unwrap();
    nm.revive(id, dead);
    (nm, peer)
}

fn news(text: &str) -> Vec<u8> {
    msg::notification(7, "news", text)
}

#[test]
fn m14_what_the_new_session_says_comes_after_the_gap() {
    let (mut nm, _peer) = says(vec![news("before the answer")], vec![news("after the answer")]);
    let mut reported = Vec::new();
    while reported.len() < 2 {
        let (_, batch) = batch(&mut nm);
        assert_eq!(batch.gap().is_some(), reported.is_empty(), "the gap comes first, and once");
        reported.extend(payloads(&batch));
    }
    assert_eq!(reported, ["before the answer", "after the answer"]);
}

#[test]
fn m14_what_the_new_session_says_comes_after_the_event_too() {
    let (mut nm, _peer) = says(vec![news("before the answer")], vec![news("after the answer")]);
    assert!(matches!(event(&mut nm), Some(Event::Restored(..))));
    assert_eq!(receive(&mut nm, 2).len(), 2);
}

#[test]
fn m14_a_session_that_dies_as_it_is_restored_tells_the_gap_and_what_it_said() {
    let fatal = msg::error("FATAL", "57P01", "terminating connection due to administrator command");
    let (mut nm, _peer) = says(vec![], vec![news("the last"), fatal]);
    let id = nm.restoring().map(|(id, _)| id).next().unwrap();
    let mut reported = Vec::new();
    while let Some(event) = event(&mut nm) {
        reported.push(match event {
            Event::Restored(which, gap) if which == id => format!("gap {}", gap.epoch()),
            Event::Notifies(which, batch) if which == id => payloads(&batch).concat(),
            Event::Lost(which, error) if which == id => error.sqlstate().unwrap_or("?").to_owned(),
            other => panic!("{other:?}"),
        });
    }
    // A session that ends before the loop has looked at it again may count as never restored.
    assert!(reported == ["gap 1", "the last", "57P01"] || reported == ["57P01"], "{reported:?}");
    assert_eq!(dead(&nm), [id]);
}

/// Now and then the login is there before the first look for it is over, and now and then the loop has to wait.
#[test]
fn m13_however_fast_the_server_answers_nothing_is_missed() {
    let mut fake = Fake::new();
    let (db, line) = fake.open();
    drop(line);
    // Without a timeout there are no idle events, however long the test takes.
    let mut nm = NotificationManager::new([db]);
    let id = ids(&nm)[0];
    for round in 1..=1000 {
        assert!(matches!(event(&mut nm), Some(Event::Lost(..))));
        let (_, dead) = nm.take_garbage().pop().unwrap();
        nm.revive(id, dead);
        let mut line = None;
        until("it is back", || match nm.try_next_event() {
            Poll::Ready(Some(Event::Restored(_, gap))) => gap.epoch() == round,
            Poll::Ready(other) => panic!("{other:?}"),
            Poll::Pending => {
                // The loop, too, sleeps no longer than it must.
                line = line.take().or_else(|| fake.strays().pop());
                line.iter_mut().for_each(|(_, line)| _ = line.answer());
                false
            }
        });
    }
}

#[test]
fn m13_where_the_server_is_down_it_is_back_in_the_garbage_with_the_new_reason() {
    let proxy = Proxy::start(([127, 0, 0, 1], server().port()).into());
    let channel = channel();
    let mut db = connect(&format!("postgres://postgres@{}/postgres", proxy.addr()));
    db.listen([&channel]).unwrap();
    let mut nm = NotificationManager::new([db]).timeout(LIMIT);
    let id = ids(&nm)[0];
    proxy.refuse();
    proxy.cut_fin();
    assert!(matches!(event(&mut nm), Some(Event::Lost(which, Error::Disconnected)) if which == id));

    for _ in 0..2 {
        let (_, dead) = nm.take_garbage().pop().unwrap();
        assert_eq!(nm.revive(id, dead), id);
        assert!(matches!(event(&mut nm), Some(Event::Lost(which, Error::Connect(_))) if which == id));
        assert_eq!((nm.stats().losses, nm.stats().restores, nm.restoring().count()), (1, 0, 0));
        let (which, dead) = nm.garbage().next().unwrap();
        assert!(which == id && matches!(dead.error(), Error::Connect(_)) && dead.error().is_transient(), "{dead:?}");
        assert_eq!(dead.channels(), [channel.as_str().into()]);
        assert!(nm.next().is_none(), "one attempt is made");
    }
    proxy.resume();
    let (_, dead) = nm.take_garbage().pop().unwrap();
    nm.revive(id, dead);
    assert!(matches!(event(&mut nm), Some(Event::Restored(which, _)) if which == id));
}

#[test]
fn m13_a_removal_gives_a_revival_up_and_the_dead_back() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], server().port()).into());
    let db = connect(&format!("postgres://postgres@{}/postgres", proxy.addr()));
    let mut nm = NotificationManager::new([db]).timeout(Duration::from_millis(10));
    proxy.set_upstream(silent.local_addr().unwrap());
    proxy.cut_fin();
    assert_eq!(until_end(&mut nm).0, []);
    let (id, dead) = nm.take_garbage().pop().unwrap();
    nm.revive(id, dead);
    for _ in 0..3 {
        assert!(matches!(nm.next(), Some(None)), "while it is being restored it does not end");
    }
    let Some(Err(dead)) = nm.remove(id) else { panic!("what was dead") };
    assert!(matches!(dead.error(), Error::Disconnected), "as it was: {dead:?}");
    assert!(nm.remove(id).is_none());
    assert_eq!((nm.restoring().count(), nm.garbage().count(), nm.stats().restoring), (0, 0, 0));
    assert!(nm.next().is_none());
}

#[test]
fn m13_after_its_server_has_come_back_everybody_can_be_revived() {
    let mut cluster = Cluster::start(Options::new().max_connections(30)).unwrap();
    let connections = (0..10).map(|n| {
        let mut db = connect(&cluster.url());
        db.listen(["all".to_owned(), format!("of {n}")]).unwrap();
        db
    });
    let mut nm = NotificationManager::new(connections.collect::<Vec<_>>()).timeout(LIMIT);
    let all = ids(&nm);
    cluster.kill().unwrap();
    assert_eq!(until_end(&mut nm), (vec![], 0));
    cluster.restart().unwrap();

    for (id, dead) in nm.take_garbage() {
        nm.revive(id, dead);
    }
    assert_eq!(nm.restoring().map(|(id, _)| id).collect::<Vec<_>>(), all);
    let mut restored = Vec::new();
    while restored.len() < 10 {
        match event(&mut nm) {
            Some(Event::Restored(id, gap)) => restored.push((id, gap.channels().to_vec())),
            other => panic!("{other:?}"),
        }
    }
    restored.sort();
    for (n, (id, channels)) in restored.into_iter().enumerate() {
        assert_eq!((id, channels), (all[n], vec!["all".into(), format!("of {n}").into()]));
    }
    connect(&cluster.url()).notify("all", "hello").unwrap();
    let mut received = receive(&mut nm, 10);
    received.sort();
    assert_eq!(received, all.iter().map(|id| (*id, "hello".into())).collect::<Vec<_>>());
}

#[test]
fn m02_a_zero_timeout_advances_a_revival_a_step_each_time_and_never_waits_for_it() {
    let (mut nm, _) = with_one_dead(Duration::ZERO);
    let (id, dead) = nm.take_garbage().pop().unwrap();
    nm.revive(id, dead);
    until("it is back", || {
        if let Some(event) = nm.next_event() {
            assert!(matches!(event, Event::Restored(..)), "{event:?}");
            return true;
        }
        assert_eq!(nm.restoring().map(|(id, _)| id).collect::<Vec<_>>(), [id]);
        false
    });
    assert_eq!(ids(&nm), [id]);
}

#[test]
fn m13_a_server_known_by_its_name_is_revived_as_soon_as_its_name_is_known() {
    let channel = channel();
    let proxy = Proxy::start(([127, 0, 0, 1], server().port()).into());
    let config = format!("host=localhost port={} user=postgres dbname=postgres", proxy.port());
    for timeout in [None, Some(Duration::ZERO), Some(Duration::from_millis(10)), Some(LIMIT)] {
        let mut db = connect(&config);
        db.listen([&channel]).unwrap();
        let mut nm = NotificationManager::new([db]);
        proxy.cut_fin();
        assert_eq!(until_end(&mut nm).0, []);
        nm.set_timeout(timeout);
        let (id, dead) = nm.take_garbage().pop().unwrap();
        nm.revive(id, dead);
        let _watchdog = Watchdog::over(&nm);
        until("it is back", || match nm.next_event() {
            Some(Event::Restored(which, _)) => which == id,
            Some(Event::Idle) => false,
            None if timeout == Some(Duration::ZERO) => false,
            other => panic!("{timeout:?}: {other:?}"),
        });
    }
}

#[test]
fn m13_by_hand_a_reconnection_brings_the_gap_to_whatever_manager_it_goes_to() {
    let (mut nm, channel) = with_one_dead(LIMIT);
    let (id, dead) = nm.take_garbage().pop().unwrap();
    let mut db = dead.reconnect().unwrap();
    assert_eq!(db.listening_channels().unwrap(), [channel.as_str()]);
    db.notify(&channel, "already received").unwrap();
    db.query("select 1").unwrap();
    let new = nm.insert(db);
    assert_ne!(new, id, "it is another connection");
    let (which, batch) = batch(&mut nm);
    assert_eq!((which, batch.gap().unwrap().epoch(), payloads(&batch)), (new, 1, vec!["already received".into()]));
}

#[test]
fn m13_a_reconnection_that_fails_leaves_the_dead_to_be_tried_again() {
    let mut cluster = Cluster::start(Options::new().max_connections(10)).unwrap();
    let mut nm = NotificationManager::new([connect(&cluster.url())]).timeout(LIMIT);
    cluster.stop().unwrap();
    assert_eq!(until_end(&mut nm).0, []);
    let (_, dead) = nm.take_garbage().pop().unwrap();
    assert!(dead.reconnect().unwrap_err().is_transient());
    assert_eq!(dead.error().sqlstate(), Some("57P01"));
    cluster.restart().unwrap();
    assert!(dead.reconnect().is_ok());
}

#[test]
fn m13_an_id_that_is_taken_or_was_never_given_out_isnt_revived() {
    let (mut nm, _) = with_one_dead(LIMIT);
    let (id, dead) = nm.take_garbage().pop().unwrap();
    let mut other = NotificationManager::new([]).timeout(LIMIT);
    let new = other.revive(id, dead);
    assert_eq!(new.to_string(), "1");
    assert!(matches!(event(&mut other), Some(Event::Restored(which, _)) if which == new));
    // In this one, another connection has the id 1.
    let (mut third, _) = with_one_dead(LIMIT);
    let (id, dead) = third.take_garbage().pop().unwrap();
    assert_eq!(other.revive(id, dead).to_string(), "2");
}

#[test]
fn c12_a_transaction_left_open_is_told() {
    let channel = channel();
    let mut nm = NotificationManager::new([listener(&channel)]).timeout(LIMIT);
    let id = ids(&nm)[0];
    nm.get_mut(id).unwrap().execute("begin").unwrap();
    assert!(matches!(event(&mut nm), Some(Event::InTransaction(which)) if which == id));
    assert_eq!(nm.stats().in_transaction, 1);
    open().notify(&channel, "kept back").unwrap();
    nm.get_mut(id).unwrap().execute("commit").unwrap();
    assert_eq!(receive(&mut nm, 1), [(id, "kept back".into())]);
    assert_eq!(nm.stats().in_transaction, 0);
    // A short one is not worth a word.
    nm.set_timeout(Duration::from_millis(1500));
    nm.get_mut(id).unwrap().execute("begin").unwrap();
    nm.get_mut(id).unwrap().execute("commit").unwrap();
    assert!(matches!(nm.next_event(), Some(Event::Idle)));
}

#[test]
fn c12_consecutive_transactions_are_not_reported_as_one_long_one() {
    let channel = channel();
    let mut nm = NotificationManager::new([listener(&channel)]).timeout(Duration::from_millis(100));
    let id = ids(&nm)[0];
    nm.get_mut(id).unwrap().execute("BEGIN").unwrap();
    let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut reported = 0;
    while begun.elapsed() < Duration::from_millis(2500) {
        nm.get_mut(id).unwrap().execute("COMMIT; BEGIN").unwrap();
        longest = longest.max(last.elapsed());
        last = Instant::now();
        reported += usize::from(matches!(nm.next_event(), Some(Event::InTransaction(_))));
    }
    // On a busy machine one of the transactions may have been long.
    assert!(reported == 0 || longest > Duration::from_millis(800), "{reported} reports, the longest took {longest:?}");
}
