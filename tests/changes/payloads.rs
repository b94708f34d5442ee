//! The contents of payloads: rules G02, G03, G05 and G06.

use std::collections::BTreeSet;

use notifyman::changes::{Change, Installer, SchemaChange, Shape};

use super::support::site;

const DATA_KEYS: [&str; 7] = ["table_schema", "table_name", "session_user", "method", "old_data", "new_data", "query"];
const SCHEMA_KEYS: [&str; 12] = [
    "classid",
    "objid",
    "objsubid",
    "command_tag",
    "object_type",
    "object_name",
    "object_identity",
    "schema_name",
    "original",
    "normal",
    "in_extension",
    "is_temporary",
];

#[test]
fn g02_each_method_reports_the_row_before_and_after() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new());
    assert_eq!(
        site.report_lines("INSERT INTO t VALUES (1, 'a'), (2, NULL)"),
        [r#"INSERT t {"id":1,"v":"a"}"#, r#"INSERT t {"id":2,"v":null}"#]
    );
    assert_eq!(
        site.report_lines("UPDATE t SET v = 'b', id = 3 WHERE id = 1"),
        [r#"UPDATE t {"id":1,"v":"a"} {"id":3,"v":"b"}"#]
    );
    assert_eq!(
        site.report_lines("INSERT INTO t VALUES (2, 'x') ON CONFLICT (id) DO UPDATE SET v = excluded.v"),
        [r#"UPDATE t {"id":2,"v":null} {"id":2,"v":"x"}"#]
    );
    assert_eq!(site.report_lines("DELETE FROM t WHERE id = 2"), [r#"DELETE t {"id":2,"v":"x"}"#]);
    assert_eq!(site.report_lines("TRUNCATE t"), ["TRUNCATE t"]);
    assert_eq!(site.report_lines("UPDATE t SET v = 'nobody'"), [] as [&str; 0]);
}

#[test]
fn g02_a_payload_has_the_documented_fields_of_a_change() {
    let mut site = site();
    site.run("CREATE TABLE t (id int)");
    site.build(&Installer::new());
    for payload in site.reports("INSERT INTO t VALUES (1); TRUNCATE t; INSERT INTO t VALUES (2); DELETE FROM t") {
        for key in DATA_KEYS {
            assert!(payload.get(key).is_some(), "{key} in {payload}");
        }
        assert_eq!(payload["query"], serde_json::Value::Null, "the query is opt-in");
        assert_eq!(payload["session_user"], "postgres");
        let change: Change = serde_json::from_value(payload.clone()).unwrap();
        assert_eq!(serde_json::to_value(change).unwrap(), payload);
    }
}

#[test]
fn g02_the_query_is_opt_in_and_omitted_if_it_is_too_long() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new().with_query(true));
    let reports = site.reports("INSERT INTO t VALUES (1, 'with a \"quote\"')");
    assert_eq!(reports[0]["query"], "INSERT INTO t VALUES (1, 'with a \"quote\"')");
    let reports = site.reports(&format!("INSERT INTO t VALUES (2, 'x') -- {}", "y".repeat(10_000)));
    assert_eq!((&reports[0]["query"], &reports[0]["truncated"]), (&().into(), &"query".into()));
    assert_eq!(reports[0]["new_data"]["v"], "x");

    site.build(&Installer::new().with_query(true).shape(Shape::Keys));
    assert_eq!(site.reports("DELETE FROM t WHERE id = 1")[0]["query"], "DELETE FROM t WHERE id = 1");
    let reports = site.reports(&format!("DELETE FROM t -- {}", "y".repeat(10_000)));
    assert_eq!((&reports[0]["truncated"], &reports[0]["keys"][0]["id"]), (&"query".into(), &2.into()));
}

#[test]
fn g03_every_statement_that_creates_alters_or_drops_a_table_is_reported() {
    let mut site = site();
    site.build(&Installer::new());
    for (sql, reports) in [
        ("CREATE TABLE a (id int PRIMARY KEY, v text)", ["altered CREATE TABLE public.a"].as_slice()),
        ("CREATE TABLE b AS SELECT 1 AS x", &["altered CREATE TABLE AS public.b"]),
        ("SELECT 1 AS x INTO c", &["altered SELECT INTO public.c"]),
        ("ALTER TABLE a ADD COLUMN w int", &["altered ALTER TABLE public.a"]),
        ("ALTER TABLE a RENAME COLUMN w TO \"W w\"", &["altered ALTER TABLE public.a.\"W w\""]),
        (
            "ALTER TABLE a DROP COLUMN \"W w\"",
            &["dropped ALTER TABLE public.a.\"W w\"", "altered ALTER TABLE public.a"],
        ),
        ("ALTER TABLE a RENAME TO \"A a\"", &["altered ALTER TABLE public.\"A a\""]),
        ("DROP TABLE \"A a\"", &["dropped DROP TABLE public.\"A a\""]),
        ("DROP TABLE b", &["dropped DROP TABLE public.b"]),
        ("DROP TABLE c CASCADE", &["dropped DROP TABLE public.c"]),
        ("CREATE SCHEMA s CREATE TABLE t (id int)", &["altered CREATE SCHEMA s.t"]),
        ("DROP SCHEMA s CASCADE", &["dropped DROP SCHEMA s.t"]),
        ("CREATE VIEW v AS SELECT 1; CREATE SEQUENCE q; CREATE TEMP TABLE x (id int); DROP TABLE x", &[]),
    ] {
        let mut received = site.report_lines(sql);
        // A server may report the inner statement instead of the outer one.
        received
            .iter_mut()
            .for_each(|line| *line = line.replace("altered CREATE TABLE s.t", "altered CREATE SCHEMA s.t"));
        assert_eq!(received, reports, "{sql}");
    }
}

#[test]
fn g03_a_payload_has_the_documented_fields_of_a_schema_change() {
    let mut site = site();
    site.build(&Installer::new());
    let reports = site.reports("CREATE TABLE t (id int, v int); ALTER TABLE t DROP COLUMN v; DROP TABLE t");
    assert_eq!(reports.len(), 4);
    for payload in reports {
        for key in SCHEMA_KEYS {
            assert!(payload.get(key).is_some(), "{key} in {payload}");
        }
        let change: SchemaChange = serde_json::from_value(payload.clone()).unwrap();
        assert_eq!(serde_json::to_value(change).unwrap(), payload);
    }
}

#[test]
fn g03_without_schema_events_only_rows_are_reported() {
    let mut site = site();
    site.run("CREATE TABLE t (id int)");
    let report = site.build(&Installer::new().schema_events(false));
    assert!(report.warnings()[0].contains("build again after each migration"), "{report:?}");
    assert_eq!(
        site.report_lines("CREATE TABLE u (id int); INSERT INTO u VALUES (1); INSERT INTO t VALUES (1)").len(),
        1
    );
    site.build(&Installer::new().schema_events(false));
    assert_eq!(site.report_lines("INSERT INTO u VALUES (1)").len(), 1);
}

#[test]
fn g05_equal_rows_of_one_transaction_are_reported_separately() {
    let mut site = site();
    site.run("CREATE TABLE t (v int)");
    site.build(&Installer::new());
    let reports = site.reports("INSERT INTO t VALUES (1), (1), (1); INSERT INTO t VALUES (1)");
    let numbers: BTreeSet<i64> = reports.iter().map(|it| it["number"].as_i64().unwrap()).collect();
    assert_eq!((reports.len(), numbers.len()), (4, 4));
}

#[test]
fn g06_the_keys_shape_reports_each_statement_once_with_distinct_keys() {
    let mut site = site();
    site.run("CREATE TABLE t (a int, \"B\" text, v int, PRIMARY KEY (a, \"B\"))");
    site.build(&Installer::new().shape(Shape::Keys));
    assert_eq!(
        site.report_keys("INSERT INTO t SELECT g, 'x', 0 FROM generate_series(1, 2) g"),
        [r#"INSERT t [{"B":"x","a":1},{"B":"x","a":2}]"#]
    );
    assert_eq!(site.report_lines("UPDATE t SET v = 1 WHERE a = 1"), [r#"UPDATE t [{"B":"x","a":1}]"#]);
    let moved = &site.reports("UPDATE t SET a = 3 WHERE a = 2")[0];
    let mut keys: Vec<_> = moved["keys"].as_array().unwrap().iter().map(|key| key["a"].as_i64().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(keys, [2, 3], "the key before and the key after");
    assert_eq!(site.report_lines("UPDATE t SET v = 1 WHERE a = 99; DELETE FROM t WHERE a = 99"), [] as [&str; 0]);
    assert_eq!(site.report_lines("DELETE FROM t WHERE a = 3"), [r#"DELETE t [{"B":"x","a":3}]"#]);
    assert_eq!(site.report_lines("TRUNCATE t"), ["TRUNCATE t"]);
    let change: Change = serde_json::from_value(site.reports("INSERT INTO t VALUES (7, 'y', 0)")[0].clone()).unwrap();
    assert_eq!(change.keys.unwrap()[0]["a"], 7);
}

#[test]
fn g06_many_keys_are_packed_under_the_limit_and_none_is_omitted() {
    let mut site = site();
    site.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    site.build(&Installer::new().shape(Shape::Keys));
    for sql in ["INSERT INTO t SELECT g FROM generate_series(1, 10000) g", "UPDATE t SET v = 'x'", "DELETE FROM t"] {
        let reports = site.reports(sql);
        assert!(reports.len() < 30 || !site.reports_statements(), "{} payloads for 10,000 keys", reports.len());
        let mut keys: Vec<i64> = reports
            .iter()
            .flat_map(|it| it["keys"].as_array().unwrap().iter().map(|key| key["id"].as_i64().unwrap()))
            .collect();
        keys.sort_unstable();
        assert_eq!(keys, (1..=10_000).collect::<Vec<_>>(), "{sql}");
    }
}

#[test]
fn g06_a_key_that_is_too_long_or_missing_leaves_only_the_table() {
    let mut site = site();
    site.run("CREATE TABLE t (id text PRIMARY KEY); CREATE TABLE u (id int)");
    site.build(&Installer::new().shape(Shape::Keys));
    // An index only accepts a long key that can be compressed.
    assert_eq!(site.report_lines("INSERT INTO t VALUES (repeat('x', 9000))"), ["INSERT t truncated=key"]);
    assert_eq!(site.report_lines("INSERT INTO u VALUES (1)"), ["INSERT u truncated=key"]);
    assert_eq!(site.report_lines("UPDATE u SET id = 3 WHERE false"), [] as [&str; 0]);
    site.run("ALTER TABLE u ALTER id SET NOT NULL; CREATE UNIQUE INDEX u_id ON u (id); ALTER TABLE u REPLICA IDENTITY USING INDEX u_id");
    assert_eq!(
        site.report_lines("INSERT INTO u VALUES (4)"),
        [r#"INSERT u [{"id":4}]"#],
        "the replica identity is a key"
    );
}
