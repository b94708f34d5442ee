//! Opening many connections side by side, on one poller.
//!
//! ```text
//!   configurations ──▶ at most 256 on their way ──▶ done, as they finish
//! ```
//!
//! It has no thread: dials go on while it is iterated. One that fails is a result like any other.

use std::collections::VecDeque;
use std::fmt;
use std::iter::Enumerate;
use std::time::Instant;

use crate::clock;
use crate::config::Config;
use crate::connection::Connection;
use crate::connection::dial::{Dial, LOGIN_READ};
use crate::connection::ear::Ear;
use crate::connection::opening::{Opening, Progress};
use crate::error::Error;
use crate::net::{PollWaker, Reactor, Ready};
use crate::proto::{ReadBuffer, sql};

/// How many are on their way at once, unless told otherwise.
const AT_ONCE: usize = 256;

/// Connections being opened side by side, as they finish: see [`Connection::connect_many`].
///
/// They go on only while it is iterated, and what is done between counts towards their `connect_timeout`.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// # fn main() -> Result<(), notifyman::Error> {
/// # let dsns = [database(), database()];
/// use notifyman::Connection;
///
/// let mut open = Vec::new();
/// for (number, result) in Connection::connect_many(&dsns).at_once(16).listen(["prices"])? {
///     match result {
///         Ok(connection) => open.push(connection),
///         Err(error) => eprintln!("{}: {error}", dsns[number]),
///     }
/// }
/// # assert_eq!(open.len(), 2);
/// # Ok(()) }
/// ```
#[must_use = "connections are opened while it is iterated"]
pub struct ConnectMany {
    waiting: Enumerate<std::vec::IntoIter<Result<Config, Error>>>,
    /// Those that found no file descriptor left, for when one is.
    put_off: Vec<(usize, Config)>,
    at_once: usize,
    channels: Vec<String>,
    /// Made when it is first needed.
    poller: Option<Result<(Reactor, PollWaker), Error>>,
    /// Those on their way; a slot's number is its token.
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    finished: VecDeque<(usize, Result<Connection, Error>)>,
    buffer: ReadBuffer,
}

