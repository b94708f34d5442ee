//! Rule G10: the order in which a log is read, with open transactions.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use notifyman::Connection;
use notifyman::changes::{ChangeEvent, Changes, DeliveryMode, Installer, Position, Worker};

use super::support::Site;
use super::worker::{connected, ids, next_but_warnings, worker};
use crate::support::server::{ask, connect, start};
use crate::support::{Cluster, Options};

/// A short poll interval.
const LOOK: Duration = Duration::from_millis(5);

/// Starts a server with a table `t` and a log.
pub(super) fn logged() -> (Cluster, Site) {
    logged_by(Options::new(), Installer::new())
}

/// Starts a server with these options, a table `t` and a log with the options of this installer.
pub(super) fn logged_by(options: Options, installer: Installer) -> (Cluster, Site) {
    let server = start(options);
    let mut site = Site::at(server.url());
    site.stop_listening();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&installer.delivery(DeliveryMode::Log));
    (server, site)
}

/// Returns a worker that polls often.
pub(super) fn reader(site: &Site) -> Worker {
    worker(&[site]).look_every(LOOK, LOOK)
}

/// Starts a worker, and waits until it has begun to read.
#[track_caller]
pub(super) fn read(site: &Site) -> Changes {
    connected(reader(site), 1)
}

/// Starts a worker at a position.
#[track_caller]
pub(super) fn read_from(site: &Site, position: &Position) -> Changes {
    connected(reader(site).position(1, position.clone()), 1)
}

/// Returns the cause of the next event, which must be a gap. Events about the session may precede it.
#[track_caller]
pub(super) fn gap(changes: &mut Changes) -> String {
    loop {
        match next_but_warnings(changes) {
            (_, ChangeEvent::Gap(gap)) => return format!("{:#}", gap.cause()),
            (_, ChangeEvent::Connected | ChangeEvent::Disconnected(_)) => {}
            (_, other) => panic!("{other:?} instead of a gap"),
        }
    }
}

/// Returns the error of the next event, which must be the loss of the database.
#[track_caller]
pub(super) fn lost(changes: &mut Changes) -> String {
    match next_but_warnings(changes) {
        (_, ChangeEvent::Lost(error)) => format!("{error:#}"),
        (_, other) => panic!("{other:?} instead of a loss"),
    }
}

/// Inserts a row, and asserts that it is the next change, so that everything else has been read.
#[track_caller]
pub(super) fn pass(db: &mut Connection, changes: &mut Changes, id: i64) {
    db.execute(&format!("INSERT INTO t VALUES ({id})")).unwrap();
    assert_eq!(ids(changes, 1), [id]);
}

/// Returns the number of parts of a position's text, of which there are more within a batch.
fn parts(changes: &Changes) -> usize {
    changes.log_position().expect("a position").to_string().split('.').count()
}

#[test]
fn g10_subtransactions_that_were_not_rolled_back_are_reported_at_the_commit() {
    let (_server, mut site) = logged();
    let mut changes = read(&site);
    let mut other = site.session();
    let steps = [
        "BEGIN; INSERT INTO t VALUES (1)",
        "SAVEPOINT a; INSERT INTO t VALUES (2)",
        "ROLLBACK TO a; INSERT INTO t VALUES (3)",
        "SAVEPOINT b; INSERT INTO t VALUES (4); SAVEPOINT c; UPDATE t SET v = 'x' WHERE id = 4",
        "RELEASE b",
        "DO $$ BEGIN BEGIN INSERT INTO t VALUES (5); RAISE 'no'; EXCEPTION WHEN others THEN INSERT INTO t VALUES (6); END;
            BEGIN INSERT INTO t VALUES (7); EXCEPTION WHEN others THEN NULL; END; END $$",
        "SAVEPOINT d; DELETE FROM t; ROLLBACK TO d",
    ];
    for (index, step) in (100..).zip(steps) {
        site.run(step);
        pass(&mut other, &mut changes, index);
    }
    site.run("COMMIT");
    let mut came = Vec::new();
    for _ in 0..6 {
        let (_, ChangeEvent::Change(change)) = next_but_warnings(&mut changes) else { panic!("after {came:?}") };
        came.push((change.method, change.new_data.unwrap()["id"].as_i64().unwrap(), parts(&changes)));
    }
    let reports: Vec<_> = came.iter().map(|(method, id, _)| format!("{method:?} {id}")).collect();
    assert_eq!(reports, ["Insert 1", "Insert 3", "Insert 4", "Update 4", "Insert 6", "Insert 7"]);
    // They are one batch, which ends with the last one.
    assert_eq!(came.iter().map(|(.., parts)| *parts).collect::<Vec<_>>(), [11, 11, 11, 11, 11, 7]);
    pass(&mut other, &mut changes, 200);
}

