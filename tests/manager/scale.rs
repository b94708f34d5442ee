//! M09: thousands of connections, and signals. Each test runs in a child process with enough descriptors.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use notifyman::NotificationManager;

use super::fake::Fake;
use super::support::*;
use crate::support::cluster;

/// More connections than `select` supports.
const MANY: usize = 1_200;

#[test]
fn m09_more_connections_than_the_limit_of_select() {
    if child().is_none() {
        let test = "manager::scale::m09_more_connections_than_the_limit_of_select";
        return assert_passed(&child_command(test, 8_192, "").output().unwrap());
    }
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(MANY);
    let mut nm = NotificationManager::new(connections).timeout(Duration::from_millis(20));
    assert_eq!(until_idle(&mut nm), []);

    // All together.
    lines.iter_mut().for_each(|line| line.notify("all"));
    let mut received = receive(&mut nm, MANY);
    received.sort();
    assert_eq!(received, ids(&nm).into_iter().map(|id| (id, "all".into())).collect::<Vec<_>>());

    // One at a time, at any index. Only ready connections cost anything.
    assert_eq!(until_idle(&mut nm), []);
    let before = nm.stats().wakeups;
    for n in [0, 1, 1_023, 1_024, 1_025, MANY - 1] {
        lines[n].notify("one");
        assert_eq!(receive(&mut nm, 1), [(ids(&nm)[n], "one".into())]);
    }
    assert_eq!(nm.stats().wakeups - before, 6);

    // All are lost together.
    drop(lines);
    assert_eq!(until_end(&mut nm).0, []);
    assert_eq!(nm.garbage().count(), MANY);
}

#[test]
fn m09_descriptors_above_the_limit_of_select() {
    if child().is_none() {
        let test = "manager::scale::m09_descriptors_above_the_limit_of_select";
        return assert_passed(&child_command(test, 4_096, &server().url()).output().unwrap());
    }
    let _files: Vec<File> = (0..1_100).map(|_| File::open("/dev/null").unwrap()).collect();
    let url = child().unwrap();
    let connections = (0..5).map(|_| {
        let mut db = connect(&url);
        db.listen(["beyond"]).unwrap();
        db
    });
    let mut nm = NotificationManager::new(connections).timeout(LIMIT);
    connect(&url).notify("beyond", "hello").unwrap();
    let mut received = receive(&mut nm, 5);
    received.sort();
    assert_eq!(received, ids(&nm).into_iter().map(|id| (id, "hello".into())).collect::<Vec<_>>());
}

/// A wait fails with EINTR after a process has been stopped and continued, although it handles no signal: signal(7).
#[test]
fn m09_a_wait_that_a_signal_interrupts_continues() {
    const READY: &str = "the manager is ready";
    if let Some(url) = child() {
        let mut db = connect(&url);
        db.listen(["interrupted"]).unwrap();
        let mut nm = NotificationManager::new([db]);
        println!("{READY}");
        assert_eq!(receive(&mut nm, 1)[0].1, "after all");
        assert_eq!(nm.garbage().count(), 0);
        return;
    }
    let test = "manager::scale::m09_a_wait_that_a_signal_interrupts_continues";
    let mut command = child_command(test, 256, &server().url());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reported = BufReader::new(process.stdout.take().unwrap()).lines();
    assert!(reported.any(|line| line.unwrap().contains(READY)));
    for _ in 0..5 {
        // The process may not wait again between two signals, so there are several.
        std::thread::sleep(Duration::from_millis(30));
        cluster::signal(process.id(), "STOP").unwrap();
        cluster::signal(process.id(), "CONT").unwrap();
    }
    open().notify("interrupted", "after all").unwrap();
    assert!(reported.any(|line| line.unwrap().contains("1 passed")));
    assert!(process.wait().unwrap().success());
}

#[test]
fn m09_idle_connections_do_not_slow_down_a_turn() {
    if child().is_none() {
        let test = "manager::scale::m09_idle_connections_do_not_slow_down_a_turn";
        return assert_passed(&child_command(test, 8_192, "").output().unwrap());
    }
    // Compares the time of a turn with few and with many connections.
    let turn = |n: usize| {
        let mut fake = Fake::new();
        let (connections, mut lines) = fake.open_many(n);
        let mut nm = NotificationManager::new(connections).timeout(LIMIT);
        lines.iter_mut().for_each(|line| line.notify("first"));
        assert_eq!(receive(&mut nm, n).len(), n);
        let rounds = (0..300).map(|_| {
            let begin = Instant::now();
            lines[0].notify("now");
            let _ = nm.next();
            begin.elapsed()
        });
        rounds.min().unwrap()
    };
    let (few, many) = (turn(10), turn(MANY));
    assert!(many < 10 * few, "{few:?} among 10, {many:?} among {MANY}");
}
