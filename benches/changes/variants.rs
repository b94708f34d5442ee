//! The compared variants of reporting changes, each with a database.

use notifyman::Connection;
use notifyman::changes::{DeliveryMode, Installer, Shape};

use crate::cluster::Cluster;
use crate::{Scale, connect};

/// A variant of reporting changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    NoTrigger,
    /// A typical hand-written row trigger.
    HandRow,
    Rows,
    RowsLog,
    /// A typical hand-written statement trigger with transition tables, which reports ids.
    HandStatement,
    Keys,
    KeysLog,
    /// A typical hand-written row trigger that INSERTs.
    HandInsert,
}

impl Variant {
    /// All variants, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::NoTrigger,
        Self::HandRow,
        Self::Rows,
        Self::RowsLog,
        Self::HandStatement,
        Self::Keys,
        Self::KeysLog,
        Self::HandInsert,
    ];
    /// The variants with event triggers, and the one without a trigger.
    pub const WITH_DDL: [Self; 5] = [Self::NoTrigger, Self::Rows, Self::RowsLog, Self::Keys, Self::KeysLog];

    pub fn name(self) -> &'static str {
        match self {
            Self::NoTrigger => "no trigger",
            Self::HandRow => "hand-written row trigger",
            Self::HandInsert => "hand-written INSERT trigger",
            Self::HandStatement => "hand-written statement trigger",
            Self::Rows => "rows",
            Self::Keys => "keys",
            Self::RowsLog => "rows, delivery by the log",
            Self::KeysLog => "keys, delivery by the log",
        }
    }

    /// Returns the hand-written trigger of the same kind, for a variant of this crate.
    pub fn by_hand(self) -> Option<Self> {
        match self {
            Self::NoTrigger | Self::HandRow | Self::HandStatement | Self::HandInsert => None,
            Self::Rows => Some(Self::HandRow),
            Self::RowsLog => Some(Self::HandInsert),
            Self::Keys | Self::KeysLog => Some(Self::HandStatement),
        }
    }

    fn installer(self) -> Option<Installer> {
        match self {
            Self::NoTrigger | Self::HandRow | Self::HandStatement | Self::HandInsert => None,
            Self::Rows => Some(Installer::new()),
            Self::Keys => Some(Installer::new().shape(Shape::Keys)),
            Self::RowsLog => Some(Installer::new().delivery(DeliveryMode::Log)),
            Self::KeysLog => Some(Installer::new().shape(Shape::Keys).delivery(DeliveryMode::Log)),
        }
    }
}

/// A database with the written tables and the triggers of one variant.
#[derive(Debug)]
pub struct Database {
    pub url: String,
    pub session: Connection,
}

/// The tables: `t`, which is written repeatedly, `m1`.., which are written once each, and `p`, the root of many partitions.
const TABLES: &str = "
CREATE TABLE t (id int PRIMARY KEY, a int, b int, c text);
DO $$ BEGIN
    FOR i IN 1..{tables} LOOP
        EXECUTE format('CREATE TABLE m%s (id int PRIMARY KEY, a text, b text, c int, d timestamptz, e numeric, f jsonb)', i);
    END LOOP;
END $$;
CREATE TABLE p (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
DO $$ BEGIN
    FOR i IN 1..{partitions} LOOP
        EXECUTE format('CREATE TABLE p%s PARTITION OF p FOR VALUES IN (%s)', i, i);
    END LOOP;
END $$;";

const HAND_ROW: &str = "
CREATE FUNCTION by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF tg_op = 'DELETE' THEN
        PERFORM pg_notify('c', json_build_object('table', tg_table_name, 'op', tg_op, 'old', row_to_json(old))::text);
    ELSE
        PERFORM pg_notify('c', json_build_object('table', tg_table_name, 'op', tg_op, 'new', row_to_json(new))::text);
    END IF;
    RETURN NULL;
END $$;";

const HAND_INSERT: &str = "
CREATE TABLE written (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, change json);
CREATE FUNCTION by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF tg_op = 'DELETE' THEN
        INSERT INTO written (change) VALUES (row_to_json(old));
    ELSE
        INSERT INTO written (change) VALUES (row_to_json(new));
    END IF;
    RETURN NULL;
END $$;";

/// A notification takes less than 8,000 bytes: so where statements write many rows, the ids are sent in several.
const HAND_STATEMENT: [&str; 2] = [
    "PERFORM pg_notify('c', json_build_object('table', tg_table_name, 'op', tg_op, 'ids', (
        SELECT json_agg(id) FROM written))::text);",
    "PERFORM pg_notify('c', json_build_object('table', tg_table_name, 'op', tg_op, 'ids', json_agg(id))::text)
        FROM (SELECT id, (row_number() OVER () - 1) / 800 AS part FROM written) w GROUP BY part;",
];

