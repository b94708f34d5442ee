//! The installation of a log, and the changes that writers append to it.

use std::time::Duration;

use notifyman::changes::{DeliveryMode, Installer, Oversize, Shape, Status};

use super::support::{Site, site, site_in};
use crate::support::Options;
use crate::support::server::start;

fn installer() -> Installer {
    Installer::new().delivery(DeliveryMode::Log)
}

fn built(installer: &Installer) -> Site {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, n int, v text)");
    site.build(installer);
    site
}

const SIZE: &str = "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c
    WHERE relnamespace = 'notifyman'::regnamespace AND relname IN ('log_0', 'log_1', 'log_2')";
const DROPPED: &str = "SELECT last_value FROM notifyman.log_dropped";

#[test]
#[allow(deprecated, reason = "it is refused")]
fn g01_the_former_delivery_and_impossible_limits_are_refused() {
    let mut site = site();
    site.run("CREATE TABLE t (id int)");
    for (installer, text) in [
        (Installer::new().delivery(DeliveryMode::Table), "DeliveryMode::Log"),
        (installer().keep_for(Duration::from_millis(900)), "from 1 second to 10 years"),
        (installer().keep_for(Duration::MAX), "from 1 second to 10 years"),
        (installer().keep_size(0), "from 1 MiB to 1 EiB"),
        (installer().keep_size((1 << 20) - 1), "from 1 MiB to 1 EiB"),
        (installer().keep_size(u64::MAX), "from 1 MiB to 1 EiB"),
    ] {
        let error = installer.build(&mut site.db).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    assert_eq!(site.ask("SELECT to_regnamespace('notifyman') IS NULL"), "t");
}

#[test]
fn g04_each_change_has_one_number_and_the_transaction_of_its_statement() {
    for shape in [Shape::Rows, Shape::Keys] {
        let mut site = built(&installer().shape(shape));
        site.run(
            "BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a; UPDATE t SET n = 1; RELEASE a;
                  DO $$ BEGIN UPDATE t SET n = 2; EXCEPTION WHEN others THEN NULL; END $$",
        );
        let xid = site.ask("SELECT txid_current()");
        site.run("COMMIT");
        let rows = "SELECT string_agg(concat(xid = {xid}, ' ', payload::json ->> 'number' = number::text, ' ',
            payload::json ->> 'method'), ', ' ORDER BY number) FROM notifyman.log";
        assert_eq!(site.ask(&rows.replace("{xid}", &xid)), "t t INSERT, t t UPDATE, t t UPDATE");
        let before: i64 = site.ask("SELECT last_value FROM notifyman.number").parse().unwrap();
        site.run("INSERT INTO t SELECT g FROM generate_series(2, 11) g");
        let after: i64 = site.ask("SELECT last_value FROM notifyman.number").parse().unwrap();
        assert_eq!(after - before, if shape == Shape::Rows || !site.reports_statements() { 10 } else { 1 });
    }
}

#[test]
fn g04_partitions_and_schema_events_are_appended_with_the_number_of_their_row() {
    for shape in [Shape::Rows, Shape::Keys] {
        let mut site = built(&installer().shape(shape));
        site.run("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)");
        site.run("TRUNCATE notifyman.log_0; INSERT INTO p1 VALUES (1); TRUNCATE p1");
        assert_eq!(
            site.ask(
                "SELECT string_agg(concat(payload::json ->> 'table_name', ' ', payload::json ->> 'partition_name', ' ',
                payload::json ->> 'number' = number::text), ', ' ORDER BY number) FROM notifyman.log"
            ),
            "p p1 t, p p1 t"
        );
        site.run("ALTER TABLE t ADD COLUMN c int");
        let altered = "SELECT count(*) FROM notifyman.log WHERE payload::json ->> 'event' = 'altered'
            AND payload::json ->> 'number' = number::text";
        assert_eq!(site.ask(altered), "1");
    }
}

