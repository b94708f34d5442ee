//! Findings: their subjects, their severities and their texts.

use std::fmt;

use crate::error::Escaped;

/// The kind, the finding and the remedy.
pub(super) type FindingText = (FindingKind, &'static str, &'static str);

/// The severity of a finding, in ascending order.
///
/// ```
/// use notifyman::Severity;
///
/// assert!(Severity::Failure > Severity::Warning && Severity::Info > Severity::Ok);
/// assert_eq!(Severity::Warning.to_string(), "warning");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
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
    pub(super) kind: FindingKind,
    pub(super) severity: Severity,
    pub(super) what: String,
    advice: String,
    pub(super) evidence: Option<String>,
}

impl Finding {
    pub(super) fn new(
        kind: FindingKind,
        severity: Severity,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { kind, severity, what: what.into(), advice: advice.into(), evidence: None }
    }

    pub(super) fn because(mut self, evidence: impl Into<String>) -> Self {
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