/// Makes the function of the hand-written statement trigger, for statements of one row or of many.
pub fn set_statement_trigger(databases: &mut [Database], is_bulk: bool) {
    databases[Variant::HandStatement as usize].session.execute(&statement_trigger(is_bulk)).unwrap();
}

fn statement_trigger(is_bulk: bool) -> String {
    let statement = HAND_STATEMENT[usize::from(is_bulk)];
    format!(
        "CREATE OR REPLACE FUNCTION by_hand() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statement} RETURN NULL; END $$"
    )
}

/// A database for each variant, in the order of [`Variant::ALL`].
pub fn make_databases(server: &Cluster, scale: Scale) -> Vec<Database> {
    let mut admin = connect(&server.url());
    let url = |name: &str| server.url().trim_end_matches("postgres").to_owned() + name;
    admin.execute("CREATE DATABASE base").unwrap();
    let tables = TABLES.replace("{tables}", &scale.of(1000, 10).to_string());
    let tables = tables.replace("{partitions}", &scale.of(1000, 10).to_string());
    let mut base = connect(&url("base"));
    base.execute(&tables).unwrap();
    base.execute("VACUUM ANALYZE").unwrap();
    drop(base);
    let make = |(n, variant): (usize, Variant)| {
        admin.execute(&format!("CREATE DATABASE way_{n} TEMPLATE base")).unwrap();
        let url = url(&format!("way_{n}"));
        let mut session = connect(&url);
        install(variant, &mut session);
        // As autovacuum would leave the catalogs.
        session.execute("VACUUM ANALYZE pg_class, pg_depend, pg_proc, pg_trigger").unwrap();
        Database { session: connect(&url), url }
    };
    Variant::ALL.into_iter().enumerate().map(make).collect()
}

fn install(variant: Variant, session: &mut Connection) {
    let written = "pg_class WHERE relkind = 'r' AND relname ~ '^(t|m[0-9]+)$'";
    let on_each = |trigger: &str| {
        format!(
            "DO $$ DECLARE name text; BEGIN FOR name IN SELECT relname FROM {written} LOOP \
             EXECUTE replace('{trigger}', '%', name); END LOOP; END $$"
        )
    };
    match variant {
        Variant::NoTrigger => {}
        Variant::HandRow | Variant::HandInsert => {
            session.execute(if variant == Variant::HandRow { HAND_ROW } else { HAND_INSERT }).unwrap();
            let trigger =
                "CREATE TRIGGER n AFTER INSERT OR UPDATE OR DELETE ON % FOR EACH ROW EXECUTE FUNCTION by_hand()";
            session.execute(&on_each(trigger)).unwrap();
        }
        Variant::HandStatement => {
            session.execute(&statement_trigger(false)).unwrap();
            for (event, rows) in [("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")] {
                let trigger = format!(
                    "CREATE TRIGGER n_{event} AFTER {event} ON % REFERENCING {rows} TABLE AS written \
                     FOR EACH STATEMENT EXECUTE FUNCTION by_hand()"
                );
                session.execute(&on_each(&trigger)).unwrap();
            }
        }
        Variant::Rows | Variant::Keys | Variant::RowsLog | Variant::KeysLog => {
            let report = variant.installer().unwrap().build(session).unwrap();
            assert!(report.failed().is_empty(), "{report:?}");
        }
    }
}
