//! What is installed, and whether it is as it should be: by the catalogs alone.

use std::fmt;

use super::server::{Presence, Server, cannot, first, is, text};
use super::{glob, sql};
use crate::connection::Connection;
use crate::error::Error;

/// From how full a NOTIFY queue on something must be done.
pub(crate) const QUEUE_WARNING: f64 = 0.5;

/// Of so many tables the state is asked in one query.
const CHUNK: usize = 100;

/// What is installed in a database.
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

/// A table that is asked for, or has a trigger of ours, and how it stands.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// use notifyman::Connection;
/// use notifyman::changes::{Installer, Status};
///
/// # fn main() -> Result<(), notifyman::Error> {
/// let mut db = Connection::connect(database())?;
/// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
/// Installer::new().build(&mut db)?;
/// for table in Status::of(&mut db)?.tables() {
///     println!("{}: {}", table.sql_name, table.state);
/// #   assert_eq!(table.state, "right");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Both, as SQL has them.
    pub sql_name: String,
    /// `right`; `disabled`: somebody switched a trigger off, and it is left so; `missing`; `outdated`: its function
    /// isn't that of its columns and options; `different`: its triggers aren't; `left over`: it isn't asked for.
    pub state: String,
}

impl Status {
    /// Looks, and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Changes`] where another program has a schema `notifyman`; else as [`Connection::query`].
    pub fn of(db: &mut Connection) -> Result<Self, Error> {
        Self::of_some(db, &[], &[])
    }

    /// Looks at some tables alone: those that fit one of these patterns for schemas and for tables. No patterns are
    /// all.
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
        let server = Server::look(db)?;
        server.check_foreign()?;
        let mut status = Self::default();
        if server.presence == Presence::Nothing {
            status.problems.push("nothing is installed: run `notifyman build`".to_owned());
            return Ok(status);
        }
        let wanted = |schema: &str, name: &str| {
            (schemas.is_empty() || schemas.iter().any(|glob| glob::fits(glob, schema)))
                && (tables.is_empty() || tables.iter().any(|glob| glob::fits_table(glob, schema, name)))
        };
        match status.read(db, &server, wanted) {
            Ok(()) => Ok(status),
            // A table, a column or a function isn't there any more.
            Err(error) if error.sqlstate().is_some_and(|code| matches!(code, "42P01" | "42703" | "42883")) => {
                status.problems.push(format!("the installation is damaged, or of another version: {error}"));
                Ok(status)
            }
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, db: &mut Connection, server: &Server, wanted: impl Fn(&str, &str) -> bool) -> Result<(), Error> {
        let row = first(db, &sql::installation())?.filter(|_| server.presence == Presence::Ours);
        let Some(row) = row else {
            self.problems.push("the installation is damaged: its table `notifyman.installation` says nothing".into());
            return Ok(());
        };
        let names = [
            (0, "version"),
            (3, "shape"),
            (4, "oversize"),
            (5, "delivery"),
            (6, "with query"),
            (7, "schema events"),
            (8, "replicated"),
            (9, "schemas"),
            (10, "tables"),
            (11, "except schemas"),
            (12, "except tables"),
            (13, "installed at"),
            (14, "installed by"),
        ];
        self.settings = names
            .into_iter()
            .map(|(column, name)| match text(&row, column).as_str() {
                "t" => (name, "yes".to_owned()),
                "f" => (name, "no".to_owned()),
                text => (name, text.to_owned()),
            })
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let version: i32 = text(&row, 0).parse().unwrap_or_default();
        if version != sql::VERSION {
            self.problems.push(format!("it is of version {version}, and this program's is {}", sql::VERSION));
            return Ok(());
        }
        if !is(&row, 2) {
            self.problems.push("somebody has changed a function of the schema notifyman".to_owned());
        }
        if !server.has_tables {
            self.problems.push("a table or the sequence of the schema notifyman is gone".to_owned());
        }
        self.read_event_triggers(db, is(&row, 7))?;
        self.tables = tables(db)?;
        self.tables.retain(|table| wanted(&table.schema, &table.name));
        for table in &self.tables {
            match table.state.as_str() {
                "right" => {}
                "disabled" => {
                    self.warnings.push(format!("table {}: somebody switched its trigger off", table.sql_name))
                }
                state => self.problems.push(format!("table {}: its triggers are {state}", table.sql_name)),
            }
        }
        if server.prepares && text(&row, 5) == "notify" {
            self.warnings.push("max_prepared_transactions is set: PREPARE TRANSACTION fails after a change".to_owned());
        }
        self.warnings.extend(queue_warning(db)?);
        Ok(())
    }

