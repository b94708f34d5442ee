//! Callbacks that panic, are slow, or never return: whom they harm, and whom not.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use notifyman::Notifier;
use notifyman::notifier::{Policy, Queue, State};

use super::support::*;

fn with_queue(queue: Queue) -> Notifier<u32> {
    Notifier::builder(config()).unwrap().queue(queue).start().unwrap()
}

#[test]
fn n07_a_panic_is_caught_counted_and_reported_and_harms_nobody() {
    let n = notifier();
    let (scribe, told) = scribe();
    let channel = fresh();
    n.subscribe(1, &channel, |n| panic!("no {}", n.payload())).unwrap();
    n.subscribe(2, &channel, scribe.payloads()).unwrap();
    send(&mut session(), &channel, ["1", "2"]);
    assert_eq!(told.take(2), ["1", "2"]);
    eventually("both are counted", || n.stats().panics == 2);
    let panics: Vec<_> =
        n.take_panics().into_iter().map(|it| format!("{} {} {}", it.id, it.channel, it.message)).collect();
    assert_eq!(panics, [format!("1 {channel} no 1"), format!("1 {channel} no 2")]);
    assert!(n.take_panics().is_empty() && n.is_running());
}

#[test]
fn n07_a_function_that_panics_as_it_is_dropped_harms_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("as it is dropped");
        }
    }
    let n = notifier();
    let (scribe, told) = scribe();
    let channel = fresh();
    for id in [1, 3] {
        let bomb = Bomb;
        let same = n.clone();
        n.subscribe(id, &channel, move |_| {
            let _armed = &bomb;
            let _ = same.unsubscribe(&id, &same.channels()[0]);
        })
        .unwrap();
    }
    n.subscribe(2, &channel, scribe.payloads()).unwrap();
    send(&mut session(), &channel, ["1", "2"]);
    assert_eq!(told.take(2), ["1", "2"]);
    assert!(n.is_running());
}

#[test]
fn n07_a_blocked_callback_delays_later_ones_and_no_more_with_workers() {
    let n = Notifier::builder(config()).unwrap().workers(2).start::<u32>().unwrap();
    let (scribe, told) = scribe();
    let (slow, fast) = (fresh(), fresh());
    let door = Door::default();
    n.subscribe(1, &slow, at_the_door(&door, &scribe)).unwrap();
    n.subscribe(2, &fast, scribe.payloads()).unwrap();
    let mut db = session();
    send(&mut db, &slow, ["a", "b"]);
    assert_eq!(told.next(), "at the door");
    let payloads: Vec<_> = (0..100).map(|i| i.to_string()).collect();
    send(&mut db, &fast, payloads.iter().map(String::as_str));
    assert_eq!(told.take(100), payloads, "the other worker has them all, in order");
    door.open();
    assert_eq!(told.take(2), ["a", "b"], "and its own waited for it, in order");
}

/// The heart of it: what a callback does is nothing to the server.
#[test]
fn n07_while_a_callback_blocks_the_socket_is_read_and_the_server_held_up_by_nothing() {
    // Its own server: the queue and the oldest transaction are the cluster's.
    let server = crate::support::server::start(crate::support::Options::new());
    let n: Notifier<u32> = Notifier::builder(server.url()).unwrap().queue(Queue::default().items(10)).start().unwrap();
    let (scribe, told) = scribe();
    let door = Door::default();
    n.subscribe(1, "c", at_the_door(&door, &scribe)).unwrap();
    let mut db = connect(&server.url());
    db.notify("c", "0").unwrap();
    assert_eq!(told.next(), "at the door");

    let payload = "x".repeat(7000);
    for round in 0..20 {
        // 7 MB in all: far more than the sockets' buffers and the queue of the subscriber take.
        db.notify_many((0..50).map(|i| ("c", format!("{round}.{i} {payload}")))).unwrap();
        db.execute("CREATE TABLE IF NOT EXISTS t (x int); INSERT INTO t VALUES (1)").unwrap();
    }
    eventually("all is read", || n.stats().heard == 1001);
    let others = format!("FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> {}", db.pid());
    eventually("the server's queue is empty", || {
        db.notify("another", "").unwrap(); // so that it advances
        ask(&mut db, "SELECT pg_notification_queue_usage()") == "0"
    });
    assert_eq!(ask(&mut db, &format!("SELECT count(*) {others}")), "1", "the listening session");
    let held =
        ask(&mut db, &format!("SELECT count(*) {others} AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)"));
    assert_eq!(held, "0");
    assert_eq!(ask(&mut db, &format!("SELECT state {others}")), "idle");
    assert_eq!(n.stats().waiting, 10, "and here no more is kept than may be");
    door.open();
    assert_eq!(told.next(), "0");
    assert_eq!(told.next(), "[overflow 990]");
}

