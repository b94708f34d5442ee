//! Who notifies: one thread and one connection for each server, as the programs would that change its data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notifyman::{Config, Connection, Error};

use super::super::clock;
use super::message::Message;
use super::plan::channel_name;

/// How many transactions a second: each of them wakes every session that listens on the server.
const BEATS: u32 = 10;

/// A running writer. What it has counted can be read at any time.
pub(crate) struct Writer {
    counts: Arc<Counts>,
    thread: JoinHandle<Option<Error>>,
}

#[derive(Default)]
struct Counts {
    /// What the server has acknowledged.
    sent: AtomicU64,
    /// What of it must arrive somewhere: once for each listener of its channel.
    due: AtomicU64,
}

/// What a writer is to do.
pub(crate) struct Orders {
    pub(crate) config: Config,
    /// How many listen to each channel.
    pub(crate) listeners: Vec<u64>,
    /// The number before its first one.
    pub(crate) first: u64,
    /// Notifications a second.
    pub(crate) rate: u32,
    /// When the demonstration began, from which its messages count the time.
    pub(crate) began: Instant,
    /// How far into a beat this writer's beat is, so that the servers take turns.
    pub(crate) offset: Duration,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Writer {
    pub(crate) fn start(orders: Orders) -> Self {
        let counts = Arc::<Counts>::default();
        let shared = Arc::clone(&counts);
        Self { counts, thread: thread::spawn(move || write(&orders, &shared).err()) }
    }

    /// One that has ended already.
    pub(crate) fn idle() -> Self {
        Self { counts: Arc::default(), thread: thread::spawn(|| None) }
    }

    /// What must arrive, counted once for each listener.
    pub(crate) fn due(&self) -> u64 {
        self.counts.due.load(Relaxed)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end, and gives its counts and what went wrong, if anything did.
    pub(crate) fn join(self) -> (u64, u64, Option<Error>) {
        let error = self.thread.join().unwrap_or(Some(Error::Stopped));
        (self.counts.sent.load(Relaxed), self.counts.due.load(Relaxed), error)
    }
}

fn write(orders: &Orders, counts: &Counts) -> Result<(), Error> {
    let mut connection = Connection::connect(&orders.config)?;
    let channels: Vec<String> = (0..orders.listeners.len()).map(channel_name).collect();
    let beat = Duration::from_secs(1) / BEATS;
    let mut next = clock::now() + orders.offset;
    let mut number = orders.first;
    // Tenths of notifications that are owed, as BEATS doesn't divide every rate.
    let mut owed = 0_u32;
    while !orders.stop.load(Relaxed) {
        thread::sleep(next.saturating_duration_since(clock::now()));
        owed += orders.rate;
        let size = owed / BEATS;
        owed %= BEATS;

        let sent_at = micros(clock::now() - orders.began);
        let mut due = 0;
        let mut pairs = Vec::new();
        for number in number + 1..=number + u64::from(size) {
            let channel = number as usize % channels.len();
            let name = channels[channel].as_str();
            let table = name.split('_').next().unwrap_or_default();
            let message = Message { table, row: number.wrapping_mul(0x9E37_79B9) / 65_536 % 10_000, number, sent_at };
            due += orders.listeners[channel];
            pairs.push((name, message.to_string()));
        }
        connection.notify_many(pairs)?;
        number += u64::from(size);
        counts.sent.fetch_add(u64::from(size), Relaxed);
        counts.due.fetch_add(due, Relaxed);
        // One that can't keep up skips beats rather than chase them.
        next = (next + beat).max(clock::now());
    }
    connection.close()
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
