//! The check at the start of `listen` that notifications are delivered.
//!
//! ```text
//!   connection opened ──▶ a thread: a second session, NOTIFY on the private channel ──▶ arrived?
//!                                                 yes ──▶ done          no ──▶ diagnosis ──▶ standard error
//! ```
//!
//! Each connection listens to a private channel of its own from the beginning, so the check covers the session that
//! receives, and that session sends nothing; the channel then stays unused. With `--exec` a notification would wait
//! behind commands, so two other sessions are examined. The checks do not block the loop.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use notifyman::{Config, Connection, Diagnosis, Error, Finding, FindingKind, Severity};

use crate::cli::args::ListenArgs;
use crate::cli::health::SourceMonitor;
use crate::cli::messages::{print_message, print_message_with_advice};

/// The time after which a missing notification is diagnosed.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(2);
/// The time limit for opening the second session, and for each call on it.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The most attempts to open the second session.
const ATTEMPTS: u32 = 3;
/// The most second sessions at a time.
const THREADS: usize = 8;

/// The checks of all connections, by number.
pub(super) struct DeliveryChecks {
    /// The prefix of the names of private channels.
    prefix: String,
    /// Checks whose notification has not arrived.
    pending: HashMap<usize, PendingCheck>,
    /// Connections whose notification has arrived.
    pub(super) proven: HashSet<usize>,
    jobs: Sender<DeliveryCheck>,
    shared: Arc<CheckThreads>,
    threads: usize,
}

/// A check whose notification has not arrived.
struct PendingCheck {
    arrived: Sender<()>,
    /// Expires when the check has ended.
    job: Weak<()>,
}

/// The state shared by the threads.
struct CheckThreads {
    jobs: Mutex<Receiver<DeliveryCheck>>,
    has_failed: AtomicBool,
    /// Called when a check fails, with `--fail-fast`.
    stop: Box<dyn Fn() + Send + Sync>,
    fail_fast: bool,
    is_quiet: bool,
    monitor: SourceMonitor,
}

/// A check.
struct DeliveryCheck {
    number: usize,
    config: Config,
    /// The private channel to which the connection listens, if it does.
    channel: Option<String>,
    /// Disconnected when the session ends.
    arrived: Receiver<()>,
    _alive: Arc<()>,
}

impl DeliveryChecks {
    /// Creates the checks. With `--fail-fast`, `stop` is called from another thread when notifications are not delivered.
    pub(super) fn new(args: &ListenArgs, monitor: SourceMonitor, stop: impl Fn() + Send + Sync + 'static) -> Self {
        let (jobs, receiver) = channel();
        let shared = CheckThreads {
            jobs: Mutex::new(receiver),
            has_failed: AtomicBool::new(false),
            stop: Box::new(stop),
            fail_fast: args.fail_fast,
            is_quiet: args.quiet,
            monitor,
        };
        // Random, and so different for each process.
        let prefix = format!("notifyman_listen_{:016x}_", RandomState::new().hash_one(0));
        Self { prefix, pending: HashMap::new(), proven: HashSet::new(), jobs, shared: Arc::new(shared), threads: 0 }
    }

    /// Returns the private channel of a connection, which needs no quotes.
    pub(super) fn channel(&self, number: usize) -> String {
        format!("{}{number}", self.prefix)
    }

    /// Returns `true` for the private channel of any connection.
    pub(super) fn is_private(&self, channel: &[u8]) -> bool {
        channel.starts_with(self.prefix.as_bytes())
    }

    /// Begins to check a connection, by its private channel if it listens to that, otherwise by two other sessions.
    pub(super) fn begin(&mut self, number: usize, config: &Config, private: Option<String>) {
        let (sender, arrived) = channel();
        let alive = Arc::new(());
        self.pending.insert(number, PendingCheck { arrived: sender, job: Arc::downgrade(&alive) });
        let config = config.clone().connect_timeout(CALL_TIMEOUT).call_timeout(CALL_TIMEOUT);
        let _ = self.jobs.send(DeliveryCheck { number, config, channel: private, arrived, _alive: alive });
        if self.threads < THREADS {
            self.threads += 1;
            let shared = Arc::clone(&self.shared);
            // Without a thread the check is omitted, and notifications are still received.
            let _ = thread::Builder::new().name("delivery".into()).spawn(move || shared.run());
        }
    }

    /// Returns `true` while the notification of this connection's check has not arrived.
    pub(super) fn is_pending(&self, number: usize) -> bool {
        self.pending.contains_key(&number)
    }

    /// Records that the notification of a connection has arrived.
    pub(super) fn arrived(&mut self, number: usize) {
        if let Some(pending) = self.pending.remove(&number) {
            let _ = pending.arrived.send(());
            self.proven.insert(number);
        }
    }

