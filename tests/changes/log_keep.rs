//! Rule G10: the retention of a log, and the cost of reading it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::Connection;
use notifyman::changes::{ChangeEvent, Changes, Installer};
use serde_json::Value;

use super::log::{Over, gap, logged_by, pass, read, read_from, reader};
use super::support::Site;
use super::worker::{connected, ids, next_but_warnings};
use crate::support::server::{LIMIT, ask, connect, eventually};
use crate::support::{Cluster, Options};

/// The smallest size of a log.
const SIZE: u64 = 1 << 20;
/// The tolerance above twice the size: 64 rows of the tests, or several pages of each index.
const SLACK: u64 = 256 << 10;

fn small() -> (Cluster, Site) {
    logged_by(Options::new(), Installer::new().keep_size(SIZE))
}

/// Inserts rows that have about 600 bytes in the log.
fn fill(db: &mut Connection, from: i64, to: i64) {
    db.execute(&format!("INSERT INTO t SELECT g, repeat('x', 400) FROM generate_series({from}, {to}) g")).unwrap();
}

fn number(db: &mut Connection, sql: &str) -> u64 {
    ask(db, sql).parse().unwrap()
}

/// Returns the size of the log.
fn size(db: &mut Connection) -> u64 {
    number(db, "SELECT sum(pg_total_relation_size('notifyman.log_' || n)) FROM generate_series(0, 2) n")
}

fn dropped(db: &mut Connection) -> u64 {
    number(db, "SELECT pg_sequence_last_value('notifyman.log_dropped')")
}

fn is_full(db: &mut Connection) -> bool {
    number(db, "SELECT pg_sequence_last_value('notifyman.log_full')") == 2
}

/// Returns the ids up to this one, and the causes of the gaps before it.
#[track_caller]
fn until(changes: &mut Changes, last: i64) -> (Vec<i64>, Vec<String>) {
    let (mut ids, mut gaps) = (Vec::new(), Vec::new());
    loop {
        match next_but_warnings(changes) {
            (_, ChangeEvent::Change(change)) => {
                let id = change.new_data.unwrap()["id"].as_i64().unwrap();
                if id == last {
                    return (ids, gaps);
                }
                ids.push(id);
            }
            (_, ChangeEvent::Gap(gap)) => gaps.push(format!("{:#}", gap.cause())),
            (_, other) => panic!("{other:?} after {} rows", ids.len()),
        }
    }
}

#[test]
fn g10_a_log_rotates_by_its_size_under_a_reader_that_misses_nothing() {
    let (_server, mut site) = small();
    let mut changes = connected(reader(&site).name("n"), 1);
    gap(&mut changes);
    let mut largest = 0;
    let tables = "SELECT pg_sequence_last_value('notifyman.log_table')";
    let mut from = 1;
    // Each table is written several times.
    let begun = Instant::now();
    while number(&mut site.db, tables) < 12 {
        assert!(begun.elapsed() < 2 * LIMIT, "it does not rotate");
        fill(&mut site.db, from, from + 99);
        assert_eq!(ids(&mut changes, 100), (from..from + 100).collect::<Vec<_>>());
        changes.acknowledge();
        from += 100;
        largest = largest.max(size(&mut site.db));
        // Positions are saved and tables truncated once per second, so faster writers would fill the log.
        eventually("the log has room", || size(&mut site.db) < SIZE * 3 / 2);
    }
    assert!((SIZE * 2 / 3..SIZE * 2).contains(&largest), "{largest}");
    assert_eq!(dropped(&mut site.db), 0);
    // In total more was written than the log has ever contained.
    assert!(number(&mut site.db, "SELECT sum(octet_length(v)) FROM t") > SIZE);
}

