//! The canary: whether what is sent is delivered, and how soon.
//!
//! ```text
//!   one session ──NOTIFY──▶ its database ──▶ every session there, and no further
//!                                              └─ not in time? ──▶ audit: does the server know us?
//!                                                    yes, and still nothing has come: it is deaf, and lost
//!                                                    no: it listens again, and must hear the next
//! ```
//!
//! A server's answer comes behind whatever it delivered before, so it is the answer to that question that is judged, and
//! never a clock: a slow loop, a busy reader and a frozen server aren't taken for deaf.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::connection::Connection;
use crate::error::Error;
use crate::manager::members::{ConnId, Dead, Life, Member};
use crate::manager::requests::{LIMIT, RequestOrigin};
use crate::manager::rounds::{Due, Pace, Rounds};
use crate::manager::{Check, Event, NotificationManager, log};
use crate::proto::{CanaryArrival, Request, sql};

/// Where canaries are sent, unless another channel is named.
const CHANNEL: &str = "notifyman_canary";
/// A canary is a NOTIFY in every database, and wakes every session that listens there: it is sent no oftener.
pub(crate) const PERIOD_MIN: Duration = Duration::from_secs(30);

/// The canaries of a manager.
#[derive(Debug)]
pub(super) struct Canary {
    channel: Box<str>,
    rounds: Rounds<ConnId>,
    /// What makes payloads that nobody can guess, and how many there were.
    secret: RandomState,
    count: u64,
    /// Who had to be told to listen again, and has heard nothing since.
    relapsed: BTreeSet<ConnId>,
    /// Who is behind a pooler: it heard itself under another process's name.
    pooled: BTreeSet<ConnId>,
    /// Whose last canary was sent by a messenger.
    by_messenger: BTreeSet<ConnId>,
    /// Connections whose last canary arrived only with the answer to a question to the idle session.
    held_back: BTreeSet<ConnId>,
    /// Connections that are the only one to their database and may send their canary themselves: another session's has
    /// arrived while they were idle, or no other session could be opened.
    self_sending: BTreeSet<ConnId>,
}

impl Canary {
    fn new(channel: &str, pace: Pace) -> Self {
        let (rounds, secret) = (Rounds::new(pace), RandomState::new());
        let (relapsed, pooled, by_messenger, held_back, self_sending) = Default::default();
        let channel = channel.into();
        Self { channel, rounds, secret, count: 0, relapsed, pooled, by_messenger, held_back, self_sending }
    }

    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    /// When there is something to be done.
    pub(super) fn next(&self) -> Option<Instant> {
        self.rounds.next()
    }

    fn next_payload(&mut self) -> String {
        self.count += 1;
        format!("canary {:016x}", self.secret.hash_one(self.count))
    }
}

/// A canary that had not arrived at its deadline, when its connection was asked why.
pub(super) struct MissedCanary(Box<str>);

