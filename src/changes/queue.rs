//! The queue between the worker's loop and the consumer, with a memory limit.
//!
//! ```text
//!   loop ──> push ──────────────────────> ready ──> take ──> consumer
//!              └──> held, by database ──────┘ release
//! ```
//!
//! The loop never waits, because a session that does not read makes the server's NOTIFY queue fill for all sessions.
//! Notifications for which there is no room are dropped and counted, and the count is reported in their place. A log keeps
//! its rows, so no more rows are read than there is room for. While a spilled payload is being read, later notifications of
//! its database are held.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::event::ChangeEvent;
use super::log::Position;
use super::mailbox::{LoopMessage, LoopWaker, Mailbox};
use crate::clock;
use crate::gap::Gap;

/// The capacity of the queue in bytes.
const LIMIT: usize = 64 << 20;
/// The free capacity that is necessary to read a long value from a table, in bytes.
pub(crate) const ROOM: usize = 16 << 20;
/// The approximate size of an item without its payload, in bytes.
const ITEM: usize = 128;

/// An item of one database, for the consumer.
#[derive(Debug)]
pub(crate) enum QueueItem {
    /// The payload of a notification.
    Notified(Box<[u8]>),
    /// A payload from a log, and the position after it.
    Logged(Position, Box<[u8]>),
    /// A gap in a log, and the position after it.
    LoggedGap(Position, Gap),
    /// An event that is no change, and is not from a log.
    Event(ChangeEvent),
}

impl QueueItem {
    fn size(&self) -> usize {
        ITEM + match self {
            QueueItem::Notified(payload) | QueueItem::Logged(_, payload) => payload.len(),
            _ => 0,
        }
    }

    /// Returns `true` if the item must not overtake held changes.
    fn is_ordered(&self) -> bool {
        matches!(self, QueueItem::Notified(_) | QueueItem::Event(ChangeEvent::Gap(_)))
    }
}

/// The states in which nothing, or not everything, can be added or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum QueuePhase {
    #[default]
    Open,
    /// Nothing more is added. Held items may still be released.
    Stopped,
    /// The loop has ended.
    Finished,
}

#[derive(Debug, Default)]
struct EventQueueState {
    phase: QueuePhase,
    ready: VecDeque<(usize, QueueItem)>,
    ready_size: usize,
    /// The items that wait for a spilled payload, by database.
    held: BTreeMap<usize, VecDeque<QueueItem>>,
    held_size: usize,
    /// The numbers of dropped notifications that have not been reported yet, by database.
    dropped: BTreeMap<usize, u64>,
    /// The last acknowledged position and the number of acknowledged items since the loop last read them, by database.
    acknowledged: BTreeMap<usize, (Position, usize)>,
    /// `true` if the loop waits for room.
    wants_room: bool,
}

/// Finishes the queue when the loop ends, also by a panic, so that the consumer does not wait forever.
pub(crate) struct FinishGuard(pub(crate) Arc<EventQueue>);

impl Drop for FinishGuard {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// The queue. The module's documentation describes it.
#[derive(Debug)]
pub(crate) struct EventQueue {
    state: Mutex<EventQueueState>,
    changed: Condvar,
    /// The messages of the consumer to the loop, and the replies of servers.
    pub(crate) mailbox: Mailbox,
}

impl EventQueue {
    pub(crate) fn new(waker: LoopWaker) -> Self {
        let mailbox = Mailbox { waker, messages: Mutex::default() };
        Self { state: Mutex::default(), changed: Condvar::new(), mailbox }
    }

    fn lock(&self) -> MutexGuard<'_, EventQueueState> {
        // The state is consistent whenever the lock is released.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- the loop ---------------------------------------------------------------------------------------------------

    /// Adds an item. A notification for which there is no room is dropped and counted.
    pub(crate) fn push(&self, database: usize, item: QueueItem) {
        let mut state = self.lock();
        if state.phase != QueuePhase::Open {
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
            Some(held) if item.is_ordered() => {
                let size = item.size();
                held.push_back(item);
                state.held_size += size;
            }
            _ => state.make_ready(database, item),
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Holds the changes and gaps that are added for a database from now on.
    pub(crate) fn hold(&self, database: usize) {
        self.lock().held.entry(database).or_default();
    }

    /// Adds an item before the held ones.
    pub(crate) fn release(&self, database: usize, item: QueueItem) {
        self.lock().make_ready(database, item);
        self.changed.notify_all();
    }

    /// Takes the first held item of a database. If there is none, later items are no longer held.
    pub(crate) fn take_held(&self, database: usize) -> Option<QueueItem> {
        let mut state = self.lock();
        let item = state.held.get_mut(&database).and_then(VecDeque::pop_front);
        match &item {
            Some(item) => state.held_size = state.held_size.saturating_sub(item.size()),
            None => {
                state.held.remove(&database);
                // The count of dropped notifications may have waited for the held items.
                self.changed.notify_all();
            }
        }
        item
    }

    /// Returns the free capacity in bytes if it is at least [`ROOM`]. If it is less, the loop receives
    /// [`LoopMessage::Room`] as soon as it is enough.
    pub(crate) fn room(&self) -> Option<usize> {
        let mut state = self.lock();
        let room = LIMIT.saturating_sub(state.ready_size);
        state.wants_room |= room < ROOM;
        (room >= ROOM).then_some(room)
    }

    /// Takes the last acknowledged position and the number of acknowledged items since the last call.
    pub(crate) fn take_acknowledged(&self, database: usize) -> Option<(Position, usize)> {
        self.lock().acknowledged.remove(&database)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().phase != QueuePhase::Open
    }

    /// Ends the queue, because the loop has ended. All items can still be taken.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        for (database, held) in std::mem::take(&mut state.held) {
            held.into_iter().for_each(|item| state.make_ready(database, item));
        }
        state.phase = QueuePhase::Finished;
        drop(state);
        self.changed.notify_all();
    }

