//! The connections of `listen --exec`, whose notifier reports their states when it is asked.

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::notifier::State;
use notifyman::{Config, Connection, Error, Notifier};

use crate::cli::args::Listen;
use crate::cli::clock;
use crate::cli::connections::{Connections, LOOK};
use crate::cli::delivery::DeliveryChecks;

/// The time in which a server that answers is connected to.
const ATTEMPT_TIME: Duration = Duration::from_millis(300);

/// What has become of a connection, by its number.
pub(super) enum StateChange {
    /// It listens for the first time.
    Opened(usize),
    /// It could not be opened, and is not tried again.
    Lost(usize),
}

/// What becomes of the connections, which a notifier tells when it is asked.
pub(super) struct Watch {
    pub(super) connections: Connections,
    configs: Vec<Config>,
    channels: Vec<String>,
    pub(super) checks: DeliveryChecks,
    /// The notifier as seen from each connection that is neither open nor lost, with the number of the connection.
    pub(super) opening: Vec<(usize, Notifier<usize>)>,
    /// Those that are open, while their delivery is checked, or for as long as a loss ends the program.
    open: Vec<(usize, Notifier<usize>)>,
    began: Instant,
    /// Why connections could not be opened, once that is asked for.
    failures: Option<Receiver<(usize, Error)>>,
    fail_fast: bool,
    /// `true` if a failure has ended the program.
    pub(super) has_failed: bool,
}

impl Watch {
    pub(super) fn new(configs: &[Config], args: &Listen, checks: DeliveryChecks) -> Self {
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

    /// Returns when to look again, if anything can have changed then.
    pub(super) fn next_look(&self) -> Option<Duration> {
        (!self.opening.is_empty() || !self.open.is_empty()).then_some(LOOK)
    }

    /// Reports what has changed, and returns it. See also [`has_failed`](Self::has_failed).
    pub(super) fn look(&mut self) -> Vec<StateChange> {
        let mut changes = Vec::new();
        for (number, there) in std::mem::take(&mut self.opening) {
            match there.state() {
                State::Listening => {
                    changes.push(StateChange::Opened(number));
                    self.connections.opened(number);
                    if let Some(config) = self.configs.get(number - 1) {
                        self.checks.begin_beside(number, config);
                    }
                    self.open.push((number, there));
                }
                State::Lost(error) => {
                    changes.push(StateChange::Lost(number));
                    self.fail(number, &error, true);
                }
                _ => self.opening.push((number, there)),
            }
        }
        for (number, there) in std::mem::take(&mut self.open) {
            let is_checked = !self.checks.is_running(number);
            match there.state() {
                State::Listening if is_checked && !self.fail_fast => {}
                State::Listening => self.open.push((number, there)),
                _ if !self.fail_fast => self.checks.cancel(number),
                State::Lost(error) => self.fail(number, &error, true),
                _ => {
                    self.connections.lost_for_unknown_reason(number);
                    self.has_failed = true;
                }
            }
        }
        self.ask_for_reasons();
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
            true => self.connections.lost(number, error, true),
            false => self.connections.first_attempt_failed(number, error),
        }
        self.has_failed |= self.fail_fast;
    }

    /// A notifier does not tell why it cannot connect for now. So what has not been opened in a moment is tried once more
    /// from here, in the background.
    fn ask_for_reasons(&mut self) {
        if self.failures.is_some() || self.opening.is_empty() || clock::now() - self.began < ATTEMPT_TIME {
            return;
        }
        let (sender, failures) = channel();
        self.failures = Some(failures);
        let number = |(number, _): &(usize, _)| *number;
        let numbers: Vec<_> = self.opening.iter().map(number).collect();
        let configs: Vec<_> = numbers.iter().filter_map(|number| self.configs.get(number - 1).cloned()).collect();
        // A channel that cannot be has been refused before.
        let Ok(attempts) = Connection::connect_many(configs).listen(&self.channels) else { return };
        let dial = move || {
            for (index, attempt) in attempts {
                let failure = numbers.get(index).copied().zip(attempt.err());
                if failure.is_some_and(|failure| sender.send(failure).is_err()) {
                    return;
                }
            }
        };
        // Without a thread the reason stays unknown, and the delay is reported all the same.
        let _ = thread::Builder::new().name("reasons".into()).spawn(dial);
    }
}
