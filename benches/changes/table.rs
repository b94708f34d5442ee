//! The measurements as Markdown tables.

use std::fmt::Write as _;

use crate::Measured;
use crate::definitions::PARTITIONS;
use crate::memory::TABLES;
use crate::throughput::CASES;
use crate::turns::Samples;
use crate::ways::Way;
use crate::writes::{BULK, LOOPS};

/// All tables.
pub fn markdown(measured: &Measured) -> String {
    let scale = measured.scale;
    let (loops, bulk) = (grouped(scale.of(LOOPS, 50)), grouped(scale.of(BULK, 500)));
    let (tables, partitions) = (grouped(scale.of(TABLES, 10)), grouped(scale.of(PARTITIONS, 10)));
    let mut text = format!(
        "PostgreSQL {}. The hand-written triggers send\n\
         `json_build_object(.., row_to_json(new))` for each row, and `json_agg(id)` for each statement; that which INSERTs \
         writes\n`row_to_json(new)` into a table with an identity.\n",
        measured.version
    );

    let _ = write!(
        text,
        "\nA statement that writes one row, one of {loops} in a transaction: what a trigger adds, in µs. In parentheses: \
         as a\nmultiple of what the hand-written trigger of the same kind adds.\n"
    );
    let titles = ["INSERT", "UPDATE", "DELETE", "UPDATE, each committed"].map(str::to_owned);
    table(&mut text, &titles, &Way::ALL, |n, way| {
        let samples = &measured.one_row[n];
        match way {
            Way::NoTrigger => Some(number(samples.median(way)?)),
            _ => Some(signed(samples.added(way)?) + &in_parentheses(samples.added_to_hand(way))),
        }
    });

    let _ = write!(
        text,
        "\nA statement that writes {bulk} rows: its time as a multiple of that without a trigger. In parentheses: as a \
         multiple\nof that with the hand-written trigger of the same kind.\n"
    );
    let titles = ["INSERT", "UPDATE", "DELETE"].map(str::to_owned);
    table(&mut text, &titles, &Way::ALL, |n, way| {
        let samples = &measured.bulk[n];
        match way {
            Way::NoTrigger => Some(format!("{} ms", number(samples.median(way)?))),
            _ => Some(format!("{}{}", number(samples.relative(way)?), in_parentheses(to_hand(samples, way)))),
        }
    });

    text.push_str("\nRows inserted per second while one session listens, as a share of those without a trigger.\n");
    let titles = CASES.map(|(rows, clients)| {
        let rows = if rows > 1 { format!("{bulk} rows") } else { "1 row".to_owned() };
        format!("{rows}, {clients} client{}", if clients > 1 { "s" } else { "" })
    });
    table(&mut text, &titles, &Way::ALL, |n, way| {
        let samples = &measured.throughput[n];
        match way {
            Way::NoTrigger => Some(grouped(samples.median(way)? as usize)),
            _ => Some(format!("{:.0} %", samples.relative(way)? * 100.0)),
        }
    });

    let _ = write!(
        text,
        "\nMemory of a session that wrote {tables} tables once, and time of DDL: a new table, and a column for a table \
         with\n{partitions} partitions, in a session that has done so before and in a new one.\n"
    );
    let titles = ["memory, MB", "CREATE, ms", "CREATE, new session", "ALTER, ms", "ALTER, new session"];
    table(&mut text, &titles.map(str::to_owned), &Way::ALL, |n, way| match n {
        0 => Some(number(measured.memory.as_ref()?.median(way)? / 1e6)),
        _ => Some(number(measured.definitions[n - 1].median(way)?)),
    });
    if measured.memory.is_none() {
        text.push_str("\nMemory was not measured: only PostgreSQL 14 and later report it.\n");
    }
    text
}

/// The time as a multiple of that with the hand-written trigger.
fn to_hand(samples: &Samples, way: Way) -> Option<f64> {
    Some(samples.relative(way)? / samples.relative(way.by_hand()?)?)
}

fn table(text: &mut String, titles: &[String], ways: &[Way], cell: impl Fn(usize, Way) -> Option<String>) {
    let _ = write!(text, "\n| | {} |\n|---|{}\n", titles.join(" | "), "--:|".repeat(titles.len()));
    for way in ways {
        let _ = write!(text, "| {} |", way.name());
        for n in 0..titles.len() {
            let _ = write!(text, " {} |", cell(n, *way).unwrap_or_default());
        }
        text.push('\n');
    }
}

/// A difference, whose sign noise can turn.
fn signed(value: f64) -> String {
    format!("{} {}", if value < 0.0 { '-' } else { '+' }, number(value.abs()))
}

fn in_parentheses(ratio: Option<f64>) -> String {
    ratio.map_or(String::new(), |ratio| format!(" ({ratio:.2})"))
}

/// Three significant digits, with thousands separated.
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
