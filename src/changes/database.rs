//! The part of a worker that follows one database: a state machine on one session, without a thread of its own.
//!
//! ```text
//!   Away ──opened──> Preparing: settings, what is installed, LISTEN ──> Following: log, spilled payloads, checks
//!     ▲                 │                                                  │
//!     └──────lost───────┴──────────────────────────────────────────────────┘        Ended: final loss, nothing installed
//! ```
//!
//! Events, answers and timers go in; requests by the manager's handle and items for the consumer come out. It waits for
//! nothing, and it sends nothing to a session before that session has the settings that it depends on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::LoopContext;
use super::coverage::{CoverageCheck, DeliveryWay};
use super::installation::Installation;
use super::log::{LOG_CHANNEL, LogOptions, LogOutput};
use super::log_follower::LogFollower;
use super::mailbox::{DatabaseReply, LoopMessage};
use super::payload;
use super::queue::QueueItem;
use super::request::{DatabaseRequest, LogRequest, RequestWarnings};
use super::rows::{changes_error, string};
use super::spilled::SpilledReader;
use super::sql::{self, CHANNEL};
use super::status::queue_warning;
use crate::error::Error;
use crate::gap::Gap;
use crate::manager::ConnId;
use crate::row::Row;

/// The time between two checks of what is installed, of the NOTIFY queue, and of what is spilled.
const CHECK: Duration = Duration::from_secs(30);
/// The shortest time between two checks.
const CHECK_MIN: Duration = Duration::from_millis(500);
/// The time after which a step that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// The delivery has changed while a worker followed.
const OTHER_DELIVERY: &str = "the installation delivers in another way now, so changes may be missing that were made before \
                              this was noticed";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkerPhase {
    /// There is no session.
    Away,
    /// The session does not have its settings yet.
    Preparing,
    /// The session has its settings.
    Prepared,
    /// It is over for good.
    Ended,
}

/// The state of the connection as it was last reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionReport {
    Nothing,
    Connected,
    Disconnected,
}

/// The follower of one database.
#[derive(Debug)]
pub(crate) struct DatabaseFollower {
    /// Its number, from 1.
    database: usize,
    pub(crate) id: ConnId,
    /// The place of the database, for error texts.
    place: String,
    /// Counts the sessions.
    session: u64,
    phase: WorkerPhase,
    reported: ConnectionReport,
    /// `None` until it is known for the first time.
    way: Option<DeliveryWay>,
    /// The channel that the session listens to.
    channel: Option<&'static str>,
    coverage: CoverageCheck,
    /// When to check again, or to try again what failed.
    next_check: Option<Instant>,
    warnings: RequestWarnings,
    spilled: SpilledReader,
    log: LogFollower,
}

impl DatabaseFollower {
    pub(crate) fn new(database: usize, id: ConnId, place: String, log: LogOptions) -> Self {
        Self {
            database,
            id,
            place,
            session: 0,
            phase: WorkerPhase::Away,
            reported: ConnectionReport::Nothing,
            way: None,
            channel: None,
            coverage: CoverageCheck::default(),
            next_check: None,
            warnings: RequestWarnings::default(),
            spilled: SpilledReader::new(database),
            log: LogFollower::new(log),
        }
    }

    // ---- state ------------------------------------------------------------------------------------------------------

    pub(crate) fn is_ended(&self) -> bool {
        self.phase == WorkerPhase::Ended
    }

    /// Returns `true` until the first attempt to connect has succeeded, or its failure has been reported.
    pub(crate) fn is_unreported(&self) -> bool {
        self.phase == WorkerPhase::Away && self.reported == ConnectionReport::Nothing
    }

