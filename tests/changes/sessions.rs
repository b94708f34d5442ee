//! The sessions of a worker: rule G08. There is one for each database, independent of its configuration, and no server delays
//! another.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use notifyman::changes::{ChangeEvent, Changes, DeliveryMode, Installer, Oversize, Worker};

use super::support::{Site, site, site_in};
use super::worker::{NAME, config, connected, follow, ids, next, next_but_warnings, worker};
use crate::support::Options;
use crate::support::server::{LIMIT, PausedProcess, ask, connect, eventually, refusing_port, start, terminate, utf8};

/// Returns the processes of the worker's sessions in a site's database.
fn pids(site: &mut Site) -> Vec<i32> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = '{NAME}' ORDER BY 1"
    );
    site.db.query(&sql).unwrap().iter().map(|row| row.get(0).unwrap().parse().unwrap()).collect()
}

fn built(delivery: DeliveryMode) -> Site {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new().delivery(delivery));
    site
}

/// Sets defaults for new sessions of a site's database.
fn configure(site: &mut Site, settings: &[(&str, &str)]) {
    let name = site.ask("SELECT current_database()");
    for (setting, value) in settings {
        let known = site.ask(&format!("SELECT count(*) FROM pg_settings WHERE name = '{setting}'"));
        if known == "1" {
            site.run(&format!("ALTER DATABASE {name} SET {setting} = {value}"));
        }
    }
}

