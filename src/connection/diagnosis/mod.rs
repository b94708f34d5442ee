//! Diagnosis of connections that receive no notifications: the causes and the remedies.
//!
//! ```text
//!   connect fails ──▶ opening: findings for the error ───────────────────┐
//!   open ───────────▶ examine: queries, LISTEN, NOTIFY, waits ───────────┤──▶ Diagnosis: findings, most severe first
//!                        └──▶ checks: findings for an answer or a setting
//! ```
//!
//! A diagnosis does not affect the session: it listens to a channel of its own, and removes the notifications on it.

mod checks;
mod examine;
mod facts;
mod finding;
mod opening;

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use self::facts::SessionFacts;
pub use self::finding::{Finding, FindingKind, Severity};
use crate::config::Config;
use crate::connection::Connection;
use crate::error::{Error, Escaped};

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
    facts: SessionFacts,
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
    /// let nowhere = Config::new()
    ///     .host("127.0.0.1")
    ///     .port(1)
    ///     .connect_timeout(Duration::from_secs(5));
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
                return Self::among("the connection string".into(), findings, SessionFacts::default());
            }
        };
        let target = config.to_string();
        match Connection::connect(config) {
            Ok(mut connection) => {
                let (mut findings, facts, end) = examine::examine(&mut connection);
                findings.extend(end.err().map(|error| opening::lost(&error)));
                Self::among(target, findings, facts)
            }
            Err(error) => Self::among(target, opening::findings(&error), SessionFacts::default()),
        }
    }

    /// Examines an open connection.
    pub(super) fn examine(connection: &mut Connection) -> Result<Self, Error> {
        let (findings, facts, end) = examine::examine(connection);
        end.map(|()| Self::among(connection.config().to_string(), findings, facts))
    }

    fn among(target: String, mut findings: Vec<Finding>, facts: SessionFacts) -> Self {
        findings.sort_by_key(|finding| Reverse(finding.severity));
        Self { target, findings, facts }
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
        self.facts.latency
    }

    /// Returns the version of the server, such as `16.4 (Debian 16.4-1)`, if the connection was opened.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::Diagnosis;
    ///
    /// # fn main() {
    /// let diagnosis = Diagnosis::of(database());
    /// let version = diagnosis.server_version().unwrap_or("unknown");
    /// println!("PostgreSQL {version}, {}", diagnosis.tls().unwrap_or("no TLS"));
    /// # assert!(version.starts_with(char::is_numeric));
    /// # }
    /// ```
    pub fn server_version(&self) -> Option<&str> {
        self.facts.version.as_deref()
    }

    /// Returns the version of TLS and the cipher suite, such as `TLS 1.3, TLS_AES_256_GCM_SHA384`; `None` if the connection is not
    /// encrypted, or was not opened. Whether the certificate was verified depends on `sslmode`.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::Diagnosis;
    ///
    /// # fn main() {
    /// let diagnosis = Diagnosis::of(database());
    /// assert_eq!(diagnosis.tls(), None);
    /// # }
    /// ```
    pub fn tls(&self) -> Option<&str> {
        self.facts.tls.as_deref()
    }

    /// Returns the used fraction of the server's NOTIFY queue, from 0 to 1 in steps of 0.001, if it was read. When the queue is
    /// full, every transaction with a NOTIFY fails at commit.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::Diagnosis;
    ///
    /// # fn main() {
    /// let diagnosis = Diagnosis::of(database());
    /// assert!(diagnosis.queue_usage().is_some_and(|usage| usage < 0.5));
    /// # }
    /// ```
    pub fn queue_usage(&self) -> Option<f64> {
        self.facts.queue_permille.map(|permille| f64::from(permille) / 1e3)
    }

    /// Returns the subjects that were examined, in this order; those without a finding are in order. It is empty if the
    /// connection could not be opened.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::{Diagnosis, FindingKind};
    ///
    /// # fn main() {
    /// let diagnosis = Diagnosis::of(database());
    /// assert!(diagnosis.checked().contains(&FindingKind::TransactionPooler));
    /// assert_eq!(diagnosis.find(FindingKind::TransactionPooler), None);
    /// # }
    /// ```
    pub fn checked(&self) -> &[FindingKind] {
        &self.facts.checked
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
        write!(f, "{}: {verdict}{}", Escaped(&self.target), self.facts)?;
        self.iter().try_for_each(|finding| write!(f, "\n{finding}"))
    }
}

fn plural(count: usize, of: &str) -> String {
    format!("{count} {of}{}", if count == 1 { "" } else { "s" })
}
