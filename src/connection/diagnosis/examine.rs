//! Examines an open connection step by step.
//!
//! ```text
//!   known without a query ─▶ in a transaction? ─▶ facts ─▶ standby? ─▶ pooler? ─▶ LISTEN, NOTIFY, arrived? ─▶ queue
//!                                  └── the end             └────────────────┴── not listened ──────────────────▲
//! ```
//!
//! The notification is sent from a second session, while the first one is idle like a listener.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use super::checks::{self, PoolerMode};
use super::facts::SessionFacts;
use super::finding::FindingKind::{
    Delivery, DeliveryFailing, Encoding, IdleTimeout, InTransaction, Keepalive, ListenBug, QueueFilling, Standby,
    StatementTimeout, TransactionPooler, Unexamined,
};
use super::finding::{Finding, Severity};
use crate::clock;
use crate::connection::blocking::BlockingPoll;
use crate::connection::{Connection, ReadContext};
use crate::error::Error;
use crate::proto::{READ_SIZE, ReadBuffer, TransactionStatus, sql};
use crate::row::Row;

/// The longest time that a notification may take to arrive.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(3);
/// The limit for opening a second connection, and for each request on it.
const SECOND_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of times that the processes of two sessions are compared: a pooler may assign its sessions in turn.
const ROUNDS: usize = 3;

const BACKEND_PID: &str = "SELECT pg_catalog.pg_backend_pid()";

/// Selects the process, whether it is a standby, and two limits in milliseconds, of which older servers lack one.
const FACTS: &str = "SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery(), \
    (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'idle_session_timeout'), \
    (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'statement_timeout')";

/// Examines a connection. Returns the findings, other facts, and the reason if the connection was closed.
pub(super) fn examine(connection: &mut Connection) -> (Vec<Finding>, SessionFacts, Result<(), Error>) {
    let second = Err(Error::Unopened);
    let mut examination = Examination { connection, second, findings: Vec::new(), facts: SessionFacts::default() };
    let end = examination.run();
    (examination.findings, examination.facts, end)
}

/// Returns the process of the server that is behind a connection now.
fn backend_pid(connection: &mut Connection) -> Result<Option<i32>, Error> {
    Ok(connection.query(BACKEND_PID)?.first().and_then(|row| number(row, 0)))
}

struct Examination<'c> {
    connection: &'c mut Connection,
    /// A second connection to the same address, or the reason why there is none.
    second: Result<Box<Connection>, Error>,
    findings: Vec<Finding>,
    facts: SessionFacts,
}

/// The delivery of a notification.
enum ProbeDelivery {
    /// The notification arrived while the session was idle, after this time.
    After(Duration),
    /// The notification arrived only with the answer to a later query.
    WithLaterAnswer,
    /// The notification did not arrive; the evidence.
    Nothing(String),
}

