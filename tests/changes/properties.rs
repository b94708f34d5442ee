//! A property: the reported changes, applied in order to an empty copy, give the same tables (rows shape, primary key, no
//! long rows).

use std::collections::{BTreeMap, BTreeSet};

use notifyman::changes::{Change, DeliveryMode, Installer, Method, SchemaChange, SchemaEvent};
use notifyman::{Connection, Error};
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::support::{Site, site};

const TABLES: u8 = 3;
const SESSIONS: usize = 3;

/// The next step of one session. Numbers are taken modulo the number of objects.
#[derive(Debug, Clone)]
enum Step {
    Begin,
    Commit,
    Rollback,
    Savepoint,
    RollbackTo,
    Insert { table: u8, first: u8, count: u8, text: String },
    Upsert { table: u8, id: u8, text: String },
    Update { table: u8, below: u8, text: String },
    Renumber { table: u8, id: u8, by: u8 },
    Delete { table: u8, below: u8 },
    Truncate { table: u8 },
    Create { table: u8, partitioned: bool },
    Drop { table: u8 },
    AddColumn { table: u8, column: u8 },
    DropColumn { table: u8, column: u8 },
    RenameColumn { table: u8, column: u8 },
    Retype { table: u8, column: u8 },
    Attach { table: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let table = || 0..TABLES;
    let text = || "[a-zé\"'\\\\{}%$]{0,8}";
    prop_oneof![
        3 => Just(Step::Begin),
        3 => Just(Step::Commit),
        2 => Just(Step::Rollback),
        1 => Just(Step::Savepoint),
        1 => Just(Step::RollbackTo),
        8 => (table(), 0..20u8, 1..5u8, text()).prop_map(|(table, first, count, text)| Step::Insert { table, first, count, text }),
        3 => (table(), 0..20u8, text()).prop_map(|(table, id, text)| Step::Upsert { table, id, text }),
        4 => (table(), 0..20u8, text()).prop_map(|(table, below, text)| Step::Update { table, below, text }),
        2 => (table(), 0..20u8, 1..30u8).prop_map(|(table, id, by)| Step::Renumber { table, id, by }),
        3 => (table(), 0..20u8).prop_map(|(table, below)| Step::Delete { table, below }),
        1 => table().prop_map(|table| Step::Truncate { table }),
        3 => (table(), any::<bool>()).prop_map(|(table, partitioned)| Step::Create { table, partitioned }),
        1 => table().prop_map(|table| Step::Drop { table }),
        2 => (table(), 0..4u8).prop_map(|(table, column)| Step::AddColumn { table, column }),
        1 => (table(), 0..4u8).prop_map(|(table, column)| Step::DropColumn { table, column }),
        1 => (table(), 0..4u8).prop_map(|(table, column)| Step::RenameColumn { table, column }),
        1 => (table(), 0..4u8).prop_map(|(table, column)| Step::Retype { table, column }),
        1 => table().prop_map(|table| Step::Attach { table }),
    ]
}

fn sql(step: &Step) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match step {
        Step::Begin => "BEGIN".into(),
        Step::Commit => "COMMIT".into(),
        Step::Rollback => "ROLLBACK".into(),
        Step::Savepoint => "SAVEPOINT s".into(),
        Step::RollbackTo => "ROLLBACK TO s".into(),
        Step::Insert { table, first, count, text } => format!(
            "INSERT INTO t{table} (id, v) SELECT g, {} FROM generate_series({first}, {}) g",
            quoted(text),
            first + count
        ),
        Step::Upsert { table, id, text } => format!(
            "INSERT INTO t{table} (id, v) VALUES ({id}, {0}) ON CONFLICT (id) DO UPDATE SET v = {0}",
            quoted(text)
        ),
        Step::Update { table, below, text } => format!("UPDATE t{table} SET v = {} WHERE id < {below}", quoted(text)),
        Step::Renumber { table, id, by } => format!("UPDATE t{table} SET id = id + {by} WHERE id = {id}"),
        Step::Delete { table, below } => format!("DELETE FROM t{table} WHERE id < {below}"),
        Step::Truncate { table } => format!("TRUNCATE t{table}"),
        Step::Create { table, partitioned: false } => {
            format!("CREATE TABLE IF NOT EXISTS t{table} (id int PRIMARY KEY, v text)")
        }
        Step::Create { table, partitioned: true } => format!(
            "CREATE TABLE IF NOT EXISTS t{table} (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
             CREATE TABLE IF NOT EXISTS t{table}_low PARTITION OF t{table} FOR VALUES FROM (0) TO (10);
             CREATE TABLE IF NOT EXISTS t{table}_high PARTITION OF t{table} FOR VALUES FROM (10) TO (1000)"
        ),
        Step::Drop { table } => format!("DROP TABLE IF EXISTS t{table}"),
        Step::AddColumn { table, column } => format!("ALTER TABLE t{table} ADD COLUMN \"c {column}\" int"),
        Step::DropColumn { table, column } => format!("ALTER TABLE t{table} DROP COLUMN \"c {column}\""),
        Step::RenameColumn { table, column } => {
            format!("ALTER TABLE t{table} RENAME COLUMN \"c {column}\" TO \"d {column}\"")
        }
        Step::Retype { table, column } => {
            format!("ALTER TABLE t{table} ALTER COLUMN \"c {column}\" TYPE text USING 'x' || \"c {column}\"")
        }
        // A table becomes a partition, or the reverse.
        Step::Attach { table } => format!(
            "ALTER TABLE t{table} DETACH PARTITION t{table}_high; INSERT INTO t{table}_high (id, v) VALUES (500, 'alone');
             ALTER TABLE t{table} ATTACH PARTITION t{table}_high FOR VALUES FROM (10) TO (1000)"
        ),
    }
}