    /// Returns `true` until the check has ended.
    pub(super) fn is_running(&self, number: usize) -> bool {
        self.pending.get(&number).is_some_and(|pending| pending.job.strong_count() > 0)
    }

    /// Cancels the check of a session that has ended.
    pub(super) fn cancel(&mut self, number: usize) {
        self.pending.remove(&number);
    }

    /// Returns `true` if notifications of a connection are not delivered.
    pub(super) fn has_failed(&self) -> bool {
        self.shared.has_failed.load(Ordering::Relaxed)
    }
}

impl CheckThreads {
    fn run(&self) {
        loop {
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            self.check(&job);
        }
    }

    fn check(&self, job: &DeliveryCheck) {
        for attempt in 1.. {
            if !job.is_pending_after(Duration::ZERO) {
                return;
            }
            match examine(job) {
                CheckOutcome::Delivered => return,
                CheckOutcome::Failing(reasons) => return self.fail(job, &reasons),
                // The server may be shutting down, which ends the session and the check, or be available again soon.
                CheckOutcome::Unknown { reason, is_transient } => {
                    if !job.is_pending_after(ARRIVAL_TIMEOUT) {
                        return;
                    }
                    if attempt == ATTEMPTS || !is_transient {
                        if !self.is_quiet {
                            let number = job.number;
                            print_message(format_args!("delivery to connection {number} was not checked: {reason}"));
                        }
                        return;
                    }
                }
            }
        }
    }

    fn fail(&self, job: &DeliveryCheck, reasons: &[Finding]) {
        // First: the program may end as soon as the reasons are printed.
        self.has_failed.store(true, Ordering::Relaxed);
        for finding in reasons {
            let DeliveryCheck { number, config, .. } = job;
            let text = format_args!("connection {number} ({config}) receives nothing: {}", finding.what());
            print_message_with_advice(text, finding.advice());
            self.monitor.undelivered(*number, finding.what().to_owned());
        }
        if self.fail_fast {
            (self.stop)();
        }
    }
}

impl DeliveryCheck {
    /// Waits, and returns `true` if the notification has not arrived by then and the session has not ended.
    fn is_pending_after(&self, wait: Duration) -> bool {
        self.arrived.recv_timeout(wait) == Err(RecvTimeoutError::Timeout)
    }
}

/// The result of a check.
enum CheckOutcome {
    Delivered,
    /// Notifications are not delivered, because of these findings.
    Failing(Vec<Finding>),
    Unknown {
        reason: String,
        is_transient: bool,
    },
}

/// Sends the notification, and runs a diagnosis if it does not arrive.
fn examine(job: &DeliveryCheck) -> CheckOutcome {
    if let Some(channel) = &job.channel {
        match notify(job, channel) {
            Err(error) if !is_refusal(&error) => {
                let is_transient = error.is_transient() && error.sqlstate() != Some("53300");
                return CheckOutcome::Unknown { reason: format!("{error:#}"), is_transient };
            }
            _ if !job.is_pending_after(ARRIVAL_TIMEOUT) => return CheckOutcome::Delivered,
            _ => {}
        }
    }
    let diagnosis = Diagnosis::of(&job.config);
    if !job.is_pending_after(Duration::ZERO) {
        // The notification was only late, or the session has ended.
        return CheckOutcome::Delivered;
    }
    let failures = diagnosis.into_iter().filter(|finding| finding.severity() == Severity::Failure);
    let (reasons, others): (Vec<_>, Vec<_>) = failures.partition(is_about_delivery);
    match others.first() {
        _ if !reasons.is_empty() => CheckOutcome::Failing(reasons),
        Some(other) => CheckOutcome::Unknown {
            reason: other.evidence().unwrap_or(other.what()).to_owned(),
            is_transient: other.kind() != FindingKind::TooManyConnections,
        },
        // Another session with the same settings receives notifications.
        None => CheckOutcome::Delivered,
    }
}

/// Sends the notification from a session of its own.
fn notify(job: &DeliveryCheck, channel: &str) -> Result<(), Error> {
    let mut sender = Connection::connect(&job.config)?;
    // NOTIFY needs no privilege, unlike `pg_notify`.
    sender.execute(&format!("NOTIFY {channel}"))?;
    // The server has acknowledged NOTIFY, so an error of `close` does not matter.
    let _ = sender.close();
    Ok(())
}

/// Returns `true` if the server has refused the notification.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Server(refusal) if !refusal.is_fatal())
}

/// Returns `true` if the finding prevents delivery to an open, listening session.
fn is_about_delivery(finding: &Finding) -> bool {
    use FindingKind::{DeliveryFailing, NotifyRefused, QueueFilling, TransactionPooler};
    matches!(finding.kind(), DeliveryFailing | NotifyRefused | QueueFilling | TransactionPooler)
}
