//! Many notifications in few transactions.
//!
//! ```text
//!   send ──▶ waiting pairs, equal ones folded ──▶ after the linger, or when there are enough: one statement ──▶ tickets
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::Error;
use crate::manager::{Resolver, ThreadMark, Ticket};
use crate::proto::sql::{self, Limits};

/// How many pairs may wait for the server, equal ones included: each has a ticket.
const WAITING_MAX: usize = 100_000;
/// How many bytes one statement may hold, before quoting.
const STATEMENT_MAX: usize = 1 << 20;

/// Sends what many threads notify in few transactions: see [`Notifier::batcher`](crate::Notifier::batcher).
///
/// # Why
///
/// A transaction with a NOTIFY takes, as it commits, a lock that is one for the whole cluster. So each NOTIFY of its own
/// waits for all others, and one inside a writing transaction has the write wait, too: with 64 clients and PostgreSQL
/// 15, 9,990 inserts a second without a NOTIFY became 1,025 with one in each. A single statement takes the lock once,
/// however many notifications it carries.
///
/// `cargo bench --bench sending` measures what that is worth on your machine: the same notifications one by one and
/// batched, in the same run.
///
/// # How
///
/// What is given is sent when the oldest has waited for the linger, or when there are enough. While one statement is
/// under way the next one is collected, so that also without a linger a busy batcher sends in batches. Order is kept;
/// equal pairs that wait together are folded into the first, as PostgreSQL does within a transaction, and all their
/// tickets resolve.
///
/// What it won't do: send as part of a transaction of yours. Give it what was changed once that has committed; what a
/// crash between the two would lose, a NOTIFY in the transaction wouldn't.
///
/// Clones share one queue. What waits when the last one is dropped is still sent.
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
///         std::thread::spawn(move || batcher.send("prices", writer.to_string()).wait(Duration::from_secs(5)))
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

/// Sends pairs in one statement.
type Sending = dyn Fn(Vec<(String, String)>) -> Ticket<()> + Send;

struct BatcherOwner(Arc<BatchQueue>);

struct BatchQueue {
    linger: Duration,
    size: usize,
    crew: Arc<ThreadMark>,
    state: Mutex<BatchQueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct BatchQueueState {
    waiting: VecDeque<WaitingPair>,
    /// Where each pair stands, counted from the first that ever waited.
    places: HashMap<Arc<ChannelPayload>, u64>,
    tickets: usize,
    /// How many have left the queue.
    left: u64,
    /// When the oldest came.
    since: Option<Instant>,
    closed: bool,
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
        crew: &Arc<ThreadMark>,
        send: impl Fn(Vec<ChannelPayload>) -> Ticket<()> + Send + 'static,
    ) -> Result<Self, Error> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(BatchQueue { linger, size: size.max(1), crew: Arc::clone(crew), state, changed });
        let working = Arc::clone(&shared);
        thread::Builder::new()
            .name("notifier batcher".into())
            .spawn(move || working.work(&send))
            .map_err(|error| Error::io("starting a thread", error))?;
        Ok(Self { owner: Arc::new(BatcherOwner(shared)) })
    }

    /// Has a notification sent; the ticket resolves once the server has committed it.
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
    /// The ticket resolves to [`Error::Value`] for a channel or payload that PostgreSQL would refuse, without harm to
    /// the others of its batch; to [`Error::Backlog`] where 100,000 wait already; and to what
    /// [`Notifier::notify`](crate::Notifier::notify) fails with.
    pub fn send(&self, channel: impl Into<String>, payload: impl Into<String>) -> Ticket<()> {
        let shared = &self.owner.0;
        let pair = (channel.into(), payload.into());
        // As far as can be known without a look at the server; the rest it says itself.
        let checked = sql::check_channel(&pair.0, Limits::ServerDecides)
            .and_then(|()| sql::check_payload(&pair.1, Limits::ServerDecides));
        if let Err(error) = checked {
            return Ticket::resolved(&shared.crew, Err(error));
        }
        let mut state = shared.lock();
        let pairs = state.tickets;
        if pairs >= WAITING_MAX {
            return Ticket::resolved(&shared.crew, Err(Error::Backlog { pairs }));
        }
        let (resolver, ticket) = Ticket::new(&shared.crew);
        state.add(pair, resolver);
        drop(state);
        shared.changed.notify_one();
        ticket
    }
}

impl BatchQueueState {
    fn add(&mut self, pair: ChannelPayload, ticket: Resolver<()>) {
        self.tickets += 1;
        let place = self.places.get(&pair).and_then(|place| usize::try_from(place - self.left).ok());
        if let Some(same) = place.and_then(|place| self.waiting.get_mut(place)) {
            return same.tickets.push(ticket);
        }
        let pair = Arc::new(pair);
        self.places.insert(Arc::clone(&pair), self.left + self.waiting.len() as u64);
        self.waiting.push_back(WaitingPair { pair, tickets: vec![ticket] });
        self.since.get_or_insert_with(clock::now);
    }

