//! The connections of `listen`, by number, and the messages about them on standard error.
//!
//! ```text
//!   Opening ──▶ Open ◀──▶ Away ──▶ Lost
//!      └── the attempt failed, or takes long: reported once ──▶ Open, Lost
//! ```

use std::time::{Duration, Instant};

use notifyman::{Config, Error};

use crate::cli::args::ListenArgs;
use crate::cli::clock;
use crate::cli::connect::advice;
use crate::cli::engine;
use crate::cli::health::SourceMonitor;
use crate::cli::messages::{print_message, print_message_with_advice};
use crate::cli::output::counted;

/// The time after which an unfinished attempt to connect is reported.
pub(crate) const REPORT_AFTER: Duration = Duration::from_secs(3);

/// The most channels that a message names.
const CHANNELS_SHOWN: usize = 10;

/// The reported states of all connections.
pub(super) struct Connections {
    /// The connections in the order of their numbers, from 1.
    list: Vec<TrackedConnection>,
    /// The channels of each connection, for messages.
    channels: String,
    /// The number of connections in the state `Opening`.
    undecided: usize,
    is_quiet: bool,
    began: Instant,
    first_opened: Option<Instant>,
    /// The time at which a notification arrived, or a connection was restored.
    pub(super) last_received: Option<Instant>,
    /// `false` once something may have been missed.
    is_complete: bool,
    monitor: SourceMonitor,
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
    pub(super) fn new(configs: &[Config], args: &ListenArgs, monitor: SourceMonitor) -> Self {
        // The settings of a stream have no address.
        let place = |config: &Config| match (args.from.is_empty(), config.get_label()) {
            (false, Some(stream)) => engine::place(stream),
            _ => config.to_string(),
        };
        let opening = |config: &Config| TrackedConnection { place: place(config), state: TrackedState::Opening };
        let list: Vec<_> = configs.iter().map(opening).collect();
        let (undecided, began) = (list.len(), clock::now());
        Self {
            list,
            channels: listed(&args.channels),
            undecided,
            is_quiet: args.quiet,
            began,
            first_opened: None,
            last_received: None,
            is_complete: true,
            monitor,
        }
    }

    /// Sets the state of a connection, and returns the one before.
    fn set(&mut self, number: usize, state: TrackedState) -> Option<TrackedState> {
        let tracked = self.list.get_mut(number.checked_sub(1)?)?;
        let before = std::mem::replace(&mut tracked.state, state);
        self.undecided -= usize::from(before == TrackedState::Opening);
        Some(before)
    }

    fn tracked(&self, number: usize) -> Option<&TrackedConnection> {
        self.list.get(number.checked_sub(1)?)
    }

    fn place(&self, number: usize) -> &str {
        self.tracked(number).map_or("", |tracked| &tracked.place)
    }

    /// Returns the name of a connection, with its address unless the error contains it.
    fn name(&self, number: usize, error: &Error) -> String {
        match error {
            Error::Connect(_) => format!("connection {number}"),
            _ => format!("connection {number} ({})", self.place(number)),
        }
    }

    /// Returns a message about an attempt that has failed.
    fn failure(&self, number: usize, error: &Error) -> String {
        format!("{}: {error:#}", self.name(number, error))
    }

    /// Records that a connection listens for the first time.
    pub(super) fn opened(&mut self, number: usize) {
        self.monitor.opened(number);
        self.first_opened.get_or_insert_with(clock::now);
        if let Some(before) = self.set(number, TrackedState::Open)
            && (!self.is_quiet || before == TrackedState::Delayed)
        {
            print_message(format_args!("connection {number} listens to {} at {}", self.channels, self.place(number)));
        }
    }

    /// Records that the first attempt to connect has failed, or that a connection is lost, and that it is retried.
    pub(super) fn disconnected(&mut self, number: usize, error: &Error) {
        self.monitor.away(number, error);
        match self.tracked(number).map(|tracked| tracked.state) {
            Some(TrackedState::Opening) => {
                self.set(number, TrackedState::Delayed);
                print_message(format_args!("{}; retrying", self.failure(number, error)));
            }
            Some(TrackedState::Open) => {
                self.set(number, TrackedState::Away);
                self.is_complete = false;
                print_message(format_args!("{} is lost, reconnecting: {error:#}", self.name(number, error)));
            }
            // The failure or the loss has been reported.
            _ => {}
        }
    }

    /// Records that a connection could not be opened, or is lost, and that it is not retried.
    pub(super) fn lost(&mut self, number: usize, error: &Error) {
        self.monitor.away(number, error);
        let Some(before) = self.set(number, TrackedState::Lost) else { return };
        self.is_complete = false;
        match (before, advice(error)) {
            (TrackedState::Open | TrackedState::Away, _) => {
                print_message(format_args!("{} is lost: {error:#}", self.name(number, error)));
            }
            (_, None) => print_message(self.failure(number, error)),
            (_, Some(advice)) => print_message_with_advice(self.failure(number, error), advice),
        }
    }

