//! The byte stream under a session, as the layers above use it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use crate::config::Config;
use crate::error::TlsError;
use crate::net::tls::Encryption;

/// A resolved address to connect to.
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

/// A byte stream to a server that never blocks: a socket, or in tests a simulated link.
pub(crate) trait Transport: fmt::Debug + Sized {
    /// Begins to connect. Returns `true` if the stream is connected already; otherwise it becomes writable when the attempt
    /// is over, and [`check`](Self::check) returns the result.
    ///
    /// # Errors
    ///
    /// `WouldBlock` for a Unix socket whose server cannot accept another client now: try again later.
    fn dial(address: &Address, config: &Config) -> io::Result<(Self, bool)>;

    /// Returns `true` if the stream is connected, and `false` while it is being connected.
    fn check(&self) -> io::Result<bool>;

    /// Returns the time at which the stream was dialled, or a moment before it.
    fn opened(&self) -> Instant;

    /// Returns the address of the peer.
    fn peer(&self) -> io::Result<Address>;

    /// Reads the available bytes; 0 means that the peer will send no more.
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize>;

    /// Returns `true` if a read that filled less than the space has left nothing to read.
    fn short_read_means_drained(&self) -> bool;

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Begins TLS: from now on, all data is encrypted. The next step is the [handshake](Self::handshake).
    fn encrypt(&mut self, encryption: Encryption) -> Result<(), TlsError>;

    /// Continues the TLS handshake; returns `false` while it needs more data from the server.
    fn handshake(&mut self) -> Result<bool, TlsError>;

    /// Returns the encryption of the stream; `None` if it is not encrypted.
    fn encryption(&self) -> Option<&Encryption>;

    /// Returns the data for channel binding; `None` if the stream is not encrypted, or if the server's certificate has none.
    fn end_point(&self) -> Option<Vec<u8>>;

    /// Sends a close_notify, if the stream is encrypted.
    fn send_close_notify(&mut self);

    /// Ends the stream in both directions immediately.
    fn shut_down(&self);
}
