//! The part of a worker that follows one database: a state machine on one session, without a thread of its own.
//!
//! ```text
//!   Away ──opened──> Preparing: settings, what is installed, LISTEN ──> Following: outbox, spilled payloads, checks
//!     ▲                 │                                                  │
//!     └──────lost───────┴──────────────────────────────────────────────────┘        Ended: final loss, nothing installed
//! ```
//!
//! Events, answers and timers go in; requests by the manager's handle and items for the consumer come out. It waits for
//! nothing, and it sends nothing to a session before that session has the settings that it depends on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::{LoopContext, SpilledRead};
use super::coverage::{CoverageCheck, DeliveryWay};
use super::installed::Installation;
use super::mailbox::{LoopMessage, StepAnswer};
use super::outbox::{OutboxAction, OutboxPoller};
use super::payload::{self, ChangePayload};
use super::queue::{QueueItem, ROOM};
use super::server::{cannot, is, text};
use super::sql;
use super::status::queue_warning;
use super::step::{FollowStep, StepWarnings};
use crate::error::Error;
use crate::gap::Gap;
use crate::manager::ConnId;
use crate::row::Row;

/// The channel of all changes.
const CHANNEL: &str = "notifyman";
/// The time between two checks of what is installed, of the NOTIFY queue, and of what is spilled.
const CHECK: Duration = Duration::from_secs(30);
/// The shortest time between two checks.
const CHECK_MIN: Duration = Duration::from_millis(500);
/// The time after which a step that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// The most payloads of an outbox that are read in one query.
const OUTBOX_COUNT: usize = 1_000;
/// The fewest bytes of an outbox for which a query is worth its while.
const OUTBOX_BYTES_MIN: usize = 64 << 10;
/// A payload that refers to a spilled one is never longer: it holds names only.
const REFERENCE_MAX: usize = 7_999;

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
enum ReportedState {
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
    reported: ReportedState,
    /// `None` until it is known for the first time.
    way: Option<DeliveryWay>,
    is_listening: bool,
    coverage: CoverageCheck,
    /// When to check again, or to try again what failed.
    next_check: Option<Instant>,
    warnings: StepWarnings,
    spilled: Option<SpilledRead>,
    outbox: OutboxPoller,
}

impl DatabaseFollower {
    pub(crate) fn new(database: usize, id: ConnId, place: String) -> Self {
        Self {
            database,
            id,
            place,
            session: 0,
            phase: WorkerPhase::Away,
            reported: ReportedState::Nothing,
            way: None,
            is_listening: false,
            coverage: CoverageCheck::default(),
            next_check: None,
            warnings: StepWarnings::default(),
            spilled: None,
            outbox: OutboxPoller::default(),
        }
    }

    // ---- state ------------------------------------------------------------------------------------------------------

    pub(crate) fn is_ended(&self) -> bool {
        self.phase == WorkerPhase::Ended
    }

    /// Returns `true` until the first attempt to connect has succeeded, or its failure has been reported.
    pub(crate) fn is_unreported(&self) -> bool {
        self.phase == WorkerPhase::Away && self.reported == ReportedState::Nothing
    }

