//! The goals, and whether this run met them.

use std::fmt::Write as _;

use crate::Measured;
use crate::table::number;
use crate::throughput::CASES;
use crate::ways::Way;

pub const ONE_ROW: [(Way, f64); 2] = [(Way::Rows, 1.8), (Way::Keys, 2.5)];
pub const MEMORY: f64 = 2.0;
/// Time of a write with the log, to that with a hand-written trigger that INSERTs: its throughput is 0.9 of that.
const LOG: f64 = 1.0 / 0.9;
const CREATE: f64 = 1.0;
const ALTER: f64 = 3.0;

/// A value that must not exceed a limit.
struct Goal {
    title: String,
    value: Option<f64>,
    limit: f64,
    /// What precedes the numbers, as in `+ 2 ms`.
    sign: &'static str,
    unit: &'static str,
}

impl Goal {
    fn ratio(title: String, value: Option<f64>, limit: f64) -> Self {
        Self { title, value, limit, sign: "", unit: " ×" }
    }
}

/// The goals as a Markdown table; only a note after a short look.
pub fn markdown(measured: &Measured) -> String {
    if !measured.scale.is_full() {
        return "\nA short look: these numbers say nothing.\n".to_owned();
    }
    let mut text = "\n| goal | at most | measured | |\n|---|--:|--:|---|\n".to_owned();
    for Goal { title, value, limit, sign, unit } in list(measured) {
        let Some(value) = value else { continue };
        let verdict = if value <= limit { "met" } else { "**missed**" };
        let _ =
            writeln!(text, "| {title} | {sign}{}{unit} | {sign}{}{unit} | {verdict} |", limit_of(limit), number(value));
    }
    text
}

fn limit_of(limit: f64) -> String {
    if limit == LOG { format!("{limit:.2}") } else { limit.to_string() }
}

fn list(measured: &Measured) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (way, limit) in ONE_ROW {
        for (samples, statement) in measured.one_row.iter().zip(["INSERT", "UPDATE", "DELETE"]) {
            let title = format!("{}: added to a one-row {statement}, to the hand-written trigger", way.name());
            goals.push(Goal::ratio(title, samples.added_to_hand(way), limit));
        }
    }
    for (way, _) in ONE_ROW {
        let memory = measured.memory.as_ref();
        let value = memory.and_then(|memory| Some(memory.median(way)? / memory.median(way.by_hand()?)?));
        let title = format!("{}: memory of a session, to the hand-written trigger", way.name());
        goals.push(Goal::ratio(title, value, MEMORY));
    }
    for (samples, (rows, clients)) in measured.throughput.iter().zip(CASES) {
        let title = format!("{}: time of {rows} rows, {clients} clients, to the INSERT trigger", Way::RowsLog.name());
        let value = Some(Way::HandInsert).and_then(|hand| Some(samples.median(hand)? / samples.median(Way::RowsLog)?));
        goals.push(Goal::ratio(title, value, LOG));
    }
    let [create, create_first, alter, alter_first] = &measured.definitions;
    for (way, _) in ONE_ROW {
        for (samples, session) in [(create, ""), (create_first, ", new session")] {
            let title = format!("{}: CREATE TABLE{session}, to no trigger", way.name());
            goals.push(Goal { title, value: samples.added(way), limit: CREATE, sign: "+ ", unit: " ms" });
        }
        for (samples, session) in [(alter, ""), (alter_first, ", new session")] {
            let title = format!("{}: ALTER TABLE of 1,000 partitions{session}, to no trigger", way.name());
            goals.push(Goal::ratio(title, samples.relative(way), ALTER));
        }
    }
    goals
}
