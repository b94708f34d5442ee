//! `notifyman listen`.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{PROGRAM, Running, cluster, command, connect, run};
use crate::support::tools::not_run;
use crate::support::{Cluster, Options, Peer, Step, msg};

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn each_notification_is_a_line_of_json() {
    let cluster = cluster();
    let listener = Running::listener(&[cluster.url()], &["a", "B \"c\"", "--count", "3"]);
    let mut db = connect(&cluster);
    db.notify_many([("a", ""), ("B \"c\"", "say \"é\"\n\\"), ("a", "2")]).unwrap();

    let finished = listener.finish();
    finished.ends_with(0);
    let lines: Vec<Value> = finished.out.iter().map(|line| parsed(line)).collect();
    let texts: Vec<_> = lines.iter().map(|it| (&it["channel"], &it["payload"])).collect();
    let of = |text: &str| Value::from(text);
    assert_eq!(texts[0], (&of("a"), &of("")));
    assert_eq!(texts[1], (&of("B \"c\""), &of("say \"é\"\n\\")));
    assert_eq!(texts[2], (&of("a"), &of("2")));
    for line in &lines {
        assert_eq!(line["connection"], 1);
        assert_eq!(line["pid"], db.pid());
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == "2026-01-31T12:00:00.000001Z".len() && time.ends_with('Z'), "{time}");
        assert_eq!(line["name"], cluster.url().replace("postgres://postgres@", ""));
        assert_eq!(line.as_object().unwrap().len(), 6, "{line}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_also_printed_in_hexadecimal() {
    let answer = [
        msg::command_complete("LISTEN"),
        msg::ready(b'I'),
        msg::notification_bytes(7, b"a\xe9", b"a\xff"),
        msg::notification(7, "a", "b"),
    ];
    let steps = vec![Step::startup(), Step::login_ok(), Step::expect_any_query(), Step::send(answer)];
    let peer = Peer::play(steps.into_iter().chain([Step::expect_eof()]).collect());
    let finished = run(&["listen", "--url", &peer.url(), "a", "-n2"]);
    finished.ends_with(0);
    peer.finish();
    let line = parsed(&finished.out[0]);
    assert_eq!((&line["channel"], &line["channel_hex"]), (&"a\u{fffd}".into(), &"61e9".into()));
    assert_eq!((&line["payload"], &line["payload_hex"]), (&"a\u{fffd}".into(), &"61ff".into()));
    assert_eq!(parsed(&finished.out[1]).as_object().unwrap().len(), 6);
}

#[test]
fn lines_are_written_immediately_also_into_a_pipe() {
    let cluster = cluster();
    let listener = Running::listener(&[cluster.url()], &["a"]);
    let mut db = connect(&cluster);
    for payload in ["1", "2"] {
        db.notify("a", payload).unwrap();
        assert_eq!(parsed(&listener.out.next())["payload"], payload);
    }
}

#[test]
fn connections_are_numbered_in_the_order_of_their_urls() {
    let clusters = [cluster(), cluster()];
    let listener = Running::listener(&clusters.each_ref().map(Cluster::url), &["a"]);
    for (number, cluster) in [(2, &clusters[1]), (1, &clusters[0])] {
        connect(cluster).notify("a", "x").unwrap();
        assert_eq!(parsed(&listener.out.next())["connection"], number);
    }
}

#[test]
fn without_a_url_the_environment_is_used() {
    let cluster = cluster();
    let mut listen = command(PROGRAM);
    listen.env("PGHOST", cluster.socket_dir()).env("PGPORT", cluster.port().to_string()).env("PGUSER", "postgres");
    let listener = Running::spawn(listen.args(["listen", "a"]));
    assert!(listener.err.next().contains(cluster.socket_dir().to_str().unwrap()));
    connect(&cluster).notify("a", "").unwrap();
    listener.out.next();
}

#[test]
fn with_a_zero_timeout_it_prints_pending_notifications_and_ends() {
    let cluster = cluster();
    let begin = Instant::now();
    let finished = run(&["listen", "--quiet", "--timeout", "0", "--url", &cluster.url(), "a"]);
    finished.ends_with(0);
    assert_eq!((finished.out(), finished.err()), (String::new(), String::new()));
    assert!(begin.elapsed() < super::LIMIT);
}

#[test]
fn the_timeout_expires_without_notifications() {
    let cluster = cluster();
    let listener = Running::listener(&[cluster.url()], &["a", "--timeout", "6"]);
    let mut db = connect(&cluster);
    let begin = Instant::now();
    // Each notification arrives before the timeout, and all of them take longer than the timeout.
    for payload in ["1", "2", "3", "4"] {
        std::thread::sleep(Duration::from_secs(2));
        db.notify("a", payload).unwrap();
        listener.out.next();
    }
    listener.finish().ends_with(0);
    assert!(begin.elapsed() >= Duration::from_secs(8 + 6), "{:?}", begin.elapsed());
}

#[test]
fn the_count_can_end_it_within_a_batch() {
    let cluster = cluster();
    let listener = Running::listener(&[cluster.url()], &["a", "--count", "2"]);
    connect(&cluster).notify_many(["1", "2", "3"].map(|payload| ("a", payload))).unwrap();
    assert_eq!(listener.finish().ends_with(0).out.len(), 2);
}

#[test]
fn a_timeout_before_the_count_changes_the_exit_code() {
    let cluster = cluster();
    let finished = run(&["listen", "-q", "-n", "2", "--timeout", "0.1", "--url", &cluster.url(), "a"]);
    finished.ends_with(1);
    assert!(finished.err().contains("2 notifications are missing"), "{finished:?}");
    let finished = run(&["listen", "-q", "-n", "1", "--timeout", "100ms", "--url", &cluster.url(), "a"]);
    finished.ends_with(1);
    assert!(finished.err().contains("1 notification is missing"), "{finished:?}");
}

#[test]
fn a_restart_is_survived_and_possible_losses_are_reported() {
    let mut cluster = cluster();
    for option in [None, Some("--reconnect")] {
        let args: Vec<_> = ["a", "--count", "2"].into_iter().chain(option).collect();
        let listener = Running::listener(&[cluster.url()], &args);
        connect(&cluster).notify("a", "before").unwrap();
        assert_eq!(parsed(&listener.out.next())["payload"], "before");
        cluster.restart().unwrap();
        let text = listener.err.next();
        assert!(text.contains("is lost, reconnecting: "), "{text}");
        let line = parsed(&listener.out.next());
        assert_eq!((&line["connection"], &line["gap"]["channels"]), (&1.into(), &serde_json::json!(["a"])));
        assert!(line["gap"]["since"].as_str() < line["gap"]["until"].as_str(), "{line}");
        connect(&cluster).notify("a", "after").unwrap();
        let finished = listener.finish();
        // Notifications may be missing.
        finished.ends_with(1);
        assert_eq!(parsed(&finished.out[0])["payload"], "after");
        assert_eq!(finished.err(), "notifyman: connection 1 is restored");
    }
}

#[test]
fn a_loss_is_reported_and_the_other_connections_continue() {
    let mut clusters = [cluster(), cluster()];
    let listener = Running::listener(&clusters.each_ref().map(Cluster::url), &["a"]);
    clusters[1].stop().unwrap();
    let text = listener.err.next();
    let place = format!("connection 2 (127.0.0.1:{} as \"postgres\"", clusters[1].port());
    assert!(text.contains(&place) && text.contains("is lost, reconnecting: FATAL 57P01"), "{text}");
    connect(&clusters[0]).notify("a", "still here").unwrap();
    assert_eq!(parsed(&listener.out.next())["payload"], "still here");
}

#[test]
fn the_loss_of_some_connections_changes_the_exit_code() {
    let mut clusters = [cluster(), cluster()];
    let listener = Running::listener(&clusters.each_ref().map(Cluster::url), &["a", "-n1"]);
    clusters[0].stop().unwrap();
    listener.err.next();
    connect(&clusters[1]).notify("a", "").unwrap();
    listener.finish().ends_with(1);
}

#[test]
fn a_signal_ends_it_with_the_exit_code_of_shells() {
    let cluster = cluster();
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let listener = Running::listener(&[cluster.url()], &["a"]);
        listener.signal(name);
        let finished = listener.finish();
        finished.ends_with(code);
        assert_eq!(finished.err(), "");
    }
}

