//! A model checker for the reader: explores all interleavings of transactions, readers, rotation and faults, within bounds.
//!
//! ```text
//!   ModelStep ──> ModelState: ModelServer (PostgreSQL and the SQL), ModelReader (the shipped LogReader and a consumer)
//! ```
//!
//! From each state, all possible next steps are explored, and each state is explored once. Each delivery and each gap is checked
//! when it happens, and at the end of each history no change may be missing. A wrong rule, or a guard of the design that is
//! removed, must be detected.

mod reader;
mod rotation;
mod scenarios;
mod server;
mod timers;

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::Instant;

use self::reader::{CheckResult, DueAction, ModelReader};
use self::rotation::Age;
use self::server::{ModelServer, TransactionPhase, change_of};
use crate::clock;

/// A rule for which rows are new to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadRule {
    /// Rows that are visible now, and were not visible in the snapshot of the position.
    Difference,
    /// Rows with a number above the last one. This is wrong, since a lower number may be committed later.
    NumberAbove,
    /// Rows of transactions before the oldest running one. This is wrong, since a transaction that stays open delays all
    /// others.
    BelowXmin,
}

/// A guard of the design that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    /// A poll omits the transactions that the snapshot lists as running.
    NoRunning,
    /// The snapshot of a poll is that of a second statement.
    TwoStatements,
    /// A page reads the rows that are visible now, instead of those at the poll.
    PageOfNow,
    /// The transactions that may have dropped a change are unknown.
    NoBound,
    /// The transactions that may have dropped a change are taken to be those before the `xmax` of the snapshot.
    BoundIsXmax,
    /// The bound is taken before the number of dropped changes is read.
    BoundBeforeCount,
    /// The transactions that may have numbers up to the floor of the era are unknown.
    NoEraBound,
    /// A transaction draws its number before its id.
    NumberBeforeXid,
    NoFloor,
    /// Positions from before a crash are accepted.
    NoStart,
    /// A truncation is not detected.
    NoTruncated,
    /// All transactions before the newest truncated one count as truncated.
    TruncatedWhole,
    /// A table is truncated although a position needs it.
    NoPositionCheck,
    /// Positions are checked before the table is locked.
    CheckBeforeLock,
    /// A table is truncated although a transaction has locked it.
    TruncateUnlocked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ReaderKind {
    /// The consumer saves the position with the effects.
    Client,
    /// The database keeps the position.
    Named,
    /// The reader begins at a mark, which is this many before the last one; `None` for a time before the first mark.
    Since(Option<usize>),
}

/// The maximum number of each kind of event in one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct EventBudget {
    polls: u8,
    drops: u8,
    rollbacks: u8,
    saves: u8,
    rotations: u8,
    /// Crashes of a reader's process.
    reader_crashes: u8,
    /// Losses of a reader's session.
    losses: u8,
    /// Crashes of the server.
    crashes: u8,
    restarts: u8,
}

/// The bounds of an exploration.
#[derive(Debug, Clone, Copy)]
struct ModelConfig {
    rule: ReadRule,
    mutant: Option<Mutant>,
    /// The rows that each transaction changes, in order.
    rows: &'static [&'static [u8]],
    readers: &'static [ReaderKind],
    /// The maximum number of rows of a poll or a page.
    page: usize,
    /// `true` if a change consists of two steps, between which other steps are possible.
    splits_changes: bool,
    /// `true` if a poll consists of two steps.
    splits_polls: bool,
    /// `true` if the beginning of an era, and a rotation, consist of two steps.
    splits_blocks: bool,
    /// `true` if the choice of the table is a step as well.
    chooses_table: bool,
    ages: &'static [Age],
    budget: EventBudget,
    /// `true` if there is an era at the start.
    has_era: bool,
    /// `true` if there is a row of another cluster at the start.
    has_foreign: bool,
    may_have_gaps: bool,
}

