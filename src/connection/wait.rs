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
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass {
    /// The number of pending notifications that belong to this pass.
    left: usize,
    /// `true` if the socket may hold more data for this pass.
    reads_on: bool,
    /// The number of bytes read in this pass.
    bytes: u32,
}

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
        // The pass is stored in the connection, so that the next `wait` continues it.
        let mut pass = self.connection.pass().unwrap_or(Pass { left: 0, reads_on: true, bytes: 0 });
        loop {
            if pass.left > 0
                && let Some(notification) = self.connection.session.pop_notification()
            {
                pass.left -= 1;
                self.connection.keep_pass(pass);
                return Some(notification);
            }
            if !pass.reads_on {
                self.connection.forget_pass();
                return None;
            }
            let now = clock::now();
            // Requests that a manager left are sent one by one, each after the answer to the one before.
            self.connection.transmit();
            // A short read has emptied the socket. The next read finds data that has arrived meanwhile, or the end of
            // the connection.
            while pass.reads_on {
                let received = self.connection.receive_some(self.buffer.get(), now);
                pass.bytes += received.map_or(0, |received| received.bytes as u32);
                pass.reads_on = received.is_some() && pass.bytes < DRAIN_MAX;
                if received.is_some_and(|received| received.full) {
                    break;
                }
            }
            pass.left = self.connection.session.backlog_len();
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
