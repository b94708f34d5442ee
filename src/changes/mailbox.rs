//! Messages to the worker's loop: replies, which arrive on the loop's own thread, and messages from the consumer.

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

/// The messages that the loop has not read yet.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(super) handle: Handle,
    pub(super) messages: Mutex<Vec<LoopMessage>>,
}

impl Mailbox {
    /// Adds a message, and wakes the loop unless an earlier unread message has woken it.
    pub(crate) fn send(&self, message: LoopMessage) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.push(message);
        if messages.len() == 1 {
            drop(self.handle.stop());
        }
    }

    /// Takes all messages, in the order in which they were added.
    pub(crate) fn take(&self) -> Vec<LoopMessage> {
        std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
