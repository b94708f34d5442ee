//! Streams and a poll of the simulated network, in place of sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::network::with_network;
use crate::config::Config;
use crate::connection::{Link, Linked, Transport};
use crate::error::{Error, TlsError};
use crate::manager::command::ControlMessage;
use crate::manager::event_loop::LoopPoll;
use crate::manager::fleet::Poller;
use crate::manager::handle::Shared;
use crate::net::{Address, Encryption};
use crate::ticket::Resolver;

/// The address of every peer. Only CancelRequests are sent there; other dials use the configured address.
const PEER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A connection of the fleet on a simulated stream.
pub(super) type SimConnection = Link<SimStream>;

impl<S: Transport> Linked for Link<S> {
    type Stream = S;

    fn link(&self) -> &Self {
        self
    }

    fn link_mut(&mut self) -> &mut Self {
        self
    }
}

/// The client's end of a simulated link, by the number of the link.
#[derive(Debug)]
pub(super) struct SimStream(pub(super) u64);

impl Transport for SimStream {
    fn dial(address: &Address, _: &Config) -> io::Result<(Self, bool)> {
        let Address::Tcp(address) = address else { panic!("the network is TCP") };
        let is_cancel = address.ip() == IpAddr::V4(PEER);
        with_network(|network| network.dial(address.port(), is_cancel))
            .map(|(link, is_connected)| (Self(link), is_connected))
    }

    fn check(&self) -> io::Result<bool> {
        with_network(|network| network.check(self.0))
    }

    fn opened(&self) -> Instant {
        with_network(|network| network.opened(self.0))
    }

    fn peer(&self) -> io::Result<Address> {
        Ok(Address::Tcp((PEER, with_network(|network| network.port(self.0))).into()))
    }

    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        with_network(|network| network.read(self.0, space))
    }

    fn short_read_means_drained(&self) -> bool {
        with_network(|network| network.is_drained(self.0))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        with_network(|network| network.write(self.0, bytes))
    }

    fn encrypt(&mut self, _: Encryption) -> Result<(), TlsError> {
        panic!("sslmode is disable")
    }

    fn handshake(&mut self) -> Result<bool, TlsError> {
        panic!("sslmode is disable")
    }

    fn encryption(&self) -> Option<&Encryption> {
        None
    }

    fn end_point(&self) -> Option<Vec<u8>> {
        None
    }

    fn send_close_notify(&mut self) {}

    fn shut_down(&self) {
        with_network(|network| network.shut_down(self.0));
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        with_network(|network| network.close(self.0));
    }
}

/// A poll that reports each arrival once, as epoll does, and whose waits advance the simulated time.
#[derive(Default)]
pub(super) struct SimPoll {
    /// The destination of the stop that an interrupted wait sends.
    pub(super) shared: Option<Arc<Shared<SimConnection>>>,
    was_woken: bool,
}

impl Poller<SimStream> for SimPoll {
    fn register(&mut self, stream: &SimStream, token: u32, writable: bool) -> io::Result<()> {
        with_network(|network| network.watch(stream.0, token, writable, true))
    }

    fn reregister(&mut self, stream: &SimStream, token: u32, writable: bool) -> io::Result<()> {
        with_network(|network| network.watch(stream.0, token, writable, false))
    }

    fn deregister(&mut self, stream: &SimStream) {
        with_network(|network| network.unwatch(stream.0));
    }
}

impl LoopPoll<SimStream> for SimPoll {
    fn now(&self) -> Instant {
        with_network(|network| network.now)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<impl Iterator<Item = (u32, bool)>, Error> {
        let (ready, is_interrupted) = with_network(|network| network.wait(timeout))?;
        self.was_woken = false;
        if is_interrupted && let Some(shared) = &self.shared {
            shared.send(ControlMessage::Stop(Resolver::call(drop)));
            self.was_woken = true;
        }
        Ok(ready.into_iter())
    }

    fn was_woken(&self) -> bool {
        self.was_woken
    }
}
