//! The events of a manager that wait for a stream: bounded, and in order. Pure.
//!
//! ```text
//!   1 N N │ 2 D │ 1 N │ 2 R │ 3 N          the limit is reached: the largest connection, 1, is folded
//!   1 gap │ 2 D │     │ 2 R │ 3 N          and its gap is where its first notifications were
//! ```
//!
//! Only notifications are dropped. Reports stay, each in its place; those that would only repeat an earlier one are merged, so
//! a connection has never many more reports than batches. An idle event waits separately, until the queue is empty.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::error::Error;
use crate::gap::{Gap, GapData};
use crate::handoff::HandoffQueue;
use crate::manager::conn_id::ConnId;
use crate::manager::event::{Check, Event};
use crate::notification::Batch;

/// The size of a batch, with respect to the limit, in addition to its bytes.
const BATCH_OVERHEAD: usize = 256;

pub(super) struct WaitingEvents {
    /// The limit of the notifications' size.
    limit: usize,
    bytes: usize,
    items: BTreeMap<u64, (ConnId, QueuedEvent)>,
    last_position: u64,
    connections: HashMap<ConnId, ConnectionEvents>,
    /// The connections that have batches, by the size of these.
    sizes: BTreeSet<(usize, ConnId)>,
    /// The gaps that were returned.
    gaps: HashMap<ConnId, ReportedGaps>,
    is_idle: bool,
}

enum QueuedEvent {
    /// A batch with the time at which it was received.
    Batch(Batch, (Instant, SystemTime)),
    Dropped(DroppedBatches),
    Report(Event),
}

/// Batches of one connection that were dropped.
struct DroppedBatches {
    channels: BTreeSet<Box<str>>,
    notifications: u64,
    since: (Instant, SystemTime),
    until: (Instant, SystemTime),
}

/// The positions of the events of one connection.
#[derive(Default)]
struct ConnectionEvents {
    batches: VecDeque<u64>,
    /// The size of the batches.
    bytes: usize,
    dropped: Option<u64>,
    /// Losses and restorations.
    outages: VecDeque<u64>,
    in_transaction: Option<u64>,
    refused_canary: Option<u64>,
    refused_audit: Option<u64>,
    canary: Option<u64>,
    unlistened: Option<u64>,
}

/// The numbers of gaps: an event's gap has the number that the manager has given to it, plus that of the queue's own gaps.
#[derive(Default)]
struct ReportedGaps {
    of_manager: u64,
    of_queue: u64,
}

