//! Relays, a server, an engine and readers in one thread, with chosen faults: the leader, the takeover and the reader's rule that
//! ship, and a ledger. A failing case prints its seed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::engine_time::EngineTime;
use super::entry::{EntryContent, StreamEntry, StreamOrigin};
use super::follower::{Continuity, Follower, TopCheck};
use super::identity::RelayIdentity;
use super::inbox::{Inbox, Received};
use super::leader::{StreamLeader, StreamSetup};
use super::pace::RelayPace;
use super::position::StreamPosition;
use super::session::{LeaderSession, LockHolder, MARKER_CHANNEL, PreparedSession, term_key};
use super::sink::{AppendError, Sink};
use super::status::StreamStatus;
use crate::error::{Error, ServerError};
use crate::gap::Gap;
use crate::notification::{Batch, Notification};

const ORIGIN: StreamOrigin = StreamOrigin { system: 7, timeline: 1, database: 5 };
const PACE: RelayPace = RelayPace { period: Duration::from_secs(15), deadline: Duration::from_secs(5) };

/// The parts of the simulation that several sides use.
#[derive(Default)]
struct SharedState {
    /// The notifications of the server, in the order of their commits: channel and payload.
    committed: Vec<(&'static str, String)>,
    sessions: Vec<ServerSession>,
    /// The number of times that the server was asked to end a session.
    ended: usize,
    /// The lock is granted to everybody.
    lock_lies: bool,
    stream: Vec<(StreamPosition, StreamEntry)>,
    engine_ms: u64,
    /// The engine appends nothing: it has no memory, or is no master any more.
    refuses_writes: bool,
    /// The relays that cannot reach the engine.
    partitioned: BTreeSet<usize>,
    /// The number of answers of the engine that are lost from now on.
    lost_answers: usize,
    /// The number of markers that are lost from now on.
    lost_markers: usize,
    /// The changes of tables are not notified.
    lacks_changes: bool,
}

#[derive(Default, Clone)]
struct ServerSession {
    is_open: bool,
    has_lock: bool,
    /// The term that it has published.
    term: Option<u64>,
    /// It does not end when the server is asked to end it.
    is_stuck: bool,
    /// The number of committed notifications that it has sent.
    sent: usize,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<SharedState>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, SharedState> {
        self.0.lock().unwrap()
    }
}

/// The engine, as relay `at` sees it.
struct SimulatedSink(Shared, usize);

impl SimulatedSink {
    fn reach(&self) -> Result<MutexGuard<'_, SharedState>, Error> {
        let state = self.0.lock();
        if state.partitioned.contains(&self.1) { Err(Error::Disconnected) } else { Ok(state) }
    }
}

impl Sink for SimulatedSink {
    fn time(&mut self) -> Result<EngineTime, Error> {
        Ok(EngineTime { unix_ms: self.reach()?.engine_ms, engine: "simulated".into() })
    }

    fn check_writable(&mut self) -> Result<(), Error> {
        let state = self.reach()?;
        if state.refuses_writes { Err(Error::Relay("the server has no memory".into())) } else { Ok(()) }
    }

    fn top(&mut self) -> Result<Option<StreamPosition>, Error> {
        Ok(self.reach()?.stream.last().map(|(position, _)| *position))
    }

    fn append(&mut self, entries: &[(StreamPosition, StreamEntry)]) -> Result<(), AppendError> {
        self.check_writable().map_err(AppendError::Failed)?;
        let mut state = self.0.lock();
        for (position, entry) in entries {
            if state.stream.last().is_some_and(|(top, _)| top >= position) {
                return Err(AppendError::Stale);
            }
            state.stream.push((*position, entry.clone()));
            if state.lost_answers > 0 {
                state.lost_answers -= 1;
                return Err(AppendError::Failed(Error::Disconnected));
            }
        }
        Ok(())
    }

    fn read_back(
        &mut self,
        before: Option<StreamPosition>,
        count: usize,
    ) -> Result<Vec<(StreamPosition, StreamEntry)>, Error> {
        let state = self.reach()?;
        let is_before = |(position, _): &&(StreamPosition, StreamEntry)| before.is_none_or(|before| *position < before);
        Ok(state.stream.iter().rev().filter(is_before).take(count).cloned().collect())
    }
}

