//! Notifications that were read and not yet taken.
//!
//! What one read brought is handed on as the slice that it is. Only when more comes before it was taken, as during a
//! long call, are the slices joined in a buffer of the session's own, under a cap.

use std::sync::Arc;

use crate::notification::{Batch, Notification, Slice, notifications_in};

/// What a session holds at the most. A server that is behind may have much to say before it answers a call.
pub(crate) const BACKLOG_MAX: usize = if cfg!(any(test, fuzzing)) { 8 } else { 256 } * 1024 * 1024;

/// A queue of notifications, first in first out.
#[derive(Debug, Default)]
pub(crate) enum Backlog {
    #[default]
    Empty,
    /// What one read brought.
    One(Slice),
    /// What several brought; never none.
    Joined(Box<Joined>),
}

/// Whole frames in a buffer that grows at its end and is used up from its beginning. Using it up costs what is taken,
/// and adding to it what is added, however much it holds.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    bytes: Vec<u8>,
    /// How many of the bytes have been taken.
    taken: usize,
    /// How many notifications are left.
    len: usize,
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of notifications.
    pub(crate) fn len(&self) -> usize {
        match self {
            Backlog::Empty => 0,
            Backlog::One(slice) => slice.len(),
            Backlog::Joined(joined) => joined.len,
        }
    }

    /// How many bytes are held.
    pub(crate) fn size(&self) -> usize {
        self.bytes().len()
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Backlog::Empty => &[],
            Backlog::One(slice) => slice.as_bytes(),
            Backlog::Joined(joined) => joined.rest(),
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
        let mut kept = Joined::default();
        for n in notifications_in(self.bytes()).filter(|n| n.channel_bytes() != channel.as_bytes()) {
            kept.add(n.frame(), 1);
        }
        *self = kept.into();
    }

    /// Adds `read_buffer[start..end]`, whole frames of which `len` are notifications, all on one channel if its name has
    /// `common` bytes; with 0 the channels may differ.
    #[inline]
    pub(crate) fn push(&mut self, read_buffer: &Arc<[u8]>, start: usize, end: usize, len: usize, common: usize) {
        match self {
            Backlog::Empty => *self = Backlog::One(Slice::new(read_buffer, start, end, len, common)),
            _ => self.join(read_buffer.get(start..end).unwrap_or_default(), len),
        }
    }

    fn join(&mut self, bytes: &[u8], len: usize) {
        let mut joined = match std::mem::take(self) {
            Backlog::Empty => Box::default(),
            Backlog::One(slice) => {
                let mut joined = Box::<Joined>::default();
                joined.add(slice.as_bytes(), slice.len());
                joined
            }
            Backlog::Joined(joined) => joined,
        };
        joined.add(bytes, len);
        *self = Backlog::Joined(joined);
    }

    /// All of it.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Batch> {
        match std::mem::take(self) {
            Backlog::Empty => None,
            Backlog::One(slice) => Some(slice.into()),
            Backlog::Joined(joined) => {
                let read_buffer: Arc<[u8]> = joined.rest().into();
                Some(Slice::new(&read_buffer, 0, read_buffer.len(), joined.len, 0).into())
            }
        }
    }

    /// The first one.
    pub(crate) fn pop(&mut self) -> Option<Notification> {
        let first = match self {
            Backlog::Empty => None,
            Backlog::One(slice) => slice.pop_front(),
            Backlog::Joined(joined) => joined.pop_front(),
        };
        if self.is_empty() {
            *self = Backlog::Empty;
        }
        first
    }
}

impl From<Joined> for Backlog {
    fn from(joined: Joined) -> Self {
        if joined.len == 0 { Backlog::Empty } else { Backlog::Joined(Box::new(joined)) }
    }
}

impl Joined {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    fn add(&mut self, bytes: &[u8], len: usize) {
        // Once more has been taken than is left, moving that makes room for as much.
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
        self.len += len;
    }

    /// The first one, in memory of its own.
    fn pop_front(&mut self) -> Option<Notification> {
        let mut rest = notifications_in(self.rest());
        let first = rest.next()?.to_owned();
        self.taken = self.bytes.len() - rest.bytes_left();
        self.len -= 1;
        Some(first)
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
        let read_buffer: Arc<[u8]> = frames.concat().into();
        backlog.push(&read_buffer, 0, read_buffer.len(), frames.len(), 0);
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
    fn what_is_popped_and_added_in_turn_is_not_copied_each_time() {
        let (mut backlog, mut sent, mut taken) = (Backlog::default(), 0.., 0..);
        for _ in 0..1000 {
            push(&mut backlog, &[frame("a", &sent.next().unwrap().to_string())]);
        }
        let Backlog::Joined(joined) = &mut backlog else { panic!() };
        // With room for all, what stays in its place isn't copied.
        joined.bytes.reserve(100_000);
        let at = joined.bytes.as_ptr();
        for _ in 0..400 {
            assert_eq!(backlog.pop().unwrap().payload(), taken.next().unwrap().to_string());
            push(&mut backlog, &[frame("a", &sent.next().unwrap().to_string())]);
        }
        let Backlog::Joined(joined) = &backlog else { panic!() };
        assert_eq!((joined.bytes.as_ptr(), joined.len), (at, 1000));
        for _ in 0..5_000 {
            assert_eq!(backlog.pop().unwrap().payload(), taken.next().unwrap().to_string());
            push(&mut backlog, &[frame("a", &sent.next().unwrap().to_string())]);
        }
        let Backlog::Joined(joined) = &backlog else { panic!() };
        assert!(joined.bytes.len() < 3 * joined.rest().len(), "what was taken takes no more than what is left, about");
        let left: Vec<_> = taken.take(1000).map(|number: i32| number.to_string()).collect();
        assert_eq!(payloads(&mut backlog), left);
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
