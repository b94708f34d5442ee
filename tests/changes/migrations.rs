//! Settings of sessions and servers, and sessions during migrations: rules G01, G04, G06 and G07.

use notifyman::Connection;
use notifyman::changes::{DeliveryMode, Installer, Oversize, Shape, Status};

use super::support::{Site, site, site_in};
use crate::support::Options;
use crate::support::server::{connect, eventually, start};

/// Returns the payloads that a statement of this session causes.
#[track_caller]
fn report_lines(site: &mut Site, db: &mut Connection, sql: &str) -> Vec<String> {
    site.received();
    db.execute(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    site.received().iter().map(super::support::short).collect()
}

#[test]
fn g07_a_session_reports_whole_rows_during_migrations_in_another_session() {
    for (shape, schema_events) in [(Shape::Rows, true), (Shape::Rows, false), (Shape::Keys, true), (Shape::Keys, false)]
    {
        let mut site = site();
        site.run("CREATE TABLE t (id int PRIMARY KEY, v text, w text)");
        let installer = Installer::new().shape(shape).schema_events(schema_events);
        site.build(&installer);
        let mut pooled = site.session();
        pooled.execute("INSERT INTO t VALUES (1); UPDATE t SET v = 'x'; DELETE FROM t").unwrap();
        let mut check = |site: &mut Site, migration: &str, insert: &str, row: &str, key: &str| {
            site.run(migration);
            let text = report_lines(site, &mut pooled, &format!("INSERT INTO t {insert}"));
            let wanted = if shape == Shape::Rows { row.to_owned() } else { format!("[{key}]") };
            assert_eq!(text, [format!("INSERT t {wanted}")], "{shape} {schema_events}: {migration}");
            let text = report_lines(site, &mut pooled, "DELETE FROM t");
            assert_eq!(text, [format!("DELETE t {wanted}")], "{shape} {schema_events}: {migration}");
        };
        for (migration, insert, row, key) in [
            ("ALTER TABLE t ALTER id TYPE bigint", "VALUES (2, 'a')", r#"{"id":2,"v":"a","w":null}"#, r#"{"id":2}"#),
            ("ALTER TABLE t ALTER v TYPE varchar", "VALUES (3, 'a')", r#"{"id":3,"v":"a","w":null}"#, r#"{"id":3}"#),
            (
                "ALTER TABLE t ALTER v TYPE jsonb USING '1'",
                "VALUES (3, '2')",
                r#"{"id":3,"v":2,"w":null}"#,
                r#"{"id":3}"#,
            ),
            ("ALTER TABLE t DROP v", "VALUES (4, 'b')", r#"{"id":4,"w":"b"}"#, r#"{"id":4}"#),
            ("ALTER TABLE t RENAME w TO x", "VALUES (5, 'b')", r#"{"id":5,"x":"b"}"#, r#"{"id":5}"#),
            ("ALTER TABLE t ADD y text DEFAULT 'n'", "VALUES (6, 'b')", r#"{"id":6,"x":"b","y":"n"}"#, r#"{"id":6}"#),
            ("ALTER TABLE t ALTER id TYPE text", "VALUES ('7')", r#"{"id":"7","x":null,"y":"n"}"#, r#"{"id":"7"}"#),
            ("ALTER TABLE t RENAME id TO k", "VALUES ('8')", r#"{"k":"8","x":null,"y":"n"}"#, r#"{"k":"8"}"#),
            (
                "ALTER TABLE t DROP k; ALTER TABLE t ADD PRIMARY KEY (x)",
                "VALUES ('9')",
                r#"{"x":"9","y":"n"}"#,
                r#"{"x":"9"}"#,
            ),
        ] {
            check(&mut site, migration, insert, row, key);
        }
        site.build(&installer);
        check(&mut site, "SELECT", "VALUES ('10')", r#"{"x":"10","y":"n"}"#, r#"{"x":"10"}"#);
        assert_eq!(Status::of(&mut site.db).unwrap().tables()[0].state, "right");
    }
}

#[test]
fn g04_no_setting_of_a_session_damages_a_report() {
    let settings = [
        "array_nulls = off",
        "standard_conforming_strings = off",
        "backslash_quote = off",
        "transform_null_equals = on",
        "quote_all_identifiers = on",
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = sql_standard",
        "TimeZone = 'Asia/Kolkata'",
        "bytea_output = escape",
        "extra_float_digits = -15",
        "xmlbinary = hex",
        "xmloption = document",
        "row_security = off",
        "search_path = ''",
        "search_path = public, pg_catalog",
        "client_encoding = LATIN1",
        "client_min_messages = error",
        "plpgsql.variable_conflict = error",
        "plpgsql.extra_errors = 'all'",
        "plpgsql.check_asserts = off",
        "check_function_bodies = off",
        "default_transaction_isolation = serializable",
        "default_transaction_read_only = on",
        "plan_cache_mode = force_custom_plan",
        "enable_seqscan = off",
        "jit_above_cost = 0",
        "lc_messages = 'C'",
        "escape_string_warning = on",
        "synchronize_seqscans = off",
        "vacuum_cost_delay = 10",
    ];
    for installer in [
        Installer::new(),
        Installer::new().with_query(true).oversize(Oversize::Spill),
        Installer::new().shape(Shape::Keys),
        Installer::new().shape(Shape::Keys).with_query(true),
    ] {
        let mut site = site();
        site.run("CREATE TABLE t (id timestamptz PRIMARY KEY, b bytea, f float8, i interval, v text)");
        site.build(&installer);
        for setting in settings {
            let mut db = site.session();
            // This server does not have the setting, or a session cannot change it.
            if db.execute(&format!("SET {setting}")).is_err() {
                continue;
            }
            site.received();
            db.execute("BEGIN READ WRITE; INSERT INTO public.t VALUES ('2026-01-02 03:04:05+00', E'\\\\xff00', 0.1, '1 day 2 hours', 'é');
                UPDATE public.t SET v = NULL; UPDATE public.t SET v = repeat('x', 9000); TRUNCATE public.t; COMMIT").unwrap();
            let reported = site.received();
            assert_eq!(reported.len(), 4, "{setting}: {reported:?}");
            for payload in &reported[..3] {
                let key = [&payload["new_data"]["id"], &payload["keys"][0]["id"]].map(serde_json::Value::is_string);
                assert!(key.contains(&true) || payload["spilled"] == true, "{setting}: {payload}");
            }
            assert_eq!(reported[3]["method"], "TRUNCATE", "{setting}");
            assert!(db.take_notices().is_empty(), "{setting}");
        }
    }
}

/// After that, not even a sequence may be written.
#[test]
fn g04_a_transaction_that_becomes_read_only_reports_its_writes() {
    for shape in [Shape::Rows, Shape::Keys] {
        let mut site = site();
        site.run("CREATE TABLE t (id int PRIMARY KEY)");
        site.build(&Installer::new().shape(shape));
        let reports = site.reports(
            "WITH w AS (INSERT INTO t VALUES (1) RETURNING id)
             SELECT set_config('transaction_read_only', 'on', true) FROM w",
        );
        assert_eq!(reports.len(), 1);
        assert_eq!((&reports[0]["method"], &reports[0]["truncated"]), (&"INSERT".into(), &"key".into()));
    }
}

#[test]
fn g06_the_key_of_a_partitioned_table_is_its_primary_key_also_while_partitions_lack_theirs() {
    let mut site = site();
    site.build(&Installer::new().shape(Shape::Keys));
    site.run(
        "CREATE TABLE p (id int NOT NULL, k int NOT NULL) PARTITION BY LIST (k); CREATE TABLE p1 (id int NOT NULL, k int NOT NULL);
         ALTER TABLE ONLY p ATTACH PARTITION p1 FOR VALUES IN (1); ALTER TABLE ONLY p ADD CONSTRAINT pk PRIMARY KEY (id, k)",
    );
    // Row by row, a partition has no key until it has its own.
    let text = site.report_keys("INSERT INTO p VALUES (1, 1)");
    if site.reports_statements() {
        assert_eq!(text.last().unwrap().split('[').nth(1).unwrap(), r#"{"id":1,"k":1}]"#);
    }
    site.run("ALTER TABLE ONLY p1 ADD CONSTRAINT p1k PRIMARY KEY (id, k); ALTER INDEX pk ATTACH PARTITION p1k");
    for table in ["p", "p1"] {
        let text = site.report_keys(&format!("INSERT INTO {table} VALUES (2, 1); DELETE FROM {table} WHERE id = 2"));
        assert!(text.iter().all(|line| line.ends_with(r#"[{"id":2,"k":1}]"#)), "{text:?}");
    }
    assert_eq!(site.problems(), [] as [&str; 0]);
}

#[test]
fn g06_a_dropped_key_is_not_used() {
    let mut site = site();
    site.run(
        "CREATE TABLE t (id int NOT NULL, v text); CREATE UNIQUE INDEX identity ON t (id); ALTER TABLE t REPLICA IDENTITY USING INDEX identity;
         CREATE TABLE p (id int NOT NULL) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9);
         CREATE UNIQUE INDEX p_identity ON p (id); ALTER TABLE p REPLICA IDENTITY USING INDEX p_identity",
    );
    site.build(&Installer::new().shape(Shape::Keys));
    if site.reports_statements() {
        assert_eq!(site.report_lines("INSERT INTO p VALUES (1)"), [r#"INSERT p [{"id":1}]"#]);
    }
    assert_eq!(site.report_lines("INSERT INTO t VALUES (1)"), [r#"INSERT t [{"id":1}]"#]);
    site.run("DROP INDEX identity; DROP INDEX p_identity");
    assert_eq!(site.report_lines("INSERT INTO t VALUES (2)"), ["INSERT t truncated=key"]);
    assert!(site.report_lines("INSERT INTO p VALUES (2)")[0].ends_with("truncated=key"));
    assert_eq!(site.problems(), [] as [&str; 0]);
}

#[test]
fn g04_ddl_on_many_partitions_ends_in_time_and_reports_the_remaining_tables() {
    let server = start(Options::new().setting("max_locks_per_transaction", "512"));
    let mut site = site_in(&server);
    site.run(
        "CREATE TABLE p (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
         DO $$ BEGIN FOR i IN 1 .. 2000 LOOP EXECUTE format('CREATE TABLE p%s PARTITION OF p FOR VALUES IN (%s)', i, i); END LOOP; END $$;",
    );
    site.db.set_call_timeout(std::time::Duration::from_secs(120));
    site.build(&Installer::new());
    site.received();
    site.db.take_notices();
    // Every partition needs another function, which takes far more than a fifth of a second.
    site.run("ALTER TABLE p ADD COLUMN v text");
    let notices = site.db.take_notices();
    assert_eq!(notices.len(), 1, "one warning: {notices:?}");
    assert!(notices[0].message().contains("left to the next build"), "{}", notices[0]);
    let reported = site.received();
    let incomplete = reported.iter().find(|it| it["event"] == "incomplete").expect("the workers are sent a message");
    let left = incomplete["count"].as_u64().unwrap();
    // On a busy machine not a single partition may be done in that time.
    assert!((1..=2000).contains(&left) && incomplete["tables"].as_array().unwrap().len() <= 10, "{incomplete}");
    let problems = site.problems();
    assert_eq!(problems.len() as u64, left, "each is named");
    assert!(problems[0].contains("public.p") && problems[0].contains("outdated"), "{problems:?}");
    // The remaining tables are reported as well, but long values are read.
    let row = r#"{"id":1,"k":2000,"v":"x"}"#;
    assert_eq!(
        site.report_lines("INSERT INTO p VALUES (1, 2000, 'x')"),
        [format!("INSERT p partition_name=p2000 {row}")]
    );
    site.build(&Installer::new());
    assert_eq!(site.problems(), [] as [&str; 0]);
}

#[test]
fn g01_an_autovacuum_gives_way_to_a_build_and_a_teardown() {
    // Only this table is slow, since there are few autovacuum workers.
    let server = start(Options::new().setting("autovacuum", "on").setting("autovacuum_naptime", "1s"));
    let mut site = site_in(&server);
    let database = site.ask("SELECT current_database()");
    site.run(&format!(
        "CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE {database} TO plain; CREATE ROLE notifyman_owner; GRANT notifyman_owner TO plain;
         CREATE TABLE t (id int PRIMARY KEY, v text) WITH (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
         ALTER TABLE t OWNER TO plain; GRANT CREATE ON SCHEMA public TO plain;
         INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, 100000) g; DELETE FROM t WHERE id % 2 = 0"
    ));
    let vacuums =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND query LIKE '%public.t%'";
    let mut plain = connect(&site.url.replace("postgres@", "plain@"));
    let installer = Installer::new().lock_timeout(std::time::Duration::from_millis(800)).schema_events(false);
    for _ in 0..2 {
        eventually("an autovacuum is at work", || site.ask(vacuums) != "0");
        let report = installer.build(&mut plain).unwrap();
        assert!(report.failed().is_empty(), "{report:?}");
        eventually("an autovacuum is at work", || site.ask(vacuums) != "0");
        // A superuser may lower deadlock_timeout.
        let report = installer.teardown(&mut site.db).unwrap();
        assert!(report.failed().is_empty(), "{report:?}");
    }
}

#[test]
fn g04_a_publication_of_all_tables_contains_no_log_unless_forced() {
    let server = start(Options::new().setting("wal_level", "logical").setting("max_wal_senders", "4"));
    let mut site = site_in(&server);
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION every FOR ALL TABLES");
    let published =
        "SELECT coalesce(string_agg(tablename, ' '), '') FROM pg_publication_tables WHERE schemaname = 'notifyman'";
    for installer in [Installer::new(), Installer::new().oversize(Oversize::Spill)] {
        site.build(&installer);
        site.run("INSERT INTO t VALUES (1, repeat('x', 9000)); DELETE FROM t");
        assert_eq!(site.ask(published), "");
    }
    let outbox = Installer::new().delivery(DeliveryMode::Log);
    let error = outbox.build(&mut site.db).unwrap_err().to_string();
    assert!(error.contains("publication every is FOR ALL TABLES") && error.contains("--force"), "{error}");
    site.build(&outbox.clone().force(true));
    assert!(Status::of(&mut site.db).unwrap().warnings().iter().any(|warning| warning.contains("publication every")));
    // A published log can be truncated.
    site.run("INSERT INTO t VALUES (1, 'x'); TRUNCATE notifyman.log_0");
    site.run("DROP PUBLICATION every");
    assert_eq!(Status::of(&mut site.db).unwrap().warnings(), [] as [&str; 0]);
}
