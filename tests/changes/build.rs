//! Builds and teardowns under load, and wrong input: rule G01.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use notifyman::Error;
use notifyman::changes::{DeliveryMode, Installer, Oversize, Shape, Status};

use super::support::{Site, site, site_in};
use crate::support::server::{LIMIT, connect, eventually, start};
use crate::support::{Options, Peer, Step, msg};

/// Returns a description of all objects of the installation and of all tables, from the catalogs.
fn everything(site: &mut Site) -> String {
    site.ask(
        "SELECT coalesce(string_agg(line, chr(10) ORDER BY line), '') FROM (
            SELECT concat_ws(' ', 'trigger', oid, xmin, tgrelid, tgname, tgenabled, tgfoid) FROM pg_trigger WHERE NOT tgisinternal
            UNION ALL SELECT concat_ws(' ', 'function', oid, xmin, proname) FROM pg_proc WHERE pronamespace NOT IN (11, 'information_schema'::regnamespace)
            UNION ALL SELECT concat_ws(' ', 'schema', oid, xmin, nspname) FROM pg_namespace
            UNION ALL SELECT concat_ws(' ', 'event', oid, xmin, evtname) FROM pg_event_trigger
            UNION ALL SELECT concat_ws(' ', 'table', oid, xmin, relname) FROM pg_class WHERE oid > 16384 AND relkind = 'r') all_of_it (line)",
    )
}

#[test]
fn g01_building_again_changes_nothing() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int)");
    for installer in [
        Installer::new(),
        Installer::new().shape(Shape::Keys).with_query(true),
        Installer::new().schema_events(false).oversize(Oversize::Spill),
        Installer::new().delivery(DeliveryMode::Log).replicated(true),
    ] {
        let first = site.build(&installer);
        assert!(first.schema_changed());
        let before = everything(&mut site);
        let again = site.build(&installer);
        assert_eq!((again.schema_changed(), again.unchanged()), (false, 2), "{again:?}");
        assert_eq!(everything(&mut site), before);
        assert_eq!(site.problems(), [] as [&str; 0]);
    }
}

#[test]
fn g01_other_options_change_functions_and_lock_no_table() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new());
    let mut writer = site.session();
    writer.execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").unwrap();
    let report = site.build(&Installer::new().with_query(true).delivery(DeliveryMode::Log));
    assert_eq!((report.schema_changed(), report.changed().len()), (true, 0));
    writer.execute("INSERT INTO t VALUES (1); COMMIT").unwrap();
    assert_eq!(site.ask("SELECT payload::json ->> 'query' FROM notifyman.log"), "INSERT INTO t VALUES (1); COMMIT");
}

#[test]
fn g01_a_table_in_use_is_reported_after_a_bounded_wait_and_built_by_the_next_build() {
    let mut site = site();
    site.run("CREATE TABLE busy (id int PRIMARY KEY); CREATE TABLE calm (id int)");
    let mut writer = site.session();
    writer.execute("BEGIN; INSERT INTO busy VALUES (1)").unwrap();
    let installer = Installer::new().lock_timeout(Duration::from_millis(100)).attempts(2);
    let begun = Instant::now();
    let report = installer.build(&mut site.db).unwrap();
    assert!(begun.elapsed() < LIMIT);
    assert_eq!(report.covered(), ["public.calm"]);
    let [(table, error)] = report.failed() else { panic!("{report:?}") };
    assert_eq!((table.as_str(), error.sqlstate()), ("public.busy", Some("55P03")));
    assert_eq!(site.problems(), ["table public.busy: its triggers are missing"]);

    // Meanwhile DDL on other tables, and writes, do not wait.
    site.run(
        "SET lock_timeout = '20s'; CREATE TABLE other (id int); ALTER TABLE calm ADD COLUMN v int; DROP TABLE other",
    );
    writer.execute("COMMIT").unwrap();
    let report = site.build(&installer);
    assert_eq!((report.covered(), report.unchanged()), (["public.busy".to_owned()].as_slice(), 1));
    let report = site.build(&installer);
    assert_eq!(report.unchanged(), 2);

    // A teardown has the same limits.
    writer.execute("BEGIN; INSERT INTO busy VALUES (2)").unwrap();
    let report = installer.teardown(&mut site.db).unwrap();
    assert_eq!((report.removed(), report.failed().len()), (["public.calm".to_owned()].as_slice(), 1));
    writer.execute("COMMIT").unwrap();
    let report = installer.teardown(&mut site.db).unwrap();
    assert!(report.failed().is_empty() && report.schema_changed());
    assert_eq!(site.ask("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"), "0");
}

