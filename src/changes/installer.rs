//! Puts the triggers into a database, and takes them out again: each table in a short transaction of its own.
//!
//! ```text
//!   look ──> schema and functions (one transaction) ──> each table that isn't right (one each) ──> report
//!                                                          └── couldn't be locked? once more, after the others
//! ```

use std::time::Duration;

use super::options::{Delivery, Options, Oversize, Shape};
use super::report::{Progress, Report};
use super::server::{Presence, Server, cannot, first, is, text};
use super::{glob, sql, status};
use crate::connection::Connection;
use crate::error::{Error, ValueError};
use crate::row::Row;

/// Installs what tells of table changes: a schema `notifyman`, and triggers on tables.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// use notifyman::Connection;
/// use notifyman::changes::{Installer, Shape, Status};
///
/// # fn main() -> Result<(), notifyman::Error> {
/// let mut db = Connection::connect(database())?;
/// db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
///
/// let installer = Installer::new().tables(["price", "stock*"]).shape(Shape::Keys);
/// println!("{}", installer.build_sql(&mut db)?);       // what it would do
/// let report = installer.build(&mut db)?;
/// assert_eq!(report.covered(), ["public.price"]);
/// assert!(report.failed().is_empty());
///
/// assert!(Status::of(&mut db)?.problems().is_empty());
/// Installer::new().teardown(&mut db)?;
/// # Ok(()) }
/// ```
///
/// Building again changes only what differs: also when other options are given, which then count alone.
#[derive(Debug, Clone)]
pub struct Installer {
    options: Options,
    lock_timeout: Duration,
    attempts: u32,
}

impl Default for Installer {
    fn default() -> Self {
        Self { options: Options::default(), lock_timeout: Duration::from_secs(1), attempts: 3 }
    }
}

