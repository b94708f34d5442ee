//! Chosen cases of the simulation: takeovers, markers, and what relays keep.

use std::time::Duration;

use super::driver::{Simulation, Step, last_start};
use crate::error::Error;
use crate::gap::Gap;
use crate::relay::entry::EntryContent;
use crate::relay::inbox::Received;
use crate::relay::session::MARKER_CHANNEL;

#[test]
fn r05_a_gap_of_the_own_session_during_a_takeover_is_a_gap_of_the_stream() {
    for has_gap in [false, true] {
        let mut simulation = Simulation::new(2, 1);
        // Only the leader receives it before it is killed, so the candidate waits for it.
        simulation.step(&Step::Notify(1));
        simulation.run_relay(0, usize::MAX);
        simulation.step(&Step::Kill(0));
        simulation.step(&Step::Freeze(0));
        simulation.run_until_claim(1);
        if has_gap {
            let gap = Gap::new(["c"], Error::Unregistered, Duration::ZERO);
            simulation.relays[1].leader.handle(Received::Restored(gap), simulation.now);
        }
        simulation.run_all(1);
        assert_eq!(last_start(&simulation.shared.lock()).1.is_none(), has_gap);
        simulation.finish();
        assert_eq!(simulation.readers[0].gaps, usize::from(has_gap));
    }
}

#[test]
fn r05_a_barrier_that_is_lost_is_sent_again() {
    let mut simulation = Simulation::new(1, 1);
    let (term, _) = last_start(&simulation.shared.lock());
    simulation.step(&Step::Kill(0));
    simulation.run_all(1);
    simulation.shared.lock().lost_markers = 1;
    simulation.run_until_claim(0);
    simulation.run_all(5);
    assert_eq!(last_start(&simulation.shared.lock()).0, term, "it waits for the barrier");
    simulation.run_all(15);
    assert!(last_start(&simulation.shared.lock()).0 > term);
}

#[test]
fn r05_a_leader_whose_channels_were_lost_or_whose_queue_was_full_reports_a_gap_and_continues() {
    let gap = Gap::new(["c"], Error::Unregistered, Duration::ZERO);
    let cause_of = |content: &EntryContent| match content {
        EntryContent::Gap { cause, .. } => Some(cause.clone()),
        _ => None,
    };
    for (received, is_overflow) in [(Received::Restored(gap), false), (Received::Overflow(7), true)] {
        let mut simulation = Simulation::new(2, 1);
        let start = last_start(&simulation.shared.lock());
        simulation.relays[0].leader.handle(received, simulation.now);
        simulation.run_all(4);
        assert_eq!(last_start(&simulation.shared.lock()), start);
        simulation.finish();
        assert_eq!(simulation.readers[0].gaps, 1);
        let state = simulation.shared.lock();
        let causes: Vec<_> = state.stream.iter().filter_map(|(_, entry)| cause_of(&entry.content)).collect();
        assert_eq!(causes.iter().filter(|cause| cause.contains("64 MiB") == is_overflow).count(), 1, "{causes:?}");
    }
}

#[test]
fn r05_a_leader_marks_the_place_after_a_thousand_notifications() {
    let mut simulation = Simulation::new(2, 1);
    let canaries = |simulation: &Simulation| {
        let is_canary = |content: &EntryContent| matches!(content, EntryContent::Canary { .. });
        simulation.shared.lock().stream.iter().filter(|(_, entry)| is_canary(&entry.content)).count()
    };
    simulation.run_all(1);
    let before = canaries(&simulation);
    for _ in 0..6 {
        simulation.step(&Step::Notify(200));
        simulation.step(&Step::Notify(200));
        simulation.run_relay(0, usize::MAX);
        simulation.run_relay(0, usize::MAX);
    }
    assert_eq!(canaries(&simulation) - before, 2, "in no time");
}

#[test]
fn r05_other_texts_on_the_channel_of_markers_are_not_relayed() {
    let mut simulation = Simulation::new(1, 1);
    simulation.shared.lock().committed.push((MARKER_CHANNEL, "hello".to_owned()));
    simulation.shared.lock().committed.push(("c", "1".to_owned()));
    simulation.run_all(1);
    let state = simulation.shared.lock();
    let relayed = state.stream.iter().flat_map(|(_, entry)| match &entry.content {
        EntryContent::Notifications(batch) => batch.iter().map(|n| n.channel().into_owned()).collect(),
        _ => Vec::new(),
    });
    assert_eq!(relayed.collect::<Vec<_>>(), ["c"]);
}

#[test]
fn r06_a_leader_without_its_engine_receives_no_more_than_the_outbox_holds() {
    let mut simulation = Simulation::new(1, 1);
    simulation.step(&Step::Partition(0));
    for _ in 0..3_000 {
        simulation.step(&Step::Notify(1));
        simulation.run_relay(0, usize::MAX);
    }
    assert!(!simulation.relays[0].leader.takes());
    simulation.step(&Step::Reconnect);
    simulation.finish();
    assert_eq!(simulation.readers[0].gaps, 0);
}

#[test]
fn r05_histories_keep_little_that_the_stream_has_and_all_that_it_has_not() {
    let mut simulation = Simulation::new(2, 1);
    let notify = |simulation: &mut Simulation, count: usize| {
        for number in 0..count {
            simulation.shared.lock().committed.push(("c", format!("{number} {}", "x".repeat(7_000))));
        }
    };
    for _ in 0..30 {
        notify(&mut simulation, 50);
        simulation.run_all(10);
    }
    for relay in &simulation.relays {
        let bytes = relay.leader.history_bytes();
        assert!((1..2_500_000).contains(&bytes), "{bytes} of 10,500,000 bytes");
    }
    simulation.step(&Step::Partition(0));
    notify(&mut simulation, 500);
    simulation.run_all(1);
    simulation.run_all(15);
    assert!(simulation.relays.iter().all(|relay| relay.leader.history_bytes() > 3_500_000));
}
