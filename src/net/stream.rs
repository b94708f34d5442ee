//! A connected, non-blocking TCP or Unix socket. This is the only file that uses `socket2`.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use crate::clock::{self, CoarseInstant};
use crate::config::Config;
use crate::error::TlsError;
use crate::net::tls::{Encryption, Tls};
use crate::net::transport::{Address, Transport};

/// The TCP keepalive settings of an idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keepalive {
    /// The time after which a lost connection is detected. `None` means never, because keepalives are disabled.
    pub(crate) detected_after: Option<Duration>,
    /// `true` if the peer is on this machine.
    pub(crate) is_local: bool,
}

/// A non-blocking socket and its TLS filter.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    /// The time at which the connection attempt began.
    opened: CoarseInstant,
    /// In a box because it is larger than all other fields, and often absent.
    tls: Option<Box<Tls>>,
}

impl Transport for Stream {
    fn dial(address: &Address, config: &Config) -> io::Result<(Self, bool)> {
        let (socket, to) = match address {
            Address::Tcp(to) => {
                let socket = nonblocking_socket(Domain::for_address(*to))?;
                apply_settings(&socket, config)?;
                (socket, SockAddr::from(*to))
            }
            Address::Unix(path) => (nonblocking_socket(Domain::UNIX)?, SockAddr::unix(path)?),
        };
        let is_done = match socket.connect(&to) {
            Ok(()) => true,
            // An interrupted attempt continues, too.
            Err(e) if e.raw_os_error() == Some(IN_PROGRESS) || e.kind() == io::ErrorKind::Interrupted => false,
            Err(e) => return Err(e),
        };
        Ok((Self { socket, opened: clock::now().into(), tls: None }, is_done))
    }

    fn check(&self) -> io::Result<bool> {
        // A socket with a peer has no error that a read would not return.
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
        match &mut self.tls {
            None => QuietSocket(&self.socket).read(space),
            Some(tls) => tls.read(QuietSocket(&self.socket), space),
        }
    }

    #[inline]
    fn short_read_means_drained(&self) -> bool {
        self.tls.as_deref().is_none_or(Tls::is_drained)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => QuietSocket(&self.socket).write(bytes),
            Some(tls) => tls.write(QuietSocket(&self.socket), bytes),
        }
    }

    fn encrypt(&mut self, encryption: Encryption) -> Result<(), TlsError> {
        self.tls = Some(Box::new(Tls::begin(encryption)?));
        Ok(())
    }

    fn handshake(&mut self) -> Result<bool, TlsError> {
        match &mut self.tls {
            None => Ok(true),
            Some(tls) => tls.handshake(QuietSocket(&self.socket)),
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
            tls.send_close_notify(QuietSocket(&self.socket));
        }
    }

    fn shut_down(&self) {
        // This fails only if the peer has closed the connection.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl Stream {
    /// Returns the version of TLS and the cipher suite, for display; `None` if the stream is not encrypted.
    pub(crate) fn tls_description(&self) -> Option<String> {
        self.tls.as_deref().map(Tls::description)
    }

    /// Returns the time after which the system detects that an idle connection was lost. `None` for a Unix socket,
    /// which cannot be lost.
    ///
    /// The settings are read from the socket, so that they include the system's defaults.
    pub(crate) fn keepalive(&self) -> Option<Keepalive> {
        let peer = self.socket.peer_addr().ok()?.as_socket()?;
        let probes = || -> io::Result<Option<Duration>> {
            if !self.socket.keepalive()? {
                return Ok(None);
            }
            let idle = self.socket.tcp_keepalive_time()?;
            let interval = self.socket.tcp_keepalive_interval()?;
            // Linux ends the connection at the first probe after the user timeout, regardless of the count.
            #[cfg(target_os = "linux")]
            if let Some(limit) = self.socket.tcp_user_timeout()?.filter(|limit| !limit.is_zero()) {
                return Ok(Some(limit.max(idle + interval)));
            }
            Ok(Some(idle + interval * self.socket.tcp_keepalive_retries()?))
        };
        Some(Keepalive { detected_after: probes().ok()?, is_local: peer.ip().is_loopback() })
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A socket without signals: an interrupted call is repeated, and a write returns an error if the peer has closed the
/// connection.
struct QuietSocket<'s>(&'s Socket);

impl Read for QuietSocket<'_> {
    #[inline]
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let mut socket = self.0;
        uninterrupted(|| socket.read(space))
    }
}

impl Write for QuietSocket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.send_with_flags(bytes, NO_SIGNAL))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Repeats a system call until a signal has not interrupted it.
#[inline]
fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// MSG_NOSIGNAL: otherwise SIGPIPE may terminate the program. On Apple's systems, `socket2` sets the equivalent for the
/// socket.
const NO_SIGNAL: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 0x4000 } else { 0 };

/// EINPROGRESS, for which the standard library has no stable name.
const IN_PROGRESS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 115 } else { 36 };

/// Creates a socket that is non-blocking from the beginning, if the system supports that.
fn nonblocking_socket(domain: Domain) -> io::Result<Socket> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return Socket::new(domain, Type::STREAM.nonblocking(), None);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Applies the settings of libpq with the same names. Values that are not set are the system's.
fn apply_settings(socket: &Socket, config: &Config) -> io::Result<()> {
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
        // This also enables keepalives.
        socket.set_tcp_keepalive(&keepalive)?;
    }
    #[cfg(target_os = "linux")]
    if let Some(timeout) = config.get_tcp_user_timeout() {
        socket.set_tcp_user_timeout(Some(timeout))?;
    }
    Ok(())
}
