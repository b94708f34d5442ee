//! A reader on a session: its actions as SQL, and the answers to them.

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

/// The fewest bytes for which a query is worth its while.
const BYTES_MIN: usize = 64 << 10;

/// The reader of one database's log.
#[derive(Debug)]
pub(crate) struct LogFollower {
    pub(crate) reader: LogReader,
    keep_for: Duration,
    keep_size: u64,
    /// The number of gaps that were reported.
    gaps: u64,
}

/// The outcome of an answer, apart from what was handed to the consumer.
#[derive(Debug, Default)]
pub(crate) struct LogOutcome {
    /// It cannot be read now.
    pub(crate) warning: Option<String>,
    /// It cannot be read, for a reason that does not pass.
    pub(crate) refusal: Option<String>,
    /// `true` if an event trigger has left tables to the next build.
    pub(crate) is_incomplete: bool,
}

impl LogFollower {
    pub(crate) fn new(options: LogOptions) -> Self {
        Self { reader: LogReader::new(options), keep_for: Duration::MAX, keep_size: u64::MAX, gaps: 0 }
    }

    /// Sets how long, and up to which size, rows are kept.
    pub(crate) fn set_retention(&mut self, keep_for: Duration, keep_size: u64) {
        (self.keep_for, self.keep_size) = (keep_for, keep_size);
        self.reader.set_keep_for(keep_for);
    }

    /// Reads what the consumer has dealt with.
    pub(crate) fn read_acknowledgements(&mut self, database: usize, cx: &LoopContext<'_>) {
        if let Some((position, count)) = cx.queue.take_acknowledged(database) {
            self.reader.acknowledge(position, count);
        }
    }

    /// Returns the next query. Rows are read as far as there is room in the queue, which announces it later.
    pub(crate) fn next_query(&mut self, cx: &LoopContext<'_>) -> Option<(LogRequest, String)> {
        let reads = !cx.queue.is_stopped();
        let room = if reads { cx.queue.room() } else { None };
        let bytes = room.unwrap_or_default() / cx.databases.max(1);
        let bytes = bytes.clamp(BYTES_MIN, ROOM);
        Some(match self.reader.next_action(reads, room.is_some(), cx.now)? {
            LogAction::Prepare => (LogRequest::Prepare, queries::PREPARE.to_owned()),
            LogAction::Claim(name, backend) => (LogRequest::Claim, queries::claim(&name, backend)),
            LogAction::Mark(time) => (LogRequest::Mark, queries::mark(time)),
            LogAction::Draw => (LogRequest::Draw, queries::begin_era()),
            LogAction::Look(position) => (LogRequest::View, queries::look(position.as_ref(), bytes)),
            LogAction::Page(position) => (LogRequest::View, queries::page(&position, bytes)),
            LogAction::Save(name, position) => (LogRequest::Save, queries::save(&name, &position)),
            LogAction::Lead => (LogRequest::Lead, queries::LEAD.to_owned()),
            LogAction::Wake => (LogRequest::Send, queries::WAKE.to_owned()),
            LogAction::ReportWaiting(name) => (LogRequest::Send, queries::report_waiting(&name)),
            LogAction::Keep => (LogRequest::Keep, queries::keep(self.keep_for, self.keep_size)),
        })
    }

    /// Handles an answer; `Err` if it cannot be understood.
    pub(crate) fn handle_answer(&mut self, step: LogRequest, rows: &[Row], now: Instant) -> Result<Vec<LogOutput>, ()> {
        let reader = &mut self.reader;
        let output = match step {
            LogRequest::Prepare => {
                let row = rows.first().ok_or(())?;
                reader.handle_prepared(refusal(row), now)
            }
            LogRequest::Claim => reader.handle_claimed(Claimed::parse(rows).ok_or(())?, now),
            LogRequest::Mark => {
                reader.handle_marked(Marked::parse(rows));
                None
            }
            LogRequest::Draw => {
                reader.handle_drawn();
                None
            }
            LogRequest::View => {
                let (view, rows) = LogView::parse(rows).ok_or(())?;
                return Ok(reader.handle_view(&view, rows, now, clock::wall()));
            }
            LogRequest::Save => {
                reader.handle_saved(now);
                None
            }
            LogRequest::Lead => {
                let row = rows.first().ok_or(())?;
                reader.handle_led(is_true(row, 0), is_true(row, 1), now);
                None
            }
            LogRequest::Send => {
                reader.handle_sent(now);
                None
            }
            LogRequest::Keep => {
                reader.handle_kept(now);
                None
            }
        };
        Ok(output.into_iter().collect())
    }

