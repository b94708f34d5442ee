//! What keeps notifications from coming, and what to do about it.
//!
//! ```text
//!   can't be opened ──▶ opening: by the error ───────────────────────┐
//!   open ─────────────▶ examine: asks, listens, notifies, waits ─────┤──▶ Diagnosis: findings, worst first
//!                                    └──▶ checks: what an answer means
//! ```
//!
//! It changes nothing: what it listens to is a channel of its own, and what it hears there is nobody else's news.

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

/// How bad a finding is; the worse, the greater.
///
/// ```
/// use notifyman::Severity;
///
/// assert!(Severity::Failure > Severity::Warning && Severity::Info > Severity::Ok);
/// assert_eq!(Severity::Warning.to_string(), "warning");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Good to know; nothing has to be done.
    Info,
    /// It works now, and will fail one day.
    Warning,
    /// Notifications don't come, or can't be sent.
    Failure,
}

/// One word, in lower case.
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

/// What a finding is about.
///
/// Its text is a name for machines, which stays the same from version to version:
///
/// ```
/// assert_eq!(notifyman::FindingKind::TransactionPooler.to_string(), "transaction-pooler");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// A notification was sent and came back.
    Delivery,
    /// The settings can't be used: nothing was tried.
    Settings,
    /// The host's name can't be looked up.
    NameNotFound,
    /// Nobody answers at the address.
    Unreachable,
    /// Nobody listens at the address, or the system doesn't let us get there.
    Refused,
    /// TLS is demanded by one side and not to be had, or the server's certificate isn't good.
    Tls,
    /// The server doesn't let this role in.
    Login,
    /// The database isn't there.
    NoSuchDatabase,
    /// The server, or the role, has as many connections as it may have.
    TooManyConnections,
    /// The server is starting up or shutting down.
    NotAccepting,
    /// What answers isn't a PostgreSQL server.
    NotPostgres,
    /// The connection was closed while it was being opened or examined.
    Disconnected,
    /// It couldn't be opened for another reason.
    ConnectFailed,
    /// The session is in a transaction: it receives nothing.
    InTransaction,
    /// The server is a standby: it refuses LISTEN.
    Standby,
    /// A pooler between that gives each transaction another session: it accepts LISTEN and delivers nothing.
    TransactionPooler,
    /// A pooler between that keeps one session for each client: it delivers.
    SessionPooler,
    /// The role lacks a right.
    NoPermission,
    /// LISTEN fails.
    ListenRefused,
    /// NOTIFY fails.
    NotifyRefused,
    /// LISTEN and NOTIFY succeed, and nothing comes.
    DeliveryFailing,
    /// The server's NOTIFY queue is filling up: once it is full, every NOTIFY fails.
    QueueFilling,
    /// The server's version has the bug that makes LISTEN fail with 58P01.
    ListenBug,
    /// A link that has died wouldn't be noticed, or late.
    Keepalive,
    /// The server ends sessions that are idle, as listeners are.
    IdleTimeout,
    /// The server ends statements that take long.
    StatementTimeout,
    /// The database doesn't know in which encoding its texts are.
    Encoding,
    /// A check that couldn't be made.
    Unexamined,
}

impl FindingKind {
    /// The name for machines: lower case, words joined by `-`.
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

/// The name for machines.
impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing that was found.
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

    /// What it is about.
    pub fn kind(&self) -> FindingKind {
        self.kind
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What was found, in one sentence.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do about it; empty where nothing has to be done.
    pub fn advice(&self) -> &str {
        &self.advice
    }

    /// What it was concluded from: an error's text, numbers, a process.
    pub fn evidence(&self) -> Option<&str> {
        self.evidence.as_deref()
    }
}

/// Several lines, without a newline at the end: the severity and the kind, and below them what, why and what to do.
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

/// What was found about a connection, the worst first: see [`Connection::diagnose`].
///
/// It can be printed as it is, in plain text:
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
    /// Connects, examines as [`Connection::diagnose`] does, and closes. It never fails: what can't be opened is a
    /// finding.
    ///
    /// It takes as long as `connect_timeout` allows, and what `diagnose` takes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use notifyman::{Config, Diagnosis, FindingKind};
    ///
    /// // Nobody is there: port 1 of this machine.
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
                let (mut findings, latency, end) = connection.examine();
                findings.extend(end.err().map(|error| opening::lost(&error)));
                Self::among(target, findings, latency)
            }
            Err(error) => Self::among(target, opening::findings(&error), None),
        }
    }

    fn among(target: String, mut findings: Vec<Finding>, latency: Option<Duration>) -> Self {
        findings.sort_by_key(|finding| Reverse(finding.severity));
        Self { target, findings, latency }
    }

    /// Where and as whom, such as `db1:5432 as "app", database "shop"`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What was found, the worst first.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The same, one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.findings.iter()
    }

    /// The finding of one kind, if there is one.
    pub fn find(&self, kind: FindingKind) -> Option<&Finding> {
        self.iter().find(|finding| finding.kind == kind)
    }

    /// How bad the worst of it is.
    pub fn worst(&self) -> Severity {
        self.findings.first().map_or(Severity::Ok, Finding::severity)
    }

    /// How long a notification took from us to us, where one was sent and came back: its round trip, the commit and
    /// the delivery.
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

/// Plain text of several lines, with no newline at the end.
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

impl Connection {
    /// Finds out whether notifications come, and what keeps them or will keep them from coming.
    ///
    /// It asks the server a few things, listens to a channel that is this call's alone
    /// (`notifyman_diagnosis_`, its pid and a random number), causes one notification there, waits up to three seconds
    /// for it without sending anything, and stops listening to the channel. The caller does not receive that
    /// notification; whatever else arrives meanwhile is kept, in order, for the next `wait` or turn.
    ///
    /// - Each call on the server is bounded by the [call timeout](Self::set_call_timeout).
    /// - In a transaction nothing is asked of the server, since a failure would break that transaction: what is told
    ///   then is what is known without asking.
    /// - A second connection to the same address is opened briefly and sends the notification, because a proxy or
    ///   pooler may deliver to a session that sends a request, but not to an idle one. If the second connection cannot
    ///   be opened, this connection notifies itself, and the finding says so.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::{Connection, FindingKind};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// let mut db = Connection::connect(database())?;
    /// let diagnosis = db.diagnose()?;
    /// assert!(diagnosis.find(FindingKind::Delivery).is_some());
    /// assert!(db.listening_channels()?.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Why the connection is closed, if it is, or was meanwhile. What the server refuses is no error, but a finding.
    pub fn diagnose(&mut self) -> Result<Diagnosis, Error> {
        let (findings, latency, end) = self.examine();
        end.map(|()| Diagnosis::among(self.config().to_string(), findings, latency))
    }
}
