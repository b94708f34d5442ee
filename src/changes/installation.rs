//! The functions and objects of an installation, compared with those that a build would create.

use std::collections::BTreeMap;

use super::functions::{self, ExecutionRole, FunctionDefinition};
use super::options::{DeliveryMode, InstallOptions, Oversize};
use super::rows::{changes_error, is_true, only_row, string};
use super::shape::TableShape;
use super::sql;
use crate::connection::Connection;
use crate::error::Error;
use crate::row::Row;

/// An installation, as the comment of its schema describes it.
#[derive(Debug)]
pub(crate) struct Installation {
    version: i32,
    /// `None` if this program does not know the version.
    options: Option<InstallOptions>,
    /// The role that installed it, which owns the schema.
    installer: String,
    /// `true` if this role can trust the installer.
    is_trusted: bool,
}

impl Installation {
    /// Parses a row of [`sql::installed`].
    pub(crate) fn parse(row: &Row) -> Result<Self, Error> {
        let (comment, installer, is_trusted) = (string(row, 0), string(row, 1), is_true(row, 2));
        let (version, options) = parse_comment(&comment)?;
        Ok(Self { version, options, installer, is_trusted })
    }

    /// Returns the options. `place` is the database, for error texts.
    ///
    /// # Errors
    ///
    /// [`Error::Changes`] if the installation is of another version, or if this role must not read its tables: the owner of a
    /// table can have its readers execute code.
    pub(crate) fn readable_options(self, place: &str) -> Result<InstallOptions, Error> {
        let Some(options) = self.options else {
            let version = self.version;
            return Err(changes_error(format!(
                "the installation at {place} is of version {version}: use that version's program"
            )));
        };
        if !self.is_trusted && (options.delivery == DeliveryMode::Log || options.oversize == Oversize::Spill) {
            return Err(changes_error(format!(
                "the schema notifyman at {place} belongs to role {}, which is no superuser, does not own the database, and \
                 does not have this role as a member: its tables are not read. Build as another role, or GRANT {0} to the \
                 role that reads",
                sql::identifier(&self.installer)
            )));
        }
        Ok(options)
    }
}

/// Returns the owner of functions that the comment of an installation of any version names.
pub(crate) fn named_owner(comment: &str) -> Option<String> {
    super::options::named_owner(comment.lines().nth(1)?)
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

/// A function in the database.
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
        let rows = db.query(&sql::functions())?;
        let function = |row: &Row| InstalledFunction {
            body: string(row, 2),
            is_definer: is_true(row, 3),
            settings: string(row, 4),
            owner: string(row, 5),
            is_public: is_true(row, 6),
            is_used: is_true(row, 7),
            is_trigger: is_true(row, 8),
            is_immutable: is_true(row, 9),
        };
        Ok(Self(rows.iter().map(|row| ((string(row, 0), string(row, 1)), function(row))).collect()))
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

/// The tables, sequences and event triggers of an installation.
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
    pub(crate) dropped: u64,
}

impl Objects {
    pub(crate) fn read(db: &mut Connection) -> Result<Self, Error> {
        Ok(Self::parse(&only_row(db, &sql::objects())?))
    }

    /// Parses the row of [`sql::objects`].
    pub(crate) fn parse(row: &Row) -> Self {
        let count = |column| string(row, column).parse().unwrap_or_default();
        Self {
            has_sequence: is_true(row, 0),
            has_outbox: is_true(row, 1),
            has_spilled: is_true(row, 2),
            is_open: is_true(row, 3),
            event_triggers: count(4),
            disabled_event_triggers: count(5),
            publications: row.get(6).map(|names| names.into_owned()),
            missing_of_log: row.get(7).map(|names| names.into_owned()),
            is_log_unlogged: is_true(row, 8),
            is_ordered: is_true(row, 9),
            is_log_full: is_true(row, 10),
            dropped: string(row, 11).parse().unwrap_or_default(),
            may_append: is_true(row, 12),
        }
    }

    /// Returns the problems of an installation with these options. A build fixes them.
    pub(crate) fn problems(&self, options: &InstallOptions) -> Vec<String> {
        let mut problems = Vec::new();
        let is_logged = options.delivery == DeliveryMode::Log;
        let needs_spilled = options.oversize == Oversize::Spill && !is_logged;
        if !self.has_sequence || needs_spilled && !self.has_spilled {
            problems.push("a table or the sequence of the schema notifyman is missing");
        }
        let of_log = self.missing_of_log.as_ref().filter(|_| is_logged);
        let of_log = of_log.map(|names| format!("objects of the log in the schema notifyman are missing: {names}"));
        problems.extend(of_log.as_deref());
        if is_logged && of_log.is_none() && self.is_log_unlogged != options.is_unlogged {
            problems.push(match options.is_unlogged {
                true => "the log is logged, although it was built as unlogged",
                false => "the log is unlogged, although it was not built so: a crash of the server empties it",
            });
        }
        if is_logged && of_log.is_none() && !self.may_append {
            problems
                .push("the owner of the functions that append to the log lacks a privilege: changes are not appended");
        }
        if !self.is_ordered {
            problems.push(
                "the sequence notifyman.number caches values, cycles, or does not increment by 1: changes can be read \
                 in another order than they were made",
            );
        }
        if self.has_outbox {
            problems.push("the outbox of an earlier version is still there");
        }
        if !self.is_open {
            problems.push("roles lack USAGE on the schema notifyman: their changes are reported without rows");
        }
        let wanted = if options.has_schema_events { 2 } else { 0 };
        if self.event_triggers < wanted {
            problems.push("an event trigger is missing: new tables are not covered");
        } else if self.event_triggers > wanted {
            problems.push("there are event triggers, although it was built without");
        }
        problems.into_iter().map(str::to_owned).collect()
    }

    /// Returns the conditions that an administrator should know of, for an installation with these options.
    pub(crate) fn warnings(&self, options: &InstallOptions) -> Vec<String> {
        let mut warnings = Vec::new();
        if options.delivery == DeliveryMode::Log && self.is_log_full {
            warnings.push(format!(
                "the log is full, and {} changes were not appended to it: run its workers, so that changes that they have \
                 read can be removed, delete unused names from notifyman.position, or build with a larger --keep-size",
                self.dropped
            ));
        }
        if self.disabled_event_triggers > 0 {
            warnings.push("an event trigger is disabled: new tables are not covered".to_owned());
        }
        if let Some(names) = &self.publications {
            warnings.push(format!(
                "publication {names} contains a table of the schema notifyman: a subscriber without that table stops at the \
                 first change to it"
            ));
        }
        warnings
    }
}

/// Returns the problem of the tables in one state, from a row of [`sql::uncovered`].
pub(crate) fn uncovered_problem(row: &Row) -> String {
    let (state, count, first) = (string(row, 0), string(row, 1), string(row, 2));
    format!("the triggers of {count} tables are {state} ({first} ..): run `notifyman build`")
}
