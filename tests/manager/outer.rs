//! Another loop around the manager's: nothing here waits inside it. (That is the design's section 1, and no rule's.)

use std::os::fd::AsRawFd as _;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use notifyman::{Event, NotificationManager};

use super::fake::Fake;
use super::support::*;

const T: Duration = Duration::from_millis(40);

/// A loop around it: sleeps in small naps, for want of a poll, and no longer than the manager allows.
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
fn outer_a_loop_around_it_hears_everything() {
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
                    1..=3 => tx.notify(&channel, &idle.to_string()).unwrap(),
                    4 => terminate(nm.get(all[0]).unwrap().pid()),
                    5 => drop(nm.remove(all[1])),
                    _ => panic!("it has ended"),
                }
            }
            Event::Notifies(id, batch) => received.push((id, payloads(&batch).concat())),
            Event::Lost(id, _) => lost.push(id),
            other => panic!("{other:?}"),
        }
        true
    });
    received.sort();
    let expected: Vec<_> = all.iter().flat_map(|id| ["1", "2", "3"].map(|n| (*id, n.to_owned()))).collect();
    assert_eq!((received, lost), (expected, vec![all[0]]));
}

#[test]
fn outer_it_never_waits() {
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
        let due = nm.next_deadline().expect("idle is due at some time");
        assert!(due >= begin + T && due <= Instant::now() + T);
    }
    thread::sleep(T);
    assert!(nm.next_deadline().unwrap() <= Instant::now());
    assert!(matches!(nm.try_next_event(), Poll::Ready(Some(Event::Idle))));
    assert!(nm.next_deadline().unwrap() > Instant::now());
}

#[test]
fn outer_a_new_timeout_has_a_deadline_before_anybody_asks_for_an_event() {
    let mut fake = Fake::new();
    let (db, _line) = fake.open();
    let mut nm = NotificationManager::new([db]);
    assert!(nm.try_next_event().is_pending());
    assert_eq!(nm.next_deadline(), None);
    nm.set_timeout(T);
    assert!(nm.next_deadline().expect("a heartbeat is due") <= Instant::now() + T);
    nm.set_timeout(Duration::MAX);
    assert_eq!(nm.next_deadline(), None);

    let parked = NotificationManager::new([]).park_when_empty(true).timeout(T);
    assert!(parked.next_deadline().is_some());
}

#[test]
fn outer_the_deadline_is_now_while_anything_is_left_over() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(2);
    let mut nm = NotificationManager::new(connections);
    assert!(nm.next_deadline().unwrap() <= Instant::now(), "no socket has been read");
    while nm.try_next_event().is_ready() {}
    let there: usize = lines.iter_mut().map(|line| line.flood()).sum();
    let mut received = 0;
    while let Poll::Ready(Some(Event::Notifies(_, batch))) = nm.try_next_event() {
        received += batch.len();
        if received < there {
            // Its descriptor does not become readable, so the deadline must be due.
            assert!(nm.next_deadline().is_some_and(|at| at <= Instant::now()), "{received} of {there}");
        }
    }
    assert_eq!(received, there);
}

#[test]
fn outer_it_ends_as_the_other_does() {
    let mut nm = NotificationManager::new([]);
    assert!(matches!(nm.try_next_event(), Poll::Ready(None)));
    let mut nm = NotificationManager::new([]).park_when_empty(true);
    assert!(nm.try_next_event().is_pending());
    nm.handle().stop();
    assert!(nm.next_deadline().is_some_and(|at| at <= Instant::now()), "a command waits");
    assert!(matches!(nm.try_next_event(), Poll::Ready(None)));
    let mut fake = Fake::new();
    let (db, _line) = fake.open();
    let mut nm = NotificationManager::new([db]).timeout(Duration::ZERO);
    assert!(matches!(nm.try_next_event(), Poll::Ready(None)));
}
