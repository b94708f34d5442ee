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

/// Returns the cause of a gap of notifications that did not fit.
pub(crate) fn overflow_error(dropped: usize) -> Error {
    let message = format!(
        "the relay has dropped {dropped} notifications, because more than {} MiB or {INBOX_NOTIFICATIONS} waited for the engine",
        INBOX_BYTES >> 20
    );
    Error::Relay(message.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::notification::Notification;

    fn batch(notifications: usize, payload: usize) -> Received {
        let payload = "x".repeat(payload);
        Received::Notifications((0..notifications).map(|_| Notification::new("c", &payload, 1)).collect())
    }

    /// Takes everything, and returns one text for each item.
    fn taken(inbox: &Inbox) -> Vec<String> {
        let text = |item| match item {
            Received::Notifications(batch) => format!("{} notifications", batch.len()),
            Received::Overflow(dropped) => format!("{dropped} dropped"),
            Received::Disconnected(_) => "disconnected".to_owned(),
            other => format!("{other:?}"),
        };
        inbox.take(clock::now(), true).into_iter().map(text).collect()
    }

    #[test]
    fn r06_notifications_that_do_not_fit_are_counted_in_their_place() {
        let inbox = Inbox::default();
        inbox.push(batch(INBOX_NOTIFICATIONS - 1, 1));
        inbox.push(batch(2, 1));
        inbox.push(batch(3, 1));
        inbox.push(batch(1, 1));
        assert_eq!(inbox.waiting(), INBOX_NOTIFICATIONS);
        inbox.push(batch(1, 1));
        inbox.push(Received::Disconnected(Error::Disconnected));
        inbox.push(batch(1, 1));
        let expected =
            ["99999 notifications", "5 dropped", "1 notifications", "1 dropped", "disconnected", "1 dropped"];
        assert_eq!(taken(&inbox), expected);
        // There is room again.
        inbox.push(batch(INBOX_NOTIFICATIONS, 1));
        assert_eq!((taken(&inbox), inbox.waiting()), (vec!["100000 notifications".to_owned()], 0));
    }

    #[test]
    fn r06_the_bytes_that_wait_are_bounded() {
        let inbox = Inbox::default();
        let size = match batch(1, 7_000) {
            Received::Notifications(batch) => batch.byte_len(),
            other => panic!("{other:?}"),
        };
        let fits = INBOX_BYTES / size;
        for _ in 0..fits + 10 {
            inbox.push(batch(1, 7_000));
        }
        assert_eq!(inbox.waiting(), fits);
        assert_eq!(taken(&inbox).last().unwrap(), "10 dropped");
    }

    #[test]
    fn an_inbox_waits_for_an_item_or_the_stop_and_returns_all() {
        let inbox = Inbox::default();
        let soon = || clock::now() + Duration::from_millis(20);
        assert!(inbox.take(soon(), true).is_empty());
        let far = clock::now() + Duration::from_secs(3600);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| inbox.take(far, true).len());
            inbox.push(Received::Opened);
            assert_eq!(waiting.join().unwrap(), 1);
        });
        // Items that are not taken stay.
        inbox.push(batch(2, 1));
        assert!(inbox.take(soon(), false).is_empty() && inbox.waiting() == 2);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| inbox.take(far, false).len());
            inbox.stop();
            assert_eq!(waiting.join().unwrap(), 0);
        });
        assert!(inbox.is_stopped());
        assert_eq!(inbox.take(far, true).len(), 1, "what waits is taken after the stop");
    }
}