    // ---- the consumer -----------------------------------------------------------------------------------------------

    /// Waits for the next item. Returns `Some(None)` at the time `until`, and `None` if there are no more items and none will
    /// be added.
    pub(crate) fn take(&self, until: Option<Instant>) -> Option<Option<(usize, QueueItem)>> {
        let mut state = self.lock();
        loop {
            if let Some((database, item)) = state.ready.pop_front() {
                state.ready_size = state.ready_size.saturating_sub(item.size());
                if state.wants_room && state.ready_size + ROOM <= LIMIT {
                    state.wants_room = false;
                    drop(state);
                    self.mailbox.send(LoopMessage::Room);
                }
                return Some(Some((database, item)));
            }
            let reportable = state.dropped.keys().find(|database| !state.held.contains_key(database)).copied();
            if let Some(database) = reportable
                && let Some(count) = state.dropped.remove(&database)
            {
                return Some(Some((database, QueueItem::Event(ChangeEvent::Dropped(count)))));
            }
            // Held items of a stopped queue may still be released.
            if state.phase == QueuePhase::Finished || state.phase == QueuePhase::Stopped && state.held.is_empty() {
                return None;
            }
            let left = until.map(|until| until.saturating_duration_since(clock::now()));
            state = match left {
                Some(left) if left.is_zero() => return Some(None),
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Acknowledges an item from a log.
    pub(crate) fn acknowledge(&self, database: usize, position: Position) {
        let mut state = self.lock();
        let is_first = state.acknowledged.is_empty();
        let is_stopped = state.phase != QueuePhase::Open;
        let count = state.acknowledged.get(&database).map_or(0, |(_, count)| *count);
        state.acknowledged.insert(database, (position, count + 1));
        drop(state);
        // While it runs, the loop reads acknowledgements with each query. After a stop it waits for them.
        if is_stopped && is_first {
            self.mailbox.send(LoopMessage::Acknowledged);
        }
    }

    /// Stops the queue and the loop: nothing more is added, and all items can still be taken.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        if state.phase == QueuePhase::Open {
            state.phase = QueuePhase::Stopped;
        }
        drop(state);
        self.changed.notify_all();
        self.mailbox.send(LoopMessage::Stop);
    }

    /// Stops the queue and the loop, for a consumer that takes and acknowledges nothing more.
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
    use std::sync::Arc;

    use super::*;
    use crate::manager::NotificationManager;

    fn queue() -> EventQueue {
        EventQueue::new(LoopWaker::Manager(NotificationManager::new([]).handle()))
    }

    fn notified(size: usize) -> QueueItem {
        QueueItem::Notified(vec![b'x'; size].into())
    }

    #[test]
    fn dropped_notifications_are_counted_and_reported_after_earlier_ones() {
        let queue = queue();
        queue.push(1, notified(LIMIT - 2 * ITEM));
        queue.push(1, notified(ITEM));
        queue.push(2, notified(1));
        queue.push(1, notified(0));
        assert!(matches!(queue.take(None), Some(Some((1, QueueItem::Notified(_))))));
        // There is room again, but the count of dropped notifications precedes later ones of the same database.
        queue.push(1, notified(0));
        assert!(matches!(queue.take(None), Some(Some((1, QueueItem::Event(ChangeEvent::Dropped(3)))))));
        assert!(matches!(queue.take(None), Some(Some((2, QueueItem::Event(ChangeEvent::Dropped(1)))))));
        queue.push(1, notified(0));
        assert!(matches!(queue.take(None), Some(Some((1, QueueItem::Notified(_))))));
        assert!(matches!(queue.take(Some(clock::now())), Some(None)));
        queue.finish();
        assert!(queue.take(None).is_none());
    }

    #[test]
    fn held_items_keep_their_order_and_delay_no_other_database() {
        let queue = queue();
        queue.hold(1);
        for size in 1..=2 {
            queue.push(1, notified(size));
        }
        queue.push(1, QueueItem::Event(ChangeEvent::Warning("not ordered".into())));
        queue.push(2, notified(7));
        assert!(matches!(queue.take(None), Some(Some((1, QueueItem::Event(ChangeEvent::Warning(_)))))));
        assert!(matches!(queue.take(None), Some(Some((2, QueueItem::Notified(_))))));
        assert!(matches!(queue.take(Some(clock::now())), Some(None)));
        queue.release(1, notified(0));
        while let Some(item) = queue.take_held(1) {
            queue.release(1, item);
        }
        for size in 0..=2 {
            assert!(matches!(queue.take(None), Some(Some((1, QueueItem::Notified(n)))) if n.len() == size));
        }
        queue.push(1, notified(9));
        assert!(matches!(queue.take(None), Some(Some((1, QueueItem::Notified(n)))) if n.len() == 9));
        let state = queue.lock();
        assert_eq!((state.ready_size, state.held_size), (0, 0));
    }

    #[test]
    fn a_stopped_queue_ends_after_the_held_items() {
        let queue = queue();
        queue.hold(1);
        queue.push(1, notified(1));
        queue.stop();
        queue.push(2, notified(2));
        assert!(matches!(queue.take(Some(clock::now())), Some(None)));
        queue.finish();
        assert!(matches!(queue.take(None), Some(Some((1, QueueItem::Notified(_))))));
        assert!(queue.take(None).is_none());
    }

    #[test]
    fn taken_items_free_their_capacity() {
        let queue = queue();
        let piece = LIMIT / 4;
        // Three times the capacity in total, taken directly and from the held items.
        for round in 0..3 {
            for _ in 0..3 {
                queue.push(1, notified(piece));
            }
            for _ in 0..3 {
                assert!(matches!(queue.take(None), Some(Some((1, QueueItem::Notified(_))))), "in round {round}");
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
                assert!(matches!(queue.take(None), Some(Some((1, QueueItem::Notified(_))))), "in round {round}");
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
            Some(Some((_, item))) => Some(item),
            _ => None,
        });
        let taken: Vec<_> = taken.collect();
        assert!(
            matches!(taken[..], [.., QueueItem::Event(ChangeEvent::Dropped(2))]) && taken.len() == 4,
            "{}",
            taken.len()
        );
    }

    /// Returns the item that a waiting consumer takes after `action`; `None` at the end of the queue.
    fn item_after(queue: EventQueue, action: impl FnOnce(&EventQueue)) -> Option<QueueItem> {
        let (sender, taken) = std::sync::mpsc::channel();
        let queue = Arc::new(queue);
        std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || {
                let item = match queue.take(None) {
                    Some(Some((_, item))) => Some(item),
                    Some(None) | None => None,
                };
                drop(sender.send(item));
            }
        });
        // The consumer is nearly always waiting by then. If not, the test proves nothing.
        std::thread::sleep(std::time::Duration::from_millis(100));
        action(&queue);
        taken.recv_timeout(std::time::Duration::from_secs(10)).expect("the consumer was woken")
    }