impl WaitingEvents {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: 0,
            items: BTreeMap::new(),
            last_position: 0,
            connections: HashMap::new(),
            sizes: BTreeSet::new(),
            gaps: HashMap::new(),
            is_idle: false,
        }
    }

    /// Adds an event.
    pub(super) fn push(&mut self, event: Event, now: (Instant, SystemTime)) {
        self.last_position += 1;
        let position = self.last_position;
        match event {
            Event::Idle => self.is_idle = true,
            Event::Notifies(id, batch) => self.push_batch(id, batch, position, now),
            Event::Disconnected(id, _) | Event::Restored(id, _) => {
                self.connections.entry(id).or_default().outages.push_back(position);
                self.items.insert(position, (id, QueuedEvent::Report(event)));
                self.merge_last_outages(id);
            }
            Event::InTransaction(id) => self.push_latest(id, event, position, |it| &mut it.in_transaction),
            Event::CheckRefused(id, Check::Canary, _) => {
                self.push_latest(id, event, position, |it| &mut it.refused_canary);
            }
            Event::CheckRefused(id, Check::Audit, _) => {
                self.push_latest(id, event, position, |it| &mut it.refused_audit);
            }
            Event::CanaryReceived(id, _) => self.push_latest(id, event, position, |it| &mut it.canary),
            Event::Unlistened(id, channels) => self.push_unlistened(id, channels, position),
            // These are reported once for each connection.
            Event::Opened(id) | Event::Lost(id, _) => {
                drop(self.items.insert(position, (id, QueuedEvent::Report(event))))
            }
        }
    }

    /// Adds a report in the place of an equal one that has not been taken.
    fn push_latest(
        &mut self,
        id: ConnId,
        event: Event,
        position: u64,
        latest: impl Fn(&mut ConnectionEvents) -> &mut Option<u64>,
    ) {
        let earlier = latest(self.connections.entry(id).or_default()).replace(position);
        if let Some(earlier) = earlier {
            self.items.remove(&earlier);
        }
        self.items.insert(position, (id, QueuedEvent::Report(event)));
    }

    /// Adds channels that are not listened to any more, to those of which that has not been taken.
    fn push_unlistened(&mut self, id: ConnId, channels: Arc<[Box<str>]>, position: u64) {
        let place = *self.connections.entry(id).or_default().unlistened.get_or_insert(position);
        let (_, queued) =
            self.items.entry(place).or_insert_with(|| (id, QueuedEvent::Report(Event::Unlistened(id, Arc::default()))));
        if let QueuedEvent::Report(Event::Unlistened(_, known)) = queued {
            let all: BTreeSet<Box<str>> = known.iter().chain(&*channels).cloned().collect();
            *known = all.into_iter().collect();
        }
    }

    fn push_batch(&mut self, id: ConnId, batch: Batch, position: u64, now: (Instant, SystemTime)) {
        let batch = batch.detach();
        let size = batch_size(&batch);
        self.items.insert(position, (id, QueuedEvent::Batch(batch, now)));
        self.connections.entry(id).or_default().batches.push_back(position);
        self.resize(id, |bytes| bytes + size);
        while self.bytes > self.limit
            && let Some((_, largest)) = self.sizes.last().copied()
        {
            self.fold(largest);
        }
    }

    /// Changes the size of the batches of a connection.
    fn resize(&mut self, id: ConnId, change: impl FnOnce(usize) -> usize) {
        let Some(it) = self.connections.get_mut(&id) else { return };
        self.sizes.remove(&(it.bytes, id));
        self.bytes -= it.bytes;
        it.bytes = change(it.bytes);
        self.bytes += it.bytes;
        if it.bytes > 0 {
            self.sizes.insert((it.bytes, id));
        }
    }

    /// Drops all batches of a connection, and reports that where the first of them was.
    fn fold(&mut self, id: ConnId) {
        self.resize(id, |_| 0);
        let Some(it) = self.connections.get_mut(&id) else { return };
        for position in std::mem::take(&mut it.batches) {
            let Some((_, QueuedEvent::Batch(batch, at))) = self.items.remove(&position) else { continue };
            let place = *it.dropped.get_or_insert(position);
            let new = || {
                let dropped = DroppedBatches { channels: BTreeSet::new(), notifications: 0, since: at, until: at };
                (id, QueuedEvent::Dropped(dropped))
            };
            if let (_, QueuedEvent::Dropped(dropped)) = self.items.entry(place).or_insert_with(new) {
                dropped.add(&batch, at);
            }
        }
        while self.merge_last_outages(id) {}
    }

    /// Merges the last two gaps of a connection, if no notification lies between them, with the loss between. Returns `true`
    /// if it had such gaps.
    fn merge_last_outages(&mut self, id: ConnId) -> bool {
        let Some(it) = self.connections.get_mut(&id) else { return false };
        let items = &self.items;
        let is_gap = |at: &u64| matches!(items.get(at), Some((_, QueuedEvent::Report(Event::Restored(..)))));
        let last_batch = it.batches.back().copied().unwrap_or_default();
        let mut gaps = it.outages.iter().copied().enumerate().rev().filter(|(_, at)| is_gap(at));
        let (Some((_, later)), Some((first, earlier))) = (gaps.next(), gaps.next()) else { return false };
        if earlier < last_batch {
            return false;
        }
        let merged: Vec<u64> = it.outages.range(first..).copied().take_while(|at| *at < later).collect();
        it.outages.retain(|at| !merged.contains(at));
        for at in merged {
            if let Some((_, QueuedEvent::Report(Event::Restored(_, earlier)))) = self.items.remove(&at)
                && let Some((_, QueuedEvent::Report(Event::Restored(_, gap)))) = self.items.get_mut(&later)
            {
                gap.merge_earlier(&earlier);
            }
        }
        true
    }

    /// Forgets the position of an event that is taken.
    fn forget(&mut self, id: ConnId, position: u64) {
        let Some(it) = self.connections.get_mut(&id) else { return };
        for positions in [&mut it.batches, &mut it.outages] {
            if positions.front() == Some(&position) {
                positions.pop_front();
            }
        }
        let places = [&mut it.dropped, &mut it.in_transaction, &mut it.refused_canary, &mut it.refused_audit];
        for place in places.into_iter().chain([&mut it.canary, &mut it.unlistened]) {
            place.take_if(|at| *at == position);
        }
        if it.is_empty() {
            self.connections.remove(&id);
        }
    }

    /// Numbers a gap of a connection by those that were returned before.
    fn number(&mut self, id: ConnId, gap: &mut Gap, is_of_queue: bool) {
        let gaps = self.gaps.entry(id).or_default();
        match is_of_queue {
            true => gaps.of_queue += 1,
            false => gaps.of_manager = gap.epoch(),
        }
        gap.set_epoch(gaps.of_manager + gaps.of_queue);
    }
}

