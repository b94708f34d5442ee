//! Waits for the readiness of sockets. This is the only file that uses `mio`.
//!
//! Callers must not rely on the following:
//!
//! - Readiness is reported **once**. A caller that stops reading before the socket would block, or before a read is
//!   short, must continue later without another report.
//! - A socket that is reported as ready may not be ready.
//! - A wait may return early without a ready socket.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

/// The largest number of events for each system call.
const EVENTS: usize = 1024;
/// The token of the waker; the tokens of sockets begin with 0.
const WAKER: Token = Token(usize::MAX);

/// A socket that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    /// The token with which the socket was registered.
    pub(crate) token: u32,
    /// `true` if the peer will send no more, so that only a read of 0 bytes means that the socket is drained.
    pub(crate) read_closed: bool,
}

/// Waits for sockets.
#[derive(Debug)]
pub(crate) struct Reactor {
    poll: Poll,
    events: Events,
}

impl Reactor {
    /// Creates a reactor for many sockets, and its waker.
    pub(crate) fn with_waker() -> io::Result<(Self, PollWaker)> {
        let reactor = Self::with_capacity(EVENTS)?;
        let waker = reactor.waker()?;
        Ok((reactor, waker))
    }

    /// Creates a reactor that returns up to `capacity` events for each wait.
    pub(crate) fn with_capacity(capacity: usize) -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(capacity) })
    }

    /// Creates the waker, of which there can be only one.
    pub(crate) fn waker(&self) -> io::Result<PollWaker> {
        Ok(PollWaker(Arc::new(Waker::new(self.poll.registry(), WAKER)?)))
    }

    /// Registers a socket for reading, and for writing if `writable`.
    pub(crate) fn register(&self, socket: &impl AsRawFd, token: u32, writable: bool) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(token as usize), interest(writable))
    }

    /// Changes the registration of a socket. Readiness is reported again.
    pub(crate) fn reregister(&self, socket: &impl AsRawFd, token: u32, writable: bool) -> io::Result<()> {
        self.poll.registry().reregister(&mut SourceFd(&socket.as_raw_fd()), Token(token as usize), interest(writable))
    }

    /// Removes a socket. This must be called before the socket is closed or given away.
    pub(crate) fn deregister(&self, socket: &impl AsRawFd) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&socket.as_raw_fd()))
    }

    /// Waits until a socket is ready, the waker is called or the timeout is over.
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

    /// Returns `true` if the waker ended the last wait.
    pub(crate) fn was_woken(&self) -> bool {
        self.events.iter().any(|event| event.token() == WAKER)
    }
}

impl AsRawFd for Reactor {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

/// Ends a reactor's wait from any thread.
#[derive(Debug, Clone)]
pub(crate) struct PollWaker(Arc<Waker>);

impl PollWaker {
    pub(crate) fn wake(&self) {
        // This fails only if the reactor was dropped, and then no thread waits.
        let _ = self.0.wake();
    }
}

fn interest(writable: bool) -> Interest {
    if writable { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
}
