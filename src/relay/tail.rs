//! The end of a stream, which a candidate reads backwards after its claim.
//!
//! ```text
//!             canary                       last        claims
//!   … 5-6 5-7  5-8  5-9 │ 6-0 6-1 6-2 6-3  6-4 │ 7-0 │ 8-0
//!              └────────── contiguous ─────────┘        ◀── read backwards
//! ```
//!
//! The tail is contiguous by the rule of the readers: a term is followed back into the one that it continues, and nothing
//! behind a hole belongs to it.

use std::collections::VecDeque;
use std::fmt;

use super::entry::{EntryContent, StreamEntry, StreamOrigin};
use super::position::StreamPosition;
use crate::notification::Batch;

/// The end of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Tail {
    /// The last entry of the last term that was started, and the server from which it came.
    pub(crate) last: Option<(StreamPosition, StreamOrigin)>,
    /// The last canary, or the reason that there is none.
    pub(crate) canary: Result<TailCanary, NoCanary>,
    /// The notifications after the canary, in their order.
    pub(crate) notifications: VecDeque<Batch>,
}

/// The last canary of a tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TailCanary {
    pub(crate) at: StreamPosition,
    pub(crate) marker: Box<str>,
}

/// The reason that a tail has no canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum NoCanary {
    /// The stream has no entry of a term that was started.
    Empty,
    /// The last term began with a gap, and has no canary yet.
    NotContinued(StreamPosition),
    /// The last leader has reported a gap, and no canary since.
    Gap(StreamPosition),
    /// The entry before this one is missing: it was trimmed, or the engine has lost it.
    Missing(StreamPosition),
    /// More than this many bytes of notifications follow it.
    TooLong(usize),
}

impl fmt::Display for NoCanary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the stream has no entry of a leader"),
            Self::NotContinued(at) => write!(f, "the term of the entry {at} began with a gap, and has no canary yet"),
            Self::Gap(at) => {
                write!(f, "the last leader reported a gap with the entry {at}, and has sent no canary since")
            }
            Self::Missing(at) => write!(f, "the entry before {at} is missing in the stream"),
            Self::TooLong(max) => {
                write!(f, "more than {max} bytes of notifications follow the last canary of the stream")
            }
        }
    }
}

/// Reads a stream backwards, to the last canary.
#[derive(Debug)]
pub(crate) struct TailReader {
    /// Only entries before this one are considered.
    before: Option<StreamPosition>,
    last: Option<(StreamPosition, StreamOrigin)>,
    /// The oldest entry that was read.
    oldest: Option<StreamPosition>,
    /// The entry that must come next, unless it is a claim.
    expected: Option<StreamPosition>,
    canary: Option<Result<TailCanary, NoCanary>>,
    notifications: VecDeque<Batch>,
    bytes: usize,
    max_bytes: usize,
}

impl TailReader {
    /// Creates a reader of the entries before `before`, such as the own claim, or of all. It keeps at most `max_bytes` of
    /// notifications.
    pub(crate) fn new(before: Option<StreamPosition>, max_bytes: usize) -> Self {
        Self {
            before,
            last: None,
            oldest: None,
            expected: None,
            canary: None,
            notifications: VecDeque::new(),
            bytes: 0,
            max_bytes,
        }
    }

    /// Adds the next older entry. Returns `true` if more are needed.
    ///
    /// A claim is skipped: either its term was started and the start has been read, or it is of a candidate that did not become
    /// a leader.
    pub(crate) fn push(&mut self, at: StreamPosition, entry: &StreamEntry) -> bool {
        let is_later = self.oldest.or(self.before).is_some_and(|before| at >= before);
        if self.canary.is_some() || is_later || at.is_claim() {
            return self.canary.is_none();
        }
        match self.expected {
            Some(expected) if expected != at => {
                self.canary = self.oldest.map(|oldest| Err(NoCanary::Missing(oldest)));
                return false;
            }
            Some(_) => {}
            None => self.last = Some((at, entry.origin)),
        }
        self.oldest = Some(at);
        self.expected = at.sequence.checked_sub(1).map(|sequence| StreamPosition { sequence, ..at });
        match &entry.content {
            EntryContent::Start { continues, .. } => {
                self.expected = *continues;
                if continues.is_none() {
                    self.canary = Some(Err(NoCanary::NotContinued(at)));
                }
            }
            EntryContent::Canary { marker, .. } => {
                self.canary = Some(Ok(TailCanary { at, marker: marker.clone() }));
            }
            EntryContent::Gap { .. } => self.canary = Some(Err(NoCanary::Gap(at))),
            EntryContent::Notifications(batch) => {
                self.bytes = self.bytes.saturating_add(batch.byte_len());
                if self.bytes > self.max_bytes {
                    self.canary = Some(Err(NoCanary::TooLong(self.max_bytes)));
                } else {
                    self.notifications.push_front(batch.clone());
                }
            }
            EntryContent::Claim { .. } => {}
        }
        self.canary.is_none()
    }

    /// Ends the reading, at the beginning of the stream or when nothing more is needed.
    pub(crate) fn finish(self) -> Tail {
        let beginning = self.oldest.map_or(NoCanary::Empty, NoCanary::Missing);
        let canary = self.canary.unwrap_or(Err(beginning));
        let notifications = if canary.is_ok() { self.notifications } else { VecDeque::new() };
        Tail { last: self.last, canary, notifications }
    }
}
