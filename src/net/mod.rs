//! Sockets, readiness and names: everything that the operating system does for a connection.
//!
//! It knows nothing of the protocol. The protocol knows nothing of it.

mod offload;
mod passfiles;
mod reactor;
mod resolve;
mod stream;
mod tls;

pub(crate) use offload::Job;
pub(crate) use passfiles::read_passfile;
pub(crate) use reactor::{Alarm, Reactor, Ready};
pub(crate) use resolve::Lookup;
pub(crate) use stream::{Address, Keepalive, Stream};
pub(crate) use tls::{Encryption, EncryptionJob};
