//! Chosen cases of the simulation: the lock, leaders that append nothing, and faults.

use std::time::Duration;

use super::driver::{Simulation, Step, last_start};
use super::world::ORIGIN;
use crate::error::ServerError;
use crate::relay::engine_time::EngineTime;
use crate::relay::entry::{EntryContent, StreamEntry, StreamOrigin};
use crate::relay::inbox::Received;
use crate::relay::pace::RelayPace;
use crate::relay::position::StreamPosition;

#[test]
fn r04_a_leader_that_is_refused_releases_the_lock_and_is_a_candidate() {
    let mut simulation = Simulation::new(2, 1);
    assert!(simulation.shared.lock().sessions[0].has_lock);
    simulation.step(&Step::LieAboutLock(true));
    for _ in 0..20 {
        simulation.pass(250);
        simulation.run_relay(1, usize::MAX);
    }
    let (start, _) = last_start(&simulation.shared.lock());
    simulation.step(&Step::LieAboutLock(false));
    simulation.step(&Step::Notify(1));
    simulation.pass(250);
    simulation.run_relay(0, usize::MAX);
    simulation.run_relay(0, usize::MAX);
    assert_eq!(
        simulation.shared.lock().sessions.iter().map(|session| session.has_lock).collect::<Vec<_>>(),
        [false, true]
    );
    simulation.finish();
    assert_eq!((last_start(&simulation.shared.lock()).0, simulation.readers[0].gaps), (start, 0));
}

#[test]
fn r04_the_time_that_a_candidate_waits_for_its_engine_is_no_silence_of_the_leader() {
    let mut simulation = Simulation::new(2, 1);
    simulation.run_all(30);
    // A relay that has just been started looks at the clock first.
    simulation.step(&Step::Kill(1));
    simulation.shared.lock().clock_takes = Duration::from_secs(60);
    (0..4).for_each(|_| simulation.run_relay(1, usize::MAX));
    simulation.shared.lock().clock_takes = Duration::ZERO;
    (0..4).for_each(|_| simulation.run_relay(1, usize::MAX));
    assert_eq!(simulation.shared.lock().ended, 0);
    simulation.finish();
    assert_eq!(simulation.readers[0].gaps, 0);
}

#[test]
fn r04_only_a_candidate_that_receives_and_sees_the_stream_ends_the_session_of_a_silent_leader() {
    let holds = |simulation: &Simulation| simulation.shared.lock().sessions[0].has_lock;
    let wait = |simulation: &mut Simulation, seconds: u64, most: usize| {
        for _ in 0..seconds * 4 {
            simulation.pass(250);
            simulation.run_relay(1, most);
        }
    };
    let mut simulation = Simulation::new(2, 1);
    simulation.step(&Step::Freeze(0));
    wait(&mut simulation, 60, 0);
    assert!(holds(&simulation), "it receives nothing itself");
    simulation.step(&Step::Partition(1));
    wait(&mut simulation, 60, usize::MAX);
    simulation.step(&Step::Reconnect);
    wait(&mut simulation, 10, usize::MAX);
    assert!(holds(&simulation), "it did not see the stream");
    simulation.step(&Step::RefuseWrites(true));
    wait(&mut simulation, 60, usize::MAX);
    simulation.step(&Step::RefuseWrites(false));
    assert!(holds(&simulation), "the engine appends nothing from anybody");
    wait(&mut simulation, 30, usize::MAX);
    assert!(!holds(&simulation));
    // The process that was stopped appends nothing more, and is a candidate again.
    simulation.finish();
    assert_eq!(simulation.readers[0].gaps, 0);
}

#[test]
fn r04_an_engine_that_refuses_writes_for_long_costs_nothing() {
    let mut simulation = Simulation::new(2, 1);
    simulation.run_all(30);
    simulation.step(&Step::RefuseWrites(true));
    for _ in 0..6 {
        simulation.step(&Step::Notify(1));
        simulation.run_all(20);
    }
    let faults = simulation.relays.iter().map(|relay| relay.status.read().fault.is_some());
    assert!(faults.eq([true, true]), "both relays have a fault");
    simulation.finish();
    assert_eq!((simulation.shared.lock().ended, simulation.readers[0].gaps), (0, 0));
}

