//! Polls the states of the connections of `listen --exec`.

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::notifier::State;
use notifyman::{Config, Connection, Error, Notifier};

use super::connections::{Connections, rest};
use super::delivery::DeliveryChecks;
use super::pool::{CommandPool, PoolState};
use crate::cli::args::ListenArgs;
use crate::cli::clock;
use crate::cli::health::SourceMonitor;

/// The time between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The time that connecting to an available server may take.
const ATTEMPT_TIME: Duration = Duration::from_millis(300);

/// The states of the connections, as polled from the notifier.
pub(super) struct ConnectionWatcher<'a> {
    args: &'a ListenArgs,
    configs: &'a [Config],
    pub(super) connections: Connections,
    pub(super) checks: DeliveryChecks,
    /// Handles of the connections that are neither open nor lost, with their numbers.
    pub(super) opening: Vec<(usize, Notifier<usize>)>,
    /// Handles of the open connections whose delivery is being checked, or whose loss would end the program.
    open: Vec<(usize, Notifier<usize>)>,
    began: Instant,
    /// The reasons why connections could not be opened, once `find_reasons` has begun.
    failures: Option<Receiver<(usize, Error)>>,
    /// `true` if a failure has ended the program.
    pub(super) has_failed: bool,
}

impl<'a> ConnectionWatcher<'a> {
    pub(super) fn new(
        configs: &'a [Config],
        args: &'a ListenArgs,
        monitor: SourceMonitor,
        checks: DeliveryChecks,
    ) -> Self {
        Self {
            args,
            configs,
            connections: Connections::new(configs, args, monitor),
            checks,
            opening: Vec::new(),
            open: Vec::new(),
            began: clock::now(),
            failures: None,
            has_failed: false,
        }
    }

    /// Waits for a signal, the count, the loss of the last connection, or the timeout.
    pub(super) fn wait_for_end(&mut self, pool: &CommandPool) {
        let mut state = pool.lock();
        while !state.has_ended() {
            self.poll(&mut state);
            if self.has_failed || state.subscriptions.is_empty() {
                return;
            }
            let can_change = !self.opening.is_empty() || !self.open.is_empty();
            let mut wait = can_change.then_some(POLL_INTERVAL);
            // The timeout does not expire while a command runs.
            if let (Some(timeout), 0, Some(last)) = (self.args.timeout, state.running, state.last_activity)
                && !self.connections.is_undecided()
            {
                let Some(rest) = rest(timeout, clock::now() - last) else { return };
                wait = Some(wait.map_or(rest, |wait| wait.min(rest)));
            }
            state = pool.wait(state, wait);
        }
        self.poll(&mut state);
    }

    /// Reports and records the changes. See also [`has_failed`](Self::has_failed).
    fn poll(&mut self, pool: &mut PoolState) {
        for (number, handle) in std::mem::take(&mut self.opening) {
            match handle.state() {
                State::Listening => {
                    pool.opened.insert(number);
                    pool.last_activity.get_or_insert_with(clock::now);
                    self.connections.opened(number);
                    if let Some(config) = self.configs.get(number - 1)
                        && self.args.from.is_empty()
                    {
                        self.checks.begin(number, config, None);
                    }
                    self.open.push((number, handle));
                }
                State::Lost(error) => {
                    pool.subscriptions.retain(|(lost, _)| *lost != number);
                    self.fail(number, &error, true);
                }
                _ => self.opening.push((number, handle)),
            }
        }
        for (number, handle) in std::mem::take(&mut self.open) {
            let is_checked = !self.checks.is_running(number);
            match handle.state() {
                State::Listening if is_checked && !self.args.fail_fast => {}
                State::Listening => self.open.push((number, handle)),
                _ if !self.args.fail_fast => self.checks.cancel(number),
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
                self.fail(number, &error, self.args.fail_fast);
            }
        }
        self.connections.report_delays();
    }

    fn fail(&mut self, number: usize, error: &Error, is_final: bool) {
        match is_final {
            true => self.connections.lost(number, error),
            false => self.connections.disconnected(number, error),
        }
        self.has_failed |= self.args.fail_fast;
    }

    /// Connects once more in the background, for each connection that is not open after a moment: the notifier does not
    /// report the errors of its attempts. The reader of a relay reports its own.
    fn find_reasons(&mut self) {
        if !self.args.from.is_empty()
            || self.failures.is_some()
            || self.opening.is_empty()
            || clock::now() - self.began < ATTEMPT_TIME
        {
            return;
        }
        let (sender, failures) = channel();
        self.failures = Some(failures);
        let number = |(number, _): &(usize, _)| *number;
        let numbers: Vec<_> = self.opening.iter().map(number).collect();
        let configs: Vec<_> = numbers.iter().filter_map(|number| self.configs.get(number - 1).cloned()).collect();
        // Invalid channels have been refused before.
        let Ok(attempts) = Connection::connect_many(configs).listen(&self.args.channels) else { return };
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
