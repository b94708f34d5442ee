//! The covered tables, the names under which they are reported, and changes to both: rule G07.

use notifyman::changes::{Installer, Shape, Status};

use super::support::{Site, has_foreign_tables, site};

#[test]
fn g07_a_new_table_is_covered_as_it_is_created_and_no_other_is_touched() {
    let mut site = site();
    site.run("CREATE TABLE old (id int)");
    site.build(&Installer::new());
    // An open transaction has written to the old table.
    let mut writer = site.session();
    writer.execute("BEGIN; INSERT INTO old VALUES (1)").unwrap();
    assert_eq!(site.report_lines("CREATE TABLE new (id int); INSERT INTO new VALUES (1)")[1], r#"INSERT new {"id":1}"#);
    writer.execute("COMMIT").unwrap();
    assert!(site.problems().is_empty());
}

#[test]
fn g07_patterns_select_existing_and_new_tables() {
    let mut site = site();
    site.run(
        "CREATE SCHEMA app; CREATE SCHEMA log; CREATE TABLE app.price (id int); CREATE TABLE app.tmp_x (id int);
              CREATE TABLE log.price (id int); CREATE TABLE app.stock (id int); CREATE TABLE app.\"100%\" (id int)",
    );
    let installer = Installer::new()
        .schemas(["app", "l?g"])
        .tables(["pri*", "app.stock", "tmp*", "100%"])
        .except_tables(["tmp_*"])
        .except_schemas(["log"]);
    let report = site.build(&installer);
    assert_eq!(report.covered(), ["app.\"100%\"", "app.price", "app.stock"]);
    site.run("CREATE TABLE app.price2 (id int); CREATE TABLE app.other (id int); CREATE TABLE public.price (id int)");
    let text = site.report_lines(
        "INSERT INTO app.price2 VALUES (1); INSERT INTO app.other VALUES (1); INSERT INTO public.price VALUES (1);
         INSERT INTO app.tmp_x VALUES (1); INSERT INTO log.price VALUES (1)",
    );
    assert_eq!(text, [r#"INSERT price2 {"id":1}"#]);
    // Another selection removes the triggers of other tables.
    let report = site.build(&Installer::new().tables(["stock"]));
    assert_eq!(report.removed(), ["app.\"100%\"", "app.price", "app.price2"]);
    assert_eq!(site.report_lines("INSERT INTO app.price VALUES (1); INSERT INTO app.stock VALUES (1)").len(), 1);
}

#[test]
fn g07_a_partition_is_reported_under_the_name_of_its_root() {
    let mut site = site();
    site.run(
        "CREATE SCHEMA parts; CREATE TABLE m (id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
        CREATE TABLE parts.m1 PARTITION OF m FOR VALUES FROM (0) TO (10);
        CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (k)",
    );
    site.build(&Installer::new());
    site.run("CREATE TABLE \"M 2a\" PARTITION OF m2 FOR VALUES FROM (10) TO (15)");
    assert_eq!(site.report_lines("INSERT INTO m VALUES (1, 1)"), [r#"INSERT m partition_name=m1 {"id":1,"k":1}"#]);
    assert_eq!(site.report_lines("INSERT INTO m VALUES (1, 11)"), [r#"INSERT m partition_name=M 2a {"id":1,"k":11}"#]);
    assert_eq!(
        site.report_lines("INSERT INTO parts.m1 VALUES (2, 1)"),
        [r#"INSERT m partition_name=m1 {"id":2,"k":1}"#]
    );
    let mut moved = site.report_lines("UPDATE m SET k = 12 WHERE id = 2");
    moved.sort();
    assert_eq!(
        moved,
        [r#"DELETE m partition_name=m1 {"id":2,"k":1}"#, r#"INSERT m partition_name=M 2a {"id":2,"k":12}"#]
    );
    let mut reports = site.report_lines("TRUNCATE m");
    reports.sort();
    assert_eq!(reports, ["TRUNCATE m partition_name=M 2a", "TRUNCATE m partition_name=m1"]);
}

#[test]
fn g07_a_pattern_that_matches_the_root_covers_its_partitions() {
    for shape in [Shape::Rows, Shape::Keys] {
        let mut site = site();
        site.run(
            "CREATE SCHEMA parts; CREATE TABLE m (id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
            CREATE TABLE parts.east PARTITION OF m FOR VALUES FROM (0) TO (10);
            CREATE TABLE middle PARTITION OF m FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (k);
            CREATE TABLE west PARTITION OF middle FOR VALUES FROM (10) TO (15);
            CREATE TABLE cold PARTITION OF m FOR VALUES FROM (20) TO (30); CREATE TABLE lone (id int, k int, PRIMARY KEY (id, k))",
        );
        site.build(&Installer::new().tables(["m"]).except_tables(["cold"]).schemas(["public"]).shape(shape));
        let lines = |site: &mut Site, sql: &str| -> Vec<String> {
            let names =
                site.report_lines(sql).into_iter().map(|line| line.split(['{', '[']).next().unwrap().trim().into());
            names.collect()
        };
        // A statement that names a partition, which the pattern does not match.
        assert_eq!(lines(&mut site, "INSERT INTO parts.east VALUES (1, 1)"), ["INSERT m partition_name=east"]);
        assert_eq!(lines(&mut site, "INSERT INTO west VALUES (1, 11)"), ["INSERT m partition_name=west"]);
        assert_eq!(lines(&mut site, "INSERT INTO cold VALUES (1, 21); INSERT INTO lone VALUES (1, 31)"), [""; 0]);
        site.run("CREATE TABLE late PARTITION OF middle FOR VALUES FROM (15) TO (20)");
        assert_eq!(lines(&mut site, "INSERT INTO late VALUES (1, 16)"), ["INSERT m partition_name=late"]);
        site.run("ALTER TABLE m ATTACH PARTITION lone FOR VALUES FROM (30) TO (40)");
        assert_eq!(lines(&mut site, "INSERT INTO lone VALUES (2, 31)"), ["INSERT m partition_name=lone"]);
        assert_eq!(site.problems(), [] as [&str; 0]);
    }
}

#[test]
fn g07_attaching_and_detaching_only_change_the_name() {
    for shape in [Shape::Rows, Shape::Keys] {
        let mut site = site();
        site.run(
            "CREATE TABLE m (id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
            CREATE TABLE lone (id int, k int, PRIMARY KEY (id, k));
            CREATE TABLE tree (id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
            CREATE TABLE leaf PARTITION OF tree FOR VALUES FROM (10) TO (20)",
        );
        site.build(&Installer::new().shape(shape));
        let row = |method: &str, table: &str, row: &str| match shape {
            Shape::Rows => format!("{method} {table} {row}"),
            _ => format!("{method} {table} [{row}]"),
        };
        assert_eq!(site.report_lines("INSERT INTO lone VALUES (1, 1)"), [row("INSERT", "lone", r#"{"id":1,"k":1}"#)]);
        site.run("ALTER TABLE m ATTACH PARTITION lone FOR VALUES FROM (0) TO (10)");
        site.run("ALTER TABLE m ATTACH PARTITION tree FOR VALUES FROM (10) TO (20)");
        for (sql, leaf, written) in [
            ("INSERT INTO lone VALUES (2, 2)", "lone", r#"{"id":2,"k":2}"#),
            ("INSERT INTO leaf VALUES (2, 12)", "leaf", r#"{"id":2,"k":12}"#),
        ] {
            assert_eq!(site.report_lines(sql), [row("INSERT", &format!("m partition_name={leaf}"), written)], "{sql}");
        }
        let through = site.report_lines("INSERT INTO m VALUES (3, 3), (3, 13)");
        match shape {
            Shape::Rows => assert_eq!(
                through,
                [r#"INSERT m partition_name=lone {"id":3,"k":3}"#, r#"INSERT m partition_name=leaf {"id":3,"k":13}"#]
            ),
            _ if !site.reports_statements() => {
                assert_eq!(through.len(), 2, "each under the name of its partition")
            }
            _ => assert_eq!(through, [r#"INSERT m [{"id":3,"k":3},{"id":3,"k":13}]"#]),
        }
        site.run("ALTER TABLE m DETACH PARTITION lone; ALTER TABLE m DETACH PARTITION tree");
        assert_eq!(site.report_lines("INSERT INTO lone VALUES (4, 4)"), [row("INSERT", "lone", r#"{"id":4,"k":4}"#)]);
        let under_tree = row("INSERT", "tree partition_name=leaf", r#"{"id":4,"k":14}"#);
        assert_eq!(site.report_lines("INSERT INTO leaf VALUES (4, 14)"), [under_tree]);
        assert_eq!(site.problems(), [] as [&str; 0]);
    }
}

#[test]
fn g07_a_new_column_of_a_root_is_reported_for_partitions_and_children() {
    let mut site = site();
    site.run(
        "CREATE TABLE m (id int) PARTITION BY RANGE (id); CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (9);
              CREATE TABLE parent (id int); CREATE TABLE child () INHERITS (parent)",
    );
    site.build(&Installer::new());
    site.run("ALTER TABLE m ADD COLUMN v int; ALTER TABLE parent ADD COLUMN v int");
    assert_eq!(site.report_lines("INSERT INTO m VALUES (1, 2)"), [r#"INSERT m partition_name=m1 {"id":1,"v":2}"#]);
    assert_eq!(site.report_lines("INSERT INTO child VALUES (1, 2)"), [r#"INSERT child {"id":1,"v":2}"#]);
    assert_eq!(site.report_lines("UPDATE parent SET v = 3"), [r#"UPDATE child {"id":1,"v":2} {"id":1,"v":3}"#]);
    assert_eq!(site.problems(), [] as [&str; 0]);
}

#[test]
fn g07_a_changed_type_is_reported_in_every_table_that_uses_it() {
    let mut site = site();
    site.run(
        "CREATE TYPE inner_type AS (a int, b int); CREATE TYPE outer_type AS (i inner_type);
         CREATE DOMAIN of_outer AS outer_type; CREATE DOMAIN of_domain AS of_outer;
         CREATE TABLE nested (id int, o outer_type); CREATE TABLE by_domain (id int, o of_domain);
         CREATE TABLE row_of (id int, n nested); CREATE TABLE typed OF inner_type",
    );
    site.build(&Installer::new());
    site.run("ALTER TYPE inner_type RENAME ATTRIBUTE a TO z CASCADE; ALTER TYPE inner_type DROP ATTRIBUTE b CASCADE");
    for (table, value, reports) in [
        ("nested", "(1, ROW(ROW(2)))", r#"{"id":1,"o":{"i":{"z":2}}}"#),
        ("by_domain", "(1, ROW(ROW(2)::inner_type)::outer_type)", r#"{"id":1,"o":{"i":{"z":2}}}"#),
        ("row_of", "(1, ROW(3, ROW(ROW(2))))", r#"{"id":1,"n":{"id":3,"o":{"i":{"z":2}}}}"#),
        ("typed", "(2)", r#"{"z":2}"#),
    ] {
        assert_eq!(
            site.report_lines(&format!("INSERT INTO {table} VALUES {value}")),
            [format!("INSERT {table} {reports}")]
        );
    }
    site.run("ALTER TABLE nested RENAME id TO number");
    assert_eq!(
        site.report_lines("INSERT INTO row_of VALUES (1, ROW(3, NULL))"),
        [r#"INSERT row_of {"id":1,"n":{"number":3,"o":null}}"#]
    );
    assert_eq!(site.problems(), [] as [&str; 0]);
}

#[test]
fn g07_the_right_triggers_do_not_depend_on_the_plan() {
    let mut site = site();
    site.build(&Installer::new());
    // The catalog row of a changed column is after those of the other columns.
    let columns: Vec<_> = (0..45).map(|n| format!("c{n} text")).collect();
    site.run(&format!("CREATE TABLE t (id int PRIMARY KEY, n int, {})", columns.join(", ")));
    site.run("ALTER TABLE t ALTER COLUMN n TYPE text, ALTER COLUMN c7 TYPE varchar");
    for ways in ["enable_indexscan, enable_indexonlyscan, enable_bitmapscan", "enable_seqscan, enable_bitmapscan"] {
        // The session has no cached plans yet.
        let mut db = site.session();
        for way in ways.split(", ") {
            db.execute(&format!("SET {way} = off")).unwrap();
        }
        assert_eq!(Status::of(&mut db).unwrap().problems(), [] as [&str; 0], "without {ways}");
    }
}

#[test]
fn g07_a_table_that_is_renamed_or_moved_keeps_its_trigger() {
    let mut site = site();
    site.run("CREATE SCHEMA s; CREATE TABLE t (id int)");
    site.build(&Installer::new());
    let trigger = "SELECT string_agg(oid::text, ' ' ORDER BY oid) FROM pg_trigger WHERE tgname LIKE '%notifyman%'";
    let before = site.ask(trigger);
    site.run("ALTER TABLE t RENAME TO u; ALTER TABLE u SET SCHEMA s");
    let reports = site.reports("INSERT INTO s.u VALUES (1)");
    assert_eq!((&reports[0]["table_schema"], &reports[0]["table_name"]), (&"s".into(), &"u".into()));
    site.build(&Installer::new());
    assert_eq!(site.ask(trigger), before);
}

#[test]
fn g07_a_disabled_trigger_stays_disabled() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new());
    site.run("ALTER TABLE t DISABLE TRIGGER \"0_notifyman\"; ALTER TABLE t DISABLE TRIGGER \"0_notifyman_truncate\"");
    site.build(&Installer::new());
    site.build(&Installer::new().with_query(true));
    assert_eq!(site.report_lines("INSERT INTO t VALUES (1)"), [] as [&str; 0]);
    assert_eq!(site.problems(), [] as [&str; 0]);
    // The trigger is still disabled when it is replaced.
    site.build(&Installer::new().shape(Shape::Keys));
    assert_eq!(site.report_lines("INSERT INTO t VALUES (2)"), [] as [&str; 0]);
    site.run("ALTER TABLE t ENABLE TRIGGER USER");
    assert_eq!(site.report_lines("INSERT INTO t VALUES (3)").len(), 1);
}

#[test]
fn g07_rows_that_replication_applies_are_opt_in() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    let applied = |n| {
        format!("SET session_replication_role = replica; INSERT INTO t VALUES ({n}); RESET session_replication_role")
    };
    for shape in [Shape::Rows, Shape::Keys] {
        site.build(&Installer::new().shape(shape));
        assert_eq!(site.report_lines(&applied(1)), [] as [&str; 0]);
        site.build(&Installer::new().shape(shape).replicated(true));
        assert_eq!(site.report_lines(&applied(2)).len(), 1);
        site.run("CREATE TABLE u (id int)");
        assert_eq!(site.report_lines(&applied(3).replace(" t ", " u ")).len(), 1, "a new table, too");
        site.run("DROP TABLE u; DELETE FROM t");
        assert_eq!(site.problems(), [] as [&str; 0]);
    }
}

#[test]
fn g07_a_row_that_another_trigger_writes_again_is_reported_in_order() {
    let mut site = site();
    site.run(
        "CREATE TABLE t (id int PRIMARY KEY, v int);
        CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN UPDATE t SET v = v + 1 WHERE id = new.id; RETURN NULL; END';
        CREATE TRIGGER again AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION again()",
    );
    site.build(&Installer::new());
    assert_eq!(
        site.report_lines("INSERT INTO t VALUES (1, 1)"),
        [r#"INSERT t {"id":1,"v":1}"#, r#"UPDATE t {"id":1,"v":1} {"id":1,"v":2}"#]
    );
}

#[test]
fn g07_foreign_tables_are_covered_row_by_row() {
    for shape in [Shape::Rows, Shape::Keys] {
        let mut site = site();
        // The tables of a wrapper without a handler can be created, but neither read nor written.
        site.run(
            "CREATE FOREIGN DATA WRAPPER none; CREATE SERVER nowhere FOREIGN DATA WRAPPER none;
                  CREATE FOREIGN TABLE before (id int) SERVER nowhere",
        );
        site.build(&Installer::new().shape(shape));
        let text = site.report_lines(
            "CREATE FOREIGN TABLE f (id int) SERVER nowhere; ALTER FOREIGN TABLE f ADD COLUMN v int;
                   ALTER FOREIGN TABLE f RENAME TO g; DROP FOREIGN TABLE g",
        );
        assert_eq!(text.len(), 4, "{text:?}");
        assert_eq!(site.problems(), [] as [&str; 0]);
        if !has_foreign_tables(&mut site) {
            continue;
        }
        let (database, port) = (site.ask("SELECT current_database()"), site.ask("SHOW port"));
        site.run(&format!("CREATE TABLE here (id int PRIMARY KEY, v text);
            CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{port}', dbname '{database}');
            CREATE USER MAPPING FOR postgres SERVER loop OPTIONS (user 'postgres');
            CREATE FOREIGN TABLE there (id int, v text) SERVER loop OPTIONS (table_name 'here')"));
        let text = site.report_lines("INSERT INTO there VALUES (1, 'x'); UPDATE there SET v = 'y'; DELETE FROM there");
        let there: Vec<_> = text.iter().filter(|line| line.contains(" there ")).collect();
        if shape == Shape::Keys {
            // The table has no key.
            assert_eq!(
                there,
                ["INSERT there truncated=key", "UPDATE there truncated=key", "DELETE there truncated=key"]
            );
            continue;
        }
        assert_eq!(
            there,
            [
                r#"INSERT there {"id":1,"v":"x"}"#,
                r#"UPDATE there {"id":1,"v":"x"} {"id":1,"v":"y"}"#,
                r#"DELETE there {"id":1,"v":"y"}"#
            ]
        );
    }
}

/// PostgreSQL refuses to write to such a tree through a parent that has triggers with transition tables.
#[test]
fn g07_a_tree_with_a_foreign_table_is_written_and_reported_row_by_row() {
    let mut site = site();
    if !has_foreign_tables(&mut site) {
        return;
    }
    let (database, port) = (site.ask("SELECT current_database()"), site.ask("SHOW port"));
    site.run(&format!(
        "CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{port}', dbname '{database}');
         CREATE USER MAPPING FOR postgres SERVER loop OPTIONS (user 'postgres');
         CREATE TABLE p (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
         CREATE TABLE par (id int PRIMARY KEY); CREATE TABLE chi (PRIMARY KEY (id)) INHERITS (par); CREATE TABLE far (id int, k int)"
    ));
    site.build(&Installer::new().shape(Shape::Keys));
    if site.reports_statements() {
        assert_eq!(site.report_lines("INSERT INTO p VALUES (1, 1)"), [r#"INSERT p [{"id":1,"k":1}]"#]);
    }
    // A key of the root cannot include a foreign table, so the leaves have keys of their own.
    site.run(
        "ALTER TABLE p DROP CONSTRAINT p_pkey; ALTER TABLE p1 ADD PRIMARY KEY (id, k);
         CREATE FOREIGN TABLE p2 PARTITION OF p FOR VALUES IN (2) SERVER loop OPTIONS (table_name 'far');
         CREATE FOREIGN TABLE chi2 () INHERITS (par) SERVER loop OPTIONS (table_name 'far')",
    );
    let text = site.report_lines("INSERT INTO p VALUES (2, 1); UPDATE p SET id = id + 10; UPDATE par SET id = id");
    assert!(text.contains(&r#"INSERT p partition_name=p1 [{"id":2,"k":1}]"#.to_owned()), "{text:?}");
    assert!(
        text.contains(&r#"UPDATE p partition_name=p1 [{"id":12,"k":1},{"id":2,"k":1}]"#.to_owned())
            || text.contains(&r#"UPDATE p partition_name=p1 [{"id":2,"k":1},{"id":12,"k":1}]"#.to_owned()),
        "{text:?}"
    );
    let text = site.report_lines("INSERT INTO chi VALUES (7); DELETE FROM par WHERE id = 7");
    assert_eq!(text, [r#"INSERT chi [{"id":7}]"#, r#"DELETE chi [{"id":7}]"#]);
    assert_eq!(site.problems(), [] as [&str; 0]);
}
