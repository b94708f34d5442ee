//! The tables in Markdown, the targets, and the files of `benches/run`.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use crate::format::{grouped, machine, number};
use crate::options::Options;
use crate::results::{Case, Results, SCENARIO};
use crate::targets::{self, Bound, Target};

/// The tables: title, metrics, unit, and divisor.
const TABLES: [(&str, &[&str], &str, f64); 9] = [
    ("CPU per callback", &["flood_cpu_ns", "callbacks_cpu_ns", "channels_cpu_ns"], "ns", 1.0),
    ("Coalescing: CPU per notification and subscriber", &["payloads_10_cpu_ns", "payloads_all_cpu_ns"], "ns", 1.0),
    ("Dispatching threads: CPU per callback, all threads together", &["empty_cpu_ns", "busy_cpu_ns"], "ns", 1.0),
    ("Dispatching threads: millions of callbacks per second", &["empty_per_second", "busy_per_second"], "", 1e6),
    ("Memory of an idle subscriber", &["idle"], "B", 1.0),
    ("Time to subscribe", &["subscribe_ns"], "ns", 1.0),
    ("Memory of a notification that is queued for all subscribers", &["queued_first", "queued"], "B", 1.0),
    ("Latency from the server to the callback: median", &["one_p50", "any_p50"], "µs", 1e3),
    ("Latency from the server to the callback: p99", &["one_p99", "any_p99"], "µs", 1e3),
];

/// The columns, in their order.
const KINDS: [&str; 10] =
    ["direct", "broadcast", "owned", "hop", "condvar", "manager", "notifier", "coalesce", "workers-1", "workers-2"];

/// Returns all results.
pub fn markdown(results: &Results, options: &Options) -> String {
    let mut text = String::new();
    for (title, metrics, unit, divisor) in TABLES {
        let cases = results.cases(metrics);
        let has = |kind: &&str| cases.iter().any(|case| results.get(case, kind).is_some());
        let kinds: Vec<&str> = KINDS.into_iter().filter(has).collect();
        if cases.is_empty() {
            continue;
        }
        let is_first = text.is_empty();
        let unit = if unit.is_empty() { String::new() } else { format!(", {unit}") };
        let _ = write!(text, "\n## {SCENARIO}. {title}{unit}\n");
        if is_first {
            describe(&mut text, options);
        }
        let head = std::iter::once(String::new()).chain(kinds.iter().map(|kind| (*kind).to_owned())).collect();
        let row = |case: &&Case| {
            let value = |kind: &&str| results.get(case, kind).map_or(String::new(), |it| number(it / divisor));
            std::iter::once(label(case)).chain(kinds.iter().map(value)).collect()
        };
        table(&mut text, head, cases.iter().map(row).collect());
    }
    if options.smoke {
        text.push_str("\nThis was a smoke run: the numbers mean nothing.\n");
    } else {
        targets(&mut text, results);
    }
    text
}

fn describe(text: &mut String, options: &Options) {
    let _ = write!(
        text,
        "\n{}, Unix sockets. Medians of {} runs, kinds in random order.\n\
         At most two portions of notifications are outstanding, for all kinds alike.\n",
        machine(),
        options.runs
    );
}

/// Returns the first words of a row.
pub fn label(case: &Case) -> String {
    let Case { metric, subscribers, payload } = case;
    let payload = format!("{payload} B");
    let all = match subscribers {
        1 => "1 subscriber".to_owned(),
        _ => format!("{} subscribers", grouped(*subscribers)),
    };
    let kind_of_metric = metric.split('_').next().unwrap_or_default();
    match kind_of_metric {
        "channels" => format!("1,000 channels with 10 subscribers each, {payload}"),
        "payloads" if metric.starts_with("payloads_10") => format!("{all}, 10 different payloads"),
        "payloads" => format!("{all}, all payloads different"),
        "empty" => format!("{all}, empty callbacks"),
        "busy" => format!("{all}, callbacks of 1 µs"),
        "idle" | "subscribe" => all,
        "queued" if metric == "queued_first" => format!("{all}, {payload}, the first"),
        "queued" => format!("{all}, {payload}, each of the others"),
        "one" => "on one processor".to_owned(),
        "any" => "on any processor".to_owned(),
        _ => format!("{all}, {payload}"),
    }
}

fn targets(text: &mut String, results: &Results) {
    let row = |target: Target| {
        let bound = match target.bound {
            Bound::AtMost(most) => format!("≤ {most} ×"),
            Bound::AtLeast(least) => format!("≥ {least} ×"),
        };
        let verdict = if target.is_met() { "met" } else { "**missed**" };
        let (own, other, ratio) = (number(target.own), number(target.other), format!("{:.2}", target.ratio()));
        vec![target.title, own, other, bound, ratio, verdict.to_owned()]
    };
    let rows: Vec<_> = targets::list(results).into_iter().map(row).collect();
    if !rows.is_empty() {
        let _ = write!(text, "\n## {SCENARIO}. Targets\n");
        table(text, ["", "measured", "compared with", "target", "ratio", ""].map(str::to_owned).to_vec(), rows);
    }
}

/// Appends a table whose columns are aligned, so that it can be read on a terminal.
fn table(text: &mut String, head: Vec<String>, mut rows: Vec<Vec<String>>) {
    rows.insert(0, head);
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let rule = widths
        .iter()
        .enumerate()
        .map(|(at, width)| if at == 0 { "-".repeat(*width) } else { "-".repeat(width - 1) + ":" });
    rows.insert(1, rule.collect());
    text.push('\n');
    for row in rows {
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if at == 0 { write!(text, "| {cell:<width$} |") } else { write!(text, " {cell:>width$} |") };
        }
        text.push('\n');
    }
}

/// Writes the rows and the section into the files of a directory, in place of those of an earlier run.
pub fn publish(directory: &Path, results: &Results, section: &str) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let (csv, markdown) = (directory.join("results.csv"), directory.join("results.md"));
    let earlier = fs::read_to_string(&csv)
        .unwrap_or_else(|_| "scenario,connections,payload,kind,metric,median,least,most\n".to_owned());
    let others = earlier.split_inclusive('\n').filter(|line| !line.starts_with(&format!("{SCENARIO},")));
    fs::write(csv, others.collect::<String>() + &results.csv())?;
    let earlier = fs::read_to_string(&markdown).unwrap_or_else(|_| "# Results\n".to_owned());
    let others = earlier.find(&format!("\n## {SCENARIO}.")).map_or(&*earlier, |at| &earlier[..at]);
    fs::write(markdown, others.to_owned() + section)
}
