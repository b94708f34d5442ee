//! The cost of a callback: one session receives notifications for many subscribers.
//!
//! ```text
//! benches/run --only S7                    # measures, and writes the scenario S7 of benches/results/
//! cargo bench --bench fanout               # only prints the results
//! cargo bench --bench fanout -- --smoke    # with small sizes, as a test
//! ```
//!
//! A callback counts bytes in a variable of its own, so that several threads share nothing. The same closures are handed
//! the same notifications in these ways, which take turns in random order; the results are medians:
//!
//! - `direct`: a loop calls boxed closures. With several channels, it finds those of a channel by its name in a hash map.
//! - `broadcast`: `tokio::sync::broadcast`, whose receivers are polled in turn without a runtime. With several channels, it
//!   finds that of a name in a hash map.
//! - `owned`: a manager receives and makes each notification owned, so that another thread could have it. The hop includes
//!   this. Add it to the cost of direct calls and of the broadcast channel, which get the notifications without a server.
//! - `hop`: like `owned`, with a bounded `crossbeam-channel` to another thread, which calls the closure.
//! - `notifier`: a notifier with one dispatching thread.
//!
//! At most two portions of notifications are outstanding in every way: they are in the channel or the queue, or are being
//! handed out. A queue that is bounded more closely stays in the processor's cache, so without an equal bound the ways
//! cannot be compared. No queue is ever full, so nothing waits for room and nothing is dropped. Two portions keep the
//! threads busy: the next one arrives while one is being handed out. With portions of fewer than 2,000 notifications for one
//! subscriber, the threads sleep so often that the sleeps cost more than the notifications.
//!
//! The CPU time is that of the threads that receive and hand out. The thread that commands the server is not counted, and
//! neither is the server, which is a process of its own. No thread is pinned to a processor.
//!
//! Memory and latency are measured in processes of their own: see `fanout/client.rs`. Nothing counts allocations, because
//! that costs time in all ways to hand out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "fanout/client.rs"]
mod client;
#[path = "speed/format.rs"]
mod format;
#[path = "speed/job.rs"]
mod job;
#[path = "fanout/load.rs"]
mod load;
#[path = "fanout/notifier.rs"]
mod notifier;
#[path = "fanout/options.rs"]
mod options;
#[path = "fanout/peers.rs"]
mod peers;
#[path = "fanout/plan.rs"]
mod plan;
#[path = "fanout/report.rs"]
mod report;
#[path = "fanout/results.rs"]
mod results;
mod synthetic;
#[path = "fanout/targets.rs"]
mod targets;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::process::ExitCode;

use self::client::{CONDVAR, MANAGER, NOTIFIER};
use self::format::is_installed;
use self::load::Cost;
use self::options::{LATENCY, Options, QUEUED, SUBSCRIBERS};
use self::plan::{Cell, Kind};
use self::results::{Case, Results};

fn main() -> ExitCode {
    synthetic::serve_if_requested();
    client::run_if_requested();
    let options = Options::read(std::env::args().skip(1)).map_err(io::Error::other);
    match options.and_then(|options| measure(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanout: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> io::Result<()> {
    let mut results = Results::default();
    let runs = options.runs;
    for cell in plan::cells(options.smoke).into_iter().filter(|cell| options.wants(cell.part)) {
        in_turns(&mut results, runs, cell.kinds, |results, kind: Kind| hand_out(results, &cell, kind));
    }
    if options.wants(SUBSCRIBERS) {
        in_turns(&mut results, runs, &[()], |results, ()| subscribe(results, options.smoke));
    }
    if options.wants(QUEUED) {
        let most = if options.smoke { 1_000 } else { 100_000 };
        in_turns(&mut results, runs, &[1, most], |results, subscribers| queue(results, subscribers, options.smoke));
    }
    if options.wants(LATENCY) {
        let of = |is_pinned| [CONDVAR, MANAGER, NOTIFIER].map(|kind| (is_pinned, kind));
        let kinds = [of(true), of(false)].concat();
        in_turns(&mut results, runs, &kinds, |results, (is_pinned, kind)| {
            wake(results, is_pinned, kind, options.smoke)
        });
    }
    let section = report::markdown(&results, options);
    println!("{section}");
    options.out.as_ref().map_or(Ok(()), |directory| report::publish(directory, &results, &section))
}

/// Runs each kind as often as requested, in random order, so that changes of the machine over time affect all kinds equally.
fn in_turns<K: Copy>(results: &mut Results, runs: usize, kinds: &[K], run: impl Fn(&mut Results, K)) {
    for _ in 0..runs {
        let random = RandomState::new();
        let mut order: Vec<usize> = (0..kinds.len()).collect();
        order.sort_by_key(|at| random.hash_one(at));
        order.into_iter().for_each(|at| run(results, kinds[at]));
    }
    results.print_new();
}

fn hand_out(results: &mut Results, cell: &Cell, kind: Kind) {
    let Cell { metric, load, .. } = cell;
    let Cost { cpu, wall } = kind.run(load);
    let case = |metric: String| Case { metric, subscribers: load.all_subscribers(), payload: load.payload };
    let calls = load.calls() as f64;
    results.add(&case(format!("{metric}_cpu_ns")), kind.name(), cpu.as_nanos() as f64 / calls);
    results.add(&case(format!("{metric}_per_second")), kind.name(), calls / wall.as_secs_f64());
}

/// Measures the time to subscribe, and the memory of an idle subscriber.
fn subscribe(results: &mut Results, smoke: bool) {
    let subscribers = if smoke { 1_000 } else { 100_000 };
    let numbers = client::run(&[], &["subscribe", &subscribers.to_string()]);
    for (metric, number) in ["subscribe_ns", "idle"].into_iter().zip(numbers) {
        results.add(&Case::new(metric, subscribers, 0), NOTIFIER, number);
    }
}

/// Measures the memory of notifications that wait for all subscribers.
fn queue(results: &mut Results, subscribers: usize, smoke: bool) {
    let payload = targets::LONG;
    let notifications = if smoke { 100 } else { 10_000 };
    let words = [subscribers, payload, notifications].map(|number| number.to_string());
    let bytes = client::run(&[], &["queue", &words[0], &words[1], &words[2]]);
    for (metric, bytes) in ["queued_first", "queued"].into_iter().zip(bytes) {
        results.add(&Case::new(metric, subscribers, payload), NOTIFIER, bytes);
    }
}

/// Measures the latency of one notification at a time, with all threads and the server on one processor if `is_pinned`.
fn wake(results: &mut Results, is_pinned: bool, kind: &'static str, smoke: bool) {
    if is_pinned && !is_installed("taskset", "--version") {
        return;
    }
    let prefix: &[&str] = if is_pinned { &["taskset", "-c", "0"] } else { &[] };
    let events = if smoke { "100" } else { "20000" };
    let metrics = if is_pinned { ["one_p50", "one_p99"] } else { ["any_p50", "any_p99"] };
    for (metric, nanos) in metrics.into_iter().zip(client::run(prefix, &["latency", kind, events])) {
        results.add(&Case::new(metric, 1, 32), kind, nanos);
    }
}
