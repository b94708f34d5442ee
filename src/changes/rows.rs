//! The rows of replies, and the errors of this module.

use serde::de::DeserializeOwned;

use crate::connection::Connection;
use crate::error::Error;
use crate::row::Row;

/// Returns an error with a reason that says what to do.
pub(crate) fn changes_error(reason: impl Into<String>) -> Error {
    Error::Changes(reason.into().into())
}

/// Returns the only row of a reply.
pub(crate) fn only_row(db: &mut Connection, query: &str) -> Result<Row, Error> {
    first_row(db, query)?.ok_or_else(|| changes_error("the server sent no row for a query that returns one"))
}

/// Returns the first row of a reply, if there is one.
pub(crate) fn first_row(db: &mut Connection, query: &str) -> Result<Option<Row>, Error> {
    Ok(db.query(query)?.into_iter().next())
}

/// Returns a column as a string, which is empty for NULL.
pub(crate) fn string(row: &Row, column: usize) -> String {
    row.get(column).map(|value| value.into_owned()).unwrap_or_default()
}

/// Returns `true` if a boolean column is true.
pub(crate) fn is_true(row: &Row, column: usize) -> bool {
    row.get_bytes(column) == Some(b"t")
}

/// Parses the only column of a row: JSON with the names of a type's fields.
pub(crate) fn from_json<T: DeserializeOwned>(row: &Row) -> Result<T, Error> {
    serde_json::from_str(&string(row, 0))
        .map_err(|error| changes_error(format!("the server described itself in an unexpected form: {error}")))
}
