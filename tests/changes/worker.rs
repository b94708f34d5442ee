//! Following changes in the library: rule G8.

use std::time::{Duration, Instant};

use notifyman::Config;
use notifyman::changes::{ChangeEvent, Changes, DeliveryMode, Installer, Oversize, Shape, Worker};
use serde_json::json;

use super::support::{Site, site, site_in, start_with_a_small_queue};
use crate::support::Options;
use crate::support::server::{LIMIT, ask, connect, eventually, start, terminate, utf8};

/// A worker that is named in `pg_stat_activity`, so that its sessions can be found.
pub(super) const NAME: &str = "the worker";

pub(super) fn config(url: &str) -> Config {
    Config::without_env(url).unwrap().application_name(NAME)
}

pub(super) fn worker(sites: &[&Site]) -> Worker {
    Worker::new(sites.iter().map(|site| config(&site.url))).timeout(LIMIT)
}

/// A worker that receives the changes of these databases.
#[track_caller]
pub(super) fn follow(sites: &[&Site]) -> Changes {
    connected(worker(sites), sites.len())
}

/// Starts a worker, and waits until so many databases are connected.
#[track_caller]
pub(super) fn connected(worker: Worker, databases: usize) -> Changes {
    let mut changes = worker.start().unwrap();
    for _ in 0..databases {
        let (_, event) = next(&mut changes);
        assert!(matches!(event, ChangeEvent::Connected), "{event:?}");
    }
    changes
}

/// The next event, which must come.
#[track_caller]
pub(super) fn next(changes: &mut Changes) -> (usize, ChangeEvent) {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        if let Some(event) = changes.next().expect("the worker continues") {
            return event;
        }
    }
    panic!("no event for {LIMIT:?}")
}

/// The next event but for warnings.
#[track_caller]
pub(super) fn next_but_warnings(changes: &mut Changes) -> (usize, ChangeEvent) {
    loop {
        match next(changes) {
            (_, ChangeEvent::Warning(_)) => {}
            event => return event,
        }
    }
}

/// The ids of so many rows that are inserted.
#[track_caller]
pub(super) fn ids(changes: &mut Changes, count: usize) -> Vec<i64> {
    let mut ids = Vec::new();
    while ids.len() < count {
        match next_but_warnings(changes) {
            (_, ChangeEvent::Change(change)) => ids.push(change.new_data.unwrap()["id"].as_i64().unwrap()),
            (_, other) => panic!("{other:?} after {ids:?}"),
        }
    }
    ids
}

#[test]
fn g08_changes_of_several_databases_come_with_the_number_of_each() {
    let mut sites = [site(), site()];
    for (n, site) in sites.iter_mut().enumerate() {
        site.run("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)");
        let delivery = if n == 0 { DeliveryMode::Notify } else { DeliveryMode::Log };
        site.build(&Installer::new().delivery(delivery));
    }
    let mut changes = connected(worker(&[&sites[0], &sites[1]]).tables(["public.t"]), 2);
    for (number, site) in (1..).zip(&mut sites) {
        site.run("INSERT INTO other VALUES (1); INSERT INTO t VALUES (7); ALTER TABLE t ADD COLUMN v int");
        let (database, ChangeEvent::Change(change)) = next(&mut changes) else { panic!() };
        assert_eq!((database, change.new_data.unwrap()["id"].as_i64()), (number, Some(7)));
        assert!(changes.payload().starts_with("{\"number\":"));
        let (database, ChangeEvent::Schema(change)) = next(&mut changes) else { panic!() };
        assert_eq!((database, change.command_tag.as_str()), (number, "ALTER TABLE"));
    }
    changes.stopper().stop();
    assert!(changes.next().is_none());
}

#[test]
fn g08_callbacks_receive_changes_definitions_and_the_rest() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new());
    let changes = follow(&[&site]);
    let stopper = changes.stopper();
    site.run("INSERT INTO t VALUES (1); DROP TABLE t");
    site.db.notify("notifyman", "not ours").unwrap();
    let (mut rows, mut definitions) = (0, 0);
    changes.run(
        |_, change| rows += change.new_data.map_or(0, |_| 1),
        |_, _| definitions += 1,
        |_, event| {
            assert!(matches!(event, ChangeEvent::Unreadable { payload, .. } if payload == "not ours"));
            stopper.stop();
        },
    );
    assert_eq!((rows, definitions), (1, 1));
}

