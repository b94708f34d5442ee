//! What can go wrong between a connection that stands and one that is encrypted.

use std::fmt;
use std::io;

use super::Escaped;

/// Why there is no TLS, or not with this server.
///
/// Nothing secret has been sent: the login only comes after.
///
/// ```
/// use notifyman::{Connection, Error, TlsErrorKind};
///
/// fn must_somebody_look(error: &Error) -> bool {
///     error.tls().is_some_and(|tls| tls.kind() != TlsErrorKind::Expired)
/// }
/// # assert!(!must_somebody_look(&Error::Closed));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError {
    pub(crate) kind: TlsErrorKind,
    /// What is wrong, and what to do.
    pub(crate) message: Box<str>,
}

/// What a [`TlsError`] is about.
///
/// ```
/// use notifyman::{Config, Connection, SslMode, TlsErrorKind};
///
/// // Nothing is sent but the question for TLS, and nobody is there to be asked.
/// let nowhere = Config::new().host("127.0.0.1").port(1).sslmode(SslMode::Prefer);
/// let error = Connection::connect(nowhere).unwrap_err();
/// assert_ne!(error.tls().map(|tls| tls.kind()), Some(TlsErrorKind::NotOffered));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsErrorKind {
    /// The server has no TLS, or what is dialled by `sslnegotiation=direct` doesn't say that it is PostgreSQL.
    NotOffered,
    /// The server's certificate has expired, or isn't valid yet.
    Expired,
    /// No authority that is trusted here has signed the server's certificate.
    UnknownAuthority,
    /// The server's certificate is for another host.
    WrongName,
    /// The server's certificate has been revoked, or the lists that would tell are missing or outdated.
    Revoked,
    /// The server's certificate can't be used for another reason.
    BadCertificate,
    /// A file of ours can't be used: the roots, our certificate, its key, a list of revoked ones.
    File,
    /// The two sides have no version or cipher of TLS in common.
    NoCommonVersion,
    /// The server refused us: most often it wants a certificate of ours, or doesn't accept the one it got.
    RefusedByServer,
    /// The server hung up in the middle of the handshake, or had an error to tell instead of an answer.
    Interrupted,
    /// Anything else that makes a handshake fail, or a record that was damaged later.
    Handshake,
}

impl TlsError {
    pub(crate) fn new(kind: TlsErrorKind, message: impl Into<Box<str>>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What it is about.
    pub fn kind(&self) -> TlsErrorKind {
        self.kind
    }

    /// Whether the other side can mend it, or something between, with nothing changed on ours: a certificate that
    /// has run out is renewed, and a server that hung up comes back.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self.kind, TlsErrorKind::Expired | TlsErrorKind::Interrupted)
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS: {}", Escaped(&self.message))
    }
}

impl std::error::Error for TlsError {}

/// For the reads and writes of an encrypted stream, whose errors are the system's.
impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}
