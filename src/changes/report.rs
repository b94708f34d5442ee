//! The progress and the result of a build or a teardown.

use crate::error::Error;

/// The progress of a build or a teardown, after each table.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The number of tables that are done.
    pub done: usize,
    /// The number of all tables.
    pub total: usize,
    /// The table that was done last.
    pub table: &'a str,
}

/// The result of a build or a teardown.
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
///     eprintln!("{table} is not covered: {error:#}");
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
    /// Returns the number of tables that were done.
    pub(super) fn done(&self) -> usize {
        self.covered.len() + self.changed.len() + self.removed.len()
    }

    /// Returns `true` if the schema or its functions were created, replaced or dropped.
    pub fn schema_changed(&self) -> bool {
        self.schema_changed
    }

    /// Returns the newly covered tables, by their quoted names.
    pub fn covered(&self) -> &[String] {
        &self.covered
    }

    /// Returns the tables with changed triggers.
    pub fn changed(&self) -> &[String] {
        &self.changed
    }

    /// Returns the tables from which triggers were removed.
    pub fn removed(&self) -> &[String] {
        &self.removed
    }

    /// Returns the number of tables that were right already. None of them was locked.
    pub fn unchanged(&self) -> usize {
        self.unchanged
    }

    /// Returns the tables that could not be done, each with the reason. They are as they were before, and another run may
    /// complete them.
    pub fn failed(&self) -> &[(String, Error)] {
        &self.failed
    }

    /// Returns the tables that could not be locked, each with a session that holds its lock: process, application, state and
    /// query.
    ///
    /// The sessions are read after the attempts, and may have ended by then. Control characters are escaped.
    pub fn blockers(&self) -> &[(String, String)] {
        &self.blockers
    }

    /// Returns the statements that grant a worker's role the privileges to read the log or spilled payloads; empty if it needs
    /// none. Replace `worker_role` by the role's name. Later builds keep the privileges.
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

    /// Returns the conditions that an administrator should know of.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