    /// Returns what becomes of options that ask for a log, of a database without one.
    pub(crate) fn without_log(&self, place: &str) -> LogOutcome {
        let (mut warning, mut refusal) = (None, None);
        match self.reader.needs_log() {
            Some(LogNeed::Begin) => {
                refusal = Some(format!("{place} has no log to begin in: build with --delivery log"))
            }
            Some(LogNeed::Name) => {
                warning = Some(format!(
                    "{place} delivers by NOTIFY, so no position is kept under the worker's name, and changes that are made \
                     while it does not run are not reported: build with --delivery log"
                ));
            }
            None => {}
        }
        LogOutcome { warning, refusal, is_incomplete: false }
    }

    /// Handles a query that failed.
    pub(crate) fn handle_failed(&mut self, step: LogRequest, now: Instant) {
        match step {
            LogRequest::Prepare | LogRequest::Claim | LogRequest::Mark | LogRequest::Draw | LogRequest::View => {
                self.reader.handle_failed(now);
            }
            LogRequest::Save => self.reader.handle_save_failed(now),
            LogRequest::Lead | LogRequest::Send | LogRequest::Keep => self.reader.handle_shared_failed(now),
        }
    }

    /// Hands to the consumer what was read.
    pub(crate) fn push(&mut self, database: usize, outputs: Vec<LogOutput>, cx: &LoopContext<'_>) -> LogOutcome {
        let mut outcome = LogOutcome::default();
        for output in outputs {
            match output {
                LogOutput::Gap(gap, position) => {
                    let gap = self.gap(gap.reason, gap.since, cx.now);
                    cx.queue.push(database, QueueItem::LoggedGap(position, gap));
                }
                LogOutput::Change(position, payload) => {
                    outcome.is_incomplete |= payload::is_incomplete(&payload);
                    cx.queue.push(database, QueueItem::Logged(position, payload));
                }
                LogOutput::Waiting(warning) => outcome.warning = Some(warning),
                LogOutput::Refused(reason) => outcome.refusal = Some(reason),
            }
        }
        outcome
    }

    /// Makes a gap of what may be missing up to now.
    pub(crate) fn gap(&mut self, reason: &str, since: Option<SystemTime>, now: Instant) -> Gap {
        self.gaps += 1;
        let wall = clock::wall();
        // Where it is not known, it is long ago, for readers that look for what was changed since.
        let since = since.unwrap_or(SystemTime::UNIX_EPOCH);
        let age = wall.duration_since(since).unwrap_or_default();
        let since = (now.checked_sub(age).unwrap_or(now), since);
        let channels = [Box::from(CHANNEL)].into();
        Gap::from(GapData { channels, cause: changes_error(reason), since, until: (now, wall), epoch: self.gaps })
    }
}

/// The reason for which a server cannot be read from.
fn refusal(row: &Row) -> Option<String> {
    if is_true(row, 0) {
        return Some(
            "the server is a standby, which does not know the running transactions of its primary, so that changes would be \
             missed: connect to the primary (target_session_attrs=read-write)"
                .to_owned(),
        );
    }
    if string(row, 1) != "t" {
        return Some(
            "the sequence notifyman.number does not give the numbers in order (CACHE, INCREMENT or CYCLE was changed): run \
             `notifyman build`"
                .to_owned(),
        );
    }
    None
}
