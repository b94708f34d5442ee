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
use crate::notifier::deferred::{AckGroup, DeferredActions, Undo};
use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::subscription::{Reception, Subscription, SubscriptionContext};
use crate::notifier::subscriptions::Subscriptions;
use crate::proto::sql::{self, Limits};

/// The channel that every session listens to for the notifier itself. It carries the canary, if there is one.
pub(crate) const SYSTEM_CHANNEL: &str = "PGNOTIFIER";

pub(crate) struct Database<I: 'static> {
    pub(crate) config: Config,
    pub(crate) session: DatabaseSession,
    pub(crate) subscriptions: Subscriptions<I>,
    /// The channels that the session should listen to, as far as the changes have been applied.
    channel_states: HashMap<Box<str>, ChannelState<I>>,
    last_generation: u64,
    /// The limits of names, as the last session reported them.
    limits: Limits,
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
    /// Distinguishes a reply from one to an earlier LISTEN of the same channel.
    generation: u64,
    status: ListenStatus,
    waiters: Vec<AckWaiter<I>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListenStatus {
    NotRequested,
    Requested,
    Acknowledged,
}

struct AckWaiter<I: 'static> {
    group: Arc<AckGroup>,
    undo: Option<Undo<I>>,
}

/// The requests that make the session listen to the wanted channels.
#[derive(Debug, Default)]
pub(crate) struct ListenDiff {
    /// Channels, each with the generation of its state.
    pub(crate) listen: Vec<(Box<str>, u64)>,
    pub(crate) unlisten: Vec<Box<str>>,
}

impl<I: 'static> ChannelState<I> {
    fn is_acknowledged(&self) -> bool {
        self.status == ListenStatus::Acknowledged
    }
}

