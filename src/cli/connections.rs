//! The connections of `listen`, by number, and what standard error says of each.
//!
//! ```text
//!   Opening ──▶ Open ◀──▶ Away ──▶ Lost
//!      └── the attempt failed, or takes long: said once ──▶ Open, Lost
//! ```

use std::time::{Duration, Instant};

use notifyman::{Config, Error};

use super::output::{tell, tell_with_advice};
use super::{advice, clock};

/// The time between two looks at attempts to connect that are not over.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// The time after which an attempt to connect is reported that has not ended.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// The state of all connections, as far as it has been reported.
pub(super) struct Connections {
    /// By their numbers, from 1.
    list: Vec<Tracked>,
    /// The number of connections in the state `Opening`.
    undecided: usize,
    is_quiet: bool,
    began: Instant,
    first_opened: Option<Instant>,
    last_came: Option<Instant>,
    /// `false` once something may have been missed.
    is_complete: bool,
}

struct Tracked {
    place: String,
    state: ReportedState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReportedState {
    Opening,
    /// Like `Opening`, and it has been said that it takes long, or has failed.
    Delayed,
    Open,
    Away,
    Lost,
}

impl Connections {
    pub(super) fn new(configs: &[Config], is_quiet: bool) -> Self {
        let opening = |config: &Config| Tracked { place: config.to_string(), state: ReportedState::Opening };
        let list: Vec<_> = configs.iter().map(opening).collect();
        let (undecided, began) = (list.len(), clock::now());
        Self { list, undecided, is_quiet, began, first_opened: None, last_came: None, is_complete: true }
    }

    fn set(&mut self, number: usize, state: ReportedState) -> Option<(String, ReportedState)> {
        let tracked = self.list.get_mut(number.checked_sub(1)?)?;
        let before = std::mem::replace(&mut tracked.state, state);
        self.undecided -= usize::from(before == ReportedState::Opening);
        Some((tracked.place.clone(), before))
    }

    fn state(&self, number: usize) -> Option<ReportedState> {
        self.list.get(number.checked_sub(1)?).map(|tracked| tracked.state)
    }

    /// A connection listens for the first time.
    pub(super) fn opened(&mut self, number: usize) {
        self.first_opened.get_or_insert_with(clock::now);
        if let Some((place, before)) = self.set(number, ReportedState::Open)
            && (!self.is_quiet || before == ReportedState::Delayed)
        {
            tell(format_args!("connection {number} listens at {place}"));
        }
    }

    /// The first attempt to connect has failed, and is repeated.
    pub(super) fn first_attempt_failed(&mut self, number: usize, error: &Error) {
        if self.state(number) == Some(ReportedState::Opening)
            && let Some((place, _)) = self.set(number, ReportedState::Delayed)
        {
            tell(format_args!("{}; it is tried again", failure(number, &place, error)));
        }
    }

    /// A connection could not be opened, or is lost; `is_final` if it is not tried again.
    pub(super) fn lost(&mut self, number: usize, error: &Error, is_final: bool) {
        let state = if is_final { ReportedState::Lost } else { ReportedState::Away };
        let Some((place, before)) = self.set(number, state) else { return };
        self.is_complete = false;
        match (before, advice(error)) {
            (ReportedState::Open | ReportedState::Away, _) => {
                let outlook = if is_final { "" } else { ", and dialled again" };
                match error {
                    // It names the place.
                    Error::Connect(_) => tell(format_args!("connection {number} is lost{outlook}: {error}")),
                    _ => tell(format_args!("connection {number} ({place}) is lost{outlook}: {error}")),
                }
            }
            (_, None) => tell(failure(number, &place, error)),
            (_, Some(advice)) => tell_with_advice(failure(number, &place, error), advice),
        }
    }

