//! Authentication: answers the server's requests, or rejects them.
//!
//! An [`AuthExchange`] is one login. It handles the body of every message of type `R`, writes the answer if there is
//! one, and reports when the server has authenticated the client:
//!
//! ```text
//!  Start ──Ok────────────────────────────────────────────────────────► Authenticated
//!    ├──CleartextPassword, MD5Password──► PasswordSent ──Ok──────────► Authenticated
//!    └──SASL──► ScramStarted ──Continue──► ScramAnswered ──Final──► ScramDone ──Ok──► Authenticated
//! ```
//!
//! A message without an arrow ends the login. So a server cannot skip the step in which it proves that it knows the
//! password too, and cannot request a second, weaker method after the first. A login that failed cannot continue.
//!
//! Kerberos, GSSAPI, SSPI and OAuth are not supported; the error contains the name.
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>

mod password;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod request;
mod sha256;
mod stringprep_tables;

use std::fmt;
use std::io;
use std::mem;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend::{password_message, sasl_initial_response, sasl_response};

use self::request::AuthRequest;
use crate::config::{AuthMethod, AuthMethods};
use crate::error::{Error, ProtocolError};

/// The largest number of hashing rounds that a server may request; the server's default is 4,096.
///
/// The number comes from a peer that is not authenticated yet, and the hashing runs on the thread that serves all
/// connections. `postgres-protocol` has the same limit, so a larger one here would only change the error.
const MAX_ITERATIONS: u32 = 100_000;

/// The credentials and restrictions of a login, from the configuration.
pub(crate) struct Credentials<'a> {
    pub(crate) user: &'a str,
    /// An empty password counts as none, as in libpq.
    pub(crate) password: Option<&'a str>,
    /// `require_auth`.
    pub(crate) allowed: AuthMethods,
    /// `channel_binding=require`.
    pub(crate) binding_required: bool,
    /// The object of channel binding.
    pub(crate) binding: &'a Binding,
}

/// The object of channel binding, which prevents a machine in the middle from relaying the login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Binding {
    /// Nothing: the connection is not encrypted.
    #[default]
    Unencrypted,
    /// Nothing: the connection is encrypted, but the signature algorithm of the server's certificate has no hash
    /// function.
    Unbindable,
    /// The hash of the server's certificate: `tls-server-end-point`.
    EndPoint(Vec<u8>),
    /// Nothing: `channel_binding=disable`.
    Disabled,
}

/// Describes the server's request for a method, to follow "the server".
fn deed(method: AuthMethod) -> &'static str {
    match method {
        AuthMethod::None => "requests no authentication",
        AuthMethod::Password => "requests the password in clear text",
        AuthMethod::Md5 => "requests an MD5 password",
        AuthMethod::ScramSha256 => "requests SCRAM authentication",
    }
}

/// A login, from the first authentication message to the last.
#[derive(Default)]
pub(crate) enum AuthExchange {
    #[default]
    Start,
    PasswordSent,
    ScramStarted(Box<ScramSha256>),
    ScramAnswered(Box<ScramSha256>),
    ScramDone,
    Authenticated,
    Failed,
}

impl AuthExchange {
    /// Returns `true` before the server's first message.
    pub(crate) fn is_at_start(&self) -> bool {
        matches!(self, Self::Start)
    }

    /// Returns `true` if the server has authenticated the client.
    pub(crate) fn is_authenticated(&self) -> bool {
        matches!(self, Self::Authenticated)
    }

