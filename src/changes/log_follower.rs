//! The log of one database: the reader's actions as queries, and their replies as items for the consumer.

use std::time::{Duration, Instant, SystemTime};

use super::context::LoopContext;
use super::log::{Claimed, LogAction, LogNeed, LogOptions, LogOutput, LogReader, LogView, Marked, queries};
use super::payload;
use super::queue::{QueueItem, ROOM};
use super::request::LogRequest;
use super::rows::{changes_error, is_true, string};
use super::sql::CHANNEL;
use crate::clock;
use crate::gap::{Gap, GapData};
use crate::row::Row;

/// The smallest size of a page, below which a query is not worth its cost.
const BYTES_MIN: usize = 64 << 10;

/// Follows the log of one database.
#[derive(Debug)]
pub(crate) struct LogFollower {
    /// The number of the database, from 1.
    database: usize,
    pub(crate) reader: LogReader,
    keep_for: Duration,
    keep_size: u64,
    /// The number of gaps that were reported.
    gaps: u64,
}

/// The outputs of the reader that are no changes and gaps.
#[derive(Debug, Default)]
pub(crate) struct LogOutcome {
    /// The reason why the log cannot be read now.
    pub(crate) warning: Option<String>,
    /// The reason why the log can never be read.
    pub(crate) refusal: Option<String>,
    /// `true` if an event trigger has left tables to the next build.
    pub(crate) is_incomplete: bool,
}

impl LogFollower {
    pub(crate) fn new(database: usize, options: LogOptions) -> Self {
        let reader = LogReader::new(options);
        Self { database, reader, keep_for: Duration::MAX, keep_size: u64::MAX, gaps: 0 }
    }

    /// Sets the age and the size up to which rows are kept.
    pub(crate) fn set_retention(&mut self, keep_for: Duration, keep_size: u64) {
        (self.keep_for, self.keep_size) = (keep_for, keep_size);
        self.reader.set_keep_for(keep_for);
    }

    /// Takes the acknowledgements of the consumer from the queue.
    pub(crate) fn read_acknowledgements(&mut self, cx: &LoopContext<'_>) {
        if let Some((position, count)) = cx.queue.take_acknowledged(self.database) {
            self.reader.acknowledge(position, count);
        }
    }

    /// Returns the next query, which reads no more rows than the queue has room for. If it has none, the queue sends a message
    /// as soon as it has.
    pub(crate) fn next_query(&mut self, cx: &LoopContext<'_>) -> Option<(LogRequest, String)> {
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
            LogAction::Rotate => (LogRequest::Rotate, queries::rotate(self.keep_for, self.keep_size)),
        })
    }

    /// Handles the reply to a query. Returns the outputs to [`push`](Self::push), or `None` if the reply has an unexpected form.
    pub(crate) fn handle_reply(
        &mut self,
        request: LogRequest,
        rows: &[Row],
        cx: &LoopContext<'_>,
    ) -> Option<Vec<LogOutput>> {
        let (reader, now) = (&mut self.reader, cx.now);
        let output = match request {
            LogRequest::Prepare => reader.handle_prepared(refusal(rows.first()?), now),
            LogRequest::Claim => reader.handle_claimed(Claimed::parse(rows)?, now),
            LogRequest::FindMark => {
                reader.handle_marked(Marked::parse(rows));
                None
            }
            LogRequest::BeginEra => {
                reader.handle_era();
                None
            }
            // After a stop nothing is delivered.
            LogRequest::Read if cx.queue.is_stopped() => {
                reader.handle_stopped();
                None
            }
            LogRequest::Read => {
                let (view, rows) = LogView::parse(rows)?;
                return Some(reader.handle_view(&view, rows, now, clock::wall()));
            }
            LogRequest::Save => {
                reader.handle_saved(now);
                None
            }
            LogRequest::Elect => {
                let row = rows.first()?;
                reader.handle_elected(is_true(row, 0), is_true(row, 1), now);
                None
            }
            LogRequest::Send => {
                reader.handle_sent(now);
                None
            }
            LogRequest::Rotate => {
                reader.handle_rotated(now);
                None
            }
        };
        Some(output.into_iter().collect())
    }

    /// Handles a query that failed.
    pub(crate) fn handle_failed(&mut self, request: LogRequest, now: Instant) {
        match request {
            LogRequest::Prepare
            | LogRequest::Claim
            | LogRequest::FindMark
            | LogRequest::BeginEra
            | LogRequest::Read => self.reader.handle_failed(now),
            LogRequest::Save => self.reader.handle_save_failed(now),
            LogRequest::Elect | LogRequest::Send | LogRequest::Rotate => self.reader.handle_shared_failed(now),
        }
    }

    /// Adds changes and gaps to the queue.
    pub(crate) fn push(&mut self, outputs: Vec<LogOutput>, cx: &LoopContext<'_>) -> LogOutcome {
        let mut outcome = LogOutcome::default();
        for output in outputs {
            match output {
                LogOutput::Gap(gap, position) => {
                    let gap = self.gap(gap.reason, gap.since, cx.now);
                    cx.queue.push(self.database, QueueItem::LoggedGap(position, gap));
                }
                LogOutput::Change(position, payload) => {
                    outcome.is_incomplete |= payload::is_incomplete(&payload);
                    cx.queue.push(self.database, QueueItem::Logged(position, payload));
                }
                LogOutput::Waiting(warning) => outcome.warning = Some(warning),
                LogOutput::Refused(reason) => outcome.refusal = Some(reason),
            }
        }
        outcome
    }

    /// Returns the outcome of options that need a log, for a database without one.
    pub(crate) fn without_log(&self, place: &str) -> LogOutcome {
        let mut outcome = LogOutcome::default();
        match self.reader.needs_log() {
            Some(LogNeed::Begin) => {
                outcome.refusal = Some(format!("{place} has no log to begin in: build with --delivery log"));
            }
            Some(LogNeed::Name) => {
                outcome.warning = Some(format!(
                    "{place} delivers by NOTIFY, so no position is kept under the worker's name, and changes that are made \
                     while it does not run are not reported: build with --delivery log"
                ));
            }
            None => {}
        }
        outcome
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
fn refusal(row: &Row) -> Option<String> {
    if is_true(row, 0) {
        return Some(
            "the server is a standby, which does not know the running transactions of its primary, so changes would be \
             missed: connect to the primary (target_session_attrs=read-write)"
                .to_owned(),
        );
    }
    if string(row, 1) != "t" {
        return Some(
            "the sequence notifyman.number does not return its numbers in order (CACHE, INCREMENT or CYCLE was changed): run \
             `notifyman build`"
                .to_owned(),
        );
    }
    None
}
