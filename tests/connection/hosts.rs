//! C01: the choice among several servers by `target_session_attrs` and `load_balance_hosts`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use notifyman::{Config, Connection, Error};

use crate::support::server::{ask, config, promote, refused, refusing_port, standby, start, utf8};
use crate::support::{Options, Peer, Step, msg, subprocess, tools};

/// Returns a connection string with these servers in this order.
fn hosts(ports: &[u16], attrs: &str) -> Config {
    let each: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    config(&format!("postgres://postgres@{}/postgres?target_session_attrs={attrs}", each.join(",")))
}

/// Returns the port of the chosen server.
fn taken(config: Config) -> u16 {
    let mut db = Connection::connect(&config).unwrap_or_else(|error| panic!("{config}: {error}"));
    ask(&mut db, "SHOW port").parse().unwrap()
}

#[test]
fn c01_the_first_server_with_the_wanted_role_is_used() {
    let (primary, standby) = (utf8(), standby());
    let timid = start(Options::new().setting("default_transaction_read_only", "on"));
    let (p, s, t) = (primary.port(), standby.port(), timid.port());
    for (ports, attrs, expected) in [
        (&[s, t, p][..], "any", s),
        (&[s, t, p], "read-write", p),
        (&[p, t, s], "read-only", t),
        (&[p, s, t], "read-only", s),
        (&[s, t, p], "primary", t),
        (&[p, t, s], "standby", s),
        (&[p, t, s], "prefer-standby", s),
        (&[refusing_port(), p, t], "prefer-standby", p),
        (&[refusing_port(), s, p], "primary", p),
    ] {
        assert_eq!(taken(hosts(ports, attrs)), expected, "{attrs} among {ports:?}");
    }
    for (ports, attrs, found) in [
        (&[p][..], "standby", "the server is no standby"),
        (&[s], "primary", "the server is a standby"),
        (&[s, t], "read-write", "the session is read-only"),
        (&[p], "read-only", "the session may write"),
    ] {
        let error = refused(hosts(ports, attrs));
        let text = format!("{error:#}");
        assert!(text.contains(found) && text.contains(&format!("target_session_attrs={attrs}")), "{text}");
        assert!(text.contains(&format!("127.0.0.1:{}", ports[0])) && text.contains("postgres"), "{text}");
        assert!(error.is_transient() && !error.is_auth(), "a failover changes it: {text}");
        let Error::Connect(inner) = &error else { panic!("{text}") };
        assert!(matches!(inner.cause(), Error::Target { .. }), "{text}");
    }
}

#[test]
fn c01_the_error_for_listen_on_a_standby_says_how_to_reach_the_primary() {
    let standby = standby();
    let mut db = Connection::connect(config(&standby.url())).unwrap();
    let error = db.listen(["news"]).unwrap_err();
    assert_eq!(error.sqlstate(), Some("25006"), "{error}");
    assert!(format!("{error:#}").contains("target_session_attrs=primary"), "{error}");
    assert!(!db.is_closed() && ask(&mut db, "SELECT 1") == "1", "the connection is as good as before");
    // Other errors contain no advice about LISTEN.
    let other = db.execute("CREATE TABLE t ()").unwrap_err();
    assert_eq!((other.sqlstate(), other.server().unwrap().hint()), (Some("25006"), None));

    promote(&standby);
    db.listen(["news"]).unwrap();
    assert_eq!(taken(hosts(&[standby.port()], "primary")), standby.port());
}

/// A server before version 14, which does not report its role, and answers this query with `value`.
fn old_server(question: &str, value: &'static str) -> Peer {
    let answer =
        [msg::row_description(&["x"]), msg::data_row(&[Some(value)]), msg::command_complete("x"), msg::ready(b'I')];
    Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_query(question),
        Step::send(answer),
        Step::expect_eof(),
    ])
}