#[test]
fn g04_the_changes_of_a_row_are_numbered_in_order_across_sessions() {
    let mut site = built(&installer());
    site.run("INSERT INTO t VALUES (1, 0, '')");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut db = site.session();
            scope.spawn(move || {
                for _ in 0..100 {
                    db.execute("UPDATE t SET n = n + 1").unwrap();
                }
            });
        }
    });
    let wrong = "SELECT count(*) FROM (SELECT (payload::json -> 'new_data' ->> 'n')::int AS n, row_number() OVER (ORDER BY number) - 1
        AS wanted FROM notifyman.log) l WHERE n <> wanted";
    assert_eq!((&*site.ask("SELECT count(*) FROM notifyman.log"), &*site.ask(wrong)), ("401", "0"));
}

#[test]
fn g04_serializable_writers_do_not_conflict_in_the_log() {
    let mut site = built(&installer());
    site.run("INSERT INTO t SELECT g FROM generate_series(1, 400) g; ANALYZE t");
    let serializable = "SET default_transaction_isolation = 'serializable'; SET enable_seqscan = off";
    std::thread::scope(|scope| {
        for n in 0..4 {
            let mut db = site.session();
            scope.spawn(move || {
                db.execute(serializable).unwrap();
                for id in (n * 100 + 1)..=(n * 100 + 100) {
                    // The transactions overlap.
                    db.execute(&format!("BEGIN; SELECT 1; INSERT INTO t VALUES ({id} + 1000); COMMIT")).unwrap();
                }
            });
        }
    });
    assert_eq!(site.ask("SELECT count(*) FROM t"), "800");
    // The snapshot of a reader does not see the rows of a concurrent writer, and neither fails.
    let (mut first, mut second) = (site.session(), site.session());
    for db in [&mut first, &mut second] {
        db.execute(&format!("{serializable}; BEGIN; SELECT txid_current()")).unwrap();
    }
    first.execute("UPDATE t SET n = 1 WHERE id = 1").unwrap();
    second.execute("UPDATE t SET n = 1 WHERE id = 2000 - 600").unwrap();
    for db in [&mut first, &mut second] {
        db.execute("COMMIT").unwrap();
    }
}

#[test]
fn g04_a_log_that_is_full_fails_no_write_and_stays_bounded() {
    for shape in [Shape::Rows, Shape::Keys] {
        let mut site = built(&installer().shape(shape).keep_size(1 << 20));
        std::thread::scope(|scope| {
            for n in 0..4 {
                let mut db = site.session();
                scope.spawn(move || {
                    for part in 0..40 {
                        let first = n * 100_000 + part * 100;
                        db.execute(&format!(
                            "DO $$ BEGIN FOR i IN {first}..{} LOOP INSERT INTO t VALUES (i, 0, repeat('x', 300)); END LOOP; END $$",
                            first + 99
                        ))
                        .unwrap();
                    }
                });
            }
        });
        site.run("UPDATE t SET n = 1; DELETE FROM t WHERE id % 2 = 0");
        let size: u64 = site.ask(SIZE).parse().unwrap();
        assert!(size < 3 << 20, "{shape}: {size}");
        assert_eq!(site.ask("SELECT last_value FROM notifyman.log_full"), "2");
        let dropped: u64 = site.ask(DROPPED).parse().unwrap();
        let appended: u64 = site.ask("SELECT count(*) FROM notifyman.log").parse().unwrap();
        if shape == Shape::Rows {
            assert_eq!(appended + dropped, 16_000 + 16_000 + 8_000);
        }
        assert!(dropped > 0);
        let warnings = Status::of(&mut site.db).unwrap().warnings().to_vec();
        let text = format!("the log is full, and {dropped} changes were not appended");
        assert!(warnings.iter().any(|warning| warning.contains(&text)), "{warnings:?}");
        // This is what a worker does that has read the log.
        site.run("TRUNCATE notifyman.log_0");
        site.run("INSERT INTO t VALUES (-1)");
        assert_eq!(site.ask("SELECT last_value FROM notifyman.log_full"), "1");
        assert_eq!(site.ask("SELECT count(*) FROM notifyman.log"), "1");
        let warnings = Status::of(&mut site.db).unwrap().warnings().to_vec();
        assert!(!warnings.iter().any(|warning| warning.contains("full")), "{warnings:?}");
        let shown = Status::of(&mut site.db).unwrap().to_string();
        assert!(shown.contains(&format!("not appended     {dropped} changes in total")), "{shown}");
    }
}

