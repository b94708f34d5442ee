//! The state of a relay, for other threads.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::config::named;
use crate::error::{Error, Escaped};
use crate::relay::inbox::Inbox;

/// The number of changes by force within [`FORCE_PERIOD`] that are a fault.
const FORCED_MAX: usize = 3;
/// The time for which a change by force counts.
const FORCE_PERIOD: Duration = Duration::from_secs(120);

/// The part of a relay in one stream.
///
/// ```
/// use notifyman::relay::RelayRole;
///
/// assert_eq!(RelayRole::Leader.to_string(), "leader");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RelayRole {
    /// Its session is not open: it can neither lead nor follow.
    Away,
    /// It receives, and waits until there is no leader.
    Candidate,
    /// It appends what it receives.
    Leader,
}

named!(RelayRole { Away: "away", Candidate: "candidate", Leader: "leader" });

/// The state of one stream of a relay, at one time.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayStatus {
    /// The name of the stream, without the prefix of its key.
    pub stream: String,
    /// The part of this relay.
    pub role: RelayRole,
    /// The term of this relay, while it leads.
    pub term: Option<u64>,
    /// The number of entries that this relay has appended and the engine has acknowledged.
    pub appended: u64,
    /// The number of gaps that this relay has reported to all readers, or has found at a takeover. A reader that was away for too long
    /// has gaps of its own, which no relay knows.
    pub reported_gaps: u64,
    /// The number of notifications that wait for the engine.
    pub waiting: usize,
    /// The time since a canary of any relay was received; `None` before the first one.
    pub canary_age: Option<Duration>,
    /// The time that the last append took, until the engine's answer.
    pub append_time: Option<Duration>,
    /// While this relay is a candidate, the time since the leader appended something.
    pub leader_silence: Option<Duration>,
    /// The time within which it should be replaced then, by the leader's own canary and deadline.
    pub leader_silence_max: Option<Duration>,
    /// The fault of the session or of the engine, until it is over. One line, escaped.
    pub fault: Option<String>,
}

/// A change in a relay, for a log. The text is one line, escaped.
///
/// ```
/// # fn log(event: &notifyman::relay::RelayEvent) {
/// eprintln!("{event}");
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayEvent {
    /// The name of the stream.
    pub stream: Box<str>,
    /// The change.
    pub change: RelayChange,
}

/// A change in one stream of a relay.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RelayChange {
    /// The relay leads, is a candidate, or is away.
    Role(RelayRole),
    /// Notifications are missing in the stream, which readers find. The text is the reason.
    Gap(String),
    /// The session with PostgreSQL has a fault.
    SessionFault(String),
    /// The engine has a fault.
    EngineFault(String),
    /// The fault of the session or of the engine is over.
    Recovered,
    /// A leader appended nothing although it had something to append, and its session, with this process id, has ended because the
    /// server was asked for that.
    HolderEnded(i32),
    /// A newer leader has taken the stream over.
    Superseded,
    /// The relay was stopped.
    Stopped,
}

impl fmt::Display for RelayEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", Escaped(&*self.stream))?;
        match &self.change {
            RelayChange::Role(role) => write!(f, "this relay is {}", role.described()),
            RelayChange::Gap(why) => write!(f, "a gap: {why}"),
            RelayChange::SessionFault(fault) => write!(f, "PostgreSQL, retrying: {fault}"),
            RelayChange::EngineFault(fault) => write!(f, "engine, retrying: {fault}"),
            RelayChange::Recovered => f.write_str("the fault is over"),
            RelayChange::HolderEnded(pid) => {
                write!(f, "the leader appended nothing, so its session was ended (process {pid} of the server)")
            }
            RelayChange::Superseded => f.write_str("a newer leader has taken over"),
            RelayChange::Stopped => f.write_str("this relay has stopped"),
        }
    }
}

impl RelayRole {
    fn described(self) -> &'static str {
        match self {
            Self::Away => "away from PostgreSQL",
            Self::Candidate => "a candidate",
            Self::Leader => "the leader",
        }
    }
}

/// Receives the changes of all streams, on their threads.
pub(crate) type EventSink = Arc<dyn Fn(&RelayEvent) + Send + Sync>;

/// The state of one stream, which its thread changes.
pub(crate) struct StreamStatus {
    state: Mutex<StatusState>,
    inbox: Arc<Inbox>,
    on_event: EventSink,
}

struct StatusState {
    stream: Box<str>,
    role: RelayRole,
    term: Option<u64>,
    appended: u64,
    gaps: u64,
    last_canary: Option<Instant>,
    append_time: Option<Duration>,
    /// The time at which another leader appended something.
    leader_seen: Option<(Instant, Duration)>,
    session_fault: Option<String>,
    engine_fault: Option<String>,
    /// The last times at which a leader was replaced that had not resigned.
    forced: VecDeque<Instant>,
}

impl StreamStatus {
    /// Creates the state of a stream, with the name by which it is known until it has one.
    pub(crate) fn new(stream: &str, inbox: Arc<Inbox>, on_event: EventSink) -> Self {
        let state = StatusState {
            stream: stream.into(),
            role: RelayRole::Away,
            term: None,
            appended: 0,
            gaps: 0,
            last_canary: None,
            append_time: None,
            leader_seen: None,
            session_fault: None,
            engine_fault: None,
            forced: VecDeque::new(),
        };
        Self { state: Mutex::new(state), inbox, on_event }
    }

    fn lock(&self) -> MutexGuard<'_, StatusState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and then reports what is returned, without the lock.
    fn update(&self, change: impl FnOnce(&mut StatusState) -> Option<RelayChange>) {
        let mut state = self.lock();
        let Some(change) = change(&mut state) else { return };
        let event = RelayEvent { stream: state.stream.clone(), change };
        drop(state);
        // Code of the user. Its panic was reported by the panic hook, and must not end the stream.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.on_event)(&event)));
    }

