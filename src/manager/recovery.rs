//! When to try again, and when to ask whether anybody is there: pure values that are told what time it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::clock::CompactInstant;
use crate::error::{Error, TlsErrorKind};

/// The policy for reconnecting lost connections: see
/// [`NotificationManager::reconnect`](crate::NotificationManager::reconnect).
///
/// After n failed attempts the next one begins after a random time between zero and `first` × 2ⁿ, at most `longest`
/// ("full jitter"), so that connections that were lost together are not restored together. A new session counts as a
/// failed attempt if it ends within a second of the acknowledgement of its LISTENs; after a longer session the delay
/// starts again at `first`. Over all connections of the manager, at most `at_once` attempts are in progress and at most
/// `per_second` begin.
///
/// A few failures are final, because only a change elsewhere can fix them (see [`faults`](crate::docs::faults)): the
/// connection moves to the garbage, unless [`retry_all`](Self::retry_all) is set.
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
    pub(crate) retry_all: bool,
}

impl Default for Backoff {
    /// 100 ms doubling up to 30 s; 64 dials at once, 200 a second; final failures are not retried.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(30),
            at_once: 64,
            per_second: 200,
            retry_all: false,
        }
    }
}

/// Within which limits connections are opened for the first time: nobody was lost together, so nothing is spread.
pub(crate) const FIRST_DIALS: Backoff =
    Backoff { first: Duration::ZERO, longest: Duration::ZERO, at_once: 256, per_second: u32::MAX, retry_all: false };

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

    /// Sets whether final failures are retried: a refused login, a missing database, a refused certificate.
    ///
    /// Use this if a restore may swap databases, or if `pg_hba.conf` or certificates may be rewritten. Such a failure
    /// is retried after a random time between half of `longest` and `longest`, because a server may lock an account
    /// after several refused passwords. A connection that this program closed stays closed.
    ///
    /// ```
    /// use notifyman::Backoff;
    ///
    /// let backoff = Backoff::default().retry_all(true);
    /// ```
    #[must_use]
    pub fn retry_all(mut self, retries: bool) -> Self {
        self.retry_all = retries;
        self
    }

    /// Returns the delay before the next attempt, after this number of failed ones.
    pub(crate) fn delay(&self, failed: u32, jitter: &mut Jitter) -> Duration {
        let ceiling = self.first.saturating_mul(2u32.saturating_pow(failed)).min(self.longest).min(DELAY_MAX);
        jitter.up_to(ceiling)
    }

    /// Returns the delay before the next attempt after a failure that only [`retry_all`](Self::retry_all) retries.
    pub(crate) fn slow_delay(&self, jitter: &mut Jitter) -> Duration {
        let half = self.longest.min(DELAY_MAX) / 2;
        half + jitter.up_to(half)
    }
}

/// A session that ends sooner than this after the acknowledgement of its LISTENs counts as a failed attempt.
pub(crate) const SHORT_SESSION: Duration = Duration::from_secs(1);

/// Returns how many attempts count as failed when a session ends. `established` is the time at which its LISTENs were
/// acknowledged, and the number of attempts that had failed before.
///
/// A notification that the server cannot convert ends the session, but is not the server's fault, so such a session
/// never counts.
pub(crate) fn failed_before(established: Option<(Instant, u32)>, loss: &Error, now: Instant) -> u32 {
    let is_short = |since| now.saturating_duration_since(since) < SHORT_SESSION;
    let established = established.filter(|(since, _)| is_short(*since) && !is_conversion(loss));
    established.map_or(0, |(_, failed)| failed.saturating_add(1))
}

/// Returns `true` if the server could not convert a text to the client's encoding (22P05, 22021).
fn is_conversion(error: &Error) -> bool {
    matches!(error.sqlstate(), Some("22P05" | "22021"))
}

/// Returns `true` if a session that ended is not reconnected: only if this program closed it.
pub(crate) fn is_final_loss(error: &Error) -> bool {
    matches!(error, Error::Closed)
}

/// Returns `true` if a failed attempt is final, because only a change elsewhere can fix it: refused credentials, a
/// missing database, a refused certificate; and a caller's mistake, unless a session `was_open` despite it.
///
/// A certificate that has expired is renewed by its operator, and a local file that does not match another may be in the
/// middle of being renewed, so both are retried. A certificate of an unknown authority, or for another host, is not: it
/// may be an attack, and retrying silently would hide it.
pub(crate) fn is_final_attempt(error: &Error, was_open: bool) -> bool {
    match error {
        Error::Connect(e) => !e.any(|cause| !is_final_cause(cause)),
        // Any other error is of an open session: a refused LISTEN, or the end of the session.
        error => error.is_usage() && !was_open,
    }
}

