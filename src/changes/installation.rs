//! The functions and objects of an installation, compared with those that a build would create.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::functions::{self, ExecutionRole, FunctionDefinition};
use super::options::{InstallOptions, Oversize};
use super::rows::{changes_error, from_json, is_true, only_row, string};
use super::shape::TableShape;
use super::sql;
use crate::connection::Connection;
use crate::error::Error;
use crate::row::Row;

/// Returns the options of an installation from the reply to [`sql::INSTALLED`]. `place` is the database, for error texts.
///
/// # Errors
///
/// [`Error::Changes`] if nothing is installed, if the installation is of another version, or if this role must not read its
/// tables: the owner of a table can have its readers execute code.
pub(crate) fn readable_options(rows: &[Row], place: &str) -> Result<InstallOptions, Error> {
    let Some(row) = rows.first() else {
        return Err(changes_error(format!("nothing is installed at {place}: run `notifyman build` there")));
    };
    let (version, options) = parse_comment(&string(row, 0))?;
    let Some(options) = options else {
        return Err(changes_error(format!(
            "the installation at {place} is of version {version}: use that version's program"
        )));
    };
    let is_trusted = is_true(row, 2);
    if !is_trusted && (options.has_log() || options.oversize == Oversize::Spill) {
        return Err(changes_error(format!(
            "the schema notifyman at {place} belongs to role {}, which is no superuser, does not own the database, and \
             does not have this role as a member: its tables are not read. Build as another role, or GRANT {0} to the \
             role that reads",
            sql::identifier(&string(row, 1))
        )));
    }
    Ok(options)
}

/// Checks by the reply to [`sql::INSTALLED`] that changes are notified, for a relay of the database at `place`.
///
/// # Errors
///
/// [`Error::Changes`] if nothing is installed, if the installation is of another version, or if changes are delivered by the log.
#[cfg(feature = "relay")]
pub(crate) fn check_notified(rows: &[Row], place: &str) -> Result<(), Error> {
    let comment = rows.first().map(|row| string(row, 0));
    let options = comment.map(|comment| parse_comment(&comment)).transpose()?.map(|(_, options)| options);
    if options.is_some_and(|options| options.is_some_and(|options| !options.has_log())) {
        return Ok(());
    }
    // The errors of a worker, and that of a log, which workers read by themselves, and again if they were away.
    readable_options(rows, place)?;
    Err(changes_error(format!(
        "the changes at {place} are delivered by a log, which a relay does not read: follow it with `notifyman worker`, or run \
         `notifyman build --delivery notify` there"
    )))
}

/// Returns the owner of functions that the comment of an installation of any version names.
pub(crate) fn named_owner(comment: &str) -> Option<String> {
    let options: Value = serde_json::from_str(comment.lines().nth(1)?).ok()?;
    options["owner"].as_str().map(str::to_owned)
}

/// Parses the version and the options of an installation, from the comment of the schema.
pub(crate) fn parse_comment(comment: &str) -> Result<(i32, Option<InstallOptions>), Error> {
    let line = comment.lines().nth(1).unwrap_or_default();
    InstallOptions::from_json(line, sql::VERSION).map_err(|reason| {
        changes_error(format!(
            "the installation is damaged, or of an earlier version: the comment of the schema notifyman does not contain its \
             options ({reason}): run `notifyman build`"
        ))
    })
}

/// Returns the functions that tables need with these options, in the order of their names.
pub(crate) fn functions_of_tables(
    db: &mut Connection,
    options: &InstallOptions,
) -> Result<Vec<FunctionDefinition>, Error> {
    let rows = db.query(&sql::shapes(options))?;
    let function = |row: &Row| {
        let (kind, columns, name) = (string(row, 0), string(row, 1), string(row, 2));
        Ok(functions::for_tables(&name, &kind, &TableShape::parse(&kind, &columns)?, options))
    };
    rows.iter().map(function).collect()
}

/// A function in the database, as `installed_functions.sql` describes it.
#[derive(Deserialize)]
struct InstalledFunction {
    body: String,
    is_definer: bool,
    settings: String,
    owner: String,
    is_public: bool,
    is_used: bool,
    is_trigger: bool,
    is_immutable: bool,
}

/// The functions of the schema, by name and arguments.
pub(crate) struct Functions(BTreeMap<(String, String), InstalledFunction>);

impl Functions {
    pub(crate) fn read(db: &mut Connection) -> Result<Self, Error> {
        db.query(sql::FUNCTIONS)?.iter().map(from_json).collect::<Result<_, _>>().map(Self)
    }

    /// Returns `true` if a function is as a build would create it. `owner` owns the `SECURITY DEFINER` functions, and
    /// `installer` all others.
    pub(crate) fn is_right(&self, function: &FunctionDefinition, owner: &str, installer: &str) -> bool {
        let role = if function.runs_as == ExecutionRole::Owner { owner } else { installer };
        let settings: Vec<_> = function.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let settings = settings.join("; ");
        self.0.get(&(function.name.clone(), function.arguments.to_owned())).is_some_and(|present| {
            present.body == function.body
                && present.is_definer == (function.runs_as == ExecutionRole::Owner)
                && present.settings == settings
                && present.is_immutable == function.is_immutable
                && present.is_public == (function.runs_as != ExecutionRole::EventTrigger)
                && present.owner == role
        })
    }