#[test]
fn g08_idle_events_come_where_nothing_else_does() {
    let mut site = site();
    site.build(&Installer::new());
    let mut changes = connected(worker(&[&site]).timeout(Duration::from_millis(50)), 1);
    let begun = Instant::now();
    assert!(matches!(changes.next(), Some(None)));
    assert!(begun.elapsed() >= Duration::from_millis(50));
}

#[test]
fn g04_a_spilled_payload_is_read_by_every_worker_and_deleted_after_its_time() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new().oversize(Oversize::Spill));
    let config = Config::without_env(&site.url).unwrap();
    let keeping = |time| connected(Worker::new([config.clone()]).timeout(LIMIT).keep_spilled(time), 1);
    let mut workers = [keeping(Duration::from_secs(600)), keeping(Duration::from_secs(600))];
    site.db.execute("INSERT INTO t VALUES (1, repeat('x', 1000000))").unwrap();
    for changes in &mut workers {
        let (_, ChangeEvent::Change(change)) = next(changes) else { panic!() };
        assert_eq!(change.new_data.unwrap()["v"].as_str().unwrap().len(), 1_000_000);
        assert_eq!((change.truncated, change.spilled), (None, false));
    }
    assert_eq!(ask(&mut connect(&site.url), "SELECT count(*) FROM notifyman.spilled"), "1");
    let _third = keeping(Duration::from_millis(10));
    let mut db = connect(&site.url);
    eventually("it is cleared", || ask(&mut db, "SELECT count(*) FROM notifyman.spilled") == "0");
}

#[test]
fn g04_a_spilled_payload_that_is_no_longer_there_is_reported_as_spilled() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new().oversize(Oversize::Spill));
    let mut changes = follow(&[&site]);
    site.run("BEGIN; INSERT INTO t VALUES (1, repeat('x', 1000000)); DELETE FROM notifyman.spilled; COMMIT");
    let (_, ChangeEvent::Change(change)) = next(&mut changes) else { panic!() };
    assert!(change.spilled && change.new_data.is_none());
}

/// Starts a worker whose position is not there yet, as the gap says that comes first.
#[track_caller]
pub(super) fn follow_as(name: &str, site: &Site) -> Changes {
    let mut changes = connected(worker(&[site]).name(name), 1);
    let (1, ChangeEvent::Gap(gap)) = next(&mut changes) else { panic!("a new name has no position") };
    assert!(gap.cause().to_string().contains("no position was kept under this name"), "{}", gap.cause());
    changes.acknowledge();
    changes
}

#[test]
fn g10_a_log_is_reported_in_order_and_again_from_what_was_not_acknowledged() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new().delivery(DeliveryMode::Log));
    drop(follow_as("cache", &site));
    // Without a worker nothing is lost.
    site.run("INSERT INTO t SELECT generate_series(1, 2500)");
    let mut changes = connected(worker(&[&site]).name("cache"), 1);
    // A worker of another name, or of none, has a position of its own.
    let mut other = follow(&[&site]);
    assert_eq!(ids(&mut changes, 2500), (1..=2500).collect::<Vec<_>>());
    // The last one is not acknowledged, so the worker that takes over reports it again.
    drop(changes);
    let mut changes = connected(worker(&[&site]).name("cache"), 1);
    assert_eq!(ids(&mut changes, 1), [2500]);
    changes.acknowledge();
    drop(changes);
    site.run("INSERT INTO t VALUES (2501)");
    assert_eq!(ids(&mut connected(worker(&[&site]).name("cache"), 1), 1), [2501]);
    assert_eq!(ids(&mut other, 1), [2501], "it began with what was committed from then on");
}

