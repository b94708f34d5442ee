//! From a socket that is connected to one that is encrypted, without ever blocking: ask, and shake hands.
//!
//! ```text
//!   Asking ──Yes──▶ Shaking ──▶ encrypted         direct: begins with Shaking
//!     ├──No──▶ in clear
//!     └──an error, bytes too many──▶ failed
//! ```

use std::io::ErrorKind::WouldBlock;

use crate::config::{SslMode, TLS_BUILT_IN};
use crate::error::{Error, TlsError, TlsErrorKind};
use crate::net::{Encryption, EncryptionJob, Stream};
use crate::proto::{SslRequest, SslResponse};

/// What a read of the answer takes at once.
const ANSWER_READ: usize = 512;

/// How a session is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Clear,
    Tls,
}

/// What is tried first, and what next where that fails or is refused.
pub(super) fn ways(mode: SslMode) -> (Way, Option<Way>) {
    match mode {
        _ if !TLS_BUILT_IN => (Way::Clear, None),
        SslMode::Disable => (Way::Clear, None),
        SslMode::Allow => (Way::Clear, Some(Way::Tls)),
        SslMode::Prefer => (Way::Tls, Some(Way::Clear)),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Way::Tls, None),
    }
}

/// Whether a session that ended so may fare better on the other way.
pub(super) fn may_depend_on_way(error: &Error) -> bool {
    match error {
        Error::Tls(_) => true,
        // Not a wrong password or an unknown database, nor a server that is full or starting up: it would say the same.
        Error::Server(e) => !matches!(e.code().get(..2), None | Some("3D" | "53" | "57")) && e.code() != "28P01",
        _ => false,
    }
}

/// How to encrypt.
#[derive(Debug)]
pub(super) enum Manner {
    /// According to the settings, whose files are being read.
    By(EncryptionJob),
    /// As another stream to the same server is.
    Like(Encryption),
}

impl Manner {
    fn is_direct(&self) -> bool {
        match self {
            Manner::By(job) => job.is_direct(),
            Manner::Like(encryption) => encryption.is_direct(),
        }
    }

    /// Returns `None` while the files are being read.
    fn encryption(&self) -> Result<Option<Encryption>, TlsError> {
        match self {
            Manner::By(job) => job.poll().transpose(),
            Manner::Like(encryption) => Ok(Some(encryption.clone())),
        }
    }
}

/// A stream on its way to be encrypted.
#[derive(Debug)]
pub(super) struct Securing {
    stream: Stream,
    manner: Manner,
    /// The question, until it is answered.
    asking: Option<SslRequest>,
    /// `true` once the TLS handshake has begun.
    handshake_begun: bool,
}

impl Securing {
    /// On a stream that is connected, and on which nothing has been said.
    pub(super) fn begin(stream: Stream, manner: Manner) -> Self {
        let asking = (!manner.is_direct()).then(SslRequest::new);
        Self { stream, manner, asking, handshake_begun: false }
    }

    /// Returns `true` if the server is ready for the handshake, but its files are still being read.
    pub(super) fn is_reading(&self) -> bool {
        self.asking.is_none() && !self.handshake_begun
    }

    /// The stream, as far as it has come.
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Returns `true` if the server has answered the SSLRequest; always `false` for direct TLS.
    pub(super) fn has_heard(&self) -> bool {
        self.asking.is_none() && !self.manner.is_direct()
    }

    /// The stream, to go on with.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Goes on as far as it can: `true` once it is encrypted, `false` if the server has no TLS, nothing while it needs
    /// more from the server.
    pub(super) fn step(&mut self) -> Result<Option<bool>, Error> {
        if let Some(asking) = &mut self.asking {
            match ask(&mut self.stream, asking)? {
                None => return Ok(None),
                Some(SslResponse::No) => return Ok(Some(false)),
                Some(SslResponse::Error(error)) => return Err(unvouched(error.message()).into()),
                Some(SslResponse::Yes) => self.asking = None,
            }
        }
        if !self.handshake_begun {
            let Some(encryption) = self.manner.encryption()? else { return Ok(None) };
            self.stream.encrypt(encryption)?;
            self.handshake_begun = true;
        }
        Ok(self.stream.handshake()?.then_some(true))
    }
}

/// What somebody said in clear instead of an answer: kept short, and on its line.
fn unvouched(said: &str) -> TlsError {
    const MOST: usize = 200;
    let said: String = said.chars().take(MOST).collect();
    let message = format!("the server answers the wish for TLS with an error, for which nobody vouches: {said:?}");
    TlsError::new(TlsErrorKind::Interrupted, message)
}

/// Goes on with the question.
fn ask(stream: &mut Stream, asking: &mut SslRequest) -> Result<Option<SslResponse>, Error> {
    while !asking.poll_transmit().is_empty() {
        match stream.write(asking.poll_transmit()) {
            Ok(sent) => asking.handle_transmitted(sent),
            Err(e) if e.kind() == WouldBlock => return Ok(None),
            Err(e) => return Err(Error::io("asking for TLS", e)),
        }
    }
    let mut space = [0; ANSWER_READ];
    loop {
        match stream.read(&mut space) {
            Ok(0) => return asking.handle_eof().map(Some).ok_or(Error::Disconnected),
            Ok(read) => {
                if let Some(answer) = asking.handle_input(space.get(..read).unwrap_or_default())? {
                    return Ok(Some(answer));
                }
            }
            Err(e) if e.kind() == WouldBlock => return Ok(None),
            Err(e) => return Err(Error::io("asking for TLS", e)),
        }
    }
}
