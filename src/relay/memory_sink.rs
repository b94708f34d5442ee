//! A stream in memory, for tests.

use crate::error::Error;
use crate::relay::engine_time::EngineTime;
use crate::relay::entry::StreamEntry;
use crate::relay::position::StreamPosition;
use crate::relay::sink::{AppendError, Sink};

#[derive(Debug, Default)]
pub(crate) struct MemorySink {
    pub(crate) entries: Vec<(StreamPosition, StreamEntry)>,
    pub(crate) unix_ms: u64,
    /// The engine cannot be reached.
    pub(crate) is_away: bool,
    /// It refuses each entry as stale.
    pub(crate) refuses: bool,
    /// The number of calls of `append`.
    pub(crate) appends: usize,
    fails_after: Option<usize>,
}

impl MemorySink {
    /// Loses the answer to the next append, of which it stores this many entries.
    pub(crate) fn fail_after(&mut self, stored: usize) {
        self.fails_after = Some(stored);
    }

    fn reach(&self) -> Result<(), Error> {
        if self.is_away { Err(Error::Disconnected) } else { Ok(()) }
    }
}

impl Sink for MemorySink {
    fn time(&mut self) -> Result<EngineTime, Error> {
        self.reach().map(|()| EngineTime { unix_ms: self.unix_ms, engine: "memory".into() })
    }

    fn check_writable(&mut self) -> Result<(), Error> {
        self.reach()
    }

    fn top(&mut self) -> Result<Option<StreamPosition>, Error> {
        self.reach().map(|()| self.entries.last().map(|(position, _)| *position))
    }

    fn append(&mut self, entries: &[(StreamPosition, StreamEntry)]) -> Result<(), AppendError> {
        self.appends += 1;
        self.reach().map_err(AppendError::Failed)?;
        let mut left = self.fails_after.take();
        for (position, entry) in entries {
            if left == Some(0) {
                return Err(AppendError::Failed(Error::Disconnected));
            }
            if self.refuses || self.entries.last().is_some_and(|(top, _)| top >= position) {
                return Err(AppendError::Stale);
            }
            self.entries.push((*position, entry.clone()));
            left = left.map(|left| left - 1);
        }
        left.map_or(Ok(()), |_| Err(AppendError::Failed(Error::Disconnected)))
    }

    fn read_back(
        &mut self,
        before: Option<StreamPosition>,
        count: usize,
    ) -> Result<Vec<(StreamPosition, StreamEntry)>, Error> {
        self.reach()?;
        let is_before = |(position, _): &&(StreamPosition, StreamEntry)| before.is_none_or(|before| *position < before);
        Ok(self.entries.iter().rev().filter(is_before).take(count).cloned().collect())
    }
}
