//! The report of a build or a teardown, and its progress.

use crate::error::Error;

/// One step of a build or a teardown, as it is done.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The number of tables that are done.
    pub done: usize,
    /// The number of all tables.
    pub total: usize,
    /// The last one.
    pub table: &'a str,
}

/// The report of a build or a teardown.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// use notifyman::Connection;
/// use notifyman::changes::Installer;
///
/// # fn main() -> Result<(), notifyman::Error> {
/// let mut db = Connection::connect(database())?;
/// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
/// let report = Installer::new().build(&mut db)?;
/// for table in report.covered() {
///     println!("{table} is covered");
/// }
/// for (table, error) in report.failed() {
///     eprintln!("{table} isn't: {error}");
/// }
/// # assert_eq!((report.covered().len(), report.failed().len()), (1, 0));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub(super) schema_changed: bool,
    pub(super) covered: Vec<String>,
    pub(super) changed: Vec<String>,
    pub(super) removed: Vec<String>,
    pub(super) unchanged: usize,
    pub(super) failed: Vec<(String, Error)>,
    pub(super) blockers: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
    pub(super) grants: Vec<String>,
}

impl Report {
    /// The number of tables that were done.
    pub(super) fn done(&self) -> usize {
        self.covered.len() + self.changed.len() + self.removed.len()
    }

    /// Returns `true` if the schema or its functions were made, made again, or removed.
    pub fn schema_changed(&self) -> bool {
        self.schema_changed
    }

    /// The tables that are covered now and weren't before, as SQL names them.
    pub fn covered(&self) -> &[String] {
        &self.covered
    }

    /// The tables whose triggers or functions were brought up to date.
    pub fn changed(&self) -> &[String] {
        &self.changed
    }

    /// The tables whose triggers were removed.
    pub fn removed(&self) -> &[String] {
        &self.removed
    }

    /// The number of tables that were right already; none of them was locked.
    pub fn unchanged(&self) -> usize {
        self.unchanged
    }

    /// The tables that could not be done, and why: they are as they were, and doing the same again may finish it.
    pub fn failed(&self) -> &[(String, Error)] {
        &self.failed
    }

    /// The tables that could not be locked, each with a session that holds its lock: process, program, state and query.
    ///
    /// It is read after the attempts, when such a session may have ended. Control characters are escaped.
    pub fn blockers(&self) -> &[(String, String)] {
        &self.blockers
    }

    /// The statements that grant the role of a worker, `worker_role` in them, what it needs to read the log or what is
    /// spilled; empty where it needs nothing. Later builds keep what has been granted.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::Connection;
    /// use notifyman::changes::{DeliveryMode, Installer};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// let mut db = Connection::connect(database())?;
    /// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
    /// let report = Installer::new().delivery(DeliveryMode::Log).build(&mut db)?;
    /// println!("{}", report.grants().join("\n"));
    /// # assert_eq!(report.grants()[0], "GRANT SELECT ON notifyman.log TO worker_role;");
    /// # Ok(()) }
    /// ```
    pub fn grants(&self) -> &[String] {
        &self.grants
    }

    /// Conditions that an administrator should know of.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
