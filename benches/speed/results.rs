//! What was measured, made comparable: costs for one notification, one event, one connection; and the file of it.

use std::fmt::Write as _;

use crate::plan::{Cell, Task};
use crate::race::Measured;
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
    /// Adds what one kind has measured in one cell, each time it ran, and tells it to whoever waits.
    pub fn add(&mut self, cell: Cell, kind: &'static str, runs: &[Measured]) {
        let Some(first) = runs.first() else { return };
        for (metric, _) in costs(&cell, first) {
            let value =
                |run: &Measured| costs(&cell, run).into_iter().find(|(name, _)| *name == metric).map(|(_, v)| v);
            let mut values: Vec<f64> = runs.iter().filter_map(value).collect();
            values.sort_by(f64::total_cmp);
            let (least, most) = (values[0], values[values.len() - 1]);
            let median = values[values.len() / 2];
            // Of the percentiles one is enough to see how it goes on.
            if metric == "p99" || !metric.starts_with('p') {
                let Cell { scenario, connections, payload, .. } = cell;
                eprintln!("{scenario:<4} {connections:>6} {payload:>5} {kind:<14} {metric:<14} {median:>12.1}");
            }
            self.0.push(Row { cell, kind, metric, median, least, most });
        }
    }

    /// The median, if it was measured.
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

/// From what the processes said to what a unit costs.
fn costs(cell: &Cell, run: &Measured) -> Vec<(String, f64)> {
    let said = |name: &str| run.get(name).copied().unwrap_or_default();
    let (_, expected) = cell.order();
    let each = |name: &str| said(name) / expected.max(1) as f64;
    let named = |name: &str, value: f64| (name.to_owned(), value);
    match cell.task {
        Task::Flood(_) if cell.scenario.starts_with("S2") => {
            vec![named("idle", said("idle")), named("after", said("after"))]
        }
        // How long that takes is the server's affair, which encrypts first.
        Task::Flood(_) if cell.is_encrypted() => vec![named("cpu_ns", each("cpu"))],
        Task::Flood(_) => vec![named("cpu_ns", each("cpu")), named("per_second", 1e9 / each("wall"))],
        Task::Burst(_) => {
            let server = run.contains_key("server_cpu").then(|| named("server_cpu_ns", each("server_cpu")));
            let ours = [named("cpu_ns", each("cpu")), named("per_second", 1e9 / each("wall"))];
            ours.into_iter().chain(server).collect()
        }
        Task::FloodTraced(_) => vec![named("calls_per_1000", each("calls") * 1000.0)],
        Task::WakeTraced(_) => vec![named("calls", each("calls"))],
        Task::Wake(..) => {
            let percentiles = PERCENTILES.iter().map(|p| (format!("p{p}"), said(&format!("p{p}"))));
            std::iter::once(named("cpu_ns", each("cpu"))).chain(percentiles).collect()
        }
        Task::Dial => vec![named("dial_cpu_ns", said("dial_cpu")), named("dial_wall_ns", said("dial_wall"))],
        Task::Look(_) => vec![named("cpu_ns", each("cpu"))],
    }
}
