//! Tickets: the results of requests to a loop, which are resolved in every case.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock;
use crate::error::Error;

/// A mark for one thread, or for a group of threads, stored as the number of the thread in one atomic; 0 marks no thread.
#[derive(Debug, Default)]
pub(crate) struct ThreadMark(AtomicU64);

static LAST: AtomicU64 = AtomicU64::new(0);
thread_local!(static NUMBER: Cell<u64> = Cell::new(LAST.fetch_add(1, Relaxed) + 1));

impl ThreadMark {
    /// Returns a mark for a group of threads, each of which [joins](Self::join) it.
    pub(crate) fn for_group() -> Self {
        Self(AtomicU64::new(LAST.fetch_add(1, Relaxed) + 1))
    }

    fn current() -> u64 {
        NUMBER.with(Cell::get)
    }

    /// Marks the current thread.
    pub(crate) fn set(&self) {
        self.0.store(Self::current(), Relaxed);
    }

    /// Adds the current thread to the group of this mark.
    pub(crate) fn join(&self) {
        NUMBER.with(|number| number.set(self.0.load(Relaxed)));
    }

    /// Removes the mark.
    pub(crate) fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    /// Returns `true` if the current thread is marked, or belongs to the marked group.
    pub(crate) fn is_current(&self) -> bool {
        self.0.load(Relaxed) == Self::current()
    }
}

/// The result of a request to a running manager or [`Notifier`](crate::Notifier), available when its loop has completed the
/// request.
///
/// A manager's tickets advance while the manager is iterated. Dropping a ticket does not withdraw the request. The type of the
/// error is [`Error`], or [`ErrorWith`](crate::ErrorWith) if something is returned with the error.
///
/// ```no_run
/// # fn main() -> Result<(), notifyman::Error> {
/// use std::time::Duration;
/// use notifyman::{Connection, NotificationManager};
///
/// let mut nm = NotificationManager::new([]).park_when_empty(true);
/// let handle = nm.handle();
/// let loop_thread = std::thread::spawn(move || nm.by_ref().for_each(drop));
///
/// let db = Connection::connect("postgres://localhost/app")?;
/// let id = handle.insert(db).wait(Duration::from_secs(1))?;
/// println!("the loop has accepted the connection as {id}");
/// handle.stop();
/// # Ok(()) }
/// ```
pub struct Ticket<T, E = Error> {
    slot: Arc<TicketSlot<T, E>>,
    /// The thread that resolves the ticket, which therefore cannot wait for it.
    iterating: Arc<ThreadMark>,
}

struct TicketSlot<T, E> {
    state: Mutex<TicketState<T, E>>,
    resolved: Condvar,
}

enum TicketState<T, E> {
    /// Not resolved; the waker is that of the task that polls the ticket.
    Pending(Option<Waker>),
    Resolved(Result<T, E>),
    /// The result has been taken.
    Spent,
}

impl<T, E: From<Error>> TicketState<T, E> {
    /// Takes the result, if there is one; after that, returns [`Error::TicketSpent`].
    fn take(&mut self) -> Option<Result<T, E>> {
        match std::mem::replace(self, Self::Spent) {
            Self::Resolved(result) => Some(result),
            Self::Spent => Some(Err(Error::TicketSpent.into())),
            pending @ Self::Pending(_) => {
                *self = pending;
                None
            }
        }
    }
}

