//! The bounded queue between the loop and the thread of a stream.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::clock;
use crate::error::Error;
use crate::gap::Gap;
use crate::notification::Batch;

/// The limits of what waits for an engine that is slow or away.
pub(crate) const INBOX_BYTES: usize = 64 << 20;
pub(crate) const INBOX_NOTIFICATIONS: usize = 100_000;

/// Something that the loop has received for a stream.
#[derive(Debug)]
pub(crate) enum Received {
    /// The session is open for the first time.
    Opened,
    /// The session is open again, or listens again to channels that its server had forgotten.
    Restored(Gap),
    Notifications(Batch),
    Disconnected(Error),
    /// This many notifications did not fit.
    Overflow(usize),
}

/// The queue of one stream. The loop fills it without waiting.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<InboxState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct InboxState {
    items: VecDeque<Received>,
    bytes: usize,
    notifications: usize,
    is_stopped: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item. Notifications that do not fit are counted in their place.
    pub(crate) fn push(&self, item: Received) {
        let mut state = self.lock();
        if let Received::Notifications(batch) = &item {
            let (bytes, len) = (batch.byte_len(), batch.len());
            if state.bytes + bytes > INBOX_BYTES || state.notifications + len > INBOX_NOTIFICATIONS {
                match state.items.back_mut() {
                    Some(Received::Overflow(dropped)) => *dropped += len,
                    _ => state.items.push_back(Received::Overflow(len)),
                }
                return;
            }
            state.bytes += bytes;
            state.notifications += len;
        }
        state.items.push_back(item);
        drop(state);
        self.changed.notify_one();
    }

    /// Ends the queue behind what waits in it.
    pub(crate) fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_one();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// Returns the number of notifications that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().notifications
    }

    /// Waits until there is something or the queue is stopped, at most until the deadline, and takes what is there: if
    /// `takes` is false nothing, and then only the stop ends the wait early.
    pub(crate) fn take(&self, deadline: Instant, takes: bool) -> VecDeque<Received> {
        let mut state = self.lock();
        while !state.is_stopped && (!takes || state.items.is_empty()) {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if !takes {
            return VecDeque::new();
        }
        (state.bytes, state.notifications) = (0, 0);
        std::mem::take(&mut state.items)
    }
}
