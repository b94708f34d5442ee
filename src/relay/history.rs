//! The notifications and canaries that a relay has received, and the place among them at which it continues a stream.
//!
//! All sessions that listen receive one order. So the last canary of the stream marks a place in the history of every relay that
//! has received it; behind it the notifications of the stream and of the history must be the same, byte for byte:
//!
//! ```text
//!   stream     … a b CANARY c d │ own claim
//!   history      a b CANARY c d   e f CANARY g
//!                           same  └─ appended ─┘
//! ```

use std::collections::VecDeque;
use std::fmt;

use super::entry::EntryContent;
use super::tail::{NoCanary, Tail};

/// The limit of a history, in bytes.
pub(crate) const HISTORY_BYTES: usize = 64 << 20;
/// The assumed size of a content without its notifications, in memory.
const CONTENT_BYTES: usize = 128;

/// The received notifications and canaries, from a canary on, without a gap.
#[derive(Debug)]
pub(crate) struct History {
    /// Empty, or begins with a canary: nothing before the first one is ever needed.
    contents: VecDeque<EntryContent>,
    bytes: usize,
    max_bytes: usize,
}

/// The way in which a candidate continues a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Resume {
    /// Nothing is missing. These contents follow the last entry of the stream.
    Continue(Vec<EntryContent>),
    /// More may yet be received that is missing now, because the session of the candidate may be behind that of the last leader. If it
    /// does not arrive in time, there is a gap.
    Wait(ResumeGap),
    /// Something may be missing. A gap is reported, and nothing of the history is appended: a reader reads its data again.
    Gap(ResumeGap),
}

/// The reason that a candidate cannot continue without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResumeGap {
    /// The stream has no canary to begin with.
    NoCanary(NoCanary),
    /// The history does not have the canary.
    UnknownCanary,
    /// The stream has more notifications after the canary than the history.
    Behind { missing: usize },
    /// The notifications after the canary are others.
    Different,
}

impl fmt::Display for ResumeGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCanary(reason) => reason.fmt(f),
            Self::UnknownCanary => f.write_str(
                "this relay has not received the last canary of the stream, or has forgotten it: it began to listen later, \
                 had a gap of its own, or the last leader was ahead by more than the history keeps",
            ),
            Self::Behind { missing } => {
                write!(f, "the stream has {missing} notifications that this relay has not received")
            }
            Self::Different => f.write_str(
                "the stream has other notifications after its last canary than this relay has received: the relays listen to \
                 different channels or servers",
            ),
        }
    }
}