#[test]
fn g01_a_writer_with_a_log_neither_delays_a_build_nor_waits_for_one() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    let installer = Installer::new().delivery(DeliveryMode::Log).lock_timeout(Duration::from_millis(300));
    site.build(&installer);
    let mut writer = site.session();
    writer.execute("BEGIN; INSERT INTO t VALUES (1)").unwrap();
    // Only functions differ, and they need no lock.
    assert!(site.build(&installer.with_query(true)).schema_changed());
    writer.execute("COMMIT").unwrap();
}

#[test]
fn g01_open_ddl_delays_no_build_and_a_build_fails_no_ddl() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    let installer = Installer::new().lock_timeout(Duration::from_millis(300));
    site.build(&installer);
    // The open transaction replaces the function of the table.
    let mut migration = site.session();
    migration.execute("BEGIN; ALTER TABLE t ADD COLUMN v int").unwrap();
    let report = installer.clone().except_tables(["t"]).build(&mut site.db).unwrap();
    assert!(report.schema_changed() && report.failed().len() == 1, "{report:?}");
    migration.execute("COMMIT").unwrap();

    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for n in 0..2 {
            let (mut db, is_over) = (site.session(), &is_over);
            scope.spawn(move || {
                while !is_over.load(Relaxed) {
                    db.execute(&format!(
                        "CREATE TABLE n{n} (id int); ALTER TABLE n{n} ADD COLUMN v int; DROP TABLE n{n}"
                    ))
                    .unwrap();
                }
            });
        }
        let _over = Over(&is_over);
        for n in 0..8 {
            installer.clone().attempts(20).with_query(n % 2 == 0).build(&mut site.db).unwrap();
        }
    });
    site.build(&installer);
    assert_eq!(site.problems(), [] as [&str; 0]);
}

