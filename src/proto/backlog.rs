//! Notifications that were received and have not been taken.
//!
//! The notifications of one read are a slice of the read buffer. Only if more arrive before they are taken, as during a
//! long call, are the slices joined in a buffer of the session, whose size is limited.

use std::sync::Arc;

use crate::notification::{Batch, Notification, Slice, notifications_in};

/// The largest backlog of a session in bytes. A busy server may send many notifications before it answers a call.
pub(crate) const BACKLOG_MAX: usize = if cfg!(any(test, fuzzing)) { 8 } else { 256 } * 1024 * 1024;

/// A queue of notifications.
#[derive(Debug, Default)]
pub(crate) enum Backlog {
    #[default]
    Empty,
    /// The notifications of one read.
    One(Slice),
    /// The notifications of several reads; never empty.
    Joined(Box<Joined>),
}

/// Complete frames in a buffer with notifications added at the end and taken from the beginning. Adding and taking are
/// linear in the bytes that are added or taken, regardless of the size.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    bytes: Vec<u8>,
    /// The number of bytes that have been taken.
    taken: usize,
    /// The number of notifications that are left.
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

    /// Returns the size in bytes.
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

    /// Returns `true` if there is a notification on `channel` after the first `from` bytes.
    pub(crate) fn has_from(&self, from: usize, channel: &str) -> bool {
        let news = self.bytes().get(from..).unwrap_or_default();
        notifications_in(news).any(|n| n.channel_bytes() == channel.as_bytes())
    }

    /// Removes all notifications on `channel`. It copies the whole backlog, so it is only for rare cases.
    pub(crate) fn remove(&mut self, channel: &str) {
        if !self.has_from(0, channel) {
            return;
        }
        let mut kept = Joined::default();
        for n in notifications_in(self.bytes()).filter(|n| n.channel_bytes() != channel.as_bytes()) {
            kept.add(n.frame(), 1);
        }
        *self = if kept.len == 0 { Backlog::Empty } else { Backlog::Joined(Box::new(kept)) };
    }

    /// Adds `buffer[start..end]`, which must contain complete, validated frames, `len` of them notifications. If
    /// `common` is not 0, all notifications must be on one channel whose name has `common` bytes.
    #[inline]
    pub(crate) fn push(&mut self, buffer: &Arc<[u8]>, start: usize, end: usize, len: usize, common: usize) {
        let bytes = buffer.get(start..end).unwrap_or_default();
        match self {
            Backlog::Empty => *self = Backlog::One(Slice::new(buffer, start, end, len, common)),
            Backlog::One(slice) => {
                let mut joined = Box::<Joined>::default();
                joined.add(slice.as_bytes(), slice.len());
                joined.add(bytes, len);
                *self = Backlog::Joined(joined);
            }
            Backlog::Joined(joined) => joined.add(bytes, len),
        }
    }

    /// Takes all notifications.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Batch> {
        match std::mem::take(self) {
            Backlog::Empty => None,
            Backlog::One(slice) => Some(slice.into()),
            Backlog::Joined(joined) => {
                let buffer: Arc<[u8]> = joined.rest().into();
                Some(Slice::new(&buffer, 0, buffer.len(), joined.len, 0).into())
            }
        }
    }

    /// Takes the first notification.
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

impl Joined {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    fn add(&mut self, bytes: &[u8], len: usize) {
        // Once more has been taken than is left, moving the rest costs no more than was taken.
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
        self.len += len;
    }

    /// Takes the first notification, as a copy.
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
        let buffer: Arc<[u8]> = frames.concat().into();
        backlog.push(&buffer, 0, buffer.len(), frames.len(), 0);
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
    fn m17_notifications_on_one_channel_are_removed_and_the_others_stay_in_order() {
        for reads in [1, 5] {
            let frames = [frame("a", "1"), frame("mine", "x"), frame("b", "2"), frame("min", "3"), frame("mine", "y")];
            let mut backlog = Backlog::default();
            frames.chunks(frames.len() / reads).for_each(|read| push(&mut backlog, read));
            backlog.remove("another");
            backlog.remove("mine");
            push(&mut backlog, &[frame("c", "4")]);
            assert_eq!(payloads(&mut backlog), ["1", "2", "3", "4"], "{reads}");
        }
    }

    #[test]
    fn m17_removing_all_leaves_an_empty_backlog() {
        let mut backlog = Backlog::default();
        backlog.remove("mine");
        push(&mut backlog, &[frame("mine", "x"), frame("mine", "y")]);
        backlog.remove("mine");
        assert!(backlog.is_empty() && backlog.take().is_none());
    }

    #[test]
    fn taking_and_adding_in_turn_does_not_copy_the_rest_each_time() {
        let (mut backlog, mut sent, mut taken) = (Backlog::default(), 0.., 0..);
        for _ in 0..1000 {
            push(&mut backlog, &[frame("a", &sent.next().unwrap().to_string())]);
        }
        let Backlog::Joined(joined) = &mut backlog else { panic!() };
        // With room for all, the rest is not copied.
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
    fn m17_only_new_notifications_are_searched() {
        let mut backlog = Backlog::default();
        push(&mut backlog, &[frame("mine", "x")]);
        let seen = backlog.size();
        assert!(backlog.has_from(0, "mine") && !backlog.has_from(seen, "mine"));
        push(&mut backlog, &[frame("a", "1"), frame("mine", "y")]);
        assert!(backlog.has_from(seen, "mine") && !backlog.has_from(backlog.size(), "mine"));
    }
}