    /// Returns `true` if nothing is left to be done for a consumer that still acknowledges.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_ended() || self.spilled.is_none() && self.outbox.is_empty()
    }

    /// Returns `true` if everything is deleted that the consumer has acknowledged.
    pub(crate) fn is_clear(&self) -> bool {
        self.is_ended() || self.outbox.is_clear()
    }

    /// Returns when [`handle_timer`](Self::handle_timer) must be called.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        match self.phase {
            WorkerPhase::Away | WorkerPhase::Ended => None,
            WorkerPhase::Preparing => self.next_check,
            WorkerPhase::Prepared => [self.next_check, self.outbox.next_look()].into_iter().flatten().min(),
        }
    }

    fn reads_outbox(&self) -> bool {
        self.way.is_some_and(|way| way.outbox)
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
        self.is_listening = !gap.channels().is_empty();
        if self.is_listening {
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
        self.outbox.handle_lost(cx.now);
        if let Some(spilled) = &mut self.spilled {
            spilled.is_asked = false;
        }
        if is_final {
            self.end(error, cx);
        } else if self.reported != ReportedState::Disconnected {
            self.reported = ReportedState::Disconnected;
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
    pub(crate) fn handle_notification(&mut self, payload: &[u8], cx: &LoopContext<'_>) {
        if payload::is_incomplete(payload) {
            self.check_tables_soon(cx);
        }
        // Payloads behind a spilled one are examined in their turn.
        let number = if self.spilled.is_none() { self.spilled_number(payload, cx) } else { None };
        match number {
            Some(number) => {
                cx.queue.hold(self.database);
                self.spilled = Some(SpilledRead { number, reference: payload.into(), is_asked: false });
                self.read_spilled(cx);
            }
            None => cx.queue.push(self.database, QueueItem::Notified(payload.into())),
        }
    }

    /// The consumer has dealt with a payload of the outbox.
    pub(crate) fn handle_acknowledged(&mut self, number: i64, cx: &LoopContext<'_>) {
        self.outbox.acknowledge(number);
        self.advance_outbox(cx);
    }

    /// There is room in the queue again.
    pub(crate) fn handle_room(&mut self, cx: &LoopContext<'_>) {
        self.read_spilled(cx);
        self.advance_outbox(cx);
    }

    pub(crate) fn handle_timer(&mut self, cx: &LoopContext<'_>) {
        if self.next_check.is_some_and(|at| at <= cx.now) {
            self.next_check = None;
            match self.phase {
                WorkerPhase::Preparing => self.set_session(0, cx),
                WorkerPhase::Prepared => self.query(FollowStep::Installation, sql::installed(), cx),
                WorkerPhase::Away | WorkerPhase::Ended => {}
            }
        }
        self.advance_outbox(cx);
    }

    /// Gives up waiting for a spilled payload: the worker stops.
    pub(crate) fn handle_impatience(&mut self, cx: &LoopContext<'_>) {
        while let Some(spilled) = self.spilled.take() {
            self.release_spilled(spilled.reference, cx);
        }
    }

    // ---- answers ----------------------------------------------------------------------------------------------------

    /// A request was answered.
    pub(crate) fn handle_answer(&mut self, answer: StepAnswer, cx: &LoopContext<'_>) {
        if answer.session != self.session || matches!(self.phase, WorkerPhase::Away | WorkerPhase::Ended) {
            return;
        }
        let rows = match answer.result {
            Ok(rows) => rows,
            Err(error) => return self.handle_refused(answer.step, &error, cx),
        };
        let is_judged = matches!(answer.step, FollowStep::QueueUsage | FollowStep::Objects | FollowStep::Coverage);
        if !is_judged && answer.step != FollowStep::Installation {
            self.warnings.clear(answer.step);
        }
        match answer.step {
            FollowStep::Settings(index) => self.set_session(index + 1, cx),
            FollowStep::Installation => match rows.first().map(Installation::parse) {
                Some(Ok(installation)) => self.adopt_installation(installation, cx),
                Some(Err(error)) => self.handle_not_installed(error, cx),
                None => {
                    let reason = format!("nothing is installed at {}: run `notifyman build` there", self.place);
                    self.handle_not_installed(cannot(reason), cx);
                }
            },
            FollowStep::Objects | FollowStep::Coverage => {
                self.warn_all(answer.step, self.coverage.problems(answer.step, &rows), cx);
            }
            FollowStep::Listen => {
                self.is_listening = true;
                self.report_connected(cx);
            }
            FollowStep::QueueUsage => {
                let usage = rows.first().and_then(|row| text(row, 0).parse().ok()).unwrap_or_default();
                match queue_warning(usage) {
                    Some(warning) => self.warn(answer.step, warning, cx),
                    None => self.warnings.clear(answer.step),
                }
            }
            FollowStep::ReadSpilled(number) => self.handle_spilled(number, rows.first(), cx),
            FollowStep::LockOutbox => {
                self.outbox.handle_locked(rows.first().is_some_and(|row| is(row, 0)), cx.now);
                self.advance_outbox(cx);
            }
            FollowStep::ReadOutbox => self.handle_outbox(&rows, cx),
            FollowStep::ClearOutbox => {
                self.outbox.handle_cleared();
                self.advance_outbox(cx);
            }
            FollowStep::ClearSpilled => {}
        }
    }

    /// A request failed, and the session is still there.
    fn handle_refused(&mut self, step: FollowStep, error: &Error, cx: &LoopContext<'_>) {
        match step {
            FollowStep::Settings(_) | FollowStep::Installation | FollowStep::Listen => {
                self.next_check = cx.now.checked_add(RETRY)
            }
            FollowStep::ReadSpilled(number) => self.handle_spilled(number, None, cx),
            FollowStep::LockOutbox | FollowStep::ReadOutbox | FollowStep::ClearOutbox => {
                self.outbox.handle_failed(cx.now)
            }
            FollowStep::Objects | FollowStep::Coverage | FollowStep::QueueUsage | FollowStep::ClearSpilled => {}
        }
        self.warn(step, format!("could not {}: {error}", step.purpose()), cx);
    }

    /// There is nothing to follow: the end, unless there was something before, which may be built again.
    fn handle_not_installed(&mut self, error: Error, cx: &LoopContext<'_>) {
        if self.way.is_none() {
            return self.end(error, cx);
        }
        self.next_check = cx.now.checked_add(RETRY);
        self.warn(FollowStep::Installation, error.to_string(), cx);
    }

    // ---- preparing --------------------------------------------------------------------------------------------------

    /// Makes the session's settings from this one on, and then looks what is installed.
    fn set_session(&mut self, index: usize, cx: &LoopContext<'_>) {
        match sql::SESSION.get(index) {
            Some(settings) => self.query(FollowStep::Settings(index), (*settings).to_owned(), cx),
            None => {
                self.phase = WorkerPhase::Prepared;
                self.read_spilled(cx);
                self.query(FollowStep::Installation, sql::installed(), cx);
            }
        }
    }

    fn adopt_installation(&mut self, installation: Installation, cx: &LoopContext<'_>) {
        match installation.readable_options(&self.place) {
            Ok(options) => {
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
        self.warnings.clear(FollowStep::Installation);
        let before = self.way.replace(way);
        if way.outbox {
            if std::mem::take(&mut self.is_listening) {
                drop(cx.handle.unlisten_all(self.id));
            }
            self.report_connected(cx);
        } else if self.is_listening {
            self.report_connected(cx);
        } else {
            if before.is_some_and(|before| before.outbox) {
                let warning = "the installation delivers by NOTIFY now, and no longer by a table: changes before this was \
                               noticed may be missing, so treat everything as changed";
                self.warn(FollowStep::Listen, warning.to_owned(), cx);
            }
            self.listen(cx);
        }
        self.query(FollowStep::QueueUsage, sql::QUEUE_USAGE.to_owned(), cx);
        if way.spills {
            self.query(FollowStep::ClearSpilled, sql::clear_spilled(cx.keep_spilled), cx);
        }
        self.advance_outbox(cx);
    }

    fn report_connected(&mut self, cx: &LoopContext<'_>) {
        if self.reported != ReportedState::Connected {
            self.reported = ReportedState::Connected;
            cx.queue.push(self.database, QueueItem::Connected);
        }
    }

    // ---- spilled payloads -------------------------------------------------------------------------------------------

    /// Returns the number of the spilled payload to which a wanted notification refers.
    fn spilled_number(&self, payload: &[u8], cx: &LoopContext<'_>) -> Option<i64> {
        const MARK: &[u8] = b"\"spilled\":true";
        if payload.len() > REFERENCE_MAX || !payload.windows(MARK.len()).any(|part| part == MARK) {
            return None;
        }
        match ChangePayload::parse(payload) {
            Ok(ChangePayload::Change(change)) if change.spilled && cx.filter.accepts_change(&change) => {
                Some(change.number)
            }
            _ => None,
        }
    }

    fn read_spilled(&mut self, cx: &LoopContext<'_>) {
        if self.phase == WorkerPhase::Prepared
            && let Some(spilled) = self.spilled.as_mut().filter(|spilled| !spilled.is_asked)
            && cx.queue.room().is_some()
        {
            spilled.is_asked = true;
            let number = spilled.number;
            self.query(FollowStep::ReadSpilled(number), sql::read_spilled(number), cx);
        }
    }

    /// Hands out what was spilled, or the notification alone if it is no longer there.
    fn handle_spilled(&mut self, number: i64, row: Option<&Row>, cx: &LoopContext<'_>) {
        if let Some(spilled) = self.spilled.take_if(|spilled| spilled.number == number) {
            let payload = row.and_then(|row| row.get_bytes(0)).map_or(spilled.reference, Box::from);
            self.release_spilled(payload, cx);
        }
    }

    /// Hands out a payload and what is held behind it, up to the next that refers to a spilled one.
    fn release_spilled(&mut self, payload: Box<[u8]>, cx: &LoopContext<'_>) {
        cx.queue.release(self.database, QueueItem::Notified(payload));
        while let Some(item) = cx.queue.take_held(self.database) {
            if let QueueItem::Notified(payload) = &item
                && let Some(number) = self.spilled_number(payload, cx)
            {
                self.spilled = Some(SpilledRead { number, reference: payload.clone(), is_asked: false });
                return self.read_spilled(cx);
            }
            cx.queue.release(self.database, item);
        }
    }

    // ---- the outbox -------------------------------------------------------------------------------------------------

    fn advance_outbox(&mut self, cx: &LoopContext<'_>) {
        if self.phase != WorkerPhase::Prepared {
            return;
        }
        let reads = self.reads_outbox() && !cx.queue.is_stopped();
        // Without room, the queue announces it.
        let room = if reads && self.outbox.is_empty() { cx.queue.room() } else { None };
        match self.outbox.next_action(room.is_some(), cx.now) {
            None => {}
            Some(OutboxAction::Lock) => self.query(FollowStep::LockOutbox, sql::LOCK_OUTBOX.to_owned(), cx),
            Some(OutboxAction::Clear(numbers)) => self.query(FollowStep::ClearOutbox, sql::clear_outbox(&numbers), cx),
            Some(OutboxAction::Read) => {
                let share = room.unwrap_or_default() / cx.databases.max(1);
                let sql = sql::read_outbox(OUTBOX_COUNT, share.clamp(OUTBOX_BYTES_MIN, ROOM));
                self.query(FollowStep::ReadOutbox, sql, cx);
            }
        }
    }

    fn handle_outbox(&mut self, rows: &[Row], cx: &LoopContext<'_>) {
        // Nothing is handed out after a stop.
        let rows = if cx.queue.is_stopped() { &[] } else { rows };
        for row in rows {
            match text(row, 0).parse() {
                Ok(number) if self.outbox.add(number) => {
                    let payload: Box<[u8]> = row.get_bytes(1).unwrap_or_default().into();
                    if payload::is_incomplete(&payload) {
                        self.check_tables_soon(cx);
                    }
                    cx.queue.push(self.database, QueueItem::Posted(number, payload));
                }
                Ok(_) => {}
                Err(_) => {
                    let warning = format!("the outbox has a row with the number {:?}", row.get(0));
                    self.warn(FollowStep::ReadOutbox, warning, cx);
                }
            }
        }
        self.outbox.handle_read(rows.len(), cx.now);
        self.advance_outbox(cx);
    }

    // ---- requests ---------------------------------------------------------------------------------------------------

    fn query(&self, step: FollowStep, sql: String, cx: &LoopContext<'_>) {
        let (database, session, mailbox) = (self.database, self.session, Arc::clone(cx.mailbox));
        cx.handle.query_then(self.id, sql, move |result| {
            mailbox.send(LoopMessage::Answer(StepAnswer { database, session, step, result }));
        });
    }

    fn listen(&self, cx: &LoopContext<'_>) {
        let (database, session, mailbox) = (self.database, self.session, Arc::clone(cx.mailbox));
        cx.handle.listen_then(self.id, vec![CHANNEL.to_owned()], move |result| {
            let (step, result) = (FollowStep::Listen, result.map(|()| Vec::new()));
            mailbox.send(LoopMessage::Answer(StepAnswer { database, session, step, result }));
        });
    }

    /// Reports these warnings about a step together; without any, the step has succeeded.
    fn warn_all(&mut self, step: FollowStep, warnings: Vec<String>, cx: &LoopContext<'_>) {
        match warnings.is_empty() {
            true => self.warnings.clear(step),
            false => self.warn(step, format!("{}: {}", self.place, warnings.join("; ")), cx),
        }
    }

    /// Reports a warning about a step, unless it is the one that was reported last.
    fn warn(&mut self, step: FollowStep, warning: String, cx: &LoopContext<'_>) {
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
