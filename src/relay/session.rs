//! The listening session, as the leader of a stream uses it: the lock, the canary, and the facts about the server.

use std::fmt::Write as _;
use std::time::Duration;

#[cfg(feature = "changes")]
use crate::changes;
use crate::error::{Error, Escaped};
use crate::manager::{ConnId, Handle};
use crate::proto::sql;
use crate::relay::entry::StreamOrigin;
use crate::row::Row;

/// The channel on which the relays of a database mark places in the order of its notifications.
pub(crate) const MARKER_CHANNEL: &str = "notifyman_relay";
/// The first key of the advisory lock, "nmrl": a space of its own. The second one is the hash of the stream's name.
const LOCK_SPACE: i32 = 0x6e6d_726c;
/// The first key of the advisory lock by which a leader publishes its term, "nmrt". The second one is that of the term.
const TERM_SPACE: i32 = 0x6e6d_7274;
/// The limit of each request.
const LIMIT: Duration = Duration::from_secs(10);

/// The requests of a leader to its session.
pub(crate) trait LeaderSession {
    /// Prepares a session that has just been opened.
    fn prepare(&mut self) -> Result<PreparedSession, Error>;

    /// Tries to take the lock of the stream. The session keeps it until it ends.
    fn try_lock(&mut self, stream: &str) -> Result<bool, Error>;

    /// Publishes the term that this session has claimed while it holds the lock: a candidate that finds the term in its own stream
    /// knows that both have the same engine.
    fn publish_term(&mut self, term: u64) -> Result<(), Error>;

    /// Releases the lock, and withdraws the term.
    fn unlock(&mut self) -> Result<(), Error>;

    /// Checks that the changes of tables are notified, if they are relayed. [`Error::Changes`] says that they are not.
    fn check_changes(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Notifies the channel of markers, without waiting.
    fn send_marker(&mut self, marker: &str);

    /// Returns the other session that holds the lock.
    fn holder(&mut self, stream: &str) -> Result<Option<LockHolder>, Error>;

    /// Asks the server to end this session, if it holds the lock. Returns `false` if it does not.
    fn end_holder(&mut self, stream: &str, pid: i32) -> Result<bool, Error>;
}

/// A session that holds the lock of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LockHolder {
    pub(crate) pid: i32,
    /// The [key](term_key) of the term that it has published; `None` before its claim.
    pub(crate) term_key: Option<u32>,
}

/// Returns a number for a term, which two terms have in one of four billion cases.
pub(crate) fn term_key(term: u64) -> u32 {
    let [high, low] = [term >> 32, term & u64::from(u32::MAX)].map(|half| u32::try_from(half).unwrap_or_default());
    high.wrapping_mul(0x9e37_79b1) ^ low
}

/// The facts about a session.
#[derive(Debug, Clone)]
pub(crate) struct PreparedSession {
    pub(crate) origin: StreamOrigin,
    /// The name of its database.
    pub(crate) database: String,
    /// The process id of the session.
    pub(crate) pid: i32,
}

/// The session of a manager that runs on another thread.
#[derive(Debug)]
pub(crate) struct ManagedSession {
    handle: Handle,
    id: ConnId,
    /// The time after which the server gives up a client that does not respond.
    silence: Duration,
    /// The database, for error texts, if the changes of its tables are relayed.
    changes_of: Option<Box<str>>,
}

impl ManagedSession {
    pub(crate) fn new(handle: Handle, id: ConnId, silence: Duration, changes_of: Option<Box<str>>) -> Self {
        Self { handle, id, silence, changes_of }
    }

    fn query(&self, sql: &str) -> Result<Vec<Row>, Error> {
        self.handle.query(self.id, sql).wait(LIMIT)
    }

    /// Returns the first value of the first row.
    fn value(&self, sql: &str) -> Result<Option<String>, Error> {
        let rows = self.query(sql)?;
        Ok(rows.first().and_then(|row| row.get(0)).map(|value| value.into_owned()))
    }
}

/// Returns the keys of the lock of a stream, for SQL.
fn keys(stream: &str) -> String {
    let mut keys = format!("{LOCK_SPACE}, hashtext(");
    sql::quote_literal(stream, &mut keys);
    keys.push(')');
    keys
}

