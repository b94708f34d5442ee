//! The costs and the spread of many connections, on simulated time.

use std::collections::BTreeSet;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::history::{SimLoop, config, open};
use super::network::{Network, with_network};
use super::server::CANARY;
use super::stream::SimPoll;
use crate::error::Error;
use crate::manager::command::{Command, ControlMessage, RequestTicket};
use crate::manager::conn_id::ConnId;
use crate::manager::event::Event;
use crate::manager::fleet::member::Member;
use crate::manager::fleet::{Backoff, Canaries, CanaryPace, Heartbeat, Jitter};
use crate::ticket::Resolver;

const SECOND: Duration = Duration::from_secs(1);
const HEARTBEAT: Heartbeat = Heartbeat { idle: Duration::from_secs(15), deadline: Duration::from_secs(5) };

fn now() -> Instant {
    with_network(|network| network.now)
}

/// Returns a loop with this number of connections, each of which listens to one channel.
fn fleet_of(size: u16) -> SimLoop {
    Network::reset(7);
    let mut event_loop = SimLoop::with_poll(SimPoll::default(), None, Jitter::new(7));
    for port in 0..size {
        let connection = open(port + 1, &["c0".to_owned()]);
        event_loop.with_fleet(|fleet, io| fleet.insert(connection, io));
    }
    run_for(&mut event_loop, SECOND, drop);
    event_loop
}

/// Runs a loop for this time, and calls a function with each event.
fn run_for(event_loop: &mut SimLoop, time: Duration, mut handle: impl FnMut(Event)) {
    let end = now() + time;
    loop {
        match event_loop.next(false, true) {
            Poll::Ready(Some(event)) => handle(event),
            Poll::Ready(None) => panic!("the loop has ended"),
            Poll::Pending if now() >= end => break,
            Poll::Pending => {
                let next = [event_loop.deadline(), with_network(|network| network.next()), Some(end)];
                with_network(|network| network.advance(next.into_iter().flatten().min(), true));
            }
        }
    }
    assert_eq!(with_network(|network| network.fault.take()), None);
}

fn set_heartbeat(event_loop: &mut SimLoop) {
    event_loop.with_fleet(|fleet, io| fleet.set_heartbeat(HEARTBEAT, io));
}

/// Returns the number of timers in the heap, and of those that are heartbeats.
fn timers(event_loop: &SimLoop) -> (usize, usize) {
    event_loop.fleet.members.services.timers.count()
}

fn in_progress(event_loop: &SimLoop) -> usize {
    event_loop.fleet.members.services.dials.in_progress()
}

// ---- storms ---------------------------------------------------------------------------------------------------------

/// Loses all connections together, and returns the times of the attempts and of the restored connections.
fn storm(event_loop: &mut SimLoop, backoff: Backoff, longest: Duration) -> (Vec<Duration>, Vec<Duration>) {
    event_loop.fleet.set_backoff(backoff);
    let (lost, size) = (now(), event_loop.fleet.connections().count());
    with_network(|network| {
        network.dials.clear();
        network.end_all();
    });
    let (mut restored, mut most, mut ids) = (Vec::new(), 0, BTreeSet::new());
    let end = lost + longest;
    while restored.len() < size {
        run_for(event_loop, Duration::from_millis(10), |event| {
            if let Event::Restored(id, gap) = event {
                assert!(gap.epoch() == 1 && ids.insert(id), "{id} is restored once, under its id");
                restored.push(now() - lost);
            }
        });
        most = most.max(in_progress(event_loop));
        assert!(now() < end, "{} of {size} are restored", restored.len());
    }
    assert!(most <= backoff.at_once, "{most} attempts were in progress");
    (with_network(|network| network.dials.iter().map(|dial| *dial - lost).collect()), restored)
}

#[test]
fn m13_a_thousand_connections_lost_together_are_restored_within_the_limits() {
    let mut event_loop = fleet_of(1000);
    let backoff = Backoff::default().per_second(100);
    let turns = event_loop.shared.counters.read().turns;
    let (dials, restored) = storm(&mut event_loop, backoff, 30 * SECOND);
    assert_eq!(restored.len(), 1000);
    for (dial, n) in dials.iter().zip(0..) {
        assert!(*dial >= n * SECOND / 100, "attempt {n} begins after {dial:?}");
    }
    // Each attempt waits about eight times, each time a turn follows that finds nothing, and the queue costs nothing.
    let turns = event_loop.shared.counters.read().turns - turns;
    assert!(turns < 1000 * 20, "{turns} turns");
}

