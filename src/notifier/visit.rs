//! A visit of a dispatching thread to a subscriber: what it may take, and what it keeps from one call to the next.

use std::sync::Arc;

use crate::notification::NotificationRef;
use crate::notifier::channel::FanoutChannel;
use crate::notifier::counters::NotifierCounters;
use crate::notifier::cursor::SubscriptionRef;
use crate::notifier::log::{FoldedWindow, LogLimits};
use crate::notifier::pending_queue::PendingItem;
use crate::notifier::segment::{LogEntry, Segment};

/// The bit of the index of a notification that was taken without the lock, if it is one of the folded window.
pub(crate) const FOLDED: u64 = 1 << 63;

/// A visit of a dispatching thread to one subscription.
pub(crate) struct Visit<'v, S> {
    pub(crate) subscription: &'v Arc<S>,
    pub(crate) channel: &'v FanoutChannel<S>,
    /// The head of the channel up to which notifications are taken.
    pub(crate) until: u64,
    /// The limits of the subscriber, once notifications are taken without its lock.
    pub(crate) limits: LogLimits,
    pub(crate) counters: &'v NotifierCounters,
}

/// Parts of logs that a dispatching thread keeps from one call to the next.
#[derive(Debug, Default)]
pub(crate) struct SegmentReader {
    segment: Option<Arc<Segment>>,
    pub(crate) folded: Option<Arc<FoldedWindow>>,
}

/// The next thing for a visit to hand out.
#[derive(Debug)]
pub(crate) enum Taken<S> {
    /// The notification with this index, which the reader has.
    Logged(u64),
    /// The folded notification with this index, which the reader has.
    Folded(usize),
    Pending(PendingItem<SubscriptionRef<S>>),
    /// There is nothing more, and the subscriber is no longer scheduled.
    Idle,
    /// Another thread serves the subscriber, and will take what there is.
    Busy,
}

impl SegmentReader {
    #[inline]
    pub(crate) fn entry(&self, index: u64) -> Option<LogEntry<'_>> {
        self.segment.as_ref()?.get(index)
    }

    #[inline]
    pub(crate) fn folded(&self, at: usize) -> Option<(NotificationRef<'_>, u64)> {
        let entry = self.folded.as_ref()?.entries.get(at)?;
        Some((entry.notification()?, entry.folded))
    }

    /// Returns a notification that was taken without the lock, and the number of folded ones.
    #[inline]
    pub(crate) fn taken(&self, index: u64) -> Option<(NotificationRef<'_>, u64)> {
        match index & FOLDED {
            0 => self.entry(index).map(|entry| (entry.notification, 0)),
            _ => self.folded((index & !FOLDED) as usize),
        }
    }

    /// Returns the index after the last notification of the segment, or of the folded window, with an index.
    #[inline]
    pub(crate) fn end(&self, index: u64) -> u64 {
        match index & FOLDED {
            0 => self.segment.as_ref().map_or(0, |segment| segment.end()),
            _ => self.folded.as_ref().map_or(0, |folded| FOLDED | folded.entries.len() as u64),
        }
    }

    /// Keeps the segment with an index. Returns `false` if the log does not have it.
    pub(crate) fn load<S>(&mut self, channel: &FanoutChannel<S>, index: u64) -> bool {
        if self.entry(index).is_none() {
            self.segment = channel.read(|log| log.segment(index).cloned());
        }
        self.segment.is_some()
    }

    /// Keeps the folded entries of a window.
    pub(crate) fn fold<S>(&mut self, channel: &FanoutChannel<S>, from: u64, to: u64) -> Arc<FoldedWindow> {
        let known = self.folded.take().filter(|it| (it.from, it.to) == (from, to));
        let window = known.unwrap_or_else(|| Arc::new(channel.read(|log| log.fold(from, to))));
        self.folded = Some(Arc::clone(&window));
        window
    }
}
