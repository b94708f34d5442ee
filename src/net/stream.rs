//! A connected socket, TCP or Unix, that never blocks. The only file that says `socket2`.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use crate::clock::{self, CoarseInstant};
use crate::config::Config;
use crate::error::TlsError;
use crate::net::Transport;
use crate::net::tls::{Encryption, Tls};

/// Where to dial: one address, looked up already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

/// How a TCP link that is idle is looked after by the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keepalive {
    /// After how long a dead link is noticed; never, without probes.
    pub(crate) noticed_after: Option<Duration>,
    /// Whether the peer is on this machine.
    pub(crate) local: bool,
}

/// A socket in non-blocking mode, and the filter on it.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    /// When it was dialled.
    opened: CoarseInstant,
    /// Larger than all the rest, where there is one.
    tls: Option<Box<Tls>>,
}

impl Transport for Stream {
    fn dial(address: &Address, config: &Config) -> io::Result<(Self, bool)> {
        let (socket, to) = match address {
            Address::Tcp(to) => {
                let socket = unblocking(Domain::for_address(*to))?;
                tune(&socket, config)?;
                (socket, SockAddr::from(*to))
            }
            Address::Unix(path) => (unblocking(Domain::UNIX)?, SockAddr::unix(path)?),
        };
        let is_done = match socket.connect(&to) {
            Ok(()) => true,
            // An interrupted one goes on, too.
            Err(e) if is_in_progress(&e) => false,
            Err(e) => return Err(e),
        };
        Ok((Self { socket, opened: clock::now().into(), tls: None }, is_done))
    }

    fn check(&self) -> io::Result<bool> {
        // Who has a peer has no error that a read wouldn't tell.
        let Err(unconnected) = self.socket.peer_addr() else { return Ok(true) };
        match self.socket.take_error()? {
            Some(error) => Err(error),
            None if unconnected.kind() == io::ErrorKind::NotConnected => Ok(false),
            None => Err(unconnected),
        }
    }

    fn opened(&self) -> Instant {
        self.opened.into()
    }

    fn peer(&self) -> io::Result<Address> {
        let peer = self.socket.peer_addr()?;
        if let Some(address) = peer.as_socket() {
            return Ok(Address::Tcp(address));
        }
        let path = peer.as_pathname().ok_or_else(|| io::Error::other("the peer's socket has no name"))?;
        Ok(Address::Unix(path.to_owned()))
    }

    #[inline]
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match &mut self.tls {
                None => (&self.socket).read(space),
                Some(tls) => tls.read(Quiet(&self.socket), space),
            };
            match read {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    #[inline]
    fn short_read_means_drained(&self) -> bool {
        self.tls.as_deref().is_none_or(Tls::is_drained)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let written = match &mut self.tls {
                None => Quiet(&self.socket).write(bytes),
                Some(tls) => tls.write(Quiet(&self.socket), bytes),
            };
            match written {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn encrypt(&mut self, encryption: Encryption) -> Result<(), TlsError> {
        self.tls = Some(Box::new(Tls::begin(encryption)?));
        Ok(())
    }

    fn handshake(&mut self) -> Result<bool, TlsError> {
        match &mut self.tls {
            None => Ok(true),
            Some(tls) => tls.handshake(Quiet(&self.socket)),
        }
    }

    fn encryption(&self) -> Option<&Encryption> {
        self.tls.as_deref().map(Tls::encryption)
    }

    fn end_point(&self) -> Option<Vec<u8>> {
        self.tls.as_ref()?.end_point()
    }

    fn send_close_notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify(Quiet(&self.socket));
        }
    }

    fn shut_down(&self) {
        // Where it fails, the peer has gone already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl Stream {
    /// After how long the system notices that an idle link is dead. Nothing for a Unix socket, which can't be.
    ///
    /// Asked of the socket itself, so that what the system adds by itself is in it.
    pub(crate) fn keepalive(&self) -> Option<Keepalive> {
        let peer = self.socket.peer_addr().ok()?.as_socket()?;
        let probes = || -> io::Result<Option<Duration>> {
            if !self.socket.keepalive()? {
                return Ok(None);
            }
            let idle = self.socket.tcp_keepalive_time()?;
            let interval = self.socket.tcp_keepalive_interval()?;
            // Linux gives up at the first probe after the user timeout, whatever the count is.
            #[cfg(target_os = "linux")]
            if let Some(limit) = self.socket.tcp_user_timeout()?.filter(|limit| !limit.is_zero()) {
                return Ok(Some(limit.max(idle + interval)));
            }
            Ok(Some(idle + interval * self.socket.tcp_keepalive_retries()?))
        };
        Some(Keepalive { noticed_after: probes().ok()?, local: peer.ip().is_loopback() })
    }

    /// A stream over what somebody else opened.
    #[cfg(test)]
    pub(crate) fn from_fd(fd: std::os::fd::OwnedFd) -> Self {
        Self { socket: Socket::from(fd), opened: clock::now().into(), tls: None }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The socket as it is lent: a write to a peer that has gone is an error and no signal.
struct Quiet<'s>(&'s Socket);

impl Read for Quiet<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let mut socket = self.0;
        socket.read(space)
    }
}

impl Write for Quiet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_with_flags(bytes, NO_SIGNAL)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send_vectored_with_flags(parts, NO_SIGNAL)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// MSG_NOSIGNAL: writing to a peer that has gone is an error, not the death of a program that lets SIGPIPE have its way.
/// On Apple's systems `socket2` sets that for the socket.
const NO_SIGNAL: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 0x4000 } else { 0 };

/// EINPROGRESS, for which the standard library has no stable name.
const IN_PROGRESS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 115 } else { 36 };

fn is_in_progress(error: &io::Error) -> bool {
    error.raw_os_error() == Some(IN_PROGRESS) || error.kind() == io::ErrorKind::Interrupted
}

/// A socket that never blocks, from its beginning where the system can do that.
fn unblocking(domain: Domain) -> io::Result<Socket> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return Socket::new(domain, Type::STREAM.nonblocking(), None);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// The settings of libpq by the same names; what isn't set is left to the system.
fn tune(socket: &Socket, config: &Config) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if config.get_keepalives() {
        let mut keepalive = TcpKeepalive::new();
        if let Some(idle) = config.get_keepalives_idle() {
            keepalive = keepalive.with_time(idle);
        }
        if let Some(interval) = config.get_keepalives_interval() {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(count) = config.get_keepalives_count() {
            keepalive = keepalive.with_retries(count);
        }
        // Which switches it on, too.
        socket.set_tcp_keepalive(&keepalive)?;
    }
    #[cfg(target_os = "linux")]
    if let Some(timeout) = config.get_tcp_user_timeout() {
        socket.set_tcp_user_timeout(Some(timeout))?;
    }
    Ok(())
}