/// The session of relay `at`.
struct SimulatedSession(Shared, usize);

impl SimulatedSession {
    fn reach(&self) -> Result<MutexGuard<'_, SharedState>, Error> {
        let state = self.0.lock();
        if state.sessions[self.1].is_open { Ok(state) } else { Err(Error::Disconnected) }
    }
}

impl LeaderSession for SimulatedSession {
    fn prepare(&mut self) -> Result<PreparedSession, Error> {
        self.reach().map(|_| PreparedSession { origin: ORIGIN, database: "shop".to_owned(), pid: 1 })
    }

    fn check_changes(&mut self) -> Result<(), Error> {
        if self.reach()?.lacks_changes { Err(Error::Changes("nothing is installed".into())) } else { Ok(()) }
    }

    fn try_lock(&mut self, _: &str) -> Result<bool, Error> {
        let mut state = self.reach()?;
        let is_held = state.sessions.iter().enumerate().any(|(at, session)| session.has_lock && at != self.1);
        let is_granted = !is_held || state.lock_lies;
        state.sessions[self.1].has_lock |= is_granted;
        Ok(is_granted)
    }

    fn publish_term(&mut self, term: u64) -> Result<(), Error> {
        self.reach()?.sessions[self.1].term = Some(term);
        Ok(())
    }

    fn unlock(&mut self) -> Result<(), Error> {
        let session = &mut self.reach()?.sessions[self.1];
        (session.has_lock, session.term) = (false, None);
        Ok(())
    }

    fn send_marker(&mut self, marker: &str) {
        let Ok(mut state) = self.reach() else { return };
        if state.lost_markers > 0 {
            state.lost_markers -= 1;
        } else {
            state.committed.push((MARKER_CHANNEL, marker.to_owned()));
        }
    }

    fn holder(&mut self, _: &str) -> Result<Option<LockHolder>, Error> {
        let state = self.reach()?;
        let holder = state.sessions.iter().enumerate().find(|(at, session)| session.has_lock && *at != self.1);
        Ok(holder.map(|(at, session)| LockHolder { pid: at as i32, term_key: session.term.map(term_key) }))
    }

    fn end_holder(&mut self, _: &str, pid: i32) -> Result<bool, Error> {
        let mut state = self.reach()?;
        state.ended += 1;
        let session = &mut state.sessions[pid as usize];
        if session.has_lock && !session.is_stuck {
            *session = ServerSession::default();
        }
        Ok(true)
    }
}

/// A relay process.
struct SimulatedRelay {
    leader: StreamLeader<SimulatedSink, SimulatedSession>,
    status: Arc<StreamStatus>,
    /// The changes that it has reported.
    events: Arc<Mutex<Vec<String>>>,
    /// It knows that its session is open.
    is_connected: bool,
    was_connected: bool,
    /// The process is stopped.
    is_frozen: bool,
}

/// A reader, and what it has received.
struct SimulatedReader {
    follower: Follower,
    last: Option<usize>,
    gaps: usize,
    /// A gap was reported since the last notification.
    has_gap: bool,
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

struct Simulation {
    shared: Shared,
    now: Instant,
    paces: Vec<RelayPace>,
    relays: Vec<SimulatedRelay>,
    readers: Vec<SimulatedReader>,
    notified: usize,
}

/// One step. Numbers choose a relay or a reader, modulo their count.
#[derive(Debug, Clone)]
enum Step {
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
    fn new(relays: usize, readers: usize) -> Self {
        Self::with_paces(&vec![PACE; relays], readers)
    }

