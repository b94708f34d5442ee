//! A model of PostgreSQL: transactions, snapshots, sequences, row locks, and the tables of a log with the rules of its SQL.

use super::{ModelConfig, Mutant, ReadRule, ReaderKind};
use crate::changes::log::position::{LogBatch, LogPlace, Position};
use crate::changes::log::reply::{LogRow, LogView, Marked};
use crate::changes::log::snapshot::Snapshot;

/// A set of changes, by their indexes.
pub(super) type ChangeSet = u32;
/// The index of a row that was dumped in another cluster and restored in this one.
pub(super) const FOREIGN: u8 = 31;
/// The maximum number of changes of one transaction.
const WRITES: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum TransactionPhase {
    Idle,
    Open,
    Committed,
    /// Rolled back, or lost in a crash.
    Over,
}

/// A transaction of a client, which makes some changes.
#[derive(Debug, Clone, Hash)]
pub(super) struct ModelTransaction {
    pub(super) phase: TransactionPhase,
    pub(super) xid: u64,
    /// The number of changes so far.
    pub(super) at: usize,
    /// The number of the change that is being appended.
    pub(super) number: Option<i64>,
    /// The table to which the next change is appended, if it has been chosen.
    pub(super) table: Option<i64>,
    /// The appended changes.
    pub(super) appended: ChangeSet,
    /// The locked tables of the log, one bit each.
    pub(super) locked: u8,
}

/// A row of the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ModelRow {
    pub(super) xid: u64,
    pub(super) number: i64,
    pub(super) table: i64,
    change: u8,
}

#[derive(Debug, Clone, Hash)]
pub(super) struct ModelEra {
    pub(super) floor: i64,
    bound: u64,
    pub(super) truncated: Snapshot,
}

/// A row of `notifyman.mark`. Marks are in the order of time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ModelMark {
    pub(super) generation: i64,
    dropped: i64,
    xid: u64,
    xmin: u64,
    snapshot: Snapshot,
}

/// A row of `notifyman.position`, and the changes that the consumer had received by then.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SavedPosition {
    pub(super) position: Position,
    pub(super) received: super::reader::ReceivedChanges,
}

/// The values that the first statement of a poll, or the first part of a block, has read.
#[derive(Debug, Clone, Default, Hash)]
pub(super) struct EarlyReads {
    dropped: i64,
    bound: u64,
    last: i64,
    /// The tables that are needed, for [`Mutant::CheckBeforeLock`].
    pub(super) needed: Vec<i64>,
    /// The rows of the first statement, for [`Mutant::TwoStatements`].
    rows: Option<(Vec<ModelRow>, i64, bool)>,
}

#[derive(Debug, Clone, Hash)]
pub(super) struct ModelServer {
    pub(super) transactions: Vec<ModelTransaction>,
    next_xid: u64,
    latest_completed: u64,
    /// In ascending order.
    running: Vec<u64>,
    pub(super) log: Vec<ModelRow>,
    /// All changes, in the order in which they were made.
    pub(super) made: Vec<u8>,
    number: i64,
    pub(super) dropped: i64,
    pub(super) table: i64,
    pub(super) era: Option<ModelEra>,
    pub(super) starts: Vec<i64>,
    /// The id of the server's current start, if it is recorded.
    start: Option<i64>,
    next_start: i64,
    pub(super) marks: Vec<ModelMark>,
    pub(super) positions: Vec<Option<SavedPosition>>,
    /// The number of truncated tables.
    pub(super) truncations: u8,
    /// The session that has locked `notifyman.era`.
    pub(super) era_lock: Option<usize>,
    /// `true` if transactions were open when the era began.
    pub(super) was_begun_busy: bool,
    /// `true` if a change was ever dropped, even before a crash.
    pub(super) has_dropped: bool,
}

