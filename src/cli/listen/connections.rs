//! The connections of `listen`, by number, and the messages about them on standard error.
//!
//! ```text
//!   Opening ──▶ Open ◀──▶ Away ──▶ Lost
//!      └── the attempt failed, or takes long: reported once ──▶ Open, Lost
//! ```

use std::time::{Duration, Instant};

use notifyman::{Config, Error};

use crate::cli::clock;
use crate::cli::connect::advice;
use crate::cli::output::{print_message, print_message_with_advice};

/// The time between two checks of unfinished attempts to connect.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// The time after which an unfinished attempt to connect is reported.
pub(crate) const REPORT_AFTER: Duration = Duration::from_secs(3);

/// The reported states of all connections.
pub(super) struct Connections {
    /// The connections in the order of their numbers, from 1.
    list: Vec<TrackedConnection>,
    /// The number of connections in the state `Opening`.
    undecided: usize,
    is_quiet: bool,
    began: Instant,
    first_opened: Option<Instant>,
    last_came: Option<Instant>,
    /// `false` once something may have been missed.
    is_complete: bool,
}

struct TrackedConnection {
    place: String,
    state: TrackedState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrackedState {
    Opening,
    /// Like `Opening`, after a report that the attempt takes long, or has failed.
    Delayed,
    Open,
    Away,
    Lost,
}

impl Connections {
    pub(super) fn new(configs: &[Config], is_quiet: bool) -> Self {
        let opening = |config: &Config| TrackedConnection { place: config.to_string(), state: TrackedState::Opening };
        let list: Vec<_> = configs.iter().map(opening).collect();
        let (undecided, began) = (list.len(), clock::now());
        Self { list, undecided, is_quiet, began, first_opened: None, last_came: None, is_complete: true }
    }

    fn set(&mut self, number: usize, state: TrackedState) -> Option<(String, TrackedState)> {
        let tracked = self.list.get_mut(number.checked_sub(1)?)?;
        let before = std::mem::replace(&mut tracked.state, state);
        self.undecided -= usize::from(before == TrackedState::Opening);
        Some((tracked.place.clone(), before))
    }

    fn state(&self, number: usize) -> Option<TrackedState> {
        self.list.get(number.checked_sub(1)?).map(|tracked| tracked.state)
    }

    /// Records that a connection listens for the first time.
    pub(super) fn opened(&mut self, number: usize) {
        self.first_opened.get_or_insert_with(clock::now);
        if let Some((place, before)) = self.set(number, TrackedState::Open)
            && (!self.is_quiet || before == TrackedState::Delayed)
        {
            print_message(format_args!("connection {number} listens at {place}"));
        }
    }

    /// Records that the first attempt to connect has failed, and is repeated.
    pub(super) fn first_attempt_failed(&mut self, number: usize, error: &Error) {
        if self.state(number) == Some(TrackedState::Opening)
            && let Some((place, _)) = self.set(number, TrackedState::Delayed)
        {
            print_message(format_args!("{}; retrying", failure(number, &place, error)));
        }
    }

    /// Records that a connection is lost, or that the first attempt to open it has failed, and that it is retried.
    pub(super) fn disconnected(&mut self, number: usize, error: &Error) {
        match self.state(number) {
            Some(TrackedState::Opening | TrackedState::Delayed) => self.first_attempt_failed(number, error),
            _ => self.lost(number, error, false),
        }
    }

    /// Records that a connection could not be opened, or is lost; `is_final` if that is not retried.
    pub(super) fn lost(&mut self, number: usize, error: &Error, is_final: bool) {
        let state = if is_final { TrackedState::Lost } else { TrackedState::Away };
        let Some((place, before)) = self.set(number, state) else { return };
        self.is_complete = false;
        match (before, advice(error)) {
            (TrackedState::Open | TrackedState::Away, _) => {
                let outlook = if is_final { "" } else { ", reconnecting" };
                match error {
                    // The error contains the address.
                    Error::Connect(_) => print_message(format_args!("connection {number} is lost{outlook}: {error}")),
                    _ => print_message(format_args!("connection {number} ({place}) is lost{outlook}: {error}")),
                }
            }
            (_, None) => print_message(failure(number, &place, error)),
            (_, Some(advice)) => print_message_with_advice(failure(number, &place, error), advice),
        }
    }

    /// Records that a connection is lost for an unknown reason.
    pub(super) fn lost_for_unknown_reason(&mut self, number: usize) {
        if let Some((place, _)) = self.set(number, TrackedState::Lost) {
            self.is_complete = false;
            print_message(format_args!("connection {number} ({place}) is lost"));
        }
    }

