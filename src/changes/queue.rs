//! The queue between the worker's loop and the consumer, with a memory limit.
//!
//! ```text
//!   loop ──> push ──────────────────────────────> ready ──> take ──> consumer
//!              └──> held, one lane for each database ──┘ release
//! ```
//!
//! The loop never waits: a session that does not read fills the server's NOTIFY queue for all. Notifications for which
//! there is no room are dropped and counted, and the count is reported in their place. A log keeps its rows, so it is
//! read only as far as there is room. While a spilled payload is being read, what its database received later is held.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::log::Position;
use super::mailbox::{LoopMessage, Mailbox};
use crate::clock;
use crate::error::Error;
use crate::gap::Gap;

/// The most bytes of payloads that wait for the consumer.
pub(crate) const LIMIT: usize = 64 << 20;
/// The room that must be left before something long is read from a table.
pub(crate) const ROOM: usize = 16 << 20;
/// The approximate size of an item besides its payload.
const ITEM: usize = 128;

/// An item for the consumer, of one database.
#[derive(Debug)]
pub(crate) enum QueueItem {
    /// A payload that was notified.
    Notified(Box<[u8]>),
    /// A payload that was read from a log, and the position after it.
    Logged(Position, Box<[u8]>),
    /// A gap in what was read from a log, and the position after it.
    LoggedGap(Position, Gap),
    /// The number of notifications for which there was no room.
    Dropped(u64),
    Connected,
    Disconnected(Error),
    Gap(Gap),
    Lost(Error),
    Warning(String),
}

impl QueueItem {
    fn size(&self) -> usize {
        ITEM + match self {
            QueueItem::Notified(payload) | QueueItem::Logged(_, payload) => payload.len(),
            _ => 0,
        }
    }

    /// Returns `true` if the item must not overtake changes that are held.
    fn is_ordered(&self) -> bool {
        matches!(self, QueueItem::Notified(_) | QueueItem::Gap(_))
    }
}

#[derive(Debug, Default)]
struct EventQueueState {
    ready: VecDeque<(usize, QueueItem)>,
    ready_size: usize,
    /// The items that wait for a spilled payload, by database.
    held: BTreeMap<usize, VecDeque<QueueItem>>,
    held_size: usize,
    /// The numbers of notifications that were dropped and not reported yet, by database.
    dropped: BTreeMap<usize, u64>,
    /// What the consumer has dealt with since the loop last asked: the position, and the number of items.
    acknowledged: BTreeMap<usize, (Position, usize)>,
    /// `true` if the loop waits for room.
    wants_room: bool,
    /// Nothing more is added.
    is_stopped: bool,
    /// The loop has ended.
    is_finished: bool,
}

/// The queue; see the documentation of the module.
#[derive(Debug)]
pub(crate) struct EventQueue {
    state: Mutex<EventQueueState>,
    changed: Condvar,
    mailbox: Arc<Mailbox>,
}

/// The result of waiting for an item.
pub(crate) enum TakenItem {
    Item(usize, QueueItem),
    TimedOut,
    /// Nothing will come any more.
    Over,
}

