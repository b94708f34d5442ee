//! The outbox of versions before 3, which the log replaces.
//!
//! The outbox must be empty, or be discarded, before a build installs functions that no longer write to it. It is dropped at
//! the end, in a transaction of its own: a session that waits for its lock is executing an earlier function, and its INSERT
//! would fail if the table were gone.

use super::settings::BuildSettings;
use crate::changes::installation::{self, Objects};
use crate::changes::rows::{changes_error, only_row, string};
use crate::changes::runner::{self, Runner};
use crate::changes::server_facts::ServerFacts;
use crate::changes::sql;
use crate::connection::Connection;
use crate::error::Error;

/// The statements that append the rest of the outbox to the log or notify it, and drop the outbox.
pub(super) const DROP_OUTBOX: &str = include_str!("../sql/drop_outbox.sql");

/// The first version that has a log.
const WITH_LOG: i32 = 3;

/// Returns the statements that precede an installation over an earlier version. They lock its outbox, and fail if it contains
/// changes.
///
/// # Errors
///
/// [`Error::Changes`] if the outbox contains changes, unless they will be discarded.
pub(super) fn upgrade_script(
    db: &mut Connection,
    server: &ServerFacts,
    settings: &BuildSettings,
) -> Result<String, Error> {
    let version = installation::parse_comment(&server.comment).map_or(0, |(version, _)| version);
    if !server.has_schema || version >= WITH_LOG || !Objects::read(db)?.has_outbox {
        return Ok(String::new());
    }
    if settings.discards_outbox {
        return Ok("TRUNCATE notifyman.outbox;\n".to_owned());
    }
    let unread = string(&only_row(db, &sql::query("SELECT count(*) FROM notifyman.outbox"))?, 0);
    if unread != "0" {
        return Err(changes_error(format!(
            "the outbox of an earlier version holds {unread} changes that no worker has read, and this version has a log in \
             its place: run that version's worker until the outbox is empty, or discard the changes by --discard-outbox \
             (Installer::discard_outbox)"
        )));
    }
    Ok(include_str!("../sql/check_outbox.sql").to_owned())
}

/// Drops the outbox of an earlier version. Returns the error if another session holds its lock; the next build tries again.
pub(super) fn drop_outbox(db: &mut Connection, runner: &Runner<'_>) -> Result<Option<Error>, Error> {
    if !Objects::read(db)?.has_outbox {
        return Ok(None);
    }
    match runner.run_again(db, DROP_OUTBOX) {
        Ok(()) => Ok(None),
        Err(error) if runner::is_temporary(&error) && !db.is_closed() => Ok(Some(error)),
        Err(error) => Err(error),
    }
}
