//! The reader of a log: a plain value that decides on the next action, without a connection or a clock.
//!
//! ```text
//!   Prepare ──> Claim ──> Poll ──> Poll ──> Poll (a large batch) ──> Page ──> Page ──> Poll ..
//!   each session   a name   │ ▲                                                 │
//!                           ▼ │ another era             between them: Save, Elect, Wake, Rotate
//!                         BeginEra
//! ```
//!
//! A poll reads one batch: the rows that are visible now and were not visible at the position, in the order of their numbers.
//! All changes of a transaction are in one batch, so a position is between transactions, or within a batch that two snapshots
//! define. Every reason why changes may be missing becomes a gap, which is reported before later changes.

use std::time::{Duration, Instant, SystemTime};

use super::action::{
    BEGAN_LATER, Begin, LogAction, LogNeed, LogOptions, LogOutput, LogRequest, NEW_NAME, NOT_APPENDED, OLDER,
    OTHER_ERA, REMOVED,
};
use super::claim::NameClaim;
use super::position::{LogBatch, LogPlace, Position, PositionShared};
use super::reply::{Claimed, LogRow, LogView, Marked};
use super::saves::PositionSaves;
use super::schedule::PollSchedule;
use super::snapshot::Snapshot;

/// The time after which a failed or refused action is repeated.
const RETRY: Duration = Duration::from_secs(2);
/// The minimum time between two reports that changes were not appended.
const GAP_SPACING: Duration = Duration::from_secs(1);

/// Reads the log of one database.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone, Hash))]
pub(crate) struct LogReader {
    options: LogOptions,
    /// `true` while there is no reply to an action.
    is_busy: bool,
    is_prepared: bool,
    needs_era: bool,
    /// The time at which to repeat a failed action.
    pub(super) retry: Option<Instant>,
    /// The position up to which the log has been read.
    position: Option<Position>,
    /// Transactions before this one may have rows of an earlier era than the position.
    era_bound: u64,
    /// `true` once the position is known to be of this server. From then on, every change is reported.
    pub(crate) has_begun: bool,
    /// The reason for a gap that must be reported with the next poll.
    pub(crate) gap: Option<&'static str>,
    /// The time up to which the log has been read.
    since: Option<SystemTime>,
    /// The time of the poll that found the batch which is being read.
    polled_at: Option<SystemTime>,
    /// `true` unless only saves are allowed.
    is_reading: bool,
    /// The time from which on a full log may be reported again.
    pub(super) next_gap: Option<Instant>,
    pub(super) schedule: PollSchedule,
    pub(super) saves: PositionSaves,
    claim: NameClaim,
}

impl LogReader {
    pub(crate) fn new(mut options: LogOptions) -> Self {
        Self {
            claim: NameClaim::new(options.name.take()),
            schedule: PollSchedule::new(options.interval, options.quiet_interval),
            options,
            ..Self::default()
        }
    }

    /// Sets the time for which rows are kept.
    pub(crate) fn set_keep_for(&mut self, time: Duration) {
        self.schedule.keep_for = Some(time);
    }

    /// Returns an option that needs a log, if there is one.
    pub(crate) fn needs_log(&self) -> Option<LogNeed> {
        match (&self.options.begin, &self.claim.name) {
            (Begin::At(_) | Begin::Since(_), _) => Some(LogNeed::Begin),
            (Begin::Default, Some(_)) => Some(LogNeed::Name),
            (Begin::Default, None) => None,
        }
    }

    // ---- actions ----------------------------------------------------------------------------------------------------

    /// Returns the next action, which then awaits its reply. Unless `is_reading`, the only actions are those that save the
    /// acknowledged position. Without room, no rows are read.
    pub(crate) fn next_action(&mut self, is_reading: bool, has_room: bool, now: Instant) -> Option<LogAction> {
        self.is_reading = is_reading;
        if self.is_busy || self.retry.is_some_and(|at| at > now) {
            return None;
        }
        self.retry = None;
        let action = self.due_action(has_room, now)?;
        self.is_busy = true;
        Some(action)
    }

