//! Sending of many notifications in few transactions.
//!
//! ```text
//!   send ──▶ waiting pairs, equal ones folded ──▶ after the linger, or with a full batch: one statement ──▶ tickets
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::Error;
use crate::manager::{Resolver, ThreadMark, Ticket};
use crate::proto::sql::{self, Limits};

/// The number of tickets that may wait, which includes those of folded notifications.
const TICKETS_MAX: usize = 100_000;
/// The size of a statement in bytes, before quoting.
const STATEMENT_MAX: usize = 1 << 20;

/// A queue that sends the notifications of many threads in few transactions: see
/// [`Notifier::batcher`](crate::Notifier::batcher).
///
/// A transaction with a NOTIFY takes a lock of the whole cluster when it commits. So a NOTIFY in a transaction of its own
/// waits for all others, and a NOTIFY in a writing transaction delays the write: with 64 clients and PostgreSQL 15, 9,990
/// inserts per second without NOTIFY became 1,025 with one in each. One statement takes the lock once, whatever the number
/// of its notifications. `cargo bench --bench sending` compares single and batched notifications on your machine.
///
/// A batch is sent when its oldest notification has waited for the linger, or when it is full. While one statement is
/// executed the next batch is collected, so a busy batcher sends in batches even without a linger. The order is kept. Equal
/// notifications that wait together are folded into the first one, as PostgreSQL does within a transaction, and all their
/// tickets resolve. ([`Policy::Coalesce`](super::Policy::Coalesce), for receiving, folds into the latest one.)
///
/// Clones share one queue. Notifications that wait when the last clone is dropped are still sent.
///
/// # Limits
///
/// A batcher cannot send as part of a transaction of the program. Send after the commit; a crash between the two loses the
/// notification, which a NOTIFY in the transaction would not.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// # fn main() -> Result<(), notifyman::Error> {
/// # let conf = database();
/// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
/// use std::time::Duration;
///
/// let batcher = n.batcher(Duration::from_millis(2), 1_000)?;
/// let writers: Vec<_> = (0..4)
///     .map(|writer| {
///         let batcher = batcher.clone();
///         std::thread::spawn(move || {
///             let mut ticket = batcher.send("prices", writer.to_string());
///             ticket.wait(Duration::from_secs(5))
///         })
///     })
///     .collect();
/// for writer in writers {
///     writer.join().unwrap()?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Batcher {
    owner: Arc<BatcherOwner>,
}

/// A function that sends notifications in one statement.
type SendBatch = dyn Fn(Vec<(String, String)>) -> Ticket<()> + Send;

struct BatcherOwner(Arc<BatchQueue>);

struct BatchQueue {
    linger: Duration,
    size: usize,
    threads: Arc<ThreadMark>,
    state: Mutex<BatchQueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct BatchQueueState {
    waiting: VecDeque<WaitingPair>,
    /// The position of each pair, counted from the first that ever waited.
    positions: HashMap<Arc<ChannelPayload>, u64>,
    tickets: usize,
    /// The number of pairs taken from the queue so far.
    taken: u64,
    /// The time since which the oldest pair waits.
    since: Option<Instant>,
    is_closed: bool,
}

type ChannelPayload = (String, String);

struct WaitingPair {
    pair: Arc<ChannelPayload>,
    tickets: Vec<Resolver<()>>,
}

impl Batcher {
    pub(crate) fn new(
        linger: Duration,
        size: usize,
        threads: &Arc<ThreadMark>,
        send: impl Fn(Vec<ChannelPayload>) -> Ticket<()> + Send + 'static,
    ) -> Result<Self, Error> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let queue = Arc::new(BatchQueue { linger, size: size.max(1), threads: Arc::clone(threads), state, changed });
        let sending = Arc::clone(&queue);
        thread::Builder::new()
            .name("notifier batcher".into())
            .spawn(move || sending.run(&send))
            .map_err(|error| Error::io("starting a thread", error))?;
        Ok(Self { owner: Arc::new(BatcherOwner(queue)) })
    }

