//! Sockets, readiness and names: everything that the operating system does for a connection.
//!
//! It knows nothing of the protocol. The protocol knows nothing of it.

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
pub(crate) use stream::{Address, Keepalive, Stream};
pub(crate) use tls::{Encryption, EncryptionJob};
pub(crate) use transport::Transport;
