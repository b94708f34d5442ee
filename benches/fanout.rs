//! The cost of a callback: one session receives notifications for many subscribers.
//!
//! ```text
//! cargo bench --bench fanout
//! cargo bench --bench fanout -- --smoke    # with small sizes, as a test
//! ```
//!
//! A callback counts bytes in a variable of its own, so that several threads share nothing. The same closures are handed
//! the same notifications in these ways, which take turns in random order:
//!
//! - `direct`: a loop calls boxed closures. With several channels, it finds those of a channel by its name in a hash map.
//! - `broadcast`: `tokio::sync::broadcast`, whose receivers are polled in turn without a runtime.
//! - `owned`: a manager receives and makes each notification owned, which is a part of the next two.
//! - `hop`: like `owned`, with a bounded `crossbeam-channel` to another thread, which calls the closure.
//! - `notifier`: a notifier with one dispatching thread.
//!
//! At most two portions of notifications are outstanding in every way: they are in the channel or the queue, or are being
//! handed out. A queue that is bounded more closely stays in the processor's cache, so without an equal bound the ways
//! cannot be compared. No queue is ever full, so nothing waits for room and nothing is dropped. Two portions keep the
//! threads busy: the next one arrives while one is being handed out.
//!
//! The results are the wall time and the CPU time of the threads that receive and hand out, for each callback. The thread that commands the server is not
//! counted, and neither is the server, which is a process of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

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
mod synthetic;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use notifyman::Notifier;

use self::load::Cost;
use self::options::Options;
use self::synthetic::CHANNEL;

fn main() -> ExitCode {
    synthetic::serve_if_requested();
    match Options::read(std::env::args().skip(1)) {
        Ok(options) => {
            measure(&options);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("fanout: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) {
    println!(
        "{:<12} {:>11} {:>8}  {:<10} {:>10} {:>10}",
        "cell", "subscribers", "payload", "kind", "CPU, ns", "wall, ns"
    );
    for cell in plan::cells(options.smoke).into_iter().filter(|cell| options.wants(cell.part)) {
        let mut kinds = cell.kinds.to_vec();
        let mut samples: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
        for _ in 0..options.runs {
            let random = RandomState::new();
            kinds.sort_by_key(|kind| random.hash_one(kind.name()));
            for kind in &kinds {
                let Cost { cpu, wall } = kind.run(&cell.load);
                let each = |time: Duration| time.as_nanos() as f64 / cell.load.calls() as f64;
                let (cpus, walls) = samples.entry(kind.name()).or_default();
                cpus.push(each(cpu));
                walls.push(each(wall));
            }
        }
        for kind in cell.kinds {
            let (subscribers, payload) = (cell.load.all_subscribers(), cell.load.payload);
            let (cpus, walls) = samples.remove(kind.name()).unwrap_or_default();
            let (cpu, wall) = (median(cpus), median(walls));
            println!(
                "{:<12} {subscribers:>11} {payload:>8}  {:<10} {cpu:>10.1} {wall:>10.1}",
                cell.metric,
                kind.name()
            );
        }
    }
    if options.wants("subscribers") {
        subscribers();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures the memory and the time of idle subscribers.
fn subscribers() {
    const SUBSCRIBERS: u64 = 100_000;
    let subscribe = || {
        let n = Notifier::builder("host=localhost user=bench").unwrap().autorun(false).build::<u64>();
        for id in 0..SUBSCRIBERS {
            n.subscribe(id, CHANNEL, |_| ()).unwrap();
        }
        n
    };
    let begun = Instant::now();
    let n = subscribe();
    let each = begun.elapsed() / SUBSCRIBERS as u32;
    drop(n);
    let mut counted = None;
    let info = allocation_counter::measure(|| counted = Some(subscribe()));
    let bytes = info.bytes_current as f64 / SUBSCRIBERS as f64;
    println!("{SUBSCRIBERS} subscribers: {each:?} and {bytes:.0} bytes each");
}