impl LeaderSession for ManagedSession {
    fn prepare(&mut self) -> Result<PreparedSession, Error> {
        // A client that has stopped, or whose link is half open, must not keep the lock. Not each version has each setting.
        let mut settings = String::new();
        let (seconds, millis) = (self.silence.as_secs().max(1), self.silence.as_millis().max(1));
        let values = [
            ("tcp_keepalives_idle", u128::from(seconds.div_ceil(2))),
            ("tcp_keepalives_interval", u128::from(seconds.div_ceil(6))),
            ("tcp_keepalives_count", 3),
            ("tcp_user_timeout", millis),
        ];
        for (name, value) in values {
            let separator = if settings.is_empty() { "" } else { ", " };
            let _ = write!(settings, "{separator}('{name}', '{value}')");
        }
        self.query(&format!(
            "SELECT set_config(name, setting, false) FROM (VALUES {settings}) AS wanted(name, setting) \
             WHERE EXISTS (SELECT FROM pg_settings WHERE pg_settings.name = wanted.name)"
        ))?;
        let rows = self.query(
            "SELECT system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), current_database(), \
             pg_backend_pid(), (SELECT oid FROM pg_database WHERE datname = current_database()) FROM pg_control_system()",
        )?;
        let column = |at| rows.first().and_then(|row| row.get(at)).unwrap_or_default();
        let (system, timeline, database) = (column(0), column(1), column(2).into_owned());
        match (system.parse(), u32::from_str_radix(&timeline, 16), column(3).parse(), column(4).parse()) {
            (Ok(system), Ok(timeline), Ok(pid), Ok(number)) => {
                Ok(PreparedSession { origin: StreamOrigin { system, timeline, database: number }, database, pid })
            }
            _ => Err(Error::Relay(
                format!(
                    "the server reports the system identifier \"{}\" and the timeline \"{}\", which are no numbers",
                    Escaped(&*system),
                    Escaped(&*timeline)
                )
                .into(),
            )),
        }
    }

    fn check_changes(&mut self) -> Result<(), Error> {
        #[cfg_attr(not(feature = "changes"), allow(unused_variables, reason = "nothing reports changes"))]
        let Some(place) = &self.changes_of else { return Ok(()) };
        #[cfg(feature = "changes")]
        changes::check_notified(&self.query(changes::INSTALLED)?, place)?;
        Ok(())
    }

    fn try_lock(&mut self, stream: &str) -> Result<bool, Error> {
        Ok(self.value(&format!("SELECT pg_try_advisory_lock({})", keys(stream)))?.as_deref() == Some("t"))
    }

    fn publish_term(&mut self, term: u64) -> Result<(), Error> {
        // The keys of a lock are signed.
        let key = i32::from_ne_bytes(term_key(term).to_ne_bytes());
        self.query(&format!("SELECT pg_advisory_lock_shared({TERM_SPACE}, {key})")).map(drop)
    }

    fn unlock(&mut self) -> Result<(), Error> {
        // Also one that was taken twice.
        self.query("SELECT pg_advisory_unlock_all()").map(drop)
    }

    fn send_marker(&mut self, marker: &str) {
        // The loss of a marker is noticed by its absence.
        drop(self.handle.notify(self.id, MARKER_CHANNEL, marker));
    }

    fn holder(&mut self, stream: &str) -> Result<Option<LockHolder>, Error> {
        let rows = self.query(&format!(
            "WITH locks AS ({LOCKS}) SELECT holder.pid, published.key FROM locks AS holder \
             LEFT JOIN locks AS published ON published.pid = holder.pid AND published.space = {TERM_SPACE} \
             WHERE {}",
            is_holder(stream)
        ))?;
        let Some(row) = rows.first() else { return Ok(None) };
        let pid = row.get(0).and_then(|pid| pid.parse().ok());
        Ok(pid.map(|pid| LockHolder { pid, term_key: row.get(1).and_then(|key| key.parse().ok()) }))
    }

    fn end_holder(&mut self, stream: &str, pid: i32) -> Result<bool, Error> {
        // Not in the WHERE clause: the planner may evaluate it there before the other conditions, for any session.
        let ended = self.value(&format!(
            "WITH locks AS ({LOCKS}) SELECT pg_terminate_backend(pid) FROM locks AS holder WHERE {} AND holder.pid = {pid}",
            is_holder(stream)
        ))?;
        Ok(ended.as_deref() == Some("t"))
    }
}

/// Selects the advisory locks with two keys of other sessions in this database. The keys are unsigned.
const LOCKS: &str = "SELECT pid, classid::bigint AS space, objid::bigint AS key FROM pg_locks \
     WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND pid <> pg_backend_pid() \
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Returns the condition for the lock of a stream, for SQL.
fn is_holder(stream: &str) -> String {
    let mut condition = format!("holder.space = {LOCK_SPACE} AND holder.key = (hashtext(");
    sql::quote_literal(stream, &mut condition);
    condition.push_str(")::bigint & 4294967295)");
    condition
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r04_terms_have_different_keys() {
        let first = 1_780_000_000_000_000_042;
        let keys: std::collections::BTreeSet<_> =
            (0..1_000).flat_map(|number| [first + number, first + number * 1_000_000]).map(term_key).collect();
        assert_eq!(keys.len(), 1_999);
    }
}