    /// Handles the body of an authentication message and appends the answer to `out`.
    ///
    /// After an error the login is over, and the bytes that this call appended must not be sent.
    pub(crate) fn handle_message(
        &mut self,
        body: &[u8],
        credentials: &Credentials<'_>,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        let state = mem::replace(self, Self::Failed);
        *self = match (state, AuthRequest::parse(body)?) {
            (Self::Start, AuthRequest::Ok) => {
                admit(AuthMethod::None, credentials)?;
                Self::Authenticated
            }
            (Self::Start, AuthRequest::CleartextPassword) => {
                let password = admit(AuthMethod::Password, credentials).and_then(|()| password(credentials))?;
                password_message(password.as_bytes(), out).map_err(unsendable)?;
                Self::PasswordSent
            }
            (Self::Start, AuthRequest::Md5Password(salt)) => {
                let password = admit(AuthMethod::Md5, credentials).and_then(|()| password(credentials))?;
                let hash = md5_hash(credentials.user.as_bytes(), password.as_bytes(), salt);
                password_message(hash.as_bytes(), out).map_err(unsendable)?;
                Self::PasswordSent
            }
            (Self::Start, AuthRequest::Sasl(mechanisms)) => start_scram(mechanisms, credentials, out)?,
            (Self::Start, AuthRequest::Unsupported(code)) => return Err(unsupported(code)),
            (Self::PasswordSent | Self::ScramDone, AuthRequest::Ok) => Self::Authenticated,
            (Self::ScramStarted(scram), AuthRequest::SaslContinue(data)) => answer_challenge(scram, data, out)?,
            (Self::ScramAnswered(mut scram), AuthRequest::SaslFinal(data)) => {
                let failed = |e| scram_failed(format!("the server's last message: {}", reason(&e)));
                scram.finish(data).map_err(failed)?;
                Self::ScramDone
            }
            // The server has not proved that it knows the password.
            (Self::ScramStarted(_) | Self::ScramAnswered(_), AuthRequest::Ok) => {
                return Err(scram_failed("the server ended the login before it proved that it knows the password"));
            }
            (state, request) => {
                return Err(ProtocolError::Unexpected { message: request.name(), when: state.when() }.into());
            }
        };
        Ok(())
    }

    fn when(&self) -> &'static str {
        match self {
            Self::Start => "at the start of the login",
            Self::PasswordSent => "after the password",
            Self::ScramStarted(_) => "after the client's first SCRAM message",
            Self::ScramAnswered(_) => "after the client's last SCRAM message",
            Self::ScramDone => "after the SCRAM exchange",
            Self::Authenticated => "after the login",
            Self::Failed => "after the login failed",
        }
    }
}

impl fmt::Debug for AuthExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthExchange({})", self.when())
    }
}

fn start_scram(mechanisms: &[u8], credentials: &Credentials<'_>, out: &mut BytesMut) -> Result<AuthExchange, Error> {
    let offers = |name: &str| mechanisms.split(|byte| *byte == 0).any(|offered| offered == name.as_bytes());
    let (plain, plus) = (offers(SCRAM_SHA_256), offers(SCRAM_SHA_256_PLUS));
    if !plain && !plus {
        return Err(refused(format!(
            "the server requests SASL authentication by {}, which is not supported: set scram-sha-256 in its pg_hba.conf",
            mechanism_names(mechanisms)
        )));
    }
    admit(AuthMethod::ScramSha256, credentials)?;
    let (mechanism, binding) = match credentials.binding {
        Binding::EndPoint(hash) if plus => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash.clone())),
        _ if credentials.binding_required => return Err(unbound(credentials)),
        // The client states that it supports channel binding but the server does not. If the server does, it detects
        // that its offer was modified.
        Binding::EndPoint(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        // The client states that it does not support channel binding. A false statement would make an honest server
        // report an attack.
        _ if plain => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        _ => {
            return Err(refused(
                "the server offers only SCRAM-SHA-256-PLUS, which needs TLS, channel binding and a certificate whose \
                 signature has a hash: connect with sslmode=require or stricter and channel_binding=prefer",
            ));
        }
    };
    let scram = Box::new(ScramSha256::new(&password::for_scram(password(credentials)?), binding));
    sasl_initial_response(mechanism, scram.message(), out).map_err(unsendable)?;
    Ok(AuthExchange::ScramStarted(scram))
}

fn answer_challenge(mut scram: Box<ScramSha256>, challenge: &[u8], out: &mut BytesMut) -> Result<AuthExchange, Error> {
    check_iterations(challenge)?;
    scram.update(challenge).map_err(|e| scram_failed(format!("the server's first message: {}", reason(&e))))?;
    sasl_response(scram.message(), out).map_err(unsendable)?;
    Ok(AuthExchange::ScramAnswered(scram))
}

