//! C02: scripted servers that violate the login protocol. The client closes the connection and reports the violation.

use notifyman::Connection;

use crate::support::server::{LIMIT, config, refused};
use crate::support::{Peer, Step, msg};

/// Reads the client's first SCRAM message, and answers with this suffix of the nonce, salt and iteration count.
fn scram_first(server: &'static str) -> Step {
    Step::run("answer the first SCRAM message", move |wire| {
        let (tag, body) = wire.read_message()?.ok_or("the client closed instead")?;
        let text = String::from_utf8_lossy(&body).into_owned();
        let nonce = text.split(",r=").nth(1).ok_or(format!("got {:?} with {text:?}", tag as char))?;
        wire.write(&msg::auth_sasl_continue(&server.replace("NONCE", nonce)))
    })
}

/// Attempts a SCRAM login with this script after the server's request, and returns the error.
fn scram(script: impl IntoIterator<Item = Step>) -> notifyman::Error {
    let begin = std::time::Instant::now();
    let asked = [Step::startup(), Step::send([msg::auth_sasl(&["SCRAM-SHA-256"])])];
    let peer = Peer::play(asked.into_iter().chain(script).chain([Step::expect_eof()]).collect());
    let error = refused(config(&peer.url()).password("pencil"));
    peer.finish();
    assert!(begin.elapsed() < LIMIT, "it was not made to work for long");
    assert!(!format!("{error:#}").contains("pencil") && !format!("{error:?}").contains("pencil"), "{error:?}");
    error
}

const GOOD: &str = "r=NONCEmore,s=c2FsdHNhbHRzYWx0c2FsdA==,i=4096";

#[test]
fn c02_a_scram_signature_that_does_not_verify_is_refused() {
    for signature in ["v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "v=", "e=other-error", "x", ""] {
        let last = [msg::auth_sasl_final(signature), msg::login()];
        let error = scram([scram_first(GOOD), Step::expect(b'p'), Step::send(last)]);
        assert!(error.is_protocol() || error.is_auth(), "{signature:?}: {error}");
        assert!(!error.is_transient(), "{signature:?}: {error}");
    }
}

#[test]
fn c02_a_server_that_skips_its_scram_signature_is_refused() {
    let error = scram([Step::expect(b'p'), Step::send([msg::login()])]);
    assert!(error.is_protocol(), "before its first message: {error}");
    let error = scram([scram_first(GOOD), Step::expect(b'p'), Step::send([msg::login()])]);
    assert!(error.is_protocol(), "before its last: {error}");
}

#[test]
fn c02_a_server_that_demands_too_many_scram_iterations_is_refused() {
    for count in ["2000000000", "4294967295", "99999999999999999999", "0", "-1", ""] {
        let first: &'static str = format!("r=NONCEmore,s=c2FsdHNhbHRzYWx0c2FsdA==,i={count}").leak();
        let error = scram([scram_first(first)]);
        assert!(error.is_protocol() || error.is_auth(), "{count}: {error}");
    }
}

#[test]
fn c02_a_nonce_that_does_not_begin_with_the_clients_is_refused() {
    for first in
        ["r=other,s=c2FsdA==,i=4096", "r=,s=c2FsdA==,i=4096", "r=NONCE", "", "m=ext,r=NONCEmore,s=c2FsdA==,i=4096"]
    {
        let error = scram([scram_first(first)]);
        assert!(error.is_protocol() || error.is_auth(), "{first:?}: {error}");
    }
}

#[test]
fn c02_a_server_that_requests_a_weaker_method_during_scram_receives_no_password() {
    for weaker in [msg::auth_cleartext(), msg::auth_md5([1, 2, 3, 4]), msg::auth_sasl(&["SCRAM-SHA-256"])] {
        let error = scram([Step::expect(b'p'), Step::send([weaker])]);
        assert!(error.is_protocol(), "{error}");
    }
}

#[test]
fn c02_the_error_names_an_unsupported_method() {
    for (request, name) in [
        (msg::auth(2, b""), "Kerberos"),
        (msg::auth(7, b""), "GSS"),
        (msg::auth(9, b""), "SSPI"),
        (msg::auth_sasl(&["OAUTHBEARER"]), "OAUTHBEARER"),
    ] {
        let peer = Peer::play(vec![Step::startup(), Step::send([request]), Step::expect_eof()]);
        let error = refused(config(&peer.url()).password("pencil"));
        assert!(format!("{error:#}").contains(name), "{name}: {error}");
        peer.finish();
    }
}

#[test]
fn c02_messages_before_the_login_are_not_trusted() {
    for early in [
        msg::notification(1, "a", "forged"),
        msg::parameter_status("server_version", "17"),
        msg::backend_key_data(1, &[0; 4]),
        msg::ready(b'I'),
        msg::command_complete("SELECT 1"),
    ] {
        let peer = Peer::play(vec![Step::startup(), Step::send([early, msg::login()]), Step::expect_eof()]);
        let error = Connection::connect(config(&peer.url())).expect_err("a login that never was");
        assert!(error.is_protocol(), "{error}");
        drop(peer);
    }
}
