//! A load, the closures that receive it, and the flood that keeps a bounded number of notifications outstanding.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use notifyman::Config;
use rustix::time::{ClockId, clock_gettime};

use crate::synthetic::{Flood, Server};

/// The number of portions that are outstanding at most. With two, the next one arrives while one is being handed out.
const OUTSTANDING: u64 = 2;
/// The time limit for a portion.
const LIMIT: Duration = Duration::from_secs(60);

/// Notifications for subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// The length of a payload.
    pub payload: usize,
    /// The number of subscribers of each channel.
    pub subscribers: usize,
    /// The number of channels, which take turns.
    pub channels: u64,
    /// The number of different payloads, which take turns; `u64::MAX` if all are different.
    pub payloads: u64,
    /// The number of notifications that are sent together: a multiple of the number of channels.
    pub portion: u64,
    pub portions: u64,
    /// The time for which a callback keeps its thread busy.
    pub busy: Duration,
}

impl Load {
    /// Returns a load of equal notifications on one channel.
    pub fn new(payload: usize, subscribers: usize, portion: u64, portions: u64) -> Self {
        Self { payload, subscribers, channels: 1, payloads: 1, portion, portions, busy: Duration::ZERO }
    }

    pub fn notifications(&self) -> u64 {
        self.portion * self.portions
    }

    /// Returns the number of notifications that are outstanding at most.
    pub fn outstanding(&self) -> u64 {
        OUTSTANDING * self.portion
    }

    /// Returns the number of subscribers of all channels.
    pub fn all_subscribers(&self) -> usize {
        self.subscribers * self.channels as usize
    }

    /// Returns the number of pairs of a notification and a subscriber that receives it.
    pub fn calls(&self) -> u64 {
        self.notifications() * self.subscribers as u64
    }

    /// Returns the payload of a peer that does not receive from the server.
    pub fn text(&self) -> Vec<u8> {
        vec![b'y'; self.payload]
    }
}

/// The completion of portions by all subscribers.
#[derive(Debug)]
pub struct Progress {
    /// The number of notifications of a portion for each subscriber.
    each: u64,
    subscribers: usize,
    /// The number of subscribers that have completed each portion.
    completed: Box<[AtomicUsize]>,
    done: Sender<()>,
}

impl Progress {
    /// Returns the progress of a load, and the receiver of its completed portions.
    pub fn new(load: &Load) -> (Arc<Self>, Receiver<()>) {
        let (done, completed_portions) = mpsc::channel();
        let each = load.portion / load.channels;
        let completed = (0..load.portions).map(|_| AtomicUsize::new(0)).collect();
        (Arc::new(Self { each, subscribers: load.all_subscribers(), completed, done }), completed_portions)
    }

    /// Returns a counter for a subscriber.
    pub fn counter(self: &Arc<Self>) -> Counter {
        Counter { bytes: 0, missing: self.each, at: 0, progress: Arc::clone(self) }
    }

    fn complete(&self, at: usize) {
        if self.completed.get(at).is_some_and(|count| count.fetch_add(1, AcqRel) + 1 == self.subscribers) {
            // The receiver is gone after a failure.
            let _ = self.done.send(());
        }
    }
}

/// The work of a subscriber's closure: it counts bytes and notifications. Threads share nothing except after a portion.
#[derive(Debug)]
pub struct Counter {
    bytes: u64,
    /// The number of notifications that are missing in the current portion.
    missing: u64,
    /// The number of the current portion.
    at: usize,
    progress: Arc<Progress>,
}

impl Counter {
    /// Counts a call with a payload, which stands for this number of notifications.
    #[inline]
    pub fn count(&mut self, payload: &[u8], notifications: u64) {
        self.bytes += black_box(payload).len() as u64;
        black_box(&mut self.bytes);
        let mut left = notifications;
        while left >= self.missing {
            left -= self.missing;
            self.missing = self.progress.each;
            self.progress.complete(self.at);
            self.at += 1;
        }
        self.missing -= left;
    }
}

/// Keeps this thread busy.
#[inline]
pub fn spin(time: Duration) {
    if !time.is_zero() {
        let begun = Instant::now();
        while begun.elapsed() < time {}
    }
}

/// Has the server send a load, and returns once all subscribers have received it.
pub fn flood(server: &mut Server, load: &Load, completed: &Receiver<()>) {
    let wait = || completed.recv_timeout(LIMIT).expect("a portion must be handed out");
    for number in 0..load.portions {
        if number >= OUTSTANDING {
            wait();
        }
        let Load { payload, portion: each, channels, payloads, .. } = *load;
        server.flood_with(&Flood { payload, each, first: number * each, channels, payloads }).unwrap();
    }
    (0..load.portions.min(OUTSTANDING)).for_each(|_| wait());
}

/// Returns the configuration of the only session.
pub fn config(server: &Server) -> Config {
    Config::new().host(server.host()).port(server.port()).user("bench")
}

/// The cost of a run.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// The CPU time of the threads that receive and hand out.
    pub cpu: Duration,
    pub wall: Duration,
}

/// Measures a cost.
#[derive(Debug)]
pub struct Meter {
    process: Duration,
    thread: Duration,
    begun: Instant,
}

impl Meter {
    pub fn start() -> Self {
        Self { process: time(ClockId::ProcessCPUTime), thread: time(ClockId::ThreadCPUTime), begun: Instant::now() }
    }

    /// Returns the cost of this thread.
    pub fn this_thread(&self) -> Cost {
        Cost { cpu: time(ClockId::ThreadCPUTime) - self.thread, wall: self.begun.elapsed() }
    }

    /// Returns the cost of all other threads. This one only commands the server.
    pub fn other_threads(&self) -> Cost {
        let (own, wall) = (time(ClockId::ThreadCPUTime) - self.thread, self.begun.elapsed());
        Cost { cpu: (time(ClockId::ProcessCPUTime) - self.process).saturating_sub(own), wall }
    }
}

fn time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
