//! Callbacks that panic, are slow or never return, and their effect on others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use notifyman::Notifier;
use notifyman::notifier::{Delivery, Policy, Queue, State};

use super::support::*;

fn with_queue(queue: Queue) -> Notifier<u32> {
    Notifier::builder(config()).unwrap().queue(queue).start().unwrap()
}

#[test]
fn n07_a_panic_is_caught_counted_and_reported_without_effect_on_others() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    n.subscribe(1, &channel, |n| panic!("no {}", text(n))).unwrap();
    n.subscribe(2, &channel, recorder.payloads()).unwrap();
    send(&mut session(), &channel, ["1", "2"]);
    assert_eq!(records.take(2), ["1", "2"]);
    eventually("both are counted", || n.stats().panics == 2);
    let panics: Vec<_> =
        n.take_panics().into_iter().map(|it| format!("{} {} {}", it.id, it.channel, it.message)).collect();
    assert_eq!(panics, [format!("1 {channel} no 1"), format!("1 {channel} no 2")]);
    assert!(n.take_panics().is_empty() && n.is_running());
}

#[test]
fn n07_a_callback_that_panics_when_dropped_has_no_effect_on_others() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("when dropped");
        }
    }
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    for id in [1, 3] {
        let bomb = Bomb;
        let same = n.clone();
        n.subscribe(id, &channel, move |_| {
            let _armed = &bomb;
            let _ = same.unsubscribe(&id, &same.channels()[0]);
        })
        .unwrap();
    }
    n.subscribe(2, &channel, recorder.payloads()).unwrap();
    send(&mut session(), &channel, ["1", "2"]);
    assert_eq!(records.take(2), ["1", "2"]);
    assert!(n.is_running());
}

#[test]
fn n07_with_workers_a_blocked_callback_delays_only_its_own_subscriber() {
    let n = Notifier::builder(config()).unwrap().workers(2).start::<u32>().unwrap();
    let (recorder, records) = recorder();
    let (slow, fast) = (new_channel(), new_channel());
    let latch = Latch::default();
    n.subscribe(1, &slow, blocking(&latch, &recorder)).unwrap();
    n.subscribe(2, &fast, recorder.payloads()).unwrap();
    let mut db = session();
    send(&mut db, &slow, ["a", "b"]);
    assert_eq!(records.next(), "blocked");
    let payloads: Vec<_> = (0..100).map(|i| i.to_string()).collect();
    send(&mut db, &fast, payloads.iter().map(String::as_str));
    assert_eq!(records.take(100), payloads, "the other worker delivers all, in order");
    latch.open();
    assert_eq!(records.take(2), ["a", "b"], "the notifications of the blocked subscriber waited, in order");
}

#[test]
fn n07_a_slow_callback_takes_turns_with_other_subscribers() {
    let n = notifier();
    let (recorder, records) = recorder();
    let (slow, fast) = (new_channel(), new_channel());
    let (latch, calls) = (Latch::default(), Arc::new(AtomicUsize::new(0)));
    let (blocked, count) = (latch.clone(), Arc::clone(&calls));
    n.subscribe(1, &slow, move |_| {
        blocked.wait();
        count.fetch_add(1, SeqCst);
        thread::sleep(Duration::from_millis(2));
    })
    .unwrap();
    let count = Arc::clone(&calls);
    n.subscribe(2, &fast, move |_| recorder.record(count.load(SeqCst).to_string())).unwrap();
    let mut db = session();
    let payloads: Vec<_> = (0..100).map(|i| i.to_string()).collect();
    send(&mut db, &slow, payloads.iter().map(String::as_str));
    send(&mut db, &fast, ["x"]);
    receive(&n, 101);
    latch.open();
    let calls_before: usize = records.next().parse().unwrap();
    assert!(calls_before <= 4, "{calls_before} calls of 2 ms each came first");
    eventually("all are delivered", || n.stats().delivered == 101);
}

