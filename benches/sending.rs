//! The effect of batching: notifications sent one by one and through a batcher, alternately in one run.
//!
//! ```text
//! tests/with-postgres cargo bench --bench sending -- --seconds 20 --threads 16
//! ```
//!
//! Each thread sends, waits for the commit, and sends again: first with a session per thread and a transaction per
//! notification, then all threads through one batcher. The results are committed notifications per second. Compare the
//! results of one run; the absolute numbers depend on the machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "../tests/support/cluster.rs"]
mod cluster;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::{Connection, Notifier};

use self::cluster::{Cluster, Options};

/// The number of rounds, so that other load affects both ways equally.
const ROUNDS: u32 = 3;
const CHANNEL: &str = "prices";
/// The number of notifications that a thread sends through the batcher before it waits.
const WINDOW: usize = 64;

fn main() -> ExitCode {
    match args() {
        Ok((seconds, threads)) => measure(Duration::from_secs(seconds), threads),
        Err(message) => {
            eprintln!("sending: {message}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn args() -> Result<(u64, u64), String> {
    let (mut seconds, mut threads) = (5, 8);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--bench" {
            continue; // cargo passes this to every bench
        }
        let place = match word.as_str() {
            "--seconds" => &mut seconds,
            "--threads" => &mut threads,
            _ => return Err(format!("unknown option {word}; options are --seconds and --threads")),
        };
        let number = words.next().and_then(|value| value.parse().ok()).filter(|number| (1..=1000).contains(number));
        *place = number.ok_or_else(|| format!("{word} takes a number from 1 to 1000"))?;
    }
    Ok((seconds, threads))
}

fn measure(time: Duration, threads: u64) {
    // As on a real server, a commit waits for the disk.
    let options = Options::new().max_connections(threads as u32 + 10).setting("synchronous_commit", "on");
    let cluster = Cluster::start(options).unwrap();
    let n: Notifier<u32> = Notifier::new(cluster.url()).unwrap();
    n.add_channel(CHANNEL).unwrap().wait(None).unwrap();
    let turn = time / (2 * ROUNDS);
    let (mut single, mut batched) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        single.push(one_by_one(&cluster, threads, turn));
        batched.push(through_a_batcher(&n, threads, turn));
    }
    let (single, batched) = (median(single), median(batched));
    println!("{threads} threads, one by one: {single:>9.0} notifications per second");
    println!("{threads} threads, batched:    {batched:>9.0}");
    println!("ratio:                 {:>9.1}", batched / single);
}

/// Sends from several threads for a time; returns the number of committed notifications per second.
fn per_second(threads: u64, turn: Duration, send: impl Fn(u64, &dyn Fn() -> bool, &AtomicU64) + Sync) -> f64 {
    let (sent, begin) = (AtomicU64::new(0), Instant::now());
    let is_running = || begin.elapsed() < turn;
    thread::scope(|scope| {
        for thread in 0..threads {
            let (send, sent, is_running) = (&send, &sent, &is_running);
            scope.spawn(move || send(thread, is_running, sent));
        }
    });
    sent.load(Relaxed) as f64 / begin.elapsed().as_secs_f64()
}

fn one_by_one(cluster: &Cluster, threads: u64, turn: Duration) -> f64 {
    per_second(threads, turn, |thread, is_running, sent| {
        let mut db = Connection::connect(cluster.url()).unwrap();
        for number in 0u64.. {
            if !is_running() {
                break;
            }
            db.notify(CHANNEL, format!("{thread}.{number}")).unwrap();
            sent.fetch_add(1, Relaxed);
        }
    })
}

fn through_a_batcher(n: &Notifier<u32>, threads: u64, turn: Duration) -> f64 {
    let batcher = n.batcher(Duration::ZERO, 1_000).unwrap();
    per_second(threads, turn, |thread, is_running, sent| {
        let mut number = 0u64;
        while is_running() {
            let mut tickets: Vec<_> = (0..WINDOW)
                .map(|_| {
                    number += 1;
                    batcher.send(CHANNEL, format!("{thread}.{number}"))
                })
                .collect();
            tickets.iter_mut().for_each(|ticket| ticket.wait(None).unwrap());
            sent.fetch_add(WINDOW as u64, Relaxed);
        }
    })
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