impl NotificationManager {
    /// With a canary: in every `period`, one connection of each database sends a notification on a channel of the
    /// manager's own, `notifyman_canary`, and every connection to that database must hear it. One that hasn't, `deadline`
    /// after it was committed, is asked what it listens to; if it says that it listens and still nothing has come, it
    /// delivers nothing, and is lost with [`Error::NotDelivering`].
    ///
    /// It proves what no other sign does: a pooler in transaction mode answers everything and delivers nothing. The gap
    /// that follows begins when the last canary was sent that came. [`Stats::canary_micros`](crate::Stats) tells how long
    /// it took.
    ///
    /// ```no_run
    /// # let conns: [notifyman::Connection; 0] = [];
    /// use std::time::Duration;
    /// use notifyman::{Backoff, NotificationManager};
    ///
    /// let nm = NotificationManager::new(conns)
    ///     .reconnect(Backoff::default())
    ///     .heartbeat(Duration::from_secs(15), Duration::from_secs(5))
    ///     .canary(Duration::from_secs(60), Duration::from_secs(5))
    ///     .audit(Duration::from_secs(300));
    /// # drop(nm);
    /// ```
    ///
    /// # What it costs
    ///
    /// The period is at least 30 seconds, and a shorter one is taken for that. In each, every database commits one NOTIFY,
    /// which takes the cluster's lock for it, and wakes every session that listens there: a server of version 18 or
    /// earlier takes about 15 µs for each of them (measured on 15), so a canary for 1,000 sessions is as dear as 1,000
    /// notifications to one. Each session is sent about 60 bytes. Programs don't share canaries, but each hears the
    /// others'.
    ///
    /// # What it won't do
    ///
    /// - Hand on anything of its channel: that stays in the connection. [`Connection::listen`] refuses it; a connection
    ///   that listened to it before it was inserted keeps it, and has no canary.
    /// - Ask anything inside a transaction. While one is open there is no canary for that connection, and
    ///   [`Event::InTransaction`](crate::Event::InTransaction) tells of it.
    /// - Rely on a canary that a session sends to itself: it arrives with the answer, and does not prove delivery to an
    ///   idle session. For the only connection to a database, another session is opened to send the first canary;
    ///   behind a pooler, every canary.
    /// - Treat a single delay as a fault. A canary that arrives only together with the answer to a question may be late. If
    ///   in two periods in a row that question was sent to the idle session after the canary had been committed, the
    ///   connection is lost with [`Error::HeldBack`]. The question is the one after the deadline, a heartbeat or an audit.
    /// - Fail silently. A refusal by the server is reported by [`Event::CheckRefused`], once for each session.
    /// - Mind that `UNLISTEN *`, `DISCARD ALL` or a rollback drop its registration: it listens again. Only one that is
    ///   dropped in secret before two canaries in a row is as good as deaf.
    /// - Believe strangers. Each canary's payload can't be guessed, and one that is overheard and sent again can only prove
    ///   what is true: that whoever hears it is delivered to.
    /// - Take two servers for one behind one name: a database is known by its address, the start of its server and its
    ///   number there. Two ways to one database have a canary each.
    #[must_use]
    pub fn canary(self, period: Duration, deadline: Duration) -> Self {
        self.canary_at_any_pace(CHANNEL, period.max(PERIOD_MIN), deadline)
    }

    /// With a [canary](Self::canary) on another channel.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a name that isn't 1 to 63 letters of ASCII, without a NUL: the server must not cut it,
    /// whatever its encoding.
    ///
    /// ```
    /// # let conns: [notifyman::Connection; 0] = [];
    /// use std::time::Duration;
    /// use notifyman::NotificationManager;
    ///
    /// let (period, deadline) = (Duration::from_secs(60), Duration::from_secs(5));
    /// let nm = NotificationManager::new(conns).canary_on("PGNOTIFIER", period, deadline)?;
    /// # drop(nm);
    /// assert!(NotificationManager::new([]).canary_on("", period, deadline).is_err());
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn canary_on(self, channel: &str, period: Duration, deadline: Duration) -> Result<Self, Error> {
        sql::check_canary_channel(channel)?;
        Ok(self.canary_at_any_pace(channel, period.max(PERIOD_MIN), deadline))
    }

    /// For the project's own tests, which can't wait for half a minute.
    #[doc(hidden)]
    #[must_use]
    pub fn canary_at_any_pace(mut self, channel: &str, period: Duration, deadline: Duration) -> Self {
        self.canary = Some(Box::new(Canary::new(channel, Pace { period, deadline })));
        for token in self.members.tokens() {
            self.attend(token);
        }
        self
    }

    /// Has a connection hear canaries, if there are any.
    pub(super) fn attend(&mut self, token: u32) {
        if let Some(canary) = &self.canary
            && let Some(Member { life: Life::Good(connection), .. }) = self.members.get_mut(token)
            && let Some(request) = connection.session.join_canary(&canary.channel)
        {
            let timeout = connection.call_timeout().unwrap_or(LIMIT);
            self.await_answer(token, request, RequestOrigin::Attendance, Some(timeout));
        }
    }

    /// It isn't good any more, or is taken out.
    pub(super) fn leave_canary(&mut self, id: ConnId) {
        if let Some(canary) = &mut self.canary {
            canary.rounds.leave(id, self.now);
            let Canary { relapsed, pooled, by_messenger, held_back, self_sending, .. } = &mut **canary;
            for set in [relapsed, pooled, by_messenger, held_back, self_sending] {
                set.remove(&id);
            }
        }
    }

