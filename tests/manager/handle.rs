//! The handle: control of a waiting manager by other threads.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notifyman::{Connection, Error, NotificationManager};

use super::fake::Fake;
use super::support::*;

/// Iterates on a separate thread until the end. Returns the manager, the payloads received, and the number of idle events.
fn run(mut nm: NotificationManager) -> JoinHandle<(NotificationManager, Vec<String>, usize)> {
    thread::spawn(move || {
        let (received, idle) = until_end(&mut nm);
        (nm, received.into_iter().map(|(_, payload)| payload).collect(), idle)
    })
}

/// Waits until the manager most likely waits for sockets.
fn let_it_sleep() {
    thread::sleep(Duration::from_millis(50));
}

#[test]
fn m05_a_waiting_manager_notices_an_insert_immediately() {
    let channel = channel();
    let nm = NotificationManager::new([open()]);
    let handle = nm.handle();
    let running = run(nm);
    let_it_sleep();
    let begin = Instant::now();
    let id = handle.insert(listener(&channel)).wait(LIMIT).unwrap();
    assert!(begin.elapsed() < LIMIT / 2);
    open().notify(&channel, "for the new connection").unwrap();
    until("it is received", || handle.stats().notifications == 1);
    assert_eq!((id.number(), handle.stats().connections), (2, 2));
    handle.stop();
    assert_eq!(running.join().unwrap().1, ["for the new connection"]);
}

#[test]
fn m05_a_waiting_manager_notices_a_removal_immediately() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(2);
    let nm = NotificationManager::new(connections);
    let (all, handle) = (ids(&nm), nm.handle());
    let running = run(nm);
    let_it_sleep();
    let mut db = handle.remove(all[0]).wait(LIMIT).unwrap();
    lines[0].notify("for its new owner");
    assert_eq!(db.wait(Duration::ZERO).flatten().count(), 1);
    let (error, rest) = handle.remove(all[0]).wait(LIMIT).unwrap_err().into_parts();
    assert!(matches!(error, Error::UnknownConnection) && rest.is_none(), "it has been removed");
    assert!(handle.remove(all[1]).wait(LIMIT).is_ok());
    let (_, received, idle) = running.join().unwrap(); // M07: no connection is left
    assert_eq!((received, idle), (vec![], 0));
}

#[test]
fn m05_a_waiting_manager_notices_a_new_timeout_immediately() {
    let mut fake = Fake::new();
    let (db, _line) = fake.open();
    let mut nm = NotificationManager::new([db]);
    let handle = nm.handle();
    let waiting = thread::spawn(move || {
        let _watchdog = Watchdog::over(&nm);
        let reported = nm.next();
        (nm, reported)
    });
    let_it_sleep();
    handle.set_timeout(Duration::from_millis(10)).wait(LIMIT).unwrap();
    let (mut nm, reported) = waiting.join().unwrap();
    assert!(matches!(reported, Some(None)), "{reported:?}");
    assert_eq!(nm.current_timeout(), Some(Duration::from_millis(10)));

    // A zero timeout ends the iteration.
    nm.set_timeout(None);
    let running = run(nm);
    let_it_sleep();
    handle.set_timeout(Duration::ZERO);
    assert_eq!(running.join().unwrap().2, 0);
}

#[test]
fn m07_a_parked_manager_waits_for_commands_and_ends_on_a_stop() {
    let channel = channel();
    let nm = NotificationManager::new([]).park_when_empty(true);
    let handle = nm.handle();
    let running = run(nm);
    for round in 0..3 {
        let_it_sleep();
        let id = handle.insert(listener(&channel)).wait(LIMIT).unwrap();
        open().notify(&channel, round.to_string()).unwrap();
        until("it is received", || handle.stats().notifications == round + 1);
        assert!(handle.remove(id).wait(LIMIT).is_ok());
        assert!(!running.is_finished());
    }
    handle.stop().wait(LIMIT).unwrap();
    assert_eq!(running.join().unwrap().1, ["0", "1", "2"]);
}

#[test]
fn m07_a_parked_manager_has_idle_events_and_ends_with_a_zero_timeout() {
    let mut nm = NotificationManager::new([]).park_when_empty(true).timeout(Duration::from_millis(10));
    assert!(matches!(nm.next(), Some(None)));
    assert!(matches!(nm.next(), Some(None)));
    nm.set_timeout(Duration::ZERO);
    assert!(nm.next().is_none());
}

#[test]
fn m07_queued_commands_are_executed_before_the_iterator_ends() {
    let channel = channel();
    let mut nm = NotificationManager::new([]).timeout(LIMIT);
    let handle = nm.handle();
    let mut ticket = handle.insert(listener(&channel));
    assert!(ticket.try_get().is_none(), "the manager has not been iterated");
    assert!(ticket.wait(Duration::ZERO).is_err_and(|error| error.error().is_timeout() && error.value().is_none()));
    open().notify(&channel, "hello").unwrap();
    assert_eq!(receive(&mut nm, 1)[0].1, "hello");
    assert_eq!(ticket.try_get().unwrap().unwrap(), ids(&nm)[0]);
}

#[test]
fn m11_the_handle_and_the_manager_share_one_sequence_of_ids() {
    let mut fake = Fake::new();
    let (mut connections, _lines) = fake.open_many(4);
    let mut nm = NotificationManager::new([connections.remove(0)]).timeout(Duration::ZERO);
    let handle = nm.handle();
    let mut tickets = vec![handle.insert(connections.remove(0))];
    nm.insert(connections.remove(0));
    tickets.push(handle.insert(connections.remove(0)));
    assert!(nm.next().is_none());
    let reported: Vec<_> = tickets.iter_mut().map(|it| it.try_get().unwrap().unwrap().number()).collect();
    assert_eq!(reported, [3, 4]);
}

