//! `notifyman demo`, in a pipe.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::{LIMIT, PROGRAM, Running, command, run};
use crate::support::server::eventually;
use crate::support::{EngineKind, engine};

const SMALL: [&str; 5] = ["demo", "--clusters", "2", "--connections", "20"];

/// Returns the directories of a process's servers.
fn directories(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("notifyman-{pid}-");
    let named = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&prefix);
    fs::read_dir(parent_directory()).unwrap().map(|entry| entry.unwrap().path()).filter(named).collect()
}

/// Returns the directory that contains the directories of this process's servers, and so those of the program's.
fn parent_directory() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| super::cluster().socket_dir().parent().unwrap().to_owned())
}

/// Returns the process id of the server that runs in a directory, if any.
fn server(directory: &Path) -> Option<u32> {
    fs::read_to_string(directory.join("server")).ok()?.trim().parse().ok()
}

#[track_caller]
fn assert_nothing_is_left(pid: u32, servers: &[u32]) {
    let begin = Instant::now();
    // The guard of the template directory starts its work when the program has ended.
    while !directories(pid).is_empty() {
        assert!(begin.elapsed() < LIMIT, "left: {:?}", directories(pid));
        thread::sleep(Duration::from_millis(20));
    }
    for server in servers {
        assert!(crate::support::cluster::signal(*server, "0").is_err(), "server {server} still runs");
    }
}

#[test]
fn in_a_pipe_it_prints_plain_lines_and_a_summary() {
    let demo = Running::start(&[SMALL.as_slice(), &["--duration", "3s"]].concat());
    let pid = demo.child.id();
    let finished = demo.finish();
    finished.ends_with(0);
    let out = finished.out();
    assert!(!out.contains('\x1b') && !out.contains('\r'), "{out}");
    for part in [
        "notifyman: 20 connections, 2 servers, 50 channels, one loop",
        "20 connections open and listening",
        "server 2 is shut down",
        "moves to the garbage:\n         FATAL 57P01",
        "the garbage holds 10 connections of server 2; 10 others open",
        "server 2 is up: reviving 10 connections in the garbage",
        "is restored, with a gap of ",
        "all 10 are restored, under their former ids",
        "the writers stop",
        "each once, in order",
        "20 connections open, 10 of them restored, 0 lost",
        " without a fence, none with it",
        "  nothing lost outside the reported gap (server 2, ",
    ] {
        assert!(out.contains(part), "{part} is missing:\n{out}");
    }
    let numbers = finished.out.iter().filter(|line| line.contains("delivered/s")).count();
    assert!((1..=4).contains(&numbers), "{out}");
    assert_eq!(finished.err(), "");
    assert!(finished.out.iter().all(|line| line.chars().count() <= 110), "{out}");
    assert_nothing_is_left(pid, &[]);
}

#[test]
fn a_single_server_is_not_shut_down() {
    let finished = run(&["demo", "--clusters", "1", "--connections", "1", "--channels", "1", "--seconds", "1"]);
    finished.ends_with(0);
    let out = finished.out();
    assert!(out.starts_with("notifyman: 1 connection, 1 server, 1 channel, one loop"), "{out}");
    assert!(
        out.contains("1 connection open and listening") && out.contains("1 connection open, 0 of them restored"),
        "{out}"
    );
    assert_eq!(finished.out.last().unwrap(), "  nothing lost");
}

#[test]
fn the_cache_alone_has_stale_hits_only_without_a_fence() {
    let demo = Running::start(&["demo", "--act", "cache", "--duration", "5s"]);
    let pid = demo.child.id();
    let finished = demo.finish();
    finished.ends_with(0);
    let out = finished.out();
    assert!(out.starts_with("notifyman: one cached price, with and without a fence"), "{out}");
    for part in ["stale of ", "  with the fence ", " stale hits without a fence, none with it"] {
        assert!(out.contains(part), "{part} is missing:\n{out}");
    }
    assert!(!out.contains(" 0 stale hits without"), "{out}");
    assert_nothing_is_left(pid, &[]);
}