#[test]
fn n07_a_full_queue_drops_the_oldest_and_says_so() {
    let (n, told, door) = blocked(Queue::new(Policy::DropOldest).items(3));
    eventually("they are dropped", || n.stats().dropped == 2);
    door.open();
    assert_eq!(told.take(5), ["0", "[overflow 2]", "3", "4", "5"]);
    eventually("all is counted", || (n.stats().delivered, n.stats().missed) == (4, 1));
}

#[test]
fn n07_a_full_queue_drops_the_newest_and_says_so() {
    let (n, told, door) = blocked(Queue::new(Policy::DropNewest).items(3));
    eventually("they are dropped", || n.stats().dropped == 2);
    door.open();
    assert_eq!(told.take(5), ["0", "1", "2", "3", "[overflow 2]"]);
}

#[test]
fn n07_a_queue_is_bounded_in_bytes_too() {
    let (n, told, door) = blocked(Queue::new(Policy::DropOldest).bytes(400));
    eventually("some are dropped", || n.stats().dropped > 0 && n.stats().heard == 6);
    let dropped = n.stats().dropped;
    door.open();
    assert_eq!(told.take(2), ["0".to_owned(), format!("[overflow {dropped}]")]);
}

#[test]
fn n07_a_subscriber_that_is_to_be_disconnected_gets_what_waits_and_a_gap_at_last() {
    let (n, told, door) = blocked(Queue::new(Policy::Disconnect).items(3));
    eventually("it is unsubscribed", || n.subscriptions().is_empty());
    assert!(n.channels().is_empty());
    door.open();
    assert_eq!(told.take(5), ["0", "1", "2", "3", "[unsubscribed 2]"]);
}

/// A subscriber that waits at the door with the first, while five more come.
fn blocked(queue: Queue) -> (Notifier<u32>, Told, Door) {
    let n = with_queue(queue);
    let (scribe, told) = scribe();
    let channel = fresh();
    let door = Door::default();
    n.subscribe(1, &channel, at_the_door(&door, &scribe)).unwrap();
    let mut db = session();
    send(&mut db, &channel, ["0"]);
    assert_eq!(told.next(), "at the door");
    db.notify_many(["1", "2", "3", "4", "5"].map(|payload| (&channel, payload))).unwrap();
    (n, told, door)
}

#[test]
fn n07_coalescing_shows_each_key_once_the_latest_last_and_counts_what_it_folded() {
    let n = with_queue(Queue::default());
    let (scribe, told) = scribe();
    let channel = fresh();
    let door = Door::default();
    n.subscribe(1, &channel, {
        let (door, scribe) = (door.clone(), scribe.clone());
        move |n| {
            scribe.write(format!("{}+{}", n.payload(), n.folded()));
            door.pass();
        }
    })
    .unwrap();
    n.set_queue(&1, Queue::new(Policy::Coalesce)).unwrap();
    let mut db = session();
    send(&mut db, &channel, ["first"]);
    assert_eq!(told.next(), "first+0");
    send(&mut db, &channel, ["a", "b", "a", "c", "a", "b"]);
    eventually("all have come", || n.stats().heard == 7);
    assert_eq!((n.stats().waiting, n.stats().folded), (3, 3));
    door.open();
    assert_eq!(told.take(3), ["c+0", "a+2", "b+1"]);
    assert_eq!(n.stats().dropped, 0);
}

