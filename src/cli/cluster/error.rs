//! The error of a throwaway server.

use std::fmt::Display;

/// The reason why there is no server. The text is complete; if the server has logged anything, it ends with that.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ClusterError(pub String);

impl ClusterError {
    /// Returns a function that adds a context to an error, for `map_err`: "`context`: `error`".
    pub fn context<E: Display>(context: &str) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{context}: {error}"))
    }
}
