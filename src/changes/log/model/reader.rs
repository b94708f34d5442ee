//! A reader of the model: the shipped state machine, its consumer, and the checks of both.

use std::time::{Duration, Instant, SystemTime};

use super::rotation::{self, Age};
use super::server::{ChangeSet, EarlyReads, FOREIGN, ModelServer, SavedPosition};
use super::{ModelConfig, Mutant, ReadRule, ReaderKind};
use crate::changes::log::action::{
    BEGAN_LATER, Begin, LogAction, LogOptions, LogOutput, LogRequest, NEW_NAME, NOT_APPENDED, OLDER, OTHER_ERA, REMOVED,
};
use crate::changes::log::position::Position;
use crate::changes::log::reader::LogReader;
use crate::changes::log::reply::{Claimed, LogView, Marked};

pub(super) type CheckResult = Result<(), String>;

/// The changes that a consumer has received. They are saved together with a position.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct ReceivedChanges {
    /// `true` once the first position is known.
    has_begun: bool,
    pub(super) delivered: ChangeSet,
    /// The changes that were committed before the first position, or before a gap.
    covered: ChangeSet,
    since_gap: ChangeSet,
}

impl ReceivedChanges {
    fn begin(committed: ChangeSet) -> Self {
        Self { has_begun: true, covered: committed, ..Self::default() }
    }

    fn handle_gap(&mut self, committed: ChangeSet) {
        self.covered |= committed;
        self.since_gap = 0;
    }

    /// Adds a change, and checks its order.
    fn handle_change(
        &mut self,
        change: u8,
        position: &Position,
        server: &ModelServer,
        config: &ModelConfig,
    ) -> CheckResult {
        if change == FOREIGN {
            return Err("a row of another era is delivered".to_owned());
        }
        if self.delivered & 1 << change > 0 {
            return Err(format!("change {change} is delivered twice"));
        }
        let row = |change: u8| config.row(change);
        let later = server.made.iter().skip_while(|made| **made != change);
        if let Some(later) =
            later.clone().find(|later| row(**later) == row(change) && self.since_gap & 1 << **later > 0)
        {
            return Err(format!("change {change} of row {} is delivered after change {later}", row(change)));
        }
        self.delivered |= 1 << change;
        self.since_gap |= 1 << change;
        if position.shared.batch.is_some() {
            return Ok(());
        }
        for (index, transaction) in server.transactions.iter().enumerate() {
            let appended = transaction.appended;
            let is_begun = appended & self.delivered & self.since_gap > 0;
            if is_begun && server.committed(None) & appended & !(self.delivered | self.covered) > 0 {
                return Err(format!("a position divides transaction {index}"));
            }
        }
        Ok(())
    }

    /// Checks that none of these changes is missing.
    fn check(&self, expected: ChangeSet) -> CheckResult {
        let missing = expected & !(self.delivered | self.covered);
        match self.has_begun && missing > 0 {
            true => Err(format!("change {} is missing, without a gap", missing.trailing_zeros())),
            false => Ok(()),
        }
    }
}

/// An action without a reply so far.
#[derive(Debug, Clone, Hash)]
enum PendingAction {
    Read(Option<Position>, EarlyReads),
    BeginEra(EarlyReads),
    Rotate(EarlyReads, Age),
}

/// An action that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DueAction {
    /// A poll, which may report a full log or not.
    Poll {
        may_report: bool,
    },
    Save,
    Rotate(Age),
}

#[derive(Debug, Clone, Hash)]
pub(super) struct ModelReader {
    index: usize,
    kind: ReaderKind,
    log: LogReader,
    pending: Option<PendingAction>,
    /// All changes that were delivered.
    pub(super) received: ReceivedChanges,
    /// The position that the consumer saves together with the effects.
    kept: Option<Position>,
    /// Items that were delivered and not acknowledged, with the state after each.
    queue: Vec<(Position, ReceivedChanges)>,
    /// The state after the last acknowledged item.
    acknowledged: ReceivedChanges,
    /// The highest number that was read, for [`ReadRule::NumberAbove`].
    highest: i64,
    /// `true` if the last reply contained items, or more rows are left.
    pub(super) is_active: bool,
}