impl HandoffQueue for WaitingEvents {
    type Item = Event;

    fn pop(&mut self) -> Option<Event> {
        let Some((position, (id, event))) = self.items.pop_first() else {
            return std::mem::take(&mut self.is_idle).then_some(Event::Idle);
        };
        let event = match event {
            QueuedEvent::Batch(batch, _) => {
                let size = batch_size(&batch);
                self.resize(id, |bytes| bytes - size);
                Event::Notifies(id, batch)
            }
            QueuedEvent::Dropped(dropped) => {
                let mut gap = dropped.into();
                self.number(id, &mut gap, true);
                Event::Restored(id, gap)
            }
            QueuedEvent::Report(Event::Restored(_, mut gap)) => {
                self.number(id, &mut gap, false);
                Event::Restored(id, gap)
            }
            QueuedEvent::Report(event) => {
                if matches!(event, Event::Lost(..)) {
                    self.gaps.remove(&id);
                }
                event
            }
        };
        self.forget(id, position);
        Some(event)
    }
}

impl ConnectionEvents {
    fn is_empty(&self) -> bool {
        let single = [self.dropped, self.in_transaction, self.refused_canary, self.refused_audit];
        let mut single = single.into_iter().chain([self.canary, self.unlistened]);
        self.batches.is_empty() && self.outages.is_empty() && single.all(|position| position.is_none())
    }
}

impl DroppedBatches {
    fn add(&mut self, batch: &Batch, at: (Instant, SystemTime)) {
        self.until = at;
        self.notifications += batch.len() as u64;
        let mut last: &[u8] = &[];
        for n in batch {
            if n.channel_bytes() != last {
                last = n.channel_bytes();
                self.channels.insert(n.channel().into());
            }
        }
    }
}

impl From<DroppedBatches> for Gap {
    fn from(dropped: DroppedBatches) -> Self {
        let DroppedBatches { channels, notifications, since, until } = dropped;
        let cause = Error::TooSlow { dropped: notifications };
        GapData { channels: channels.into_iter().collect(), cause, since, until, epoch: 0 }.into()
    }
}

