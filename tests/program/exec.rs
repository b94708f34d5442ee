//! `notifyman listen --exec`.

use std::time::{Duration, Instant};

use notifyman::Connection;

use super::{PROGRAM, Running, cluster, command, connect, run};
use crate::support::Cluster;
use crate::support::server::{drop_with_its_sessions, eventually};

const PRINT: &str = r#"printf '%s|%s|%s|' "$NOTIFYMAN_CONNECTION" "$NOTIFYMAN_CHANNEL" "$NOTIFYMAN_PID"; cat"#;

#[test]
fn the_payload_is_the_standard_input_and_the_rest_is_in_the_environment() {
    let cluster = cluster();
    let listener = Running::listener(&[cluster.url()], &["a", "B \"c\"", "--exec", PRINT, "-n3"]);
    let mut db = connect(&cluster);
    db.notify_many([("a", "1"), ("B \"c\"", "say 'é' $HOME"), ("a", "")]).unwrap();
    let pid = db.pid();
    let finished = listener.finish();
    finished.ends_with(0);
    assert_eq!(finished.out, [format!("1|a|{pid}|1"), format!("1|B \"c\"|{pid}|say 'é' $HOME"), format!("1|a|{pid}|")]);
}

#[test]
fn commands_run_one_at_a_time_and_in_order() {
    let cluster = cluster();
    let listener = Running::listener(&[cluster.url()], &["a", "-n20", "--exec", "read n; echo begin $n; echo end $n"]);
    connect(&cluster).notify_many((0..20).map(|n| ("a", format!("{n}\n")))).unwrap();
    let expected: Vec<_> = (0..20).flat_map(|n| [format!("begin {n}"), format!("end {n}")]).collect();
    assert_eq!(listener.finish().ends_with(0).out, expected);
}

#[test]
fn commands_run_concurrently_up_to_the_limit_and_their_lines_stay_whole() {
    let cluster = cluster();
    // Each command writes a line in two parts, and creates a file between them.
    let directory = cluster.socket_dir().join("runs");
    std::fs::create_dir(&directory).unwrap();
    let command = format!(
        "cd '{}'; read n; printf \"<$n\"; : >$n; until [ -e gate ]; do sleep 0.01; done; echo \">\"",
        directory.display()
    );
    let runs = || std::fs::read_dir(&directory).unwrap().count();
    let listener = Running::listener(&[cluster.url()], &["a", "-n6", "--jobs", "3", "--exec", &command]);
    connect(&cluster).notify_many((0..6).map(|n| ("a", format!("{n}\n")))).unwrap();
    eventually("three commands run", || runs() == 3);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(runs(), 3, "and no more");
    std::fs::write(directory.join("gate"), "").unwrap();
    let finished = listener.finish();
    let mut lines = finished.ends_with(0).out.clone();
    lines.sort();
    assert_eq!(lines, (0..6).map(|n| format!("<{n}>")).collect::<Vec<_>>());
}

#[test]
fn a_failing_command_is_reported_and_the_next_one_runs() {
    let cluster = cluster();
    let listener = Running::listener(&[cluster.url()], &["a", "-n2", "--exec", "read n; echo \"ran $n\" >&2; exit $n"]);
    let mut db = connect(&cluster);
    db.notify_many([("a", "3\n"), ("a", "0\n")]).unwrap();
    let pid = db.pid();
    let finished = listener.finish();
    finished.ends_with(1);
    let text = format!("notifyman: the command failed for connection 1, channel \"a\", pid {pid}: exit status: 3");
    assert_eq!(finished.err, ["ran 3".to_owned(), text, "ran 0".to_owned()]);
}

#[test]
fn a_command_need_not_read_its_input() {
    let cluster = cluster();
    let listener = Running::listener(&[cluster.url()], &["a", "-n1", "--exec", "echo fine"]);
    connect(&cluster).notify("a", "x".repeat(7999)).unwrap();
    assert_eq!(listener.finish().ends_with(0).out, ["fine"]);
}

#[test]
fn a_signal_waits_for_the_running_command_and_reports_the_number_of_others() {
    let cluster = cluster();
    let listener = Running::listener(&[cluster.url()], &["a", "--exec", "echo begun; sleep 5; echo done"]);
    connect(&cluster).notify_many((0..100).map(|n| ("a", n.to_string()))).unwrap();
    // The signal must come before the first command ends.
    assert_eq!(listener.out.next(), "begun");
    listener.signal("TERM");
    let finished = listener.finish();
    finished.ends_with(143);
    assert_eq!(finished.out, ["done"]);
    assert_eq!(finished.err, ["notifyman: 99 notifications arrived for which the command was not run"]);
}

