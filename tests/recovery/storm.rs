//! M13: many connections that are lost together are restored at different times, within the budget, and all of them are.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use notifyman::{Backoff, ConnId, Connection, Event, NotificationManager};

use super::crowd::Crowd;
use crate::support::server::LIMIT;

/// Iterates until the condition is true, or fails at the time limit.
fn until(
    nm: &mut NotificationManager,
    condition: &str,
    mut is_true: impl FnMut(&NotificationManager, Option<Event>) -> bool,
) {
    let begun = Instant::now();
    loop {
        let event = nm.next_event();
        assert!(event.is_some(), "{condition}: the iterator ended: {nm:?}");
        if is_true(nm, event) {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "not {condition}: {nm:?}");
    }
}

fn ids(nm: &NotificationManager) -> Vec<ConnId> {
    nm.connections().map(|(id, _)| id).collect()
}

fn manager(connections: Vec<Connection>, backoff: Backoff) -> NotificationManager {
    NotificationManager::new(connections).timeout(Duration::from_millis(5)).reconnect(backoff)
}

#[test]
fn m13_two_hundred_connections_are_restored_within_the_budget_and_keep_their_ids() {
    let crowd = Crowd::start(Duration::from_millis(20));
    let backoff = Backoff::default()
        .first(Duration::from_millis(200))
        .longest(Duration::from_millis(400))
        .at_once(8)
        .per_second(200);
    let mut nm = manager(crowd.listeners(200), backoff);
    let all = ids(&nm);
    let lost = Instant::now();
    crowd.close_all(Duration::from_millis(100));
    let mut epochs = Vec::new();
    until(&mut nm, "all are back", |_, event| {
        if let Some(Event::Restored(id, gap)) = event {
            epochs.push((id, gap.epoch()));
        }
        epochs.len() == 200
    });
    epochs.sort_unstable();
    assert_eq!(epochs, all.iter().map(|id| (*id, 1)).collect::<Vec<_>>());
    assert_eq!(ids(&nm), all);

    let dials = crowd.dials();
    assert!(crowd.most_concurrent() <= 8, "{} concurrently", crowd.most_concurrent());
    assert!(dials.len() >= 200);
    // At most 200 dials begin in a second. A busy machine can delay their arrival, but not advance it.
    for (at, n) in dials.iter().zip(0..) {
        assert!(*at >= lost + n * Duration::from_secs(1) / 200, "dial {n} after {:?}", *at - lost);
    }
}

#[test]
fn m13_connections_that_were_lost_together_are_restored_at_different_times() {
    let crowd = Crowd::start(Duration::ZERO);
    let first = Duration::from_millis(600);
    let backoff = Backoff::default().first(first).longest(first).at_once(200).per_second(1_000_000);
    let mut nm = manager(crowd.listeners(200), backoff);
    let lost = Instant::now();
    crowd.close_all(Duration::ZERO);
    let (mut back, mut away) = (0, 0);
    until(&mut nm, "all are back", |nm, event| {
        back += usize::from(matches!(event, Some(Event::Restored(..))));
        away = away.max(if back == 1 { nm.restoring().count() } else { 0 });
        back == 200
    });
    // A busy machine can delay dials, but not advance them. Their even distribution is tested in virtual time.
    let early = crowd.dials().iter().filter(|at| **at < lost + first / 2).count();
    assert!(early <= 150, "{early} of 200 dial in the first half of their time");
    assert!(away >= 100, "{away} of 200 still wait when the first one is restored");
}

#[test]
fn m13_a_connection_that_leaves_the_dial_queue_admits_the_next() {
    let crowd = Crowd::start(Duration::ZERO);
    let backoff = Backoff::default().first(Duration::ZERO).longest(Duration::ZERO).at_once(1).per_second(5);
    let mut nm = manager(crowd.listeners(4), backoff);
    let all = ids(&nm);
    crowd.close_all(Duration::ZERO);
    until(&mut nm, "one is back", |_, event| matches!(event, Some(Event::Restored(..))));
    // The next connection in the queue is removed, so it does not dial.
    let stay = *nm.restoring().map(|(id, _)| id).collect::<Vec<_>>().last().unwrap();
    for id in all.iter().filter(|id| **id != stay) {
        drop(nm.remove(*id));
    }
    until(&mut nm, "the last one is back", |_, event| matches!(event, Some(Event::Restored(id, _)) if id == stay));
}

#[test]
fn m13_queued_connections_do_not_slow_down_the_loop() {
    let crowd = Crowd::start(Duration::ZERO);
    let backoff = Backoff::default().first(Duration::ZERO).longest(Duration::ZERO).at_once(4).per_second(50);
    let mut nm = NotificationManager::new(crowd.listeners(100)).reconnect(backoff);
    crowd.close_all(Duration::ZERO);
    let mut back = BTreeSet::new();
    until(&mut nm, "a half is back", |_, event| {
        if let Some(Event::Restored(id, _)) = event {
            back.insert(id);
        }
        back.len() == 50
    });
    let begin = nm.stats();
    until(&mut nm, "all are back", |_, event| {
        if let Some(Event::Restored(id, _)) = event {
            back.insert(id);
        }
        back.len() == 100
    });
    let turns = nm.stats().turns - begin.turns;
    assert!(turns < 50 * 12, "{turns} turns for 50 dials");
}
