//! Hearing of changes in the library: rule G8.

use std::time::{Duration, Instant};

use notifyman::Config;
use notifyman::changes::{Changes, Delivery, Installer, News, Oversize, Shape, Worker};

use super::support::{Site, site, site_in, start_with_a_small_queue};
use crate::support::Options;
use crate::support::server::{LIMIT, connect, eventually, start, terminate, utf8};

fn worker(sites: &[&Site]) -> Worker {
    Worker::new(sites.iter().map(|site| Config::without_env(&site.url).unwrap())).timeout(LIMIT)
}

/// The next piece of news, which must come.
#[track_caller]
fn next(changes: &mut Changes) -> (usize, News) {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        if let Some(news) = changes.next().expect("it goes on") {
            return news;
        }
    }
    panic!("no news for {LIMIT:?}")
}

/// The ids of so many rows that are inserted.
#[track_caller]
fn ids(changes: &mut Changes, count: usize) -> Vec<i64> {
    let mut ids = Vec::new();
    while ids.len() < count {
        match next(changes) {
            (_, News::Change(change)) => ids.push(change.new_data.unwrap()["id"].as_i64().unwrap()),
            (_, News::Warning(_)) => {}
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
        let delivery = if n == 0 { Delivery::Notify } else { Delivery::Table };
        site.build(&Installer::new().delivery(delivery));
    }
    let mut changes = worker(&[&sites[0], &sites[1]]).tables(["public.t"]).start().unwrap();
    for (number, site) in (1..).zip(&mut sites) {
        site.run("INSERT INTO other VALUES (1); INSERT INTO t VALUES (7); ALTER TABLE t ADD COLUMN v int");
        let (database, News::Change(change)) = next(&mut changes) else { panic!() };
        assert_eq!((database, change.new_data.unwrap()["id"].as_i64()), (number, Some(7)));
        assert!(changes.payload().starts_with("{\"number\":"));
        let (database, News::Schema(change)) = next(&mut changes) else { panic!() };
        assert_eq!((database, change.command_tag.as_str()), (number, "ALTER TABLE"));
    }
    changes.stopper().stop();
    assert!(changes.next().is_none());
}

#[test]
fn g08_callbacks_get_what_is_theirs() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new());
    let changes = worker(&[&site]).start().unwrap();
    let stopper = changes.stopper();
    site.run("INSERT INTO t VALUES (1); DROP TABLE t");
    site.db.notify("notifyman", "not ours").unwrap();
    let (mut rows, mut definitions) = (0, 0);
    changes.run(
        |_, change| rows += change.new_data.map_or(0, |_| 1),
        |_, _| definitions += 1,
        |_, news| {
            assert!(matches!(news, News::Unreadable { payload, .. } if payload == "not ours"));
            stopper.stop();
        },
    );
    assert_eq!((rows, definitions), (1, 1));
}

#[test]
fn g08_idle_events_come_where_nothing_else_does() {
    let mut site = site();
    site.build(&Installer::new());
    let mut changes = worker(&[&site]).timeout(Duration::from_millis(50)).start().unwrap();
    let begun = Instant::now();
    assert!(matches!(changes.next(), Some(None)));
    assert!(begun.elapsed() >= Duration::from_millis(50));
}

#[test]
fn g04_what_is_spilled_is_read_by_every_worker_and_cleared_after_its_time() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new().oversize(Oversize::Spill));
    let config = Config::without_env(&site.url).unwrap();
    let keeping = |time| Worker::new([config.clone()]).timeout(LIMIT).keep_spilled(time).start().unwrap();
    let mut workers = [keeping(Duration::from_secs(600)), keeping(Duration::from_secs(600))];
    site.db.execute("INSERT INTO t VALUES (1, repeat('x', 1000000))").unwrap();
    for changes in &mut workers {
        let (_, News::Change(change)) = next(changes) else { panic!() };
        assert_eq!(change.new_data.unwrap()["v"].as_str().unwrap().len(), 1_000_000);
        assert_eq!((change.truncated, change.spilled), (None, false));
    }
    assert_eq!(crate::support::server::ask(&mut connect(&site.url), "SELECT count(*) FROM notifyman.spilled"), "1");
    let _third = keeping(Duration::from_millis(10));
    let mut db = connect(&site.url);
    eventually("it is cleared", || {
        crate::support::server::ask(&mut db, "SELECT count(*) FROM notifyman.spilled") == "0"
    });
}

#[test]
fn g04_what_was_cleared_before_it_was_read_is_told_as_it_came() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new().oversize(Oversize::Spill));
    let mut changes = worker(&[&site]).start().unwrap();
    site.run("BEGIN; INSERT INTO t VALUES (1, repeat('x', 1000000)); DELETE FROM notifyman.spilled; COMMIT");
    let (_, News::Change(change)) = next(&mut changes) else { panic!() };
    assert!(change.spilled && change.new_data.is_none());
}

#[test]
fn g08_an_outbox_is_told_once_in_order_and_cleared_once_it_was_dealt_with() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new().delivery(Delivery::Table));
    // Nobody listens, and nothing is lost.
    site.run("INSERT INTO t SELECT generate_series(1, 2500)");
    let mut changes = worker(&[&site]).start().unwrap();
    assert_eq!(ids(&mut changes, 1), [1]);
    // Whoever stands by gets nothing.
    let mut standby = worker(&[&site]).timeout(Duration::from_millis(300)).start().unwrap();
    assert_eq!(ids(&mut changes, 2499), (2..=2500).collect::<Vec<_>>());
    assert!(matches!(standby.next(), Some(None)));
    // The last one isn't acknowledged: whoever takes over tells it again.
    drop(changes);
    assert_eq!(ids(&mut standby, 1), [2500]);
    standby.acknowledge();
    drop(standby);
    assert_eq!(site.ask("SELECT count(*) FROM notifyman.outbox"), "0");
}

