//! One stream: a candidate that keeps what it receives, or the leader that appends it.
//!
//! ```text
//!   Away ──▶ Unprepared ──▶ Candidate ──lock──▶ TakingOver ──▶ Leader
//!    ▲ session lost           ▲  │                  │          │  │
//!    └────────────────────────┼──┴──────────────────┴──────────┼──┘
//!                             └──────── refused by the engine ─┘
//! ```
//!
//! The lock only chooses a leader: two of them harm nothing, because the engine refuses the older one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::Error;
use crate::gap::Gap;
use crate::notification::Batch;
use crate::relay::entry::EntryContent;
use crate::relay::history::{HISTORY_BYTES, History};
use crate::relay::identity::{Marker, RelayIdentity};
use crate::relay::inbox::{Received, overflow_error};
use crate::relay::outbox::FlushError;
use crate::relay::pace::RelayPace;
use crate::relay::role::{Candidacy, Engagement, Leadership, Part, Role, Takeover};
use crate::relay::session::{LeaderSession, MARKER_CHANNEL};
use crate::relay::sink::Sink;
use crate::relay::status::{RelayChange, RelayRole, StreamStatus};
use crate::relay::takeover::OpenStream;
use crate::relay::watch::later;

/// The time between two attempts to take the lock.
const LOCK_PERIOD: Duration = Duration::from_millis(250);
/// The time between two attempts after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// The number of notifications after which the leader marks the place: a reader or a candidate reads back little more.
const MARK_AFTER: usize = 1_000;
/// The number of entries that may wait for the engine before the inbox is left to fill.
const OUTBOX_ENTRIES: usize = 1_024;

/// The settings of one stream.
pub(crate) struct StreamSetup<K> {
    /// Returns the stream with a name, without connecting.
    pub(crate) engine: Box<dyn FnMut(&str) -> K + Send>,
    /// The name of the stream. Without it, the system identifier and the database are its name.
    pub(crate) label: Option<Box<str>>,
    pub(crate) channels: Vec<Box<str>>,
    pub(crate) pace: RelayPace,
    pub(crate) identity: RelayIdentity,
}

/// The part of a relay that serves one stream.
pub(crate) struct StreamLeader<K, S> {
    setup: StreamSetup<K>,
    session: S,
    history: History,
    role: Role<K>,
    /// The reason for which nothing was relayed before the session was prepared: the changes of tables were not notified.
    withheld: Option<Error>,
    status: Arc<StreamStatus>,
}

impl<K: Sink, S: LeaderSession> StreamLeader<K, S> {
    pub(crate) fn new(setup: StreamSetup<K>, session: S, status: Arc<StreamStatus>) -> Self {
        Self { setup, session, history: History::new(HISTORY_BYTES), role: Role::Away, withheld: None, status }
    }

    /// Handles what was received, in this order.
    pub(crate) fn handle(&mut self, received: Received, now: Instant) {
        match received {
            Received::Opened => self.role = Role::Unprepared(now),
            Received::Restored(gap) => {
                self.push_gap(&gap);
                // After an audit the session is the same.
                if matches!(self.role, Role::Away) {
                    self.role = Role::Unprepared(now);
                }
            }
            Received::Notifications(batch) => self.push_batch(batch, now),
            Received::Overflow(dropped) => {
                let cause = overflow_error(dropped);
                self.push_gap(&Gap::new(self.setup.channels.iter().cloned(), cause, Duration::ZERO));
            }
            Received::Disconnected(error) => {
                let leads =
                    matches!(&self.role, Role::Engaged(it) if matches!(it.part, Part::TakingOver(_) | Part::Leader(_)));
                // The lock is lost with the session. The gap is reported once it is restored.
                self.role = Role::Away;
                self.status.set_role(RelayRole::Away, None);
                self.status.set_session_fault(Some(&error));
                // Ended by another relay, perhaps. One that is superseded already has counted that.
                if leads && error.sqlstate() == Some("57P01") {
                    self.status.count_force();
                }
            }
        }
    }

    /// Returns the size of the history.
    #[cfg(test)]
    pub(crate) fn history_bytes(&self) -> usize {
        self.history.bytes()
    }

