//! Notifications that were read and not yet taken.
//!
//! What one read brought is handed on as the slice that it is. Only when more comes before it was taken, as during a
//! long call, are the slices joined in a buffer of the session's own, under a cap.

use std::sync::Arc;

use crate::notification::{Batch, Notification, notifications_in};

/// What a session holds at the most. A server that is behind may have much to say before it answers a call.
pub(crate) const BACKLOG_MAX: usize = if cfg!(any(test, fuzzing)) { 8 } else { 256 } * 1024 * 1024;

/// A queue of notifications, first in first out.
#[derive(Debug, Default)]
pub(crate) enum Backlog {
    #[default]
    Empty,
    /// What one read brought.
    One(Batch),
    /// What several brought: whole frames, so many of them notifications.
    Joined(Vec<u8>, usize),
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Backlog::Empty => true,
            Backlog::One(batch) => batch.is_empty(),
            Backlog::Joined(_, len) => *len == 0,
        }
    }

    /// How many bytes are held.
    pub(crate) fn size(&self) -> usize {
        self.bytes().len()
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Backlog::Empty => &[],
            Backlog::One(batch) => batch.as_bytes(),
            Backlog::Joined(bytes, _) => bytes,
        }
    }

    /// Whether there is a notification on `channel` behind the first `from` bytes, which were looked through before.
    pub(crate) fn has_from(&self, from: usize, channel: &str) -> bool {
        let news = self.bytes().get(from..).unwrap_or_default();
        notifications_in(news).any(|n| n.channel_bytes() == channel.as_bytes())
    }

    /// Takes out all notifications on `channel`; the others stay, in order. It walks and copies all that is held, so
    /// it is for what happens rarely.
    pub(crate) fn remove(&mut self, channel: &str) {
        if !self.has_from(0, channel) {
            return;
        }
        let mut kept = (Vec::with_capacity(self.size()), 0);
        for n in notifications_in(self.bytes()).filter(|n| n.channel_bytes() != channel.as_bytes()) {
            kept.0.extend_from_slice(n.frame());
            kept.1 += 1;
        }
        *self = if kept.1 == 0 { Backlog::Empty } else { Backlog::Joined(kept.0, kept.1) };
    }

    /// Adds `slab[start..end]`, whole frames of which `len` are notifications, all on one channel if its name has `common`
    /// bytes; with 0 the channels may differ.
    pub(crate) fn push(&mut self, slab: &Arc<[u8]>, start: usize, end: usize, len: usize, common: usize) {
        let (mut bytes, before) = match std::mem::take(self) {
            Backlog::Empty => {
                *self = Backlog::One(Batch::new(slab, start, end, len, common));
                return;
            }
            Backlog::One(batch) => (batch.as_bytes().to_vec(), batch.len()),
            Backlog::Joined(bytes, len) => (bytes, len),
        };
        bytes.extend_from_slice(slab.get(start..end).unwrap_or_default());
        *self = Backlog::Joined(bytes, before + len);
    }

    /// All of it.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        let batch = match std::mem::take(self) {
            Backlog::Empty => return None,
            Backlog::One(batch) => batch,
            Backlog::Joined(bytes, len) => {
                let slab: Arc<[u8]> = bytes.into();
                Batch::new(&slab, 0, slab.len(), len, 0)
            }
        };
        (!batch.is_empty()).then_some(batch)
    }

    /// The first one.
    pub(crate) fn pop(&mut self) -> Option<Notification> {
        let mut batch = self.take()?;
        let first = batch.pop_front();
        if !batch.is_empty() {
            *self = Backlog::One(batch);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(channel: &str, payload: &str) -> Vec<u8> {
        let length = (4 + 4 + channel.len() + 1 + payload.len() + 1) as u32;
        [b"A", &length.to_be_bytes()[..], &[0, 0, 0, 7], channel.as_bytes(), &[0], payload.as_bytes(), &[0]].concat()
    }

    fn push(backlog: &mut Backlog, frames: &[Vec<u8>]) {
        let slab: Arc<[u8]> = frames.concat().into();
        backlog.push(&slab, 0, slab.len(), frames.len(), 0);
    }

    fn payloads(backlog: &mut Backlog) -> Vec<String> {
        let left = backlog.take().map(|batch| (batch.len(), batch));
        left.map(|(len, batch)| {
            let payloads: Vec<_> = batch.iter().map(|n| n.payload().into_owned()).collect();
            assert_eq!(payloads.len(), len);
            payloads
        })
        .unwrap_or_default()
    }

    #[test]
    fn m17_what_is_on_one_channel_is_taken_out_and_the_others_stay_in_order() {
        for reads in [1, 5] {
            let frames = [frame("a", "1"), frame("mine", "x"), frame("b", "2"), frame("min", "3"), frame("mine", "y")];
            let mut backlog = Backlog::default();
            frames.chunks(frames.len() / reads).for_each(|read| push(&mut backlog, read));
            backlog.remove("nobody's");
            backlog.remove("mine");
            push(&mut backlog, &[frame("c", "4")]);
            assert_eq!(payloads(&mut backlog), ["1", "2", "3", "4"], "{reads}");
        }
    }

    #[test]
    fn m17_taking_out_all_leaves_nothing() {
        let mut backlog = Backlog::default();
        backlog.remove("mine");
        push(&mut backlog, &[frame("mine", "x"), frame("mine", "y")]);
        backlog.remove("mine");
        assert!(backlog.is_empty() && backlog.take().is_none());
    }

    #[test]
    fn m17_only_what_is_new_is_looked_through() {
        let mut backlog = Backlog::default();
        push(&mut backlog, &[frame("mine", "x")]);
        let seen = backlog.size();
        assert!(backlog.has_from(0, "mine") && !backlog.has_from(seen, "mine"));
        push(&mut backlog, &[frame("a", "1"), frame("mine", "y")]);
        assert!(backlog.has_from(seen, "mine") && !backlog.has_from(backlog.size(), "mine"));
    }
}
