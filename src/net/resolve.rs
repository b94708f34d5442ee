//! Looks names up without making anybody wait: `getaddrinfo` has no time limit, so it gets a thread of its own.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use crate::net::reactor::Alarm;

/// A look-up under way.
#[derive(Debug)]
pub(crate) struct Lookup(Receiver<io::Result<Vec<SocketAddr>>>);

impl Lookup {
    /// Begins to look up every address of a host. The alarm, if there is one, rings when that is done.
    pub(crate) fn start(host: &str, port: u16, alarm: Option<Alarm>) -> Self {
        let (sender, receiver) = channel();
        let host = host.to_owned();
        let on_thread = sender.clone();
        let spawned = std::thread::Builder::new().name("notifyman-resolve".into()).spawn(move || {
            let result = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            // Nobody may be waiting any more.
            let _ = on_thread.send(result);
            if let Some(alarm) = alarm {
                alarm.ring();
            }
        });
        if let Err(error) = spawned {
            let _ = sender.send(Err(error));
        }
        Self(receiver)
    }

    /// The addresses, if they are known by now.
    pub(crate) fn poll(&self) -> Option<io::Result<Vec<SocketAddr>>> {
        match self.0.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(died())),
        }
    }
}

fn died() -> io::Error {
    io::Error::other("the thread that looked the name up has died")
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

    #[test]
    fn a_look_up_never_makes_anybody_wait() {
        let lookup = Lookup(channel().1);
        assert!(lookup.poll().unwrap().is_err(), "a dead thread is an error, not a wait");
        let (_sender, receiver) = channel();
        assert!(Lookup(receiver).poll().is_none());
    }
}
