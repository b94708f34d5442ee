//! The ledger: what each connection must have received, and the events that contradict it.
//!
//! Notifications have two numbers: one for all channels, which only grows in one connection, and one for their channel. From
//! the acknowledgement of a LISTEN, every number of its channel is owed: it arrives, or a gap that names the channel has been
//! reported before any later number.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::network::Network;
use super::stream::SimConnection;
use crate::error::Error;
use crate::gap::Gap;
use crate::manager::event::Event;
use crate::notification::Batch;

pub(super) type Checked = Result<(), String>;

/// The set that a connection belongs to, as the events say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Live,
    Restoring,
    Garbage,
}

/// The last request for a channel.
#[derive(Debug, Clone)]
pub(super) struct ChannelEdit {
    pub(super) number: u64,
    pub(super) unlistens: bool,
    pub(super) at: Instant,
    /// `true` once the ticket of the request is resolved, outside a transaction.
    pub(super) is_done: bool,
}

/// One connection.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) port: u16,
    pub(super) standing: Standing,
    /// The link of its session.
    pub(super) link: Option<u64>,
    /// The channels to listen to from the beginning, while it has never been open.
    pub(super) dialled: Option<Vec<String>>,
    /// The next number of each channel that is owed.
    owed: BTreeMap<String, u64>,
    /// The last number of each channel that was received.
    seen: BTreeMap<String, u64>,
    /// The channels whose LISTEN is done, so that the connection listens to them in this session and the next ones.
    promised: BTreeSet<String>,
    edits: BTreeMap<String, ChannelEdit>,
    last_number: u64,
    epoch: u64,
    /// The channels that it listened to at the last idle event, without those of which an event has reported that it does not.
    pub(super) followed: BTreeSet<String>,
}

impl Record {
    pub(super) fn new(port: u16, standing: Standing) -> Self {
        let (link, dialled, owed, seen, promised, edits) = Default::default();
        let followed = BTreeSet::new();
        Self { port, standing, link, dialled, owed, seen, promised, edits, last_number: 0, epoch: 0, followed }
    }

    /// Returns the number of the channel's notifications before this session listened to it, if it ever has.
    fn registered_at(&self, network: &Network, channel: &str) -> Option<u64> {
        network.links.get(&self.link?)?.backend.registered_at.get(channel).copied()
    }

    /// Records that the program has asked to listen to channels, or no longer to.
    pub(super) fn edit(&mut self, channels: &[String], edit: ChannelEdit) {
        for channel in channels {
            if edit.unlistens {
                self.owed.remove(channel);
                self.promised.remove(channel);
            }
            self.edits.insert(channel.clone(), edit.clone());
        }
    }

    /// Records that the ticket of the request with this number is resolved. In a transaction, the request takes effect later.
    pub(super) fn finish(&mut self, network: &Network, link: Option<u64>, number: u64) {
        let session = link.and_then(|link| network.links.get(&link));
        if session.is_some_and(|session| session.backend.status != b'I') {
            return;
        }
        self.edits.values_mut().filter(|edit| edit.number == number).for_each(|edit| edit.is_done = true);
    }

    /// Returns `true` if no request after the one with this number has changed the channel.
    fn is_last_edit(&self, channel: &str, number: u64) -> bool {
        self.edits.get(channel).is_none_or(|edit| edit.number <= number)
    }

    /// Records that the server has acknowledged a LISTEN. A later request for the same channel has precedence.
    pub(super) fn acknowledge(
        &mut self,
        network: &Network,
        link: Option<u64>,
        channels: &[String],
        number: u64,
    ) -> Checked {
        let Some(session) = link.and_then(|link| network.links.get(&link)) else { return Ok(()) };
        let backend = &session.backend;
        for channel in channels {
            // In a transaction, a LISTEN takes effect at its end.
            if !self.is_last_edit(channel, number) || backend.status != b'I' {
                continue;
            }
            let is_registered = backend.registered.contains_key(channel);
            if !backend.has_rolled_back {
                if !is_registered && !backend.is_over && !backend.forgotten.contains(channel) {
                    return Err(format!("a LISTEN is done, but the server does not have {channel}"));
                }
                self.promised.insert(channel.clone());
            }
            if let (true, true, Some(before)) = (is_registered, self.link == link, self.registered_at(network, channel))
            {
                let seen = self.seen.get(channel).copied().unwrap_or_default();
                let owed = self.owed.entry(channel.clone()).or_insert(seen + 1);
                // If the server had forgotten the channel, the program's own LISTEN has hidden that.
                *owed = (*owed).max(before + 1);
            }
        }
        Ok(())
    }

