//! The entries of a leader that the engine has not acknowledged yet.
//!
//! ```text
//!   push ──▶ numbered ──▶ append ──▶ acknowledged: forgotten
//!                           │
//!                           └─ refused, or no answer ──▶ the end of the stream: which of them are there? is it another's?
//! ```

use std::collections::VecDeque;

use crate::error::Error;
use crate::relay::entry::{EntryContent, StreamEntry, StreamOrigin};
use crate::relay::position::StreamPosition;
use crate::relay::sink::{AppendError, Sink};

/// The most entries that are appended together.
const TOGETHER: usize = 256;

/// A reason why entries could not be appended.
#[derive(Debug)]
pub(crate) enum FlushError {
    /// The stream belongs to a newer leader.
    Fenced,
    /// The engine cannot be reached, or refuses to store. The entries are kept.
    Failed(Error),
}

/// The entries of one term, numbered without a hole. A number is never used twice.
#[derive(Debug)]
pub(crate) struct Outbox {
    term: u64,
    origin: StreamOrigin,
    last: u64,
    unacknowledged: VecDeque<(StreamPosition, StreamEntry)>,
    /// The answer to an append is missing.
    is_uncertain: bool,
}

impl Outbox {
    /// Creates the outbox of a term that was claimed.
    pub(crate) fn new(term: u64, origin: StreamOrigin) -> Self {
        Self { term, origin, last: 0, unacknowledged: VecDeque::new(), is_uncertain: false }
    }

    pub(crate) fn push(&mut self, content: EntryContent) {
        self.last += 1;
        let position = StreamPosition { term: self.term, sequence: self.last };
        self.unacknowledged.push_back((position, StreamEntry { origin: self.origin, content }));
    }

    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    /// Returns the number of entries that are not acknowledged.
    pub(crate) fn len(&self) -> usize {
        self.unacknowledged.len()
    }

    /// Appends all entries. Returns the number of those that were acknowledged.
    pub(crate) fn flush(&mut self, sink: &mut impl Sink) -> Result<usize, FlushError> {
        let before = self.len();
        let mut refused = None;
        while !self.unacknowledged.is_empty() {
            if self.is_uncertain {
                self.compare(sink)?;
                // Refused twice at the same place, although nothing is there.
                let first = self.unacknowledged.front().map(|(position, _)| *position);
                if first.is_some() && std::mem::replace(&mut refused, first) == first {
                    return Err(FlushError::Fenced);
                }
            }
            let together = self.unacknowledged.len().min(TOGETHER);
            let (entries, _) = self.unacknowledged.make_contiguous().split_at(together);
            match sink.append(entries) {
                Ok(()) => drop(self.unacknowledged.drain(..together)),
                Err(AppendError::Stale) => self.is_uncertain = true,
                Err(AppendError::Failed(error)) => {
                    self.is_uncertain = true;
                    return Err(FlushError::Failed(error));
                }
            }
        }
        Ok(before)
    }

