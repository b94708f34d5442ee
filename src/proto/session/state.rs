//! The states of a session, and the messages that are allowed in each.
//!
//! ```text
//!   Login ──ReadyForQuery──▶ Idle ──request──▶ Busy
//!     │                       ▲ │               │
//!     │                       │ └──FATAL, EOF───┤
//!     │                       └──ReadyForQuery──┤
//!     └──────────────▶ Closed ◀─────────────────┘
//! ```

use bytes::BytesMut;

use super::requests::InFlight;
use crate::config::{ChannelBinding, Config};
use crate::error::{Error, ProtocolError, ServerError};
use crate::notification::NOTIFICATION;
use crate::proto::auth::{AuthExchange, Binding, Credentials};
use crate::proto::frame::{HEADER, unexpected};
use crate::proto::{message, plain_error};

/// The state of a session. A listener is almost always `Idle`, so the contents of the other states are in boxes.
#[derive(Debug, Default)]
pub(super) enum SessionState {
    Login(Box<SessionLogin>),
    #[default]
    Idle,
    Busy(Box<InFlight>),
    Closed(Box<SessionEnd>),
}

/// A login in progress.
#[derive(Debug)]
pub(super) struct SessionLogin {
    pub(super) exchange: AuthExchange,
    config: Config,
    binding: Binding,
    /// The received part of an error in plain text.
    pub(super) plain_error: Option<Vec<u8>>,
}

/// The end of a session.
#[derive(Debug)]
pub(super) struct SessionEnd {
    pub(super) reason: Error,
    pub(super) is_reported: bool,
}

impl SessionState {
    /// Checks that a message of this type is allowed now.
    #[inline]
    pub(super) fn admit(&self, tag: u8) -> Result<(), ProtocolError> {
        let when = match (self, tag) {
            (Self::Closed(_), _) | (_, b'N' | b'E') | (Self::Login(_), b'R' | b'v') => return Ok(()),
            (Self::Login(login), _) if !login.exchange.is_authenticated() => "before the login",
            (_, NOTIFICATION | b'S') | (Self::Login(_), b'K' | b'Z') => return Ok(()),
            (Self::Login(_), _) => "before it was ready",
            (Self::Idle, _) => "without a request",
            (Self::Busy(_), b'C' | b'D' | b'G' | b'H' | b'I' | b'T' | b'Z' | b'c' | b'd') => return Ok(()),
            (Self::Busy(_), b'W') => "to a client that does not replicate",
            (Self::Busy(_), _) => "as an answer to a query",
        };
        Err(unexpected(tag, when))
    }

    /// Returns the request that was sent and is not answered.
    pub(super) fn in_flight(&self) -> Option<&InFlight> {
        if let Self::Busy(in_flight) = self { Some(in_flight) } else { None }
    }
}

impl SessionLogin {
    /// Begins a login that can be bound to this, unless channel binding is disabled.
    pub(super) fn new(config: &Config, binding: Binding) -> Self {
        let is_disabled = config.get_channel_binding() == ChannelBinding::Disable;
        Self {
            exchange: AuthExchange::default(),
            config: config.clone(),
            binding: if is_disabled { Binding::Disabled } else { binding },
            plain_error: None,
        }
    }

    /// Handles an authentication request of the server.
    pub(super) fn handle_request(&mut self, body: &[u8], transmit: &mut BytesMut) -> Result<(), Error> {
        let credentials = Credentials {
            user: &self.config.effective_user()?,
            password: self.config.get_password(),
            allowed: self.config.auth_methods(),
            binding_required: self.config.get_channel_binding() == ChannelBinding::Require,
            binding: &self.binding,
        };
        let before = transmit.len();
        self.exchange.handle_message(body, &credentials, transmit).inspect_err(|_| transmit.truncate(before))
    }
}

/// Parses an error message that the end of the stream has truncated. `is_early` is `true` before the client is
/// authenticated, when the error may be in plain text.
pub(super) fn truncated_error(partial: &[u8], is_early: bool) -> Option<ServerError> {
    let (b'E', rest) = partial.split_first()? else { return None };
    let error = match rest.get(HEADER - 1..) {
        Some(body) => message::server_error(body),
        None if is_early => plain_error::parse(rest),
        None => return None,
    };
    let is_readable = !error.message().is_empty() && !error.message().contains(char::is_control);
    is_readable.then(|| ServerError { was_last: !error.is_fatal(), ..error })
}
