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

fn main() {
    let seconds = seconds();
    let server = Cluster::start(Options::new().max_connections(40).setting("shared_buffers", "128MB")).unwrap();
    let mut db = connect(&server);
    db.execute("CREATE TABLE t (id bigint, name text, cents int, at timestamptz DEFAULT now(), PRIMARY KEY (id))")
        .unwrap();
    println!("PostgreSQL {}; rows inserted a second, and their ratio to those without a trigger", db.server_version());

    let ways: [(&str, Option<Installer>); 5] = [
        ("no trigger", None),
        ("rows", Some(Installer::new())),
        ("keys", Some(Installer::new().shape(Shape::Keys))),
        ("rows, table", Some(Installer::new().delivery(Delivery::Table))),
        ("keys, table", Some(Installer::new().shape(Shape::Keys).delivery(Delivery::Table))),
    ];
    let cases = [(1, 1), (1, 16), (MANY, 1), (MANY, 16)];
    print!("{:<14}", "");
    cases.iter().for_each(|(rows, clients)| print!("{:>24}", format!("{rows} rows, {clients} clients")));
    println!();
    let mut without = [0.0; 4];
    for (name, installer) in ways {
        if let Some(installer) = installer {
            let report = installer.build(&mut db).unwrap();
            assert!(report.failed().is_empty(), "{report:?}");
        }
        print!("{name:<14}");
        for (n, (rows, clients)) in cases.into_iter().enumerate() {
            db.execute("TRUNCATE t").unwrap();
            let rate = rate(&server, rows, clients, seconds);
            if name == "no trigger" {
                without[n] = rate;
            }
            print!("{:>24}", format!("{rate:.0} ({:.2})", rate / without[n]));
            let outbox = "DO $$ BEGIN IF to_regclass('notifyman.outbox') IS NOT NULL THEN TRUNCATE notifyman.outbox; END IF; END $$";
            db.execute(outbox).unwrap();
        }
        println!();
    }
}

/// Rows a second, by so many clients that each insert so many with a statement; each ends the one that it is at.
fn rate(server: &Cluster, rows: u64, clients: u64, time: Duration) -> f64 {
    let (over, next) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut ears = connect(server);
    ears.listen(["notifyman"]).unwrap();
    let writers: Vec<_> = (0..clients).map(|_| connect(server)).collect();
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

fn connect(server: &Cluster) -> Connection {
    let mut db = Connection::connect(Config::without_env(&server.url()).unwrap()).unwrap();
    db.set_call_timeout(Duration::from_secs(120));
    db
}

fn seconds() -> Duration {
    let mut args = std::env::args().skip_while(|arg| arg != "--seconds").skip(1);
    let seconds = args.next().map_or(5.0, |text| text.parse().expect("--seconds takes a number"));
    Duration::from_secs_f64(seconds)
}
