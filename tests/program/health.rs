//! `--health` of `listen` and `worker`. That of `relay` is tested with it, and its clients in the program's own tests.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;
use crate::support::server::{eventually, refusing_port};

/// Asks a health server. Returns the status and the body.
pub(super) fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Returns the address that the program has printed.
pub(super) fn address_of(running: &Running) -> String {
    let line = std::iter::repeat_with(|| running.err.next()).find(|line| line.contains("/health")).unwrap();
    line.rsplit_once("//").unwrap().1.to_owned()
}

/// Asserts that something is not delivered, for this reason.
#[track_caller]
fn assert_red(address: &str, reason: &str) {
    let is_red = || {
        let (status, body) = get(address, "/health");
        status == 503 && body.contains(reason)
    };
    eventually("/health is red", is_red);
}

fn assert_green(address: &str) {
    eventually("/health is green", || get(address, "/health").0 == 200);
}

#[test]
fn r07_health_of_listen_is_red_while_a_connection_is_not_open() {
    let mut server = cluster();
    let nowhere = format!("nowhere=postgres://app@127.0.0.1:{}/x", refusing_port());
    let url = format!("shop={}", server.url());
    let args = ["listen", "-u", &url, "--health", "127.0.0.1:0", "prices"];
    let listeners: Vec<_> = [&[][..], &["--exec", "true"], &["-u", &nowhere]]
        .map(|more: &[&str]| Running::start(&[&args[..], more].concat()))
        .into();
    let addresses: Vec<_> = listeners.iter().map(address_of).collect();
    assert_red(&addresses[2], "nowhere: ");
    addresses[..2].iter().for_each(|address| assert_green(address));
    connect(&server).notify("prices", "1").unwrap();
    for address in &addresses[..2] {
        let received = "notifyman_source_received_total{source=\"shop\"} 1";
        eventually("it is counted", || get(address, "/metrics").1.contains(received));
        let metrics = get(address, "/metrics").1;
        assert!(metrics.contains("notifyman_source_up{source=\"shop\"} 1"), "{metrics}");
        assert!(metrics.contains("# HELP notifyman_source_up "), "{metrics}");
    }
    server.stop().unwrap();
    addresses[..2].iter().for_each(|address| assert_red(address, "shop: "));
    server.restart().unwrap();
    addresses[..2].iter().for_each(|address| assert_green(address));
    let lasting = || get(&addresses[2], "/health");
    eventually("one is left", || lasting().0 == 503 && !lasting().1.contains("shop: "));
}

#[test]
fn r07_health_of_a_worker_is_red_while_it_reads_no_log() {
    let server = cluster();
    let mut db = connect(&server);
    db.execute("CREATE TABLE price (id int PRIMARY KEY)").unwrap();
    run(&["build", "--delivery", "log", &server.url()]).ends_with(0);
    let start = || Running::start(&["worker", "--from", "cache", "--health", "127.0.0.1:0", &server.url()]);
    let first = start();
    let address = address_of(&first);
    assert_green(&address);
    let details = get(&address, "/health").1;
    assert!(details.contains("\"open\":true") && details.contains("\"proven_age_ms\":"), "{details}");

    let second = start();
    let of_second = address_of(&second);
    assert_red(&of_second, "another worker of the name");
    assert_green(&address);
    first.signal("TERM");
    first.finish().ends_with(143);
    assert_green(&of_second);

    db.execute("ALTER TABLE notifyman.position RENAME TO moved").unwrap();
    db.execute("INSERT INTO price VALUES (1)").unwrap();
    assert_red(&of_second, "could not save the position");
    db.execute("ALTER TABLE notifyman.moved RENAME TO position").unwrap();
    assert_green(&of_second);
}

#[test]
fn r07_an_address_of_health_that_is_none_is_refused_before_anything_starts() {
    let commands: [&[&str]; 3] =
        [&["listen", "prices"], &["worker"], &["relay", "--to", "redis://localhost", "prices"]];
    for command in commands {
        for (address, advice) in [
            ("9187", "expected an address and a port: 127.0.0.1:9187"),
            (":9188", "expected an address and a port: 127.0.0.1:9188"),
            ("localhost", "such as 127.0.0.1:9187"),
            ("127.0.0.1:99999", "such as 127.0.0.1:9187"),
            ("127.0.0.1:9187/health", "such as 127.0.0.1:9187"),
        ] {
            let refused = run(&[command, &["--health", address]].concat());
            refused.ends_with(2);
            let err = refused.err();
            assert!(err.starts_with("error: invalid value") && err.contains(advice), "{command:?} {address}: {err}");
        }
    }
}
