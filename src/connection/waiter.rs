//! How a blocking call waits for its one socket: by a poller of its own, for as long as the call lasts.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::clock;
use crate::net::{PollWaker, Reactor};

/// How long to sleep between two looks where no poller could be had, because the process is out of descriptors.
const NAP: Duration = Duration::from_millis(5);

/// Waits for one socket.
#[derive(Debug)]
pub(crate) struct Waiter {
    reactor: Option<Reactor>,
}

impl Waiter {
    pub(crate) fn new() -> Self {
        Self { reactor: Reactor::for_one_socket().ok() }
    }

    /// One that watches this socket, to read and to write.
    pub(crate) fn on(socket: &impl AsRawFd) -> Self {
        let mut waiter = Self::new();
        waiter.watch(socket);
        waiter
    }

    /// Watches this socket, to read and to write.
    pub(crate) fn watch(&mut self, socket: &impl AsRawFd) {
        // Where that fails, naps do.
        if self.reactor.as_ref().is_some_and(|reactor| reactor.register(socket, 0, true).is_err()) {
            self.reactor = None;
        }
    }

    /// What ends a wait from another thread. Where there is none, naps are short enough.
    pub(crate) fn waker(&self) -> Option<PollWaker> {
        self.reactor.as_ref()?.waker().ok()
    }

    /// Waits until the socket may be ready, and at the latest until then.
    pub(crate) fn wait_until(&mut self, deadline: Option<Instant>) {
        let left = deadline.map(|at| at.saturating_duration_since(clock::now()));
        let waited = self.reactor.as_mut().map(|reactor| reactor.wait(left).map(drop));
        if !matches!(waited, Some(Ok(()))) {
            std::thread::sleep(left.map_or(NAP, |left| left.min(NAP)));
        }
    }
}
