//! One database: its subscriptions, its session, and how far the session's channels follow the subscriptions.
//!
//! ```text
//!   registry: wanted ──┬─▶ requested ──▶ acknowledged: tickets resolve, subscribers get their reports
//!                      │        ▲  └─ refused: reverted
//!                      └────────┴── session lost and restored: compared again
//! ```
//!
//! A database sends nothing itself: it returns what must be requested, and is given the replies. All of that happens
//! under one lock, so requests are made in the order of the changes.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::config::Config;
use crate::error::{Error, ValueError};
use crate::gap::Gap;
use crate::manager::ConnId;
use crate::notifier::counters::held_work;
use crate::notifier::deferred::steps::{ChannelSteps, ReceiverChange, STEP, StepWork};
use crate::notifier::deferred::{AckGroup, AckWaiter, DeferredActions, Undo};
use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::observer::ReceptionChange;
use crate::notifier::subscription::{Reception, Subscription, SubscriptionContext};
use crate::notifier::subscriptions::Subscriptions;
use crate::proto::sql::{self, Limits};

/// The channel that every session listens to for the notifier itself. It carries the canary, if there is one.
pub(crate) const SYSTEM_CHANNEL: &str = "PGNOTIFIER";

pub(crate) struct Database<I: 'static> {
    /// The index among the databases of the notifier.
    at: usize,
    pub(crate) config: Config,
    pub(crate) session: DatabaseSession,
    /// `true` if the session has been open since the start.
    pub(crate) was_open: bool,
    pub(crate) subscriptions: Subscriptions<I>,
    /// The channels that the session should listen to, as far as the changes have been applied.
    channel_states: HashMap<Box<str>, ChannelState<I>>,
    last_generation: u32,
    /// The limits of names, as the last session reported them.
    limits: Limits,
    /// The channels that an external source carries.
    carried: BTreeSet<Box<str>>,
}

#[derive(Debug)]
pub(crate) enum DatabaseSession {
    None,
    /// The session will be opened; it has an id once the manager dials.
    Opening(Option<ConnId>),
    Open(ConnId),
    /// The session is lost, and being restored.
    Away(ConnId),
    /// The session is lost for good.
    Lost(Error),
}

impl DatabaseSession {
    pub(crate) fn id(&self) -> Option<ConnId> {
        match self {
            DatabaseSession::Opening(id) => *id,
            DatabaseSession::Open(id) | DatabaseSession::Away(id) => Some(*id),
            DatabaseSession::None | DatabaseSession::Lost(_) => None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self, DatabaseSession::Open(_))
    }
}

/// Progress of the session towards listening to one channel.
struct ChannelState<I: 'static> {
    /// Distinguishes a reply from one to an earlier LISTEN of the same channel. Stays the same while a session is restored.
    generation: u32,
    status: ListenStatus,
    /// `true` if the subscribers have been informed of a disconnect, and of nothing since.
    is_away: bool,
    waiters: Vec<AckWaiter<I>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListenStatus {
    NotRequested,
    Requested,
    Acknowledged,
}

/// The requests that make the session listen to the wanted channels.
#[derive(Debug, Default)]
pub(crate) struct ListenDiff {
    /// Channels, each with the generation of its state.
    pub(crate) listen: Vec<(Box<str>, u32)>,
    pub(crate) unlisten: Vec<Box<str>>,
}

impl<I: 'static> ChannelState<I> {
    fn is_acknowledged(&self) -> bool {
        self.status == ListenStatus::Acknowledged
    }
}

