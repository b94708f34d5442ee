//! External text cannot control a terminal, or imitate a line of the program.

use super::{Finished, Running, cluster, command, connect, run};
use crate::support::{Peer, Step, msg};

/// Colors, a bell, C1 controls, bidirectional overrides, separators, DEL, and a line like the program's own.
const HOSTILE: &str =
    "x\u{1b}[31m\u{7}\u{7f}\u{85}\u{9b}2J\u{202e}\u{2066}\u{2028}\u{200f}\u{feff}\r\nnotifyman: forged";

/// Asserts that every line is the program's own and printable.
#[track_caller]
fn assert_safe(finished: &Finished) {
    let printable = |c: char| {
        let hidden =
            ['\u{200e}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2060}'..='\u{206f}', '\u{feff}'..='\u{feff}'];
        !c.is_control() && !hidden.iter().any(|range| range.contains(&c))
    };
    for line in finished.out.iter().chain(&finished.err) {
        assert!(line.chars().all(printable) && !line.starts_with("notifyman: forged"), "{line:?} in {finished:#?}");
    }
}

/// Starts a peer that refuses this number of logins.
fn refuses(times: usize) -> Peer {
    let refusal =
        || msg::report(b'E', &[(b'S', "FATAL"), (b'C', "28000"), (b'M', HOSTILE), (b'D', HOSTILE), (b'H', HOSTILE)]);
    Peer::play_each((0..times).map(|_| vec![Step::startup(), Step::send([refusal()])]).collect())
}

#[test]
fn a_refused_login_is_reported_in_one_line_by_every_command() {
    for args in [
        ["listen", "c", "--url"].as_slice(),
        &["listen", "c", "--exec", "true", "--url"],
        &["notify", "c", "x", "--url"],
        &["doctor"],
        &["doctor", "--json"],
        &["build"],
        &["status"],
        &["verify"],
        &["teardown"],
        &["worker"],
    ] {
        let peer = refuses(1);
        let finished = run(&[args, &[&peer.url()]].concat());
        assert_eq!(finished.status.code(), Some(1), "{args:?}: {finished:#?}");
        assert_safe(&finished);
        let text = [finished.out(), finished.err()].concat();
        assert!(text.contains("28000") && text.contains("forged"), "{args:?}: {text}");
    }
}

#[test]
fn the_reason_of_a_loss_is_reported_in_one_line() {
    let (go, gate) = Step::gate();
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_any_query(),
        Step::send([msg::command_complete("LISTEN"), msg::ready(b'I')]),
        gate,
        Step::send([msg::error("FATAL", "28000", HOSTILE)]),
    ]);
    let listener = Running::start(&["listen", "--fail-fast", "c", "--url", &peer.url()]);
    assert!(listener.err.next().contains("listens to c at "));
    go.open();
    let finished = listener.finish();
    finished.ends_with(1);
    assert_safe(&finished);
    assert!(finished.err().contains("is lost: FATAL 28000"), "{finished:#?}");
}

#[test]
fn channels_and_payloads_are_json_without_characters_that_control_a_terminal() {
    let cluster = cluster();
    let channel = &HOSTILE[..40];
    let listener = Running::listener(&[cluster.url()], &[channel, "--count", "1"]);
    connect(&cluster).notify(channel, HOSTILE).unwrap();
    let finished = listener.finish();
    finished.ends_with(0);
    assert_safe(&finished);
    let line: serde_json::Value = serde_json::from_str(&finished.out()).unwrap();
    assert_eq!((&line["channel"], &line["payload"]), (&channel.into(), &HOSTILE.into()));
}

#[test]
fn names_in_a_database_are_escaped_and_keep_their_value_in_json() {
    let cluster = cluster();
    let name = HOSTILE;
    connect(&cluster).execute(&format!("CREATE TABLE \"{name}\" (id int PRIMARY KEY, v text)")).unwrap();
    for (args, code) in [
        (["build", "--with-query"].as_slice(), 0),
        (&["build", "--shape", "keys", "--except-table", HOSTILE], 0),
        (&["build"], 0),
        (&["status"], 0),
        (&["verify"], 0),
    ] {
        let finished = run(&[args, &[&cluster.url()]].concat());
        finished.ends_with(code);
        assert_safe(&finished);
    }
    let mut worker = command(super::PROGRAM);
    let worker = Running::spawn(worker.args(["worker", "-q", &cluster.url()]));
    assert!(worker.out.next().contains("connected"));
    connect(&cluster).execute(&format!("INSERT INTO \"{name}\" VALUES (1, '{HOSTILE}')")).unwrap();
    let line = worker.out.next();
    worker.signal("TERM");
    let mut finished = worker.finish();
    finished.out.push(line.clone());
    assert_safe(&finished);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["table_name"], &line["new_data"]["v"]), (&name.into(), &HOSTILE.into()));
    let finished = run(&["teardown", &cluster.url()]);
    finished.ends_with(0);
    assert_safe(&finished);
}

#[test]
fn settings_from_the_environment_and_from_files_are_escaped() {
    for (name, command_name) in [
        ("PGHOST", "listen"),
        ("PGPORT", "listen"),
        ("PGUSER", "doctor"),
        ("PGDATABASE", "notify"),
        ("PGSSLMODE", "worker"),
        ("PGSERVICE", "status"),
        ("PGSSLROOTCERT", "verify"),
        ("PGTARGETSESSIONATTRS", "build"),
        ("PGAPPNAME", "listen"),
    ] {
        let mut command = command(super::PROGRAM);
        command.env("PGHOST", "127.0.0.1").env("PGPORT", "1").env("PGCONNECT_TIMEOUT", "5");
        if name == "PGSSLROOTCERT" {
            command.env("PGSSLMODE", "verify-full");
        }
        command.env(name, HOSTILE).arg(command_name);
        match command_name {
            "listen" => command.args(["c", "--fail-fast"]),
            "notify" => command.arg("c"),
            "worker" => command.arg("-q"),
            _ => &mut command,
        };
        let running = Running::spawn(&mut command);
        let finished = running.finish();
        assert_ne!(finished.status.code(), Some(0), "{name}: {finished:#?}");
        assert_safe(&finished);
    }
}

#[test]
fn arguments_are_escaped_in_errors_of_the_command_line() {
    let option = format!("--{HOSTILE}");
    for args in [
        [HOSTILE].as_slice(),
        &["help", HOSTILE],
        &["listen", &option, "a"],
        &["listen", "--timeout", HOSTILE, "a"],
        &["notify", "a", "b", HOSTILE],
        &["build", "--shape", HOSTILE],
        &["doctor", "--json", "--url"],
    ] {
        let finished = run(args);
        finished.ends_with(2);
        assert_safe(&finished);
    }
    assert_safe(&run(&["doctor", HOSTILE]));
}
