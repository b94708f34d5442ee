//! The events of a worker.

use super::change::{Change, SchemaChange};
use crate::error::Error;
use crate::gap::Gap;

/// An event of one database.
///
/// ```
/// use notifyman::changes::ChangeEvent;
///
/// /// Returns `true` if a cache of the whole database must be emptied.
/// fn invalidates_all(event: &ChangeEvent) -> bool {
///     use ChangeEvent::{Connected, Dropped, Gap, Lost};
///     matches!(event, Connected | Gap(_) | Dropped(_) | Lost(_))
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ChangeEvent {
    /// Rows of a table have changed.
    #[doc(alias = "PG_EVENTS_DATA_UPDATE_CALLBACK")]
    Change(Box<Change>),
    /// The definition of a table has changed.
    #[doc(alias = "PG_EVENTS_DB_SCHEMA_UPDATE_CALLBACK")]
    Schema(Box<SchemaChange>),
    /// The database is connected: changes that are committed from now on are reported.
    ///
    /// After a [`Disconnected`](Self::Disconnected), the gap follows before any change. A worker that reads a log from its name
    /// or from a position has missed nothing, unless a gap follows.
    Connected,
    /// The server cannot be reached, or the session was lost. The worker continues to connect.
    Disconnected(Error),
    /// Earlier changes may be missing: treat everything as changed.
    ///
    /// With delivery by NOTIFY, each restored session reports a gap. With a log, a gap is reported only if the log has not kept
    /// the changes that the worker had to read next, and its [`cause`](Gap::cause) says why. It begins at the time up to which
    /// the worker had read, or at 1 January 1970 if that is unknown.
    Gap(Gap),
    /// The number of changes that were dropped because the consumer did not take earlier ones fast enough: treat everything as
    /// changed.
    Dropped(u64),
    /// The database is no longer followed, because of an error that retrying cannot fix, or because nothing is installed.
    Lost(Error),
    /// A payload that is not from a trigger.
    Unreadable {
        /// The payload. Bytes that are not UTF-8 are replaced.
        payload: String,
        /// The reason why it is not a change.
        reason: String,
    },
    /// A condition that an administrator should know of, such as a NOTIFY queue that is half full.
    Warning(String),
}