impl ModelConfig {
    /// Returns the row that a change writes.
    fn row(&self, change: u8) -> u8 {
        self.rows
            .iter()
            .enumerate()
            .flat_map(|(index, rows)| rows.iter().enumerate().map(move |(at, row)| (change_of(index, at), *row)))
            .find_map(|(other, row)| (other == change).then_some(row))
            .unwrap_or(u8::MAX)
    }
}

/// A step of a history.
#[derive(Debug, Clone, Copy)]
enum ModelStep {
    Begin(usize),
    DrawNumber(usize),
    ChooseTable(usize),
    Append(usize),
    Drop(usize),
    DrawAndDrop(usize),
    Commit(usize),
    RollBack(usize),
    Read(usize, DueAction),
    Reply(usize),
    /// A reply arrives, and the consumer crashes after this many of its items.
    ReplyAndCrash(usize, usize),
    CrashReader(usize),
    LoseSession(usize),
    Acknowledge(usize, usize),
    /// Commits up to now will survive a crash.
    Flush,
    CrashServer,
    RestartServer,
}

#[derive(Debug, Clone, Hash)]
struct ModelState {
    server: ModelServer,
    readers: Vec<ModelReader>,
    budget: EventBudget,
    durable: Option<Rc<ModelServer>>,
}

impl ModelState {
    fn new(config: &ModelConfig) -> Self {
        let readers = config.readers.iter().enumerate().map(|(index, kind)| ModelReader::new(index, *kind));
        let server = ModelServer::new(config);
        let durable = (config.budget.crashes > 0).then(|| Rc::new(server.clone()));
        Self { durable, server, readers: readers.collect(), budget: config.budget }
    }

    /// Returns all possible next steps.
    fn steps(&self, config: &ModelConfig) -> Vec<ModelStep> {
        let mut steps = Vec::new();
        for index in 0..config.rows.len() {
            self.transaction_steps(index, config, &mut steps);
        }
        let is_over = |phase| matches!(phase, TransactionPhase::Committed | TransactionPhase::Over);
        // A restart after the last transaction changes nothing.
        let is_useful = !self.server.transactions.iter().all(|transaction| is_over(transaction.phase));
        for (index, reader) in self.readers.iter().enumerate() {
            if reader.is_pending() {
                steps.push(ModelStep::Reply(index));
                if self.budget.reader_crashes > 0 {
                    steps.extend((0..config.page + 2).map(|items| ModelStep::ReplyAndCrash(index, items)));
                }
            } else {
                self.reader_steps(index, config, &mut steps);
            }
            if self.budget.losses > 0 {
                steps.push(ModelStep::LoseSession(index));
            }
        }
        if self.budget.crashes > 0 {
            steps.push(ModelStep::CrashServer);
            steps.push(ModelStep::Flush);
        }
        if self.budget.restarts > 0 && is_useful {
            steps.push(ModelStep::RestartServer);
        }
        steps
    }

    fn transaction_steps(&self, index: usize, config: &ModelConfig, steps: &mut Vec<ModelStep>) {
        let transaction = &self.server.transactions[index];
        let draws_first = config.mutant == Some(Mutant::NumberBeforeXid);
        match transaction.phase {
            // Of equal transactions, only one order of their beginnings is explored.
            TransactionPhase::Idle
                if config.rows[..index]
                    .iter()
                    .zip(&self.server.transactions)
                    .any(|(rows, other)| *rows == config.rows[index] && other.phase == TransactionPhase::Idle) => {}
            TransactionPhase::Idle if draws_first && transaction.number.is_none() => {
                if !self.server.waits(index, config) {
                    steps.push(ModelStep::DrawNumber(index));
                }
            }
            TransactionPhase::Idle => steps.push(ModelStep::Begin(index)),
            TransactionPhase::Open if transaction.at == config.rows[index].len() => {
                steps.push(ModelStep::Commit(index));
                if self.budget.rollbacks > 0 {
                    steps.push(ModelStep::RollBack(index));
                }
            }
            TransactionPhase::Open if transaction.number.is_some() => {
                steps.push(ModelStep::Append(index));
                if config.chooses_table && transaction.table.is_none() {
                    steps.push(ModelStep::ChooseTable(index));
                }
                if self.budget.drops > 0 {
                    steps.push(ModelStep::Drop(index));
                }
            }
            TransactionPhase::Open if !self.server.waits(index, config) => {
                steps.push(ModelStep::DrawNumber(index));
                if !config.splits_changes && self.budget.drops > 0 {
                    steps.push(ModelStep::DrawAndDrop(index));
                }
            }
            // A deadlock ends one of the transactions.
            TransactionPhase::Open => steps.extend((self.budget.rollbacks > 0).then_some(ModelStep::RollBack(index))),
            TransactionPhase::Committed | TransactionPhase::Over => {}
        }
    }