/// One on its way.
struct Slot {
    /// Which of the configurations it has.
    index: usize,
    config: Config,
    opening: Opening,
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
            // Neighbours that are equal are one.
            let same = last.take().filter(|last| *last == config).unwrap_or(config);
            last.insert(same).clone()
        };
        let configs = configs.into_iter().map(|config| config.try_into().map(&mut shared).map_err(Into::into));
        let configs: Vec<_> = configs.collect();
        Self {
            waiting: configs.into_iter().enumerate(),
            put_off: Vec::new(),
            at_once: AT_ONCE,
            channels: Vec::new(),
            poller: None,
            slots: Vec::new(),
            free: Vec::new(),
            finished: VecDeque::new(),
            buffer: ReadBuffer::new(LOGIN_READ),
        }
    }

    /// How many may be on their way at once; at least one. Default: 256.
    ///
    /// Each takes a file descriptor, and the server starts a process for each. Where the process runs out of
    /// descriptors, there are fewer, and those that found none are begun again as others finish.
    pub fn at_once(mut self, dials: usize) -> Self {
        self.at_once = dials.max(1);
        self
    }

    /// Has each listen to these channels as soon as it is logged in; it is given once the server has acknowledged them.
    ///
    /// ```
    /// use notifyman::Connection;
    ///
    /// let nobody: [&str; 0] = [];
    /// assert!(Connection::connect_many(nobody).listen([""]).is_err());
    /// assert_eq!(Connection::connect_many(nobody).listen(["prices"])?.count(), 0);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a name that no server can take, as [`Connection::listen`]. A connection whose server refuses
    /// LISTEN is a result with that error.
    pub fn listen<I>(mut self, channels: I) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.channels.extend(channels.into_iter().map(|channel| channel.as_ref().to_owned()));
        sql::checked_channels(&self.channels, sql::Limits::ServerDecides)?;
        Ok(self)
    }

    /// Begins as many as may be under way.
    fn begin(&mut self, now: Instant) {
        while self.under_way() < self.at_once
            && let Some((index, config)) = self.next_to_begin()
        {
            let begun = config.and_then(|config| Dial::new(&config, now).map(|dial| (config, dial)));
            match begun {
                Ok((config, dial)) => {
                    let slot = Slot { index, config, opening: Opening::new(dial), until: None };
                    // No system has descriptors for more.
                    let token = self.free.pop().unwrap_or_else(|| u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
                    match self.slots.get_mut(token as usize) {
                        Some(empty) => *empty = Some(slot),
                        None => self.slots.push(Some(slot)),
                    }
                    self.step(token, now);
                }
                Err(error) => self.finished.push_back((index, Err(error))),
            }
        }
    }

    fn next_to_begin(&mut self) -> Option<(usize, Result<Config, Error>)> {
        let again = self.put_off.pop().map(|(index, config)| (index, Ok(config)));
        again.or_else(|| self.waiting.next())
    }

    fn under_way(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Goes on with one.
    fn step(&mut self, token: u32, now: Instant) {
        let others = self.under_way().saturating_sub(1);
        let Some(place) = self.slots.get_mut(token as usize) else { return };
        let Some(slot) = place else { return };
        let mut ear = Ear { buffer: &mut self.buffer, thorough: true };
        let poller = self.poller.get_or_insert_with(make_poller);
        let result = match poller {
            Err(error) => Err(error.clone()),
            Ok((reactor, waker)) => match slot.opening.step(&self.channels, now, waker, &mut ear) {
                Progress::Wait(until) => {
                    slot.until = until;
                    let watched = slot.opening.unwatched().map_or(Ok(()), |s| reactor.register(s, token, true));
                    match watched {
                        Ok(()) => return,
                        Err(error) => Err(Error::io("watching the socket", error)),
                    }
                }
                Progress::Open(connection) => {
                    // It fails only for a socket that isn't watched.
                    let _ = reactor.deregister(connection.any_stream());
                    Ok(*connection)
                }
                Progress::Failed(error) => Err(error),
            },
        };
        match result {
            // The others give theirs back, or keep them: then there will be none beside this one.
            Err(error) if others > 0 && is_out_of_descriptors(&error) => {
                self.at_once = others;
                self.put_off.push((slot.index, slot.config.clone()));
            }
            result => self.finished.push_back((slot.index, result)),
        }
        *place = None;
        self.free.push(token);
    }

    /// Waits until something may have changed, and goes on with whom that concerns.
    fn look(&mut self) {
        let Some(Ok((reactor, _))) = &mut self.poller else { return };
        let next = self.slots.iter().flatten().filter_map(|slot| slot.until).min();
        let patience = next.map(|at| at.saturating_duration_since(clock::now()));
        let woke = reactor.wait(patience).map(|ready| ready.map(|Ready { token, .. }| token).collect::<Vec<_>>());
        let mut due = match woke {
            Ok(ready) => ready,
            Err(error) => {
                self.poller = Some(Err(Error::io("waiting for sockets", error)));
                self.tokens(|_| true).collect()
            }
        };
        let was_woken = matches!(&self.poller, Some(Ok((reactor, _))) if reactor.was_woken());
        let now = clock::now();
        let is_due = |slot: &Slot| slot.until.is_some_and(|at| at <= now) || was_woken && slot.opening.awaits_alarm();
        due.extend(self.tokens(is_due));
        for token in due {
            self.step(token, now);
        }
    }

    /// Of those on their way, these.
    fn tokens(&self, are: impl Fn(&Slot) -> bool) -> impl Iterator<Item = u32> {
        (0..).zip(&self.slots).filter(move |(_, slot)| slot.as_ref().is_some_and(&are)).map(|(token, _)| token)
    }
}

fn make_poller() -> Result<(Reactor, PollWaker), Error> {
    let made = Reactor::new().and_then(|reactor| Ok((reactor.waker()?, reactor)));
    made.map(|(waker, reactor)| (reactor, waker)).map_err(|error| Error::io("making a poller", error))
}

/// Whether the system has no descriptor left for this process (EMFILE), or for anybody (ENFILE).
fn is_out_of_descriptors(error: &Error) -> bool {
    match error {
        Error::Connect(connect) => is_out_of_descriptors(connect.cause()),
        Error::Io { error, .. } => matches!(error.raw_os_error(), Some(23 | 24)),
        _ => false,
    }
}

impl Iterator for ConnectMany {
    /// Which of the configurations, counted from 0 in the order given, and what became of it.
    type Item = (usize, Result<Connection, Error>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.begin(clock::now());
            if let Some(finished) = self.finished.pop_front() {
                return Some(finished);
            }
            if self.under_way() == 0 {
                return None;
            }
            self.look();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.waiting.len() + self.put_off.len() + self.finished.len() + self.under_way();
        (left, Some(left))
    }
}

impl ExactSizeIterator for ConnectMany {}

impl fmt::Debug for ConnectMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectMany").field("left", &self.len()).field("at_once", &self.at_once).finish()
    }
}
