//! The manager inside another loop: no call waits. (The design page describes this; no rule does.)

use std::os::fd::AsRawFd as _;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use notifyman::{Event, NotificationManager};

use super::fake::Fake;
use super::support::*;

const T: Duration = Duration::from_millis(40);

/// An outer loop. It sleeps for short periods instead of polling, and never beyond the manager's deadline.
fn drive(nm: &mut NotificationManager, mut on_event: impl FnMut(&mut NotificationManager, Event) -> bool) {
    let begin = Instant::now();
    loop {
        match nm.try_next_event() {
            Poll::Ready(Some(event)) => {
                if !on_event(nm, event) {
                    return;
                }
            }
            Poll::Ready(None) => return,
            Poll::Pending => {
                let left = nm.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
                thread::sleep(left.unwrap_or(T).min(Duration::from_millis(2)));
            }
        }
        assert!(begin.elapsed() < LIMIT);
    }
}

#[test]
fn outer_a_loop_around_it_receives_everything() {
    let channel = channel();
    let mut tx = open();
    let mut nm = NotificationManager::new([listener(&channel), listener(&channel)]).timeout(T);
    let all = ids(&nm);
    assert!(nm.as_raw_fd() >= 0);
    let (mut received, mut idle, mut lost) = (Vec::new(), 0, Vec::new());
    drive(&mut nm, |nm, event| {
        match event {
            Event::Idle => {
                idle += 1;
                match idle {
                    1..=3 => tx.notify(&channel, idle.to_string()).unwrap(),
                    4 => terminate(nm.get(all[0]).unwrap().pid()),
                    5 => drop(nm.remove(all[1])),
                    _ => panic!("the iterator has ended"),
                }
            }
            Event::Notifies(id, batch) => received.push((id, payloads(&batch).concat())),
            Event::Lost(id, _) => lost.push(id),
            Event::Unlistened(id, _) => assert_eq!(id, all[1], "it was removed"),
            other => panic!("{other:?}"),
        }
        true
    });
    received.sort();
    let expected: Vec<_> = all.iter().flat_map(|id| ["1", "2", "3"].map(|n| (*id, n.to_owned()))).collect();
    assert_eq!((received, lost), (expected, vec![all[0]]));
}

#[test]
fn outer_try_next_event_never_waits() {
    let mut fake = Fake::new();
    let (db, _line) = fake.open();
    let mut nm = NotificationManager::new([db]);
    let begin = Instant::now();
    for _ in 0..100 {
        assert!(nm.try_next_event().is_pending());
    }
    assert!(begin.elapsed() < LIMIT / 4);
    assert_eq!(nm.next_deadline(), None, "nothing is due");
}

#[test]
fn outer_the_deadline_is_that_of_the_idle_event() {
    let mut fake = Fake::new();
    let (db, _line) = fake.open();
    let begin = Instant::now();
    let mut nm = NotificationManager::new([db]).timeout(T);
    while nm.try_next_event().is_pending() && begin.elapsed() < T / 2 {
        let due = nm.next_deadline().expect("the idle event has a deadline");
        assert!(due >= begin + T && due <= Instant::now() + T);
    }
    thread::sleep(T);
    assert!(nm.next_deadline().unwrap() <= Instant::now());
    assert!(matches!(nm.try_next_event(), Poll::Ready(Some(Event::Idle))));
    assert!(nm.next_deadline().unwrap() > Instant::now());
}

#[test]
fn outer_a_new_timeout_has_a_deadline_before_the_next_event_is_requested() {
    let mut fake = Fake::new();
    let (db, _line) = fake.open();
    let mut nm = NotificationManager::new([db]);
    assert!(nm.try_next_event().is_pending());
    assert_eq!(nm.next_deadline(), None);
    nm.set_timeout(T);
    assert!(nm.next_deadline().expect("the idle event has a deadline") <= Instant::now() + T);
    nm.set_timeout(Duration::MAX);
    assert_eq!(nm.next_deadline(), None);

    let parked = NotificationManager::new([]).park_when_empty(true).timeout(T);
    assert!(parked.next_deadline().is_some());
}

#[test]
fn outer_the_deadline_has_passed_while_work_is_left() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(2);
    let mut nm = NotificationManager::new(connections);
    assert!(nm.next_deadline().unwrap() <= Instant::now(), "no socket has been polled");
    while nm.try_next_event().is_ready() {}
    let there: usize = lines.iter_mut().map(|line| line.flood()).sum();
    let mut received = 0;
    while let Poll::Ready(Some(Event::Notifies(_, batch))) = nm.try_next_event() {
        received += batch.len();
        if received < there {
            // The descriptor does not become readable again, so the deadline must have passed.
            assert!(nm.next_deadline().is_some_and(|at| at <= Instant::now()), "{received} of {there}");
        }
    }
    assert_eq!(received, there);
}

#[test]
fn outer_try_next_event_ends_when_next_event_does() {
    let mut nm = NotificationManager::new([]);
    assert!(matches!(nm.try_next_event(), Poll::Ready(None)));
    let mut nm = NotificationManager::new([]).park_when_empty(true);
    assert!(nm.try_next_event().is_pending());
    nm.handle().stop();
    assert!(nm.next_deadline().is_some_and(|at| at <= Instant::now()), "a command is queued");
    assert!(matches!(nm.try_next_event(), Poll::Ready(None)));
    let mut fake = Fake::new();
    let (db, _line) = fake.open();
    let mut nm = NotificationManager::new([db]).timeout(Duration::ZERO);
    assert!(matches!(nm.try_next_event(), Poll::Ready(None)));
}
