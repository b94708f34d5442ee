//! Reading a log of changes: the delay from the commit to the reader, a replay, and a poll while an old snapshot is held.
//!
//! ```text
//! tests/with-postgres cargo bench --features changes --bench log                      # about 1 minute
//! tests/with-postgres cargo bench --features changes --bench log -- --seconds 0.3     # a short run, for CI
//! tests/with-postgres cargo bench --features changes --bench log -- --hold 3600       # an old snapshot for an hour
//! ```
//!
//! The bench starts the server without fsync. Delays are measured in one process, with one clock. The goals are for an idle
//! machine. A short run only shows that everything works.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "../tests/support/cluster.rs"]
mod cluster;

use std::thread;
use std::time::{Duration, Instant};

use notifyman::changes::{ChangeEvent, Changes, DeliveryMode, Installer, Worker};
use notifyman::{Config, Connection};

use self::cluster::{Cluster, Options};

const USAGE: &str = "\
usage: log [OPTIONS]
  --seconds N    duration of each measurement of delays, in seconds; below 5, the other parts shrink as well (5)
  --hold N       duration for which the old snapshot is held, in seconds (10)";

fn main() {
    let (seconds, hold) = arguments();
    let part = (seconds / 5.0).clamp(0.01, 1.0);
    let server =
        Cluster::start(Options::new().setting("shared_buffers", "256MB").setting("max_wal_size", "4GB")).unwrap();
    let mut site = Site::new(&server);
    println!("PostgreSQL {}\n", site.db.server_version());
    println!("| | measured | goal |\n|---|--:|--:|");

    let [half, most] = delays(&mut site, seconds, Duration::from_millis(3));
    row("commit to reader under traffic, median", half, "");
    row("commit to reader under traffic, 99 %", most, "≤ 50 ms");
    let mut open = site.session();
    open.execute("BEGIN; INSERT INTO t VALUES (-1, 0)").unwrap();
    let [_, most] = delays(&mut site, seconds, Duration::from_millis(3));
    row("commit to reader with an open writer, 99 %", most, "≤ 50 ms");
    open.execute("ROLLBACK").unwrap();
    row("first change of a quiet log, 99 %", after_quiet(&mut site, (20.0 * part) as usize + 1), "≤ 250 ms");

    let rows = (500_000.0 * part) as u64;
    for (name, statements) in [("one transaction", 1), ("transactions of 10 rows", rows / 10)] {
        println!("| replay, {name} | {:.0} rows/s | ≥ 200,000 |", replay(&mut site, rows, statements));
    }
    let (first, last) = polls_with_an_old_snapshot(&mut site, hold, part);
    row("a poll, median", first, "≤ 2 ms");
    row(&format!("a poll after {hold} s with an old snapshot, median"), last, "≤ 2 ms");
}

fn row(name: &str, time: Duration, goal: &str) {
    println!("| {name} | {:.2} ms | {goal} |", time.as_secs_f64() * 1000.0);
}

/// A database with a log.
struct Site {
    url: String,
    db: Connection,
    next_id: u64,
}

impl Site {
    fn new(server: &Cluster) -> Self {
        let url = server.url();
        let mut db = connect(&url);
        db.execute("CREATE TABLE t (id bigint PRIMARY KEY, v int)").unwrap();
        let installer = Installer::new().delivery(DeliveryMode::Log).keep_size(8 << 30);
        assert!(installer.build(&mut db).unwrap().failed().is_empty());
        Self { url, db, next_id: 1 }
    }

    fn session(&self) -> Connection {
        connect(&self.url)
    }

    fn worker(&self) -> Worker {
        Worker::new([Config::without_env(&self.url).unwrap()])
    }

    fn follow(&self) -> Changes {
        let mut changes = self.worker().start().unwrap();
        assert!(matches!(changes.next(), Some(Some((1, ChangeEvent::Connected)))));
        changes
    }
}

fn connect(url: &str) -> Connection {
    let mut session = Connection::connect(Config::without_env(url).unwrap()).unwrap();
    session.set_call_timeout(Duration::from_secs(600));
    session
}

/// Returns the median and the 99th percentile of the time from a commit to the reader, with a commit every `pause`.
fn delays(site: &mut Site, seconds: f64, pause: Duration) -> [Duration; 2] {
    let mut changes = site.follow();
    let (mut writer, first) = (site.session(), site.next_id);
    // At first the log is quiet.
    let skipped = 100;
    let count = (seconds / pause.as_secs_f64()) as u64 + skipped + 1;
    site.next_id += count;
    let committed = thread::spawn(move || {
        let commit = |id| {
            writer.execute(&format!("INSERT INTO t VALUES ({id}, 0)")).unwrap();
            let at = Instant::now();
            thread::sleep(pause);
            at
        };
        (first..first + count).map(commit).collect::<Vec<_>>()
    });
    let read: Vec<_> = (0..count).map(|_| read(&mut changes)).collect();
    let committed = committed.join().unwrap();
    percentiles(
        committed
            .iter()
            .zip(read)
            .skip(skipped as usize)
            .map(|(committed, read)| read.saturating_duration_since(*committed))
            .collect(),
    )
}