#[test]
fn r04_a_leader_of_another_engine_is_a_fault_and_keeps_its_session() {
    let mut simulation = Simulation::new(2, 1);
    simulation.step(&Step::Freeze(0));
    // The stream of this one never had the term of that one.
    simulation.shared.lock().sessions[0].term = Some(7);
    simulation.run_other(90);
    let relay = &simulation.relays[1];
    assert!(relay.status.read().fault.is_some_and(|fault| fault.contains("appends to another engine")));
    let state = simulation.shared.lock();
    assert_eq!((state.sessions[0].has_lock, state.ended), (true, 0));
    drop(state);
    // It is over when the stream moves.
    simulation.shared.lock().sessions[0].term = None;
    simulation.finish();
    assert_eq!(simulation.relays[1].status.read().fault, None);
}

#[test]
fn r04_a_leader_whose_stream_was_deleted_is_known_by_its_term_and_one_without_a_term_is_ended_later() {
    for (is_published, seconds) in [(true, 25), (false, 45)] {
        let mut simulation = Simulation::new(2, 1);
        simulation.run_other(1);
        simulation.step(&Step::Freeze(0));
        simulation.step(&Step::Delete);
        if !is_published {
            simulation.shared.lock().sessions[0].term = None;
        }
        simulation.run_other(seconds - 5);
        assert!(simulation.shared.lock().sessions[0].has_lock, "{is_published}");
        simulation.run_other(10);
        assert!(!simulation.shared.lock().sessions[0].has_lock, "{is_published}");
    }
}

#[test]
fn r04_a_leader_is_judged_by_the_silence_in_its_entries() {
    let pace =
        |period, deadline| RelayPace { period: Duration::from_secs(period), deadline: Duration::from_secs(deadline) };
    // The options of the leader and of the candidate, and the time within which its session is ended.
    for (leader, candidate, seconds) in [(pace(1, 1), pace(60, 10), 2..6), (pace(60, 10), pace(1, 1), 69..77)] {
        for entries_since_canary in [0, 600] {
            let mut simulation = Simulation::with_paces(&[leader, candidate], 1);
            simulation.run_all(80);
            for _ in 0..entries_since_canary {
                simulation.step(&Step::Notify(1));
                simulation.run_relay(0, usize::MAX);
            }
            let term = last_start(&simulation.shared.lock()).0;
            // The candidate begins while the leader has stopped.
            simulation.step(&Step::Freeze(0));
            simulation.step(&Step::Kill(1));
            let mut passed = 0;
            while simulation.shared.lock().ended == 0 {
                simulation.run_other(1);
                passed += 1;
                assert!(passed < 100, "{leader:?}");
            }
            assert!(seconds.contains(&passed), "{passed} s, {leader:?}");
            simulation.finish();
            assert!(last_start(&simulation.shared.lock()).0 > term);
        }
    }
}

#[test]
fn r09_an_installation_that_has_changed_since_the_last_canary_ends_a_takeover() {
    let mut simulation = Simulation::new(2, 1);
    let (term, _) = last_start(&simulation.shared.lock());
    simulation.shared.lock().lacks_changes = true;
    simulation.step(&Step::Kill(0));
    simulation.step(&Step::Freeze(0));
    simulation.run_other(3);
    assert_eq!(last_start(&simulation.shared.lock()).0, term);
    assert!(!simulation.shared.lock().sessions[1].has_lock);
    assert!(simulation.relays[1].status.read().fault.is_some_and(|fault| fault.contains("nothing is installed")));
    simulation.shared.lock().lacks_changes = false;
    simulation.finish();
    assert!(simulation.readers[0].gaps > 0);
}

#[test]
fn r07_a_leader_that_is_superseded_and_then_ended_has_changed_once_by_force() {
    let mut simulation = Simulation::new(2, 1);
    let end = |simulation: &mut Simulation| {
        let error = ServerError { code: "57P01".into(), ..ServerError::default() };
        simulation.relays[0].leader.handle(Received::Disconnected(error.into()), simulation.now);
        simulation.step(&Step::LoseSession(0));
        simulation.run_all(4);
    };
    simulation.step(&Step::LieAboutLock(true));
    simulation.run_other(3);
    simulation.step(&Step::LieAboutLock(false));
    simulation.step(&Step::Notify(1));
    simulation.run_all(1);
    let superseded = |event: &String| event.contains("a newer leader has taken over");
    assert_eq!(simulation.relays[0].events.lock().unwrap().iter().filter(|event| superseded(event)).count(), 1);
    // Ends of the session of a candidate replace no leader.
    (0..3).for_each(|_| end(&mut simulation));
    assert_eq!(simulation.relays[0].status.read().fault, None);
}

