//! Final errors outside the protocol: in plain text, or truncated by the end of the stream.

use super::{Session, SessionLogin, SessionState};
use crate::error::ServerError;
use crate::proto::frame::HEADER;
use crate::proto::{message, plain_error};

impl Session {
    /// Takes `rest` if an error in plain text begins there, which can only be the first thing that the server sends.
    pub(super) fn take_plain_error(&mut self, rest: &[u8]) -> bool {
        let Some(login) = self.early_login() else { return false };
        let Some((b'E', text)) = rest.split_first() else { return false };
        if !plain_error::is_text(text) {
            return false;
        }
        login.plain_error = Some(Vec::new());
        self.continue_plain_error(text)
    }

    /// Takes `rest` if an error in plain text is being read.
    pub(super) fn continue_plain_error(&mut self, rest: &[u8]) -> bool {
        let Some(text) = self.early_login().and_then(|login| login.plain_error.as_mut()) else { return false };
        text.extend_from_slice(rest);
        if let Some(error) = plain_error::whole(text) {
            self.close(error.into());
        }
        true
    }

    /// Parses a truncated error, at the end of the stream.
    pub(super) fn truncated_error(&mut self) -> Option<ServerError> {
        let is_early = match self.early_login() {
            Some(SessionLogin { plain_error: Some(text), .. }) => return Some(plain_error::parse(text)),
            login => login.is_some(),
        };
        let (b'E', rest) = self.partial.as_ref()?.bytes().split_first()? else { return None };
        let error = match rest.get(HEADER - 1..) {
            Some(body) => message::server_error(body),
            None if is_early => plain_error::parse(rest),
            None => return None,
        };
        let is_readable = !error.message().is_empty() && !error.message().contains(char::is_control);
        is_readable.then(|| ServerError { was_last: !error.is_fatal(), ..error })
    }

    /// Returns the login while the server has not admitted the client.
    fn early_login(&mut self) -> Option<&mut SessionLogin> {
        match &mut self.pending.as_mut()?.state {
            SessionState::Login(login) if !login.authenticated => Some(login),
            _ => None,
        }
    }

    /// Returns the number of bytes held of an error in plain text.
    #[cfg(any(test, fuzzing))]
    pub(super) fn plain_error_bytes(&self) -> usize {
        match self.state() {
            SessionState::Login(login) => login.plain_error.as_ref().map_or(0, Vec::len),
            _ => 0,
        }
    }
}
