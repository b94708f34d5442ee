//! The rule of the readers: whether an entry follows the last one, or something between them is missing.
//!
//! ```text
//!   5-8 ──▶ 5-9 ──▶ 6-0 ──▶ 7-0 ──▶ 7-1, continues 5-9 ──▶ 7-2      nothing is missing
//!                   claims, without a start    ▲
//!                   5-9 ──▶ 5-11,  5-9 ──▶ 7-1, continues 5-8       a gap
//! ```
//!
//! No engine reports that it has trimmed a stream, lost acknowledged entries or deleted them. This rule finds all of that,
//! with the numbers alone.

use std::fmt;

use super::entry::EntryContent;
use super::position::StreamPosition;

/// The relation of an entry to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Continuity {
    /// A claim, which delivers nothing and is no leader yet.
    Pending,
    /// Nothing is missing before the entry.
    Contiguous,
    /// Something may be missing before the entry.
    Broken(StreamBreak),
}

/// The reason for which entries may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum StreamBreak {
    /// The reader began on a stream without an entry, and this is the first one.
    Beginning,
    /// The entry is not the one after the last that was read.
    Jump { from: StreamPosition, to: StreamPosition },
    /// A new leader could not continue where the last one had ended.
    NotContinued { at: StreamPosition },
    /// A new leader continues after another entry than the last that was read.
    ContinuesOther { from: StreamPosition, other: StreamPosition },
    /// The stream ends before the last entry that was read: it was deleted, or the engine has lost entries.
    Shortened { from: StreamPosition, top: Option<StreamPosition> },
}

impl fmt::Display for StreamBreak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning => f.write_str("the stream had no entry when the reader began"),
            Self::Jump { from, to } => write!(
                f,
                "the stream continues after the entry {from} with {to}: entries between them were trimmed, because the \
                 reader was away or slow for longer than the stream is kept, or lost by the engine"
            ),
            Self::NotContinued { at } => {
                write!(f, "the leader that started with the entry {at} could not continue where the last one had ended")
            }
            Self::ContinuesOther { from, other } => write!(
                f,
                "a new leader continues after the entry {other}, and the last entry that was read is {from}: the engine \
                 has lost entries"
            ),
            Self::Shortened { from, top: Some(top) } => write!(
                f,
                "the stream ends with the entry {top}, before the last entry that was read, {from}: it was deleted, or \
                 the engine has lost entries, as after a failover"
            ),
            Self::Shortened { from, top: None } => write!(
                f,
                "the stream is empty, and the last entry that was read is {from}: it was deleted, or the engine has lost \
                 its data"
            ),
        }
    }
}

/// The result of comparing the end of the stream with what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TopCheck {
    /// The stream has everything that was read.
    Fine,
    /// The stream has lost claims that were read, and nothing else. Reading continues at the [cursor](Follower::cursor), which
    /// has moved back.
    Rewound,
    /// The stream has lost entries that were read. The reader begins again, and reports a gap *then*: an entry that is appended
    /// before the reader knows its new position must be covered.
    Broken(StreamBreak),
}

/// The place of a reader in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Follower {
    /// The last entry that is no claim.
    position: Option<StreamPosition>,
    /// The last entry, which may be a claim.
    cursor: Option<StreamPosition>,
}

impl Follower {
    /// Creates a follower that has read up to an entry: the last one of the last term that was started, or `None` if the stream
    /// has none.
    pub(crate) fn starting_at(position: Option<StreamPosition>) -> Self {
        Self { position, cursor: position }
    }

    /// Returns the position of the last entry that is no claim, with which the next one is compared.
    pub(crate) fn position(&self) -> Option<StreamPosition> {
        self.position
    }

    /// Returns the position after which to read, or `None` for the beginning of the stream. A claim has no effect but to move
    /// it.
    pub(crate) fn cursor(&self) -> Option<StreamPosition> {
        self.cursor
    }

    /// Follows to the next entry that the engine returned, and returns its relation to those before it. The content of an entry
    /// that is not pending is then delivered, after the gap if there is one.
    pub(crate) fn follow(&mut self, at: StreamPosition, content: &EntryContent) -> Continuity {
        self.cursor = Some(at);
        let continues = match content {
            EntryContent::Claim { .. } => return Continuity::Pending,
            EntryContent::Start { continues, .. } => Some(*continues),
            _ => None,
        };
        let Some(from) = self.position.replace(at) else { return Continuity::Broken(StreamBreak::Beginning) };
        match continues {
            // An older term is one that was written to another stream: the engine was replaced.
            Some(_) if at <= from => Continuity::Broken(StreamBreak::Jump { from, to: at }),
            Some(None) => Continuity::Broken(StreamBreak::NotContinued { at }),
            Some(Some(other)) if other != from => Continuity::Broken(StreamBreak::ContinuesOther { from, other }),
            None if from.next() != Some(at) => Continuity::Broken(StreamBreak::Jump { from, to: at }),
            _ => Continuity::Contiguous,
        }
    }

    /// Compares the last entry of the stream with what was read, while no entry arrives: behind a position that the stream no
    /// longer has, a read would wait for ever.
    pub(crate) fn check_top(&mut self, top: Option<StreamPosition>) -> TopCheck {
        match self.position {
            Some(from) if top < Some(from) => TopCheck::Broken(StreamBreak::Shortened { from, top }),
            _ if top < self.cursor => {
                self.cursor = self.position;
                TopCheck::Rewound
            }
            _ => TopCheck::Fine,
        }
    }
}
