//! Polls the states of the connections of `listen --exec`.

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::notifier::State;
use notifyman::{Config, Connection, Error, Notifier};

use super::connections::Connections;
use super::delivery::DeliveryChecks;
use crate::cli::args::ListenArgs;
use crate::cli::clock;

/// The time between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The time that connecting to an available server may take.
const ATTEMPT_TIME: Duration = Duration::from_millis(300);

/// A new state of a connection, by number.
pub(super) enum StateChange {
    /// The connection listens for the first time.
    Opened(usize),
    /// The connection could not be opened, and is not retried.
    Lost(usize),
}

/// The states of the connections, as polled from the notifier.
pub(super) struct ConnectionWatcher {
    pub(super) connections: Connections,
    configs: Vec<Config>,
    channels: Vec<String>,
    pub(super) checks: DeliveryChecks,
    /// Handles of the connections that are neither open nor lost, with their numbers.
    opening: Vec<(usize, Notifier<usize>)>,
    /// Handles of the open connections whose delivery is being checked, or whose loss would end the program.
    open: Vec<(usize, Notifier<usize>)>,
    began: Instant,
    /// The reasons why connections could not be opened, once `find_reasons` has begun.
    failures: Option<Receiver<(usize, Error)>>,
    fail_fast: bool,
    /// `true` if a failure has ended the program.
    pub(super) has_failed: bool,
}

impl ConnectionWatcher {
    pub(super) fn new(configs: &[Config], args: &ListenArgs, checks: DeliveryChecks) -> Self {
        Self {
            connections: Connections::new(configs, args.quiet),
            configs: configs.to_vec(),
            channels: args.channels.clone(),
            checks,
            opening: Vec::new(),
            open: Vec::new(),
            began: clock::now(),
            failures: None,
            fail_fast: args.fail_fast,
            has_failed: false,
        }
    }

    /// Adds a connection that is not open yet.
    pub(super) fn add(&mut self, number: usize, handle: Notifier<usize>) {
        self.opening.push((number, handle));
    }

    /// Returns when to poll again, if a state can still change.
    pub(super) fn next_poll(&self) -> Option<Duration> {
        (!self.opening.is_empty() || !self.open.is_empty()).then_some(POLL_INTERVAL)
    }

    /// Reports and returns the changes. See also [`has_failed`](Self::has_failed).
    pub(super) fn poll(&mut self) -> Vec<StateChange> {
        let mut changes = Vec::new();
        for (number, handle) in std::mem::take(&mut self.opening) {
            match handle.state() {
                State::Listening => {
                    changes.push(StateChange::Opened(number));
                    self.connections.opened(number);
                    if let Some(config) = self.configs.get(number - 1) {
                        self.checks.begin(number, config, None);
                    }
                    self.open.push((number, handle));
                }
                State::Lost(error) => {
                    changes.push(StateChange::Lost(number));
                    self.fail(number, &error, true);
                }
                _ => self.opening.push((number, handle)),
            }
        }
        for (number, handle) in std::mem::take(&mut self.open) {
            let is_checked = !self.checks.is_running(number);
            match handle.state() {
                State::Listening if is_checked && !self.fail_fast => {}
                State::Listening => self.open.push((number, handle)),
                _ if !self.fail_fast => self.checks.cancel(number),
                State::Lost(error) => self.fail(number, &error, true),
                _ => {
                    self.connections.lost_for_unknown_reason(number);
                    self.has_failed = true;
                }
            }
        }
        self.find_reasons();
        let failures: Vec<_> = self.failures.iter().flat_map(Receiver::try_iter).collect();
        for (number, error) in failures {
            if self.opening.iter().any(|(opening, _)| *opening == number) {
                self.fail(number, &error, self.fail_fast);
            }
        }
        self.connections.report_delays();
        changes
    }

    fn fail(&mut self, number: usize, error: &Error, is_final: bool) {
        match is_final {
            true => self.connections.lost(number, error),
            false => self.connections.disconnected(number, error),
        }
        self.has_failed |= self.fail_fast;
    }

    /// Connects once more in the background, for each connection that is not open after a moment: the notifier does not
    /// report the errors of its attempts.
    fn find_reasons(&mut self) {
        if self.failures.is_some() || self.opening.is_empty() || clock::now() - self.began < ATTEMPT_TIME {
            return;
        }
        let (sender, failures) = channel();
        self.failures = Some(failures);
        let number = |(number, _): &(usize, _)| *number;
        let numbers: Vec<_> = self.opening.iter().map(number).collect();
        let configs: Vec<_> = numbers.iter().filter_map(|number| self.configs.get(number - 1).cloned()).collect();
        // Invalid channels have been refused before.
        let Ok(attempts) = Connection::connect_many(configs).listen(&self.channels) else { return };
        let dial = move || {
            for (index, attempt) in attempts {
                let failure = numbers.get(index).copied().zip(attempt.err());
                if failure.is_some_and(|failure| sender.send(failure).is_err()) {
                    return;
                }
            }
        };
        // Without a thread the reason stays unknown, and the delay is still reported.
        let _ = thread::Builder::new().name("reasons".into()).spawn(dial);
    }
}
