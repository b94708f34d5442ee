//! The results: one number for each way to hand out in each row, and the CSV file.

use std::fmt::Write as _;

/// The scenario's number among those of `benches/run`.
pub const SCENARIO: &str = "S7";

/// The row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub metric: String,
    pub subscribers: usize,
    pub payload: usize,
}

/// The numbers of one kind in one case, in ascending order.
#[derive(Debug)]
struct Row {
    case: Case,
    kind: &'static str,
    values: Vec<f64>,
}

/// All of a run's numbers.
#[derive(Debug, Default)]
pub struct Results {
    rows: Vec<Row>,
    /// The number of rows that were printed as progress.
    printed: usize,
}

impl Case {
    pub fn new(metric: &str, subscribers: usize, payload: usize) -> Self {
        Self { metric: metric.to_owned(), subscribers, payload }
    }
}

impl Row {
    fn median(&self) -> f64 {
        self.values[self.values.len() / 2]
    }
}

impl Results {
    /// Adds the value of one run.
    pub fn add(&mut self, case: &Case, kind: &'static str, value: f64) {
        let row = self.rows.iter_mut().find(|row| row.case == *case && row.kind == kind);
        let values = match row {
            Some(row) => &mut row.values,
            None => {
                self.rows.push(Row { case: case.clone(), kind, values: Vec::new() });
                let Some(row) = self.rows.last_mut() else { return };
                &mut row.values
            }
        };
        values.insert(values.partition_point(|other| *other < value), value);
    }

    /// Prints the rows that are new, as progress.
    pub fn print_new(&mut self) {
        for row in &self.rows[self.printed..] {
            let Case { metric, subscribers, payload } = &row.case;
            let (kind, median) = (row.kind, row.median());
            eprintln!("{SCENARIO} {subscribers:>7} {payload:>4} {kind:<10} {metric:<23} {median:>12.1}");
        }
        self.printed = self.rows.len();
    }

    /// Returns the median, if it was measured.
    pub fn get(&self, case: &Case, kind: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.case == *case && row.kind == kind).map(Row::median)
    }

    /// Returns the cases with one of these metrics, in the order of the measurements.
    pub fn cases(&self, metrics: &[&str]) -> Vec<&Case> {
        let mut cases: Vec<&Case> = Vec::new();
        for row in self.rows.iter().filter(|row| metrics.contains(&&*row.case.metric)) {
            if !cases.contains(&&row.case) {
                cases.push(&row.case);
            }
        }
        cases
    }

    /// Returns the rows of `results.csv`; the number of subscribers is in the place of that of connections.
    pub fn csv(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let Case { metric, subscribers, payload } = &row.case;
            let (median, least, most) = (row.median(), row.values[0], row.values[row.values.len() - 1]);
            let kind = row.kind;
            let _ =
                writeln!(text, "{SCENARIO},{subscribers},{payload},{kind},{metric},{median:.1},{least:.1},{most:.1}");
        }
        text
    }
}
