//! The rows of a query result, as text.

use std::borrow::Cow;

/// One row of a query result: each column as text, or `None` if it is NULL.
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
    /// Returns a column as text, with invalid UTF-8 replaced by `U+FFFD`. The first column is 0. Returns `None` if the
    /// column is NULL or does not exist.
    pub fn get(&self, column: usize) -> Option<Cow<'_, str>> {
        self.get_bytes(column).map(String::from_utf8_lossy)
    }

    /// Returns the bytes of a column. The first column is 0. Returns `None` if the column is NULL or does not exist.
    pub fn get_bytes(&self, column: usize) -> Option<&[u8]> {
        self.columns.get(column)?.as_deref()
    }

    /// Returns the approximate size in memory, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        let values: usize = self.columns.iter().flatten().map(|value| value.len()).sum();
        size_of::<Self>() + size_of_val(&*self.columns) + values
    }

    /// Returns the number of columns.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Returns `true` if the row has no columns, as in the result of `SELECT` without a list.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }
}
