//! Properties of the login for any messages of an unauthenticated peer, checked by proptest and used as a fuzz body.

use bytes::BytesMut;

use super::{AuthExchange, Binding, Credentials};
use crate::config::AuthMethods;
use crate::proto::ssl_request::{SslRequest, SslResponse};

const PASSWORD: &str = "s3cr3t90210";

/// Handles an answer to the SSLRequest and the messages of a login. The first two bytes configure the client, the third
/// splits the answer in two, and the rest are messages, each after its length.
pub(crate) fn fuzz_handshake(data: &[u8]) {
    let [setup, methods, cut, rest @ ..] = data else { return };
    ask_for_tls(rest, usize::from(*cut));
    log_in(rest, *setup, *methods);
}

/// Checks that only the single byte `S` accepts TLS and that any bytes after it are rejected, for every split.
fn ask_for_tls(answer: &[u8], cut: usize) {
    let whole = SslRequest::new().handle_input(answer);
    assert_eq!(whole == Ok(Some(SslResponse::Yes)), answer == b"S");
    let (first, second) = answer.split_at(cut.min(answer.len()));
    let mut request = SslRequest::new();
    let in_two = match request.handle_input(first) {
        Ok(None) => request.handle_input(second),
        decided => decided,
    };
    match in_two {
        Ok(Some(SslResponse::Yes)) => assert_eq!(answer.first(), Some(&b'S')),
        Ok(Some(SslResponse::No)) => assert_eq!(answer.first(), Some(&b'N')),
        Ok(Some(SslResponse::Error(_)) | None) => assert!(whole.is_ok(), "{whole:?}"),
        Err(fault) => assert!(!fault.to_string().contains('\n')),
    }
}

/// Checks that a client that requires SCRAM never authenticates a peer that does not know the password, and that the
/// password is sent in clear text only if that is allowed and requested.
fn log_in(messages: &[u8], setup: u8, methods: u8) {
    // An error contains text of the server, and a fuzzer may find the password in this program and send it as the
    // server.
    if messages.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()) {
        return;
    }
    let names = ["none", "password", "md5", "scram-sha-256"];
    let listed = names.iter().enumerate().filter(|(bit, _)| methods & 1 << bit != 0).map(|(_, name)| *name);
    let listed = listed.collect::<Vec<_>>().join(",");
    let Ok(allowed) = AuthMethods::parse(&listed) else { return };
    let binding = match setup & 3 {
        0 => Binding::Unencrypted,
        1 => Binding::Unbindable,
        2 => Binding::Disabled,
        _ => Binding::EndPoint(vec![7; 32]),
    };
    let binding_required = setup & 4 != 0;
    let credentials =
        Credentials { user: "ann", password: Some(PASSWORD), allowed, binding_required, binding: &binding };
    let demands_proof = binding_required || listed == "scram-sha-256";
    let gives_password = listed.is_empty() || listed.contains("password");

    let mut exchange = AuthExchange::default();
    let mut rest = messages;
    while let Some((&length, after)) = rest.split_first() {
        let (body, next) = after.split_at(usize::from(length).min(after.len()));
        rest = next;
        let mut answer = BytesMut::new();
        match exchange.handle_message(body, &credentials, &mut answer) {
            Ok(()) => {
                let shown = answer.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
                assert!(!shown || (gives_password && !binding_required && body == 3_i32.to_be_bytes()));
                if exchange.is_authenticated() {
                    assert!(!demands_proof && body == 0_i32.to_be_bytes());
                    return;
                }
            }
            Err(error) => {
                let text = error.to_string();
                assert!(!text.contains(PASSWORD) && !text.contains('\n'), "{text}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Vec<u8>> {
        let body = prop_oneof![
            Just(b"".to_vec()),
            Just(b"salt".to_vec()),
            Just(b"SCRAM-SHA-256\0SCRAM-SHA-256-PLUS\0\0".to_vec()),
            Just(b"SCRAM-SHA-256\0\0".to_vec()),
            Just(b"v=AAAA".to_vec()),
            prop::collection::vec(any::<u8>(), 0..20),
        ];
        (prop_oneof![0..13_i32, any::<i32>()], body).prop_map(|(code, body)| {
            let message = [code.to_be_bytes().as_slice(), &body].concat();
            [&[message.len() as u8], message.as_slice()].concat()
        })
    }

    proptest! {
        #[test]
        fn properties_hold_for_any_messages(
            head in prop::array::uniform3(any::<u8>()),
            messages in prop_oneof![
                prop::collection::vec(message(), 0..5),
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..3),
                Just(vec![b"S".to_vec()]),
            ],
        ) {
            fuzz_handshake(&[head.as_slice(), &messages.concat()].concat());
        }
    }
}
