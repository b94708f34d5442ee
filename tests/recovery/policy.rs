//! M13: final failures, delays between attempts, and the channels that are restored.

use std::time::{Duration, Instant};

use notifyman::{Backoff, Error, Event, Gap, NotificationManager};

use super::control::LIMIT;
use super::support::*;
use crate::support::{Cluster, Options, Peer, Step, msg};

/// The part of the query for the channels by which a script recognizes it.
const QUESTION: &str = "pg_listening_channels";

/// A session that listens to "c", and then plays `then`.
fn listening(then: impl IntoIterator<Item = Step>) -> Vec<Step> {
    let listen = [Step::startup(), Step::login_ok(), Step::expect_query(r#"LISTEN "c""#), answer("LISTEN")];
    listen.into_iter().chain(then).collect()
}

fn answer(tag: &str) -> Step {
    Step::send([msg::command_complete(tag), msg::ready(b'I')])
}

fn fatal(code: &str) -> Step {
    Step::send([msg::error("FATAL", code, "scripted")])
}

/// A login that is refused.
fn refused(code: &str) -> Vec<Step> {
    vec![Step::startup(), fatal(code), Step::expect_eof()]
}

fn managed(peer: &Peer, backoff: Backoff) -> NotificationManager {
    let mut db = open(&peer.url());
    db.listen(["c"]).unwrap();
    NotificationManager::new([db]).timeout(Duration::from_millis(10)).reconnect(backoff)
}

/// Iterates until the connection is restored.
fn restored(nm: &mut NotificationManager) -> Gap {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        match nm.next_event().expect("the connection is being restored") {
            Event::Restored(_, gap) => return gap,
            _ => continue,
        }
    }
    panic!("not restored: {:?}", nm.restoring().collect::<Vec<_>>());
}

#[test]
fn m13_a_session_is_reconnected_whatever_code_it_ends_with() {
    for code in ["57P01", "57P05", "25P03", "XX000", "22P05", "28000", "3D000", "42501", ""] {
        let peer = Peer::play_each(vec![listening([fatal(code), Step::close()]), listening([Step::expect_eof()])]);
        let mut nm = managed(&peer, backoff());
        let gap = restored(&mut nm);
        assert_eq!((gap.cause().sqlstate().unwrap_or_default(), gap.channels()), (code, &["c".into()][..]), "{code}");
        assert_eq!((nm.stats().losses, nm.stats().restores), (1, 1), "{code}");
        drop(nm);
        peer.finish();
    }
}

#[test]
fn m13_a_final_failure_is_counted_as_one_loss() {
    let peer = Peer::play_each(vec![listening([fatal("57P01"), Step::close()]), refused("28P01")]);
    let mut nm = managed(&peer, backoff());
    while nm.next_event().is_some() {}
    assert_eq!((nm.stats().losses, nm.garbage().count()), (1, 1));
    peer.finish();
}

#[test]
fn m13_final_failures_are_retried_if_the_caller_asks_for_it() {
    let peer = Peer::play_each(vec![
        listening([fatal("57P01"), Step::close()]),
        refused("28P01"),
        refused("3D000"),
        refused("28000"),
        listening([Step::expect_eof()]),
    ]);
    let mut nm = managed(&peer, backoff().retry_all(true));
    restored(&mut nm);
    drop(nm);
    peer.finish();
}

#[test]
fn m13_a_connection_that_the_program_closed_stays_closed() {
    let peer = Peer::play_each(vec![listening([Step::expect_eof()])]);
    let mut nm = managed(&peer, backoff().retry_all(true));
    let id = nm.connections().next().unwrap().0;
    nm.get_mut(id).unwrap().close().unwrap();
    while nm.next_event().is_some() {}
    assert!(matches!(nm.take_garbage()[..], [(_, ref dead)] if matches!(dead.error(), Error::Closed)));
    peer.finish();
}

#[test]
fn m13_sessions_that_end_as_soon_as_they_listen_are_restored_with_growing_delays() {
    const SCRIPTS: usize = 400;
    let peer = Peer::play_each((0..SCRIPTS).map(|_| listening([Step::close()])).collect());
    let backoff = Backoff::default().first(Duration::from_millis(10)).longest(Duration::from_secs(60));
    let mut nm = managed(&peer, backoff);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        nm.next_event().expect("the connection is being restored");
    }
    // With doubling delays there are about ten restores; without, as many as the connection allows.
    let restores = nm.stats().restores;
    assert!((1..50).contains(&restores), "{restores}");
}