    fn due_action(&mut self, has_room: bool, now: Instant) -> Option<LogAction> {
        let is_due = |at: Option<Instant>| at.is_none_or(|at| at <= now);
        if !self.is_prepared {
            return (self.is_reading || !self.is_saved()).then_some(LogAction::Prepare);
        }
        if let Some(action) = self.claim.next_action() {
            return Some(action);
        }
        if let Some(name) = self.claim.name.as_ref().filter(|_| self.has_begun)
            && let Some(position) = self.saves.next_save(self.position.as_ref(), !self.is_reading, now)
        {
            return Some(LogAction::Save(name.clone(), position));
        }
        if !self.is_reading {
            return None;
        }
        if self.needs_era {
            return Some(LogAction::BeginEra);
        }
        if std::mem::take(&mut self.schedule.must_wake) {
            return Some(LogAction::Wake);
        }
        if is_due(self.schedule.next_election) {
            return Some(LogAction::Elect);
        }
        if let (Begin::Since(time), Some(_)) = (&self.options.begin, &self.position) {
            return Some(LogAction::FindMark(*time));
        }
        if self.has_begun && is_due(self.schedule.next_rotation) {
            return Some(LogAction::Rotate);
        }
        if !is_due(self.schedule.next_poll) {
            return None;
        }
        // Without room the poll stays due, and the queue sends a message when there is room.
        self.schedule.poll_now();
        match &self.position {
            _ if !has_room => None,
            Some(position) if position.shared.batch.is_some() => Some(LogAction::Page(position.clone())),
            position => Some(LogAction::Poll(position.clone())),
        }
    }

