//! The queries of a reader.

use std::time::{Duration, SystemTime};

use super::position::{LogBatch, Position};
use crate::changes::sql::{literal, render};

/// The maximum number of rows in one reply.
const COUNT: usize = 1_000;
/// The channel on which the leader wakes other readers, and readers of one name are reported to each other.
pub(crate) const LOG_CHANNEL: &str = "notifyman_log";

/// The prefix of the message that another reader waits for a name.
pub(crate) const WAITING: &str = "waiting ";

/// The query for whether the server is a standby, and whether numbers are drawn in order.
pub(crate) const PREPARE: &str = include_str!("../sql/log_prepare.sql");

/// The query that elects the leader.
pub(crate) const ELECT: &str = include_str!("../sql/log_elect.sql");
pub(crate) const WAKE: &str = "SELECT pg_notify('notifyman_log', '')";

/// Returns the query for the new rows since a position, if they have at most `bytes` bytes. Without a position, it returns no
/// rows.
pub(crate) fn poll(position: Option<&Position>, bytes: usize) -> String {
    let (xmax, running) = match position.map(|position| &position.shared.from) {
        Some(from) => (from.xmax.to_string(), list(&from.running)),
        None => ("NULL".to_owned(), String::new()),
    };
    view(position, &render!("log_new_rows.sql", xmax, running, count = COUNT, bytes))
}

/// Returns the query for the next rows of the batch in which a position is: as many as have `bytes` bytes, and at least one.
pub(crate) fn page(position: &Position, bytes: usize) -> String {
    let shared = &position.shared;
    let Some(LogBatch { to, first, end }) = &shared.batch else { return poll(Some(position), bytes) };
    let ended: Vec<_> = to.ended_since(&shared.from).collect();
    let rows = render!(
        "log_page.sql",
        ended = list(&ended),
        number = position.number.unwrap_or(0),
        first,
        end,
        xmax = shared.from.xmax,
        to,
        count = COUNT,
        bytes
    );
    view(Some(position), &rows)
}

/// Returns the query for a view of the log with these rows.
fn view(position: Option<&Position>, rows: &str) -> String {
    let start = position.map_or_else(|| "NULL".to_owned(), |position| position.shared.place.start.to_string());
    let dropped = position.map_or(0, |position| position.shared.dropped);
    render!("log_poll.sql", rows, start, dropped)
}

/// Returns the query that claims a name for the session. It terminates the session of the process `backend` if that has the
/// name.
pub(crate) fn claim(name: &str, backend: Option<i32>) -> String {
    let name = literal(name);
    let terminate = backend.map(|backend| render!("log_terminate.sql", name, backend) + "\n");
    render!("log_claim.sql", name, terminate = terminate.unwrap_or_default())
}

/// Returns the query that reports to the reader with a name that another reader waits for it.
pub(crate) fn report_waiting(name: &str) -> String {
    format!("SELECT pg_notify({}, {})", literal(LOG_CHANNEL), literal(&format!("{WAITING}{name}")))
}

/// Returns the query for the last mark before a time.
pub(crate) fn mark(time: SystemTime) -> String {
    let millis = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_millis());
    render!("log_mark.sql", millis)
}

/// Returns the query that saves a position under a name.
pub(crate) fn save(name: &str, position: &Position) -> String {
    let place = literal(&position.to_string());
    render!("log_save.sql", name = literal(name), place, snapshot = position.shared.from)
}

/// Returns the query that rotates the tables.
pub(crate) fn rotate(keep_for: Duration, keep_size: u64) -> String {
    let lock = lock("format('LOCK TABLE notifyman.log_%s IN ACCESS EXCLUSIVE MODE NOWAIT', generation % 3)");
    render!("log_rotate.sql", keep_for = keep_for.as_millis(), keep_size, lock)
}

fn list(xids: &[u64]) -> String {
    xids.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

/// Returns the statement that begins an era of the log, unless there is one.
pub(crate) fn begin_era() -> String {
    let lock = lock("'LOCK TABLE notifyman.log_0, notifyman.log_1, notifyman.log_2 IN ACCESS EXCLUSIVE MODE NOWAIT'");
    render!("log_begin_era.sql", lock)
}

/// Returns the part of a PL/pgSQL block that takes a lock by a statement. `statement` is an SQL expression, and the block must
/// handle the error.
fn lock(statement: &str) -> String {
    render!("log_lock.sql", statement)
}
