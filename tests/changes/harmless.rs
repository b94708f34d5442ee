//! Triggers never fail or block a user's statement: rule G04.

use notifyman::changes::{DeliveryMode, Installer, Oversize, Shape};
use serde_json::{Value, json};

use super::support::{site, site_in, start_with_a_small_queue};
use crate::support::Options;
use crate::support::server::{connect, latin1, sql_ascii, start};
use crate::support::tools::not_run;

/// Returns an installer that ends a log, if there is one.
fn notify() -> Installer {
    Installer::new().delivery(DeliveryMode::Notify)
}

/// Returns an installer for each set of functions that a write can execute.
fn ways() -> Vec<(&'static str, Installer)> {
    vec![
        ("rows", notify()),
        ("keys", notify().shape(Shape::Keys)),
        ("marker", notify().oversize(Oversize::Marker)),
        ("spill", notify().oversize(Oversize::Spill)),
        ("table", Installer::new().delivery(DeliveryMode::Log)),
        ("keys by table", Installer::new().shape(Shape::Keys).delivery(DeliveryMode::Log)),
        ("with query", notify().with_query(true)),
    ]
}

#[test]
fn g04_a_row_of_any_length_is_written_and_reported_as_far_as_it_fits() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text, w text)");
    for (way, installer) in ways() {
        site.build(&installer);
        site.run("TRUNCATE t");
        for (id, length) in [(1, 7_000), (2, 8_000), (3, 1 << 20), (4, 20 << 20)] {
            // Random text cannot be compressed.
            let text = format!("(SELECT string_agg(md5(g::text), '') FROM generate_series(1, {}) g)", length / 32);
            site.run(&format!("INSERT INTO t VALUES ({id}, {text})"));
        }
        for reports in site.received().iter().filter(|it| way != "keys" && it["method"] == "INSERT") {
            let (id, truncated) = (&reports["new_data"]["id"], reports.get("truncated").and_then(Value::as_str));
            match (id.as_i64(), way) {
                (Some(1), _) => assert_eq!(truncated, None, "{way}: {reports}"),
                (Some(_), _) => assert_eq!(truncated, Some("row"), "{way}: {reports}"),
                (None, "marker") => assert_eq!(truncated, Some("key")),
                (None, "spill") => {
                    assert_eq!((truncated, reports["spilled"].as_bool()), (None, Some(true)), "{reports}")
                }
                (None, _) => panic!("{way}: {reports}"),
            }
        }
        site.run("UPDATE t SET w = 'x'; DELETE FROM t");
        site.received();
    }
    assert_eq!(site.ask("SELECT count(*) > 3 FROM notifyman.spilled"), "t");
}

/// The value is a compressible text of 900 MB, of which no copy fits the memory limit.
#[test]
fn g04_a_value_of_nearly_a_gigabyte_costs_no_more_than_a_small_one() {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available =
        memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse().ok());
    let megabytes = if available.unwrap_or(0_u64) > 6 << 20 { 900 } else { 200 };
    if megabytes < 900 {
        not_run(&format!("with a value of 900 MB, only with {megabytes} MB: too little memory is available"));
    }
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, n int, v text, j json)");
    for (_, installer) in ways() {
        site.build(&installer);
    }
    site.build(&Installer::new());
    site.db.set_call_timeout(std::time::Duration::from_secs(300));
    let reports = site.reports(&format!("INSERT INTO t VALUES (1, 0, repeat('x', {megabytes} * 1024 * 1024))"));
    assert_eq!((&reports[0]["new_data"], &reports[0]["truncated"]), (&json!({"id": 1}), &json!("row")));
    // The value is not read: PostgreSQL counts no access to a block of its TOAST table.
    let toasted = "SELECT coalesce(sum(toast_blks_read + toast_blks_hit), 0) FROM pg_statio_user_tables";
    site.db = connect(&site.url);
    let before = site.ask(toasted);
    site.run("UPDATE t SET n = 1");
    site.run("SELECT pg_sleep(0)");
    let after = site.ask(toasted);
    assert_eq!(before, after);
    site.run("DELETE FROM t");
}

