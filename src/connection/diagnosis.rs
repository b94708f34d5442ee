//! Diagnosis of connections that receive no notifications: the causes and the remedies.
//!
//! ```text
//!   can't be opened ──▶ opening: by the error ───────────────────────┐
//!   open ─────────────▶ examine: asks, listens, notifies, waits ─────┤──▶ Diagnosis: findings, worst first
//!                                    └──▶ checks: what an answer means
//! ```
//!
//! A diagnosis does not affect the session: it listens to a channel of its own, and removes the notifications on it.

mod checks;
mod examine;
mod opening;
mod tls;

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use crate::config::Config;
use crate::connection::Connection;
use crate::error::{Error, Escaped};

/// The severity of a finding, in ascending order.
///
/// ```
/// use notifyman::Severity;
///
/// assert!(Severity::Failure > Severity::Warning && Severity::Info > Severity::Ok);
/// assert_eq!(Severity::Warning.to_string(), "warning");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// No problem.
    Ok,
    /// Information; no action is required.
    Info,
    /// Delivery works now, but may fail in the future.
    Warning,
    /// Notifications are not delivered, or cannot be sent.
    Failure,
}

/// Formats the severity as one lower-case word.
impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Ok => "ok",
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Failure => "failure",
        })
    }
}

/// The subject of a finding.
///
/// Its text is a stable identifier:
///
/// ```
/// assert_eq!(notifyman::FindingKind::TransactionPooler.to_string(), "transaction-pooler");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// A notification was sent and delivered.
    Delivery,
    /// The settings are invalid, so no connection was attempted.
    Settings,
    /// The host name cannot be resolved.
    NameNotFound,
    /// The address does not respond.
    Unreachable,
    /// No process listens at the address, or the operating system denies access to it.
    Refused,
    /// One side requires TLS and the other does not support it, or the server's certificate was rejected.
    Tls,
    /// The server rejects the login of this role.
    Login,
    /// The database does not exist.
    NoSuchDatabase,
    /// The server, the database or the role has reached its connection limit.
    TooManyConnections,
    /// The server is starting up or shutting down.
    NotAccepting,
    /// The peer is not a PostgreSQL server.
    NotPostgres,
    /// The connection was closed while it was opened or examined.
    Disconnected,
    /// The connection could not be opened for another reason.
    ConnectFailed,
    /// The session is in a transaction, so the server delivers nothing to it.
    InTransaction,
    /// The server is a standby, which rejects LISTEN.
    Standby,
    /// A connection pooler in transaction mode, which accepts LISTEN but delivers nothing.
    TransactionPooler,
    /// A connection pooler in session mode, which delivers notifications.
    SessionPooler,
    /// The role lacks a privilege.
    NoPermission,
    /// LISTEN fails.
    ListenRefused,
    /// NOTIFY fails.
    NotifyRefused,
    /// LISTEN and NOTIFY succeed, but no notification arrives.
    DeliveryFailing,
    /// The server's NOTIFY queue is filling up. When it is full, every NOTIFY fails.
    QueueFilling,
    /// The server's version has a bug that makes LISTEN fail with 58P01.
    ListenBug,
    /// A lost connection would be detected late or never.
    Keepalive,
    /// The server terminates idle sessions, such as those of listeners.
    IdleTimeout,
    /// The server cancels statements after a short time.
    StatementTimeout,
    /// The encoding of the database's texts is unknown.
    Encoding,
    /// A check that could not be made.
    Unexamined,
}

impl FindingKind {
    /// Returns the stable identifier: lower-case words joined by `-`.
    pub fn name(self) -> &'static str {
        match self {
            FindingKind::Delivery => "delivery",
            FindingKind::Settings => "settings",
            FindingKind::NameNotFound => "name-not-found",
            FindingKind::Unreachable => "unreachable",
            FindingKind::Refused => "refused",
            FindingKind::Tls => "tls",
            FindingKind::Login => "login",
            FindingKind::NoSuchDatabase => "no-such-database",
            FindingKind::TooManyConnections => "too-many-connections",
            FindingKind::NotAccepting => "not-accepting",
            FindingKind::NotPostgres => "not-postgres",
            FindingKind::Disconnected => "disconnected",
            FindingKind::ConnectFailed => "connect-failed",
            FindingKind::InTransaction => "in-transaction",
            FindingKind::Standby => "standby",
            FindingKind::TransactionPooler => "transaction-pooler",
            FindingKind::SessionPooler => "session-pooler",
            FindingKind::NoPermission => "no-permission",
            FindingKind::ListenRefused => "listen-refused",
            FindingKind::NotifyRefused => "notify-refused",
            FindingKind::DeliveryFailing => "delivery-failing",
            FindingKind::QueueFilling => "queue-filling",
            FindingKind::ListenBug => "listen-bug",
            FindingKind::Keepalive => "keepalive",
            FindingKind::IdleTimeout => "idle-timeout",
            FindingKind::StatementTimeout => "statement-timeout",
            FindingKind::Encoding => "encoding",
            FindingKind::Unexamined => "unexamined",
        }
    }
}

/// Formats the stable identifier.
impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A single result of a diagnosis.
///
/// ```no_run
/// use notifyman::{Connection, Severity};
///
/// # fn main() -> Result<(), notifyman::Error> {
/// let mut db = Connection::connect("postgres://app@db.example/shop")?;
/// for finding in db.diagnose()?.iter().filter(|finding| finding.severity() >= Severity::Warning) {
///     eprintln!("{}: {} {}", finding.kind(), finding.what(), finding.advice());
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    kind: FindingKind,
    severity: Severity,
    what: String,
    advice: String,
    evidence: Option<String>,
}

