//! How far what is listened to follows what is wanted, in one database.
//!
//! ```text
//!   registry: wanted ──┬─▶ channel_states: asked ──▶ heard ──▶ who waited for it is told, who was deaf gets a gap
//!                      │        ▲  └─ refused ──▶ undone
//!                      └────────┴── session lost and back: compared anew
//! ```
//!
//! It asks for nothing itself: it says what is to be asked, and is told what was answered. All of it happens under one
//! lock, so that asking is in the order of the changes.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;

use crate::error::Error;
use crate::gap::Gap;
use crate::manager::ConnId;
use crate::notifier::ack_group::AckGroup;
use crate::notifier::database::{Database, DatabaseSession, SYSTEM_CHANNEL};
use crate::notifier::deferred::{DeferredActions, Undo};
use crate::notifier::missed::{Missed, Reason};
use crate::notifier::subscription::Reception;
use crate::proto::sql::Limits;

/// How far the session has come with one channel.
pub(crate) struct ChannelState<I: 'static> {
    /// Tells one listening from another, of the same channel.
    generation: u64,
    /// Whether an answer is to come.
    asked: bool,
    pub(super) heard: bool,
    waiters: Vec<AckWaiter<I>>,
}

struct AckWaiter<I: 'static> {
    group: Arc<AckGroup>,
    undo: Option<Undo<I>>,
}

/// What is to be asked of the server.
#[derive(Debug, Default)]
pub(crate) struct ListenDiff {
    pub(crate) listen: Vec<(Box<str>, u64)>,
    pub(crate) unlisten: Vec<Box<str>>,
}

