//! A teardown: the triggers of each table in one transaction, then the schema.

use super::settings::BuildSettings;
use crate::changes::report::{Progress, Report};
use crate::changes::rows::string;
use crate::changes::runner::{self, Runner, TableTask};
use crate::changes::server_facts::ServerFacts;
use crate::changes::table::TableState;
use crate::changes::{install_script, installation, sql};
use crate::connection::Connection;
use crate::error::Error;

/// Removes everything, and calls `report_progress` after each table.
pub(super) fn teardown(
    db: &mut Connection,
    settings: &BuildSettings,
    mut report_progress: impl FnMut(Progress<'_>),
) -> Result<Report, Error> {
    let server = ServerFacts::read(db, &settings.options.owner)?;
    server.check_writable()?;
    if !server.has_schema {
        return Ok(Report::default());
    }
    runner::exclusively(db, |db| {
        let runner = Runner::new(&server, settings.lock_timeout, settings.attempts);
        let owner = installed_owner(&server, settings);
        // Without event triggers no further table is covered.
        let event_triggers = db.query(sql::EVENT_TRIGGERS)?;
        if !event_triggers.is_empty() {
            let statements: Vec<_> = event_triggers.iter().map(|row| string(row, 0)).collect();
            runner.run(db, false, &statements.join("\n"))?;
        }
        let task = |row| TableTask { table: string(row, 0), state: TableState::LeftOver, statements: string(row, 1) };
        let tasks: Vec<_> = db.query(sql::TRIGGERS)?.iter().map(task).collect();
        let (total, mut done, mut report) = (tasks.len(), 0, Report::default());
        let outcome = runner.run_each(db, tasks, |table, _| {
            done += 1;
            report_progress(Progress { done, total, table });
            report.removed.push(table.to_owned());
        })?;
        report.failed = outcome.failed;
        // A table that has been dropped meanwhile needs nothing.
        report.failed.extend(outcome.stale.into_iter().filter(|(_, error)| error.sqlstate() != Some("42P01")));
        report.blockers = runner.blockers(db, &report.failed)?;
        if report.failed.is_empty() {
            runner.run(db, false, sql::REMOVE)?;
            runner.run(db, false, &install_script::drop_owner(&owner))?;
            report.schema_changed = true;
        }
        Ok(report)
    })
}

/// Returns the SQL that a teardown would execute, as a script for `psql`.
pub(super) fn script(db: &mut Connection, settings: &BuildSettings) -> Result<String, Error> {
    let server = ServerFacts::read(db, &settings.options.owner)?;
    server.check_writable()?;
    if !server.has_schema {
        return Ok("-- There is nothing to remove.\n".to_owned());
    }
    let owner = installed_owner(&server, settings);
    let mut script = String::from("\\set ON_ERROR_STOP on\n");
    let (event_triggers, triggers) = (db.query(sql::EVENT_TRIGGERS)?, db.query(sql::TRIGGERS)?);
    let statements = event_triggers.iter().map(|row| string(row, 0)).chain(triggers.iter().map(|row| string(row, 1)));
    for statement in statements.chain([sql::REMOVE.to_owned(), install_script::drop_owner(&owner)]) {
        script.push_str(&sql::transaction(server.lock_wait(settings.lock_timeout, false), &statement));
    }
    Ok(script)
}

/// Returns the owner that the installation names, or else the owner of these settings.
fn installed_owner(server: &ServerFacts, settings: &BuildSettings) -> String {
    installation::named_owner(&server.comment).unwrap_or_else(|| settings.options.owner.clone())
}
