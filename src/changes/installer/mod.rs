//! Installs the triggers in a database, and removes them: each table in a short transaction of its own.
//!
//! ```text
//!   look ──> schema ──> functions of tables (one transaction each) ──> each table that is not right (one each) ──> report
//!                                                                        └── cannot be locked? again, after the others
//! ```

mod checks;
mod outbox;

use std::time::Duration;

use super::installation::{self, Functions, Objects};
use super::options::{DeliveryMode, InstallOptions, Oversize, Shape};
use super::report::{Progress, Report};
use super::runner::{self, Runner, TableTask};
use super::server_facts::{Presence, ServerFacts, cannot, text};
use super::{functions, grants, sql};
use crate::connection::Connection;
use crate::error::Error;

/// Installs what reports table changes: a schema `notifyman`, and triggers on tables.
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
/// A second build changes only what differs. It does not remember options: one that is not given returns to its default.
#[derive(Debug, Clone)]
pub struct Installer {
    options: InstallOptions,
    /// The delivery was chosen, so that another one may end.
    is_delivery_chosen: bool,
    is_forced: bool,
    discards_outbox: bool,
    lock_timeout: Duration,
    attempts: u32,
}

impl Default for Installer {
    fn default() -> Self {
        Self {
            options: InstallOptions::default(),
            is_delivery_chosen: false,
            is_forced: false,
            discards_outbox: false,
            lock_timeout: Duration::from_secs(1),
            attempts: 3,
        }
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

    /// Covers only the schemas that match one of these; `*` is any text, `?` any character.
    #[must_use]
    pub fn schemas<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.options.schemas.extend(globs.into_iter().map(Into::into));
        self
    }