#[test]
fn g01_settings_for_strings_and_names_do_not_affect_a_build() {
    let mut site = site();
    site.run(
        r#"DO $$ BEGIN
            EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings = off', current_database());
            EXECUTE format('ALTER DATABASE %I SET escape_string_warning = off', current_database());
            EXECUTE format('ALTER DATABASE %I SET quote_all_identifiers = on', current_database());
        END $$; CREATE TABLE "a\b%_" ("c\d" int PRIMARY KEY); CREATE TABLE axb (id int)"#,
    );
    let mut site = Site::at(site.url);
    let report = site.build(&Installer::new().tables([r"a\b%_", "later*"]));
    assert_eq!(report.covered(), [r#"public."a\b%_""#]);
    assert_eq!(site.report_lines(r#"INSERT INTO "a\b%_" VALUES (1)"#), [r#"INSERT a\b%_ {"c\\d":1}"#]);
    site.run("CREATE TABLE later (id int)");
    // The settings of another session make no difference.
    site.run("SET quote_all_identifiers = off; SET standard_conforming_strings = on");
    assert_eq!(site.problems(), [] as [&str; 0]);
    assert_eq!(site.report_lines("INSERT INTO later VALUES (1)"), [r#"INSERT later {"id":1}"#]);
    // The settings of a session that restores a dump make no difference.
    let quoted = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'notifyman'::regnamespace \
        AND array_to_string(proconfig, ' ') LIKE '%\"%'";
    assert_eq!(site.ask(quoted), "0");
}

#[test]
fn g01_defaults_of_a_database_do_not_affect_a_build_a_status_or_a_teardown() {
    let mut site = site();
    let name = site.ask("SELECT current_database()");
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    for setting in [
        "default_transaction_read_only = on",
        "default_transaction_isolation = serializable",
        "default_transaction_deferrable = on",
        "row_security = off",
        "search_path = ''",
        "statement_timeout = '300ms'",
        "client_min_messages = error",
        "DateStyle = 'SQL, DMY'",
        "quote_all_identifiers = on",
    ] {
        site.run(&format!("ALTER DATABASE {name} SET {setting}"));
    }
    let mut db = connect(&site.url);
    for shape in [Shape::Rows, Shape::Keys] {
        let report = Installer::new().shape(shape).build(&mut db).unwrap();
        assert!(report.failed().is_empty(), "{report:?}");
        assert_eq!(Status::of(&mut db).unwrap().problems(), [] as [&str; 0]);
    }
    assert!(Installer::new().teardown(&mut db).unwrap().failed().is_empty());
}

/// Sets a flag when it is dropped, even if the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn g01_a_thousand_tables_under_load_are_covered_one_by_one() {
    // A server of its own, since a commit with a NOTIFY waits for the whole cluster.
    let server = start(Options::new());
    let mut site = Site::at(server.url());
    site.stop_listening();
    site.run("DO $$ BEGIN FOR n IN 1 .. 1000 LOOP EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v int)', n); END LOOP; END $$");
    let (url, over, steps) = (site.url.clone(), AtomicBool::new(false), AtomicUsize::new(0));
    // The largest number of tables that are covered during one write.
    let longest = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3_u32)
            .map(|w| {
                let (url, over, steps) = (&url, &over, &steps);
                scope.spawn(move || {
                    let mut db = connect(url);
                    let (mut longest, mut meanwhile) = (0, 0);
                    for n in 0_u32.. {
                        if over.load(Relaxed) {
                            break;
                        }
                        let begun = steps.load(Relaxed);
                        db.execute(&format!(
                            "INSERT INTO t{} VALUES ({}) ON CONFLICT DO NOTHING",
                            n * 7 % 1000 + 1,
                            n * 3 + w
                        ))
                        .unwrap();
                        let ended = steps.load(Relaxed);
                        longest = longest.max(ended - begun);
                        meanwhile += usize::from(0 < begun && ended < 1000);
                    }
                    assert!(meanwhile >= 10, "{meanwhile} writes were done while tables were covered");
                    longest
                })
            })
            .collect();
        let _over = Over(&over);
        let report = Installer::new()
            .build_with(&mut site.db, |progress| {
                steps.fetch_add(1, Relaxed);
                assert!(progress.done <= progress.total && progress.total == 1000);
            })
            .unwrap();
        over.store(true, Relaxed);
        assert_eq!((report.covered().len(), report.failed().len()), (1000, 0), "{:?}", report.failed());
        assert_eq!(steps.load(Relaxed), 1000);
        writers.into_iter().map(|writer| writer.join().unwrap()).max().unwrap()
    });
    // A build in one transaction would block writers until its end.
    assert!(longest < 500, "{longest} of 1000 tables were covered during one write");
    assert_eq!(site.build(&Installer::new()).unchanged(), 1000);
    site.db.set_call_timeout(Duration::from_secs(600));
    Installer::new().teardown(&mut site.db).unwrap();
}

#[test]
fn g01_a_teardown_removes_everything_and_no_object_of_other_programs() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
              CREATE TRIGGER theirs AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()");
    let before = everything(&mut site);
    site.build(&Installer::new().oversize(Oversize::Spill));
    site.run("CREATE VIEW notifyman.theirs AS SELECT 1");
    let error = Installer::new().teardown(&mut site.db).unwrap_err();
    assert_eq!(error.sqlstate(), Some("2BP01"), "{error}");
    site.run("DROP VIEW notifyman.theirs");
    Installer::new().teardown(&mut site.db).unwrap();
    assert_eq!(everything(&mut site).lines().count(), before.lines().count());
    assert!(Installer::new().teardown(&mut site.db).unwrap().removed().is_empty(), "a repetition changes nothing");
    assert_eq!(site.problems(), ["nothing is installed: run `notifyman build`"]);
}

#[test]
fn g01_a_damaged_installation_is_a_problem_that_a_build_fixes() {
    for (damage, text) in [
        ("DROP TRIGGER \"0_notifyman\" ON t", "table public.t: its triggers are different"),
        (
            "DROP TRIGGER \"0_notifyman\" ON t; DROP TRIGGER \"0_notifyman_truncate\" ON t",
            "table public.t: its triggers are missing",
        ),
        ("ALTER TABLE t ENABLE REPLICA TRIGGER \"0_notifyman\"", "table public.t: its triggers are different"),
        (
            "DO $$ BEGIN EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', (SELECT max(tgfoid)::regprocedure FROM pg_trigger WHERE tgname = '0_notifyman')); END $$",
            "is not as a build creates it",
        ),
        ("DROP EVENT TRIGGER notifyman_ddl", "an event trigger is missing: new tables are not covered"),
        ("DROP TABLE notifyman.spilled", "a table or the sequence of the schema notifyman is missing"),
        ("DROP SEQUENCE notifyman.number", "a table or the sequence of the schema notifyman is missing"),
        (
            "ALTER FUNCTION notifyman.payload SET search_path = public",
            "function notifyman.payload is not as a build creates it",
        ),
        (
            "ALTER FUNCTION notifyman.payload OWNER TO CURRENT_USER",
            "function notifyman.payload is not as a build creates it",
        ),
        (
            "REVOKE EXECUTE ON FUNCTION notifyman.payload FROM PUBLIC",
            "function notifyman.payload is not as a build creates it",
        ),
        ("DROP FUNCTION notifyman.truncated CASCADE", "function notifyman.truncated is not as a build creates it"),
        ("REVOKE USAGE ON SCHEMA notifyman FROM PUBLIC", "roles lack USAGE on the schema notifyman"),
        ("COMMENT ON SCHEMA notifyman IS 'Tells of table changes by NOTIFY.'", "damaged"),
        ("DROP FUNCTION notifyman.append CASCADE", "function notifyman.append is not as a build creates it"),
    ] {
        let mut site = site();
        site.run("CREATE TABLE t (id int PRIMARY KEY)");
        let installer = Installer::new().oversize(Oversize::Spill);
        site.build(&installer);
        site.run(damage);
        let problems = site.problems();
        assert!(problems.iter().any(|problem| problem.contains(text)), "{damage}: {problems:?}");
        site.build(&installer);
        assert_eq!(site.problems(), [] as [&str; 0], "{damage}");
        assert_eq!(site.report_lines("INSERT INTO t VALUES (1)").len(), 1, "{damage}");
        Installer::new().teardown(&mut site.db).unwrap();
    }
}

/// An earlier version may have other tables, other functions, and triggers with other names.
#[test]
fn g01_an_earlier_installation_is_upgraded_and_a_later_one_refused() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int);
        CREATE SCHEMA notifyman; COMMENT ON SCHEMA notifyman IS 'Tells of table changes by NOTIFY. Version 0.';
        CREATE TABLE notifyman.installation (version int, settings text); INSERT INTO notifyman.installation VALUES (0, 'x');
        CREATE TABLE notifyman.log (number bigint PRIMARY KEY, payload text NOT NULL, written_at timestamptz);
        CREATE FUNCTION notifyman.cover(t regclass) RETURNS void LANGUAGE sql AS 'SELECT';
        CREATE FUNCTION notifyman.report() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_notify(''notifyman'', ''{}''); RETURN NULL; END';
        CREATE FUNCTION notifyman.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
        CREATE EVENT TRIGGER notifyman_ddl ON ddl_command_end EXECUTE FUNCTION notifyman.on_ddl();
        CREATE TRIGGER \"0_notifyman\" AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION notifyman.report();
        CREATE TRIGGER notifyman AFTER INSERT ON u FOR EACH ROW EXECUTE FUNCTION notifyman.report()");
    assert!(site.problems()[0].contains("of an earlier version"));
    let report = site.build(&Installer::new());
    assert_eq!(report.changed(), ["public.t", "public.u"]);
    assert_eq!(site.problems(), [] as [&str; 0]);
    assert_eq!(
        site.report_lines("INSERT INTO t VALUES (1); INSERT INTO u VALUES (1)"),
        [r#"INSERT t {"id":1}"#, r#"INSERT u {"id":1}"#]
    );

    let comment = site.ask("SELECT obj_description('notifyman'::regnamespace, 'pg_namespace')");
    let later = comment.replace("\"version\":3", "\"version\":99");
    assert_ne!(later, comment);
    site.run(&format!("COMMENT ON SCHEMA notifyman IS $${later}$$"));
    let before = everything(&mut site);
    let error = Installer::new().build(&mut site.db).unwrap_err();
    assert!(
        matches!(&error, Error::Changes(why) if why.contains("version 99") && why.contains("later notifyman")),
        "{error}"
    );
    assert_eq!(everything(&mut site), before);
    assert_eq!(
        site.problems(),
        ["the installation is of version 99, and this program installs version 3: use a later notifyman"]
    );
}