    fn leadership(&mut self) -> Option<&mut Leadership> {
        match &mut self.role {
            Role::Engaged(Engagement { part: Part::Leader(leadership), .. }) => Some(leadership),
            _ => None,
        }
    }

    fn push(&mut self, content: EntryContent) {
        if let Some(leadership) = self.leadership() {
            leadership.outbox.push(content.clone());
        }
        self.history.push(content);
    }

    fn push_gap(&mut self, gap: &Gap) {
        self.status.report_gap(format!("{:#}", gap.cause()));
        if let Role::Engaged(Engagement { part: Part::TakingOver(takeover), .. }) = &mut self.role {
            takeover.has_gap = true;
        }
        self.push(EntryContent::from(gap));
    }

    /// Adds the notifications of a batch, in pieces if markers are among them.
    fn push_batch(&mut self, batch: Batch, now: Instant) {
        let is_marker = |channel: &[u8]| channel == MARKER_CHANNEL.as_bytes();
        if !batch.iter().any(|n| is_marker(n.channel_bytes())) {
            return self.push_notifications(batch);
        }
        let mut piece = Vec::new();
        for notification in batch {
            if !is_marker(notification.as_ref().channel_bytes()) {
                piece.push(notification);
                continue;
            }
            let Some(marker) = Marker::of(notification.as_ref()) else { continue };
            self.push_notifications(std::mem::take(&mut piece).into_iter().collect());
            self.push_marker(&marker, now);
        }
        self.push_notifications(piece.into_iter().collect());
    }

    fn push_notifications(&mut self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let len = batch.len();
        self.push(EntryContent::Notifications(batch));
        let Role::Engaged(Engagement { stream, part: Part::Leader(leadership), .. }) = &mut self.role else { return };
        leadership.unmarked += len;
        if leadership.unmarked >= MARK_AFTER {
            leadership.unmarked = 0;
            let marker = self.setup.identity.next_marker(stream.earliest_time());
            self.session.send_marker(&marker.to_string());
        }
    }

    fn push_marker(&mut self, marker: &Marker, now: Instant) {
        if let Role::Engaged(engagement) = &mut self.role {
            engagement.last_marker = Some(now);
            // One mark serves all relays: the leader sends it, and a candidate only if there is none.
            if !matches!(engagement.part, Part::TakingOver(_)) {
                engagement.next_marker = later(now, engagement.part.marker_period(self.setup.pace));
            }
        }
        if let Some(leadership) = self.leadership() {
            leadership.has_marker = true;
        }
        self.status.receive_canary(now);
        let (marker, sent) = (marker.to_string().into(), marker.sent().clone());
        let (channels, silence_ms) = (self.setup.channels.clone(), self.setup.pace.silence_ms());
        self.push(EntryContent::Canary { marker, sent, channels, silence_ms });
    }

    /// Does what is due, and appends what waits.
    ///
    /// Each step may wait for the server or the engine, so it reads the time again.
    pub(crate) fn advance(&mut self, time: &dyn Fn() -> Instant) {
        self.prepare(time);
        self.send_marker(time());
        self.watch(time);
        self.try_to_lead(time());
        self.start_term();
        self.flush(time());
    }

    /// Returns the time at which there is something to do, if nothing is received before.
    pub(crate) fn deadline(&self, now: Instant) -> Instant {
        let engagement = match &self.role {
            Role::Away => return later(now, Duration::from_secs(3600)),
            Role::Unprepared(at) => return *at,
            Role::Engaged(engagement) => engagement,
        };
        let of_part = match &engagement.part {
            Part::Candidate(candidacy) => Some(candidacy.next_attempt.min(candidacy.watch.next)),
            Part::TakingOver(_) => None,
            Part::Leader(leadership) => leadership.retry,
        };
        of_part.map_or(engagement.next_marker, |at| at.min(engagement.next_marker))
    }

    /// Returns `false` while so many entries wait for the engine that no more should be received.
    pub(crate) fn takes(&self) -> bool {
        match &self.role {
            Role::Engaged(Engagement { part: Part::Leader(leadership), .. }) => {
                leadership.outbox.len() < OUTBOX_ENTRIES
            }
            _ => true,
        }
    }

