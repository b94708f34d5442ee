//! One canary a database and period: who sends it, who must hear it, and when to ask the others why they haven't.
//!
//! ```text
//!   resting ──period is over──▶ sent ──server has committed──▶ flying ──deadline is over──▶ resting
//!      ▲                          │
//!      └── the sender died: another takes over ──┘
//! ```
//!
//! Nothing here knows a socket, a session or a clock; and nothing is looked through in each turn.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::manager::recovery::Jitter;

/// How often a canary is sent, and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) period: Duration,
    pub(crate) deadline: Duration,
}

/// What is to be done for one database.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// To send a canary.
    Send(Arc<str>),
    /// To ask those who haven't heard this one.
    Ask(Arc<str>, Box<str>),
}

#[derive(Debug)]
enum Phase<K> {
    Resting,
    /// By one of them, and not yet committed.
    Sent(K),
    Flying,
}

/// Those who are connected to one database.
#[derive(Debug)]
struct Group<K> {
    members: BTreeSet<K>,
    phase: Phase<K>,
    /// When there is something to be done.
    wakes: Option<Instant>,
    /// The last canary, when it was sent and by whom.
    payload: Box<str>,
    sent: Option<(Instant, K)>,
}

/// All databases.
#[derive(Debug)]
pub(crate) struct Rounds<K> {
    pub(crate) pace: Pace,
    groups: BTreeMap<Arc<str>, Group<K>>,
    of: BTreeMap<K, Arc<str>>,
    timers: BTreeSet<(Instant, Arc<str>)>,
}

impl<K: Copy + Ord> Rounds<K> {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, groups: BTreeMap::new(), of: BTreeMap::new(), timers: BTreeSet::new() }
    }

    /// Takes in one who is connected to this database. The first canary of a database comes at any time within a
    /// period, so that those of many databases come in no burst.
    pub(crate) fn join(&mut self, who: K, database: &str, now: Instant, jitter: &mut Jitter) {
        if self.of.contains_key(&who) {
            return;
        }
        let database: Arc<str> = database.into();
        self.of.insert(who, Arc::clone(&database));
        match self.groups.get_mut(&database) {
            Some(group) => drop(group.members.insert(who)),
            None => {
                let (phase, payload) = (Phase::Resting, Box::default());
                let group = Group { members: BTreeSet::from([who]), phase, wakes: None, payload, sent: None };
                self.groups.insert(Arc::clone(&database), group);
                self.wake(&database, now.checked_add(jitter.up_to(self.pace.period)));
            }
        }
    }

    /// Lets one go. If the canary was its, and may not have been sent, another sends one a little later: who loses one
    /// session may be about to lose them all.
    pub(crate) fn leave(&mut self, who: K, now: Instant) {
        let Some(database) = self.of.remove(&who) else { return };
        let Some(group) = self.groups.get_mut(&database) else { return };
        group.members.remove(&who);
        if group.members.is_empty() {
            self.wake(&database, None);
            self.groups.remove(&database);
        } else if matches!(group.phase, Phase::Sent(by) if by == who) {
            group.phase = Phase::Resting;
            self.wake(&database, self.soon(now));
        }
    }

    /// When there is something to be done.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What is to be done now.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        let (_, database) = self.timers.pop_first()?;
        let group = self.groups.get_mut(&database)?;
        group.wakes = None;
        Some(match group.phase {
            Phase::Resting | Phase::Sent(_) => Due::Send(database),
            Phase::Flying => {
                let payload = group.payload.clone();
                self.rest(&database, now);
                Due::Ask(database, payload)
            }
        })
    }

    /// Those who are connected to it, beginning behind who sent last, so that each sends in turn.
    pub(crate) fn members(&self, database: &str) -> impl Iterator<Item = K> {
        let group = self.groups.get(database);
        let last = group.and_then(|group| Some(group.sent.as_ref()?.1));
        let from = last.map_or(Unbounded, Excluded);
        let behind = group.into_iter().flat_map(move |group| group.members.range((from, Unbounded)));
        let before = group.zip(last).into_iter().flat_map(|(group, last)| group.members.range(..=last));
        behind.chain(before).copied()
    }

    /// A canary was sent.
    pub(crate) fn sent(&mut self, database: &str, by: K, payload: &str, now: Instant) {
        if let Some(group) = self.groups.get_mut(database) {
            (group.phase, group.payload, group.sent) = (Phase::Sent(by), payload.into(), Some((now, by)));
        }
    }

    /// Nobody could send one: it is tried again.
    pub(crate) fn not_sent(&mut self, database: &Arc<str>, now: Instant) {
        self.wake(database, self.soon(now));
    }

    /// The server has committed it: now it flies.
    pub(crate) fn committed(&mut self, by: K, now: Instant) {
        if let Some((database, group)) = self.sent_by(by) {
            group.phase = Phase::Flying;
            self.wake(&database, now.checked_add(self.pace.deadline));
        }
    }

    /// The server has refused it.
    pub(crate) fn refused(&mut self, by: K, now: Instant) {
        if let Some((database, _)) = self.sent_by(by) {
            self.rest(&database, now);
        }
    }

    /// When the canary was sent that this one may have heard last, and by whom.
    pub(crate) fn last_sent(&self, who: K) -> Option<(Instant, K)> {
        self.groups.get(self.of.get(&who)?)?.sent
    }

    fn sent_by(&mut self, by: K) -> Option<(Arc<str>, &mut Group<K>)> {
        let database = Arc::clone(self.of.get(&by)?);
        let group = self.groups.get_mut(&database)?;
        matches!(group.phase, Phase::Sent(sender) if sender == by).then_some((database, group))
    }

    /// Until the period is over that began with the last canary; but a sender that took a whole period doesn't make
    /// the next come at once.
    fn rest(&mut self, database: &Arc<str>, now: Instant) {
        let Some(group) = self.groups.get_mut(database) else { return };
        group.phase = Phase::Resting;
        let next = group.sent.and_then(|(at, _)| at.checked_add(self.pace.period));
        self.wake(database, next.max(self.soon(now)));
    }

    fn soon(&self, now: Instant) -> Option<Instant> {
        now.checked_add(self.pace.deadline.min(self.pace.period).max(Duration::from_millis(1)))
    }

    fn wake(&mut self, database: &Arc<str>, at: Option<Instant>) {
        let Some(group) = self.groups.get_mut(database) else { return };
        if let Some(before) = std::mem::replace(&mut group.wakes, at) {
            self.timers.remove(&(before, Arc::clone(database)));
        }
        if let Some(at) = at {
            self.timers.insert((at, Arc::clone(database)));
        }
    }
}
