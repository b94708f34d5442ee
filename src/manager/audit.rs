//! The audit: whether each server still listens to what it was told to.
//!
//! One connection after the other, each once in a period; one timer for all. The session compares the answer with what it
//! believes as it reads it, so that nothing that is asked meanwhile can come between.

use std::time::{Duration, Instant};

use crate::clock;
use crate::manager::canary::MissedCanary;
use crate::manager::members::{ConnId, Life, Member, unregistered_since};
use crate::manager::requests::RequestOrigin;
use crate::manager::{NotificationManager, log};
use crate::proto::{CHANNELS_PER_REQUEST, Request};

/// No connection is audited oftener.
const PERIOD_MIN: Duration = Duration::from_secs(1);
/// How long to wait at least before the next few.
const STEP_MIN: Duration = Duration::from_millis(10);

/// Whose turn it is, and when.
#[derive(Debug)]
pub(super) struct Rota {
    pub(super) period: Duration,
    next: Option<Instant>,
    last: Option<ConnId>,
}

impl Rota {
    pub(super) fn new(period: Duration, now: Instant) -> Self {
        Self { period, next: now.checked_add(PERIOD_MIN), last: None }
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// How many of so many are due now. After a long sleep it isn't made up for what was missed.
    pub(super) fn due(&mut self, now: Instant, of: usize) -> usize {
        if self.next.is_none_or(|next| now < next) {
            return 0;
        }
        let each = self.period / u32::try_from(of.max(1)).unwrap_or(u32::MAX);
        let step = each.max(STEP_MIN);
        self.next = now.checked_add(step);
        if each.is_zero() { of } else { step.div_duration_f64(each).ceil() as usize }.min(of)
    }
}

impl NotificationManager {
    /// With an audit: in every `period`, each connection's server is asked what it listens to, and what it has forgotten is
    /// listened to again. That is told by a gap with these channels, whose cause is
    /// [`Error::Unregistered`](crate::Error::Unregistered): in [`Event::Restored`](crate::Event::Restored), or in
    /// [`Batch::gap`](crate::Batch::gap); the connection itself goes on.
    ///
    /// Registrations are lost by an `UNLISTEN` that nobody sees, in a function or behind a pooler. The gap begins when the
    /// last audit found all in order, or with the session. What the server listens to and nobody knew of is learnt, and
    /// listened to again when the connection is brought back.
    ///
    /// ```
    /// use std::time::Duration;
    /// use notifyman::NotificationManager;
    ///
    /// # let conns: [notifyman::Connection; 0] = [];
    /// let nm = NotificationManager::new(conns).audit(Duration::from_secs(300));
    /// # drop(nm);
    /// ```
    ///
    /// # What it costs
    ///
    /// A query of some 100 bytes for each connection and period, and its answer, which names all the channels: about
    /// 0.1 ms of the server's time. The connections take turns, spread over the period, which is at least a second. None is
    /// asked inside a transaction, nor while something else is asked of it; it comes to that in the next period.
    #[must_use]
    pub fn audit(mut self, period: Duration) -> Self {
        self.audit = Some(Rota::new(period.max(PERIOD_MIN), clock::now()));
        self
    }

    /// Audits those whose turn it is.
    pub(super) fn fire_audits(&mut self) {
        let Some(rota) = &mut self.audit else { return };
        let of = self.members.len();
        let (due, mut last) = (rota.due(self.now, of), rota.last);
        for _ in 0..due {
            let Some((id, token)) = self.members.after(last) else { break };
            last = Some(id);
            if self.is_quiet_now(token) {
                self.ask_for_us(token, Request::Audit, RequestOrigin::Audit(clock::now(), None));
            }
        }
        if let Some(rota) = &mut self.audit {
            rota.last = last;
        }
    }

    /// Returns `true` if a connection can be asked now. With a canary the question is one to an idle session, if the socket
    /// has nothing to be read.
    fn is_quiet_now(&mut self, token: u32) -> bool {
        let Some(Member { life: Life::Good(connection), .. }) = self.members.get_mut(token) else { return false };
        if self.canary.is_none() || !connection.session.is_quiet() {
            return connection.session.is_quiet();
        }
        let was_idle = connection.receive_some(&mut self.buffer, self.now).is_none();
        let is_quiet = connection.session.is_quiet();
        self.queue(token);
        if was_idle && is_quiet {
            self.prompt_canary(token);
        }
        is_quiet
    }

    /// A server has told what it listens to, after it was asked then; perhaps since this canary didn't come.
    pub(super) fn audited(&mut self, token: u32, began: Instant, canary: Option<&MissedCanary>) {
        let Some(Member { id, life: Life::Good(connection), .. }) = self.members.get_mut(token) else { return };
        let (lost, lapsed) = (connection.session.take_missed_channels(), connection.session.take_canary_lapsed());
        if lost.is_empty() {
            connection.prove_channels(began);
        } else {
            log::unregistered(*id, lost.len());
            self.shared.counters.unregistered.add(lost.len());
            connection.relisten(unregistered_since(connection.channels_proven(), &lost));
            for (before, channels) in (0..).zip(lost.chunks(CHANNELS_PER_REQUEST)) {
                // Each request has a full time limit of its own, after those before it.
                self.ask_behind(before, token, Request::Relisten(channels.to_vec()), RequestOrigin::Relisten);
            }
        }
        if let Some(canary) = canary {
            self.judge(token, canary, lapsed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m16_each_has_its_turn_once_a_period_and_never_all_at_once() {
        for of in [1, 7, 100, 5_000] {
            let start = Instant::now();
            let (period, mut now) = (Duration::from_secs(10), start);
            let mut rota = Rota::new(period, start);
            let (mut audited, mut most) = (0, 0);
            while now < start + 10 * period {
                now = rota.next().unwrap();
                let due = rota.due(now, of);
                (audited, most) = (audited + due, most.max(due));
                assert!(rota.next().unwrap() > now, "it doesn't spin");
            }
            assert!((of * 9..=of * 11 + 1).contains(&audited), "{audited} of {of} in ten periods");
            assert!(most <= 1 + of / 900, "{most} of {of} at once");
        }
    }

    #[test]
    fn m16_a_long_sleep_is_not_made_up_for() {
        let start = Instant::now();
        let mut rota = Rota::new(Duration::from_secs(10), start);
        assert_eq!(rota.due(start + Duration::from_secs(3600), 100), 1);
        assert_eq!(rota.due(start + Duration::from_secs(3600), 100), 0);
    }

    #[test]
    fn m16_an_audit_without_a_period_is_one_a_second() {
        let nm = NotificationManager::new([]).audit(Duration::ZERO);
        assert_eq!(nm.audit.as_ref().map(|rota| rota.period), Some(PERIOD_MIN));
    }
}
