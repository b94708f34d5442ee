//! The relays and the readers of the simulation, and the steps that it takes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::world::{ServerSession, Shared, SharedState, SimulatedSession, SimulatedSink};
use crate::error::Error;
use crate::gap::Gap;
use crate::notification::{Batch, Notification};
use crate::relay::entry::EntryContent;
use crate::relay::follower::{Continuity, Follower, TopCheck};
use crate::relay::identity::RelayIdentity;
use crate::relay::inbox::{Inbox, Received};
use crate::relay::leader::{StreamLeader, StreamSetup};
use crate::relay::pace::RelayPace;
use crate::relay::position::StreamPosition;
use crate::relay::status::{RelayEvent, StreamStatus};

const PACE: RelayPace = RelayPace { period: Duration::from_secs(15), deadline: Duration::from_secs(5) };

/// A relay process.
pub(super) struct SimulatedRelay {
    pub(super) leader: StreamLeader<SimulatedSink, SimulatedSession>,
    pub(super) status: Arc<StreamStatus>,
    /// The changes that it has reported.
    pub(super) events: Arc<Mutex<Vec<String>>>,
    /// It knows that its session is open.
    pub(super) is_connected: bool,
    pub(super) was_connected: bool,
    /// The process is stopped.
    pub(super) is_frozen: bool,
}

/// A reader, and what it has received.
pub(super) struct SimulatedReader {
    pub(super) follower: Follower,
    pub(super) last: Option<usize>,
    pub(super) gaps: usize,
    /// A gap was reported since the last notification.
    pub(super) has_gap: bool,
}

impl SimulatedReader {
    fn report_gap(&mut self) {
        self.gaps += 1;
        self.has_gap = true;
    }

    /// Reads up to `count` entries.
    fn read(&mut self, state: &SharedState, count: usize) {
        let top = state.stream.last().map(|(position, _)| *position);
        if let TopCheck::Broken(_) = self.follower.check_top(top) {
            self.follower = Follower::starting_at(None);
            self.report_gap();
        }
        for _ in 0..count {
            let position = self.follower.cursor();
            let next = state.stream.iter().find(|(at, _)| position.is_none_or(|position| *at > position));
            let Some((at, entry)) = next else { return };
            match self.follower.follow(*at, &entry.content) {
                Continuity::Pending => continue,
                Continuity::Contiguous => {}
                Continuity::Broken(_) => self.report_gap(),
            }
            match &entry.content {
                EntryContent::Notifications(batch) => batch.iter().for_each(|n| {
                    let number: usize = n.payload().parse().unwrap();
                    // An engine that has lost entries may repeat some behind the gap.
                    assert!(self.last < Some(number) || self.has_gap, "{number} after {:?}", self.last);
                    let is_next = self.last.is_none_or(|last| last + 1 == number);
                    assert!(is_next || self.has_gap, "{number} after {:?} without a gap", self.last);
                    (self.last, self.has_gap) = (Some(number), false);
                }),
                EntryContent::Gap { .. } => self.report_gap(),
                _ => {}
            }
        }
    }
}

pub(super) struct Simulation {
    pub(super) shared: Shared,
    pub(super) now: Instant,
    pub(super) paces: Vec<RelayPace>,
    pub(super) relays: Vec<SimulatedRelay>,
    pub(super) readers: Vec<SimulatedReader>,
    pub(super) notified: usize,
}

/// One step. Numbers choose a relay or a reader, modulo their count.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Notify(usize),
    /// The server sends up to this many notifications to a relay.
    Deliver(usize, usize),
    Pass(u64),
    Read(usize, usize),
    LoseSession(usize),
    Freeze(usize),
    Thaw(usize),
    Kill(usize),
    Partition(usize),
    Reconnect,
    LoseAnswers(usize),
    /// The engine loses its last entries.
    RollBack(usize),
    Trim(usize),
    Delete,
    LieAboutLock(bool),
    RefuseWrites(bool),
    SetClock(u64),
}