    /// Takes what one statement carries.
    fn take(&mut self, most: usize) -> Vec<WaitingPair> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            bytes += next.pair.0.len() + next.pair.1.len();
            if taken.len() == most || (bytes > STATEMENT_MAX && !taken.is_empty()) {
                break;
            }
            self.places.remove(&next.pair);
            self.left += 1;
            self.tickets -= next.tickets.len();
            taken.extend(self.waiting.pop_front());
        }
        // Those that stay have waited long enough.
        if self.waiting.is_empty() {
            self.since = None;
        }
        taken
    }
}

impl BatchQueue {
    fn lock(&self) -> MutexGuard<'_, BatchQueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch, once it is time; none at the end.
    fn next(&self) -> Option<Vec<WaitingPair>> {
        let mut state = self.lock();
        loop {
            let wait = match state.since {
                None if state.closed => return None,
                None => None,
                Some(since) => {
                    let left = self.linger.saturating_sub(clock::now().saturating_duration_since(since));
                    if left.is_zero() || state.closed || state.waiting.len() >= self.size {
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

    fn work(&self, send: &Sending) {
        while let Some(batch) = self.next() {
            let result = send(batch.iter().map(|it| (*it.pair).clone()).collect()).wait(None);
            match &result {
                // One that the server refuses must not take the others along.
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
        // Invalid values and characters that the server's encoding doesn't have.
        Error::Server(said) => said.severity() == "ERROR" && said.code().starts_with("22"),
        _ => false,
    }
}

fn resolve(it: WaitingPair, result: &Result<(), Error>) {
    it.tickets.into_iter().for_each(|ticket| ticket.resolve(result.clone()));
}

impl Drop for BatcherOwner {
    fn drop(&mut self) {
        self.0.lock().closed = true;
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

    /// A batcher whose server is a closure that sees each statement's payloads.
    fn batcher(
        linger: Duration,
        size: usize,
        server: impl Fn(&[String]) -> Result<(), Error> + Send + 'static,
    ) -> (Batcher, mpsc::Receiver<Vec<String>>) {
        let (said, statements) = mpsc::channel();
        let crew = Arc::new(ThreadMark::crew());
        let mark = Arc::clone(&crew);
        let send = move |pairs: Vec<ChannelPayload>| {
            let payloads: Vec<_> = pairs.into_iter().map(|(_, payload)| payload).collect();
            let result = server(&payloads);
            said.send(payloads).unwrap();
            Ticket::resolved(&mark, result)
        };
        (Batcher::new(linger, size, &crew, send).unwrap(), statements)
    }

    #[test]
    fn what_comes_within_the_linger_is_one_statement_with_equal_pairs_folded() {
        let (batcher, statements) = batcher(Duration::from_millis(200), 100, |_| Ok(()));
        let tickets: Vec<_> = ["1", "2", "1", "3"].map(|payload| batcher.send("c", payload)).into();
        assert_eq!(statements.recv().unwrap(), ["1", "2", "3"]);
        tickets.into_iter().for_each(|mut ticket| ticket.wait(SOON).unwrap());
    }

    #[test]
    fn enough_of_them_do_not_wait() {
        let (batcher, statements) = batcher(Duration::MAX, 2, |_| Ok(()));
        let _tickets = ["1", "2", "3"].map(|payload| batcher.send("c", payload));
        assert_eq!(statements.recv().unwrap(), ["1", "2"]);
        drop(batcher);
        assert_eq!(statements.recv().unwrap(), ["3"], "what waits at the end is sent");
    }

    #[test]
    fn one_that_is_refused_takes_no_other_along() {
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
    fn a_bad_pair_is_refused_before_it_is_sent() {
        let (batcher, statements) = batcher(Duration::ZERO, 100, |_| Ok(()));
        assert!(batcher.send("", "x").wait(SOON).unwrap_err().is_usage());
        assert!(batcher.send("c", "x".repeat(8000)).wait(SOON).unwrap_err().is_usage());
        batcher.send("c", "x".repeat(7999)).wait(SOON).unwrap();
        assert_eq!(statements.try_iter().count(), 1);
    }

    #[test]
    fn also_of_equal_pairs_only_so_many_wait() {
        let (batcher, _statements) = batcher(Duration::MAX, 100, |_| Ok(()));
        let mut refused = (0..=WAITING_MAX).filter_map(|_| batcher.send("c", "same").try_get());
        assert!(matches!(refused.next(), Some(Err(Error::Backlog { pairs: WAITING_MAX }))));
    }

    #[test]
    fn a_statement_has_a_limit_in_bytes_too() {
        let (batcher, statements) = batcher(Duration::MAX, 300, |_| Ok(()));
        for n in 0..300 {
            drop(batcher.send("c", format!("{n:07999}")));
        }
        let first = statements.recv().unwrap();
        assert!(first.len() > 100 && first.len() * 8000 <= STATEMENT_MAX, "{}", first.len());
    }
}