    #[test]
    fn a_waiting_consumer_is_woken_by_every_kind_of_item() {
        let added = item_after(queue(), |queue| queue.push(1, notified(3)));
        assert!(matches!(added, Some(QueueItem::Notified(_))), "{added:?}");
        let dropped = item_after(queue(), |queue| queue.push(1, notified(LIMIT)));
        assert!(matches!(dropped, Some(QueueItem::Event(ChangeEvent::Dropped(1)))), "{dropped:?}");
        let released = item_after(queue(), |queue| queue.release(1, notified(3)));
        assert!(matches!(released, Some(QueueItem::Notified(_))), "{released:?}");

        let holding = queue();
        holding.hold(1);
        holding.push(1, notified(LIMIT));
        let dropped = item_after(holding, |queue| drop(queue.take_held(1)));
        assert!(matches!(dropped, Some(QueueItem::Event(ChangeEvent::Dropped(1)))), "{dropped:?}");

        assert!(item_after(queue(), EventQueue::finish).is_none());
        assert!(item_after(queue(), EventQueue::stop).is_none());
        assert!(item_after(queue(), EventQueue::close).is_none());
    }

    #[test]
    fn the_loop_receives_a_message_when_there_is_room_again() {
        let queue = queue();
        assert_eq!(queue.room(), Some(LIMIT));
        (0..4).for_each(|_| queue.push(1, notified(ROOM - ITEM)));
        assert_eq!(queue.room(), None);
        assert!(queue.mailbox.take().is_empty());
        assert!(matches!(queue.take(None), Some(Some((1, _)))));
        assert!(matches!(queue.mailbox.take()[..], [LoopMessage::Room]));
        assert_eq!(queue.room(), Some(ROOM));
    }
}
