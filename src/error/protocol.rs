//! Violations of the protocol by the peer.

use crate::error::escaped::Escaped;

/// A violation of the protocol by the peer. The client closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The length field is outside the range of this message type.
    #[error(
        "the peer sent a {message} of {length} bytes, but the range is {min} to {max}: \
         it is not a PostgreSQL server, or the stream is damaged"
    )]
    Length {
        /// The name of the message in PostgreSQL's documentation.
        message: &'static str,
        /// The value of the length field.
        length: i64,
        /// The smallest valid length.
        min: u32,
        /// The largest length that is accepted.
        max: u32,
    },
    /// The type byte is one that a server never sends to this client.
    #[error(
        "the peer sent a message of unknown type {0:#04x}: it is not a PostgreSQL server, or the stream is damaged"
    )]
    UnknownType(u8),
    /// The protocol does not allow this message in the current state.
    #[error("the peer sent {message} {when}, which violates the protocol")]
    Unexpected {
        /// The name of the message in PostgreSQL's documentation.
        message: &'static str,
        /// The current state.
        when: &'static str,
    },
    /// The body of a message does not match its type.
    #[error("the peer sent a malformed {message}: {reason}")]
    Malformed {
        /// The name of the message in PostgreSQL's documentation.
        message: &'static str,
        /// The mismatch.
        reason: &'static str,
    },
    /// The peer sent unencrypted bytes after it accepted TLS.
    #[error(
        "the peer sent unencrypted bytes after it accepted TLS: it is not a PostgreSQL server, or a machine in the \
         middle injected them"
    )]
    Injected,
    /// The server could not prove that it knows the password, or the exchange was tampered with.
    #[error("the SCRAM exchange failed: {}; another host may be impersonating the server", Escaped(.0))]
    Scram(Box<str>),
    /// The server changed `client_encoding`, on which quoting relies.
    #[error("the server changed client_encoding to {0:?}; only UTF8 is supported")]
    Encoding(Box<str>),
}