    fn prepare(&mut self, time: &dyn Fn() -> Instant) {
        if !matches!(self.role, Role::Unprepared(at) if at <= time()) {
            return;
        }
        let prepared = self.session.prepare().and_then(|session| self.session.check_changes().map(|()| session));
        let now = time();
        self.role = match prepared {
            Ok(session) => {
                if let Some(error) = self.withheld.take() {
                    self.push_gap(&Gap::new(self.setup.channels.iter().cloned(), error, Duration::ZERO));
                }
                let derived = || format!("{}/{}", session.origin.system, session.database);
                let name = self.setup.label.clone().unwrap_or_else(|| derived().into());
                let sink = (self.setup.engine)(&name);
                self.status.set_session_fault(None);
                self.status.set_role(RelayRole::Candidate, None);
                self.status.set_stream(&name);
                self.setup.identity.set_pid(session.pid);
                let stream = OpenStream::new(name, session.origin, sink);
                // A candidate that has received for longer goes first: it has no gap.
                Role::Engaged(Engagement {
                    stream,
                    next_marker: now,
                    last_marker: None,
                    part: Part::candidate(now, later(now, RETRY)),
                })
            }
            Err(error) => {
                self.status.set_session_fault(Some(&error));
                if let Error::Changes(_) = &error {
                    self.withheld = Some(error);
                }
                Role::Unprepared(later(now, RETRY))
            }
        };
    }

    fn send_marker(&mut self, now: Instant) {
        if let Role::Engaged(engagement) = &mut self.role
            && engagement.next_marker <= now
        {
            engagement.next_marker = later(now, engagement.part.marker_period(self.setup.pace));
            if let Err(error) = engagement.stream.read_clock() {
                self.status.set_engine_fault(Some(&error));
            }
            let marker = self.setup.identity.next_marker(engagement.stream.earliest_time()).to_string();
            self.session.send_marker(&marker);
            if let Part::TakingOver(takeover) = &mut engagement.part {
                takeover.barriers[1] = marker.into();
            }
            if let Err(error @ Error::Changes(_)) = self.session.check_changes() {
                self.withhold(error, now);
            }
        }
    }

    /// Reports a gap, and relays nothing until the changes of tables are notified again.
    fn withhold(&mut self, error: Error, now: Instant) {
        self.push_gap(&Gap::new(self.setup.channels.iter().cloned(), error.clone(), Duration::ZERO));
        self.flush(now);
        // The lock that it leaves is tried again with the next preparation.
        let _ = self.session.unlock();
        self.status.set_role(RelayRole::Away, None);
        self.status.set_session_fault(Some(&error));
        (self.role, self.withheld) = (Role::Unprepared(later(now, RETRY)), Some(error));
    }

    /// Ends the session of a leader that appends nothing although there is something to append.
    fn watch(&mut self, time: &dyn Fn() -> Instant) {
        let Role::Engaged(Engagement { stream, last_marker, part: Part::Candidate(candidacy), .. }) = &mut self.role
        else {
            return;
        };
        let Candidacy { watch, has_failed, .. } = candidacy;
        let own = self.setup.pace.silence();
        match watch.check(stream, &mut self.history, own, time) {
            None => return,
            Some(Err(error)) => return self.status.set_engine_fault(Some(&error)),
            Some(Ok(())) if !*has_failed => self.status.set_engine_fault(None),
            Some(Ok(())) => {}
        }
        self.status.see_leader(watch.changed, watch.found_within(own));
        let (silence, now) = (watch.silence(own), time());
        let receives = last_marker.is_some_and(|at| now.saturating_duration_since(at) <= silence);
        if receives {
            watch.replace_leader(stream, &mut self.session, silence, &self.status, now);
        }
    }

