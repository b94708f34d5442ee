//! The clients that are measured in processes of their own: memory, which grows once in a process, and latency, with all
//! threads on one processor or on any.
//!
//! ```text
//! fanout --client subscribe SUBSCRIBERS                       prints the time in ns and the bytes for each
//! fanout --client queue SUBSCRIBERS PAYLOAD NOTIFICATIONS     prints the bytes for the first and for each other one
//! fanout --client latency KIND EVENTS                         prints the median and the 99th percentile in ns
//! ```
//!
//! Memory is the process's anonymous resident memory, so it includes what the allocator adds.
//!
//! The latency begins when the server sends an event, and ends when the callback or the manager's loop sends an answer. Once
//! the server has the answer, it sends the next event. So all threads sleep before an event, and are woken for it. A hand-over
//! between two threads by a condition variable is the least that a callback on another thread than the manager's can cost in
//! addition.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::notifier::{Delivery, Policy};
use notifyman::{Connection, NotificationManager, Notifier};

use crate::job::{self, Answers};
use crate::load::config;
use crate::notifier::{listen, start};
use crate::synthetic::{CHANNEL, Link, PERCENTILES, Server, Waiting, this_program};

/// The first argument of a client process.
const CLIENT: &str = "--client";
/// The kinds of which the latency is measured.
pub const CONDVAR: &str = "condvar";
pub const MANAGER: &str = "manager";
pub const NOTIFIER: &str = "notifier";
/// The time in which a notification that has been sent is queued.
const SETTLED: Duration = Duration::from_millis(300);

/// Runs a client with these words after the words of `prefix`, and returns its numbers.
pub fn run(prefix: &[&str], words: &[&str]) -> Vec<f64> {
    let mut command = this_program(prefix).unwrap();
    let output = command.arg(CLIENT).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

/// Becomes a client and never returns, in a process that [`run`] has started.
pub fn run_if_requested() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let (first, second) = match words[..] {
        [CLIENT, "subscribe", ..] => subscribe(number(2)),
        [CLIENT, "queue", ..] => queue(number(2), number(3) as usize, number(4)),
        [CLIENT, "latency", kind, _] => latency(kind, number(3)),
        _ => return,
    };
    println!("{first} {second}");
    // Callbacks that are blocked are not waited for.
    std::process::exit(0);
}

/// Returns the time and the memory of an idle subscriber.
fn subscribe(subscribers: u64) -> (f64, f64) {
    let n = Notifier::builder("host=localhost user=bench").unwrap().autorun(false).build::<u64>();
    // The first of them creates the channel.
    n.subscribe(subscribers, CHANNEL, |_| ()).unwrap();
    let (memory, begun) = (job::memory(), Instant::now());
    (0..subscribers).for_each(|id| n.subscribe(id, CHANNEL, |_| ()).unwrap());
    let time = begun.elapsed().as_nanos() as f64;
    let bytes = job::memory().saturating_sub(memory) as f64;
    (time / subscribers as f64, bytes / subscribers as f64)
}

/// Queues notifications while the first callback is blocked. Returns the memory that the first one takes, and that each
/// of the others takes.
fn queue(subscribers: u64, payload: usize, notifications: u64) -> (f64, f64) {
    let mut server = Server::start(Link::Unix, &[]).unwrap();
    let n = start(&server, Policy::DropOldest, 1);
    let blocked = Arc::new(Mutex::new(()));
    for id in 0..subscribers {
        let blocked = Arc::clone(&blocked);
        n.subscribe(id, CHANNEL, move |_| drop(blocked.lock().unwrap())).unwrap();
    }
    listen(&n);
    // The first use of buffers is not measured.
    server.flood(payload, 1).unwrap();
    while n.stats().delivered < subscribers {
        thread::sleep(Duration::from_millis(1));
    }
    let _block = blocked.lock().unwrap();
    let mut grow = |notifications| {
        let before = job::memory();
        server.flood(payload, notifications).unwrap();
        thread::sleep(SETTLED);
        job::memory().saturating_sub(before) as f64
    };
    let first = grow(1);
    let others = grow(notifications) / notifications as f64;
    let stats = n.stats();
    // The first callback holds one of them.
    assert_eq!(stats.received, 1 + 1 + notifications, "{stats:?}");
    assert!(stats.waiting >= subscribers * (1 + notifications) - 1, "{stats:?}");
    (first, others)
}

/// Returns the median and the 99th percentile of the time from a notification to the answer, or of a hand-over.
fn latency(kind: &str, events: u64) -> (f64, f64) {
    let percentiles = match kind {
        CONDVAR => hand_over(events),
        MANAGER => manager(events),
        _ => notifier(events),
    };
    let at = |percent: f64| percentiles[PERCENTILES.iter().position(|p| *p == percent).unwrap()] as f64;
    (at(50.0), at(99.0))
}

/// A manager answers in its loop.
fn manager(events: u64) -> Vec<u64> {
    let mut server = Server::start(Link::Unix, &[]).unwrap();
    let mut db = Connection::connect(config(&server)).unwrap();
    db.listen([CHANNEL]).unwrap();
    let mut answers = Answers::connect(server.host(), server.answer_port()).unwrap();
    let receiving = thread::spawn(move || {
        let received = NotificationManager::new([db]).flatten().flat_map(|(_, batch)| batch);
        received.take(events as usize).for_each(|n| assert!(answers.answer(n.payload_bytes())));
    });
    let percentiles = server.wake(events, Waiting::SleepingOneWay).unwrap();
    receiving.join().unwrap();
    percentiles
}

/// A callback answers.
fn notifier(events: u64) -> Vec<u64> {
    let mut server = Server::start(Link::Unix, &[]).unwrap();
    let n = start(&server, Policy::DropOldest, 1);
    let mut answers = Answers::connect(server.host(), server.answer_port()).unwrap();
    let callback = move |delivery: &Delivery<'_, u64>| {
        if let Delivery::Notification(n) = delivery {
            assert!(answers.answer(n.payload().bytes()));
        }
    };
    n.subscribe(0, CHANNEL, callback).unwrap();
    listen(&n);
    server.wake(events, Waiting::SleepingOneWay).unwrap()
}

/// Two threads wake each other by a condition variable. A hand-over is half of a round trip.
fn hand_over(events: u64) -> Vec<u64> {
    let turn = Arc::new((Mutex::new(false), Condvar::new()));
    let pass = |turn: &(Mutex<bool>, Condvar), from: bool| {
        let mut is_second = turn.1.wait_while(turn.0.lock().unwrap(), |is_second| *is_second != from).unwrap();
        *is_second = !from;
        drop(is_second);
        turn.1.notify_one();
    };
    let other = Arc::clone(&turn);
    let second = thread::spawn(move || (0..events).for_each(|_| pass(&other, true)));
    let mut begun = Instant::now();
    let mut times = Vec::new();
    for _ in 0..events {
        pass(&turn, false);
        times.push(begun.elapsed().as_nanos() as u64 / 2);
        begun = Instant::now();
    }
    second.join().unwrap();
    // The start of the thread.
    let mut times = times.split_off((events / 10) as usize);
    times.sort_unstable();
    PERCENTILES.map(|p| times[((times.len() - 1) as f64 * p / 100.0) as usize]).to_vec()
}
