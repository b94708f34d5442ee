//! Rows of a query's answer, as the simple protocol gives them: text.

use std::borrow::Cow;

/// One row of an answer: each column as text, or nothing where it is NULL.
///
/// ```no_run
/// # fn main() -> Result<(), notifyman::Error> {
/// let mut db = notifyman::Connection::connect("postgres://localhost/app")?;
/// for row in db.query("SELECT datname, datallowconn FROM pg_database")? {
///     println!("{:?} {:?}", row.get(0), row.get(1));
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub(crate) columns: Box<[Option<Box<[u8]>>]>,
}

impl Row {
    /// A column's text, counted from 0, with anything that isn't UTF-8 replaced by `U+FFFD`; `None` where it is NULL
    /// or there is no such column.
    pub fn get(&self, column: usize) -> Option<Cow<'_, str>> {
        self.get_bytes(column).map(String::from_utf8_lossy)
    }

    /// A column's bytes as they came, counted from 0; `None` where it is NULL or there is no such column.
    pub fn get_bytes(&self, column: usize) -> Option<&[u8]> {
        self.columns.get(column)?.as_deref()
    }

    /// How much memory it takes, about.
    pub(crate) fn held(&self) -> usize {
        let values: usize = self.columns.iter().flatten().map(|value| value.len()).sum();
        size_of::<Self>() + size_of_val(&*self.columns) + values
    }

    /// How many columns there are.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether there is no column at all, as in the answer to a bare `SELECT`.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }
}