impl ModelServer {
    pub(super) fn new(config: &ModelConfig) -> Self {
        let transaction = ModelTransaction {
            phase: TransactionPhase::Idle,
            xid: 0,
            at: 0,
            number: None,
            table: None,
            appended: 0,
            locked: 0,
        };
        let foreign = ModelRow { xid: 4, number: 1, table: 3, change: FOREIGN };
        let mut server = Self {
            transactions: vec![transaction; config.rows.len()],
            next_xid: 3,
            latest_completed: 2,
            running: Vec::new(),
            log: config.has_foreign.then_some(foreign).into_iter().collect(),
            made: Vec::new(),
            number: i64::from(config.has_foreign),
            dropped: 0,
            table: 3,
            era: None,
            starts: Vec::new(),
            start: None,
            next_start: 1,
            marks: Vec::new(),
            positions: vec![None; config.readers.len()],
            truncations: 0,
            era_lock: None,
            was_begun_busy: false,
            has_dropped: false,
        };
        if config.has_era {
            let early = server.begin_era(0).unwrap_or_default();
            server.finish_era(&early, config);
        }
        server
    }

    // ---- transactions -----------------------------------------------------------------------------------------------

    pub(super) fn take_xid(&mut self) -> u64 {
        let xid = self.next_xid;
        self.next_xid += 1;
        self.running.push(xid);
        xid
    }

    pub(super) fn end_xid(&mut self, xid: u64) {
        self.running.retain(|running| *running != xid);
        self.latest_completed = self.latest_completed.max(xid);
    }

    /// Returns the snapshot of a session, without its own transaction `own`. Transactions after the last one that has ended are
    /// not listed.
    pub(super) fn snapshot(&self, own: u64) -> Snapshot {
        let xmax = self.latest_completed + 1;
        Snapshot::new(xmax, self.running.iter().copied().filter(|xid| *xid < xmax && *xid != own))
    }

    pub(super) fn begin(&mut self, index: usize) {
        self.transactions[index].xid = self.take_xid();
        self.transactions[index].phase = TransactionPhase::Open;
    }

    pub(super) fn end(&mut self, index: usize, phase: TransactionPhase) {
        let transaction = &mut self.transactions[index];
        (transaction.phase, transaction.locked, transaction.number) = (phase, 0, None);
        let xid = transaction.xid;
        if xid > 0 {
            self.end_xid(xid);
        }
        if phase == TransactionPhase::Over {
            self.transactions[index].xid = 0;
            self.log.retain(|row| row.xid != xid || row.change == FOREIGN);
            self.made.retain(|change| usize::from(*change) / WRITES != index);
        }
    }

    /// Returns `true` if another transaction has locked the row that this one changes next.
    pub(super) fn waits(&self, index: usize, config: &ModelConfig) -> bool {
        let row = config.rows[index][self.transactions[index].at];
        let has_changed = |(other, transaction): (usize, &ModelTransaction)| {
            let count = transaction.at + usize::from(transaction.number.is_some());
            other != index && is_open(transaction) && config.rows[other][..count].contains(&row)
        };
        self.transactions.iter().enumerate().any(has_changed)
    }

    /// Changes a row under its lock, and draws a number.
    pub(super) fn draw_number(&mut self, index: usize) {
        self.number += 1;
        self.made.push(change_of(index, self.transactions[index].at));
        self.transactions[index].number = Some(self.number);
    }

    /// Chooses the table of the log.
    pub(super) fn choose_table(&mut self, index: usize) {
        self.transactions[index].table = Some(self.table % 3);
    }

    /// Appends the change to the chosen table.
    pub(super) fn append(&mut self, index: usize) {
        let table = self.table % 3;
        let transaction = &mut self.transactions[index];
        let (table, number) = (transaction.table.take().unwrap_or(table), transaction.number.take().unwrap());
        let change = change_of(index, transaction.at);
        transaction.locked |= 1 << table;
        transaction.appended |= 1 << change;
        transaction.at += 1;
        let row = ModelRow { xid: transaction.xid, number, table, change };
        self.log.push(row);
        self.log.sort_unstable_by_key(|row| row.number);
    }

