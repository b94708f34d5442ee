//! Positions in the log of a database.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::error::{Error, ValueError};

/// A position in the log of one database, which separates the changes that have been read from the others.
///
/// A consumer reads it from [`Changes::log_position`](super::super::Changes::log_position), saves its text together with the
/// effect of the change, and continues there with [`Worker::position`](super::super::Worker::position). If both are saved in one
/// transaction, each change is processed exactly once.
///
/// The text is one word of ASCII letters, digits and `.:,-`, usually less than 200 bytes long. Its length grows with the number
/// of transactions that were running. Positions belong to one database, and have no order.
///
/// ```
/// use notifyman::changes::Position;
///
/// let text = "1.7301234567890123456.16384.-81985529216486896.1045:1049:1045.0.0";
/// let position: Position = text.parse()?;
/// assert_eq!(position.to_string(), text);
/// assert!("2201".parse::<Position>().is_err());
/// # Ok::<(), notifyman::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub struct Position {
    pub(crate) shared: Arc<PositionShared>,
    /// Within a batch, the number of the last row that has been read.
    pub(crate) number: Option<i64>,
}

/// The part of a position that all changes of a batch share.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct PositionShared {
    pub(crate) place: LogPlace,
    /// The snapshot up to which everything has been read.
    pub(crate) from: Snapshot,
    /// The batch that is being read.
    pub(crate) batch: Option<LogBatch>,
    /// The number of changes that were not appended and have been reported.
    pub(crate) dropped: i64,
    /// Transactions before this one may have changes without a row. When one of them ends that had not ended in `from`, there
    /// is a gap.
    pub(crate) bound: u64,
}

/// The database of a position, and the start of the server in which it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct LogPlace {
    pub(crate) system: i64,
    pub(crate) database: u32,
    /// The random id of the start.
    pub(crate) start: i64,
}

/// The rows between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct LogBatch {
    pub(crate) to: Snapshot,
    /// A number that is not higher than any number of a transaction from the `xmax` of `from` on.
    pub(crate) first: i64,
    /// A number that is not lower than any number in the batch.
    pub(crate) end: i64,
}

/// The version of the text format.
const VERSION: &str = "1";

impl Position {
    pub(crate) fn new(shared: PositionShared) -> Self {
        Self { shared: Arc::new(shared), number: None }
    }

    /// Returns `true` if this is a position in the database of `place`.
    pub(crate) fn is_of_database(&self, place: LogPlace) -> bool {
        (self.shared.place.system, self.shared.place.database) == (place.system, place.database)
    }

    /// Returns the latest `xmax` in this position.
    pub(crate) fn newest(&self) -> u64 {
        let batch = self.shared.batch.as_ref().map_or(0, |batch| batch.to.xmax);
        batch.max(self.shared.from.xmax)
    }

    /// Returns this position with a changed shared part.
    pub(crate) fn with(&self, change: impl FnOnce(&mut PositionShared)) -> Self {
        let mut shared = PositionShared::clone(&self.shared);
        change(&mut shared);
        Self { shared: Arc::new(shared), number: self.number }
    }

    /// Returns the position within its batch, after the row with this number.
    pub(crate) fn after(&self, number: i64) -> Self {
        Self { shared: Arc::clone(&self.shared), number: Some(number) }
    }

    /// Returns the position after its batch.
    pub(crate) fn after_batch(&self) -> Self {
        let mut shared = PositionShared::clone(&self.shared);
        if let Some(batch) = shared.batch.take() {
            shared.from = batch.to;
        }
        Self::new(shared)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PositionShared { place, from, batch, dropped, bound } = &*self.shared;
        write!(f, "{VERSION}.{}.{}.{}.{from}.{dropped}.{bound}", place.system, place.database, place.start)?;
        if let Some(LogBatch { to, first, end }) = batch {
            write!(f, ".{to}.{first}.{end}.{}", self.number.unwrap_or(0))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Position({self})")
    }
}

impl FromStr for Position {
    type Err = Error;

    /// Parses the text that [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| {
            let shown: String = text.chars().take(60).collect();
            let message = format!(
                "{shown:?} is not a position in a log of table changes, which begins with \"{VERSION}.\" and has 7 or 11 parts: \
                 give the complete text as it was printed, or begin without a position and treat everything as changed"
            );
            Error::from(ValueError { message })
        })
    }
}

fn parse(text: &str) -> Option<Position> {
    let parts: Vec<_> = text.split('.').collect();
    let (head, rest) = parts.split_at_checked(7)?;
    let &[VERSION, system, database, start, from, dropped, bound] = head else { return None };
    let number = |text: &str| text.parse::<i64>().ok();
    let (batch, number) = match *rest {
        [] => (None, None),
        [to, first, end, at] => {
            let batch = LogBatch { to: to.parse().ok()?, first: number(first)?, end: number(end)? };
            (Some(batch), Some(number(at)?))
        }
        _ => return None,
    };
    let shared = PositionShared {
        place: LogPlace { system: system.parse().ok()?, database: database.parse().ok()?, start: start.parse().ok()? },
        from: from.parse().ok()?,
        batch,
        dropped: dropped.parse().ok()?,
        bound: bound.parse().ok()?,
    };
    Some(Position { shared: Arc::new(shared), number })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_printed_position_is_parsed_again() {
        for text in [
            "1.7301.5.-9.1:1:.0.0",
            "1.7301.5.-9.10:20:10,14.3.22",
            "1.7301.5.-9.10:20:10,14.3.0.18:30:18.90.120.0",
            "1.7301.5.-9.10:20:10,14.3.22.18:30:18.90.120.99",
        ] {
            assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        }
        for text in
            ["", "1", "2.7301.5.-9.1:1:.0.0", "1.7301.5.-9.1:1:.0.0.1:1:", "1.a.5.-9.1:1:.0.0", "1.1.5.-9.1:1.0.0"]
        {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_position_after_a_batch_has_its_second_snapshot() {
        let position: Position = "1.7301.5.-9.10:20:10,14.3.22.18:30:18.90.120.99".parse().unwrap();
        assert_eq!(position.after_batch().to_string(), "1.7301.5.-9.18:30:18.3.22");
        assert_eq!(position.after(100).to_string(), "1.7301.5.-9.10:20:10,14.3.22.18:30:18.90.120.100");
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic(text in "(1\\.)?[0-9:,.-]{0,60}") {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string().parse().ok(), Some(position));
            }
        }
    }
}
