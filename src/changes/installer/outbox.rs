//! The outbox of an earlier version, which the log replaces.
//!
//! It must be empty, or be discarded, before functions are installed that no longer write it. It is dropped in a
//! transaction of its own, at the end: a session that waits for its lock has called an earlier function, whose INSERT would
//! fail without it.

use super::Installer;
use crate::changes::installation::{self, Objects};
use crate::changes::runner::{self, Runner};
use crate::changes::server_facts::{Presence, ServerFacts, cannot, one, text};
use crate::changes::sql;
use crate::connection::Connection;
use crate::error::Error;

/// Drops the outbox, and delivers what has been written to it meanwhile.
pub(super) const DROP_OUTBOX: &str = include_str!("../sql/drop_outbox.sql");

/// The first version with a log.
const WITH_LOG: i32 = 3;

impl Installer {
    /// The statements that precede an install over an earlier version: they lock its outbox, and fail if it holds changes.
    ///
    /// Refuses an outbox that holds changes now, unless they are to be discarded.
    pub(super) fn upgrade(&self, db: &mut Connection, server: &ServerFacts) -> Result<String, Error> {
        let version = installation::parse_comment(&server.comment).map_or(0, |(version, _)| version);
        if server.presence != Presence::Ours || version >= WITH_LOG || !Objects::read(db)?.has_outbox {
            return Ok(String::new());
        }
        if self.discards_outbox {
            return Ok("TRUNCATE notifyman.outbox;\n".to_owned());
        }
        let unread = text(&one(db, &sql::query("SELECT count(*) FROM notifyman.outbox"))?, 0);
        if unread != "0" {
            return Err(cannot(format!(
                "the outbox of an earlier version holds {unread} changes that no worker has read, and this version has a \
                 log in its place: run that version's worker until the outbox is empty, or discard the changes by \
                 --discard-outbox (Installer::discard_outbox)"
            )));
        }
        Ok(include_str!("../sql/unread.sql").to_owned())
    }

    /// Drops the outbox of an earlier version. Returns the error if others are in the way: another build does it.
    pub(super) fn drop_outbox(db: &mut Connection, runner: &Runner<'_>) -> Result<Option<Error>, Error> {
        if !Objects::read(db)?.has_outbox {
            return Ok(None);
        }
        match runner.run_again(db, DROP_OUTBOX) {
            Ok(()) => Ok(None),
            Err(error) if runner::is_for_now(&error) && !db.is_closed() => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }
}