impl Installer {
    /// All tables of all schemas, in whole rows, by NOTIFY.
    ///
    /// ```
    /// use std::time::Duration;
    /// use notifyman::changes::Installer;
    ///
    /// let installer = Installer::new()
    ///     .schemas(["shop", "stock_*"])
    ///     .except_tables(["*_log"])
    ///     .with_query(true)
    ///     .schema_events(false)
    ///     .lock_timeout(Duration::from_millis(200))
    ///     .attempts(5);
    /// # drop(installer);
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Only the schemas that fit one of these; `*` is any text, `?` any character.
    #[must_use]
    pub fn schemas<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.options.schemas.extend(globs.into_iter().map(Into::into));
        self
    }

    /// Only the tables that fit one of these, by their name or as `schema.name`.
    #[must_use]
    pub fn tables<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.options.tables.extend(globs.into_iter().map(Into::into));
        self
    }

    /// But not the schemas that fit one of these.
    #[must_use]
    pub fn except_schemas<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.options.except_schemas.extend(globs.into_iter().map(Into::into));
        self
    }

    /// But not the tables that fit one of these, by their name or as `schema.name`.
    #[must_use]
    pub fn except_tables<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.options.except_tables.extend(globs.into_iter().map(Into::into));
        self
    }

    /// Whole rows, or keys.
    #[must_use]
    pub fn shape(mut self, shape: Shape) -> Self {
        self.options.shape = shape;
        self
    }

    /// What becomes of what is too long.
    #[must_use]
    pub fn oversize(mut self, oversize: Oversize) -> Self {
        self.options.oversize = oversize;
        self
    }

    /// By NOTIFY, or by a table.
    #[must_use]
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.options.delivery = delivery;
        self
    }

    /// Whether the text of the query is told. It carries its literals to every listener, and is copied for each row.
    #[must_use]
    pub fn with_query(mut self, with: bool) -> Self {
        self.options.with_query = with;
        self
    }

    /// Whether changes to tables' definitions are told, and new tables covered as they are created; it is so unless
    /// switched off. It takes event triggers, which only a superuser can create.
    ///
    /// Without them, build again after each migration: a new table isn't covered before that, and a new column isn't
    /// told.
    #[must_use]
    pub fn schema_events(mut self, with: bool) -> Self {
        self.options.no_schema_events = !with;
        self
    }

    /// Whether rows are told that replication applies (`session_replication_role = replica`). The apply worker of
    /// logical replication fires row triggers only, so of what it applies the keys shape tells nothing.
    #[must_use]
    pub fn replicated(mut self, told: bool) -> Self {
        self.options.replicated = told;
        self
    }

    /// How long a table's lock is waited for; a second, unless set. While it is waited for, others wait behind it.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// How many times a table is tried whose lock can't be had; three, unless set.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Installs, or changes what differs; see [`build_with`](Self::build_with).
    ///
    /// # Errors
    ///
    /// The same.
    pub fn build(&self, db: &mut Connection) -> Result<Report, Error> {
        self.build_with(db, |_| {})
    }

    /// Installs, or changes what differs, and tells how far it is.
    ///
    /// The schema and its functions are one transaction, and each table is one. A table whose triggers are right isn't
    /// locked. What couldn't be done is in the [report](Report::failed), and doing the same again finishes it.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::Connection;
    /// use notifyman::changes::Installer;
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// let mut db = Connection::connect(database())?;
    /// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
    /// Installer::new().build_with(&mut db, |step| println!("{} of {}: {}", step.done, step.total, step.table))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Changes`] where nothing can be done here: a server older than PostgreSQL 12, a standby, a schema
    /// `notifyman` of another program, an installation by a later version, no right to make it; [`Error::Value`] for
    /// the name of a table that isn't there; else as [`Connection::query`]. Then each table is as it was, or done.
    pub fn build_with(&self, db: &mut Connection, tell: impl FnMut(Progress<'_>)) -> Result<Report, Error> {
        let server = self.check(db)?;
        Self::alone(db, |db| self.build_alone(db, &server, tell))
    }

    fn build_alone(
        &self,
        db: &mut Connection,
        server: &Server,
        mut tell: impl FnMut(Progress<'_>),
    ) -> Result<Report, Error> {
        let mut report = Report { warnings: self.warnings(server), ..Report::default() };
        // Another build may just have ended.
        let found = Server::look(db)?;
        if !self.is_installed(db, &found)? {
            self.run_again(db, &sql::install(&self.options)).map_err(|error| self.explained(error))?;
            report.schema_changed = true;
        }

        let mut left = Vec::new();
        for table in status::tables(db)? {
            match table.state.as_str() {
                "right" | "disabled" => report.unchanged += 1,
                _ => left.push(table.sql_name),
            }
        }
        let total = report.unchanged + left.len();
        let mut done = report.unchanged;
        report.failed = self.each(db, left, |db, table| {
            let rows = self.run(db, &sql::cover(table));
            let rows = match rows {
                // It was dropped meanwhile.
                Err(error) if matches!(error.sqlstate(), Some("42P01" | "3F000")) => return Ok(()),
                rows => rows?,
            };
            done += 1;
            tell(Progress { done, total, table });
            match rows.last().map(|row| text(row, 0)).as_deref() {
                Some("covered") => report.covered.push(table.to_owned()),
                Some("changed") => report.changed.push(table.to_owned()),
                Some("removed") => report.removed.push(table.to_owned()),
                _ => report.unchanged += 1,
            }
            Ok(())
        })?;
        self.run_again(db, sql::DROP_UNUSED)?;
        Ok(report)
    }

    /// The SQL that [`build`](Self::build) would run, for `psql`; nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with).
    pub fn build_sql(&self, db: &mut Connection) -> Result<String, Error> {
        let server = self.check(db)?;
        let mut script = String::from("\\set ON_ERROR_STOP on\n");
        let is_installed = self.is_installed(db, &server)?;
        let tables: Vec<String> = if is_installed {
            let tables = status::tables(db)?.into_iter();
            tables.filter(|it| !matches!(it.state.as_str(), "right" | "disabled")).map(|it| it.sql_name).collect()
        } else {
            script.push_str(&sql::transaction(self.lock_timeout, &sql::install(&self.options)));
            let covered = db.query(&sql::triggers())?.iter().map(|row| text(row, 0)).collect::<Vec<_>>();
            let wanted = db.query(&sql::selected(&self.options))?;
            let mut tables: Vec<_> = wanted.iter().map(|row| text(row, 2)).chain(covered).collect();
            tables.sort();
            tables.dedup();
            tables
        };
        script.push_str("\n-- A table that can't be locked now is left for another run.\n\\set ON_ERROR_STOP off\n");
        for table in &tables {
            script.push_str(&sql::transaction(self.lock_timeout, &sql::cover(table)));
        }
        Ok(script + &sql::transaction(self.lock_timeout, sql::DROP_UNUSED))
    }

    /// Removes everything: the triggers, each table's in a transaction of its own, and then the schema.
    ///
    /// What hasn't been read of an outbox goes with it.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::Connection;
    /// use notifyman::changes::Installer;
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// let mut db = Connection::connect(database())?;
    /// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
    /// # Installer::new().build(&mut db)?;
    /// let report = Installer::new().teardown(&mut db)?;
    /// assert_eq!(report.removed(), ["public.price"]);
    /// assert!(report.schema_changed());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with). Where a table couldn't be locked it is in the report, and the schema stays.
    pub fn teardown(&self, db: &mut Connection) -> Result<Report, Error> {
        self.teardown_with(db, |_| {})
    }

    /// Removes everything, and tells how far it is.
    ///
    /// # Errors
    ///
    /// As [`teardown`](Self::teardown).
    pub fn teardown_with(&self, db: &mut Connection, tell: impl FnMut(Progress<'_>)) -> Result<Report, Error> {
        let server = Server::look(db)?;
        server.check_writable()?;
        match server.presence {
            Presence::Nothing => Ok(Report::default()),
            _ => Self::alone(db, |db| self.teardown_alone(db, tell)),
        }
    }

    fn teardown_alone(&self, db: &mut Connection, mut tell: impl FnMut(Progress<'_>)) -> Result<Report, Error> {
        let mut report = Report::default();
        // No table is to be covered any more from now on.
        let events = db.query(&sql::event_triggers())?;
        if !events.is_empty() {
            self.run(db, &events.iter().map(|row| text(row, 0)).collect::<Vec<_>>().join("\n"))?;
        }
        let drops: Vec<_> = db.query(&sql::triggers())?.iter().map(|row| (text(row, 0), text(row, 1))).collect();
        let total = drops.len();
        let tables = drops.iter().map(|(table, _)| table.clone()).collect();
        let mut done = 0;
        report.failed = self.each(db, tables, |db, table| {
            let drop = drops.iter().find(|(name, _)| name == table).map_or("", |(_, drop)| drop);
            self.run(db, drop)?;
            done += 1;
            tell(Progress { done, total, table });
            report.removed.push(table.to_owned());
            Ok(())
        })?;
        if report.failed.is_empty() {
            self.run(db, &sql::remove())?;
            report.schema_changed = true;
        }
        Ok(report)
    }

    /// The SQL that [`teardown`](Self::teardown) would run, for `psql`; nothing is changed.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::Connection;
    /// use notifyman::changes::Installer;
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// let mut db = Connection::connect(database())?;
    /// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
    /// # Installer::new().build(&mut db)?;
    /// println!("{}", Installer::new().teardown_sql(&mut db)?); // nothing is changed
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`teardown`](Self::teardown).
    pub fn teardown_sql(&self, db: &mut Connection) -> Result<String, Error> {
        let server = Server::look(db)?;
        server.check_writable()?;
        if server.presence == Presence::Nothing {
            return Ok("-- There is nothing to remove.\n".to_owned());
        }
        let mut script = String::from("\\set ON_ERROR_STOP on\n");
        let (events, triggers) = (db.query(&sql::event_triggers())?, db.query(&sql::triggers())?);
        let statements = events.iter().map(|row| text(row, 0)).chain(triggers.iter().map(|row| text(row, 1)));
        for statement in statements.chain([sql::remove()]) {
            script.push_str(&sql::transaction(self.lock_timeout, &statement));
        }
        Ok(script)
    }

    /// Whether it can be built here, and the names that were given are those of something.
    fn check(&self, db: &mut Connection) -> Result<Server, Error> {
        let server = Server::look(db)?;
        server.check_writable()?;
        server.check_may_create()?;
        let tables: Vec<(String, String)> =
            db.query(&sql::selected(&self.options))?.iter().map(|row| (text(row, 0), text(row, 1))).collect();
        let missing = |what: &str, name: &str| ValueError {
            message: format!(
                "there is no {what} {name:?} that could be covered: see that it is spelled as in the catalogs, where \
                 case counts, and isn't excluded; views, temporary tables and extensions' tables have no triggers of ours"
            ),
        };
        for name in self.options.tables.iter().filter(|name| glob::is_plain(name)) {
            if !tables.iter().any(|(schema, table)| glob::fits_table(name, schema, table)) {
                return Err(missing("table", name).into());
            }
        }
        for name in self.options.schemas.iter().filter(|name| glob::is_plain(name)) {
            if !tables.iter().any(|(schema, _)| schema == name) {
                return Err(missing("table in a schema", name).into());
            }
        }
        Ok(server)
    }

    /// Whether the schema and its functions are as they would be made.
    fn is_installed(&self, db: &mut Connection, server: &Server) -> Result<bool, Error> {
        if server.presence != Presence::Ours {
            return Ok(false);
        }
        // Where it says no version it is damaged, and an older version's table has other columns: both are made anew.
        let version = or_none(first(db, &sql::version()))?.and_then(|row| text(&row, 0).parse().ok()).unwrap_or(0);
        if version > sql::VERSION {
            return Err(cannot(format!(
                "what is installed is of version {version}, and this program knows those up to {}: use a later notifyman",
                sql::VERSION
            )));
        }
        let Some(row) = or_none(first(db, &sql::installation()))? else { return Ok(false) };
        let events = db.query(&sql::event_triggers())?;
        let events_right = match self.options.no_schema_events {
            true => events.is_empty(),
            // One that somebody switched off stays so.
            false => events.len() == 2,
        };
        Ok(text(&row, 1) == sql::fingerprint(&self.options) && is(&row, 2) && events_right && server.has_tables)
    }

    fn warnings(&self, server: &Server) -> Vec<String> {
        let mut warnings = Vec::new();
        if server.prepares && self.options.delivery == Delivery::Notify {
            warnings.push(
                "max_prepared_transactions is set: PREPARE TRANSACTION fails after a change to a covered table, since \
                 PostgreSQL can't prepare a NOTIFY; --delivery table goes with it"
                    .to_owned(),
            );
        }
        if self.options.no_schema_events {
            warnings.push(
                "without schema events, build again after each migration: new tables aren't covered before that, and \
                 new columns aren't told"
                    .to_owned(),
            );
        }
        if self.options.replicated && self.options.shape == Shape::Keys && server.version > 12 {
            warnings.push(
                "the apply worker of logical replication fires no statement triggers, which those of the keys shape are: \
                 what it applies isn't told; --shape rows tells it"
                    .to_owned(),
            );
        }
        warnings
    }

    /// A refusal for want of rights says what would help.
    fn explained(&self, error: Error) -> Error {
        match error.sqlstate() {
            Some("42501") if !self.options.no_schema_events => cannot(format!(
                "{error}. Event triggers need a superuser: without them (--no-schema-events, \
                 Installer::schema_events(false)) the rest is installed, and builds again after each migration cover \
                 what is new"
            )),
            _ => error,
        }
    }

    /// Does something while no other build or teardown runs in this database.
    fn alone<T>(db: &mut Connection, act: impl FnOnce(&mut Connection) -> Result<T, Error>) -> Result<T, Error> {
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

    /// Does something to each of these tables; those that can't be locked are tried again after the others.
    fn each(
        &self,
        db: &mut Connection,
        mut left: Vec<String>,
        mut act: impl FnMut(&mut Connection, &str) -> Result<(), Error>,
    ) -> Result<Vec<(String, Error)>, Error> {
        let mut failed = Vec::new();
        for attempt in 1..=self.attempts {
            let mut again = Vec::new();
            for table in left {
                match act(db, &table) {
                    Ok(()) => {}
                    Err(error) if db.is_closed() => return Err(error),
                    Err(error) if is_for_now(&error) && attempt < self.attempts => again.push(table),
                    Err(error) => failed.push((table, error)),
                }
            }
            left = again;
        }
        Ok(failed)
    }

    /// Runs one transaction, and again while others are in its way.
    fn run_again(&self, db: &mut Connection, statements: &str) -> Result<Vec<Row>, Error> {
        for _ in 1..self.attempts {
            match self.run(db, statements) {
                Err(error) if is_for_now(&error) && !db.is_closed() => {}
                result => return result,
            }
        }
        self.run(db, statements)
    }

    /// Runs one transaction; after an error there is none.
    fn run(&self, db: &mut Connection, statements: &str) -> Result<Vec<Row>, Error> {
        let result = db.query(&sql::transaction(self.lock_timeout, statements));
        if result.is_err() && !db.is_closed() {
            db.execute("ROLLBACK")?;
        }
        result
    }
}

/// A column that isn't there is as good as no answer.
fn or_none(answer: Result<Option<Row>, Error>) -> Result<Option<Row>, Error> {
    match answer {
        Err(error) if error.sqlstate() == Some("42703") => Ok(None),
        answer => answer,
    }
}

/// Whether it failed because of what others were doing: a lock that couldn't be had, a deadlock, the same done twice.
fn is_for_now(error: &Error) -> bool {
    matches!(error.sqlstate(), Some("55P03" | "40P01" | "40001" | "XX000" | "23505"))
}
