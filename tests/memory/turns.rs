//! What a turn of the loop allocates, and a notification.
//!
//! Each case is warmed up, so that lists have their size and the loop its buffer; then it must stay at that.

use std::time::Duration;

use notifyman::{Batch, Connection, NotificationManager};

use crate::server::{CHANNEL, Line, Server};
use crate::{beside, counted, msg};

const LISTENERS: usize = 64;
const ROUNDS: usize = 20;

/// So many notifications, as bytes.
fn frames(count: usize, payload: usize) -> Vec<u8> {
    msg::notification(7, CHANNEL, &"x".repeat(payload)).repeat(count)
}

/// A manager that is told `news` on these connections again and again, and what became of it.
struct Listening {
    _server: Server,
    nm: NotificationManager,
    lines: Vec<Line>,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Tally {
    batches: u64,
    notifications: usize,
    allocations: u64,
}

impl Listening {
    fn new(connections: usize, setup: impl FnOnce(NotificationManager) -> NotificationManager) -> Self {
        rlimit::increase_nofile_limit(8192).unwrap();
        let server = Server::start();
        let (connections, lines) = server.open_many(connections);
        let nm = setup(NotificationManager::new(connections).timeout(Duration::ZERO));
        Self { _server: server, nm, lines }
    }

    /// Tells `news` to every `step`-th, and lets `hear` have what comes; after a few rounds counts what the others cost.
    fn tally(&mut self, step: usize, news: &[u8], mut hear: impl FnMut(Batch)) -> Tally {
        let mut tally = Tally::default();
        for round in 0..2 * ROUNDS {
            for line in self.lines.iter_mut().step_by(step) {
                line.say(news);
            }
            let (heard, counted) = counted(|| {
                let mut heard = Tally::default();
                while let Some(Some((_, batch))) = self.nm.next() {
                    heard.batches += 1;
                    heard.notifications += batch.len();
                    hear(batch);
                }
                heard
            });
            if round >= ROUNDS {
                tally.batches += heard.batches;
                tally.notifications += heard.notifications;
                tally.allocations += counted.count_total;
            }
        }
        tally
    }
}

/// Reads each of them, as a program would, and drops the batch.
fn borrow(batch: Batch) {
    for n in &batch {
        assert!(n.channel() == CHANNEL && n.payload_str().is_ok_and(|text| text.len() < 8_000) && n.pid() == 7);
    }
}

#[test]
fn borrowed_notifications_of_large_batches_cost_nothing() {
    let mut listening = Listening::new(LISTENERS, |nm| nm);
    for payload in [0, 32, 512, 7_999] {
        let news = frames(100_000 / (payload + 27), payload);
        let tally = listening.tally(1, &news, borrow);
        assert_eq!(tally.notifications, ROUNDS * LISTENERS * (100_000 / (payload + 27)));
        assert_eq!(tally.allocations, 0, "{payload}: {tally:?}");
    }
}

#[test]
fn a_small_batch_costs_its_own_buffer_and_nothing_else() {
    let mut listening = Listening::new(LISTENERS, |nm| nm);
    for count in [1, 20] {
        let tally = listening.tally(1, &frames(count, 32), borrow);
        assert_eq!(tally.notifications, ROUNDS * LISTENERS * count);
        assert_eq!(tally.allocations, tally.batches, "{tally:?}");
    }
}

#[test]
fn recovery_and_a_heartbeat_cost_nothing_beyond_that() {
    let mut listening = Listening::new(LISTENERS, |nm| {
        nm.reconnect(Default::default()).heartbeat(Duration::from_secs(600), Duration::from_secs(5))
    });
    assert_eq!(listening.tally(1, &frames(1_000, 32), borrow).allocations, 0);
    let sparse = listening.tally(7, &frames(1, 32), borrow);
    assert_eq!(sparse.allocations, sparse.batches);
}

#[test]
fn a_few_that_wake_among_many_cost_no_more() {
    let mut listening = Listening::new(1_000, |nm| nm);
    let tally = listening.tally(100, &frames(1, 32), borrow);
    assert_eq!((tally.notifications, tally.allocations), (ROUNDS * 10, tally.batches));
}

#[test]
fn owned_notifications_share_their_batch_and_detached_ones_cost_one_buffer_each() {
    let mut listening = Listening::new(LISTENERS, |nm| nm);
    let news = frames(200, 100);
    let owned = listening.tally(1, &news, |batch| batch.into_iter().for_each(drop));
    assert_eq!(owned.allocations, 0, "{owned:?}");
    let detached = listening.tally(1, &news, |batch| batch.into_iter().for_each(|n| drop(n.detach())));
    assert_eq!(detached.allocations as usize, detached.notifications, "{detached:?}");
}

#[test]
fn a_turn_in_which_nothing_happens_costs_nothing() {
    let mut listening = Listening::new(LISTENERS, |nm| {
        nm.timeout(Duration::from_millis(1)).heartbeat(Duration::from_secs(600), Duration::from_secs(5))
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
fn a_heartbeat_that_is_answered_leaves_nothing_behind() {
    let mut listening = Listening::new(8, |nm| {
        nm.timeout(Duration::from_millis(1)).heartbeat(Duration::from_millis(40), Duration::from_secs(20))
    });
    let mut beats = |count: usize| {
        let mut answered = 0;
        while answered < count {
            assert!(listening.nm.next().unwrap().is_none());
            answered += beside(|| listening.lines.iter_mut().filter_map(|line| line.answer().then_some(())).count());
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
fn asking_one_connection_again_and_again_costs_nothing() {
    let server = Server::start();
    let (mut db, mut line) = server.open(CHANNEL);
    let ask = |db: &mut Connection| db.wait(Duration::ZERO).flatten().count();
    assert_eq!(ask(&mut db), 0);
    let ((), nothing) = counted(|| (0..100).for_each(|_| assert_eq!(ask(&mut db), 0)));
    assert_eq!(nothing.count_total, 0, "{nothing:?}");
    // And with something there, no more than a small batch.
    let news = frames(3, 32);
    // The first time, a connection gets room for the state of the pass.
    line.say(&news);
    assert_eq!(ask(&mut db), 3);
    let ((), something) = counted(|| {
        for _ in 0..100 {
            line.say(&news);
            assert_eq!(ask(&mut db), 3);
        }
    });
    assert_eq!(something.count_total, 100, "{something:?}");
}
