//! Encrypts a connected stream without blocking: SSLRequest, then the TLS handshake.
//!
//! ```text
//!   SSLRequest ──yes──▶ handshake ──▶ encrypted         direct TLS begins with the handshake
//!     ├──no──▶ unencrypted
//!     └──an error, or too many bytes──▶ failed
//! ```

use std::io::ErrorKind::WouldBlock;

use crate::config::{SslMode, TLS_BUILT_IN};
use crate::connection::transcript::MessageLog;
use crate::error::{Error, TlsError, TlsErrorKind};
use crate::net::{EncryptionJob, Transport};
use crate::proto::{Direction, SslRequest, SslResponse};

/// The size of a read of the response to the SSLRequest.
const RESPONSE_READ: usize = 512;

/// The encryption of a session's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encrypted {
    No,
    Yes,
}

/// Returns the encryption to try first, and the one to try if that fails or is refused.
pub(super) fn encryption_order(mode: SslMode) -> (Encrypted, Option<Encrypted>) {
    match mode {
        _ if !TLS_BUILT_IN => (Encrypted::No, None),
        SslMode::Disable => (Encrypted::No, None),
        SslMode::Allow => (Encrypted::No, Some(Encrypted::Yes)),
        SslMode::Prefer => (Encrypted::Yes, Some(Encrypted::No)),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Encrypted::Yes, None),
    }
}

/// Returns `true` if a session that ended with this error may succeed with the other encryption.
pub(super) fn may_depend_on_encryption(error: &Error) -> bool {
    match error {
        Error::Tls(_) => true,
        // A wrong password, an unknown database, and a server that is full or starting up give the same error either way.
        Error::Server(e) => !matches!(e.code().get(..2), None | Some("3D" | "53" | "57")) && e.code() != "28P01",
        _ => false,
    }
}

/// A stream that is being encrypted.
#[derive(Debug)]
pub(super) struct TlsUpgrade<S> {
    pub(super) stream: S,
    source: EncryptionJob,
    /// The SSLRequest, until the server has responded.
    request: Option<SslRequest>,
    /// `true` once the TLS handshake has begun.
    handshake_begun: bool,
    log: MessageLog,
}

impl<S: Transport> TlsUpgrade<S> {
    /// Begins the upgrade of a stream that is connected, and on which nothing has been sent.
    pub(super) fn begin(stream: S, source: EncryptionJob, log: MessageLog) -> Self {
        let request = (!source.is_direct()).then(SslRequest::new);
        Self { stream, source, request, handshake_begun: false, log }
    }

    /// Returns `true` if the server is ready for the handshake, but its files are still being read.
    pub(super) fn is_reading(&self) -> bool {
        self.request.is_none() && !self.handshake_begun
    }

    /// Returns `true` if the server has responded to the SSLRequest; always `false` for direct TLS.
    pub(super) fn has_received_anything(&self) -> bool {
        self.request.is_none() && !self.source.is_direct()
    }

    /// Continues as far as possible. Returns `true` once the stream is encrypted, `false` if the server has no TLS, and
    /// `None` while the upgrade needs more data from the server.
    pub(super) fn advance(&mut self) -> Result<Option<bool>, Error> {
        if let Some(request) = &mut self.request {
            match send_request(&mut self.stream, request, &self.log)? {
                None => return Ok(None),
                Some(SslResponse::No) => return Ok(Some(false)),
                Some(SslResponse::Error(error)) => return Err(unauthenticated(error.message()).into()),
                Some(SslResponse::Yes) => self.request = None,
            }
        }
        if !self.handshake_begun {
            let Some(encryption) = self.source.poll().transpose()? else { return Ok(None) };
            self.stream.encrypt(encryption)?;
            self.handshake_begun = true;
        }
        Ok(self.stream.handshake()?.then_some(true))
    }
}

/// Returns the error for a server that responds with an error message, which is not authenticated: kept short, and on one
/// line.
fn unauthenticated(message: &str) -> TlsError {
    const MESSAGE_MAX: usize = 200;
    let message: String = message.chars().take(MESSAGE_MAX).collect();
    let text = format!("the server responded to the request for TLS with an unauthenticated error: {message:?}");
    TlsError::new(TlsErrorKind::Interrupted, text)
}

/// Returns the error for a server without TLS.
pub(super) fn not_offered() -> Error {
    let message = "the server has no TLS: turn on its setting ssl, or use sslmode=prefer if the network is trusted";
    TlsError::new(TlsErrorKind::NotOffered, message).into()
}

/// Continues the SSLRequest.
fn send_request<S: Transport>(
    stream: &mut S,
    request: &mut SslRequest,
    log: &MessageLog,
) -> Result<Option<SslResponse>, Error> {
    const ACTION: &str = "requesting TLS";
    while !request.poll_transmit().is_empty() {
        match stream.write(request.poll_transmit()) {
            Ok(sent) => {
                request.handle_transmitted(sent);
                if request.poll_transmit().is_empty() {
                    log.record(Direction::Frontend, "SSLRequest", 8);
                }
            }
            Err(e) if e.kind() == WouldBlock => return Ok(None),
            Err(e) => return Err(Error::io(ACTION, e)),
        }
    }
    let mut space = [0; RESPONSE_READ];
    loop {
        match stream.read(&mut space) {
            Ok(0) => return request.handle_eof().map(Some).ok_or(Error::Disconnected),
            Ok(read) => {
                if let Some(response) = request.handle_input(space.get(..read).unwrap_or_default())? {
                    log.record(Direction::Backend, "SSLResponse", 1);
                    return Ok(Some(response));
                }
            }
            Err(e) if e.kind() == WouldBlock => return Ok(None),
            Err(e) => return Err(Error::io(ACTION, e)),
        }
    }
}
