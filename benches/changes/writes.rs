//! Statements that write one row, and statements that write many rows, without a listener.

use std::time::Instant;

use notifyman::Connection;

use crate::Scale;
use crate::turns::{self, Samples};
use crate::variants::{self, Database, Variant};

/// The number of one-row statements in a transaction.
pub const LOOPS: usize = 500;
/// The number of rows of a bulk statement.
pub const BULK: usize = 10_000;

const INSERTED: &str = "42, 0, repeat('x', 80)";

/// Returns the microseconds of one INSERT, UPDATE and DELETE of many in a transaction, and of an UPDATE with its commit.
pub fn one_row(databases: &mut [Database], scale: Scale) -> [Samples; 4] {
    variants::set_statement_trigger(databases, false);
    let loops = scale.of(LOOPS, 50);
    let looped = |statement: &str| format!("DO $$ BEGIN FOR i IN 1..{loops} LOOP {statement}; END LOOP; END $$");
    let insert = looped(&format!("INSERT INTO t VALUES (i, {INSERTED})"));
    let update = looped("UPDATE t SET b = b + 1 WHERE id = i");
    let delete = looped("DELETE FROM t WHERE id = i");
    let micros = 1e6 / loops as f64;
    turns::take(scale.of(99, 3), &Variant::ALL, |variant| {
        let session = &mut databases[variant as usize].session;
        empty(session);
        let inserted = timed(session, &insert) * micros;
        let updated = timed(session, &update) * micros;
        let begun = Instant::now();
        for id in 1..=loops / 5 {
            session.execute(&format!("UPDATE t SET b = b + 1 WHERE id = {id}")).unwrap();
        }
        let committed = begun.elapsed().as_secs_f64() * 5.0 * micros;
        let deleted = timed(session, &delete) * micros;
        [inserted, updated, deleted, committed]
    })
}

/// Returns the milliseconds of one INSERT, UPDATE and DELETE of many rows.
pub fn bulk(databases: &mut [Database], scale: Scale) -> [Samples; 3] {
    variants::set_statement_trigger(databases, true);
    let insert = insert(1, scale.of(BULK, 500) as u64);
    turns::take(scale.of(9, 3), &Variant::ALL, |variant| {
        let session = &mut databases[variant as usize].session;
        empty(session);
        let statements = [insert.as_str(), "UPDATE t SET b = b + 1", "DELETE FROM t"];
        statements.map(|statement| timed(session, statement) * 1e3)
    })
}

/// Returns a statement that inserts rows with these ids.
pub fn insert(first: u64, last: u64) -> String {
    format!("INSERT INTO t SELECT i, {INSERTED} FROM generate_series({first}, {last}) i")
}

/// Returns the seconds of a statement with its commit.
fn timed(session: &mut Connection, statement: &str) -> f64 {
    let begun = Instant::now();
    session.execute(statement).unwrap();
    begun.elapsed().as_secs_f64()
}

/// Truncates the table and the tables of triggers, and makes the session read the changed catalogs.
pub fn empty(session: &mut Connection) {
    session.execute("TRUNCATE t").unwrap();
    for tables in ["notifyman.log_0, notifyman.log_1, notifyman.log_2", "written"] {
        let first = tables.split(',').next().unwrap();
        session
            .execute(&format!(
                "DO $$ BEGIN IF to_regclass('{first}') IS NOT NULL THEN TRUNCATE {tables}; END IF; END $$"
            ))
            .unwrap();
    }
    session.execute(&format!("INSERT INTO t VALUES (0, {INSERTED}); DELETE FROM t")).unwrap();
}
