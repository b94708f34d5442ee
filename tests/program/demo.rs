//! `notifyman demo`, in a pipe.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::{LIMIT, PROGRAM, Running, command, run};

const SMALL: [&str; 5] = ["demo", "--clusters", "2", "--connections", "20"];

/// The folders of the servers of a process.
fn folders(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("notifyman-{pid}-");
    let named = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&prefix);
    fs::read_dir(beside_ours()).unwrap().map(|entry| entry.unwrap().path()).filter(named).collect()
}

/// Where our servers have their folders, there the program's have theirs.
fn beside_ours() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| super::cluster().socket_dir().parent().unwrap().to_owned())
}

/// The process of the server that runs in a folder, if one does.
fn server(folder: &Path) -> Option<u32> {
    fs::read_to_string(folder.join("server")).ok()?.trim().parse().ok()
}

#[track_caller]
fn leaves_nothing(pid: u32, servers: &[u32]) {
    let begin = Instant::now();
    // The guard of the template begins its work when the program has ended.
    while !folders(pid).is_empty() {
        assert!(begin.elapsed() < LIMIT, "left: {:?}", folders(pid));
        thread::sleep(Duration::from_millis(20));
    }
    for server in servers {
        assert!(crate::support::cluster::signal(*server, "0").is_err(), "server {server} still runs");
    }
}

#[test]
fn in_a_pipe_it_prints_plain_lines_and_a_summary_and_leaves_nothing() {
    let demo = Running::start(&[SMALL.as_slice(), &["--seconds", "3"]].concat());
    let pid = demo.child.id();
    let finished = demo.finish();
    finished.ends_with(0);
    let out = finished.out();
    assert!(!out.contains('\x1b') && !out.contains('\r'), "{out}");
    for part in [
        "notifyman: 20 connections, 2 servers, 50 channels, one loop",
        "20 connections are open and listen",
        "server 2 is shut down",
        "moves to the garbage:\n         FATAL 57P01",
        "the garbage holds 10 connections of server 2; 10 others stay open",
        "server 2 is up: 10 connections in the garbage are revived",
        "is restored, with a gap of ",
        "all 10 are restored, under their former ids",
        "the writers stop",
        "each once, in order",
        "20 connections open, 10 of them restored, 0 lost",
        "  nothing lost (except perhaps while server 2 was shutting down)",
    ] {
        assert!(out.contains(part), "{part} is missing:\n{out}");
    }
    let numbers = finished.out.iter().filter(|line| line.contains("delivered/s")).count();
    assert!((1..=4).contains(&numbers), "{out}");
    assert_eq!(finished.err(), "");
    assert!(finished.out.iter().all(|line| line.chars().count() <= 110), "{out}");
    leaves_nothing(pid, &[]);
}

#[test]
fn a_single_server_is_not_ended() {
    let finished = run(&["demo", "--clusters", "1", "--connections", "5", "--channels", "3", "--seconds", "1"]);
    finished.ends_with(0);
    assert!(finished.out().contains("5 connections open, 0 of them restored, 0 lost"), "{finished:#?}");
    assert_eq!(finished.out.last().unwrap(), "  nothing lost");
}

#[test]
fn interrupted_it_stops_its_servers_and_leaves_nothing() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let demo = Running::start(&[SMALL.as_slice(), &["--seconds", "60"]].concat());
        while !demo.out.next().contains("delivered/s") {}
        let pid = demo.child.id();
        let servers: Vec<u32> = folders(pid).iter().filter_map(|folder| server(folder)).collect();
        assert_eq!(servers.len(), 2);

        demo.signal(name);
        let finished = demo.finish();
        finished.ends_with(code);
        assert!(finished.out().contains("interrupted: "), "{finished:#?}");
        assert!(finished.out().contains("20 connections open, 0 lost"), "{finished:#?}");
        leaves_nothing(pid, &servers);
    }
}

#[test]
fn killed_it_leaves_nothing_either() {
    let demo = Running::start(&[SMALL.as_slice(), &["--seconds", "60"]].concat());
    while !demo.out.next().contains("delivered/s") {}
    let pid = demo.child.id();
    let servers: Vec<u32> = folders(pid).iter().filter_map(|folder| server(folder)).collect();
    demo.signal("KILL");
    assert_eq!(demo.finish().status.code(), None);
    leaves_nothing(pid, &servers);
}

#[test]
fn killed_while_it_makes_its_servers_it_leaves_nothing_either() {
    beside_ours();
    let demo = Running::start(&SMALL);
    let pid = demo.child.id();
    let begun = Instant::now();
    while !folders(pid).iter().any(|folder| folder.join("busy").exists()) {
        assert!(begun.elapsed() < LIMIT, "nothing was begun");
        thread::sleep(Duration::from_millis(2));
    }
    demo.signal("KILL");
    assert_eq!(demo.finish().status.code(), None);
    leaves_nothing(pid, &[]);
}

#[test]
fn without_a_server_it_says_how_to_get_one() {
    let demo = Running::spawn(command(PROGRAM).arg("demo").env("NOTIFYMAN_PG_BIN", "/nonexistent"));
    let finished = demo.finish();
    finished.ends_with(1);
    assert!(finished.err().contains("tests/with-postgres"), "{finished:?}");
    assert_eq!(finished.out(), "");
}

#[test]
fn a_reader_who_goes_away_is_no_error() {
    let script = r#"{ "$0" "$@"; echo "code $?" >&2; } | head -n 1"#;
    let mut sh = command("sh");
    sh.args(["-c", script, PROGRAM]).args(SMALL).args(["--seconds", "30"]);
    assert_eq!(Running::spawn(&mut sh).finish().err(), "code 0");
}

#[test]
fn more_servers_than_connections_are_a_usage_error() {
    let finished = run(&["demo", "--clusters", "3", "--connections", "2"]);
    finished.ends_with(2);
    assert!(finished.err().contains("--connections"), "{finished:?}");
}
