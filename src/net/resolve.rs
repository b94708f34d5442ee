//! Resolves names without blocking the caller: `getaddrinfo` has no time limit.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::net::offload::{OffloadJob, OffloadQueue, ThreadLimit};
use crate::net::reactor::PollWaker;

/// The addresses, or the error of the system's resolver.
type Resolved = Result<Vec<SocketAddr>, String>;

static QUEUE: OffloadQueue<String, Resolved> = OffloadQueue::new(
    "notifyman-resolve",
    ThreadLimit::any(),
    |name| (name.as_str(), 0).to_socket_addrs().map(Iterator::collect).map_err(|error| error.to_string()),
    |error| Err(format!("could not start a thread: {error}")),
);

/// A name resolution in progress. Dropping it cancels it.
#[derive(Debug)]
pub(crate) struct NameResolution {
    job: OffloadJob<Resolved>,
    port: u16,
}

impl NameResolution {
    /// Starts to resolve a host. The waker, if there is one, is called when the addresses are known.
    pub(crate) fn start(host: &str, port: u16, waker: Option<PollWaker>) -> Self {
        Self { job: QUEUE.ask(host.to_owned(), waker), port }
    }

    /// Returns the addresses, or `None` while they are not known.
    pub(crate) fn poll(&self) -> Option<Resolved> {
        let mut found = self.job.poll()?;
        for address in found.iter_mut().flatten() {
            address.set_port(self.port);
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numeric_address_is_resolved_as_itself() {
        let lookup = NameResolution::start("127.0.0.1", 5432, None);
        let found = std::iter::repeat_with(|| lookup.poll()).flatten().next().unwrap().unwrap();
        assert_eq!(found, [SocketAddr::from(([127, 0, 0, 1], 5432))]);
    }
}
