//! What a notification, a connection and a dial cost, beside the physical floor and beside other clients, in one run.
//!
//! ```text
//! benches/run                       does all its own set-up, measures, and writes benches/results/
//! cargo bench --bench speed         only what this crate can do by itself: no peers, no pictures
//! ```
//!
//! Every client is a process of its own, and so is the server, whose cost is told apart where it is a real one. The kinds take turns in random
//! order, and what is told are medians. `--help` lists the options.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "../src/cli/cluster/mod.rs"]
mod cluster;
#[path = "speed/clients/encrypted.rs"]
mod encrypted;
#[path = "speed/clients/floor.rs"]
mod floor;
#[path = "speed/job.rs"]
mod job;
#[path = "speed/options.rs"]
mod options;
#[path = "speed/clients/ours.rs"]
mod ours;
#[path = "speed/plan.rs"]
mod plan;
#[path = "speed/race.rs"]
mod race;
#[path = "speed/results.rs"]
mod results;
mod synthetic;
#[path = "speed/table.rs"]
mod table;
#[path = "speed/trust.rs"]
mod trust;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;

use self::job::Job;
use self::options::Options;
use self::race::{Race, is_there};
use self::results::Results;
use self::synthetic::Link;

/// What the program is told first to become a client.
const CLIENT: &str = "--client";

fn main() -> ExitCode {
    synthetic::serve_if_asked();
    let mut words = std::env::args().skip(1).peekable();
    let outcome = match words.next_if(|word| word == CLIENT) {
        Some(_) => client(Job::read(words)),
        None => Options::read(words).map_err(Into::into).and_then(|options| measure(&options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("speed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn client(job: Option<Job>) -> Result<(), Box<dyn Error>> {
    let job = job.ok_or("a client is told KIND TASK HOST PORT SSLMODE CONNECTIONS EXPECTED ANSWER_PORT")?;
    match job.kind.as_str() {
        plan::FLOOR | plan::TIMED_FLOOR => Ok(floor::run(job)?),
        _ => ours::run(job),
    }
}

/// Runs every kind through every cell, in turns, and tells what that cost.
fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let race = Race {
        peers: options.peers.clone(),
        libpq: options.libpq.clone(),
        pinned: is_there("taskset", "--version") && std::thread::available_parallelism().is_ok_and(|n| n.get() > 1),
        link: if options.tcp { Link::Tcp } else { Link::Unix },
        strace: is_there("strace", "--version"),
    };
    if !cfg!(feature = "tls") {
        eprintln!("speed: built without --features tls, so the rows in TLS are left out");
    }
    let mut results = Results::default();
    for cell in plan::cells(options.smoke).into_iter().filter(|cell| options.wants(cell.scenario)) {
        let mut kinds = cell.kinds();
        kinds.retain(|kind| race.can_run(&cell, kind) && options.wants_kind(kind));
        let mut measured: BTreeMap<&str, Vec<race::Measured>> = BTreeMap::new();
        let repeats = if options.smoke { 1 } else { cell.repeats() };
        for _ in 0..options.runs * repeats {
            shuffle(&mut kinds);
            for kind in kinds.clone() {
                match race.run(&cell, kind) {
                    Ok(run) => measured.entry(kind).or_default().push(run),
                    // A peer that starves is a result, too: it has no number, and no second try.
                    Err(error) if plan::PEERS.contains(&kind) => {
                        eprintln!("{kind} in {cell:?}: {error}");
                        kinds.retain(|left| *left != kind);
                        measured.remove(kind);
                    }
                    Err(error) => return Err(format!("{kind} in {cell:?}: {error}").into()),
                }
            }
        }
        for kind in cell.kinds() {
            results.add(cell, kind, measured.get(kind).map_or(&[], Vec::as_slice));
        }
    }
    let text = table::markdown(&results, options);
    println!("{text}");
    if let Some(folder) = &options.out {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("results.csv"), results.csv())?;
        fs::write(folder.join("results.md"), text)?;
    }
    Ok(())
}

/// Another order each time, so that what changes with time harms all alike.
fn shuffle(kinds: &mut [&str]) {
    let random = RandomState::new();
    kinds.sort_by_key(|kind| random.hash_one(kind));
}
