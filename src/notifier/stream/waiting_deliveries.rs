//! The deliveries that wait for a stream, in a queue with the policy of a subscriber's. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use crate::handoff::HandoffQueue;
use crate::notifier::delivery::{Delivery, OwnedDelivery};
use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::pending_queue::{PendingContent, PendingQueue, PushOutcome};
use crate::notifier::queue::Queue;
use crate::notifier::segment::{Segment, SegmentPool, SegmentRange, StoredNotification};

pub(super) struct WaitingDeliveries {
    pending: PendingQueue<Arc<str>>,
    pool: SegmentPool,
    channels: HashSet<Arc<str>>,
    /// The queue was full, and its policy ended the stream.
    pub(super) is_unsubscribed: bool,
    /// After that, a last report was taken: nothing is added any more.
    is_closed: bool,
}

impl WaitingDeliveries {
    pub(super) fn new(queue: Queue, channels: impl IntoIterator<Item = Arc<str>>) -> Self {
        let channels = channels.into_iter().collect();
        Self {
            pending: PendingQueue::new(queue),
            pool: SegmentPool::default(),
            channels,
            is_unsubscribed: false,
            is_closed: false,
        }
    }

    /// Adds a delivery of one of the channels.
    pub(super) fn push<I>(&mut self, channel: &Arc<str>, delivery: &Delivery<'_, I>) -> PushOutcome {
        match delivery {
            Delivery::Notification(_) if self.is_closed => PushOutcome { refused: 1, ..PushOutcome::default() },
            Delivery::Notification(_) if self.is_unsubscribed => {
                self.pending.push_missed(channel, MissedReport::new(Reason::Unsubscribed, 1));
                PushOutcome { refused: 1, ..PushOutcome::default() }
            }
            Delivery::Notification(n) => {
                let mut entries = self.pool.take(n.notification().channel_bytes().len());
                entries.push(0, n.notification());
                let segment = Arc::new(Segment::new(0, 0, entries));
                // The queue keeps a copy, so the pool has the buffers again.
                let outcome = self.pending.push(channel, &SegmentRange::new(&segment, 0, 1), true);
                self.pool.add(segment);
                if outcome.refused > 0 {
                    self.is_unsubscribed = true;
                    for each in &self.channels {
                        let dropped = if each == channel { outcome.refused } else { 0 };
                        self.pending.push_missed(each, MissedReport::new(Reason::Unsubscribed, dropped));
                    }
                }
                outcome
            }
            // The last report of each channel stays the last one.
            Delivery::Missed(_) if self.is_unsubscribed => PushOutcome::default(),
            Delivery::Missed(missed) => {
                self.pending.push_missed(channel, missed.to_report());
                PushOutcome::default()
            }
        }
    }
}

impl HandoffQueue for WaitingDeliveries {
    type Item = OwnedDelivery;

    fn pop(&mut self) -> Option<OwnedDelivery> {
        let item = self.pending.pop()?;
        Some(match item.content {
            PendingContent::Notification { notification, folded } => {
                let notification = match notification {
                    StoredNotification::Copied(notification) => notification,
                    shared @ StoredNotification::Shared(..) => shared.as_ref().to_owned(),
                };
                OwnedDelivery::notification(item.to, notification, folded)
            }
            PendingContent::Missed(report) => {
                // Notifications come before the last reports.
                self.is_closed = self.is_unsubscribed && self.pending.len() == 0;
                OwnedDelivery::missed(item.to, report)
            }
        })
    }
}