/// With a log and with spilling, rows of up to 15 MiB are reported, and compressed values may be far longer.
#[test]
fn g04_long_compressible_values_fail_and_delay_no_write() {
    let mut site = site();
    site.run("CREATE TABLE long (id int PRIMARY KEY, v text, b bytea); CREATE TABLE many (id int PRIMARY KEY)");
    for column in 0..100 {
        site.run(&format!("ALTER TABLE many ADD COLUMN c{column} json"));
    }
    site.db.set_call_timeout(std::time::Duration::from_secs(300));
    for (way, installer) in ways().into_iter().filter(|(way, _)| ["spill", "table"].contains(way)) {
        site.build(&installer);
        // As JSON each of these bytes has six characters, so two such rows exceed the maximum size of a text.
        site.run(r"INSERT INTO long VALUES (1, repeat(E'\x01', 100000000)); UPDATE long SET id = 2; DELETE FROM long");
        let values = vec!["v"; 100].join(", ");
        site.run(&format!(
            "INSERT INTO many SELECT 1, {values} FROM (SELECT to_json(repeat('x', 10000000)) AS v) t;
             UPDATE many SET id = 2; DELETE FROM many"
        ));
        let reports = match way {
            "table" => site.ask("SELECT string_agg(payload, ' ' ORDER BY number) FROM notifyman.log"),
            _ => site.received().iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        };
        assert_eq!(reports.matches(r#""truncated":"row""#).count(), 6, "{reports}");
    }
}

#[test]
fn g04_payloads_are_counted_in_the_encoding_of_the_database() {
    for (server, text) in [(latin1(), "é"), (sql_ascii(), "é")] {
        let mut site = site_in(server);
        site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
        site.build(&Installer::new());
        for length in [3_000, 3_700, 3_900, 4_000, 7_700, 7_800, 7_900, 8_000] {
            let reports = site.reports(&format!("INSERT INTO t VALUES ({length}, '{}')", text.repeat(length)));
            let characters = reports[0]["new_data"]["v"].as_str().map(|v| v.chars().count());
            assert!(characters == Some(length) || reports[0]["truncated"] == "row", "{length}: {reports:?}");
        }
        site.run("DELETE FROM t");
    }
    // The row is complete up to the last byte that fits.
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new());
    let mut longest = 0;
    for length in 7_700..7_990 {
        let reports = &site.reports(&format!("INSERT INTO t VALUES ({length}, repeat('x', {length}))"))[0];
        if reports.get("truncated").is_none() {
            longest = reports.to_string().len();
        }
    }
    assert!((7_990..8_000).contains(&longest), "{longest}");
}

#[test]
fn g04_columns_of_every_kind_are_written_and_reported() {
    let mut site = site();
    site.run("CREATE TYPE mood AS ENUM ('ok', 'bad'); CREATE TYPE pair AS (a int, \"b c\" mood);
        CREATE TYPE nested AS (p pair, ps pair[]); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE TYPE span AS RANGE (subtype = float8);
        CREATE TABLE kinds (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, doubled int GENERATED ALWAYS AS (n * 2) STORED,
            n int, m mood, ms mood[], p pair, x nested, d positive, ds positive[], s span, ints int[][], j json, jb jsonb,
            b bytea, u uuid, f float8, num numeric, ts timestamptz, iv interval, xm xml, tsv tsvector, bits bit(3), c char(3),
            \"select\" int, \"Mixed Case\" text, \"quo\"\"te\" text, \"per%cent {0} $1\" text, old int, new int, payload int,
            head int, tg_op int)");
    site.run(&format!("ALTER TABLE kinds ADD COLUMN \"{}\" int", "ä".repeat(31)));
    for (way, installer) in ways() {
        site.build(&installer);
        site.run(
            r#"INSERT INTO kinds (n, m, ms, p, x, d, ds, s, ints, j, jb, b, u, f, num, ts, iv, tsv, bits, c, "select",
                "Mixed Case", "quo""te", "per%cent {0} $1", old, new, payload, head, tg_op)
            VALUES (4, 'ok', '{ok,bad}', '(1,bad)', ROW(ROW(1, 'ok')::pair, ARRAY[ROW(2, 'bad')::pair])::nested, 3, '{1,2}',
                '[1,2)', '{{1,2},{3,4}}', '{"a":"\u0000", "a":1e40}', '{"b":[1]}', '\x00ff',
                '00000000-0000-0000-0000-000000000001', 'NaN', 1e40, 'infinity', '1 day', 'a b', '101', 'x', 1, 'mixed',
                'say "x"', '100 %s', 1, 2, 3, 4, 5)"#,
        );
        site.run("INSERT INTO kinds DEFAULT VALUES; UPDATE kinds SET n = 5; DELETE FROM kinds");
        let reports = site.received();
        assert!(reports.iter().all(|it| it.get("truncated").is_none()), "{way}: {reports:?}");
        if way == "rows" {
            let row = &reports[0]["new_data"];
            for (column, value) in [
                ("doubled", json!(8)),
                ("m", json!("ok")),
                ("ms", json!(["ok", "bad"])),
                ("p", json!({"a": 1, "b c": "bad"})),
                ("d", json!(3)),
                ("ds", json!([1, 2])),
                ("s", json!("[1,2)")),
                ("ints", json!([[1, 2], [3, 4]])),
                ("jb", json!({"b": [1]})),
                ("f", json!("NaN")),
                ("num", json!(1e40)),
                ("ts", json!("infinity")),
                ("Mixed Case", json!("mixed")),
                ("per%cent {0} $1", json!("100 %s")),
                ("quo\"te", json!("say \"x\"")),
                ("tg_op", json!(5)),
            ] {
                assert_eq!(row[column], value, "{column}");
            }
            assert_eq!(row["x"]["p"], json!({"a": 1, "b c": "ok"}));
        }
    }
}

#[test]
fn g04_tables_of_every_kind_are_written() {
    let mut site = site();
    site.run(&format!(
        "CREATE SCHEMA \"Sch\"\"ema\"; CREATE TABLE \"Sch\"\"ema\".\"Ta.ble %s\" (id int);
         CREATE TABLE \"{long}\" (id int); CREATE TABLE \"{umlauts}\" (id int); CREATE TABLE empty ();
         CREATE UNLOGGED TABLE fast (id int PRIMARY KEY); CREATE TABLE nokey (id int);
         CREATE TABLE full_identity (id int); ALTER TABLE full_identity REPLICA IDENTITY FULL;
         CREATE VIEW v AS SELECT * FROM nokey; CREATE MATERIALIZED VIEW mv AS SELECT * FROM nokey;
         CREATE TABLE \"select\" (\"table\" int PRIMARY KEY)",
        long = "n".repeat(63),
        umlauts = "ä".repeat(31),
    ));
    for (way, installer) in ways() {
        site.build(&installer);
        site.received();
        site.run(&format!(
            "INSERT INTO \"Sch\"\"ema\".\"Ta.ble %s\" VALUES (1); INSERT INTO \"{}\" VALUES (1); INSERT INTO \"{}\" VALUES (1);
             INSERT INTO empty DEFAULT VALUES; INSERT INTO fast VALUES (1); INSERT INTO full_identity VALUES (1);
             INSERT INTO v VALUES (1); REFRESH MATERIALIZED VIEW mv; INSERT INTO \"select\" VALUES (1);
             CREATE TEMP TABLE tmp (id int); INSERT INTO tmp VALUES (1); DROP TABLE tmp; CREATE OR REPLACE VIEW v2 AS SELECT 1",
            "n".repeat(63),
            "ä".repeat(31),
        ));
        let reports = site.received();
        if way == "rows" || way == "keys" {
            assert_eq!(reports.iter().filter(|it| it.get("method").is_some()).count(), 8, "{way}: {reports:?}");
        }
        site.run("DELETE FROM v; DELETE FROM fast; DELETE FROM \"select\"; TRUNCATE empty");
        assert_eq!(site.problems(), [] as [&str; 0], "{way}");
    }
}

#[test]
fn g04_a_table_of_1600_columns_is_written_and_reported() {
    let mut site = site();
    let columns: Vec<_> = (0..1600).map(|n| format!("c{n} bool")).collect();
    site.run(&format!("CREATE TABLE wide ({})", columns.join(",")));
    for (_, installer) in ways() {
        site.build(&installer);
        site.run("INSERT INTO wide (c0, c1599) VALUES (true, false); UPDATE wide SET c1 = true; DELETE FROM wide");
    }
    assert_eq!(site.received().iter().filter(|it| it["method"] == "INSERT").count(), 5);
}

#[test]
fn g04_a_role_without_privileges_writes_and_executes_ddl() {
    let mut site = site();
    let role = format!("unprivileged_{}", std::process::id());
    site.run(&format!(
        "DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         CREATE TABLE t (id int PRIMARY KEY, v text); GRANT ALL ON t TO {role}; CREATE SCHEMA theirs AUTHORIZATION {role};
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
         CREATE POLICY half ON t USING (id < 10) WITH CHECK (true)"
    ));
    for (way, installer) in ways() {
        site.build(&installer);
        let mut db = site.session();
        for sql in [
            &format!("SET SESSION AUTHORIZATION {role}"),
            "SET search_path = ''",
            "INSERT INTO public.t VALUES (1, 'x'), (20, 'hidden')",
            "UPDATE public.t SET v = 'y'",
            "DELETE FROM public.t",
            "CREATE TABLE theirs.t (id int PRIMARY KEY)",
            "INSERT INTO theirs.t VALUES (1)",
            "ALTER TABLE theirs.t ADD COLUMN v int",
            "ALTER TABLE theirs.t RENAME TO u",
            "TRUNCATE theirs.u",
            "DROP TABLE theirs.u",
        ] {
            db.execute(sql).unwrap_or_else(|error| panic!("{way}: {sql}: {error}"));
        }
        assert!(db.take_notices().is_empty(), "there is no warning");
        assert!(db.query("SELECT nextval('notifyman.number')").is_err_and(|e| e.sqlstate() == Some("42501")));
        site.run("TRUNCATE t");
        let reports = site.received();
        assert!(
            reports.iter().filter(|it| it["session_user"] == role).count() > 8 || way.contains("table"),
            "{way}: {reports:?}"
        );
    }
}

/// A cast that a table's owner created runs as the role that writes, like any trigger of that owner.
#[test]
fn g04_no_code_of_a_user_runs_with_the_privileges_of_another_role() {
    let mut site = site();
    let role = format!("mallory_{}", std::process::id());
    site.run(&format!(
        "DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         CREATE SCHEMA theirs AUTHORIZATION {role}; CREATE TABLE caught (role name); GRANT ALL ON caught TO PUBLIC"
    ));
    for shape in [Shape::Rows, Shape::Keys] {
        site.build(&Installer::new().shape(shape));
        let mut db = site.session();
        db.execute(&format!("SET SESSION AUTHORIZATION {role}")).unwrap();
        db.execute(
            "CREATE TYPE theirs.evil AS ENUM ('x'); CREATE TYPE theirs.pair AS (e theirs.evil);
            CREATE FUNCTION theirs.grab(theirs.evil) RETURNS json LANGUAGE plpgsql AS
                'BEGIN INSERT INTO public.caught VALUES (current_user); RETURN ''1''; END';
            CREATE FUNCTION theirs.grab_text(theirs.evil) RETURNS text LANGUAGE plpgsql AS
                'BEGIN INSERT INTO public.caught VALUES (current_user); RETURN ''1''; END';
            CREATE CAST (theirs.evil AS json) WITH FUNCTION theirs.grab (theirs.evil) AS IMPLICIT;
            CREATE CAST (theirs.evil AS text) WITH FUNCTION theirs.grab_text (theirs.evil) AS IMPLICIT;
            CREATE TABLE theirs.bait (id theirs.evil PRIMARY KEY, es theirs.evil[], p theirs.pair);
            INSERT INTO theirs.bait VALUES ('x', '{x}', '(x)'); UPDATE theirs.bait SET p = NULL;
            ALTER TABLE theirs.bait ADD COLUMN e theirs.evil DEFAULT 'x'; DROP TABLE theirs.bait;
            DROP TYPE theirs.evil CASCADE; DROP TYPE theirs.pair",
        )
        .unwrap();
        assert_eq!(site.ask("SELECT string_agg(DISTINCT role, ' ') FROM caught"), role);
    }
}

#[test]
fn g04_read_only_failed_and_rolled_back_transactions_behave_as_without_triggers() {
    for (way, installer) in ways() {
        let mut site = site();
        site.run("CREATE TABLE t (id int PRIMARY KEY)");
        site.build(&installer);
        assert_eq!(site.db.execute("BEGIN READ ONLY; INSERT INTO t VALUES (1)").unwrap_err().sqlstate(), Some("25006"));
        site.run("ROLLBACK; CREATE TEMP TABLE x (id int); BEGIN READ ONLY; INSERT INTO x VALUES (1); COMMIT");
        site.received();
        assert_eq!(
            site.db.execute("BEGIN; INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)").unwrap_err().sqlstate(),
            Some("23505"),
            "{way}"
        );
        site.run("ROLLBACK");
        site.run("BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a; INSERT INTO t VALUES (2); ROLLBACK TO a;
                  INSERT INTO t VALUES (3); RELEASE a; COMMIT; BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO t VALUES (4); COMMIT");
        let reports = site.received();
        if !way.contains("table") {
            let ids: Vec<_> = reports
                .iter()
                .map(|it| if way == "keys" { &it["keys"][0]["id"] } else { &it["new_data"]["id"] })
                .collect();
            assert_eq!(ids, [1, 3, 4], "{way}");
        } else {
            assert_eq!(site.ask("SELECT count(*) FROM notifyman.log WHERE payload LIKE '%INSERT%'"), "3", "{way}");
        }
    }
}

#[test]
fn g04_manual_changes_to_the_schema_fail_no_write() {
    for (way, installer) in ways() {
        let mut site = site();
        site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
        site.build(&installer.clone().schema_events(false));
        site.run("DROP SEQUENCE notifyman.number; DROP TABLE IF EXISTS notifyman.log_0, notifyman.log_1, notifyman.spilled CASCADE");
        site.run("INSERT INTO t SELECT g, repeat('x', 9000) FROM generate_series(1, 3) g; UPDATE t SET v = 'x'; DELETE FROM t; TRUNCATE t");
        site.run("COMMENT ON SCHEMA notifyman IS NULL");
        site.run("INSERT INTO t VALUES (1)");
        // A column that was dropped without an event trigger.
        site.run("ALTER TABLE t DROP COLUMN v");
        site.run("ALTER TABLE t RENAME id TO key");
        site.received();
        site.run("INSERT INTO t VALUES (2)");
        let reports = site.received();
        assert!(way.contains("table") || reports[0]["truncated"] == "key", "{way}: {reports:?}");
        site.run("DROP SCHEMA notifyman CASCADE; INSERT INTO t VALUES (3)");
    }
}

#[test]
fn g04_a_write_of_many_rows_succeeds() {
    let mut site = site();
    site.db.set_call_timeout(std::time::Duration::from_secs(300));
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    for (way, installer) in ways() {
        site.build(&installer);
        site.run("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 10000) g; UPDATE t SET v = 'y'; DELETE FROM t");
        let reports = site.received();
        assert!(
            way.contains("keys")
                || way.contains("table")
                || reports.iter().filter(|it| it.get("method").is_some()).count() == 30_000,
            "{way}"
        );
    }
    let outbox: u32 = site.ask("SELECT count(*) FROM notifyman.log").parse().unwrap();
    assert!(outbox > 30_000, "{outbox}");
}

/// Reading all functions for each table took half a minute here.
#[test]
fn g04_dropping_a_schema_of_many_tables_is_fast() {
    let mut site = site();
    site.run(
        "CREATE SCHEMA kept; CREATE SCHEMA gone; DO $$ BEGIN
            FOR n IN 1 .. 1500 LOOP EXECUTE format('CREATE TABLE kept.t%s (id int)', n); END LOOP;
            FOR n IN 1 .. 400 LOOP EXECUTE format('CREATE TABLE gone.t%s (id int)', n); END LOOP;
        END $$",
    );
    site.build(&Installer::new());
    site.received();
    let begun = std::time::Instant::now();
    site.run("SET client_min_messages = error; DROP SCHEMA gone CASCADE");
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(25), "{took:?}");
    assert_eq!(site.received().len(), 400);
}

#[test]
fn g04_a_write_takes_one_transaction_id() {
    // A server of its own, since other tests take transaction ids.
    let server = start(Options::new());
    let mut site = site_in(&server);
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    for (way, installer) in ways() {
        site.build(&installer);
        let before: u64 = site.ask("SELECT txid_current()").parse().unwrap();
        site.run("INSERT INTO t SELECT g, repeat('x', 9000) FROM generate_series(1, 200) g");
        let after: u64 = site.ask("SELECT txid_current()").parse().unwrap();
        assert!(after - before < 60, "{way}: {}", after - before);
        site.run("DELETE FROM t");
    }
}

#[test]
fn g04_prepared_transactions_fail_with_notify_and_work_with_a_log() {
    let server = start(Options::new().setting("max_prepared_transactions", "2"));
    let mut site = site_in(&server);
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    for shape in [Shape::Rows, Shape::Keys] {
        let report = site.build(&notify().shape(shape));
        assert!(report.warnings()[0].contains("PREPARE TRANSACTION"), "{report:?}");
        site.run("BEGIN; INSERT INTO t VALUES (1)");
        assert_eq!(site.db.execute("PREPARE TRANSACTION 'x'").unwrap_err().sqlstate(), Some("0A000"));
        let report = site.build(&Installer::new().shape(shape).delivery(DeliveryMode::Log));
        assert!(report.warnings().is_empty());
        site.run("BEGIN; INSERT INTO t VALUES (1)");
        site.run("PREPARE TRANSACTION 'x'");
        site.run("COMMIT PREPARED 'x'");
        assert_eq!(site.ask("SELECT payload::json ->> 'method' FROM notifyman.log"), "INSERT");
        site.run("DELETE FROM t; TRUNCATE notifyman.log_0, notifyman.log_1, notifyman.log_2");
    }
}

#[test]
fn g04_a_full_queue_fails_the_commit_except_with_a_log() {
    let Some(server) = start_with_a_small_queue() else { return };
    let mut site = site_in(&server);
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new());
    // A listener that stays in a transaction holds the queue.
    let mut holder = site.session();
    holder.listen(["notifyman"]).unwrap();
    holder.execute("BEGIN").unwrap();
    let fill = "INSERT INTO t SELECT g, repeat('x', 7000) FROM generate_series(1, 20) g; DELETE FROM t";
    let failed = (0..100).find_map(|_| site.db.execute(fill).err()).expect("the queue becomes full");
    assert_eq!(failed.sqlstate(), Some("54000"), "{failed}");
    let warnings = notifyman::changes::Status::of(&mut site.db).unwrap().warnings().to_vec();
    assert!(warnings.iter().any(|warning| warning.contains("NOTIFY queue is")), "{warnings:?}");

    let report = Installer::new().delivery(DeliveryMode::Log).build(&mut site.db).unwrap();
    assert!(report.failed().is_empty());
    site.run(fill);
    holder.execute("ROLLBACK").unwrap();
}

