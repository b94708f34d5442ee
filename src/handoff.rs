//! A queue that one side fills from its threads, and from which a task takes.
//!
//! ```text
//!   threads ──▶ fill ──▶ queue ──▶ poll ──▶ task          fill and end wake the task
//!               end ──▶ the task takes the rest, and then the end
//!                                 close ◀── the task is dropped: nothing is kept any more
//! ```
//!
//! Neither side waits for the other: the queue itself decides what to keep when the task is slow. Code of the user (a waker)
//! never runs under the lock.

use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use crate::sync::{Mutex, MutexGuard};

/// A queue that a [`Handoff`] can hand over.
pub(crate) trait HandoffQueue {
    type Item;

    fn pop(&mut self) -> Option<Self::Item>;
}

pub(crate) struct Handoff<Q>(Mutex<HandoffState<Q>>);

struct HandoffState<Q> {
    /// `None` once the task has closed it.
    queue: Option<Q>,
    /// Nothing will be added.
    has_ended: bool,
    /// The waker of the task, while it waits.
    waker: Option<Waker>,
}

impl<Q: HandoffQueue> HandoffState<Q> {
    /// Returns the next item or the end, if there is one now.
    fn next(&mut self) -> Option<Option<Q::Item>> {
        let item = self.queue.as_mut().and_then(Q::pop);
        (item.is_some() || self.has_ended || self.queue.is_none()).then_some(item)
    }
}

impl<Q: HandoffQueue> Handoff<Q> {
    pub(crate) fn new(queue: Q) -> Self {
        Self(Mutex::new(HandoffState { queue: Some(queue), has_ended: false, waker: None }))
    }

    fn lock(&self) -> MutexGuard<'_, HandoffState<Q>> {
        // The state is consistent whenever the lock is released.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue, and wakes the task. Returns `None` if the task has closed the queue.
    pub(crate) fn fill<T>(&self, change: impl FnOnce(&mut Q) -> T) -> Option<T> {
        let mut state = self.lock();
        let result = change(state.queue.as_mut()?);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        Some(result)
    }

    /// Ends the queue behind the items that it has, and wakes the task.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.has_ended = true;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Drops the queue.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        let closed = (state.queue.take(), state.waker.take());
        drop(state);
        drop(closed);
    }

    /// Takes the next item, or `None` at the end. If there is neither, the task is woken when there is.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Q::Item>> {
        let mut state = self.lock();
        if let Some(next) = state.next() {
            return Poll::Ready(next);
        }
        if state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            return Poll::Pending;
        }
        drop(state);
        let waker = context.waker().clone();
        let mut state = self.lock();
        // An item may have arrived in between.
        if let Some(next) = state.next() {
            return Poll::Ready(next);
        }
        let replaced = state.waker.replace(waker);
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Numbers(VecDeque<u32>);

    impl HandoffQueue for Numbers {
        type Item = u32;

        fn pop(&mut self) -> Option<u32> {
            self.0.pop_front()
        }
    }

    #[derive(Default)]
    struct CountingWaker {
        wakes: AtomicUsize,
        /// Closed when the waker is dropped, as by a task that owns a stream.
        owned: Option<Arc<Handoff<Numbers>>>,
    }

    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.wakes.fetch_add(1, SeqCst);
        }
    }

    impl Drop for CountingWaker {
        fn drop(&mut self) {
            self.owned.iter().for_each(|handoff| handoff.close());
        }
    }

    fn add(handoff: &Handoff<Numbers>, number: u32) -> bool {
        handoff.fill(|queue| queue.0.push_back(number)).is_some()
    }

    #[test]
    fn a_task_is_woken_once_by_the_next_item_and_by_the_end() {
        let handoff = Handoff::new(Numbers::default());
        let counter = Arc::new(CountingWaker::default());
        let waker = Waker::from(Arc::clone(&counter));
        let mut context = Context::from_waker(&waker);
        assert!(handoff.poll(&mut context).is_pending() && handoff.poll(&mut context).is_pending());
        assert!(add(&handoff, 1) && add(&handoff, 2));
        assert_eq!(counter.wakes.load(SeqCst), 1, "a task that was woken is not woken again");
        assert_eq!([(); 2].map(|()| handoff.poll(&mut context)), [1, 2].map(|n| Poll::Ready(Some(n))));
        assert!(handoff.poll(&mut context).is_pending());
        handoff.end();
        assert_eq!(counter.wakes.load(SeqCst), 2);
        assert_eq!([(); 2].map(|()| handoff.poll(&mut context)), [Poll::Ready(None); 2]);
    }

    #[test]
    fn only_the_latest_waker_is_called() {
        let handoff = Handoff::new(Numbers::default());
        let counters = [(); 2].map(|()| Arc::new(CountingWaker::default()));
        for counter in &counters {
            let waker = Waker::from(Arc::clone(counter));
            assert!(handoff.poll(&mut Context::from_waker(&waker)).is_pending());
        }
        add(&handoff, 1);
        assert_eq!(counters.map(|counter| counter.wakes.load(SeqCst)), [0, 1]);
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_is_at_its_end() {
        let handoff = Handoff::new(Numbers::default());
        add(&handoff, 1);
        handoff.close();
        assert!(!add(&handoff, 2));
        assert_eq!(handoff.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(None));
    }

    /// Wakers are code of the user: their drop may drop the task, and with it the stream.
    #[test]
    fn a_waker_whose_drop_closes_the_queue_does_not_block() {
        let actions: [fn(&Handoff<Numbers>); 4] = [
            |handoff| assert!(add(handoff, 1)),
            Handoff::end,
            Handoff::close,
            |handoff| assert!(handoff.poll(&mut Context::from_waker(Waker::noop())).is_pending()),
        ];
        for action in actions {
            let handoff = Arc::new(Handoff::new(Numbers::default()));
            let owned = Some(Arc::clone(&handoff));
            let waker = Waker::from(Arc::new(CountingWaker { owned, wakes: AtomicUsize::new(0) }));
            assert!(handoff.poll(&mut Context::from_waker(&waker)).is_pending());
            drop(waker);
            action(&handoff);
            assert!(!add(&handoff, 2), "the waker was dropped");
        }
    }
}
