//! The server and the engine of the simulation, and the faults that they have.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::error::Error;
use crate::relay::engine_time::EngineTime;
use crate::relay::entry::{StreamEntry, StreamOrigin};
use crate::relay::position::StreamPosition;
use crate::relay::session::{LeaderSession, LockHolder, MARKER_CHANNEL, PreparedSession, term_key};
use crate::relay::sink::{AppendError, Sink};

/// The server whose notifications are relayed.
pub(super) const ORIGIN: StreamOrigin = StreamOrigin { system: 7, timeline: 1, database: 5 };

/// The parts of the simulation that several sides use.
#[derive(Default)]
pub(super) struct SharedState {
    /// The notifications of the server, in the order of their commits: channel and payload.
    pub(super) committed: Vec<(&'static str, String)>,
    pub(super) sessions: Vec<ServerSession>,
    /// The number of times that the server was asked to end a session.
    pub(super) ended: usize,
    /// The lock is granted to everybody.
    pub(super) lock_lies: bool,
    pub(super) stream: Vec<(StreamPosition, StreamEntry)>,
    pub(super) engine_ms: u64,
    /// The engine appends nothing: it has no memory, or is no master any more.
    pub(super) refuses_writes: bool,
    /// The relays that cannot reach the engine.
    pub(super) partitioned: BTreeSet<usize>,
    /// The number of answers of the engine that are lost from now on.
    pub(super) lost_answers: usize,
    /// The time that a look at the engine's clock takes, and that which the running relay has waited for those.
    pub(super) clock_takes: Duration,
    pub(super) waited: Duration,
    /// The number of markers that are lost from now on.
    pub(super) lost_markers: usize,
    /// The changes of tables are not notified.
    pub(super) lacks_changes: bool,
}

#[derive(Default, Clone)]
pub(super) struct ServerSession {
    pub(super) is_open: bool,
    pub(super) has_lock: bool,
    /// The term that it has published.
    pub(super) term: Option<u64>,
    /// It does not end when the server is asked to end it.
    pub(super) is_stuck: bool,
    /// The number of committed notifications that it has sent.
    pub(super) sent: usize,
}

#[derive(Clone)]
pub(super) struct Shared(pub(super) Arc<Mutex<SharedState>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, SharedState> {
        self.0.lock().unwrap()
    }
}

/// The engine, as relay `at` sees it.
pub(super) struct SimulatedSink(pub(super) Shared, pub(super) usize);

impl SimulatedSink {
    fn reach(&self) -> Result<MutexGuard<'_, SharedState>, Error> {
        let state = self.0.lock();
        if state.partitioned.contains(&self.1) { Err(Error::Disconnected) } else { Ok(state) }
    }
}

impl Sink for SimulatedSink {
    fn time(&mut self) -> Result<EngineTime, Error> {
        let mut state = self.reach()?;
        let takes = state.clock_takes;
        state.waited += takes;
        Ok(EngineTime { unix_ms: state.engine_ms, engine: "simulated".into() })
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
pub(super) struct SimulatedSession(pub(super) Shared, pub(super) usize);

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
