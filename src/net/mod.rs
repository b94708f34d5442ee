//! Sockets, readiness, name resolution and TLS: the I/O of a connection.
//!
//! This module does not depend on the protocol, and the protocol does not depend on it.

#[cfg(not(feature = "tls"))]
mod no_tls;
mod offload;
mod passfile;
mod password;
mod reactor;
mod resolve;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod transport;

#[cfg(not(feature = "tls"))]
use no_tls as tls;
pub(crate) use offload::OffloadJob;
pub(crate) use passfile::read_passfile;
pub(crate) use password::request_password;
pub(crate) use reactor::{PollWaker, Reactor, Ready};
pub(crate) use resolve::NameResolution;
pub(crate) use stream::{Keepalive, Stream};
#[cfg(feature = "relay")]
pub(crate) use tls::BlockingTls;
pub(crate) use tls::{Encryption, EncryptionJob};
pub(crate) use transport::{Address, Transport};