#[test]
fn n07_a_delivery_to_10_000_subscribers_holds_no_lock_that_a_caller_needs() {
    const SUBSCRIBERS: u32 = 10_000;
    let n = Notifier::builder(config()).unwrap().autorun(false).build::<u32>();
    let (recorder, records) = recorder();
    let (channel, latch) = (new_channel(), Latch::default());
    n.subscribe(0, &channel, blocking(&latch, &recorder)).unwrap();
    for id in 1..SUBSCRIBERS {
        let last = (id == SUBSCRIBERS - 1).then(|| recorder.payloads());
        let mut callback = last.map(|last| Box::new(last) as Box<dyn FnMut(&Delivery<'_, u32>) + Send>);
        n.subscribe(id, &channel, move |n| callback.iter_mut().for_each(|callback| callback(n))).unwrap();
    }
    n.autorun(true);
    n.start().unwrap();
    let mut db = session();
    send(&mut db, &channel, ["1"]);
    assert_eq!(records.next(), "blocked");

    // The latch fails the test if a call waits for the delivery.
    for id in [0, 1, SUBSCRIBERS / 2] {
        n.set_queue(&id, Queue::new(Policy::Coalesce)).unwrap();
        n.mute_subscriber(&id).unwrap();
        n.unmute_subscriber(&id).unwrap();
    }
    n.subscribe(SUBSCRIBERS, &channel, |_| ()).unwrap();
    n.subscribe(2, &channel, |_| ()).unwrap();
    n.unsubscribe(&3, &channel).unwrap();
    assert_eq!(n.subscriptions()[&channel].len(), SUBSCRIBERS as usize);
    send(&mut db, &channel, ["2"]);
    receive(&n, 2);
    assert_eq!(n.stats().subscribers, u64::from(SUBSCRIBERS));
    assert!(n.stats().waiting > u64::from(SUBSCRIBERS));
    assert_eq!(n.stats().delivered, 0);

    latch.open();
    while records.next() != "2" {}
    eventually("all are delivered", || n.stats().waiting == 0);
}

#[test]
fn n07_a_blocked_callback_has_no_effect_on_the_server() {
    // A server of its own: all databases of a server share the queue and the oldest transaction.
    let server = crate::support::server::start(crate::support::Options::new());
    let n: Notifier<u32> = Notifier::builder(server.url()).unwrap().queue(Queue::default().items(10)).start().unwrap();
    let (recorder, records) = recorder();
    let latch = Latch::default();
    n.subscribe(1, "c", blocking(&latch, &recorder)).unwrap();
    let mut db = connect(&server.url());
    db.notify("c", "0").unwrap();
    assert_eq!(records.next(), "blocked");

    let payload = "x".repeat(7000);
    for round in 0..20 {
        // 7 MB in total, far more than the socket buffers and the queue of the subscriber hold.
        db.notify_many((0..50).map(|i| ("c", format!("{round}.{i} {payload}")))).unwrap();
        db.execute("CREATE TABLE IF NOT EXISTS t (x int); INSERT INTO t VALUES (1)").unwrap();
    }
    receive(&n, 1001);
    let others = format!("FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> {}", db.pid());
    eventually("the server's queue is empty", || {
        db.notify("another", "").unwrap(); // advances the queue
        ask(&mut db, "SELECT pg_notification_queue_usage()") == "0"
    });
    assert_eq!(ask(&mut db, &format!("SELECT count(*) {others}")), "1", "the listening session");
    let held =
        ask(&mut db, &format!("SELECT count(*) {others} AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)"));
    assert_eq!(held, "0");
    assert_eq!(ask(&mut db, &format!("SELECT state {others}")), "idle");
    assert_eq!(n.stats().waiting, 10, "the queue keeps its limit");
    latch.open();
    assert_eq!(records.next(), "0");
    assert_eq!(records.next(), "[overflow 990]");
}

#[test]
fn n07_a_full_queue_drops_the_oldest_and_reports_it() {
    let (n, records, latch) = blocked(Queue::new(Policy::DropOldest).items(3));
    eventually("two are dropped", || n.stats().dropped == 2);
    latch.open();
    assert_eq!(records.take(5), ["0", "[overflow 2]", "3", "4", "5"]);
    eventually("all calls are counted", || (n.stats().delivered, n.stats().missed) == (4, 1));
}

#[test]
fn n07_a_full_queue_drops_the_newest_and_reports_it() {
    let (n, records, latch) = blocked(Queue::new(Policy::DropNewest).items(3));
    eventually("two are dropped", || n.stats().dropped == 2);
    latch.open();
    assert_eq!(records.take(5), ["0", "1", "2", "3", "[overflow 2]"]);
}

#[test]
fn n07_a_queue_is_bounded_in_bytes() {
    let (n, records, latch) = blocked(Queue::new(Policy::DropOldest).bytes(400));
    eventually("some are dropped", || n.stats().dropped > 0 && n.stats().received == 6);
    let dropped = n.stats().dropped;
    latch.open();
    assert_eq!(records.take(2), ["0".to_owned(), format!("[overflow {dropped}]")]);
}

#[test]
fn n07_a_disconnected_subscriber_receives_what_waits_and_then_a_report() {
    let (n, records, latch) = blocked(Queue::new(Policy::Disconnect).items(3));
    eventually("the subscriber is unsubscribed", || n.subscriptions().is_empty());
    assert!(n.channels().is_empty());
    latch.open();
    assert_eq!(records.take(5), ["0", "1", "2", "3", "[unsubscribed 2]"]);
}

/// Returns a notifier with a subscriber that blocks in its first call while five more notifications arrive.
fn blocked(queue: Queue) -> (Notifier<u32>, Records, Latch) {
    let n = with_queue(queue);
    let (recorder, records) = recorder();
    let channel = new_channel();
    let latch = Latch::default();
    n.subscribe(1, &channel, blocking(&latch, &recorder)).unwrap();
    let mut db = session();
    send(&mut db, &channel, ["0"]);
    assert_eq!(records.next(), "blocked");
    db.notify_many(["1", "2", "3", "4", "5"].map(|payload| (&channel, payload))).unwrap();
    (n, records, latch)
}

#[test]
fn n07_coalescing_delivers_each_key_once_and_counts_the_folded_notifications() {
    let n = with_queue(Queue::default());
    let (recorder, records) = recorder();
    let channel = new_channel();
    let latch = Latch::default();
    n.subscribe(1, &channel, {
        let (latch, recorder) = (latch.clone(), recorder.clone());
        move |n| {
            recorder.record(format!("{}+{}", notification(n).payload(), notification(n).folded()));
            latch.wait();
        }
    })
    .unwrap();
    n.set_queue(&1, Queue::new(Policy::Coalesce)).unwrap();
    let mut db = session();
    send(&mut db, &channel, ["first"]);
    assert_eq!(records.next(), "first+0");
    send(&mut db, &channel, ["a", "b", "a", "c", "a", "b"]);
    receive(&n, 7);
    assert_eq!((n.stats().waiting, n.stats().folded), (3, 3));
    latch.open();
    assert_eq!(records.take(3), ["c+0", "a+2", "b+1"]);
    assert_eq!(n.stats().dropped, 0);
}

#[test]
fn n07_a_full_queue_has_no_effect_on_other_subscribers() {
    let n = Notifier::builder(config()).unwrap().workers(2).queue(Queue::default().items(5)).start::<u32>().unwrap();
    let (recorder, records) = recorder();
    let (blocked_recorder, blocked_records) = super::support::recorder();
    let channel = new_channel();
    let latch = Latch::default();
    n.subscribe(1, &channel, blocking(&latch, &blocked_recorder)).unwrap();
    n.subscribe(2, &channel, recorder.payloads()).unwrap();
    let mut db = session();
    for i in 0..200 {
        send(&mut db, &channel, [i.to_string().as_str()]);
        assert_eq!(records.next(), i.to_string());
    }
    assert!(n.stats().dropped >= 190);
    latch.open();
    assert_eq!(blocked_records.take(3), ["blocked", "0", "[overflow 194]"]);
}

#[test]
fn n07_with_workers_order_is_kept_within_a_subscriber() {
    let n = Notifier::builder(config()).unwrap().workers(4).start::<u32>().unwrap();
    let channels: Vec<_> = (0..3).map(|_| new_channel()).collect();
    let all_records: Vec<_> = (0..20)
        .map(|id| {
            let (recorder, records) = recorder();
            for channel in &channels {
                n.subscribe(id, channel, recorder.payloads()).unwrap();
            }
            records
        })
        .collect();
    let mut db = session();
    db.notify_many((0..600).map(|i| (&channels[i % 3], i.to_string()))).unwrap();
    let expected: Vec<_> = (0..600).map(|i| i.to_string()).collect();
    for records in all_records {
        assert_eq!(records.take(600), expected);
    }
}

#[test]
fn n07_a_subscriber_that_subscribes_again_is_still_called_one_at_a_time() {
    let n = Notifier::builder(config()).unwrap().workers(4).start::<u32>().unwrap();
    let (recorder, records) = recorder();
    let channel = new_channel();
    let latch = Latch::default();
    let mut db = session();
    for round in ["1", "2", "3"] {
        n.subscribe(7, &channel, blocking(&latch, &recorder)).unwrap();
        send(&mut db, &channel, [round]);
        if round == "1" {
            assert_eq!(records.next(), "blocked");
        }
        eventually("the notification is received", || n.stats().received >= round.parse().unwrap());
        if round != "3" {
            n.unsubscribe(&7, &channel).unwrap();
        }
    }
    assert!(records.so_far().is_empty(), "the first call has not returned");
    latch.open();
    assert_eq!(records.take(3), ["1", "blocked", "3"], "the second notification was dropped by the unsubscribe");
}

/// An id that cannot be cloned while `BROKEN` is set.
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
fn n09_a_panic_in_the_code_of_an_id_fails_the_notifier_and_a_start_recovers_it() {
    let n: Notifier<Fragile> = Notifier::new(config()).unwrap();
    let (recorder, records) = recorder();
    let channel = new_channel();
    n.subscribe(Fragile(1), &channel, |n| assert!(matches!(n, Delivery::Missed(_)))).unwrap();
    n.subscribe(Fragile(2), &channel, recorder.payloads()).unwrap();
    let mut db = session();
    BROKEN.store(true, SeqCst);
    db.notify(&channel, "1").unwrap();
    eventually("the notifier has failed", || matches!(n.state(), State::Failed(_)));
    assert!(!n.is_running());
    BROKEN.store(false, SeqCst);
    n.start().unwrap();
    while records.next() != "[stopped 0]" {}
    db.notify(&channel, "2").unwrap();
    assert_eq!(records.next(), "2");
}
