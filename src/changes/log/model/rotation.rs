//! The rotation of the log's tables: `log_rotate.sql`.

use super::server::{EarlyReads, ModelEra, ModelRow, ModelServer};
use super::{ModelConfig, Mutant};
use crate::changes::log::snapshot::Snapshot;

/// The age of the rows and positions, compared with the time for which rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Age {
    /// Nothing is old: the rotation only marks the time.
    Young,
    /// The rows are old, and the positions have moved since.
    Rows,
    /// The rows and the positions are old.
    All,
}

/// Executes the block up to its first write. Returns `None` if another session has the lock, or there is no era.
pub(super) fn begin(server: &mut ModelServer, session: usize, age: Age, config: &ModelConfig) -> Option<EarlyReads> {
    if server.era.is_none() || server.era_lock.is_some() {
        return None;
    }
    server.era_lock = Some(session);
    let needed = (server.table - 2..server.table).filter(|generation| is_needed(server, generation % 3, age));
    let needed = if config.mutant == Some(Mutant::CheckBeforeLock) { needed.collect() } else { Vec::new() };
    let mut early = server.read_sequences();
    early.needed = needed;
    Some(early)
}

/// Executes the rest of the block.
pub(super) fn finish(server: &mut ModelServer, early: &EarlyReads, age: Age, config: &ModelConfig) {
    let xid = server.take_xid();
    let written = server.table;
    if age != Age::Young {
        truncate_tables(server, early, age, xid, config);
        let has_rows = |server: &ModelServer, table: i64| server.visible().any(|row| row.table == table % 3);
        if !has_rows(server, written + 1) && has_rows(server, written) {
            server.table += 1;
        }
    } else {
        // A table is truncated only if its generation is older than every mark.
        let oldest = server.marks.iter().map(|mark| mark.generation).min();
        if oldest.is_some_and(|oldest| written - 2 < oldest) {
            truncate_tables(server, early, age, xid, config);
        }
    }
    let mark = server.mark(early, xid, config);
    if server.marks.last() != Some(&mark) {
        server.marks.push(mark);
    }
    server.end_xid(xid);
    server.era_lock = None;
}

fn truncate_tables(server: &mut ModelServer, early: &EarlyReads, age: Age, xid: u64, config: &ModelConfig) {
    for generation in server.table - 2..server.table {
        let table = generation % 3;
        if !server.visible().any(|row| row.table == table) {
            continue;
        }
        let is_young = server.marks.iter().map(|mark| mark.generation).min().is_some_and(|oldest| generation >= oldest);
        if age == Age::Young && is_young {
            return;
        }
        let is_locked = server.transactions.iter().any(|transaction| transaction.locked & 1 << table > 0);
        if is_locked && config.mutant != Some(Mutant::TruncateUnlocked) {
            return;
        }
        let is_needed = match config.mutant {
            Some(Mutant::NoPositionCheck) => false,
            Some(Mutant::CheckBeforeLock) => early.needed.contains(&generation),
            _ => is_needed(server, table, age),
        };
        if is_needed {
            return;
        }
        truncate(server, table, xid, config);
        server.marks.retain(|mark| mark.generation > generation);
    }
}

/// Returns `true` if a position that is not old has not passed a row of a table.
fn is_needed(server: &ModelServer, table: i64, age: Age) -> bool {
    let Some(era) = server.era.as_ref().filter(|_| age != Age::All) else { return false };
    let is_of_table = |row: &&ModelRow| row.table == table && row.number > era.floor;
    let is_known = |start: i64| server.starts.contains(&start);
    let positions = server.positions.iter().flatten().map(|saved| &saved.position.shared);
    positions.filter(|shared| is_known(shared.place.start)).any(|shared| {
        server.visible().filter(is_of_table).any(|row| row.xid >= shared.from.xmax || shared.from.is_running(row.xid))
    })
}

fn truncate(server: &mut ModelServer, table: i64, own: u64, config: &ModelConfig) {
    let Some(ModelEra { floor, truncated, .. }) = server.era.as_ref() else { return };
    let rows = server.visible().filter(|row| row.table == table && row.number > *floor);
    let xids: Vec<_> = rows.map(|row| row.xid).collect();
    let newest = xids.iter().max().map_or(0, |newest| newest + 1).max(truncated.xmax);
    let now = server.snapshot(own);
    let positions = server.positions.iter().flatten().map(|saved| &saved.position.shared.from);
    let snapshots = positions.chain([&now, truncated]);
    let mut running: Vec<_> = snapshots.flat_map(|snapshot| snapshot.running.to_vec()).collect();
    running.retain(|xid| *xid < newest && !truncated.sees(*xid) && !xids.contains(xid));
    running.sort_unstable();
    running.dedup();
    if config.mutant == Some(Mutant::TruncatedWhole) {
        running.clear();
    }
    if let Some(era) = server.era.as_mut() {
        era.truncated = Snapshot::new(newest, running);
    }
    server.log.retain(|row| row.table != table);
    server.truncations += 1;
}
