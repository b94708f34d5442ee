//! A CancelRequest, which asks a server to cancel the running query of a session: sixteen bytes on a separate
//! connection. The server sends no answer; only the session shows whether the request had an effect.
//!
//! ```text
//!   connecting ──▶ agreeing on TLS, if the session is encrypted ──▶ sent ──the server closes──▶ over
//! ```
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS>

use std::io::ErrorKind::WouldBlock;
use std::time::Instant;

use bytes::BytesMut;

use crate::clock;
use crate::config::Config;
use crate::connection::securing::{Manner, Securing};
use crate::connection::waiter::Waiter;
use crate::net::{Address, Encryption, Stream};

/// A CancelRequest that is being sent.
#[derive(Debug)]
pub(crate) struct Cancel {
    phase: CancelPhase,
    request: BytesMut,
    like: Option<Encryption>,
    until: Option<Instant>,
}

#[derive(Debug)]
enum CancelPhase {
    Connecting(Stream),
    Securing(Box<Securing>),
    Sent(Stream),
    Over,
}

/// The progress of a CancelRequest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CancelProgress {
    /// Call `step` again when the stream is ready.
    Wait,
    /// The request has ended, and can cancel nothing any more.
    Over,
    /// The deadline has passed. The request was sent, and may still cancel whatever the session does next.
    Late,
}

impl Cancel {
    /// Begins to connect, to send the request until the deadline; returns `None` if that fails immediately.
    ///
    /// The request is encrypted if the session is, because its key allows cancelling any query of the session.
    pub(super) fn begin(
        peer: &Address,
        config: &Config,
        like: Option<&Encryption>,
        request: BytesMut,
        until: Option<Instant>,
    ) -> Option<Self> {
        let (stream, _) = Stream::dial(peer, config).ok()?;
        Some(Self { phase: CancelPhase::Connecting(stream), request, like: like.cloned(), until })
    }

    /// Returns the stream, which must be watched for reading and writing.
    pub(crate) fn stream(&self) -> Option<&Stream> {
        match &self.phase {
            CancelPhase::Connecting(stream) | CancelPhase::Sent(stream) => Some(stream),
            CancelPhase::Securing(securing) => Some(securing.stream()),
            CancelPhase::Over => None,
        }
    }

    /// Returns the deadline, at which `step` must be called.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Continues until it would block.
    pub(crate) fn step(&mut self, now: Instant) -> CancelProgress {
        let is_late = self.until.is_some_and(|until| until <= now);
        loop {
            self.phase = match std::mem::replace(&mut self.phase, CancelPhase::Over) {
                CancelPhase::Connecting(stream) => match (stream.check(), self.like.take()) {
                    (Ok(true), None) => self.send(stream),
                    (Ok(true), Some(encryption)) => {
                        CancelPhase::Securing(Box::new(Securing::begin(stream, Manner::Like(encryption))))
                    }
                    (Ok(false), like) if !is_late => {
                        (self.phase, self.like) = (CancelPhase::Connecting(stream), like);
                        return CancelProgress::Wait;
                    }
                    (Ok(false) | Err(_), _) => CancelPhase::Over,
                },
                CancelPhase::Securing(mut securing) => match securing.step() {
                    Ok(Some(true)) => self.send(securing.into_stream()),
                    Ok(None) if !is_late => {
                        self.phase = CancelPhase::Securing(securing);
                        return CancelProgress::Wait;
                    }
                    Ok(_) | Err(_) => CancelPhase::Over,
                },
                // The server closes once it has received the request; a proxy might drop it if the client closed first.
                CancelPhase::Sent(mut stream) => match stream.read(&mut [0; 1]) {
                    Err(e) if e.kind() == WouldBlock && is_late => return CancelProgress::Late,
                    Err(e) if e.kind() == WouldBlock => {
                        self.phase = CancelPhase::Sent(stream);
                        return CancelProgress::Wait;
                    }
                    Ok(_) | Err(_) => CancelPhase::Over,
                },
                CancelPhase::Over => return CancelProgress::Over,
            };
        }
    }

    fn send(&self, mut stream: Stream) -> CancelPhase {
        // Sixteen bytes fit into the buffer of any new socket.
        match stream.write(&self.request) {
            Ok(_) => CancelPhase::Sent(stream),
            Err(_) => CancelPhase::Over,
        }
    }

    /// Continues to the end, or to the deadline. Returns `true` if the request can cancel nothing any more.
    pub(super) fn finish(mut self) -> bool {
        let mut waiter = self.stream().map(Waiter::on);
        loop {
            match self.step(clock::now()) {
                CancelProgress::Over => return true,
                CancelProgress::Late => return false,
                CancelProgress::Wait => {}
            }
            if let Some(waiter) = &mut waiter {
                waiter.wait_until(self.until);
            }
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
        let request = BytesMut::zeroed(16);
        let cancel = Cancel::begin(&Address::Tcp(nobody), &Config::new(), None, request, Some(begun + patience));
        assert!(cancel.is_none_or(Cancel::finish));
        assert!(clock::now() - begun < patience / 2);
    }
}
