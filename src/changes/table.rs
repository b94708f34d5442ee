//! The tables of an installation, and their states.

use crate::config::{Named as _, named};

/// A table that is selected, or that has a trigger of this installation.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// use notifyman::Connection;
/// use notifyman::changes::{Installer, Status, TableState};
///
/// # fn main() -> Result<(), notifyman::Error> {
/// let mut db = Connection::connect(database())?;
/// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
/// Installer::new().build(&mut db)?;
/// for table in Status::of(&mut db)?.tables() {
///     println!("{}: {}", table.sql_name, table.state);
/// #   assert_eq!(table.state, TableState::Right);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Table {
    /// The schema of the table.
    pub schema: String,
    /// The name of the table.
    pub name: String,
    /// The schema and the name, quoted for SQL.
    pub sql_name: String,
    /// The state of its triggers.
    pub state: TableState,
}

/// The state of a table's triggers. Its text is the name in lower case, such as `left over`.
///
/// ```
/// use notifyman::changes::TableState;
///
/// assert_eq!(TableState::LeftOver.to_string(), "left over");
/// assert_eq!("left over".parse(), Ok(TableState::LeftOver));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TableState {
    /// The triggers are as a build creates them.
    Right,
    /// The columns have changed, and until the next build the table has the function for any table. It reports the table as
    /// well, but also reads long values.
    Generic,
    /// A trigger is disabled. A build leaves it disabled.
    Disabled,
    /// The table has no triggers.
    Missing,
    /// A trigger calls the function of other columns.
    Outdated,
    /// The triggers are of another kind, or have been altered.
    Different,
    /// The table has triggers, and is not selected.
    LeftOver,
}

named!(TableState {
    Right: "right",
    Generic: "generic",
    Disabled: "disabled",
    Missing: "missing",
    Outdated: "outdated",
    Different: "different",
    LeftOver: "left over",
});

impl TableState {
    /// Parses the name that `states.sql` returns.
    pub(crate) fn parse(name: &str) -> Self {
        name.parse().unwrap_or(Self::Different)
    }

    /// Returns `true` if a build changes nothing about the table.
    pub(crate) fn needs_no_build(self) -> bool {
        matches!(self, Self::Right | Self::Disabled)
    }
}

/// Compares a state with its name.
impl PartialEq<&str> for TableState {
    fn eq(&self, name: &&str) -> bool {
        self.name() == *name
    }
}
