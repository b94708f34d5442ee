//! Runs an installer's statements in short transactions, and again where others are in the way.

use std::time::Duration;

use super::server_facts::{ServerFacts, cannot, text};
use super::sql;
use crate::connection::Connection;
use crate::error::{Error, Escaped};

/// A table, and the statements that make it right.
pub(crate) struct TableTask {
    pub(crate) table: String,
    pub(crate) state: String,
    pub(crate) statements: String,
}

/// Tables that could not be done, and why.
pub(crate) type FailedTables = Vec<(String, Error)>;

/// Runs transactions on a server, with a limit on waiting for locks and on attempts.
pub(crate) struct Runner<'a> {
    pub(crate) server: &'a ServerFacts,
    pub(crate) lock_timeout: Duration,
    pub(crate) attempts: u32,
}

impl Runner<'_> {
    /// Runs one transaction; after an error there is none. The last attempt may wait for longer.
    pub(crate) fn run(&self, db: &mut Connection, is_last: bool, statements: &str) -> Result<(), Error> {
        let result = db.execute(&sql::transaction(self.server.lock_wait(self.lock_timeout, is_last), statements));
        if result.is_err() && !db.is_closed() {
            db.execute("ROLLBACK")?;
        }
        result.map(drop)
    }

    /// Runs one transaction, and again while others are in its way.
    pub(crate) fn run_again(&self, db: &mut Connection, statements: &str) -> Result<(), Error> {
        for _ in 1..self.attempts {
            match self.run(db, false, statements) {
                Err(error) if is_for_now(&error) && !db.is_closed() => {}
                result => return result,
            }
        }
        self.run(db, true, statements)
    }

    /// Runs each step, and calls back with its table and state. Tables that cannot be locked are tried again after the
    /// others.
    ///
    /// Returns those that failed, and those whose statements no longer fit the table.
    pub(crate) fn each(
        &self,
        db: &mut Connection,
        mut left: Vec<TableTask>,
        mut done: impl FnMut(&str, &str),
    ) -> Result<(FailedTables, FailedTables), Error> {
        let (mut failed, mut stale) = (Vec::new(), Vec::new());
        for attempt in 1..=self.attempts {
            let is_last = attempt == self.attempts;
            let mut again = Vec::new();
            for step in left {
                match self.run(db, is_last, &step.statements) {
                    Ok(()) => done(&step.table, &step.state),
                    Err(error) if db.is_closed() => return Err(error),
                    Err(error) if is_stale(&error) => stale.push((step.table, explained(error))),
                    Err(error) if is_for_now(&error) && !is_last => again.push(step),
                    Err(error) => failed.push((step.table, error)),
                }
            }
            left = again;
        }
        Ok((failed, stale))
    }

    /// The sessions that hold the locks of tables that could not be locked, each with its table.
    pub(crate) fn blockers(
        &self,
        db: &mut Connection,
        failed: &[(String, Error)],
    ) -> Result<Vec<(String, String)>, Error> {
        let mut blockers = Vec::new();
        for (table, _) in failed.iter().filter(|(_, error)| error.sqlstate() == Some("55P03")) {
            for row in db.query(&sql::lock_holders(table))? {
                let session = match row.get(0) {
                    Some(pid) => {
                        let state = row.get(2).map_or_else(String::new, |state| format!(", {state}"));
                        format!("pid {pid} ({}{state})", escaped(&text(&row, 1)))
                    }
                    None => "a prepared transaction".to_owned(),
                };
                blockers.push((table.clone(), format!("{session}: {}", escaped(&text(&row, 3)))));
            }
        }
        Ok(blockers)
    }
}

/// Does something while no other build or teardown runs in this database.
pub(crate) fn alone<T>(db: &mut Connection, act: impl FnOnce(&mut Connection) -> Result<T, Error>) -> Result<T, Error> {
    let locked = db.query(&sql::transaction(sql::BUILD_WAIT, sql::LOCK_BUILD));
    if let Err(error) = locked {
        if !db.is_closed() {
            db.execute("ROLLBACK")?;
        }
        return Err(match error.sqlstate() {
            Some("55P03") => cannot("another build or teardown runs in this database: try again once it has ended"),
            _ => error,
        });
    }
    let result = act(db);
    if !db.is_closed() {
        db.query(sql::UNLOCK_BUILD)?;
    }
    result
}

/// Returns `true` if it failed because of what others were doing: a lock that could not be had, a deadlock, the same
/// done twice.
pub(super) fn is_for_now(error: &Error) -> bool {
    matches!(error.sqlstate(), Some("55P03" | "40P01" | "40001" | "XX000" | "23505"))
}

/// Returns `true` if the table, its schema or a trigger is not as it was when the statements were made.
fn is_stale(error: &Error) -> bool {
    matches!(error.sqlstate(), Some("42P01" | "3F000" | "42704" | "42710"))
}

/// Like [`is_for_now`], also because of the role that the databases of a cluster share.
pub(crate) fn is_for_now_in_cluster(error: &Error) -> bool {
    is_for_now(error) || matches!(error.sqlstate(), Some("42704" | "42710"))
}

/// Names the trigger that is in the way, if that is why.
fn explained(error: Error) -> Error {
    match error.sqlstate() {
        Some("42710") => cannot(format!("{error}: that trigger is not notifyman's. Rename it, or leave the table out")),
        _ => error,
    }
}

/// Returns another session's text on one line, with white space reduced and control characters escaped.
fn escaped(text: &str) -> String {
    Escaped(text.split_whitespace().collect::<Vec<_>>().join(" ")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_sessions_text_reaches_no_terminal_as_it_is() {
        assert_eq!(escaped("UPDATE t\n  SET v = '\u{1b}[2J\u{9b}é'"), "UPDATE t SET v = '\\u{1b}[2J\\u{9b}é'");
    }
}
