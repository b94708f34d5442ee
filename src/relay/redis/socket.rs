//! The sockets of an engine's connections: TCP, with or without TLS, and Unix. Another thread can end their calls.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::address::EnginePlace;
use crate::clock;
use crate::net::{BlockingTls, NameResolution};

/// The time between two looks at a name resolution.
const RESOLVE_STEP: Duration = Duration::from_millis(2);

/// A connected socket whose calls block for at most its timeouts.
pub(super) enum EngineSocket {
    Tcp(TcpStream),
    /// The session, and the socket below it for its settings.
    Tls(Box<BlockingTls>, TcpStream),
    Unix(UnixStream),
}

impl EngineSocket {
    /// Connects. `limit` is the limit of the name resolution, of each address of the host, and of a handshake.
    pub(super) fn connect(place: &EnginePlace, limit: Duration, interrupt: &Interrupt) -> io::Result<Self> {
        let (host, port, tls) = match place {
            EnginePlace::Unix(path) => {
                let socket = UnixStream::connect(path)?;
                interrupt.attach(SocketHandle::Unix(socket.try_clone()?))?;
                return Ok(Self::Unix(socket));
            }
            EnginePlace::Tcp { host, port, tls } => (host, *port, tls),
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in resolve(host, port, limit, interrupt)? {
            let socket = match TcpStream::connect_timeout(&address, interrupt.limit(limit)?) {
                Ok(socket) => socket,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            interrupt.attach(SocketHandle::Tcp(socket.try_clone()?))?;
            socket.set_nodelay(true)?;
            let Some(tls) = tls else { return Ok(Self::Tcp(socket)) };
            let lower = socket.try_clone()?;
            let begin = clock::now();
            let left = || {
                let left = limit.saturating_sub(clock::now().saturating_duration_since(begin));
                if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { interrupt.limit(left) }
            };
            let session = BlockingTls::connect(socket, host, tls.root_file.as_deref(), left)?;
            return Ok(Self::Tls(Box::new(session), lower));
        }
        Err(last)
    }

    /// Sets the longest time for which one read and one write may block.
    pub(super) fn set_timeouts(&self, read: Duration, write: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(socket) | Self::Tls(_, socket) => {
                socket.set_read_timeout(Some(read))?;
                socket.set_write_timeout(Some(write))
            }
            Self::Unix(socket) => {
                socket.set_read_timeout(Some(read))?;
                socket.set_write_timeout(Some(write))
            }
        }
    }
}

/// Closes the connection, of which an [`Interrupt`] may have a second handle.
impl Drop for EngineSocket {
    fn drop(&mut self) {
        // A socket that the peer has closed cannot be shut down.
        let _ = match self {
            Self::Tcp(socket) | Self::Tls(_, socket) => socket.shutdown(Shutdown::Both),
            Self::Unix(socket) => socket.shutdown(Shutdown::Both),
        };
    }
}

impl Read for EngineSocket {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| match self {
            Self::Tcp(socket) => socket.read(space),
            Self::Tls(session, _) => session.read(space),
            Self::Unix(socket) => socket.read(space),
        })
    }
}

impl Write for EngineSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Tls(session, _) => session.write(bytes),
            Self::Unix(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.flush(),
            Self::Tls(session, _) => session.flush(),
            Self::Unix(socket) => socket.flush(),
        }
    }
}

/// Repeats a call that a signal has interrupted, which a socket with a timeout does not do by itself.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Resolves a host within a limit.
fn resolve(host: &str, port: u16, limit: Duration, interrupt: &Interrupt) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let (resolution, begin) = (NameResolution::start(host, port, None), clock::now());
    loop {
        interrupt.limit(limit)?;
        if let Some(resolved) = resolution.poll() {
            return resolved.map_err(io::Error::other);
        }
        if clock::now().saturating_duration_since(begin) > limit {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if interrupt.sleep(RESOLVE_STEP) {
            return Err(stopped());
        }
    }
}

fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was stopped")
}

/// A second handle of a socket, which can shut it down while another thread uses it.
enum SocketHandle {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Ends the calls of a thread that uses an engine's connection, also those that block.
#[derive(Default)]
pub(crate) struct Interrupt {
    state: Mutex<InterruptState>,
    stopped: Condvar,
}

#[derive(Default)]
struct InterruptState {
    is_stopped: bool,
    /// The time after which no call may last.
    deadline: Option<Instant>,
    socket: Option<SocketHandle>,
}

impl Interrupt {
    /// Stops: every call that blocks returns, and no new one begins.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.is_stopped = true;
        match state.socket.take() {
            // A socket that the peer has closed cannot be shut down.
            Some(SocketHandle::Tcp(socket)) => drop(socket.shutdown(Shutdown::Both)),
            Some(SocketHandle::Unix(socket)) => drop(socket.shutdown(Shutdown::Both)),
            None => {}
        }
        drop(state);
        self.stopped.notify_all();
    }

    /// Lets no call that begins from now on last beyond a time.
    pub(crate) fn stop_by(&self, deadline: Instant) {
        self.lock().deadline = Some(deadline);
    }

    /// Returns a time limit for a call, or the shorter time that is left.
    pub(super) fn limit(&self, limit: Duration) -> io::Result<Duration> {
        let state = self.lock();
        let left = state.deadline.map_or(limit, |deadline| deadline.saturating_duration_since(clock::now()).min(limit));
        if state.is_stopped || left.is_zero() { Err(stopped()) } else { Ok(left) }
    }

    /// Returns `true` after [`stop`](Self::stop).
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// Sleeps for a time, or until it is stopped; returns `true` if it is.
    pub(crate) fn sleep(&self, time: Duration) -> bool {
        let state = self.lock();
        let waited = self.stopped.wait_timeout_while(state, time, |state| !state.is_stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_stopped
    }

    /// Sets the socket that is shut down when it is stopped.
    fn attach(&self, socket: SocketHandle) -> io::Result<()> {
        let mut state = self.lock();
        if state.is_stopped {
            return Err(stopped());
        }
        state.socket = Some(socket);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, InterruptState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r06_a_call_that_a_signal_interrupts_is_repeated() {
        let mut answers =
            [Ok(7), Err(io::ErrorKind::Interrupted.into()), Err(io::ErrorKind::Interrupted.into())].into_iter();
        assert_eq!(uninterrupted(|| answers.next_back().unwrap()).unwrap(), 7);
    }
}