#[test]
fn m13_connections_lost_together_are_not_restored_together() {
    let mut event_loop = fleet_of(500);
    let backoff = Backoff::default().first(SECOND).longest(SECOND).at_once(500).per_second(1_000_000);
    let (dials, _) = storm(&mut event_loop, backoff, 10 * SECOND);
    let mut tenths = [0; 10];
    dials.iter().for_each(|dial| tenths[((dial.as_millis() / 100) as usize).min(9)] += 1);
    assert!(tenths.iter().all(|n| (20..=80).contains(n)), "500 attempts in tenths of a second: {tenths:?}");
}

/// Loses connections, whose servers accept the next attempts and stay silent.
fn silent_storm(size: u16, backoff: Backoff) -> (SimLoop, Vec<ConnId>) {
    let mut event_loop = fleet_of(size);
    event_loop.fleet.set_backoff(backoff.first(Duration::ZERO));
    let ids = event_loop.fleet.connections().map(|(id, _)| id).collect();
    with_network(|network| {
        network.end_all();
        network.faults.is_silent = true;
    });
    run_for(&mut event_loop, Duration::from_millis(200), drop);
    (event_loop, ids)
}

fn holds_permit(event_loop: &SimLoop, id: ConnId) -> bool {
    event_loop.fleet.members.roster.find(id).is_some_and(Member::holds_permit)
}

#[test]
fn m13_a_connection_removed_from_the_queue_lets_the_next_one_dial() {
    let (mut event_loop, mut ids) = silent_storm(3, Backoff::default().at_once(1).per_second(10));
    ids.sort_by_key(|id| !holds_permit(&event_loop, *id));
    assert_eq!(ids.iter().map(|id| holds_permit(&event_loop, *id)).collect::<Vec<_>>(), [true, false, false]);
    for id in &ids[..2] {
        assert!(event_loop.with_fleet(|fleet, io| fleet.remove(*id, io)).unwrap().is_err());
    }
    assert_eq!(in_progress(&event_loop), 0);
    run_for(&mut event_loop, SECOND, drop);
    assert!(holds_permit(&event_loop, ids[2]));
}

#[test]
fn m13_connections_that_wait_for_a_permit_cost_no_timers() {
    let (event_loop, ids) = silent_storm(500, Backoff::default().at_once(2).per_second(1000));
    assert_eq!(ids.iter().filter(|id| holds_permit(&event_loop, **id)).count(), 2);
    let mut timers = timers(&event_loop).0;
    // The timers of the losses may not have been removed yet.
    timers -= timers.min(64);
    assert!(timers <= 2, "{timers}");
}

// ---- timers ---------------------------------------------------------------------------------------------------------

#[test]
fn m15_an_idle_connection_costs_one_timer_however_long_it_is_idle() {
    let mut event_loop = fleet_of(200);
    set_heartbeat(&mut event_loop);
    for _ in 0..40 {
        run_for(&mut event_loop, HEARTBEAT.idle, |event| panic!("{event:?}"));
        assert_eq!(timers(&event_loop), (200, 200));
    }
    let syncs = with_network(|network| network.counts.0["Sync"]);
    assert!((200 * 38..=200 * 60).contains(&syncs), "about one in each period: {syncs}");
}

#[test]
fn m15_heartbeats_come_in_no_burst() {
    let mut event_loop = fleet_of(200);
    set_heartbeat(&mut event_loop);
    run_for(&mut event_loop, 10 * HEARTBEAT.idle, drop);
    let (tick, mut most, mut before) = (HEARTBEAT.idle / 30, 0, with_network(|network| network.counts.0["Sync"]));
    for _ in 0..300 {
        run_for(&mut event_loop, tick, drop);
        let syncs = with_network(|network| network.counts.0["Sync"]);
        (most, before) = (most.max(syncs - before), syncs);
    }
    assert!(most < 30, "{most} of 200 in a thirtieth of a period");
}

