//! Opens many connections concurrently, on one poller.
//!
//! ```text
//!   configurations ──▶ at most 256 attempts in progress ──▶ results, as they finish
//! ```
//!
//! There is no thread: the attempts advance while the iterator is used. A failure is a result like any other.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Instant;

use crate::clock;
use crate::config::Config;
use crate::connection::Connection;
use crate::connection::dial::{Dial, LOGIN_READ};
use crate::connection::opening::{Opening, OpeningProgress};
use crate::connection::read_context::ReadContext;
use crate::error::Error;
use crate::net::{PollWaker, Reactor, Ready, Stream};
use crate::proto::{ReadBuffer, Request, sql};

/// The default limit of attempts in progress.
const IN_PROGRESS: usize = 256;

/// An iterator over connections that are opened concurrently, in the order in which they finish: see
/// [`Connection::connect_many`].
///
/// The attempts advance only while the iterator is used, and the time between two calls counts towards their
/// `connect_timeout`.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// # fn main() -> Result<(), notifyman::Error> {
/// # let dsns = [database(), database()];
/// use notifyman::Connection;
///
/// let mut open = Vec::new();
/// let attempts = Connection::connect_many(&dsns).at_once(16);
/// for (number, result) in attempts.listen(["prices"])? {
///     match result {
///         Ok(connection) => open.push(connection),
///         Err(error) => eprintln!("{}: {error:#}", dsns[number]),
///     }
/// }
/// # assert_eq!(open.len(), 2);
/// # Ok(()) }
/// ```
#[must_use = "connections are opened while it is iterated"]
pub struct ConnectMany {
    waiting: VecDeque<(usize, Result<Config, Error>)>,
    /// The number of configurations so far.
    count: usize,
    /// The configurations for which there was no file descriptor left.
    postponed: Vec<(usize, Config)>,
    /// The number of attempts that may be in progress.
    limit: usize,
    channels: Vec<String>,
    /// Made when it is first needed.
    poller: Option<Result<(Reactor, PollWaker), Error>>,
    /// The attempts in progress, by token.
    slots: BTreeMap<u32, OpeningSlot>,
    /// The token of the next attempt.
    next_token: u32,
    finished: VecDeque<(usize, Result<Connection, Error>)>,
    buffer: ReadBuffer,
}

/// An attempt in progress.
struct OpeningSlot {
    /// The index of the configuration.
    index: usize,
    config: Config,
    opening: Opening<Stream>,
    until: Option<Instant>,
}

impl ConnectMany {
    pub(super) fn new<I>(configs: I) -> Self
    where
        I: IntoIterator,
        I::Item: TryInto<Config>,
        <I::Item as TryInto<Config>>::Error: Into<Error>,
    {
        let mut last: Option<Config> = None;
        let mut shared = |config: Config| {
            // Equal neighbours share one configuration.
            let same = last.take().filter(|last| *last == config).unwrap_or(config);
            last.insert(same).clone()
        };
        let configs = configs.into_iter().map(|config| config.try_into().map(&mut shared).map_err(Into::into));
        let waiting: VecDeque<_> = configs.enumerate().collect();
        Self {
            count: waiting.len(),
            waiting,
            postponed: Vec::new(),
            limit: IN_PROGRESS,
            channels: Vec::new(),
            poller: None,
            slots: BTreeMap::new(),
            next_token: 0,
            finished: VecDeque::new(),
            buffer: ReadBuffer::new(LOGIN_READ),
        }
    }

    /// Sets how many attempts may be in progress; at least 1. The default is 256.
    ///
    /// Each attempt takes a file descriptor, and the server starts a process for each. If the process runs out of
    /// descriptors, fewer attempts run, and those that found none begin again when others have finished.
    pub fn at_once(mut self, dials: usize) -> Self {
        self.limit = dials.max(1);
        self
    }