impl<I: Clone + Eq + Hash + 'static> Database<I> {
    pub(crate) fn new(config: Config, context: &Arc<SubscriptionContext>) -> Self {
        Self {
            config,
            session: DatabaseSession::None,
            subscriptions: Subscriptions::new(context),
            channel_states: HashMap::new(),
            last_generation: 0,
            // The stricter limits until a session reports its own: a name that is too long would prevent its opening.
            limits: Limits::Exact,
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
        self.subscriptions.refresh(channel, only, self.is_listening(channel), actions);
    }

    /// Reverts a change, unless another one has followed it.
    pub(crate) fn undo(&mut self, channel: &str, undo: Undo<I>, actions: &mut DeferredActions<I>) {
        let is_listening = self.is_listening(channel);
        self.subscriptions.undo(channel, undo, is_listening, actions);
    }

    fn is_listening(&self, channel: &str) -> bool {
        self.channel_states.get(channel).is_some_and(ChannelState::is_acknowledged)
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
                    for waiter in waiters.into_iter().flatten() {
                        actions.complete(waiter.group, Ok(()));
                    }
                    diff.unlisten.push(channel);
                }
                _ => {}
            }
        }
        if can_request { diff } else { ListenDiff::default() }
    }

    fn add_channel_state(&mut self, channel: Box<str>, status: ListenStatus) -> u64 {
        self.last_generation += 1;
        let generation = self.last_generation;
        self.channel_states.insert(channel, ChannelState { generation, status, waiters: Vec::new() });
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
        channels: Vec<(Box<str>, u64)>,
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
                    let waiters = std::mem::take(&mut state.waiters);
                    self.fail_waiters(&channel, waiters, error, actions);
                }
                Err(_) => {}
            }
        }
    }

    fn fail_waiters(
        &mut self,
        channel: &str,
        waiters: Vec<AckWaiter<I>>,
        error: &Error,
        actions: &mut DeferredActions<I>,
    ) {
        for waiter in waiters {
            if let Some(undo) = waiter.undo {
                self.undo(channel, undo, actions);
            }
            actions.complete(waiter.group, Err(error.clone()));
        }
    }

    fn acknowledge(&mut self, channel: &str, actions: &mut DeferredActions<I>) {
        let Some(state) = self.channel_states.get_mut(channel) else { return };
        state.status = ListenStatus::Acknowledged;
        for waiter in state.waiters.drain(..) {
            actions.complete(waiter.group, Ok(()));
        }
        for subscription in self.subscriptions.registry.receivers(channel) {
            actions.start_receiving(subscription);
        }
    }

    /// Begins a session. Returns the channels that it must listen to, with the notifier's own unless that is the canary's.
    /// If the start does not wait for the session, its opening is reported to subscribers.
    pub(crate) fn begin_session(&mut self, own_channel: Option<&str>, is_waited_for: bool) -> Vec<Box<str>> {
        self.subscriptions.registry.take_changed();
        self.channel_states.clear();
        let wanted: Vec<Box<str>> = self.subscriptions.registry.wanted().map(Into::into).collect();
        for channel in &wanted {
            self.add_channel_state(channel.clone(), ListenStatus::NotRequested);
        }
        for channel in wanted.iter().filter(|_| !is_waited_for) {
            self.move_receivers(channel, Reception::Never, Reception::Opening);
        }
        self.session = DatabaseSession::Opening(None);
        wanted.into_iter().chain(own_channel.map(Into::into)).collect()
    }

    fn move_receivers(&self, channel: &str, from: Reception, to: Reception) {
        let receivers = self.subscriptions.registry.receivers(channel);
        receivers.filter(|it| it.reception() == from).for_each(|it| it.set_reception(to));
    }

    /// Handles the opening of a session that listens to `channels`. Returns what must still be requested.
    pub(crate) fn handle_open(
        &mut self,
        id: ConnId,
        channels: &BTreeSet<&str>,
        limits: Limits,
        actions: &mut DeferredActions<I>,
    ) -> ListenDiff {
        self.session = DatabaseSession::Open(id);
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
        for (channel, state) in self.channel_states.iter_mut().filter(|(_, state)| state.is_acknowledged()) {
            state.status = ListenStatus::NotRequested;
            report_to_receiving(&self.subscriptions, channel, &Reason::Disconnected(error.clone()), actions);
        }
    }

    /// Reports a gap to the subscribers of its channels.
    pub(crate) fn report_gap(&self, gap: &Gap, actions: &mut DeferredActions<I>) {
        for channel in gap.channels() {
            report_to_receiving(&self.subscriptions, channel, &Reason::Restored(gap.clone()), actions);
        }
    }

    /// Records that the session is lost for good, and reports that to subscribers.
    pub(crate) fn handle_final_loss(&mut self, error: &Error, actions: &mut DeferredActions<I>) {
        self.session = DatabaseSession::Lost(error.clone());
        for (channel, state) in std::mem::take(&mut self.channel_states) {
            self.fail_waiters(&channel, state.waiters, error, actions);
            // This includes subscriptions for which a report of the restart is still due.
            let is_reported = |it: &&Arc<Subscription<I>>| {
                matches!(it.reception(), Reception::Receiving | Reception::Opening | Reception::Stopped)
            };
            for subscription in self.subscriptions.registry.receivers(&channel).filter(is_reported) {
                subscription.set_reception(Reception::Stopped);
                actions.report(subscription, MissedReport::new(Reason::Lost(error.clone()), 0));
            }
        }
    }

    /// Ends the session because the notifier stops. Outstanding tickets resolve to [`Error::Stopped`].
    pub(crate) fn end_session(&mut self, actions: &mut DeferredActions<I>) {
        self.session = DatabaseSession::None;
        for waiter in std::mem::take(&mut self.channel_states).into_values().flat_map(|state| state.waiters) {
            actions.complete(waiter.group, Err(Error::Stopped));
        }
        let registry = &self.subscriptions.registry;
        for entry in registry.channels().into_iter().flat_map(|channel| registry.subscriptions(channel)) {
            entry.value.stop_receiving(Reception::Stopped);
        }
    }
}

fn report_to_receiving<I: Clone + Eq + Hash>(
    subscriptions: &Subscriptions<I>,
    channel: &str,
    reason: &Reason,
    actions: &mut DeferredActions<I>,
) {
    let receivers = subscriptions.registry.receivers(channel);
    for subscription in receivers.filter(|it| it.reception() == Reception::Receiving) {
        actions.report(subscription, MissedReport::new(reason.clone(), 0));
    }
}

/// Returns `true` if the server or a check by the client refused the request. All other errors end the session.
fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Value(_) => true,
        Error::Server(error) => error.severity() == "ERROR",
        _ => false,
    }
}
