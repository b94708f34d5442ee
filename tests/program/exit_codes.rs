//! The exit codes, as the help documents them.

use std::os::unix::process::ExitStatusExt as _;

use super::{PROGRAM, Running, cluster, command, connect, run};

const NOWHERE: &str = "postgres://app@127.0.0.1:1/nowhere";

/// Asserts that the help has this line, with any blanks between its words.
#[track_caller]
fn is_documented(line: &str) {
    let help = run(&["--help"]).ends_with(0).out();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.lines().any(|helped| words(helped) == line), "{line}:\n{help}");
}

#[test]
fn code_0_is_success_also_if_the_reader_has_gone() {
    is_documented("0 success; also if the reader closed standard output (but see 4)");
    let cluster = cluster();
    run(&["notify", "--url", &cluster.url(), "a"]).ends_with(0);
    run(&["listen", "--url", &cluster.url(), "-t", "0", "a"]).ends_with(0);
    let script = r#"{ "$0" completions bash; echo "code $?" >&2; } | true"#;
    let finished = Running::spawn(command("sh").args(["-c", script, PROGRAM])).finish();
    assert_eq!(finished.err(), "code 0");
}

#[test]
fn code_1_is_a_failure_or_a_lost_connection() {
    is_documented("1 failure, or a connection was lost");
    for args in [
        ["notify", "--url", NOWHERE, "a"].as_slice(),
        &["listen", "--url", NOWHERE, "a", "--fail-fast"],
        &["doctor", NOWHERE],
        &["status", NOWHERE],
        &["verify", NOWHERE],
        &["build", NOWHERE],
        &["teardown", NOWHERE],
        &["worker", NOWHERE, "--fail-fast"],
    ] {
        run(args).ends_with(1);
    }
    let mut cluster = cluster();
    let listener = Running::listener(&[cluster.url()], &["a", "-n1"]);
    cluster.restart().unwrap();
    assert!(listener.out.next().contains("\"gap\""));
    connect(&cluster).notify("a", "").unwrap();
    listener.finish().ends_with(1);
}

#[test]
fn code_2_is_an_invalid_request() {
    is_documented("2 invalid request: an option, a channel, a payload or a URL");
    let cluster = cluster();
    let (url, long) = (cluster.url(), "x".repeat(8_000));
    for args in [
        ["listen", "--no-such-option", "a"].as_slice(),
        &["listen", "--url", &url, &long[..64]],
        &["notify", "--url", &url, &long[..64], "42"],
        &["notify", "--url", &url, "a", &long],
        &["notify", "--url", "host=a port=x", "a"],
        &["worker", "host=a port=x"],
        &["status", "--json", "--dry-run", &url],
    ] {
        run(args).ends_with(2);
    }
}

#[test]
fn code_3_is_a_warning_of_doctor_or_verify() {
    is_documented("3 doctor and verify only: there is a warning");
    let cluster = cluster();
    let mut db = connect(&cluster);
    db.execute("CREATE TABLE price (id int PRIMARY KEY); ALTER ROLE postgres SET statement_timeout = 900").unwrap();
    run(&["doctor", &cluster.url()]).ends_with(3);
    run(&["build", &cluster.url()]).ends_with(0);
    db.execute("ALTER TABLE price DISABLE TRIGGER ALL").unwrap();
    run(&["verify", &cluster.url()]).ends_with(3);
    run(&["status", &cluster.url()]).ends_with(0);
}

// The module `readers` has code 4.

#[test]
fn codes_130_and_143_are_signals_and_a_second_one_ends_the_program_immediately() {
    is_documented("130 ended by Ctrl-C (SIGINT), after the current work was finished");
    is_documented("143 ended by SIGTERM, likewise; a second signal ends it immediately");
    let cluster = cluster();
    for (signal, code, number) in [("INT", 130, 2), ("TERM", 143, 15)] {
        let running = |exec| {
            let listener = Running::listener(&[cluster.url()], &["a", "--exec", exec]);
            connect(&cluster).notify("a", "").unwrap();
            assert_eq!(listener.out.next(), "begin");
            listener.signal(signal);
            listener
        };
        let finished = running("echo begin; sleep 0.5; echo end").finish();
        finished.ends_with(code);
        assert_eq!(finished.out(), "end");

        let mut listener = running("echo begin; sleep 5");
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(listener.child.try_wait().unwrap().is_none(), "the command is waited for");
        listener.signal(signal);
        assert_eq!(listener.finish().status.signal(), Some(number));
    }
}