#[test]
fn g01_objects_of_another_program_are_not_changed() {
    let mut site = site();
    site.run("CREATE TABLE t (id int); CREATE SCHEMA notifyman; CREATE TABLE notifyman.theirs (id int)");
    for error in [
        Installer::new().build(&mut site.db).unwrap_err(),
        Installer::new().teardown(&mut site.db).unwrap_err(),
        Status::of(&mut site.db).unwrap_err(),
    ] {
        assert!(format!("{error:#}").contains("another program has a schema \"notifyman\""), "{error}");
    }
    site.run(
        "ALTER SCHEMA notifyman RENAME TO other; CREATE TABLE u (id int);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER \"0_notifyman\" AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
    );
    let report = Installer::new().build(&mut site.db).unwrap();
    assert_eq!(report.covered(), ["other.theirs", "public.u"]);
    let [(table, error)] = report.failed() else { panic!("{report:?}") };
    assert!(table == "public.t" && format!("{error:#}").contains("is not notifyman's"), "{error}");
}

#[test]
fn g01_a_missing_table_is_an_error_before_any_change() {
    let mut site = site();
    site.run("CREATE TABLE t (id int); CREATE VIEW v AS SELECT 1");
    for installer in
        [Installer::new().tables(["T"]), Installer::new().tables(["v"]), Installer::new().schemas(["publik"])]
    {
        let error = installer.build(&mut site.db).unwrap_err();
        assert!(error.is_usage() && format!("{error:#}").contains("there is no table"), "{error}");
    }
    assert_eq!(site.ask("SELECT to_regnamespace('notifyman') IS NULL"), "t");
    site.build(&Installer::new().tables(["perhaps_*", "t"]));
}

