//! The cost of a notification, a connection and a login, compared with the physical floor and other clients in one run.
//!
//! ```text
//! benches/run                       builds everything, measures, and writes benches/results/
//! cargo bench --bench speed         without other clients and plots
//! ```
//!
//! Each client is a process, and so is the server, whose cost is reported separately if it is a real one. The kinds of
//! client alternate in random order, and the results are medians. `--help` lists the options.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "../tests/support/cluster.rs"]
mod cluster;
#[path = "speed/clients/encrypted.rs"]
mod encrypted;
#[path = "speed/clients/floor.rs"]
mod floor;
#[path = "speed/format.rs"]
mod format;
#[path = "speed/job.rs"]
mod job;
#[path = "speed/clients/notifyman.rs"]
mod notifyman_client;
#[path = "speed/options.rs"]
mod options;
#[path = "speed/plan.rs"]
mod plan;
#[path = "speed/results.rs"]
mod results;
#[path = "speed/runner.rs"]
mod runner;
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

use self::format::is_installed;
use self::job::Job;
use self::options::Options;
use self::results::Results;
use self::runner::Runner;
use self::synthetic::Link;

/// The first argument of a client process.
const CLIENT: &str = "--client";

fn main() -> ExitCode {
    synthetic::serve_if_requested();
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
    let job = job.ok_or("a client takes KIND TASK HOST PORT SSLMODE CONNECTIONS EXPECTED ANSWER_PORT")?;
    match job.kind.as_str() {
        plan::FLOOR | plan::TIMED_FLOOR => Ok(floor::run(job)?),
        _ => notifyman_client::run(job),
    }
}

/// Runs every kind of client through every cell, and prints the results.
fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let runner = Runner {
        peers: options.peers.clone(),
        libpq: options.libpq.clone(),
        earlier: options.earlier.clone(),
        is_pinned: is_installed("taskset", "--version")
            && std::thread::available_parallelism().is_ok_and(|n| n.get() > 1),
        link: if options.tcp { Link::Tcp } else { Link::Unix },
        has_strace: is_installed("strace", "--version"),
    };
    if !cfg!(feature = "tls") {
        eprintln!("speed: built without --features tls, so the rows with TLS are left out");
    }
    let mut results = Results::default();
    for cell in plan::cells(options.smoke).into_iter().filter(|cell| options.wants(cell.scenario)) {
        let mut kinds = cell.kinds();
        kinds.retain(|kind| runner.can_run(&cell, kind) && options.wants_kind(kind));
        let mut measured: BTreeMap<&str, Vec<runner::Measured>> = BTreeMap::new();
        let repeats = if options.smoke { 1 } else { cell.repeats() };
        for _ in 0..options.runs * repeats {
            shuffle(&mut kinds);
            for kind in kinds.clone() {
                match runner.run(&cell, kind) {
                    Ok(run) => measured.entry(kind).or_default().push(run),
                    // A peer that does not finish is a result, too: it has no number, and is not run again.
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
    if let Some(directory) = &options.out {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("results.csv"), results.csv())?;
        fs::write(directory.join("results.md"), text)?;
    }
    Ok(())
}

/// Shuffles the kinds, so that changes of the machine over time affect all kinds equally.
fn shuffle(kinds: &mut [&str]) {
    let random = RandomState::new();
    kinds.sort_by_key(|kind| random.hash_one(kind));
}