    /// Creates a simulation with a relay for each of these options.
    fn with_paces(paces: &[RelayPace], readers: usize) -> Self {
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
    fn relay(&self, at: usize, generation: usize) -> SimulatedRelay {
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
        let on_event = move |event: &super::status::RelayEvent| {
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
    fn run_relay(&mut self, at: usize, most: usize) {
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
        relay.leader.advance(self.now);
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.shared.lock().engine_ms += millis;
    }

    fn run_all(&mut self, seconds: u64) {
        for _ in 0..seconds * 4 {
            self.pass(250);
            for at in 0..self.relays.len() {
                self.run_relay(at, usize::MAX);
                self.run_relay(at, usize::MAX);
            }
        }
    }

    fn step(&mut self, step: &Step) {
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
    fn finish(&mut self) {
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
}

fn steps(faults: bool) -> impl Strategy<Value = Vec<Step>> {
    let plain = prop_oneof![
        6 => (1..4_usize).prop_map(Step::Notify),
        8 => (0..3_usize, 1..5_usize).prop_map(|(at, most)| Step::Deliver(at, most)),
        6 => (0..600_u64).prop_map(Step::Pass),
        4 => (0..2_usize, 1..6_usize).prop_map(|(at, count)| Step::Read(at, count)),
    ];
    let faulty = prop_oneof![
        (0..3_usize).prop_map(Step::LoseSession),
        (0..3_usize).prop_map(Step::Freeze),
        (0..3_usize).prop_map(Step::Thaw),
        (0..3_usize).prop_map(Step::Kill),
        (0..3_usize).prop_map(Step::Partition),
        Just(Step::Reconnect),
        (1..3_usize).prop_map(Step::LoseAnswers),
        (1..6_usize).prop_map(Step::RollBack),
        (1..9_usize).prop_map(Step::Trim),
        Just(Step::Delete),
        any::<bool>().prop_map(Step::LieAboutLock),
        any::<bool>().prop_map(Step::RefuseWrites),
        (0..100_000_u64).prop_map(Step::SetClock),
        (5_000..30_000_u64).prop_map(Step::Pass),
    ];
    let step = if faults { prop_oneof![4 => plain, 1 => faulty].boxed() } else { plain.boxed() };
    proptest::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r05_each_notification_is_delivered_or_covered_by_a_gap(relays in 1..4_usize, steps in steps(true)) {
        let mut simulation = Simulation::new(relays, 2);
        steps.iter().for_each(|step| simulation.step(step));
        simulation.finish();
    }

    #[test]
    fn r05_a_leader_that_is_killed_leaves_no_gap(
        before in steps(false),
        after in steps(false),
        at in 0..2_usize,
    ) {
        let mut simulation = Simulation::new(2, 2);
        before.iter().for_each(|step| simulation.step(step));
        simulation.run_all(1);
        simulation.step(&Step::Kill(at));
        // It is started again at the end.
        simulation.step(&Step::Freeze(at));
        after.iter().for_each(|step| simulation.step(step));
        simulation.finish();
        for reader in &simulation.readers {
            prop_assert_eq!(reader.gaps, 0);
        }
    }
}

/// Returns the last start of a term.
fn last_start(state: &SharedState) -> (StreamPosition, Option<StreamPosition>) {
    let mut starts = state.stream.iter().filter_map(|(at, entry)| match &entry.content {
        EntryContent::Start { continues, .. } => Some((*at, *continues)),
        _ => None,
    });
    starts.next_back().unwrap()
}

impl Simulation {
    /// Lets a relay run without receiving, until it has claimed the stream.
    fn run_until_claim(&mut self, at: usize) {
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
}

#[test]
fn r05_a_gap_of_the_own_session_during_a_takeover_is_a_gap_of_the_stream() {
    for has_gap in [false, true] {
        let mut simulation = Simulation::new(2, 1);
        // Only the leader receives it before it is killed, so the candidate waits for it.
        simulation.step(&Step::Notify(1));
        simulation.run_relay(0, usize::MAX);
        simulation.step(&Step::Kill(0));
        simulation.step(&Step::Freeze(0));
        simulation.run_until_claim(1);
        if has_gap {
            let gap = Gap::new(["c"], Error::Unregistered, Duration::ZERO);
            simulation.relays[1].leader.handle(Received::Restored(gap), simulation.now);
        }
        simulation.run_all(1);
        assert_eq!(last_start(&simulation.shared.lock()).1.is_none(), has_gap);
        simulation.finish();
        assert_eq!(simulation.readers[0].gaps, usize::from(has_gap));
    }
}

#[test]
fn r05_a_barrier_that_is_lost_is_sent_again() {
    let mut simulation = Simulation::new(1, 1);
    let (term, _) = last_start(&simulation.shared.lock());
    simulation.step(&Step::Kill(0));
    simulation.run_all(1);
    simulation.shared.lock().lost_markers = 1;
    simulation.run_until_claim(0);
    simulation.run_all(5);
    assert_eq!(last_start(&simulation.shared.lock()).0, term, "it waits for the barrier");
    simulation.run_all(15);
    assert!(last_start(&simulation.shared.lock()).0 > term);
}

#[test]
fn r05_a_leader_whose_channels_were_lost_or_whose_queue_was_full_reports_a_gap_and_continues() {
    let gap = Gap::new(["c"], Error::Unregistered, Duration::ZERO);
    let cause_of = |content: &EntryContent| match content {
        EntryContent::Gap { cause, .. } => Some(cause.clone()),
        _ => None,
    };
    for (received, is_overflow) in [(Received::Restored(gap), false), (Received::Overflow(7), true)] {
        let mut simulation = Simulation::new(2, 1);
        let start = last_start(&simulation.shared.lock());
        simulation.relays[0].leader.handle(received, simulation.now);
        simulation.run_all(4);
        assert_eq!(last_start(&simulation.shared.lock()), start);
        simulation.finish();
        assert_eq!(simulation.readers[0].gaps, 1);
        let state = simulation.shared.lock();
        let causes: Vec<_> = state.stream.iter().filter_map(|(_, entry)| cause_of(&entry.content)).collect();
        assert_eq!(causes.iter().filter(|cause| cause.contains("64 MiB") == is_overflow).count(), 1, "{causes:?}");
    }
}

#[test]
fn r04_a_leader_that_is_refused_releases_the_lock_and_is_a_candidate() {
    let mut simulation = Simulation::new(2, 1);
    assert!(simulation.shared.lock().sessions[0].has_lock);
    simulation.step(&Step::LieAboutLock(true));
    for _ in 0..20 {
        simulation.pass(250);
        simulation.run_relay(1, usize::MAX);
    }
    let (start, _) = last_start(&simulation.shared.lock());
    simulation.step(&Step::LieAboutLock(false));
    simulation.step(&Step::Notify(1));
    simulation.pass(250);
    simulation.run_relay(0, usize::MAX);
    simulation.run_relay(0, usize::MAX);
    assert_eq!(
        simulation.shared.lock().sessions.iter().map(|session| session.has_lock).collect::<Vec<_>>(),
        [false, true]
    );
    simulation.finish();
    assert_eq!((last_start(&simulation.shared.lock()).0, simulation.readers[0].gaps), (start, 0));
}

#[test]
fn r05_a_leader_marks_the_place_after_a_thousand_notifications() {
    let mut simulation = Simulation::new(2, 1);
    let canaries = |simulation: &Simulation| {
        let is_canary = |content: &EntryContent| matches!(content, EntryContent::Canary { .. });
        simulation.shared.lock().stream.iter().filter(|(_, entry)| is_canary(&entry.content)).count()
    };
    simulation.run_all(1);
    let before = canaries(&simulation);
    for _ in 0..6 {
        simulation.step(&Step::Notify(200));
        simulation.step(&Step::Notify(200));
        simulation.run_relay(0, usize::MAX);
        simulation.run_relay(0, usize::MAX);
    }
    assert_eq!(canaries(&simulation) - before, 2, "in no time");
}

#[test]
fn r05_other_texts_on_the_channel_of_markers_are_not_relayed() {
    let mut simulation = Simulation::new(1, 1);
    simulation.shared.lock().committed.push((MARKER_CHANNEL, "hello".to_owned()));
    simulation.shared.lock().committed.push(("c", "1".to_owned()));
    simulation.run_all(1);
    let state = simulation.shared.lock();
    let relayed = state.stream.iter().flat_map(|(_, entry)| match &entry.content {
        EntryContent::Notifications(batch) => batch.iter().map(|n| n.channel().into_owned()).collect(),
        _ => Vec::new(),
    });
    assert_eq!(relayed.collect::<Vec<_>>(), ["c"]);
}

#[test]
fn r06_a_leader_without_its_engine_receives_no_more_than_the_outbox_holds() {
    let mut simulation = Simulation::new(1, 1);
    simulation.step(&Step::Partition(0));
    for _ in 0..3_000 {
        simulation.step(&Step::Notify(1));
        simulation.run_relay(0, usize::MAX);
    }
    assert!(!simulation.relays[0].leader.takes());
    simulation.step(&Step::Reconnect);
    simulation.finish();
    assert_eq!(simulation.readers[0].gaps, 0);
}

#[test]
fn r04_only_a_candidate_that_receives_and_sees_the_stream_ends_the_session_of_a_silent_leader() {
    let holds = |simulation: &Simulation| simulation.shared.lock().sessions[0].has_lock;
    let wait = |simulation: &mut Simulation, seconds: u64, most: usize| {
        for _ in 0..seconds * 4 {
            simulation.pass(250);
            simulation.run_relay(1, most);
        }
    };
    let mut simulation = Simulation::new(2, 1);
    simulation.step(&Step::Freeze(0));
    wait(&mut simulation, 60, 0);
    assert!(holds(&simulation), "it receives nothing itself");
    simulation.step(&Step::Partition(1));
    wait(&mut simulation, 60, usize::MAX);
    simulation.step(&Step::Reconnect);
    wait(&mut simulation, 10, usize::MAX);
    assert!(holds(&simulation), "it did not see the stream");
    simulation.step(&Step::RefuseWrites(true));
    wait(&mut simulation, 60, usize::MAX);
    simulation.step(&Step::RefuseWrites(false));
    assert!(holds(&simulation), "the engine appends nothing from anybody");
    wait(&mut simulation, 30, usize::MAX);
    assert!(!holds(&simulation));
    // The process that was stopped appends nothing more, and is a candidate again.
    simulation.finish();
    assert_eq!(simulation.readers[0].gaps, 0);
}

#[test]
fn r04_an_engine_that_refuses_writes_for_long_costs_nothing() {
    let mut simulation = Simulation::new(2, 1);
    simulation.run_all(30);
    simulation.step(&Step::RefuseWrites(true));
    for _ in 0..6 {
        simulation.step(&Step::Notify(1));
        simulation.run_all(20);
    }
    let faults = simulation.relays.iter().map(|relay| relay.status.read().fault.is_some());
    assert!(faults.eq([true, true]), "both relays have a fault");
    simulation.finish();
    assert_eq!((simulation.shared.lock().ended, simulation.readers[0].gaps), (0, 0));
}

impl Simulation {
    /// Lets only relay 1 run.
    fn run_other(&mut self, seconds: u64) {
        for _ in 0..seconds * 4 {
            self.pass(250);
            self.run_relay(1, usize::MAX);
        }
    }
}

#[test]
fn r04_a_leader_of_another_engine_is_a_fault_and_keeps_its_session() {
    let mut simulation = Simulation::new(2, 1);
    simulation.step(&Step::Freeze(0));
    // The stream of this one never had the term of that one.
    simulation.shared.lock().sessions[0].term = Some(7);
    simulation.run_other(90);
    let relay = &simulation.relays[1];
    assert!(relay.status.read().fault.is_some_and(|fault| fault.contains("appends to another engine")));
    let state = simulation.shared.lock();
    assert_eq!((state.sessions[0].has_lock, state.ended), (true, 0));
    drop(state);
    // It is over when the stream moves.
    simulation.shared.lock().sessions[0].term = None;
    simulation.finish();
    assert_eq!(simulation.relays[1].status.read().fault, None);
}

#[test]
fn r04_a_leader_whose_stream_was_deleted_is_known_by_its_term_and_one_without_a_term_is_ended_later() {
    for (is_published, seconds) in [(true, 25), (false, 45)] {
        let mut simulation = Simulation::new(2, 1);
        simulation.run_other(1);
        simulation.step(&Step::Freeze(0));
        simulation.step(&Step::Delete);
        if !is_published {
            simulation.shared.lock().sessions[0].term = None;
        }
        simulation.run_other(seconds - 5);
        assert!(simulation.shared.lock().sessions[0].has_lock, "{is_published}");
        simulation.run_other(10);
        assert!(!simulation.shared.lock().sessions[0].has_lock, "{is_published}");
    }
}

#[test]
fn r04_a_leader_is_judged_by_the_silence_in_its_entries() {
    let pace =
        |period, deadline| RelayPace { period: Duration::from_secs(period), deadline: Duration::from_secs(deadline) };
    // The options of the leader and of the candidate, and the time within which its session is ended.
    for (leader, candidate, seconds) in [(pace(1, 1), pace(60, 10), 2..6), (pace(60, 10), pace(1, 1), 69..77)] {
        for entries_since_canary in [0, 600] {
            let mut simulation = Simulation::with_paces(&[leader, candidate], 1);
            simulation.run_all(80);
            for _ in 0..entries_since_canary {
                simulation.step(&Step::Notify(1));
                simulation.run_relay(0, usize::MAX);
            }
            let term = last_start(&simulation.shared.lock()).0;
            // The candidate begins while the leader has stopped.
            simulation.step(&Step::Freeze(0));
            simulation.step(&Step::Kill(1));
            let mut passed = 0;
            while simulation.shared.lock().ended == 0 {
                simulation.run_other(1);
                passed += 1;
                assert!(passed < 100, "{leader:?}");
            }
            assert!(seconds.contains(&passed), "{passed} s, {leader:?}");
            simulation.finish();
            assert!(last_start(&simulation.shared.lock()).0 > term);
        }
    }
}

#[test]
fn r09_an_installation_that_has_changed_since_the_last_canary_ends_a_takeover() {
    let mut simulation = Simulation::new(2, 1);
    let (term, _) = last_start(&simulation.shared.lock());
    simulation.shared.lock().lacks_changes = true;
    simulation.step(&Step::Kill(0));
    simulation.step(&Step::Freeze(0));
    simulation.run_other(3);
    assert_eq!(last_start(&simulation.shared.lock()).0, term);
    assert!(!simulation.shared.lock().sessions[1].has_lock);
    assert!(simulation.relays[1].status.read().fault.is_some_and(|fault| fault.contains("nothing is installed")));
    simulation.shared.lock().lacks_changes = false;
    simulation.finish();
    assert!(simulation.readers[0].gaps > 0);
}

#[test]
fn r07_a_leader_that_is_superseded_and_then_ended_has_changed_once_by_force() {
    let mut simulation = Simulation::new(2, 1);
    let end = |simulation: &mut Simulation| {
        let error = ServerError { code: "57P01".into(), ..ServerError::default() };
        simulation.relays[0].leader.handle(Received::Disconnected(error.into()), simulation.now);
        simulation.step(&Step::LoseSession(0));
        simulation.run_all(4);
    };
    simulation.step(&Step::LieAboutLock(true));
    simulation.run_other(3);
    simulation.step(&Step::LieAboutLock(false));
    simulation.step(&Step::Notify(1));
    simulation.run_all(1);
    let superseded = |event: &String| event.contains("a newer leader has taken over");
    assert_eq!(simulation.relays[0].events.lock().unwrap().iter().filter(|event| superseded(event)).count(), 1);
    // Ends of the session of a candidate replace no leader.
    (0..3).for_each(|_| end(&mut simulation));
    assert_eq!(simulation.relays[0].status.read().fault, None);
}

#[test]
fn r07_a_session_is_reported_as_ended_once_it_is_gone_and_is_a_fault_until_then() {
    let mut simulation = Simulation::new(2, 1);
    simulation.step(&Step::Freeze(0));
    simulation.shared.lock().sessions[0].is_stuck = true;
    simulation.run_other(60);
    let ends = |simulation: &Simulation| {
        let events = simulation.relays[1].events.lock().unwrap();
        events.iter().filter(|event| event.contains("its session was ended")).count()
    };
    let relay = &simulation.relays[1];
    assert!(simulation.shared.lock().ended > 1 && ends(&simulation) == 0);
    let since_leader = relay.status.leader_seen().map(|at| simulation.now - at);
    assert!(since_leader > Some(Duration::from_secs(50)), "{since_leader:?}");
    assert!(relay.status.read().fault.is_some_and(|fault| fault.contains("is still there")));
    simulation.shared.lock().sessions[0].is_stuck = false;
    simulation.run_other(30);
    assert_eq!((ends(&simulation), simulation.relays[1].status.read().fault), (1, None));
}

#[test]
fn r07_a_leader_that_could_not_be_ended_and_continues_is_no_fault() {
    let mut simulation = Simulation::new(2, 1);
    let term = last_start(&simulation.shared.lock()).0;
    simulation.step(&Step::Freeze(0));
    simulation.shared.lock().sessions[0].is_stuck = true;
    simulation.run_other(60);
    assert!(simulation.relays[1].status.read().fault.is_some());
    simulation.step(&Step::Thaw(0));
    simulation.run_all(30);
    assert_eq!((last_start(&simulation.shared.lock()).0, simulation.relays[1].status.read().fault), (term, None));
    let events = simulation.relays[1].events.lock().unwrap();
    assert!(!events.iter().any(|event| event.contains("its session was ended")), "{events:?}");
}

#[test]
fn r07_a_session_that_others_end_again_and_again_is_a_fault_for_a_while() {
    let mut simulation = Simulation::new(1, 1);
    for count in 1..=3 {
        assert_eq!(simulation.relays[0].status.read().fault, None, "{count}");
        let error = ServerError { code: "57P01".into(), ..ServerError::default() };
        simulation.relays[0].leader.handle(Received::Disconnected(error.into()), simulation.now);
        simulation.step(&Step::LoseSession(0));
        simulation.run_all(4);
    }
    assert!(simulation.relays[0].status.read().fault.is_some_and(|fault| fault.contains("by force 3 times")));
}

#[test]
fn r05_histories_keep_little_that_the_stream_has_and_all_that_it_has_not() {
    let mut simulation = Simulation::new(2, 1);
    let notify = |simulation: &mut Simulation, count: usize| {
        for number in 0..count {
            simulation.shared.lock().committed.push(("c", format!("{number} {}", "x".repeat(7_000))));
        }
    };
    for _ in 0..30 {
        notify(&mut simulation, 50);
        simulation.run_all(10);
    }
    for relay in &simulation.relays {
        let bytes = relay.leader.history_bytes();
        assert!((1..2_500_000).contains(&bytes), "{bytes} of 10,500,000 bytes");
    }
    simulation.step(&Step::Partition(0));
    notify(&mut simulation, 500);
    simulation.run_all(1);
    simulation.run_all(15);
    assert!(simulation.relays.iter().all(|relay| relay.leader.history_bytes() > 3_500_000));
}

#[test]
fn r04_a_stream_that_another_database_fills_is_not_taken() {
    let later = StreamOrigin { timeline: ORIGIN.timeline + 1, ..ORIGIN };
    for origin in [StreamOrigin { system: 8, ..ORIGIN }, StreamOrigin { database: 6, ..ORIGIN }, later] {
        let mut simulation = Simulation::new(1, 1);
        let canary = |sequence: u64| {
            let content = EntryContent::Canary {
                marker: "b 1 1".into(),
                sent: EngineTime::default(),
                channels: vec!["c".into()],
                silence_ms: 20_000,
            };
            (StreamPosition { term: u64::MAX / 2, sequence }, StreamEntry { origin, content })
        };
        for sequence in 2..10 {
            simulation.shared.lock().stream.push(canary(sequence));
            simulation.run_all(15);
            assert_eq!(simulation.shared.lock().stream.last().map(|(at, _)| at.sequence), Some(sequence), "{origin}");
        }
        // The other one is gone.
        simulation.run_all(30);
        assert!(simulation.shared.lock().stream.last().is_some_and(|(_, entry)| entry.origin == ORIGIN));
    }
    let earlier = StreamOrigin { timeline: 0, ..ORIGIN };
    assert!(ORIGIN.can_follow(earlier) && ORIGIN.can_follow(ORIGIN) && !ORIGIN.can_follow(later));
}
