//! The findings of `diagnose` for each possible problem.

mod opening;
mod poolers;
mod scripted;
mod servers;

use notifyman::{Config, Connection, Diagnosis, Finding, FindingKind, Severity};

fn config(url: &str) -> Config {
    Config::without_env(url).unwrap()
}

fn connect(url: &str) -> Connection {
    Connection::connect(config(url)).unwrap()
}

/// Returns the finding of this kind, and checks that it has a remedy if it is a problem.
fn found(diagnosis: &Diagnosis, kind: FindingKind) -> &Finding {
    let finding = diagnosis.find(kind).unwrap_or_else(|| panic!("no {kind} in\n{diagnosis}"));
    assert!(finding.severity() < Severity::Warning || !finding.advice().is_empty(), "{finding}");
    finding
}

/// Checks that there are no problems except for known bugs of the server's version.
fn is_well(diagnosis: &Diagnosis) {
    let bad = |finding: &&Finding| finding.severity() > Severity::Info && finding.kind() != FindingKind::ListenBug;
    assert!(diagnosis.iter().find(bad).is_none(), "{diagnosis}");
    found(diagnosis, FindingKind::Delivery);
}
