//! Which sockets are ready. The only file that says `mio`.
//!
//! What may not be assumed:
//!
//! - Readiness is told **once**: whoever is told and doesn't read until the socket would block, or until a read comes
//!   back short, must remember to go on.
//! - A socket may be told ready and not be.
//! - A wait may end early with nothing ready.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

/// How many events are taken from the system at once.
const EVENTS: usize = 1024;
/// The token of the waker; tokens of sockets count up from 0.
const WAKER: Token = Token(usize::MAX);

/// A socket that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    /// What it was registered as.
    pub(crate) token: u32,
    /// Whether the peer will send no more, so that only a read of nothing means drained.
    pub(crate) read_closed: bool,
}

/// Waits for sockets.
#[derive(Debug)]
pub(crate) struct Reactor {
    poll: Poll,
    events: Events,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Self> {
        Self::with_capacity(EVENTS)
    }

    /// One for a single call on a single socket.
    pub(crate) fn for_one_socket() -> io::Result<Self> {
        Self::with_capacity(1)
    }

    fn with_capacity(capacity: usize) -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(capacity) })
    }

    /// What ends a wait from another thread. There can be one.
    pub(crate) fn waker(&self) -> io::Result<PollWaker> {
        Ok(PollWaker(Arc::new(Waker::new(self.poll.registry(), WAKER)?)))
    }

    /// Watches a socket for bytes to read, and for room to write if asked to.
    pub(crate) fn register(&self, socket: &impl AsRawFd, token: u32, writable: bool) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(token as usize), interest(writable))
    }

    /// Changes what a socket is watched for; what is ready now is told again.
    pub(crate) fn reregister(&self, socket: &impl AsRawFd, token: u32, writable: bool) -> io::Result<()> {
        self.poll.registry().reregister(&mut SourceFd(&socket.as_raw_fd()), Token(token as usize), interest(writable))
    }

    /// Forgets a socket. It must be called before the socket is closed, or handed on.
    pub(crate) fn deregister(&self, socket: &impl AsRawFd) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&socket.as_raw_fd()))
    }

    /// Waits until a socket is ready, the waker wakes the poll or the timeout is over, whichever comes first.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<impl Iterator<Item = Ready>> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(e) => return Err(e),
        }
        Ok(self.events.iter().filter(|event| event.token() != WAKER).filter_map(|event| {
            let token = event.token().0.try_into().ok()?;
            Some(Ready { token, read_closed: event.is_read_closed() || event.is_error() })
        }))
    }

    /// Whether the waker was among what ended the last wait.
    pub(crate) fn was_woken(&self) -> bool {
        self.events.iter().any(|event| event.token() == WAKER)
    }
}

impl AsRawFd for Reactor {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

/// Ends a reactor's wait, from any thread.
#[derive(Debug, Clone)]
pub(crate) struct PollWaker(Arc<Waker>);

impl PollWaker {
    pub(crate) fn wake(&self) {
        // It fails only where the reactor is gone, and then nobody waits.
        let _ = self.0.wake();
    }
}

fn interest(writable: bool) -> Interest {
    if writable { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
}