#[test]
fn c12_a_listen_that_succeeded_is_restored_although_the_connection_broke_before_the_channels_were_read() {
    let link_breaks = [Step::expect(b'Q'), Step::close()];
    let peer = Peer::play_each(vec![
        listening([Step::expect_query("listen d"), answer("LISTEN")].into_iter().chain(link_breaks)),
        vec![
            Step::startup(),
            Step::login_ok(),
            Step::expect_query(r#"LISTEN "c";LISTEN "d""#),
            answer("LISTEN"),
            Step::expect_eof(),
        ],
    ]);
    let mut nm = managed(&peer, backoff());
    let id = nm.connections().next().unwrap().0;
    nm.get_mut(id).unwrap().execute("listen d").unwrap();
    let gap = restored(&mut nm);
    assert_eq!(gap.channels()[..], ["c".into(), "d".into()]);
    drop(nm);
    let received = peer.finish();
    assert!(received[0].queries()[2].contains(QUESTION), "{:?}", received[0].queries());
}

#[test]
fn c12_a_listen_committed_with_a_chained_transaction_is_restored() {
    let server = cluster();
    let mut nm = NotificationManager::new([listener(&server.url())]).reconnect(backoff());
    let (id, pid) = (nm.connections().next().unwrap().0, pid(&nm));
    let mut db = nm.get_mut(id).unwrap();
    db.execute("BEGIN").unwrap();
    db.listen(["d"]).unwrap();
    // COMMIT AND CHAIN is new in PostgreSQL 12.
    db.execute("COMMIT; BEGIN").unwrap();
    open(&server.url()).query(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    let gap = restored(&mut nm);
    assert_eq!(gap.channels()[..], ["d".into(), super::ledger::CHANNEL.into()]);
    assert_eq!(nm.get_mut(id).unwrap().listening_channels().unwrap(), ["d", super::ledger::CHANNEL]);
}

#[test]
fn m13_many_channels_are_restored_by_requests_of_ten_thousand_and_the_gap_comes_last() {
    const ALL: usize = 25_000;
    let channels = || (0..ALL).map(|n| format!("c{n:05}"));
    let names = |sql: &str| sql.matches("LISTEN").count();
    let listens = move |at_most: usize, then: Vec<Vec<u8>>| {
        Step::run("LISTEN", move |wire| {
            let (_, body) = wire.read_message()?.ok_or("the end")?;
            let count = names(&String::from_utf8_lossy(&body));
            if count > at_most || count == 0 {
                return Err(format!("{count} channels"));
            }
            wire.write(&[then.concat(), msg::command_complete("LISTEN"), msg::ready(b'I')].concat())
        })
    };
    let news = |payload: &str| vec![msg::notification(7, "c00001", payload)];
    let peer = Peer::play_each(vec![
        vec![Step::startup(), Step::login_ok(), listens(ALL, vec![]), Step::close()],
        vec![
            Step::startup(),
            Step::login_ok(),
            listens(10_000, vec![]),
            listens(10_000, news("early")),
            listens(5_000, news("late")),
            Step::expect_eof(),
        ],
    ]);
    let mut db = open(&peer.url());
    db.listen(channels()).unwrap();
    let mut nm = NotificationManager::new([db]).reconnect(backoff());
    // Notifications that were received during the restore come after the gap.
    let gap = loop {
        match nm.next_event().unwrap() {
            Event::Restored(_, gap) => break gap,
            Event::Disconnected(..) | Event::Idle => {}
            event => panic!("{event:?}"),
        }
    };
    assert_eq!(gap.channels().len(), ALL);
    let Some(Event::Notifies(_, batch)) = nm.next_event() else { panic!("no notifications") };
    assert_eq!(batch.iter().map(|n| n.payload().into_owned()).collect::<Vec<_>>(), ["early", "late"]);
    drop(nm);
    peer.finish();
}

#[test]
fn m13_a_listener_is_restored_within_a_second_after_each_notification_that_cannot_be_converted() {
    let server = Cluster::start(Options::new().encoding("WIN1252")).unwrap();
    let mut writer = open(&server.url());
    let slow = Backoff::default().first(Duration::from_millis(50)).longest(Duration::from_secs(60));
    let mut nm = NotificationManager::new([listener(&server.url())]).timeout(Duration::from_millis(10)).reconnect(slow);
    for round in 1..=12 {
        writer.query(&format!("SELECT pg_notify('{}', chr(129))", super::ledger::CHANNEL)).unwrap();
        let gap = restored(&mut nm);
        assert_eq!(gap.cause().sqlstate(), Some("22P05"), "{round}");
        // Twelve doublings of the delay would be minutes.
        assert!(gap.duration() < LIMIT, "{round}: {:?}", gap.duration());
    }
    writer.query(&format!("NOTIFY {}, 'next'", super::ledger::CHANNEL)).unwrap();
    let next = std::iter::repeat_with(|| nm.next_event()).find(|event| !matches!(event, Some(Event::Idle))).flatten();
    assert!(matches!(&next, Some(Event::Notifies(_, batch)) if batch.len() == 1), "{next:?}");
}
