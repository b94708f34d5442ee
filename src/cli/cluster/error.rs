//! The error of a throwaway server.

use std::{fmt, io};

/// The reason why there is no server. The text is complete; if the server has logged anything, it ends with that.
#[derive(Debug)]
pub struct ClusterError(pub(super) String);

impl ClusterError {
    /// Returns a function that adds a context to an error, for `map_err`: "`context`: `error`".
    pub(super) fn context<E: fmt::Display>(context: &str) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{context}: {error}"))
    }
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ClusterError {}

impl From<ClusterError> for io::Error {
    fn from(error: ClusterError) -> Self {
        Self::other(error)
    }
}