    /// Something has happened on its private channel.
    pub(super) fn hear_canary(&mut self, token: u32) {
        let Some(Member { id, life: Life::Good(connection), .. }) = self.members.get_mut(token) else { return };
        let Some(canary) = &mut self.canary else { return };
        let refusal = connection.session.take_canary_refusal();
        let mut held_back_since = None;
        if let Some(from) = connection.session.take_canary_sender()
            && let Some((sent, by)) = canary.rounds.last_sent(*id)
        {
            let is_own = by == *id && !canary.by_messenger.contains(id);
            // What a session tells itself comes also from a pooler that delivers nothing.
            if is_own && from != connection.session.pid() {
                canary.pooled.insert(*id);
            } else {
                match connection.session.canary_arrival() {
                    Some(CanaryArrival::Unprompted) if !is_own => {
                        canary.held_back.remove(id);
                        if by == *id {
                            canary.self_sending.insert(*id);
                        }
                    }
                    // Chance, unless it happens again.
                    Some(CanaryArrival::WithAnswer) if !is_own && !canary.held_back.insert(*id) => {
                        held_back_since = Some(sent);
                    }
                    _ => {}
                }
                connection.prove_delivery(sent);
                canary.relapsed.remove(id);
                let micros = clock::now().saturating_duration_since(sent).as_micros();
                self.shared.counters.canary_micros.set(usize::try_from(micros).unwrap_or(usize::MAX));
            }
        }
        if connection.session.canary_database().is_some() {
            canary.rounds.join(*id, &home(*id, connection), self.now, &mut self.jitter);
        }
        if let Some(error) = refusal {
            let id = *id;
            self.report_refusal(id, Check::Canary, error);
        }
        if let Some(sent) = held_back_since {
            self.shared.counters.deaf.add(1);
            let after = clock::now().saturating_duration_since(sent);
            self.close_for(token, Error::HeldBack { after });
        }
    }

    /// Prepares a question to a session with an empty socket, which shows whether a proxy holds the canary back until the
    /// answer.
    pub(super) fn prompt_canary(&mut self, token: u32) {
        let time = self.delivery_time();
        if let Some(canary) = &self.canary
            && let Some(Member { id, life: Life::Good(connection), .. }) = self.members.get_mut(token)
            && canary.rounds.is_flying_for(time, *id, clock::now())
        {
            connection.session.begin_canary_audit();
        }
    }

    /// Returns the time that a server has to deliver a canary before a heartbeat or an audit counts that seems to have
    /// released it: as long as possible, since a busy server may be late, but short enough that some of them count.
    fn delivery_time(&self) -> Duration {
        let deadline = self.canary.as_ref().map_or(Duration::ZERO, |canary| canary.rounds.pace.deadline);
        let heartbeat = self.heartbeat.map_or(Duration::MAX, |heartbeat| heartbeat.idle);
        let audit = self.audit.as_ref().map_or(Duration::MAX, |audit| audit.period);
        (deadline / 2).min(heartbeat.min(audit) / 4)
    }

    /// Sends the canaries that are due, and asks those who haven't heard theirs.
    pub(super) fn fire_canaries(&mut self) {
        while let Some(due) = self.canary.as_mut().and_then(|canary| canary.rounds.due(self.now)) {
            match due {
                Due::Send(database) => self.send_canary(&database),
                Due::Ask(database, payload) => self.ask_why_not(&database, &payload),
            }
        }
    }

    fn send_canary(&mut self, database: &Arc<str>) {
        let Some(canary) = &mut self.canary else { return };
        let payload = canary.next_payload();
        let (mut sender, mut members) = (None, 0);
        for id in canary.rounds.members(database) {
            let Some(token) = self.members.token(id) else { continue };
            let Some(Member { life: Life::Good(connection), .. }) = self.members.get_mut(token) else { continue };
            members += 1;
            connection.session.expect_canary(&payload);
            if sender.is_none() && connection.session.is_canary_missing(&payload) {
                sender = connection.session.canary_channel().map(|channel| (id, token, channel.to_owned()));
            }
        }
        let Some((id, token, channel)) = sender else { return canary.rounds.not_sent(database, self.now) };
        canary.rounds.sent(database, id, &payload, clock::now());
        let ask = Request::Notify(sql::notify_many([(channel.as_str(), payload.as_str())]));
        // A canary that a session sends to itself arrives with the answer, and does not prove delivery to an idle
        // session.
        if members == 1 && (canary.pooled.contains(&id) || !canary.self_sending.contains(&id)) {
            canary.by_messenger.insert(id);
            if let Some(Member { life: Life::Good(connection), .. }) = self.members.get_mut(token) {
                let dead = Dead::of(connection);
                self.send_messenger(id, dead, ask);
            }
        } else {
            canary.by_messenger.remove(&id);
            self.ask_for_us(token, ask, RequestOrigin::Canary);
        }
    }