    /// Returns `true` if there is a function with this name and these arguments.
    pub(crate) fn has(&self, function: &FunctionDefinition) -> bool {
        self.0.contains_key(&(function.name.clone(), function.arguments.to_owned()))
    }

    /// Returns `true` if there is a trigger function that no table uses, and that no later table could use.
    pub(crate) fn has_unused(&self) -> bool {
        self.0
            .iter()
            .any(|((name, _), present)| present.is_trigger && !present.is_used && !functions::serves_any_table(name))
    }
}

/// The tables, sequences and event triggers of an installation, as `objects.sql` describes them.
#[derive(Deserialize)]
pub(crate) struct Objects {
    has_sequence: bool,
    /// `true` if there is the outbox of an earlier version.
    pub(crate) has_outbox: bool,
    has_spilled: bool,
    is_open: bool,
    event_triggers: usize,
    disabled_event_triggers: usize,
    /// The publications that contain a table of the installation.
    publications: Option<String>,
    /// The objects of the log that are missing.
    missing_of_log: Option<String>,
    is_log_unlogged: bool,
    /// `true` if the sequence returns its numbers in order, and each once.
    is_ordered: bool,
    /// `true` if the owner of the functions that append to the log has the privileges for it.
    may_append: bool,
    is_log_full: bool,
    /// The number of changes that were not appended to the log.
    pub(crate) dropped: i64,
}

impl Objects {
    pub(crate) fn read(db: &mut Connection) -> Result<Self, Error> {
        from_json(&only_row(db, sql::OBJECTS)?)
    }

    /// Returns the problems of an installation with these options. A build fixes them.
    pub(crate) fn problems(&self, options: &InstallOptions) -> Vec<String> {
        let has_log = options.has_log();
        let of_log = self.missing_of_log.as_ref().filter(|_| has_log);
        let of_log = of_log.map(|names| format!("objects of the log in the schema notifyman are missing: {names}"));
        let has_whole_log = has_log && of_log.is_none();
        let event_triggers = if options.has_schema_events { 2 } else { 0 };
        let problems = [
            (!self.has_sequence || options.spills() && !self.has_spilled)
                .then_some("a table or the sequence of the schema notifyman is missing"),
            of_log.as_deref(),
            (has_whole_log && options.is_unlogged && !self.is_log_unlogged)
                .then_some("the log is logged, although it was built as unlogged"),
            (has_whole_log && !options.is_unlogged && self.is_log_unlogged)
                .then_some("the log is unlogged, although it was not built so: a crash of the server empties it"),
            (has_whole_log && !self.may_append).then_some(
                "the owner of the functions that append to the log lacks a privilege: changes are not appended",
            ),
            (!self.is_ordered).then_some(
                "the sequence notifyman.number caches values, cycles, or does not increment by 1: changes can be read \
                 in another order than they were made",
            ),
            self.has_outbox.then_some("the outbox of an earlier version is still there"),
            (!self.is_open)
                .then_some("roles lack USAGE on the schema notifyman: their changes are reported without rows"),
            (self.event_triggers < event_triggers).then_some("an event trigger is missing: new tables are not covered"),
            (self.event_triggers > event_triggers).then_some("there are event triggers, although it was built without"),
        ];
        problems.into_iter().flatten().map(str::to_owned).collect()
    }

    /// Returns the conditions that an administrator should know of, for an installation with these options.
    pub(crate) fn warnings(&self, options: &InstallOptions) -> Vec<String> {
        let is_full = (options.has_log() && self.is_log_full).then(|| {
            format!(
                "the log is full, and {} changes were not appended to it: run its workers, so that changes that they have \
                 read can be removed, delete unused names from notifyman.position, or build with a larger --keep-size",
                self.dropped
            )
        });
        let is_disabled = self.disabled_event_triggers > 0;
        let is_disabled = is_disabled.then(|| "an event trigger is disabled: new tables are not covered".to_owned());
        let is_published = self.publications.as_ref().map(|names| {
            format!(
                "publication {names} contains a table of the schema notifyman: a subscriber without that table stops at the \
                 first change to it"
            )
        });
        [is_full, is_disabled, is_published].into_iter().flatten().collect()
    }
}

/// Returns the problem of the tables in one state, from a row of [`sql::uncovered`].
pub(crate) fn uncovered_problem(row: &Row) -> String {
    let (state, count, first) = (string(row, 0), string(row, 1), string(row, 2));
    format!("the triggers of {count} tables are {state} ({first} ..): run `notifyman build`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_of_another_version_is_known() {
        let comment = "Reports table changes.\n{\"version\":2,\"owner\":\"o\",\"delivery\":\"table\"}";
        assert_eq!(parse_comment(comment).unwrap(), (2, None));
        assert_eq!(named_owner(comment).as_deref(), Some("o"));
    }
}