#[test]
fn g10_an_old_position_does_not_keep_rows_and_has_a_gap() {
    let (_server, mut site) = logged_by(Options::new(), Installer::new().keep_for(Duration::from_secs(2)));
    let mut stale = connected(reader(&site).name("stale"), 1);
    gap(&mut stale);
    pass(&mut site.db, &mut stale, 1);
    stale.acknowledge();
    drop(stale);
    let mut changes = read(&site);
    let mut id = 2;
    pass(&mut site.db, &mut changes, id);
    let position = changes.log_position().unwrap().clone();
    eventually("the second row is removed", || {
        id += 1;
        pass(&mut site.db, &mut changes, id);
        thread::sleep(Duration::from_millis(100));
        site.ask("SELECT count(*) FROM notifyman.log WHERE number <= 3") == "0"
    });
    site.run("INSERT INTO t VALUES (-1)");
    for mut late in [connected(reader(&site).name("stale"), 1), read_from(&site, &position)] {
        let cause = gap(&mut late);
        assert!(cause.contains("removed from the log before they were read"), "{cause}");
        let (came, gaps) = until(&mut late, -1);
        assert!(came.is_sorted() && came.first().is_none_or(|first| *first > 2), "{came:?}");
        assert_eq!(gaps, [] as [&str; 0]);
    }
    // The current reader has no gap.
    assert_eq!(until(&mut changes, -1), (vec![], vec![]));
}

#[test]
fn g10_a_slow_reader_keeps_rows_until_the_log_is_full_and_every_reader_has_a_gap() {
    let (_server, mut site) = small();
    let mut slow = connected(reader(&site).name("slow"), 1);
    gap(&mut slow);
    pass(&mut site.db, &mut slow, 0);
    let mut fast = read(&site);
    let mut last = 0;
    let mut largest = 0;
    while !is_full(&mut site.db) {
        fill(&mut site.db, last + 1, last + 50);
        last += 50;
        largest = largest.max(size(&mut site.db));
        assert!(last < 50_000, "it is never full");
    }
    // Writers continue.
    fill(&mut site.db, last + 1, last + 5_000);
    site.run(&format!("UPDATE t SET v = 'y' WHERE id = {last}; DELETE FROM t WHERE id > {last}"));
    largest = largest.max(size(&mut site.db));
    assert!((SIZE * 2 - SLACK..SIZE * 2 + SLACK).contains(&largest), "{largest}");
    let kept = number(&mut site.db, "SELECT count(*) FROM notifyman.log");
    let kept = i64::try_from(kept).unwrap() - 1;
    assert!(kept <= last && dropped(&mut site.db) >= 10_000, "{kept} of {last}");

    // Once the reader has caught up there is room.
    let expected: Vec<_> = (1..=kept).collect();
    let mut came = Vec::new();
    let mut causes = Vec::new();
    while came.len() < expected.len() || causes.is_empty() {
        match next_but_warnings(&mut slow) {
            (_, ChangeEvent::Change(change)) => came.push(change.new_data.unwrap()["id"].as_i64().unwrap()),
            (_, ChangeEvent::Gap(gap)) => causes.push(format!("{:#}", gap.cause())),
            (_, other) => panic!("{other:?}"),
        }
    }
    slow.acknowledge();
    assert_eq!(came, expected);
    eventually("there is room", || size(&mut site.db) < SIZE);
    assert!(!is_full(&mut site.db));
    site.run("INSERT INTO t VALUES (-1)");
    let (rest, more) = until(&mut slow, -1);
    assert_eq!(rest, [] as [i64; 0]);
    causes.extend(more);
    let (came, gaps) = until(&mut fast, -1);
    assert_eq!(came, expected);
    for cause in causes.iter().chain(&gaps) {
        assert!(cause.contains("the log was full"), "{cause}");
    }
    assert!(!causes.is_empty() && !gaps.is_empty());
    pass(&mut site.db, &mut fast, -2);
}

/// Starts a worker, which may warn of a full log before it is connected.
#[track_caller]
fn begin(site: &Site) -> Changes {
    let mut changes = reader(site).name("n").start().unwrap();
    assert!(matches!(next_but_warnings(&mut changes), (_, ChangeEvent::Connected)));
    changes
}

