//! The canaries of one connection.

use std::time::{Duration, Instant};

use crate::connection::{Link, Transport};
use crate::error::Error;
use crate::manager::conn_id::ConnId;
use crate::manager::fleet::turn::Turn;
use crate::proto::{CanaryArrival, CanaryProbe};

/// A canary that had not arrived at its deadline, when its connection was audited.
pub(crate) struct MissedCanary(pub(crate) Box<str>);

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
pub(crate) struct CanaryRecord {
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
pub(crate) struct CanaryOutcome {
    /// The server refuses the canary's channel.
    pub(crate) refusal: Option<Error>,
    /// The connection is lost.
    pub(crate) loss: Option<Error>,
    /// The time at which the canary that has arrived was sent.
    pub(crate) received: Option<Instant>,
}

impl CanaryRecord {
    /// Returns `true` if another session must send the connection's canary, and records that.
    pub(crate) fn needs_sender(&mut self, is_only: bool) -> bool {
        self.is_by_sender = is_only && self.route != CanaryRoute::Itself;
        self.is_by_sender
    }

    /// Handles an event on the canary's channel.
    pub(crate) fn on_event<S: Transport>(&mut self, link: &mut Link<S>, turn: &mut Turn<'_, S>) -> CanaryOutcome {
        let (id, now, services) = (turn.id, turn.now(), &mut *turn.services);
        let Some(canaries) = &mut services.canary else { return CanaryOutcome::default() };
        let refusal = link.probe_mut().and_then(CanaryProbe::take_refusal);
        let mut outcome = CanaryOutcome { refusal, ..CanaryOutcome::default() };
        if let Some(from) = link.probe_mut().and_then(CanaryProbe::take_sender)
            && let Some((sent, by)) = canaries.schedule.last_sent(id)
        {
            let is_own = by == id && !self.is_by_sender;
            // A pooler that delivers nothing also returns what a session sends to itself.
            if is_own && from != link.pid() {
                self.route = CanaryRoute::Pooled;
            } else {
                match link.probe().and_then(|probe| probe.arrival) {
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
                link.history.audit_mut().delivery_proven = Some(sent.into());
                outcome.received = Some(sent);
                self.has_lapsed = false;
                let time = now.saturating_duration_since(sent);
                let nanos = time.max(Duration::from_nanos(1)).as_nanos();
                services.counters.canary_time.set(usize::try_from(nanos).unwrap_or(usize::MAX));
                services.meters.add_canary(id, time);
            }
        }
        if link.probe().is_some_and(|probe| probe.database.is_some()) {
            canaries.schedule.join(id, &database_of(id, link), now, &mut services.jitter);
        }
        outcome
    }

    /// Handles the server's answer to a canary; returns the error to report if the server refuses canaries.
    pub(crate) fn on_sent<S: Transport>(&mut self, result: Result<(), Error>, turn: &mut Turn<'_, S>) -> Option<Error> {
        let (id, now) = (turn.id, turn.now());
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
    pub(crate) fn judge<S: Transport>(
        &mut self,
        link: &mut Link<S>,
        turn: &mut Turn<'_, S>,
        MissedCanary(payload): &MissedCanary,
        has_lapsed: bool,
    ) -> Option<Error> {
        let canaries = turn.services.canary.as_ref()?;
        let probe = link.probe_mut()?;
        let is_missing = probe.is_missing(payload);
        probe.stop_expecting();
        let has_failed = if has_lapsed { std::mem::replace(&mut self.has_lapsed, true) } else { is_missing };
        has_failed.then(|| {
            let sent = canaries.schedule.last_sent(turn.id).map_or(turn.now(), |(at, _)| at);
            Error::NotDelivering { after: turn.now().saturating_duration_since(sent) }
        })
    }
}

/// Records that the next request of a connection is made to an idle session with an empty socket, if that shows whether a
/// proxy holds back the canary until the answer.
pub(crate) fn note_prompt<S: Transport>(link: &mut Link<S>, turn: &Turn<'_, S>) {
    let time = turn.services.delivery_time();
    if let Some(canaries) = &turn.services.canary
        && canaries.schedule.is_in_flight_for(time, turn.id, turn.now())
    {
        link.begin_canary_audit();
    }
}

/// Returns the key of a connection's database. Connections with equal keys are certainly connected to the same database,
/// and receive the same canaries; a connection that cannot be told apart from others has a key of its own.
fn database_of<S: Transport>(id: ConnId, link: &Link<S>) -> String {
    let database = link.probe().and_then(|probe| probe.database.as_ref()).filter(|database| !database.is_empty());
    match (database, link.stream().peer(), link.canary_channel()) {
        (Some(database), Ok(peer), Some(channel)) => format!("{peer:?} {database} {channel}"),
        _ => format!("connection {}", id.number()),
    }
}