    fn reader_steps(&self, index: usize, config: &ModelConfig, steps: &mut Vec<ModelStep>) {
        let reader = &self.readers[index];
        if self.budget.polls > 0 {
            steps.push(ModelStep::Read(index, DueAction::Poll { may_report: true }));
            if self.server.dropped > 0 {
                steps.push(ModelStep::Read(index, DueAction::Poll { may_report: false }));
            }
        }
        if reader.has_begun() && self.budget.saves > 0 {
            steps.push(ModelStep::Read(index, DueAction::Save));
        }
        // Rows are kept for a name once its position is saved.
        let is_saved = config.readers[index] != ReaderKind::Named || self.server.positions[index].is_some();
        if reader.has_begun() && is_saved && self.budget.rotations > 0 {
            steps.extend(config.ages.iter().map(|age| ModelStep::Read(index, DueAction::Rotate(*age))));
        }
        if reader.has_queue() {
            steps.extend([ModelStep::Acknowledge(index, 1), ModelStep::Acknowledge(index, usize::MAX)]);
        }
        if self.budget.reader_crashes > 0 {
            steps.push(ModelStep::CrashReader(index));
        }
    }

    /// Executes a step. Returns `false` if the step is not possible.
    fn apply(&mut self, step: ModelStep, config: &ModelConfig, now: Instant) -> Result<bool, String> {
        let Self { server, readers, budget, durable } = self;
        match step {
            ModelStep::Begin(index) => server.begin(index),
            ModelStep::DrawNumber(index) => {
                server.draw_number(index);
                if !config.splits_changes {
                    server.append(index);
                }
            }
            ModelStep::ChooseTable(index) => server.choose_table(index),
            ModelStep::Append(index) => server.append(index),
            ModelStep::Drop(index) | ModelStep::DrawAndDrop(index) => {
                budget.drops -= 1;
                if matches!(step, ModelStep::DrawAndDrop(_)) {
                    server.draw_number(index);
                }
                server.drop_change(index);
            }
            ModelStep::Commit(index) => server.end(index, TransactionPhase::Committed),
            ModelStep::RollBack(index) => {
                budget.rollbacks -= 1;
                server.end(index, TransactionPhase::Over);
            }
            ModelStep::Read(index, due) => {
                let count = match due {
                    DueAction::Poll { .. } => &mut budget.polls,
                    DueAction::Save => &mut budget.saves,
                    DueAction::Rotate(_) => &mut budget.rotations,
                };
                // The largest number means no limit.
                *count -= u8::from(*count < u8::MAX);
                if !readers[index].begin(due, server, config, now)? {
                    return Ok(false);
                }
                let is_split = match due {
                    // A crash of the consumer at the reply is another step.
                    DueAction::Poll { .. } if readers[index].is_polling() => {
                        config.splits_polls || budget.reader_crashes > 0
                    }
                    _ => config.splits_blocks,
                };
                if !is_split && readers[index].is_pending() {
                    return readers[index].finish(None, server, config, now);
                }
            }
            ModelStep::Reply(index) => return readers[index].finish(None, server, config, now),
            ModelStep::ReplyAndCrash(index, items) => {
                budget.reader_crashes -= 1;
                return readers[index].finish(Some(items), server, config, now);
            }
            ModelStep::CrashReader(index) => {
                budget.reader_crashes -= 1;
                readers[index].crash();
            }
            ModelStep::LoseSession(index) => {
                budget.losses -= 1;
                readers[index].lose_session(server);
            }
            ModelStep::Acknowledge(index, count) => readers[index].acknowledge(count),
            ModelStep::Flush => *durable = Some(Rc::new(server.clone())),
            ModelStep::CrashServer => {
                budget.crashes -= 1;
                readers.iter_mut().for_each(|reader| reader.lose_session(server));
                server.restart(durable.as_deref());
                *durable = None;
            }
            ModelStep::RestartServer => {
                budget.restarts -= 1;
                readers.iter_mut().for_each(|reader| reader.lose_session(server));
                server.restart(None);
            }
        }
        Ok(true)
    }

