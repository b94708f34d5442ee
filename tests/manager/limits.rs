//! M10: without a poll, all connections move to the garbage and the iterator ends. Each test runs in a child process, and
//! uses up its descriptors.

use std::fs::File;
use std::time::Duration;

use notifyman::{Backoff, Error, Event, NotificationManager};

use super::support::*;

/// Opens files until only `n` descriptors are left.
fn use_up_all_but(n: usize) -> Vec<File> {
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    taken.truncate(taken.len() - n);
    taken
}

fn all_move_to_the_garbage_with_few_descriptors(left: usize, timeout: Option<Duration>) {
    let url = child().unwrap();
    // The test processes share a server, so each uses a separate channel.
    let channel = channel();
    let mut db = connect(&url);
    db.listen([&channel]).unwrap();
    db.notify(&channel, "held").unwrap();
    db.query("select 1").unwrap();
    let other = connect(&url);

    let taken = use_up_all_but(left);
    let mut nm = NotificationManager::new([db, other]).timeout(timeout);
    let all = ids(&nm);
    assert_eq!(all.len(), 2, "creating a manager does not fail");
    let mut received = Vec::new();
    for event in &mut nm {
        let (id, batch) = event.expect("no idle event");
        received.push((id, payloads(&batch).concat()));
    }
    assert_eq!(received, [(all[0], "held".into())], "pending notifications are yielded first");
    let garbage: Vec<_> = nm.garbage().map(|(id, dead)| (id, dead.error().clone())).collect();
    assert_eq!(garbage.iter().map(|(id, _)| *id).collect::<Vec<_>>(), all);
    for (_, error) in &garbage {
        assert!(matches!(error, Error::Io { error, .. } if error.raw_os_error() == Some(24)), "{error:?}"); // EMFILE
        assert!(format!("{error:#}").contains("poller"), "{error}");
    }
    assert!(nm.next().is_none(), "it ends again");

    // This manager stays without a poll; another one can have one.
    drop(taken);
    let (_, dead) = nm.take_garbage().remove(0);
    let late = nm.insert(connect(&url));
    assert!(nm.next().is_none());
    assert_eq!(super::support::dead(&nm), [late]);
    let mut nm = NotificationManager::new([dead.reconnect().unwrap()]).timeout(LIMIT);
    connect(&url).notify(&channel, "again").unwrap();
    assert_eq!(receive(&mut nm, 1)[0].1, "again");
}

/// Runs the test in the child process, or starts the child process.
fn in_a_child(test: &str, part: impl FnOnce()) {
    match child() {
        Some(_) => part(),
        None => assert_passed(&child_command(test, 256, &server().url()).output().unwrap()),
    }
}

#[test]
fn m10_without_a_poll_all_move_to_the_garbage_and_the_iterator_ends() {
    let part = || all_move_to_the_garbage_with_few_descriptors(0, None);
    in_a_child("manager::limits::m10_without_a_poll_all_move_to_the_garbage_and_the_iterator_ends", part);
}

#[test]
fn m10_without_a_waker_all_move_to_the_garbage_and_the_iterator_ends() {
    let part = || all_move_to_the_garbage_with_few_descriptors(1, Some(LIMIT));
    in_a_child("manager::limits::m10_without_a_waker_all_move_to_the_garbage_and_the_iterator_ends", part);
}

#[test]
fn m10_without_a_poll_an_iterator_with_a_zero_timeout_ends() {
    let part = || all_move_to_the_garbage_with_few_descriptors(0, Some(Duration::ZERO));
    in_a_child("manager::limits::m10_without_a_poll_an_iterator_with_a_zero_timeout_ends", part);
}

#[test]
fn m10_without_a_poll_a_parked_manager_ends() {
    in_a_child("manager::limits::m10_without_a_poll_a_parked_manager_ends", || {
        let taken = use_up_all_but(0);
        let mut nm = NotificationManager::new([]).park_when_empty(true);
        assert!(nm.next().is_none());
        drop(taken);
    });
}

#[test]
fn m10_without_a_poll_lost_connections_are_not_restored() {
    in_a_child("manager::limits::m10_without_a_poll_lost_connections_are_not_restored", || {
        let (first, second) = (connect(&child().unwrap()), connect(&child().unwrap()));
        let taken = use_up_all_but(0);
        let mut nm = NotificationManager::new([first, second]).reconnect(Backoff::default()).park_when_empty(true);
        let all = ids(&nm);
        let mut lost = Vec::new();
        while let Some(Event::Lost(id, _)) = event(&mut nm) {
            lost.push(id);
        }
        assert_eq!(lost, all, "each is lost once");
        assert_eq!((dead(&nm), nm.restoring().count(), nm.stats().losses), (all, 0, 2));
        drop(taken);
    });
}

#[test]
fn m10_without_a_poll_restores_fail() {
    in_a_child("manager::limits::m10_without_a_poll_restores_fail", || {
        let url = child().unwrap();
        let db = connect(&url);
        let taken = use_up_all_but(0);
        let mut nm = NotificationManager::new([db]).reconnect(Backoff::default());
        assert!(matches!(event(&mut nm), Some(Event::Lost(..))));
        let (id, dead) = nm.take_garbage().remove(0);
        assert_eq!(nm.revive(id, dead), id);
        let dialled = nm.dial(&*url, ["limits"]).unwrap();
        let mut ticket = nm.handle().listen(id, ["more"]);
        for expected in [id, dialled] {
            let Some(Event::Lost(lost, error)) = event(&mut nm) else { panic!("the end, without {expected}") };
            assert!(lost == expected && format!("{error:#}").contains("poller"), "{lost}: {error}");
        }
        assert!(event(&mut nm).is_none());
        assert_eq!((super::support::dead(&nm), nm.restoring().count()), (vec![id, dialled], 0));
        assert!(ticket.try_get().is_some_and(|result| result.is_err()));
        drop(taken);
    });
}