    /// Forgets the entries that are in the stream already, after an append without an answer.
    fn compare(&mut self, sink: &mut impl Sink) -> Result<(), FlushError> {
        let top = sink.read_back(None, 1).map_err(FlushError::Failed)?.into_iter().next();
        self.is_uncertain = false;
        let Some((top, entry)) = top else { return Ok(()) };
        let is_same =
            |(position, own): &(StreamPosition, StreamEntry)| *position == top && own.to_fields() == entry.to_fields();
        let first = self.unacknowledged.front().map(|(position, _)| *position);
        if top.term < self.term || first.is_none_or(|first| top < first) {
            return Ok(());
        }
        // Its own entry is where it should be, and so are those before it. Another one is that of a newer leader.
        match self.unacknowledged.iter().position(is_same) {
            Some(at) => {
                self.unacknowledged.drain(..=at);
                Ok(())
            }
            None => Err(FlushError::Fenced),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::engine_time::EngineTime;
    use crate::relay::memory_sink::MemorySink;

    const ORIGIN: StreamOrigin = StreamOrigin { system: 7, timeline: 1, database: 5 };

    fn canary(number: u64) -> EntryContent {
        EntryContent::Canary {
            marker: number.to_string().into(),
            sent: EngineTime::default(),
            channels: Vec::new(),
            silence_ms: 20_000,
        }
    }

    /// Returns an outbox of term 5 with entries that are numbered from 1.
    fn outbox(entries: u64) -> Outbox {
        let mut outbox = Outbox::new(5, ORIGIN);
        outbox.push(EntryContent::Start { continues: None, channels: Vec::new(), silence_ms: 20_000 });
        (2..=entries).for_each(|number| outbox.push(canary(number)));
        outbox
    }

    fn position(term: u64, sequence: u64) -> StreamPosition {
        StreamPosition { term, sequence }
    }

    /// Returns the positions of the stream.
    fn positions(sink: &MemorySink) -> Vec<StreamPosition> {
        sink.entries.iter().map(|(position, _)| *position).collect()
    }

    #[test]
    fn r02_entries_are_appended_once_each_with_its_number() {
        let (mut sink, mut outbox) = (MemorySink::default(), outbox(600));
        assert_eq!(outbox.flush(&mut sink).unwrap(), 600);
        assert_eq!(positions(&sink), (1..=600).map(|number| position(5, number)).collect::<Vec<_>>());
        assert!(sink.appends <= 4, "entries are appended together");
        outbox.push(canary(601));
        assert_eq!(
            (outbox.flush(&mut sink).unwrap(), outbox.flush(&mut sink).unwrap(), sink.entries.len()),
            (1, 0, 601)
        );
    }

    #[test]
    fn r02_a_lost_answer_is_found_by_comparison() {
        for stored in 0..=4 {
            let (mut sink, mut outbox) = (MemorySink::default(), outbox(4));
            sink.fail_after(stored);
            assert!(matches!(outbox.flush(&mut sink), Err(FlushError::Failed(_))));
            assert_eq!((sink.entries.len(), outbox.len()), (stored, 4));
            // It fails again, in the comparison.
            sink.is_away = true;
            assert!(matches!(outbox.flush(&mut sink), Err(FlushError::Failed(_))));
            sink.is_away = false;
            outbox.push(canary(5));
            outbox.flush(&mut sink).unwrap();
            assert_eq!(positions(&sink), (1..=5).map(|number| position(5, number)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn r02_a_request_that_arrives_late_does_not_end_the_term() {
        for arrived in 1..=4 {
            let (mut sink, mut outbox) = (MemorySink::default(), outbox(4));
            sink.entries = outbox.unacknowledged.iter().take(arrived).cloned().collect();
            outbox.flush(&mut sink).unwrap();
            assert_eq!(positions(&sink), (1..=4).map(|number| position(5, number)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn r02_a_newer_leader_is_recognized() {
        let newer = [
            (position(6, 0), EntryContent::Claim { relay: "b".into() }),
            (position(5, 9), canary(9)),
            (position(5, 3), canary(0)),
        ];
        for (at, content) in newer {
            let (mut sink, mut outbox) = (MemorySink::default(), outbox(4));
            sink.entries.push((at, StreamEntry { origin: ORIGIN, content }));
            assert!(matches!(outbox.flush(&mut sink), Err(FlushError::Fenced)), "{at}");
            assert_eq!(sink.entries.len(), 1);
        }
    }

    #[test]
    fn r02_a_stream_that_has_lost_entries_is_continued() {
        let (mut sink, mut outbox) = (MemorySink::default(), outbox(4));
        outbox.flush(&mut sink).unwrap();
        sink.entries.truncate(2);
        outbox.push(canary(5));
        sink.fail_after(0);
        outbox.flush(&mut sink).unwrap_err();
        outbox.flush(&mut sink).unwrap();
        assert_eq!(positions(&sink), [1, 2, 5].map(|number| position(5, number)));
    }

    #[test]
    fn r02_an_engine_that_refuses_what_is_not_there_ends_the_term() {
        let (mut sink, mut outbox) = (MemorySink::default(), outbox(2));
        sink.refuses = true;
        assert!(matches!(outbox.flush(&mut sink), Err(FlushError::Fenced)));
    }
}
