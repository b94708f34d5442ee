//! How long one of several addresses may take, when all of them together are bounded.
//!
//! ```text
//!   begin ──▶ an equal share ──accepted──▶ nearly all that is left ──a byte──▶ all that is left
//! ```
//!
//! A share is for reaching an address: one that swallows everything must not use up what the others need. A server that
//! has said anything is there and gets all the time there is, however slow its login. In between is a server that
//! accepts and stays silent. It may be slow, or frozen: the kernel accepts for a process that is stopped. So the others
//! keep an eighth of what is left, and a second server that stays silent gets no more than its share.

use std::time::{Duration, Instant};

/// The part of the time left that a silent server leaves to the other addresses.
const RESERVED: u32 = 8;

/// The time limits of the attempts at several addresses, one after the other.
#[derive(Debug)]
pub(super) struct AttemptLimit {
    /// When the whole must be done.
    deadline: Option<Instant>,
    /// When the attempt must be done.
    until: Option<Instant>,
    began: Option<Instant>,
    /// How many addresses and hosts are to be tried after this one.
    others: u32,
    /// Set once a server that stayed silent has had its chance.
    was_patient: bool,
}

impl AttemptLimit {
    pub(super) fn new(timeout: Option<Duration>, now: Instant) -> Self {
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        Self { deadline, until: None, began: None, others: 0, was_patient: false }
    }

    /// Begins an attempt, with so many to try, this one included.
    pub(super) fn begin(&mut self, to_try: usize, now: Instant) {
        let to_try = u32::try_from(to_try).unwrap_or(u32::MAX).max(1);
        self.others = to_try - 1;
        self.began = Some(now);
        self.until = self.deadline.map(|deadline| now + deadline.saturating_duration_since(now) / to_try);
    }

    /// The address has accepted the connection.
    pub(super) fn accept(&mut self, now: Instant) {
        if self.others == 0 || !std::mem::replace(&mut self.was_patient, true) {
            let reserve = |left: Duration| if self.others == 0 { Duration::ZERO } else { left / RESERVED };
            let later = self.deadline.map(|at| at - reserve(at.saturating_duration_since(now)));
            self.until = self.until.max(later);
        }
    }

    /// The server has said something.
    pub(super) fn hear(&mut self) {
        self.until = self.deadline;
    }

    /// When the attempt must be done.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// What the attempt was given, to the millisecond, since some of it has passed before the dial.
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

    /// Runs one attempt after the other, each to its end; gives what each was given, in milliseconds.
    fn given(attempts: &[(bool, bool)]) -> Vec<u128> {
        let mut now = clock::now();
        let mut limit = AttemptLimit::new(Some(Duration::from_secs(8)), now);
        let run = |(i, (accepts, speaks)): (usize, &(bool, bool))| {
            limit.begin(attempts.len() - i, now);
            if *accepts {
                limit.accept(now);
            }
            if *speaks {
                limit.hear();
            }
            assert!(!limit.is_over(now) || limit.given() == Duration::ZERO);
            now = limit.until().unwrap();
            assert!(limit.is_over(now));
            limit.given().as_millis()
        };
        attempts.iter().enumerate().map(run).collect()
    }

    #[test]
    fn c1_a_share_is_for_reaching_an_address() {
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
    fn c1_without_a_timeout_nothing_is_limited() {
        let now = clock::now();
        let mut limit = AttemptLimit::new(None, now);
        limit.begin(3, now);
        limit.accept(now);
        limit.hear();
        assert_eq!((limit.until(), limit.is_over(now)), (None, false));
    }
}