#[test]
fn c01_a_server_that_does_not_report_its_role_is_queried() {
    const WRITES: &str = "SHOW transaction_read_only";
    const RECOVERS: &str = "SELECT pg_catalog.pg_is_in_recovery()";
    for (attrs, question, value, fits) in [
        ("read-write", WRITES, "off", true),
        ("read-write", WRITES, "on", false),
        ("read-only", WRITES, "on", true),
        ("primary", RECOVERS, "f", true),
        ("primary", RECOVERS, "t", false),
        ("standby", RECOVERS, "t", true),
    ] {
        let peer = old_server(question, value);
        let opened = Connection::connect(hosts(&[peer.addr().port()], attrs));
        assert_eq!(opened.is_ok(), fits, "{attrs}: {value}");
        drop(opened);
        let received = peer.finish();
        assert_eq!(
            received[0].messages.last().map(|(tag, _)| *tag),
            Some(b'X'),
            "a rejected server receives Terminate"
        );
    }
}

#[test]
fn c01_after_a_server_that_fails_the_query_the_next_is_tried() {
    let failing = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_any_query(),
        Step::send([msg::error("ERROR", "42501", "no"), msg::ready(b'I')]),
        Step::expect_eof(),
    ]);
    assert_eq!(taken(hosts(&[failing.addr().port(), utf8().port()], "primary")), utf8().port());
    failing.finish();
}

#[test]
fn c01_with_random_load_balancing_all_hosts_are_tried() {
    let other = start(Options::new());
    let ports = [utf8().port(), refusing_port(), other.port()];
    let at_random = hosts(&ports, "any&load_balance_hosts=random");
    let mut seen = BTreeSet::new();
    // A hundred draws always choose the same host with a probability of 2^-99.
    for _ in 0..100 {
        seen.insert(taken(at_random.clone()));
        if seen.len() == 2 {
            break;
        }
    }
    assert_eq!(seen, BTreeSet::from([utf8().port(), other.port()]));
    assert_eq!(taken(hosts(&ports, "any&load_balance_hosts=disable")), ports[0]);
}

const MOUNTS: &[&str] = &["unshare", "-m"];

#[test]
fn c01_a_name_with_the_addresses_of_a_whole_cluster_leads_to_its_primary() {
    if tools::can_run(MOUNTS) {
        let hosts = std::env::temp_dir().join(format!("notifyman-cluster-{}", std::process::id()));
        std::fs::write(&hosts, "127.0.0.2 cluster.notifyman.test\n127.0.0.3 cluster.notifyman.test\n").unwrap();
        let shell = "mount --bind \"$HOSTS\" /etc/hosts";
        subprocess::run_under(
            MOUNTS,
            "connection::hosts::name_of_a_cluster",
            shell,
            &[("HOSTS", hosts.to_str().unwrap())],
        );
        std::fs::remove_file(hosts).unwrap();
    }
}

#[test]
#[ignore = "needs a table of hosts of its own; the test above starts it"]
fn name_of_a_cluster() {
    if !subprocess::is_subprocess() {
        return;
    }
    let port = refusing_port();
    let server = |last: u8, is_standby: &str, visits: usize| {
        let login = [
            msg::auth_ok(),
            msg::parameter_status("client_encoding", "UTF8"),
            msg::parameter_status("in_hot_standby", is_standby),
            msg::parameter_status("default_transaction_read_only", "off"),
            msg::ready(b'I'),
        ];
        let script = || vec![Step::startup(), Step::send(login.clone()), Step::expect_eof()];
        let scripts = std::iter::repeat_with(script).take(visits).collect();
        Peer::on(SocketAddr::from(([127, 0, 0, last], port)), scripts)
    };
    // libpq would try no further address of the name after a standby.
    let (standby, primary) = (server(2, "on", 1), server(3, "off", 2));
    let dsn =
        |attrs: &str| config(&format!("host=cluster.notifyman.test port={port} user=u target_session_attrs={attrs}"));
    for attrs in ["primary", "read-write"] {
        // The standby accepts one connection only.
        Connection::connect(dsn(attrs)).unwrap();
    }
    standby.finish();
    primary.finish();
}