/// The reported states of connections, with their databases.
type States = Vec<(usize, &'static str)>;

/// Returns the states, and the ids of rows with their databases, until this many rows have been reported.
fn report(changes: &mut Changes, rows: usize) -> (States, Vec<(usize, i64)>) {
    let (mut states, mut ids) = (Vec::new(), Vec::new());
    while ids.len() < rows {
        match next_but_warnings(changes) {
            (database, ChangeEvent::Change(change)) => {
                ids.push((database, change.new_data.unwrap()["id"].as_i64().unwrap()));
            }
            (database, ChangeEvent::Connected) => states.push((database, "connected")),
            (database, ChangeEvent::Disconnected(_)) => states.push((database, "disconnected")),
            (database, ChangeEvent::Gap(_)) => states.push((database, "gap")),
            (_, other) => panic!("{other:?} after {states:?} {ids:?}"),
        }
    }
    (states, ids)
}

#[test]
fn g08_a_server_that_is_down_or_silent_delays_no_other_at_the_start() {
    // Two servers accept and never reply, one refuses.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = refusing_port();
    let silent_for = |seconds| {
        let address = silent.local_addr().unwrap();
        format!("postgres://postgres@{address}/postgres?connect_timeout={seconds}")
    };
    let mut site = built(DeliveryMode::Notify);
    let mut logged = built(DeliveryMode::Log);
    let refusing = format!("postgres://postgres@127.0.0.1:{refusing}/postgres");
    let urls = [silent_for(60), refusing, site.url.clone(), silent_for(8), logged.url.clone()];
    let begun = Instant::now();
    let mut changes = Worker::new(urls.iter().map(|url| config(url))).timeout(LIMIT).start().unwrap();
    let mut states = Vec::new();
    while states.len() < 4 {
        match next(&mut changes) {
            (database, ChangeEvent::Connected) => states.push((database, "connected")),
            (database, ChangeEvent::Disconnected(error)) => {
                assert!(database != 4 || error.is_timeout(), "{error}");
                states.push((database, "disconnected"));
            }
            (_, other) => panic!("{other:?}"),
        }
    }
    assert_eq!(states.pop(), Some((4, "disconnected")), "the others did not wait for this one");
    states.sort_unstable();
    assert_eq!(states, [(2, "disconnected"), (3, "connected"), (5, "connected")]);
    site.run("INSERT INTO t VALUES (1)");
    logged.run("INSERT INTO t VALUES (2)");
    let mut rows = report(&mut changes, 2).1;
    rows.sort_unstable();
    assert_eq!(rows, [(3, 1), (5, 2)]);
    assert!(
        begun.elapsed() < Duration::from_secs(55),
        "the worker waited for the silent server: {:?}",
        begun.elapsed()
    );
    let begun = Instant::now();
    drop(changes);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn g08_a_worker_starts_before_its_server_and_connects_later() {
    let mut server = start(Options::new());
    let mut site = Site::at(server.url());
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new());
    server.stop().unwrap();
    let mut changes = worker(&[&site]).start().unwrap();
    let (1, ChangeEvent::Disconnected(error)) = next(&mut changes) else { panic!() };
    assert!(error.is_transient(), "{error}");
    server.restart().unwrap();
    // There is no gap, because nothing was received before.
    assert!(matches!(next_but_warnings(&mut changes), (1, ChangeEvent::Connected)));
    connect(&server.url()).execute("INSERT INTO t VALUES (7)").unwrap();
    assert_eq!(ids(&mut changes, 1), [7]);
}

#[test]
fn g08_a_permanent_error_loses_one_database_and_the_others_continue() {
    let mut site = built(DeliveryMode::Notify);
    let urls = [format!("{}_nonesuch", site.url), site.url.clone()];
    let mut changes = Worker::new(urls.iter().map(|url| config(url))).timeout(LIMIT).start().unwrap();
    let mut events = [next(&mut changes), next(&mut changes)];
    events.sort_by_key(|(database, _)| *database);
    let [(1, ChangeEvent::Lost(error)), (2, ChangeEvent::Connected)] = &events else { panic!("{events:?}") };
    assert_eq!(error.sqlstate(), Some("3D000"));
    site.run("INSERT INTO t VALUES (1)");
    assert_eq!(ids(&mut changes, 1), [1]);
    assert!(Worker::new([config("host=a user=u options=x").options("y".repeat(20_000))]).start().is_err());
}

#[test]
fn g08_a_frozen_backend_delays_no_other_database() {
    let mut frozen = site();
    frozen.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    frozen.build(&Installer::new().oversize(Oversize::Spill));
    let mut frozen_log = built(DeliveryMode::Log);
    let mut sites = [built(DeliveryMode::Notify), built(DeliveryMode::Log)];
    let mut changes = follow(&[&frozen, &frozen_log, &sites[0], &sites[1]]);
    let stopped = [&mut frozen, &mut frozen_log].map(|site| match pids(site)[..] {
        [pid] => PausedProcess::process(pid.unsigned_abs()),
        ref other => panic!("one session for each database: {other:?}"),
    });
    frozen.run("INSERT INTO t VALUES (1, repeat('x', 100000)), (2, '')");
    frozen_log.run("INSERT INTO t VALUES (3)");
    sites.iter_mut().for_each(|site| site.run("INSERT INTO t VALUES (4)"));
    let (states, mut rows) = report(&mut changes, 2);
    rows.sort_unstable();
    assert_eq!((states, rows), (vec![], vec![(3, 4), (4, 4)]));
    drop(stopped);
    let (states, mut rows) = report(&mut changes, 3);
    rows.sort_unstable();
    assert_eq!((states, rows), (vec![], vec![(1, 1), (1, 2), (2, 3)]));
}

#[test]
fn g08_a_spilled_payload_is_read_by_the_next_session_before_the_gap() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new().oversize(Oversize::Spill));
    let mut changes = follow(&[&site]);
    // The notification arrives, and the query for the payload waits for a lock.
    let mut locker = site.session();
    locker.execute("BEGIN; LOCK TABLE notifyman.spilled IN ACCESS EXCLUSIVE MODE").unwrap();
    let insert = "INSERT INTO notifyman.spilled (number, payload) SELECT number, payload FROM held";
    locker.execute("CREATE TEMP TABLE held (number bigint, payload text)").unwrap();
    let payload = |id: i64, length: usize| {
        format!(
            r#"{{"number":{id},"table_schema":"public","table_name":"t","session_user":"u","method":"INSERT","old_data":null,"new_data":{{"id":{id},"v":"{}"}},"query":null}}"#,
            "x".repeat(length)
        )
    };
    let reference = r#"{"number":1,"table_schema":"public","table_name":"t","session_user":"u","method":"INSERT","old_data":null,"new_data":null,"query":null,"spilled":true}"#;
    locker.execute(&format!("INSERT INTO held VALUES (1, '{}'); {insert}", payload(1, 9_000))).unwrap();
    site.db.notify_many([("notifyman", reference), ("notifyman", &payload(2, 1))]).unwrap();
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{NAME}' AND datname = current_database() \
         AND wait_event_type = 'Lock'"
    );
    eventually("it waits for the lock", || site.ask(&waits) == "1");
    let pid = pids(&mut site)[0];
    terminate(utf8(), pid);
    assert!(matches!(next_but_warnings(&mut changes), (1, ChangeEvent::Disconnected(_))));
    assert!(matches!(next_but_warnings(&mut changes), (1, ChangeEvent::Connected)));
    locker.execute("COMMIT").unwrap();
    for id in [1, 2] {
        let (1, ChangeEvent::Change(change)) = next_but_warnings(&mut changes) else { panic!() };
        assert_eq!((change.number, change.spilled, change.new_data.is_some()), (id, false, true));
    }
    assert!(matches!(next_but_warnings(&mut changes), (1, ChangeEvent::Gap(_))));
}

