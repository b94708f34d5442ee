//! A queue that is a plain list, for tests that compare.

use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::queue::{Policy, Queue};
use crate::notifier::segment::{StoredNotification, size};

use super::{PendingContent, PushOutcome};

pub(crate) struct NaiveQueue<E> {
    queue: Queue,
    first_reports: Vec<(E, MissedReport)>,
    items: Vec<(E, PendingContent, bool)>,
}

impl<E: Clone + Eq> NaiveQueue<E> {
    pub(crate) fn new(queue: Queue) -> Self {
        Self { queue, first_reports: Vec::new(), items: Vec::new() }
    }

    /// Changes the limits and the policy. Notifications are folded only with those that came under the same policy.
    pub(crate) fn set_queue(&mut self, queue: Queue) {
        if queue.policy != self.queue.policy {
            self.items.iter_mut().for_each(|(.., is_foldable)| *is_foldable = false);
        }
        self.queue = queue;
    }

    fn notifications(&self) -> impl Iterator<Item = &StoredNotification> {
        self.items.iter().filter_map(|(_, content, _)| match content {
            PendingContent::Notification { notification, .. } => Some(notification),
            PendingContent::Missed(_) => None,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.notifications().count()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.notifications().map(|it| size(it.as_ref())).sum()
    }

    pub(crate) fn push(&mut self, to: &E, notification: &StoredNotification) -> PushOutcome {
        let (mut outcome, mut count) = (PushOutcome::default(), 0);
        if self.queue.policy == Policy::Coalesce {
            let equal = self.items.iter().position(|(of, content, is_foldable)| match content {
                PendingContent::Notification { notification: other, .. } => {
                    let [a, b] = [other, notification].map(StoredNotification::as_ref);
                    let is_equal = a.channel_bytes() == b.channel_bytes() && a.payload_bytes() == b.payload_bytes();
                    of == to && *is_foldable && is_equal
                }
                PendingContent::Missed(_) => false,
            });
            if let Some((_, PendingContent::Notification { folded, .. }, _)) = equal.map(|at| self.items.remove(at)) {
                (outcome.folded, count) = (1, folded + 1);
            }
        }
        let size = size(notification.as_ref());
        while self.len() >= self.queue.items || self.bytes() + size > self.queue.bytes {
            let has_made_room = match self.queue.policy {
                Policy::Disconnect => return PushOutcome { refused: 1, ..outcome },
                Policy::DropNewest => false,
                Policy::DropOldest | Policy::Coalesce => self.drop_oldest(),
            };
            outcome.dropped += 1;
            if !has_made_room {
                self.push_missed(to, MissedReport::new(Reason::Overflow, 1 + count));
                return outcome;
            }
        }
        let content = PendingContent::Notification { notification: notification.clone(), folded: count };
        self.items.push((to.clone(), content, true));
        outcome
    }

    fn drop_oldest(&mut self) -> bool {
        while !self.items.is_empty() {
            match self.items.remove(0) {
                (to, PendingContent::Missed(missed), _) => self.report_first(to, missed),
                (to, PendingContent::Notification { folded, .. }, _) => {
                    self.report_first(to, MissedReport::new(Reason::Overflow, 1 + folded));
                    return true;
                }
            }
        }
        false
    }

    pub(crate) fn drop_all(&mut self) -> u64 {
        std::iter::from_fn(|| self.drop_oldest().then_some(())).count() as u64
    }

    pub(crate) fn push_missed(&mut self, to: &E, missed: MissedReport) {
        let is_missed = |(_, content, _): &&mut (_, PendingContent, _)| matches!(content, PendingContent::Missed(_));
        if self.items.is_empty() {
            return self.report_first(to.clone(), missed);
        }
        let last = self.items.iter_mut().rev().take_while(is_missed).find(|(of, ..)| of == to);
        match last {
            Some((_, PendingContent::Missed(before), _)) => before.merge(missed),
            _ => self.items.push((to.clone(), PendingContent::Missed(missed), false)),
        }
    }

    fn report_first(&mut self, to: E, missed: MissedReport) {
        match self.first_reports.iter_mut().find(|(of, _)| *of == to) {
            Some((_, before)) => before.merge(missed),
            None => self.first_reports.push((to, missed)),
        }
    }

    pub(crate) fn pop(&mut self) -> Option<(E, PendingContent)> {
        if !self.first_reports.is_empty() {
            let (to, missed) = self.first_reports.remove(0);
            return Some((to, PendingContent::Missed(missed)));
        }
        (!self.items.is_empty()).then(|| self.items.remove(0)).map(|(to, content, _)| (to, content))
    }

    /// Removes the report for a subscription from the reports before all items, among which there is no order.
    pub(crate) fn pop_report(&mut self, to: &E) -> Option<(E, PendingContent)> {
        let at = self.first_reports.iter().position(|(of, _)| of == to)?;
        let (to, missed) = self.first_reports.remove(at);
        Some((to, PendingContent::Missed(missed)))
    }

    pub(crate) fn rename(&mut self, from: &E, to: &E) {
        let labels = self.items.iter_mut().map(|(of, ..)| of).chain(self.first_reports.iter_mut().map(|(of, _)| of));
        labels.filter(|of| *of == from).for_each(|of| *of = to.clone());
    }

    pub(crate) fn remove_all(&mut self, of: &E) {
        self.items.retain(|(to, ..)| to != of);
        self.first_reports.retain(|(to, _)| to != of);
    }
}