    /// Records that a connection is lost for an unknown reason.
    pub(super) fn lost_for_unknown_reason(&mut self, number: usize) {
        if self.set(number, TrackedState::Lost).is_some() {
            self.is_complete = false;
            print_message(format_args!("connection {number} ({}) is lost", self.place(number)));
        }
    }

    /// Records that a lost connection listens again.
    pub(super) fn restored(&mut self, number: usize) {
        self.monitor.opened(number);
        self.monitor.missed(number);
        self.set(number, TrackedState::Open);
        self.is_complete = false;
        self.last_received = Some(clock::now());
        print_message(format_args!("connection {number} is restored"));
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
    /// for at most [`REPORT_AFTER`].
    pub(super) fn next_check(&self, timeout: Option<Duration>) -> Option<Option<Duration>> {
        if self.is_undecided() {
            return Some(Some(REPORT_AFTER.saturating_sub(clock::now() - self.began)));
        }
        match (timeout, self.first_opened.max(self.last_received)) {
            (Some(timeout), Some(quiet_since)) => rest(timeout, clock::now() - quiet_since).map(Some),
            _ => Some(None),
        }
    }

    /// Reports what is missing at the end, unless a failure has ended the program: the connections that were never opened,
    /// and notifications up to the count. Returns `true` if nothing can be missing.
    pub(super) fn finish(&mut self, is_any_left: bool, missing: Option<u64>, has_failed: bool) -> bool {
        if !is_any_left {
            print_message("no connection is left");
        } else if let Some(missing @ 1..) = missing
            && !has_failed
        {
            let (missing, are) = (counted(missing, "notification"), if missing == 1 { "is" } else { "are" });
            print_message(format_args!("the timeout came before the count: {missing} {are} missing"));
            self.is_complete = false;
        }
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

/// Returns the state of the connections for a health check, which do not listen yet.
pub(super) fn monitor(configs: &[Config], proof_limit: Option<Duration>) -> SourceMonitor {
    let name = |config: &Config| config.get_label().map_or_else(|| config.to_string(), str::to_owned);
    SourceMonitor::new(configs.iter().map(name), proof_limit)
}

/// Returns the names of the first channels, and the number of the others.
fn listed(channels: &[String]) -> String {
    let (shown, others) = channels.split_at(channels.len().min(CHANNELS_SHOWN));
    let is_plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-.:/".contains(c));
    let name = |name: &String| if is_plain(name) { name.clone() } else { format!("{name:?}") };
    let shown = shown.iter().map(name).collect::<Vec<_>>().join(", ");
    if others.is_empty() { shown } else { format!("{shown} and {} more", others.len()) }
}

/// Returns the rest of the timeout, if it is not zero.
pub(super) fn rest(timeout: Duration, quiet_for: Duration) -> Option<Duration> {
    timeout.checked_sub(quiet_for).filter(|rest| !rest.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Args, CliCommand};
    use clap::Parser as _;

    #[test]
    fn the_timeout_expires_without_notifications() {
        let seconds = Duration::from_secs;
        assert_eq!(rest(seconds(5), seconds(2)), Some(seconds(3)));
        assert_eq!(rest(seconds(5), seconds(5)), None);
        assert_eq!(rest(seconds(5), seconds(6)), None);
        assert_eq!(rest(Duration::ZERO, Duration::ZERO), None);
    }

    #[test]
    fn the_first_channels_are_named_and_the_others_counted() {
        let names = |count| (1..=count).map(|n| format!("c{n}")).collect::<Vec<_>>();
        assert_eq!(listed(&names(2)), "c1, c2");
        assert_eq!(listed(&["a.b".into(), "c, d".into(), "".into()]), "a.b, \"c, d\", \"\"");
        assert!(listed(&names(10)).ends_with("c9, c10") && listed(&names(12)).ends_with("c9, c10 and 2 more"));
    }

    #[test]
    fn the_timeout_begins_with_the_first_connection() {
        let configs = [Config::new().host("one"), Config::new().host("two")];
        let args = ["notifyman", "listen", "--quiet", "prices"];
        let CliCommand::Listen(args) = Args::parse_from(args).command else { panic!("another command") };
        let monitor = monitor(&configs, None);
        let mut connections = Connections::new(&configs, &args, monitor);
        let timeout = Some(Duration::ZERO);
        assert!(connections.next_check(timeout).flatten().is_some());
        connections.disconnected(1, &Error::Disconnected);
        assert!(connections.next_check(timeout).flatten().is_some());
        connections.disconnected(2, &Error::Disconnected);
        assert_eq!(connections.next_check(timeout), Some(None));
        connections.opened(2);
        assert_eq!(connections.next_check(timeout), None);
        assert!(connections.is_any_left());
        connections.lost(1, &Error::Disconnected);
        connections.lost(2, &Error::Disconnected);
        assert!(!connections.is_any_left() && !connections.finish(true, None, false));
    }
}
