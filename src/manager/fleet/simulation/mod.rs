//! Thousands of seeded histories of the fleet that ships, without a socket or a clock.
//!
//! ```text
//!   History ── calls, tickets ──▶ EventLoop ─▶ Fleet ─▶ Link ─▶ SimStream ─┐
//!      │  ▲── events ──────────────┘  └─ wait ─▶ SimPoll ─▶ time, arrivals │
//!      ▼                                                                   ▼
//!   Ledger: what is owed, checked after each step           Network: delays, faults, Backends
//! ```
//!
//! A history that breaks a rule prints its seed, and is replayed with all its events by
//! `NOTIFYMAN_SEED=123 cargo test --lib every_history -- --nocapture`. `NOTIFYMAN_SEED=2000..9000` runs other histories.

mod checks;
mod faults;
mod history;
mod ledger;
mod network;
mod server;
mod statistics;
mod stream;
mod tickets;

use std::ops::Range;
use std::panic;

use self::history::History;
use self::network::{Counts, with_network};

/// The number of histories of a test run.
const HISTORIES: u64 = 2_000;
/// Further histories, which once broke a rule.
const REGRESSIONS: [u64; 10] = [3719, 3811, 5124, 5581, 5614, 6225, 7812, 8201, 8529, 9418];
/// The threads that share them.
const THREADS: usize = 2;

/// Things that must happen in at least one of forty histories.
const OFTEN: [&str; 39] = [
    "CancelRequest",
    "batch",
    "blocking call",
    "canary",
    "canary received",
    "channel forgotten",
    "check refused",
    "dial failed immediately",
    "dial hung",
    "dial refused",
    "disconnected",
    "found by the heartbeat",
    "found holding back",
    "found not delivering",
    "gap in a batch",
    "garbage received",
    "idle",
    "in transaction",
    "inserted again",
    "link cut",
    "link slow",
    "listened again",
    "login refused: starting",
    "login refused: too many clients",
    "lost",
    "opened",
    "poll failed",
    "prepared",
    "removed",
    "restored",
    "revived",
    "server restarted",
    "session ended",
    "session reset",
    "ticket done",
    "ticket failed",
    "timed out",
    "unlistened",
    "write would block",
];

/// Runs one history, and adds what has happened in it.
fn run(seed: u64, trace: bool, counts: &mut Counts) {
    let mut history = History::new(seed, trace);
    let result = panic::catch_unwind(panic::AssertUnwindSafe(|| history.run()));
    let at = with_network(|network| network.now - network.start);
    match result {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => {
            panic!("after {at:?}: {fault}\nreplay: NOTIFYMAN_SEED={seed} cargo test --lib every_history -- --nocapture")
        }
        Err(cause) => {
            println!("after {at:?}; replay: NOTIFYMAN_SEED={seed} cargo test --lib every_history -- --nocapture");
            panic::resume_unwind(cause);
        }
    }
    with_network(|network| network.counts.0.iter().for_each(|(what, n)| *counts.0.entry(what).or_default() += n));
}

/// Checks in each history: every notification arrives once and in order, or is in a reported gap; everything committed before a
/// reported canary has arrived before it; every end of a LISTEN is reported; every ticket resolves, and to a result that fits the server's answers; every connection is in one set; no permit is lost; idle events are never early; dead links are found in time; the loop
/// is never busy without work; and in the end everything works again.
#[test]
fn m14_every_history_keeps_the_rules() {
    let Ok(seeds) = std::env::var("NOTIFYMAN_SEED") else {
        REGRESSIONS.into_iter().for_each(|seed| run(seed, false, &mut Counts::default()));
        let counts = run_all(0..HISTORIES);
        // A rule is only proven for what has happened.
        for what in OFTEN {
            let count = counts.0.get(what).copied().unwrap_or_default();
            assert!(count >= HISTORIES / 40, "{what:?} happened only {count} times: {counts:#?}");
        }
        return;
    };
    match seeds.split_once("..") {
        Some((first, end)) => drop(run_all(first.parse().unwrap()..end.parse().unwrap())),
        None => run(seeds.parse().unwrap(), true, &mut Counts::default()),
    }
}

/// Runs the histories of these seeds in parallel, and returns what has happened in them.
fn run_all(seeds: Range<u64>) -> Counts {
    let mut counts = Counts::default();
    let run_some = |thread: usize| {
        let mut counts = Counts::default();
        seeds.clone().skip(thread).step_by(THREADS).for_each(|seed| run(seed, false, &mut counts));
        counts
    };
    std::thread::scope(|scope| {
        let run_some = &run_some;
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || run_some(thread))).collect();
        for thread in threads {
            let of_thread = thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause));
            of_thread.0.iter().for_each(|(what, n)| *counts.0.entry(what).or_default() += n);
        }
    });
    counts
}
