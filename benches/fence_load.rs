//! Writers, readers with slow fills, and a link that is cut, on a real server: no hit is stale with a fence. The control run
//! without one shows stale hits.
//!
//! ```text
//! tests/with-postgres cargo bench --bench fence_load
//! tests/with-postgres cargo bench --bench fence_load -- --operations 10000 --seed 7
//! ```
//!
//! The load is described in `tests/support/fence_load`. It runs with three caches behind a notifier, and with one behind the
//! events of a manager. It ends after at least this number of reads in all, and as many invalidations and cuts as belong to it.
//! The tests run a smaller one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "../tests/support/cluster.rs"]
mod cluster;
#[path = "../tests/support/fence_load/mod.rs"]
mod fence_load;
#[path = "../tests/support/proxy.rs"]
#[allow(dead_code, reason = "only some faults are needed")]
mod proxy;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::cluster::{Cluster, Options};
use self::fence_load::{CachedItem, FenceFindings, FenceLoad, ItemCache, LoadSource};

/// The time limit of one run.
const LIMIT: Duration = Duration::from_secs(600);
const CAPACITY: usize = 1_000;

struct Moka(moka::sync::Cache<u64, CachedItem>);

impl ItemCache for Moka {
    fn get(&self, item: u64) -> Option<CachedItem> {
        self.0.get(&item)
    }

    fn insert(&self, item: u64, kept: CachedItem) {
        self.0.insert(item, kept);
    }

    fn remove(&self, item: u64) {
        self.0.invalidate(&item);
    }
}

struct Quick(quick_cache::sync::Cache<u64, CachedItem>);

impl ItemCache for Quick {
    fn get(&self, item: u64) -> Option<CachedItem> {
        self.0.get(&item)
    }

    fn insert(&self, item: u64, kept: CachedItem) {
        self.0.insert(item, kept);
    }

    fn remove(&self, item: u64) {
        self.0.remove(&item);
    }
}

fn main() -> ExitCode {
    let (operations, seed) = match args() {
        Ok(args) => args,
        Err(message) => {
            eprintln!("fence_load: {message}");
            return ExitCode::from(2);
        }
    };
    let server = Cluster::start(Options::new()).unwrap();
    println!("seed {seed}");
    println!(
        "{:<24}{:>12}{:>9}{:>8}{:>9}{:>9}{:>9}{:>7}{:>8}",
        "", "reads", "hits", "stale", "fills", "refused", "writes", "cuts", "away"
    );
    // Each of the four ways to cut the link, in a small run too.
    let load = FenceLoad {
        source: LoadSource::Notifier,
        operations: operations / 4 + 1,
        invalidations: operations / 400,
        held: operations / 100_000 + 20,
        cuts: (operations / 50_000).max(4),
        limit: LIMIT,
    };
    let (mut reads, mut is_right) = (0, true);
    let [(_, map), ..] = caches();
    let events = (LoadSource::Events, "map, by events", map);
    let runs = caches().map(|(name, cache)| (LoadSource::Notifier, name, cache));
    for (source, name, cache) in runs.into_iter().chain([events]) {
        let load = FenceLoad { source, ..load };
        let findings = fence_load::run(load, &server, cache, seed);
        print(&format!("{name}, fence"), &findings);
        reads += findings.operations();
        is_right &= findings.stale + findings.stale_as_of + findings.held_stored == 0 && findings.hit_rate() >= 0.5;
    }
    for (name, cache) in caches() {
        let operations = load.operations / 10;
        let control = FenceLoad { source: LoadSource::NoFence, operations, invalidations: 0, cuts: 0, ..load };
        let findings = fence_load::run(control, &server, cache, seed);
        print(name, &findings);
        is_right &= findings.stale > 0;
    }
    println!("{reads} reads with a fence: {}", if is_right { "as expected" } else { "NOT as expected" });
    if is_right && reads >= operations { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn caches() -> [(&'static str, Arc<dyn ItemCache>); 3] {
    [
        ("map under a mutex", Arc::new(Mutex::<HashMap<u64, CachedItem>>::default())),
        ("moka", Arc::new(Moka(moka::sync::Cache::new(CAPACITY as u64)))),
        ("quick_cache", Arc::new(Quick(quick_cache::sync::Cache::new(CAPACITY)))),
    ]
}

fn print(name: &str, findings: &FenceFindings) {
    let fills: u64 = findings.fills.values().sum();
    let stored: u64 = findings.fills.iter().filter(|(it, _)| it.is_stored()).map(|(_, count)| count).sum();
    println!(
        "{name:<24}{:>12}{:>7.2} %{:>8}{fills:>9}{:>9}{:>9}{:>7}{:>6.1} s",
        findings.operations(),
        findings.hit_rate() * 100.0,
        findings.stale + findings.stale_as_of,
        fills - stored,
        findings.writes,
        findings.cuts,
        findings.away.as_secs_f64(),
    );
    let mut reasons: Vec<_> =
        findings.fills.iter().map(|(admission, count)| format!("{admission:?} {count}")).collect();
    reasons.sort();
    println!(
        "    {}; {} held, {} of them stored; {} hits compared with as_of; {:.1} s",
        reasons.join(", "),
        findings.held,
        findings.held_stored,
        findings.judged_as_of,
        findings.elapsed.as_secs_f64()
    );
}

/// Returns the number of reads and the seed.
fn args() -> Result<(u64, u64), String> {
    let (mut operations, mut seed) = (10_000_000, 18);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--bench" {
            continue; // cargo passes this to every bench
        }
        let place = match word.as_str() {
            "--operations" => &mut operations,
            "--seed" => &mut seed,
            _ => return Err(format!("unknown option {word}; options are --operations and --seed")),
        };
        let number = words.next().and_then(|value| value.parse().ok());
        *place = number.ok_or_else(|| format!("{word} takes a number"))?;
    }
    Ok((operations, seed))
}
