//! The upgrade of an installation of version 2 with an outbox, and its removal.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use notifyman::changes::{DeliveryMode, Installer, Shape};

use super::support::{Site, site_in};
use crate::support::server::start;
use crate::support::{Cluster, Options};

const TABLE: &str = "SELECT to_regclass('notifyman.outbox') IS NULL";
const LOGGED: &str = "SELECT count(*) FROM notifyman.log WHERE payload LIKE '%\"method\":\"INSERT\"%'";
const OWNERS: &str = "SELECT count(*) FROM pg_roles WHERE rolname = 'earlier_owner'";

/// Starts a server with a database in which version 2 has built. Roles belong to the whole server.
fn version_2() -> (Cluster, Site) {
    let server = start(Options::new());
    let mut site = site_in(&server);
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.run(include_str!("version_2.sql"));
    (server, site)
}

fn installer() -> Installer {
    Installer::new().delivery(DeliveryMode::Log).schema_events(false)
}

#[test]
fn g01_an_empty_outbox_is_replaced_by_a_log() {
    for installer in [installer(), installer().shape(Shape::Keys), installer().delivery(DeliveryMode::Notify)] {
        let (_server, mut site) = version_2();
        assert_eq!(
            site.problems(),
            ["the installation is of version 2, and this program installs version 3: build again"]
        );
        site.build(&installer);
        assert_eq!(site.ask(TABLE), "t");
        assert_eq!(site.problems(), [] as [&str; 0]);
        let received = site.report_lines("INSERT INTO t VALUES (1, 'x')").len();
        let logged = if received == 0 { site.ask(LOGGED) } else { "0".to_owned() };
        assert_eq!((received, &*logged), if received == 0 { (0, "1") } else { (1, "0") });
    }
}

#[test]
fn g01_an_outbox_with_changes_is_kept_unless_they_are_discarded() {
    let (_server, mut site) = version_2();
    site.run("INSERT INTO t VALUES (1, 'x'), (2, 'y')");
    for installer in [installer(), installer().delivery(DeliveryMode::Notify)] {
        let error = installer.build(&mut site.db).unwrap_err().to_string();
        assert!(error.contains("holds 2 changes that no worker has read"), "{error}");
        assert!(error.contains("--discard-outbox"), "{error}");
        assert!(installer.build_sql(&mut site.db).is_err());
    }
    assert_eq!(site.ask("SELECT count(*) FROM notifyman.outbox"), "2");
    site.run("INSERT INTO t VALUES (3, 'z')");
    assert_eq!(site.ask("SELECT count(*) FROM notifyman.outbox"), "3");
    site.build(&installer().discard_outbox(true));
    assert_eq!((&*site.ask(TABLE), &*site.ask("SELECT count(*) FROM notifyman.log")), ("t", "0"));
    site.run("INSERT INTO t VALUES (4, 'z')");
    assert_eq!(site.ask(LOGGED), "1");
}

/// A session may be executing an earlier function, and wait for the outbox's lock during the build.
#[test]
fn g04_an_upgrade_fails_no_write_and_delivers_late_ones() {
    let (_server, mut site) = version_2();
    let is_over = AtomicBool::new(false);
    let written: u32 = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|n| {
                let (mut db, is_over) = (site.session(), &is_over);
                scope.spawn(move || {
                    let mut count = 0;
                    while !is_over.load(Relaxed) {
                        count += 1;
                        db.execute(&format!("INSERT INTO t VALUES ({}, 'x')", count * 3 + n)).unwrap();
                    }
                    count
                })
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(300));
        let report = installer().discard_outbox(true).attempts(50).build(&mut site.db);
        std::thread::sleep(std::time::Duration::from_millis(300));
        is_over.store(true, Relaxed);
        let written = writers.into_iter().map(|writer| writer.join().unwrap()).sum::<i32>();
        assert!(report.is_ok_and(|report| report.failed().is_empty()));
        u32::try_from(written).unwrap()
    });
    assert_eq!(site.ask(TABLE), "t");
    let logged: u32 = site.ask(LOGGED).parse().unwrap();
    assert!(0 < logged && logged < written, "{logged} of {written}");
    assert_eq!(site.problems(), [] as [&str; 0]);
}

/// This is the state after a build that ended before it had dropped the outbox.
#[test]
fn g01_the_rest_of_an_outbox_is_delivered_by_the_next_build() {
    let (_server, mut site) = version_2();
    site.build(&installer());
    site.run(
        r#"CREATE TABLE notifyman.outbox (number bigint NOT NULL, payload text NOT NULL, written_at timestamptz);
           INSERT INTO notifyman.outbox VALUES (7, '{"number":7,"table_schema":"public","table_name":"t","session_user":"x","method":"INSERT","old_data":null,"new_data":{"id":1},"query":null}')"#,
    );
    assert_eq!(site.problems(), ["the outbox of an earlier version is still there"]);
    site.build(&installer());
    assert_eq!(site.problems(), [] as [&str; 0]);
    let row = "SELECT payload::json ->> 'number' = number::text FROM notifyman.log";
    assert_eq!((&*site.ask(LOGGED), &*site.ask(row)), ("1", "t"));
}

#[test]
fn g01_a_teardown_removes_version_2_with_its_role() {
    let (_server, mut site) = version_2();
    site.run("INSERT INTO t VALUES (1, 'x')");
    assert!(Installer::new().teardown_sql(&mut site.db).unwrap().contains("DROP ROLE \"earlier_owner\""));
    let report = Installer::new().teardown(&mut site.db).unwrap();
    assert!(report.failed().is_empty() && report.schema_changed());
    assert_eq!(site.ask("SELECT count(*) FROM pg_namespace WHERE nspname = 'notifyman'"), "0");
    assert_eq!(site.ask(OWNERS), "0");
    site.run("INSERT INTO t VALUES (2, 'x')");
}
