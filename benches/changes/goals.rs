//! The goals, and the results of this run.

use std::fmt::Write as _;

use crate::Measured;
use crate::table::number;
use crate::throughput::CASES;
use crate::variants::Variant;

pub const ONE_ROW: [(Variant, f64); 2] = [(Variant::Rows, 1.8), (Variant::Keys, 2.5)];
pub const MEMORY: f64 = 2.0;
/// The time of a write with the log as a multiple of the time with a hand-written trigger that INSERTs.
const LOG: f64 = 1.0 / 0.9;
const CREATE: f64 = 1.0;
const ALTER: f64 = 3.0;

/// A value that must not exceed a limit.
struct Goal {
    title: String,
    value: Option<f64>,
    limit: f64,
    /// The text before the numbers, as in `+ 2 ms`.
    sign: &'static str,
    unit: &'static str,
}

impl Goal {
    fn ratio(title: String, value: Option<f64>, limit: f64) -> Self {
        Self { title, value, limit, sign: "", unit: " ×" }
    }
}

/// Returns the goals as a Markdown table. After a short run, returns a note instead.
pub fn markdown(measured: &Measured) -> String {
    if !measured.scale.is_full() {
        return "\nThis was a short run, so the numbers are meaningless.\n".to_owned();
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
    for (variant, limit) in ONE_ROW {
        for (samples, statement) in measured.one_row.iter().zip(["INSERT", "UPDATE", "DELETE"]) {
            let title = format!("{}: added to a one-row {statement}, to the hand-written trigger", variant.name());
            goals.push(Goal::ratio(title, samples.added_to_hand(variant), limit));
        }
    }
    for (variant, _) in ONE_ROW {
        let memory = measured.memory.as_ref();
        let value = memory.and_then(|memory| Some(memory.median(variant)? / memory.median(variant.by_hand()?)?));
        let title = format!("{}: memory of a session, to the hand-written trigger", variant.name());
        goals.push(Goal::ratio(title, value, MEMORY));
    }
    for (samples, (rows, clients)) in measured.throughput.iter().zip(CASES) {
        let title =
            format!("{}: time of {rows} rows, {clients} clients, to the INSERT trigger", Variant::RowsLog.name());
        let value =
            Some(Variant::HandInsert).and_then(|hand| Some(samples.median(hand)? / samples.median(Variant::RowsLog)?));
        goals.push(Goal::ratio(title, value, LOG));
    }
    let [create, create_first, alter, alter_first] = &measured.definitions;
    for (variant, _) in ONE_ROW {
        for (samples, session) in [(create, ""), (create_first, ", new session")] {
            let title = format!("{}: CREATE TABLE{session}, to no trigger", variant.name());
            goals.push(Goal { title, value: samples.added(variant), limit: CREATE, sign: "+ ", unit: " ms" });
        }
        for (samples, session) in [(alter, ""), (alter_first, ", new session")] {
            let title = format!("{}: ALTER TABLE of 1,000 partitions{session}, to no trigger", variant.name());
            goals.push(Goal::ratio(title, samples.relative(variant), ALTER));
        }
    }
    goals
}
