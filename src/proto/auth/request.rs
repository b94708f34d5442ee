//! Parses the server's authentication messages, with a check of every byte.
//!
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use crate::error::ProtocolError;

/// A valid authentication message.
pub(super) enum AuthRequest<'a> {
    Ok,
    CleartextPassword,
    Md5Password([u8; 4]),
    /// The mechanisms, each followed by a NUL.
    Sasl(&'a [u8]),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    Unsupported(i32),
}

impl<'a> AuthRequest<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let Some((code, rest)) = body.split_first_chunk() else {
            return Err(malformed("Authentication message", "it is too short for its code"));
        };
        let without_rest = |request: Self| match rest {
            [] => Ok(request),
            _ => Err(malformed(request.name(), "something follows its code")),
        };
        match i32::from_be_bytes(*code) {
            0 => without_rest(AuthRequest::Ok),
            3 => without_rest(AuthRequest::CleartextPassword),
            5 => match rest.try_into() {
                Ok(salt) => Ok(AuthRequest::Md5Password(salt)),
                Err(_) => Err(malformed("AuthenticationMD5Password", "its salt is not four bytes long")),
            },
            10 => mechanism_list(rest).map(AuthRequest::Sasl),
            11 => Ok(AuthRequest::SaslContinue(rest)),
            12 => Ok(AuthRequest::SaslFinal(rest)),
            other => Ok(AuthRequest::Unsupported(other)),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            AuthRequest::Ok => "AuthenticationOk",
            AuthRequest::CleartextPassword => "AuthenticationCleartextPassword",
            AuthRequest::Md5Password(_) => "AuthenticationMD5Password",
            AuthRequest::Sasl(_) => "AuthenticationSASL",
            AuthRequest::SaslContinue(_) => "AuthenticationSASLContinue",
            AuthRequest::SaslFinal(_) => "AuthenticationSASLFinal",
            AuthRequest::Unsupported(_) => "another authentication request",
        }
    }
}

/// Returns the list without its final NUL.
fn mechanism_list(list: &[u8]) -> Result<&[u8], ProtocolError> {
    let reason = match list {
        [0] => "its list of mechanisms is empty",
        [0, .., 0] => "a mechanism has no name",
        [names @ .., 0] if names.ends_with(&[0]) && names.windows(2).all(|pair| pair != [0, 0]) => return Ok(names),
        [.., 0, 0] => "a mechanism has no name",
        _ => "its list of mechanisms has no end",
    };
    Err(malformed("AuthenticationSASL", reason))
}

fn malformed(message: &'static str, reason: &'static str) -> ProtocolError {
    ProtocolError::Malformed { message, reason }
}