#[test]
fn g08_a_worker_of_a_serializable_database_fails_no_transaction() {
    let mut site = site();
    site.run(
        "CREATE TABLE x (id int PRIMARY KEY, v int); CREATE TABLE y (id int PRIMARY KEY); INSERT INTO x VALUES (1, 0)",
    );
    configure(&mut site, &[("default_transaction_isolation", "'serializable'")]);
    site.build(&Installer::new().delivery(DeliveryMode::Log));
    let mut changes = follow(&[&site]);
    let stopper = changes.stopper();
    let read = Arc::new(AtomicUsize::new(0));
    let consumer = std::thread::spawn({
        let read = Arc::clone(&read);
        move || {
            changes.by_ref().flatten().for_each(|(_, event)| {
                let is_update = matches!(event, ChangeEvent::Change(change) if change.table_name == "x");
                read.fetch_add(usize::from(is_update), Relaxed);
            })
        }
    });
    for round in 0..3 {
        site.run("UPDATE x SET v = 0; DELETE FROM y");
        let (mut user, mut other) = (site.session(), site.session());
        user.execute("BEGIN").unwrap();
        assert_eq!(ask(&mut user, "SHOW transaction_isolation"), "serializable");
        user.query("SELECT count(*) FROM x WHERE v > 5").unwrap();
        other.execute("UPDATE x SET v = 10").unwrap();
        // The worker reads the change meanwhile.
        eventually("it was read", || read.load(Relaxed) == 2 * round + 2);
        user.execute("INSERT INTO y VALUES (1)").unwrap();
        user.execute("COMMIT").unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    stopper.stop();
    consumer.join().unwrap();
}

#[test]
fn g08_no_default_of_a_database_ends_or_disturbs_a_session_of_the_worker() {
    let hostile = [
        ("default_transaction_isolation", "'serializable'"),
        ("default_transaction_read_only", "on"),
        ("default_transaction_deferrable", "on"),
        ("idle_session_timeout", "'1s'"),
        ("idle_in_transaction_session_timeout", "'1ms'"),
        ("transaction_timeout", "'1s'"),
        ("statement_timeout", "'1s'"),
        ("lock_timeout", "'1ms'"),
        ("row_security", "on"),
        ("search_path", "nonesuch"),
        ("standard_conforming_strings", "off"),
        ("quote_all_identifiers", "on"),
        ("client_min_messages", "debug5"),
    ];
    for delivery in [DeliveryMode::Notify, DeliveryMode::Log] {
        let mut site = built(delivery);
        configure(&mut site, &hostile);
        let mut changes = follow(&[&site]);
        for session in 0..2 {
            let pid = pids(&mut site);
            assert_eq!(pid.len(), 1);
            // This is longer than every timeout above, and the log is locked for longer than lock_timeout.
            if delivery == DeliveryMode::Log {
                site.run("BEGIN; LOCK TABLE notifyman.log_0 IN ACCESS EXCLUSIVE MODE");
                std::thread::sleep(Duration::from_secs(2));
                site.run("COMMIT");
            } else {
                std::thread::sleep(Duration::from_secs(2));
            }
            site.run(&format!("INSERT INTO t VALUES ({session})"));
            assert_eq!(ids(&mut changes, 1), [session]);
            changes.acknowledge();
            assert_eq!(pids(&mut site), pid, "the session is still the same");
            if session == 0 {
                // The next session also sets its settings.
                terminate(utf8(), pid[0]);
                assert!(matches!(next_but_warnings(&mut changes), (1, ChangeEvent::Disconnected(_))));
                assert!(matches!(next_but_warnings(&mut changes), (1, ChangeEvent::Connected)));
                if delivery == DeliveryMode::Notify {
                    assert!(matches!(next_but_warnings(&mut changes), (1, ChangeEvent::Gap(_))));
                }
            }
        }
    }
}

#[test]
fn g08_no_default_of_a_role_ends_a_session_of_the_worker() {
    let server = start(Options::new());
    let mut site = site_in(&server);
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new());
    site.run("CREATE ROLE impatient LOGIN; ALTER ROLE impatient SET statement_timeout = '1s'");
    if site.ask("SELECT count(*) FROM pg_settings WHERE name = 'idle_session_timeout'") == "1" {
        site.run("ALTER ROLE impatient SET idle_session_timeout = '1s'");
    }
    let worker = Worker::new([config(&site.url.replace("postgres@", "impatient@"))]).timeout(LIMIT);
    let mut changes = connected(worker, 1);
    std::thread::sleep(Duration::from_secs(2));
    site.run("INSERT INTO t VALUES (1)");
    assert_eq!(ids(&mut changes, 1), [1]);
}

