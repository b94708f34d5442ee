//! `notifyman build`, `status`, `verify`, `teardown` and `worker`: table changes, from installing triggers to receiving changes.

pub(crate) mod args;
mod exec;
mod line;
mod worker;

use std::fmt::Display;

use indicatif::{ProgressBar, ProgressDrawTarget};
use notifyman::changes::{Installer, Progress, Report, Status, Table};
use notifyman::{Error, Escaped};
use serde_json::{Map, json};

use self::args::{BuildArgs, LockArgs, StatusArgs, TeardownArgs};
pub(super) use self::worker::run as worker;
use super::connect::{config, connect};
use super::messages::print_message;
use super::outcome::{Exit, Failure};
use super::output::{counted, json_line, print, print_script, progress_style};

/// The smallest number of tables for which a progress bar is shown.
const PROGRESS_MIN: usize = 20;

/// Installs the triggers, or prints the SQL.
pub(super) fn build(args: BuildArgs) -> Result<Exit, Failure> {
    let installer = Installer::new()
        .schemas(args.schemas)
        .tables(args.tables)
        .except_schemas(args.except_schemas)
        .except_tables(args.except_tables)
        .shape(args.shape)
        .oversize(args.oversize)
        .keep_for(args.keep_for)
        .keep_size(args.keep_size)
        .unlogged(args.unlogged)
        .discard_outbox(args.discard_outbox)
        .with_query(args.with_query)
        .schema_events(!args.no_schema_events)
        .replicated(args.replicated)
        .owner(args.owner)
        .force(args.force);
    let installer = match args.delivery {
        Some(delivery) => installer.delivery(delivery),
        None => installer,
    };
    let installer = with_locks(installer, &args.locks);
    let mut db = connect(&config(args.target.url())?)?;
    if args.locks.dry_run {
        return print_script(&installer.build_sql(&mut db)?);
    }
    print_report(&with_progress(|show| installer.build_with(&mut db, show))?, "covered", &args.locks)
}

/// Removes the triggers, or prints the SQL.
pub(super) fn teardown(args: &TeardownArgs) -> Result<Exit, Failure> {
    let installer = with_locks(Installer::new(), &args.locks);
    let mut db = connect(&config(args.target.url())?)?;
    if args.locks.dry_run {
        return print_script(&installer.teardown_sql(&mut db)?);
    }
    print_report(&with_progress(|show| installer.teardown_with(&mut db, show))?, "cleared", &args.locks)
}

/// Prints what is installed, and the state of each table.
pub(super) fn status(args: &StatusArgs) -> Result<Exit, Failure> {
    match read_status(args)? {
        None => Ok(Exit::Done),
        Some(status) if args.json => print(&status_line(&status)),
        Some(status) => {
            let states = status.tables().iter().map(|table| line(&table.state.to_string(), &table.sql_name));
            print(&(status.to_string() + &states.collect::<String>()))
        }
    }
}

/// Prints what is installed, and returns whether it is correct as the exit code.
pub(super) fn verify(args: &StatusArgs) -> Result<Exit, Failure> {
    let Some(status) = read_status(args)? else { return Ok(Exit::Done) };
    print(&if args.json { status_line(&status) } else { status.to_string() })?;
    Ok(match (status.problems(), status.warnings()) {
        ([], []) => Exit::Done,
        ([], _) => Exit::Warned,
        _ => Exit::Incomplete,
    })
}

/// Reads what is installed; a dry run prints the SQL and returns `None`.
fn read_status(args: &StatusArgs) -> Result<Option<Status>, Failure> {
    if args.dry_run {
        print_script(&Status::sql())?;
        return Ok(None);
    }
    let mut db = connect(&config(args.target.url())?)?;
    Ok(Some(Status::of_some(&mut db, &args.schemas, &args.tables)?))
}

/// Returns the state as a line of JSON.
fn status_line(status: &Status) -> String {
    let table = |table: &Table| json!({ "table": table.sql_name, "state": table.state.to_string() });
    let settings: Map<_, _> =
        status.settings().iter().map(|(name, value)| (name.replace(' ', "_"), value.clone().into())).collect();
    let json = json!({
        "installed": status.is_installed(),
        "settings": settings,
        "tables": status.tables().iter().map(table).collect::<Vec<_>>(),
        "problems": status.problems(),
        "warnings": status.warnings(),
    });
    json_line(&json.to_string()).into_owned() + "\n"
}

/// Returns what was done as a line of JSON.
fn report_line(report: &Report) -> String {
    let failed = |(table, error): &(String, Error)| json!({ "table": table, "error": format!("{error:#}") });
    let blocker = |(table, session): &(String, String)| json!({ "table": table, "session": session });
    let json = json!({
        "covered": report.covered(),
        "changed": report.changed(),
        "removed": report.removed(),
        "unchanged": report.unchanged(),
        "failed": report.failed().iter().map(failed).collect::<Vec<_>>(),
        "locked_by": report.blockers().iter().map(blocker).collect::<Vec<_>>(),
        "grants": report.grants(),
        "warnings": report.warnings(),
    });
    json_line(&json.to_string()).into_owned() + "\n"
}

fn with_locks(installer: Installer, locks: &LockArgs) -> Installer {
    installer.lock_timeout(locks.lock_timeout).attempts(locks.attempts)
}

/// Returns a line of a list, with external text escaped.
fn line(label: &str, text: impl Display) -> String {
    format!("{:<16} {}\n", Escaped(label).to_string(), Escaped(text))
}

/// Prints what was done. If some tables are not done, the exit code is 1.
fn print_report(report: &Report, done: &str, args: &LockArgs) -> Result<Exit, Failure> {
    if args.json {
        print(&report_line(report))?;
    } else {
        let text = report_text(report, done);
        if text.is_empty() {
            print_message("there is no table to change");
        }
        print(&text)?;
        report.warnings().iter().for_each(|warning| print_message(format_args!("warning: {warning}")));
    }
    if report.failed().is_empty() {
        return Ok(Exit::Done);
    }
    let failed = counted(report.failed().len(), "table");
    print_message(format_args!("not done for {failed}: run the command again to finish"));
    Ok(Exit::Incomplete)
}

/// Returns what was done as lines, one for each table.
fn report_text(report: &Report, done: &str) -> String {
    let mut text = String::new();
    for (label, tables) in [(done, report.covered()), ("changed", report.changed()), ("removed", report.removed())] {
        tables.iter().for_each(|table| text.push_str(&line(label, table)));
    }
    for (table, error) in report.failed() {
        text.push_str(&line("failed", format_args!("{table}: {error:#}")));
    }
    for (table, session) in report.blockers() {
        text.push_str(&line("locked by", format_args!("{table}: {session}")));
    }
    if report.unchanged() > 0 {
        text.push_str(&line("up to date", counted(report.unchanged(), "table")));
    }
    report.grants().iter().for_each(|grant| text.push_str(&line("to grant", grant)));
    text
}

/// Calls a function that reports its progress, and shows a progress bar, on a terminal and if there are many tables.
fn with_progress<T>(work: impl FnOnce(&dyn Fn(Progress<'_>)) -> T) -> T {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr())
        .with_style(progress_style("{bar:40} {pos}/{len} {wide_msg}"));
    let result = work(&|progress| {
        if progress.total >= PROGRESS_MIN {
            bar.set_length(progress.total as u64);
            bar.set_position(progress.done as u64);
            bar.set_message(Escaped(progress.table).to_string());
        }
    });
    bar.finish_and_clear();
    result
}