    /// A connection is lost, and it is not known why.
    pub(super) fn lost_for_unknown_reason(&mut self, number: usize) {
        if let Some((place, _)) = self.set(number, ReportedState::Lost) {
            self.is_complete = false;
            tell(format_args!("connection {number} ({place}) is lost"));
        }
    }

    /// A lost connection listens again.
    pub(super) fn restored(&mut self, number: usize) {
        self.set(number, ReportedState::Open);
        self.is_complete = false;
        self.last_came = Some(clock::now());
        tell(format_args!("connection {number} is back"));
    }

    /// Something else than a loss makes the result incomplete.
    pub(super) fn set_incomplete(&mut self) {
        self.is_complete = false;
    }

    /// A notification came.
    pub(super) fn came(&mut self) {
        self.last_came = Some(clock::now());
    }

    /// Reports the first attempts that take long.
    pub(super) fn report_delays(&mut self) {
        if clock::now() - self.began < PATIENCE {
            return;
        }
        for (number, tracked) in (1..).zip(&mut self.list) {
            if tracked.state == ReportedState::Opening {
                tracked.state = ReportedState::Delayed;
                self.undecided -= 1;
                tell(format_args!("connection {number} ({}) does not answer yet; it is tried further", tracked.place));
            }
        }
    }

    /// Returns `true` while a first attempt to connect is neither over nor reported.
    pub(super) fn is_undecided(&self) -> bool {
        self.undecided > 0
    }

    /// Returns `true` if a connection is open, or is tried again.
    pub(super) fn is_any_left(&self) -> bool {
        self.list.iter().any(|tracked| tracked.state != ReportedState::Lost)
    }

    /// Returns how long to wait before the next look at all this; nothing if the whole timeout has passed.
    ///
    /// The timeout begins with the first connection. It does not end the program while it is not known what becomes of
    /// the others, which is for a moment only.
    pub(super) fn next_look(&self, timeout: Option<Duration>) -> Option<Option<Duration>> {
        if self.is_undecided() {
            return Some(Some(LOOK));
        }
        match (timeout, self.first_opened.max(self.last_came)) {
            (Some(timeout), Some(quiet_since)) => rest(timeout, clock::now() - quiet_since).map(Some),
            _ => Some(None),
        }
    }

    /// Reports which connections have never been opened, if the end is not the fault of another; returns `true` if nothing
    /// can be missing.
    pub(super) fn finish(&mut self, has_failed: bool) -> bool {
        for (number, tracked) in (1..).zip(&self.list) {
            if matches!(tracked.state, ReportedState::Opening | ReportedState::Delayed) {
                self.is_complete = false;
                if !has_failed {
                    tell(format_args!("connection {number} ({}) was never opened", tracked.place));
                }
            }
        }
        self.is_complete
    }
}

/// Names the connection and the cause.
fn failure(number: usize, place: &str, error: &Error) -> String {
    match error {
        // It names the place.
        Error::Connect(_) => format!("connection {number}: {error}"),
        _ => format!("connection {number} ({place}): {error}"),
    }
}

/// Returns what is left of the timeout, if anything is.
pub(super) fn rest(timeout: Duration, quiet_for: Duration) -> Option<Duration> {
    timeout.checked_sub(quiet_for).filter(|rest| !rest.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_is_over_when_it_has_been_quiet_for_all_of_it() {
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
        assert_eq!(connections.next_look(timeout), Some(Some(LOOK)));
        connections.first_attempt_failed(1, &Error::Disconnected);
        assert_eq!(connections.next_look(timeout), Some(Some(LOOK)));
        connections.first_attempt_failed(2, &Error::Disconnected);
        assert_eq!(connections.next_look(timeout), Some(None));
        connections.opened(2);
        assert_eq!(connections.next_look(timeout), None);
        assert!(connections.is_any_left());
        connections.lost(1, &Error::Disconnected, true);
        connections.lost(2, &Error::Disconnected, true);
        assert!(!connections.is_any_left() && !connections.finish(false));
    }
}
