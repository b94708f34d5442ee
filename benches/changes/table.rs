//! The measurements as Markdown tables.

use std::fmt::Write as _;

use crate::Measured;
use crate::definitions::PARTITIONS;
use crate::memory::TABLES;
use crate::throughput::CASES;
use crate::turns::Samples;
use crate::variants::Variant;
use crate::writes::{BULK, LOOPS};

/// Returns all tables.
pub fn markdown(measured: &Measured) -> String {
    let scale = measured.scale;
    let (loops, bulk) = (grouped(scale.of(LOOPS, 50)), grouped(scale.of(BULK, 500)));
    let (tables, partitions) = (grouped(scale.of(TABLES, 10)), grouped(scale.of(PARTITIONS, 10)));
    let mut text = format!(
        "PostgreSQL {}. The hand-written triggers send\n\
         `json_build_object(.., row_to_json(new))` for each row, or `json_agg(id)` for each statement. The INSERT trigger writes\n\
         `row_to_json(new)` to a table with an identity column.\n",
        measured.version
    );

    let _ = write!(
        text,
        "\nThe time that a trigger adds to a statement that writes one row, in µs, with {loops} statements in a transaction. In\n\
         parentheses: the multiple of the time that the hand-written trigger of the same kind adds.\n"
    );
    let titles = ["INSERT", "UPDATE", "DELETE", "UPDATE, each committed"].map(str::to_owned);
    table(&mut text, &titles, &Variant::ALL, |n, variant| {
        let samples = &measured.one_row[n];
        match variant {
            Variant::NoTrigger => Some(number(samples.median(variant)?)),
            _ => Some(signed(samples.added(variant)?) + &in_parentheses(samples.added_to_hand(variant))),
        }
    });

    let _ = write!(
        text,
        "\nThe time of a statement that writes {bulk} rows, as a multiple of the time without a trigger. In parentheses: the\n\
         multiple of the time with the hand-written trigger of the same kind.\n"
    );
    let titles = ["INSERT", "UPDATE", "DELETE"].map(str::to_owned);
    table(&mut text, &titles, &Variant::ALL, |n, variant| {
        let samples = &measured.bulk[n];
        match variant {
            Variant::NoTrigger => Some(format!("{} ms", number(samples.median(variant)?))),
            _ => Some(format!("{}{}", number(samples.relative(variant)?), in_parentheses(to_hand(samples, variant)))),
        }
    });

    text.push_str(
        "\nThe rows inserted per second while one session listens, as a share of the rate without a trigger.\n",
    );
    let titles = CASES.map(|(rows, clients)| {
        let rows = if rows > 1 { format!("{bulk} rows") } else { "1 row".to_owned() };
        format!("{rows}, {clients} client{}", if clients > 1 { "s" } else { "" })
    });
    table(&mut text, &titles, &Variant::ALL, |n, variant| {
        let samples = &measured.throughput[n];
        match variant {
            Variant::NoTrigger => Some(grouped(samples.median(variant)? as usize)),
            _ => Some(format!("{:.0} %", samples.relative(variant)? * 100.0)),
        }
    });

    let _ = write!(
        text,
        "\nThe memory of a session that has written to {tables} tables once, and the time of DDL: a new table, and a new column for\n\
         a table with {partitions} partitions, in a session that has executed such a statement before and in a new one.\n"
    );
    let titles = ["memory, MB", "CREATE, ms", "CREATE, new session", "ALTER, ms", "ALTER, new session"];
    table(&mut text, &titles.map(str::to_owned), &Variant::ALL, |n, variant| match n {
        0 => Some(number(measured.memory.as_ref()?.median(variant)? / 1e6)),
        _ => Some(number(measured.definitions[n - 1].median(variant)?)),
    });
    if measured.memory.is_none() {
        text.push_str("\nMemory was not measured: only PostgreSQL 14 and later report it.\n");
    }
    text
}

/// Returns the time as a multiple of the time with the hand-written trigger.
fn to_hand(samples: &Samples, variant: Variant) -> Option<f64> {
    Some(samples.relative(variant)? / samples.relative(variant.by_hand()?)?)
}

fn table(text: &mut String, titles: &[String], variants: &[Variant], cell: impl Fn(usize, Variant) -> Option<String>) {
    let _ = write!(text, "\n| | {} |\n|---|{}\n", titles.join(" | "), "--:|".repeat(titles.len()));
    for variant in variants {
        let _ = write!(text, "| {} |", variant.name());
        for n in 0..titles.len() {
            let _ = write!(text, " {} |", cell(n, *variant).unwrap_or_default());
        }
        text.push('\n');
    }
}

/// Returns a difference with its sign.
fn signed(value: f64) -> String {
    format!("{} {}", if value < 0.0 { '-' } else { '+' }, number(value.abs()))
}

fn in_parentheses(ratio: Option<f64>) -> String {
    ratio.map_or(String::new(), |ratio| format!(" ({ratio:.2})"))
}

/// Returns a number with three significant digits, and with thousands separated.
pub fn number(value: f64) -> String {
    match value {
        100.0.. => grouped(value.round() as usize),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn grouped(n: usize) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", grouped(n / 1000), n % 1000) }
}
