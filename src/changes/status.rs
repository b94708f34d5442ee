//! The state of an installation, read from the catalogs.

use std::fmt;

use super::functions::{self, FunctionDefinition};
use super::installation::{self, Functions, Objects};
use super::options::{DeliveryMode, InstallOptions};
use super::rows::{changes_error, first_row, is_true, string};
use super::server_facts::ServerFacts;
use super::table::{Table, TableState};
use super::{glob, sql};
use crate::connection::Connection;
use crate::error::{Error, Escaped};

/// The used fraction of the NOTIFY queue from which on a warning is given.
const QUEUE_WARNING: f64 = 0.5;

/// The state of the installation in a database.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// use notifyman::Connection;
/// use notifyman::changes::Status;
///
/// # fn main() -> Result<(), notifyman::Error> {
/// # let mut db = Connection::connect(database())?;
/// let status = Status::of(&mut db)?;
/// assert!(!status.is_installed());
/// assert_eq!(status.problems(), ["nothing is installed: run `notifyman build`"]);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Status {
    settings: Vec<(&'static str, String)>,
    tables: Vec<Table>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Status {
    /// Reads the state of an installation. Nothing is changed.
    ///
    /// # Errors
    ///
    /// [`Error::Changes`] if the schema `notifyman` is of another program, and the errors of [`Connection::query`].
    pub fn of(db: &mut Connection) -> Result<Self, Error> {
        Self::of_some(db, &[], &[])
    }

    /// Reads the state of an installation, and lists only tables that match one of these patterns of schemas and one of these
    /// patterns of tables. Without patterns, all match.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::Connection;
    /// use notifyman::changes::{Installer, Status};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// let mut db = Connection::connect(database())?;
    /// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
    /// # Installer::new().build(&mut db)?;
    /// let status = Status::of_some(&mut db, &[], &["price".to_owned()])?;
    /// assert_eq!(status.tables().len(), 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of).
    pub fn of_some(db: &mut Connection, schemas: &[String], tables: &[String]) -> Result<Self, Error> {
        let server = ServerFacts::read(db, "")?;
        server.check_foreign()?;
        let mut status = Self::default();
        let wanted = |schema: &str, name: &str| {
            (schemas.is_empty() || schemas.iter().any(|glob| glob::fits(glob, schema)))
                && (tables.is_empty() || tables.iter().any(|glob| glob::fits_table(glob, schema, name)))
        };
        match status.read(db, &server, wanted) {
            Ok(()) => {}
            // A table, a column or a function does not exist.
            Err(error) if error.sqlstate().is_some_and(|code| matches!(code, "42P01" | "42703" | "42883")) => {
                status.problems.push(format!("the installation is damaged, or of another version: {error:#}"));
            }
            Err(Error::Changes(reason)) => status.problems.push(reason.to_string()),
            Err(error) => return Err(error),
        }
        Ok(status)
    }

    fn read(
        &mut self,
        db: &mut Connection,
        server: &ServerFacts,
        wanted: impl Fn(&str, &str) -> bool,
    ) -> Result<(), Error> {
        if !server.has_schema {
            return Err(changes_error("nothing is installed: run `notifyman build`"));
        }
        let (version, options) = installation::parse_comment(&server.comment)?;
        let Some(options) = options else {
            let remedy = if version > sql::VERSION { "use a later notifyman" } else { "build again" };
            return Err(changes_error(format!(
                "the installation is of version {version}, and this program installs version {}: {remedy}",
                sql::VERSION
            )));
        };
        self.settings = settings(version, &options, &server.installer);
        let objects = Objects::read(db)?;
        if options.has_log() {
            let size = first_row(db, sql::LOG_SIZE)?.map(|row| string(&row, 0)).unwrap_or_default();
            self.settings.push(("log size", size_of(size.parse().unwrap_or_default())));
            if objects.dropped > 0 {
                let dropped = format!("{} changes in total, because the log was full", objects.dropped);
                self.settings.push(("not appended", dropped));
            }
        }
        self.problems.extend(objects.problems(&options));
        self.warnings.extend(objects.warnings(&options));
        let present = Functions::read(db)?;
        let is_wrong = |function: &&FunctionDefinition| !present.is_right(function, &options.owner, &server.installer);
        let (common, of_tables) = (functions::common(&options), installation::functions_of_tables(db, &options)?);
        // If the function for a table's columns does not exist, the table uses the one for any table.
        let of_tables = of_tables.iter().filter(|function| present.has(function));
        for function in common.iter().chain(of_tables).filter(is_wrong) {
            self.problems.push(format!("function notifyman.{} is not as a build creates it", function.name));
        }
        for row in
            db.query(&sql::all_tables(&options, false))?.iter().filter(|row| wanted(&string(row, 2), &string(row, 3)))
        {
            let state = TableState::parse(&string(row, 4));
            let table = Table { sql_name: string(row, 1), schema: string(row, 2), name: string(row, 3), state };
            if is_true(row, 6) {
                self.warnings.push(format!(
                    "table {}: changes are reported without rows, because the type of a column belongs to a role that is \
                     neither the table's owner nor a superuser",
                    table.sql_name
                ));
            }
            self.tables.push(table);
        }
        for table in &self.tables {
            match table.state {
                TableState::Right | TableState::Generic => {}
                TableState::Disabled => {
                    self.warnings.push(format!("table {}: its trigger is disabled", table.sql_name))
                }
                state => self.problems.push(format!("table {}: its triggers are {state}", table.sql_name)),
            }
        }
        if !server.may_notify && options.delivery == DeliveryMode::Notify {
            self.problems.push(
                "EXECUTE on pg_notify has been revoked from PUBLIC: every write to a covered table fails".to_owned(),
            );
        }
        if server.allows_prepare && options.delivery == DeliveryMode::Notify {
            self.warnings.push("max_prepared_transactions is set: PREPARE TRANSACTION fails after a change".to_owned());
        }
        let usage = first_row(db, sql::QUEUE_USAGE)?.and_then(|row| string(&row, 0).parse().ok()).unwrap_or_default();
        self.warnings.extend(queue_warning(usage));
        Ok(())
    }

    /// Returns the SQL that reads the state, as a script for `psql`.
    ///
    /// ```
    /// println!("{}", notifyman::changes::Status::sql());
    /// ```
    pub fn sql() -> String {
        let server = sql::server("");
        let queries = [&*server, sql::INSTALLED, sql::OBJECTS, sql::EVENT_TRIGGERS, sql::FUNCTIONS, sql::TRIGGERS]
            .map(str::trim_end);
        format!("BEGIN READ ONLY;\n{};\nCOMMIT;\n", queries.join(";\n"))
    }

    /// Returns `true` if anything is installed.
    pub fn is_installed(&self) -> bool {
        !self.settings.is_empty()
    }

    /// Returns the options of the installation as names and values, for display.
    pub fn settings(&self) -> &[(&'static str, String)] {
        &self.settings
    }

    /// Returns the tables that are selected or have triggers of the installation.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Returns the problems of the installation. A build fixes them.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Returns the conditions that an administrator should know of.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Display for Status {
    /// Writes one line for each option, for the tables, and for each problem and warning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.settings {
            writeln!(f, "{name:<16} {}", Escaped(value))?;
        }
        if self.is_installed() {
            let count = |state| self.tables.iter().filter(|table| table.state == state).count();
            let (generic, all) = (count(TableState::Generic), self.tables.len());
            let right = count(TableState::Right) + generic;
            writeln!(f, "{:<16} {right} of {all}", "tables right")?;
            if generic > 0 {
                let until = "with the function for any table until the next build";
                writeln!(f, "{:<16} {generic}, {until}", "of them generic")?;
            }
        }
        self.problems.iter().try_for_each(|problem| writeln!(f, "problem: {}", Escaped(problem)))?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {}", Escaped(warning)))
    }
}

