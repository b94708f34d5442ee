//! The cost of change triggers, compared with hand-written triggers: writes, bulk writes, memory of a session, and DDL.
//!
//! ```text
//! tests/with-postgres cargo bench --features changes --bench changes                       # about 3 minutes
//! tests/with-postgres cargo bench --features changes --bench changes -- --seconds 0.3      # a short run, for CI
//! tests/with-postgres cargo bench --features changes --bench changes -- --write            # also into the documentation
//! ```
//!
//! Each variant of reporting changes has a database of its own, created from one template, so that the variants can take
//! turns. The results are medians, and the cost of a trigger is the median of its differences to the turn without a trigger in
//! the same round. The bench starts the server without fsync. Commits are cheap there, so the relative cost of a trigger is at
//! its highest. Compare the ratios of one run, since absolute values drift.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "../tests/support/cluster.rs"]
mod cluster;
#[path = "changes/definitions.rs"]
mod definitions;
#[path = "changes/goals.rs"]
mod goals;
#[path = "changes/memory.rs"]
mod memory;
#[path = "changes/plot.rs"]
mod plot;
#[path = "changes/table.rs"]
mod table;
#[path = "changes/throughput.rs"]
mod throughput;
#[path = "changes/turns.rs"]
mod turns;
#[path = "changes/variants.rs"]
mod variants;
#[path = "changes/writes.rs"]
mod writes;

use std::fs;
use std::path::Path;
use std::time::Duration;

use notifyman::{Config, Connection};

use self::cluster::{Cluster, Options};
use self::turns::Samples;
use self::variants::Database;

const USAGE: &str = "\
usage: changes [OPTIONS]
  --seconds N    duration of each variant in each throughput case, in seconds; below 2, the other parts shrink as well (2)
  --write        write src/changes/costs.md and benches/results/changes.svg";

/// The amount of work in a run.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Duration of each variant in each throughput case.
    seconds: f64,
    /// 1 for a full run, less for a short run.
    part: f64,
}

impl Scale {
    fn new(seconds: f64) -> Self {
        Self { seconds, part: (seconds / 2.0).clamp(0.01, 1.0) }
    }

    /// Returns `true` if the run is long enough to check goals.
    fn is_full(self) -> bool {
        self.part >= 1.0
    }

    /// Returns a share of `full`, and at least `least`.
    fn of(self, full: usize, least: usize) -> usize {
        ((full as f64 * self.part) as usize).max(least)
    }
}

/// All measurements of a run.
#[derive(Debug)]
pub struct Measured {
    scale: Scale,
    version: String,
    /// Microseconds of a statement that writes one row: INSERT, UPDATE, DELETE, and an UPDATE with its commit.
    one_row: [Samples; 4],
    /// Milliseconds of a statement that writes many rows: INSERT, UPDATE, DELETE.
    bulk: [Samples; 3],
    /// Rows inserted per second, in each of the throughput cases.
    throughput: Vec<Samples>,
    /// Bytes of a session that wrote many tables; `None` before PostgreSQL 14.
    memory: Option<Samples>,
    /// Milliseconds of CREATE TABLE and ALTER TABLE, each again and first in a session.
    definitions: [Samples; 4],
}

fn main() {
    let (scale, is_written) = arguments();
    assert!(scale.is_full() || !is_written, "--write needs a full run: use --seconds 2 or more");
    let server = Options::new().max_connections(60).setting("shared_buffers", "256MB");
    let server = Cluster::start(server.setting("max_locks_per_transaction", "512")).unwrap();
    let mut databases = variants::make_databases(&server, scale);
    let measured = measure(&mut databases, scale);
    let markdown = table::markdown(&measured);
    let goals = goals::markdown(&measured);
    println!("{markdown}{goals}");
    if is_written {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        fs::write(root.join("src/changes/costs.md"), markdown + &goals).unwrap();
        fs::write(root.join("benches/results/changes.svg"), plot::svg(&measured)).unwrap();
    }
}

fn measure(databases: &mut [Database], scale: Scale) -> Measured {
    // DDL comes last, since it leaves dropped columns and dead rows in the catalogs.
    let version = databases[0].session.server_version().to_owned();
    let one_row = writes::one_row(databases, scale);
    let bulk = writes::bulk(databases, scale);
    let throughput = throughput::cases(databases, scale);
    let memory = memory::of_sessions(databases, scale);
    let definitions = definitions::tables(databases, scale);
    Measured { scale, version, one_row, bulk, throughput, memory, definitions }
}

/// Opens a session with a long call timeout.
pub fn connect(url: &str) -> Connection {
    let mut session = Connection::connect(Config::without_env(url).unwrap()).unwrap();
    session.set_call_timeout(Duration::from_secs(120));
    session
}

fn arguments() -> (Scale, bool) {
    let (mut seconds, mut is_written) = (2.0, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            // cargo passes this to every bench.
            "--bench" => {}
            "--seconds" => seconds = words.next().and_then(|value| value.parse().ok()).expect(USAGE),
            "--write" => is_written = true,
            _ => panic!("unknown option: {word}\n{USAGE}"),
        }
    }
    (Scale::new(seconds), is_written)
}
