//! Findings: their subjects, their severities and their texts.

use std::fmt;
use std::str::FromStr;

use crate::config::{Named, UnknownName};
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
/// assert_eq!("warning".parse(), Ok(Severity::Warning));
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

impl Named for Severity {
    const NAMES: &'static [(&'static str, Self)] =
        &[("ok", Self::Ok), ("info", Self::Info), ("warning", Self::Warning), ("failure", Self::Failure)];
}

/// Formats the severity as one lower-case word.
impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Named::name(*self))
    }
}

/// Parses the lower-case word.
impl FromStr for Severity {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::parse_name(name)
    }
}

/// Declares the kinds of findings with their stable identifiers.
macro_rules! finding_kinds {
    ($($(#[$doc:meta])+ $kind:ident = $name:literal,)+) => {
        /// The subject of a finding.
        ///
        /// Its text is a stable identifier:
        ///
        /// ```
        /// use notifyman::FindingKind;
        ///
        /// let kind: FindingKind = "transaction-pooler".parse()?;
        /// assert_eq!(kind, FindingKind::TransactionPooler);
        /// assert_eq!(kind.to_string(), "transaction-pooler");
        /// # Ok::<(), notifyman::UnknownName>(())
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum FindingKind {
            $($(#[$doc])+ $kind,)+
        }

        impl Named for FindingKind {
            const NAMES: &'static [(&'static str, Self)] = &[$(($name, Self::$kind)),+];
        }
    };
}

finding_kinds! {
    /// A notification was sent and delivered.
    Delivery = "delivery",
    /// The settings are invalid, so no connection was attempted.
    Settings = "settings",
    /// The host name cannot be resolved.
    NameNotFound = "name-not-found",
    /// The address does not respond.
    Unreachable = "unreachable",
    /// No process listens at the address, or the operating system denies access to it.
    Refused = "refused",
    /// One side requires TLS and the other does not support it, or the server's certificate was rejected.
    Tls = "tls",
    /// The server rejects the login of this role.
    Login = "login",
    /// The database does not exist.
    NoSuchDatabase = "no-such-database",
    /// The server, the database or the role has reached its connection limit.
    TooManyConnections = "too-many-connections",
    /// The server is starting up or shutting down.
    NotAccepting = "not-accepting",
    /// The peer is not a PostgreSQL server.
    NotPostgres = "not-postgres",
    /// The connection was closed while it was opened or examined.
    Disconnected = "disconnected",
    /// The connection could not be opened for another reason.
    ConnectFailed = "connect-failed",
    /// The session is in a transaction, so the server delivers nothing to it.
    InTransaction = "in-transaction",
    /// The server is a standby, which rejects LISTEN.
    Standby = "standby",
    /// A connection pooler in transaction mode, which accepts LISTEN but delivers nothing.
    TransactionPooler = "transaction-pooler",
    /// A connection pooler in session mode, which delivers notifications.
    SessionPooler = "session-pooler",
    /// The role lacks a privilege.
    NoPermission = "no-permission",
    /// LISTEN fails.
    ListenRefused = "listen-refused",
    /// NOTIFY fails.
    NotifyRefused = "notify-refused",
    /// LISTEN and NOTIFY succeed, but no notification arrives.
    DeliveryFailing = "delivery-failing",
    /// The server's NOTIFY queue is filling up. When it is full, every NOTIFY fails.
    QueueFilling = "queue-filling",
    /// The server's version has a bug that makes LISTEN fail with 58P01.
    ListenBug = "listen-bug",
    /// A lost connection would be detected late or never.
    Keepalive = "keepalive",
    /// The server terminates idle sessions, such as those of listeners.
    IdleTimeout = "idle-timeout",
    /// The server cancels statements after a short time.
    StatementTimeout = "statement-timeout",
    /// The encoding of the database's texts is unknown.
    Encoding = "encoding",
    /// A check that could not be made.
    Unexamined = "unexamined",
}

impl FindingKind {
    /// Returns the stable identifier: lower-case words joined by `-`.
    pub fn name(self) -> &'static str {
        Named::name(self)
    }
}

/// Parses the stable identifier.
impl FromStr for FindingKind {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::parse_name(name)
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
/// for finding in db
///     .diagnose()?
///     .iter()
///     .filter(|finding| finding.severity() >= Severity::Warning)
/// {
///     eprintln!(
///         "{}: {} {}",
///         finding.kind(),
///         finding.what(),
///         finding.advice()
///     );
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub(super) kind: FindingKind,
    pub(super) severity: Severity,
    pub(super) what: String,
    pub(super) advice: String,
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
