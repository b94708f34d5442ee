//! The canary proves that notifications are delivered, and measures how long that takes.
//!
//! ```text
//!   one session ──NOTIFY──▶ its database ──▶ every session of the manager there
//!                                              └─ not in time? ──▶ audit: does the server know the channel?
//!                                                    yes, and still nothing has arrived: delivery fails, lost
//!                                                    no: it is listened to again, and the next canary must arrive
//! ```
//!
//! A server's answer comes after everything that it has delivered before. So a connection is judged by that answer, and
//! never by a clock: a slow loop, a busy reader and a frozen server are not mistaken for failing delivery.

mod schedule;

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use self::schedule::CanarySchedule;
pub(crate) use self::schedule::{CanaryDue, CanaryPace};
use super::turn::Turn;
use crate::connection::Link;
use crate::connection::Transport;
use crate::error::Error;
use crate::manager::conn_id::ConnId;
use crate::proto::CanaryArrival;

/// The shortest period. A canary is a NOTIFY in every database, and wakes every session that listens there.
pub(crate) const PERIOD_MIN: Duration = Duration::from_secs(30);

/// The canaries of a manager.
#[derive(Debug)]
pub(crate) struct Canaries {
    channel: Box<str>,
    pub(super) schedule: CanarySchedule<ConnId>,
    /// Makes payloads that cannot be guessed.
    secret: RandomState,
    count: u64,
}

impl Canaries {
    pub(crate) fn new(channel: &str, pace: CanaryPace) -> Self {
        Self { channel: channel.into(), schedule: CanarySchedule::new(pace), secret: RandomState::new(), count: 0 }
    }

    pub(crate) fn channel(&self) -> &str {
        &self.channel
    }

    pub(super) fn deadline(&self) -> Duration {
        self.schedule.pace.deadline
    }

    /// Returns the time of the next step.
    pub(super) fn next(&self) -> Option<Instant> {
        self.schedule.next()
    }

    pub(super) fn next_payload(&mut self) -> String {
        self.count += 1;
        format!("canary {:016x}", self.secret.hash_one(self.count))
    }
}

/// A canary that had not arrived at its deadline, when its connection was audited.
pub(super) struct MissedCanary(pub(super) Box<str>);

/// The way in which the only connection to a database sends its canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum CanaryRoute {
    /// By another session, since a canary that a session sends to itself arrives with the answer, and does not prove
    /// delivery to an idle session.
    #[default]
    OtherSession,
    /// By itself: the canary of another session has arrived while it was idle, or no other session could be opened.
    Itself,
    /// By another session, always, because a pooler is in between: its own canary arrived from another process.
    Pooled,
}

/// The canaries of one connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CanaryRecord {
    route: CanaryRoute,
    /// `true` if the last canary was sent by another session.
    is_by_sender: bool,
    /// `true` if the server had forgotten the channel, and no canary has arrived since it was listened to again.
    has_lapsed: bool,
    /// `true` if the last canary arrived only with the answer to a question to the idle session.
    was_held_back: bool,
}

/// The consequences of an event on the canary's channel.
#[derive(Default)]
pub(super) struct CanaryOutcome {
    /// The server refuses the canary's channel.
    pub(super) refusal: Option<Error>,
    /// The connection is lost.
    pub(super) loss: Option<Error>,
}

impl CanaryRecord {
    /// Returns `true` if another session must send the connection's canary, and records that.
    pub(super) fn needs_sender(&mut self, is_only: bool) -> bool {
        self.is_by_sender = is_only && self.route != CanaryRoute::Itself;
        self.is_by_sender
    }

