//! A writer: one thread with one connection to a server, which sends notifications as an application would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notifyman::{Config, Connection, Error};

use super::message::DemoMessage;
use super::plan::channel_name;
use crate::cli::clock;

/// A running writer, whose counts can be read at any time.
pub(crate) struct Writer {
    pub(super) counts: Arc<SendCounts>,
    pub(super) thread: JoinHandle<Option<Error>>,
}

#[derive(Default)]
pub(super) struct SendCounts {
    /// Notifications that the server has acknowledged.
    sent: AtomicU64,
    /// The deliveries due: one for each notification and listener of its channel.
    pub(super) due: AtomicU64,
}

/// The settings of a writer.
pub(crate) struct WriterPlan {
    pub(crate) config: Config,
    /// The number of listeners of each channel.
    pub(crate) listeners: Vec<u64>,
    /// The sequence number before the first one.
    pub(crate) first: u64,
    /// Notifications per second.
    pub(crate) rate: u32,
    /// Transactions per second. Each wakes every session that listens on the server.
    pub(crate) transactions: u32,
    /// The origin of the times in messages.
    pub(crate) began: Instant,
    /// The delay of the first transaction, so that the writers do not send at the same time.
    pub(crate) offset: Duration,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Writer {
    pub(crate) fn start(plan: WriterPlan) -> Self {
        let counts = Arc::<SendCounts>::default();
        let shared = Arc::clone(&counts);
        Self { counts, thread: thread::spawn(move || write(&plan, &shared).err()) }
    }

    /// Returns the number of notifications that the server has acknowledged.
    pub(crate) fn sent(&self) -> u64 {
        self.counts.sent.load(Relaxed)
    }

    /// Waits for the writer's end; returns the notifications sent, the deliveries due, and the error, if any.
    pub(crate) fn join(self) -> (u64, u64, Option<Error>) {
        let error = self.thread.join().unwrap_or(Some(Error::Stopped));
        (self.counts.sent.load(Relaxed), self.counts.due.load(Relaxed), error)
    }
}

fn write(plan: &WriterPlan, counts: &SendCounts) -> Result<(), Error> {
    let mut connection = Connection::connect(&plan.config)?;
    let channels: Vec<String> = (0..plan.listeners.len()).map(channel_name).collect();
    let period = Duration::from_secs(1) / plan.transactions;
    let mut next = clock::now() + plan.offset;
    let mut number = plan.first;
    // The remainder of the division of the rate by the transactions.
    let mut remainder = 0_u32;
    while !plan.stop.load(Relaxed) {
        thread::sleep(next.saturating_duration_since(clock::now()));
        remainder += plan.rate;
        let size = remainder / plan.transactions;
        remainder %= plan.transactions;

        let sent_at = micros(clock::now() - plan.began);
        let mut due = 0;
        let mut pairs = Vec::new();
        for number in number + 1..=number + u64::from(size) {
            let channel = number as usize % channels.len();
            let name = channels[channel].as_str();
            let table = name.split('_').next().unwrap_or_default();
            let message =
                DemoMessage { table, row: number.wrapping_mul(0x9E37_79B9) / 65_536 % 10_000, number, sent_at };
            due += plan.listeners[channel];
            pairs.push((name, message.to_string()));
        }
        connection.notify_many(pairs)?;
        number += u64::from(size);
        counts.sent.fetch_add(u64::from(size), Relaxed);
        counts.due.fetch_add(due, Relaxed);
        // A writer that cannot keep up skips transactions.
        next = (next + period).max(clock::now());
    }
    connection.close()
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