#[test]
fn r07_a_session_is_reported_as_ended_once_it_is_gone_and_is_a_fault_until_then() {
    let mut simulation = Simulation::new(2, 1);
    simulation.step(&Step::Freeze(0));
    simulation.shared.lock().sessions[0].is_stuck = true;
    simulation.run_other(60);
    let ends = |simulation: &Simulation| {
        let events = simulation.relays[1].events.lock().unwrap();
        events.iter().filter(|event| event.contains("its session was ended")).count()
    };
    let relay = &simulation.relays[1];
    assert!(simulation.shared.lock().ended > 1 && ends(&simulation) == 0);
    let since_leader = relay.status.leader_seen().map(|at| simulation.now - at);
    assert!(since_leader > Some(Duration::from_secs(50)), "{since_leader:?}");
    assert!(relay.status.read().fault.is_some_and(|fault| fault.contains("is still there")));
    simulation.shared.lock().sessions[0].is_stuck = false;
    simulation.run_other(30);
    assert_eq!((ends(&simulation), simulation.relays[1].status.read().fault), (1, None));
}

#[test]
fn r07_a_leader_that_could_not_be_ended_and_continues_is_no_fault() {
    let mut simulation = Simulation::new(2, 1);
    let term = last_start(&simulation.shared.lock()).0;
    simulation.step(&Step::Freeze(0));
    simulation.shared.lock().sessions[0].is_stuck = true;
    simulation.run_other(60);
    assert!(simulation.relays[1].status.read().fault.is_some());
    simulation.step(&Step::Thaw(0));
    simulation.run_all(30);
    assert_eq!((last_start(&simulation.shared.lock()).0, simulation.relays[1].status.read().fault), (term, None));
    let events = simulation.relays[1].events.lock().unwrap();
    assert!(!events.iter().any(|event| event.contains("its session was ended")), "{events:?}");
}

#[test]
fn r07_a_session_that_others_end_again_and_again_is_a_fault_for_a_while() {
    let mut simulation = Simulation::new(1, 1);
    for count in 1..=3 {
        assert_eq!(simulation.relays[0].status.read().fault, None, "{count}");
        let error = ServerError { code: "57P01".into(), ..ServerError::default() };
        simulation.relays[0].leader.handle(Received::Disconnected(error.into()), simulation.now);
        simulation.step(&Step::LoseSession(0));
        simulation.run_all(4);
    }
    assert!(simulation.relays[0].status.read().fault.is_some_and(|fault| fault.contains("by force 3 times")));
}

#[test]
fn r04_a_stream_that_another_database_fills_is_not_taken() {
    let later = StreamOrigin { timeline: ORIGIN.timeline + 1, ..ORIGIN };
    for origin in [StreamOrigin { system: 8, ..ORIGIN }, StreamOrigin { database: 6, ..ORIGIN }, later] {
        let mut simulation = Simulation::new(1, 1);
        let canary = |sequence: u64| {
            let content = EntryContent::Canary {
                marker: "b 1 1".into(),
                sent: EngineTime::default(),
                channels: vec!["c".into()],
                silence_ms: 20_000,
            };
            (StreamPosition { term: u64::MAX / 2, sequence }, StreamEntry { origin, content })
        };
        for sequence in 2..10 {
            simulation.shared.lock().stream.push(canary(sequence));
            simulation.run_all(15);
            assert_eq!(simulation.shared.lock().stream.last().map(|(at, _)| at.sequence), Some(sequence), "{origin}");
        }
        // The other one is gone.
        simulation.run_all(30);
        assert!(simulation.shared.lock().stream.last().is_some_and(|(_, entry)| entry.origin == ORIGIN));
    }
    let earlier = StreamOrigin { timeline: 0, ..ORIGIN };
    assert!(ORIGIN.can_follow(earlier) && ORIGIN.can_follow(ORIGIN) && !ORIGIN.can_follow(later));
}
