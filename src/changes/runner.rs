//! Executes an installer's statements in short transactions, and retries while other sessions are in the way.

use std::time::Duration;

use super::rows::{changes_error, string};
use super::server_facts::ServerFacts;
use super::sql::{self, LockWait};
use super::table::TableState;
use crate::connection::Connection;
use crate::error::{Error, Escaped};

/// A table, and the statements that make its triggers right or remove them.
pub(crate) struct TableTask {
    /// The name of the table, quoted for SQL.
    pub(crate) table: String,
    pub(crate) state: TableState,
    pub(crate) statements: String,
}

/// The tables that could not be done, each with the reason.
#[derive(Default)]
pub(crate) struct TaskOutcome {
    pub(crate) failed: Vec<(String, Error)>,
    /// Tables that have changed since their statements were made.
    pub(crate) stale: Vec<(String, Error)>,
}

/// Executes transactions on a server, with a limit on lock waits and on attempts.
pub(crate) struct Runner<'a> {
    server: &'a ServerFacts,
    lock_timeout: Duration,
    attempts: u32,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(server: &'a ServerFacts, lock_timeout: Duration, attempts: u32) -> Self {
        Self { server, lock_timeout, attempts }
    }

    /// Executes one transaction, and rolls it back after an error. The last attempt may wait longer for locks.
    pub(crate) fn run(&self, db: &mut Connection, is_last: bool, statements: &str) -> Result<(), Error> {
        execute(db, self.server.lock_wait(self.lock_timeout, is_last), statements)
    }

    /// Executes one transaction, and retries while other sessions are in its way.
    pub(crate) fn run_again(&self, db: &mut Connection, statements: &str) -> Result<(), Error> {
        for _ in 1..self.attempts {
            match self.run(db, false, statements) {
                Err(error) if is_temporary(&error) && !db.is_closed() => {}
                result => return result,
            }
        }
        self.run(db, true, statements)
    }

    /// Executes each task, and calls `on_done` with its table and state. A table that cannot be locked is tried again after
    /// the others.
    pub(crate) fn run_each(
        &self,
        db: &mut Connection,
        mut tasks: Vec<TableTask>,
        mut on_done: impl FnMut(&str, TableState),
    ) -> Result<TaskOutcome, Error> {
        let mut outcome = TaskOutcome::default();
        for attempt in 1..=self.attempts {
            let is_last = attempt == self.attempts;
            let mut again = Vec::new();
            for task in tasks {
                match self.run(db, is_last, &task.statements) {
                    Ok(()) => on_done(&task.table, task.state),
                    Err(error) if db.is_closed() => return Err(error),
                    Err(error) if is_stale(&error) => outcome.stale.push((task.table, explain(error))),
                    Err(error) if is_temporary(&error) && !is_last => again.push(task),
                    Err(error) => outcome.failed.push((task.table, error)),
                }
            }
            tasks = again;
        }
        Ok(outcome)
    }

    /// Returns the sessions that hold locks of tables that could not be locked, each with its table.
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
                        format!("pid {pid} ({}{state})", one_line(&string(&row, 1)))
                    }
                    None => "a prepared transaction".to_owned(),
                };
                blockers.push((table.clone(), format!("{session}: {}", one_line(&string(&row, 3)))));
            }
        }
        Ok(blockers)
    }
}

/// Executes one transaction, and rolls it back after an error.
fn execute(db: &mut Connection, wait: LockWait, statements: &str) -> Result<(), Error> {
    let result = db.execute(&sql::transaction(wait, statements));
    if result.is_err() && !db.is_closed() {
        db.execute("ROLLBACK")?;
    }
    result.map(drop)
}

/// Calls `action` while no other build or teardown runs in this database.
pub(crate) fn exclusively<T>(
    db: &mut Connection,
    action: impl FnOnce(&mut Connection) -> Result<T, Error>,
) -> Result<T, Error> {
    execute(db, sql::BUILD_WAIT, sql::LOCK_BUILD).map_err(|error| match error.sqlstate() {
        Some("55P03") => changes_error("another build or teardown runs in this database: try again once it has ended"),
        _ => error,
    })?;
    let result = action(db);
    if !db.is_closed() {
        db.query(sql::UNLOCK_BUILD)?;
    }
    result
}

/// Returns `true` for an error that other sessions cause: a lock timeout, a deadlock, or the same change made concurrently.
pub(crate) fn is_temporary(error: &Error) -> bool {
    matches!(error.sqlstate(), Some("55P03" | "40P01" | "40001" | "XX000" | "23505"))
}

/// Like [`is_temporary`], and also `true` if another database of the cluster has changed the shared role.
pub(crate) fn is_temporary_in_cluster(error: &Error) -> bool {
    is_temporary(error) || matches!(error.sqlstate(), Some("42704" | "42710"))
}

/// Returns `true` if the table, its schema or a trigger has changed since the statements were made.
fn is_stale(error: &Error) -> bool {
    matches!(error.sqlstate(), Some("42P01" | "3F000" | "42704" | "42710"))
}

/// Adds the remedy to the error for a trigger name that is in use.
fn explain(error: Error) -> Error {
    match error.sqlstate() {
        Some("42710") => {
            changes_error(format!("{error:#}: that trigger is not notifyman's. Rename it, or leave the table out"))
        }
        _ => error,
    }
}

/// Returns another session's text on one line, with white space reduced and control characters escaped.
fn one_line(text: &str) -> String {
    Escaped(text.split_whitespace().collect::<Vec<_>>().join(" ")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_in_another_sessions_text_are_escaped() {
        assert_eq!(one_line("UPDATE t\n  SET v = '\u{1b}[2J\u{9b}é'"), "UPDATE t SET v = '\\u{1b}[2J\\u{9b}é'");
    }
}
