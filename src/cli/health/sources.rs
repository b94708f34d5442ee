//! The health of commands that receive: `listen` and `worker`.
//!
//! ```text
//!   the loop of the command ──opened, away, received ..──▶ SourceMonitor ──▶ /health, /metrics
//! ```
//!
//! A source is a connection, a database or a stream. It is well while it is open, delivery was proven recently, and the consumer takes
//! what it delivers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, describe_counter, describe_gauge, gauge};
use notifyman::{Error, Escaped};
use serde_json::{Value, json};

use super::{Health, HealthServer};
use crate::cli::clock;
use crate::cli::outcome::Failure;

/// The period of the canary with `--health`, unless `--canary` sets another one.
const CANARY: Duration = Duration::from_secs(60);
/// The time after which a consumer that takes nothing has stopped.
const BUSY_MAX: Duration = Duration::from_secs(60);

/// Returns the period of the canary: health needs one, to prove delivery while nothing is sent.
pub(crate) fn canary_period(canary: Option<Duration>, health: Option<&String>) -> Option<Duration> {
    canary.or(health.map(|_| CANARY))
}

/// Returns the age up to which a proof of delivery counts: canaries are not closer together than their deadline.
pub(crate) fn proof_limit((period, deadline): (Duration, Duration)) -> Duration {
    period.max(deadline).saturating_add(deadline)
}

/// The state of the sources of a command, which its loop sets and its health server reads.
#[derive(Clone)]
pub(crate) struct SourceMonitor {
    state: Arc<Mutex<MonitorState>>,
    /// The age up to which a proof counts; `None` if the sources are not proven.
    proof_limit: Option<Duration>,
}

struct MonitorState {
    sources: Vec<MonitoredSource>,
    /// The time since which the consumer has been handling one event.
    busy_since: Option<Instant>,
}

#[derive(Default)]
struct MonitoredSource {
    name: String,
    opened: Option<Instant>,
    proven: Option<Instant>,
    /// The reason why the source is not open.
    loss: Option<String>,
    /// The reason why nothing is delivered although it is open, until something is.
    undelivered: Option<String>,
    /// Other problems that last.
    problems: Vec<String>,
    received: u64,
    gaps: u64,
}

/// Ends the handling of an event when it is dropped.
#[must_use]
pub(crate) struct BusyGuard<'m>(&'m SourceMonitor);

impl Drop for BusyGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().busy_since = None;
    }
}

impl SourceMonitor {
    /// Creates the state of sources with these names, which are not open yet.
    pub(crate) fn new(names: impl IntoIterator<Item = String>, proof_limit: Option<Duration>) -> Self {
        let mut sources = Vec::<MonitoredSource>::new();
        for mut name in names {
            // Two sources of one place are two series.
            if sources.iter().any(|other| other.name == name) {
                name = format!("{name}#{}", sources.len() + 1);
            }
            sources.push(MonitoredSource { name, ..MonitoredSource::default() });
        }
        let state = MonitorState { sources, busy_since: None };
        Self { state: Arc::new(Mutex::new(state)), proof_limit }
    }

    /// Starts a health server if there is an address. `refresh` is called before each look at the state.
    pub(crate) fn serve(
        &self,
        address: Option<&String>,
        is_quiet: bool,
        refresh: impl Fn(&Self) + Send + 'static,
    ) -> Result<Option<HealthServer>, Failure> {
        let Some(address) = address else { return Ok(None) };
        let monitor = self.clone();
        let check = move || {
            refresh(&monitor);
            monitor.health(clock::now())
        };
        let server = HealthServer::start(address, is_quiet, check)?;
        describe();
        Ok(Some(server))
    }

    fn lock(&self) -> MutexGuard<'_, MonitorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the source with this number, from 1.
    fn update(&self, number: usize, change: impl FnOnce(&mut MonitoredSource)) {
        if let Some(source) = self.lock().sources.get_mut(number.wrapping_sub(1)) {
            change(source);
        }
    }

    /// Records that a source is open, or open again.
    pub(crate) fn opened(&self, number: usize) {
        self.update(number, |source| {
            source.opened.get_or_insert_with(clock::now);
            source.loss = None;
        });
    }

    /// Records that a source is not open, with the reason.
    pub(crate) fn away(&self, number: usize, error: &Error) {
        self.away_because(number, format!("{error:#}"));
    }

    pub(crate) fn away_because(&self, number: usize, reason: String) {
        self.update(number, |source| (source.opened, source.proven, source.loss) = (None, None, Some(reason)));
    }

    /// Records that an open source delivers nothing, with the reason.
    pub(crate) fn undelivered(&self, number: usize, reason: String) {
        self.update(number, |source| source.undelivered = Some(reason));
    }

    /// Sets the other problems of a source.
    pub(crate) fn set_problems(&self, number: usize, problems: Vec<String>) {
        self.update(number, |source| source.problems = problems);
    }

    /// Sets the age of the last proof of delivery.
    pub(crate) fn set_proven_age(&self, number: usize, age: Option<Duration>) {
        let proven = age.and_then(|age| clock::now().checked_sub(age));
        self.update(number, |source| source.proven = proven);
    }

    /// Records that delivery is proven.
    pub(crate) fn proven(&self, number: usize) {
        self.update(number, |source| (source.undelivered, source.proven) = (None, Some(clock::now())));
    }

    /// Records notifications or changes, which also prove delivery.
    pub(crate) fn received(&self, number: usize, count: u64) {
        self.update(number, |source| {
            source.received += count;
            (source.undelivered, source.proven) = (None, Some(clock::now()));
        });
    }