/// Returns `true` if the failure of one address is final.
fn is_final_cause(cause: &Error) -> bool {
    use TlsErrorKind::{BadCertificate, RefusedByServer, Revoked, UnknownAuthority, WrongName};
    match cause {
        Error::Server(e) => e.code().starts_with("28") || e.code() == "3D000",
        Error::Auth(_) => true,
        Error::Tls(e) => {
            matches!(e.kind(), BadCertificate | RefusedByServer | Revoked | UnknownAuthority | WrongName)
        }
        _ => false,
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
        Some(CompactInstant::from(due?).round_up_to(self.part()).into())
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
    asked: Option<CompactInstant>,
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
        let mut jitter = Jitter::of((signs.who, CompactInstant::from(signs.last_read)));
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

    fn server(code: &str) -> Error {
        crate::error::ServerError { code: code.into(), ..Default::default() }.into()
    }

    fn connect(cause: Error, earlier: &[Error]) -> Error {
        let earlier = earlier.iter().map(|error| ("db1".to_owned(), error.clone())).collect();
        Error::Connect(std::sync::Arc::new(crate::error::ConnectError {
            target: "db".into(),
            cause,
            earlier,
            note: None,
        }))
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
    fn m13_only_a_short_list_of_failures_is_final() {
        use crate::error::TlsError;
        for code in ["28P01", "28000", "3D000"] {
            assert!(is_final_attempt(&connect(server(code), &[]), true), "{code}");
            // If a session ends, or refuses LISTEN, its login was not refused.
            assert!(!is_final_attempt(&server(code), true) && !is_final_loss(&server(code)), "{code}");
        }
        for code in ["", "57P01", "57P03", "53300", "08006", "25006", "25P03", "XX000", "55000", "22P05", "42501"] {
            assert!(!is_final_attempt(&connect(server(code), &[]), false), "{code}");
            assert!(!is_final_attempt(&server(code), false) && !is_final_loss(&server(code)), "{code}");
        }
        let tls = |kind| Error::from(TlsError::new(kind, ""));
        for kind in [TlsErrorKind::WrongName, TlsErrorKind::UnknownAuthority, TlsErrorKind::RefusedByServer] {
            assert!(is_final_attempt(&connect(tls(kind), &[]), true), "{kind:?}");
        }
        for kind in [TlsErrorKind::Expired, TlsErrorKind::File, TlsErrorKind::NotOffered, TlsErrorKind::Handshake] {
            assert!(!is_final_attempt(&connect(tls(kind), &[]), false), "{kind:?}");
        }
        assert!(is_final_loss(&Error::Closed) && !is_final_loss(&Error::Disconnected));
    }

    #[test]
    fn m13_a_failure_of_several_addresses_is_final_only_if_the_login_was_refused_or_all_are() {
        let away = [Error::Disconnected];
        assert!(!is_final_attempt(&connect(server("3D000"), &away), true));
        assert!(is_final_attempt(&connect(server("28P01"), &away), true));
        assert!(is_final_attempt(&connect(server("3D000"), &[server("3D000")]), true));
    }

    #[test]
    fn m13_a_mistake_of_the_caller_is_final_only_where_no_session_was_open() {
        let mistake = Error::from(crate::error::ValueError { message: "a name is too long".into() });
        assert!(is_final_attempt(&mistake, false));
        assert!(!is_final_attempt(&mistake, true));
    }

    #[test]
    fn m13_only_a_session_of_less_than_a_second_counts_as_a_failed_attempt() {
        let start = Instant::now();
        let after = |time, error: &Error| failed_before(Some((start, 4)), error, start + time);
        assert_eq!(after(SECOND - Duration::from_millis(1), &Error::Disconnected), 5);
        assert_eq!(after(SECOND, &Error::Disconnected), 0);
        assert_eq!(failed_before(None, &Error::Disconnected, start), 0);
        assert_eq!(failed_before(Some((start, u32::MAX)), &Error::Disconnected, start), u32::MAX);
        for code in ["22P05", "22021"] {
            assert_eq!(after(Duration::ZERO, &server(code)), 0, "{code} is about the notification");
        }
    }

    #[test]
    fn m13_final_failures_are_retried_slowly() {
        let backoff = Backoff::default();
        let mut jitter = Jitter::new(1);
        let delays: Vec<_> = (0..200).map(|_| backoff.slow_delay(&mut jitter)).collect();
        assert!(delays.iter().all(|delay| (backoff.longest / 2..backoff.longest).contains(delay)));
        assert!(Backoff::default().longest(Duration::MAX).slow_delay(&mut jitter) <= DELAY_MAX);
    }
}
