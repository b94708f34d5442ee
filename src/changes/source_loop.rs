//! The loop of a worker that follows a source in the place of databases: it asks nothing of any server.
//!
//! ```text
//!   EventSource ──events──> SourceLoop ──> queue ──> Changes
//!                              ▲             │
//!                              └─── stop ────┘
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use super::event::ChangeEvent;
use super::mailbox::LoopMessage;
use super::queue::{EventQueue, FinishGuard, QueueItem};
use super::sql::CHANNEL;
use super::watch::WorkerWatch;
use crate::clock;
use crate::error::Error;
use crate::manager::{ConnId, Event, EventSource};

/// Passes the notifications of a source on to the consumer.
pub(crate) struct SourceLoop {
    source: Box<dyn EventSource>,
    queue: Arc<EventQueue>,
    watch: WorkerWatch,
    /// The connections that are followed, with the numbers of their databases, which begin with 1.
    followed: HashMap<ConnId, FollowedConnection>,
}

struct FollowedConnection {
    number: usize,
    /// `true` if the database was last reported as connected; `None` before the first report.
    is_reported_connected: Option<bool>,
}

impl SourceLoop {
    pub(crate) fn new(source: Box<dyn EventSource>, queue: Arc<EventQueue>, watch: WorkerWatch) -> Self {
        let follow = |(number, id)| (id, FollowedConnection { number, is_reported_connected: None });
        let followed = (1..).zip(source.connections()).map(follow).collect();
        Self { source, queue, watch, followed }
    }

    /// Runs until no connection is followed any more, or until the worker is stopped.
    pub(crate) fn run(mut self) {
        let _finish = FinishGuard(Arc::clone(&self.queue));
        if let Err(error) = self.source.start() {
            let all: Vec<ConnId> = self.followed.keys().copied().collect();
            all.into_iter().for_each(|id| self.end(id, error.clone()));
        }
        // A stop before the start would not end the source.
        while !self.followed.is_empty() && !self.is_stopped() {
            match self.source.next_event() {
                Some(event) => self.handle_event(event),
                None => return,
            }
        }
    }

    fn is_stopped(&self) -> bool {
        let is_end = |message: &LoopMessage| matches!(message, LoopMessage::Stop | LoopMessage::Close);
        self.queue.mailbox.take().iter().any(is_end)
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Notifies(id, batch) => {
                let of_triggers = batch.iter().filter(|n| n.channel_bytes() == CHANNEL.as_bytes());
                of_triggers.for_each(|n| self.push(id, QueueItem::Notified(n.payload_bytes().into())));
            }
            Event::Opened(id) => self.connect(id),
            Event::Restored(id, gap) => {
                self.connect(id);
                if gap.channels().iter().any(|channel| **channel == *CHANNEL) {
                    self.push(id, QueueItem::Event(ChangeEvent::Gap(gap)));
                }
            }
            Event::Disconnected(id, error) => {
                self.with_number(id, |watch, number| watch.set_lost(number, &error));
                self.report(id, false, ChangeEvent::Disconnected(error));
            }
            Event::CanaryReceived(id, _) => {
                self.with_number(id, |watch, number| watch.set_proven(number, clock::now()))
            }
            Event::Lost(id, error) => self.end(id, error),
            Event::Unlistened(id, channels) if channels.iter().any(|channel| **channel == *CHANNEL) => {
                self.end(id, not_relayed());
            }
            Event::Idle | Event::InTransaction(_) | Event::CheckRefused(..) | Event::Unlistened(..) => {}
        }
    }

    /// Handles a connection that is open, if it carries the changes.
    fn connect(&mut self, id: ConnId) {
        let channels = self.source.channels(id).unwrap_or_default();
        match channels.iter().any(|channel| **channel == *CHANNEL) {
            true => {
                self.with_number(id, WorkerWatch::set_connected);
                self.report(id, true, ChangeEvent::Connected);
            }
            false => self.end(id, not_relayed()),
        }
    }

    fn with_number(&self, id: ConnId, change: impl FnOnce(&WorkerWatch, usize)) {
        if let Some(followed) = self.followed.get(&id) {
            change(&self.watch, followed.number);
        }
    }

    /// Reports that a database is connected, or that it is not, unless that was reported last.
    fn report(&mut self, id: ConnId, is_connected: bool, event: ChangeEvent) {
        let Some(followed) = self.followed.get_mut(&id) else { return };
        if followed.is_reported_connected.replace(is_connected) != Some(is_connected) {
            self.push(id, QueueItem::Event(event));
        }
    }

    fn push(&self, id: ConnId, item: QueueItem) {
        if let Some(followed) = self.followed.get(&id) {
            self.queue.push(followed.number, item);
        }
    }

    /// Ends for good.
    fn end(&mut self, id: ConnId, error: Error) {
        self.with_number(id, |watch, number| watch.set_lost(number, &error));
        self.push(id, QueueItem::Event(ChangeEvent::Lost(error)));
        self.followed.remove(&id);
    }
}

fn not_relayed() -> Error {
    Error::NotRelayed { channel: CHANNEL.into() }
}