#[test]
fn g01_the_privileges_of_a_workers_role_are_listed_and_suffice() {
    let mut site = built(&Installer::new());
    assert_eq!(site.build(&Installer::new()).grants(), [] as [&str; 0]);
    let spill = site.build(&Installer::new().oversize(Oversize::Spill));
    assert_eq!(spill.grants(), ["GRANT SELECT, DELETE ON notifyman.spilled TO worker_role;"]);
    let role = format!("reader_{}", std::process::id());
    site.run(&format!("CREATE ROLE {role}"));
    let report = site.build(&installer());
    report.grants().iter().for_each(|grant| site.run(&grant.replace("worker_role", &role)));
    site.run("INSERT INTO t VALUES (1)");
    site.run(&format!("SET ROLE {role}"));
    for statement in [
        "SELECT * FROM notifyman.log, notifyman.era, notifyman.start, notifyman.mark, notifyman.position",
        "TRUNCATE notifyman.log_1; TRUNCATE notifyman.log_2",
        "SELECT setval('notifyman.log_table', 4), setval('notifyman.log_full', 1), pg_sequence_last_value('notifyman.log_dropped')",
        "SELECT pg_sequence_last_value('notifyman.number')",
        "INSERT INTO notifyman.position (name, place, snapshot) VALUES ('a', '', '1:1:')",
    ] {
        site.run(statement);
    }
    site.run("RESET ROLE");
    // Another build keeps rows, values and privileges.
    site.build(&installer().keep_size(1 << 21));
    assert_eq!(site.ask("SELECT last_value FROM notifyman.log_table"), "4");
    assert_eq!(site.ask("SELECT count(*) FROM notifyman.position"), "1");
    assert_eq!(site.ask(&format!("SELECT has_table_privilege('{role}', 'notifyman.log_1', 'TRUNCATE')")), "t");
    site.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn g01_a_damaged_log_is_a_problem_that_a_build_fixes() {
    for (damage, text) in [
        ("DROP TABLE notifyman.log_1 CASCADE", "missing: log_1, log_1_xid, log_1_number, log"),
        ("DROP TABLE notifyman.era", "missing: era"),
        ("DROP INDEX notifyman.log_2_xid", "missing: log_2_xid"),
        ("DROP SEQUENCE notifyman.log_full", "missing: log_full"),
        ("ALTER SEQUENCE notifyman.number CACHE 10", "the sequence notifyman.number caches values"),
        ("ALTER SEQUENCE notifyman.number CYCLE", "the sequence notifyman.number caches values"),
    ] {
        let mut site = built(&installer());
        site.run("INSERT INTO t VALUES (1)");
        site.run(damage);
        let problems = site.problems();
        assert!(problems.iter().any(|problem| problem.contains(text)), "{damage}: {problems:?}");
        // A session that has written before notices the damage as well.
        site.run("INSERT INTO t VALUES (2)");
        site.session().execute("INSERT INTO t VALUES (3)").unwrap();
        site.build(&installer());
        assert_eq!(site.problems(), [] as [&str; 0], "{damage}");
        site.run("TRUNCATE notifyman.log_0; INSERT INTO t VALUES (4)");
        assert_eq!(site.ask("SELECT count(*) FROM notifyman.log"), "1", "{damage}");
    }
}

#[test]
fn g04_a_revoked_privilege_of_the_owner_fails_no_write() {
    for shape in [Shape::Rows, Shape::Keys] {
        for revoked in
            ["INSERT ON notifyman.log_0", "SELECT ON SEQUENCE notifyman.log_table", "USAGE ON SCHEMA notifyman"]
        {
            let mut site = built(&installer().shape(shape));
            site.run("INSERT INTO t VALUES (1)");
            site.run(&format!("REVOKE {revoked} FROM PUBLIC, notifyman_owner"));
            site.run("INSERT INTO t VALUES (2); UPDATE t SET n = 1; DELETE FROM t; TRUNCATE t");
            site.session().execute("INSERT INTO t VALUES (1)").unwrap();
            assert_eq!(site.ask("SELECT count(*) FROM notifyman.log"), "1", "{revoked}");
            site.build(&installer().shape(shape));
            site.run("INSERT INTO t VALUES (2)");
        }
    }
}

#[test]
fn g01_another_delivery_or_persistence_ends_a_log() {
    let mut site = built(&installer());
    // Each era of the log has a row in both tables.
    let eras = "SELECT (SELECT count(*) FROM notifyman.era) + (SELECT count(*) FROM notifyman.start)";
    let id = "SELECT id FROM notifyman.start";
    assert_eq!(site.ask(eras), "2");
    let first = site.ask(id);
    site.build(&installer().with_query(true));
    assert_eq!((site.ask(eras), site.ask(id)), ("2".to_owned(), first.clone()));
    let error = Installer::new().build(&mut site.db).unwrap_err().to_string();
    assert!(error.contains("give --delivery log (Installer::delivery) to keep the log"), "{error}");
    site.build(&Installer::new().delivery(DeliveryMode::Notify));
    assert_eq!(site.ask(eras), "0");
    site.build(&installer());
    let second = site.ask(id);
    assert_ne!(first, second);
    site.run("INSERT INTO t VALUES (1)");
    site.build(&installer().unlogged(true));
    assert_eq!((&*site.ask(eras), &*site.ask("SELECT count(*) FROM notifyman.log")), ("2", "0"));
    assert_ne!(site.ask(id), second);
    let logged = "SELECT count(*) FROM pg_class WHERE relnamespace = 'notifyman'::regnamespace AND relkind = 'r' AND relpersistence = 'p'";
    assert_eq!(site.ask(logged), "0");
    assert_eq!(site.problems(), [] as [&str; 0]);
    let shown = Status::of(&mut site.db).unwrap().to_string();
    for line in ["keep for         86400 s", "keep size        1 GiB", "unlogged         yes", "log size         "] {
        assert!(shown.contains(line), "{shown}");
    }
    site.build(&installer());
    assert_eq!(site.ask(logged), "4");
    let report = Installer::new().teardown(&mut site.db).unwrap();
    assert!(report.schema_changed());
}

#[test]
fn g04_a_publication_of_all_tables_contains_no_unlogged_log() {
    let server = start(Options::new().setting("wal_level", "logical").setting("max_wal_senders", "4"));
    let mut site = site_in(&server);
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION every FOR ALL TABLES");
    let error = installer().build(&mut site.db).unwrap_err().to_string();
    assert!(error.contains("publication every is FOR ALL TABLES") && error.contains("--unlogged"), "{error}");
    site.build(&installer().unlogged(true));
    site.run("INSERT INTO t VALUES (1, 'x')");
    assert_eq!(site.ask("SELECT count(*) FROM pg_publication_tables WHERE schemaname = 'notifyman'"), "0");
    assert_eq!(Status::of(&mut site.db).unwrap().warnings(), [] as [&str; 0]);
    // If a publication contains the log, changes can be published.
    site.build(&installer().force(true));
    assert!(Status::of(&mut site.db).unwrap().warnings()[0].contains("publication every"));
    site.run("INSERT INTO t VALUES (2, 'x'); TRUNCATE notifyman.log_0");
}