    /// Counts a change as dropped.
    pub(super) fn drop_change(&mut self, index: usize) {
        self.transactions[index].number = None;
        self.transactions[index].at += 1;
        self.dropped += 1;
        self.has_dropped = true;
    }

    /// Returns the committed changes, or those that are visible in a snapshot.
    pub(super) fn committed(&self, snapshot: Option<&Snapshot>) -> ChangeSet {
        let is_seen = |transaction: &ModelTransaction| snapshot.is_none_or(|snapshot| snapshot.sees(transaction.xid));
        let committed = self.transactions.iter().enumerate();
        let committed = committed
            .filter(|(_, transaction)| transaction.phase == TransactionPhase::Committed && is_seen(transaction));
        committed.fold(0, |all, (index, transaction)| {
            (0..transaction.at).fold(all, |all, at| all | 1 << change_of(index, at))
        })
    }

    /// Returns `true` if a row is visible to a new statement.
    fn is_visible(&self, row: &ModelRow) -> bool {
        let is_of = |transaction: &ModelTransaction| {
            transaction.phase == TransactionPhase::Committed && transaction.appended & 1 << row.change > 0
        };
        row.change == FOREIGN || self.transactions.iter().any(is_of)
    }

    pub(super) fn visible(&self) -> impl Iterator<Item = &ModelRow> + Clone {
        self.log.iter().filter(|row| self.is_visible(row))
    }

    fn floor(&self, config: &ModelConfig) -> i64 {
        let floor = self.era.as_ref().map_or(i64::MAX, |era| era.floor);
        if config.mutant == Some(Mutant::NoFloor) && floor < i64::MAX { 0 } else { floor }
    }

    // ---- reading ----------------------------------------------------------------------------------------------------

    /// Executes the first statement of `log_poll.sql`.
    pub(super) fn begin_poll(&mut self, position: Option<&Position>, config: &ModelConfig) -> EarlyReads {
        let dropped = self.dropped;
        let is_known = dropped == 0
            || position.is_some_and(|position| {
                position.shared.dropped == dropped && self.starts.contains(&position.shared.place.start)
            });
        let bound = if is_known && config.mutant != Some(Mutant::BoundBeforeCount) { 0 } else { self.take_xid() };
        let mut early = EarlyReads { dropped, bound, ..EarlyReads::default() };
        if config.mutant == Some(Mutant::TwoStatements) {
            early.rows = Some(self.select(position, &self.snapshot(bound), 0, config));
        }
        early
    }

    /// Executes the statement that reads the rows: `log_new_rows.sql` or `log_page.sql`.
    pub(super) fn poll(
        &mut self,
        position: Option<&Position>,
        early: &EarlyReads,
        read: i64,
        config: &ModelConfig,
    ) -> LogView {
        let snapshot = self.snapshot(early.bound);
        let current = self.era.as_ref().filter(|_| self.start.is_some());
        let rows = early.rows.clone();
        let (rows, first, is_whole) = rows.unwrap_or_else(|| self.select(position, &snapshot, read, config));
        let mut view = LogView {
            dropped: early.dropped,
            bound: early.bound,
            is_current: current.is_some(),
            place: LogPlace { system: 1, database: 1, start: self.start.filter(|_| current.is_some()).unwrap_or(0) },
            knows_start: position.is_some_and(|position| self.starts.contains(&position.shared.place.start)),
            truncated: current.map_or_else(Snapshot::empty, |era| era.truncated.clone()),
            era_bound: current.map_or(0, |era| era.bound),
            end: self.number,
            first,
            is_whole,
            snapshot,
            rows: rows.iter().map(|row| LogRow { number: row.number, payload: [row.change].into() }).collect(),
        };
        if config.rule == ReadRule::BelowXmin {
            view.snapshot = below_xmin(&view.snapshot);
        }
        match config.mutant {
            Some(Mutant::BoundBeforeCount) => {
                view.dropped = self.dropped;
                if position.map_or(0, |position| position.shared.dropped) == view.dropped {
                    view.bound = 0;
                }
            }
            Some(Mutant::NoBound) => view.bound = 0,
            Some(Mutant::BoundIsXmax) if view.bound > 0 => view.bound = view.snapshot.xmax,
            Some(Mutant::NoEraBound) => view.era_bound = 0,
            Some(Mutant::NoStart) => view.knows_start |= position.is_some(),
            Some(Mutant::NoTruncated) => view.truncated = Snapshot::empty(),
            _ => {}
        }
        self.end_poll(early);
        view
    }

