//! The loop over the notifications of one connection.

use std::time::Duration;

use crate::clock;
use crate::connection::Connection;
use crate::connection::blocking::BlockingPoll;
use crate::connection::history::WaitPass;
use crate::connection::idle::Idle;
use crate::connection::read_context::ReadContext;
use crate::connection::thread_buffer::ThreadBuffer;
use crate::notification::Notification;

/// The most that a zero timeout reads from one connection, so that it ends even if more always arrives: 16 MiB.
pub(crate) const DRAIN_MAX: u32 = 16 * 1024 * 1024;

/// An iterator over the notifications of one connection, and idle events: see [`Connection::wait`].
#[derive(Debug)]
pub struct Wait<'c> {
    connection: &'c mut Connection,
    idle: Idle,
    buffer: ThreadBuffer,
    poll: Option<BlockingPoll>,
    /// `true` if the socket has been read since the idle event became due.
    is_idle_next: bool,
}

impl<'c> Wait<'c> {
    pub(super) fn new(connection: &'c mut Connection, timeout: Option<Duration>) -> Self {
        let idle = Idle::new(timeout);
        if !idle.is_zero() {
            connection.link.history.set_pass(None);
        }
        Self { connection, idle, buffer: ThreadBuffer::default(), poll: None, is_idle_next: false }
    }

    /// Returns the connection, to read its state.
    pub fn connection(&self) -> &Connection {
        self.connection
    }

    /// Yields the next notification of the pass of a zero timeout, or ends it.
    fn next_in_pass(&mut self) -> Option<Notification> {
        let link = &mut self.connection.link;
        // The pass is stored in the connection, so that the next `wait` continues it.
        let pass = link.history.audit().and_then(|audit| audit.pass);
        let mut pass = pass.unwrap_or(WaitPass { left: 0, may_have_more: true, bytes: 0 });
        loop {
            if pass.left > 0
                && let Some(notification) = link.backlog_mut().pop()
            {
                pass.left -= 1;
                link.history.set_pass(Some(pass));
                return Some(notification);
            }
            if !pass.may_have_more {
                link.history.set_pass(None);
                return None;
            }
            let mut cx = ReadContext::new(self.buffer.get(), clock::now(), false, None);
            // A short read has emptied the socket. The next read finds data that has arrived meanwhile, or the end of
            // the connection.
            while pass.may_have_more {
                let pumped = link.pump(&mut cx);
                pass.bytes += pumped.bytes as u32;
                pass.may_have_more = pumped.bytes > 0 && pass.bytes < DRAIN_MAX;
                if pumped.may_have_more {
                    break;
                }
            }
            pass.left = link.backlog().len();
        }
    }
}

impl Iterator for Wait<'_> {
    type Item = Option<Notification>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.idle.is_zero() {
            return self.next_in_pass().map(Some);
        }
        let link = &mut self.connection.link;
        loop {
            if let Some(notification) = link.backlog_mut().pop() {
                return Some(Some(notification));
            }
            if link.is_closed() {
                return None;
            }
            let now = clock::now();
            self.idle.begin(now);
            // Before an idle event that is due, the socket is read once more.
            if self.is_idle_next {
                self.is_idle_next = false;
                self.idle.restart(now);
                return Some(None);
            }
            self.is_idle_next = self.idle.is_due(now);
            let mut cx = ReadContext::new(self.buffer.get(), now, true, None);
            if link.pump(&mut cx).bytes == 0 && !self.is_idle_next && !link.is_closed() {
                let poll = self.poll.get_or_insert_with(|| BlockingPoll::on(link.stream()));
                poll.wait_until(self.idle.due());
            }
        }
    }
}