#[test]
fn g04_a_key_that_is_too_long_fails_no_write_and_is_reported_by_a_marker() {
    for (way, installer) in ways() {
        let mut site = site();
        site.run("CREATE TABLE t (k text PRIMARY KEY, v text)");
        site.build(&installer);
        for (key, value) in [(9_000, 10), (9_000, 20_000), (9_000, 17_000_000)] {
            let reports =
                site.reports(&format!("INSERT INTO t VALUES (repeat('k', {key}), repeat('v', {value})); TRUNCATE t"));
            if !way.contains("table") {
                let whole = way == "spill" && value < 15_000_000;
                assert_eq!(reports.len(), 2, "{way}: {reports:?}");
                assert_eq!(reports[0]["spilled"] == true, whole, "{way} {value}: {}", reports[0]);
                assert_eq!(reports[0]["truncated"] == "key", !whole, "{way} {value}: {}", reports[0]);
            }
        }
    }
    // The function for any table behaves in the same way.
    let mut site = site();
    site.build(&Installer::new());
    site.run("CREATE TABLE t (k int PRIMARY KEY, v text); CREATE TABLE u (v text)");
    let reports = site.reports("INSERT INTO t VALUES (1, repeat('v', 9000)); UPDATE t SET k = 2; DELETE FROM t; INSERT INTO u VALUES (repeat('v', 9000))");
    let text: Vec<_> = reports.iter().map(super::support::short).collect();
    assert_eq!(
        text,
        [
            r#"INSERT t truncated=row {"k":1}"#,
            r#"UPDATE t truncated=row {"k":1} {"k":2}"#,
            r#"DELETE t truncated=row {"k":2}"#,
            "INSERT u truncated=key"
        ]
    );
}

#[test]
fn g04_a_build_fails_no_concurrent_write() {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    let mut site = site();
    site.stop_listening();
    site.run("CREATE TABLE t (id int, v text); DO $$ BEGIN FOR n IN 1 .. 60 LOOP EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, c%s text)', n, n); END LOOP; END $$");
    let (first, is_over) = (ways().remove(0).1, AtomicBool::new(false));
    site.build(&first);
    let written: u32 = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (mut db, is_over) = (site.session(), &is_over);
                scope.spawn(move || {
                    let mut count = 0;
                    while !is_over.load(Relaxed) {
                        for length in [10, 9_000] {
                            db.execute(&format!("INSERT INTO t VALUES (1, repeat('x', {length}))")).unwrap();
                            count += 1;
                        }
                    }
                    count
                })
            })
            .collect();
        for (way, installer) in ways().into_iter().chain([("rows", first.clone())]) {
            let report = installer.attempts(50).build(&mut site.db);
            if !report.as_ref().is_ok_and(|report| report.failed().is_empty()) {
                is_over.store(true, Relaxed);
                panic!("{way}: {report:?}");
            }
        }
        is_over.store(true, Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    assert!(written > 20, "{written}");
    assert_eq!(site.problems(), [] as [&str; 0]);
}
