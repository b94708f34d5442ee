//! The queue between the thread of a reader and the program. It is bounded: when it is full, the thread does not read, and the
//! engine keeps the entries as long as the stream has room.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::feed::FeedOutput;
use crate::clock;
use crate::manager::Event;

/// The largest number of events that wait, in addition to those of one read.
const EVENTS_MAX: usize = 4096;
/// The largest number of bytes of notifications that wait, in addition to those of one read.
const BYTES_MAX: usize = 16 << 20;

/// The result of waiting for an event.
#[derive(Debug)]
pub(super) enum Waited {
    Event(FeedOutput),
    /// The time has come, and everything that had been received by then has been returned.
    Due,
    /// The reader was stopped, or its thread has ended.
    End,
}

#[derive(Default)]
pub(super) struct ReaderQueue {
    contents: Mutex<QueueContents>,
    received: Condvar,
    has_room: Condvar,
}

#[derive(Default)]
struct QueueContents {
    waiting: VecDeque<FeedOutput>,
    bytes: usize,
    /// The number of the thread that may add events. Earlier ones have been replaced.
    thread: u64,
    /// `true` while the thread may add events.
    is_open: bool,
    /// `true` from the first wait on, until the end was returned.
    is_running: bool,
    is_stopped: bool,
    /// The number of events that have been added, and that have been taken.
    added: u64,
    taken: u64,
    /// `true` while the thread waits for room.
    is_room_wanted: bool,
    /// The number of events that had been added when the time of an idle event had come.
    due_after: Option<u64>,
}

impl ReaderQueue {
    /// Removes all events, and returns the number of the next thread, which alone may add events from now on.
    pub(super) fn restart(&self) -> u64 {
        let mut contents = self.lock();
        let thread = contents.thread + 1;
        *contents = QueueContents { thread, is_open: true, is_running: true, ..QueueContents::default() };
        drop(contents);
        self.has_room.notify_all();
        thread
    }

    /// Adds events. Returns `false` if the thread has been replaced.
    pub(super) fn add(&self, thread: u64, events: &mut Vec<FeedOutput>) -> bool {
        let mut contents = self.lock();
        if contents.thread != thread || !contents.is_open {
            return false;
        }
        if !events.is_empty() {
            contents.bytes += events.iter().map(size).sum::<usize>();
            contents.added += events.len() as u64;
            contents.waiting.extend(events.drain(..));
            drop(contents);
            self.received.notify_all();
        }
        true
    }

    /// Waits until there is room. Returns `false` if the thread has been replaced.
    pub(super) fn wait_for_room(&self, thread: u64) -> bool {
        let is_full = |contents: &mut QueueContents| {
            let is_full = contents.waiting.len() >= EVENTS_MAX || contents.bytes >= BYTES_MAX;
            is_full && contents.is_open && contents.thread == thread
        };
        let mut contents = self.lock();
        contents.is_room_wanted = true;
        let mut contents = self.has_room.wait_while(contents, is_full).unwrap_or_else(PoisonError::into_inner);
        contents.is_room_wanted = false;
        contents.is_open && contents.thread == thread
    }

    /// Ends the queue for a thread that adds no more events.
    pub(super) fn end(&self, thread: u64) {
        let mut contents = self.lock();
        if contents.thread == thread {
            contents.is_open = false;
        }
        drop(contents);
        self.received.notify_all();
        self.has_room.notify_all();
    }

    /// Ends the queue for every thread.
    pub(super) fn close(&self) {
        self.lock().is_open = false;
        self.received.notify_all();
        self.has_room.notify_all();
    }

    /// Makes the next wait return the end, or the one that is in progress. Has no effect while the reader is not running.
    pub(super) fn stop(&self) {
        let mut contents = self.lock();
        contents.is_stopped = contents.is_running;
        drop(contents);
        self.received.notify_all();
    }

    /// Waits for an event, or until a time. Without a time, waits for any time.
    pub(super) fn next(&self, until: Option<Instant>) -> Waited {
        let mut contents = self.lock();
        contents.is_running = true;
        loop {
            if contents.is_stopped {
                (contents.is_stopped, contents.is_running) = (false, false);
                return Waited::End;
            }
            let now = clock::now();
            let is_due = until.is_some_and(|until| now >= until);
            if is_due {
                let added = contents.added;
                let after = *contents.due_after.get_or_insert(added);
                if contents.taken >= after {
                    contents.due_after = None;
                    return Waited::Due;
                }
            }
            if let Some(output) = contents.waiting.pop_front() {
                contents.taken += 1;
                contents.bytes = contents.bytes.saturating_sub(size(&output));
                // The thread reads again when half of the queue is free, and not for each event.
                let has_room = contents.waiting.len() <= EVENTS_MAX / 2 && contents.bytes <= BYTES_MAX / 2;
                if contents.is_room_wanted && has_room {
                    self.has_room.notify_all();
                }
                return Waited::Event(output);
            }
            if !contents.is_open {
                contents.is_running = false;
                return Waited::End;
            }
            contents = match until {
                None => self.received.wait(contents).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(now);
                    self.received.wait_timeout(contents, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueContents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(output: &FeedOutput) -> usize {
    match &output.event {
        Event::Notifies(_, batch) => batch.byte_len(),
        _ => 0,
    }
}
