//! The SSLRequest, which asks whether the server supports TLS before anything else is sent.
//!
//! The answer is not encrypted, so it cannot be trusted. It is checked to the byte: a server that has accepted TLS
//! sends nothing else unencrypted, so anything that follows was injected.
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>

use bytes::{Buf as _, BytesMut};
use postgres_protocol::message::frontend;

use crate::error::{ProtocolError, ServerError};
use crate::proto::frame::{self, HEADER, Next};
use crate::proto::{message, plain_error};

/// The largest error in answer that is read; a real one is a line.
const ERROR_MAX: usize = 4096;

/// The server's answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SslResponse {
    /// The server supports TLS, and the handshake begins.
    Yes,
    /// The server does not support TLS. The session may continue without encryption.
    No,
    /// The server reports an error, which may be forged.
    Error(ServerError),
}

/// The request, and the received part of the answer.
#[derive(Debug)]
pub(crate) struct SslRequest {
    transmit: BytesMut,
    answer: Vec<u8>,
}

impl SslRequest {
    pub(crate) fn new() -> Self {
        let mut transmit = BytesMut::new();
        frontend::ssl_request(&mut transmit);
        Self { transmit, answer: Vec::new() }
    }

    /// Returns the bytes to send.
    pub(crate) fn poll_transmit(&self) -> &[u8] {
        &self.transmit
    }

    /// Removes the first `sent` bytes, which were sent.
    pub(crate) fn handle_transmitted(&mut self, sent: usize) {
        self.transmit.advance(sent.min(self.transmit.len()));
    }

    /// Handles received bytes. Returns `None` while the answer is incomplete.
    pub(crate) fn handle_input(&mut self, bytes: &[u8]) -> Result<Option<SslResponse>, ProtocolError> {
        self.answer.extend_from_slice(bytes);
        match self.answer.as_slice() {
            [] => Ok(None),
            [b'S'] => Ok(Some(SslResponse::Yes)),
            [b'S', ..] => Err(ProtocolError::Injected),
            [b'N'] => Ok(Some(SslResponse::No)),
            [b'N', ..] => Err(ProtocolError::Unexpected { message: "more bytes", when: "after it rejected TLS" }),
            [b'E', ..] => self.error(),
            [other, ..] => Err(ProtocolError::UnknownType(*other)),
        }
    }

    /// Returns the answer at the end of the stream: a truncated error, if there is one.
    pub(crate) fn handle_eof(&self) -> Option<SslResponse> {
        let (b'E', rest) = self.answer.split_first()? else { return None };
        let error = match rest.get(HEADER - 1..) {
            Some(body) if !plain_error::is_text(rest) => message::server_error(body),
            _ => plain_error::parse(rest),
        };
        (!error.message().is_empty()).then_some(SslResponse::Error(error))
    }

    fn error(&self) -> Result<Option<SslResponse>, ProtocolError> {
        let text = self.answer.get(1..).unwrap_or_default();
        if plain_error::is_text(text) {
            let is_long = self.answer.len() >= ERROR_MAX;
            let error = plain_error::whole(text).or_else(|| is_long.then(|| plain_error::parse(text)));
            return Ok(error.map(SslResponse::Error));
        }
        let whole = match frame::next(&self.answer)? {
            Next::Whole { total } => total,
            Next::Partial { .. } if self.answer.len() < ERROR_MAX => return Ok(None),
            Next::Partial { .. } => self.answer.len(),
        };
        let body = self.answer.get(HEADER..whole.min(ERROR_MAX)).unwrap_or_default();
        Ok(Some(SslResponse::Error(message::server_error(body))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(bytes: &[u8]) -> Result<Option<SslResponse>, ProtocolError> {
        SslRequest::new().handle_input(bytes)
    }

    #[test]
    fn the_request_has_eight_bytes() {
        let mut request = SslRequest::new();
        assert_eq!(request.poll_transmit(), [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
        request.handle_transmitted(8);
        assert!(request.poll_transmit().is_empty());
    }

    #[test]
    fn yes_and_no_are_one_byte() {
        assert_eq!(answer(b""), Ok(None));
        assert_eq!(answer(b"S"), Ok(Some(SslResponse::Yes)));
        assert_eq!(answer(b"N"), Ok(Some(SslResponse::No)));
    }

    #[test]
    fn bytes_after_a_yes_were_injected() {
        assert_eq!(answer(b"SE"), Err(ProtocolError::Injected));
        assert_eq!(answer(b"S\x16\x03\x03"), Err(ProtocolError::Injected));
        assert!(matches!(answer(b"NR"), Err(ProtocolError::Unexpected { .. })));
    }

    #[test]
    fn an_error_is_read_completely_and_reported() {
        let body = b"SFATAL\0C53300\0Mtoo many\0\0";
        let whole = [b"E".as_slice(), &(body.len() as u32 + 4).to_be_bytes(), body].concat();
        for cut in 1..whole.len() {
            let mut request = SslRequest::new();
            assert_eq!(request.handle_input(&whole[..cut]), Ok(None), "{cut}");
            let Ok(Some(SslResponse::Error(error))) = request.handle_input(&whole[cut..]) else { panic!("{cut}") };
            assert_eq!((error.code(), error.message()), ("53300", "too many"));
        }
    }

    #[test]
    fn an_error_in_plain_text_is_reported_however_it_is_split() {
        let whole = b"Ecould not fork new process for connection: Resource temporarily unavailable\n\0";
        for cut in 1..whole.len() {
            let mut request = SslRequest::new();
            assert_eq!(request.handle_input(&whole[..cut]), Ok(None), "{cut}");
            if cut > 1 {
                assert!(matches!(request.handle_eof(), Some(SslResponse::Error(_))), "{cut}");
            }
            let Ok(Some(SslResponse::Error(error))) = request.handle_input(&whole[cut..]) else { panic!("{cut}") };
            assert!(error.message().ends_with("temporarily unavailable"), "{error}");
        }
        assert_eq!(SslRequest::new().handle_eof(), None);
    }

    #[test]
    fn an_endless_error_is_truncated() {
        let mut request = SslRequest::new();
        let endless = [b"E\x3f\xff\xff\xffM".as_slice(), &[b'x'; 10_000]].concat();
        let Ok(Some(SslResponse::Error(error))) = request.handle_input(&endless) else { panic!("not reported") };
        assert!(error.message().len() < ERROR_MAX);
    }

    proptest! {
        #[test]
        fn only_the_one_byte_says_yes(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            prop_assert_eq!(answer(&bytes) == Ok(Some(SslResponse::Yes)), bytes == b"S");
        }
    }
}