/// Checks the iteration count before anything is computed. `ScramSha256::update` detects all other errors.
fn check_iterations(challenge: &[u8]) -> Result<(), Error> {
    let count = challenge.split(|byte| *byte == b',').find_map(|field| field.strip_prefix(b"i="));
    let Some(count) = count.filter(|count| !count.is_empty() && count.iter().all(u8::is_ascii_digit)) else {
        return Err(scram_failed("the server's first message has no iteration count"));
    };
    // A string of digits that cannot be parsed is a number above every limit.
    let count = str::from_utf8(count).ok().and_then(|count| count.parse().ok()).unwrap_or(u32::MAX);
    match count {
        0 => Err(scram_failed("the server requests 0 iterations")),
        1..=MAX_ITERATIONS => Ok(()),
        _ => Err(scram_failed(format!(
            "the server requests more than {MAX_ITERATIONS} iterations, which may be a denial of service: \
             if it is the right server, lower its scram_iterations and set the password again"
        ))),
    }
}

/// Checks that the configuration allows a method.
fn admit(method: AuthMethod, credentials: &Credentials<'_>) -> Result<(), Error> {
    if !credentials.allowed.allows(method) {
        return Err(refused(format!(
            "the server {}, which require_auth does not allow: add \"{method}\" to require_auth, or set an allowed \
             method in the server's pg_hba.conf",
            deed(method)
        )));
    }
    if credentials.binding_required && method != AuthMethod::ScramSha256 {
        return Err(refused(format!(
            "the server {}, but channel_binding=require allows only SCRAM-SHA-256-PLUS: \
             set scram-sha-256 over TLS in the server's pg_hba.conf, or set channel_binding=prefer",
            deed(method)
        )));
    }
    Ok(())
}

fn password<'a>(credentials: &Credentials<'a>) -> Result<&'a str, Error> {
    match credentials.password {
        None | Some("") => Err(refused(
            "the server requests a password and none is set: \
             set password=, the environment variable PGPASSWORD or a password file",
        )),
        Some(password) if password.contains('\0') => {
            Err(refused("the password contains a NUL byte, which PostgreSQL does not support"))
        }
        Some(password) => Ok(password),
    }
}

fn unbound(credentials: &Credentials<'_>) -> Error {
    refused(match credentials.binding {
        Binding::Unencrypted | Binding::Disabled => {
            "channel_binding=require needs TLS: connect with sslmode=require or stricter, or set channel_binding=prefer"
        }
        Binding::Unbindable => {
            "channel_binding=require, but the server's certificate does not support channel binding, because its signature \
             (such as Ed25519) has no hash: reissue it with RSA or ECDSA, or set channel_binding=prefer"
        }
        Binding::EndPoint(_) => {
            "channel_binding=require, but the server does not offer SCRAM-SHA-256-PLUS: a machine in the middle may have \
             removed the offer; for a server older than 11 set channel_binding=prefer"
        }
    })
}

/// <https://www.postgresql.org/docs/current/protocol-message-formats.html>
fn unsupported(code: i32) -> Error {
    let method = match code {
        1 => "Kerberos V4".into(),
        2 => "Kerberos V5".into(),
        4 => "a crypt() password".into(),
        6 => "SCM credentials".into(),
        7 | 8 => "GSSAPI".into(),
        9 => "SSPI".into(),
        _ => format!("authentication method number {code}"),
    };
    refused(format!("the server requests {method}, which is not supported: set scram-sha-256 in its pg_hba.conf"))
}

/// Formats the names on one short line without control characters.
fn mechanism_names(mechanisms: &[u8]) -> String {
    let names: Vec<_> =
        mechanisms.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(String::from_utf8_lossy).collect();
    printable(&names.join(", "))
}

/// Formats text of the peer on one line.
fn printable(text: &str) -> String {
    const MOST: usize = 100;
    let mut short: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}