#[test]
fn g08_an_outbox_is_told_once_also_where_its_session_is_lost_under_way() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new().delivery(Delivery::Table));
    site.run("INSERT INTO t SELECT generate_series(1, 2500)");
    let mut changes = worker(&[&site]).start().unwrap();
    let mut told = ids(&mut changes, 700);
    for pid in site
        .db
        .query("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
        .unwrap()
    {
        terminate(utf8(), pid.get(0).unwrap().parse().unwrap());
    }
    // There is no gap: nothing was missed.
    told.extend(ids(&mut changes, 1800));
    assert_eq!(told, (1..=2500).collect::<Vec<_>>());
}

#[test]
fn g08_a_lost_session_is_told_as_away_and_as_a_gap_and_goes_on() {
    let mut server = start(Options::new());
    let mut site = Site::at(server.url());
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new());
    let mut changes = worker(&[&site]).start().unwrap();
    server.stop().unwrap();
    loop {
        match next(&mut changes) {
            (1, News::Away(_)) => break,
            (1, News::Warning(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    server.restart().unwrap();
    loop {
        match next(&mut changes) {
            (1, News::Gap(gap)) => break assert_eq!(gap.epoch(), 1),
            (1, News::Warning(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    connect(&server.url()).execute("INSERT INTO t VALUES (7)").unwrap();
    assert_eq!(ids(&mut changes, 1), [7]);
}

#[test]
fn g08_a_slow_consumer_keeps_nobody_waiting_and_is_told_what_it_missed() {
    let server = start(Options::new());
    let mut site = Site::at(server.url());
    site.deafen();
    site.run("CREATE TABLE t (id int, v text)");
    site.build(&Installer::new());
    let mut changes = worker(&[&site]).start().unwrap();
    // More than is kept, and nobody takes it.
    for _ in 0..12 {
        site.run("INSERT INTO t SELECT g, repeat('x', 7000) FROM generate_series(1, 1000) g");
    }
    eventually("the server's queue is empty", || site.ask("SELECT pg_notification_queue_usage() < 0.0001") == "t");
    eventually("all has come", || changes.waiting() > 8_000);
    let mut kept = 0;
    let dropped = loop {
        match next(&mut changes) {
            (_, News::Change(_)) => kept += 1,
            (_, News::Dropped(count)) => break count,
            (_, other) => panic!("{other:?}"),
        }
    };
    assert!(kept > 8_000 && dropped > 0, "{kept} {dropped}");
    site.run("INSERT INTO t VALUES (7)");
    let rest = std::iter::from_fn(|| changes.next().flatten()).position(
        |(_, news)| matches!(news, News::Change(change) if change.new_data.as_ref().is_some_and(|row| row["id"] == 7)),
    );
    assert!(rest.is_some());
}

#[test]
fn g08_a_worker_says_where_nothing_is_installed_and_listens_where_it_may_not_look() {
    let mut site = site();
    let error = worker(&[&site]).start().unwrap_err();
    assert!(
        error.to_string().contains("nothing is installed") && error.to_string().contains("notifyman build"),
        "{error}"
    );
    let role = format!("hearer_{}", std::process::id());
    site.run(&format!("CREATE TABLE t (id int PRIMARY KEY); DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"));
    site.build(&Installer::new().shape(Shape::Keys));
    let config = Config::without_env(&site.url.replace("postgres@", &format!("{role}@"))).unwrap();
    let mut changes = Worker::new([config.clone()]).timeout(LIMIT).start().unwrap();
    site.run("INSERT INTO t VALUES (1)");
    let (_, News::Change(change)) = next(&mut changes) else { panic!() };
    assert_eq!(change.keys.unwrap()[0]["id"], 1);
    drop(changes);

    // With the privileges of the documentation it reads an outbox.
    site.build(&Installer::new().delivery(Delivery::Table));
    site.run(&format!(
        "GRANT EXECUTE ON FUNCTION notifyman.installation TO {role}; GRANT SELECT, DELETE ON notifyman.outbox TO {role}"
    ));
    site.run("INSERT INTO t VALUES (2)");
    let mut changes = Worker::new([config]).timeout(LIMIT).start().unwrap();
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
    let mut changes = worker(&[&site]).start().unwrap();
    let (1, News::Warning(warning)) = next(&mut changes) else { panic!() };
    assert!(warning.contains("NOTIFY queue is") && warning.contains("doctor"), "{warning}");
}

#[test]
fn g08_a_worker_whose_database_turns_from_a_table_to_notify_says_so() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new().delivery(Delivery::Table));
    let mut changes = worker(&[&site]).keep_spilled(Duration::from_millis(10)).start().unwrap();
    site.run("INSERT INTO t VALUES (1)");
    assert_eq!(ids(&mut changes, 1), [1]);
    site.build(&Installer::new());
    let (1, News::Warning(warning)) = next(&mut changes) else { panic!() };
    assert!(warning.contains("start this worker anew"), "{warning}");
}