    /// Reads until no rows are left, and checks that no change is missing.
    fn drain(&self, config: &ModelConfig, now: Instant, drained: &mut HashSet<u64>) -> CheckResult {
        let mut state = self.clone();
        for index in 0..state.readers.len() {
            let (reader, server) = (&mut state.readers[index], &mut state.server);
            let mut quiet = 0;
            for round in 0.. {
                if !drained.insert(hash(&(index, &*reader, &*server, quiet))) {
                    break;
                }
                if reader.is_pending() {
                    reader.finish(None, server, config, now)?;
                    quiet = if reader.is_active { 0 } else { quiet + 1 };
                }
                if quiet == 2 {
                    reader.check(server)?;
                    break;
                }
                if round == 50 {
                    return Err("the reader does not come to rest".to_owned());
                }
                reader.begin(DueAction::Poll { may_report: true }, server, config, now)?;
            }
        }
        Ok(())
    }
}

/// A search through all reachable states.
struct StateSearch<'a> {
    config: &'a ModelConfig,
    now: Instant,
    seen: HashSet<u64>,
    drained: HashSet<u64>,
    trail: Vec<ModelStep>,
    ends: usize,
}

impl StateSearch<'_> {
    /// Explores all histories. Returns the numbers of states and of ends of histories, or the first error with its history.
    fn run(config: &ModelConfig) -> Result<(usize, usize), String> {
        let (now, seen, drained) = (clock::now(), HashSet::new(), HashSet::new());
        let mut search = StateSearch { config, now, seen, drained, trail: Vec::new(), ends: 0 };
        let result = search.explore(&ModelState::new(config));
        result.map(|()| (search.seen.len(), search.ends)).map_err(|error| format!("{error}, by {:?}", search.trail))
    }

    fn explore(&mut self, state: &ModelState) -> CheckResult {
        let mut has_open = false;
        for step in state.steps(self.config) {
            let mut next = state.clone();
            self.trail.push(step);
            let applies = next.apply(step, self.config, self.now)?;
            has_open |= matches!(
                step,
                ModelStep::Commit(_) | ModelStep::RollBack(_) | ModelStep::Append(_) | ModelStep::DrawNumber(_)
            );
            if applies && self.seen.insert(hash(&next)) {
                self.explore(&next)?;
            }
            self.trail.pop();
        }
        if !has_open {
            self.ends += 1;
            state.drain(self.config, self.now, &mut self.drained)?;
        }
        Ok(())
    }
}

/// A hasher that is fast in builds without optimisation.
struct StateHasher(u64);

impl Hasher for StateHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 29;
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_i64(&mut self, value: i64) {
        self.write_u64(value as u64);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }
}

fn hash(state: &impl Hash) -> u64 {
    let mut hasher = StateHasher(0);
    state.hash(&mut hasher);
    hasher.finish()
}