    pub(super) fn end_poll(&mut self, early: &EarlyReads) {
        if early.bound > 0 {
            self.end_xid(early.bound);
        }
    }

    fn select(
        &self,
        position: Option<&Position>,
        now: &Snapshot,
        read: i64,
        config: &ModelConfig,
    ) -> (Vec<ModelRow>, i64, bool) {
        match position.filter(|_| self.start.is_some()) {
            None => (Vec::new(), 0, true),
            Some(position) => match &position.shared.batch {
                None => self.new_rows(position, now, read, config),
                Some(batch) => self.page(position, batch, now, config),
            },
        }
    }

    fn new_rows(
        &self,
        position: &Position,
        now: &Snapshot,
        read: i64,
        config: &ModelConfig,
    ) -> (Vec<ModelRow>, i64, bool) {
        let from = &position.shared.from;
        let xmin = below_xmin(now);
        let is_new = |row: &ModelRow| match config.rule {
            ReadRule::NumberAbove => row.number > read && now.sees(row.xid),
            ReadRule::BelowXmin => !from.sees(row.xid) && xmin.sees(row.xid),
            ReadRule::Difference => {
                let was_running = from.is_running(row.xid) && config.mutant != Some(Mutant::NoRunning);
                (row.xid >= from.xmax || was_running) && now.sees(row.xid)
            }
        };
        let floor = self.floor(config);
        let mut rows: Vec<_> = self.visible().filter(|e| is_new(e) && e.number > floor).cloned().collect();
        if rows.len() <= config.page {
            rows.sort_by_key(|row| row.number);
            return (rows, 0, true);
        }
        let first = self.visible().filter(|row| row.xid >= from.xmax).map(|row| row.number).min();
        (Vec::new(), first.unwrap_or(0), false)
    }

    fn page(
        &self,
        position: &Position,
        batch: &LogBatch,
        now: &Snapshot,
        config: &ModelConfig,
    ) -> (Vec<ModelRow>, i64, bool) {
        let from = &position.shared.from;
        let LogBatch { to, first, end } = batch;
        let to = if config.mutant == Some(Mutant::PageOfNow) { now } else { to };
        let after = position.number.unwrap_or(0).max(self.floor(config));
        let is_next = |row: &&ModelRow| {
            let is_ended = from.is_running(row.xid) && to.sees(row.xid) && row.number > after;
            let is_later = row.number > after.max(first - 1) && row.number <= *end;
            is_ended || is_later && row.xid >= from.xmax && to.sees(row.xid)
        };
        let mut rows: Vec<_> = self.visible().filter(is_next).cloned().collect();
        rows.sort_by_key(|row| row.number);
        rows.truncate(config.page);
        let is_whole = rows.len() < config.page;
        (rows, 0, is_whole)
    }

    /// Returns a mark, as `queries::mark` does.
    pub(super) fn marked(&self, index: usize) -> Option<Marked> {
        let mark = self.marks.get(index)?;
        let earlier =
            self.marks[..=index].iter().filter(|earlier| earlier.xid < mark.xmin).map(|earlier| earlier.dropped);
        let is_known = mark.dropped == earlier.max().unwrap_or(0);
        let bound = if is_known { 0 } else { mark.xid };
        Some(Marked { snapshot: mark.snapshot.clone(), dropped: mark.dropped, bound })
    }

    pub(super) fn mark_count(&self) -> usize {
        self.marks.len()
    }