impl History {
    /// Creates a history that takes at most `max_bytes`. If that does not suffice for what follows the last canary, it keeps
    /// nothing until the next one.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { contents: VecDeque::new(), bytes: 0, max_bytes }
    }

    /// Adds received notifications or a canary; a gap of the own session clears the history. Other contents are not received.
    pub(crate) fn push(&mut self, content: EntryContent) {
        let content = match content {
            EntryContent::Canary { .. } => content,
            // The read buffer would stay in memory.
            EntryContent::Notifications(batch) if !batch.is_empty() && !self.contents.is_empty() => {
                EntryContent::Notifications(batch.detach())
            }
            EntryContent::Gap { .. } => return self.clear(),
            _ => return,
        };
        self.bytes += size_of_content(&content);
        self.contents.push_back(content);
        while self.bytes > self.max_bytes && !self.contents.is_empty() {
            let next = self.contents.iter().skip(1).position(is_canary);
            self.forget(next.map_or(self.contents.len(), |next| next + 1));
        }
    }

    /// Forgets everything, because the session has missed notifications.
    pub(crate) fn clear(&mut self) {
        self.forget(self.contents.len());
    }

    /// Forgets what no takeover needs any more, now that the stream has these contents, of which the newest is the first: everything
    /// before the canary before their newest one. That one is kept for an engine that loses the last entries.
    pub(crate) fn seen_in<'c>(&mut self, contents: impl IntoIterator<Item = &'c EntryContent>) {
        let newest = contents.into_iter().find_map(|content| match content {
            EntryContent::Canary { marker, .. } => Some(marker),
            _ => None,
        });
        if let Some(seen) = newest.and_then(|marker| self.find(marker)) {
            self.forget_before(seen);
        }
    }

    /// Like [`seen_in`](Self::seen_in), for a stream that has everything.
    pub(crate) fn seen_all(&mut self) {
        if let Some(seen) = self.contents.iter().rposition(is_canary) {
            self.forget_before(seen);
        }
    }

    /// Forgets everything before the canary before the one at this index.
    fn forget_before(&mut self, seen: usize) {
        let before = self.contents.iter().take(seen).rposition(is_canary);
        self.forget(before.unwrap_or(seen));
    }

    /// Returns the bytes that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Finds the place at which to continue a stream after its tail, which was read behind the own claim.
    ///
    /// `barrier` is the marker of a canary that this relay has sent after the engine had accepted its claim. Once that has come
    /// back, everything has been received that the last leader can have appended, and there is nothing to wait for.
    pub(crate) fn resume(&self, tail: &Tail, barrier: &str) -> Resume {
        let marker = match &tail.canary {
            Ok(canary) => &canary.marker,
            Err(reason) => return Resume::Gap(ResumeGap::NoCanary(*reason)),
        };
        let is_complete = self.find(barrier).is_some();
        let undecided = |gap| if is_complete { Resume::Gap(gap) } else { Resume::Wait(gap) };
        let Some(canary) = self.find(marker) else { return undecided(ResumeGap::UnknownCanary) };

        let mut appended = tail.notifications.iter().flatten();
        let mut missing: usize = tail.notifications.iter().map(|batch| batch.len()).sum();
        let mut rest = Vec::new();
        for content in self.contents.iter().skip(canary + 1) {
            match content {
                _ if missing == 0 => rest.push(content.clone()),
                EntryContent::Notifications(batch) => {
                    let compared = missing.min(batch.len());
                    if !batch.iter().take(compared).eq(appended.by_ref().take(compared)) {
                        return Resume::Gap(ResumeGap::Different);
                    }
                    missing -= compared;
                    if compared < batch.len() {
                        rest.push(EntryContent::Notifications(batch.clone().without_first(compared)));
                    }
                }
                _ => return Resume::Gap(ResumeGap::Different),
            }
        }
        if missing == 0 { Resume::Continue(rest) } else { undecided(ResumeGap::Behind { missing }) }
    }

    /// Returns the index of a canary.
    fn find(&self, marker: &str) -> Option<usize> {
        let is_it =
            |content: &EntryContent| matches!(content, EntryContent::Canary { marker: m, .. } if **m == *marker);
        self.contents.iter().rposition(is_it)
    }

    fn forget(&mut self, count: usize) {
        let forgotten: usize = self.contents.drain(..count).map(|content| size_of_content(&content)).sum();
        self.bytes -= forgotten;
    }
}

fn is_canary(content: &EntryContent) -> bool {
    matches!(content, EntryContent::Canary { .. })
}

/// Returns the memory that a content takes.
fn size_of_content(content: &EntryContent) -> usize {
    let data = match content {
        EntryContent::Notifications(batch) => batch.byte_len(),
        EntryContent::Canary { marker, channels, .. } => {
            marker.len() + channels.iter().map(|channel| size_of::<Box<str>>() + channel.len()).sum::<usize>()
        }
        _ => 0,
    };
    CONTENT_BYTES + data
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::notification::{Notification, Slice};
    use crate::relay::engine_time::EngineTime;

    #[test]
    fn a_history_does_not_keep_read_buffers() {
        let frames = [Notification::new("c", "x".repeat(5_000), 1)];
        let frames = frames.into_iter().collect::<crate::notification::Batch>().notification_frames().into_owned();
        let buffer: Arc<[u8]> = [frames.clone(), vec![0; 60_000]].concat().into();
        let mut history = History::new(1 << 20);
        history.push(EntryContent::Canary {
            marker: "m".into(),
            sent: EngineTime::default(),
            channels: Vec::new(),
            silence_ms: 20_000,
        });
        history.push(EntryContent::Notifications(Slice::new(&buffer, 0, frames.len(), 1, 1).into()));
        assert_eq!(Arc::strong_count(&buffer), 1);
        assert!((5_000..6_000).contains(&history.bytes()));
    }

    #[test]
    fn a_history_that_is_full_begins_with_a_later_canary() {
        let notification =
            |text: &str| EntryContent::Notifications([Notification::new("c", text, 1)].into_iter().collect());
        let mut history = History::new(5_000);
        for number in 0..100 {
            let marker = number.to_string().into();
            history.push(EntryContent::Canary {
                marker,
                sent: EngineTime::default(),
                channels: Vec::new(),
                silence_ms: 20_000,
            });
            (0..number % 7).for_each(|_| history.push(notification("x")));
            assert!(history.contents.front().is_some_and(is_canary));
            let sizes: usize = history.contents.iter().map(size_of_content).sum();
            assert!(history.bytes == sizes && sizes <= 5_000 && (number < 40 || sizes > 3_000), "{number}: {sizes}");
        }
    }
}
