//! The facts about an examined session that are no findings.

use std::fmt;
use std::time::Duration;

use super::checks::span;
use super::finding::FindingKind;
use crate::error::Escaped;

/// The facts; all are absent if the connection could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SessionFacts {
    pub(super) version: Option<String>,
    pub(super) tls: Option<String>,
    /// The time in which a notification was delivered.
    pub(super) latency: Option<Duration>,
    /// The usage of the NOTIFY queue, in thousandths.
    pub(super) queue_permille: Option<u16>,
    /// The subjects that were examined.
    pub(super) checked: Vec<FindingKind>,
}

impl SessionFacts {
    /// Stores the usage of the NOTIFY queue, a fraction.
    pub(super) fn set_queue_usage(&mut self, usage: f64) {
        let permille = (0..=1000).find(|permille| usage <= (f64::from(*permille) + 0.5) / 1e3);
        self.queue_permille = permille.filter(|_| usage >= 0.0);
    }
}

/// Formats up to two indented lines, each with a newline before it.
impl fmt::Display for SessionFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(version) = &self.version {
            let encrypted = self.tls.as_deref().unwrap_or("no TLS");
            // The rest is the name of a distribution.
            let version = version.split(' ').next().unwrap_or_default();
            write!(f, "\n         PostgreSQL {}, {encrypted}", Escaped(version))?;
            if let Some(latency) = self.latency {
                write!(f, ", delivery in {}", span(latency))?;
            }
            if let Some(permille) = self.queue_permille {
                write!(f, ", NOTIFY queue {}.{} % full", permille / 10, permille % 10)?;
            }
        }
        let mut separator = "\n         checked: ";
        for kind in &self.checked {
            write!(f, "{separator}{kind}")?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_of_the_queue_is_rounded_to_thousandths() {
        let mut facts = SessionFacts::default();
        for (usage, permille) in
            [(0.0, Some(0)), (0.0004, Some(0)), (0.0006, Some(1)), (0.5, Some(500)), (1.0, Some(1000)), (-1.0, None)]
        {
            facts.set_queue_usage(usage);
            assert_eq!(facts.queue_permille, permille, "{usage}");
        }
        facts.set_queue_usage(f64::NAN);
        assert_eq!(facts.queue_permille, None);
    }

    #[test]
    fn the_version_that_the_server_reports_is_escaped() {
        let facts = SessionFacts { version: Some("1\u{1b}[2J\n2".into()), ..SessionFacts::default() };
        assert_eq!(facts.to_string(), "\n         PostgreSQL 1\\u{1b}[2J\\n2, no TLS");
    }

    #[test]
    fn facts_that_are_unknown_are_omitted() {
        assert_eq!(SessionFacts::default().to_string(), "");
        let facts = SessionFacts {
            version: Some("16.4 (Debian 16.4-1)".into()),
            tls: None,
            latency: Some(Duration::from_micros(650)),
            queue_permille: Some(12),
            checked: vec![FindingKind::Keepalive, FindingKind::Delivery],
        };
        assert_eq!(
            facts.to_string(),
            "\n         PostgreSQL 16.4, no TLS, delivery in 0.7 ms, NOTIFY queue 1.2 % full\n         checked: \
             keepalive, delivery"
        );
    }
}