    /// Saves a position in a transaction of its own.
    pub(super) fn save(&mut self, index: usize, saved: SavedPosition) {
        let xid = self.take_xid();
        self.positions[index] = Some(saved);
        self.end_xid(xid);
    }

    // ---- eras -------------------------------------------------------------------------------------------------------

    /// Executes `log_begin_era.sql` up to its first write. Returns `None` if there is an era.
    pub(super) fn begin_era(&mut self, session: usize) -> Option<EarlyReads> {
        if self.era.is_some() {
            self.note_start();
            return None;
        }
        self.era_lock = Some(session);
        Some(self.read_sequences())
    }

    pub(super) fn read_sequences(&self) -> EarlyReads {
        EarlyReads { dropped: self.dropped, last: self.number, ..EarlyReads::default() }
    }

    pub(super) fn finish_era(&mut self, early: &EarlyReads, config: &ModelConfig) {
        let xid = self.take_xid();
        let is_empty = self.transactions.iter().all(|transaction| transaction.locked == 0) && !config.has_foreign;
        self.log.retain(|_| !is_empty);
        self.was_begun_busy = !is_empty && self.transactions.iter().any(is_open);
        let snapshot = self.snapshot(xid);
        let bound = if config.mutant == Some(Mutant::BoundIsXmax) { snapshot.xmax } else { xid };
        let (floor, bound) = if is_empty { (0, 0) } else { (early.last, bound) };
        self.era = Some(ModelEra { floor, bound, truncated: Snapshot::empty() });
        (self.starts, self.start) = (Vec::new(), None);
        self.marks = vec![self.mark(early, xid, config)];
        self.note_start();
        self.end_xid(xid);
        self.era_lock = None;
    }

    fn note_start(&mut self) {
        if self.start.is_none() {
            self.start = Some(self.next_start);
            self.starts.push(self.next_start);
            self.next_start += 1;
        }
    }

    /// Returns a mark of the current state. If no reader begins at a mark, it only contains the generation.
    pub(super) fn mark(&self, early: &EarlyReads, xid: u64, config: &ModelConfig) -> ModelMark {
        if !config.readers.iter().any(|kind| matches!(kind, ReaderKind::Since(_))) {
            return ModelMark { generation: self.table, dropped: 0, xid: 0, xmin: 0, snapshot: Snapshot::empty() };
        }
        let snapshot = self.snapshot(xid);
        let xmin = snapshot.running.first().copied().unwrap_or(snapshot.xmax).min(xid);
        ModelMark { generation: self.table, dropped: early.dropped, xid, xmin, snapshot }
    }

    /// Restarts the server cleanly, or after a crash with the state that was on disk.
    pub(super) fn restart(&mut self, durable: Option<&Self>) {
        let (next_start, has_dropped) = (self.next_start, self.has_dropped);
        let has_begun: Vec<_> =
            self.transactions.iter().map(|t| is_open(t) || t.phase != TransactionPhase::Idle).collect();
        if let Some(durable) = durable {
            *self = durable.clone();
            (self.era, self.next_start, self.has_dropped) = (None, next_start, has_dropped);
            self.starts.clear();
            self.marks.clear();
        }
        self.start = None;
        self.era_lock = None;
        for (index, has_begun) in has_begun.into_iter().enumerate() {
            if has_begun && self.transactions[index].phase != TransactionPhase::Committed {
                self.end(index, TransactionPhase::Over);
            }
        }
        self.latest_completed = self.next_xid - 1;
        self.running.clear();
    }
}

fn is_open(transaction: &ModelTransaction) -> bool {
    transaction.phase == TransactionPhase::Open || transaction.number.is_some()
}

pub(super) fn change_of(index: usize, at: usize) -> u8 {
    (index * WRITES + at) as u8
}

/// Returns the snapshot of [`ReadRule::BelowXmin`].
fn below_xmin(snapshot: &Snapshot) -> Snapshot {
    Snapshot::new(snapshot.running.first().copied().unwrap_or(snapshot.xmax), [])
}
