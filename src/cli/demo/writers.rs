//! The writers of all servers, and the replacement of the one whose server was shut down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use super::plan::{IDLE_PERIOD, Plan};
use super::server::DemoServer;
use super::summary::{BeforeOutage, WriterHistory, WriterReport};
use super::writer::{Writer, WriterPlan};

/// Transactions per second of each writer.
const TRANSACTIONS: u32 = 10;

/// One writer for each server.
pub(crate) struct Writers {
    plan: Plan,
    /// Notifications per second, of all writers together.
    rate: u32,
    /// Empty until the writers are started.
    pub(crate) list: Vec<Writer>,
    stop: Arc<AtomicBool>,
    /// The counts of the writer that an outage ended, once another one has replaced it.
    before_outage: Option<BeforeOutage>,
}

impl Writers {
    pub(crate) fn new(plan: Plan, rate: u32) -> Self {
        Self { plan, rate, list: Vec::new(), stop: Arc::default(), before_outage: None }
    }

    pub(crate) fn start(&mut self, servers: &[DemoServer], began: Instant) {
        let plans = servers.iter().enumerate().map(|(cluster, server)| self.writer_plan(cluster, server, began, 0));
        self.list = plans.map(Writer::start).collect();
    }

    /// Stops the writers; returns `false` if they were stopped before.
    pub(crate) fn stop(&self) -> bool {
        !self.stop.swap(true, Relaxed)
    }

    /// Starts another writer for a server that was down.
    pub(crate) fn replace(&mut self, cluster: usize, server: &DemoServer, began: Instant, received: u64) {
        if self.stop.load(Relaxed) || cluster >= self.list.len() {
            return;
        }
        let (sent, due, _) = self.list.remove(cluster).join();
        // The server may have taken a last transaction that it did not acknowledge. So that no number is used twice,
        // some are left out.
        let mut plan = self.writer_plan(cluster, server, began, sent);
        plan.first += u64::from(plan.rate) * 2;
        self.list.insert(cluster, Writer::start(plan));
        self.before_outage = Some(BeforeOutage { sent, due, received });
    }

    /// Returns `true` if a server's writer has ended and all its notifications have arrived; `was_down` if the server
    /// was shut down.
    pub(crate) fn is_complete(&self, cluster: usize, was_down: bool, received: u64) -> bool {
        let Some(writer) = self.list.get(cluster) else { return true };
        let before = match was_down {
            true => self.before_outage.as_ref().map(|before| before.received),
            false => Some(0),
        };
        let is_received = |before| before + writer.counts.due.load(Relaxed) == received;
        writer.thread.is_finished() && before.is_none_or(is_received)
    }

    /// Waits for the end of all writers, and returns their reports. `down` is the server that was shut down.
    pub(crate) fn finish(&mut self, down: Option<usize>) -> Vec<WriterReport> {
        let writers = std::mem::take(&mut self.list).into_iter().enumerate();
        let report = |(cluster, writer): (usize, Writer)| {
            let (sent, due, error) = writer.join();
            let history = match self.before_outage.take_if(|_| down == Some(cluster)) {
                Some(before) => WriterHistory::Replaced(before),
                None if down == Some(cluster) => WriterHistory::CutOff,
                None => WriterHistory::Uninterrupted,
            };
            WriterReport { sent, due, error, history }
        };
        writers.map(report).collect()
    }

    fn writer_plan(&self, cluster: usize, server: &DemoServer, began: Instant, first: u64) -> WriterPlan {
        let [number, clusters] = [cluster, self.plan.clusters].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        WriterPlan {
            config: server.config.clone(),
            listeners: self.plan.listeners(cluster),
            first,
            rate: (self.rate + number) / clusters,
            transactions: TRANSACTIONS,
            began,
            offset: IDLE_PERIOD * number / clusters,
            stop: Arc::clone(&self.stop),
        }
    }
}
