//! The state that the followers of a worker's databases share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::filter::TableFilter;
use super::queue::{EventQueue, QueueItem};
use super::watch::WorkerWatch;
use crate::manager::Handle;

/// The arguments of each call of a follower.
pub(crate) struct LoopContext {
    pub(crate) handle: Handle,
    pub(crate) queue: Arc<EventQueue>,
    pub(crate) watch: WorkerWatch,
    pub(crate) filter: TableFilter,
    pub(crate) keep_spilled: Duration,
    /// The number of databases, which share the capacity of the queue.
    pub(crate) databases: usize,
    /// The number of the follower's database, from 1.
    pub(crate) database: usize,
    pub(crate) now: Instant,
}

impl LoopContext {
    /// Adds an item of this database to the queue.
    pub(crate) fn push(&self, item: QueueItem) {
        self.queue.push(self.database, item);
    }
}
