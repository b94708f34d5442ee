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
        let request = match i32::from_be_bytes(*code) {
            0 => AuthRequest::Ok,
            3 => AuthRequest::CleartextPassword,
            5 => match rest.try_into() {
                Ok(salt) => return Ok(AuthRequest::Md5Password(salt)),
                Err(_) => return Err(malformed("AuthenticationMD5Password", "its salt is not four bytes long")),
            },
            10 => return Ok(AuthRequest::Sasl(mechanism_list(rest)?)),
            11 => return Ok(AuthRequest::SaslContinue(rest)),
            12 => return Ok(AuthRequest::SaslFinal(rest)),
            other => return Ok(AuthRequest::Unsupported(other)),
        };
        if rest.is_empty() { Ok(request) } else { Err(malformed(request.name(), "something follows its code")) }
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
    const NAME: &str = "AuthenticationSASL";
    let names = match list {
        [names @ .., 0] => names,
        _ => return Err(malformed(NAME, "its list of mechanisms has no end")),
    };
    match names {
        [] => Err(malformed(NAME, "its list of mechanisms is empty")),
        [0, ..] => Err(malformed(NAME, "a mechanism has no name")),
        [.., 0] if names.windows(2).all(|pair| pair != [0, 0]) => Ok(names),
        [.., 0] => Err(malformed(NAME, "a mechanism has no name")),
        _ => Err(malformed(NAME, "its list of mechanisms has no end")),
    }
}

fn malformed(message: &'static str, reason: &'static str) -> ProtocolError {
    ProtocolError::Malformed { message, reason }
}
