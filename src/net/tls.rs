//! Where TLS plugs in: a filter between the socket and whoever reads and writes.
//!
//! The filter is lent the socket for each call, so neither the loop nor the registration knows that it is there. This
//! version has none, and says so in the type: there is no value of it.

use std::io::{self, Read, Write};

/// The TLS session on a socket.
#[derive(Debug)]
pub(crate) enum Tls {}

impl Tls {
    /// Reads plaintext. A socket without bytes to read may still have plaintext here, so whoever reads goes on until
    /// this would block.
    pub(crate) fn read(&mut self, _socket: impl Read + Write, _space: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    /// Writes plaintext.
    pub(crate) fn write(&mut self, _socket: impl Read + Write, _bytes: &[u8]) -> io::Result<usize> {
        match *self {}
    }
}
