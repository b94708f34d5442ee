//! The allocations of a turn of the loop, and of a notification.
//!
//! Each case is warmed up, so that lists have their size and the loop has its buffer. Only later allocations are counted.

use std::time::Duration;

use notifyman::{Batch, Connection, NotificationManager};

use crate::server::{CHANNEL, Server, ServerEnd};
use crate::{counted, msg, uncounted};

const LISTENERS: usize = 64;
const ROUNDS: usize = 20;

/// Returns this number of notifications, as bytes.
fn frames(count: usize, payload: usize) -> Vec<u8> {
    msg::notification(7, CHANNEL, &"x".repeat(payload)).repeat(count)
}

/// A manager whose connections receive the same bytes again and again.
struct ListeningManager {
    _server: Server,
    nm: NotificationManager,
    ends: Vec<ServerEnd>,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Counts {
    batches: u64,
    notifications: usize,
    allocations: u64,
}

impl ListeningManager {
    fn new(connections: usize, setup: impl FnOnce(NotificationManager) -> NotificationManager) -> Self {
        rlimit::increase_nofile_limit(8192).unwrap();
        let server = Server::start();
        let (connections, ends) = server.open_many(connections);
        let nm = setup(NotificationManager::new(connections).timeout(Duration::ZERO));
        Self { _server: server, nm, ends }
    }

    /// Sends `frames` to every `step`-th connection, and passes the batches to `receive`. The first rounds are not counted.
    fn run(&mut self, step: usize, frames: &[u8], mut receive: impl FnMut(Batch)) -> Counts {
        let mut counts = Counts::default();
        for round in 0..2 * ROUNDS {
            for end in self.ends.iter_mut().step_by(step) {
                end.send(frames);
            }
            let (received, counted) = counted(|| {
                let mut received = Counts::default();
                while let Some(Some((_, batch))) = self.nm.next() {
                    received.batches += 1;
                    received.notifications += batch.len();
                    receive(batch);
                }
                received
            });
            if round >= ROUNDS {
                counts.batches += received.batches;
                counts.notifications += received.notifications;
                counts.allocations += counted.count_total;
            }
        }
        counts
    }
}

/// Reads each notification, as a program would, and drops the batch.
fn borrow(batch: Batch) {
    for n in &batch {
        assert!(n.channel() == CHANNEL && n.payload_str().is_ok_and(|text| text.len() < 8_000) && n.pid() == 7);
    }
}

/// A heartbeat whose first check, at a random time within it, does not fall into a test.
const HEARTBEAT: Duration = Duration::from_secs(30 * 24 * 3600);

#[test]
fn borrowed_notifications_of_large_batches_allocate_nothing() {
    let mut listening = ListeningManager::new(LISTENERS, |nm| nm);
    for payload in [0, 32, 512, 7_999] {
        let frames = frames(100_000 / (payload + 27), payload);
        let counts = listening.run(1, &frames, borrow);
        assert_eq!(counts.notifications, ROUNDS * LISTENERS * (100_000 / (payload + 27)));
        assert_eq!(counts.allocations, 0, "{payload}: {counts:?}");
    }
}

#[test]
fn a_small_batch_allocates_only_its_own_buffer() {
    let mut listening = ListeningManager::new(LISTENERS, |nm| nm);
    for count in [1, 20] {
        let counts = listening.run(1, &frames(count, 32), borrow);
        assert_eq!(counts.notifications, ROUNDS * LISTENERS * count);
        assert_eq!(counts.allocations, counts.batches, "{counts:?}");
    }
}

#[test]
fn recovery_and_a_heartbeat_allocate_nothing_more() {
    let mut listening = ListeningManager::new(LISTENERS, |nm| {
        nm.reconnect(Default::default()).heartbeat(HEARTBEAT, Duration::from_secs(5))
    });
    assert_eq!(listening.run(1, &frames(1_000, 32), borrow).allocations, 0);
    let sparse = listening.run(7, &frames(1, 32), borrow);
    assert_eq!(sparse.allocations, sparse.batches);
}

#[test]
fn a_few_active_connections_among_many_allocate_nothing_more() {
    let mut listening = ListeningManager::new(1_000, |nm| nm);
    let counts = listening.run(100, &frames(1, 32), borrow);
    assert_eq!((counts.notifications, counts.allocations), (ROUNDS * 10, counts.batches));
}

#[test]
fn owned_notifications_share_their_batch_and_each_detached_one_allocates_a_buffer() {
    let mut listening = ListeningManager::new(LISTENERS, |nm| nm);
    let frames = frames(200, 100);
    let owned = listening.run(1, &frames, |batch| batch.into_iter().for_each(drop));
    assert_eq!(owned.allocations, 0, "{owned:?}");
    let detached = listening.run(1, &frames, |batch| batch.into_iter().for_each(|n| drop(n.detach())));
    assert_eq!(detached.allocations as usize, detached.notifications, "{detached:?}");
}

#[test]
fn a_turn_without_events_allocates_nothing() {
    let mut listening = ListeningManager::new(LISTENERS, |nm| {
        nm.timeout(Duration::from_millis(1)).heartbeat(HEARTBEAT, Duration::from_secs(5))
    });
    for round in 0..2 {
        let ((), counted) = counted(|| (0..20).for_each(|_| assert!(listening.nm.next().unwrap().is_none())));
        assert!(round == 0 || counted.count_total == 0, "{counted:?}");
    }
    listening.nm.set_timeout(Duration::ZERO);
    let ((), counted) = counted(|| (0..100).for_each(|_| assert!(listening.nm.next().is_none())));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn an_answered_heartbeat_leaks_nothing() {
    let mut listening = ListeningManager::new(8, |nm| {
        nm.timeout(Duration::from_millis(1)).heartbeat(Duration::from_millis(40), Duration::from_secs(20))
    });
    let mut beats = |count: usize| {
        let mut answered = 0;
        while answered < count {
            assert!(listening.nm.next().unwrap().is_none());
            answered += uncounted(|| listening.ends.iter_mut().filter_map(|end| end.answer().then_some(())).count());
        }
        // The answers are read.
        (0..5).for_each(|_| assert!(listening.nm.next().unwrap().is_none()));
    };
    beats(50);
    let ((), counted) = counted(|| beats(400));
    // A request in progress at either end of the measurement takes less than 800 bytes, and there are eight
    // connections. If each of 400 heartbeats leaked only 64 bytes, the sum would exceed this.
    assert!(counted.bytes_current.abs() < 2 * 8 * 800, "{counted:?}");
}

#[test]
fn polling_one_connection_repeatedly_allocates_nothing() {
    let server = Server::start();
    let (mut db, mut end) = server.open(CHANNEL);
    let poll = |db: &mut Connection| db.wait(Duration::ZERO).flatten().count();
    assert_eq!(poll(&mut db), 0);
    let ((), nothing) = counted(|| (0..100).for_each(|_| assert_eq!(poll(&mut db), 0)));
    assert_eq!(nothing.count_total, 0, "{nothing:?}");
    // With notifications, there is only the allocation of a small batch.
    let frames = frames(3, 32);
    // The first time, a connection allocates the state of the wait.
    end.send(&frames);
    assert_eq!(poll(&mut db), 3);
    let ((), something) = counted(|| {
        for _ in 0..100 {
            end.send(&frames);
            assert_eq!(poll(&mut db), 3);
        }
    });
    assert_eq!(something.count_total, 100, "{something:?}");
}
