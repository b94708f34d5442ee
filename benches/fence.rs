//! The cost of a fence: fills, reads, invalidations, memory, and the fills that it refuses in vain.
//!
//! ```text
//! chrt -f 10 cargo bench --bench fence     # before other processes, so that their load does not count
//! cargo bench --bench fence -- --smoke     # with small sizes, as a test
//! ```
//!
//! The ways are measured in turns, and the results are medians: nanoseconds of one thread for each operation. Keys are
//! random, among 1,024, and values are numbers, so that next to nothing but the fence and the caches is measured. `alone`
//! stores nothing. `generation` is what programs write without a fence: a map of generations under a mutex, which grows with
//! the keys, and which a fill locks at its beginning and at its end. quick_cache's guard is its own cure for a single key:
//! an entry that is being filled, which a removal takes away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "speed/job.rs"]
mod job;
mod synthetic;
#[path = "fence/ways.rs"]
mod ways;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use notifyman::fence::{Entry, Fence, FenceChannel, FencedEvents, Invalidator};
use notifyman::{Config, Connection, NotificationManager};

use self::synthetic::{CHANNEL, Link, Server};
use self::ways::CacheCall;

/// The random keys that take turns.
const KEYS: usize = 1_024;

/// The number of operations and of rounds.
#[derive(Debug, Clone, Copy)]
struct Scale {
    operations: u32,
    rounds: usize,
    /// Entries of one cache, and fills of the simulation.
    many: u64,
}

const FULL: Scale = Scale { operations: 200_000, rounds: 25, many: 1_000_000 };
const SMOKE: Scale = Scale { operations: 500, rounds: 2, many: 2_000 };

/// A result that must not exceed a limit.
struct Goal {
    title: &'static str,
    value: f64,
    limit: f64,
    unit: &'static str,
}

/// A channel that a connection serves, from which nothing arrives.
struct OpenChannel {
    channel: FenceChannel<u64>,
    _events: FencedEvents<u64>,
    _nm: NotificationManager,
    _server: Server,
}

impl OpenChannel {
    fn new() -> Self {
        let server = Server::start(Link::Unix, &[]).unwrap();
        let mut db = Connection::connect(Config::new().host(server.host()).port(server.port()).user("bench")).unwrap();
        db.listen([CHANNEL]).unwrap();
        let mut nm = NotificationManager::new([]);
        let id = nm.insert(db);
        let channel = Fence::new().channel(CHANNEL);
        let events = channel.events(&nm, id, Invalidator::by_key(|_| None, |_| ())).unwrap();
        assert!(channel.is_open());
        Self { channel, _events: events, _nm: nm, _server: server }
    }
}