    /// Covers only the tables that match one of these, by their name or as `schema.name`.
    #[must_use]
    pub fn tables<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.options.tables.extend(globs.into_iter().map(Into::into));
        self
    }

    /// Leaves out the schemas that match one of these.
    #[must_use]
    pub fn except_schemas<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.options.except_schemas.extend(globs.into_iter().map(Into::into));
        self
    }

    /// Leaves out the tables that match one of these, by their name or as `schema.name`.
    #[must_use]
    pub fn except_tables<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.options.except_tables.extend(globs.into_iter().map(Into::into));
        self
    }

    /// Sets what a change reports: whole rows, or keys.
    #[must_use]
    pub fn shape(mut self, shape: Shape) -> Self {
        self.options.shape = shape;
        self
    }

    /// Sets how payloads are reported that are too long.
    #[must_use]
    pub fn oversize(mut self, oversize: Oversize) -> Self {
        self.options.oversize = oversize;
        self
    }

    /// Sets how changes are delivered: by NOTIFY, which is the default, or by a log.
    ///
    /// Where there is a log, a build refuses the default: delivery by NOTIFY, which ends the log and all positions in it, must be
    /// asked for.
    #[must_use]
    pub fn delivery(mut self, delivery: DeliveryMode) -> Self {
        self.options.delivery = delivery;
        self.is_delivery_chosen = true;
        self
    }

    /// Sets the age up to which the log keeps changes that have been read; 24 hours, unless set. From 1 second to 10
    /// years, in whole seconds.
    #[must_use]
    pub fn keep_for(mut self, age: Duration) -> Self {
        self.options.keep_for = Duration::from_secs(age.as_secs());
        self
    }

    /// Sets the size of the log's three tables together with their indexes, in bytes; 1 GiB, unless set. From 1 MiB to
    /// 1 EiB.
    ///
    /// At twice this size writers append nothing more: their statements succeed, the changes are counted, and each worker
    /// reports a gap.
    #[must_use]
    pub fn keep_size(mut self, bytes: u64) -> Self {
        self.options.keep_size = bytes;
        self
    }

    /// Sets whether the log is unlogged; `false`, unless set. Writes cost less then, and no publication contains the log, but
    /// a crash of the server empties it, which each worker reports as a gap, and a standby has none.
    #[must_use]
    pub fn unlogged(mut self, unlogged: bool) -> Self {
        self.options.unlogged = unlogged;
        self
    }

    /// Sets whether a build discards changes in the outbox of an earlier version that no worker has read; `false`, unless
    /// set: the build is refused while there are any.
    #[must_use]
    pub fn discard_outbox(mut self, discard: bool) -> Self {
        self.discards_outbox = discard;
        self
    }

    /// Sets whether the text of the query is reported. It carries its literals to every listener, and is copied for each
    /// row.
    #[must_use]
    pub fn with_query(mut self, with: bool) -> Self {
        self.options.with_query = with;
        self
    }

    /// Sets whether changes to tables' definitions are reported, and new tables covered as they are created; `true`, unless
    /// set. It takes event triggers, which only a superuser can create.
    ///
    /// Without them, build again after each migration: a new table is not covered before that.
    #[must_use]
    pub fn schema_events(mut self, with: bool) -> Self {
        self.options.no_schema_events = !with;
        self
    }

    /// Sets whether rows are reported that replication applies (`session_replication_role = replica`). Switching triggers
    /// so is an ALTER TABLE, which is itself reported. The apply worker of
    /// logical replication fires row triggers only, so of what it applies the keys shape tells nothing.
    #[must_use]
    pub fn replicated(mut self, reported: bool) -> Self {
        self.options.replicated = reported;
        self
    }

    /// The role that owns what runs with rights of its own; `notifyman_owner`, unless set.
    ///
    /// A build makes it, without login, if it is not there and this role may. Grant it to no role but the installer: a member of it
    /// could change what it owns. The databases of a cluster share it, and the last teardown drops it.
    #[must_use]
    pub fn owner(mut self, role: impl Into<String>) -> Self {
        self.options.owner = role.into();
        self
    }

    /// Installs a log also where a publication is `FOR ALL TABLES`; a build refuses that unless forced, or
    /// [unlogged](Self::unlogged).
    ///
    /// Every subscriber must have the tables `log_0`, `log_1`, `log_2` and `position` of the schema `notifyman` then, or it
    /// stops at the first change.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.is_forced = force;
        self
    }

    /// Sets the longest wait for a table's lock; one second, unless set. Other sessions wait behind it. A role that may not
    /// set `deadlock_timeout` waits in its last attempt for at least that time plus 0.5 s.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Sets the number of attempts for a table that cannot be locked; three, unless set.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Installs, or changes what differs; see [`build_with`](Self::build_with).
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with).
    pub fn build(&self, db: &mut Connection) -> Result<Report, Error> {
        self.build_with(db, |_| {})
    }

    /// Installs, or changes what differs, and calls back after each table.
    ///
    /// The schema and its functions are one transaction, and each table is one. A table whose triggers are right isn't
    /// locked. What could not be done is in the [report](Report::failed), and building again finishes it.
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
    pub fn build_with(&self, db: &mut Connection, report_step: impl FnMut(Progress<'_>)) -> Result<Report, Error> {
        self.check(db)?;
        runner::alone(db, |db| self.build_alone(db, report_step))
    }

    fn build_alone(&self, db: &mut Connection, mut report_step: impl FnMut(Progress<'_>)) -> Result<Report, Error> {
        // Another build may just have ended.
        let schema_changed = self.make_schema(db)?;
        let server = ServerFacts::read(db, &self.options.owner)?;
        let mut report = Report { schema_changed, warnings: self.warnings(&server), ..Report::default() };
        let runner = self.runner(&server);
        let mut failed = Vec::new();
        // A table that event triggers or other sessions have changed since it was read is looked at again.
        for _ in 0..self.attempts {
            let (left, right) = self.work(db)?;
            let total = right + left.len();
            let mut done = right;
            report.unchanged = right.saturating_sub(report.done());
            let stale;
            (failed, stale) = runner.each(db, left, |table, state| {
                done += 1;
                report_step(Progress { done, total, table });
                let list = match state {
                    "missing" => &mut report.covered,
                    "left over" => &mut report.removed,
                    _ => &mut report.changed,
                };
                list.push(table.to_owned());
            })?;
            if stale.is_empty() {
                break;
            }
            failed.extend(stale);
        }
        report.failed = failed;
        report.grants = grants::of_worker(&self.options, server.untrusted_installer());
        if schema_changed && let Some(error) = Self::drop_outbox(db, &runner)? {
            report.failed.push(("notifyman.outbox".to_owned(), error));
        }
        report.blockers = runner.blockers(db, &report.failed)?;
        if Functions::read(db)?.has_unused() {
            runner.run_again(db, sql::DROP_UNUSED)?;
        }
        Ok(report)
    }

    fn runner<'a>(&self, server: &'a ServerFacts) -> Runner<'a> {
        Runner { server, lock_timeout: self.lock_timeout, attempts: self.attempts }
    }

    /// Makes the schema and what all tables share, unless they are right.
    fn make_schema(&self, db: &mut Connection) -> Result<bool, Error> {
        for attempt in 1.. {
            let server = ServerFacts::read(db, &self.options.owner)?;
            let Some(install) = self.install(db, &server)? else { return Ok(attempt > 1) };
            server.check_installer()?;
            server.check_owner(&self.options.owner)?;
            match self.runner(&server).run(db, attempt >= self.attempts, &install) {
                Ok(()) => return Ok(true),
                // In another database of the cluster, the role was made or dropped at the same time.
                Err(error) if !db.is_closed() && attempt < self.attempts && runner::is_for_now_in_cluster(&error) => {}
                Err(error) => return Err(self.explained(error)),
            }
        }
        Ok(true)
    }

    /// The statements that make the schema, all functions, and the role that owns some of them; or functions of tables
    /// alone, where the rest is right. `None` if all is.
    fn install(&self, db: &mut Connection, server: &ServerFacts) -> Result<Option<String>, Error> {
        let mut of_tables = installation::functions_of_tables(db, &self.options)?;
        if !self.is_installed(db, server)? {
            let upgrade = self.upgrade(db, server)?;
            let install = sql::install(&self.options, &of_tables);
            return Ok(Some(upgrade + &server.make_owner(&self.options.owner) + &install));
        }
        let present = Functions::read(db)?;
        of_tables.retain(|function| !present.is_right(function, &self.options.owner, &server.installer));
        Ok((!of_tables.is_empty()).then(|| sql::make_functions(&of_tables, &self.options.owner)))
    }

    /// The tables that are not right, each with its state and the statements that make it right; and how many are.
    fn work(&self, db: &mut Connection) -> Result<(Vec<TableTask>, usize), Error> {
        let rows = db.query(&sql::work(&self.options))?;
        let steps: Vec<_> = rows
            .iter()
            .filter(|row| !matches!(&*text(row, 4), "right" | "disabled"))
            .map(|row| TableTask { table: text(row, 1), state: text(row, 4), statements: text(row, 5) })
            .collect();
        let unchanged = rows.len() - steps.len();
        Ok((steps, unchanged))
    }

    /// The SQL that [`build`](Self::build) would run, for `psql`; nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with).
    pub fn build_sql(&self, db: &mut Connection) -> Result<String, Error> {
        let server = self.check(db)?;
        let transaction = |statements: &str| sql::transaction(server.lock_wait(self.lock_timeout, false), statements);
        let mut script = String::from("\\set ON_ERROR_STOP on\n");
        if let Some(install) = self.install(db, &server)? {
            script.push_str(&transaction(&install));
        }
        script.push_str("\n-- A table that cannot be locked now is left for another run.\n\\set ON_ERROR_STOP off\n");
        for step in self.work(db)?.0 {
            script.push_str(&transaction(&step.statements));
        }
        if server.presence == Presence::Ours && Objects::read(db)?.has_outbox {
            script.push_str(&transaction(outbox::DROP_OUTBOX));
        }
        Ok(script + &transaction(sql::DROP_UNUSED))
    }

    /// Removes everything: the triggers, each table's in a transaction of its own, and then the schema.
    ///
    /// Changes in a log, or in the outbox of an earlier version, that have not been read are removed with it. The role that owns functions is dropped if a build
    /// made it and nothing in any database depends on it.
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

    /// Removes everything, and calls back after each table.
    ///
    /// # Errors
    ///
    /// As [`teardown`](Self::teardown).
    pub fn teardown_with(&self, db: &mut Connection, report_step: impl FnMut(Progress<'_>)) -> Result<Report, Error> {
        let server = ServerFacts::read(db, &self.options.owner)?;
        server.check_writable()?;
        match server.presence {
            Presence::Nothing => Ok(Report::default()),
            _ => runner::alone(db, |db| self.teardown_alone(db, &server, report_step)),
        }
    }

    fn teardown_alone(
        &self,
        db: &mut Connection,
        server: &ServerFacts,
        mut report_step: impl FnMut(Progress<'_>),
    ) -> Result<Report, Error> {
        let (mut report, runner) = (Report::default(), self.runner(server));
        let owner = self.installed_owner(server);
        // From now on no more table is covered.
        let events = db.query(&sql::event_triggers())?;
        if !events.is_empty() {
            runner.run(db, false, &events.iter().map(|row| text(row, 0)).collect::<Vec<_>>().join("\n"))?;
        }
        let steps: Vec<_> = db
            .query(&sql::triggers())?
            .iter()
            .map(|row| TableTask { table: text(row, 0), state: "left over".to_owned(), statements: text(row, 1) })
            .collect();
        let (total, mut done) = (steps.len(), 0);
        // A trigger that is gone meanwhile is no trouble, and its statement says so.
        let (failed, stale) = runner.each(db, steps, |table, _| {
            done += 1;
            report_step(Progress { done, total, table });
            report.removed.push(table.to_owned());
        })?;
        report.failed = failed;
        report.failed.extend(stale.into_iter().filter(|(_, error)| error.sqlstate() != Some("42P01")));
        report.blockers = runner.blockers(db, &report.failed)?;
        if report.failed.is_empty() {
            runner.run(db, false, &sql::remove())?;
            runner.run(db, false, &sql::drop_owner(&owner))?;
            report.schema_changed = true;
        }
        Ok(report)
    }

    /// The owner that an installation names; where it names none, the one of these options.
    fn installed_owner(&self, server: &ServerFacts) -> String {
        installation::named_owner(&server.comment).unwrap_or_else(|| self.options.owner.clone())
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
        let server = ServerFacts::read(db, &self.options.owner)?;
        server.check_writable()?;
        if server.presence == Presence::Nothing {
            return Ok("-- There is nothing to remove.\n".to_owned());
        }
        let owner = self.installed_owner(&server);
        let mut script = String::from("\\set ON_ERROR_STOP on\n");
        let (events, triggers) = (db.query(&sql::event_triggers())?, db.query(&sql::triggers())?);
        let statements = events.iter().map(|row| text(row, 0)).chain(triggers.iter().map(|row| text(row, 1)));
        for statement in statements.chain([sql::remove(), sql::drop_owner(&owner)]) {
            script.push_str(&sql::transaction(server.lock_wait(self.lock_timeout, false), &statement));
        }
        Ok(script)
    }

    /// Returns `true` if the schema and what all tables share are as they would be made.
    fn is_installed(&self, db: &mut Connection, server: &ServerFacts) -> Result<bool, Error> {
        if server.presence != Presence::Ours {
            return Ok(false);
        }
        // Where it says nothing it is damaged or of version 1, and is made again.
        let Ok((version, options)) = installation::parse_comment(&server.comment) else { return Ok(false) };
        if version > sql::VERSION {
            return Err(cannot(format!(
                "what is installed is of version {version}, and this program knows those up to {}: use a later notifyman",
                sql::VERSION
            )));
        }
        if options.as_ref() != Some(&self.options) || !Objects::read(db)?.problems(&self.options).is_empty() {
            return Ok(false);
        }
        let present = Functions::read(db)?;
        let is_right = |function| present.is_right(function, &self.options.owner, &server.installer);
        Ok(functions::common(&self.options).iter().all(is_right))
    }
}