    fn try_to_lead(&mut self, now: Instant) {
        let Role::Engaged(Engagement { stream, part, .. }) = &mut self.role else { return };
        let Part::Candidate(candidacy) = part else { return };
        if candidacy.next_attempt > now {
            return;
        }
        candidacy.next_attempt = later(now, LOCK_PERIOD);
        if let Some(other) = candidacy.watch.foreign
            && !candidacy.watch.is_silent(candidacy.watch.silence(self.setup.pace.silence()), now)
        {
            // Its leader appends something in that time.
            candidacy.has_failed = true;
            return self.status.set_engine_fault(Some(&stream.foreign_error(other)));
        }
        match self.session.try_lock(&stream.name) {
            Ok(true) => {
                candidacy.watch.report_end(&self.status);
                self.status.set_session_fault(None);
            }
            Ok(false) => {
                candidacy.has_failed = false;
                if !candidacy.watch.is_stuck {
                    self.status.set_session_fault(None);
                }
                return;
            }
            Err(error) => return self.status.set_session_fault(Some(&error)),
        }
        // Since the last canary, the installation may have changed.
        match self.session.check_changes() {
            Ok(()) => {}
            Err(error @ Error::Changes(_)) => return self.withhold(error, now),
            Err(error) => {
                self.status.set_session_fault(Some(&error));
                return self.step_down(now);
            }
        }
        match stream.claim(&mut self.setup.identity) {
            Ok(claimed) => {
                if let Err(error) = self.session.publish_term(claimed.term()) {
                    // Without the session there is no lock.
                    self.status.set_session_fault(Some(&error));
                    return self.step_down(now);
                }
                let barrier = self.setup.identity.next_marker(stream.earliest_time()).to_string();
                self.session.send_marker(&barrier);
                let barriers = [barrier.clone().into(), barrier.into()];
                *part = Part::TakingOver(Takeover { claimed, barriers, has_gap: false });
            }
            Err(error) => {
                // Another candidate may reach the engine.
                self.status.set_engine_fault(Some(&error));
                self.step_down(now);
                if let Role::Engaged(Engagement { part: Part::Candidate(candidacy), .. }) = &mut self.role {
                    candidacy.has_failed = true;
                }
            }
        }
    }

    /// Starts the term that was claimed, once the place is known at which the history continues the stream.
    fn start_term(&mut self) {
        let Role::Engaged(Engagement { part, .. }) = &mut self.role else { return };
        let Part::TakingOver(takeover) = part else { return };
        let Takeover { claimed, barriers, has_gap } = takeover;
        let relayed = (&*self.setup.channels, self.setup.pace.silence_ms());
        let started = match has_gap {
            true => Some(claimed.start_with_gap(relayed)),
            false => barriers.iter().find_map(|barrier| claimed.start(&self.history, barrier, relayed)),
        };
        let Some(started) = started else { return };
        self.status.set_role(RelayRole::Leader, Some(started.outbox.term()));
        *part = Part::Leader(Leadership { outbox: started.outbox, unmarked: 0, has_marker: true, retry: None });
        if let Some(why) = started.gap {
            self.status.report_gap(why.to_string());
        }
    }

    fn flush(&mut self, now: Instant) {
        let Role::Engaged(Engagement { stream, part: Part::Leader(leadership), .. }) = &mut self.role else { return };
        if leadership.outbox.len() == 0 || leadership.retry.is_some_and(|retry| retry > now) {
            return;
        }
        let begin = clock::now();
        match leadership.outbox.flush(&mut stream.sink) {
            Ok(appended) => {
                leadership.retry = None;
                // The stream has all of the history now.
                if std::mem::take(&mut leadership.has_marker) {
                    self.history.seen_all();
                }
                self.status.count_appended(appended, begin.elapsed());
                self.status.set_engine_fault(None);
            }
            Err(FlushError::Failed(error)) => {
                leadership.retry = Some(later(now, RETRY));
                self.status.set_engine_fault(Some(&error));
            }
            Err(FlushError::Fenced) => {
                self.status.report_force(RelayChange::Superseded);
                self.step_down(now);
            }
        }
    }

    /// Becomes a candidate again, after others had the chance to lead.
    fn step_down(&mut self, now: Instant) {
        if let Role::Engaged(engagement) = &mut self.role {
            if let Err(error) = self.session.unlock() {
                self.status.set_session_fault(Some(&error));
            }
            engagement.part = Part::candidate(now, later(now, RETRY));
            self.status.set_role(RelayRole::Candidate, None);
        }
    }

    /// Appends what waits, and leaves the stream to another relay.
    pub(crate) fn finish(&mut self, now: Instant) {
        if let Some(leadership) = self.leadership() {
            leadership.retry = None;
        }
        self.flush(now);
        if self.leadership().is_some() {
            // The session is closed in any case.
            let _ = self.session.unlock();
        }
        self.role = Role::Away;
        self.status.stop();
    }
}