    /// Checks that the session does not listen to channels, of which the server has acknowledged the UNLISTEN.
    pub(super) fn check_unlisten(
        &self,
        network: &Network,
        link: Option<u64>,
        channels: &[String],
        number: u64,
    ) -> Checked {
        let Some(session) = link.and_then(|link| network.links.get(&link)) else { return Ok(()) };
        let backend = &session.backend;
        let is_left = |channel: &&String| {
            self.is_last_edit(channel, number) && backend.status == b'I' && backend.registered.contains_key(*channel)
        };
        match channels.iter().find(is_left).filter(|_| !backend.has_rolled_back) {
            Some(channel) => Err(format!("an UNLISTEN is done, but the server has {channel}")),
            None => Ok(()),
        }
    }

    /// Ends what is owed on a channel that the server has forgotten, if the session has read its channels after a query that
    /// may have changed them: only the program knows then whether it had ended the LISTEN.
    pub(super) fn note_forgotten(&mut self, network: &Network, link: &SimConnection) {
        let Some(session) = self.link.and_then(|link| network.links.get(&link)) else { return };
        for channel in &session.backend.forgotten {
            if link.channels().all(|listed| listed != channel) {
                self.owed.remove(channel);
                self.promised.remove(channel);
            }
        }
    }

    /// Checks, at an idle event, that the connection listens to what it listened to at the last one, unless an event has reported
    /// that it does not.
    pub(super) fn check_followed<'c>(&mut self, channels: impl Iterator<Item = &'c str>, is_live: bool) -> Checked {
        let channels: BTreeSet<String> = channels.map(str::to_owned).collect();
        if let Some(channel) = self.followed.difference(&channels).next() {
            return Err(format!("it does not listen to {channel} any more, which no event has reported"));
        }
        if is_live {
            self.followed = channels;
        }
        Ok(())
    }

    /// Handles an event of this connection.
    pub(super) fn handle(&mut self, event: &Event, network: &Network, link: Option<u64>) -> Checked {
        match event {
            Event::Notifies(_, batch) => {
                if batch.is_empty() && batch.gap().is_none() {
                    return Err("a batch is empty".into());
                }
                if let Some(gap) = batch.gap() {
                    self.handle_gap(gap, network, link)?;
                }
                self.receive(batch, network)
            }
            Event::Restored(_, gap) => self.handle_gap(gap, network, link),
            Event::Opened(_) => {
                if self.standing != Standing::Restoring {
                    return Err("it was open already".into());
                }
                let channels = self.dialled.take().ok_or("it was not dialled")?;
                self.standing = Standing::Live;
                self.link = link;
                self.acknowledge(network, link, &channels, 0)
            }
            Event::Disconnected(_, error) => {
                let is_first_failure = self.standing == Standing::Restoring && self.dialled.is_some();
                if self.standing != Standing::Live && !is_first_failure {
                    return Err(format!("it was lost twice: {error}"));
                }
                self.check_cause(network, error)?;
                self.standing = Standing::Restoring;
                Ok(())
            }
            Event::Lost(_, error) => {
                self.check_cause(network, error)?;
                self.standing = Standing::Garbage;
                self.followed.clear();
                Ok(())
            }
            Event::CanaryReceived(_, sent) => self.check_certified(*sent, network, link),
            Event::Unlistened(_, channels) => {
                self.followed.retain(|followed| channels.iter().all(|channel| **channel != **followed));
                Ok(())
            }
            Event::Idle | Event::InTransaction(_) | Event::CheckRefused(..) => Ok(()),
        }
    }

    fn check_cause(&self, network: &Network, error: &Error) -> Checked {
        match self.link {
            // If little can be written at a time, a slow program may not write a request in time.
            Some(_) if network.faults.is_narrow && error.is_timeout() => Ok(()),
            Some(link) if self.standing == Standing::Live && network.is_intact(link) => {
                Err(format!("link {link} is intact, but lost: {error}"))
            }
            _ => Ok(()),
        }
    }

    fn handle_gap(&mut self, gap: &Gap, network: &Network, link: Option<u64>) -> Checked {
        if gap.epoch() <= self.epoch {
            return Err(format!("epoch {} follows epoch {}", gap.epoch(), self.epoch));
        }
        self.epoch = gap.epoch();
        if gap.since() > gap.until() || gap.until() > network.now {
            return Err("a gap ends before it begins, or in the future".into());
        }
        // Without a link, the session has ended meanwhile, and its end is reported next.
        let is_restoring = self.standing == Standing::Restoring;
        let is_new_session = self.link != link && (link.is_some() || is_restoring);
        if is_new_session != is_restoring {
            // The gap of the plain loop comes with the first batch, after the connection is live.
            return Err(format!("{:?}, and its gap is of {link:?} after {:?}", self.standing, self.link));
        }
        (self.standing, self.dialled) = (Standing::Live, None);
        if is_new_session {
            self.link = link;
        }
        let named: Vec<_> = gap.channels().iter().map(|channel| channel.to_string()).collect();
        if let Some(channel) = self.owed.keys().find(|channel| is_new_session && !named.contains(*channel)) {
            return Err(format!("the gap of a new session does not name {channel}"));
        }
        // A LISTEN after the end of the gap is not part of it.
        let is_before = |channel: &str| self.edits.get(channel).is_none_or(|edit| edit.at < gap.until());
        let mut promised = self.promised.iter().filter(|channel| is_before(channel));
        if let Some(channel) = promised.find(|channel| is_new_session && !named.contains(*channel)) {
            return Err(format!("the gap of a new session does not name {channel}, whose LISTEN is done"));
        }
        for channel in named {
            let before = self.registered_at(network, &channel);
            if is_new_session && before.is_some() && self.edits.get(&channel).is_none_or(|edit| !edit.unlistens) {
                self.owed.entry(channel.clone()).or_insert(0);
            }
            if let Some(owed) = self.owed.get_mut(&channel).filter(|_| link.is_some()) {
                *owed = (*owed).max(before.ok_or_else(|| format!("{channel} is in a gap, but not listened to"))? + 1);
            }
        }
        Ok(())
    }

    fn receive(&mut self, batch: &Batch, network: &Network) -> Checked {
        for notification in batch {
            let (channel, payload) = (notification.channel(), notification.payload());
            let (number, of_channel) = payload.split_once(' ').ok_or("a payload that was never sent")?;
            let (number, of_channel): (u64, u64) = (number.parse().unwrap(), of_channel.parse().unwrap());
            if number <= self.last_number {
                return Err(format!("{number} on {channel} was received after {}", self.last_number));
            }
            self.last_number = number;
            let seen = self.seen.get(&*channel).copied().unwrap_or_default();
            let session = self.link.and_then(|link| network.links.get(&link));
            let is_earlier = session.is_some_and(|session| session.backend.is_earlier(&channel, of_channel));
            // A LISTEN of the program has hidden that the server had forgotten the channel.
            let is_hidden = session.is_some_and(|session| session.backend.forgotten.iter().any(|c| *c == *channel))
                && self.edits.get(&*channel).is_some_and(|edit| !edit.is_done && !edit.unlistens)
                && self.registered_at(network, &channel).is_some_and(|before| of_channel == before + 1);
            if let Some(owed) = self.owed.get_mut(&*channel) {
                if is_hidden {
                    *owed = (*owed).max(of_channel);
                }
                if is_earlier && of_channel > seen && of_channel < *owed {
                    // Sent before an UNLISTEN, or held back since before the server forgot the channel.
                } else if of_channel == *owed {
                    *owed += 1;
                } else {
                    return Err(format!("{of_channel} was received on {channel}, but {owed} was owed"));
                }
            } else {
                let before = self.registered_at(network, &channel).unwrap_or_default();
                if of_channel <= seen || (of_channel > before && of_channel != before.max(seen) + 1) {
                    return Err(format!("{of_channel} was received on {channel} after {seen}, registered at {before}"));
                }
            }
            self.seen.insert(channel.into_owned(), of_channel);
        }
        Ok(())
    }

    /// Checks that everything committed before a canary was sent has been received, or is owed to a gap that follows: it was
    /// committed while the server had forgotten the channel.
    fn check_certified(&self, sent: Instant, network: &Network, link: Option<u64>) -> Checked {
        // Without a link, the session has ended after the canary was read.
        if link.is_some() && self.link != link {
            return Err(format!("a canary of {link:?} was reported before the gap after {:?}", self.link));
        }
        let Some(session) = link.and_then(|link| network.links.get(&link)) else { return Ok(()) };
        for (channel, owed) in &self.owed {
            let Some(before) = session.backend.registered.get(channel) else { continue };
            let committed = network.commits.get(channel).map_or(0, |commits| commits.partition_point(|at| *at < sent));
            if owed > before && *owed <= committed as u64 {
                return Err(format!(
                    "{owed} to {committed} on {channel} were committed before a canary, and are missing"
                ));
            }
        }
        Ok(())
    }

    /// Checks that nothing is owed, at the end of a history.
    pub(super) fn check_settled(&self, network: &Network) -> Checked {
        for (channel, owed) in &self.owed {
            let committed = network.committed.get(channel).copied().unwrap_or_default();
            if *owed <= committed {
                return Err(format!("{owed} to {committed} on {channel} were never received"));
            }
        }
        Ok(())
    }

    /// Returns the channels that the connection must listen to.
    pub(super) fn listened(&self) -> impl Iterator<Item = &str> {
        self.owed.keys().chain(&self.promised).map(String::as_str)
    }
}

/// The times at which idle events may come.
#[derive(Debug)]
pub(super) struct IdleLedger {
    /// The time of the last idle event, or of the last change of the timeout.
    pub(super) last: Instant,
}

impl IdleLedger {
    pub(super) fn handle(&mut self, timeout: Option<std::time::Duration>, now: Instant) -> Checked {
        let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) else {
            return Err("an idle event without a timeout".into());
        };
        if now < self.last + timeout {
            return Err(format!("an idle event after {:?}, but the timeout is {timeout:?}", now - self.last));
        }
        self.last = now;
        Ok(())
    }
}