#[test]
fn g10_without_a_worker_a_log_is_bounded_and_no_write_fails() {
    let (_server, mut site) = small();
    // Before the log has been read for the first time, and after.
    for round in 0..2 {
        let first = round * 100_000 + 1;
        let before = dropped(&mut site.db);
        let written = site.ask("SELECT coalesce(pg_sequence_last_value('notifyman.number'), 0)");
        fill(&mut site.db, first, first + 9_999);
        for from in (first + 10_000..first + 11_000).step_by(50) {
            fill(&mut site.db, from, from + 49);
        }
        let size = size(&mut site.db);
        assert!((SIZE * 2 - SLACK..SIZE * 2 + SLACK).contains(&size), "{size}");
        assert_eq!(site.ask("SELECT count(*) FROM t"), "11000");
        let kept = format!("SELECT count(*) FROM notifyman.log WHERE number > {written}");
        let kept = number(&mut site.db, &kept);
        assert_eq!(dropped(&mut site.db) - before, 11_000 - kept, "each that is missing is counted");
        let mut changes = begin(&site);
        if round == 0 {
            assert!(gap(&mut changes).contains("no position was kept"));
            changes.acknowledge();
            eventually("rows that no worker needs are removed", || !is_full(&mut site.db));
            pass(&mut site.db, &mut changes, -1);
            changes.acknowledge();
            drop(changes);
            site.run("TRUNCATE t");
            let mut changes = begin(&site);
            let (_, ChangeEvent::Change(_)) = next_but_warnings(&mut changes) else { panic!("no TRUNCATE") };
            changes.acknowledge();
        } else {
            eventually("all is read", || changes.waiting() > usize::try_from(kept).unwrap());
            site.run("INSERT INTO t VALUES (-2)");
            let mut came = Vec::new();
            let mut causes = Vec::new();
            while came.len() < usize::try_from(kept).unwrap() || causes.is_empty() {
                match next_but_warnings(&mut changes) {
                    (_, ChangeEvent::Change(change)) => came.push(change.new_data.unwrap()["id"].as_i64().unwrap()),
                    (_, ChangeEvent::Gap(gap)) => causes.push(format!("{:#}", gap.cause())),
                    (_, other) => panic!("{other:?}"),
                }
            }
            assert_eq!(came, (first..).take(came.len()).collect::<Vec<_>>());
            assert!(causes.iter().all(|cause| cause.contains("the log was full")), "{causes:?}");
        }
    }
}

#[test]
fn g10_an_open_writer_only_keeps_its_own_table_and_no_writer_waits_for_a_rotation() {
    let (_server, mut site) = logged_by(Options::new(), Installer::new().keep_for(Duration::from_secs(1)));
    let mut changes = connected(reader(&site).name("n"), 1);
    gap(&mut changes);
    let mut open = site.session();
    open.execute("BEGIN; INSERT INTO t VALUES (-1)").unwrap();
    let table = number(&mut site.db, "SELECT pg_sequence_last_value('notifyman.log_table') % 3");
    let is_over = AtomicBool::new(false);
    let last = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut db = connect(&site.url);
            // A writer that waits longer fails.
            db.execute("SET lock_timeout = '2s'").unwrap();
            let mut id = 0;
            while !is_over.load(Relaxed) {
                id += 1;
                db.execute(&format!("INSERT INTO t VALUES ({id})")).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
            id
        });
        let over = Over(&is_over);
        let mut db = connect(&site.url);
        let (begun, mut read) = (Instant::now(), 0);
        // The other two tables are truncated repeatedly.
        let rotated = format!("SELECT pg_sequence_last_value('notifyman.log_table') >= {table} + 9");
        while ask(&mut db, &rotated) == "f" {
            read += 1;
            assert_eq!(ids(&mut changes, 1), [read]);
            assert!(begun.elapsed() < LIMIT, "it does not rotate");
        }
        changes.acknowledge();
        drop(over);
        let last = writer.join().unwrap();
        assert_eq!(ids(&mut changes, usize::try_from(last - read).unwrap()), (read + 1..=last).collect::<Vec<_>>());
        last
    });
    // The rows of the open writer are still there.
    open.execute("INSERT INTO t VALUES (-2); COMMIT").unwrap();
    assert_eq!(ids(&mut changes, 2), [-1, -2]);
    pass(&mut site.db, &mut changes, last + 1);
    let mut id = last + 1;
    eventually("its table is emptied, too", || {
        id += 1;
        pass(&mut site.db, &mut changes, id);
        thread::sleep(Duration::from_millis(50));
        site.ask(&format!("SELECT count(*) FROM notifyman.log WHERE number <= {last}")) == "0"
    });
}

