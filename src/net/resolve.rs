//! Resolves names without blocking the caller: `getaddrinfo` has no time limit.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::net::offload::{Job, Line};
use crate::net::reactor::Alarm;

/// What came of a look-up: addresses, or the system's reason.
type Found = Result<Vec<SocketAddr>, String>;

static LINE: Line<String, Found> = Line::new(
    "notifyman-resolve",
    |name| match (name.as_str(), 0).to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(error.to_string()),
    },
    |error| Err(format!("could not start a thread: {error}")),
);

/// A look-up under way; dropped, nobody looks any more.
#[derive(Debug)]
pub(crate) struct Lookup {
    job: Job<Found>,
    port: u16,
}

impl Lookup {
    /// Begins to look up every address of a host. The alarm, if there is one, rings when that is done.
    pub(crate) fn start(host: &str, port: u16, alarm: Option<Alarm>) -> Self {
        Self { job: LINE.ask(host.to_owned(), alarm), port }
    }

    /// The addresses, if they are known by now.
    pub(crate) fn poll(&self) -> Option<Found> {
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
    fn a_numeric_address_is_looked_up_as_itself() {
        let lookup = Lookup::start("127.0.0.1", 5432, None);
        let found = std::iter::repeat_with(|| lookup.poll()).flatten().next().unwrap().unwrap();
        assert_eq!(found, [SocketAddr::from(([127, 0, 0, 1], 5432))]);
    }
}
