//! Messages to the worker's loop: replies, which arrive on the loop's own thread, and messages from the consumer.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::request::DatabaseRequest;
use crate::error::Error;
use crate::manager::Handle;
use crate::row::Row;

/// A message to the loop.
#[derive(Debug)]
pub(crate) enum LoopMessage {
    /// A session has replied to a request.
    Reply(DatabaseReply),
    /// The consumer has acknowledged an item after the worker was stopped.
    Acknowledged,
    /// The queue has room again.
    Room,
    /// The worker must stop; the consumer may still acknowledge.
    Stop,
    /// The worker must stop; the consumer acknowledges nothing more.
    Close,
}

/// The reply to a request of one database.
#[derive(Debug)]
pub(crate) struct DatabaseReply {
    pub(crate) database: usize,
    /// The session to which the request was sent. Replies of a lost session are ignored.
    pub(crate) session: u64,
    pub(crate) request: DatabaseRequest,
    pub(crate) result: Result<Vec<Row>, Error>,
}

/// The way to end the wait of the loop.
pub(crate) enum LoopWaker {
    Manager(Handle),
    /// Ends a source, which is not asked for anything: only an end is a reason to wake it.
    Source(Box<dyn Fn() + Send + Sync>),
}

impl fmt::Debug for LoopWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoopWaker")
    }
}

/// The messages that the loop has not read yet.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(super) waker: LoopWaker,
    pub(super) messages: Mutex<Vec<LoopMessage>>,
}

impl Mailbox {
    /// Adds a message, and wakes the loop unless an earlier unread message has woken it.
    pub(crate) fn send(&self, message: LoopMessage) {
        let is_end = matches!(message, LoopMessage::Stop | LoopMessage::Close);
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.push(message);
        match &self.waker {
            LoopWaker::Manager(handle) if messages.len() == 1 => drop(handle.stop()),
            LoopWaker::Source(stop) if is_end => stop(),
            LoopWaker::Manager(_) | LoopWaker::Source(_) => {}
        }
    }

    /// Takes all messages, in the order in which they were added.
    pub(crate) fn take(&self) -> Vec<LoopMessage> {
        std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