    /// Records that something may have been missed.
    pub(crate) fn missed(&self, number: usize) {
        self.update(number, |source| source.gaps += 1);
    }

    /// Records that the consumer handles an event, until the guard is dropped.
    pub(crate) fn busy(&self) -> BusyGuard<'_> {
        self.set_busy_since(Some(clock::now()));
        BusyGuard(self)
    }

    pub(crate) fn set_busy_since(&self, since: Option<Instant>) {
        self.lock().busy_since = since;
    }

    /// Returns the health, and records the metrics.
    fn health(&self, now: Instant) -> Health {
        let state = self.lock();
        let busy = state.busy_since.map(|since| now.saturating_duration_since(since)).filter(|busy| *busy >= BUSY_MAX);
        let stopped = busy.map(|busy| {
            let seconds = busy.as_secs();
            format!("nothing has been taken for {seconds} s: the reader of the output or a command has stopped")
        });
        let mut problems = Vec::new();
        for source in &state.sources {
            let of_source = source.problems(now, self.proof_limit).into_iter();
            problems.extend(of_source.map(|problem| Escaped(format!("{}: {problem}", source.name)).to_string()));
        }
        problems.extend(stopped);
        let details = state.sources.iter().map(|source| source.record(now, self.proof_limit)).collect();
        Health { problems, details }
    }
}

impl MonitoredSource {
    fn problems(&self, now: Instant, proof_limit: Option<Duration>) -> Vec<String> {
        let mut problems = self.problems.clone();
        let Some(opened) = self.opened else {
            if let Some(loss) = &self.loss {
                problems.push(loss.clone());
            } else if problems.is_empty() {
                problems.push("it is not open yet".to_owned());
            }
            return problems;
        };
        problems.extend(self.undelivered.clone());
        // A proof from before a loss proves nothing, and a new session needs time for its first one.
        let unproven = now.saturating_duration_since(self.proven.map_or(opened, |proven| proven.max(opened)));
        if proof_limit.is_some_and(|limit| unproven > limit) {
            problems.push(format!("delivery was not proven for {} s", unproven.as_secs()));
        }
        problems
    }

    /// Records the metrics; returns the state as JSON.
    fn record(&self, now: Instant, proof_limit: Option<Duration>) -> Value {
        let name = || self.name.clone();
        let problems = self.problems(now, proof_limit);
        gauge!("notifyman_source_up", "source" => name()).set(if problems.is_empty() { 1.0 } else { 0.0 });
        counter!("notifyman_source_received_total", "source" => name()).absolute(self.received);
        counter!("notifyman_source_gaps_total", "source" => name()).absolute(self.gaps);
        let proven = self.proven.map(|at| now.saturating_duration_since(at));
        json!({
            "source": Escaped(&self.name).to_string(),
            "open": self.opened.is_some(),
            "received": self.received,
            "gaps": self.gaps,
            "proven_age_ms": proven.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        })
    }
}

fn describe() {
    describe_gauge!("notifyman_source_up", "1 while everything of this source is delivered, else 0");
    describe_counter!(
        "notifyman_source_received_total",
        "notifications or changes that were received from this source"
    );
    describe_counter!("notifyman_source_gaps_total", "gaps of this source, in which something may have been missed");
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn problems(monitor: &SourceMonitor, after: Duration) -> String {
        monitor.health(clock::now() + after).problems.join("; ")
    }

    #[test]
    fn r07_a_source_is_well_while_it_is_open_and_proven_and_the_consumer_takes_what_it_delivers() {
        let limit = proof_limit((SECOND, SECOND * 10));
        assert_eq!(limit, SECOND * 20);
        let monitor = SourceMonitor::new(["a".to_owned(), "a".to_owned()], Some(limit));
        assert_eq!(problems(&monitor, SECOND), "a: it is not open yet; a#2: it is not open yet");
        monitor.opened(1);
        monitor.away(2, &Error::Disconnected);
        assert!(problems(&monitor, SECOND).starts_with("a#2: "), "{}", problems(&monitor, SECOND));
        monitor.opened(2);
        assert_eq!(problems(&monitor, SECOND), "");
        assert_eq!(problems(&monitor, SECOND * 21).matches("delivery was not proven").count(), 2);
        monitor.undelivered(1, "a pooler\x1b".to_owned());
        monitor.opened(1);
        assert_eq!(problems(&monitor, SECOND), "a: a pooler\\u{1b}", "another session proves nothing");
        monitor.received(1, 2);
        assert_eq!(problems(&monitor, SECOND), "");
        monitor.set_problems(2, vec!["the log".to_owned()]);
        monitor.set_proven_age(2, Some(SECOND * 30));
        assert_eq!(problems(&monitor, SECOND), "a#2: the log", "a session that was opened again");
        let found = problems(&monitor, SECOND * 21);
        assert!(found.ends_with("a#2: the log; a#2: delivery was not proven for 21 s"), "{found}");
        monitor.set_problems(2, Vec::new());
        monitor.set_proven_age(2, Some(SECOND));
        let busy = monitor.busy();
        assert_eq!(problems(&monitor, SECOND), "");
        assert!(monitor.health(clock::now() + SECOND * 61).problems.iter().any(|it| it.contains("has stopped")));
        drop(busy);
        assert!(!monitor.health(clock::now() + SECOND * 61).problems.iter().any(|it| it.contains("has stopped")));
        monitor.missed(1);
        let details = monitor.health(clock::now()).details;
        assert_eq!((&details[0]["received"], &details[0]["gaps"]), (&json!(2), &json!(1)));
    }
}