#[test]
fn m16_canary_and_audit_cost_an_idle_connection_no_timer() {
    let mut event_loop = fleet_of(200);
    set_heartbeat(&mut event_loop);
    let pace = CanaryPace { period: HEARTBEAT.idle, deadline: HEARTBEAT.deadline };
    event_loop.with_fleet(|fleet, io| fleet.set_canary(Canaries::new(CANARY, pace), io));
    event_loop.fleet.set_audit(HEARTBEAT.idle, now());
    run_for(&mut event_loop, 3 * HEARTBEAT.idle, |event| panic!("{event:?}"));
    let (all, heartbeats) = timers(&event_loop);
    // Each audit sets a timer, which ends after the call timeout; most of 200 in a period have ended.
    assert!(heartbeats == 200 && all <= 200 + 80, "{all} timers, {heartbeats} heartbeats");
}

#[test]
fn m15_a_restored_connection_keeps_one_heartbeat() {
    let mut event_loop = fleet_of(1);
    set_heartbeat(&mut event_loop);
    event_loop.fleet.set_backoff(Backoff::default().first(Duration::ZERO).per_second(1000));
    for _ in 0..50 {
        with_network(Network::end_all);
        run_for(&mut event_loop, 2 * SECOND, drop);
    }
    run_for(&mut event_loop, 2 * HEARTBEAT.idle, |event| panic!("{event:?}"));
    assert_eq!(timers(&event_loop), (1, 1));
}

#[test]
fn a_request_by_a_handle_leaves_no_timer_of_its_own() {
    let mut event_loop = fleet_of(1);
    let id = event_loop.fleet.connections().next().unwrap().0;
    for _ in 0..100 {
        let command = Command::Notify(vec![("c1".into(), "x".into())]);
        let ticket = RequestTicket::Done(Resolver::call(|result: Result<(), Error>| result.unwrap()));
        event_loop.shared.send(ControlMessage::Request(id, command, ticket));
    }
    run_for(&mut event_loop, Duration::from_millis(100), drop);
    assert!(timers(&event_loop).0 <= 1);
    run_for(&mut event_loop, config(1).get_call_timeout().unwrap() * 2, drop);
    assert_eq!(timers(&event_loop).0, 0);
}

// ---- limits of the poll ---------------------------------------------------------------------------------------------

#[test]
fn m10_a_connection_that_cannot_be_watched_is_lost_and_no_other() {
    let mut event_loop = fleet_of(1);
    let connection = open(2, &[]);
    with_network(|network| network.faults.watch_fails = true);
    let id = event_loop.with_fleet(|fleet, io| fleet.insert(connection, io));
    let mut events = Vec::new();
    run_for(&mut event_loop, SECOND, |event| events.push(event));
    assert!(
        matches!(&events[..], [Event::Lost(lost, Error::Io { action: "watching the socket", .. })] if *lost == id),
        "{events:?}"
    );
    assert_eq!(event_loop.fleet.connections().map(|(id, _)| id).collect::<Vec<_>>(), [ConnId::for_test(1)]);
}

// ---- turns ----------------------------------------------------------------------------------------------------------

#[test]
fn m09_a_turn_accesses_no_silent_connection() {
    let accesses = |size: u16| {
        let mut event_loop = fleet_of(size);
        // Only three connections receive it.
        for id in [1, 4, 10] {
            let command = Command::Listen(vec!["c2".into()]);
            let ticket = RequestTicket::Done(Resolver::call(|result: Result<(), Error>| result.unwrap()));
            event_loop.shared.send(ControlMessage::Request(ConnId::for_test(id), command, ticket));
        }
        let mut batches = 0;
        run_for(&mut event_loop, Duration::from_millis(100), drop);
        let before = event_loop.fleet.members.roster.accesses.get();
        with_network(|network| network.commit("c2"));
        while batches < 3 {
            let mut handle = |event| batches += usize::from(matches!(event, Event::Notifies(..)));
            match event_loop.next(false, true) {
                Poll::Ready(Some(event)) => handle(event),
                _ => with_network(|network| network.advance(network.next(), true)),
            }
        }
        assert!(event_loop.next(false, true).is_pending());
        event_loop.fleet.members.roster.accesses.get() - before
    };
    // A notification may arrive in pieces, each of which costs a few more.
    let counts = [10, 2_000].map(accesses);
    assert!(counts.iter().all(|count| *count <= 3 * 10), "{counts:?} for three");
}
