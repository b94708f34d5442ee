//! Readers of the output that close it while nothing is printed.

use std::time::Duration;

use super::{PROGRAM, Running, cluster, command, connect, run};

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
    std::thread::sleep(Duration::from_millis(200));
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