#[test]
fn a_lost_connection_is_restored_and_possible_losses_are_reported() {
    let mut clusters = [cluster(), cluster()];
    let listener = Running::listener(&clusters.each_ref().map(Cluster::url), &["a", "-n1", "--exec", PRINT]);
    clusters[1].restart().unwrap();
    // The loss is reported, unless the connection is already restored, and then the restore.
    let text = std::iter::repeat_with(|| listener.err.next()).find(|line| !line.contains("is being restored")).unwrap();
    assert!(text.contains("connection 2, channel \"a\": notifications may be missing"), "{text}");
    let mut db = connect(&clusters[1]);
    db.notify("a", "again").unwrap();
    let finished = listener.finish();
    finished.ends_with(1);
    assert_eq!(finished.out, ["2|a||".to_owned(), format!("2|a|{}|again", db.pid())]);
}

#[test]
fn the_command_is_run_for_a_gap_in_its_place_and_not_counted() {
    let mut cluster = cluster();
    let print = r#"cat; echo " ${NOTIFYMAN_CHANNEL} ${NOTIFYMAN_PID+pid} ${NOTIFYMAN_GAP-none}""#;
    let mut command = command(PROGRAM);
    command.args(["listen", "a", "b", "-n2", "--url", &cluster.url(), "--exec", print]);
    // The variables of this process are not passed on.
    command.env("NOTIFYMAN_GAP", "inherited").env("NOTIFYMAN_PID", "inherited");
    let listener = Running::spawn(&mut command);
    assert!(listener.err.next().contains("connection 1 listens to a, b"));
    connect(&cluster).notify("a", "1").unwrap();
    assert_eq!(listener.out.next(), "1 a pid none");
    cluster.restart().unwrap();
    let mut gaps = [listener.out.next(), listener.out.next()];
    gaps.sort();
    for (gap, channel) in gaps.iter().zip(["a", "b"]) {
        let reason = format!(" {channel}  notifications may be missing: the channel was not listened to for ");
        assert!(gap.starts_with(&reason) && gap.contains("57P01"), "{gap}");
    }
    connect(&cluster).notify("b", "2").unwrap();
    let finished = listener.finish();
    finished.ends_with(1);
    assert_eq!(finished.out, ["2 b pid none"]);
}

#[test]
fn it_ends_when_all_connections_are_lost_for_good() {
    let cluster = cluster();
    let mut admin = connect(&cluster);
    let urls = ["one", "two"].map(|name| {
        admin.execute(&format!("CREATE DATABASE {name}")).unwrap();
        cluster.url().trim_end_matches("postgres").to_owned() + name
    });
    let listener = Running::listener(&urls, &["a", "b", "--exec", PRINT]);
    drop_with_its_sessions(&cluster, "one");
    assert!(listener.err.next().contains("connection 1, channel "));
    while !listener.err.next().contains("the session is lost") {}
    let mut gaps = [listener.out.next(), listener.out.next()];
    gaps.sort();
    assert_eq!(gaps, ["1|a||", "1|b||"]);
    let mut db = Connection::connect(urls[1].as_str()).unwrap();
    db.notify("b", "the other continues").unwrap();
    assert_eq!(listener.out.next(), format!("2|b|{}|the other continues", db.pid()));
    drop_with_its_sessions(&cluster, "two");
    let finished = listener.finish();
    finished.ends_with(1);
    assert_eq!(finished.err.last().unwrap(), "notifyman: no connection is left");
}

#[test]
fn the_timeout_expires_without_notifications_and_running_commands() {
    let cluster = cluster();
    let begin = Instant::now();
    let listener = Running::listener(&[cluster.url()], &["a", "--timeout", "4", "--exec", "sleep 6; echo slow"]);
    connect(&cluster).notify("a", "").unwrap();
    assert_eq!(listener.finish().ends_with(0).out, ["slow"]);
    assert!(begin.elapsed() >= Duration::from_secs(6 + 4), "{:?}", begin.elapsed());
}

#[test]
fn invalid_arguments_are_usage_errors() {
    let cluster = cluster();
    for (args, expected) in [
        (["a", "--jobs", "2"].as_slice(), "--exec"),
        (&["a", "--exec", "true", "--jobs", "0"], "1 to 1000"),
        (&["PGNOTIFIER", "--exec", "true"], "reserved for the notifier"),
        (&["", "--exec", "true"], "empty"),
    ] {
        let url = cluster.url();
        let finished = run(&[&["listen", "--url", &url], args].concat());
        finished.ends_with(2);
        assert!(finished.err().contains(expected), "{finished:?}");
    }
}

#[test]
fn a_server_that_is_down_is_reported_with_advice() {
    let mut down = cluster();
    down.stop().unwrap();
    let finished = run(&["listen", "--fail-fast", "--url", &down.url(), "a", "--exec", "true"]);
    finished.ends_with(1);
    assert!(finished.err().contains("to do: check that a server is running there"), "{finished:?}");
}