#[test]
fn g10_a_log_is_reported_once_although_its_session_is_lost_meanwhile() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new().delivery(DeliveryMode::Log));
    let mut changes = follow(&[&site]);
    site.run("INSERT INTO t SELECT generate_series(1, 1500)");
    let mut reported = ids(&mut changes, 700);
    let sessions = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for pid in site.db.query(sessions).unwrap() {
        terminate(utf8(), pid.get(0).unwrap().parse().unwrap());
    }
    site.run("INSERT INTO t SELECT generate_series(1501, 2500)");
    // There is no gap: nothing was missed.
    let mut states = Vec::new();
    while reported.len() < 2500 {
        match next_but_warnings(&mut changes) {
            (_, ChangeEvent::Change(change)) => reported.push(change.new_data.unwrap()["id"].as_i64().unwrap()),
            (_, ChangeEvent::Disconnected(_)) => states.push("disconnected"),
            (_, ChangeEvent::Connected) => states.push("connected"),
            (_, other) => panic!("{other:?}"),
        }
    }
    assert_eq!(states, ["disconnected", "connected"]);
    assert_eq!(reported, (1..=2500).collect::<Vec<_>>());
}

#[test]
fn g08_a_lost_session_is_disconnected_then_connected_with_a_gap_and_continues() {
    let mut server = start(Options::new());
    let mut site = Site::at(server.url());
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new());
    let mut changes = follow(&[&site]);
    server.stop().unwrap();
    assert!(matches!(next_but_warnings(&mut changes), (1, ChangeEvent::Disconnected(_))));
    server.restart().unwrap();
    assert!(matches!(next_but_warnings(&mut changes), (1, ChangeEvent::Connected)));
    let (1, ChangeEvent::Gap(gap)) = next_but_warnings(&mut changes) else { panic!() };
    assert_eq!(gap.epoch(), 1);
    connect(&server.url()).execute("INSERT INTO t VALUES (7)").unwrap();
    assert_eq!(ids(&mut changes, 1), [7]);
}

#[test]
fn g08_a_slow_consumer_keeps_no_server_waiting_and_what_it_missed_is_reported() {
    let server = start(Options::new());
    let mut site = Site::at(server.url());
    site.deafen();
    site.run("CREATE TABLE t (id int, v text)");
    site.build(&Installer::new());
    let mut changes = follow(&[&site]);
    // More than is kept, and none of it is taken.
    for _ in 0..12 {
        site.run("INSERT INTO t SELECT g, repeat('x', 7000) FROM generate_series(1, 1000) g");
    }
    eventually("the server's queue is empty", || site.ask("SELECT pg_notification_queue_usage() < 0.0001") == "t");
    eventually("all has come", || changes.waiting() > 8_000);
    let mut kept = 0;
    let dropped = loop {
        match next(&mut changes) {
            (_, ChangeEvent::Change(_)) => kept += 1,
            (_, ChangeEvent::Dropped(count)) => break count,
            (_, other) => panic!("{other:?}"),
        }
    };
    assert!(kept > 8_000 && dropped > 0, "{kept} {dropped}");
    site.run("INSERT INTO t VALUES (7)");
    let rest = std::iter::from_fn(|| changes.next().flatten()).position(
        |(_, event)| matches!(event, ChangeEvent::Change(change) if change.new_data.as_ref().is_some_and(|row| row["id"] == 7)),
    );
    assert!(rest.is_some());
}

#[test]
fn g08_a_database_in_which_nothing_is_installed_is_lost_with_the_remedy() {
    let (empty, mut site) = (site(), site());
    site.build(&Installer::new());
    let mut changes = worker(&[&empty, &site]).start().unwrap();
    let mut events = [next(&mut changes), next(&mut changes)];
    events.sort_by_key(|(database, _)| *database);
    let [(1, ChangeEvent::Lost(error)), (2, ChangeEvent::Connected)] = &events else { panic!("{events:?}") };
    let error = error.to_string();
    assert!(error.contains("nothing is installed at 127.0.0.1") && error.contains("`notifyman build`"), "{error}");

    // Without any database left, it ends.
    let mut changes = worker(&[&empty]).start().unwrap();
    assert!(matches!(changes.next(), Some(Some((1, ChangeEvent::Lost(_))))));
    assert!(changes.next().is_none());
}

