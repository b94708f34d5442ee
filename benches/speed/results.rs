//! The results: costs of a notification, an event and a connection; and the CSV file.

use std::fmt::Write as _;

use crate::plan::{Cell, Task};
use crate::runner::Measured;
use crate::synthetic::PERCENTILES;

/// One number for one kind of client in one cell.
#[derive(Debug, Clone)]
pub struct Row {
    pub cell: Cell,
    pub kind: &'static str,
    pub metric: String,
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// All of a run's numbers.
#[derive(Debug, Default)]
pub struct Results(pub Vec<Row>);

impl Results {
    /// Adds the measurements of one kind of client in one cell, and prints them as progress.
    pub fn add(&mut self, cell: Cell, kind: &'static str, runs: &[Measured]) {
        let Some(first) = runs.first() else { return };
        for (metric, _) in costs(&cell, first) {
            let value =
                |run: &Measured| costs(&cell, run).into_iter().find(|(name, _)| *name == metric).map(|(_, v)| v);
            let mut values: Vec<f64> = runs.iter().filter_map(value).collect();
            values.sort_by(f64::total_cmp);
            let (least, most) = (values[0], values[values.len() - 1]);
            let median = values[values.len() / 2];
            // One percentile is enough as progress.
            if metric == "p99" || !metric.starts_with('p') {
                let Cell { scenario, connections, payload, .. } = cell;
                eprintln!("{scenario:<4} {connections:>6} {payload:>5} {kind:<14} {metric:<14} {median:>12.1}");
            }
            self.0.push(Row { cell, kind, metric, median, least, most });
        }
    }

    /// Returns the median, if it was measured.
    pub fn get(&self, scenario: &str, connections: usize, payload: usize, kind: &str, metric: &str) -> Option<f64> {
        let fits = |row: &&Row| {
            row.cell.scenario == scenario
                && (row.cell.connections, row.cell.payload) == (connections, payload)
                && row.kind == kind
                && row.metric == metric
        };
        self.0.iter().find(fits).map(|row| row.median)
    }

    pub fn csv(&self) -> String {
        let mut text = "scenario,connections,payload,kind,metric,median,least,most\n".to_owned();
        for Row { cell, kind, metric, median, least, most } in &self.0 {
            let Cell { scenario, connections, payload, .. } = cell;
            let _ =
                writeln!(text, "{scenario},{connections},{payload},{kind},{metric},{median:.1},{least:.1},{most:.1}");
        }
        text
    }
}

/// Computes the costs of a unit from the measurements.
fn costs(cell: &Cell, run: &Measured) -> Vec<(String, f64)> {
    let measured = |name: &str| run.get(name).copied().unwrap_or_default();
    let (_, expected) = cell.job();
    let each = |name: &str| measured(name) / expected.max(1) as f64;
    let named = |name: &str, value: f64| (name.to_owned(), value);
    match cell.task {
        Task::Flood(_) if cell.scenario.starts_with("S2") => {
            vec![named("idle", measured("idle")), named("after", measured("after"))]
        }
        // The wall time is determined by the server, which encrypts first.
        Task::Flood(_) if cell.is_encrypted() => vec![named("cpu_ns", each("cpu"))],
        Task::Flood(_) => vec![named("cpu_ns", each("cpu")), named("per_second", 1e9 / each("wall"))],
        Task::Burst(_) => {
            let server = run.contains_key("server_cpu").then(|| named("server_cpu_ns", each("server_cpu")));
            let client = [named("cpu_ns", each("cpu")), named("per_second", 1e9 / each("wall"))];
            client.into_iter().chain(server).collect()
        }
        Task::FloodTraced(_) => vec![named("calls_per_1000", each("calls") * 1000.0)],
        Task::WakeTraced(_) => vec![named("calls", each("calls"))],
        Task::Wake(..) => {
            let percentiles = PERCENTILES.iter().map(|p| (format!("p{p}"), measured(&format!("p{p}"))));
            std::iter::once(named("cpu_ns", each("cpu"))).chain(percentiles).collect()
        }
        Task::Dial => vec![named("dial_cpu_ns", measured("dial_cpu")), named("dial_wall_ns", measured("dial_wall"))],
        Task::Poll(_) => vec![named("cpu_ns", each("cpu"))],
    }
}
