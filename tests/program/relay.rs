//! `notifyman relay`: the command line, and its answers by HTTP. What it relays is tested in `tests/relay`.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use super::health::{address_of, get};
use super::*;
use crate::support::server::{eventually, refusing_port};
use crate::support::{EngineKind, EngineServer, engine};

#[test]
fn r07_health_is_red_whenever_nothing_is_relayed() {
    let server = cluster();
    if !engine::has(EngineKind::Redis) {
        return;
    }
    let mut engine = EngineServer::start(EngineKind::Redis, []);
    let url = format!("shop={}", server.url());
    let args = ["relay", "-u", &url, "--to", &engine.url(), "--health", "127.0.0.1:0", "--canary", "1s", "prices"];
    let relay = Running::start(&args);
    let address = &address_of(&relay);
    let health = |path| get(address, path);
    let is_green = || health("/health").0 == 200;
    eventually("the relay leads", || is_green() && health("/health").1.contains("leader"));
    let page = include_str!("../../src/docs/metrics.md");
    let documented: Vec<_> = page.split('`').filter(|name| name.starts_with("notifyman_relay_")).collect();
    assert_eq!(documented.len(), 6);
    let is_complete = || {
        let metrics = health("/metrics").1;
        documented
            .iter()
            .all(|name| metrics.contains(&format!("# HELP {name} ")) && metrics.contains(&format!("\n{name}{{")))
    };
    eventually("all metrics are there", is_complete);
    let metrics = health("/metrics").1;
    assert!(metrics.contains("notifyman_relay_leader{stream=\"shop\"} 1"), "{metrics}");
    assert!(metrics.contains("notifyman_connections{connection=\"shop\",state=\"open\"} 1"), "{metrics}");
    assert_eq!((health("/").0, health("/healthy").0), (404, 404));

    engine.kill();
    eventually("red without the engine", || health("/health").0 == 503);
    assert!(health("/health").1.contains("\"problems\":[\"shop: "));
    engine.restart();
    eventually("green with the engine", is_green);

    let backend = connect(&server).query("SELECT pid FROM pg_locks WHERE locktype = 'advisory'").unwrap();
    let pid: u32 = backend[0].get(0).unwrap().parse().unwrap();
    crate::support::cluster::signal(pid, "STOP").unwrap();
    eventually("red without canaries", || health("/health").0 == 503);
    crate::support::cluster::signal(pid, "CONT").unwrap();
    eventually("green again", is_green);

    // Clients whose requests never end delay neither others nor the end.
    let mut endless = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
    write!(endless[0], "GET /health HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n").unwrap();
    write!(endless[1], "GET /health HTTP/1.1\r\n").unwrap();
    assert!(is_green());
    relay.signal("TERM");
    let finished = relay.finish();
    finished.ends_with(143);
    let end = finished.err.iter().rev().take(2).map(String::as_str).collect::<Vec<_>>();
    assert!(end[0] == "notifyman: shop: this relay has stopped" && !end[1].contains("away from"), "{end:?}");
}

