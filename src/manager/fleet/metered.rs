//! The counts and the sets of connections that are metered.

/// A count of a connection that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionCount {
    Notifications,
    Bytes,
    Losses,
    Restores,
    Gaps,
    Attempts,
    FailedAttempts,
}

/// A set of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionSet {
    Open,
    Restoring,
    Garbage,
}

impl ConnectionSet {
    /// Returns the set of a connection that is in the roster.
    pub(super) fn of(is_live: bool) -> Self {
        if is_live { Self::Open } else { Self::Restoring }
    }
}