#[test]
fn a_reader_that_closes_the_output_is_not_an_error() {
    let cluster = cluster();
    let script = r#"{ "$0" listen --url "$1" a; echo "code $?" >&2; } | head -n 1"#;
    let listener = Running::spawn(command("sh").args(["-c", script, PROGRAM, &cluster.url()]));
    listener.err.next();
    let mut db = connect(&cluster);
    db.notify("a", "1").unwrap();
    listener.out.next();
    // `head` has printed its line and ends; until then, the pipe accepts more.
    let begin = Instant::now();
    let text = loop {
        db.notify("a", "2").unwrap();
        match listener.err.0.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => break line,
            Err(_) => assert!(begin.elapsed() < super::LIMIT, "the program does not notice"),
        }
    };
    assert_eq!(text, "code 0");
}

#[test]
fn an_unreachable_server_is_reported_with_advice_and_without_the_password() {
    let mut down = cluster();
    down.stop().unwrap();
    let url = down.url().replace("postgres@", "postgres:s3cr3t@");
    let finished = run(&["listen", "--fail-fast", "--url", &url, "a"]);
    finished.ends_with(1);
    let text = finished.err();
    assert!(text.contains(&format!("cannot connect to 127.0.0.1:{} as \"postgres\"", down.port())), "{text}");
    assert!(text.contains("to do: check that a server is running there"), "{text}");
    assert!(!text.contains("s3cr3t"), "{text}");
}

