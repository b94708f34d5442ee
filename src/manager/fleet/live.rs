//! A live connection: what happens when its stream is ready, and what is requested on it.

use std::collections::BTreeSet;
use std::fmt::DebugStruct;
use std::time::{Duration, Instant};

use super::canary::{CanaryOutcome, CanaryRecord, MissedCanary, note_prompt};
use super::heartbeat::{HeartbeatAction, HeartbeatInput, HeartbeatState};
use super::log;
use super::metered::ConnectionCount;
use super::timers::Timer;
use super::turn::Turn;
use super::unsettled::{LIMIT, OpenTransaction, RequestOrigin, Unsettled, cancel_timeout};
use crate::connection::{Link, Linked};
use crate::error::Error;
use crate::manager::dead::{Dead, unregistered_since};
use crate::manager::event::{Check, Event};
use crate::proto::{CHANNELS_PER_REQUEST, CanaryProbe, Request, RequestId, TransactionStatus};

/// The longest time that a transaction may be open before it is reported.
const TRANSACTION_MAX: Duration = Duration::from_secs(1);

/// The way in which a connection is served.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServeMode {
    /// `true` if the stream is read.
    pub(super) reads: bool,
    /// `true` if a gap is an event of its own, and `false` if it is part of the batch.
    pub(super) has_gap_events: bool,
    /// `true` in a pass of a zero timeout.
    pub(super) is_pass: bool,
}

/// A connection that is open and listens.
pub(super) struct Live<C> {
    pub(super) connection: C,
    /// Kept apart, since most connections are idle and have none.
    extras: Option<Box<Extras>>,
}

/// The state of a connection on which something is outstanding, or about which its checks have found something.
#[derive(Debug, Default)]
struct Extras {
    unsettled: Unsettled,
    heartbeat: HeartbeatState,
    canary: CanaryRecord,
    /// The checks whose refusal has been reported.
    refused: BTreeSet<Check>,
    /// `true` if the gap has been reported, and the notifications behind it have not.
    is_batch_due: bool,
}

impl Extras {
    fn is_empty(&self) -> bool {
        !self.is_batch_due
            && self.unsettled.is_empty()
            && self.heartbeat == HeartbeatState::default()
            && self.canary == CanaryRecord::default()
            && self.refused.is_empty()
    }
}

impl<C: Linked> Live<C> {
    pub(super) fn new(mut connection: C) -> Self {
        connection.link_mut().track_unlistens();
        Self { connection, extras: None }
    }

    /// Starts the heartbeat, if there is one and it has not been started.
    pub(super) fn start_heartbeat(&mut self, turn: &mut Turn<'_, C::Stream>) {
        if let Some(heartbeat) = turn.services.heartbeat
            && !turn.schedule.timers.has_heartbeat()
        {
            turn.schedule.is_heartbeat_due = false;
            let first = heartbeat.first(turn.now(), &mut turn.services.jitter);
            turn.set_timer(Timer::Heartbeat, first);
        }
    }

    /// Limits the time of a request that is in flight, and whose reply nothing awaits any more: while it is unanswered, the
    /// heartbeat asks for nothing.
    pub(super) fn settle_earlier_request(&mut self, turn: &mut Turn<'_, C::Stream>) {
        if !self.link().is_settled() {
            self.request(turn, Request::Sync, RequestOrigin::Settle, 0);
        }
    }

    /// Listens to the canary's channel, if there is a canary.
    pub(super) fn join_canary(&mut self, turn: &mut Turn<'_, C::Stream>) {
        if let Some(canaries) = &turn.services.canary
            && let Some(request) = self.link_mut().join_canary(&canaries.channel)
        {
            let timeout = self.link().call_timeout().unwrap_or(LIMIT);
            self.await_reply(turn, request, RequestOrigin::JoinCanary, Some(timeout));
        }
    }

    pub(super) fn link(&self) -> &Link<C::Stream> {
        self.connection.link()
    }

