//! The answers of the server to what a reader asks.

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

/// The log as a look finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogView {
    /// The number of changes that were not appended, read before the snapshot.
    pub(crate) dropped: i64,
    /// If that is not what the position says, or that is of another era: a transaction that began after it was read. Else 0.
    pub(crate) bound: u64,
    /// `true` if there is an era of this server, and this start of it is known. Nothing else counts if it is not.
    pub(crate) is_current: bool,
    pub(crate) place: LogPlace,
    /// `true` if the start in which the position was taken is of this era.
    pub(crate) knows_start: bool,
    pub(crate) snapshot: Snapshot,
    /// Everything that was removed is visible in this.
    pub(crate) truncated: Snapshot,
    /// The transaction that began the era: earlier ones may have rows of an earlier era.
    pub(crate) era_bound: u64,
    /// The last number drawn, read after the snapshot.
    pub(crate) end: i64,
    /// If there are more rows than were asked for: see [`LogBatch`](super::position::LogBatch).
    pub(crate) first: i64,
    /// `true` if the rows are all that was asked for.
    pub(crate) is_whole: bool,
}

impl LogView {
    /// Parses an answer: the row of what was read before, the row of what is described here, and the rows of the log.
    pub(crate) fn parse(rows: &[Row]) -> Option<(Self, Vec<LogRow>)> {
        let (before, rest) = rows.split_first()?;
        let (head, rows) = rest.split_first()?;
        let before = before.get(1)?;
        let mut before = before.split_ascii_whitespace();
        let head = head.get(1)?;
        let mut head = head.split_ascii_whitespace();
        let view = Self {
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
        };
        let row = |row: &Row| Some(LogRow { number: row.get(0)?.parse().ok()?, payload: row.get_bytes(1)?.into() });
        Some((view, rows.iter().map(row).collect::<Option<_>>()?))
    }
}

impl LogView {
    /// Returns the position at what is committed from now on.
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

/// A snapshot that was marked with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) snapshot: Snapshot,
    /// The number of changes that were not appended by then.
    pub(crate) dropped: i64,
    /// Transactions before this one may have had such a change, and not have ended.
    pub(crate) bound: u64,
    /// `true` if the log goes back to the time that was asked for.
    pub(crate) is_exact: bool,
}

impl Marked {
    /// The beginning of the log, later than the time that was asked for.
    pub(crate) fn beginning() -> Self {
        Self { snapshot: Snapshot::empty(), dropped: 0, bound: 0, is_exact: false }
    }

    pub(crate) fn parse(rows: &[Row]) -> Option<Self> {
        let row = rows.first()?;
        Some(Self {
            snapshot: row.get(0)?.parse().ok()?,
            dropped: row.get(1)?.parse().ok()?,
            bound: row.get(2)?.parse().ok()?,
            is_exact: true,
        })
    }
}

/// The answer to a claim of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claimed {
    /// The session that has the name, if it is not this one.
    pub(crate) holder: Option<String>,
    /// The process of this session.
    pub(crate) backend: i32,
    pub(crate) position: Option<String>,
    pub(crate) moved_at: Option<SystemTime>,
}

impl Claimed {
    pub(crate) fn parse(rows: &[Row]) -> Option<Self> {
        // A session that was ended has a row before it.
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