/// Returns all nodes of a plan.
fn nodes(plan: &Value) -> Vec<&Value> {
    let children = plan["Plans"].as_array().map_or(&[][..], Vec::as_slice);
    std::iter::once(plan).chain(children.iter().flat_map(nodes)).collect()
}

/// Executes the query of a poll or a page, and returns its plan with the actual numbers.
fn explain(db: &mut Connection, rows: &str, values: &[(&str, &str)]) -> Value {
    let poll = include_str!("../../src/changes/sql/log_poll.sql").replace("{rows}", rows.trim_end());
    let values = values.iter().chain(&[("start", "0"), ("dropped", "0"), ("count", "1000"), ("bytes", "9999999")]);
    let sql = values.fold(poll, |sql, (name, value)| sql.replace(&format!("{{{name}}}"), value));
    let (settings, query) = sql.split_once("WITH s AS").unwrap();
    let rows = db.query(&format!("{settings} EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) WITH s AS {query}")).unwrap();
    let plan: Value = serde_json::from_str(&rows.last().unwrap().get(0).unwrap()).unwrap();
    plan[0]["Plan"].clone()
}

#[test]
fn g10_a_page_reads_and_sorts_one_page_and_a_poll_reads_no_open_transaction() {
    let (_server, mut site) = logged_by(Options::new(), Installer::new());
    let mut changes = read(&site);
    let mut open = site.session();
    open.execute("BEGIN; INSERT INTO t SELECT generate_series(-10000, -1)").unwrap();
    site.run("INSERT INTO t SELECT generate_series(1, 50000)");
    open.execute("INSERT INTO t VALUES (0)").unwrap();
    for (analyzed, id) in [(false, 1_i64), (true, 25_000)] {
        if analyzed {
            site.run("ANALYZE");
        }
        while ids(&mut changes, 1) != [id] {}
        // The parts of a position within a batch are the arguments of the next page.
        let text = changes.log_position().unwrap().to_string();
        let parts: Vec<&str> = text.split('.').collect();
        let [.., from, _, _, to, first, end, number] = parts[..] else { panic!("{text}") };
        let xmax = from.split(':').nth(1).unwrap();
        let page = include_str!("../../src/changes/sql/log_page.sql");
        let values = [("ended", ""), ("number", number), ("first", first), ("end", end), ("xmax", xmax), ("to", to)];
        let plan = explain(&mut site.db, page, &values);
        let mut read = 0;
        for node in nodes(&plan) {
            let count = |key: &str| node[key].as_f64().unwrap_or(0.0) * node["Actual Loops"].as_f64().unwrap();
            let kind = node["Node Type"].as_str().unwrap();
            assert!(!(kind == "Seq Scan" && node["Relation Name"].as_str().unwrap().starts_with("log_")), "{plan:#}");
            if kind == "Sort" {
                let inputs = node["Plans"].as_array().unwrap().iter();
                let inputs = inputs.filter(|it| it["Parent Relationship"] == "Outer");
                let input: f64 = inputs.filter_map(|it| it["Actual Rows"].as_f64()).sum();
                assert!(input <= 2_001.0, "{plan:#}");
            }
            if kind.starts_with("Index") {
                read += (count("Actual Rows") + count("Rows Removed by Filter")) as u64;
            }
        }
        assert!((1_000..=4_000).contains(&read), "{read}: {plan:#}");
    }

    // A poll while a transaction with many rows is open, with an id below xmax or not.
    drop(changes);
    for younger in [true, false] {
        if younger {
            open.execute("COMMIT; BEGIN; INSERT INTO t SELECT generate_series(100001, 120000)").unwrap();
        } else {
            site.run("INSERT INTO t VALUES (60001)");
        }
        let snapshot = site.ask("SELECT txid_current_snapshot()");
        let [_, xmax, running] = snapshot.split(':').collect::<Vec<_>>()[..] else { panic!("{snapshot}") };
        assert_eq!(running.is_empty(), younger);
        let new_rows = include_str!("../../src/changes/sql/log_new_rows.sql");
        let plan = explain(&mut site.db, new_rows, &[("xmax", xmax), ("running", running)]);
        let blocks = plan["Shared Hit Blocks"].as_u64().unwrap() + plan["Shared Read Blocks"].as_u64().unwrap();
        assert!(blocks < 100, "{younger}: {blocks} {plan:#}");
    }
}