    pub(super) fn link_mut(&mut self) -> &mut Link<C::Stream> {
        self.connection.link_mut()
    }

    /// Adds the state to a description.
    pub(super) fn describe(&self, entry: &mut DebugStruct<'_, '_>) {
        self.link().describe(entry);
        if let Some(extras) = self.extras.as_ref().filter(|extras| !extras.unsettled.is_empty()) {
            entry.field("outstanding", &extras.unsettled);
        }
    }

    /// Returns `true` if a request, a CancelRequest or a transaction is outstanding.
    pub(super) fn is_unsettled(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| !extras.unsettled.is_empty())
    }

    fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    // ---- serving ----------------------------------------------------------------------------------------------------

    /// Reads once, and returns what there is to report.
    pub(super) fn on_ready(&mut self, turn: &mut Turn<'_, C::Stream>, mode: ServeMode) -> Option<Event> {
        let is_batch_due = self.extras.as_mut().is_some_and(|extras| std::mem::take(&mut extras.is_batch_due));
        let link = self.connection.link_mut();
        let mut may_have_more = false;
        if !mode.reads {
            // The loop's body may have changed the connection: its notifications are taken without a read.
        } else if !link.is_closed() && turn.services.ready.defer_drained(turn.token, turn.schedule) {
            link.flush();
            if !is_batch_due {
                return None;
            }
        } else {
            let pumped = link.pump(turn.read_context());
            may_have_more = pumped.may_have_more;
            turn.services.counters.bytes.add(pumped.bytes);
            turn.services.meters.add(turn.id, ConnectionCount::Bytes, pumped.bytes);
            if mode.is_pass {
                turn.services.ready.note_read(turn.token, turn.schedule, pumped.bytes, may_have_more);
            }
        }
        turn.report_unlistened(link);
        if mode.has_gap_events
            && let Some(gap) = link.take_gap(turn.now())
        {
            turn.services.count_gaps(turn.id, 1);
            // The notifications behind the gap are reported before anything else.
            match mode.reads {
                true => turn.queue_first(),
                false => turn.services.ready.mark_dirty(turn.token, turn.schedule),
            }
            self.extras_mut().is_batch_due = true;
            return Some(Event::Restored(turn.id, gap));
        }
        let batch = link.take_batch(turn.now());
        if !link.is_closed() {
            if may_have_more {
                turn.queue();
            }
            self.after_read(turn, may_have_more);
        }
        let batch = batch?;
        turn.services.count_notifications(turn.id, batch.len());
        turn.services.count_gaps(turn.id, usize::from(batch.gap().is_some()));
        Some(Event::Notifies(turn.id, batch))
    }

    /// Handles what a read has brought besides notifications. For an idle connection, this costs a few comparisons.
    #[inline]
    fn after_read(&mut self, turn: &mut Turn<'_, C::Stream>, may_have_more: bool) {
        if self.extras.is_some() {
            self.complete_requests(turn, may_have_more);
        }
        if self.link().probe().is_some_and(|probe| probe.has_event) {
            self.on_canary_event(turn);
        }
        if std::mem::take(&mut turn.schedule.is_heartbeat_due) {
            self.check_heartbeat(turn);
        }
        self.after_change(turn);
    }

    /// Brings the rest of the fleet up to date with the connection, after anything has happened to it.
    #[inline]
    pub(super) fn after_change(&mut self, turn: &mut Turn<'_, C::Stream>) {
        let link = self.connection.link_mut();
        if link.is_closed() {
            return turn.queue_first();
        }
        link.share(&mut turn.services.interner);
        if let Err(error) = turn.rewatch(link.stream(), link.wants_write()) {
            link.close_for(error);
            return turn.queue_first();
        }
        let is_open = link.transaction_status() != TransactionStatus::Idle;
        if is_open || self.extras.is_some() {
            self.watch_transaction(turn, is_open);
            self.extras.take_if(|extras| extras.is_empty());
        }
    }

    /// Reports a transaction that stays open, once.
    fn watch_transaction(&mut self, turn: &mut Turn<'_, C::Stream>, is_open: bool) {
        if !is_open || self.link_mut().take_new_transaction() {
            self.forget_transaction(turn);
        }
        if !is_open {
            return;
        }
        let now = turn.now();
        let transaction = &mut self.extras_mut().unsettled.transaction;
        let OpenTransaction::Since(since) = *transaction.get_or_insert(OpenTransaction::Since(now)) else { return };
        if now.saturating_duration_since(since) < TRANSACTION_MAX {
            return turn.set_timer(Timer::Transaction, since.checked_add(TRANSACTION_MAX));
        }
        *transaction = Some(OpenTransaction::Reported);
        log::in_transaction(turn.id, self.link().config());
        turn.services.events.push_back(Event::InTransaction(turn.id));
        turn.services.count_transactions(1);
    }

    fn forget_transaction(&mut self, turn: &mut Turn<'_, C::Stream>) {
        let Some(extras) = &mut self.extras else { return };
        if let Some(OpenTransaction::Reported) = extras.unsettled.transaction.take() {
            turn.services.count_transactions(-1);
        }
    }

    /// Handles the timer of the heartbeat, after the stream has been read.
    fn check_heartbeat(&mut self, turn: &mut Turn<'_, C::Stream>) {
        let Some(heartbeat) = turn.services.heartbeat else { return };
        let link = self.connection.link_mut();
        if link.is_closed() {
            return;
        }
        let input = HeartbeatInput {
            number: turn.id.number(),
            last_read: link.last_read(),
            is_settled: link.is_settled(),
            awaits_prompt_answer: link.awaits_immediate_answer(),
        };
        let mut state = self.extras.as_ref().map_or_else(HeartbeatState::default, |extras| extras.heartbeat);
        let action = state.on_timer(&heartbeat, input, turn.now());
        if self.extras.is_some() || state != HeartbeatState::default() {
            self.extras.get_or_insert_default().heartbeat = state;
        }
        match action {
            HeartbeatAction::Wait(next) => turn.set_timer(Timer::Heartbeat, next),
            HeartbeatAction::Ask(next) => {
                note_prompt(link, turn);
                let request = link.request(Request::Sync);
                // A server that sends but does not answer is found when it sends, so no timer is needed.
                let until = turn.now().checked_add(link.call_timeout().unwrap_or(LIMIT));
                self.extras_mut().unsettled.push(request, RequestOrigin::Heartbeat, until);
                turn.set_timer(Timer::Heartbeat, next);
            }
            HeartbeatAction::Dead => {
                let after = heartbeat.idle.saturating_add(heartbeat.deadline);
                link.close_for(Error::Timeout { action: "the answer to a heartbeat", after, closed: true });
            }
        }
    }

    // ---- requests ---------------------------------------------------------------------------------------------------

    /// Makes a request on behalf of the fleet, behind `others` that each may take the full time limit.
    pub(super) fn request(
        &mut self,
        turn: &mut Turn<'_, C::Stream>,
        request: Request,
        origin: RequestOrigin,
        others: u32,
    ) {
        let timeout = self.link().call_timeout();
        let timeout = match &origin {
            RequestOrigin::Handle(_) => timeout,
            _ => Some(timeout.unwrap_or(LIMIT).saturating_mul(others.saturating_add(1))),
        };
        let id = self.link_mut().request(request);
        self.await_reply(turn, id, origin, timeout);
    }

    /// Sets the time by which a request must be answered.
    fn await_reply(
        &mut self,
        turn: &mut Turn<'_, C::Stream>,
        request: RequestId,
        origin: RequestOrigin,
        timeout: Option<Duration>,
    ) {
        let until = timeout.and_then(|timeout| turn.now().checked_add(timeout));
        self.extras_mut().unsettled.push(request, origin, until);
        turn.set_timer(Timer::Request, until);
        // If the session has ended meanwhile, or not all could be sent, that must be handled.
        turn.queue();
    }

    /// Completes the requests that have been answered.
    pub(super) fn complete_requests(&mut self, turn: &mut Turn<'_, C::Stream>, may_have_more: bool) {
        let Some(extras) = &mut self.extras else { return };
        let answered = extras.unsettled.take_answered(self.connection.link_mut(), turn, may_have_more);
        for (origin, result) in answered {
            match origin {
                RequestOrigin::Handle(ticket) => ticket.resolve(result),
                RequestOrigin::Canary => self.on_canary_sent(turn, result.map(drop)),
                RequestOrigin::Audit(began, canary) => match result {
                    Ok(_) => self.on_audited(turn, began, canary.as_ref()),
                    Err(error) => self.report_refusal(turn, Check::Audit, error),
                },
                // The session itself handles these replies.
                RequestOrigin::Settle
                | RequestOrigin::Heartbeat
                | RequestOrigin::JoinCanary
                | RequestOrigin::Relisten => {}
            }
        }
    }

    /// Handles the end of a CancelRequest.
    pub(super) fn on_cancel_end(&mut self, turn: &mut Turn<'_, C::Stream>, is_over: bool) {
        if let Some(extras) = &mut self.extras {
            extras.unsettled.end_cancel(self.connection.link_mut(), is_over, turn.now());
        }
        self.after_change(turn);
        turn.queue();
    }

    // ---- checks of delivery -----------------------------------------------------------------------------------------

    fn on_canary_event(&mut self, turn: &mut Turn<'_, C::Stream>) {
        let CanaryOutcome { refusal, loss, received } =
            self.extras.get_or_insert_default().canary.on_event(self.connection.link_mut(), turn);
        if let Some(error) = refusal {
            self.report_refusal(turn, Check::Canary, error);
        }
        if let Some(sent) = received.filter(|_| turn.services.reports_canaries && loss.is_none()) {
            // Behind the batch of this read.
            turn.services.events.push_back(Event::CanaryReceived(turn.id, sent));
        }
        self.lose_delivery(turn, loss);
    }

    /// Handles the server's answer to a canary that was sent on behalf of the connection.
    pub(super) fn on_canary_sent(&mut self, turn: &mut Turn<'_, C::Stream>, result: Result<(), Error>) {
        if let Err(error) = &result {
            log::canary_not_sent(turn.id, self.link().config(), error);
        }
        if let Some(error) = self.extras_mut().canary.on_sent(result, turn) {
            self.report_refusal(turn, Check::Canary, error);
        }
    }

    /// Expects a canary; returns `true` if the connection can send it.
    pub(super) fn expect_canary(&mut self, payload: &str) -> bool {
        let link = self.link_mut();
        link.expect_canary(payload);
        link.probe().is_some_and(|probe| probe.is_missing(payload) && probe.channel().is_some())
    }

    /// Returns `true` if another session must send the connection's canary; `is_only` if no other connection of the
    /// fleet is connected to the database.
    pub(super) fn needs_canary_sender(&mut self, is_only: bool) -> bool {
        self.extras_mut().canary.needs_sender(is_only)
    }

    /// Audits the connection if it has not received a canary by its deadline.
    pub(super) fn audit_missed_canary(&mut self, turn: &mut Turn<'_, C::Stream>, payload: &str) {
        let is_missing =
            |link: &Link<_>| link.is_quiet() && link.probe().is_some_and(|probe| probe.is_missing(payload));
        let link = self.connection.link_mut();
        if !is_missing(link) {
            return;
        }
        // The canary may have arrived without a slow loop having read it.
        let was_idle = link.pump(turn.read_context()).bytes == 0;
        turn.queue();
        if is_missing(link) {
            if was_idle {
                link.begin_canary_audit();
            }
            let origin = RequestOrigin::Audit(turn.now(), Some(MissedCanary(payload.into())));
            self.request(turn, Request::Audit, origin, 0);
        }
    }

    /// Audits the connection if it is quiet.
    pub(super) fn audit(&mut self, turn: &mut Turn<'_, C::Stream>) {
        let link = self.connection.link_mut();
        if turn.services.canary.is_some() && link.is_quiet() {
            // With a canary, the audit also shows whether a proxy holds back notifications; so the stream must be empty.
            let was_idle = link.pump(turn.read_context()).bytes == 0;
            turn.queue();
            if was_idle && link.is_quiet() {
                note_prompt(link, turn);
            }
        }
        if link.is_quiet() {
            self.request(turn, Request::Audit, RequestOrigin::Audit(turn.now(), None), 0);
        }
    }

    /// Handles the answer to an audit that began at this time, perhaps because this canary had not arrived.
    fn on_audited(&mut self, turn: &mut Turn<'_, C::Stream>, began: Instant, canary: Option<&MissedCanary>) {
        let link = self.connection.link_mut();
        let (missed, has_lapsed) =
            (link.take_missed_channels(), link.probe_mut().is_some_and(CanaryProbe::take_lapsed));
        if missed.is_empty() {
            link.history.audit_mut().channels_proven = Some(began.into());
        } else {
            log::unregistered(turn.id, link.config(), missed.len());
            turn.services.counters.unregistered.add(missed.len());
            let since = unregistered_since(link.channels_proven(), &missed);
            link.history.audit_mut().relistening = Some(since);
            for (others, channels) in (0..).zip(missed.chunks(CHANNELS_PER_REQUEST)) {
                self.request(turn, Request::Relisten(channels.to_vec()), RequestOrigin::Relisten, others);
            }
        }
        if let Some(canary) = canary {
            let loss =
                self.extras.get_or_insert_default().canary.judge(self.connection.link_mut(), turn, canary, has_lapsed);
            self.lose_delivery(turn, loss);
        }
    }

    /// Closes a connection to which nothing is delivered.
    fn lose_delivery(&mut self, turn: &mut Turn<'_, C::Stream>, loss: Option<Error>) {
        if let Some(error) = loss {
            turn.services.counters.not_delivering.add(1);
            self.link_mut().close_for(error);
            turn.queue_first();
        }
    }

    /// Reports, once for each session, that the server refuses a check of delivery.
    fn report_refusal(&mut self, turn: &mut Turn<'_, C::Stream>, check: Check, error: Error) {
        if self.connection.link().is_closed() {
            return;
        }
        if self.extras_mut().refused.insert(check) {
            log::check_refused(turn.id, self.connection.link().config(), check, &error);
            turn.services.counters.checks_refused.add(1);
            turn.services.events.push_back(Event::CheckRefused(turn.id, check, error));
        }
    }

    // ---- the end ----------------------------------------------------------------------------------------------------

    /// Ends a session that is closed, and returns what is left of the connection.
    pub(super) fn into_dead(mut self, turn: &mut Turn<'_, C::Stream>) -> Dead {
        self.complete_requests(turn, false);
        Dead::of(self.detach(turn).link())
    }

    /// Takes the connection out of the fleet, for its user.
    pub(super) fn into_connection(self, turn: &mut Turn<'_, C::Stream>) -> C {
        let mut connection = self.detach(turn);
        connection.link_mut().release();
        connection
    }

    fn detach(mut self, turn: &mut Turn<'_, C::Stream>) -> C {
        let link = self.connection.link_mut();
        turn.report_unlistened(link);
        turn.services.ready.note_removed(turn.schedule, link.pid());
        turn.poller.deregister(link.stream());
        if let Some(canaries) = &mut turn.services.canary {
            canaries.schedule.leave(turn.id, turn.read.now);
        }
        self.forget_transaction(turn);
        if let Some(Extras { unsettled, .. }) = self.extras.take().map(|extras| *extras) {
            let link = self.connection.link_mut();
            if unsettled.is_cancelling {
                turn.ended_cancels.push(turn.id);
                if !link.is_closed() {
                    link.close_for(cancel_timeout(link));
                }
            }
            unsettled.end(link);
        }
        self.connection
    }
}