#[test]
fn m12_stats_are_accurate_and_readable_while_the_loop_runs() {
    let channel = channel();
    let (db, pid) = {
        let db = listener(&channel);
        let pid = db.pid();
        (db, pid)
    };
    let nm = NotificationManager::new([db, listener(&channel)]);
    let all = ids(&nm);
    let handle = nm.handle();
    assert_eq!((handle.stats().connections, handle.stats().turns, handle.stats().bytes), (2, 0, 0));
    let running = run(nm);

    open().notify_many((0..100).map(|n| (&channel, n.to_string()))).unwrap();
    until("all is counted", || handle.stats().notifications == 200);
    let busy = handle.stats();
    // A notification is 1 + 4 + 4 bytes, and the channel and the payload with a NUL each.
    assert_eq!(busy.bytes as usize, 2 * (100 * (9 + channel.len() + 1 + 1) + 190));
    assert!(busy.turns > 0, "{busy:?}");
    assert_eq!((busy.losses, busy.restores, busy.gaps, busy.garbage, busy.restoring), (0, 0, 0, 0, 0));

    // The notifications may have arrived before the loop slept for the first time.
    let mut tx = open();
    until("wake-ups are counted", || {
        tx.notify(&channel, "").unwrap();
        handle.stats().wakeups >= 2
    });

    terminate(pid);
    until("the loss is counted", || handle.stats().losses == 1);
    let lost = handle.stats();
    assert_eq!((lost.connections, lost.garbage), (1, 1));
    handle.stop();
    let (mut nm, ..) = running.join().unwrap();
    assert_eq!(nm.stats(), handle.stats());

    let (id, dead) = nm.take_garbage().pop().unwrap();
    assert_eq!((nm.revive(id, dead), nm.stats().restoring, nm.stats().garbage), (all[0], 1, 0));
    let running = run(nm);
    until("it is restored", || handle.stats().restores == 1 && handle.stats().gaps == 1);
    assert_eq!((handle.stats().connections, handle.stats().restoring), (2, 0));
    handle.stop();
    running.join().unwrap();
}

#[test]
fn m12_an_idle_manager_runs_no_turns() {
    let mut fake = Fake::new();
    let (connections, _lines) = fake.open_many(50);
    let nm = NotificationManager::new(connections);
    let handle = nm.handle();
    let running = run(nm);
    let mut before = handle.stats().turns;
    until("it has polled every socket and waits", || {
        thread::sleep(Duration::from_millis(200));
        let after = handle.stats().turns;
        std::mem::replace(&mut before, after) == after && after > 0
    });
    handle.stop();
    running.join().unwrap();
}

#[test]
fn m19_a_stop_ends_one_iteration_and_closes_nothing() {
    let mut fake = Fake::new();
    let (db, mut line) = fake.open();
    let mut nm = NotificationManager::new([db]).timeout(LIMIT);
    let handle = nm.handle();
    handle.stop();
    assert!(nm.next().is_none(), "the stop was requested while the manager was not iterated");
    line.notify("still here");
    assert_eq!(receive(&mut nm, 1)[0].1, "still here");

    let running = run(nm);
    let_it_sleep();
    handle.stop().wait(LIMIT).unwrap();
    let (mut nm, ..) = running.join().unwrap();
    line.notify("still");
    assert_eq!(receive(&mut nm, 1)[0].1, "still");
    assert_eq!(nm.garbage().count(), 0);
}

#[test]
fn m18_dropping_the_manager_resolves_every_ticket() {
    let mut fake = Fake::new();
    let (connections, _lines) = fake.open_many(3);
    let mut connections: Vec<Connection> = connections;
    let nm = NotificationManager::new([connections.remove(0)]);
    let (id, handle) = (ids(&nm)[0], nm.handle());
    let mut before = handle.insert(connections.remove(0));
    let mut removal = handle.remove(id);
    let mut stop = handle.stop();
    drop(nm);
    let mut after = handle.insert(connections.remove(0));
    for ticket in [&mut before, &mut after] {
        let (error, db) = ticket.wait(LIMIT).unwrap_err().into_parts();
        assert!(matches!(error, Error::Stopped) && db.is_some_and(|db| !db.is_closed()), "the connection is returned");
        let (error, db) = ticket.wait(LIMIT).unwrap_err().into_parts();
        assert!(matches!(error, Error::TicketSpent) && db.is_none());
    }
    assert!(matches!(removal.wait(LIMIT).unwrap_err().error(), Error::Stopped));
    assert!(matches!(stop.wait(LIMIT), Err(Error::Stopped)));
    assert!(matches!(handle.set_timeout(None).wait(LIMIT), Err(Error::Stopped)));
}

#[test]
fn m18_waiting_for_a_ticket_on_the_iterating_thread_is_an_error() {
    let mut nm = NotificationManager::new([]).park_when_empty(true).timeout(Duration::from_millis(1));
    let handle = nm.handle();
    assert!(matches!(nm.next(), Some(None)));
    assert!(matches!(handle.stop().wait(None), Err(Error::WouldDeadlock)));
    assert!(nm.next().is_none(), "the stop takes effect");
}
