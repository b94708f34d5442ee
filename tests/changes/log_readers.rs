//! Rule G10: several readers of one log, changes of the installation, and the privileges of a reader.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use notifyman::changes::{ChangeEvent, Changes, DeliveryMode, Installer, Worker};
use notifyman::{Connection, Error};

use super::log::{Over, gap, logged, logged_by, pass, read, reader};
use super::worker::{config, connected, ids, next_but_warnings, worker};
use crate::support::Options;
use crate::support::server::{LIMIT, ask, connect, eventually, terminate};

/// An interval that is longer than every test.
const NEVER: Duration = Duration::from_secs(600);

/// Returns the process of the leader's session, if there is one.
fn leader(db: &mut Connection) -> Option<i32> {
    let sql = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 1852798057 AND objid = 3 AND granted";
    db.query(sql).unwrap().first().map(|row| row.get(0).unwrap().parse().unwrap())
}

/// Returns the id of the next change, and ignores events about the session.
#[track_caller]
fn next_id(changes: &mut Changes) -> i64 {
    loop {
        match next_but_warnings(changes) {
            (_, ChangeEvent::Change(change)) => return change.new_data.unwrap()["id"].as_i64().unwrap(),
            (_, ChangeEvent::Connected | ChangeEvent::Disconnected(_)) => {}
            (_, other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn g10_the_leader_polls_and_wakes_the_other_readers() {
    let (server, mut site) = logged();
    let leading = read(&site);
    eventually("it leads", || leader(&mut site.db).is_some());
    let first = leader(&mut site.db).unwrap();
    let follower = |name: &str| worker(&[&site]).look_every(NEVER, NEVER).name(name);
    let mut followers = ["a", "b"].map(|name| connected(follower(name), 1));
    followers.iter_mut().for_each(|changes| drop(gap(changes)));
    // The leader notices the other readers within 10 seconds.
    site.run("INSERT INTO t VALUES (1)");
    let mut writer = connect(&site.url);
    let mut id = 1;
    eventually("they are woken", || {
        id += 1;
        writer.execute(&format!("INSERT INTO t VALUES ({id})")).unwrap();
        thread::sleep(Duration::from_millis(50));
        followers.iter().all(|changes| changes.waiting() > 0)
    });
    for changes in &mut followers {
        assert_eq!(ids(changes, usize::try_from(id).unwrap()), (1..=id).collect::<Vec<_>>());
    }
    assert_eq!(leader(&mut site.db), Some(first));

    // When its session is lost, another reader is elected, and all continue.
    terminate(&server, first);
    let mut readers = followers.into_iter().chain([leading]).collect::<Vec<_>>();
    let mut late = connected(reader(&site).name("late"), 1);
    gap(&mut late);
    writer.execute("INSERT INTO t VALUES (-1)").unwrap();
    assert_eq!(ids(&mut late, 1), [-1]);
    let mut led = readers.pop().unwrap();
    for expected in (1..=id).chain([-1]) {
        assert_eq!(next_id(&mut led), expected);
    }
    eventually("one leads", || leader(&mut site.db).is_some_and(|pid| pid != first));
}

#[test]
fn g10_readers_poll_by_themselves_while_a_foreign_session_holds_the_leaders_lock() {
    let (_server, mut site) = logged();
    site.run("SELECT pg_advisory_lock(1852798057, 3)");
    let foreign = leader(&mut site.db);
    let mut readers = [read(&site), read(&site)];
    let mut writer = site.session();
    for id in 1..=20 {
        writer.execute(&format!("INSERT INTO t VALUES ({id})")).unwrap();
        for changes in &mut readers {
            assert_eq!(ids(changes, 1), [id]);
        }
    }
    assert_eq!(leader(&mut site.db), foreign);
}

#[test]
fn g10_the_loss_of_the_leader_loses_no_change() {
    let (server, mut site) = logged();
    let mut readers = [read(&site), read(&site), read(&site)];
    for id in 1..=6 {
        eventually("one leads", || leader(&mut site.db).is_some());
        let pid = leader(&mut site.db).unwrap();
        site.run(&format!("INSERT INTO t VALUES ({id})"));
        terminate(&server, pid);
        for changes in &mut readers {
            assert_eq!(next_id(changes), id);
        }
        // The readers notice within 10 seconds that there is no leader. Until then they poll by themselves.
        site.run(&format!("INSERT INTO t VALUES (-{id})"));
        for changes in &mut readers {
            assert_eq!(next_id(changes), -id);
        }
    }
}

#[test]
fn g10_each_change_of_the_delivery_is_a_gap() {
    let (_server, mut site) = logged();
    let quick = || {
        worker(&[&site])
            .keep_spilled(Duration::from_millis(10))
            .look_every(Duration::from_millis(5), Duration::from_millis(5))
    };
    let mut changes = connected(quick().name("n"), 1);
    gap(&mut changes);
    pass(&mut connect(&site.url), &mut changes, 1);
    let position = changes.log_position().unwrap().clone();
    let mut id = 1;
    for delivery in [DeliveryMode::Notify, DeliveryMode::Log, DeliveryMode::Notify, DeliveryMode::Log] {
        site.build(&Installer::new().delivery(delivery));
        // The worker may poll the log before it notices the other delivery.
        loop {
            let cause = gap(&mut changes);
            if cause.contains("the delivery of the installation has changed") {
                break;
            }
            assert!(delivery == DeliveryMode::Notify && cause.contains("the log began again"), "{cause}");
        }
        // The worker may not listen yet when it reports the gap, which then covers the changes in between.
        let mut writer = site.session();
        eventually("later changes come", || {
            id += 1;
            writer.execute(&format!("INSERT INTO t VALUES ({id})")).unwrap();
            thread::sleep(Duration::from_millis(20));
            changes.waiting() > 0
        });
        let mut came = next_id(&mut changes);
        while came < id {
            let next = next_id(&mut changes);
            assert_eq!(next, came + 1);
            came = next;
        }
    }
    drop(changes);
    // A position of the previous log is not valid.
    let mut late = connected(reader(&site).position(1, position), 1);
    assert!(gap(&mut late).contains("the log began again"));
}

#[test]
fn g10_a_log_that_becomes_unlogged_begins_again() {
    let (mut server, mut site) = logged();
    let mut changes = connected(reader(&site).name("n"), 1);
    gap(&mut changes);
    pass(&mut site.db, &mut changes, 1);
    site.build(&Installer::new().delivery(DeliveryMode::Log).unlogged(true));
    assert!(gap(&mut changes).contains("the log began again"));
    pass(&mut site.db, &mut changes, 2);
    changes.acknowledge();
    // A clean restart keeps unlogged tables, and a crash empties them.
    server.restart().unwrap();
    let mut db = connect(&server.url());
    db.execute("INSERT INTO t VALUES (3)").unwrap();
    assert_eq!(next_id(&mut changes), 3);
    server.stop_immediate().unwrap();
    server.restart().unwrap();
    assert!(gap(&mut changes).contains("the log began again"));
    pass(&mut connect(&server.url()), &mut changes, 4);
}

#[test]
fn g10_a_reader_makes_no_serializable_transaction_fail() {
    let (_server, mut site) = logged_by(Options::new(), Installer::new().keep_for(Duration::from_secs(1)));
    site.run("ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'");
    let mut changes = [connected(reader(&site).name("n"), 1), read(&site)];
    gap(&mut changes[0]);
    let is_over = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writers: Vec<_> = (0..3_i64)
            .map(|writer| {
                let (url, is_over) = (&site.url, &is_over);
                scope.spawn(move || {
                    let mut db = connect(url);
                    assert_eq!(ask(&mut db, "SHOW transaction_isolation"), "serializable");
                    db.execute(&format!("CREATE TABLE own_{writer} (id int PRIMARY KEY)")).unwrap();
                    let mut count = 0;
                    while !is_over.load(Relaxed) {
                        count += 1;
                        // Each session reads and writes a table of its own, so a conflict could only be in the log.
                        let sql = format!(
                            "BEGIN; SELECT count(*) FROM own_{writer} WHERE id = {count};
                            INSERT INTO own_{writer} VALUES ({count})"
                        );
                        db.execute(&sql).unwrap_or_else(|error| panic!("{error}"));
                        if count % 10 == 0 {
                            thread::sleep(Duration::from_millis(5));
                        }
                        db.execute("COMMIT").unwrap_or_else(|error: Error| panic!("{error}"));
                    }
                    count
                })
            })
            .collect();
        let over = Over(&is_over);
        // The readers also rotate.
        let mut db = connect(&site.url);
        eventually("it rotates", || ask(&mut db, "SELECT pg_sequence_last_value('notifyman.log_table') >= 6") == "t");
        drop(over);
        writers.into_iter().map(|writer| writer.join().unwrap()).sum::<i64>()
    });
    for changes in &mut changes {
        let mut came = 0;
        while came < written {
            match next_but_warnings(changes) {
                (_, ChangeEvent::Change(_)) => came += 1,
                (_, ChangeEvent::Schema(_)) => {}
                (_, other) => panic!("{other:?} after {came} of {written}"),
            }
        }
    }
}

#[test]
fn g10_the_printed_privileges_suffice_to_begin_read_rotate_and_save() {
    let (mut server, mut site) = logged_by(Options::new(), Installer::new().keep_for(Duration::from_secs(1)));
    site.run(
        "CREATE ROLE reader LOGIN;
         GRANT SELECT ON notifyman.log TO reader;
         GRANT SELECT, TRUNCATE ON notifyman.log_0, notifyman.log_1, notifyman.log_2 TO reader;
         GRANT SELECT, INSERT, UPDATE, DELETE ON notifyman.era, notifyman.start, notifyman.mark, notifyman.position TO reader;
         GRANT SELECT, UPDATE ON SEQUENCE notifyman.log_table, notifyman.log_full TO reader;
         GRANT SELECT ON SEQUENCE notifyman.number, notifyman.log_dropped TO reader",
    );
    let config = config(&site.url.replace("postgres@", "reader@"));
    let worker =
        || Worker::new([config.clone()]).timeout(LIMIT).look_every(Duration::from_millis(5), Duration::from_millis(5));
    let mut changes = worker().name("n").start().unwrap();
    let mut followed = worker().start().unwrap();
    let mut warnings = Vec::new();
    let mut id = 0;
    let mut tables = connect(&site.url);
    eventually("it rotates", || {
        id += 1;
        site.run(&format!("INSERT INTO t VALUES ({id})"));
        thread::sleep(Duration::from_millis(20));
        ask(
            &mut tables,
            "SELECT pg_sequence_last_value('notifyman.log_table') >= 6 AND NOT EXISTS (
            SELECT FROM notifyman.log WHERE number = 1)",
        ) == "t"
    });
    for changes in [&mut changes, &mut followed] {
        let mut expected = 0;
        while expected < id {
            match super::worker::next(changes) {
                (_, ChangeEvent::Change(change)) => {
                    let came = change.new_data.unwrap()["id"].as_i64().unwrap();
                    assert!(expected == 0 || came == expected + 1, "{came} after {expected}");
                    expected = came;
                }
                (_, ChangeEvent::Connected) => {}
                (_, ChangeEvent::Gap(gap)) if expected == 0 => drop(gap),
                (_, ChangeEvent::Warning(warning)) => warnings.push(warning),
                (_, other) => panic!("{other:?}"),
            }
        }
    }
    assert!(warnings.iter().all(|warning| !warning.contains("permission denied")), "{warnings:?}");
    changes.acknowledge();
    // The role may begin an era.
    server.stop_immediate().unwrap();
    server.restart().unwrap();
    assert!(gap(&mut changes).contains("the log began again"));
    pass(&mut connect(&server.url()), &mut changes, id + 1);
    changes.acknowledge();
    drop(changes);
    connect(&server.url()).execute(&format!("INSERT INTO t VALUES ({id} + 2)")).unwrap();
    assert_eq!(ids(&mut connected(worker().name("n"), 1), 1), [id + 2]);
}