impl<T, E> TicketSlot<T, E> {
    fn lock(&self) -> MutexGuard<'_, TicketState<T, E>> {
        // The state is consistent whenever the lock is released.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, value: Result<T, E>) {
        let before = std::mem::replace(&mut *self.lock(), TicketState::Resolved(value));
        self.resolved.notify_all();
        if let TicketState::Pending(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T, E: From<Error>> Ticket<T, E> {
    pub(crate) fn new(iterating: &Arc<ThreadMark>) -> (Resolver<T, E>, Self) {
        let state = Mutex::new(TicketState::Pending(None));
        let slot = Arc::new(TicketSlot { state, resolved: Condvar::new() });
        let end = Some(ResolverEnd::Ticket(Arc::clone(&slot)));
        (Resolver { end, permit: None }, Self { slot, iterating: Arc::clone(iterating) })
    }

    /// Returns a ticket that is already resolved.
    pub(crate) fn resolved(iterating: &Arc<ThreadMark>, value: Result<T, E>) -> Self {
        let (resolver, ticket) = Self::new(iterating);
        resolver.resolve(value);
        ticket
    }

    /// Waits until the ticket is resolved, for at most `timeout`; `None` waits without a limit.
    ///
    /// # Errors
    ///
    /// - [`Error::Timeout`] if the ticket is not resolved in time. The ticket can be waited for again.
    /// - [`Error::WouldDeadlock`] on the thread that iterates the manager, and in a notifier's callback.
    /// - [`Error::Stopped`] if the manager was dropped or the notifier was stopped.
    /// - [`Error::TicketSpent`] if the result has been returned before.
    /// - Otherwise the error of the request.
    pub fn wait(&mut self, timeout: impl Into<Option<Duration>>) -> Result<T, E> {
        let timeout = timeout.into();
        let deadline = timeout.and_then(|timeout| clock::now().checked_add(timeout));
        let mut state = self.slot.lock();
        loop {
            if let Some(value) = state.take() {
                return value;
            }
            if self.iterating.is_current() {
                return Err(Error::WouldDeadlock.into());
            }
            state = match deadline {
                None => self.slot.resolved.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(clock::now());
                    if left.is_zero() {
                        let after = timeout.unwrap_or_default();
                        return Err(Error::Timeout { action: "the request", after, closed: false }.into());
                    }
                    self.slot.resolved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Returns the result if the ticket is resolved. The result is returned once; after that, every call returns
    /// [`Error::TicketSpent`].
    pub fn try_get(&mut self) -> Option<Result<T, E>> {
        self.slot.lock().take()
    }
}

impl<T, E: From<Error>> Future for Ticket<T, E> {
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.lock();
        match state.take() {
            Some(value) => Poll::Ready(value),
            None => {
                *state = TicketState::Pending(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<T, E> fmt::Debug for Ticket<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match *self.slot.lock() {
            TicketState::Pending(_) => "pending",
            TicketState::Resolved(_) => "resolved",
            TicketState::Spent => "spent",
        };
        f.debug_struct("Ticket").field("state", &state).finish()
    }
}

/// The number of bytes that the unanswered requests of all handles of a manager take.
#[derive(Debug, Default)]
pub(crate) struct MemoryBudget(AtomicUsize);

/// A part of the budget that one request takes, and that is released when the permit is dropped.
#[derive(Debug)]
pub(crate) struct MemoryPermit {
    budget: Arc<MemoryBudget>,
    size: usize,
}

impl MemoryBudget {
    /// Reserves `size` bytes; returns `None` if all requests together would take more than `limit`.
    pub(crate) fn reserve(self: &Arc<Self>, size: usize, limit: usize) -> Option<MemoryPermit> {
        let within = |taken: usize| taken.checked_add(size).filter(|taken| *taken <= limit);
        self.0.fetch_update(Relaxed, Relaxed, within).ok()?;
        Some(MemoryPermit { budget: Arc::clone(self), size })
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.size, Relaxed);
    }
}

/// The means to resolve a ticket. If it is dropped unresolved, the ticket resolves to [`Error::Stopped`].
pub(crate) struct Resolver<T, E: From<Error> = Error> {
    end: Option<ResolverEnd<T, E>>,
    /// The memory that the request takes until it is resolved.
    permit: Option<MemoryPermit>,
}

enum ResolverEnd<T, E> {
    Ticket(Arc<TicketSlot<T, E>>),
    /// A function to call with the result, on the loop's thread.
    Call(Box<dyn FnOnce(Result<T, E>) + Send>),
}

impl<T, E: From<Error>> Resolver<T, E> {
    /// Returns a resolver that calls a function instead of resolving a ticket.
    pub(crate) fn call(then: impl FnOnce(Result<T, E>) + Send + 'static) -> Self {
        Self { end: Some(ResolverEnd::Call(Box::new(then))), permit: None }
    }

    pub(crate) fn with_permit(mut self, permit: MemoryPermit) -> Self {
        self.permit = Some(permit);
        self
    }

    pub(crate) fn resolve(mut self, value: Result<T, E>) {
        self.put(value);
    }

    fn put(&mut self, value: Result<T, E>) {
        // The waiting thread may make another request immediately, so the memory must be released first.
        self.permit = None;
        match self.end.take() {
            Some(ResolverEnd::Ticket(slot)) => slot.put(value),
            Some(ResolverEnd::Call(then)) => then(value),
            None => {}
        }
    }
}

impl<T, E: From<Error>> Drop for Resolver<T, E> {
    fn drop(&mut self) {
        self.put(Err(Error::Stopped.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_returns_its_result_once_on_any_thread() {
        let mark = Arc::new(ThreadMark::default());
        let (resolver, mut ticket) = Ticket::<u32>::new(&mark);
        assert_eq!(format!("{ticket:?}"), r#"Ticket { state: "pending" }"#);
        assert!(ticket.try_get().is_none());
        assert!(ticket.wait(Duration::from_millis(1)).unwrap_err().is_timeout());
        let thread = std::thread::spawn(move || resolver.resolve(Ok(7)));
        assert_eq!(ticket.wait(None).unwrap(), 7);
        assert!(matches!(ticket.wait(None), Err(Error::TicketSpent)), "the call does not block");
        assert!(matches!(ticket.try_get(), Some(Err(Error::TicketSpent))));
        assert_eq!(format!("{ticket:?}"), r#"Ticket { state: "spent" }"#);
        thread.join().unwrap();
    }

    #[test]
    fn a_ticket_whose_resolver_is_dropped_returns_stopped() {
        let mark = Arc::new(ThreadMark::default());
        let (resolver, mut ticket) = Ticket::<()>::new(&mark);
        drop(resolver);
        assert_eq!(format!("{ticket:?}"), r#"Ticket { state: "resolved" }"#);
        assert!(matches!(ticket.wait(None), Err(Error::Stopped)));
    }

    #[test]
    fn threads_of_a_group_share_a_mark() {
        let mark = Arc::new(ThreadMark::for_group());
        assert!(!mark.is_current());
        let joined = Arc::clone(&mark);
        std::thread::spawn(move || {
            joined.join();
            assert!(joined.is_current());
        })
        .join()
        .unwrap();
        assert!(!mark.is_current(), "this thread has not joined");
    }

    #[test]
    fn waiting_on_the_thread_that_resolves_the_ticket_is_an_error() {
        let mark = Arc::new(ThreadMark::default());
        let (_resolver, mut ticket) = Ticket::<()>::new(&mark);
        mark.set();
        assert!(matches!(ticket.wait(None), Err(Error::WouldDeadlock)));
    }
}
