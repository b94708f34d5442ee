//! When to try again, and when to ask whether anybody is there: pure values that are told what time it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::clock::Moment;
use crate::error::{Error, TlsErrorKind};

/// How lost connections are dialled again: see
/// [`NotificationManager::reconnect`](crate::NotificationManager::reconnect).
///
/// The n-th attempt comes after a random time between nothing and `first` × 2ⁿ, at most `longest` ("full jitter"), so
/// that those who were lost together don't come back together. Over all connections of the manager, no more than
/// `at_once` dials are under way and no more than `per_second` begin.
///
/// ```
/// use std::time::Duration;
/// use notifyman::Backoff;
///
/// let backoff = Backoff::default().first(Duration::from_millis(50)).per_second(50);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
    pub(crate) at_once: usize,
    pub(crate) per_second: u32,
}

impl Default for Backoff {
    /// 100 ms doubling up to 30 s; 64 dials at once, 200 a second.
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(30), at_once: 64, per_second: 200 }
    }
}

/// Within which limits connections are opened for the first time: nobody was lost together, so nothing is spread.
pub(crate) const FIRST_DIALS: Backoff =
    Backoff { first: Duration::ZERO, longest: Duration::ZERO, at_once: 256, per_second: u32::MAX };

/// Nobody waits longer for an attempt, whatever is asked for.
const DELAY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

impl Backoff {
    /// The longest wait before the first attempt; doubled with each that fails.
    #[must_use]
    pub fn first(mut self, first: Duration) -> Self {
        self.first = first;
        self
    }

    /// The longest wait before any attempt; at most a day.
    #[must_use]
    pub fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// How many dials may be under way; at least one.
    #[must_use]
    pub fn at_once(mut self, dials: usize) -> Self {
        self.at_once = dials.max(1);
        self
    }

    /// How many dials may begin in a second; at least one.
    #[must_use]
    pub fn per_second(mut self, dials: u32) -> Self {
        self.per_second = dials.max(1);
        self
    }

    /// How long to wait before an attempt, when so many have failed.
    pub(crate) fn delay(&self, failed: u32, jitter: &mut Jitter) -> Duration {
        let ceiling = self.first.saturating_mul(2u32.saturating_pow(failed)).min(self.longest).min(DELAY_MAX);
        jitter.up_to(ceiling)
    }

    /// How many attempts count as failed when a connection is lost that took over then, after so many of them: one that
    /// never lasts comes back ever more slowly.
    pub(crate) fn failed_before(&self, revived: Option<(Instant, u32)>, now: Instant) -> u32 {
        let short_lived = |since| now.saturating_duration_since(since) < self.longest;
        revived.filter(|(since, _)| short_lived(*since)).map_or(0, |(_, failed)| failed.saturating_add(1))
    }
}

/// Whether trying again can help. A password stays wrong; a standby may be promoted, and a damaged stream was one
/// stream.
///
/// A certificate that has run out is renewed by its operator, and a file of ours that doesn't go with another may be in
/// the middle of being renewed, so both are waited for. One that is for somebody else, or that nobody trusted has
/// signed, is not: it may be an attack, and a program that goes on trying in silence would hide that.
pub(crate) fn is_worth_retrying(error: &Error) -> bool {
    match error {
        Error::Connect(e) => e.any(|cause| match cause {
            Error::Tls(tls) => tls.kind() == TlsErrorKind::File || tls.is_transient(),
            cause => is_worth_retrying(cause),
        }),
        // Of a session that was open.
        Error::Protocol(_) | Error::Tls(_) => true,
        // A standby refuses LISTEN until it is promoted.
        Error::Server(e) if e.code() == "25006" => true,
        Error::Overflow { .. } => true,
        _ => error.is_transient(),
    }
}

/// Random numbers that are good enough to spread load, from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One that differs from process to process, and from manager to manager.
    pub(crate) fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self::new(RandomState::new().hash_one(0))
    }

    /// One that is always the same for the same thing.
    fn of(thing: impl std::hash::Hash) -> Self {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        Self::new(BuildHasherDefault::<DefaultHasher>::default().hash_one(thing))
    }

    /// SplitMix64.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A time between nothing and `ceiling`, short of it: the longest of all, rounded up, is more than there can be.
    pub(crate) fn up_to(&mut self, ceiling: Duration) -> Duration {
        let part = f64::from((self.number() >> 32) as u32) / (f64::from(u32::MAX) + 1.0);
        ceiling.mul_f64(part)
    }
}

/// How many dials are under way, when the next may begin, and who waits for that, first come first served.
#[derive(Debug)]
pub(crate) struct Dials<K> {
    under_way: usize,
    next: Option<Instant>,
    line: VecDeque<K>,
}

impl<K> Default for Dials<K> {
    fn default() -> Self {
        Self { under_way: 0, next: None, line: VecDeque::new() }
    }
}

