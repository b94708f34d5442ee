//! The replacement of TLS if the feature is disabled: types without values.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use crate::config::Config;
use crate::error::{TlsError, TlsErrorKind};
use crate::net::reactor::PollWaker;

/// The encryption of streams to a server.
#[derive(Debug, Clone)]
pub(crate) enum Encryption {}

/// A job that always fails, because the program was built without TLS.
#[derive(Debug)]
pub(crate) enum EncryptionJob {
    Ready(Encryption),
    Missing,
}

impl EncryptionJob {
    pub(crate) fn start(
        _config: &Config,
        _host: Option<String>,
        _ip: Option<IpAddr>,
        _alarm: Option<PollWaker>,
    ) -> Self {
        Self::Missing
    }

    pub(crate) fn is_direct(&self) -> bool {
        false
    }

    /// # Errors
    /// Always returns an error. Settings that require TLS are rejected before.
    pub(crate) fn poll(&self) -> Option<Result<Encryption, TlsError>> {
        let message = "TLS is not built into this program: enable the feature `tls` of notifyman";
        Some(Err(TlsError::new(TlsErrorKind::Handshake, message)))
    }
}

/// The TLS session of a socket.
#[derive(Debug)]
pub(crate) enum Tls {}

impl Tls {
    pub(crate) fn begin(encryption: Encryption) -> Result<Self, TlsError> {
        match encryption {}
    }

    pub(crate) fn handshake(&mut self, _socket: impl Read + Write) -> Result<bool, TlsError> {
        match *self {}
    }

    pub(crate) fn read(&mut self, _socket: impl Read + Write, _space: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn is_drained(&self) -> bool {
        match *self {}
    }

    pub(crate) fn write(&mut self, _socket: impl Read + Write, _bytes: &[u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn send_close_notify(&mut self, _socket: impl Read + Write) {
        match *self {}
    }

    pub(crate) fn encryption(&self) -> &Encryption {
        match *self {}
    }

    pub(crate) fn end_point(&self) -> Option<Vec<u8>> {
        match *self {}
    }

    pub(crate) fn description(&self) -> String {
        match *self {}
    }
}