    pub(crate) fn set_stream(&self, stream: &str) {
        self.lock().stream = stream.into();
    }

    pub(crate) fn set_role(&self, role: RelayRole, term: Option<u64>) {
        self.update(|state| {
            let is_new = (state.role, state.term) != (role, term);
            (state.role, state.term) = (role, term);
            state.leader_seen = None;
            is_new.then_some(RelayChange::Role(role))
        });
    }

    /// Reports that the relay was stopped, and is away from then on.
    pub(crate) fn stop(&self) {
        self.update(|state| {
            (state.role, state.term) = (RelayRole::Away, None);
            Some(RelayChange::Stopped)
        });
    }

    pub(crate) fn count_appended(&self, entries: usize, took: Duration) {
        self.update(|state| {
            state.appended += entries as u64;
            state.append_time = Some(took);
            None
        });
    }

    pub(crate) fn report_gap(&self, why: String) {
        self.update(|state| {
            state.gaps += 1;
            Some(RelayChange::Gap(why))
        });
    }

    /// Records when another leader was last seen to append something, and the time within which it should append again.
    pub(crate) fn see_leader(&self, at: Instant, within: Duration) {
        self.lock().leader_seen = Some((at, within));
    }

    /// Returns the time at which another leader was last seen to append something.
    #[cfg(test)]
    pub(crate) fn leader_seen(&self) -> Option<Instant> {
        self.lock().leader_seen.map(|(at, _)| at)
    }

    pub(crate) fn receive_canary(&self, now: Instant) {
        self.lock().last_canary = Some(now);
    }

    /// Reports that a leader was replaced that had not resigned.
    pub(crate) fn report_force(&self, change: RelayChange) {
        self.count_force();
        self.update(|_| Some(change));
    }

    /// Counts a change by force, of which several within two minutes are a fault.
    pub(crate) fn count_force(&self) {
        let forced = &mut self.lock().forced;
        forced.truncate(FORCED_MAX - 1);
        forced.push_front(clock::now());
    }

    /// Sets or ends the fault of the session.
    pub(crate) fn set_session_fault(&self, fault: Option<&Error>) {
        self.update(|state| {
            changed(&mut state.session_fault, fault)
                .map(|new| new.map_or(RelayChange::Recovered, RelayChange::SessionFault))
        });
    }

    /// Sets or ends the fault of the engine.
    pub(crate) fn set_engine_fault(&self, fault: Option<&Error>) {
        self.update(|state| {
            changed(&mut state.engine_fault, fault)
                .map(|new| new.map_or(RelayChange::Recovered, RelayChange::EngineFault))
        });
    }

    pub(crate) fn read(&self) -> RelayStatus {
        let waiting = self.inbox.waiting();
        let state = self.lock();
        RelayStatus {
            stream: state.stream.to_string(),
            role: state.role,
            term: state.term,
            appended: state.appended,
            reported_gaps: state.gaps,
            waiting,
            canary_age: state.last_canary.map(|at| clock::now().saturating_duration_since(at)),
            append_time: state.append_time,
            leader_silence: state.leader_seen.map(|(at, _)| clock::now().saturating_duration_since(at)),
            leader_silence_max: state.leader_seen.map(|(_, within)| within),
            fault: state
                .session_fault
                .clone()
                .or_else(|| state.engine_fault.clone())
                .or_else(|| state.force(clock::now())),
        }
    }
}

impl StatusState {
    /// Returns the fault of a stream whose leaders are replaced by force again and again.
    fn force(&self, now: Instant) -> Option<String> {
        let is_recent = |at: &&Instant| now.saturating_duration_since(**at) <= FORCE_PERIOD;
        let count = self.forced.iter().filter(is_recent).count();
        (count >= FORCED_MAX).then(|| {
            format!(
                "leaders were replaced by force {count} times within {} s: two groups of relays have one label, or one cannot \
                 append; compare their --url and --to, and their logs",
                FORCE_PERIOD.as_secs()
            )
        })
    }
}

/// Replaces a fault. Returns the new one, if it is another.
fn changed(fault: &mut Option<String>, new: Option<&Error>) -> Option<Option<String>> {
    let new = new.map(|error| format!("{error:#}"));
    (*fault != new).then(|| {
        fault.clone_from(&new);
        new
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r07_a_function_that_panics_does_not_end_the_stream() {
        let status = StreamStatus::new("shop", Arc::default(), Arc::new(|_| panic!("as expected")));
        status.set_role(RelayRole::Leader, Some(7));
        status.set_engine_fault(Some(&Error::Disconnected));
        let read = status.read();
        assert_eq!((read.role, read.term), (RelayRole::Leader, Some(7)));
        assert!(read.fault.is_some_and(|fault| !fault.is_empty()));
        status.set_engine_fault(None);
        assert_eq!(status.read().fault, None);
    }

    #[test]
    fn r07_leaders_that_are_replaced_by_force_again_and_again_are_a_fault_for_two_minutes() {
        let status = StreamStatus::new("shop", Arc::default(), Arc::new(|_| ()));
        let changes = [RelayChange::Superseded, RelayChange::HolderEnded(7), RelayChange::Superseded];
        for change in changes {
            assert_eq!(status.read().fault, None);
            status.report_force(change);
        }
        assert!(status.read().fault.is_some_and(|fault| fault.contains("3 times within 120 s")));
        assert_eq!(status.lock().force(clock::now() + FORCE_PERIOD), None);
    }
}
