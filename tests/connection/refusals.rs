//! C01: failures to open a connection. Each has a clear error that names the server and the role, never shows the password,
//! and is transient if a retry can succeed.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use notifyman::{Connection, Error};

use crate::support::server::{config, connect, eventually, refused, refusing_port, start};
use crate::support::{Options, Peer, Step, msg, subprocess, tools};

const SECRET: &str = "s3cr3t90210";

/// Asserts the format that every error must have.
fn assert_clear(error: &Error, port: u16, user: &str, dbname: &str) {
    let text = format!("{error:#}");
    for part in ["127.0.0.1", &port.to_string(), &format!("{user:?}"), &format!("{dbname:?}")] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains(SECRET) && !format!("{error:?}").contains(SECRET), "{error:?}");
    assert!(!text.contains('\n'), "{text:?}");
}

fn dsn(port: u16, user: &str, dbname: &str) -> String {
    format!("postgres://{user}:{SECRET}@127.0.0.1:{port}/{dbname}")
}

#[test]
fn c01_refusals_of_the_server_are_distinguished() {
    let server = start(Options::new().auth("scram-sha-256", "right"));
    let port = server.port();
    let wrong = refused(config(&dsn(port, "postgres", "postgres")));
    assert_eq!((wrong.sqlstate(), wrong.is_auth(), wrong.is_transient()), (Some("28P01"), true, false), "{wrong}");
    assert_clear(&wrong, port, "postgres", "postgres");

    let unknown = refused(config(&dsn(port, "postgres", "nowhere")).password("right"));
    assert_eq!(
        (unknown.sqlstate(), unknown.is_auth(), unknown.is_transient()),
        (Some("3D000"), false, false),
        "{unknown}"
    );
    assert_clear(&unknown, port, "postgres", "nowhere");

    // The server does not reveal that a role is unknown.
    let unknown = refused(config(&dsn(port, "unknown_role", "postgres")));
    assert_eq!((unknown.is_auth(), unknown.is_transient()), (true, false), "{unknown}");
    assert_clear(&unknown, port, "unknown_role", "postgres");
}

#[test]
fn c01_a_server_that_cannot_start_a_process_says_so_in_plain_text() {
    const TEXT: &[u8] = b"Ecould not fork new process for connection: Resource temporarily unavailable\n\0";
    for (mode, connections) in [("disable", 1), ("prefer", 2), ("require", 1)] {
        let connections = if cfg!(feature = "tls") { connections } else { 1 };
        if mode == "require" && !cfg!(feature = "tls") {
            continue;
        }
        let script = || {
            vec![
                Step::run("answers any packet", |wire| wire.read_packet().map(drop)),
                Step::send([TEXT]),
                Step::close(),
            ]
        };
        let peer = Peer::play_each((0..connections).map(|_| script()).collect());
        let error = refused(config(&format!("{}?sslmode={mode}", peer.url())));
        assert!(format!("{error:#}").contains("could not fork new process"), "{mode}: {error}");
        assert!(
            error.is_transient() && !error.is_protocol() && !format!("{error:#}").contains('\n'),
            "{mode}: {error}"
        );
        peer.finish();
    }
}

#[test]
fn c01_a_refusal_by_pg_hba_is_reported() {
    let server = start(Options::new().hba("host all outcast all reject"));
    let error = refused(config(&dsn(server.port(), "outcast", "postgres")));
    assert_eq!((error.sqlstate(), error.is_auth(), error.is_transient()), (Some("28000"), true, false), "{error}");
    assert_clear(&error, server.port(), "outcast", "postgres");
}

#[test]
fn c01_a_full_server_is_a_transient_error() {
    let server = start(Options::new().max_connections(5).setting("superuser_reserved_connections", "0"));
    let mut open: Vec<Connection> = (0..5).map(|_| connect(&server.url())).collect();
    let error = refused(config(&dsn(server.port(), "postgres", "postgres")));
    assert_eq!((error.sqlstate(), error.is_transient(), error.is_auth()), (Some("53300"), true, false), "{error}");
    assert_clear(&error, server.port(), "postgres", "postgres");
    open.pop();
    eventually("there is room again", || Connection::connect(config(&server.url())).is_ok());
}

#[test]
fn c01_a_server_that_is_starting_up_is_a_transient_error() {
    let peer = Peer::play(vec![
        Step::startup(),
        Step::send([msg::error("FATAL", "57P03", "the database system is starting up")]),
    ]);
    let port = peer.addr().port();
    let error = refused(config(&dsn(port, "app", "shop")));
    assert_eq!((error.sqlstate(), error.is_transient()), (Some("57P03"), true), "{error}");
    assert_clear(&error, port, "app", "shop");
}

#[test]
fn c01_a_server_that_does_not_run_is_a_transient_error() {
    let port = refusing_port();
    let error = refused(config(&dsn(port, "app", "shop")));
    assert!(error.is_transient() && !error.is_timeout(), "{error}");
    assert!(format!("{error:#}").contains("refused"), "{error}");
    assert_clear(&error, port, "app", "shop");

    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let error = refused(config(&dsn(port, "app", "shop")).connect_timeout(Duration::from_millis(200)));
    assert!(error.is_transient() && error.is_timeout(), "{error}");
    assert_clear(&error, port, "app", "shop");
}

#[test]
fn c01_the_error_names_the_path_of_a_missing_socket() {
    let error = refused(config(&format!("host=/no/such/directory user=app password={SECRET} dbname=shop")));
    let text = format!("{error:#}");
    for part in ["/no/such/directory/.s.PGSQL.5432", r#""app""#, r#""shop""#] {
        assert!(text.contains(part), "{text}");
    }
    assert!(error.is_transient() && !text.contains(SECRET), "{text}");
}

const NETWORK: &[&str] = &["unshare", "-n"];

#[test]
fn c01_an_unreachable_server_is_a_transient_error() {
    if tools::can_run(NETWORK) {
        subprocess::run_under(NETWORK, "connection::refusals::no_way", "true", &[]);
    }
}

#[test]
#[ignore = "needs a network of its own; the test above starts it"]
fn no_way() {
    if !subprocess::is_subprocess() {
        return;
    }
    // This network namespace has no other machine.
    let error = refused(config("postgres://app:s3cr3t90210@192.0.2.1:5432/shop"));
    let text = format!("{error:#}");
    for part in ["192.0.2.1:5432", r#""app""#, r#""shop""#, "unreachable"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(error.is_transient() && !error.is_timeout() && !text.contains(SECRET), "{text}");
}