/// Returns the options as names and values.
fn settings(version: i32, options: &InstallOptions, installer: &str) -> Vec<(&'static str, String)> {
    let yes_or_no = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let of_log = |value: String| if options.has_log() { value } else { String::new() };
    let settings = [
        ("version", version.to_string()),
        ("shape", options.shape.to_string()),
        ("oversize", options.oversize.to_string()),
        ("delivery", options.delivery.to_string()),
        ("keep for", of_log(format!("{} s", options.keep_for.as_secs()))),
        ("keep size", of_log(size_of(options.keep_size))),
        ("unlogged", of_log(yes_or_no(options.is_unlogged))),
        ("with query", yes_or_no(options.with_query)),
        ("schema events", yes_or_no(options.has_schema_events)),
        ("replicated", yes_or_no(options.replicated)),
        ("schemas", options.schemas.join(" ")),
        ("tables", options.tables.join(" ")),
        ("except schemas", options.except_schemas.join(" ")),
        ("except tables", options.except_tables.join(" ")),
        ("owner", options.owner.clone()),
        ("installed by", installer.to_owned()),
    ];
    settings.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// Returns a number of bytes with a unit.
fn size_of(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB")];
    match UNITS.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} bytes"),
    }
}

/// Returns a warning if the server's NOTIFY queue is at least half full.
pub(crate) fn queue_warning(usage: f64) -> Option<String> {
    (usage >= QUEUE_WARNING).then(|| {
        format!(
            "the server's NOTIFY queue is {:.0} % full, and once it is full, every write to a covered table fails at commit: \
             run `notifyman doctor` to find the session that holds it",
            usage * 100.0
        )
    })
}
