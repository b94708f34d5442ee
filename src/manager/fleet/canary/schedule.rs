//! The schedule of canaries, one for each database and period: which connection sends it, which must receive it, and
//! when the others are asked.
//!
//! ```text
//!   resting ──period over──▶ sent ──committed by the server──▶ in flight ──deadline over──▶ resting
//!      ▲                      │
//!      └── the sender is lost: another connection takes over ──┘
//! ```
//!
//! Each turn looks at the nearest time only.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::ConfigError;
use crate::manager::fleet::jitter::Jitter;
use crate::manager::fleet::log::{self, SharedTimer};

/// The period of the canary, and the time that a server has to deliver it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CanaryPace {
    pub(crate) period: Duration,
    pub(crate) deadline: Duration,
}

/// The shortest period. A canary is a NOTIFY in every database, and wakes every session that listens there.
const CANARY_PERIOD_MIN: Duration = Duration::from_secs(1);

impl CanaryPace {
    /// Checks the period that a program sets.
    pub(crate) fn checked(period: Duration, deadline: Duration) -> Result<Self, ConfigError> {
        if period < CANARY_PERIOD_MIN {
            return Err(ConfigError {
                origin: "canary".into(),
                position: None,
                message: format!(
                    "the period is {period:?}, but must be at least {CANARY_PERIOD_MIN:?}: each canary wakes every session \
                     that listens in its database"
                ),
            });
        }
        Ok(Self { period, deadline })
    }
}

/// A step that is due for one database.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CanaryDue {
    /// Send a canary.
    Send(Arc<str>),
    /// Ask the connections that have not received this canary.
    Ask(Arc<str>, Box<str>),
}

#[derive(Debug)]
enum CanaryPhase<K> {
    /// No canary is in flight.
    Resting,
    /// Sent by this connection, and not yet committed.
    Sent(K),
    /// Committed.
    InFlight,
}

/// The connections to one database.
#[derive(Debug)]
struct CanaryGroup<K> {
    members: BTreeSet<K>,
    phase: CanaryPhase<K>,
    /// The time of the next step.
    wakes: Option<Instant>,
    /// The last canary, the time at which it was sent, and its sender.
    payload: Box<str>,
    sent: Option<(Instant, K)>,
}

/// The schedules of all databases.
#[derive(Debug)]
pub(crate) struct CanarySchedule<K> {
    pub(crate) pace: CanaryPace,
    groups: BTreeMap<Arc<str>, CanaryGroup<K>>,
    of: BTreeMap<K, Arc<str>>,
    timers: BTreeSet<(Instant, Arc<str>)>,
    /// The nearest of the timers.
    pub(crate) next: Option<Instant>,
}

impl<K: Copy + Ord> CanarySchedule<K> {
    pub(crate) fn new(pace: CanaryPace) -> Self {
        Self { pace, groups: BTreeMap::new(), of: BTreeMap::new(), timers: BTreeSet::new(), next: None }
    }

    /// Adds a connection to this database. The first canary of a database is sent at a random time within a period, so
    /// that the canaries of many databases are spread over time.
    pub(crate) fn join(&mut self, key: K, database: &str, now: Instant, jitter: &mut Jitter) {
        if self.of.contains_key(&key) {
            return;
        }
        let database: Arc<str> = database.into();
        self.of.insert(key, Arc::clone(&database));
        match self.groups.get_mut(&database) {
            Some(group) => drop(group.members.insert(key)),
            None => {
                let (phase, payload) = (CanaryPhase::Resting, Box::default());
                let group = CanaryGroup { members: BTreeSet::from([key]), phase, wakes: None, payload, sent: None };
                self.groups.insert(Arc::clone(&database), group);
                self.wake(&database, now.checked_add(jitter.up_to(self.pace.period)));
            }
        }
    }

    /// Removes a connection. If it was sending a canary that may not have been committed, another connection sends one a
    /// little later: the loss of one session may be followed by the loss of all.
    pub(crate) fn leave(&mut self, key: K, now: Instant) {
        let Some(database) = self.of.remove(&key) else { return };
        let Some(group) = self.groups.get_mut(&database) else { return };
        group.members.remove(&key);
        if group.members.is_empty() {
            self.wake(&database, None);
            self.groups.remove(&database);
        } else if matches!(group.phase, CanaryPhase::Sent(by) if by == key) {
            group.phase = CanaryPhase::Resting;
            self.wake(&database, self.soon(now));
        }
    }