    fn read_event_triggers(&mut self, db: &mut Connection, wanted: bool) -> Result<(), Error> {
        let events = db.query(&sql::event_triggers())?;
        if wanted && events.len() < 2 {
            self.problems.push("an event trigger is gone: new tables aren't covered".to_owned());
        }
        if events.iter().any(|row| text(row, 1) == "D") {
            self.warnings.push("somebody switched an event trigger off: new tables aren't covered".to_owned());
        }
        Ok(())
    }

    /// The SQL that is run to look, for `psql`.
    ///
    /// ```
    /// println!("{}", notifyman::changes::Status::sql());
    /// ```
    pub fn sql() -> String {
        let queries = [sql::server(), sql::installation(), sql::event_triggers(), sql::states(0, i32::MAX as usize)];
        format!("BEGIN READ ONLY;\n{};\nCOMMIT;\n", queries.join(";\n"))
    }

    /// Whether anything is installed.
    pub fn is_installed(&self) -> bool {
        !self.settings.is_empty()
    }

    /// What was asked for, as names and values, to be shown.
    pub fn settings(&self) -> &[(&'static str, String)] {
        &self.settings
    }

    /// The tables that are asked for or have triggers of ours.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// What isn't as it should be; a build mends it.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// What had better be known.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Display for Status {
    /// Lines for people: what was asked for, the tables by their state, the problems and the warnings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.settings {
            writeln!(f, "{name:<16} {value}")?;
        }
        if self.is_installed() {
            let right = self.tables.iter().filter(|table| table.state == "right").count();
            writeln!(f, "{:<16} {right} of {}", "tables right", self.tables.len())?;
        }
        self.problems.iter().try_for_each(|problem| writeln!(f, "problem: {problem}"))?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

/// Every table that is asked for or has a trigger of ours, by name.
pub(crate) fn tables(db: &mut Connection) -> Result<Vec<Table>, Error> {
    let mut tables = Vec::new();
    let mut after = 0;
    loop {
        let rows = db.query(&sql::states(after, CHUNK))?;
        let Some(last) = rows.last() else { break };
        after = text(last, 0).parse().map_err(|_| cannot("the server gave an OID that is no number"))?;
        let found = rows.iter().map(|row| Table {
            sql_name: text(row, 1),
            schema: text(row, 2),
            name: text(row, 3),
            state: text(row, 4),
        });
        // What is neither wanted nor there has no state.
        tables.extend(found.filter(|table| !table.state.is_empty()));
        if rows.len() < CHUNK {
            break;
        }
    }
    tables.sort_by(|a, b| a.sql_name.cmp(&b.sql_name));
    Ok(tables)
}

/// A warning where the server's NOTIFY queue is half full, or more.
pub(crate) fn queue_warning(db: &mut Connection) -> Result<Option<String>, Error> {
    let usage = first(db, "SELECT pg_catalog.pg_notification_queue_usage()")?;
    let usage: f64 = usage.and_then(|row| text(&row, 0).parse().ok()).unwrap_or_default();
    Ok((usage >= QUEUE_WARNING).then(|| {
        format!(
            "the server's NOTIFY queue is {:.0} % full; once it is full, every write to a covered table fails as it \
             commits: `notifyman doctor` says who holds it",
            usage * 100.0
        )
    }))
}