    /// Records that a lost connection listens again.
    pub(super) fn restored(&mut self, number: usize) {
        self.set(number, TrackedState::Open);
        self.is_complete = false;
        self.last_came = Some(clock::now());
        print_message(format_args!("connection {number} is restored"));
    }

    /// Records that the result is incomplete for a reason other than a loss.
    pub(super) fn set_incomplete(&mut self) {
        self.is_complete = false;
    }

    /// Records the arrival of a notification.
    pub(super) fn note_notification(&mut self) {
        self.last_came = Some(clock::now());
    }

    /// Reports the first attempts that take long.
    pub(super) fn report_delays(&mut self) {
        if clock::now() - self.began < REPORT_AFTER {
            return;
        }
        for (number, tracked) in (1..).zip(&mut self.list) {
            if tracked.state == TrackedState::Opening {
                tracked.state = TrackedState::Delayed;
                self.undecided -= 1;
                print_message(format_args!(
                    "connection {number} ({}) does not answer yet; still trying",
                    tracked.place
                ));
            }
        }
    }

    /// Returns `true` while a first attempt to connect has neither ended nor been reported.
    pub(super) fn is_undecided(&self) -> bool {
        self.undecided > 0
    }

    /// Returns `true` if a connection is open, or is being reconnected.
    pub(super) fn is_any_left(&self) -> bool {
        self.list.iter().any(|tracked| tracked.state != TrackedState::Lost)
    }

    /// Returns how long to wait before the next check; `None` if the timeout has passed.
    ///
    /// The timeout begins with the first connection. It does not expire while first attempts are undecided, which is
    /// only briefly.
    pub(super) fn next_check(&self, timeout: Option<Duration>) -> Option<Option<Duration>> {
        if self.is_undecided() {
            return Some(Some(CHECK_INTERVAL));
        }
        match (timeout, self.first_opened.max(self.last_came)) {
            (Some(timeout), Some(quiet_since)) => rest(timeout, clock::now() - quiet_since).map(Some),
            _ => Some(None),
        }
    }

    /// Reports the connections that were never opened, unless another one's failure has ended the program; returns
    /// `true` if nothing can be missing.
    pub(super) fn finish(&mut self, has_failed: bool) -> bool {
        for (number, tracked) in (1..).zip(&self.list) {
            if matches!(tracked.state, TrackedState::Opening | TrackedState::Delayed) {
                self.is_complete = false;
                if !has_failed {
                    print_message(format_args!("connection {number} ({}) was never opened", tracked.place));
                }
            }
        }
        self.is_complete
    }
}

/// Returns a message with the connection and the cause.
fn failure(number: usize, place: &str, error: &Error) -> String {
    match error {
        // The error contains the address.
        Error::Connect(_) => format!("connection {number}: {error}"),
        _ => format!("connection {number} ({place}): {error}"),
    }
}

/// Returns the rest of the timeout, if it is not zero.
pub(super) fn rest(timeout: Duration, quiet_for: Duration) -> Option<Duration> {
    timeout.checked_sub(quiet_for).filter(|rest| !rest.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_expires_without_notifications() {
        let seconds = Duration::from_secs;
        assert_eq!(rest(seconds(5), seconds(2)), Some(seconds(3)));
        assert_eq!(rest(seconds(5), seconds(5)), None);
        assert_eq!(rest(seconds(5), seconds(6)), None);
        assert_eq!(rest(Duration::ZERO, Duration::ZERO), None);
    }

    #[test]
    fn the_timeout_begins_with_the_first_connection() {
        let configs = [Config::new().host("one"), Config::new().host("two")];
        let mut connections = Connections::new(&configs, true);
        let timeout = Some(Duration::ZERO);
        assert_eq!(connections.next_check(timeout), Some(Some(CHECK_INTERVAL)));
        connections.first_attempt_failed(1, &Error::Disconnected);
        assert_eq!(connections.next_check(timeout), Some(Some(CHECK_INTERVAL)));
        connections.first_attempt_failed(2, &Error::Disconnected);
        assert_eq!(connections.next_check(timeout), Some(None));
        connections.opened(2);
        assert_eq!(connections.next_check(timeout), None);
        assert!(connections.is_any_left());
        connections.lost(1, &Error::Disconnected, true);
        connections.lost(2, &Error::Disconnected, true);
        assert!(!connections.is_any_left() && !connections.finish(false));
    }
}
