//! TLS errors.

use std::io;

use super::Escaped;

/// An error that prevented or ended the encryption of a connection.
///
/// If the handshake failed, no secret has been sent: authentication only begins after it.
///
/// ```
/// use notifyman::{Connection, Error, TlsErrorKind};
///
/// fn needs_attention(error: &Error) -> bool {
///     error.tls().is_some_and(|tls| tls.kind() != TlsErrorKind::Expired)
/// }
/// # assert!(!needs_attention(&Error::Closed));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("TLS: {}", Escaped(.message))]
pub struct TlsError {
    pub(crate) kind: TlsErrorKind,
    /// The reason and the remedy.
    pub(crate) message: Box<str>,
}

/// The category of a [`TlsError`].
///
/// ```
/// use notifyman::{Config, Connection, SslMode, TlsErrorKind};
///
/// // No server listens on this port, so the error is not about TLS.
/// let unreachable =
///     Config::new().host("127.0.0.1").port(1).sslmode(SslMode::Prefer);
/// let error = Connection::connect(unreachable).unwrap_err();
/// assert_ne!(error.tls().map(|tls| tls.kind()), Some(TlsErrorKind::NotOffered));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsErrorKind {
    /// The server does not support TLS, or with `sslnegotiation=direct` it does not select the protocol `postgresql`.
    NotOffered,
    /// The server's certificate has expired or is not valid yet.
    Expired,
    /// The server's certificate is not signed by a trusted certificate authority.
    UnknownAuthority,
    /// The server's certificate is for another host.
    WrongName,
    /// The server's certificate has been revoked, or a required revocation list is missing or has expired.
    Revoked,
    /// The server's certificate is invalid for another reason.
    BadCertificate,
    /// A file of the client is missing or invalid: root certificates, client certificate, private key or revocation list.
    File,
    /// Client and server have no TLS version or cipher suite in common.
    NoCommonVersion,
    /// The server rejected the client: usually it requires a client certificate, or does not accept the one it received.
    RefusedByServer,
    /// The server closed the connection during the handshake, or sent an error message instead of a handshake message.
    Interrupted,
    /// The handshake failed for another reason, or a later record was damaged.
    Handshake,
}

impl TlsError {
    pub(crate) fn new(kind: TlsErrorKind, message: impl Into<Box<str>>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Returns the category.
    pub fn kind(&self) -> TlsErrorKind {
        self.kind
    }

    /// Returns `true` if a later attempt may succeed without a change on the client's side, because the server's
    /// operator renews an expired certificate, or because the server is available again.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self.kind, TlsErrorKind::Expired | TlsErrorKind::Interrupted)
    }
}

/// Wraps the error for the read and write functions of a stream, which return [`io::Error`].
impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}
