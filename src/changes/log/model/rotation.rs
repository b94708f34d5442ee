//! The rotation of the tables: `log_rotate.sql`.

use super::server::{EarlyReads, ModelEra, ModelRow, ModelServer};
use super::{ModelConfig, Mutant};
use crate::changes::log::snapshot::Snapshot;

/// The age of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Age {
    /// Nothing is as old as rows are kept: only the time is marked.
    Young,
    /// The rows are, and the positions were moved since.
    Rows,
    /// The positions are, too.
    All,
}

impl ModelServer {
    /// Runs the block up to where it begins to write; `None` if another session does, or there is no era.
    pub(super) fn begin_keep(&mut self, session: usize, age: Age, config: &ModelConfig) -> Option<EarlyReads> {
        if self.era.is_none() || self.era_lock.is_some() {
            return None;
        }
        self.era_lock = Some(session);
        let needed = (self.table - 2..self.table).filter(|generation| self.is_needed(generation % 3, age));
        let needed = if config.mutant == Some(Mutant::CheckBeforeLock) { needed.collect() } else { Vec::new() };
        let mut early = self.read_sequences();
        early.needed = needed;
        Some(early)
    }

    pub(super) fn keep(&mut self, early: &EarlyReads, age: Age, config: &ModelConfig) {
        let xid = self.take_xid();
        let written = self.table;
        if age != Age::Young {
            self.truncate_tables(early, age, xid, config);
            let has_rows = |server: &Self, table: i64| server.visible().any(|entry| entry.table == table % 3);
            if !has_rows(self, written + 1) && has_rows(self, written) {
                self.table += 1;
            }
        } else {
            // Its generation is not older than any mark.
            let oldest = self.marks.iter().map(|mark| mark.generation).min();
            if oldest.is_some_and(|oldest| written - 2 < oldest) {
                self.truncate_tables(early, age, xid, config);
            }
        }
        let mark = self.mark(early, xid, config);
        if self.marks.last() != Some(&mark) {
            self.marks.push(mark);
        }
        self.end_xid(xid);
        self.era_lock = None;
    }

    fn truncate_tables(&mut self, early: &EarlyReads, age: Age, xid: u64, config: &ModelConfig) {
        for generation in self.table - 2..self.table {
            let table = generation % 3;
            if !self.visible().any(|entry| entry.table == table) {
                continue;
            }
            let is_young =
                self.marks.iter().map(|mark| mark.generation).min().is_some_and(|oldest| generation >= oldest);
            if age == Age::Young && is_young {
                return;
            }
            let is_locked = self.transactions.iter().any(|transaction| transaction.locked & 1 << table > 0);
            if is_locked && config.mutant != Some(Mutant::TruncateUnlocked) {
                return;
            }
            let is_needed = match config.mutant {
                Some(Mutant::NoPositionCheck) => false,
                Some(Mutant::CheckBeforeLock) => early.needed.contains(&generation),
                _ => self.is_needed(table, age),
            };
            if is_needed {
                return;
            }
            self.truncate(table, xid, config);
            self.marks.retain(|mark| mark.generation > generation);
        }
    }

    /// Returns `true` if a position that was moved lately has not passed a row of a table.
    fn is_needed(&self, table: i64, age: Age) -> bool {
        let Some(era) = self.era.as_ref().filter(|_| age != Age::All) else { return false };
        let is_of_table = |entry: &&ModelRow| entry.table == table && entry.number > era.floor;
        let is_known = |start: i64| self.starts.contains(&start);
        let positions = self.positions.iter().flatten().map(|saved| &saved.position.shared);
        positions.filter(|shared| is_known(shared.place.start)).any(|shared| {
            self.visible().filter(is_of_table).any(|e| e.xid >= shared.from.xmax() || shared.from.is_running(e.xid))
        })
    }

    fn truncate(&mut self, table: i64, own: u64, config: &ModelConfig) {
        let Some(ModelEra { floor, truncated, .. }) = self.era.as_ref() else { return };
        let rows = self.visible().filter(|entry| entry.table == table && entry.number > *floor);
        let xids: Vec<_> = rows.map(|entry| entry.xid).collect();
        let newest = xids.iter().max().map_or(0, |newest| newest + 1).max(truncated.xmax());
        let now = self.snapshot(own);
        let positions = self.positions.iter().flatten().map(|saved| &saved.position.shared.from);
        let snapshots = positions.chain([&now, truncated]);
        let mut running: Vec<_> = snapshots.flat_map(|snapshot| snapshot.running().to_vec()).collect();
        running.retain(|xid| *xid < newest && !truncated.sees(*xid) && !xids.contains(xid));
        running.sort_unstable();
        running.dedup();
        if config.mutant == Some(Mutant::TruncatedWhole) {
            running.clear();
        }
        if let Some(era) = self.era.as_mut() {
            era.truncated = Snapshot::new(newest, running);
        }
        self.log.retain(|entry| entry.table != table);
        self.truncations += 1;
    }
}