#[test]
fn g08_a_worker_without_privileges_listens_and_with_those_that_a_build_prints_reads_a_log() {
    let mut site = site();
    let role = format!("hearer_{}", std::process::id());
    site.run(&format!(
        "CREATE TABLE t (id int PRIMARY KEY);
         DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    ));
    site.build(&Installer::new().shape(Shape::Keys));
    let config = config(&site.url.replace("postgres@", &format!("{role}@")));
    let mut changes = connected(Worker::new([config.clone()]).timeout(LIMIT), 1);
    site.run("INSERT INTO t VALUES (1)");
    let (_, ChangeEvent::Change(change)) = next(&mut changes) else { panic!() };
    assert_eq!(change.keys.unwrap()[0]["id"], 1);
    drop(changes);

    let report = site.build(&Installer::new().delivery(DeliveryMode::Log));
    for grant in report.grants() {
        site.run(&grant.replace("worker_role", &role));
    }
    let mut changes = connected(Worker::new([config]).timeout(LIMIT), 1);
    site.run("INSERT INTO t VALUES (2)");
    assert_eq!(ids(&mut changes, 1), [2]);
}

#[test]
fn g04_a_worker_warns_of_a_queue_that_is_half_full() {
    let Some(server) = start_with_a_small_queue() else { return };
    let mut site = site_in(&server);
    site.build(&Installer::new());
    let mut holder = site.session();
    holder.listen(["notifyman"]).unwrap();
    holder.execute("BEGIN").unwrap();
    while site.ask("SELECT pg_notification_queue_usage() < 0.6") == "t" {
        site.run("SELECT pg_notify('other', g || repeat('x', 7000)) FROM generate_series(1, 5) g");
    }
    let mut changes = follow(&[&site]);
    let (1, ChangeEvent::Warning(warning)) = next(&mut changes) else { panic!() };
    assert!(warning.contains("NOTIFY queue is") && warning.contains("doctor"), "{warning}");
}

#[test]
fn g08_an_installation_that_changes_its_delivery_is_followed_by_its_new_way() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new().delivery(DeliveryMode::Log));
    let mut changes = connected(worker(&[&site]).keep_spilled(Duration::from_millis(10)), 1);
    site.run("INSERT INTO t VALUES (1)");
    assert_eq!(ids(&mut changes, 1), [1]);
    site.build(&Installer::new().delivery(DeliveryMode::Notify));
    loop {
        let (1, ChangeEvent::Gap(gap)) = next(&mut changes) else { panic!("the delivery has changed") };
        // The log may be seen to end before that is known.
        if gap.cause().to_string().contains("the delivery of the installation has changed") {
            break;
        }
    }
    let mut writer = connect(&site.url);
    eventually("it listens", || {
        writer.execute("INSERT INTO t VALUES (2)").unwrap();
        writer.execute("DELETE FROM t WHERE id = 2").unwrap();
        changes.waiting() > 0
    });
    site.build(&Installer::new().delivery(DeliveryMode::Log));
    while let (_, ChangeEvent::Change(_)) = next(&mut changes) {}
    site.run("INSERT INTO t VALUES (3)");
    assert_eq!(ids(&mut changes, 1), [3]);
}