fn reason(error: &io::Error) -> String {
    printable(error.to_string().trim_end_matches('.'))
}

fn refused(reason: impl Into<Box<str>>) -> Error {
    Error::Auth(reason.into())
}

fn scram_failed(reason: impl Into<Box<str>>) -> Error {
    ProtocolError::Scram(reason.into()).into()
}

/// Returns the error for an answer that cannot be encoded, because it is too long or contains a NUL.
fn unsendable(error: io::Error) -> Error {
    refused(format!("could not encode the answer to the server's request: {error}"))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    const PASSWORD: &str = "pencil";
    const CERTIFICATE: &[u8] = b"a hash of the certificate";
    const BOTH: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    const PLAIN: &[u8] = b"SCRAM-SHA-256\0\0";
    const PLUS: &[u8] = b"SCRAM-SHA-256-PLUS\0\0";

    fn credentials() -> Credentials<'static> {
        Credentials {
            user: "md5_user",
            password: Some(PASSWORD),
            allowed: AuthMethods::ALL,
            binding_required: false,
            binding: &Binding::Unencrypted,
        }
    }

    fn allowing(methods: &[AuthMethod]) -> Credentials<'static> {
        let allowed = methods.iter().copied().collect();
        Credentials { allowed, ..credentials() }
    }

    fn message(code: i32, rest: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes(), rest].concat()
    }

    fn ok() -> Vec<u8> {
        message(0, b"")
    }

    /// A client and its credentials.
    struct TestLogin<'a> {
        exchange: AuthExchange,
        credentials: Credentials<'a>,
    }

    impl<'a> TestLogin<'a> {
        fn new(credentials: Credentials<'a>) -> Self {
            TestLogin { exchange: AuthExchange::default(), credentials }
        }

        /// Returns `true` if the client is authenticated, and the body of its answer, which is empty if there is none.
        fn take(&mut self, body: &[u8]) -> Result<(bool, Vec<u8>), Error> {
            let mut out = BytesMut::new();
            self.exchange.handle_message(body, &self.credentials, &mut out)?;
            let is_authenticated = self.exchange.is_authenticated();
            if out.is_empty() {
                return Ok((is_authenticated, Vec::new()));
            }
            assert_eq!(out[0], b'p');
            assert_eq!(u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize, out.len() - 1);
            Ok((is_authenticated, out[5..].to_vec()))
        }

        fn answers(&mut self, body: &[u8]) -> Vec<u8> {
            let (is_authenticated, answer) = self.take(body).unwrap();
            assert!(!is_authenticated);
            answer
        }

        fn is_authenticated_by(&mut self, body: &[u8]) {
            assert_eq!(self.take(body).unwrap(), (true, Vec::new()));
        }

        fn refuses(&mut self, body: &[u8]) -> Error {
            self.take(body).unwrap_err()
        }
    }

    fn refusal(credentials: Credentials<'_>, body: &[u8]) -> String {
        match TestLogin::new(credentials).refuses(body) {
            Error::Auth(text) => text.into(),
            other => panic!("{other:?}"),
        }
    }

    fn scram_reason(error: Error) -> String {
        match error {
            Error::Protocol(ProtocolError::Scram(reason)) => reason.into(),
            other => panic!("{other:?}"),
        }
    }

    fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(text);
        mac.finalize().into_bytes().into()
    }

    /// The server's side of RFC 5802, for a server that stores the password itself.
    struct ScramServer {
        iterations: u32,
        mechanism: String,
        gs2_header: String,
        client_first_bare: String,
        client_nonce: String,
        server_first: String,
    }

    impl ScramServer {
        fn greet(login: &mut TestLogin<'_>, offer: &[u8], iterations: u32) -> ScramServer {
            let answer = login.answers(&message(10, offer));
            let end = answer.iter().position(|byte| *byte == 0).unwrap();
            let mechanism = String::from_utf8(answer[..end].to_vec()).unwrap();
            let data = &answer[end + 5..];
            assert_eq!(answer[end + 1..end + 5], (data.len() as u32).to_be_bytes());
            let data = String::from_utf8(data.to_vec()).unwrap();
            let (header, bare) = data.split_at(data.find("n=,r=").unwrap());
            let client_nonce = bare["n=,r=".len()..].to_owned();
            ScramServer {
                iterations,
                mechanism,
                gs2_header: header.into(),
                client_first_bare: bare.into(),
                server_first: format!("r={client_nonce}server,s={},i={iterations}", BASE64.encode("salt")),
                client_nonce,
            }
        }

        fn challenge(&self) -> Vec<u8> {
            message(11, self.server_first.as_bytes())
        }

        /// Checks the client's proof and returns the server's.
        fn verify(&self, client_final: &[u8], binding: &[u8]) -> Vec<u8> {
            let client_final = str::from_utf8(client_final).unwrap();
            let (without_proof, proof) = client_final.rsplit_once(",p=").unwrap();
            let bound = BASE64.encode([self.gs2_header.as_bytes(), binding].concat());
            assert_eq!(without_proof, format!("c={bound},r={}server", self.client_nonce));

            let mut round = hmac(PASSWORD.as_bytes(), b"salt\0\0\0\x01");
            let mut salted = round;
            for _ in 1..self.iterations {
                round = hmac(PASSWORD.as_bytes(), &round);
                salted.iter_mut().zip(round).for_each(|(sum, byte)| *sum ^= byte);
            }
            let exchange = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
            let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
            let mut client_key = hmac(&stored_key, exchange.as_bytes());
            client_key.iter_mut().zip(BASE64.decode(proof).unwrap()).for_each(|(key, byte)| *key ^= byte);
            assert_eq!(Sha256::digest(client_key), stored_key);

            let signature = hmac(&hmac(&salted, b"Server Key"), exchange.as_bytes());
            message(12, format!("v={}", BASE64.encode(signature)).as_bytes())
        }
    }

    #[test]
    fn scram_succeeds_after_the_server_has_proved_itself() {
        let mut login = TestLogin::new(allowing(&[AuthMethod::ScramSha256]));
        let server = ScramServer::greet(&mut login, PLAIN, 4096);
        assert_eq!((server.mechanism.as_str(), server.gs2_header.as_str()), ("SCRAM-SHA-256", "n,,"));
        let proof = login.answers(&server.challenge());
        assert!(login.answers(&server.verify(&proof, b"")).is_empty());
        login.is_authenticated_by(&ok());
    }

    #[test]
    fn scram_binds_to_the_certificate_if_possible() {
        for binding_required in [false, true] {
            let binding = &Binding::EndPoint(CERTIFICATE.to_vec());
            let mut login = TestLogin::new(Credentials { binding_required, binding, ..credentials() });
            let server = ScramServer::greet(&mut login, BOTH, 2);
            assert_eq!(server.mechanism, "SCRAM-SHA-256-PLUS");
            assert_eq!(server.gs2_header, "p=tls-server-end-point,,");
            let proof = login.answers(&server.challenge());
            login.answers(&server.verify(&proof, CERTIFICATE));
            login.is_authenticated_by(&ok());
        }
    }

    #[test]
    fn a_server_that_supports_binding_detects_that_its_offer_was_removed() {
        let binding = &Binding::EndPoint(CERTIFICATE.to_vec());
        let mut login = TestLogin::new(Credentials { binding, ..credentials() });
        let server = ScramServer::greet(&mut login, PLAIN, 2);
        assert_eq!((server.mechanism.as_str(), server.gs2_header.as_str()), ("SCRAM-SHA-256", "y,,"));
    }

    #[test]
    fn without_tls_the_offer_of_binding_is_ignored() {
        let server = ScramServer::greet(&mut TestLogin::new(credentials()), BOTH, 2);
        assert_eq!((server.mechanism.as_str(), server.gs2_header.as_str()), ("SCRAM-SHA-256", "n,,"));
        assert!(refusal(credentials(), &message(10, PLUS)).contains("needs TLS"));
    }

    #[test]
    fn required_binding_applies_to_every_method() {
        fn required(binding: &Binding) -> Credentials<'_> {
            Credentials { binding_required: true, binding, ..credentials() }
        }
        let bindable = Binding::EndPoint(CERTIFICATE.to_vec());
        for body in [ok(), message(3, b""), message(5, b"salt"), message(10, PLAIN)] {
            assert!(refusal(required(&bindable), &body).contains("channel_binding=require"), "{body:?}");
        }
        for offer in [PLAIN, PLUS, BOTH] {
            assert!(refusal(required(&Binding::Unencrypted), &message(10, offer)).contains("needs TLS"));
            assert!(refusal(required(&Binding::Unbindable), &message(10, offer)).contains("Ed25519"));
        }
    }

    #[test]
    fn a_client_without_binding_states_that_to_a_server_with_it() {
        for binding in [Binding::Unbindable, Binding::Disabled] {
            let server =
                ScramServer::greet(&mut TestLogin::new(Credentials { binding: &binding, ..credentials() }), BOTH, 2);
            assert_eq!((server.mechanism.as_str(), server.gs2_header.as_str()), ("SCRAM-SHA-256", "n,,"));
        }
    }

    #[test]
    fn a_wrong_signature_is_rejected_and_so_are_later_messages() {
        let mut login = TestLogin::new(credentials());
        let server = ScramServer::greet(&mut login, PLAIN, 2);
        let proof = login.answers(&server.challenge());
        let mut signature = server.verify(&proof, b"");
        signature[10] ^= 1;
        assert!(scram_reason(login.refuses(&signature)).contains("last message"));
        assert!(login.refuses(&ok()).is_protocol());
    }

    #[test]
    fn a_scram_error_of_the_server_is_reported_on_one_line() {
        let mut login = TestLogin::new(credentials());
        let server = ScramServer::greet(&mut login, PLAIN, 2);
        login.answers(&server.challenge());
        let reason = scram_reason(login.refuses(&message(12, b"e=other\nline\x1b[31m")));
        assert!(reason.contains("other\\nline"), "{reason}");
        assert!(!reason.contains(char::is_control), "{reason:?}");
    }

    #[test]
    fn an_early_ok_is_rejected() {
        let mut login = TestLogin::new(credentials());
        ScramServer::greet(&mut login, PLAIN, 2);
        assert!(scram_reason(login.refuses(&ok())).contains("before it proved"));

        let mut login = TestLogin::new(credentials());
        let server = ScramServer::greet(&mut login, PLAIN, 2);
        login.answers(&server.challenge());
        assert!(scram_reason(login.refuses(&ok())).contains("before it proved"));
    }

    #[test]
    fn an_excessive_iteration_count_is_rejected_before_any_hashing() {
        for count in ["100001", "1000001", "4000000000", "4294967296", "99999999999999999999999999"] {
            let mut login = TestLogin::new(credentials());
            let server = ScramServer::greet(&mut login, PLAIN, 2);
            let altered = server.server_first.replace("i=2", &format!("i={count}"));
            let reason = scram_reason(login.refuses(&message(11, altered.as_bytes())));
            assert!(reason.contains("more than 100000 iterations"), "{reason}");
        }
    }

    #[test]
    fn a_modified_or_damaged_challenge_is_rejected() {
        let bad = |change: fn(&ScramServer) -> String| {
            let mut login = TestLogin::new(credentials());
            let server = ScramServer::greet(&mut login, PLAIN, 2);
            scram_reason(login.refuses(&message(11, change(&server).as_bytes())))
        };
        assert!(bad(|server| server.server_first.replacen("r=", "r=x", 1)).contains("nonce"));
        assert!(bad(|server| format!("r={},s=c2FsdA==,i=2", &server.client_nonce[1..])).contains("nonce"));
        assert!(bad(|server| format!("r={}x,s=c2FsdA,i=2", server.client_nonce)).contains("first message"));
        assert!(bad(|server| format!("r={}x,s=c2FsdA==,i=0", server.client_nonce)).contains("0 iterations"));
        assert!(bad(|server| format!("r={}x,s=c2FsdA==,i=", server.client_nonce)).contains("no iteration count"));
        assert!(bad(|server| format!("r={}x,s=c2FsdA==,i=-2", server.client_nonce)).contains("no iteration count"));
        assert!(bad(|server| format!("i=2,r={}x,s=c2FsdA==", server.client_nonce)).contains("first message"));
        assert!(bad(|_| String::new()).contains("no iteration count"));
    }

    #[test]
    fn md5_answers_with_the_known_hash() {
        let mut login = TestLogin::new(Credentials { password: Some("password"), ..allowing(&[AuthMethod::Md5]) });
        let answer = login.answers(&message(5, &[0x2a, 0x3d, 0x8f, 0xe0]));
        assert_eq!(answer, b"md562af4dd09bbb41884907a838a3233294\0");
        login.is_authenticated_by(&ok());
    }

    #[test]
    fn a_cleartext_password_is_sent_as_it_is() {
        let mut login = TestLogin::new(allowing(&[AuthMethod::Password]));
        assert_eq!(login.answers(&message(3, b"")), b"pencil\0");
        login.is_authenticated_by(&ok());
    }

    #[test]
    fn trust_succeeds_immediately_unless_a_method_is_required() {
        TestLogin::new(allowing(&[AuthMethod::None])).is_authenticated_by(&ok());
        let credentials = Credentials { allowed: AuthMethods::parse("!none").unwrap(), ..credentials() };
        assert!(refusal(credentials, &ok()).contains("add \"none\" to require_auth"));
    }

    #[test]
    fn a_method_that_require_auth_does_not_allow_is_rejected() {
        use AuthMethod::{Md5, None, Password, ScramSha256};
        let requests =
            [(None, ok()), (Password, message(3, b"")), (Md5, message(5, b"salt")), (ScramSha256, message(10, BOTH))];
        for (method, body) in &requests {
            let others: Vec<_> = requests.iter().map(|(other, _)| *other).filter(|other| other != method).collect();
            let text = refusal(allowing(&others), body);
            assert!(text.contains(&format!("add \"{method}\" to require_auth")), "{text}");
            assert!(TestLogin::new(allowing(&[*method])).take(body).is_ok());
        }
    }

    #[test]
    fn the_error_for_a_missing_password_states_how_to_set_it() {
        for password in [None, Some("")] {
            for body in [message(3, b""), message(5, b"salt"), message(10, PLAIN)] {
                let text = refusal(Credentials { password, ..credentials() }, &body);
                assert!(text.contains("password=") && text.contains("PGPASSWORD"), "{text}");
            }
        }
    }

    #[test]
    fn no_error_contains_the_password() {
        let text = refusal(Credentials { password: Some("sec\0ret"), ..credentials() }, &message(3, b""));
        assert!(text.contains("NUL") && !text.contains("sec"), "{text}");
    }

    #[test]
    fn an_unsupported_method_is_named() {
        let named =
            [(2, "Kerberos V5"), (7, "GSSAPI"), (8, "GSSAPI"), (9, "SSPI"), (99, "number 99"), (-1, "number -1")];
        for (code, name) in named {
            let text = refusal(credentials(), &message(code, b"any"));
            assert!(text.contains(name) && text.contains("scram-sha-256"), "{text}");
        }
        assert!(refusal(credentials(), &message(10, b"OAUTHBEARER\0\0")).contains("OAUTHBEARER"));
        let text = refusal(credentials(), &message(10, &[&[b'\n'; 500][..], b"\0\0"].concat()));
        assert!(text.len() < 400 && !text.contains('\n'), "{text}");
    }

    #[test]
    fn malformed_messages_are_rejected() {
        let damaged: [(i32, &[u8]); 10] = [
            (0, b"x"),
            (3, b"x"),
            (5, b""),
            (5, b"sal"),
            (5, b"salty"),
            (10, b""),
            (10, b"\0"),
            (10, b"\0\0"),
            (10, b"SCRAM-SHA-256\0"),
            (10, b"SCRAM-SHA-256\0\0\0"),
        ];
        for (code, rest) in damaged {
            let error = TestLogin::new(credentials()).refuses(&message(code, rest));
            assert!(matches!(error, Error::Protocol(ProtocolError::Malformed { .. })), "{code} {rest:?}: {error:?}");
        }
    }

    #[test]
    fn messages_out_of_order_are_rejected() {
        let requests =
            [ok(), message(3, b""), message(5, b"salt"), message(10, PLAIN), message(11, b""), message(12, b"")];
        let arrange = |steps: &[&[u8]]| {
            let mut login = TestLogin::new(credentials());
            steps.iter().for_each(|step| drop(login.take(step).unwrap()));
            login
        };
        let out_of_order = |login: &mut TestLogin<'_>, body: &[u8]| {
            let error = login.refuses(body);
            assert!(matches!(error, Error::Protocol(ProtocolError::Unexpected { .. })), "{body:?}: {error:?}");
        };
        for early in &requests[4..] {
            out_of_order(&mut arrange(&[]), early);
        }
        for second in &requests {
            out_of_order(&mut arrange(&[&ok()]), second);
        }
        for second in requests.iter().skip(1) {
            out_of_order(&mut arrange(&[&message(3, b"")]), second);
            out_of_order(&mut arrange(&[&message(5, b"salt")]), second);
        }
        for second in [&requests[1], &requests[2], &requests[3], &requests[5]] {
            out_of_order(&mut arrange(&[&message(10, PLAIN)]), second);
        }
    }

    proptest! {
        #[test]
        fn a_truncated_message_never_authenticates(cut_short in 0..7_usize, keep in 0.0..1.0_f64) {
            let shorten = |at: usize, body: Vec<u8>| {
                let length = if at == cut_short { (body.len() as f64 * keep) as usize } else { body.len() };
                body[..length].to_vec()
            };
            let let_in = |bodies: &mut dyn FnMut(&mut TestLogin<'_>) -> Result<bool, Error>| {
                bodies(&mut TestLogin::new(credentials())).is_ok_and(|is_authenticated| is_authenticated)
            };
            let by_scram = let_in(&mut |login| {
                let offer = shorten(0, message(10, BOTH));
                if offer.len() < BOTH.len() + 4 {
                    login.take(&offer)?;
                }
                let server = ScramServer::greet(login, BOTH, 37);
                let (_, proof) = login.take(&shorten(1, server.challenge()))?;
                // A shorter iteration count is also a number, so only the server's signature shows the difference.
                let outcome = if cut_short == 1 {
                    message(12, format!("v={}", BASE64.encode([0; 32])).as_bytes())
                } else {
                    server.verify(&proof, b"")
                };
                login.take(&shorten(2, outcome))?;
                Ok(login.take(&shorten(3, ok()))?.0)
            });
            let by_md5 = let_in(&mut |login| {
                login.take(&shorten(4, message(5, b"salt")))?;
                Ok(login.take(&shorten(3, ok()))?.0)
            });
            let by_password = let_in(&mut |login| {
                login.take(&shorten(5, message(3, b"")))?;
                Ok(login.take(&shorten(3, ok()))?.0)
            });
            prop_assert_eq!(by_scram, cut_short > 3);
            prop_assert_eq!(by_md5, cut_short != 3 && cut_short != 4);
            prop_assert_eq!(by_password, cut_short != 3 && cut_short != 5);
        }

        #[test]
        fn for_any_messages_only_ok_authenticates_and_nothing_panics(
            bodies in prop::collection::vec(
                (0..14_i32, prop::collection::vec(prop_oneof![Just(0_u8), Just(b','), Just(b'='), any::<u8>()], 0..40)),
                0..6,
            ),
        ) {
            let mut login = TestLogin::new(allowing(&[AuthMethod::ScramSha256, AuthMethod::Md5]));
            let mut failed = false;
            for (code, rest) in bodies {
                match login.take(&message(code, &rest)) {
                    Ok((is_authenticated, _)) => {
                        prop_assert!(!failed);
                        prop_assert!(!is_authenticated || code == 0);
                    }
                    Err(_) => failed = true,
                }
            }
        }
    }
}