fn main() -> ExitCode {
    synthetic::serve_if_requested();
    let is_smoke = std::env::args().any(|word| word == "--smoke");
    let scale = if is_smoke { SMOKE } else { FULL };
    let open = OpenChannel::new();
    let channel = &open.channel;
    let mut goals = Vec::new();

    let measured = table("a fill", scale, &ways::fills(channel));
    let [one, two] = measured[0];
    goals.push(Goal { title: "begin and admit, uncontended", value: one, limit: 100.0, unit: "ns" });
    goals.push(Goal { title: "begin and admit, at two threads", value: two / one, limit: 2.0, unit: "times that" });
    let measured = table("a read", scale, &ways::reads(channel));
    goals.push(Goal { title: "fresh", value: measured[0][0], limit: 5.0, unit: "ns" });
    table("an invalidation", scale, &ways::invalidations(channel));
    let few = Scale { operations: scale.operations / 500, ..scale };
    table("an invalidation of many keys", few, &ways::sweeps(channel));

    let title = "forgetting 1,000,000 entries";
    goals.push(Goal { title, value: forget(channel, scale), limit: 1_000.0, unit: "ns" });
    let title = "refused in vain: 1,000 invalidations a second, fills of 5 ms";
    goals.push(Goal { title, value: refused_in_vain(channel, scale) * 100.0, limit: 0.2, unit: "%" });

    if is_smoke {
        println!("\nThis was a short run, so the numbers are meaningless.");
        return ExitCode::SUCCESS;
    }
    println!("\n{:<62}{:>10}{:>10}", "goal", "at most", "measured");
    let mut are_met = true;
    for Goal { title, value, limit, unit } in goals {
        let is_met = value <= limit;
        are_met &= is_met;
        println!("{title:<62}{limit:>10}{value:>10.2} {unit}{}", if is_met { "" } else { ": missed" });
    }
    if are_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Measures the ways in turns, on one thread and on two at once, and prints the medians: nanoseconds for each operation.
fn table(title: &str, scale: Scale, ways: &[CacheCall<'_>]) -> Vec<[f64; 2]> {
    let mut samples: Vec<[Vec<f64>; 2]> = ways.iter().map(|_| Default::default()).collect();
    let per_operation = |time: Duration| time.as_nanos() as f64 / f64::from(scale.operations.max(1));
    // The first round warms up.
    for round in 0..=scale.rounds {
        for (way, samples) in ways.iter().zip(&mut samples) {
            for (threads, samples) in [1, 2].into_iter().zip(samples) {
                let time = run(way, threads, scale.operations.max(1));
                if round > 0 {
                    samples.push(per_operation(time));
                }
            }
        }
    }
    println!("\n{title:<44}{:>12}{:>14}", "one thread", "two threads");
    let medians: Vec<_> = samples.iter_mut().map(|samples| samples.each_mut().map(|samples| median(samples))).collect();
    for (way, [one, two]) in ways.iter().zip(&medians) {
        println!("  {:<42}{one:>9.1} ns{two:>11.1} ns", way.name);
    }
    medians
}

/// Runs a way on several threads at once. Returns the longest time.
fn run(way: &CacheCall<'_>, threads: u64, operations: u32) -> Duration {
    let barrier = Barrier::new(threads as usize);
    thread::scope(|scope| {
        let threads = (0..threads).map(|thread| {
            let barrier = &barrier;
            scope.spawn(move || {
                let mut random = Random(thread + 1);
                let keys: Vec<u64> = (0..KEYS).map(|_| random.below(KEYS as u64)).collect();
                barrier.wait();
                let begin = Instant::now();
                (way.run)(&keys, operations);
                begin.elapsed()
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    })
}

/// Returns the median time in nanoseconds after which nothing of a large cache is fresh.
fn forget(channel: &FenceChannel<u64>, scale: Scale) -> f64 {
    let mut samples = Vec::new();
    for _ in 0..scale.rounds.min(5) {
        let mut entries: Vec<Entry<u64>> = Vec::with_capacity(scale.many as usize);
        for key in 0..scale.many {
            assert!(channel.begin(&key).admit(key, |entry| entries.push(entry)).is_stored());
        }
        let fresh = |entries: &[Entry<u64>]| entries.iter().filter(|entry| channel.fresh(entry).is_some()).count();
        assert_eq!(fresh(&entries), entries.len());
        let begin = Instant::now();
        channel.forget();
        samples.push(begin.elapsed().as_nanos() as f64);
        assert_eq!(fresh(&entries), 0);
    }
    median(&mut samples)
}

/// Returns the share of the fills that are refused although their keys are not invalidated. Time is simulated: in each
/// millisecond, some fills begin and one key is invalidated, and a fill ends after five.
fn refused_in_vain(channel: &FenceChannel<u64>, scale: Scale) -> f64 {
    const EACH: u64 = 100;
    let (mut running, mut refused, mut random) = (VecDeque::new(), 0_u64, Random(1));
    for number in 0..scale.many {
        if number % EACH == EACH / 2 {
            // A key that no fill has.
            channel.invalidate(&(u64::MAX - random.below(1 << 30)), || ()).unwrap();
        }
        running.push_back(channel.begin(&random.below(1 << 30)));
        if running.len() as u64 > 5 * EACH {
            refused += u64::from(!running.pop_front().unwrap().admit((), |_| ()).is_stored());
        }
    }
    refused as f64 / (scale.many - 5 * EACH) as f64
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Numbers that depend only on the seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}
