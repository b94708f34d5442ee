//! `notifyman doctor`: prints what prevents delivery, as text or as JSON.

use notifyman::{Diagnosis, Finding, Severity};
use serde_json::{Value, json};

use super::args::DoctorArgs;
use super::connect::config;
use super::outcome::{Exit, Failure};
use super::output::{json_line, print};

/// The most columns of a line: the usual width of a terminal, less one.
const COLUMNS: usize = 79;

pub(super) fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    let mut worst = Severity::Ok;
    for (n, url) in args.targets.urls().into_iter().enumerate() {
        let diagnosis = match (config(url), url) {
            (Ok(config), _) => Diagnosis::of(config),
            // An invalid URL has a diagnosis, too, and the others are still examined.
            (Err(_), Some(url)) => Diagnosis::of(url),
            (Err(error), None) => return Err(error.into()),
        };
        worst = worst.max(diagnosis.worst());
        let text = if args.json {
            format!("{}\n", json_line(&as_json(&diagnosis).to_string()))
        } else {
            as_text(&diagnosis, n > 0)
        };
        print(&text)?;
    }
    Ok(match worst {
        Severity::Failure => Exit::Incomplete,
        Severity::Warning => Exit::Warned,
        _ => Exit::Done,
    })
}

/// Returns the diagnosis as lines that fit a terminal.
fn as_text(diagnosis: &Diagnosis, is_next: bool) -> String {
    let mut text = String::from(if is_next { "\n" } else { "" });
    for line in diagnosis.to_string().lines() {
        wrap(line, &mut text);
    }
    text
}

/// Returns the length of the label at the beginning of a finding's line.
fn label(line: &str) -> usize {
    ["seen: ", "do:   "].iter().find(|label| line.starts_with(**label)).map_or(0, |label| label.len())
}

/// Breaks a line between words, and indents the lines that follow to the beginning of its text.
fn wrap(line: &str, text: &mut String) {
    let indent = " ".repeat(line.len() - line.trim_start().len() + label(line.trim_start()));
    let mut column = 0;
    for (n, word) in line.split(' ').enumerate() {
        let length = word.chars().count();
        if n > 0 && column + 1 + length > COLUMNS && column > indent.len() {
            text.push('\n');
            text.push_str(&indent);
            column = indent.len();
        } else if n > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text.push('\n');
}

fn as_json(diagnosis: &Diagnosis) -> Value {
    json!({
        "target": diagnosis.target(),
        "worst": diagnosis.worst().to_string(),
        "latency_ms": diagnosis.latency().map(|latency| latency.as_secs_f64() * 1e3),
        "findings": diagnosis.iter().map(finding_as_json).collect::<Vec<_>>(),
    })
}

fn finding_as_json(finding: &Finding) -> Value {
    json!({
        "kind": finding.kind().name(),
        "severity": finding.severity().to_string(),
        "what": finding.what(),
        "advice": finding.advice(),
        "evidence": finding.evidence(),
    })
}
