//! `notifyman listen` and `worker` while servers are down, do not answer, or refuse the login.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::{Running, cluster, connect, run};
use crate::support::server::eventually;
use crate::support::{Cluster, Options};

/// A time limit far below `connect_timeout`, and sufficient on a busy machine.
const SOON: Duration = Duration::from_secs(15);

/// A server that accepts connections and never answers, and its URL with a password.
fn silent_server() -> (TcpListener, String) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://app:s3cr3t@127.0.0.1:{}/db", socket.local_addr().unwrap().port());
    (socket, url)
}

fn with_password(cluster: &Cluster) -> String {
    cluster.url().replace("postgres@", "postgres:s3cr3t@")
}

/// Starts `listen` on a server that is down, one that does not answer, and one that is available, in this order.
fn listener(args: &[&str], down: &Cluster, silent: &str, healthy: &Cluster) -> Running {
    let (down, healthy) = (with_password(down), with_password(healthy));
    let begin = Instant::now();
    let running =
        Running::start(&[&["listen", "--url", &down, "--url", silent, "--url", &healthy, "a"], args].concat());
    let mut lines: Vec<_> = (0..3).map(|_| running.err.next()).collect();
    assert!(begin.elapsed() < SOON, "one connection delays another: {:?}", begin.elapsed());
    lines.sort();
    assert!(lines[0].starts_with("notifyman: connection 1: cannot connect to 127.0.0.1:"), "{lines:?}");
    assert!(lines[0].ends_with("; retrying"), "{lines:?}");
    assert!(lines[1].starts_with("notifyman: connection 2 (127.0.0.1:"), "{lines:?}");
    assert!(lines[1].ends_with(" does not answer yet; still trying"), "{lines:?}");
    assert!(lines[2].starts_with("notifyman: connection 3 listens to a at 127.0.0.1:"), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("s3cr3t")), "{lines:?}");
    running
}

#[test]
fn a_server_that_is_down_and_one_that_does_not_answer_delay_no_other() {
    let (mut down, healthy) = (cluster(), cluster());
    down.stop().unwrap();
    let (_socket, silent) = silent_server();
    let listener = listener(&[], &down, &silent, &healthy);
    connect(&healthy).notify("a", "one").unwrap();
    assert!(listener.out.next().contains("one"));
    down.restart().unwrap();
    assert!(listener.err.next().starts_with("notifyman: connection 1 listens to a at "));
    connect(&down).notify("a", "two").unwrap();
    let line = listener.out.next();
    assert!(line.starts_with("{\"connection\":1,") && line.contains("two"), "{line}");
    listener.signal("TERM");
    listener.finish().ends_with(143);
}

#[test]
fn with_a_command_a_server_that_is_down_and_one_that_does_not_answer_delay_no_other() {
    let (mut down, healthy) = (cluster(), cluster());
    down.stop().unwrap();
    let (_socket, silent) = silent_server();
    let listener = listener(&["--exec", "echo $NOTIFYMAN_CONNECTION; cat; echo"], &down, &silent, &healthy);
    connect(&healthy).notify("a", "one").unwrap();
    assert_eq!((listener.out.next(), listener.out.next()), ("3".into(), "one".into()));
    down.restart().unwrap();
    assert!(listener.err.next().starts_with("notifyman: connection 1 listens to a at "));
    connect(&down).notify("a", "two").unwrap();
    assert_eq!((listener.out.next(), listener.out.next()), ("1".into(), "two".into()));
    listener.signal("TERM");
    listener.finish().ends_with(143);
}

#[test]
fn a_worker_reports_a_server_that_does_not_answer_and_follows_the_others() {
    let healthy = cluster();
    connect(&healthy).execute("CREATE TABLE price (id int PRIMARY KEY)").unwrap();
    run(&["build", &healthy.url()]).ends_with(0);
    let (_socket, silent) = silent_server();
    let worker = Running::start(&["worker", "-q", &silent, &healthy.url()]);
    assert!(worker.out.next().contains("\"kind\":\"connected\",\"database\":2"));
    connect(&healthy).execute("INSERT INTO price VALUES (1)").unwrap();
    assert!(worker.out.next().contains("\"kind\":\"change\",\"database\":2"));
    let text = worker.err.next();
    assert!(text.starts_with("notifyman: database 1 (127.0.0.1:") && text.contains("does not answer yet"), "{text}");
    assert!(!text.contains("s3cr3t"), "{text}");
    worker.signal("TERM");
    worker.finish().ends_with(143);
}