    /// Returns the time at which [`next_action`](Self::next_action) must be called, if the next action depends on time.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        if self.is_busy {
            return None;
        }
        // A session that is not prepared cannot save.
        let save = self.saves.next.filter(|_| self.is_prepared && self.claim.name.is_some());
        let next = self.schedule.next_timer(self.has_begun).filter(|_| self.is_reading);
        self.retry.or_else(|| [next, save].into_iter().flatten().min())
    }

    // ---- replies ----------------------------------------------------------------------------------------------------

    /// Handles the reply to [`LogAction::Prepare`]. `refusal` is the reason why the log cannot be read on this server.
    pub(crate) fn handle_prepared(&mut self, refusal: Option<&str>, now: Instant) -> Option<LogOutput> {
        self.is_busy = false;
        self.is_prepared = refusal.is_none();
        let Some(reason) = refusal.map(str::to_owned) else {
            self.schedule.poll_now();
            return None;
        };
        self.retry = now.checked_add(RETRY);
        Some(if self.has_begun { LogOutput::Waiting(reason) } else { LogOutput::Refused(reason) })
    }

    /// Handles the reply to [`LogAction::Claim`].
    pub(crate) fn handle_claimed(&mut self, claimed: Claimed, now: Instant) -> Option<LogOutput> {
        self.is_busy = false;
        if let Some(holder) = claimed.holder {
            let (warning, must_report) = self.claim.handle_refused(&holder);
            self.retry = now.checked_add(RETRY).filter(|_| !must_report);
            return Some(LogOutput::Waiting(warning));
        }
        self.claim.handle_claimed(claimed.backend);
        if self.position.is_some() || self.options.begin != Begin::Default {
            return None;
        }
        self.since = claimed.moved_at;
        match claimed.position.as_deref().map(str::parse::<Position>) {
            Some(Ok(position)) => self.position = Some(position),
            Some(Err(error)) => {
                let name = self.claim.name.as_deref().unwrap_or_default();
                return Some(LogOutput::Refused(format!(
                    "the position that is kept under {name:?} is damaged: {error:#}"
                )));
            }
            None => self.gap = Some(NEW_NAME),
        }
        None
    }

    /// Handles the reply to [`LogAction::FindMark`].
    pub(crate) fn handle_marked(&mut self, marked: Option<Marked>) {
        self.is_busy = false;
        if let Begin::Since(time) = std::mem::take(&mut self.options.begin) {
            self.since = Some(time);
        }
        // Without a mark, the whole log is read.
        let Marked { snapshot, dropped, bound } = marked.unwrap_or_else(|| {
            self.gap = Some(OLDER);
            Marked { snapshot: Snapshot::empty(), dropped: 0, bound: 0 }
        });
        let era_bound = self.era_bound;
        self.position = self.position.take().map(|position| {
            position.with(|shared| {
                // Transactions that were open when the era began may have ended before the position was taken.
                (shared.from, shared.dropped, shared.bound) = (snapshot, dropped, bound.max(era_bound));
            })
        });
        self.schedule.poll_now();
    }

    /// Handles the reply to [`LogAction::Poll`] or [`LogAction::Page`].
    pub(crate) fn handle_view(&mut self, view: LogView, now: Instant, wall: SystemTime) -> Vec<LogOutput> {
        self.is_busy = false;
        if !view.is_current {
            self.needs_era = true;
            self.retry = now.checked_add(self.options.interval);
            return Vec::new();
        }
        let Some(position) = self.position.take() else { return self.begin(&view).into_iter().collect() };
        let is_known = view.knows_start && position.is_of_database(view.place);
        if is_known && position.newest() > view.snapshot.xmax {
            return vec![LogOutput::Refused(format!(
                "the position {position} is newer than the server, because its next transaction has a lower number: the text \
                 was changed, or the server was set back. Begin without a position, and treat everything as changed"
            ))];
        }
        let mut outputs = Vec::new();
        if !std::mem::replace(&mut self.has_begun, true) {
            self.saves.is_unsaved = true;
        }
        let position = if is_known {
            let (position, gap) = self.find_gap(position, &view, now);
            outputs.extend(gap);
            self.read(position, view, now, &mut outputs)
        } else {
            let position = view.position();
            let reason = self.gap.take().unwrap_or(OTHER_ERA);
            outputs.push(self.gap(reason, &position));
            position
        };
        let is_item = |output: &&LogOutput| matches!(output, LogOutput::Gap { .. } | LogOutput::Change(..));
        self.saves.outstanding += outputs.iter().filter(is_item).count();
        if position.shared.batch.is_none() {
            // The rows of a batch with several pages are those of the poll before them.
            self.since = self.polled_at.take().or(Some(wall));
        } else {
            self.polled_at.get_or_insert(wall);
        }
        self.position = Some(position);
        outputs
    }

    /// Begins at the position that was set, or at that of this poll.
    fn begin(&mut self, view: &LogView) -> Option<LogOutput> {
        self.schedule.poll_now();
        self.era_bound = view.era_bound;
        self.position = Some(view.position());
        if let Begin::At(position) = &self.options.begin {
            if !position.is_of_database(view.place) {
                let LogPlace { system, database, .. } = view.place;
                return Some(LogOutput::Refused(format!(
                    "the position {position} is of another database: this one is {database} of system {system}. Begin \
                     without a position, and treat everything as changed"
                )));
            }
            self.position = Some(position.clone());
            self.options.begin = Begin::Default;
        }
        None
    }

    fn gap(&self, reason: &'static str, position: &Position) -> LogOutput {
        LogOutput::Gap { reason, since: self.since, position: position.clone() }
    }

    /// Returns a gap if changes may be missing, and the position after it.
    fn find_gap(&mut self, mut position: Position, view: &LogView, now: Instant) -> (Position, Option<LogOutput>) {
        let mut reason = self.gap.take();
        if !position.shared.from.includes(&view.truncated) {
            reason = reason.or(Some(REMOVED));
            position = position.with(|shared| shared.from = shared.from.with_seen(&view.truncated));
        }
        // Within a batch these are not checked, because they belong to its second snapshot.
        if position.shared.batch.is_none() {
            let PositionShared { from, dropped, bound, .. } = &*position.shared;
            let may_report = self.next_gap.is_none_or(|at| at <= now);
            if *dropped != view.dropped && may_report {
                self.next_gap = now.checked_add(GAP_SPACING);
                reason = reason.or(Some(NOT_APPENDED));
                position = position.with(|shared| (shared.dropped, shared.bound) = (view.dropped, view.bound));
            } else if view.snapshot.sees_more_before(*bound, from) {
                let is_of_era = *bound <= view.era_bound;
                reason = reason.or(Some(if is_of_era { BEGAN_LATER } else { NOT_APPENDED }));
            }
            if position.shared.bound > 0 && view.snapshot.sees_all_before(position.shared.bound) {
                position = position.with(|shared| shared.bound = 0);
            }
        }
        let gap = reason.map(|reason| self.gap(reason, &position));
        (position, gap)
    }

    /// Adds the rows to the outputs, and returns the position after them.
    fn read(&mut self, position: Position, view: LogView, now: Instant, outputs: &mut Vec<LogOutput>) -> Position {
        let is_page = position.shared.batch.is_some();
        if !view.rows.is_empty() || is_page || !view.is_whole {
            self.schedule.handle_changes(now);
        }
        // A poll follows a page, and a page follows a poll with a batch that is too large for one reply.
        match is_page || !view.is_whole {
            true => self.schedule.poll_now(),
            false => self.schedule.wait(now),
        }
        let batch = match is_page {
            true => position,
            false => position.with(|shared| {
                shared.place.start = view.place.start;
                shared.batch = Some(LogBatch { to: view.snapshot.clone(), first: view.first, end: view.end });
            }),
        };
        let count = view.rows.len();
        let mut last = batch.clone();
        for (index, LogRow { number, payload }) in view.rows.into_iter().enumerate() {
            last = if view.is_whole && index + 1 == count { batch.after_batch() } else { batch.after(number) };
            outputs.push(LogOutput::Change(last.clone(), payload));
        }
        // A complete batch without rows has ended.
        if view.is_whole && count == 0 { batch.after_batch() } else { last }
    }

    /// Handles the reply to [`LogAction::Elect`].
    pub(crate) fn handle_elected(&mut self, is_leader: bool, has_followers: bool, now: Instant) {
        self.is_busy = false;
        self.schedule.handle_elected(is_leader, has_followers, now);
    }

    /// Handles the reply to a request of which only the success matters. Read rows are discarded, because the consumer takes
    /// nothing more.
    pub(crate) fn handle_done(&mut self, request: LogRequest, now: Instant) {
        self.is_busy = false;
        match request {
            // This reader or another one has begun an era.
            LogRequest::BeginEra => {
                self.needs_era = false;
                self.schedule.poll_now();
            }
            LogRequest::Save => self.saves.handle_saved(self.schedule.idle(), now),
            LogRequest::Send if !self.claim.is_settled() => self.retry = now.checked_add(RETRY),
            LogRequest::Rotate => self.schedule.handle_rotated(now),
            _ => {}
        }
    }

    /// Handles a request that has failed. Only those that are necessary for reading delay it.
    pub(crate) fn handle_failed(&mut self, request: LogRequest, now: Instant) {
        self.is_busy = false;
        match request {
            LogRequest::Save => self.saves.handle_failed(Some(now + RETRY)),
            LogRequest::Elect | LogRequest::Send | LogRequest::Rotate => self.schedule.handle_failed(now + RETRY),
            LogRequest::Prepare
            | LogRequest::Claim
            | LogRequest::FindMark
            | LogRequest::BeginEra
            | LogRequest::Read => self.retry = now.checked_add(RETRY),
        }
    }

    /// Handles the loss of the session, and of its locks.
    pub(crate) fn handle_lost(&mut self) {
        self.is_busy = false;
        self.saves.handle_failed(None);
        self.is_prepared = false;
        self.claim.handle_lost();
        self.retry = None;
        self.schedule.handle_lost();
    }

    /// Handles a message from another reader, which has found changes, or waits for the name of this one.
    pub(crate) fn handle_notification(&mut self, payload: &str) -> Option<LogOutput> {
        match self.claim.handle_message(payload) {
            Some(warning) => warning.map(LogOutput::Waiting),
            None => {
                self.schedule.poll_now();
                None
            }
        }
    }

    // ---- the consumer -----------------------------------------------------------------------------------------------

    /// Records that the consumer has acknowledged `count` more changes and gaps, up to this position.
    pub(crate) fn acknowledge(&mut self, position: Position, count: usize) {
        self.saves.acknowledge(position, count);
    }

    /// Returns `true` if the consumer has acknowledged everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.saves.outstanding == 0
    }

    /// Returns `true` if the acknowledged position is saved.
    pub(crate) fn is_saved(&self) -> bool {
        self.claim.name.is_none() || self.saves.is_saved()
    }
}
