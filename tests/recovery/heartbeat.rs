//! M15: what a heartbeat costs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use notifyman::{Backoff, Event, NotificationManager};

use super::crowd::Crowd;

const PERIOD: Duration = Duration::from_millis(400);

fn iterate_for(nm: &mut NotificationManager, time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        assert!(matches!(nm.next_event(), Some(Event::Idle)), "nothing happens here");
    }
}

#[test]
fn m15_a_heartbeat_costs_one_sync_a_period_for_each_and_they_come_in_no_burst() {
    let crowd = Crowd::start(Duration::ZERO);
    let mut nm = NotificationManager::new(crowd.listeners(50))
        .timeout(Duration::from_millis(10))
        .heartbeat(PERIOD, Duration::from_secs(5));
    let bytes = nm.stats().bytes;
    let begun = Instant::now();
    iterate_for(&mut nm, 5 * PERIOD);
    let ended = Instant::now();

    let mut of_each = BTreeMap::<usize, Vec<Instant>>::new();
    for (line, at) in crowd.syncs() {
        of_each.entry(line).or_default().push(at);
    }
    assert_eq!(of_each.len(), 50, "everybody is asked");
    for times in of_each.values() {
        // A period is shortened by up to a quarter; a server that has just answered isn't asked again.
        assert!((3..=7).contains(&times.len()), "{} in five periods", times.len());
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] > PERIOD / 2), "{times:?}");
    }
    assert_eq!(nm.stats().bytes - bytes, 6 * crowd.syncs().len() as u64, "each costs a ReadyForQuery, and no more");
    // Over the last periods they are spread: no twentieth of a period has more than a part of them.
    let mut slots = BTreeMap::<u128, usize>::new();
    for (_, at) in crowd.syncs() {
        assert!(at >= begun && at <= ended);
        *slots.entry((at - begun).as_micros() / (PERIOD / 20).as_micros()).or_default() += 1;
    }
    let most = slots.values().max().unwrap();
    assert!(*most <= 20, "{most} of 50 within a twentieth of a period: {slots:?}");
}

#[test]
fn m15_who_hears_something_anyway_is_not_asked() {
    let crowd = Crowd::start(Duration::ZERO);
    let mut nm =
        NotificationManager::new(crowd.listeners(1)).timeout(PERIOD / 20).heartbeat(PERIOD, Duration::from_secs(5));
    let id = nm.connections().next().unwrap().0;
    let begun = Instant::now();
    while begun.elapsed() < 3 * PERIOD {
        nm.get_mut(id).unwrap().query("anything").unwrap();
        nm.next_event();
    }
    assert_eq!(crowd.syncs().len(), 0, "any byte is life");
}

#[test]
fn m15_however_often_it_was_restored_a_connection_has_one_heart() {
    let crowd = Crowd::start(Duration::ZERO);
    let mut nm = NotificationManager::new(crowd.listeners(1))
        .reconnect(Backoff::default().first(Duration::ZERO).longest(Duration::ZERO).per_second(1000))
        .heartbeat(PERIOD / 4, Duration::from_secs(5));
    for epoch in 1..=30 {
        crowd.hang_up(Duration::ZERO);
        assert!(matches!(nm.next_event(), Some(Event::Lost(..))));
        assert!(matches!(nm.next_event(), Some(Event::Restored(_, gap)) if gap.epoch() == epoch));
    }
    nm.set_timeout(PERIOD);
    let before = nm.stats();
    let begun = Instant::now();
    iterate_for(&mut nm, 4 * PERIOD);
    let periods = begun.elapsed().div_duration_f64(PERIOD / 4);
    let turns = nm.stats().turns - before.turns;
    assert!(turns as f64 <= 6.0 * periods, "{turns} turns in {periods:.0} periods");
}