#[test]
fn n07_one_subscribers_full_queue_is_nothing_to_another() {
    let n = Notifier::builder(config()).unwrap().workers(2).queue(Queue::default().items(5)).start::<u32>().unwrap();
    let (scribe, told) = scribe();
    let (_blocked, blocked_told) = super::support::scribe();
    let channel = fresh();
    let door = Door::default();
    n.subscribe(1, &channel, at_the_door(&door, &_blocked)).unwrap();
    n.subscribe(2, &channel, scribe.payloads()).unwrap();
    let mut db = session();
    for i in 0..200 {
        send(&mut db, &channel, [i.to_string().as_str()]);
        assert_eq!(told.next(), i.to_string());
    }
    assert!(n.stats().dropped >= 190);
    door.open();
    assert_eq!(blocked_told.take(3), ["at the door", "0", "[overflow 194]"]);
}

#[test]
fn n07_with_workers_order_is_kept_within_a_subscriber() {
    let n = Notifier::builder(config()).unwrap().workers(4).start::<u32>().unwrap();
    let channels: Vec<_> = (0..3).map(|_| fresh()).collect();
    let tolds: Vec<_> = (0..20)
        .map(|id| {
            let (scribe, told) = scribe();
            for channel in &channels {
                n.subscribe(id, channel, scribe.payloads()).unwrap();
            }
            told
        })
        .collect();
    let mut db = session();
    db.notify_many((0..600).map(|i| (&channels[i % 3], i.to_string()))).unwrap();
    let expected: Vec<_> = (0..600).map(|i| i.to_string()).collect();
    for told in tolds {
        assert_eq!(told.take(600), expected);
    }
}

#[test]
fn n07_a_subscriber_that_leaves_and_comes_back_is_still_called_one_at_a_time() {
    let n = Notifier::builder(config()).unwrap().workers(4).start::<u32>().unwrap();
    let (scribe, told) = scribe();
    let channel = fresh();
    let door = Door::default();
    let mut db = session();
    for round in ["1", "2", "3"] {
        n.subscribe(7, &channel, at_the_door(&door, &scribe)).unwrap();
        send(&mut db, &channel, [round]);
        if round == "1" {
            assert_eq!(told.next(), "at the door");
        }
        eventually("it has come", || n.stats().heard >= round.parse().unwrap());
        if round != "3" {
            n.unsubscribe(&7, &channel).unwrap();
        }
    }
    assert!(told.so_far().is_empty(), "the first call hasn't returned");
    door.open();
    assert_eq!(told.take(3), ["1", "at the door", "3"], "the second was unsubscribed before its turn");
}

/// An id that can't be cloned once that is said.
#[derive(PartialEq, Eq, Hash)]
struct Fragile(u32);

static BROKEN: AtomicBool = AtomicBool::new(false);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(!BROKEN.load(SeqCst), "no clone of {}", self.0);
        Self(self.0)
    }
}

#[test]
fn n09_a_dispatcher_that_ends_by_a_fault_of_the_id_is_told_and_a_start_mends_it() {
    let n: Notifier<Fragile> = Notifier::new(config()).unwrap();
    let (scribe, told) = scribe();
    let channel = fresh();
    n.subscribe(Fragile(1), &channel, |n| assert!(n.missed().is_some())).unwrap();
    n.subscribe(Fragile(2), &channel, scribe.payloads()).unwrap();
    let mut db = session();
    BROKEN.store(true, SeqCst);
    db.notify(&channel, "1").unwrap();
    eventually("it is told", || matches!(n.state(), State::Failed(_)));
    assert!(!n.is_running());
    BROKEN.store(false, SeqCst);
    n.start().unwrap();
    while told.next() != "[stopped 0]" {}
    db.notify(&channel, "2").unwrap();
    assert_eq!(told.next(), "2");
}
