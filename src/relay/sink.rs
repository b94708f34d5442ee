//! The engine, as a leader sees it.

use crate::error::Error;
use crate::relay::engine_time::EngineTime;
use crate::relay::entry::StreamEntry;
use crate::relay::position::StreamPosition;

/// One stream of an engine that stores streams: each entry has a position, and the engine refuses an entry whose position is
/// not above that of the last one.
///
/// That refusal is all that safety rests on: a leader of an older term can append nothing.
pub(crate) trait Sink {
    /// Returns the time of the engine's clock.
    fn time(&mut self) -> Result<EngineTime, Error>;

    /// Returns the reason if the engine accepts no entry from anybody or from this user: it is no master any more, has no memory,
    /// cannot save, misses replicas, or grants too little. Appends nothing.
    fn check_writable(&mut self) -> Result<(), Error>;

    /// Returns the position above which the engine accepts an entry: that of the last one, even if it was deleted.
    fn top(&mut self) -> Result<Option<StreamPosition>, Error>;

    /// Appends entries in this order. After an error some of them may have been appended, but none behind one that was not.
    fn append(&mut self, entries: &[(StreamPosition, StreamEntry)]) -> Result<(), AppendError>;

    /// Returns up to `count` entries before a position, or the last ones; the newest is the first.
    fn read_back(
        &mut self,
        before: Option<StreamPosition>,
        count: usize,
    ) -> Result<Vec<(StreamPosition, StreamEntry)>, Error>;
}

/// A failure to append.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// The stream has an entry at this position or above it. Perhaps it is this one, whose answer was lost.
    Stale,
    /// The engine cannot be reached, or refused the entry for another reason. It may have been appended.
    Failed(Error),
}