    /// Handles an event on the canary's channel.
    pub(super) fn on_event<S: Transport>(
        &mut self,
        id: ConnId,
        link: &mut Link<S>,
        turn: &mut Turn<'_, '_, S>,
    ) -> CanaryOutcome {
        let (now, services) = (turn.now(), &mut *turn.services);
        let Some(canaries) = &mut services.canary else { return CanaryOutcome::default() };
        let mut outcome = CanaryOutcome { refusal: link.take_canary_refusal(), loss: None };
        if let Some(from) = link.take_canary_sender()
            && let Some((sent, by)) = canaries.schedule.last_sent(id)
        {
            let is_own = by == id && !self.is_by_sender;
            // A pooler that delivers nothing also returns what a session sends to itself.
            if is_own && from != link.pid() {
                self.route = CanaryRoute::Pooled;
            } else {
                match link.canary_arrival() {
                    Some(CanaryArrival::Unprompted) if !is_own => {
                        self.was_held_back = false;
                        if by == id {
                            self.route = CanaryRoute::Itself;
                        }
                    }
                    // One delay may be an accident.
                    Some(CanaryArrival::WithAnswer) if !is_own && std::mem::replace(&mut self.was_held_back, true) => {
                        outcome.loss = Some(Error::HeldBack { after: now.saturating_duration_since(sent) });
                    }
                    _ => {}
                }
                link.prove_delivery(sent);
                self.has_lapsed = false;
                let micros = now.saturating_duration_since(sent).as_micros();
                services.counters.canary_micros.set(usize::try_from(micros).unwrap_or(usize::MAX));
            }
        }
        if link.canary_database().is_some() {
            canaries.schedule.join(id, &database_of(id, link), now, &mut services.jitter);
        }
        outcome
    }

    /// Handles the server's answer to a canary; returns the error to report if the server refuses canaries.
    pub(super) fn on_sent<S: Transport>(
        &mut self,
        id: ConnId,
        result: Result<(), Error>,
        turn: &mut Turn<'_, '_, S>,
    ) -> Option<Error> {
        let now = turn.now();
        let canaries = turn.services.canary.as_mut()?;
        let Err(error) = result else {
            canaries.schedule.committed(id, now);
            return None;
        };
        canaries.schedule.refused(id, now);
        if self.is_by_sender && self.route != CanaryRoute::Pooled {
            self.route = CanaryRoute::Itself;
            return None;
        }
        (!(self.is_by_sender && error.is_transient())).then_some(error)
    }

    /// Judges a connection that has answered after it had missed a canary; `has_lapsed` if its server had forgotten the
    /// channel, which is no fault the first time. Returns the reason if the connection is lost.
    pub(super) fn judge<S: Transport>(
        &mut self,
        id: ConnId,
        link: &mut Link<S>,
        turn: &mut Turn<'_, '_, S>,
        MissedCanary(payload): &MissedCanary,
        has_lapsed: bool,
    ) -> Option<Error> {
        let canaries = turn.services.canary.as_ref()?;
        let is_missing = link.is_canary_missing(payload);
        link.stop_expecting_canary();
        let has_failed = if has_lapsed { std::mem::replace(&mut self.has_lapsed, true) } else { is_missing };
        has_failed.then(|| {
            let sent = canaries.schedule.last_sent(id).map_or(turn.now(), |(at, _)| at);
            Error::NotDelivering { after: turn.now().saturating_duration_since(sent) }
        })
    }
}

/// Records that the next request of a connection is made to an idle session with an empty socket, if that shows whether a
/// proxy holds back the canary until the answer.
pub(super) fn note_prompt<S: Transport>(id: ConnId, link: &mut Link<S>, turn: &Turn<'_, '_, S>) {
    let time = turn.services.delivery_time();
    if let Some(canaries) = &turn.services.canary
        && canaries.schedule.is_in_flight_for(time, id, turn.now())
    {
        link.begin_canary_audit();
    }
}

/// Returns the key of a connection's database. Connections with equal keys are certainly connected to the same database,
/// and receive the same canaries; a connection that cannot be told apart from others has a key of its own.
fn database_of<S: Transport>(id: ConnId, link: &Link<S>) -> String {
    let database = link.canary_database().filter(|database| !database.is_empty());
    match (database, link.stream().peer(), link.canary_channel()) {
        (Some(database), Ok(peer), Some(channel)) => format!("{peer:?} {database} {channel}"),
        _ => format!("connection {id}"),
    }
}