    /// Returns a step that is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<CanaryDue> {
        if self.next? > now {
            return None;
        }
        let (_, database) = self.timers.pop_first()?;
        log::shared_timer_fired(SharedTimer::Canary);
        self.next = self.nearest();
        let group = self.groups.get_mut(&database)?;
        group.wakes = None;
        Some(match group.phase {
            CanaryPhase::Resting | CanaryPhase::Sent(_) => CanaryDue::Send(database),
            CanaryPhase::InFlight => {
                let payload = group.payload.clone();
                self.rest(&database, Some(now));
                CanaryDue::Ask(database, payload)
            }
        })
    }

    /// Returns the connections to a database, beginning after the last sender, so that they send in turn.
    pub(crate) fn members(&self, database: &str) -> impl Iterator<Item = K> {
        let group = self.groups.get(database);
        let last = group.and_then(|group| Some(group.sent.as_ref()?.1));
        let from = last.map_or(Unbounded, Excluded);
        let behind = group.into_iter().flat_map(move |group| group.members.range((from, Unbounded)));
        let before = group.zip(last).into_iter().flat_map(|(group, last)| group.members.range(..=last));
        behind.chain(before).copied()
    }

    /// Records that a connection sends a canary. If no connection can, the next attempt follows soon.
    pub(crate) fn sent(&mut self, database: &Arc<str>, by: Option<K>, payload: &str, now: Instant) {
        let Some(by) = by else { return self.wake(database, self.soon(now)) };
        if let Some(group) = self.groups.get_mut(database) {
            (group.phase, group.payload, group.sent) = (CanaryPhase::Sent(by), payload.into(), Some((now, by)));
        }
    }

    /// Records that the server has committed the canary.
    pub(crate) fn committed(&mut self, by: K, now: Instant) {
        if let Some((database, group)) = self.sent_by(by) {
            group.phase = CanaryPhase::InFlight;
            self.wake(&database, now.checked_add(self.pace.deadline));
        }
    }

    /// Records that the server has refused the canary.
    pub(crate) fn refused(&mut self, by: K, now: Instant) {
        if let Some((database, _)) = self.sent_by(by) {
            self.rest(&database, self.soon(now));
        }
    }

    /// Returns the time and the sender of the last canary that this connection may have received.
    pub(crate) fn last_sent(&self, key: K) -> Option<(Instant, K)> {
        self.groups.get(self.of.get(&key)?)?.sent
    }

    /// Returns `true` if the canary that this connection should receive was committed at least this time ago, and its
    /// deadline is not over.
    pub(crate) fn is_in_flight_for(&self, time: Duration, key: K, now: Instant) -> bool {
        let group = self.of.get(&key).and_then(|database| self.groups.get(database));
        let flight = group.filter(|group| matches!(group.phase, CanaryPhase::InFlight)).and_then(|group| group.wakes);
        let rest = flight.map(|deadline| deadline.saturating_duration_since(now));
        rest.is_some_and(|rest| rest <= self.pace.deadline.saturating_sub(time))
    }

    fn sent_by(&mut self, by: K) -> Option<(Arc<str>, &mut CanaryGroup<K>)> {
        let database = Arc::clone(self.of.get(&by)?);
        let group = self.groups.get_mut(&database)?;
        matches!(group.phase, CanaryPhase::Sent(sender) if sender == by).then_some((database, group))
    }

    /// Waits for the end of the period that began with the last canary, but at least until `earliest`.
    fn rest(&mut self, database: &Arc<str>, earliest: Option<Instant>) {
        let Some(group) = self.groups.get_mut(database) else { return };
        group.phase = CanaryPhase::Resting;
        let next = group.sent.and_then(|(at, _)| at.checked_add(self.pace.period));
        self.wake(database, next.max(earliest));
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
    const PACE: CanaryPace = CanaryPace { period: Duration::from_secs(30), deadline: Duration::from_secs(5) };

    /// Returns the schedule of these connections to one database, just before the first canary.
    fn schedule_of(members: &[u32], start: Instant) -> (CanarySchedule<u32>, Instant) {
        let mut schedule = CanarySchedule::new(PACE);
        members.iter().for_each(|key| schedule.join(*key, "db", start, &mut Jitter::new(3)));
        let first = schedule.next.unwrap();
        assert!(first <= start + PACE.period);
        (schedule, first)
    }

    fn send(schedule: &mut CanarySchedule<u32>, now: Instant) -> u32 {
        assert!(matches!(schedule.due(now), Some(CanaryDue::Send(_))));
        assert_eq!(schedule.due(now), None, "one for each database");
        let by = schedule.members("db").next().unwrap();
        schedule.sent(&"db".into(), Some(by), "canary", now);
        by
    }

    #[test]
    fn m16_connections_send_in_turn_once_a_period_and_the_others_are_asked_at_the_deadline() {
        let (mut schedule, mut now) = schedule_of(&[1, 2, 3], Instant::now());
        for expected in [1, 2, 3, 1, 2] {
            assert_eq!(send(&mut schedule, now), expected);
            assert_eq!(schedule.next, None, "the server has not answered");
            schedule.committed(expected, now + SECOND);
            let deadline = now + SECOND + PACE.deadline;
            assert_eq!(schedule.next, Some(deadline), "counted from the commit");
            assert_eq!(schedule.due(deadline), Some(CanaryDue::Ask("db".into(), "canary".into())));
            assert_eq!(schedule.next, Some(now + PACE.period), "and the period from the sending");
            now += PACE.period;
        }
    }

    #[test]
    fn m16_a_canary_follows_the_deadline_of_the_last_one_if_that_is_longer_than_the_period() {
        for (period, deadline, interval) in [(1, 1, 1), (1, 3, 3), (3, 1, 3)] {
            let pace = CanaryPace { period: period * SECOND, deadline: deadline * SECOND };
            let mut schedule = CanarySchedule::new(pace);
            let start = Instant::now();
            schedule.join(1, "db", start, &mut Jitter::new(3));
            let first = schedule.next.unwrap();
            send(&mut schedule, first);
            schedule.committed(1, first);
            assert!(matches!(schedule.due(first + pace.deadline), Some(CanaryDue::Ask(..))));
            assert_eq!(schedule.next, Some(first + interval * SECOND));
        }
    }

    #[test]
    fn m16_a_canary_is_in_flight_from_its_commit_to_its_deadline() {
        let (mut schedule, now) = schedule_of(&[1, 2], Instant::now());
        send(&mut schedule, now);
        assert!(!schedule.is_in_flight_for(Duration::ZERO, 2, now + SECOND), "it may not have been committed");
        let committed = now + SECOND;
        schedule.committed(1, committed);
        let (time, is_in_flight) = (PACE.deadline / 2, |at| schedule.is_in_flight_for(PACE.deadline / 2, 2, at));
        assert!(!is_in_flight(committed + time - Duration::from_millis(1)) && is_in_flight(committed + time));
        assert!(!schedule.is_in_flight_for(time, 3, committed + time), "it belongs to no database");
        assert!(matches!(schedule.due(committed + PACE.deadline), Some(CanaryDue::Ask(..))));
        assert!(!schedule.is_in_flight_for(time, 2, committed + PACE.deadline));
    }

    #[test]
    fn m16_another_connection_takes_over_from_a_sender_that_leaves() {
        let (mut schedule, now) = schedule_of(&[1, 2], Instant::now());
        assert_eq!(send(&mut schedule, now), 1);
        schedule.leave(1, now + SECOND);
        schedule.committed(1, now + SECOND);
        let next = schedule.next.unwrap();
        assert!(next <= now + SECOND + PACE.deadline);
        assert_eq!(send(&mut schedule, next), 2);
        schedule.leave(2, next);
        assert_eq!(schedule.next, None, "no connection is left");
    }

    #[test]
    fn m16_a_canary_in_flight_is_not_sent_again_when_its_sender_leaves() {
        let (mut schedule, now) = schedule_of(&[1, 2], Instant::now());
        send(&mut schedule, now);
        schedule.committed(1, now);
        schedule.leave(1, now);
        assert!(matches!(schedule.due(now + PACE.deadline), Some(CanaryDue::Ask(..))));
    }

    proptest! {
        /// In every sequence of steps, no timer is left behind, and no canary follows another within a period, unless
        /// the sender of the other left before its commit.
        #[test]
        fn m16_no_database_has_more_canaries_than_periods(
            steps in prop::collection::vec((0..6_u8, 0..8_u32, 0..20_u32), 1..200),
        ) {
            let mut now = Instant::now();
            let (mut schedule, mut jitter) = (CanarySchedule::<u32>::new(PACE), Jitter::new(5));
            let mut last: BTreeMap<Arc<str>, Instant> = BTreeMap::new();
            for (step, key, seconds) in steps {
                now += seconds * SECOND;
                match step {
                    0 | 1 => schedule.join(key, if key % 2 == 0 { "even" } else { "odd" }, now, &mut jitter),
                    2 => {
                        // The canary of another connection may come sooner.
                        schedule.of.get(&key).map(|database| last.remove(database));
                        schedule.leave(key, now);
                    }
                    3 => schedule.committed(key, now),
                    4 => schedule.refused(key, now),
                    _ => while let Some(due) = schedule.due(now) {
                        let CanaryDue::Send(database) = due else { continue };
                        let by = schedule.members(&database).next().unwrap();
                        let before = last.insert(Arc::clone(&database), now);
                        prop_assert!(before.is_none_or(|before| now - before >= PACE.period));
                        schedule.sent(&database, Some(by), "canary", now);
                    }
                }
                let waking = schedule.groups.values().filter(|group| group.wakes.is_some()).count();
                prop_assert_eq!((waking, schedule.nearest()), (schedule.timers.len(), schedule.next));
                prop_assert_eq!(schedule.of.len(), schedule.groups.values().map(|group| group.members.len()).sum::<usize>());
                prop_assert!(schedule.groups.values().all(|group| !group.members.is_empty()));
            }
        }
    }
}