    /// Queues a notification. The ticket resolves once the server has committed it.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
    /// use std::time::Duration;
    ///
    /// let batcher = n.batcher(Duration::ZERO, 1_000)?;
    /// batcher.send("prices", "42").wait(Duration::from_secs(5))?;
    /// assert!(batcher.send("", "42").wait(Duration::from_secs(5)).is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The ticket resolves to [`Error::Value`] if PostgreSQL would refuse the channel or the payload, without an effect on
    /// other notifications of the batch; to [`Error::Backlog`] if 100,000 notifications wait; and to the errors of
    /// [`Notifier::notify`](crate::Notifier::notify).
    pub fn send(&self, channel: impl Into<String>, payload: impl Into<String>) -> Ticket<()> {
        let queue = &self.owner.0;
        let pair = (channel.into(), payload.into());
        // The limits depend on the encoding of the server, which refuses the rest.
        let checked = sql::check_channel(&pair.0, Limits::ServerDecides)
            .and_then(|()| sql::check_payload(&pair.1, Limits::ServerDecides));
        if let Err(error) = checked {
            return Ticket::resolved(&queue.threads, Err(error));
        }
        let mut state = queue.lock();
        let pairs = state.tickets;
        if pairs >= TICKETS_MAX {
            return Ticket::resolved(&queue.threads, Err(Error::Backlog { pairs }));
        }
        let (resolver, ticket) = Ticket::new(&queue.threads);
        state.add(pair, resolver);
        drop(state);
        queue.changed.notify_one();
        ticket
    }
}

impl BatchQueueState {
    fn add(&mut self, pair: ChannelPayload, ticket: Resolver<()>) {
        self.tickets += 1;
        let index = self.positions.get(&pair).and_then(|position| usize::try_from(position - self.taken).ok());
        if let Some(equal) = index.and_then(|index| self.waiting.get_mut(index)) {
            return equal.tickets.push(ticket);
        }
        let pair = Arc::new(pair);
        self.positions.insert(Arc::clone(&pair), self.taken + self.waiting.len() as u64);
        self.waiting.push_back(WaitingPair { pair, tickets: vec![ticket] });
        self.since.get_or_insert_with(clock::now);
    }

    /// Takes the pairs for one statement.
    fn take(&mut self, most: usize) -> Vec<WaitingPair> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            bytes += next.pair.0.len() + next.pair.1.len();
            if batch.len() == most || (bytes > STATEMENT_MAX && !batch.is_empty()) {
                break;
            }
            self.positions.remove(&next.pair);
            self.taken += 1;
            self.tickets -= next.tickets.len();
            batch.extend(self.waiting.pop_front());
        }
        // Pairs that remain have waited long enough for the next batch.
        if self.waiting.is_empty() {
            self.since = None;
        }
        batch
    }
}

