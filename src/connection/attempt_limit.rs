//! The time limit of each of several addresses, within the limit of all of them together.
//!
//! ```text
//!   begin ──▶ an equal share ──accepted──▶ nearly all that is left ──a byte──▶ all that is left
//! ```
//!
//! The share limits the time to reach an address, so that one that drops all packets leaves time for the others. A
//! server that has sent anything gets all the time left, however slow its login is. A server that accepts and stays
//! silent may be slow, or frozen: the kernel accepts connections for a stopped process. So it leaves an eighth of the
//! time to the others, and a second silent server gets no more than its share.

use std::time::{Duration, Instant};

/// The divisor for the part of the remaining time that a silent server leaves to the other addresses.
const RESERVED: u32 = 8;

/// The time limits of the attempts at several addresses, one after the other.
#[derive(Debug)]
pub(super) struct AttemptLimit {
    /// The deadline of all attempts together.
    deadline: Option<Instant>,
    /// The deadline of the current attempt.
    pub(super) until: Option<Instant>,
    began: Option<Instant>,
    /// The number of addresses and hosts to try after this one.
    others: u32,
    /// `true` once one silent server has had more than its share.
    extended_for_silence: bool,
}

impl AttemptLimit {
    pub(super) fn new(timeout: Option<Duration>, now: Instant) -> Self {
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        Self { deadline, until: None, began: None, others: 0, extended_for_silence: false }
    }

    /// Begins an attempt; `to_try` counts the attempts left, this one included.
    pub(super) fn begin(&mut self, to_try: usize, now: Instant) {
        let to_try = u32::try_from(to_try).unwrap_or(u32::MAX).max(1);
        self.others = to_try - 1;
        self.began = Some(now);
        self.until = self.deadline.map(|deadline| now + deadline.saturating_duration_since(now) / to_try);
    }

    /// Extends the limit, because the address has accepted the connection.
    pub(super) fn accept(&mut self, now: Instant) {
        if self.others == 0 || !std::mem::replace(&mut self.extended_for_silence, true) {
            let reserve = |left: Duration| if self.others == 0 { Duration::ZERO } else { left / RESERVED };
            let later = self.deadline.map(|at| at - reserve(at.saturating_duration_since(now)));
            self.until = self.until.max(later);
        }
    }

    /// Extends the limit to all the time left, because the server has sent something.
    pub(super) fn receive(&mut self) {
        self.until = self.deadline;
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Returns the time limit of the attempt, rounded to the millisecond.
    pub(super) fn given(&self) -> Duration {
        let given = self.until.zip(self.began).map(|(until, began)| until.saturating_duration_since(began));
        let millis = given.unwrap_or_default().saturating_add(Duration::from_micros(500)).as_millis();
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// Runs one attempt after the other, each until its limit; returns the limits, in milliseconds.
    fn given(attempts: &[(bool, bool)]) -> Vec<u128> {
        let mut now = clock::now();
        let mut limit = AttemptLimit::new(Some(Duration::from_secs(8)), now);
        let run = |(i, (accepts, sends)): (usize, &(bool, bool))| {
            limit.begin(attempts.len() - i, now);
            if *accepts {
                limit.accept(now);
            }
            if *sends {
                limit.receive();
            }
            assert!(!limit.is_over(now) || limit.given() == Duration::ZERO);
            now = limit.until.unwrap();
            assert!(limit.is_over(now));
            limit.given().as_millis()
        };
        attempts.iter().enumerate().map(run).collect()
    }

    #[test]
    fn c01_a_share_limits_the_time_to_reach_an_address() {
        let (unreachable, silent, slow) = ((false, false), (true, false), (true, true));
        assert_eq!(given(&[unreachable; 4]), [2000; 4]);
        assert_eq!(given(&[silent]), [8000]);
        assert_eq!(given(&[slow, slow]), [8000, 0]);
        assert_eq!(given(&[silent, silent]), [7000, 1000]);
        assert_eq!(given(&[silent, silent, silent]), [7000, 500, 500]);
        assert_eq!(given(&[unreachable, silent, unreachable]), [2667, 4667, 667]);
        assert_eq!(given(&[silent, slow, silent]), [7000, 1000, 0]);
    }

    #[test]
    fn c01_without_a_timeout_no_attempt_is_limited() {
        let now = clock::now();
        let mut limit = AttemptLimit::new(None, now);
        limit.begin(3, now);
        limit.accept(now);
        limit.receive();
        assert_eq!((limit.until, limit.is_over(now)), (None, false));
    }
}