    /// Listens to these channels on each connection after the login; the connection is returned once the server has
    /// acknowledged them.
    ///
    /// ```
    /// use notifyman::Connection;
    ///
    /// let none: [&str; 0] = [];
    /// assert!(Connection::connect_many(none).listen([""]).is_err());
    /// assert_eq!(Connection::connect_many(none).listen(["prices"])?.count(), 0);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a name that no server accepts, as for [`Connection::listen`]. If a server refuses LISTEN, the
    /// result for its connection is that error.
    pub fn listen<I>(mut self, channels: I) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.channels.extend(channels.into_iter().map(|channel| channel.as_ref().to_owned()));
        sql::checked_channels(&self.channels, sql::Limits::ServerDecides)?;
        Ok(self)
    }

    /// Adds a configuration, and returns its index. Descriptors that were missing may be there again.
    pub(super) fn add(&mut self, config: Config) -> usize {
        let index = self.count;
        self.count += 1;
        self.waiting.push_back((index, Ok(config)));
        self.limit = IN_PROGRESS;
        index
    }

    /// Returns the waker that ends a wait of [`advance_all`](Self::advance_all); `None` without a poller.
    pub(super) fn waker(&mut self) -> Option<PollWaker> {
        self.poller.get_or_insert_with(make_poller).as_ref().ok().map(|(_, waker)| waker.clone())
    }

    /// Begins attempts, and unless one of them has finished waits until something may have changed. Returns what has
    /// finished.
    pub(super) fn advance_all(&mut self) -> impl Iterator<Item = (usize, Result<Connection, Error>)> + use<> {
        self.begin(clock::now());
        if self.finished.is_empty() && !self.slots.is_empty() {
            self.poll_sockets();
        }
        std::mem::take(&mut self.finished).into_iter()
    }

    /// Begins attempts, up to the limit.
    fn begin(&mut self, now: Instant) {
        while self.slots.len() < self.limit
            && let Some((index, config)) = self.next_to_begin()
        {
            let begun = config.and_then(|config| Dial::new(&config, now).map(|dial| (config, dial)));
            match begun {
                Ok((config, dial)) => {
                    let slot = OpeningSlot { index, config, opening: Opening::new(dial), until: None };
                    let token = self.next_token;
                    self.next_token = token.wrapping_add(1);
                    self.slots.insert(token, slot);
                    self.advance(token, now);
                }
                Err(error) => self.finished.push_back((index, Err(error))),
            }
        }
    }

    fn next_to_begin(&mut self) -> Option<(usize, Result<Config, Error>)> {
        let again = self.postponed.pop().map(|(index, config)| (index, Ok(config)));
        again.or_else(|| self.waiting.pop_front())
    }

    /// Continues one attempt.
    fn advance(&mut self, token: u32, now: Instant) {
        let others = self.slots.len().saturating_sub(1);
        let Some(slot) = self.slots.get_mut(&token) else { return };
        let result = match self.poller.get_or_insert_with(make_poller) {
            Err(error) => Err(error.clone()),
            Ok((reactor, waker)) => {
                let mut cx = ReadContext::new(&mut self.buffer, now, true, Some(waker));
                match slot.opening.advance(&mut cx, "LISTEN", |link| listen(&self.channels, link.limits())) {
                    OpeningProgress::Wait(until) => {
                        slot.until = until;
                        let watched =
                            slot.opening.take_unwatched().map_or(Ok(()), |s| reactor.register(s, token, true));
                        match watched {
                            Ok(()) => return,
                            Err(error) => Err(Error::io("watching the socket", error)),
                        }
                    }
                    OpeningProgress::Open(link) => {
                        // This fails only for a socket that is not watched.
                        let _ = reactor.deregister(link.stream());
                        Ok(Connection::from(*link))
                    }
                    OpeningProgress::Failed(error) => Err(error),
                }
            }
        };
        match result {
            // The others will release their descriptors, or keep them; then no more than these can run together.
            Err(error) if others > 0 && is_out_of_descriptors(&error) => {
                self.limit = others;
                self.postponed.push((slot.index, slot.config.clone()));
            }
            result => self.finished.push_back((slot.index, result)),
        }
        self.slots.remove(&token);
    }

    /// Waits until something may have changed, and continues the attempts concerned.
    fn poll_sockets(&mut self) {
        let Some(Ok((reactor, _))) = &mut self.poller else { return };
        let next = self.slots.values().filter_map(|slot| slot.until).min();
        let timeout = next.map(|at| at.saturating_duration_since(clock::now()));
        let ready = reactor.wait(timeout).map(|ready| ready.map(|Ready { token, .. }| token).collect::<Vec<_>>());
        let mut due = match ready {
            Ok(ready) => ready,
            Err(error) => {
                self.poller = Some(Err(Error::io("waiting for sockets", error)));
                self.tokens(|_| true).collect()
            }
        };
        let was_woken = matches!(&self.poller, Some(Ok((reactor, _))) if reactor.was_woken());
        let now = clock::now();
        let is_due =
            |slot: &OpeningSlot| slot.until.is_some_and(|at| at <= now) || was_woken && slot.opening.awaits_waker();
        due.extend(self.tokens(is_due));
        for token in due {
            self.advance(token, now);
        }
    }

    /// Returns the tokens of the attempts that satisfy a condition.
    fn tokens(&self, condition: impl Fn(&OpeningSlot) -> bool) -> impl Iterator<Item = u32> {
        self.slots.iter().filter(move |(_, slot)| condition(slot)).map(|(token, _)| *token)
    }
}

fn make_poller() -> Result<(Reactor, PollWaker), Error> {
    Reactor::with_waker().map_err(|error| Error::io("creating a poller", error))
}

/// Returns the request to listen to channels, if there are any.
fn listen(channels: &[String], limits: sql::Limits) -> Result<Option<Request>, Error> {
    let names = sql::checked_channels(channels, limits)?;
    Ok((!names.is_empty()).then_some(Request::Listen(names)))
}

/// Returns `true` if no file descriptor is left for this process (EMFILE), or on this machine (ENFILE).
fn is_out_of_descriptors(error: &Error) -> bool {
    match error {
        Error::Connect(connect) => is_out_of_descriptors(connect.cause()),
        Error::Io { error, .. } => matches!(error.raw_os_error(), Some(23 | 24)),
        _ => false,
    }
}

impl Iterator for ConnectMany {
    /// The index of the configuration, counted from 0, and the result.
    type Item = (usize, Result<Connection, Error>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.begin(clock::now());
            if let Some(finished) = self.finished.pop_front() {
                return Some(finished);
            }
            if self.slots.is_empty() {
                return None;
            }
            self.poll_sockets();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.waiting.len() + self.postponed.len() + self.finished.len() + self.slots.len();
        (left, Some(left))
    }
}

impl ExactSizeIterator for ConnectMany {}

impl fmt::Debug for ConnectMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectMany").field("left", &self.len()).field("at_once", &self.limit).finish()
    }
}