impl<K> Dials<K> {
    /// Stands at the end of the line.
    pub(crate) fn join(&mut self, who: K) {
        self.line.push_back(who);
    }

    /// Whether somebody waits for a place.
    #[inline]
    pub(crate) fn has_line(&self) -> bool {
        !self.line.is_empty()
    }

    /// Gives the first of the line a place, to be given back by [`end`](Self::end); nothing where there is nobody, no
    /// place, or where it is too early.
    pub(crate) fn admit(&mut self, backoff: &Backoff, now: Instant) -> Option<K> {
        if self.due(backoff, now)? > now {
            return None;
        }
        let first = self.line.pop_front()?;
        if self.line.is_empty() {
            self.line = VecDeque::new();
        }
        self.next = now.checked_add(Duration::from_secs(1) / backoff.per_second);
        self.under_way += 1;
        Some(first)
    }

    /// When somebody can be admitted, if nothing but time is needed for that.
    #[inline]
    pub(crate) fn due(&self, backoff: &Backoff, now: Instant) -> Option<Instant> {
        let possible = self.has_line() && self.under_way < backoff.at_once;
        possible.then(|| self.next.map_or(now, |next| next.max(now)))
    }

    /// Gives a place back.
    pub(crate) fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }
}

/// When to ask a silent server whether it is there, and when to stop waiting for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    pub(crate) idle: Duration,
    pub(crate) deadline: Duration,
}

/// What is to be done about one connection's heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// Nothing, until then.
    Fine(Option<Instant>),
    /// Ask, and look again then.
    Ask(Option<Instant>),
    /// It was asked, and has not answered in time.
    Dead,
}

/// Into how many parts the shorter of its two times is divided: pulses are felt at their ends only, many together. A loop
/// whose next timer is but a millisecond away pays for that with each wait, since the system sets its own for it.
const PARTS: u32 = 32;

impl Heartbeat {
    /// When to feel a pulse for the first time: at any time within a period.
    pub(crate) fn first(&self, now: Instant, jitter: &mut Jitter) -> Option<Instant> {
        self.after(now.checked_add(jitter.up_to(self.period())))
    }

    /// How long pulses wait for each other, at most.
    fn part(&self) -> Duration {
        self.idle.min(self.deadline) / PARTS
    }

    /// How long a connection may be silent, so that it is given up in time though it is looked at late, twice.
    fn period(&self) -> Duration {
        self.idle - 2 * self.part()
    }

    /// When pulses are felt that are due at this time.
    fn after(&self, due: Option<Instant>) -> Option<Instant> {
        Some(Moment::from(due?).to_next(self.part()).into())
    }

    /// Looks at a connection from which bytes were last read at `last_read`, and which was asked at `asked`, if it
    /// has been since.
    pub(crate) fn check(&self, last_read: Instant, asked: Option<Instant>, now: Instant) -> Pulse {
        // Any byte is life.
        match asked.filter(|asked| *asked >= last_read) {
            Some(asked) => match asked.checked_add(self.deadline) {
                Some(limit) if limit <= now => Pulse::Dead,
                limit => Pulse::Fine(limit),
            },
            None => match last_read.checked_add(self.idle) {
                Some(due) if due <= now => Pulse::Ask(now.checked_add(self.deadline)),
                due => Pulse::Fine(due),
            },
        }
    }
}

/// What there is to see of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signs {
    /// What tells it from those that fell silent at the same time.
    pub(crate) who: u64,
    /// When bytes were last read.
    pub(crate) last_read: Instant,
    /// Whether nothing is under way on it.
    pub(crate) is_settled: bool,
    /// Whether a question of our own hasn't been answered, whatever else has come.
    pub(crate) awaits_prompt_answer: bool,
}

/// What is to be done about a connection, and when to feel its pulse again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beat {
    Fine(Option<Instant>),
    Ask(Option<Instant>),
    Dead,
}

/// The heartbeat of one connection.
#[derive(Debug, Default)]
pub(crate) struct Heart {
    asked: Option<Moment>,
}

/// The part of the idle time by which a period may be shortened, so that connections don't ask all at once.
const SPREAD: u32 = 4;
/// No timer goes off again at once.
const STEP: Duration = Duration::from_millis(1);