impl Simulation {
    pub(super) fn new(relays: usize, readers: usize) -> Self {
        Self::with_paces(&vec![PACE; relays], readers)
    }

    /// Creates a simulation with a relay for each of these options.
    pub(super) fn with_paces(paces: &[RelayPace], readers: usize) -> Self {
        let relays = paces.len();
        let shared = Shared(Arc::default());
        shared.lock().sessions = vec![ServerSession::default(); relays];
        shared.lock().engine_ms = 1_000;
        let mut simulation = Self {
            shared,
            now: crate::clock::now(),
            paces: paces.to_vec(),
            relays: Vec::new(),
            readers: Vec::new(),
            notified: 0,
        };
        for at in 0..relays {
            let relay = simulation.relay(at, 0);
            simulation.relays.push(relay);
        }
        simulation.run_all(4);
        // Notifications before the first term belong to no reader.
        for _ in 0..readers {
            let top = simulation.shared.lock().stream.last().map(|(position, _)| *position);
            let follower = Follower::starting_at(top);
            simulation.readers.push(SimulatedReader { follower, last: None, gaps: 0, has_gap: false });
        }
        simulation
    }

    /// Starts a relay process, whose name has never been used.
    pub(super) fn relay(&self, at: usize, generation: usize) -> SimulatedRelay {
        let shared = self.shared.clone();
        let sink_shared = self.shared.clone();
        let setup = StreamSetup {
            engine: Box::new(move |_: &str| SimulatedSink(sink_shared.clone(), at)),
            label: Some("shop".into()),
            channels: vec!["c".into()],
            pace: self.paces[at],
            identity: RelayIdentity::new(&format!("r{at}-{generation}"), (10 * generation + at) as u64),
        };
        let events = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&events);
        let on_event = move |event: &RelayEvent| {
            log.lock().unwrap().push(event.to_string());
            if std::env::var_os("NOTIFYMAN_SHOW").is_some() {
                eprintln!("relay {at}: {event}");
            }
        };
        let status = Arc::new(StreamStatus::new("shop", Arc::new(Inbox::default()), Arc::new(on_event)));
        SimulatedRelay {
            leader: StreamLeader::new(setup, SimulatedSession(shared, at), Arc::clone(&status)),
            status,
            events,
            is_connected: false,
            was_connected: false,
            is_frozen: false,
        }
    }

    /// The loop of a relay: its session, what it receives, and what is due.
    pub(super) fn run_relay(&mut self, at: usize, most: usize) {
        let relay = &mut self.relays[at];
        if relay.is_frozen {
            return;
        }
        let mut state = self.shared.lock();
        if relay.is_connected && !state.sessions[at].is_open {
            relay.is_connected = false;
            drop(state);
            relay.leader.handle(Received::Disconnected(Error::Disconnected), self.now);
            return;
        }
        if !relay.is_connected {
            let sent = state.committed.len();
            state.sessions[at] = ServerSession { is_open: true, sent, ..ServerSession::default() };
            drop(state);
            let gap = Gap::new(["c"], Error::Disconnected, Duration::from_secs(1));
            let received = if relay.was_connected { Received::Restored(gap) } else { Received::Opened };
            (relay.is_connected, relay.was_connected) = (true, true);
            relay.leader.handle(received, self.now);
        } else if relay.leader.takes() {
            let sent = state.sessions[at].sent;
            let until = state.committed.len().min(sent.saturating_add(most));
            let batch: Batch = state.committed[sent..until]
                .iter()
                .map(|(channel, payload)| Notification::new(channel, payload, 1))
                .collect();
            state.sessions[at].sent = until;
            drop(state);
            if !batch.is_empty() {
                relay.leader.handle(Received::Notifications(batch), self.now);
            }
        } else {
            drop(state);
        }
        let (begin, shared) = (self.now, self.shared.clone());
        relay.leader.advance(&|| begin + shared.lock().waited);
        self.now += std::mem::take(&mut self.shared.lock().waited);
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.shared.lock().engine_ms += millis;
    }

    pub(super) fn run_all(&mut self, seconds: u64) {
        for _ in 0..seconds * 4 {
            self.pass(250);
            for at in 0..self.relays.len() {
                self.run_relay(at, usize::MAX);
                self.run_relay(at, usize::MAX);
            }
        }
    }

    pub(super) fn step(&mut self, step: &Step) {
        let relays = self.relays.len();
        match *step {
            Step::Notify(count) => {
                for _ in 0..count {
                    self.notified += 1;
                    let payload = self.notified.to_string();
                    self.shared.lock().committed.push(("c", payload));
                }
            }
            Step::Deliver(at, most) => self.run_relay(at % relays, most),
            Step::Pass(millis) => self.pass(millis),
            Step::Read(at, count) => {
                let at = at % self.readers.len();
                self.readers[at].read(&self.shared.lock(), count);
            }
            Step::LoseSession(at) => self.shared.lock().sessions[at % relays] = ServerSession::default(),
            Step::Freeze(at) => self.relays[at % relays].is_frozen = true,
            Step::Thaw(at) => self.relays[at % relays].is_frozen = false,
            Step::Kill(at) => {
                let at = at % relays;
                self.shared.lock().sessions[at] = ServerSession::default();
                self.relays[at] = self.relay(at, self.notified + 1);
            }
            Step::Partition(at) => drop(self.shared.lock().partitioned.insert(at % relays)),
            Step::Reconnect => self.shared.lock().partitioned.clear(),
            Step::LoseAnswers(count) => self.shared.lock().lost_answers = count,
            Step::RollBack(count) => {
                let mut state = self.shared.lock();
                let left = state.stream.len().saturating_sub(count);
                state.stream.truncate(left);
            }
            Step::Trim(count) => {
                let mut state = self.shared.lock();
                let count = count.min(state.stream.len());
                drop(state.stream.drain(..count));
            }
            Step::Delete => self.shared.lock().stream.clear(),
            Step::LieAboutLock(lies) => self.shared.lock().lock_lies = lies,
            Step::RefuseWrites(refuses) => self.shared.lock().refuses_writes = refuses,
            Step::SetClock(millis) => self.shared.lock().engine_ms = millis,
        }
    }

    /// Ends all faults, and lets all readers read on.
    pub(super) fn finish(&mut self) {
        {
            let mut state = self.shared.lock();
            state.partitioned.clear();
            (state.lost_answers, state.lock_lies, state.refuses_writes) = (0, false, false);
        }
        self.relays.iter_mut().for_each(|relay| relay.is_frozen = false);
        self.run_all(60);
        self.step(&Step::Notify(1));
        self.run_all(2);
        let state = self.shared.lock();
        for reader in &mut self.readers {
            reader.read(&state, usize::MAX);
            assert_eq!(reader.last, Some(self.notified), "the last notification arrives");
        }
    }

    /// Lets a relay run without receiving, until it has claimed the stream.
    pub(super) fn run_until_claim(&mut self, at: usize) {
        let is_claimed = |state: &SharedState| state.stream.last().is_some_and(|(position, _)| position.is_claim());
        for _ in 0..20 {
            if is_claimed(&self.shared.lock()) {
                return;
            }
            self.pass(250);
            self.run_relay(at, 0);
        }
        panic!("no claim");
    }

    /// Lets only relay 1 run.
    pub(super) fn run_other(&mut self, seconds: u64) {
        for _ in 0..seconds * 4 {
            self.pass(250);
            self.run_relay(1, usize::MAX);
        }
    }
}

/// Returns the last start of a term.
pub(super) fn last_start(state: &SharedState) -> (StreamPosition, Option<StreamPosition>) {
    let mut starts = state.stream.iter().filter_map(|(at, entry)| match &entry.content {
        EntryContent::Start { continues, .. } => Some((*at, *continues)),
        _ => None,
    });
    starts.next_back().unwrap()
}
