//! Installs the triggers in a database, and removes them: each table in a short transaction of its own.
//!
//! ```text
//!   checks ──> schema and functions ──> each table that is not right (one transaction each) ──> report
//!              (one transaction)          └── lock timeout: again, after the others
//! ```

mod build;
mod checks;
mod outbox;
mod settings;
mod teardown;

use std::time::Duration;

use self::settings::BuildSettings;
use super::options::{DeliveryMode, Oversize, Shape};
use super::report::{Progress, Report};
use crate::connection::Connection;
use crate::error::Error;

/// Installs a schema `notifyman`, and triggers that report changes to tables.
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
/// Another build changes only what differs. It does not remember the options of the previous build: an option that is not
/// given has its default.
#[doc(alias = "pg_events")]
#[must_use]
#[derive(Debug, Clone, Default)]
pub struct Installer {
    settings: BuildSettings,
}

impl Installer {
    /// Creates an installer for all tables of all schemas, which reports whole rows by NOTIFY.
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

    /// Adds patterns of schemas; other schemas are not covered. `*` matches any text, `?` any character.
    pub fn schemas<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.settings.options.schemas.extend(globs.into_iter().map(Into::into));
        self
    }

    /// Adds patterns of tables, which match a table's name or `schema.name`; other tables are not covered. A partition is also
    /// covered if the root of its tree is, and patterns of schemas match one of both.
    pub fn tables<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.settings.options.tables.extend(globs.into_iter().map(Into::into));
        self
    }

    /// Adds patterns of schemas that are not covered.
    pub fn except_schemas<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.settings.options.except_schemas.extend(globs.into_iter().map(Into::into));
        self
    }

    /// Adds patterns of tables that are not covered, which match a table's name or `schema.name`. One that matches the root of a
    /// tree of partitions leaves out the whole tree, and one that matches a partition only that.
    pub fn except_tables<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.settings.options.except_tables.extend(globs.into_iter().map(Into::into));
        self
    }

    /// Sets whether changes report whole rows, which is the default, or keys.
    pub fn shape(mut self, shape: Shape) -> Self {
        self.settings.options.shape = shape;
        self
    }

    /// Sets how a payload is reported that is too long for NOTIFY. The default is by the row's key.
    pub fn oversize(mut self, oversize: Oversize) -> Self {
        self.settings.options.oversize = oversize;
        self
    }

    /// Sets how changes are delivered: by NOTIFY, which is the default, or by a log.
    ///
    /// If the database has a log, a build without this call is refused. Delivery by NOTIFY would end the log and all positions
    /// in it, so it must be set explicitly.
    pub fn delivery(mut self, delivery: DeliveryMode) -> Self {
        self.settings.options.delivery = delivery;
        self.settings.is_delivery_explicit = true;
        self
    }

    /// Sets the age up to which the log keeps changes that have been read, in whole seconds, from 1 second to 10 years. The
    /// default is 24 hours.
    pub fn keep_for(mut self, age: Duration) -> Self {
        self.settings.options.keep_for = Duration::from_secs(age.as_secs());
        self
    }

    /// Sets the size of the log's three tables together with their indexes, in bytes, from 1 MiB to 1 EiB. The default is
    /// 1 GiB.
    ///
    /// At twice this size nothing more is appended: statements succeed, their changes are counted, and each worker reports a
    /// gap.
    pub fn keep_size(mut self, bytes: u64) -> Self {
        self.settings.options.keep_size = bytes;
        self
    }

    /// Sets whether the log's tables are unlogged. The default is `false`.
    ///
    /// An unlogged log makes writes cheaper, and no publication contains it. But a crash of the server empties it, which each
    /// worker reports as a gap, and a standby has none.
    pub fn unlogged(mut self, unlogged: bool) -> Self {
        self.settings.options.is_unlogged = unlogged;
        self
    }

    /// Sets whether a build discards the unread changes in the outbox of an earlier version. The default is `false`: a build
    /// is refused while there are any.
    pub fn discard_outbox(mut self, discard: bool) -> Self {
        self.settings.discards_outbox = discard;
        self
    }

    /// Sets whether changes contain the text of the query. The default is `false`, because every listener can then read the
    /// literals of the query, and it is copied for each row.
    pub fn with_query(mut self, with: bool) -> Self {
        self.settings.options.with_query = with;
        self
    }

    /// Sets whether changes to tables' definitions are reported, and new tables covered when they are created. The default is
    /// `true`. It needs event triggers, which only a superuser can create.
    ///
    /// Without them, build again after each migration, since a new table is not covered before that.
    #[doc(alias = "PG_EVENTS_DB_SCHEMA_UPDATE_CALLBACK")]
    pub fn schema_events(mut self, with: bool) -> Self {
        self.settings.options.has_schema_events = with;
        self
    }

    /// Sets whether rows that replication applies are reported (`session_replication_role = replica`). The default is `false`.
    ///
    /// A change of this option executes an ALTER TABLE for each trigger, which is itself reported. The apply worker of logical
    /// replication fires row triggers only, so in the keys shape the rows that it applies are not reported.
    pub fn replicated(mut self, reported: bool) -> Self {
        self.settings.options.replicated = reported;
        self
    }

    /// Sets the role that owns the `SECURITY DEFINER` functions. The default is `notifyman_owner`.
    ///
    /// A build creates it, without login, if it does not exist and this role may create roles. Grant it only to the installer,
    /// since a member of it can change its functions. The databases of a cluster share it, and the last teardown drops it.
    pub fn owner(mut self, role: impl Into<String>) -> Self {
        self.settings.options.owner = role.into();
        self
    }

    /// Sets whether a log is installed even if a publication is `FOR ALL TABLES`. The default is `false`: a build is refused,
    /// unless the log is [unlogged](Self::unlogged).
    ///
    /// Every subscriber must then have the tables `log_0`, `log_1`, `log_2` and `position` of the schema `notifyman`, or it
    /// stops at the first change.
    pub fn force(mut self, force: bool) -> Self {
        self.settings.is_forced = force;
        self
    }

    /// Sets the maximum wait for a table's lock, during which other sessions wait behind this one. The default is one second.
    ///
    /// A role that may not set `deadlock_timeout` waits in its last attempt for at least that time plus 0.5 s.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.settings.lock_timeout = timeout;
        self
    }

    /// Sets the number of attempts to lock a table. The default is three.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.settings.attempts = attempts.max(1);
        self
    }

    /// Installs everything, or changes what differs. See [`build_with`](Self::build_with).
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with).
    pub fn build(&self, db: &mut Connection) -> Result<Report, Error> {
        self.build_with(db, |_| {})
    }

    /// Installs everything, or changes what differs, and calls `report_progress` after each table.
    ///
    /// The schema and its functions are one transaction, and each table is one. A table whose triggers are right is not locked.
    /// Tables that could not be done are in the [report](Report::failed), and another build completes them.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::Connection;
    /// use notifyman::changes::Installer;
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// let mut db = Connection::connect(database())?;
    /// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
    /// Installer::new().build_with(&mut db, |step| {
    ///     println!("{} of {}: {}", step.done, step.total, step.table)
    /// })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Error::Changes`] if a build is not possible here: on a server older than PostgreSQL 12, on a standby, without the
    ///   necessary privileges, and if the schema `notifyman` is of another program or of a later version.
    /// - [`Error::Value`] for the name of a table that does not exist.
    /// - The errors of [`Connection::query`]. Each table is then as it was, or done.
    pub fn build_with(&self, db: &mut Connection, report_progress: impl FnMut(Progress<'_>)) -> Result<Report, Error> {
        build::build(db, &self.settings, report_progress)
    }

    /// Returns the SQL that [`build`](Self::build) would execute, as a script for `psql`. Nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with).
    pub fn build_sql(&self, db: &mut Connection) -> Result<String, Error> {
        build::script(db, &self.settings)
    }

    /// Removes everything: the triggers of each table in a transaction of its own, and then the schema.
    ///
    /// Unread changes in a log, or in the outbox of an earlier version, are removed with it. The owner of functions is dropped
    /// if a build created it and nothing in any database depends on it.
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
    /// As [`build_with`](Self::build_with). A table that could not be locked is in the report, and the schema remains.
    pub fn teardown(&self, db: &mut Connection) -> Result<Report, Error> {
        self.teardown_with(db, |_| {})
    }

    /// Removes everything, and calls `report_progress` after each table.
    ///
    /// # Errors
    ///
    /// As [`teardown`](Self::teardown).
    pub fn teardown_with(
        &self,
        db: &mut Connection,
        report_progress: impl FnMut(Progress<'_>),
    ) -> Result<Report, Error> {
        teardown::teardown(db, &self.settings, report_progress)
    }

    /// Returns the SQL that [`teardown`](Self::teardown) would execute, as a script for `psql`. Nothing is changed.
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
        teardown::script(db, &self.settings)
    }
}
