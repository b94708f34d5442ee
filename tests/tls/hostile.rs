//! Peers that violate the protocol before TLS has begun.

use std::time::Duration;

use notifyman::{Connection, Error, SslMode, TlsErrorKind};

use crate::support::server::{config, refused};
use crate::support::{Peer, Step, msg};

const STRICT: [SslMode; 2] = [SslMode::Prefer, SslMode::Require];

/// Returns the error of a client whose SSLRequest is answered with this.
fn answered(answer: &'static [u8], mode: SslMode) -> Error {
    let peer = Peer::play(vec![Step::ssl_request(answer), Step::pause(Duration::from_millis(50))]);
    refused(config(&peer.url()).sslmode(mode).connect_timeout(Duration::from_secs(20)))
}

#[test]
fn unencrypted_bytes_after_the_servers_yes_are_fatal() {
    for mode in STRICT {
        let ready = [b"S".as_slice(), &msg::login()].concat();
        let error = answered(Box::leak(ready.into_boxed_slice()), mode);
        assert!(error.is_protocol() && format!("{error:#}").contains("injected"), "{mode}: {error}");
        assert!(!error.is_transient());
    }
}

#[test]
fn later_unencrypted_bytes_are_fatal_too() {
    let peer = Peer::play(vec![
        Step::ssl_request(b"S"),
        Step::pause(Duration::from_millis(100)),
        Step::send([msg::login()]),
        Step::pause(Duration::from_millis(50)),
    ]);
    let error = refused(config(&peer.url()).sslmode(SslMode::Require));
    assert_eq!(error.tls().unwrap().kind(), TlsErrorKind::Handshake, "{error}");
    assert!(format!("{error:#}").contains("does not support TLS"), "{error}");
}

#[test]
fn an_error_in_answer_is_reported_as_unverified() {
    let fatal = msg::error("FATAL", "28P01", "fork failed\x1b[31m\nwith a line of its own");
    let error = answered(Box::leak(fatal.into_boxed_slice()), SslMode::Require);
    assert_eq!(error.tls().unwrap().kind(), TlsErrorKind::Interrupted, "{error}");
    assert!(error.is_transient() && !error.is_auth() && error.sqlstate().is_none(), "{error}");
    let text = format!("{error:#}");
    assert!(text.contains("fork failed") && text.contains("unauthenticated"), "{text}");
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[test]
fn after_an_error_in_answer_prefer_opens_an_unencrypted_connection() {
    let fatal = Box::leak(msg::error("FATAL", "XX000", "could not fork").into_boxed_slice());
    let peer = Peer::play_each(vec![
        vec![Step::ssl_request(fatal), Step::expect_eof()],
        vec![Step::startup(), Step::login_ok(), Step::expect_eof()],
    ]);
    drop(Connection::connect(config(&peer.url())).unwrap());
    peer.finish();
}

#[test]
fn any_other_answer_is_not_from_a_postgresql_server() {
    for answer in [b"H".as_slice(), b"HTTP/1.1 400 Bad Request\r\n", b"\x15\x03\x03\0\x02\x02\x28", b"NN"] {
        for mode in STRICT {
            let error = answered(answer, mode);
            assert!(error.is_protocol(), "{mode} {answer:?}: {error}");
        }
    }
}

#[test]
fn an_error_during_the_handshake_is_reported() {
    // An alert instead of a ServerHello: handshake_failure.
    let error = answered(b"S", SslMode::Require);
    assert_eq!(error.tls().unwrap().kind(), TlsErrorKind::Interrupted, "{error}");
    let peer = Peer::play(vec![
        Step::ssl_request(b"S"),
        Step::pause(Duration::from_millis(50)),
        Step::send([b"\x15\x03\x03\0\x02\x02\x28"]),
        Step::pause(Duration::from_millis(50)),
    ]);
    let error = refused(config(&peer.url()).sslmode(SslMode::Require));
    assert_eq!(error.tls().unwrap().kind(), TlsErrorKind::NoCommonVersion, "{error}");
}
