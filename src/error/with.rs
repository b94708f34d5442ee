//! An error that returns what the request was about.

use std::error::Error as StdError;
use std::fmt;

use crate::error::Error;

/// An error, and what is returned with it: the connection that [`Handle::insert`](crate::Handle::insert) could not insert, or
/// what is left of one that [`Handle::remove`](crate::Handle::remove) found lost.
///
/// The operator `?` converts it into an [`Error`], and drops what is returned.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// use notifyman::{Connection, NotificationManager};
///
/// # fn main() -> Result<(), notifyman::Error> {
/// # let db = Connection::connect(database())?;
/// let handle = NotificationManager::new([]).handle(); // the manager is dropped
/// let (error, db) = handle.insert(db).wait(None).unwrap_err().into_parts();
/// assert_eq!(error.to_string(), "the notification manager has stopped");
/// assert!(db.is_some_and(|db| !db.is_closed()));
/// # Ok(()) }
/// ```
pub struct ErrorWith<T> {
    error: Error,
    value: Option<T>,
}

impl<T> ErrorWith<T> {
    pub(crate) fn new(error: Error, value: T) -> Self {
        Self { error, value: Some(value) }
    }

    /// Returns the error.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Returns what is returned with the error, if there is anything: nothing if the ticket was not resolved in time, or the
    /// manager has no such connection.
    pub fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Returns the error, and what is returned with it.
    pub fn into_parts(self) -> (Error, Option<T>) {
        (self.error, self.value)
    }
}

impl<T> From<Error> for ErrorWith<T> {
    fn from(error: Error) -> Self {
        Self { error, value: None }
    }
}

impl<T> From<ErrorWith<T>> for Error {
    fn from(error: ErrorWith<T>) -> Self {
        error.error
    }
}

/// Formats the error.
impl<T> fmt::Display for ErrorWith<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> fmt::Debug for ErrorWith<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorWith").field("error", &self.error).field("has_value", &self.value.is_some()).finish()
    }
}

impl<T> StdError for ErrorWith<T> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}
