//! What batching is worth: the same notifications one by one and through a batcher, by turns in one run.
//!
//! ```text
//! tests/with-postgres cargo bench --bench sending -- --seconds 20 --threads 16
//! ```
//!
//! Each thread sends, waits for the server's commit, and sends again, first each for itself (one session a thread, one
//! transaction a notification), then all through one batcher. Both are counted in commits acknowledged a second.
//! Compare the two of one run; the figures themselves are the machine's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "../src/cli/cluster/mod.rs"]
mod cluster;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::{Connection, Notifier};

use self::cluster::{Cluster, Options};

/// How often the two take turns, so that what else goes on hits both.
const ROUNDS: u32 = 3;
const CHANNEL: &str = "prices";
/// How many notifications a thread of the batcher's has under way: whoever can batch needn't wait for each.
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
            continue; // cargo says so to whatever it runs
        }
        let place = match word.as_str() {
            "--seconds" => &mut seconds,
            "--threads" => &mut threads,
            _ => return Err(format!("unknown option {word}; there are --seconds and --threads")),
        };
        let number = words.next().and_then(|value| value.parse().ok()).filter(|number| (1..=1000).contains(number));
        *place = number.ok_or_else(|| format!("{word} takes a number from 1 to 1000"))?;
    }
    Ok((seconds, threads))
}

fn measure(time: Duration, threads: u64) {
    // With the disk in it, as a real server has it: a commit is waited for.
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
    println!("{threads} threads, one by one: {single:>9.0} notifications a second");
    println!("{threads} threads, batched:    {batched:>9.0}");
    println!("ratio:                 {:>9.1}", batched / single);
}

/// Has so many threads send for a while; gives how many were committed a second.
fn a_second(threads: u64, turn: Duration, send: impl Fn(u64, &dyn Fn() -> bool, &AtomicU64) + Sync) -> f64 {
    let (sent, begin) = (AtomicU64::new(0), Instant::now());
    let goes_on = || begin.elapsed() < turn;
    thread::scope(|scope| {
        for thread in 0..threads {
            let (send, sent, goes_on) = (&send, &sent, &goes_on);
            scope.spawn(move || send(thread, goes_on, sent));
        }
    });
    sent.load(Relaxed) as f64 / begin.elapsed().as_secs_f64()
}

fn one_by_one(cluster: &Cluster, threads: u64, turn: Duration) -> f64 {
    a_second(threads, turn, |thread, goes_on, sent| {
        let mut db = Connection::connect(cluster.url()).unwrap();
        for number in 0u64.. {
            if !goes_on() {
                break;
            }
            db.notify(CHANNEL, &format!("{thread}.{number}")).unwrap();
            sent.fetch_add(1, Relaxed);
        }
    })
}

fn through_a_batcher(n: &Notifier<u32>, threads: u64, turn: Duration) -> f64 {
    let batcher = n.batcher(Duration::ZERO, 1_000).unwrap();
    a_second(threads, turn, |thread, goes_on, sent| {
        let mut number = 0u64;
        while goes_on() {
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