#[test]
fn g10_a_prepared_transaction_is_reported_when_it_is_committed_also_after_a_restart() {
    let (mut server, mut site) = logged_by(Options::new().setting("max_prepared_transactions", "5"), Installer::new());
    let mut changes = read(&site);
    let mut other = site.session();
    for (id, name) in (1..).zip(["kept", "undone", "late"]) {
        site.run(&format!("BEGIN; INSERT INTO t VALUES ({id}); PREPARE TRANSACTION '{name}'"));
        pass(&mut other, &mut changes, id + 100);
    }
    site.run("ROLLBACK PREPARED 'undone'");
    pass(&mut other, &mut changes, 110);
    site.run("COMMIT PREPARED 'kept'");
    assert_eq!(ids(&mut changes, 1), [1]);
    server.restart().unwrap();
    assert!(matches!(next_but_warnings(&mut changes), (_, ChangeEvent::Disconnected(_))));
    assert!(matches!(next_but_warnings(&mut changes), (_, ChangeEvent::Connected)));
    let mut db = connect(&server.url());
    pass(&mut db, &mut changes, 120);
    db.execute("COMMIT PREPARED 'late'").unwrap();
    assert_eq!(ids(&mut changes, 1), [3]);
    pass(&mut db, &mut changes, 130);
}

#[test]
fn g10_a_transaction_that_begins_first_and_commits_last_delays_no_other() {
    let (_server, mut site) = logged();
    let mut changes = read(&site);
    let mut early = site.session();
    early.execute("BEGIN; INSERT INTO t VALUES (1)").unwrap();
    for id in 2..=300 {
        site.run(&format!("INSERT INTO t VALUES ({id})"));
        if id % 100 == 0 {
            early.execute(&format!("INSERT INTO t VALUES ({id} + 1000)")).unwrap();
        }
    }
    // They are reported although an earlier writer is open.
    assert_eq!(ids(&mut changes, 299), (2..=300).collect::<Vec<_>>());
    early.execute("COMMIT").unwrap();
    let mut late = Vec::new();
    for id in [1, 1100, 1200, 1300] {
        assert_eq!(ids(&mut changes, 1), [id]);
        late.push(parts(&changes));
    }
    assert_eq!(late, [11, 11, 11, 7]);
    pass(&mut site.db, &mut changes, 5000);
}

#[test]
fn g10_the_only_open_transaction_which_a_snapshot_does_not_list_is_read_when_it_commits() {
    let (_server, mut site) = logged();
    // The log has begun.
    drop(read(&site));
    let mut alone = site.session();
    alone.execute("BEGIN; INSERT INTO t SELECT generate_series(1, 1500)").unwrap();
    // The transaction is not below xmax, so the snapshot does not list it.
    assert_eq!(ask(&mut alone, "SELECT txid_current() >= txid_snapshot_xmax(txid_current_snapshot())"), "t");
    assert_eq!(site.ask("SELECT count(*) FROM txid_snapshot_xip(txid_current_snapshot())"), "0");
    let mut changes = read(&site);
    thread::sleep(Duration::from_millis(100));
    alone.execute("INSERT INTO t SELECT generate_series(1501, 3000); COMMIT").unwrap();
    assert_eq!(ids(&mut changes, 3000), (1..=3000).collect::<Vec<_>>());
    pass(&mut site.db, &mut changes, 5000);
}

#[test]
fn g10_a_transaction_that_has_written_before_the_log_began_is_a_gap_when_it_ends() {
    let (_server, mut site) = logged();
    let mut open = site.session();
    open.execute("BEGIN; INSERT INTO t VALUES (1)").unwrap();
    // This is the state after a crash of the server. The transaction's lock prevents the truncation of the tables.
    site.run("TRUNCATE notifyman.era, notifyman.start, notifyman.mark");
    let mut changes = read(&site);
    pass(&mut site.db, &mut changes, 2);
    open.execute("INSERT INTO t VALUES (3); COMMIT").unwrap();
    assert!(gap(&mut changes).contains("before the log began"));
    assert_eq!(ids(&mut changes, 1), [3]);
    pass(&mut site.db, &mut changes, 4);
}

#[test]
fn g10_a_transaction_that_has_not_written_in_the_log_when_it_began_is_no_gap() {
    let (_server, mut site) = logged();
    let mut open = site.session();
    open.execute("BEGIN; SELECT txid_current()").unwrap();
    site.run("TRUNCATE notifyman.era, notifyman.start, notifyman.mark");
    let mut changes = read(&site);
    pass(&mut site.db, &mut changes, 1);
    open.execute("INSERT INTO t VALUES (2); COMMIT").unwrap();
    assert_eq!(ids(&mut changes, 1), [2]);
    pass(&mut site.db, &mut changes, 3);
}

#[test]
fn g10_a_large_transaction_is_read_in_pages_within_which_a_reader_can_restart() {
    let (_server, mut site) = logged();
    let mut changes = read(&site);
    let mut early = site.session();
    early.execute("BEGIN; INSERT INTO t VALUES (-1)").unwrap();
    site.run("INSERT INTO t SELECT generate_series(1, 20000)");
    early.execute("INSERT INTO t VALUES (-2)").unwrap();
    assert_eq!(ids(&mut changes, 7_777), (1..=7_777).collect::<Vec<_>>());
    assert_eq!(parts(&changes), 11);
    let position = changes.log_position().unwrap().clone();
    // Later commits are not part of the batch.
    early.execute("COMMIT").unwrap();
    site.run("INSERT INTO t SELECT generate_series(20001, 20010)");
    let mut second = read_from(&site, &position);
    for changes in [&mut changes, &mut second] {
        assert_eq!(ids(changes, 12_223), (7_778..=20_000).collect::<Vec<_>>());
        let mut rest = ids(changes, 12);
        // One poll may find both transactions, or two polls one each.
        assert!(rest.iter().position(|id| *id == -1) < rest.iter().position(|id| *id == -2));
        rest.sort_unstable();
        assert_eq!(rest, [-2, -1].into_iter().chain(20_001..=20_010).collect::<Vec<_>>());
        assert_eq!(parts(changes), 7);
    }
}

