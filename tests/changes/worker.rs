//! The worker of the library: rule G08.

use std::time::{Duration, Instant};

use notifyman::Config;
use notifyman::changes::{ChangeEvent, Changes, DeliveryMode, Installer, Oversize, Shape, Worker};
use serde_json::json;

use super::support::{Site, site, site_in, start_with_a_small_queue};
use crate::support::Options;
use crate::support::server::{LIMIT, ask, connect, eventually, start, terminate, utf8};

/// The application name of workers, by which their sessions are found in `pg_stat_activity`.
pub(super) const NAME: &str = "the worker";

pub(super) fn config(url: &str) -> Config {
    Config::without_env(url).unwrap().application_name(NAME)
}

pub(super) fn worker(sites: &[&Site]) -> Worker {
    Worker::new(sites.iter().map(|site| config(&site.url))).timeout(LIMIT)
}

/// Starts a worker for these databases, and waits until they are connected.
#[track_caller]
pub(super) fn follow(sites: &[&Site]) -> Changes {
    connected(worker(sites), sites.len())
}

/// Starts a worker, and waits until this many databases are connected.
#[track_caller]
pub(super) fn connected(worker: Worker, databases: usize) -> Changes {
    let mut changes = worker.start().unwrap();
    for _ in 0..databases {
        let (_, event) = next(&mut changes);
        assert!(matches!(event, ChangeEvent::Connected), "{event:?}");
    }
    changes
}

/// Returns the next event.
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

/// Returns the next event, without warnings.
#[track_caller]
pub(super) fn next_but_warnings(changes: &mut Changes) -> (usize, ChangeEvent) {
    loop {
        match next(changes) {
            (_, ChangeEvent::Warning(_)) => {}
            event => return event,
        }
    }
}

/// Returns the ids of the next inserted rows.
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
fn g08_changes_of_several_databases_have_their_numbers() {
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
fn g08_callbacks_receive_changes_schema_changes_and_other_events() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new());
    let changes = follow(&[&site]);
    let stopper = changes.stopper();
    site.run("INSERT INTO t VALUES (1); DROP TABLE t");
    site.db.notify("notifyman", "foreign").unwrap();
    let (mut rows, mut definitions) = (0, 0);
    changes.run(
        |_, change| rows += change.new_data.map_or(0, |_| 1),
        |_, _| definitions += 1,
        |_, event| {
            assert!(matches!(event, ChangeEvent::Unreadable { payload, .. } if payload == "foreign"));
            stopper.stop();
        },
    );
    assert_eq!((rows, definitions), (1, 1));
}

#[test]
fn g08_idle_events_are_returned_when_there_are_no_others() {
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
fn g04_a_missing_spilled_payload_is_reported_as_spilled() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new().oversize(Oversize::Spill));
    let mut changes = follow(&[&site]);
    site.run("BEGIN; INSERT INTO t VALUES (1, repeat('x', 1000000)); DELETE FROM notifyman.spilled; COMMIT");
    let (_, ChangeEvent::Change(change)) = next(&mut changes) else { panic!() };
    assert!(change.spilled && change.new_data.is_none());
}

/// Starts a worker with a new name, whose first event is a gap.
#[track_caller]
pub(super) fn follow_as(name: &str, site: &Site) -> Changes {
    let mut changes = connected(worker(&[site]).name(name), 1);
    let (1, ChangeEvent::Gap(gap)) = next(&mut changes) else { panic!("a new name has no position") };
    assert!(format!("{:#}", gap.cause()).contains("no position was kept under this name"), "{}", gap.cause());
    changes.acknowledge();
    changes
}

#[test]
fn g10_a_log_is_reported_in_order_and_again_after_the_last_acknowledgement() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new().delivery(DeliveryMode::Log));
    drop(follow_as("cache", &site));
    // Changes are kept while no worker runs.
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
    assert_eq!(ids(&mut other, 1), [2501], "it began with the changes that were committed from then on");
}

#[test]
fn g10_a_log_is_reported_once_across_the_loss_of_its_session() {
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
    // There is no gap, because nothing was missed.
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
fn g08_a_slow_consumer_delays_no_server_and_its_dropped_changes_are_counted() {
    let server = start(Options::new());
    let mut site = Site::at(server.url());
    site.stop_listening();
    site.run("CREATE TABLE t (id int, v text)");
    site.build(&Installer::new());
    let mut changes = follow(&[&site]);
    // The changes exceed the capacity of the queue, and the consumer takes none.
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
    let error = format!("{error:#}");
    assert!(error.contains("nothing is installed at 127.0.0.1") && error.contains("`notifyman build`"), "{error}");

    // Without any database the iterator ends.
    let mut changes = worker(&[&empty]).start().unwrap();
    assert!(matches!(changes.next(), Some(Some((1, ChangeEvent::Lost(_))))));
    assert!(changes.next().is_none());
}

#[test]
fn g08_a_worker_listens_without_privileges_and_reads_a_log_with_the_printed_ones() {
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
fn g08_an_installation_that_changes_its_delivery_is_followed() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new().delivery(DeliveryMode::Log));
    let mut changes = connected(worker(&[&site]).keep_spilled(Duration::from_millis(10)), 1);
    site.run("INSERT INTO t VALUES (1)");
    assert_eq!(ids(&mut changes, 1), [1]);
    site.build(&Installer::new().delivery(DeliveryMode::Notify));
    loop {
        let (1, ChangeEvent::Gap(gap)) = next(&mut changes) else { panic!("the delivery has changed") };
        // The worker may notice the end of the log before the new delivery.
        if format!("{:#}", gap.cause()).contains("the delivery of the installation has changed") {
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
fn g04_spilled_payloads_are_read_by_the_same_session_and_stay_in_order() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new().oversize(Oversize::Spill));
    let mut other = super::support::site();
    other.run("CREATE TABLE t (id int PRIMARY KEY)");
    other.build(&Installer::new());
    let mut changes = follow(&[&site, &other]);
    // Long rows between short ones, in one transaction and in several.
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
fn g08_json_that_cannot_be_parsed_reaches_the_filter_and_the_consumer() {
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
fn g08_a_worker_waits_for_a_removed_installation_with_one_warning_of_each_kind() {
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
        // After many failures there is at most one warning for each kind of request.
        std::thread::sleep(Duration::from_secs(3));
        site.build(&Installer::new().delivery(delivery));
        if delivery == DeliveryMode::Log {
            // The new log is read from the first poll on.
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