impl Examination<'_> {
    /// Runs all checks. Returns an error only if the connection is closed.
    fn run(&mut self) -> Result<(), Error> {
        if let Some(reason) = self.connection.error() {
            return Err(reason.clone());
        }
        let version = self.connection.server_version();
        self.facts.version = Some(version.to_owned()).filter(|version| !version.is_empty());
        self.facts.tls = self.connection.link.stream().tls_description();
        self.findings.extend(checks::version(version));
        self.findings.extend(checks::encoding(self.connection.parameter("server_encoding")));
        self.facts.checked.extend([ListenBug, Encoding]);
        if let Some(keepalive) = self.connection.link.stream().keepalive() {
            self.findings.extend(checks::keepalive(keepalive));
            self.facts.checked.push(Keepalive);
        }
        self.facts.checked.push(InTransaction);

        if self.connection.transaction_status() != TransactionStatus::Idle {
            let what = "The session is in a transaction: the server delivers nothing to it until the transaction ends.";
            let advice = "COMMIT or ROLLBACK; use different connections for transactions and for listening. The other \
                          checks need a session outside a transaction.";
            self.findings.push(Finding::new(InTransaction, Severity::Failure, what, advice));
            return Ok(());
        }

        let facts = self.ask(FACTS, "the session")?;
        let facts = facts.first();
        let millis = |column| Some(Duration::from_millis(number(facts?, column)?));
        let timeouts = [(millis(2), IdleTimeout), (millis(3), StatementTimeout)];
        self.facts.checked.extend(timeouts.iter().filter(|(limit, _)| limit.is_some()).map(|(_, kind)| *kind));
        self.findings.extend(millis(2).and_then(checks::idle_timeout));
        self.findings.extend(millis(3).and_then(checks::statement_timeout));
        self.facts.checked.extend(facts.map(|_| Standby));
        if facts.and_then(|row| row.get(1)).as_deref() == Some("t") {
            self.findings.push(checks::standby());
            return Ok(());
        }
        self.second = self.connection.connect_again(SECOND_TIMEOUT).map(Box::new);
        let between = self.detect_pooler(facts.and_then(|row| number(row, 0)))?;
        self.facts.checked.push(TransactionPooler);
        match between {
            PoolerMode::TransactionPooler(proof) => self.add_transaction_pooler(proof),
            between => self.probe(between)?,
        }
        self.queue()
    }

    /// Sends a query. If the server rejects it, that is a finding.
    fn ask(&mut self, sql: &str, about: &str) -> Result<Vec<Row>, Error> {
        let answer = self.connection.query(sql);
        let refused = self.unless_closed(answer)?;
        Ok(refused.unwrap_or_else(|error| {
            let what = format!("The server rejected a query about {about}.");
            self.findings.push(Finding::new(Unexamined, Severity::Info, what, "").because(format!("{error:#}")));
            Vec::new()
        }))
    }

    /// Separates errors that ended the connection from those that did not.
    fn unless_closed<T>(&self, result: Result<T, Error>) -> Result<Result<T, Error>, Error> {
        match result {
            Err(error) if self.connection.is_closed() => Err(error),
            other => Ok(other),
        }
    }

    /// Detects a pooler, which reports a process id of its own at login. If its clients share sessions, two connections
    /// are served by the same process, or one is served by different processes.
    fn detect_pooler(&mut self, pid: Option<i32>) -> Result<PoolerMode, Error> {
        let Some(pid) = pid.filter(|pid| *pid != self.connection.pid()) else { return Ok(PoolerMode::Nothing) };
        for _ in 0..ROUNDS {
            let Ok(second) = &mut self.second else { return Ok(PoolerMode::UnknownPooler) };
            match backend_pid(second) {
                Ok(Some(other)) if other == pid => {
                    return Ok(PoolerMode::TransactionPooler(format!(
                        "two connections were served by the same process {pid}"
                    )));
                }
                Ok(_) => {}
                Err(error) => self.second = Err(error),
            }
            let now = backend_pid(self.connection);
            if let Ok(Some(now)) = self.unless_closed(now)?
                && now != pid
            {
                let proof = format!("the connection was served by process {pid} and then by {now}");
                return Ok(PoolerMode::TransactionPooler(proof));
            }
        }
        Ok(if self.second.is_ok() { PoolerMode::Pooler } else { PoolerMode::UnknownPooler })
    }

    fn add_transaction_pooler(&mut self, proof: String) {
        let what = "The connection goes through a pooler in transaction or statement mode, which accepts LISTEN but delivers nothing.";
        let advice = "Connect directly to the server, or to a pool in session mode (PgBouncer: `pool_mode = session` for \
                      this database or user).";
        self.findings.push(Finding::new(TransactionPooler, Severity::Failure, what, advice).because(proof));
    }

    /// Listens, notifies, waits, and removes all traces.
    fn probe(&mut self, between: PoolerMode) -> Result<(), Error> {
        let channel = probe_channel(self.connection.pid());
        let listened = self.connection.listen([&channel]);
        self.facts.checked.push(Delivery);
        if let Err(error) = self.unless_closed(listened)? {
            self.findings.push(checks::listen_refused(&error));
            return Ok(());
        }
        let delivered = self.deliver(&channel);
        // After the answer, nothing more arrives on the channel. If this fails, the channel still belongs to no other
        // session.
        let _ = self.connection.unlisten([&channel]);
        self.connection.link.backlog_mut().remove(&channel);
        let Some(delivered) = delivered? else { return Ok(()) };
        if let Some(reason) = self.connection.error() {
            return Err(reason.clone());
        }

        match (delivered, between) {
            (ProbeDelivery::After(latency), between) => {
                self.facts.latency = Some(latency);
                let what = format!("A notification was delivered after {}.", checks::span(latency));
                let alone = self.second.as_ref().err();
                let evidence = alone.map(|error| {
                    format!("this session sent it itself, so delivery to an idle session was not examined: {error:#}")
                });
                self.findings.push(Finding { evidence, ..Finding::new(Delivery, Severity::Ok, what, "") });
                self.findings.extend(checks::pooler_that_delivers(&between, alone));
            }
            (ProbeDelivery::WithLaterAnswer, _) => self.findings.push(checks::held_back(ARRIVAL_TIMEOUT)),
            (ProbeDelivery::Nothing(seen), PoolerMode::Nothing) => {
                let what =
                    format!("LISTEN and NOTIFY succeed, but no notification arrives within {ARRIVAL_TIMEOUT:?}.");
                let advice = "Check for a proxy that answers for the server, and check the server's load, log and NOTIFY \
                              queue.";
                self.findings.push(Finding::new(DeliveryFailing, Severity::Failure, what, advice).because(seen));
            }
            (ProbeDelivery::Nothing(seen), _) => {
                self.add_transaction_pooler(format!("no notification arrived within {ARRIVAL_TIMEOUT:?}; {seen}"));
            }
        }
        Ok(())
    }

    /// Sends one notification and waits for it; returns `None` if it could not be sent.
    fn deliver(&mut self, channel: &str) -> Result<Option<ProbeDelivery>, Error> {
        let mut known = self.connection.link.backlog().size();
        let begin = clock::now();
        if let Err(error) = self.send(|sender| sender.notify(channel, "probe"))? {
            let may_not_call = error.sqlstate() == Some("42501");
            self.findings.push(checks::notify_refused(&error));
            if !may_not_call {
                return Ok(None);
            }
            // NOTIFY needs no privilege, unlike `pg_notify`.
            if self.send(|sender| sender.execute(&format!("NOTIFY {channel}, 'probe'")).map(drop))?.is_err() {
                return Ok(None);
            }
        }
        if let Some(latency) = self.wait_for(channel, &mut known, begin)? {
            return Ok(Some(ProbeDelivery::After(latency)));
        }
        let channels = self.connection.listening_channels();
        let channels = self.unless_closed(channels)?;
        if self.connection.link.backlog().has_from(known, channel) {
            return Ok(Some(ProbeDelivery::WithLaterAnswer));
        }
        let seen = match channels {
            Ok(channels) if channels.iter().any(|listened| listened == channel) => {
                "the server lists the channel".into()
            }
            Ok(_) => "the server does not list the channel".into(),
            Err(error) => format!("the server did not list its channels ({error:#})"),
        };
        Ok(Some(ProbeDelivery::Nothing(seen)))
    }

    /// Sends from the second connection, or from this one if there is none.
    fn send(&mut self, send: impl Fn(&mut Connection) -> Result<(), Error>) -> Result<Result<(), Error>, Error> {
        if let Ok(second) = &mut self.second {
            match send(second) {
                Err(error) if second.is_closed() || error.is_timeout() => self.second = Err(error),
                sent => return Ok(sent),
            }
        }
        let sent = send(self.connection);
        self.unless_closed(sent)
    }

    /// Reads without sending anything, until a notification arrives on the channel, or until the time limit.
    fn wait_for(&mut self, channel: &str, known: &mut usize, begin: Instant) -> Result<Option<Duration>, Error> {
        let until = clock::now() + ARRIVAL_TIMEOUT;
        let mut buffer = ReadBuffer::new(READ_SIZE);
        let mut poll = None;
        loop {
            if self.connection.link.backlog().has_from(*known, channel) {
                return Ok(Some(clock::now().saturating_duration_since(begin)));
            }
            *known = self.connection.link.backlog().size();
            let now = clock::now();
            if now >= until {
                return Ok(None);
            }
            let mut cx = ReadContext::new(&mut buffer, now, true, None);
            if self.connection.link.pump(&mut cx).bytes > 0 {
                continue;
            }
            if let Some(reason) = self.connection.error() {
                return Err(reason.clone());
            }
            poll.get_or_insert_with(|| BlockingPoll::on(self.connection.link.stream())).wait_until(Some(until));
        }
    }

    fn queue(&mut self) -> Result<(), Error> {
        let usage = self.ask(sql::QUEUE_USAGE, "its NOTIFY queue")?;
        let Some(usage) = usage.first().and_then(|row| number(row, 0)) else { return Ok(()) };
        self.facts.set_queue_usage(usage);
        self.facts.checked.push(QueueFilling);
        if checks::queue(usage, None).is_none() {
            return Ok(());
        }
        let holder = self.holder()?;
        // The error of a NOTIFY that failed is merged into this finding, which also names the process.
        let refusal = self.findings.extract_if(.., |known| known.kind == QueueFilling).last();
        let refusal =
            refusal.and_then(|finding| finding.evidence).map(|error| format!("{error}; ")).unwrap_or_default();
        self.findings.extend(checks::queue(usage, holder.as_ref()).map(|finding| {
            let evidence = format!("{refusal}{}", finding.evidence().unwrap_or_default());
            finding.because(evidence)
        }));
        Ok(())
    }

    /// Finds the process that prevents the queue from being truncated. If the queue is half full, the server names the
    /// process in a warning to some sessions that notify, as this one has just done. Otherwise it may be the one with
    /// the longest transaction.
    fn holder(&mut self) -> Result<Option<checks::QueueHolder>, Error> {
        let columns = checks::HOLDER_COLUMNS;
        let sender = self.second.as_ref().map_or(&*self.connection, |second| second);
        let named = sender.link.notices().filter_map(checks::holder_named_by).last();
        if let Some(pid) = named {
            let rows = self.ask(&format!("{columns} WHERE pid = {pid}"), "the process that holds its NOTIFY queue")?;
            // The warning may be outdated.
            if let Some(row) = rows.first().filter(|row| !checks::QueueHolder::is_over(row)) {
                return Ok(Some(checks::QueueHolder::new(row, true)));
            }
        }
        let rows = self.ask(&format!("{columns} {}", checks::OLDEST), "its transactions")?;
        Ok(rows.first().map(|row| checks::QueueHolder::new(row, false)))
    }
}

/// Returns a unique channel name that needs no quotes, because it contains only letters, digits and `_`.
fn probe_channel(pid: i32) -> String {
    // Each instance has its own random keys.
    let random = RandomState::new().build_hasher().finish();
    format!("notifyman_diagnosis_{}_{random:016x}", pid.unsigned_abs())
}

fn number<N: std::str::FromStr>(row: &Row, column: usize) -> Option<N> {
    row.get(column)?.parse().ok()
}
