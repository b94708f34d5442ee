//! Sockets, readiness, name resolution and TLS: the I/O of a connection.
//!
//! This module does not depend on the protocol, and the protocol does not depend on it.

mod offload;
mod passfile;
mod reactor;
mod resolve;
mod stream;
mod tls;
mod transport;

pub(crate) use offload::OffloadJob;
pub(crate) use passfile::read_passfile;
pub(crate) use reactor::{PollWaker, Reactor, Ready};
pub(crate) use resolve::NameResolution;
pub(crate) use stream::{Keepalive, Stream};
pub(crate) use tls::{Encryption, EncryptionJob};
pub(crate) use transport::{Address, Transport};