/// What is listened to.
impl<I: Clone + Eq + Hash + 'static> Database<I> {
    /// What is to be asked so that what is listened to is what is wanted.
    pub(crate) fn sync(&mut self, after: &mut DeferredActions<I>) -> ListenDiff {
        let mut asks = ListenDiff::default();
        let can_ask = self.session.id().is_some();
        let is_open = matches!(self.session, DatabaseSession::Open(_));
        for channel in self.registry.take_changed() {
            match (self.registry.is_wanted(&channel), self.channel_states.get_mut(&channel)) {
                (true, None) => {
                    self.generation += 1;
                    let channel_states =
                        ChannelState { generation: self.generation, asked: can_ask, heard: false, waiters: Vec::new() };
                    self.channel_states.insert(channel.clone(), channel_states);
                    asks.listen.push((channel, self.generation));
                }
                // It was refused, perhaps only in company.
                (true, Some(channel_states)) if is_open && !channel_states.asked && !channel_states.heard => {
                    channel_states.asked = true;
                    asks.listen.push((channel, channel_states.generation));
                }
                (false, Some(_)) => {
                    // Who waited for it was overtaken by another change.
                    let waiters = self.channel_states.remove(&channel).map(|channel_states| channel_states.waiters);
                    after.kept.extend(waiters.into_iter().flatten().map(|waiter| (waiter.group, Ok(()))));
                    asks.unlisten.push(channel);
                }
                _ => {}
            }
        }
        if can_ask { asks } else { ListenDiff::default() }
    }

    /// Has a group wait until a channel is heard, if it is to be.
    pub(crate) fn wait_for(&mut self, channel: &str, group: &Arc<AckGroup>, undo: Option<Undo<I>>) {
        if let Some(channel_states) =
            self.channel_states.get_mut(channel).filter(|channel_states| !channel_states.heard)
        {
            group.add();
            channel_states.waiters.push(AckWaiter { group: Arc::clone(group), undo });
        }
    }

    /// Which channels nobody has acknowledged yet.
    pub(crate) fn unacknowledged(&self) -> Vec<Box<str>> {
        self.channel_states
            .iter()
            .filter(|(_, channel_states)| !channel_states.heard)
            .map(|(channel, _)| channel.clone())
            .collect()
    }

    /// How many channels are listened to.
    pub(crate) fn heard(&self) -> usize {
        self.channel_states.values().filter(|channel_states| channel_states.heard).count()
    }

    /// The server has answered. What it refused is undone; what it couldn't answer is asked again as the session is back.
    pub(crate) fn answered(
        &mut self,
        asked: Vec<(Box<str>, u64)>,
        answer: &Result<(), Error>,
        after: &mut DeferredActions<I>,
    ) {
        let is_open = matches!(self.session, DatabaseSession::Open(_));
        for (channel, generation) in asked {
            let Some(channel_states) =
                self.channel_states.get_mut(&channel).filter(|channel_states| channel_states.generation == generation)
            else {
                continue;
            };
            channel_states.asked = false;
            match answer {
                Ok(()) if is_open => self.is_heard(&channel, after),
                // The word that the session is open comes next, and gaps are told before.
                Ok(()) => {}
                Err(error) if is_refusal(error) => {
                    for waiter in std::mem::take(&mut channel_states.waiters) {
                        if let Some(undo) = waiter.undo {
                            self.undo(&channel, undo, after);
                        }
                        after.kept.push((waiter.group, Err(error.clone())));
                    }
                }
                Err(_) => {}
            }
        }
    }

    fn is_heard(&mut self, channel: &str, after: &mut DeferredActions<I>) {
        let Some(channel_states) = self.channel_states.get_mut(channel) else { return };
        channel_states.heard = true;
        after.kept.extend(channel_states.waiters.drain(..).map(|waiter| (waiter.group, Ok(()))));
        let entries: Vec<_> = self.registry.audience(channel).cloned().collect();
        for entry in entries {
            if let Some(missed) = entry.start_receiving() {
                after.miss(&entry, missed);
            }
        }
    }

    /// Begins a session: returns the channels that it must listen to, with the notifier's own channel unless that is
    /// the canary's. If the start does not wait for the session, its opening is reported to subscribers.
    pub(crate) fn begin(&mut self, own: Option<&str>, is_waited_for: bool) -> Vec<Box<str>> {
        self.registry.take_changed();
        self.channel_states.clear();
        for channel in self.registry.wanted().filter(|_| !is_waited_for) {
            for entry in self.registry.audience(channel).filter(|entry| entry.reception() == Reception::Never) {
                entry.set_reception(Reception::Opening);
            }
        }
        for channel in self.registry.wanted() {
            self.generation += 1;
            let channel_states =
                ChannelState { generation: self.generation, asked: false, heard: false, waiters: Vec::new() };
            self.channel_states.insert(channel.into(), channel_states);
        }
        self.session = DatabaseSession::Opening(None);
        self.channel_states.keys().cloned().chain(own.map(Into::into)).collect()
    }

    /// The session listens to these, and is what it is: gives what is still to be asked.
    pub(crate) fn is_open(
        &mut self,
        id: ConnId,
        listens: &BTreeSet<&str>,
        limits: Limits,
        after: &mut DeferredActions<I>,
    ) -> ListenDiff {
        self.session = DatabaseSession::Open(id);
        self.limits = limits;
        let mut asks = ListenDiff::default();
        let channels: Vec<_> = self.channel_states.keys().cloned().collect();
        for channel in channels {
            let there = listens.contains(&*channel);
            let Some(channel_states) =
                self.channel_states.get_mut(&channel).filter(|channel_states| !channel_states.asked)
            else {
                continue;
            };
            if there {
                self.is_heard(&channel, after);
            } else {
                (channel_states.asked, channel_states.heard) = (true, false);
                asks.listen.push((channel.clone(), channel_states.generation));
            }
        }
        let unwanted = listens
            .iter()
            .filter(|channel| **channel != SYSTEM_CHANNEL && !self.channel_states.contains_key(**channel));
        asks.unlisten = unwanted.map(|channel| (*channel).into()).collect();
        asks
    }

    /// Records that the session is lost and is being restored, and reports that to subscribers.
    pub(crate) fn is_away(&mut self, id: ConnId, error: &Error, after: &mut DeferredActions<I>) {
        self.session = DatabaseSession::Away(id);
        for (channel, channel_states) in &mut self.channel_states {
            if std::mem::replace(&mut channel_states.heard, false) {
                for entry in self.registry.audience(channel).filter(|entry| entry.reception() == Reception::Receiving) {
                    after.miss(entry, Missed::new(Reason::Disconnected(error.clone()), 0));
                }
            }
        }
    }

    /// The session is back, and these channels were unacknowledged for a while.
    pub(crate) fn report_gap(&self, gap: &Gap, after: &mut DeferredActions<I>) {
        for channel in gap.channels() {
            for entry in self.registry.audience(channel).filter(|entry| entry.reception() == Reception::Receiving) {
                after.miss(entry, Missed::new(Reason::Restored(gap.clone()), 0));
            }
        }
    }

    /// The session is lost for good.
    pub(crate) fn is_lost(&mut self, error: &Error, after: &mut DeferredActions<I>) {
        self.session = DatabaseSession::Lost(error.clone());
        for (channel, channel_states) in std::mem::take(&mut self.channel_states) {
            for waiter in channel_states.waiters {
                if let Some(undo) = waiter.undo {
                    self.undo(&channel, undo, after);
                }
                after.kept.push((waiter.group, Err(error.clone())));
            }
            // Also those who wait to be told that the notifier was stopped and has been started again.
            let is_told =
                |reception| matches!(reception, Reception::Receiving | Reception::Opening | Reception::Stopped);
            for entry in self.registry.audience(&channel).filter(|entry| is_told(entry.reception())) {
                entry.set_reception(Reception::Stopped);
                after.miss(entry, Missed::new(Reason::Lost(error.clone()), 0));
            }
        }
    }

    /// The notifier stops: nothing is listened to any more, and nothing waits.
    pub(crate) fn end_session(&mut self, after: &mut DeferredActions<I>) {
        self.session = DatabaseSession::None;
        let waiters =
            std::mem::take(&mut self.channel_states).into_values().flat_map(|channel_states| channel_states.waiters);
        after.kept.extend(waiters.map(|waiter| (waiter.group, Err(Error::Stopped))));
        let channels: Vec<Box<str>> = self.registry.channels().into_iter().map(Into::into).collect();
        for subscription in channels.iter().flat_map(|channel| self.registry.subscriptions(channel)) {
            subscription.value.stop_receiving(Reception::Stopped);
        }
    }
}

/// Whether the server, or a check on this side, said no; everything else is the session's end.
fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Value(_) => true,
        Error::Server(said) => said.severity() == "ERROR",
        _ => false,
    }
}