#[test]
fn r08_the_act_of_the_relay_kills_the_leader_and_loses_nothing() {
    if !engine::has(EngineKind::Redis) {
        return;
    }
    let demo = Running::start(&["demo", "--act", "relay", "--connections", "20", "--rate", "500", "--duration", "3s"]);
    let pid = demo.child.id();
    let finished = demo.finish();
    finished.ends_with(0);
    let out = finished.out();
    assert!(out.starts_with("notifyman: two relays, and 20 readers behind them") && !out.contains('\x1b'), "{out}");
    for part in [
        ", the leader, is killed (SIGKILL)",
        " leads, ",
        " is started again, and waits",
        "the writer stops",
        "  20 readers ",
        "each once, ",
        "the other relay led ",
        "  nothing lost",
    ] {
        assert!(out.contains(part), "{part} is missing:\n{out}");
    }
    assert_eq!(finished.err(), "");
    assert!(finished.out.iter().all(|line| line.chars().count() <= 110), "{out}");
    assert_nothing_is_left(pid, &[]);
}

#[test]
fn its_relays_end_even_if_it_is_killed() {
    if !engine::has(EngineKind::Redis) {
        return;
    }
    let demo = Running::start(&["demo", "--act", "relay", "--connections", "2"]);
    let pid = demo.child.id();
    let port = std::iter::repeat_with(|| demo.out.next())
        .find_map(|line| Some(line.split_once("redis-server on port ")?.1.to_owned()))
        .unwrap();
    let relays = || {
        let listed = Command::new("ps").args(["axww", "-o", "command"]).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        listed.lines().filter(|line| line.contains(&format!("--to redis://127.0.0.1:{port} "))).count()
    };
    eventually("both run", || relays() == 2);
    demo.signal("KILL");
    assert_eq!(demo.finish().status.code(), None);
    eventually("none runs", || relays() == 0);
    assert_nothing_is_left(pid, &[]);
}

#[test]
fn a_signal_stops_and_removes_its_servers() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let demo = Running::start(&[SMALL.as_slice(), &["--duration", "60s"]].concat());
        while !demo.out.next().contains("delivered/s") {}
        let pid = demo.child.id();
        let servers: Vec<u32> = directories(pid).iter().filter_map(|directory| server(directory)).collect();
        assert_eq!(servers.len(), 2);

        demo.signal(name);
        let finished = demo.finish();
        finished.ends_with(code);
        assert!(finished.out().contains("interrupted: "), "{finished:#?}");
        assert!(finished.out().contains("20 connections open, 0 lost"), "{finished:#?}");
        assert_nothing_is_left(pid, &servers);
    }
}

#[test]
fn its_servers_are_removed_even_if_it_is_killed() {
    let demo = Running::start(&[SMALL.as_slice(), &["--duration", "60s"]].concat());
    while !demo.out.next().contains("delivered/s") {}
    let pid = demo.child.id();
    let servers: Vec<u32> = directories(pid).iter().filter_map(|directory| server(directory)).collect();
    demo.signal("KILL");
    assert_eq!(demo.finish().status.code(), None);
    assert_nothing_is_left(pid, &servers);
}

#[test]
fn its_servers_are_removed_even_if_it_is_killed_during_their_setup() {
    parent_directory();
    let demo = Running::start(&SMALL);
    let pid = demo.child.id();
    let begun = Instant::now();
    while !directories(pid).iter().any(|directory| directory.join("busy").exists()) {
        assert!(begun.elapsed() < LIMIT, "the setup has not begun");
        thread::sleep(Duration::from_millis(2));
    }
    demo.signal("KILL");
    assert_eq!(demo.finish().status.code(), None);
    assert_nothing_is_left(pid, &[]);
}

#[test]
fn without_a_server_it_reports_how_to_get_one() {
    let demo = Running::spawn(command(PROGRAM).arg("demo").env("NOTIFYMAN_PG_BIN", "/nonexistent"));
    let finished = demo.finish();
    finished.ends_with(1);
    assert!(finished.err().contains("tests/with-postgres"), "{finished:?}");
    assert_eq!(finished.out(), "");
}

#[test]
fn a_reader_that_closes_the_output_is_not_an_error() {
    let script = r#"{ "$0" "$@"; echo "code $?" >&2; } | head -n 1"#;
    let mut sh = command("sh");
    sh.args(["-c", script, PROGRAM]).args(SMALL).args(["--duration", "30s"]);
    assert_eq!(Running::spawn(&mut sh).finish().err(), "code 0");
}

#[test]
fn more_servers_than_connections_are_a_usage_error() {
    let finished = run(&["demo", "--clusters", "3", "--connections", "2"]);
    finished.ends_with(2);
    assert!(finished.err().contains("--connections"), "{finished:?}");
}
