//! What it costs a write that its changes are told: inserted rows a second without a trigger, and with each kind.
//!
//! ```text
//! tests/with-postgres cargo bench --features json --bench changes
//! tests/with-postgres cargo bench --features json --bench changes -- --seconds 0.3      # a short look, for the gate
//! ```
//!
//! The server is its own, without fsync: so a commit costs little, and what is told shows at its dearest. One session
//! listens and throws away what it hears. Compare the ratios of one run; absolute figures drift.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "../src/cli/cluster/mod.rs"]
mod cluster;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::changes::{Delivery, Installer, Shape};
use notifyman::{Config, Connection};

use self::cluster::{Cluster, Options};

/// How many rows a large statement inserts.
const MANY: u64 = 10_000;
/// In so many rounds each way has its turn, and its median counts: what else the machine does hits all alike.
const ROUNDS: u32 = 5;

fn main() {
    let turn = seconds() / ROUNDS;
    let server = Cluster::start(Options::new().max_connections(60).setting("shared_buffers", "128MB")).unwrap();
    let mut db = connect(&server.url());
    println!("PostgreSQL {}; rows inserted a second, and their ratio to those without a trigger", db.server_version());
    let ways = [
        ("no trigger", None),
        ("rows", Some(Installer::new())),
        ("keys", Some(Installer::new().shape(Shape::Keys))),
        ("rows, table", Some(Installer::new().delivery(Delivery::Table))),
        ("keys, table", Some(Installer::new().shape(Shape::Keys).delivery(Delivery::Table))),
    ];
    // Each way has a database of its own, so that they can take turns.
    let urls: Vec<String> = (0..ways.len()).map(|n| make_database(&server, &mut db, n, ways[n].1.as_ref())).collect();

    let cases = [(1, 1), (1, 16), (MANY, 1), (MANY, 16)];
    let rates: Vec<Vec<f64>> = cases.iter().map(|(rows, clients)| compare(&urls, *rows, *clients, turn)).collect();
    print!("{:<14}", "");
    cases.iter().for_each(|(rows, clients)| print!("{:>24}", format!("{rows} rows, {clients} clients")));
    println!();
    for (way, (name, _)) in ways.iter().enumerate() {
        print!("{name:<14}");
        rates.iter().for_each(|of| print!("{:>24}", format!("{:.0} ({:.2})", of[way], of[way] / of[0])));
        println!();
    }
}

/// A database with a table, in which it is built one way; gives its URL.
fn make_database(server: &Cluster, db: &mut Connection, n: usize, installer: Option<&Installer>) -> String {
    db.execute(&format!("CREATE DATABASE way_{n}")).unwrap();
    let url = server.url().trim_end_matches("postgres").to_owned() + &format!("way_{n}");
    let mut db = connect(&url);
    db.execute("CREATE TABLE t (id bigint PRIMARY KEY, name text, cents int, at timestamptz DEFAULT now())").unwrap();
    if let Some(installer) = installer {
        let report = installer.build(&mut db).unwrap();
        assert!(report.failed().is_empty(), "{report:?}");
    }
    url
}

/// The median rate of each way.
fn compare(urls: &[String], rows: u64, clients: u64, turn: Duration) -> Vec<f64> {
    let mut rates = vec![Vec::new(); urls.len()];
    for _ in 0..ROUNDS {
        for (url, rates) in urls.iter().zip(&mut rates) {
            let empty = "TRUNCATE t; DO $$ BEGIN TRUNCATE notifyman.outbox; EXCEPTION WHEN others THEN END $$";
            connect(url).execute(empty).unwrap();
            rates.push(rate(url, rows, clients, turn));
        }
    }
    let median = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    rates.into_iter().map(median).collect()
}

/// Rows a second, by so many clients that each insert so many with a statement; each ends the one that it is at.
fn rate(url: &str, rows: u64, clients: u64, time: Duration) -> f64 {
    let (over, next) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut ears = connect(url);
    ears.listen(["notifyman"]).unwrap();
    let writers: Vec<_> = (0..clients).map(|_| connect(url)).collect();
    let deaf = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in ears.wait(Duration::from_millis(20)) {
                if deaf.load(Relaxed) {
                    break;
                }
            }
        });
        let begun = Instant::now();
        let writing: Vec<_> = writers
            .into_iter()
            .map(|mut db| {
                let (over, next) = (&over, &next);
                scope.spawn(move || {
                    while !over.load(Relaxed) {
                        let first = next.fetch_add(rows, Relaxed);
                        let last = first + rows - 1;
                        let values =
                            format!("SELECT g, 'the name of a thing', 42 FROM generate_series({first}, {last}) g");
                        db.execute(&format!("INSERT INTO t {values}")).unwrap();
                    }
                })
            })
            .collect();
        thread::sleep(time);
        over.store(true, Relaxed);
        writing.into_iter().for_each(|writer| writer.join().unwrap());
        let taken = begun.elapsed();
        deaf.store(true, Relaxed);
        next.load(Relaxed) as f64 / taken.as_secs_f64()
    })
}

fn connect(url: &str) -> Connection {
    let mut db = Connection::connect(Config::without_env(url).unwrap()).unwrap();
    db.set_call_timeout(Duration::from_secs(120));
    db
}

fn seconds() -> Duration {
    let mut args = std::env::args().skip_while(|arg| arg != "--seconds").skip(1);
    let seconds = args.next().map_or(5.0, |text| text.parse().expect("--seconds takes a number"));
    Duration::from_secs_f64(seconds)
}