#[test]
fn g10_many_small_transactions_without_a_reader_are_read_in_the_order_of_their_writes() {
    let (_server, mut site) = logged();
    let mut changes = connected(reader(&site).name("n"), 1);
    assert!(gap(&mut changes).contains("no position was kept"));
    pass(&mut site.db, &mut changes, 0);
    let mut open = site.session();
    open.execute("BEGIN; INSERT INTO t VALUES (-1)").unwrap();
    pass(&mut site.db, &mut changes, 1);
    drop(changes);
    open.execute("INSERT INTO t VALUES (-2); COMMIT").unwrap();
    for id in 2..=3000 {
        site.run(&format!("INSERT INTO t VALUES ({id})"));
    }
    let mut changes = connected(reader(&site).name("n"), 1);
    // Row 1 was not acknowledged.
    let expected: Vec<_> = [-1, 1, -2].into_iter().chain(2..=3000).collect();
    assert_eq!(ids(&mut changes, 3002), expected);
    pass(&mut site.db, &mut changes, 5000);
}

/// Ends the writers when it is dropped, even if the test fails.
pub(super) struct Over<'a>(pub(super) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Writes versions of a few rows until it is stopped, with rolled back savepoints and transactions.
fn write_versions(url: &str, mut seed: u64, is_over: &AtomicBool) {
    let mut db = connect(url);
    let mut random = move |below: u64| {
        // xorshift64
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let update = |id: u64| format!("UPDATE account SET version = version + 1 WHERE id = {id};");
    while !is_over.load(Relaxed) {
        // Rows are locked in ascending order, so that no deadlock occurs.
        let (first, step) = (random(10), random(5) + 1);
        let mut sql = "BEGIN;".to_owned() + &update(first);
        if random(3) == 0 {
            sql += "SAVEPOINT s;";
            sql += &update(first + step);
            sql += if random(2) == 0 { "ROLLBACK TO s;" } else { "RELEASE s;" };
        }
        sql += &update(first + 2 * step);
        db.execute(&sql).unwrap();
        if random(4) == 0 {
            thread::sleep(Duration::from_millis(random(20)));
        }
        db.execute(if random(6) == 0 { "ROLLBACK" } else { "COMMIT" }).unwrap();
    }
}

#[test]
fn g10_every_committed_version_of_a_row_is_reported_once_and_in_order() {
    let (_server, mut site) = logged();
    site.run("CREATE TABLE account (id int PRIMARY KEY, version int); INSERT INTO account SELECT g, 0 FROM generate_series(0, 19) g");
    let mut changes = read(&site);
    let mut first = read(&site);
    let mut versions = vec![0; 20];
    let take = |changes: &mut Changes, versions: &mut [i64]| {
        let (_, ChangeEvent::Change(change)) = next_but_warnings(changes) else { panic!("no change") };
        let row = change.new_data.unwrap();
        let (id, version) = (row["id"].as_i64().unwrap(), row["version"].as_i64().unwrap());
        let Ok(index) = usize::try_from(id) else { return true };
        assert_eq!(version, versions[index] + 1, "row {id}");
        versions[index] = version;
        false
    };
    let is_over = AtomicBool::new(false);
    let mut changes = thread::scope(|scope| {
        for seed in 1..=8 {
            let (url, is_over) = (&site.url, &is_over);
            scope.spawn(move || write_versions(url, 0x9e37_79b9_7f4a_7c15 ^ seed, is_over));
        }
        let over = Over(&is_over);
        // A reader that is restarted repeatedly at its last position.
        for round in 0..20 {
            for _ in 0..100 {
                take(&mut changes, &mut versions);
            }
            let position = changes.log_position().unwrap().clone();
            if round % 2 == 0 {
                drop(changes);
                thread::sleep(Duration::from_millis(100));
                changes = read_from(&site, &position);
            }
        }
        drop(over);
        changes
    });
    site.run("INSERT INTO account VALUES (-1, 0)");
    while !take(&mut changes, &mut versions) {}
    let rows = site.db.query("SELECT version FROM account WHERE id >= 0 ORDER BY id").unwrap();
    let written: Vec<i64> = rows.iter().map(|row| row.get(0).unwrap().parse().unwrap()).collect();
    assert_eq!(versions, written);
    assert!(written.iter().sum::<i64>() >= 2000);
    // A reader without restarts receives the same.
    let mut versions = vec![0; 20];
    while !take(&mut first, &mut versions) {}
    assert_eq!(versions, written);
}
