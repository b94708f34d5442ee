//! Messages to the worker's loop: from answered queries, which arrive on the loop's own thread, and from the consumer.

use std::sync::{Mutex, PoisonError};

use super::request::DatabaseRequest;
use crate::error::Error;
use crate::manager::Handle;
use crate::row::Row;

/// A message to the loop.
#[derive(Debug)]
pub(crate) enum LoopMessage {
    /// The reply to a request of one database.
    Reply(DatabaseReply),
    /// The consumer has dealt with something after the worker was stopped.
    Acknowledged,
    /// The consumer has taken so much that there is room again.
    Room,
    /// The worker must stop; the consumer may still acknowledge.
    Stop,
    /// The consumer has gone.
    Close,
}

/// The reply to a request of one database.
#[derive(Debug)]
pub(crate) struct DatabaseReply {
    pub(crate) database: usize,
    /// The number of the session that was asked: answers of a session that was lost are stale.
    pub(crate) session: u64,
    pub(crate) step: DatabaseRequest,
    pub(crate) result: Result<Vec<Row>, Error>,
}

/// The messages that the loop has not read yet.
#[derive(Debug)]
pub(crate) struct Mailbox {
    handle: Handle,
    messages: Mutex<Vec<LoopMessage>>,
}

impl Mailbox {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle, messages: Mutex::default() }
    }

    /// Adds a message, and interrupts the loop's wait unless an earlier message has done so.
    pub(crate) fn send(&self, message: LoopMessage) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.push(message);
        if messages.len() == 1 {
            drop(self.handle.stop());
        }
    }

    /// Takes all messages, in their order.
    pub(crate) fn take(&self) -> Vec<LoopMessage> {
        std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