#[test]
fn a_refused_login_is_reported_with_advice() {
    let cluster = Cluster::start(Options::new().auth("scram-sha-256", "s3cr3t")).unwrap();
    let finished = run(&["listen", "--url", &cluster.url().replace("postgres@", "postgres:wr0ng@"), "a"]);
    finished.ends_with(1);
    let text = finished.err();
    assert!(text.contains("28P01") && text.contains("PGPASSWORD") && !text.contains("wr0ng"), "{text}");
}

#[test]
fn invalid_arguments_are_usage_errors() {
    let cluster = cluster();
    let long = "x".repeat(64);
    for (args, expected) in [
        (["--url", &cluster.url(), &long].as_slice(), "1 to 63 bytes"),
        (&["--url", "postgres://u:s3cr3t@h:70000/d", "a"], "port"),
        (&["--url", "host=a", "--url", "port=x", "a"], "URL number 2"),
        (&["--timeout", "-1", "a"], "--timeout"),
        (&["--timeout", "soon", "a"], "5s, 200ms or 1m30s"),
        (&["--timeout", "36526d", "a"], "at most 36525d"),
        (&["--text", "--json", "a"], "cannot be used with"),
        (&["--count", "0", "a"], "--count"),
        (&[], "CHANNEL"),
    ] {
        let finished = run(&[&["listen"], args].concat());
        finished.ends_with(2);
        assert!(finished.err().contains(expected) && !finished.err().contains("s3cr3t"), "{finished:?}");
    }
}

#[test]
fn an_error_of_writing_the_output_is_reported() {
    if !std::path::Path::new("/dev/full").exists() {
        return not_run("there is no /dev/full, a device of Linux that is always full");
    }
    let cluster = cluster();
    let script = r#"exec "$0" listen --url "$1" a >/dev/full"#;
    let listener = Running::spawn(command("sh").args(["-c", script, PROGRAM, &cluster.url()]));
    listener.err.next();
    connect(&cluster).notify("a", "1").unwrap();
    let finished = listener.finish();
    finished.ends_with(1);
    assert!(finished.err().contains("could not write to standard output"), "{finished:?}");
}

/// Checks that the tests run the program of this build.
#[test]
fn the_version_is_that_of_the_crate() {
    let text = Command::new(PROGRAM).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&text.stdout).trim(), concat!("notifyman ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_label_before_a_url_is_in_messages_lines_and_the_environment() {
    let cluster = cluster();
    let urls = [format!("berlin={}", cluster.url()), cluster.url()];
    let mut program = command(PROGRAM);
    program.args(["listen", "a", "-n2", "--url", &urls[0], "--url", &urls[1]]);
    let listener = Running::spawn(&mut program);
    let mut messages = [listener.err.next(), listener.err.next()];
    messages.sort();
    assert!(messages[0].contains("connection 1 ") && messages[0].contains("berlin at 127.0.0.1:"), "{messages:?}");
    assert!(!messages[1].contains("berlin"), "{messages:?}");
    connect(&cluster).notify("a", "1").unwrap();
    let mut lines: Vec<Value> = listener.finish().ends_with(0).out.iter().map(|line| parsed(line)).collect();
    lines.sort_by_key(|line| line["connection"].as_u64());
    assert_eq!((&lines[0]["connection"], &lines[0]["label"]), (&1.into(), &"berlin".into()));
    assert_eq!((&lines[1]["connection"], lines[1].get("label")), (&2.into(), None));
    assert_eq!([&lines[0]["name"], &lines[1]["name"]], ["berlin", &*cluster.url().replace("postgres://postgres@", "")]);

    let mut program = command(PROGRAM);
    program.args(["listen", "a", "-n1", "--exec", "echo $NOTIFYMAN_LABEL", "--url", &urls[0]]);
    let listener = Running::spawn(&mut program);
    listener.err.next();
    connect(&cluster).notify("a", "1").unwrap();
    assert_eq!(listener.finish().ends_with(0).out, ["berlin"]);

    // A keyword is no label, and no message repeats the URL.
    let finished = run(&["listen", "a", "--url", "dbname=postgres://app:s3cr3t@db/shop"]);
    assert!(finished.ends_with(2).err().contains("dbname contains a whole URL"), "{finished:?}");
    assert!(!finished.err().contains("s3cr3t"), "{finished:?}");
}
