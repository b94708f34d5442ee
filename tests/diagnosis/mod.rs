//! What `diagnose` tells, for each thing that can be wrong.

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

/// The finding of this kind, which has advice if it is bad.
fn found(diagnosis: &Diagnosis, kind: FindingKind) -> &Finding {
    let finding = diagnosis.find(kind).unwrap_or_else(|| panic!("no {kind} in\n{diagnosis}"));
    assert!(finding.severity() < Severity::Warning || !finding.advice().is_empty(), "{finding}");
    finding
}

/// That there is nothing to worry about, except for what the server's version is known for.
fn is_well(diagnosis: &Diagnosis) {
    let bad = |finding: &&Finding| finding.severity() > Severity::Info && finding.kind() != FindingKind::ListenBug;
    assert!(diagnosis.iter().find(bad).is_none(), "{diagnosis}");
    found(diagnosis, FindingKind::Delivery);
}
