//! The queue of a subscriber: its cursors in the logs of its channels, and the items that were moved out of them. Pure.
//!
//! ```text
//!   pending: reports and notifications, older than all at the cursors │ cursor ──▶ log of a channel
//!               └──▶ taken first                                      │ cursor ──▶ log of another channel
//! ```
//!
//! A subscriber takes notifications from the log of a channel if none of its other channels has any. They are moved to its
//! own [`PendingQueue`] where that is needed: in front of a report, where its [`Policy`] drops or folds, and if several of its
//! channels have some, or another thread visits it meanwhile. Moving them later than they arrived makes no difference, since
//! nothing was taken in between.

use std::collections::HashMap;
use std::sync::Arc;

use crate::notifier::counters::NotifierCounters;
use crate::notifier::cursor::{Cursor, PAUSED, SubscriptionRef};
use crate::notifier::cursor_list::{CursorList, SCANNED_MAX};
use crate::notifier::log::{FoldedWindow, LogLimits};
use crate::notifier::merged_ranges::MergedRanges;
use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::pending_queue::{PendingQueue, PushOutcome};
use crate::notifier::queue::{Policy, Queue};
use crate::notifier::segment::{SegmentRange, StoredNotification};
use crate::notifier::visit::{SegmentReader, Taken, Visit};
use crate::sync::atomic::Ordering::Acquire;

#[derive(Debug)]
pub(crate) struct SubscriberQueue<S> {
    /// Shared by the subscribers that are not given one of their own.
    pub(crate) queue: Arc<Queue>,
    pub(crate) cursors: CursorList<S>,
    /// The items that come before all at the cursors. Boxed like the next ones, since most subscribers are idle.
    pub(crate) pending: Option<Box<Pending<S>>>,
    /// The latest of equal notifications, of which the first ones have been taken. Only without pending items.
    pub(crate) folded: Option<Box<(Arc<FoldedWindow>, usize)>>,
    /// A dispatcher serves the subscriber now, or will.
    pub(crate) is_scheduled: bool,
    /// There was a visit while the subscriber was being served.
    pub(crate) is_revisited: bool,
    /// The subscriber counts among the laggards of its only channel.
    pub(crate) is_behind: bool,
}

#[derive(Debug)]
#[expect(clippy::box_collection, reason = "most queues have none, which takes 8 bytes")]
pub(crate) struct Pending<S> {
    pub(crate) items: PendingQueue<SubscriptionRef<S>>,
    /// The notifications of each channel that were dropped since the queue was full, if the policy is to disconnect.
    pub(crate) refused: Option<Box<HashMap<Box<str>, u64>>>,
}

