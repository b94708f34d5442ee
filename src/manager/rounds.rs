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
    /// The nearest of those, for every turn looks at it.
    next: Option<Instant>,
}

impl<K: Copy + Ord> Rounds<K> {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, groups: BTreeMap::new(), of: BTreeMap::new(), timers: BTreeSet::new(), next: None }
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
    #[inline]
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// What is to be done now.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Due> {
        if self.next? > now {
            return None;
        }
        let (_, database) = self.timers.pop_first()?;
        self.next = self.nearest();
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

    /// Returns `true` if the canary that this connection should receive was committed at least this time ago, and its
    /// deadline is not over.
    pub(crate) fn is_flying_for(&self, time: Duration, who: K, now: Instant) -> bool {
        let group = self.of.get(&who).and_then(|database| self.groups.get(database));
        let flight = group.filter(|group| matches!(group.phase, Phase::Flying)).and_then(|group| group.wakes);
        let rest = flight.map(|deadline| deadline.saturating_duration_since(now));
        rest.is_some_and(|rest| rest <= self.pace.deadline.saturating_sub(time))
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
        self.next = self.nearest();
    }

    fn nearest(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PACE: Pace = Pace { period: Duration::from_secs(30), deadline: Duration::from_secs(5) };

    /// Rounds of these in one database, just before the first canary.
    fn rounds(members: &[u32], start: Instant) -> (Rounds<u32>, Instant) {
        let mut rounds = Rounds::new(PACE);
        members.iter().for_each(|who| rounds.join(*who, "db", start, &mut Jitter::new(3)));
        let first = rounds.next().unwrap();
        assert!(first <= start + PACE.period);
        (rounds, first)
    }

    fn send(rounds: &mut Rounds<u32>, now: Instant) -> u32 {
        assert!(matches!(rounds.due(now), Some(Due::Send(_))));
        assert_eq!(rounds.due(now), None, "one a database");
        let by = rounds.members("db").next().unwrap();
        rounds.sent("db", by, "canary", now);
        by
    }

    #[test]
    fn m16_each_sends_in_turn_once_a_period_and_the_others_are_asked_at_the_deadline() {
        let (mut rounds, mut now) = rounds(&[1, 2, 3], Instant::now());
        for expected in [1, 2, 3, 1, 2] {
            assert_eq!(send(&mut rounds, now), expected);
            assert_eq!(rounds.next(), None, "it waits for the server");
            rounds.committed(expected, now + SECOND);
            let deadline = now + SECOND + PACE.deadline;
            assert_eq!(rounds.next(), Some(deadline), "counted from the commit");
            assert_eq!(rounds.due(deadline), Some(Due::Ask("db".into(), "canary".into())));
            assert_eq!(rounds.next(), Some(now + PACE.period), "and the period from the sending");
            now += PACE.period;
        }
    }

    #[test]
    fn m16_a_canary_is_in_flight_from_its_commit_to_its_deadline() {
        let (mut rounds, now) = rounds(&[1, 2], Instant::now());
        send(&mut rounds, now);
        assert!(!rounds.is_flying_for(Duration::ZERO, 2, now + SECOND), "it may not have been committed");
        let committed = now + SECOND;
        rounds.committed(1, committed);
        let (time, is_flying) = (PACE.deadline / 2, |at| rounds.is_flying_for(PACE.deadline / 2, 2, at));
        assert!(!is_flying(committed + time - Duration::from_millis(1)) && is_flying(committed + time));
        assert!(!rounds.is_flying_for(time, 3, committed + time), "it belongs to no database");
        assert!(matches!(rounds.due(committed + PACE.deadline), Some(Due::Ask(..))));
        assert!(!rounds.is_flying_for(time, 2, committed + PACE.deadline));
    }

    #[test]
    fn m16_where_the_sender_leaves_another_takes_over() {
        let (mut rounds, now) = rounds(&[1, 2], Instant::now());
        assert_eq!(send(&mut rounds, now), 1);
        rounds.leave(1, now + SECOND);
        rounds.committed(1, now + SECOND);
        let next = rounds.next().unwrap();
        assert!(next <= now + SECOND + PACE.deadline);
        assert_eq!(send(&mut rounds, next), 2);
        rounds.leave(2, next);
        assert_eq!(rounds.next(), None, "nobody is left");
    }

    #[test]
    fn m16_a_canary_that_flies_is_not_sent_again_when_its_sender_leaves() {
        let (mut rounds, now) = rounds(&[1, 2], Instant::now());
        send(&mut rounds, now);
        rounds.committed(1, now);
        rounds.leave(1, now);
        assert!(matches!(rounds.due(now + PACE.deadline), Some(Due::Ask(..))));
    }

    proptest! {
        /// Whatever happens, no timer is left behind, and no canary follows the last within a period, unless the sender
        /// of that has left before it was committed.
        #[test]
        fn m16_no_database_has_more_canaries_than_periods(
            steps in prop::collection::vec((0..6_u8, 0..8_u32, 0..20_u32), 1..200),
        ) {
            let mut now = Instant::now();
            let (mut rounds, mut jitter) = (Rounds::<u32>::new(PACE), Jitter::new(5));
            let mut last: BTreeMap<Arc<str>, Instant> = BTreeMap::new();
            for (what, who, seconds) in steps {
                now += seconds * SECOND;
                match what {
                    0 | 1 => rounds.join(who, if who % 2 == 0 { "even" } else { "odd" }, now, &mut jitter),
                    2 => {
                        // Another's canary may come sooner.
                        rounds.of.get(&who).map(|database| last.remove(database));
                        rounds.leave(who, now);
                    }
                    3 => rounds.committed(who, now),
                    4 => rounds.refused(who, now),
                    _ => while let Some(due) = rounds.due(now) {
                        let Due::Send(database) = due else { continue };
                        let by = rounds.members(&database).next().unwrap();
                        let before = last.insert(Arc::clone(&database), now);
                        prop_assert!(before.is_none_or(|before| now - before >= PACE.period));
                        rounds.sent(&database, by, "canary", now);
                    }
                }
                let waking = rounds.groups.values().filter(|group| group.wakes.is_some()).count();
                prop_assert_eq!((waking, rounds.nearest()), (rounds.timers.len(), rounds.next()));
                prop_assert_eq!(rounds.of.len(), rounds.groups.values().map(|group| group.members.len()).sum::<usize>());
                prop_assert!(rounds.groups.values().all(|group| !group.members.is_empty()));
            }
        }
    }
}