impl Heart {
    /// The time has come, and the socket has just been read.
    pub(crate) fn feel(&mut self, heartbeat: &Heartbeat, signs: Signs, now: Instant) -> Beat {
        // Drawn from what tells this silence from any other, so that it is the same each time: of many draws the longest
        // would win, and all would ask at the end of their periods.
        let mut jitter = Jitter::of((signs.who, Moment::from(signs.last_read)));
        let idle = heartbeat.period() - jitter.up_to(heartbeat.idle / SPREAD);
        // A deadline that is longer than a period doesn't keep the next period from being seen.
        let within = now.checked_add(heartbeat.period());
        let at = |next: Option<Instant>| {
            heartbeat.after([next, within].into_iter().flatten().min().map(|next| next.max(now + STEP)))
        };
        match (Heartbeat { idle, ..*heartbeat }).check(signs.last_read, self.asked.map(Instant::from), now) {
            Pulse::Fine(next) => Beat::Fine(at(next)),
            Pulse::Ask(next) if signs.is_settled => {
                self.asked = Some(now.into());
                Beat::Ask(at(next))
            }
            // Something came after the question that wasn't its answer; and now it is silent again. The answer is
            // still owed, and has no limit but this one.
            Pulse::Ask(next) if signs.awaits_prompt_answer => {
                self.asked = Some(now.into());
                Beat::Fine(at(next))
            }
            // Something else has been asked; the answer to that is as good, and has a limit of its own.
            Pulse::Ask(next) => Beat::Fine(at(next)),
            Pulse::Dead => Beat::Dead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn m13_the_wait_grows_up_to_its_limit_and_is_spread_over_all_of_it() {
        let backoff = Backoff::default();
        let mut jitter = Jitter::new(7);
        for failed in 0..40 {
            let ceiling = (backoff.first * 2u32.saturating_pow(failed.min(20))).min(backoff.longest);
            let delays: Vec<_> = (0..200).map(|_| backoff.delay(failed, &mut jitter)).collect();
            assert!(delays.iter().all(|delay| *delay <= ceiling));
            let mut tenths = [0; 10];
            delays.iter().for_each(|delay| tenths[(10.0 * delay.div_duration_f64(ceiling)) as usize] += 1);
            assert!(tenths.iter().all(|n| (5..=40).contains(n)), "200 are spread over all of it: {tenths:?}");
        }
    }

    #[test]
    fn m15_times_as_long_as_can_be_are_drawn_from_without_harm() {
        let mut largest = Jitter::new(0x3162_8af6_7b21_31ab);
        assert_eq!(largest.clone().number(), u64::MAX);
        assert!(largest.up_to(Duration::MAX) > Duration::MAX / 2);
    }

    #[test]
    fn m13_dials_are_bounded_at_once_and_a_second_and_in_the_order_of_their_coming() {
        let backoff = Backoff::default().at_once(2).per_second(10);
        let (mut dials, start) = (Dials::default(), Instant::now());
        assert_eq!(dials.due(&backoff, start), None, "nobody waits");
        ["a", "b", "c"].into_iter().for_each(|who| dials.join(who));
        assert_eq!(dials.admit(&backoff, start), Some("a"));
        assert_eq!(dials.admit(&backoff, start), None);
        let next = start + SECOND / 10;
        assert_eq!(dials.due(&backoff, start), Some(next));
        assert_eq!(dials.admit(&backoff, next), Some("b"));
        assert_eq!(dials.admit(&backoff, next + SECOND), None, "two are under way");
        assert_eq!(dials.due(&backoff, next + SECOND), None, "and time doesn't help");
        dials.end();
        assert_eq!(dials.admit(&backoff, next + SECOND), Some("c"));
    }

    #[test]
    fn m15_an_answer_that_is_still_owed_is_waited_for_only_as_long() {
        let heartbeat = Heartbeat { idle: 10 * SECOND, deadline: 2 * SECOND };
        let (mut heart, start) = (Heart::default(), Instant::now());
        let mut signs = Signs { who: 1, last_read: start, is_settled: true, awaits_prompt_answer: false };
        assert!(matches!(heart.feel(&heartbeat, signs, start + 10 * SECOND), Beat::Ask(_)));
        // A notification comes that was on its way already; then the link is dead, and the answer never comes.
        let last_read = start + 11 * SECOND;
        signs = Signs { who: 1, last_read, is_settled: false, awaits_prompt_answer: true };
        let mut now = start + 12 * SECOND;
        while let Beat::Fine(Some(next)) = heart.feel(&heartbeat, signs, now) {
            now = next;
            assert!(now <= last_read + heartbeat.idle + heartbeat.deadline);
        }
    }

    #[test]
    fn m15_a_silent_server_is_asked_once_and_given_up_at_the_deadline() {
        let heartbeat = Heartbeat { idle: 10 * SECOND, deadline: 2 * SECOND };
        let start = Instant::now();
        assert_eq!(heartbeat.check(start, None, start + 9 * SECOND), Pulse::Fine(Some(start + 10 * SECOND)));
        let asked = start + 10 * SECOND;
        assert_eq!(heartbeat.check(start, None, asked), Pulse::Ask(Some(asked + 2 * SECOND)));
        assert_eq!(heartbeat.check(start, Some(asked), asked + SECOND), Pulse::Fine(Some(asked + 2 * SECOND)));
        assert_eq!(heartbeat.check(start, Some(asked), asked + 2 * SECOND), Pulse::Dead);
    }

    #[test]
    fn m15_any_byte_is_life() {
        let heartbeat = Heartbeat { idle: 10 * SECOND, deadline: 2 * SECOND };
        let start = Instant::now();
        let (asked, answered) = (start + 10 * SECOND, start + 11 * SECOND);
        let later = start + 13 * SECOND;
        assert_eq!(heartbeat.check(answered, Some(asked), later), Pulse::Fine(Some(answered + 10 * SECOND)));
    }

    #[test]
    fn m15_a_deadline_longer_than_a_period_keeps_the_bound() {
        let heartbeat = Heartbeat { idle: 2 * SECOND, deadline: 10 * SECOND };
        let (mut heart, start) = (Heart::default(), Instant::now());
        let mut signs = Signs { who: 1, last_read: start, is_settled: true, awaits_prompt_answer: false };
        let mut now = start + heartbeat.idle;
        let Beat::Ask(Some(mut next)) = heart.feel(&heartbeat, signs, now) else { panic!() };
        // It answers at once, and never again.
        signs.last_read = now + SECOND / 100;
        while now < next {
            now = next;
            match heart.feel(&heartbeat, signs, now) {
                Beat::Fine(at) | Beat::Ask(at) => next = at.unwrap(),
                Beat::Dead => {}
            }
        }
        assert!(now <= signs.last_read + heartbeat.idle + heartbeat.deadline, "{:?}", now - signs.last_read);
    }

    #[test]
    fn m15_pulses_are_felt_together_and_the_bound_is_kept() {
        for heartbeat in [(30, 10), (10, 30), (600, 5)]
            .map(|(idle, deadline)| Heartbeat { idle: idle * SECOND, deadline: deadline * SECOND })
        {
            let (start, mut jitter) = (Instant::now(), Jitter::new(3));
            let mut times = std::collections::BTreeSet::new();
            for who in 0..500 {
                // All fall silent within a second, and never answer.
                let last_read = start + SECOND * who / 500;
                let mut heart = Heart::default();
                let mut signs = Signs { who: who.into(), last_read, is_settled: true, awaits_prompt_answer: false };
                let mut now = heartbeat.first(last_read, &mut jitter).unwrap();
                loop {
                    times.insert(now);
                    match heart.feel(&heartbeat, signs, now) {
                        Beat::Dead => break,
                        Beat::Fine(at) => now = at.unwrap(),
                        Beat::Ask(at) => (now, signs.is_settled) = (at.unwrap(), false),
                    }
                }
                assert!(now <= last_read + heartbeat.idle + heartbeat.deadline);
            }
            let longest = (heartbeat.idle + heartbeat.deadline).div_duration_f64(heartbeat.part());
            assert!(times.len() as f64 <= longest + 2.0, "{} times for {heartbeat:?}", times.len());
        }
    }

    #[test]
    fn m15_heartbeats_come_in_no_burst() {
        let heartbeat = Heartbeat { idle: 20 * SECOND, deadline: 100 * SECOND };
        let (start, mut jitter) = (Instant::now(), Jitter::new(3));
        let mut of_second = [0; 10 * 20];
        for who in 0..50 {
            let mut heart = Heart::default();
            let mut signs = Signs { who, last_read: start, is_settled: true, awaits_prompt_answer: false };
            let mut now = heartbeat.first(start, &mut jitter).unwrap();
            while let Some(asked) = of_second.get_mut((now - start).as_secs() as usize) {
                match heart.feel(&heartbeat, signs, now) {
                    Beat::Dead => panic!("it answers at once"),
                    Beat::Fine(at) => now = at.unwrap(),
                    Beat::Ask(_) => (*asked, signs.last_read) = (*asked + 1, now + STEP),
                }
            }
        }
        let most = of_second.iter().max().unwrap();
        assert!(*most <= 20, "{most} of 50 are asked within a twentieth of a period: {of_second:?}");
        assert!(of_second.iter().sum::<usize>() >= 50 * 9, "each is asked once a period: {of_second:?}");
    }

    #[test]
    fn m13_what_trying_again_cannot_mend_is_told_apart() {
        let server = |code: &str| Error::from(crate::error::ServerError { code: code.into(), ..Default::default() });
        for code in ["57P01", "57P03", "53300", "08006", "25006"] {
            assert!(is_worth_retrying(&server(code)), "{code}");
        }
        for code in ["28P01", "28000", "3D000", "42501"] {
            assert!(!is_worth_retrying(&server(code)), "{code}");
        }
        assert!(is_worth_retrying(&Error::Disconnected));
        assert!(!is_worth_retrying(&Error::Closed));
    }
}
