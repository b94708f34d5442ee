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

use crate::config::Config;
use crate::connection::tls_upgrade::TlsUpgrade;
use crate::connection::transcript::MessageLog;
use crate::net::{Address, Encryption, EncryptionJob, Transport};
use crate::proto::Direction;

/// A CancelRequest that is being sent.
#[derive(Debug)]
pub(crate) struct Cancel<S> {
    phase: CancelPhase<S>,
    request: BytesMut,
    like: Option<Encryption>,
    /// The deadline, at which `advance` must be called.
    pub(crate) until: Option<Instant>,
    log: MessageLog,
}

#[derive(Debug)]
enum CancelPhase<S> {
    Connecting(S),
    Encrypting(Box<TlsUpgrade<S>>),
    Sent(S),
    Over,
}

/// The progress of a CancelRequest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CancelProgress {
    /// Call `advance` again when the stream is ready.
    Wait,
    /// The request has ended, and can cancel nothing any more.
    Over,
    /// The deadline has passed. The request was sent, and may still cancel whatever the session does next.
    Late,
}

impl<S: Transport> Cancel<S> {
    /// Begins to connect, to send the request until the deadline; returns `None` if that fails immediately.
    ///
    /// The request is encrypted if the session is, because its key allows cancelling any query of the session.
    pub(super) fn begin(
        peer: &Address,
        config: &Config,
        like: Option<&Encryption>,
        request: BytesMut,
        until: Option<Instant>,
        log: MessageLog,
    ) -> Option<Self> {
        let (stream, _) = S::dial(peer, config).ok()?;
        let (phase, like) = (CancelPhase::Connecting(stream), like.cloned());
        Some(Self { phase, request, like, until, log })
    }

    /// Returns the stream, which must be watched for reading and writing.
    pub(crate) fn stream(&self) -> Option<&S> {
        match &self.phase {
            CancelPhase::Connecting(stream) | CancelPhase::Sent(stream) => Some(stream),
            CancelPhase::Encrypting(upgrade) => Some(&upgrade.stream),
            CancelPhase::Over => None,
        }
    }

    /// Continues until it would block.
    pub(crate) fn advance(&mut self, now: Instant) -> CancelProgress {
        let is_late = self.until.is_some_and(|until| until <= now);
        loop {
            self.phase = match std::mem::replace(&mut self.phase, CancelPhase::Over) {
                CancelPhase::Connecting(stream) => match (stream.check(), self.like.take()) {
                    (Ok(true), None) => self.send(stream),
                    (Ok(true), Some(encryption)) => {
                        let source = EncryptionJob::Ready(encryption);
                        CancelPhase::Encrypting(Box::new(TlsUpgrade::begin(stream, source, self.log.clone())))
                    }
                    (Ok(false), like) if !is_late => {
                        (self.phase, self.like) = (CancelPhase::Connecting(stream), like);
                        return CancelProgress::Wait;
                    }
                    (Ok(false) | Err(_), _) => CancelPhase::Over,
                },
                CancelPhase::Encrypting(mut upgrade) => match upgrade.advance() {
                    Ok(Some(true)) => self.send(upgrade.stream),
                    Ok(None) if !is_late => {
                        self.phase = CancelPhase::Encrypting(upgrade);
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

    fn send(&self, mut stream: S) -> CancelPhase<S> {
        // Sixteen bytes fit into the buffer of any new socket.
        match stream.write(&self.request) {
            Ok(sent) => {
                self.log.record(Direction::Frontend, "CancelRequest", sent);
                CancelPhase::Sent(stream)
            }
            Err(_) => CancelPhase::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Duration;

    use super::*;
    use crate::connection::blocking::finish_cancel;
    use crate::connection::transcript::TraceLabel;
    use crate::net::Stream;

    #[test]
    fn c11_a_refused_cancel_request_is_over_immediately() {
        let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let begun = Instant::now();
        let limit = Duration::from_secs(10);
        let request = BytesMut::zeroed(16);
        let (peer, until, config) = (Address::Tcp(unused), Some(begun + limit), Config::new());
        let log = MessageLog::new(&config, TraceLabel::default());
        let cancel = Cancel::<Stream>::begin(&peer, &config, None, request, until, log);
        assert!(cancel.is_none_or(finish_cancel));
        assert!(begun.elapsed() < limit / 2);
    }
}