/// Tables by name, each with its rows by id, and their partitions.
#[derive(Debug, Default)]
struct Copy {
    tables: BTreeMap<String, BTreeMap<String, Map<String, Value>>>,
}

impl Copy {
    /// Applies a change to its leaf partition.
    fn apply(&mut self, change: Change) {
        let name = change.partition_name.clone().unwrap_or_else(|| change.table_name.clone());
        let table = self.tables.entry(name).or_default();
        let id = |row: &Option<Map<String, Value>>| row.as_ref().map(|row| row["id"].to_string());
        assert_eq!(change.truncated, None, "nothing is too long here");
        match change.method {
            Method::Insert => {
                let row = change.new_data.clone().unwrap();
                assert!(table.insert(id(&change.new_data).unwrap(), row).is_none(), "{change:?} was there");
            }
            Method::Update | Method::Delete => {
                // Columns may have been added, dropped or altered since. Columns of both rows must be equal.
                assert!(table.remove(&id(&change.old_data).unwrap()).is_some(), "{change:?} was not there");
                if let Some(row) = change.new_data.clone() {
                    table.insert(id(&change.new_data).unwrap(), row);
                }
            }
            Method::Truncate => table.clear(),
            other => panic!("{other:?}"),
        }
    }

    fn apply_schema(&mut self, change: &SchemaChange) {
        if change.event == SchemaEvent::Dropped && change.object_type == "table" {
            self.tables.remove(change.object_name.as_deref().unwrap());
        }
    }
}

/// Returns all rows: the leaf, the id, and the text.
fn rows_of(site: &mut Site) -> BTreeSet<(String, String, String)> {
    let leaves = "SELECT format('SELECT %L, id::text, v FROM %I', relname, relname) FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    let selects: Vec<String> =
        site.db.query(leaves).unwrap().iter().map(|row| row.get(0).unwrap().into_owned()).collect();
    let text = |row: &notifyman::Row, n| row.get(n).unwrap_or_default().into_owned();
    selects
        .iter()
        .flat_map(|select| site.db.query(select).unwrap())
        .map(|row| (text(&row, 0), text(&row, 1), text(&row, 2)))
        .collect()
}

fn reports(site: &mut Site, by_table: bool) -> Vec<Value> {
    match by_table {
        false => site.received(),
        true => {
            let rows = site.db.query("SELECT payload FROM notifyman.log ORDER BY number").unwrap();
            rows.iter().map(|row| serde_json::from_str(&row.get(0).unwrap()).unwrap()).collect()
        }
    }
}

fn holds(steps: &[(usize, Step)], by_table: bool) {
    let mut site = site();
    let delivery = if by_table { DeliveryMode::Log } else { DeliveryMode::Notify };
    site.build(&Installer::new().delivery(delivery));
    let mut sessions: Vec<Connection> = (0..SESSIONS).map(|_| site.session()).collect();
    for session in &mut sessions {
        session.execute("SET lock_timeout = '50ms'").unwrap();
        session.take_notices();
    }
    for (session, step) in steps {
        let db = &mut sessions[session % SESSIONS];
        match db.execute(&sql(step)) {
            // Steps of other sessions can make a step fail, as without triggers. An error of a trigger would be of another kind.
            Ok(_) => {}
            Err(Error::Server(error)) => assert!(
                [
                    "23505", "23514", "25P02", "3B001", "25P01", "42P01", "42701", "42703", "55P03", "42809", "40P01",
                    "42P16", "42P17", "42P07", "55006", "42P10", "55000", "22P02", "0A000"
                ]
                .contains(&error.code())
                    || error.message().contains("current transaction"),
                "{step:?}: {error}"
            ),
            Err(error) => panic!("{step:?}: {error}"),
        }
        for notice in db.take_notices() {
            assert!(!notice.message().contains("notifyman"), "{step:?}: {notice}");
        }
    }
    for session in &mut sessions {
        session.execute("ROLLBACK").unwrap();
    }
    let mut copy = Copy::default();
    for payload in reports(&mut site, by_table) {
        match payload.get("event") {
            None => copy.apply(serde_json::from_value(payload).unwrap()),
            Some(_) => copy.apply_schema(&serde_json::from_value(payload).unwrap()),
        }
    }
    let copied: BTreeSet<_> = copy
        .tables
        .iter()
        .flat_map(|(name, rows)| rows.iter().map(move |(id, row)| (name, id, row)))
        .map(|(name, id, row)| (name.clone(), id.clone(), row["v"].as_str().unwrap_or_default().to_owned()))
        .collect();
    assert_eq!(copied, rows_of(&mut site));
    assert_eq!(site.problems(), [] as [&str; 0]);
    let name = site.ask("SELECT current_database()");
    drop((sessions, site));
    super::support::drop_database(&name);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn g02_reports_applied_to_an_empty_copy_give_the_same_tables(
        steps in prop::collection::vec((0..SESSIONS, step()), 20..120),
        by_table in any::<bool>(),
    ) {
        // The numbers of a log are in the order of writes, which is the order of commits only with one session.
        let steps: Vec<_> = steps.into_iter().map(|(n, step)| (if by_table { 0 } else { n }, step)).collect();
        let begin = [Step::Create { table: 0, partitioned: false }, Step::Create { table: 1, partitioned: true }].map(|it| (0, it));
        holds(&begin.into_iter().chain(steps).collect::<Vec<_>>(), by_table);
    }
}