#[test]
fn g01_without_privileges_the_error_names_them_and_other_tables_are_built() {
    let server = start(Options::new());
    let mut site = site_in(&server);
    let role = format!("owner_{}", std::process::id());
    let database = site.ask("SELECT current_database()");
    site.run(&format!(
        "DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         CREATE SCHEMA s AUTHORIZATION {role}; CREATE TABLE public.not_theirs (id int)"
    ));
    // Another database of the cluster uses the owner.
    site_in(&server).build(&Installer::new());
    let mut db = connect(&site.url.replace("postgres@", &format!("{role}@")));
    db.execute("CREATE TABLE s.t (id int PRIMARY KEY)").unwrap();
    let error = Installer::new().build(&mut db).unwrap_err();
    assert!(format!("{error:#}").contains("GRANT CREATE ON DATABASE"), "{error}");
    site.run(&format!("GRANT CREATE ON DATABASE {database} TO {role}"));
    let error = Installer::new().build(&mut db).unwrap_err().to_string();
    let grant = format!("GRANT \"notifyman_owner\" TO \"{role}\"");
    assert!(error.contains("Have a DBA run") && error.contains(&grant), "{error}");
    site.run(&grant);
    let error = Installer::new().build(&mut db).unwrap_err();
    assert!(
        format!("{error:#}").contains("Event triggers need a superuser")
            && format!("{error:#}").contains("--no-schema-events"),
        "{error}"
    );
    assert_eq!(site.ask("SELECT to_regnamespace('notifyman') IS NULL"), "t", "nothing is left of it");

    let report = Installer::new().schema_events(false).build(&mut db).unwrap();
    assert_eq!(report.covered(), ["s.t"]);
    let [(table, error)] = report.failed() else { panic!("{report:?}") };
    assert_eq!((table.as_str(), error.sqlstate()), ("public.not_theirs", Some("42501")));
    assert_eq!(site.report_lines("INSERT INTO s.t VALUES (1)"), [r#"INSERT t {"id":1}"#]);
    assert!(Installer::new().schema_events(false).schemas(["s"]).build(&mut db).unwrap().failed().is_empty());
    Installer::new().teardown(&mut db).unwrap();
}

#[test]
fn g01_an_open_transaction_and_a_standby_are_refused() {
    let mut site = site();
    site.run("BEGIN");
    assert!(Installer::new().build(&mut site.db).unwrap_err().to_string().contains("in a transaction"));
    site.run("ROLLBACK");

    let mut server = start(Options::new().setting("hot_standby", "on").setting("wal_level", "replica"));
    std::fs::write(server.data_dir().join("standby.signal"), "").unwrap();
    server.restart().unwrap();
    eventually("the standby answers", || notifyman::Connection::connect(server.url()).is_ok());
    let error = Installer::new().build(&mut connect(&server.url())).unwrap_err();
    assert!(format!("{error:#}").contains("is a standby"), "{error}");
}

#[test]
fn g01_concurrent_builds_make_one_installation() {
    let mut site = site();
    site.run("DO $$ BEGIN FOR n IN 1 .. 30 LOOP EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v int)', n); END LOOP; END $$");
    let url = site.url.clone();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| Installer::new().lock_timeout(Duration::from_secs(10)).build(&mut connect(&url)).unwrap());
        }
    });
    site.build(&Installer::new());
    assert_eq!(site.problems(), [] as [&str; 0]);
    assert_eq!(site.report_lines("INSERT INTO t7 VALUES (1)").len(), 1);
}

#[test]
fn g09_an_old_server_is_refused_before_any_change() {
    let facts = serde_json::json!({
        "version": 11, "is_standby": false, "allows_prepare": false, "has_schema": false, "comment": "", "installer": "",
        "is_installer_superuser": false, "is_installer_database_owner": false, "may_create_schema": true, "database": "shop",
        "role": "app", "is_superuser": false, "may_create_role": false, "is_owner_too_powerful": false,
        "deadlock_timeout": 1000, "may_set_deadlock_timeout": false, "may_notify": true,
    });
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_any_query(),
        Step::send([msg::row_description(&["row_to_json"]), msg::data_row(&[Some(&facts.to_string())])]),
        Step::send([msg::command_complete("SELECT 1"), msg::ready(b'I')]),
        Step::expect_eof(),
    ]);
    let mut db = connect(&peer.url());
    let error = Installer::new().build(&mut db).unwrap_err();
    assert!(format!("{error:#}").contains("PostgreSQL 11, and table changes need 12 or later"), "{error}");
    drop(db);
    peer.finish();
}