impl BatchQueue {
    fn lock(&self) -> MutexGuard<'_, BatchQueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next batch. Returns `None` once the queue is closed and empty.
    fn next(&self) -> Option<Vec<WaitingPair>> {
        let mut state = self.lock();
        loop {
            let wait = match state.since {
                None if state.is_closed => return None,
                None => None,
                Some(since) => {
                    let left = self.linger.saturating_sub(clock::now().saturating_duration_since(since));
                    if left.is_zero() || state.is_closed || state.waiting.len() >= self.size {
                        return Some(state.take(self.size));
                    }
                    Some(left)
                }
            };
            state = match wait {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    fn run(&self, send: &SendBatch) {
        while let Some(batch) = self.next() {
            let result = send(batch.iter().map(|it| (*it.pair).clone()).collect()).wait(None);
            match &result {
                // A notification that the server refuses must not fail the others, so each is sent alone.
                Err(error) if batch.len() > 1 && is_about_a_pair(error) => {
                    for it in batch {
                        let result = send(vec![(*it.pair).clone()]).wait(None);
                        resolve(it, &result);
                    }
                }
                _ => batch.into_iter().for_each(|it| resolve(it, &result)),
            }
        }
    }
}

fn is_about_a_pair(error: &Error) -> bool {
    match error {
        Error::Value(_) => true,
        // Class 22 includes invalid values and characters that the server's encoding lacks.
        Error::Server(error) => error.severity() == "ERROR" && error.code().starts_with("22"),
        _ => false,
    }
}

fn resolve(it: WaitingPair, result: &Result<(), Error>) {
    it.tickets.into_iter().for_each(|ticket| ticket.resolve(result.clone()));
}

impl Drop for BatcherOwner {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_one();
    }
}

impl std::fmt::Debug for Batcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batcher").field("waiting", &self.owner.0.lock().waiting.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::error::ServerError;

    const SOON: Duration = Duration::from_secs(20);

    /// Returns a batcher whose server is a closure, and the payloads of each statement.
    fn batcher(
        linger: Duration,
        size: usize,
        server: impl Fn(&[String]) -> Result<(), Error> + Send + 'static,
    ) -> (Batcher, mpsc::Receiver<Vec<String>>) {
        let (sender, statements) = mpsc::channel();
        let threads = Arc::new(ThreadMark::for_group());
        let mark = Arc::clone(&threads);
        let send = move |pairs: Vec<ChannelPayload>| {
            let payloads: Vec<_> = pairs.into_iter().map(|(_, payload)| payload).collect();
            let result = server(&payloads);
            sender.send(payloads).unwrap();
            Ticket::resolved(&mark, result)
        };
        (Batcher::new(linger, size, &threads, send).unwrap(), statements)
    }

    #[test]
    fn notifications_within_the_linger_are_one_statement_with_equal_ones_folded() {
        let (batcher, statements) = batcher(Duration::from_millis(200), 100, |_| Ok(()));
        let tickets: Vec<_> = ["1", "2", "1", "3"].map(|payload| batcher.send("c", payload)).into();
        assert_eq!(statements.recv().unwrap(), ["1", "2", "3"]);
        tickets.into_iter().for_each(|mut ticket| ticket.wait(SOON).unwrap());
    }

    #[test]
    fn a_full_batch_does_not_wait() {
        let (batcher, statements) = batcher(Duration::MAX, 2, |_| Ok(()));
        let _tickets = ["1", "2", "3"].map(|payload| batcher.send("c", payload));
        assert_eq!(statements.recv().unwrap(), ["1", "2"]);
        drop(batcher);
        assert_eq!(statements.recv().unwrap(), ["3"], "a notification that waits at the end is sent");
    }

    #[test]
    fn a_refused_notification_does_not_fail_the_others() {
        let (batcher, statements) = batcher(Duration::from_millis(200), 100, |payloads| {
            let refused = ServerError { severity: "ERROR".into(), code: "22023".into(), ..ServerError::default() };
            if payloads.iter().any(|payload| payload == "bad") { Err(refused.into()) } else { Ok(()) }
        });
        let mut tickets = ["1", "bad", "2"].map(|payload| batcher.send("c", payload));
        let results = tickets.each_mut().map(|ticket| ticket.wait(SOON).is_ok());
        assert_eq!(results, [true, false, true]);
        assert_eq!(
            statements.try_iter().collect::<Vec<_>>(),
            [vec!["1", "bad", "2"], vec!["1"], vec!["bad"], vec!["2"]]
        );
    }

    #[test]
    fn an_invalid_notification_is_refused_before_it_is_sent() {
        let (batcher, statements) = batcher(Duration::ZERO, 100, |_| Ok(()));
        assert!(batcher.send("", "x").wait(SOON).unwrap_err().is_usage());
        assert!(batcher.send("c", "x".repeat(8000)).wait(SOON).unwrap_err().is_usage());
        batcher.send("c", "x".repeat(7999)).wait(SOON).unwrap();
        assert_eq!(statements.try_iter().count(), 1);
    }

    #[test]
    fn the_number_of_folded_notifications_is_limited() {
        let (batcher, _statements) = batcher(Duration::MAX, 100, |_| Ok(()));
        let mut refused = (0..=TICKETS_MAX).filter_map(|_| batcher.send("c", "same").try_get());
        assert!(matches!(refused.next(), Some(Err(Error::Backlog { pairs: TICKETS_MAX }))));
    }

    #[test]
    fn the_size_of_a_statement_is_limited() {
        let (batcher, statements) = batcher(Duration::MAX, 300, |_| Ok(()));
        for n in 0..300 {
            drop(batcher.send("c", format!("{n:07999}")));
        }
        let first = statements.recv().unwrap();
        assert!(first.len() > 100 && first.len() * 8000 <= STATEMENT_MAX, "{}", first.len());
    }
}
