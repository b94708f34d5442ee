//! Connections that cannot be opened.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use notifyman::{Config, Diagnosis, FindingKind, Severity};

use super::{config, found};
use crate::support::server::refusing_port;
use crate::support::{Cluster, Options, Peer, Step, msg};

/// Checks that the only finding is a failure of this kind whose text contains `says`.
fn only(diagnosis: &Diagnosis, kind: FindingKind, says: &str) {
    let finding = found(diagnosis, kind);
    assert_eq!((diagnosis.findings().len(), finding.severity()), (1, Severity::Failure), "{diagnosis}");
    assert!(diagnosis.to_string().contains(says), "{diagnosis}");
    assert_eq!((diagnosis.latency(), diagnosis.server_version(), diagnosis.queue_usage()), (None, None, None));
    assert!(diagnosis.checked().is_empty() && diagnosis.tls().is_none());
}

/// Returns the diagnosis for a server that answers the login with this error.
fn refused_with(error: Vec<u8>) -> Diagnosis {
    let peer = Peer::play(vec![Step::startup(), Step::send([error])]);
    let diagnosis = Diagnosis::of(config(&peer.url()));
    peer.finish();
    diagnosis
}

#[test]
fn m17_invalid_settings_are_a_finding() {
    only(&Diagnosis::of("host=db port=seventy"), FindingKind::Settings, "port");
    #[cfg(not(feature = "tls"))]
    only(&Diagnosis::of("host=db sslmode=require"), FindingKind::Tls, "feature `tls`");
}

#[test]
fn m17_a_port_without_a_listener_is_refused() {
    let free = format!("127.0.0.1:{}", refusing_port());
    let diagnosis = Diagnosis::of(config(&format!("postgres://app@{free}/shop")));
    only(&diagnosis, FindingKind::Refused, "listen_addresses");
    assert!(diagnosis.target().contains(&free));
}

#[test]
fn m17_a_missing_socket_is_refused() {
    only(&Diagnosis::of(config("host=/nowhere/at/all user=app")), FindingKind::Refused, "unix_socket_directories");
}

#[test]
fn m17_a_name_that_does_not_exist_is_not_found() {
    let diagnosis = Diagnosis::of(config("host=nobody.invalid user=app connect_timeout=10"));
    only(&diagnosis, FindingKind::NameNotFound, "nobody.invalid");
}

#[test]
fn m17_a_silent_server_is_unreachable_within_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config::new().hostaddr("127.0.0.1".parse().unwrap()).port(silent.local_addr().unwrap().port());
    let begin = Instant::now();
    let diagnosis = Diagnosis::of(config.user("app").connect_timeout(Duration::from_millis(300)));
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    only(&diagnosis, FindingKind::Unreachable, "does not answer");
}

#[test]
fn m17_each_kind_of_failure_among_addresses_is_reported() {
    let free = refusing_port();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = format!("{free},{},{free}", silent.local_addr().unwrap().port());
    let diagnosis =
        Diagnosis::of(config(&format!("host=127.0.0.1,127.0.0.1,127.0.0.1 port={ports} user=app connect_timeout=1")));
    assert_eq!(diagnosis.findings().len(), 2, "{diagnosis}");
    found(&diagnosis, FindingKind::Unreachable);
    let refused = found(&diagnosis, FindingKind::Refused).evidence().unwrap();
    assert_eq!(refused.matches(&format!("127.0.0.1:{free}")).count(), 2, "{refused}");
}

#[test]
fn m17_a_wrong_password_and_an_unknown_database_are_distinguished() {
    let server = Cluster::start(Options::new().auth("scram-sha-256", "right")).unwrap();
    let to = |password: &str, dbname: &str| {
        Diagnosis::of(config(&server.url()).password(password).dbname(dbname).connect_timeout(Duration::from_secs(60)))
    };
    only(&to("wrong", "postgres"), FindingKind::Login, "28P01");
    only(&to("right", "nowhere"), FindingKind::NoSuchDatabase, "nowhere");
    only(&to("", "postgres"), FindingKind::Login, "password");
    assert!(to("right", "postgres").worst() < Severity::Failure);
    let wrong = to("secret-as-can-be", "postgres");
    assert!(!format!("{wrong}{wrong:?}").contains("secret-as-can-be"));
}

#[test]
fn m17_a_server_that_requires_tls_is_distinguished_from_an_unknown_role() {
    let server = Cluster::start(Options::new().hba("host all postgres all reject")).unwrap();
    only(&Diagnosis::of(config(&server.url())), FindingKind::Tls, "hostssl");
    only(&Diagnosis::of(config(&server.url()).user("nobody_of_that_name")), FindingKind::Login, "28000");
}

#[test]
fn m17_a_server_that_is_full_or_starting_is_reported() {
    let full = refused_with(msg::error("FATAL", "53300", "sorry, too many clients already"));
    only(&full, FindingKind::TooManyConnections, "max_connections");
    let starting = refused_with(msg::error("FATAL", "57P03", "the database system is starting up"));
    only(&starting, FindingKind::NotAccepting, "starting up");
    let forbidden = refused_with(msg::error("FATAL", "42501", "permission denied for database \"shop\""));
    only(&forbidden, FindingKind::NoPermission, "GRANT CONNECT");
    let odd = refused_with(msg::error("FATAL", "08P01", "server login has been failing"));
    only(&odd, FindingKind::ConnectFailed, "server login has been failing");
}

#[test]
fn m17_a_peer_that_is_not_postgresql_is_reported() {
    let web = refused_with(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    only(&web, FindingKind::NotPostgres, "host and port");
}

#[test]
fn m17_a_connection_that_is_closed_during_the_login_is_reported() {
    let peer = Peer::play(vec![Step::startup(), Step::close()]);
    only(&Diagnosis::of(config(&peer.url())), FindingKind::Disconnected, "load balancer");
}