#[test]
fn r01_wrong_requests_are_refused_and_faults_are_reported_without_secrets() {
    let engine_url = format!("redis://:very-secret@127.0.0.1:{}", refusing_port());
    let relay = |args: &[&str]| run(&[&["relay", "-u", "postgres://localhost/shop"], args].concat());
    relay(&["prices"]).ends_with(2);
    relay(&["--to", "redis://localhost"]).ends_with(2);
    let refused = relay(&["--to", "http://u:very-secret@localhost", "prices"]);
    refused.ends_with(2);
    assert!(refused.err().contains("redis") && !refused.err().contains("very-secret"), "{refused:?}");
    let refused = relay(&["--to", &engine_url, "notifyman_relay"]);
    refused.ends_with(2);
    assert!(refused.err().contains("reserved for the relays"), "{refused:?}");
    let twice = ["--url", "a=postgres://localhost/shop", "--url", "a=postgres://localhost/post"];
    let refused = relay(&[&twice[..], &["--to", &engine_url, "prices"]].concat());
    refused.ends_with(2);
    assert!(
        refused.err().contains("two databases have the label") && !refused.err().contains("relaying"),
        "{refused:?}"
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = relay(&["--to", &engine_url, "--health", &address, "prices"]);
    refused.ends_with(1);
    assert!(refused.err().contains(&format!("could not answer --health at {address}")), "{refused:?}");
    assert!(!refused.err().contains("relaying"), "{refused:?}");

    let server = cluster();
    let url = format!("shop={}", server.url());
    let running = Running::start(&["relay", "-u", &url, "--to", &engine_url, "prices"]);
    let mut lines = Vec::new();
    while !lines.iter().any(|line: &String| line.contains("shop: engine, retrying: ")) {
        lines.push(running.err.next());
    }
    running.signal("INT");
    let finished = running.finish();
    finished.ends_with(130);
    assert!(!lines.concat().contains("very-secret") && !finished.err().contains("very-secret"), "{lines:?}");
}

#[test]
fn listen_prints_what_relays_have_appended_and_names_channels_that_are_not_relayed() {
    let server = cluster();
    if !engine::has(EngineKind::Redis) {
        return;
    }
    let engine = EngineServer::start(EngineKind::Redis, []);
    let url = format!("shop={}", server.url());
    let relay = Running::start(&["relay", "-u", &url, "--to", &engine.url(), "--canary", "1s", "prices", "other"]);
    let from = ["listen", "--from", &engine.url(), "--stream", "shop", "--json"];
    let listener = Running::start(&[&from[..], &["-n", "2", "prices", "stock"]].concat());
    // The stream may have no entry yet.
    let lines = std::iter::repeat_with(|| listener.err.next());
    lines.take_while(|line| line != "notifyman: connection 1 listens to prices, stock at stream shop").for_each(
        |line| {
            assert!(line.contains("no entry of a relay"), "{line}");
        },
    );
    let missing = listener.err.next();
    assert!(missing.starts_with("notifyman: stream shop: channel \"stock\" is not relayed"), "{missing}");
    let mut db = connect(&server);
    db.notify_many([("prices", "1"), ("other", "2"), ("prices", "3")]).unwrap();
    let lines = [listener.out.next(), listener.out.next()];
    assert!(lines[0].contains("\"label\":\"shop\"") && lines[0].contains("\"payload\":\"1\""), "{lines:?}");
    assert!(lines[1].contains("\"payload\":\"3\""), "{lines:?}");
    listener.finish().ends_with(1);
    relay.signal("TERM");
    relay.finish().ends_with(143);
    run(&[&from[..2], &["redis://localhost", "prices"]].concat()).ends_with(2);
}

#[test]
fn r01_listen_from_runs_a_command_for_notifications_and_gaps_as_before_a_relay() {
    let mut server = cluster();
    if !engine::has(EngineKind::Redis) {
        return;
    }
    let engine = EngineServer::start(EngineKind::Redis, []);
    let url = format!("shop={}", server.url());
    let relay = Running::start(&["relay", "-u", &url, "--to", &engine.url(), "--canary", "1s", "prices"]);
    while !relay.err.next().ends_with("this relay is the leader") {}
    let print = r#"cat; echo " $NOTIFYMAN_CONNECTION $NOTIFYMAN_LABEL $NOTIFYMAN_CHANNEL ${NOTIFYMAN_PID-none} $NOTIFYMAN_GAP""#;
    let from = ["listen", "--from", &engine.url(), "--stream", "shop"];
    let listener = Running::start(&[&from[..], &["-n2", "--exec", print, "prices", "stock"]].concat());
    // The stream may have no entry yet.
    let messages = std::iter::repeat_with(|| listener.err.next()).filter(|line| !line.contains("no entry of a relay"));
    let messages = messages.take(2).collect::<Vec<_>>().join("\n");
    for message in [
        "notifyman: connection 1 listens to prices, stock at stream shop",
        "notifyman: connection 1, channel \"stock\": notifications may be missing: the session is lost: channel \"stock\" is not \
         relayed",
    ] {
        assert!(messages.contains(message), "{messages}");
    }
    let mut db = connect(&server);
    db.notify("prices", "1").unwrap();
    let first = [listener.out.next(), listener.out.next()].join("\n");
    assert!(first.contains(" 1 shop stock none notifications may be missing: "), "{first}");
    assert!(first.contains(&format!("1 1 shop prices {} ", db.pid())), "{first}");
    server.restart().unwrap();
    let gap = listener.out.next();
    assert!(gap.starts_with(" 1 shop prices none notifications may be missing: the channel was not"), "{gap}");
    let mut db = connect(&server);
    db.notify("prices", "2").unwrap();
    let finished = listener.finish();
    finished.ends_with(1);
    assert_eq!(finished.out, [format!("2 1 shop prices {} ", db.pid())]);

    let nowhere = format!("redis://:very-secret@127.0.0.1:{}", refusing_port());
    let listener = Running::start(&["listen", "--from", &nowhere, "--stream", "shop", "prices", "--exec", "echo run"]);
    let message = listener.err.next();
    assert!(
        message.starts_with("notifyman: nothing arrives from stream shop, retrying: redis://127.0.0.1:"),
        "{message}"
    );
    listener.signal("TERM");
    let finished = listener.finish();
    finished.ends_with(143);
    assert_eq!((finished.out(), message.contains("very-secret")), (String::new(), false));
}

#[test]
fn r03_a_channel_that_is_relayed_again_is_a_gap_for_its_commands_and_green() {
    let server = cluster();
    if !engine::has(EngineKind::Redis) {
        return;
    }
    let engine = EngineServer::start(EngineKind::Redis, []);
    let (url, to) = (format!("shop={}", server.url()), engine.url());
    let relay = |channels: &[&str]| {
        let relay = Running::start(&[&["relay", "-u", &url, "--to", &to, "--canary", "1s"], channels].concat());
        while !relay.err.next().ends_with("this relay is the leader") {}
        relay
    };
    let stop = |relay: Running| {
        relay.signal("TERM");
        relay.finish().ends_with(143);
    };
    let first = relay(&["prices", "stock"]);
    let print = r#"cat; echo " $NOTIFYMAN_CHANNEL $NOTIFYMAN_GAP""#;
    let listen = ["listen", "--from", &to, "--stream", "shop", "--health", "127.0.0.1:0", "--exec", print];
    let listener = Running::start(&[&listen[..], &["prices", "stock"]].concat());
    let address = address_of(&listener);
    eventually("all is relayed", || get(&address, "/health").0 == 200);

    stop(first);
    let second = relay(&["prices"]);
    // Gaps of one channel may be one.
    let until = |expected: [&str; 2]| {
        let mut left = expected.to_vec();
        while !left.is_empty() {
            let line = listener.out.next();
            left.retain(|start| !line.starts_with(start));
        }
    };
    until([" prices notifications may be missing: ", " stock notifications may be missing: the session is lost: "]);
    let (status, body) = get(&address, "/health");
    assert!(status == 503 && body.matches("is not relayed").count() == 1, "{body}");
    stop(second);
    let third = relay(&["prices", "stock"]);
    until([" prices notifications may be missing: ", " stock notifications may be missing: "]);
    eventually("all is relayed again", || get(&address, "/health").0 == 200);
    connect(&server).notify("stock", "7").unwrap();
    assert_eq!(listener.out.next(), "7 stock ");
    listener.signal("TERM");
    listener.finish().ends_with(143);
    stop(third);
}

#[test]
fn r09_worker_from_prints_the_changes_that_a_relay_has_appended() {
    let server = cluster();
    if !engine::has(EngineKind::Redis) {
        return;
    }
    let engine = EngineServer::start(EngineKind::Redis, []);
    let mut db = connect(&server);
    db.execute("CREATE TABLE price (id int PRIMARY KEY); CREATE TABLE stock (id int PRIMARY KEY)").unwrap();
    run(&["build", &server.url()]).ends_with(0);
    let url = format!("shop={}", server.url());
    let relay = Running::start(&["relay", "-u", &url, "--to", &engine.url(), "--canary", "1s", "--changes"]);
    while !relay.err.next().ends_with("this relay is the leader") {}
    let from = engine.url();
    let worker = ["worker", "--from", &from];
    let following = Running::start(&[&worker[..], &["--stream", "shop", "--table", "price"]].concat());
    assert_eq!(following.err.next(), "notifyman: database 1 is at stream shop");
    assert_eq!(following.err.next(), "notifyman: database 1 is connected");
    assert!(following.out.next().starts_with(r#"{"kind":"connected","database":1,"label":"shop","#));
    db.execute("INSERT INTO stock VALUES (1); INSERT INTO price VALUES (42)").unwrap();
    let line = following.out.next();
    assert!(line.starts_with(r#"{"kind":"change","database":1,"label":"shop","#) && line.contains("42"), "{line}");
    following.signal("TERM");
    following.finish().ends_with(143);
    let plain = Running::start(&["relay", "-u", &format!("plain={}", server.url()), "--to", &engine.url(), "a"]);
    while !plain.err.next().ends_with("this relay is the leader") {}
    let refused = run(&[&worker[..], &["--stream", "plain"]].concat());
    refused.ends_with(1);
    assert!(refused.err().contains("start all relays of the database with --changes"), "{refused:?}");
    for (args, message) in [
        (&[][..], "needs the label of each database as --stream"),
        (&["--from", "name", "--stream", "shop"], "--from takes one name, or the URLs"),
        (&["--stream", "shop", "postgres://localhost/shop"], "databases cannot be used with a relay"),
        (&["--stream", "shop", "--replay-since", "1d"], "--replay-since cannot be used with a relay"),
    ] {
        let refused = run(&[&worker[..], args].concat());
        refused.ends_with(2);
        assert!(refused.err().contains(message), "{refused:?}");
    }
    run(&["worker", "--from", "name", "--stream", "shop", &server.url()]).ends_with(2);
}

#[test]
fn r06_a_stream_that_does_not_exist_is_reported_immediately_and_the_password_is_in_the_environment() {
    if !engine::has(EngineKind::Redis) {
        return;
    }
    let engine = EngineServer::start(EngineKind::Redis, ["requirepass s3cr3t"]);
    let from = ["listen", "--from", &engine.url(), "prices", "--stream"];
    let mut listen = command(PROGRAM);
    let listener = Running::spawn(listen.args(from).arg("shpo").env("REDISCLI_AUTH", "s3cr3t"));
    let reported = listener.err.next();
    assert!(reported.contains("the engine has no entry of a relay at \"notifyman:shpo\" yet"), "{reported}");
    listener.signal("TERM");
    listener.finish().ends_with(143);
    let refused = run(&[&from[..], &["shop"]].concat());
    refused.ends_with(1);
    assert!(!refused.err().contains("s3cr3t") && refused.err().contains("stream shop is lost"), "{refused:?}");
    let refused = run(&[&from[..], &["notifyman:shop"]].concat());
    refused.ends_with(2);
    assert!(refused.err().contains("give \"shop\""), "{refused:?}");
}
