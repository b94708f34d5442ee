//! A build: the schema and its functions in one transaction, then each table in one.

use super::settings::BuildSettings;
use super::{checks, outbox};
use crate::changes::functions::FunctionDefinition;
use crate::changes::installation::{self, Functions, Objects};
use crate::changes::report::{Progress, Report};
use crate::changes::rows::{changes_error, string};
use crate::changes::runner::{self, Runner, TableTask};
use crate::changes::server_facts::ServerFacts;
use crate::changes::table::TableState;
use crate::changes::{functions, grants, install_script, sql};
use crate::connection::Connection;
use crate::error::Error;

/// Builds, and calls `report_progress` after each table.
pub(super) fn build(
    db: &mut Connection,
    settings: &BuildSettings,
    mut report_progress: impl FnMut(Progress<'_>),
) -> Result<Report, Error> {
    checks::check(db, settings)?;
    runner::exclusively(db, |db| {
        // Another build may just have ended, so everything is read again.
        let schema_changed = install_schema(db, settings)?;
        let server = ServerFacts::read(db, &settings.options.owner)?;
        let mut report = Report { schema_changed, warnings: checks::warnings(settings, &server), ..Report::default() };
        let runner = Runner::new(&server, settings.lock_timeout, settings.attempts);
        // A table that event triggers or other sessions have changed meanwhile is read again.
        for _ in 0..settings.attempts {
            let (tasks, right) = tasks(db, settings)?;
            let total = right + tasks.len();
            let mut done = right;
            report.unchanged = right.saturating_sub(report.done());
            let outcome = runner.run_each(db, tasks, |table, state| {
                done += 1;
                report_progress(Progress { done, total, table });
                let list = match state {
                    TableState::Missing => &mut report.covered,
                    TableState::LeftOver => &mut report.removed,
                    _ => &mut report.changed,
                };
                list.push(table.to_owned());
            })?;
            let is_stale = !outcome.stale.is_empty();
            report.failed = outcome.failed;
            report.failed.extend(outcome.stale);
            if !is_stale {
                break;
            }
        }
        report.grants = grants::of_worker(&settings.options, server.untrusted_installer());
        if schema_changed && let Some(error) = outbox::drop_outbox(db, &runner)? {
            report.failed.push(("notifyman.outbox".to_owned(), error));
        }
        report.blockers = runner.blockers(db, &report.failed)?;
        if Functions::read(db)?.has_unused() {
            runner.run_again(db, sql::DROP_UNUSED)?;
        }
        Ok(report)
    })
}

/// Returns the SQL that a build would execute, as a script for `psql`.
pub(super) fn script(db: &mut Connection, settings: &BuildSettings) -> Result<String, Error> {
    let server = checks::check(db, settings)?;
    let transaction = |statements: &str| sql::transaction(server.lock_wait(settings.lock_timeout, false), statements);
    let mut script = String::from("\\set ON_ERROR_STOP on\n");
    if let Some(install) = install_statements(db, settings, &server)? {
        script.push_str(&transaction(&install));
    }
    script.push_str("\n-- A table that cannot be locked now is left for another run.\n\\set ON_ERROR_STOP off\n");
    for task in tasks(db, settings)?.0 {
        script.push_str(&transaction(&task.statements));
    }
    if server.has_schema && Objects::read(db)?.has_outbox {
        script.push_str(&transaction(outbox::DROP_OUTBOX));
    }
    Ok(script + &transaction(sql::DROP_UNUSED))
}

/// Installs the schema and its functions, unless they are right. Returns `true` if anything was changed.
fn install_schema(db: &mut Connection, settings: &BuildSettings) -> Result<bool, Error> {
    let owner = &settings.options.owner;
    for attempt in 1.. {
        let server = ServerFacts::read(db, owner)?;
        let Some(install) = install_statements(db, settings, &server)? else { return Ok(attempt > 1) };
        server.check_build(owner)?;
        let runner = Runner::new(&server, settings.lock_timeout, settings.attempts);
        match runner.run(db, attempt >= settings.attempts, &install) {
            Ok(()) => return Ok(true),
            // A build in another database of the cluster may have created or dropped the role at the same time.
            Err(error) if !db.is_closed() && attempt < settings.attempts && runner::is_temporary_in_cluster(&error) => {
            }
            Err(error) => return Err(checks::explain(error, settings)),
        }
    }
    Ok(true)
}

/// Returns the statements that install the schema, its functions and the role that owns some of them. If these are right,
/// returns the statements that create missing functions of tables, or `None`.
fn install_statements(
    db: &mut Connection,
    settings: &BuildSettings,
    server: &ServerFacts,
) -> Result<Option<String>, Error> {
    let options = &settings.options;
    let mut for_tables = installation::functions_of_tables(db, options)?;
    if !is_installed(db, settings, server)? {
        let upgrade = outbox::upgrade_script(db, server, settings)?;
        let install = install_script::install(options, &for_tables);
        return Ok(Some(upgrade + &server.owner_script(&options.owner) + &install));
    }
    let installed = Functions::read(db)?;
    for_tables.retain(|function| !installed.is_right(function, &options.owner, &server.installer));
    Ok((!for_tables.is_empty()).then(|| install_script::create_functions(&for_tables, &options.owner)))
}

/// Returns `true` if the schema and its functions are as this build would create them.
fn is_installed(db: &mut Connection, settings: &BuildSettings, server: &ServerFacts) -> Result<bool, Error> {
    let options = &settings.options;
    // Without a schema there is no comment. A comment without options is damaged, or of version 1: everything is installed again.
    let Ok((version, installed)) = installation::parse_comment(&server.comment) else { return Ok(false) };
    if version > sql::VERSION {
        return Err(changes_error(format!(
            "the installation is of version {version}, and this program supports versions up to {}: use a later notifyman",
            sql::VERSION
        )));
    }
    if installed.as_ref() != Some(options) || !Objects::read(db)?.problems(options).is_empty() {
        return Ok(false);
    }
    let present = Functions::read(db)?;
    let is_right = |function: &FunctionDefinition| present.is_right(function, &options.owner, &server.installer);
    Ok(functions::common(options).iter().all(is_right))
}

/// Returns a task for each table that is not right, and the number of tables that are.
fn tasks(db: &mut Connection, settings: &BuildSettings) -> Result<(Vec<TableTask>, usize), Error> {
    let rows = db.query(&sql::all_tables(&settings.options, true))?;
    let task = |row| {
        let state = TableState::parse(&string(row, 4));
        (!state.needs_no_build()).then(|| TableTask { table: string(row, 1), state, statements: string(row, 5) })
    };
    let tasks: Vec<_> = rows.iter().filter_map(task).collect();
    let right = rows.len() - tasks.len();
    Ok((tasks, right))
}