impl Finding {
    fn new(kind: FindingKind, severity: Severity, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { kind, severity, what: what.into(), advice: advice.into(), evidence: None }
    }

    fn because(mut self, evidence: impl Into<String>) -> Self {
        self.evidence = Some(evidence.into());
        self
    }

    /// Returns the subject.
    pub fn kind(&self) -> FindingKind {
        self.kind
    }

    /// Returns the severity.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// Returns the finding in one sentence.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Returns the remedy. It is empty if no action is required.
    pub fn advice(&self) -> &str {
        &self.advice
    }

    /// Returns the evidence: the text of an error, numbers, or a process.
    pub fn evidence(&self) -> Option<&str> {
        self.evidence.as_deref()
    }
}

/// Formats the finding in several lines without a final newline: severity and kind, followed by the finding, its
/// evidence and its remedy.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {}\n         {}", self.severity, self.kind, Escaped(&self.what))?;
        if let Some(evidence) = &self.evidence {
            write!(f, "\n         seen: {}", Escaped(evidence))?;
        }
        if !self.advice.is_empty() {
            write!(f, "\n         do:   {}", Escaped(&self.advice))?;
        }
        Ok(())
    }
}

/// The result of [`Connection::diagnose`]: findings, the most severe first.
///
/// Its `Display` implementation prints a report as plain text:
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// use notifyman::{Diagnosis, Severity};
///
/// # fn main() {
/// let diagnosis = Diagnosis::of(database());
/// println!("{diagnosis}");
/// assert!(diagnosis.worst() < Severity::Failure);
/// assert!(diagnosis.latency().is_some());
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    target: String,
    findings: Vec<Finding>,
    latency: Option<Duration>,
}

impl Diagnosis {
    /// Connects, diagnoses like [`Connection::diagnose`], and closes the connection. A failure to connect is a finding,
    /// not an error.
    ///
    /// It takes up to `connect_timeout`, and the time of `diagnose`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use notifyman::{Config, Diagnosis, FindingKind};
    ///
    /// // No server listens on port 1.
    /// let nowhere = Config::new().host("127.0.0.1").port(1).connect_timeout(Duration::from_secs(5));
    /// let diagnosis = Diagnosis::of(nowhere);
    /// assert_eq!(diagnosis.findings()[0].kind(), FindingKind::Refused);
    /// ```
    pub fn of<C>(config: C) -> Self
    where
        C: TryInto<Config>,
        C::Error: Into<Error>,
    {
        let config = match config.try_into() {
            Ok(config) => config,
            Err(error) => {
                let findings = opening::findings(&error.into());
                return Self::among("the connection string".into(), findings, None);
            }
        };
        let target = config.to_string();
        match Connection::connect(config) {
            Ok(mut connection) => {
                let (mut findings, latency, end) = examine::examine(&mut connection);
                findings.extend(end.err().map(|error| opening::lost(&error)));
                Self::among(target, findings, latency)
            }
            Err(error) => Self::among(target, opening::findings(&error), None),
        }
    }

    /// Examines an open connection.
    pub(super) fn examine(connection: &mut Connection) -> Result<Self, Error> {
        let (findings, latency, end) = examine::examine(connection);
        end.map(|()| Self::among(connection.config().to_string(), findings, latency))
    }

    fn among(target: String, mut findings: Vec<Finding>, latency: Option<Duration>) -> Self {
        findings.sort_by_key(|finding| Reverse(finding.severity));
        Self { target, findings, latency }
    }

    /// Returns the address, the role and the database, such as `db1:5432 as "app", database "shop"`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the findings, the most severe first.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns an iterator over the findings, the most severe first.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.findings.iter()
    }

    /// Returns the first finding of this kind, if there is one.
    pub fn find(&self, kind: FindingKind) -> Option<&Finding> {
        self.iter().find(|finding| finding.kind == kind)
    }

    /// Returns the severity of the most severe finding.
    pub fn worst(&self) -> Severity {
        self.findings.first().map_or(Severity::Ok, Finding::severity)
    }

    /// Returns the time in which a notification was delivered, if one was: sending, commit and delivery.
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }
}

impl<'d> IntoIterator for &'d Diagnosis {
    type Item = &'d Finding;
    type IntoIter = std::slice::Iter<'d, Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Diagnosis {
    type Item = Finding;
    type IntoIter = std::vec::IntoIter<Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.findings.into_iter()
    }
}

/// Formats the report as plain text in several lines without a final newline.
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |severity| self.iter().filter(|finding| finding.severity == severity).count();
        let verdict = match (count(Severity::Failure), count(Severity::Warning)) {
            (0, 0) => "well".to_owned(),
            (failures, 0) => plural(failures, "failure"),
            (0, warnings) => plural(warnings, "warning"),
            (failures, warnings) => format!("{}, {}", plural(failures, "failure"), plural(warnings, "warning")),
        };
        write!(f, "{}: {verdict}", Escaped(&self.target))?;
        self.iter().try_for_each(|finding| write!(f, "\n{finding}"))
    }
}

fn plural(count: usize, of: &str) -> String {
    format!("{count} {of}{}", if count == 1 { "" } else { "s" })
}
