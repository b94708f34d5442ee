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
    /// How many bytes have been read since a zero timeout began to drain.
    drained: u32,
}

impl<'c> Wait<'c> {
    pub(super) fn new(connection: &'c mut Connection, timeout: Option<Duration>) -> Self {
        Self {
            connection,
            idle: Idle::new(timeout),
            buffer: LentBuffer::default(),
            waiter: None,
            looked: false,
            drained: 0,
        }
    }

    /// The connection that is waited on, to ask how it is.
    pub fn connection(&self) -> &Connection {
        self.connection
    }
}

impl Iterator for Wait<'_> {
    type Item = Option<Notification>;

    fn next(&mut self) -> Option<Self::Item> {
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
            if self.drained < DRAIN_MAX
                && let Some(received) = self.connection.receive_some(self.buffer.get(), now)
            {
                if self.idle.is_zero() {
                    self.drained += received.bytes as u32;
                }
                continue;
            }
            if self.idle.is_zero() {
                self.drained = 0;
                return None;
            }
            if !self.looked && !self.connection.is_closed() {
                let waiter = self.waiter.get_or_insert_with(|| Waiter::on(self.connection.any_stream()));
                waiter.wait_until(self.idle.due());
            }
        }
    }
}
