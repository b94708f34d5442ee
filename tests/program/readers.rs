//! Readers of the output that close it while nothing is printed, or do not read.

use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use super::{Lines, PROGRAM, Running, cluster, command, connect, run};
use crate::support::{EngineKind, EngineServer, engine};

/// Starts the program with standard output (1) or standard error (2) full, which is not read.
fn start_unread(output: u8, args: &[&str]) -> Running {
    let script = format!(r#"head -c 65536 /dev/zero >&{output}; exec "$0" "$@""#);
    let mut command = command("sh");
    command.args(["-c", &script, PROGRAM]).args(args).process_group(0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut err) = (Lines::of(io::empty()), Lines::of(io::empty()));
    match output {
        1 => err = Lines::of(child.stderr.take().unwrap()),
        _ => out = Lines::of(child.stdout.take().unwrap()),
    }
    Running { stdin: None, child, out, err }
}

#[test]
fn r07_a_relay_whose_messages_are_not_read_relays_and_stops() {
    let server = cluster();
    if !engine::has(EngineKind::Redis) {
        return;
    }
    let engine = EngineServer::start(EngineKind::Redis, []);
    let (url, to) = (format!("shop={}", server.url()), engine.url());
    let relay = start_unread(2, &["relay", "-u", &url, "--to", &to, "--canary", "1s", "a"]);
    let listener = Running::start(&["listen", "--from", &to, "--stream", "shop", "a"]);
    while !listener.err.next().contains("listens to a at stream shop") {}
    connect(&server).notify("a", "1").unwrap();
    assert!(listener.out.next().contains('1'));
    relay.signal("TERM");
    relay.finish().ends_with(143);
}

#[test]
fn one_signal_ends_a_program_whose_output_is_not_read() {
    let server = cluster();
    let url = server.url();
    let listen = ["listen", "--url", &url, "a"];
    let exec = [&listen[..], &["--exec", "echo out"]].concat();
    let listeners = [start_unread(1, &listen), start_unread(1, &exec)];
    listeners.iter().for_each(|listener| drop(listener.err.next()));
    connect(&server).notify("a", "1").unwrap();
    // They write it now.
    thread::sleep(Duration::from_millis(500));
    listeners.iter().for_each(|listener| listener.signal("TERM"));
    for listener in listeners {
        assert_eq!(listener.finish().status.signal(), Some(15));
    }
}

/// Runs the program in a pipeline whose reader takes one line, and reports its exit code.
fn read_one_line(args: &[&str]) -> Running {
    let script = r#"{ "$0" "$@"; echo "code $?" >&2; } | head -n 1"#;
    Running::spawn(command("sh").args(["-c", script, PROGRAM]).args(args))
}

#[test]
fn listen_ends_when_its_reader_has_gone_although_nothing_arrives() {
    let cluster = cluster();
    for form in ["--json", "--text"] {
        let listener = read_one_line(&["listen", form, "--url", &cluster.url(), "a"]);
        listener.err.next();
        connect(&cluster).notify("a", "1").unwrap();
        assert!(listener.out.next().contains('1'));
        let finished = listener.finish();
        assert_eq!(finished.err.last().unwrap(), "code 0", "{finished:#?}");
    }
}

#[test]
fn listen_without_a_connection_ends_when_its_reader_has_gone() {
    let script = r#"{ "$0" listen --url "$1" a; echo "code $?" >&2; } | true"#;
    let nowhere = "postgres://app@127.0.0.1:1/nowhere";
    let finished = Running::spawn(command("sh").args(["-c", script, PROGRAM, nowhere])).finish();
    assert_eq!(finished.err.last().unwrap(), "code 0", "{finished:#?}");
}

#[test]
fn a_worker_ends_when_its_reader_has_gone_although_nothing_arrives() {
    let cluster = cluster();
    connect(&cluster).execute("CREATE TABLE price (id int PRIMARY KEY)").unwrap();
    run(&["build", &cluster.url()]).ends_with(0);
    let worker = read_one_line(&["worker", "-q", &cluster.url()]);
    assert!(worker.out.next().contains("\"connected\""));
    let finished = worker.finish();
    assert_eq!(finished.err, ["notifyman: standard output was closed by its reader", "code 4"]);
}

#[test]
fn a_command_runs_although_the_output_of_commands_has_no_reader() {
    let cluster = cluster();
    let directory = cluster.socket_dir().join("ran");
    let exec = format!("read n; : >'{}'", directory.display());
    let script = r#"{ "$0" "$@"; echo "code $?" >&2; } | true"#;
    let mut sh = command("sh");
    sh.args(["-c", script, PROGRAM, "listen", "--url", &cluster.url(), "a", "-n1", "--exec", &exec]);
    let listener = Running::spawn(&mut sh);
    listener.err.next();
    thread::sleep(Duration::from_millis(200));
    connect(&cluster).notify("a", "1\n").unwrap();
    assert_eq!(listener.finish().err, ["code 0"]);
    assert!(directory.exists());
}

#[test]
fn a_worker_runs_commands_although_the_output_of_commands_has_no_reader() {
    let cluster = cluster();
    connect(&cluster).execute("CREATE TABLE price (id int PRIMARY KEY)").unwrap();
    run(&["build", &cluster.url()]).ends_with(0);
    let script = r#"{ "$0" "$@"; echo "code $?" >&2; } | true"#;
    let mut sh = command("sh");
    sh.args(["-c", script, PROGRAM, "worker", &cluster.url(), "--exec", "echo ran >&2"]);
    let worker = Running::spawn(&mut sh);
    while !worker.err.next().ends_with(" is connected") {}
    std::thread::sleep(Duration::from_millis(200));
    connect(&cluster).execute("INSERT INTO price VALUES (1)").unwrap();
    assert_eq!(worker.err.next(), "ran");
}
