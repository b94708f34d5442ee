//! M14: a gap comes after the acknowledgement and before any later notification, in each of the loops.

use std::time::{Duration, Instant};

use notifyman::{Error, Event, NotificationManager};

use super::ledger::{CHANNEL, Ledger, Writer};
use super::support::*;
use crate::support::server::LIMIT;
use crate::support::{Peer, Step, msg};

#[test]
fn m14_in_the_plain_loop_the_ledger_balances_over_many_gaps() {
    let (server, proxy) = proxied();
    let mut story = Story::begin(&through(&proxy), &server.url());
    for round in 1..=10 {
        match round % 2 {
            0 => proxy.cut_rst(),
            _ => proxy.cut_fin(),
        }
        story.ledger.read_until(&mut story.nm, |ledger, _| ledger.gaps() >= round);
        story.receive_more();
    }
    let ledger = story.end_well();
    assert_eq!(ledger.last_gap().epoch(), ledger.gaps() as u64);
}

#[test]
fn m14_with_next_event_the_ledger_balances_over_many_gaps() {
    let (server, proxy) = proxied();
    let mut nm = NotificationManager::new([listener(&through(&proxy))]).reconnect(backoff());
    let writer = Writer::start(server.url());
    let mut ledger = Ledger::default();
    let mut read_until = |ledger: &mut Ledger, enough: &dyn Fn(&Ledger) -> bool| {
        let begun = Instant::now();
        while !enough(ledger) {
            assert!(begun.elapsed() < LIMIT, "stuck: {nm:?}");
            match nm.next_event().expect("the loop continues") {
                Event::Notifies(id, batch) => {
                    assert!(batch.gap().is_none() && !batch.is_empty(), "the gap is an event of its own");
                    ledger.enter(id, &batch);
                }
                Event::Restored(id, gap) => ledger.enter_gap(id, &gap),
                Event::Disconnected(_, error) => assert!(error.is_transient(), "{error}"),
                other => panic!("{other:?}"),
            }
        }
    };
    for round in 1..=10 {
        let received = ledger.last();
        read_until(&mut ledger, &|ledger| ledger.last() > received + 20);
        proxy.cut_fin();
        read_until(&mut ledger, &|ledger| ledger.gaps() == round);
    }
    let sent = writer.finish();
    read_until(&mut ledger, &|ledger| ledger.last() >= sent.last());
    ledger.balance(&sent);
}

#[test]
fn m14_notifications_that_a_call_could_not_keep_are_reported_as_a_gap() {
    let listen = || Step::expect_query(r#"LISTEN "ledger""#);
    let acknowledged = || vec![msg::command_complete("LISTEN"), msg::ready(b'I')];
    let big = "x".repeat(7_999);
    let flood = Step::run("flood", move |wire| {
        // More than the limit of 256 MiB. The client closes the session before the end, so a write may fail.
        let piece = msg::notification(7, CHANNEL, &big).repeat(128);
        for _ in 0..300 {
            if wire.write(&piece).is_err() {
                break;
            }
        }
        Ok(())
    });
    let first = vec![
        Step::startup(),
        Step::login_ok(),
        listen(),
        Step::send(acknowledged()),
        Step::send([msg::notification(7, CHANNEL, "1")]),
        Step::expect_query("SELECT 1"),
        flood,
    ];
    let later = Step::send([msg::notification(7, CHANNEL, "2")]);
    let second = vec![Step::startup(), Step::login_ok(), listen(), Step::send(acknowledged()), later, Step::serve()];
    let peer = Peer::play_each(vec![first, second]);
    // The call and the loop have no time limit, since the flood may take long on a busy machine.
    let mut db = listener(&peer.url());
    db.set_call_timeout(5 * LIMIT);
    let mut nm = NotificationManager::new([db]).timeout(5 * LIMIT).reconnect(backoff());
    let id = nm.connections().next().unwrap().0;
    let before = Instant::now();
    let error = nm.get_mut(id).unwrap().query("SELECT 1").unwrap_err();
    assert!(matches!(error, Error::Overflow { .. }), "{error}");

    let Some(Event::Notifies(_, kept)) = nm.next_event() else { panic!("the kept notification") };
    assert_eq!(kept.iter().next().unwrap().payload(), "1", "it comes before the gap");
    assert!(matches!(nm.next_event(), Some(Event::Disconnected(_, Error::Overflow { .. }))));
    let Some(Event::Restored(restored, gap)) = nm.next_event() else { panic!("a gap") };
    assert!(restored == id && gap.epoch() == 1 && matches!(gap.cause(), Error::Overflow { .. }), "{gap:?}");
    assert!(before <= gap.since() && gap.since() <= gap.until(), "{gap:?}");
    let Some(Event::Notifies(_, after)) = nm.next_event() else { panic!("the notification of the new session") };
    assert_eq!(after.iter().next().unwrap().payload(), "2");
}

#[test]
fn m14_since_is_the_time_of_the_last_read_and_not_of_the_detection() {
    let (_server, proxy) = proxied();
    let silence = Duration::from_millis(400);
    let before = Instant::now();
    let mut nm = NotificationManager::new([listener(&through(&proxy))]).timeout(silence).reconnect(backoff());
    let received = Instant::now();
    assert!(matches!(nm.next(), Some(None)), "no notification arrives");
    let cut = Instant::now();
    proxy.cut_fin();
    let (_, batch) = nm.find_map(|event| event).unwrap();
    let (gap, now) = (batch.gap().unwrap(), Instant::now());
    assert!(batch.is_empty());
    assert!((before..=received).contains(&gap.since()) && (cut..=now).contains(&gap.until()), "{gap:?}");
    assert!(gap.duration() >= silence && gap.since_wall() < gap.until_wall());
}
