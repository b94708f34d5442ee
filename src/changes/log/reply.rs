//! The replies to a reader's queries.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::position::{LogPlace, Position, PositionShared};
use super::snapshot::Snapshot;
use crate::row::Row;

/// A row of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogRow {
    pub(crate) number: i64,
    pub(crate) payload: Box<[u8]>,
}

/// The state of the log in a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogView {
    /// The number of changes that were not appended. It is read before the snapshot.
    pub(crate) dropped: i64,
    /// A transaction that began after `dropped` was read, if `dropped` is not the number in the position, or the position is of
    /// another era; else 0.
    pub(crate) bound: u64,
    /// `true` if there is an era of this server, and its current start is recorded. If `false`, all other fields are
    /// meaningless.
    pub(crate) is_current: bool,
    pub(crate) place: LogPlace,
    /// `true` if the position was taken in this era.
    pub(crate) knows_start: bool,
    pub(crate) snapshot: Snapshot,
    /// A snapshot that sees all transactions with removed rows.
    pub(crate) truncated: Snapshot,
    /// The transaction that began the era. Earlier transactions may have rows of an earlier era.
    pub(crate) era_bound: u64,
    /// The last number that was drawn. It is read after the snapshot.
    pub(crate) end: i64,
    /// The [`first`](super::position::LogBatch) number of the batch, if it does not fit one reply.
    pub(crate) first: i64,
    /// `true` if the rows are complete.
    pub(crate) is_whole: bool,
    pub(crate) rows: Vec<LogRow>,
}

impl LogView {
    /// Parses a reply: a row with the values that were read before the snapshot, a row with the other values, and the rows of
    /// the log.
    pub(crate) fn parse(rows: &[Row]) -> Option<Self> {
        let (before, rest) = rows.split_first()?;
        let (head, rows) = rest.split_first()?;
        let before = before.get(1)?;
        let mut before = before.split_ascii_whitespace();
        let head = head.get(1)?;
        let mut head = head.split_ascii_whitespace();
        let row = |row: &Row| Some(LogRow { number: row.get(0)?.parse().ok()?, payload: row.get_bytes(1)?.into() });
        Some(Self {
            dropped: next(&mut before)?,
            bound: next(&mut before)?,
            is_current: head.next()? == "t",
            place: LogPlace { system: next(&mut head)?, database: next(&mut head)?, start: next(&mut head)? },
            knows_start: head.next()? == "t",
            snapshot: next(&mut head)?,
            truncated: next(&mut head)?,
            era_bound: next(&mut head)?,
            end: next(&mut head)?,
            first: next(&mut head)?,
            is_whole: head.next()? == "t",
            rows: rows.iter().map(row).collect::<Option<_>>()?,
        })
    }

    /// Returns the position from which the changes that are committed from now on are read.
    pub(crate) fn position(&self) -> Position {
        let bound = self.bound.max(self.era_bound);
        Position::new(PositionShared {
            place: self.place,
            from: self.snapshot.clone(),
            batch: None,
            dropped: self.dropped,
            bound: if self.snapshot.sees_all_before(bound) { 0 } else { bound },
        })
    }
}

fn next<'a, T: FromStr>(words: &mut impl Iterator<Item = &'a str>) -> Option<T> {
    words.next()?.parse().ok()
}

/// A snapshot that was recorded with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) snapshot: Snapshot,
    /// The number of changes that had not been appended by then.
    pub(crate) dropped: i64,
    /// Transactions before this one may have such a change, and may not have ended by then.
    pub(crate) bound: u64,
}

impl Marked {
    pub(crate) fn parse(rows: &[Row]) -> Option<Self> {
        let row = rows.first()?;
        Some(Self {
            snapshot: row.get(0)?.parse().ok()?,
            dropped: row.get(1)?.parse().ok()?,
            bound: row.get(2)?.parse().ok()?,
        })
    }
}

/// The reply to the claim of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claimed {
    /// The session that has the name, if it is another one.
    pub(crate) holder: Option<String>,
    /// The process of this session.
    pub(crate) backend: i32,
    pub(crate) position: Option<String>,
    pub(crate) moved_at: Option<SystemTime>,
}

impl Claimed {
    pub(crate) fn parse(rows: &[Row]) -> Option<Self> {
        // A row about a terminated session may precede it.
        let row = rows.last()?;
        let text = |index| row.get(index).map(|text| text.into_owned());
        let moved_at = row.get(3).and_then(|millis| millis.parse().ok()).map(Duration::from_millis);
        Some(Self {
            holder: text(0),
            backend: row.get(1)?.parse().ok()?,
            position: text(2),
            moved_at: moved_at.and_then(|age| SystemTime::UNIX_EPOCH.checked_add(age)),
        })
    }
}
