//! Between the threads that read and the one that is told: a queue with a limit.
//!
//! Whoever reads notifications must never wait, since a session that doesn't read fills the server's queue for all:
//! what doesn't fit is dropped and counted, and the count is told in its place. What lies in an outbox keeps, so there
//! the reader waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::Error;
use crate::gap::Gap;

/// The most bytes of payloads that wait to be told.
pub(crate) const LIMIT: usize = 64 << 20;
/// About what an item costs besides its payload.
const ITEM: usize = 128;

/// Something to be told about one database.
#[derive(Debug)]
pub(crate) enum Item {
    /// What was notified.
    Notified(Box<[u8]>),
    /// What lay in the outbox, under this number.
    Posted(i64, Box<[u8]>),
    /// So many notifications came while there was no room.
    Dropped(u64),
    Away(Error),
    Gap(Gap),
    Lost(Error),
    Warning(String),
}

impl Item {
    fn size(&self) -> usize {
        ITEM + match self {
            Item::Notified(payload) | Item::Posted(_, payload) => payload.len(),
            _ => 0,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<(usize, Item)>,
    size: usize,
    /// What couldn't be kept, by database, until there is room to say so.
    dropped: BTreeMap<usize, u64>,
    /// What an outbox's reader may clear, by database.
    done: BTreeMap<usize, Vec<i64>>,
    readers: usize,
    /// Nothing more is to be added.
    stopped: bool,
    /// Nothing more will be taken, or dealt with.
    closed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

/// What waiting came to.
pub(crate) enum Taken {
    Item(usize, Item),
    TimedOut,
    /// Nothing will come any more.
    Over,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What is kept under the lock is whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was notified, or counts it as dropped.
    pub(crate) fn push(&self, database: usize, item: Item) {
        let mut state = self.lock();
        if state.stopped {
            return;
        }
        let has_room = state.size + item.size() <= LIMIT && !state.dropped.contains_key(&database);
        match item {
            Item::Notified(_) if !has_room => *state.dropped.entry(database).or_default() += 1,
            item => {
                state.size += item.size();
                state.items.push_back((database, item));
            }
        }
        self.changed.notify_all();
    }

    /// Adds what lay in an outbox, once there is room; nothing after a stop.
    pub(crate) fn post(&self, database: usize, number: i64, payload: Box<[u8]>) {
        let item = Item::Posted(number, payload);
        let mut state = self.lock();
        while !state.stopped && !state.items.is_empty() && state.size + item.size() > LIMIT {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.stopped {
            state.size += item.size();
            state.items.push_back((database, item));
            self.changed.notify_all();
        }
    }

    /// The next item, in the order in which they came.
    pub(crate) fn take(&self, until: Option<Instant>) -> Taken {
        let mut state = self.lock();
        loop {
            if let Some((database, item)) = state.items.pop_front() {
                state.size -= item.size();
                self.changed.notify_all();
                return Taken::Item(database, item);
            }
            if let Some((database, count)) = state.dropped.pop_first() {
                return Taken::Item(database, Item::Dropped(count));
            }
            if state.stopped || state.readers == 0 {
                return Taken::Over;
            }
            let left = until.map(|until| until.saturating_duration_since(clock::now()));
            state = match left {
                Some(Duration::ZERO) => return Taken::TimedOut,
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Says that what lay under these numbers has been dealt with.
    pub(crate) fn settle(&self, database: usize, numbers: impl IntoIterator<Item = i64>) {
        self.lock().done.entry(database).or_default().extend(numbers);
        self.changed.notify_all();
    }

    /// Waits until something has been dealt with, and takes it; nothing, once nothing more will be.
    pub(crate) fn wait_settled(&self, database: usize) -> Vec<i64> {
        let mut state = self.lock();
        loop {
            let done = state.done.remove(&database).unwrap_or_default();
            if !done.is_empty() || state.closed {
                return done;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits so long, or until a stop; says whether to go on.
    pub(crate) fn rest(&self, time: Duration) -> bool {
        let until = clock::now().checked_add(time);
        let mut state = self.lock();
        while !state.stopped {
            let left = until.map_or(time, |until| until.saturating_duration_since(clock::now()));
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        !state.stopped
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Takes nothing more in; what is there can still be taken.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Ends everything that waits here.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.closed = true;
        drop(state);
        self.changed.notify_all();
    }

    /// Counts a thread that reads.
    pub(crate) fn add_reader(&self) {
        self.lock().readers += 1;
    }

    /// It reads no more.
    pub(crate) fn remove_reader(&self) {
        let mut state = self.lock();
        state.readers = state.readers.saturating_sub(1);
        self.changed.notify_all();
    }

    /// How much waits to be told.
    pub(crate) fn len(&self) -> usize {
        self.lock().items.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notified(size: usize) -> Item {
        Item::Notified(vec![b'x'; size].into())
    }

    #[test]
    fn what_does_not_fit_is_counted_and_told_after_what_did() {
        let queue = Queue::default();
        queue.add_reader();
        queue.push(1, notified(LIMIT - 2 * ITEM));
        queue.push(1, notified(ITEM));
        queue.push(2, notified(1));
        queue.push(1, notified(0));
        assert!(matches!(queue.take(None), Taken::Item(1, Item::Notified(_))));
        // There is room again, but nothing of this database comes before the word of what is missing.
        queue.push(1, notified(0));
        assert!(matches!(queue.take(None), Taken::Item(1, Item::Dropped(3))));
        assert!(matches!(queue.take(None), Taken::Item(2, Item::Dropped(1))));
        queue.push(1, notified(0));
        assert!(matches!(queue.take(None), Taken::Item(1, Item::Notified(_))));
        assert!(matches!(queue.take(Some(clock::now())), Taken::TimedOut));
        queue.remove_reader();
        assert!(matches!(queue.take(None), Taken::Over));
    }
}