impl<I: Clone + Eq + Hash + 'static> Database<I> {
    pub(crate) fn new(at: usize, config: Config, context: &Arc<SubscriptionContext>) -> Self {
        Self {
            at,
            config,
            session: DatabaseSession::None,
            was_open: false,
            subscriptions: Subscriptions::new(context),
            channel_states: HashMap::new(),
            last_generation: 0,
            // The stricter limits until a session reports its own: a name that is too long would prevent its opening.
            limits: Limits::Exact,
            carried: BTreeSet::new(),
        }
    }

    /// Checks that a channel can be subscribed to.
    pub(crate) fn check_channel(&self, channel: &str) -> Result<(), Error> {
        if channel == SYSTEM_CHANNEL {
            let message = format!(
                "cannot subscribe to channel {SYSTEM_CHANNEL}: it is reserved for the notifier; use another name"
            );
            return Err(ValueError { message }.into());
        }
        sql::check_channel(channel, self.limits)
    }

    /// Adds a subscription, or replaces the one that its id has for the channel. Returns how to revert that.
    pub(crate) fn subscribe(
        &mut self,
        id: &I,
        subscription: Arc<Subscription<I>>,
        actions: &mut DeferredActions<I>,
    ) -> Undo<I> {
        let replaced = self.subscriptions.subscribe(id, &subscription);
        self.refresh(subscription.channel().name(), Some(id), actions);
        Undo::Subscribed(subscription, replaced)
    }

    /// Applies mutes to the subscriptions of a channel, or to that of one subscriber.
    pub(crate) fn refresh(&self, channel: &str, only: Option<&I>, actions: &mut DeferredActions<I>) {
        match only {
            Some(id) => self.subscriptions.refresh(id, channel, self.listening(channel), actions),
            None => self.change_receivers(channel, ReceiverChange::Refresh, actions),
        }
    }

    /// Removes a channel with its subscriptions.
    pub(crate) fn remove(&mut self, channel: &str, actions: &mut DeferredActions<I>) -> Result<(), Error> {
        if !self.subscriptions.remove_some(channel)? {
            actions.add_steps(ChannelSteps { at: self.at, channel: channel.into(), work: StepWork::Remove });
        }
        Ok(())
    }

    /// Reverts a change, unless another one has followed it.
    pub(crate) fn undo(&mut self, channel: &str, undo: Undo<I>, actions: &mut DeferredActions<I>) {
        let listening = self.listening(channel);
        self.subscriptions.undo(channel, undo, listening, actions);
    }

    /// Returns the generation of a request for a channel.
    #[cfg(test)]
    pub(crate) fn generation(&self, channel: &str) -> u32 {
        self.channel_states[channel].generation
    }

    /// Returns the generation of the LISTEN of a channel, once the server has acknowledged it.
    fn listening(&self, channel: &str) -> Option<u32> {
        self.channel_states.get(channel).filter(|state| state.is_acknowledged()).map(|state| state.generation)
    }

    /// Returns the requests that make the session listen to the wanted channels.
    pub(crate) fn sync(&mut self, actions: &mut DeferredActions<I>) -> ListenDiff {
        let mut diff = ListenDiff::default();
        let (can_request, is_open) = (self.session.id().is_some(), self.session.is_open());
        for channel in self.subscriptions.registry.take_changed() {
            match (self.subscriptions.registry.is_wanted(&channel), self.channel_states.get_mut(&channel)) {
                (true, None) => {
                    let status = if can_request { ListenStatus::Requested } else { ListenStatus::NotRequested };
                    let generation = self.add_channel_state(channel.clone(), status);
                    diff.listen.push((channel, generation));
                }
                // The channel was refused, perhaps only because of another one in the same request.
                (true, Some(state)) if is_open && state.status == ListenStatus::NotRequested => {
                    state.status = ListenStatus::Requested;
                    diff.listen.push((channel, state.generation));
                }
                (false, Some(_)) => {
                    // Tickets that wait for the channel resolve: a later change has overtaken theirs.
                    let waiters = self.channel_states.remove(&channel).map(|state| state.waiters);
                    actions.complete(waiters.unwrap_or_default(), Ok(()));
                    self.inform_observers(Some(&channel), ReceptionChange::Silenced);
                    diff.unlisten.push(channel);
                }
                _ => {}
            }
        }
        if can_request { diff } else { ListenDiff::default() }
    }

    fn add_channel_state(&mut self, channel: Box<str>, status: ListenStatus) -> u32 {
        self.last_generation = self.last_generation.wrapping_add(1);
        let generation = self.last_generation;
        self.channel_states.insert(channel, ChannelState { generation, status, is_away: false, waiters: Vec::new() });
        generation
    }

    /// Adds a channel to the acknowledgements that a group waits for, if it is wanted and not acknowledged yet.
    pub(crate) fn wait_for(&mut self, channel: &str, group: &Arc<AckGroup>, undo: Option<Undo<I>>) {
        if let Some(state) = self.channel_states.get_mut(channel).filter(|state| !state.is_acknowledged()) {
            group.add();
            state.waiters.push(AckWaiter { group: Arc::clone(group), undo });
        }
    }

    /// Returns the channels that the server has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> Vec<Box<str>> {
        let states = self.channel_states.iter().filter(|(_, state)| !state.is_acknowledged());
        states.map(|(channel, _)| channel.clone()).collect()
    }

    /// Returns the number of channels that the server has acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.channel_states.values().filter(|state| state.is_acknowledged()).count()
    }

    /// Handles the reply to a LISTEN. Changes that the server refused are reverted; other failures end the session, and
    /// the channels are requested again once it is restored.
    pub(crate) fn handle_reply(
        &mut self,
        channels: Vec<(Box<str>, u32)>,
        reply: &Result<(), Error>,
        actions: &mut DeferredActions<I>,
    ) {
        let is_open = self.session.is_open();
        for (channel, generation) in channels {
            let state = self.channel_states.get_mut(&channel).filter(|state| state.generation == generation);
            let Some(state) = state else { continue };
            state.status = ListenStatus::NotRequested;
            match reply {
                Ok(()) if is_open => self.acknowledge(&channel, actions),
                // The event that the session is open follows, and its gap must be reported first.
                Ok(()) => {}
                Err(error) if is_refusal(error) => {
                    state.is_away = false;
                    let waiters = std::mem::take(&mut state.waiters);
                    self.fail_waiters(channel, waiters, error, actions);
                }
                Err(_) => {}
            }
        }
    }

    fn fail_waiters(
        &self,
        channel: Box<str>,
        waiters: Vec<AckWaiter<I>>,
        error: &Error,
        actions: &mut DeferredActions<I>,
    ) {
        if !waiters.is_empty() {
            let work = StepWork::Fail(waiters.into_iter(), error.clone());
            actions.add_steps(ChannelSteps { at: self.at, channel, work });
        }
    }

    fn acknowledge(&mut self, channel: &str, actions: &mut DeferredActions<I>) {
        let Some(state) = self.channel_states.get_mut(channel) else { return };
        (state.status, state.is_away) = (ListenStatus::Acknowledged, false);
        actions.complete(std::mem::take(&mut state.waiters), Ok(()));
        self.change_receivers(channel, ReceiverChange::Refresh, actions);
    }

    /// Begins a session. Returns the channels that it must listen to, with the notifier's own unless that is the canary's.
    /// If the start does not wait for the session, its opening is reported to subscribers.
    pub(crate) fn begin_session(
        &mut self,
        own_channel: Option<&str>,
        is_waited_for: bool,
        actions: &mut DeferredActions<I>,
    ) -> Vec<Box<str>> {
        self.subscriptions.registry.take_changed();
        self.channel_states.clear();
        let wanted: Vec<Box<str>> = self.subscriptions.registry.wanted().map(Into::into).collect();
        for channel in &wanted {
            self.add_channel_state(channel.clone(), ListenStatus::NotRequested);
        }
        for channel in wanted.iter().filter(|_| !is_waited_for) {
            self.change_receivers(channel, ReceiverChange::Open, actions);
        }
        (self.session, self.was_open) = (DatabaseSession::Opening(None), false);
        wanted.into_iter().chain(own_channel.map(Into::into)).collect()
    }

    /// Handles the opening of a session that listens to `channels`. Returns what must still be requested.
    pub(crate) fn handle_open(
        &mut self,
        id: ConnId,
        channels: &BTreeSet<&str>,
        limits: Limits,
        actions: &mut DeferredActions<I>,
    ) -> ListenDiff {
        (self.session, self.was_open) = (DatabaseSession::Open(id), true);
        self.limits = limits;
        let mut diff = ListenDiff::default();
        let wanted: Vec<_> = self.channel_states.keys().cloned().collect();
        for channel in wanted {
            let state = self.channel_states.get_mut(&channel).filter(|state| state.status != ListenStatus::Requested);
            let Some(state) = state else { continue };
            if channels.contains(&*channel) {
                self.acknowledge(&channel, actions);
            } else {
                state.status = ListenStatus::Requested;
                diff.listen.push((channel, state.generation));
            }
        }
        let is_unwanted = |channel: &&&str| **channel != SYSTEM_CHANNEL && !self.channel_states.contains_key(**channel);
        diff.unlisten = channels.iter().filter(is_unwanted).map(|channel| (*channel).into()).collect();
        diff
    }

    /// Records that the session is lost and is being restored, and reports that to subscribers.
    pub(crate) fn handle_disconnect(&mut self, id: ConnId, error: &Error, actions: &mut DeferredActions<I>) {
        self.session = DatabaseSession::Away(id);
        self.inform_observers(None, ReceptionChange::Disconnected);
        for (channel, state) in self.channel_states.iter_mut().filter(|(_, state)| state.is_acknowledged()) {
            (state.status, state.is_away) = (ListenStatus::NotRequested, true);
            let report = ReceiverChange::Report(Reason::Disconnected(error.clone()));
            self.subscriptions.change_receivers(self.at, channel, report, actions);
        }
    }

    /// Reports a gap to the subscribers of its channels, and its end to those of other channels that are listened to again.
    pub(crate) fn report_gap(&self, gap: &Gap, channels: &BTreeSet<&str>, actions: &mut DeferredActions<I>) {
        for channel in gap.channels() {
            if self.session.is_open() && !matches!(gap.cause(), Error::Unregistered) {
                // No disconnect came before. Everything is forgotten once the channel is acknowledged again.
                self.inform_observers(Some(channel), ReceptionChange::Disconnected);
            }
            self.change_receivers(channel, ReceiverChange::Report(Reason::Restored(gap.clone())), actions);
        }
        let affected: BTreeSet<&str> = gap.channels().iter().map(AsRef::as_ref).collect();
        let away = self.channel_states.iter().filter(|(_, state)| state.is_away).map(|(channel, _)| &**channel);
        for channel in away.filter(|channel| channels.contains(channel) && !affected.contains(channel)) {
            self.inform_observers(Some(channel), ReceptionChange::Resumed);
            self.change_receivers(channel, ReceiverChange::Report(Reason::Resumed(gap.clone())), actions);
        }
    }

    /// Handles the opening of a connection of an external source, which carries these channels.
    pub(crate) fn set_carried(&mut self, channels: &BTreeSet<&str>) {
        self.carried = channels.iter().map(|channel| (*channel).into()).collect();
    }

    /// Returns the error for the first wanted channel that a connection of an external source does not carry.
    pub(crate) fn check_carried(&self, channels: &BTreeSet<&str>) -> Result<(), Error> {
        let mut wanted: Vec<&str> = self.channel_states.keys().map(AsRef::as_ref).collect();
        wanted.sort_unstable();
        match wanted.into_iter().find(|channel| !channels.contains(channel)) {
            Some(channel) => Err(Error::NotRelayed { channel: channel.into() }),
            None => Ok(()),
        }
    }

    /// Answers a LISTEN to a channel in the place of an external source.
    pub(crate) fn answer(&mut self, channel: (Box<str>, u32), actions: &mut DeferredActions<I>) {
        let name = channel.0.clone();
        // Until the connection is open, it is not known.
        let is_refused = self.session.is_open() && !self.carried.contains(&name);
        let reply = if is_refused { Err(Error::NotRelayed { channel: name.clone() }) } else { Ok(()) };
        self.handle_reply(vec![channel], &reply, actions);
        if let Err(error) = reply {
            self.inform_observers(Some(&name), ReceptionChange::Silenced);
            self.change_receivers(&name, ReceiverChange::Lose(error), actions);
        }
    }

    /// Handles channels that an external source does not carry any more.
    pub(crate) fn handle_unlisten(&mut self, channels: &[Box<str>], actions: &mut DeferredActions<I>) {
        for channel in channels {
            self.carried.remove(channel);
            let Some(state) = self.channel_states.get_mut(channel) else { continue };
            (state.status, state.is_away) = (ListenStatus::NotRequested, false);
            self.inform_observers(Some(channel), ReceptionChange::Silenced);
            let error = Error::NotRelayed { channel: channel.clone() };
            self.change_receivers(channel, ReceiverChange::Lose(error), actions);
        }
    }

    /// Records that the session is lost for good, and reports that to subscribers.
    pub(crate) fn handle_final_loss(&mut self, error: &Error, actions: &mut DeferredActions<I>) {
        self.session = DatabaseSession::Lost(error.clone());
        self.inform_observers(None, ReceptionChange::Silenced);
        for (channel, state) in std::mem::take(&mut self.channel_states) {
            self.fail_waiters(channel.clone(), state.waiters, error, actions);
            self.change_receivers(&channel, ReceiverChange::Lose(error.clone()), actions);
        }
    }

    /// Ends the session because the notifier stops. Outstanding tickets resolve to [`Error::Stopped`].
    pub(crate) fn end_session(&mut self, actions: &mut DeferredActions<I>) {
        self.session = DatabaseSession::None;
        self.inform_observers(None, ReceptionChange::Silenced);
        for state in std::mem::take(&mut self.channel_states).into_values() {
            actions.complete(state.waiters, Err(Error::Stopped));
        }
    }

    /// Discards what waits for all subscriptions, after [`end_session`](Self::end_session) and the end of all threads.
    pub(crate) fn stop_receivers(&mut self, actions: &mut DeferredActions<I>) {
        for channel in self.subscriptions.channels.all() {
            self.change_receivers(channel.name(), ReceiverChange::Stop, actions);
        }
    }

    /// Does the next step. Returns `true` if it was the last one.
    pub(crate) fn step(&mut self, steps: &mut ChannelSteps<I>, actions: &mut DeferredActions<I>) -> bool {
        let channel = &*steps.channel;
        match &mut steps.work {
            StepWork::Change(receivers, change) => {
                let Some(chunk) = receivers.next() else {
                    if let ReceiverChange::Stop = change {
                        self.subscriptions.clear_log(channel);
                    }
                    return true;
                };
                for subscription in chunk {
                    held_work::count();
                    match change {
                        // Without code of the id, which may have caused the stop by a panic.
                        ReceiverChange::Stop => self.subscriptions.stop(&subscription.current()),
                        _ => subscription.with_id(|id| self.change_receiver(id, channel, change, actions)),
                    }
                }
                false
            }
            // Only an unknown channel fails, and then another call has removed it.
            StepWork::Remove => self.subscriptions.remove_some(channel).unwrap_or(true),
            StepWork::Fail(waiters, error) => {
                for mut waiter in waiters.take(STEP) {
                    if let Some(undo) = waiter.undo.take() {
                        self.undo(channel, undo, actions);
                    }
                    actions.complete(vec![waiter], Err(error.clone()));
                }
                waiters.len() == 0
            }
        }
    }

    /// Changes a subscription, if it still exists. Another one may have replaced it, or mutes may have changed.
    fn change_receiver(&self, id: &I, channel: &str, change: &ReceiverChange, actions: &mut DeferredActions<I>) {
        let registry = &self.subscriptions.registry;
        let Some(entry) = registry.get(id, channel) else { return };
        let (subscription, reception): (&Arc<Subscription<I>>, _) = (entry.value, entry.value.reception());
        let is_muted = || entry.is_muted || registry.is_muted(channel);
        match change {
            ReceiverChange::Refresh => self.refresh(channel, Some(id), actions),
            ReceiverChange::Stop => {}
            ReceiverChange::Open => {
                if reception == Reception::Never && !is_muted() {
                    subscription.set_reception(Reception::Opening);
                }
            }
            ReceiverChange::Report(reason) => {
                if reception == Reception::Receiving && !is_muted() {
                    actions.report(subscription, MissedReport::new(reason.clone(), 0));
                }
            }
            ReceiverChange::Lose(error) => {
                // This includes subscriptions for which a report of the restart is still due.
                let is_reported =
                    matches!(reception, Reception::Receiving | Reception::Opening | Reception::Stopped) && !is_muted();
                if is_reported {
                    subscription.set_reception(Reception::Stopped);
                    actions.report(subscription, MissedReport::new(Reason::Lost(error.clone()), 0));
                }
            }
        }
    }

    /// Informs the observers of all subscriptions, or those of one channel: immediately, and not in steps.
    fn inform_observers(&self, channel: Option<&str>, change: ReceptionChange) {
        self.subscriptions.observed(channel).for_each(|subscription| subscription.inform_observer(change));
    }

    /// Changes the subscriptions of a channel, in steps.
    fn change_receivers(&self, channel: &str, change: ReceiverChange, actions: &mut DeferredActions<I>) {
        self.subscriptions.change_receivers(self.at, channel, change, actions);
    }
}

/// Returns `true` if the server or a check by the client refused the request. All other errors end the session.
fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Value(_) | Error::NotRelayed { .. } => true,
        Error::Server(error) => error.severity() == "ERROR",
        _ => false,
    }
}