#[test]
fn g04_spilled_payloads_are_read_by_the_one_session_and_keep_their_places() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new().oversize(Oversize::Spill));
    let mut other = super::support::site();
    other.run("CREATE TABLE t (id int PRIMARY KEY)");
    other.build(&Installer::new());
    let mut changes = follow(&[&site, &other]);
    // Long rows among short ones, in one transaction and in several.
    site.run(
        "INSERT INTO t SELECT n, repeat('x', CASE WHEN n % 3 = 0 THEN 100000 ELSE 1 END) FROM generate_series(1, 50) n",
    );
    for n in 51..=60 {
        site.run(&format!("INSERT INTO t VALUES ({n}, repeat('x', {}))", if n % 2 == 0 { 1 } else { 200_000 }));
    }
    let mut received = Vec::new();
    while received.len() < 60 {
        let (1, ChangeEvent::Change(change)) = next(&mut changes) else { panic!() };
        assert!(!change.spilled && change.truncated.is_none());
        let row = change.new_data.unwrap();
        let (id, length) = (row["id"].as_i64().unwrap(), row["v"].as_str().unwrap().len());
        assert_eq!(length > 1, if id <= 50 { id % 3 == 0 } else { id % 2 == 1 }, "{id}");
        received.push(id);
    }
    assert_eq!(received, (1..=60).collect::<Vec<_>>());
    other.run("INSERT INTO t VALUES (1)");
    assert_eq!(ids(&mut changes, 1), [1]);
    for site in [&mut site, &mut other] {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{NAME}' AND datname = current_database()"
        );
        assert_eq!(site.ask(&sql), "1", "one session for each database");
    }
}

#[test]
fn g08_json_that_no_parser_accepts_reaches_the_filter_and_the_consumer() {
    for (number, delivery) in [DeliveryMode::Notify, DeliveryMode::Log].into_iter().enumerate() {
        let mut site = site();
        site.run("CREATE TABLE t (id int PRIMARY KEY, j json); CREATE TABLE other (j json)");
        site.build(&Installer::new().delivery(delivery));
        let mut changes = connected(worker(&[&site]).tables(["t"]), 1);
        let nested = "[".repeat(130) + &"]".repeat(130);
        let values = [r#"{"a": "\ud800"}"#, "1e400", &nested, r#"{"a": "\u0000"}"#, "{}"];
        for (id, value) in (1..).zip(values) {
            site.run(&format!("INSERT INTO other VALUES ('{value}'); INSERT INTO t VALUES ({id}, '{value}')"));
        }
        for (id, value) in (1..).zip(values) {
            let (_, event) = next(&mut changes);
            let ChangeEvent::Change(change) = event else { panic!("{number}: {event:?}") };
            assert!(changes.payload().contains(value), "{}", changes.payload());
            let row = change.new_data.unwrap();
            assert_eq!((&row["id"], change.table_name.as_str()), (&json!(id), "t"));
            if id <= 3 {
                assert_eq!((&row["j"], &*change.unparsed), (&json!(value), &["/new_data/j".to_owned()][..]));
            } else {
                assert_eq!((&row["j"], &*change.unparsed), (&serde_json::from_str(value).unwrap(), &[][..]));
            }
        }
    }
}

#[test]
fn g08_an_installation_that_is_torn_down_is_waited_for_with_one_warning_of_a_kind() {
    for delivery in [DeliveryMode::Notify, DeliveryMode::Log] {
        let mut site = site();
        site.run("CREATE TABLE t (id int PRIMARY KEY)");
        site.build(&Installer::new().delivery(delivery));
        let mut changes = connected(worker(&[&site]).keep_spilled(Duration::ZERO), 1);
        Installer::new().teardown(&mut site.db).unwrap();
        let mut warnings = std::collections::BTreeSet::new();
        loop {
            let (1, ChangeEvent::Warning(warning)) = next(&mut changes) else { panic!() };
            let is_last = warning.contains("nothing is installed");
            assert!(warnings.insert(warning), "twice: {warnings:?}");
            if is_last {
                break;
            }
        }
        // Many failures later there is at most one warning for each thing that fails.
        std::thread::sleep(Duration::from_secs(3));
        site.build(&Installer::new().delivery(delivery));
        if delivery == DeliveryMode::Log {
            // It is another log, and is read from where it is first seen.
            while !matches!(next(&mut changes), (1, ChangeEvent::Gap(_))) {}
        }
        site.run("INSERT INTO t VALUES (1)");
        loop {
            match next(&mut changes) {
                (1, ChangeEvent::Warning(warning)) => assert!(warnings.insert(warning), "twice: {warnings:?}"),
                (1, ChangeEvent::Change(change)) => break assert_eq!(change.new_data.unwrap()["id"], 1),
                (_, other) => panic!("{other:?}"),
            }
        }
        assert!(warnings.len() <= 5, "{warnings:?}");
    }
}