impl EventQueue {
    pub(crate) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), mailbox }
    }

    fn lock(&self) -> MutexGuard<'_, EventQueueState> {
        // The state is consistent whenever the lock is released.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- the loop ---------------------------------------------------------------------------------------------------

    /// Adds an item; a notification for which there is no room is counted instead.
    pub(crate) fn push(&self, database: usize, item: QueueItem) {
        let mut state = self.lock();
        if state.is_stopped {
            return;
        }
        if matches!(item, QueueItem::Notified(_)) {
            let size = state.ready_size + state.held_size + item.size();
            if size > LIMIT || state.dropped.contains_key(&database) {
                *state.dropped.entry(database).or_default() += 1;
                drop(state);
                return self.changed.notify_all();
            }
        }
        match state.held.get_mut(&database) {
            Some(lane) if item.is_ordered() => {
                let size = item.size();
                lane.push_back(item);
                state.held_size += size;
            }
            _ => state.make_ready(database, item),
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Holds what is added for a database from now on.
    pub(crate) fn hold(&self, database: usize) {
        self.lock().held.entry(database).or_default();
    }

    /// Adds an item before what is held.
    pub(crate) fn release(&self, database: usize, item: QueueItem) {
        self.lock().make_ready(database, item);
        self.changed.notify_all();
    }

    /// Takes the first item that is held for a database; once there is none, nothing is held any more.
    pub(crate) fn take_held(&self, database: usize) -> Option<QueueItem> {
        let mut state = self.lock();
        let item = state.held.get_mut(&database).and_then(VecDeque::pop_front);
        match &item {
            Some(item) => state.held_size = state.held_size.saturating_sub(item.size()),
            None => {
                state.held.remove(&database);
                // A count of dropped notifications may have waited for it.
                self.changed.notify_all();
            }
        }
        item
    }

    /// Returns the bytes for which there is room, of which at least [`ROOM`] must be there to read something long. If
    /// they are not, the loop is sent a message when they are.
    pub(crate) fn room(&self) -> Option<usize> {
        let mut state = self.lock();
        let room = LIMIT.saturating_sub(state.ready_size);
        state.wants_room |= room < ROOM;
        (room >= ROOM).then_some(room)
    }

    /// Takes what the consumer has dealt with: the last position, and the number of items.
    pub(crate) fn take_acknowledged(&self, database: usize) -> Option<(Position, usize)> {
        self.lock().acknowledged.remove(&database)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// The loop has ended: what is there can still be taken.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        for (database, lane) in std::mem::take(&mut state.held) {
            lane.into_iter().for_each(|item| state.make_ready(database, item));
        }
        state.is_stopped = true;
        state.is_finished = true;
        drop(state);
        self.changed.notify_all();
    }

    // ---- the consumer -----------------------------------------------------------------------------------------------

    /// Waits for the next item, in the order in which the items were added.
    pub(crate) fn take(&self, until: Option<Instant>) -> TakenItem {
        let mut state = self.lock();
        loop {
            if let Some((database, item)) = state.ready.pop_front() {
                state.ready_size = state.ready_size.saturating_sub(item.size());
                if state.wants_room && state.ready_size + ROOM <= LIMIT {
                    state.wants_room = false;
                    drop(state);
                    self.mailbox.send(LoopMessage::Room);
                }
                return TakenItem::Item(database, item);
            }
            let reportable = state.dropped.keys().find(|database| !state.held.contains_key(database)).copied();
            if let Some(database) = reportable
                && let Some(count) = state.dropped.remove(&database)
            {
                return TakenItem::Item(database, QueueItem::Dropped(count));
            }
            if state.is_finished || state.is_stopped && state.held.is_empty() {
                return TakenItem::Over;
            }
            let left = until.map(|until| until.saturating_duration_since(clock::now()));
            state = match left {
                Some(left) if left.is_zero() => return TakenItem::TimedOut,
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Reports that an item that was read from a log has been dealt with.
    pub(crate) fn acknowledge(&self, database: usize, position: Position) {
        let mut state = self.lock();
        let (is_first, is_stopped) = (state.acknowledged.is_empty(), state.is_stopped);
        let count = state.acknowledged.get(&database).map_or(0, |(_, count)| *count);
        state.acknowledged.insert(database, (position, count + 1));
        drop(state);
        // The loop asks from time to time, and waits for the last one.
        if is_stopped && is_first {
            self.mailbox.send(LoopMessage::Acknowledged);
        }
    }

    /// Adds nothing more; what is there can still be taken.
    pub(crate) fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
        self.mailbox.send(LoopMessage::Stop);
    }

    /// Stops, for a consumer that takes nothing more and acknowledges nothing more.
    pub(crate) fn close(&self) {
        self.stop();
        self.mailbox.send(LoopMessage::Close);
    }

    /// Returns the number of items that wait for the consumer.
    pub(crate) fn len(&self) -> usize {
        let state = self.lock();
        state.ready.len() + state.held.values().map(VecDeque::len).sum::<usize>()
    }
}

impl EventQueueState {
    fn make_ready(&mut self, database: usize, item: QueueItem) {
        self.ready_size += item.size();
        self.ready.push_back((database, item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::NotificationManager;

    fn queue() -> EventQueue {
        EventQueue::new(Arc::new(Mailbox::new(NotificationManager::new([]).handle())))
    }

    fn notified(size: usize) -> QueueItem {
        QueueItem::Notified(vec![b'x'; size].into())
    }

    #[test]
    fn notifications_without_room_are_counted_and_reported_after_those_with_room() {
        let queue = queue();
        queue.push(1, notified(LIMIT - 2 * ITEM));
        queue.push(1, notified(ITEM));
        queue.push(2, notified(1));
        queue.push(1, notified(0));
        assert!(matches!(queue.take(None), TakenItem::Item(1, QueueItem::Notified(_))));
        // There is room again, but nothing of this database comes before the count of what is missing.
        queue.push(1, notified(0));
        assert!(matches!(queue.take(None), TakenItem::Item(1, QueueItem::Dropped(3))));
        assert!(matches!(queue.take(None), TakenItem::Item(2, QueueItem::Dropped(1))));
        queue.push(1, notified(0));
        assert!(matches!(queue.take(None), TakenItem::Item(1, QueueItem::Notified(_))));
        assert!(matches!(queue.take(Some(clock::now())), TakenItem::TimedOut));
        queue.finish();
        assert!(matches!(queue.take(None), TakenItem::Over));
    }

    #[test]
    fn what_is_held_keeps_its_place_and_holds_up_no_other_database() {
        let queue = queue();
        queue.hold(1);
        for size in 1..=2 {
            queue.push(1, notified(size));
        }
        queue.push(1, QueueItem::Warning("not ordered".into()));
        queue.push(2, notified(7));
        assert!(matches!(queue.take(None), TakenItem::Item(1, QueueItem::Warning(_))));
        assert!(matches!(queue.take(None), TakenItem::Item(2, QueueItem::Notified(_))));
        assert!(matches!(queue.take(Some(clock::now())), TakenItem::TimedOut));
        queue.release(1, notified(0));
        while let Some(item) = queue.take_held(1) {
            queue.release(1, item);
        }
        for size in 0..=2 {
            assert!(matches!(queue.take(None), TakenItem::Item(1, QueueItem::Notified(n)) if n.len() == size));
        }
        queue.push(1, notified(9));
        assert!(matches!(queue.take(None), TakenItem::Item(1, QueueItem::Notified(n)) if n.len() == 9));
        let state = queue.lock();
        assert_eq!((state.ready_size, state.held_size), (0, 0));
    }

    #[test]
    fn a_stopped_queue_ends_after_what_is_held() {
        let queue = queue();
        queue.hold(1);
        queue.push(1, notified(1));
        queue.stop();
        queue.push(2, notified(2));
        assert!(matches!(queue.take(Some(clock::now())), TakenItem::TimedOut));
        queue.finish();
        assert!(matches!(queue.take(None), TakenItem::Item(1, QueueItem::Notified(_))));
        assert!(matches!(queue.take(None), TakenItem::Over));
    }

    #[test]
    fn taken_items_free_their_capacity() {
        let queue = queue();
        let piece = LIMIT / 4;
        // Three times the limit in total, taken directly and from the held items.
        for round in 0..3 {
            for _ in 0..3 {
                queue.push(1, notified(piece));
            }
            for _ in 0..3 {
                assert!(matches!(queue.take(None), TakenItem::Item(1, QueueItem::Notified(_))), "in round {round}");
            }
        }
        for round in 0..3 {
            queue.hold(1);
            for _ in 0..3 {
                queue.push(1, notified(piece));
            }
            while let Some(item) = queue.take_held(1) {
                queue.release(1, item);
            }
            for _ in 0..3 {
                assert!(matches!(queue.take(None), TakenItem::Item(1, QueueItem::Notified(_))), "in round {round}");
            }
        }
        assert_eq!(queue.room(), Some(LIMIT));
    }

    #[test]
    fn held_items_count_towards_the_capacity() {
        let queue = queue();
        queue.hold(1);
        for _ in 0..5 {
            queue.push(1, notified(LIMIT / 4));
        }
        queue.finish();
        let taken = std::iter::from_fn(|| match queue.take(None) {
            TakenItem::Item(_, item) => Some(item),
            _ => None,
        });
        let taken: Vec<_> = taken.collect();
        assert!(matches!(taken[..], [.., QueueItem::Dropped(2)]) && taken.len() == 4, "{}", taken.len());
    }

    /// Returns the item that wakes a sleeping consumer when `doing` has run; `None` at the end of the queue.
    fn awaited(queue: EventQueue, doing: impl FnOnce(&EventQueue)) -> Option<QueueItem> {
        let (sender, taken) = std::sync::mpsc::channel();
        let queue = Arc::new(queue);
        std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || {
                let item = match queue.take(None) {
                    TakenItem::Item(_, item) => Some(item),
                    TakenItem::TimedOut | TakenItem::Over => None,
                };
                drop(sender.send(item));
            }
        });
        // The consumer is nearly always asleep by then; if not, the test proves nothing.
        std::thread::sleep(std::time::Duration::from_millis(100));
        doing(&queue);
        taken.recv_timeout(std::time::Duration::from_secs(10)).expect("the consumer was woken")
    }

    #[test]
    fn a_waiting_consumer_is_woken_by_every_kind_of_item() {
        let added = awaited(queue(), |queue| queue.push(1, notified(3)));
        assert!(matches!(added, Some(QueueItem::Notified(_))), "{added:?}");
        let dropped = awaited(queue(), |queue| queue.push(1, notified(LIMIT)));
        assert!(matches!(dropped, Some(QueueItem::Dropped(1))), "{dropped:?}");
        let released = awaited(queue(), |queue| queue.release(1, notified(3)));
        assert!(matches!(released, Some(QueueItem::Notified(_))), "{released:?}");

        let holding = queue();
        holding.hold(1);
        holding.push(1, notified(LIMIT));
        let dropped = awaited(holding, |queue| drop(queue.take_held(1)));
        assert!(matches!(dropped, Some(QueueItem::Dropped(1))), "{dropped:?}");

        assert!(awaited(queue(), EventQueue::finish).is_none());
        assert!(awaited(queue(), EventQueue::stop).is_none());
        assert!(awaited(queue(), EventQueue::close).is_none());
    }

    #[test]
    fn room_is_announced_once_the_consumer_has_made_it() {
        let queue = queue();
        assert_eq!(queue.room(), Some(LIMIT));
        (0..4).for_each(|_| queue.push(1, notified(ROOM - ITEM)));
        assert_eq!(queue.room(), None);
        assert!(queue.mailbox.take().is_empty());
        assert!(matches!(queue.take(None), TakenItem::Item(1, _)));
        assert!(matches!(queue.mailbox.take()[..], [LoopMessage::Room]));
        assert_eq!(queue.room(), Some(ROOM));
    }
}
