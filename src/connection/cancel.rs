//! Telling a server to cancel what a session is doing: a connection of its own, sixteen bytes, and no answer.
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS>

use std::time::Instant;

use crate::clock;
use crate::config::Config;
use crate::connection::securing::{Manner, Securing};
use crate::connection::waiter::Waiter;
use crate::net::{Address, Encryption, Stream};

/// Sends the request, if that can be done until the deadline. Whether it helped shows in the session.
///
/// It is encrypted where the session is: who can read it can cancel whatever the session does, as often as they like.
///
/// Says whether it is over with. A request that was sent, and not taken yet, may still cancel whatever the session
/// does next.
pub(super) fn send(
    peer: &Address,
    config: &Config,
    like: Option<&Encryption>,
    request: &[u8],
    deadline: Option<Instant>,
) -> bool {
    let Ok((mut stream, _)) = Stream::dial(peer, config) else { return true };
    let mut waiter = Waiter::on(&stream);
    let is_late = || deadline.is_some_and(|deadline| deadline <= clock::now());
    // Each time looked at once: a socket tells only once why nobody has taken it.
    loop {
        match stream.check() {
            Ok(true) => break,
            Ok(false) if !is_late() => waiter.wait_until(deadline),
            Ok(false) | Err(_) => return true,
        }
    }
    if let Some(encryption) = like {
        match secured(Securing::begin(stream, Manner::Like(encryption.clone())), &mut waiter, deadline) {
            Some(encrypted) => stream = encrypted,
            None => return true,
        }
    }
    // Sixteen bytes fit into any fresh socket.
    if stream.write(request).is_err() {
        return true;
    }
    // The server closes once it has taken the request; a proxy might drop it if we closed first.
    while let Err(error) = stream.read(&mut [0; 1]) {
        if error.kind() != std::io::ErrorKind::WouldBlock {
            return true;
        }
        if is_late() {
            return false;
        }
        waiter.wait_until(deadline);
    }
    true
}

/// Shakes hands, until the deadline.
fn secured(mut securing: Securing, waiter: &mut Waiter, deadline: Option<Instant>) -> Option<Stream> {
    loop {
        match securing.step() {
            Ok(Some(true)) => return Some(securing.into_stream()),
            Ok(None) if deadline.is_none_or(|deadline| clock::now() < deadline) => waiter.wait_until(deadline),
            Ok(_) | Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Duration;

    use super::*;

    #[test]
    fn c11_where_nobody_takes_the_request_it_is_over_at_once() {
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let begun = clock::now();
        let patience = Duration::from_secs(10);
        assert!(send(&Address::Tcp(nobody), &Config::new(), None, &[0; 16], Some(begun + patience)));
        assert!(clock::now() - begun < patience / 2);
    }
}
