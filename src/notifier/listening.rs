//! How far what is listened to follows what is wanted, in one database.
//!
//! ```text
//!   registry: wanted ──┬─▶ wire: asked ──▶ heard ──▶ who waited for it is told, who was deaf gets a gap
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
use crate::notifier::after::{After, Undo};
use crate::notifier::database::{Database, SYSTEM_CHANNEL, Session};
use crate::notifier::entry::Ear;
use crate::notifier::missed::{Missed, Reason};
use crate::notifier::promise::Promise;
use crate::proto::sql::Limits;

/// How far the session has come with one channel.
pub(crate) struct Wire<I: 'static> {
    /// Tells one listening from another, of the same channel.
    generation: u64,
    /// Whether an answer is to come.
    asked: bool,
    pub(super) heard: bool,
    waiters: Vec<Waiter<I>>,
}

struct Waiter<I: 'static> {
    promise: Arc<Promise>,
    undo: Option<Undo<I>>,
}

/// What is to be asked of the server.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    pub(crate) listen: Vec<(Box<str>, u64)>,
    pub(crate) unlisten: Vec<Box<str>>,
}

/// What is listened to.
impl<I: Clone + Eq + Hash + 'static> Database<I> {
    /// What is to be asked so that what is listened to is what is wanted.
    pub(crate) fn sync(&mut self, after: &mut After<I>) -> Asks {
        let mut asks = Asks::default();
        let can_ask = self.session.id().is_some();
        let is_open = matches!(self.session, Session::Open(_));
        for channel in self.registry.take_changed() {
            match (self.registry.is_wanted(&channel), self.wire.get_mut(&channel)) {
                (true, None) => {
                    self.generation += 1;
                    let wire = Wire { generation: self.generation, asked: can_ask, heard: false, waiters: Vec::new() };
                    self.wire.insert(channel.clone(), wire);
                    asks.listen.push((channel, self.generation));
                }
                // It was refused, perhaps only in company.
                (true, Some(wire)) if is_open && !wire.asked && !wire.heard => {
                    wire.asked = true;
                    asks.listen.push((channel, wire.generation));
                }
                (false, Some(_)) => {
                    // Who waited for it was overtaken by another change.
                    let waiters = self.wire.remove(&channel).map(|wire| wire.waiters);
                    after.kept.extend(waiters.into_iter().flatten().map(|waiter| (waiter.promise, Ok(()))));
                    asks.unlisten.push(channel);
                }
                _ => {}
            }
        }
        if can_ask { asks } else { Asks::default() }
    }

    /// Has a promise wait until a channel is heard, if it is to be.
    pub(crate) fn wait_for(&mut self, channel: &str, promise: &Arc<Promise>, undo: Option<Undo<I>>) {
        if let Some(wire) = self.wire.get_mut(channel).filter(|wire| !wire.heard) {
            promise.wait_for_one();
            wire.waiters.push(Waiter { promise: Arc::clone(promise), undo });
        }
    }

    /// Which channels nobody has acknowledged yet.
    pub(crate) fn unheard(&self) -> Vec<Box<str>> {
        self.wire.iter().filter(|(_, wire)| !wire.heard).map(|(channel, _)| channel.clone()).collect()
    }

    /// How many channels are listened to.
    pub(crate) fn heard(&self) -> usize {
        self.wire.values().filter(|wire| wire.heard).count()
    }

    /// The server has answered. What it refused is undone; what it couldn't answer is asked again as the session is back.
    pub(crate) fn answered(&mut self, asked: Vec<(Box<str>, u64)>, answer: &Result<(), Error>, after: &mut After<I>) {
        let is_open = matches!(self.session, Session::Open(_));
        for (channel, generation) in asked {
            let Some(wire) = self.wire.get_mut(&channel).filter(|wire| wire.generation == generation) else { continue };
            wire.asked = false;
            match answer {
                Ok(()) if is_open => self.is_heard(&channel, after),
                // The word that the session is open comes next, and gaps are told before.
                Ok(()) => {}
                Err(error) if is_refusal(error) => {
                    for waiter in std::mem::take(&mut wire.waiters) {
                        if let Some(undo) = waiter.undo {
                            self.undo(&channel, undo, after);
                        }
                        after.kept.push((waiter.promise, Err(error.clone())));
                    }
                }
                Err(_) => {}
            }
        }
    }

    fn is_heard(&mut self, channel: &str, after: &mut After<I>) {
        let Some(wire) = self.wire.get_mut(channel) else { return };
        wire.heard = true;
        after.kept.extend(wire.waiters.drain(..).map(|waiter| (waiter.promise, Ok(()))));
        let entries: Vec<_> = self.registry.audience(channel).cloned().collect();
        for entry in entries {
            if let Some(missed) = entry.hears() {
                after.miss(&entry, missed);
            }
        }
    }

    /// Begins a session: returns the channels that it must listen to, with the notifier's own channel unless that is
    /// the canary's. If the start does not wait for the session, its opening is reported to subscribers.
    pub(crate) fn begin(&mut self, own: Option<&str>, is_waited_for: bool) -> Vec<Box<str>> {
        self.registry.take_changed();
        self.wire.clear();
        for channel in self.registry.wanted().filter(|_| !is_waited_for) {
            for entry in self.registry.audience(channel).filter(|entry| entry.ear() == Ear::New) {
                entry.set_ear(Ear::Opening);
            }
        }
        for channel in self.registry.wanted() {
            self.generation += 1;
            let wire = Wire { generation: self.generation, asked: false, heard: false, waiters: Vec::new() };
            self.wire.insert(channel.into(), wire);
        }
        self.session = Session::Opening(None);
        self.wire.keys().cloned().chain(own.map(Into::into)).collect()
    }

    /// The session listens to these, and is what it is: gives what is still to be asked.
    pub(crate) fn is_open(
        &mut self,
        id: ConnId,
        listens: &BTreeSet<&str>,
        limits: Limits,
        after: &mut After<I>,
    ) -> Asks {
        self.session = Session::Open(id);
        self.limits = limits;
        let mut asks = Asks::default();
        let channels: Vec<_> = self.wire.keys().cloned().collect();
        for channel in channels {
            let there = listens.contains(&*channel);
            let Some(wire) = self.wire.get_mut(&channel).filter(|wire| !wire.asked) else { continue };
            if there {
                self.is_heard(&channel, after);
            } else {
                (wire.asked, wire.heard) = (true, false);
                asks.listen.push((channel.clone(), wire.generation));
            }
        }
        let unwanted =
            listens.iter().filter(|channel| **channel != SYSTEM_CHANNEL && !self.wire.contains_key(**channel));
        asks.unlisten = unwanted.map(|channel| (*channel).into()).collect();
        asks
    }

    /// Records that the session is lost and is being restored, and reports that to subscribers.
    pub(crate) fn is_away(&mut self, id: ConnId, error: &Error, after: &mut After<I>) {
        self.session = Session::Away(id);
        for (channel, wire) in &mut self.wire {
            if std::mem::replace(&mut wire.heard, false) {
                for entry in self.registry.audience(channel).filter(|entry| entry.ear() == Ear::Hears) {
                    after.miss(entry, Missed::new(Reason::Disconnected(error.clone()), 0));
                }
            }
        }
    }

    /// The session is back, and these channels were unheard for a while.
    pub(crate) fn was_deaf(&self, gap: &Gap, after: &mut After<I>) {
        for channel in gap.channels() {
            for entry in self.registry.audience(channel).filter(|entry| entry.ear() == Ear::Hears) {
                after.miss(entry, Missed::new(Reason::Restored(gap.clone()), 0));
            }
        }
    }

    /// The session is lost for good.
    pub(crate) fn is_lost(&mut self, error: &Error, after: &mut After<I>) {
        self.session = Session::Lost(error.clone());
        for (channel, wire) in std::mem::take(&mut self.wire) {
            for waiter in wire.waiters {
                if let Some(undo) = waiter.undo {
                    self.undo(&channel, undo, after);
                }
                after.kept.push((waiter.promise, Err(error.clone())));
            }
            // Also those who wait to be told that the notifier was stopped and has been started again.
            let is_told = |ear| matches!(ear, Ear::Hears | Ear::Opening | Ear::Stopped);
            for entry in self.registry.audience(&channel).filter(|entry| is_told(entry.ear())) {
                entry.set_ear(Ear::Stopped);
                after.miss(entry, Missed::new(Reason::Lost(error.clone()), 0));
            }
        }
    }

    /// The notifier stops: nothing is listened to any more, and nothing waits.
    pub(crate) fn end_session(&mut self, after: &mut After<I>) {
        self.session = Session::None;
        let waiters = std::mem::take(&mut self.wire).into_values().flat_map(|wire| wire.waiters);
        after.kept.extend(waiters.map(|waiter| (waiter.promise, Err(Error::Stopped))));
        let channels: Vec<Box<str>> = self.registry.channels().into_iter().map(Into::into).collect();
        for subscription in channels.iter().flat_map(|channel| self.registry.subscriptions(channel)) {
            subscription.value.turns_deaf(Ear::Stopped);
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
