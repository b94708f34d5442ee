//! The memory of a session that has written to many tables once: cached catalogs, plans and trigger functions.

use crate::turns::{self, Samples};
use crate::variants::{Database, Variant};
use crate::{Scale, connect};

/// The number of tables that a session writes to.
pub const TABLES: usize = 1_000;

/// Returns the used bytes of a session that has written to each table once; `None` before PostgreSQL 14, which does not report
/// them.
pub fn of_sessions(databases: &mut [Database], scale: Scale) -> Option<Samples> {
    let view = "SELECT to_regclass('pg_backend_memory_contexts') IS NOT NULL";
    if databases[0].session.query(view).unwrap()[0].get(0).as_deref() != Some("t") {
        return None;
    }
    let tables = scale.of(TABLES, 10);
    let mut id = 0;
    let [samples] = turns::take(scale.of(3, 1), &Variant::ALL, |variant| {
        id += 1;
        let mut session = connect(&databases[variant as usize].url);
        let write = format!(
            "DO $$ BEGIN FOR i IN 1..{tables} LOOP \
             EXECUTE format('INSERT INTO m%s (id) VALUES ({id})', i); END LOOP; END $$"
        );
        session.execute(&write).unwrap();
        let used = session.query("SELECT sum(used_bytes) FROM pg_backend_memory_contexts").unwrap();
        [used[0].get(0).unwrap().parse().unwrap()]
    });
    Some(samples)
}
