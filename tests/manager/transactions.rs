//! C12 and M16: open transactions are reported for as long as they are open, and nothing is sent inside them.

use std::time::{Duration, Instant};

use notifyman::{Event, NotificationManager};

use super::support::{LIMIT, connect, event};
use crate::support::{Peer, Step, msg};

/// A server that opens a transaction, after which the client must send nothing.
fn in_transaction(then: impl IntoIterator<Item = Step>) -> Peer {
    let begun = Step::send([msg::command_complete("BEGIN"), msg::ready(b'T')]);
    let steps = [Step::startup(), Step::login_ok(), Step::expect_query("BEGIN"), begun];
    Peer::play(steps.into_iter().chain(then).collect())
}

#[test]
fn m16_no_audit_and_no_canary_is_sent_inside_a_transaction() {
    let peer = in_transaction([Step::expect_eof()]);
    let mut nm = NotificationManager::new([connect(&peer.url())]).timeout(Duration::from_millis(10));
    let id = nm.connections().next().unwrap().0;
    nm.get_mut(id).unwrap().query("BEGIN").unwrap();
    let mut nm = nm.audit(Duration::from_secs(1)).canary_at_any_pace(
        "canaries",
        Duration::from_millis(100),
        Duration::from_millis(50),
    );
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert!(matches!(nm.next_event(), Some(Event::Idle | Event::InTransaction(_))));
    }
    drop(nm);
    peer.finish();
}

#[test]
fn c12_an_open_transaction_counts_until_its_connection_is_removed_or_lost() {
    let (hang_up, gate) = Step::gate();
    let (removed, lost) = (in_transaction([Step::expect_eof()]), in_transaction([gate, Step::close()]));
    let mut nm = NotificationManager::new([&removed, &lost].map(|peer| connect(&peer.url()))).park_when_empty(true);
    let ids: Vec<_> = nm.connections().map(|(id, _)| id).collect();
    for id in &ids {
        nm.get_mut(*id).unwrap().query("BEGIN").unwrap();
    }
    let mut reported: Vec<_> = (0..2)
        .map(|_| match event(&mut nm) {
            Some(Event::InTransaction(id)) => id,
            other => panic!("{other:?}"),
        })
        .collect();
    reported.sort();
    assert_eq!((reported, nm.stats().in_transaction), (ids.clone(), 2));
    drop(nm.remove(ids[0]).unwrap().unwrap());
    assert_eq!(nm.stats().in_transaction, 1);
    hang_up.open();
    assert!(matches!(event(&mut nm), Some(Event::Lost(id, _)) if id == ids[1]));
    assert_eq!(nm.stats().in_transaction, 0);
    removed.finish();
    lost.finish();
}

#[test]
fn c12_each_transaction_that_stays_open_is_reported_once() {
    let begun = || Step::send([msg::command_complete("BEGIN"), msg::ready(b'T')]);
    let ended = || Step::send([msg::command_complete("COMMIT"), msg::ready(b'I')]);
    let channels =
        || Step::send([msg::row_description(&["channel"]), msg::command_complete("SELECT"), msg::ready(b'I')]);
    let round = || {
        // The client reads the channels again after a transaction.
        [
            Step::expect_query("BEGIN"),
            begun(),
            Step::expect_query("COMMIT"),
            ended(),
            Step::expect_any_query(),
            channels(),
        ]
    };
    let steps =
        [Step::startup(), Step::login_ok()].into_iter().chain(round()).chain(round()).chain([Step::expect_eof()]);
    let peer = Peer::play(steps.collect());
    let mut nm = NotificationManager::new([connect(&peer.url())]).timeout(Duration::from_millis(20));
    let id = nm.connections().next().unwrap().0;
    for _ in 0..2 {
        nm.get_mut(id).unwrap().query("BEGIN").unwrap();
        let (started, mut reports) = (Instant::now(), 0);
        while reports == 0 || started.elapsed() < Duration::from_secs(2) {
            assert!(started.elapsed() < LIMIT, "the transaction is not reported");
            match nm.next_event() {
                Some(Event::InTransaction(_)) => reports += 1,
                Some(Event::Idle) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((reports, nm.stats().in_transaction), (1, 1));
        nm.get_mut(id).unwrap().query("COMMIT").unwrap();
        let ended = Instant::now();
        while nm.stats().in_transaction > 0 {
            assert!(matches!(nm.next_event(), Some(Event::Idle)) && ended.elapsed() < LIMIT);
        }
    }
    drop(nm);
    peer.finish();
}
