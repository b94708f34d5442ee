//! DDL with event triggers, in a session that has executed such a statement before, and in a new one.

use std::time::Instant;

use notifyman::Connection;

use crate::turns::{self, Samples};
use crate::variants::{Database, Variant};
use crate::{Scale, connect};

/// The number of partitions of the altered root.
pub const PARTITIONS: usize = 1_000;

/// Returns the milliseconds of CREATE TABLE, repeated and first in a session, and of adding a column to the root of many
/// partitions, repeated and first in a session.
pub fn tables(databases: &mut [Database], scale: Scale) -> [Samples; 4] {
    let [create, create_first] = turns::take(scale.of(9, 2), &Variant::WITH_DDL, |variant| {
        let mut session = connect(&databases[variant as usize].url);
        let mut create = || {
            let taken = millis(&mut session, "CREATE TABLE new (id int PRIMARY KEY, a int, b int, c text)");
            session.execute("DROP TABLE new").unwrap();
            taken
        };
        let first = create();
        let mut again = [(); 9].map(|()| create());
        again.sort_by(f64::total_cmp);
        [again[4], first]
    });
    let [alter, alter_first] = turns::take(scale.of(5, 1), &Variant::WITH_DDL, |variant| {
        let mut session = connect(&databases[variant as usize].url);
        let mut alter = || {
            let taken = millis(&mut session, "ALTER TABLE p ADD COLUMN c int");
            session.execute("ALTER TABLE p DROP COLUMN c").unwrap();
            taken
        };
        let first = alter();
        [alter(), first]
    });
    [create, create_first, alter, alter_first]
}

fn millis(session: &mut Connection, statement: &str) -> f64 {
    let begun = Instant::now();
    session.execute(statement).unwrap();
    begun.elapsed().as_secs_f64() * 1e3
}
