//! The simulated network and its server: links with delays and faults, and a log of numbered notifications.
//!
//! ```text
//!   SimStream ──write──▶ delay, faults ──▶ Backend ──┐ execute
//!             ◀──read─── delay, faults ◀── deliver ◀─┘
//! ```
//!
//! Everything that happens is an [`Arrival`] in one queue, in the order of time. A history has one network, which belongs to
//! its thread, because a stream is dialled without any other access to it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::server::Backend;
use crate::clock::CompactInstant;
use crate::error::Error;
use crate::manager::fleet::Jitter;

/// The most turns in a row without progress: one read may find nothing, and an idle event takes another poll.
const STALLS_MAX: u32 = 2;

thread_local!(static NETWORK: RefCell<Network> = RefCell::new(Network::new(0)));

/// Calls a function with the network of this thread.
pub(super) fn with_network<R>(action: impl FnOnce(&mut Network) -> R) -> R {
    NETWORK.with_borrow_mut(action)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DialFate {
    Pending,
    Connected,
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkEnd {
    Eof,
    Reset,
}

/// An event of the network.
#[derive(Debug)]
pub(super) enum Arrival {
    Dialled(u64, DialFate),
    /// At the client.
    Bytes(u64, Vec<u8>),
    End(u64, LinkEnd),
    /// At the server; `None` is the end of the stream.
    Request(u64, Option<Vec<u8>>),
    /// A statement is over.
    Executed(u64, u64, Vec<u8>),
    Commit,
    Accident,
}

/// One connection's way through the network.
#[derive(Debug)]
pub(super) struct SimLink {
    pub(super) port: u16,
    opened: Instant,
    fate: DialFate,
    pub(super) inbox: VecDeque<u8>,
    pub(super) end: Option<LinkEnd>,
    /// The registration in the poll: the token, and `true` if room to write is reported.
    pub(super) watch: Option<(u32, bool)>,
    /// The number of reads.
    pub(super) reads: u64,
    pub(super) is_closed: bool,
    /// `true` once the client has dropped its stream.
    pub(super) is_dropped: bool,
    /// `true` if bytes vanish on the way to the client, and to the server.
    pub(super) is_cut: [bool; 2],
    pub(super) delay: Duration,
    last_arrival: [Option<Instant>; 2],
    /// The number of bytes that can be written until the server reads.
    pub(super) room: usize,
    pub(super) is_blocked: bool,
    /// The numbers of bytes that were sent to the client, and that it has read.
    pub(super) sent: u64,
    received: u64,
    /// The marks of statements, with the number of bytes at the end of the answer.
    pub(super) answers: Vec<(u64, u64)>,
    /// `true` once the server has sent bytes that make no sense.
    pub(super) is_garbled: bool,
    /// `true` if nothing has happened that may end the session.
    pub(super) is_intact: bool,
    pub(super) backend: Backend,
}

/// Counts of what has happened, so that a test can check that its histories are rich.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Counts(pub(super) BTreeMap<&'static str, u64>);

impl Counts {
    pub(super) fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

#[derive(Debug)]
pub(super) struct Network {
    pub(super) now: Instant,
    pub(super) start: Instant,
    dice: Jitter,
    pub(super) links: BTreeMap<u64, SimLink>,
    /// The links at which something has arrived that the poll has not reported.
    pub(super) edges: BTreeSet<u64>,
    /// The links that are gone, and to which something had happened.
    broken: BTreeSet<u64>,
    last_link: u64,
    queue: BTreeMap<(Instant, u64), Arrival>,
    sequence: u64,
    /// The number of notifications on each channel.
    pub(super) committed: BTreeMap<String, u64>,
    /// The times at which they were committed.
    pub(super) commits: BTreeMap<String, Vec<Instant>>,
    pub(super) number: u64,
    /// The marks of the statements whose answers have been read.
    pub(super) answered: BTreeSet<u64>,
    pub(super) faults: Faults,
    /// The time at which a wait ends, because something outside the network happens.
    pub(super) interrupt: Option<Instant>,
    /// The times at which attempts began that are neither first attempts nor CancelRequests.
    pub(super) dials: Vec<Instant>,
    /// The ports whose next dial is a first attempt.
    pub(super) first_dials: Vec<u16>,
    /// Counts everything that moves.
    activity: u64,
    last_turn: (u64, Option<Instant>),
    stalls: u32,
    pub(super) turns: u64,
    /// The links that the last wait reported, with their numbers of reads.
    pub(super) reported: Vec<(u64, u64)>,
    /// The first rule that was broken.
    pub(super) fault: Option<String>,
    pub(super) counts: Counts,
    pub(super) trace: bool,
}

/// The faults of a history.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    /// `false` once everything works.
    pub(super) is_on: bool,
    /// `true` once no notification is sent any more.
    pub(super) is_quiet: bool,
    /// `true` if the client can find a dead link, a forgotten channel, a forgotten canary.
    pub(super) cuts: bool,
    pub(super) forgets: bool,
    pub(super) mutes: bool,
    /// `true` if a short read does not mean that the stream is drained, as with TLS.
    pub(super) is_filtered: bool,
    /// `true` if the server accepts connections and stays silent.
    pub(super) is_silent: bool,
    /// `true` if little can be written at a time.
    pub(super) is_narrow: bool,
    /// The server is down until then, and refuses logins until then.
    pub(super) down: Option<Instant>,
    pub(super) starting: Option<Instant>,
    /// The next stream cannot be watched.
    pub(super) watch_fails: bool,
    /// The next poll fails.
    pub(super) poll_fails: bool,
}

impl Network {
    fn new(seed: u64) -> Self {
        let start = Instant::from(CompactInstant::FIRST) + Duration::from_secs(1);
        Self {
            now: start,
            start,
            dice: Jitter::new(seed),
            links: BTreeMap::new(),
            edges: BTreeSet::new(),
            broken: BTreeSet::new(),
            last_link: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            committed: BTreeMap::new(),
            commits: BTreeMap::new(),
            number: 0,
            answered: BTreeSet::new(),
            faults: Faults::default(),
            interrupt: None,
            dials: Vec::new(),
            first_dials: Vec::new(),
            activity: 0,
            last_turn: (0, None),
            stalls: 0,
            turns: 0,
            reported: Vec::new(),
            fault: None,
            counts: Counts::default(),
            trace: false,
        }
    }

    /// Replaces the network of this thread by an empty one.
    pub(super) fn reset(seed: u64) {
        with_network(|network| *network = Self::new(seed));
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.dice.number() % limit
    }

    pub(super) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    pub(super) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(1000 * from + self.below(1000 * (to - from)))
    }

    pub(super) fn log(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12.6} {}", (self.now - self.start).as_secs_f64(), text());
        }
    }

    pub(super) fn blame(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }

    pub(super) fn schedule(&mut self, at: Instant, arrival: Arrival) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), arrival);
    }

    /// Schedules an arrival behind those before it: at the client (0) or the server (1).
    pub(super) fn send(&mut self, link: u64, way: usize, later: Duration, arrival: Arrival) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&link) else { return };
        if link.is_cut[way] {
            return;
        }
        let at = (now + link.delay + later).max(link.last_arrival[way].unwrap_or(now));
        link.last_arrival[way] = Some(at);
        self.schedule(at, arrival);
    }

    // ---- the client's end -------------------------------------------------------------------------------------------

    pub(super) fn dial(&mut self, port: u16, is_cancel: bool) -> io::Result<(u64, bool)> {
        self.activity += 1;
        let first = self.first_dials.iter().position(|first| *first == port && !is_cancel);
        let is_first = first.map(|at| self.first_dials.remove(at)).is_some();
        let is_down = self.faults.down.is_some_and(|down| self.now < down);
        let fate = if self.faults.is_on { self.below(24) } else { 9 };
        if fate == 0 {
            self.counts.add("dial failed immediately");
            return Err(ErrorKind::NetworkUnreachable.into());
        }
        let delay = self.millis(1, 30);
        self.last_link += 1;
        let link = self.last_link;
        let room = if self.faults.is_narrow { 16 + self.below(200) as usize } else { usize::MAX };
        let is_connected = fate == 2 && !is_down;
        self.links.insert(
            link,
            SimLink {
                port,
                opened: self.now,
                fate: if is_connected { DialFate::Connected } else { DialFate::Pending },
                inbox: VecDeque::new(),
                end: None,
                watch: None,
                reads: 0,
                is_closed: false,
                is_dropped: false,
                is_cut: [false; 2],
                delay,
                last_arrival: [None; 2],
                room,
                is_blocked: false,
                sent: 0,
                received: 0,
                answers: Vec::new(),
                is_garbled: false,
                is_intact: true,
                backend: Backend::new(),
            },
        );
        self.log(|| format!("dial {link} to {port}, fate {fate}, down {is_down}"));
        if fate == 1 {
            self.counts.add("dial hung");
        } else if !is_connected {
            let fate = if is_down { DialFate::Refused } else { DialFate::Connected };
            self.schedule(self.now + delay, Arrival::Dialled(link, fate));
        }
        if !is_first && !is_cancel {
            self.dials.push(self.now);
        }
        Ok((link, is_connected))
    }

    fn link(&mut self, link: u64) -> &mut SimLink {
        self.links.get_mut(&link).expect("a stream that is open has a link")
    }

    pub(super) fn check(&self, link: u64) -> io::Result<bool> {
        match self.links[&link].fate {
            DialFate::Pending => Ok(false),
            DialFate::Connected => Ok(true),
            DialFate::Refused => Err(ErrorKind::ConnectionRefused.into()),
        }
    }

    pub(super) fn opened(&self, link: u64) -> Instant {
        self.links[&link].opened
    }

    pub(super) fn port(&self, link: u64) -> u16 {
        self.links[&link].port
    }

    pub(super) fn read(&mut self, link: u64, space: &mut [u8]) -> io::Result<usize> {
        let is_short = self.faults.is_filtered && self.chance(3);
        let link = self.link(link);
        link.reads += 1;
        let mut most = space.len().min(link.inbox.len());
        if is_short && most > 1 {
            most /= 2;
        }
        if most > 0 {
            for (place, byte) in space.iter_mut().zip(link.inbox.drain(..most)) {
                *place = byte;
            }
            link.received += most as u64;
            let received = link.received;
            let (read, unread): (Vec<_>, _) =
                std::mem::take(&mut link.answers).into_iter().partition(|(end, _)| *end <= received);
            link.answers = unread;
            self.answered.extend(read.into_iter().map(|(_, mark)| mark));
            self.activity += 1;
            return Ok(most);
        }
        match link.end {
            _ if link.fate != DialFate::Connected => Err(ErrorKind::NotConnected.into()),
            None => Err(ErrorKind::WouldBlock.into()),
            Some(LinkEnd::Eof) => Ok(0),
            Some(LinkEnd::Reset) => Err(ErrorKind::ConnectionReset.into()),
        }
    }

    pub(super) fn is_drained(&self, link: u64) -> bool {
        !self.faults.is_filtered || self.links[&link].inbox.is_empty()
    }

    pub(super) fn write(&mut self, id: u64, bytes: &[u8]) -> io::Result<usize> {
        let is_partial = self.faults.is_narrow && self.chance(3);
        let link = self.link(id);
        match link.end {
            _ if link.fate != DialFate::Connected => return Err(ErrorKind::NotConnected.into()),
            Some(LinkEnd::Reset) => return Err(ErrorKind::ConnectionReset.into()),
            Some(LinkEnd::Eof) => return Err(ErrorKind::BrokenPipe.into()),
            None => {}
        }
        let mut most = bytes.len().min(link.room);
        // The sixteen bytes of a CancelRequest fit into any new socket.
        if is_partial && most > 16 {
            most /= 2;
        }
        if most == 0 {
            link.is_blocked = true;
            self.counts.add("write would block");
            return Err(ErrorKind::WouldBlock.into());
        }
        link.room -= most;
        self.activity += 1;
        self.send(id, 1, Duration::ZERO, Arrival::Request(id, Some(bytes[..most].to_vec())));
        Ok(most)
    }

    /// Ends both directions. The server sees the end, unless the link is dead.
    pub(super) fn shut_down(&mut self, id: u64) {
        let link = self.link(id);
        if !link.is_closed {
            link.is_closed = true;
            if link.is_cut[1] || link.fate != DialFate::Connected {
                link.backend.is_over = true;
            }
            self.send(id, 1, Duration::ZERO, Arrival::Request(id, None));
        }
    }

    pub(super) fn close(&mut self, id: u64) {
        if self.links.contains_key(&id) {
            self.shut_down(id);
            let link = self.link(id);
            (link.watch, link.is_dropped) = (None, true);
            if link.backend.is_over {
                self.remove(id);
            }
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.edges.remove(&id);
        if self.links.remove(&id).is_some_and(|link| !link.is_intact) {
            self.broken.insert(id);
        }
    }

    /// Returns `true` if nothing has happened to the link that may end the session.
    pub(super) fn is_intact(&self, id: u64) -> bool {
        !self.broken.contains(&id) && self.links.get(&id).is_none_or(|link| link.is_intact)
    }

    // ---- the poll ---------------------------------------------------------------------------------------------------

    pub(super) fn watch(&mut self, id: u64, token: u32, writable: bool, is_new: bool) -> io::Result<()> {
        let fails = std::mem::take(&mut self.faults.watch_fails) || (self.faults.is_on && self.chance(300));
        let link = self.link(id);
        if fails {
            link.is_intact = false;
            self.counts.add("watching failed");
            return Err(io::Error::other("no more memory"));
        }
        if is_new == link.watch.is_some() {
            let fault = format!("link {id} is registered twice, or was not registered");
            self.blame(fault);
            return Ok(());
        }
        link.watch = Some((token, writable));
        let is_writable = writable && link.fate == DialFate::Connected && link.room > 0;
        let is_ready = is_writable || !link.inbox.is_empty() || link.end.is_some() || link.fate == DialFate::Refused;
        if is_ready {
            self.edges.insert(id);
        }
        Ok(())
    }

    pub(super) fn unwatch(&mut self, id: u64) {
        self.edges.remove(&id);
        self.link(id).watch = None;
    }

    /// Waits until something is ready, or until the timeout, the interrupt or the end of the wait is reached. Returns what
    /// is ready, and `true` if the wait was interrupted.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> Result<(Vec<(u32, bool)>, bool), Error> {
        self.turns += 1;
        self.activity += u64::from(timeout.is_none_or(|timeout| !timeout.is_zero()));
        let is_stalled = self.last_turn == (self.activity, Some(self.now));
        self.stalls = if is_stalled { self.stalls + 1 } else { 0 };
        if self.stalls > STALLS_MAX {
            self.blame(format!("the loop is busy: {} turns in a row without progress", self.stalls));
            return Err(Error::io("polling", io::Error::other("stalled")));
        }
        if std::mem::take(&mut self.faults.poll_fails) {
            return Err(Error::io("polling", io::Error::other("out of order")));
        }
        if timeout.is_none_or(|timeout| !timeout.is_zero()) {
            self.check_read();
        }
        let limit =
            [timeout.and_then(|timeout| self.now.checked_add(timeout)), self.interrupt].into_iter().flatten().min();
        self.advance(limit, true);
        let is_interrupted = self.interrupt.take_if(|interrupt| *interrupt <= self.now).is_some();
        self.last_turn = (self.activity, Some(self.now));
        self.reported.clear();
        // The system reports a limited number at a time.
        let mut most = if self.chance(8) { 1 } else { usize::MAX };
        let mut ready = Vec::new();
        for id in self.edges.clone() {
            if let Some(link) = self.links.get(&id)
                && let Some((token, _)) = link.watch
                && most > 0
            {
                most -= 1;
                self.edges.remove(&id);
                ready.push((token, link.end.is_some() || link.fate == DialFate::Refused));
                self.reported.push((id, link.reads));
            }
        }
        self.activity += ready.len() as u64;
        Ok((ready, is_interrupted))
    }

    /// Checks that everything has been read that the poll has reported, before the loop waits.
    pub(super) fn check_read(&mut self) {
        // For thousands of links, this would take most of the time.
        if self.links.len() > 100 {
            return;
        }
        let is_unread = |(id, link): &(&u64, &SimLink)| {
            let has_input = !link.inbox.is_empty() || link.end.is_some();
            let is_known = link.watch.is_some() && !self.edges.contains(id) && !link.is_closed;
            is_known && has_input && link.fate == DialFate::Connected
        };
        if let Some((id, _)) = self.links.iter().find(is_unread) {
            self.blame(format!("the loop waits, but has not read all of link {id}"));
        }
    }

    /// Advances the time to this limit, or until a stream is ready.
    pub(super) fn advance(&mut self, limit: Option<Instant>, until_ready: bool) {
        loop {
            let is_watched = |id: &u64| self.links.get(id).is_some_and(|link| link.watch.is_some());
            if until_ready && self.edges.iter().any(is_watched) {
                return;
            }
            match self.queue.first_key_value() {
                Some((&(at, _), _)) if limit.is_none_or(|limit| at <= limit) => {
                    self.now = self.now.max(at);
                    if let Some((_, arrival)) = self.queue.pop_first() {
                        self.arrive(arrival);
                    }
                }
                _ => {
                    self.now = limit.map_or(self.now, |limit| limit.max(self.now));
                    if limit.is_none() {
                        self.blame("the loop waits for ever, and nothing will happen".into());
                    }
                    return;
                }
            }
        }
    }

    /// Returns the time of the next arrival.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Dialled(id, fate) => {
                let Some(link) = self.links.get_mut(&id) else { return };
                link.fate = fate;
                if fate == DialFate::Refused || link.watch.is_some_and(|(_, writable)| writable) {
                    self.edges.insert(id);
                }
                self.counts.add(if fate == DialFate::Refused { "dial refused" } else { "dial accepted" });
            }
            Arrival::Bytes(id, bytes) => {
                let Some(link) = self.links.get_mut(&id).filter(|link| link.end.is_none() && !link.is_closed) else {
                    return;
                };
                link.inbox.extend(bytes);
                self.edges.insert(id);
            }
            Arrival::End(id, end) => {
                let Some(link) = self.links.get_mut(&id).filter(|link| link.end.is_none()) else { return };
                if end == LinkEnd::Reset {
                    link.inbox.clear();
                }
                link.end = Some(end);
                self.edges.insert(id);
            }
            Arrival::Request(id, bytes) => self.receive(id, bytes),
            Arrival::Executed(id, statement, reply) => {
                let Some(link) = self.links.get_mut(&id) else { return };
                if link.backend.is_busy && link.backend.statement == statement {
                    link.backend.is_busy = false;
                    self.complete(id, reply);
                    self.serve(id);
                }
            }
            Arrival::Commit => {
                let channel = format!("c{}", self.below(3));
                if self.faults.is_quiet {
                    return;
                }
                self.commit(&channel);
                let pause = if self.faults.is_on { self.millis(1, 500) } else { self.millis(200, 1500) };
                self.schedule(self.now + pause, Arrival::Commit);
            }
            Arrival::Accident => {
                if self.faults.is_on {
                    self.accident();
                    let pause = self.millis(10, 1500);
                    self.schedule(self.now + pause, Arrival::Accident);
                }
            }
        }
    }
}
