//! The policy for reconnecting: when to try again, and which failures are final.

use std::time::{Duration, Instant};

use super::jitter::Jitter;
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
/// let backoff =
///     Backoff::default().first(Duration::from_millis(50)).per_second(50);
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
    /// Delays from 100 ms, doubling up to 30 s; 64 attempts in progress, 200 in a second; final failures are not retried.
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

/// The limits for connections that are opened for the first time. These were not lost together, so they are not spread over
/// time.
pub(crate) const FIRST_DIALS: Backoff =
    Backoff { first: Duration::ZERO, longest: Duration::ZERO, at_once: 256, per_second: u32::MAX, retry_all: false };

/// The longest delay, whatever is set.
const DELAY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

impl Backoff {
    /// Sets the longest delay before the first attempt, which doubles with each failed one.
    #[must_use]
    pub fn first(mut self, first: Duration) -> Self {
        self.first = first;
        self
    }

    /// Sets the longest delay before any attempt; at most a day.
    #[must_use]
    pub fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// Sets how many attempts may be in progress; at least 1.
    #[must_use]
    #[doc(alias = "concurrency")]
    pub fn at_once(mut self, attempts: usize) -> Self {
        self.at_once = attempts.max(1);
        self
    }

    /// Sets how many attempts may begin in a second; at least 1.
    #[must_use]
    #[doc(alias = "rate_limit")]
    pub fn per_second(mut self, attempts: u32) -> Self {
        self.per_second = attempts.max(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

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
