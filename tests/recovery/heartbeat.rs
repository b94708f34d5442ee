//! M15: the cost of heartbeats.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use notifyman::{Backoff, Connection, Error, Event, NotificationManager};

use super::crowd::Crowd;
use crate::support::server::LIMIT;
use crate::support::{Peer, Step, msg};

const PERIOD: Duration = Duration::from_millis(400);

fn iterate_until(nm: &mut NotificationManager, mut enough: impl FnMut(&NotificationManager) -> bool) {
    let begun = Instant::now();
    while !enough(nm) {
        assert!(matches!(nm.next_event(), Some(Event::Idle)), "nothing happens here");
        assert!(begun.elapsed() < LIMIT, "{nm:?}");
    }
}

#[test]
fn m15_a_heartbeat_costs_one_sync_for_each_connection_and_period() {
    let crowd = Crowd::start(Duration::ZERO);
    let mut nm =
        NotificationManager::new(crowd.listeners(50)).timeout(Duration::from_millis(10)).heartbeat(PERIOD, LIMIT);
    let bytes = nm.stats().bytes;
    let mut of_each = BTreeMap::<usize, Vec<Instant>>::new();
    iterate_until(&mut nm, |nm| {
        let syncs = crowd.syncs();
        of_each.clear();
        for (line, at) in &syncs {
            of_each.entry(*line).or_default().push(*at);
        }
        // Each answer is only a ReadyForQuery, and all have been read.
        let all_are_read = nm.stats().bytes - bytes == 6 * syncs.len() as u64;
        all_are_read && of_each.len() == 50 && of_each.values().all(|times| times.len() >= 4)
    });
    for times in of_each.values() {
        // A period is shortened by up to a quarter. A server that has just answered receives no heartbeat.
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] > PERIOD / 2), "{times:?}");
    }
}

#[test]
fn m15_a_connection_that_receives_anything_is_sent_no_heartbeat() {
    let crowd = Crowd::start(Duration::ZERO);
    let mut nm = NotificationManager::new(crowd.listeners(1)).timeout(PERIOD / 20).heartbeat(4 * PERIOD, LIMIT);
    let id = nm.connections().next().unwrap().0;
    let begun = Instant::now();
    while begun.elapsed() < 3 * 4 * PERIOD {
        nm.get_mut(id).unwrap().query("anything").unwrap();
        nm.next_event();
    }
    assert_eq!(crowd.syncs().len(), 0, "any received byte replaces a heartbeat");
}

#[test]
fn m15_a_connection_that_is_restored_often_has_one_heartbeat() {
    let crowd = Crowd::start(Duration::ZERO);
    let mut nm = NotificationManager::new(crowd.listeners(1))
        .reconnect(Backoff::default().first(Duration::ZERO).longest(Duration::ZERO).per_second(1000))
        .heartbeat(PERIOD / 4, LIMIT);
    for epoch in 1..=30 {
        crowd.close_all(Duration::ZERO);
        assert!(matches!(nm.next_event(), Some(Event::Disconnected(..))));
        assert!(matches!(nm.next_event(), Some(Event::Restored(_, gap)) if gap.epoch() == epoch));
    }
    nm.set_timeout(PERIOD);
    let before = nm.stats();
    let begun = Instant::now();
    iterate_until(&mut nm, |_| begun.elapsed() >= 4 * PERIOD);
    let periods = begun.elapsed().div_duration_f64(PERIOD / 4);
    let turns = nm.stats().turns - before.turns;
    assert!(turns as f64 <= 6.0 * periods, "{turns} turns in {periods:.0} periods");
}

#[test]
fn m15_a_server_that_sends_but_does_not_answer_a_heartbeat_is_lost() {
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect(b'S'),
        Step::run("notify without an answer", |wire| {
            while wire.write(&msg::notification(7, "c", "x")).is_ok() {
                std::thread::sleep(PERIOD / 20);
            }
            Ok(())
        }),
    ]);
    let mut db = Connection::connect(peer.url()).unwrap();
    db.set_call_timeout(2 * PERIOD);
    let mut nm = NotificationManager::new([db]).timeout(LIMIT).heartbeat(PERIOD, PERIOD);
    let error = loop {
        match nm.next_event() {
            Some(Event::Notifies(..)) => {}
            Some(Event::Lost(_, error)) => break error,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(error, Error::Timeout { action: "the answer to a heartbeat", .. }), "{error:?}");
    peer.finish();
}