#[test]
fn the_timeout_begins_with_the_first_connection() {
    for options in [[].as_slice(), &["--exec", "true"]] {
        let mut down = cluster();
        down.stop().unwrap();
        let url = down.url();
        let mut listener = Running::start(&[&["listen", "a", "--timeout", "0.5", "--url", &url], options].concat());
        assert!(listener.err.next().ends_with("; retrying"));
        std::thread::sleep(Duration::from_millis(1500));
        assert!(listener.child.try_wait().unwrap().is_none(), "the program ended before the first connection");
        down.restart().unwrap();
        let finished = listener.finish();
        finished.ends_with(0);
        assert!(finished.err().starts_with("notifyman: connection 1 listens to a at "), "{finished:#?}");
    }
}

#[test]
fn at_the_end_of_the_timeout_a_connection_that_was_never_opened_shows_in_the_exit_code() {
    let healthy = cluster();
    let (_socket, silent) = silent_server();
    for options in [[].as_slice(), &["--exec", "true"]] {
        let args = ["listen", "-q", "a", "--timeout", "0.1", "--url", &silent, "--url", &healthy.url()];
        let begin = Instant::now();
        let finished = run(&[args.as_slice(), options].concat());
        finished.ends_with(1);
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        assert!(finished.err().contains("was never opened"), "{finished:#?}");
    }
}

#[test]
fn with_fail_fast_the_first_failure_ends_the_program() {
    let (mut down, healthy) = (cluster(), cluster());
    down.stop().unwrap();
    let (_socket, silent) = silent_server();
    let urls = ["--url", &silent, "--url", &down.url(), "--url", &healthy.url()];
    for command in [["listen", "a"].as_slice(), &["listen", "a", "--exec", "true"], &["worker"]] {
        let begin = Instant::now();
        let finished = run(&[command, &["--fail-fast"], urls.as_slice()].concat());
        finished.ends_with(1);
        assert!(finished.err().contains("cannot connect to"), "{finished:#?}");
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    }
}

#[test]
fn with_fail_fast_the_first_loss_ends_the_program() {
    for options in [[].as_slice(), &["--exec", "true"]] {
        let mut clusters = [cluster(), cluster()];
        let args = [&["a", "--fail-fast"], options].concat();
        let listener = Running::listener(&clusters.each_ref().map(Cluster::url), &args);
        clusters[1].stop().unwrap();
        let finished = listener.finish();
        finished.ends_with(1);
        // With a command, the reason is also reported for the channel, before this.
        let last = finished.err.last().unwrap();
        assert!(last.contains("connection 2 (") && last.contains("is lost"), "{finished:#?}");
        assert!(finished.err.len() <= 2, "{finished:#?}");
    }
}

#[test]
fn a_refused_login_is_final_and_the_others_continue() {
    let healthy = cluster();
    let closed = Cluster::start(Options::new().auth("scram-sha-256", "s3cr3t")).unwrap();
    let refused = closed.url().replace("postgres@", "postgres:wr0ng@");
    for options in [[].as_slice(), &["--exec", "cat; echo"]] {
        let args = ["listen", "a", "--count", "1", "--url", &refused, "--url", &healthy.url()];
        let listener = Running::start(&[args.as_slice(), options].concat());
        let mut lines: Vec<_> = (0..3).map(|_| listener.err.next()).collect();
        lines.sort();
        assert!(lines[0].contains("to do: check the user"), "{lines:?}");
        assert!(lines[1].starts_with("notifyman: connection 1: cannot connect to"), "{lines:?}");
        assert!(lines[1].contains("28P01") && !lines[1].contains("retrying"), "{lines:?}");
        assert!(lines[2].starts_with("notifyman: connection 2 listens"), "{lines:?}");
        connect(&healthy).notify("a", "x").unwrap();
        let finished = listener.finish();
        finished.ends_with(1);
        assert_eq!(finished.out.len(), 1, "{finished:#?}");

        let finished = run(&[["listen", "a", "--url", &refused].as_slice(), options].concat());
        finished.ends_with(1);
        assert_eq!(finished.err.last().unwrap(), "notifyman: no connection is left", "{finished:#?}");
        assert_eq!(finished.err.len(), 3, "{finished:#?}");
    }
}

#[test]
fn a_signal_ends_the_program_while_no_server_answers() {
    let (_socket, silent) = silent_server();
    for options in [[].as_slice(), &["--exec", "true"]] {
        let mut listener = Running::start(&[&["listen", "a", "--url", &silent], options].concat());
        assert!(listener.err.next().contains("does not answer yet"));
        listener.signal("TERM");
        eventually("the program ends", || listener.child.try_wait().unwrap().is_some());
        listener.finish().ends_with(143);
    }
}
