//! `notifyman doctor`: prints what prevents delivery, as text or as JSON.

use std::fmt::Display;

use notifyman::{Diagnosis, Finding, Severity};
use serde_json::{Value, json};

use super::args::DoctorArgs;
use super::connect::config;
use super::label;
use super::outcome::{Exit, Failure};
use super::output::{Style, columns, json_line, print};

/// The most columns of a line in a pipe, and on a terminal that is wider.
const COLUMNS: usize = 79;
const COLUMNS_MAX: usize = 100;

pub(super) fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    let mut worst = Severity::Ok;
    for (n, url) in args.targets.urls().into_iter().enumerate() {
        let diagnosis = match (config(url), url) {
            (Ok(config), _) => Diagnosis::of(config),
            // An invalid URL has a diagnosis, too, and the others are still examined.
            (Err(_), Some(url)) => Diagnosis::of(label::split(url).1),
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

/// Returns the diagnosis as lines that fit the terminal.
fn as_text(diagnosis: &Diagnosis, is_next: bool) -> String {
    let columns = columns().map_or(COLUMNS, |columns| columns.min(COLUMNS_MAX));
    let style = Style::of_stdout();
    let mut text = String::from(if is_next { "\n" } else { "" });
    for (n, line) in diagnosis.to_string().lines().enumerate() {
        let mut wrapped = String::new();
        wrap(line, columns, &mut wrapped);
        text.push_str(&if n == 0 {
            colored_head(&wrapped, diagnosis.worst(), style)
        } else {
            colored(&wrapped, style)
        });
    }
    text
}

/// Returns the first line of a diagnosis, with its result in a color.
fn colored_head(line: &str, worst: Severity, style: Style) -> String {
    let worst = if worst < Severity::Warning { Severity::Ok } else { worst };
    match line.rsplit_once(": ") {
        Some((target, result)) => {
            format!("{}: {}", style.bold(target), by_severity(worst, result.trim_end(), style)) + "\n"
        }
        None => line.to_owned(),
    }
}

/// Returns another line, with the severity or the label at its beginning in a color.
fn colored(line: &str, style: Style) -> String {
    for severity in [Severity::Ok, Severity::Info, Severity::Warning, Severity::Failure] {
        if let Some((_, kind)) = line.split_once(' ').filter(|(first, _)| *first == severity.to_string()) {
            return format!("{} {kind}", by_severity(severity, severity, style));
        }
    }
    let start = line.len() - line.trim_start().len();
    let label = label(&line[start..]);
    let (indent, text) = line.split_at(start);
    match label {
        0 => line.to_owned(),
        _ => format!("{indent}{}{}", style.dim(&text[..label]), &text[label..]),
    }
}

fn by_severity(severity: Severity, text: impl Display, style: Style) -> String {
    match severity {
        Severity::Failure => style.bad(text),
        Severity::Warning => style.warning(text),
        Severity::Ok => style.good(text),
        _ => style.accent(text),
    }
}

/// Returns the length of the label at the beginning of a finding's line.
fn label(line: &str) -> usize {
    ["seen: ", "do:   ", "checked: "].iter().find(|label| line.starts_with(**label)).map_or(0, |label| label.len())
}

/// Breaks a line between words, and indents the lines that follow to the beginning of its text.
fn wrap(line: &str, columns: usize, text: &mut String) {
    let indent = " ".repeat(line.len() - line.trim_start().len() + label(line.trim_start()));
    let mut column = 0;
    for (n, word) in line.split(' ').enumerate() {
        let length = word.chars().count();
        if n > 0 && column + 1 + length > columns && column > indent.len() {
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
        "server_version": diagnosis.server_version(),
        "tls": diagnosis.tls(),
        "queue_usage": diagnosis.queue_usage(),
        "checked": diagnosis.checked().iter().map(|kind| kind.name()).collect::<Vec<_>>(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_severities_and_labels_have_colors() {
        let style = Style(true);
        assert_eq!(
            colored_head("db1:5432: well\n", Severity::Ok, style),
            "\x1b[1mdb1:5432\x1b[0m: \x1b[32mwell\x1b[0m\n"
        );
        assert_eq!(colored("failure  tls\n", style), "\x1b[31mfailure\x1b[0m  tls\n");
        assert_eq!(colored("warning  keepalive\n", style), "\x1b[33mwarning\x1b[0m  keepalive\n");
        assert_eq!(colored("         do:   this\n", style), "         \x1b[2mdo:   \x1b[0mthis\n");
        assert_eq!(colored("         okay then\n", style), "         okay then\n");
        assert_eq!(colored("failure  tls\n", Style(false)), "failure  tls\n");
    }
}