#[test]
fn g08_many_databases_are_followed_by_one_session_each() {
    let mut sites: Vec<Site> = (0..6).map(|n| built([DeliveryMode::Notify, DeliveryMode::Log][n % 2])).collect();
    let mut changes = follow(&sites.iter().collect::<Vec<_>>());
    for site in &mut sites {
        site.run("INSERT INTO t SELECT generate_series(1, 100)");
    }
    let (states, mut rows) = report(&mut changes, 600);
    rows.sort_unstable();
    assert!(states.is_empty(), "{states:?}");
    assert_eq!(rows, (1..=6).flat_map(|database| (1..=100).map(move |id| (database, id))).collect::<Vec<_>>());
    for site in &mut sites {
        assert_eq!(pids(site).len(), 1);
    }
}

#[test]
fn g04_spilled_payloads_are_read_as_the_consumer_makes_room() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new().oversize(Oversize::Spill));
    let mut changes = follow(&[&site]);
    for id in 1..=9 {
        site.run(&format!("INSERT INTO t VALUES ({id}, repeat('x', 12000000)); INSERT INTO t VALUES (-{id}, '')"));
    }
    // The consumer takes nothing until the worker reads no more.
    let reads = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{NAME}' AND datname = current_database() \
         AND query LIKE '%spilled%' AND now() - state_change > '500ms' AND state = 'idle'"
    );
    eventually("no more is read", || site.ask(&reads) == "1");
    eventually("all but the next one to be read are in the queue", || changes.waiting() == 17);
    let received = ids(&mut changes, 18);
    assert_eq!(received, (1..=9).flat_map(|id| [id, -id]).collect::<Vec<_>>());
}

/// Waits for warnings with these parts, in any order.
#[track_caller]
fn warns(changes: &mut Changes, parts: &[&str]) {
    let mut warnings = String::new();
    while !parts.iter().all(|part| warnings.contains(part)) {
        if let (_, ChangeEvent::Warning(warning)) = next(changes) {
            warnings.push_str(&warning);
        }
    }
}

#[test]
fn g08_a_worker_warns_of_an_incomplete_installation() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)");
    site.build(&Installer::new());
    site.run(
        "DROP EVENT TRIGGER notifyman_ddl; DROP TRIGGER \"0_notifyman\" ON t;
         REVOKE USAGE ON SCHEMA notifyman FROM PUBLIC",
    );
    let mut changes = worker(&[&site]).start().unwrap();
    warns(
        &mut changes,
        &[
            "127.0.0.1",
            "an event trigger is missing",
            "roles lack USAGE",
            "1 tables are different (public.t",
            "notifyman build",
        ],
    );
}

#[test]
fn g08_a_worker_reports_the_tables_that_an_event_trigger_left_to_a_build() {
    for delivery in [DeliveryMode::Notify, DeliveryMode::Log] {
        let mut site = built(delivery);
        let mut changes = connected(worker(&[&site]), 1);
        // This is the message of an event trigger that has no more time.
        let message = r#"{"event":"incomplete","count":7,"tables":["public.t","public.u"]}"#;
        let payload = format!("notifyman.payload(NULL, NULL, NULL, NULL, NULL, '{message}', NULL, NULL)");
        site.run("DROP TRIGGER \"0_notifyman_truncate\" ON t");
        site.run(&match delivery {
            DeliveryMode::Notify => format!("SELECT pg_notify('notifyman', {payload})"),
            _ => format!("SELECT notifyman.append({payload})"),
        });
        warns(
            &mut changes,
            &[
                "7 tables are not covered until the next build",
                "public.t, public.u",
                "the triggers of 1 tables are different (public.t",
            ],
        );
    }
}