fn batch_size(batch: &Batch) -> usize {
    batch.byte_len() + BATCH_OVERHEAD
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u64) -> ConnId {
        ConnId::for_test(number)
    }

    fn now() -> (Instant, SystemTime) {
        (Instant::now(), SystemTime::now())
    }

    fn batch(channel: &str, payloads: &str) -> Batch {
        Batch::for_test(&payloads.split(' ').map(|payload| (1, channel, payload)).collect::<Vec<_>>())
    }

    fn restored(number: u64, channel: &str, epoch: u64) -> Event {
        let (since, until) = (now(), now());
        let channels = [channel.into()].into();
        Event::Restored(id(number), GapData { channels, cause: Error::Disconnected, since, until, epoch }.into())
    }

    fn disconnected(number: u64) -> Event {
        Event::Disconnected(id(number), Error::Disconnected)
    }

    /// Returns an event as text: the connection, and the payloads or the channels and the number of the gap.
    fn text(event: Event) -> String {
        match event {
            Event::Notifies(id, batch) => {
                let payloads: Vec<_> = batch.iter().map(|n| n.payload().into_owned()).collect();
                format!("{id}:{}", payloads.join(","))
            }
            Event::Restored(id, gap) => {
                let dropped = match gap.cause() {
                    Error::TooSlow { dropped } => format!("-{dropped}"),
                    _ => String::new(),
                };
                format!("{id}:{}#{}{dropped}", gap.channels().join("+"), gap.epoch())
            }
            Event::Disconnected(id, _) => format!("{id}:lost"),
            Event::Lost(id, _) => format!("{id}:end"),
            Event::InTransaction(id) => format!("{id}:transaction"),
            Event::CheckRefused(id, check, error) => format!("{id}:{check} {error}"),
            Event::CanaryReceived(id, _) => format!("{id}:canary"),
            Event::Unlistened(id, channels) => format!("{id}:unlistened {}", channels.join("+")),
            Event::Opened(id) => format!("{id}:open"),
            Event::Idle => "idle".to_owned(),
        }
    }

    fn drain(queue: &mut WaitingEvents) -> String {
        std::iter::from_fn(|| queue.pop()).map(text).collect::<Vec<_>>().join(" ")
    }

    fn filled(limit: usize, events: impl IntoIterator<Item = Event>) -> WaitingEvents {
        let mut queue = WaitingEvents::new(limit);
        events.into_iter().for_each(|event| queue.push(event, now()));
        queue
    }

    /// Returns the size of this number of batches with a notification on a channel of one byte.
    fn size_of(batches: usize) -> usize {
        batches * batch_size(&batch("a", "1"))
    }

    #[test]
    fn the_largest_connection_is_folded_into_one_gap_in_the_place_of_its_first_batch() {
        let notifies = |number, channel, payload| Event::Notifies(id(number), batch(channel, payload));
        let mut queue = filled(
            size_of(3),
            [
                notifies(2, "q", "1"),
                notifies(1, "b", "1"),
                disconnected(2),
                notifies(1, "a", "2"),
                restored(2, "q", 1),
                notifies(2, "q", "2"),
            ],
        );
        assert_eq!(drain(&mut queue), "2:q#1-2 1:1 2:lost 1:2 2:q#2", "the connection with the last id of two");
        let mut queue = filled(
            size_of(3),
            [notifies(2, "q", "1"), notifies(1, "b", "1"), notifies(1, "a", "2"), notifies(1, "c", "3")],
        );
        assert_eq!(drain(&mut queue), "2:1 1:a+b+c#1-3");
        assert_eq!((queue.bytes, queue.connections.len(), queue.sizes.len()), (0, 0, 0));
    }

    #[test]
    fn a_gap_that_waits_takes_in_what_is_dropped_later() {
        let mut queue = filled(0, [Event::Notifies(id(1), batch("a", "1 2")), Event::Notifies(id(1), batch("b", "3"))]);
        assert_eq!(queue.items.len(), 1);
        assert_eq!(drain(&mut queue), "1:a+b#1-3");
        queue.push(Event::Notifies(id(1), batch("a", "4")), now());
        assert_eq!(drain(&mut queue), "1:a#2-1", "the next gap has the next number");
        queue.push(restored(1, "c", 1), now());
        assert_eq!(drain(&mut queue), "1:c#3");
    }

    #[test]
    fn losses_and_restorations_in_a_row_are_one_unless_a_notification_lies_between() {
        let mut queue = WaitingEvents::new(size_of(10));
        for epoch in 1..=1000 {
            queue.push(disconnected(1), now());
            queue.push(restored(1, &format!("c{}", epoch % 3), epoch), now());
        }
        assert_eq!(queue.items.len(), 2);
        queue.push(Event::Notifies(id(1), batch("a", "1")), now());
        queue.push(disconnected(1), now());
        queue.push(restored(1, "c", 1001), now());
        assert_eq!(drain(&mut queue), "1:lost 1:c0+c1+c2#1000 1:1 1:lost 1:c#1001");
    }

    #[test]
    fn outages_between_dropped_notifications_do_not_pile_up() {
        let mut queue = WaitingEvents::new(size_of(2));
        for epoch in 1..=1000 {
            queue.push(disconnected(1), now());
            queue.push(restored(1, "c", epoch), now());
            queue.push(Event::Notifies(id(1), batch("a", "1")), now());
            queue.push(Event::InTransaction(id(1)), now());
            for check in [Check::Canary, Check::Audit] {
                queue.push(Event::CheckRefused(id(1), check, Error::Unopened), now());
            }
            assert!(queue.items.len() < 15, "{}", queue.items.len());
        }
        let left = drain(&mut queue);
        assert!(left.starts_with("1:lost 1:a#1-") && left.contains("1:c#1001 ") && left.len() < 400, "{left}");
    }

    #[test]
    fn repeated_reports_are_the_latest_and_idle_comes_last() {
        let refused = |check, error| Event::CheckRefused(id(1), check, error);
        let mut queue = filled(
            0,
            [
                Event::Idle,
                Event::Opened(id(1)),
                Event::InTransaction(id(1)),
                refused(Check::Canary, Error::Closed),
                Event::Idle,
                refused(Check::Audit, Error::Closed),
                Event::InTransaction(id(1)),
                refused(Check::Canary, Error::Unopened),
                Event::Lost(id(1), Error::Closed),
            ],
        );
        let expected =
            format!("1:open 1:audit {} 1:transaction 1:canary {} 1:end idle", Error::Closed, Error::Unopened);
        assert_eq!(drain(&mut queue), expected);
        assert!(queue.connections.is_empty() && queue.gaps.is_empty());
    }

    #[test]
    fn the_gap_of_dropped_notifications_begins_when_the_first_was_received() {
        let begin = now();
        let at = |seconds| (begin.0 + std::time::Duration::from_secs(seconds), begin.1);
        let mut queue = WaitingEvents::new(0);
        for seconds in [1, 2, 5] {
            queue.push(Event::Notifies(id(1), batch("a", "1")), at(seconds));
        }
        let Some(Event::Restored(_, gap)) = queue.pop() else { panic!("no gap") };
        assert_eq!((gap.since(), gap.until()), (at(1).0, at(5).0));
    }

    proptest! {
        /// Sent = delivered + reported as dropped, in order; losses and restorations alternate, and a gap has all channels
        /// of the gaps that it stands for.
        #[test]
        fn every_notification_is_delivered_or_reported_in_its_place(
            steps in prop::collection::vec((0..12u8, 1..4u64), 0..200),
            limit in 0..8usize,
        ) {
            let mut queue = WaitingEvents::new(size_of(limit));
            let mut sent: BTreeMap<u64, i32> = BTreeMap::new();
            let mut is_lost: BTreeMap<u64, bool> = BTreeMap::new();
            // For each connection, the notifications that were delivered or reported, and the last number and epoch.
            let mut seen: BTreeMap<u64, (i32, i32, u64, bool)> = BTreeMap::new();
            let mut take = |event: Event| {
                match event {
                    Event::Notifies(id, batch) => {
                        let it = seen.entry(id.number()).or_default();
                        for n in &batch {
                            prop_assert!(n.pid() > it.1, "in order");
                            (it.0, it.1) = (it.0 + 1, n.pid());
                        }
                    }
                    Event::Restored(id, gap) => {
                        let it = seen.entry(id.number()).or_default();
                        match gap.cause() {
                            Error::TooSlow { dropped } => it.0 += *dropped as i32,
                            _ => it.3 = false,
                        }
                        prop_assert!(gap.epoch() > it.2, "the number grows");
                        it.2 = gap.epoch();
                    }
                    Event::Disconnected(id, _) => seen.entry(id.number()).or_default().3 = true,
                    other => prop_assert!(false, "{other:?}"),
                }
                Ok(())
            };
            let mut epochs: BTreeMap<u64, u64> = BTreeMap::new();
            for (action, number) in steps {
                match action {
                    0..6 => {
                        let last = sent.entry(number).or_default();
                        let numbers: Vec<_> = (0..=action % 2).map(|_| { *last += 1; (*last, "a", "1") }).collect();
                        queue.push(Event::Notifies(id(number), Batch::for_test(&numbers)), now());
                    }
                    6..9 => {
                        let lost = is_lost.entry(number).or_default();
                        *lost = !*lost;
                        let epoch = epochs.entry(number).or_default();
                        *epoch += u64::from(!*lost);
                        let event = if *lost { disconnected(number) } else { restored(number, "a", *epoch) };
                        queue.push(event, now());
                    }
                    _ => { queue.pop().map(&mut take).transpose()?; }
                }
                prop_assert!(queue.bytes <= size_of(limit));
                prop_assert_eq!(queue.bytes, queue.sizes.iter().map(|(bytes, _)| bytes).sum::<usize>());
            }
            while let Some(event) = queue.pop() {
                take(event)?;
            }
            prop_assert!(queue.connections.is_empty() && queue.sizes.is_empty() && queue.bytes == 0);
            for (number, last) in sent {
                prop_assert_eq!(seen.get(&number).map(|it| it.0), Some(last), "sent = delivered + reported");
            }
            for (number, lost) in is_lost {
                prop_assert_eq!(seen.get(&number).is_some_and(|it| it.3), lost, "the last report is that of the state");
            }
        }
    }
}