    /// The server has committed a canary, or refused it.
    pub(super) fn canary_sent(&mut self, id: ConnId, result: Result<(), Error>) {
        let Some(canary) = &mut self.canary else { return };
        match result {
            Ok(()) => canary.rounds.committed(id, clock::now()),
            Err(error) => {
                log::no_canary(id, &error);
                canary.rounds.refused(id, clock::now());
                let by_messenger = canary.by_messenger.contains(&id);
                if by_messenger && !canary.pooled.contains(&id) {
                    canary.self_sending.insert(id);
                } else if !(by_messenger && error.is_transient()) {
                    self.report_refusal(id, Check::Canary, error);
                }
            }
        }
    }

    /// The deadline is over. Who has heard nothing is asked what its server knows.
    fn ask_why_not(&mut self, database: &str, payload: &str) {
        let Some(canary) = &self.canary else { return };
        let members: Vec<_> = canary.rounds.members(database).collect();
        for id in members {
            let Some(token) = self.members.token(id) else { continue };
            let Some(Member { life: Life::Good(connection), .. }) = self.members.get_mut(token) else { continue };
            if !connection.session.is_canary_missing(payload) || !connection.session.is_quiet() {
                continue;
            }
            // The canary may have arrived without a slow loop having read it.
            let was_idle = connection.receive_some(&mut self.buffer, self.now).is_none();
            self.queue(token);
            if self.connection_misses(token, payload) {
                if was_idle && let Some(Member { life: Life::Good(connection), .. }) = self.members.get_mut(token) {
                    connection.session.begin_canary_audit();
                }
                let missed = Some(MissedCanary(payload.into()));
                self.ask_for_us(token, Request::Audit, RequestOrigin::Audit(clock::now(), missed));
            }
        }
    }

    /// Returns `true` if the connection is open and has not received this canary.
    fn connection_misses(&self, token: u32, payload: &str) -> bool {
        let member = self.members.get(token).map(|member| &member.life);
        matches!(member, Some(Life::Good(connection)) if connection.session.is_canary_missing(payload) && connection.session.is_quiet())
    }

    /// Who missed this canary has answered, and so has told everything that it had to tell before; perhaps that it didn't
    /// listen, which is no fault for once.
    pub(super) fn judge(&mut self, token: u32, canary: &MissedCanary, lapsed: bool) {
        let MissedCanary(payload) = canary;
        let Some(Member { id, life: Life::Good(connection), .. }) = self.members.get_mut(token) else { return };
        let Some(canary) = &mut self.canary else { return };
        let missed = connection.session.is_canary_missing(payload);
        connection.session.stop_expecting_canary();
        if (lapsed && !canary.relapsed.insert(*id)) || (missed && !lapsed) {
            let sent = canary.rounds.last_sent(*id).map_or(self.now, |(at, _)| at);
            let after = clock::now().saturating_duration_since(sent);
            self.shared.counters.deaf.add(1);
            self.close_for(token, Error::NotDelivering { after });
        }
    }

    /// Reports, once for each session, that the server refuses a check of delivery.
    pub(super) fn report_refusal(&mut self, id: ConnId, check: Check, error: Error) {
        let is_open = self.get(id).is_some_and(|connection| !connection.is_closed());
        if is_open && self.refused_checks.insert((id, check)) {
            log::check_refused(id, check, &error);
            self.shared.counters.checks_refused.add(1);
            self.collected.push_back(Event::CheckRefused(id, check, error));
        }
    }
}

/// Where a connection belongs: those that are certainly connected to the same database hear the same canaries. Who can't
/// be told apart from others has its own.
fn home(id: ConnId, connection: &Connection) -> String {
    let database = connection.session.canary_database().filter(|database| !database.is_empty());
    match (database, connection.peer(), connection.session.canary_channel()) {
        (Some(database), Some(peer), Some(channel)) => format!("{peer} {database} {channel}"),
        _ => format!("connection {id}"),
    }
}