/// Waits for a change.
fn read(changes: &mut Changes) -> Instant {
    loop {
        match changes.next().unwrap() {
            Some((_, ChangeEvent::Change(_))) => return Instant::now(),
            Some((_, ChangeEvent::Warning(_))) | None => {}
            Some((_, other)) => panic!("{other:?}"),
        }
    }
}

fn percentiles(mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort_unstable();
    [times[times.len() / 2], times[times.len() * 99 / 100]]
}

/// Returns the 99th percentile of the delay of the first change in a quiet log.
fn after_quiet(site: &mut Site, count: usize) -> Duration {
    let delay = |round: usize| {
        let mut changes = site.follow();
        thread::sleep(Duration::from_millis(300 + 37 * round as u64 % 200));
        site.db.execute(&format!("INSERT INTO t VALUES ({}, 0)", site.next_id)).unwrap();
        site.next_id += 1;
        let committed = Instant::now();
        read(&mut changes).saturating_duration_since(committed)
    };
    percentiles((0..count).map(delay).collect())[1]
}

/// Returns the rows per second of a worker that continues before this many rows of this many transactions.
fn replay(site: &mut Site, rows: u64, transactions: u64) -> f64 {
    let mut changes = site.follow();
    site.db.execute(&format!("INSERT INTO t VALUES ({}, 0)", site.next_id)).unwrap();
    site.next_id += 1;
    read(&mut changes);
    let position = changes.log_position().unwrap().clone();
    drop(changes);
    let (first, each) = (site.next_id, rows / transactions);
    site.db
        .execute(&format!(
            "DO $$ BEGIN FOR i IN 0..{transactions} - 1 LOOP
                INSERT INTO t SELECT {first} + i * {each} + g, 0 FROM generate_series(0, {each} - 1) g; COMMIT; END LOOP; END $$"
        ))
        .unwrap();
    site.next_id += rows;
    let mut changes = site.worker().position(1, position).start().unwrap();
    assert!(matches!(changes.next(), Some(Some((1, ChangeEvent::Connected)))));
    let begun = Instant::now();
    for _ in 0..transactions * each {
        read(&mut changes);
    }
    (transactions * each) as f64 / begun.elapsed().as_secs_f64()
}

/// Returns the time of a poll at the beginning, and after an old snapshot was held for this time, with a writer and a reader.
fn polls_with_an_old_snapshot(site: &mut Site, hold: f64, part: f64) -> (Duration, Duration) {
    let mut holder = site.session();
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM t LIMIT 1").unwrap();
    let first = poll_time(site);
    let (mut changes, mut writer, end) =
        (site.follow(), site.session(), Instant::now() + Duration::from_secs_f64(hold));
    let stopper = changes.stopper();
    let reader = thread::spawn(move || changes.by_ref().flatten().count());
    let rows = (2_000.0 * part) as u64 + 1;
    while Instant::now() < end {
        writer.execute(&format!("UPDATE t SET v = v + 1 WHERE id <= {rows}")).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    let last = poll_time(site);
    stopper.stop();
    reader.join().unwrap();
    (first, last)
}

/// Returns the median time of a poll.
fn poll_time(site: &mut Site) -> Duration {
    let fill = |template: &str, values: &[(&str, &str)]| {
        values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    };
    let (poll, new) =
        (include_str!("../src/changes/sql/log_poll.sql"), include_str!("../src/changes/sql/log_new_rows.sql"));
    site.db.execute("SET search_path = pg_catalog, pg_temp").unwrap();
    let mut times = Vec::new();
    for _ in 0..50 {
        let snapshot = site.db.query("SELECT txid_current_snapshot()").unwrap()[0].get(0).unwrap().into_owned();
        let mut parts = snapshot.split(':').skip(1);
        let (xmax, running) = (parts.next().unwrap(), parts.next().unwrap());
        let new = fill(new, &[("xmax", xmax), ("running", running), ("count", "1000"), ("bytes", "1000000")]);
        let sql = fill(poll, &[("rows", &new), ("start", "0"), ("dropped", "0")]);
        let begun = Instant::now();
        site.db.query(&sql).unwrap();
        times.push(begun.elapsed());
    }
    site.db.execute("RESET search_path").unwrap();
    percentiles(times)[0]
}

fn arguments() -> (f64, f64) {
    let (mut seconds, mut hold) = (5.0_f64, None);
    let mut words = std::env::args().skip(1);
    let number = |word: Option<String>| word.and_then(|value| value.parse().ok()).expect(USAGE);
    while let Some(word) = words.next() {
        match word.as_str() {
            // cargo passes this to every bench.
            "--bench" => {}
            "--seconds" => seconds = number(words.next()),
            "--hold" => hold = Some(number(words.next())),
            _ => panic!("unknown option: {word}\n{USAGE}"),
        }
    }
    (seconds, hold.unwrap_or(seconds * 2.0))
}
