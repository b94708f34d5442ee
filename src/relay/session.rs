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
/// The limit of each request.
const LIMIT: Duration = Duration::from_secs(10);

/// The requests of a leader to its session.
pub(crate) trait LeaderSession {
    /// Prepares a session that has just been opened.
    fn prepare(&mut self) -> Result<PreparedSession, Error>;

    /// Tries to take the lock of the stream. The session keeps it until it ends.
    fn try_lock(&mut self, stream: &str) -> Result<bool, Error>;

    /// Releases the lock.
    fn unlock(&mut self) -> Result<(), Error>;

    /// Checks that the changes of tables are notified, if they are relayed. [`Error::Changes`] says that they are not.
    fn check_changes(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Notifies the channel of markers, without waiting.
    fn send_marker(&mut self, marker: &str);

    /// Ends the session that holds the lock. Returns its process id, or `None` if there is none.
    fn end_holder(&mut self, stream: &str) -> Result<Option<i32>, Error>;
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

    fn unlock(&mut self) -> Result<(), Error> {
        // Also one that was taken twice.
        self.query("SELECT pg_advisory_unlock_all()").map(drop)
    }

    fn send_marker(&mut self, marker: &str) {
        // The loss of a marker is noticed by its absence.
        drop(self.handle.notify(self.id, MARKER_CHANNEL, marker));
    }

    fn end_holder(&mut self, stream: &str) -> Result<Option<i32>, Error> {
        // Not in the WHERE clause: the planner may evaluate it there before the other conditions, for any session.
        let ended = self.value(&format!(
            "SELECT CASE WHEN pg_terminate_backend(pid) THEN pid END \
             FROM (VALUES ({})) AS keys(space, stream), pg_locks \
             WHERE locktype = 'advisory' AND granted AND objsubid = 2 \
             AND classid::bigint = space AND objid::bigint = (stream::bigint & 4294967295) \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
             AND pid <> pg_backend_pid()",
            keys(stream)
        ))?;
        Ok(ended.and_then(|pid| pid.parse().ok()))
    }
}