    /// Returns `true` if nothing is left to be done for a consumer that still acknowledges.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_ended()
            || self.spilled.is_idle() && self.is_clear() && (!self.reads_log() || self.log.reader.is_empty())
    }

    /// Returns `true` if the position is saved up to which the consumer has acknowledged.
    pub(crate) fn is_clear(&self) -> bool {
        self.is_ended() || !self.reads_log() || self.log.reader.is_clear()
    }

    /// Returns when [`handle_timer`](Self::handle_timer) must be called.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        match self.phase {
            WorkerPhase::Away | WorkerPhase::Ended => None,
            WorkerPhase::Preparing => self.next_check,
            WorkerPhase::Prepared => [self.next_check, self.log.reader.next_timer()].into_iter().flatten().min(),
        }
    }

    fn reads_log(&self) -> bool {
        self.way.is_some_and(|way| way.log)
    }

    // ---- events -----------------------------------------------------------------------------------------------------

    /// The first session is open.
    pub(crate) fn handle_opened(&mut self, cx: &LoopContext<'_>) {
        self.session += 1;
        self.phase = WorkerPhase::Preparing;
        self.set_session(0, cx);
    }

    /// A lost session has been replaced, and listens to what the old one did.
    pub(crate) fn handle_restored(&mut self, gap: Gap, cx: &LoopContext<'_>) {
        let listens = |channel: &&str| gap.channels().iter().any(|name| **name == **channel);
        self.channel = [CHANNEL, LOG_CHANNEL].into_iter().find(listens);
        if self.channel == Some(CHANNEL) {
            self.report_connected(cx);
            cx.queue.push(self.database, QueueItem::Gap(gap));
        }
        self.handle_opened(cx);
    }

    /// The session was lost, or could not be opened, for good or until it is restored.
    pub(crate) fn handle_lost(&mut self, error: Error, is_final: bool, cx: &LoopContext<'_>) {
        self.session += 1;
        self.phase = WorkerPhase::Away;
        self.next_check = None;
        self.log.reader.handle_lost();
        self.spilled.handle_lost();
        if is_final {
            self.end(error, cx);
        } else if self.reported != ConnectionReport::Disconnected {
            self.reported = ConnectionReport::Disconnected;
            cx.queue.push(self.database, QueueItem::Disconnected(error));
        }
    }

    /// The first attempt to connect has failed, and is repeated.
    pub(crate) fn handle_first_failure(&mut self, error: Error, cx: &LoopContext<'_>) {
        if self.is_unreported() {
            self.handle_lost(error, false, cx);
        }
    }

    /// A payload was notified.
    pub(crate) fn handle_notification(&mut self, channel: &[u8], payload: &[u8], cx: &LoopContext<'_>) {
        if channel == LOG_CHANNEL.as_bytes() {
            let output = self.log.reader.handle_notification(&String::from_utf8_lossy(payload));
            return self.handle_log(LogRequest::Send, output.into_iter().collect(), cx);
        }
        if payload::is_incomplete(payload) {
            self.check_tables_soon(cx);
        }
        self.spilled.push(payload, cx);
        self.read_spilled(cx);
    }

    /// The consumer has taken something, dealt with something, or stopped.
    pub(crate) fn handle_consumer(&mut self, cx: &LoopContext<'_>) {
        self.read_spilled(cx);
        self.advance_log(cx);
    }

    pub(crate) fn handle_timer(&mut self, cx: &LoopContext<'_>) {
        if self.next_check.is_some_and(|at| at <= cx.now) {
            self.next_check = None;
            match self.phase {
                WorkerPhase::Preparing => self.set_session(0, cx),
                WorkerPhase::Prepared => self.query(DatabaseRequest::Installation, sql::installed(), cx),
                WorkerPhase::Away | WorkerPhase::Ended => {}
            }
        }
        self.advance_log(cx);
    }

    /// Gives up waiting for a spilled payload: the worker stops.
    pub(crate) fn handle_impatience(&mut self, cx: &LoopContext<'_>) {
        self.spilled.release_all(cx);
    }

    // ---- answers ----------------------------------------------------------------------------------------------------

    /// A request was answered.
    pub(crate) fn handle_answer(&mut self, answer: DatabaseReply, cx: &LoopContext<'_>) {
        if answer.session != self.session || matches!(self.phase, WorkerPhase::Away | WorkerPhase::Ended) {
            return;
        }
        let rows = match answer.result {
            Ok(rows) => rows,
            Err(error) => return self.handle_refused(answer.step, &error, cx),
        };
        let is_judged = matches!(
            answer.step,
            DatabaseRequest::QueueUsage
                | DatabaseRequest::Objects
                | DatabaseRequest::Coverage
                | DatabaseRequest::Log(_)
        );
        if !is_judged && answer.step != DatabaseRequest::Installation {
            self.warnings.clear(answer.step);
        }
        match answer.step {
            DatabaseRequest::Settings(index) => self.set_session(index + 1, cx),
            DatabaseRequest::Installation => match rows.first().map(Installation::parse) {
                Some(Ok(installation)) => self.adopt_installation(installation, cx),
                Some(Err(error)) => self.handle_not_installed(error, cx),
                None => {
                    let reason = format!("nothing is installed at {}: run `notifyman build` there", self.place);
                    self.handle_not_installed(changes_error(reason), cx);
                }
            },
            DatabaseRequest::Objects | DatabaseRequest::Coverage => {
                self.warn_all(answer.step, self.coverage.problems(answer.step, &rows), cx);
            }
            DatabaseRequest::Listen if self.reads_log() => self.channel = Some(LOG_CHANNEL),
            DatabaseRequest::Listen => {
                self.channel = Some(CHANNEL);
                self.report_connected(cx);
            }
            DatabaseRequest::QueueUsage => {
                let usage = rows.first().and_then(|row| string(row, 0).parse().ok()).unwrap_or_default();
                match queue_warning(usage) {
                    Some(warning) => self.warn(answer.step, warning, cx),
                    None => self.warnings.clear(answer.step),
                }
            }
            DatabaseRequest::ReadSpilled(number) => self.handle_spilled(number, rows.first(), cx),
            // Nothing is handed out after a stop.
            DatabaseRequest::Log(LogRequest::View) if cx.queue.is_stopped() => {
                self.log.reader.handle_stopped();
                self.advance_log(cx);
            }
            DatabaseRequest::Log(step) => match self.log.handle_answer(step, &rows, cx.now) {
                Ok(outputs) => self.handle_log(step, outputs, cx),
                Err(()) => {
                    let error = changes_error("the server gave an answer that cannot be understood");
                    self.handle_refused(answer.step, &error, cx);
                }
            },
            DatabaseRequest::ClearSpilled => {}
        }
    }

    /// A request failed, and the session is still there.
    fn handle_refused(&mut self, step: DatabaseRequest, error: &Error, cx: &LoopContext<'_>) {
        match step {
            DatabaseRequest::Settings(_) | DatabaseRequest::Installation | DatabaseRequest::Listen => {
                self.next_check = cx.now.checked_add(RETRY)
            }
            DatabaseRequest::ReadSpilled(number) => self.handle_spilled(number, None, cx),
            DatabaseRequest::Log(step) => self.log.handle_failed(step, cx.now),
            DatabaseRequest::Objects
            | DatabaseRequest::Coverage
            | DatabaseRequest::QueueUsage
            | DatabaseRequest::ClearSpilled => {}
        }
        self.warn(step, format!("could not {}: {error}{}", step.purpose(), step.remedy(error)), cx);
    }

    /// There is nothing to follow: the end, unless there was something before, which may be built again.
    fn handle_not_installed(&mut self, error: Error, cx: &LoopContext<'_>) {
        if self.way.is_none() {
            return self.end(error, cx);
        }
        self.next_check = cx.now.checked_add(RETRY);
        self.warn(DatabaseRequest::Installation, error.to_string(), cx);
    }

    // ---- preparing --------------------------------------------------------------------------------------------------

    /// Makes the session's settings from this one on, and then looks what is installed.
    fn set_session(&mut self, index: usize, cx: &LoopContext<'_>) {
        match sql::SESSION.get(index) {
            Some(settings) => self.query(DatabaseRequest::Settings(index), (*settings).to_owned(), cx),
            None => {
                self.phase = WorkerPhase::Prepared;
                self.read_spilled(cx);
                self.query(DatabaseRequest::Installation, sql::installed(), cx);
            }
        }
    }

    fn adopt_installation(&mut self, installation: Installation, cx: &LoopContext<'_>) {
        match installation.readable_options(&self.place) {
            Ok(options) => {
                self.log.set_retention(options.keep_for, options.keep_size);
                self.adopt(DeliveryWay::of(&options), cx);
                for (step, sql) in self.coverage.queries(options, cx.now) {
                    self.query(step, sql, cx);
                }
            }
            Err(error) => self.handle_not_installed(error, cx),
        }
    }

    /// An event trigger has left tables to the next build: looks soon which those are.
    fn check_tables_soon(&mut self, cx: &LoopContext<'_>) {
        self.coverage.hasten();
        self.next_check = self.next_check.map(|at| at.min(cx.now + CHECK_MIN));
    }

    /// Follows an installation by the way in which it delivers.
    fn adopt(&mut self, way: DeliveryWay, cx: &LoopContext<'_>) {
        self.next_check = cx.now.checked_add(CHECK.min(cx.keep_spilled.max(CHECK_MIN)));
        self.warnings.clear(DatabaseRequest::Installation);
        let before = self.way.replace(way);
        let has_changed = before.is_some_and(|before| before.log != way.log);
        let channel = if way.log { LOG_CHANNEL } else { CHANNEL };
        if has_changed && way.log {
            self.log.reader.begin_with_gap(OTHER_DELIVERY);
        } else if has_changed {
            let gap = self.log.gap(OTHER_DELIVERY, None, cx.now);
            cx.queue.push(self.database, QueueItem::Gap(gap));
        }
        if !way.log {
            let outcome = self.log.without_log(&self.place);
            if let Some(reason) = outcome.refusal {
                return self.end(changes_error(reason), cx);
            }
            outcome
                .warning
                .into_iter()
                .for_each(|warning| self.warn(DatabaseRequest::Log(LogRequest::Claim), warning, cx));
        }
        if self.channel != Some(channel) {
            if self.channel.take().is_some() {
                drop(cx.handle.unlisten_all(self.id));
            }
            self.listen(channel, cx);
        } else if !way.log {
            self.report_connected(cx);
        }
        self.query(DatabaseRequest::QueueUsage, sql::QUEUE_USAGE.to_owned(), cx);
        if way.spills {
            self.query(DatabaseRequest::ClearSpilled, sql::clear_spilled(cx.keep_spilled), cx);
        }
        self.advance_log(cx);
    }

    fn report_connected(&mut self, cx: &LoopContext<'_>) {
        if self.reported != ConnectionReport::Connected {
            self.reported = ConnectionReport::Connected;
            cx.queue.push(self.database, QueueItem::Connected);
        }
    }

    // ---- spilled payloads -------------------------------------------------------------------------------------------

    fn read_spilled(&mut self, cx: &LoopContext<'_>) {
        if self.phase == WorkerPhase::Prepared
            && let Some(number) = self.spilled.next_request(cx)
        {
            self.query(DatabaseRequest::ReadSpilled(number), sql::read_spilled(number), cx);
        }
    }

    fn handle_spilled(&mut self, number: i64, row: Option<&Row>, cx: &LoopContext<'_>) {
        self.spilled.handle_reply(number, row, cx);
        self.read_spilled(cx);
    }

    // ---- the log ----------------------------------------------------------------------------------------------------

    fn advance_log(&mut self, cx: &LoopContext<'_>) {
        self.log.read_acknowledgements(self.database, cx);
        if self.phase == WorkerPhase::Prepared
            && self.reads_log()
            && let Some((step, sql)) = self.log.next_query(cx)
        {
            self.query(DatabaseRequest::Log(step), sql, cx);
        }
    }

    fn handle_log(&mut self, step: LogRequest, outputs: Vec<LogOutput>, cx: &LoopContext<'_>) {
        if step == LogRequest::View && self.log.reader.has_begun() {
            self.report_connected(cx);
        }
        let outcome = self.log.push(self.database, outputs, cx);
        if outcome.is_incomplete {
            self.check_tables_soon(cx);
        }
        match outcome.warning {
            Some(warning) => self.warn(DatabaseRequest::Log(step), warning, cx),
            None => self.warnings.clear(DatabaseRequest::Log(step)),
        }
        match outcome.refusal {
            Some(reason) => self.end(changes_error(format!("{}: {reason}", self.place)), cx),
            None => self.advance_log(cx),
        }
    }

    // ---- requests ---------------------------------------------------------------------------------------------------

    fn query(&self, step: DatabaseRequest, sql: String, cx: &LoopContext<'_>) {
        let (database, session, mailbox) = (self.database, self.session, Arc::clone(cx.mailbox));
        cx.handle.query_then(self.id, sql, move |result| {
            mailbox.send(LoopMessage::Reply(DatabaseReply { database, session, step, result }));
        });
    }

    fn listen(&self, channel: &str, cx: &LoopContext<'_>) {
        let (database, session, mailbox) = (self.database, self.session, Arc::clone(cx.mailbox));
        cx.handle.listen_then(self.id, vec![channel.to_owned()], move |result| {
            let (step, result) = (DatabaseRequest::Listen, result.map(|()| Vec::new()));
            mailbox.send(LoopMessage::Reply(DatabaseReply { database, session, step, result }));
        });
    }

    /// Reports these warnings about a step together; without any, the step has succeeded.
    fn warn_all(&mut self, step: DatabaseRequest, warnings: Vec<String>, cx: &LoopContext<'_>) {
        match warnings.is_empty() {
            true => self.warnings.clear(step),
            false => self.warn(step, format!("{}: {}", self.place, warnings.join("; ")), cx),
        }
    }

    /// Reports a warning about a step, unless it is the one that was reported last.
    fn warn(&mut self, step: DatabaseRequest, warning: String, cx: &LoopContext<'_>) {
        if self.warnings.is_new(step, &warning) {
            cx.queue.push(self.database, QueueItem::Warning(warning));
        }
    }

    /// Ends for good.
    fn end(&mut self, error: Error, cx: &LoopContext<'_>) {
        self.handle_impatience(cx);
        self.phase = WorkerPhase::Ended;
        cx.queue.push(self.database, QueueItem::Lost(error));
        drop(cx.handle.remove(self.id));
    }
}
