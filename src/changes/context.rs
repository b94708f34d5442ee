//! The state that the followers of a worker's databases share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::filter::TableFilter;
use super::mailbox::Mailbox;
use super::queue::EventQueue;
use crate::manager::Handle;

/// The arguments of each call of a follower.
pub(crate) struct LoopContext<'l> {
    pub(crate) handle: &'l Handle,
    pub(crate) queue: &'l EventQueue,
    pub(crate) mailbox: &'l Arc<Mailbox>,
    pub(crate) filter: &'l TableFilter,
    pub(crate) keep_spilled: Duration,
    /// The number of databases, which share the capacity of the queue.
    pub(crate) databases: usize,
    pub(crate) now: Instant,
}
