//! Waiting on one connection: the loop of the manager, for one.

use std::time::Duration;

use crate::clock;
use crate::connection::Connection;
use crate::connection::idle::Idle;
use crate::connection::lent::LentBuffer;
use crate::connection::waiter::Waiter;
use crate::notification::Notification;

/// What a zero timeout reads from one connection at the most, so that it ends also where more always comes: 16 MiB.
pub(crate) const DRAIN_MAX: u32 = 16 * 1024 * 1024;

/// The notifications of one connection as they come, and idle events: see [`Connection::wait`].
#[derive(Debug)]
pub struct Wait<'c> {
    connection: &'c mut Connection,
    idle: Idle,
    buffer: LentBuffer,
    waiter: Option<Waiter>,
    /// Whether the socket has been looked at since the idle event came due.
    looked: bool,
}

/// One pass of a zero timeout: the socket is read once until it is empty, and its notifications are yielded. Those that
/// arrive later, even because of the loop's body, belong to the next pass.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pass {
    /// How many of the received notifications belong to the pass.
    left: u32,
    /// How many bytes the pass has read; `ENDED` once the socket has nothing more for it.
    bytes: u32,
}

/// No pass reads as many bytes.
const ENDED: u32 = u32::MAX;

impl<'c> Wait<'c> {
    pub(super) fn new(connection: &'c mut Connection, timeout: Option<Duration>) -> Self {
        let idle = Idle::new(timeout);
        if !idle.is_zero() {
            connection.forget_pass();
        }
        Self { connection, idle, buffer: LentBuffer::default(), waiter: None, looked: false }
    }

    /// The connection that is waited on, to ask how it is.
    pub fn connection(&self) -> &Connection {
        self.connection
    }

    /// Yields the next notification of the pass of a zero timeout, or ends it.
    fn next_in_pass(&mut self) -> Option<Notification> {
        // It lies with the connection, where the next `wait` finds it.
        loop {
            if self.connection.pass.left > 0
                && let Some(notification) = self.connection.session.pop_notification()
            {
                self.connection.pass.left -= 1;
                return Some(notification);
            }
            if self.connection.pass.bytes == ENDED {
                self.connection.forget_pass();
                return None;
            }
            let now = clock::now();
            // Requests that a manager left are sent one by one, each after the answer to the one before.
            self.connection.transmit();
            // A short read has taken what was there. The one behind it finds what the system has moved up meanwhile, or the
            // end of the connection.
            let mut bytes = self.connection.pass.bytes;
            while bytes != ENDED {
                let received = self.connection.receive_some(self.buffer.get(), now);
                bytes += received.map_or(0, |received| received.bytes as u32);
                if received.is_none() || bytes >= DRAIN_MAX {
                    bytes = ENDED;
                }
                if received.is_some_and(|received| received.full) {
                    break;
                }
            }
            let left = u32::try_from(self.connection.session.backlog_len()).unwrap_or(u32::MAX);
            self.connection.pass = Pass { left, bytes };
        }
    }
}

impl Iterator for Wait<'_> {
    type Item = Option<Notification>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.idle.is_zero() {
            return self.next_in_pass().map(Some);
        }
        loop {
            if let Some(notification) = self.connection.session.pop_notification() {
                return Some(Some(notification));
            }
            if self.connection.is_closed() {
                return None;
            }
            let now = clock::now();
            self.idle.begin(now);
            // An idle event that is due waits for one more look at the socket, and for what that brings.
            if self.looked {
                self.looked = false;
                self.idle.restart(now);
                return Some(None);
            }
            self.looked = self.idle.is_due(now);
            // Of what was asked before, inside a manager, the next goes once the one before is answered.
            self.connection.transmit();
            if self.connection.receive(self.buffer.get(), now) {
                continue;
            }
            if !self.looked && !self.connection.is_closed() {
                let waiter = self.waiter.get_or_insert_with(|| Waiter::on(self.connection.any_stream()));
                waiter.wait_until(self.idle.due());
            }
        }
    }
}
