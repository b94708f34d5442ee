//! The log of one database: the reader's actions as queries, and the replies as inputs of the reader.

use std::time::{Instant, SystemTime};

use super::context::LoopContext;
use super::log::{Claimed, LogAction, LogOptions, LogOutput, LogReader, LogRequest, LogView, Marked, queries};
use super::options::InstallOptions;
use super::queue::ROOM;
use super::rows::{changes_error, is_true};
use super::sql::CHANNEL;
use crate::clock;
use crate::gap::{Gap, GapData};
use crate::row::Row;

/// The smallest size of a page, below which a query is not worth its cost.
const BYTES_MIN: usize = 64 << 10;

/// Follows the log of one database.
#[derive(Debug)]
pub(crate) struct LogFollower {
    pub(crate) reader: LogReader,
    /// The number of gaps that were reported.
    gaps: u64,
}

impl LogFollower {
    pub(crate) fn new(options: LogOptions) -> Self {
        Self { reader: LogReader::new(options), gaps: 0 }
    }

    /// Returns the next query, which reads no more rows than the queue has room for. If it has none, the queue sends a message
    /// as soon as it has.
    pub(crate) fn next_query(&mut self, options: &InstallOptions, cx: &LoopContext) -> Option<(LogRequest, String)> {
        let is_reading = !cx.queue.is_stopped();
        let room = if is_reading { cx.queue.room() } else { None };
        let bytes = room.unwrap_or_default() / cx.databases.max(1);
        let bytes = bytes.clamp(BYTES_MIN, ROOM);
        Some(match self.reader.next_action(is_reading, room.is_some(), cx.now)? {
            LogAction::Prepare => (LogRequest::Prepare, queries::PREPARE.to_owned()),
            LogAction::Claim(name, backend) => (LogRequest::Claim, queries::claim(&name, backend)),
            LogAction::FindMark(time) => (LogRequest::FindMark, queries::mark(time)),
            LogAction::BeginEra => (LogRequest::BeginEra, queries::begin_era()),
            LogAction::Poll(position) => (LogRequest::Read, queries::poll(position.as_ref(), bytes)),
            LogAction::Page(position) => (LogRequest::Read, queries::page(&position, bytes)),
            LogAction::Save(name, position) => (LogRequest::Save, queries::save(&name, &position)),
            LogAction::Elect => (LogRequest::Elect, queries::ELECT.to_owned()),
            LogAction::Wake => (LogRequest::Send, queries::WAKE.to_owned()),
            LogAction::ReportWaiting(name) => (LogRequest::Send, queries::report_waiting(&name)),
            LogAction::Rotate => (LogRequest::Rotate, queries::rotate(options.keep_for, options.keep_size)),
        })
    }

    /// Handles the reply to a query. Returns the reader's outputs, or `None` if the reply has an unexpected form.
    pub(crate) fn handle_reply(
        &mut self,
        request: LogRequest,
        rows: &[Row],
        cx: &LoopContext,
    ) -> Option<Vec<LogOutput>> {
        let (reader, now) = (&mut self.reader, cx.now);
        let output = match request {
            LogRequest::Prepare => reader.handle_prepared(refusal(rows.first()?), now),
            LogRequest::Claim => reader.handle_claimed(Claimed::parse(rows)?, now),
            LogRequest::FindMark => {
                reader.handle_marked(Marked::parse(rows));
                None
            }
            LogRequest::Elect => {
                let row = rows.first()?;
                reader.handle_elected(is_true(row, 0), is_true(row, 1), now);
                None
            }
            LogRequest::Read if !cx.queue.is_stopped() => {
                return Some(reader.handle_view(LogView::parse(rows)?, now, clock::wall()));
            }
            LogRequest::Read | LogRequest::BeginEra | LogRequest::Save | LogRequest::Send | LogRequest::Rotate => {
                reader.handle_done(request, now);
                None
            }
        };
        Some(output.into_iter().collect())
    }

    /// Returns a gap that ends now.
    pub(crate) fn gap(&mut self, reason: &str, since: Option<SystemTime>, now: Instant) -> Gap {
        self.gaps += 1;
        let wall = clock::wall();
        // An unknown time is long ago, for consumers that read everything changed since.
        let since = since.unwrap_or(SystemTime::UNIX_EPOCH);
        let age = wall.duration_since(since).unwrap_or_default();
        let since = (now.checked_sub(age).unwrap_or(now), since);
        let channels = [Box::from(CHANNEL)].into();
        Gap::from(GapData { channels, cause: changes_error(reason), since, until: (now, wall), epoch: self.gaps })
    }
}

/// Returns the reason why a log cannot be read on this server, from the reply to [`queries::PREPARE`].
fn refusal(row: &Row) -> Option<&'static str> {
    if is_true(row, 0) {
        return Some(
            "the server is a standby, which does not know the running transactions of its primary, so changes would be \
             missed: connect to the primary (target_session_attrs=read-write)",
        );
    }
    (!is_true(row, 1)).then_some(
        "the sequence notifyman.number does not return its numbers in order (CACHE, INCREMENT or CYCLE was changed): run \
         `notifyman build`",
    )
}