impl<S> SubscriberQueue<S> {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self {
            queue,
            cursors: CursorList::default(),
            pending: None,
            folded: None,
            is_scheduled: false,
            is_revisited: false,
            is_behind: false,
        }
    }

    pub(crate) fn limits(&self) -> LogLimits {
        LogLimits { items: self.queue.items as u64, bytes: self.queue.bytes as u64 }
    }

    pub(crate) fn cursor(&mut self, subscription: &S) -> Option<&mut Cursor<S>> {
        let at = self.cursors.position(subscription)?;
        self.cursors.get_mut(at)
    }

    pub(crate) fn insert(&mut self, cursor: Cursor<S>, counters: &NotifierCounters) {
        if self.cursors.len() == 1 {
            self.unfold();
            self.move_unread(counters);
            self.clear_behind();
        }
        self.put(cursor);
    }

    /// Puts a cursor in its place.
    fn put(&mut self, cursor: Cursor<S>) {
        let at = self.cursors.insert(cursor);
        if !self.cursors.is_noted() {
            return self.plan_checks();
        }
        // Notifications that are being published now were noted for the former cursors only, or for none.
        let new = if self.cursors.len() == SCANNED_MAX + 1 { 0..self.cursors.len() } else { at..at + 1 };
        for at in new {
            self.cursors.get_mut(at).into_iter().for_each(Cursor::watch);
            self.cursors.add_unread(at);
        }
    }

    /// Notes that there are new notifications for one of many subscriptions.
    pub(crate) fn note_unread(&mut self, subscription: &S) {
        if let Some(at) = self.cursors.position(subscription) {
            self.cursors.add_unread(at);
        }
    }

    /// Removes a cursor that has read everything: what it had not read is moved.
    pub(crate) fn remove(&mut self, subscription: &S, counters: &NotifierCounters) -> Option<Cursor<S>> {
        let mut removed = self.take_out(subscription, counters)?;
        removed.set_check(None);
        self.plan_checks();
        Some(removed)
    }

    /// Makes a subscription take the place of another one of the same channel, also for what waits.
    pub(crate) fn replace(&mut self, replaced: &Arc<S>, subscription: &Arc<S>, counters: &NotifierCounters) {
        // Notifications are moved once. A second time, later ones of the other channels would be moved without those of this
        // channel.
        let Some(cursor) = self.take_out(replaced, counters) else { return };
        if let Some(pending) = &mut self.pending {
            let refs = [replaced, subscription].map(|it| SubscriptionRef(Arc::clone(it)));
            pending.items.rename(&refs[0], &refs[1]);
        }
        self.put(Cursor { subscription: Arc::downgrade(subscription), ..cursor });
    }

    /// Takes a cursor out of its place, after all notifications have been moved.
    fn take_out(&mut self, subscription: &S, counters: &NotifierCounters) -> Option<Cursor<S>> {
        self.cursors.position(subscription)?;
        self.unfold();
        self.move_unread(counters);
        self.clear_behind();
        self.cursors.remove(subscription)
    }

    /// Lets a subscription receive nothing, after all notifications have been moved.
    pub(crate) fn pause(&mut self, subscription: &S) {
        if let Some(cursor) = self.cursor(subscription) {
            cursor.next = PAUSED;
            self.clear_behind();
        }
    }

    /// Returns the number of notifications that wait.
    pub(crate) fn len(&self) -> usize {
        let pending = self.pending.as_ref().map_or(0, |pending| pending.items.len());
        let folded = self.folded.as_ref().map_or(0, |folded| folded.0.entries.len().saturating_sub(folded.1));
        pending + folded + self.cursors.unread().map(Cursor::unread).sum::<u64>() as usize
    }

    /// Returns the size of the notifications that wait.
    fn bytes(&self) -> u64 {
        let pending = self.pending.as_ref().map_or(0, |pending| pending.items.bytes() as u64);
        let folded = self.folded.as_ref().map_or(0, |folded| folded.0.bytes_from(folded.1));
        pending + folded + self.cursors.unread().map(Cursor::unread_bytes).sum::<u64>()
    }

    /// Keeps what has not been read while passes end without the subscriber: in the log of the only channel, or else as
    /// pending items.
    pub(crate) fn leave(&mut self, counters: &NotifierCounters) {
        if self.cursors.len() > 1 {
            self.move_unread(counters);
        } else if let [cursor] = &*self.cursors
            && !std::mem::replace(&mut self.is_behind, true)
        {
            cursor.channel.add_laggard();
        }
    }

    pub(crate) fn clear_behind(&mut self) {
        if std::mem::take(&mut self.is_behind)
            && let Some(cursor) = self.cursors.first()
        {
            cursor.channel.remove_laggard();
        }
    }

    /// Plans when the loop must check the subscriber: before its limits can be exceeded in a way that its policy must see.
    /// If the policy is to drop the oldest, the log of an only channel keeps what is needed. Several would keep its number for
    /// each, which a later call would have to sort.
    pub(crate) fn plan_checks(&mut self) {
        if self.cursors.is_noted() {
            return;
        }
        self.cursors.clear_unread();
        let is_refusing = self.pending.as_ref().is_some_and(|pending| pending.refused.is_some());
        if self.queue.policy == Policy::DropOldest && !is_refusing && self.cursors.len() == 1 {
            return self.cursors.iter_mut().for_each(|cursor| cursor.set_check(None));
        }
        // Read before the number of those that wait, which may be too large then, and not too small.
        let heads: Vec<u64> = self.cursors.iter().map(|cursor| cursor.channel.head()).collect();
        let (waiting, limits) = (LogLimits { items: self.len() as u64, bytes: self.bytes() }, self.limits());
        // A queue that may be too full already is checked in any case.
        let is_full = is_refusing || waiting.items > limits.items || waiting.bytes > limits.bytes;
        let room = (!is_full && !heads.is_empty()).then(|| LogLimits {
            items: (limits.items - waiting.items) / heads.len() as u64,
            bytes: (limits.bytes - waiting.bytes) / heads.len() as u64,
        });
        self.cursors.set_room(room);
        for (cursor, head) in self.cursors.iter_mut().zip(&heads) {
            let is_checked = is_refusing || !cursor.is_paused();
            let check = is_checked.then(|| cursor.channel.check_after(*head, room, &cursor.subscription));
            cursor.set_check(check);
        }
    }

    /// Plans the check of a cursor that has begun to receive. The plans of the others stay, since each has a share of the room
    /// of its own, as the cursor has had.
    pub(crate) fn plan_check(&mut self, subscription: &S) {
        if self.cursors.len() < 2 {
            return self.plan_checks();
        }
        let (is_noted, room) = (self.cursors.is_noted(), self.cursors.room());
        if let Some(cursor) = self.cursor(subscription).filter(|_| !is_noted) {
            let check = cursor.channel.check_after(cursor.next, room, &cursor.subscription);
            cursor.set_check(Some(check));
        }
    }

    /// Applies the limits to the notifications in logs.
    pub(crate) fn apply_limits(&mut self, counters: &NotifierCounters) {
        if self.cursors.len() > 1 {
            if self.len() > self.queue.items || self.bytes() > self.queue.bytes as u64 {
                self.move_unread(counters);
            }
            return;
        }
        let [cursor] = &mut *self.cursors else { return };
        if cursor.is_paused() {
            return;
        }
        let limits = LogLimits { items: self.queue.items as u64, bytes: self.queue.bytes as u64 };
        let holds_notifications = self.folded.is_some()
            || self.pending.as_ref().is_some_and(|pending| pending.items.len() > 0 || pending.refused.is_some());
        if holds_notifications {
            return self.move_unread(counters);
        }
        let first = cursor.channel.read(|log| log.first_within(limits));
        if first <= cursor.next {
            return;
        }
        if self.queue.policy != Policy::DropOldest {
            return self.move_unread(counters);
        }
        let dropped = first - std::mem::replace(&mut cursor.next, first);
        counters.dropped.add(dropped);
        if let Some(subscription) = cursor.subscription.upgrade() {
            let pending = self.pending();
            // Reports that are pending come before what was dropped.
            pending.items.drop_all();
            pending.items.report_first(SubscriptionRef(subscription), MissedReport::new(Reason::Overflow, dropped));
        }
    }

    /// Returns the queue of pending items, with the folded ones.
    fn pending(&mut self) -> &mut Pending<S> {
        let Self { queue, cursors, pending, folded, .. } = self;
        pending.get_or_insert_with(|| {
            let mut items = PendingQueue::new(**queue);
            let subscription = cursors.first().and_then(|cursor| cursor.subscription.upgrade());
            if let (Some(folded), Some(subscription)) = (folded.take(), subscription) {
                let (window, taken) = *folded;
                let to = SubscriptionRef(subscription);
                for entry in window.entries.iter().skip(taken) {
                    if let Some(notification) = entry.notification() {
                        items.add_one(&to, StoredNotification::Copied(notification.to_owned()), entry.folded);
                    }
                }
            }
            Box::new(Pending { items, refused: None })
        })
    }

    /// Moves folded notifications to the pending items, while their cursor is the only one.
    fn unfold(&mut self) {
        if self.folded.is_some() {
            self.pending();
        }
    }

    pub(crate) fn push_missed(
        &mut self,
        subscription: &Arc<S>,
        report: MissedReport,
        counters: &NotifierCounters,
    ) -> bool {
        self.move_unread(counters);
        self.pending().items.push_missed(&SubscriptionRef(Arc::clone(subscription)), report);
        !std::mem::replace(&mut self.is_scheduled, true)
    }

    /// Moves unread notifications to the pending items, in the order of their positions: those that have been published on
    /// all channels.
    pub(crate) fn move_unread(&mut self, counters: &NotifierCounters) {
        let is_single = self.cursors.len() == 1;
        let published = counters.published.load(Acquire);
        let mut moved: Vec<(SubscriptionRef<S>, SegmentRange)> = Vec::new();
        // The log has dropped them, because of the limits.
        let mut lost: Vec<(SubscriptionRef<S>, u64)> = Vec::new();
        for place in self.cursors.take_unread() {
            let Some(cursor) = self.cursors.get_mut(place) else { continue };
            if cursor.unread() == 0 {
                continue;
            }
            let Some(subscription) = cursor.subscription.upgrade() else { continue };
            let (next, to) = (cursor.next, SubscriptionRef(subscription));
            let (base, end) = cursor.channel.read(|log| {
                let (base, end) = (log.base().max(next), log.end_at(published).max(next));
                moved.extend(log.ranges(base, end).map(|range| (to.clone(), range)));
                (base, end)
            });
            cursor.next = base.max(end);
            if base > next {
                lost.push((to, base - next));
            }
            self.cursors.add_unread(place);
        }
        if moved.is_empty() && lost.is_empty() {
            return;
        }
        let pending = self.pending();
        for (to, dropped) in lost {
            // The pending notifications are older, so the limits drop them first.
            counters.dropped.add(dropped + pending.items.drop_all());
            pending.items.report_first(to, MissedReport::new(Reason::Overflow, dropped));
        }
        let (notifications, bytes) = moved.iter().fold((0, 0), |(n, b), (_, it)| (n + it.len(), b + it.bytes()));
        let is_copying = pending.items.is_copying(notifications, bytes);
        if !is_single {
            let mut merged: MergedRanges<_> = moved.into_iter().collect();
            if pending.refused.is_none() && !is_copying {
                match pending.items.push_merged(merged) {
                    Ok(outcome) => return counters.dropped.add(outcome.dropped),
                    Err(ranges) => merged = ranges,
                }
            }
            moved = merged.split().collect();
        }
        for (to, range) in moved {
            let outcome = match &pending.refused {
                Some(_) => PushOutcome { refused: range.len() as u64, ..PushOutcome::default() },
                None => pending.items.push(&to, &range, is_copying),
            };
            counters.dropped.add(outcome.dropped + outcome.refused);
            counters.folded.add(outcome.folded);
            if outcome.refused > 0 {
                *pending.refused.get_or_insert_default().entry(range.channel()).or_default() += outcome.refused;
            }
        }
    }

    pub(crate) fn take(&mut self, visit: &mut Visit<'_, S>, reader: &mut SegmentReader) -> Taken<S> {
        loop {
            if let Some(taken) = self.next(visit, reader) {
                return taken;
            }
            if !std::mem::take(&mut self.is_revisited) {
                break;
            }
            visit.until = visit.channel.head();
        }
        self.is_scheduled = false;
        self.clear_behind();
        Taken::Idle
    }

    fn next(&mut self, visit: &mut Visit<'_, S>, reader: &mut SegmentReader) -> Option<Taken<S>> {
        // Before the heads of several channels are read: later notifications may follow others that are not seen then.
        let published = (self.cursors.len() > 1).then(|| visit.counters.published.load(Acquire));
        if self.pending.is_none()
            && self.folded.is_none()
            && let Some(cursor) = self.cursors.only_unread()
            && cursor.is_of(visit.subscription)
        {
            if let Some(published) = published {
                visit.until = visit.until.min(visit.channel.read(|log| log.end_at(published)));
            }
            let next = cursor.next;
            if next >= visit.until {
                return None;
            }
            let is_folding = self.queue.policy == Policy::Coalesce && visit.until - next > 1;
            if cursor.unread() <= self.queue.items as u64
                && !is_folding
                && reader.load(&cursor.channel, next)
                && let Some(entry) = reader.entry(next)
                && cursor.channel.bytes() - entry.bytes_before <= self.queue.bytes as u64
            {
                cursor.next = next + 1;
                return Some(Taken::Logged(next));
            }
        }
        self.prepare(visit);
        self.next_folded(reader).or_else(|| self.next_pending()).or_else(|| self.next_logged(visit, reader))
    }

    /// Applies the limits, and moves notifications where that is needed.
    fn prepare(&mut self, visit: &Visit<'_, S>) {
        match (&*self.cursors, &self.folded) {
            ([_, _, ..], _) => self.move_unread(visit.counters),
            // The subscription has been replaced since the visit began.
            ([cursor], _) if !cursor.is_of(visit.subscription) => self.move_unread(visit.counters),
            // A folded window is taken to its end in one visit, without what has arrived since.
            ([_], Some(folded)) if folded.0.to >= visit.until => {}
            _ => self.apply_limits(visit.counters),
        }
    }

    fn next_folded(&mut self, reader: &mut SegmentReader) -> Option<Taken<S>> {
        let (window, at) = &**self.folded.as_ref()?;
        let at = *at;
        if !reader.folded.as_ref().is_some_and(|known| Arc::ptr_eq(known, window)) {
            reader.folded = Some(Arc::clone(window));
        }
        self.continue_folded(at + 1);
        Some(Taken::Folded(at))
    }

    /// Continues with the folded notification at an index, or behind the window.
    pub(crate) fn continue_folded(&mut self, at: usize) {
        self.folded = self.folded.take().filter(|folded| at < folded.0.entries.len());
        self.folded.iter_mut().for_each(|folded| folded.1 = at);
    }

    fn next_pending(&mut self) -> Option<Taken<S>> {
        let pending = self.pending.as_mut()?;
        let item = pending.items.pop();
        if item.is_none() && pending.refused.is_none() {
            self.pending = None;
        }
        item.map(Taken::Pending)
    }

    fn next_logged(&mut self, visit: &Visit<'_, S>, reader: &mut SegmentReader) -> Option<Taken<S>> {
        let [cursor] = &mut *self.cursors else { return None };
        let next = Some(cursor.next).filter(|next| cursor.is_of(visit.subscription) && *next < visit.until)?;
        if !reader.load(&cursor.channel, next) {
            // The log has just dropped it.
            self.apply_limits(visit.counters);
            return self.next_pending();
        }
        if self.queue.policy == Policy::Coalesce && visit.until - next > 1 {
            let window = reader.fold(&cursor.channel, next, visit.until);
            cursor.next = visit.until;
            visit.counters.folded.add((visit.until - next).saturating_sub(window.entries.len() as u64));
            self.folded = Some(Box::new((window, 0)));
            return self.next_folded(reader);
        }
        cursor.next = next + 1;
        Some(Taken::Logged(next))
    }
}