/// Makes a save, a rotation, and a report of a full log due now or in an hour. A poll is due now.
fn set_timers(log: &mut LogReader, saves: bool, keeps: bool, may_report: bool, now: Instant) {
    let time = |is_due: bool| (!is_due).then_some(now + Duration::from_secs(3_600));
    (log.next_gap, log.retry) = (time(may_report), None);
    (log.saves.next, log.saves.next_idle) = (time(saves), time(saves));
    (log.schedule.next_rotation, log.schedule.next_poll) = (time(keeps), None);
    log.schedule.next_election = log.schedule.next_election.and(time(false));
}

impl ModelReader {
    pub(super) fn new(index: usize, kind: ReaderKind) -> Self {
        let name = matches!(kind, ReaderKind::Named).then(|| "model".to_owned());
        let begin = match kind {
            ReaderKind::Since(_) => Begin::Since(SystemTime::UNIX_EPOCH),
            ReaderKind::Client | ReaderKind::Named => Begin::Default,
        };
        Self {
            index,
            kind,
            log: LogReader::new(LogOptions { name, begin, ..LogOptions::default() }),
            pending: None,
            received: ReceivedChanges::default(),
            kept: None,
            queue: Vec::new(),
            acknowledged: ReceivedChanges::default(),
            highest: 0,
            is_active: true,
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    pub(super) fn is_polling(&self) -> bool {
        matches!(self.pending, Some(PendingAction::Read(..)))
    }

    pub(super) fn has_begun(&self) -> bool {
        self.log.has_begun
    }

    pub(super) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    // ---- actions ----------------------------------------------------------------------------------------------------

    /// Begins the next action. Returns `false` if another action is due.
    pub(super) fn begin(
        &mut self,
        due: DueAction,
        server: &mut ModelServer,
        config: &ModelConfig,
        now: Instant,
    ) -> Result<bool, String> {
        let begun = loop {
            let may_report = !matches!(due, DueAction::Poll { may_report: false });
            set_timers(&mut self.log, due == DueAction::Save, matches!(due, DueAction::Rotate(_)), may_report, now);
            let Some(action) = self.log.next_action(true, true, now) else { break false };
            let is_due = match &action {
                LogAction::Save(..) => due == DueAction::Save,
                LogAction::Rotate => matches!(due, DueAction::Rotate(_)),
                LogAction::Poll(_) | LogAction::Page(_) => matches!(due, DueAction::Poll { .. }),
                _ => true,
            };
            if !is_due {
                break false;
            }
            match action {
                LogAction::Prepare => drop(self.log.handle_prepared(None, now)),
                LogAction::Claim(..) => self.claim(server, now)?,
                LogAction::Elect => self.log.handle_elected(true, true, now),
                LogAction::Wake | LogAction::ReportWaiting(_) => self.log.handle_done(LogRequest::Send, now),
                LogAction::FindMark(_) => self.mark(server),
                LogAction::Save(_, position) => {
                    let received = if self.queue.is_empty() { &self.received } else { &self.acknowledged };
                    let position: Position = position.to_string().parse().map_err(|_| "the text of a position")?;
                    let saved = SavedPosition { position, received: received.clone() };
                    if server.positions[self.index].as_ref() == Some(&saved) {
                        break false;
                    }
                    server.save(self.index, saved);
                    self.log.handle_done(LogRequest::Save, now);
                    break true;
                }
                LogAction::Rotate => {
                    let DueAction::Rotate(age) = due else { break false };
                    self.pending =
                        rotation::begin(server, self.index, age, config).map(|early| PendingAction::Rotate(early, age));
                    break self.pending.is_some();
                }
                LogAction::BeginEra if server.era_lock.is_some() => break false,
                LogAction::BeginEra => match server.begin_era(self.index) {
                    Some(early) => {
                        self.pending = Some(PendingAction::BeginEra(early));
                        break true;
                    }
                    None => self.log.handle_done(LogRequest::BeginEra, now),
                },
                LogAction::Poll(position) => {
                    let early = server.begin_poll(position.as_ref(), config);
                    self.pending = Some(PendingAction::Read(position, early));
                    break true;
                }
                LogAction::Page(position) => {
                    let early = server.begin_poll(Some(&position), config);
                    self.pending = Some(PendingAction::Read(Some(position), early));
                    break true;
                }
            }
        };
        set_timers(&mut self.log, false, false, true, now);
        Ok(begun)
    }

    fn claim(&mut self, server: &ModelServer, now: Instant) -> CheckResult {
        let saved = server.positions[self.index].as_ref();
        if let (Some(saved), false) = (saved, self.received.has_begun) {
            self.received = saved.received.clone();
            self.acknowledged = saved.received.clone();
        }
        let position = saved.map(|saved| saved.position.to_string());
        let claimed = Claimed { holder: None, backend: 1, position, moved_at: None };
        self.log.handle_claimed(claimed, now).map_or(Ok(()), |output| Err(format!("{output:?}")))
    }

    fn mark(&mut self, server: &ModelServer) {
        let marked = match self.kind {
            ReaderKind::Since(Some(back)) => server.mark_count().checked_sub(back + 1),
            _ => None,
        };
        let marked = marked.and_then(|index| server.marked(index));
        let snapshot = marked.as_ref().map(|Marked { snapshot, .. }| snapshot);
        self.received = ReceivedChanges::begin(snapshot.map_or(0, |snapshot| server.committed(Some(snapshot))));
        self.log.handle_marked(marked);
    }

    /// Completes the action that was begun. If `items` is given, the consumer crashes after that many items. Returns `false` if
    /// there were fewer.
    pub(super) fn finish(
        &mut self,
        items: Option<usize>,
        server: &mut ModelServer,
        config: &ModelConfig,
        now: Instant,
    ) -> Result<bool, String> {
        if items.is_some() && !matches!(self.pending, Some(PendingAction::Read(..))) {
            return Ok(false);
        }
        self.is_active = true;
        match self.pending.take() {
            Some(PendingAction::Read(position, early)) => {
                let view = server.poll(position.as_ref(), &early, self.highest, config);
                if config.rule == ReadRule::NumberAbove {
                    self.highest = view.rows.iter().map(|row| row.number).max().unwrap_or(0).max(self.highest);
                }
                if !self.handle_view(position.as_ref(), &view, items, server, config, now)? {
                    return Ok(false);
                }
            }
            Some(PendingAction::BeginEra(early)) => {
                server.finish_era(&early, config);
                self.log.handle_done(LogRequest::BeginEra, now);
            }
            Some(PendingAction::Rotate(early, age)) => {
                rotation::finish(server, &early, age, config);
                self.log.handle_done(LogRequest::Rotate, now);
            }
            None => return Ok(false),
        }
        if items.is_some() {
            self.crash();
        }
        set_timers(&mut self.log, false, false, true, now);
        Ok(true)
    }

    #[allow(clippy::too_many_arguments)]
    fn handle_view(
        &mut self,
        position: Option<&Position>,
        view: &LogView,
        items: Option<usize>,
        server: &ModelServer,
        config: &ModelConfig,
        now: Instant,
    ) -> Result<bool, String> {
        let outputs = self.log.handle_view(view.clone(), now, SystemTime::UNIX_EPOCH);
        if items.is_some_and(|items| items > outputs.len()) {
            return Ok(false);
        }
        if position.is_none() && view.is_current && !matches!(self.kind, ReaderKind::Since(_)) {
            // The reader begins with the changes that are committed from now on.
            if !self.received.has_begun {
                self.received = ReceivedChanges::begin(server.committed(None));
            }
        }
        self.is_active = !outputs.is_empty() || !view.is_whole || !view.is_current || position.is_none();
        for output in outputs.into_iter().take(items.unwrap_or(usize::MAX)) {
            let position = match output {
                LogOutput::Gap { reason, position: after, .. } => {
                    let is_known = position.is_some_and(|p| server.starts.contains(&p.shared.place.start));
                    self.check_gap(reason, is_known, server, config)?;
                    self.received.handle_gap(server.committed(None));
                    after
                }
                LogOutput::Change(after, payload) => {
                    self.received.handle_change(payload[0], &after, server, config)?;
                    after
                }
                // Another guard detects some of the wrong positions.
                LogOutput::Refused(_) if config.mutant == Some(Mutant::NoStart) => return Ok(false),
                LogOutput::Refused(text) | LogOutput::Waiting(text) => return Err(text),
            };
            match self.kind {
                ReaderKind::Named => self.queue.push((position, self.received.clone())),
                ReaderKind::Client | ReaderKind::Since(_) => self.kept = Some(position),
            }
        }
        if items.is_none() && position.is_some() && view.is_whole && view.is_current {
            // All appended changes that were committed at the poll have been read, whatever transactions are open.
            let appended = server.transactions.iter().fold(0, |all, transaction| all | transaction.appended);
            let batch = position.and_then(|position| position.shared.batch.as_ref());
            self.received.check(server.committed(batch.map(|batch| &batch.to)) & appended)?;
        }
        Ok(true)
    }

    /// Checks that there is a cause for a gap.
    fn check_gap(&self, reason: &str, is_known: bool, server: &ModelServer, config: &ModelConfig) -> CheckResult {
        let is_right = match reason {
            NEW_NAME => true,
            OLDER => matches!(self.kind, ReaderKind::Since(_)),
            OTHER_ERA => !is_known,
            REMOVED => server.truncations > 0,
            NOT_APPENDED => server.has_dropped,
            BEGAN_LATER => server.was_begun_busy,
            _ => false,
        };
        match is_right && (config.may_have_gaps || reason == NEW_NAME) {
            true => Ok(()),
            false => Err(format!("a gap without a cause: {reason}")),
        }
    }

    // ---- the consumer, and faults -----------------------------------------------------------------------------------

    /// Makes the consumer acknowledge this many items.
    pub(super) fn acknowledge(&mut self, count: usize) {
        let rest = self.queue.split_off(count.min(self.queue.len()));
        if let Some((position, received)) = self.queue.pop() {
            self.log.acknowledge(position, self.queue.len() + 1);
            self.acknowledged = received;
        }
        self.queue = rest;
    }

    /// Ends the reader's process, and starts another one at the saved position.
    pub(super) fn crash(&mut self) {
        let mut next = Self::new(self.index, self.kind);
        if let Some(position) = self.kept.take() {
            // The position is saved as text.
            let begin = position.to_string().parse().map_or(Begin::Default, Begin::At);
            next.log = LogReader::new(LogOptions { begin, ..LogOptions::default() });
            next.received = self.received.clone();
            next.kept = Some(position);
            next.highest = self.highest;
        }
        *self = next;
    }

    /// Loses the session. The pending action may have been executed or not.
    pub(super) fn lose_session(&mut self, server: &mut ModelServer) {
        match self.pending.take() {
            Some(PendingAction::Read(_, early)) => server.end_poll(&early),
            Some(_) => server.era_lock = None,
            None => {}
        }
        self.log.handle_lost();
    }

    /// Checks that every committed change has been delivered, or is covered by a gap.
    pub(super) fn check(&self, server: &ModelServer) -> CheckResult {
        self.received.check(server.committed(None))
    }
}
