//! Draws the results: one plot for each question, with all kinds of client.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

/// The kinds that are drawn: name, label, color and line width.
const KINDS: [(&str, &str, RGBColor, u32); 5] = [
    ("borrowed", "notifyman", RGBColor(0xc2, 0x41, 0x0c), 3),
    ("floor", "floor", RGBColor(0x9c, 0xa3, 0xaf), 2),
    ("libpq", "libpq", RGBColor(0x1d, 0x4e, 0xd8), 2),
    ("tokio-postgres", "tokio-postgres", RGBColor(0x04, 0x78, 0x57), 2),
    ("sqlx", "sqlx", RGBColor(0x7e, 0x22, 0xce), 2),
];
const INK: RGBColor = RGBColor(0x37, 0x41, 0x51);
const GRID: RGBColor = RGBColor(0xe5, 0xe7, 0xeb);

/// The width of the labels on the right.
const LABEL_WIDTH: u32 = 125;

/// One row of the results.
struct Row {
    scenario: String,
    connections: f64,
    payload: f64,
    kind: String,
    metric: String,
    median: f64,
}

/// A plot: its file, its title, and its axes.
struct Plot<'a> {
    file: &'a str,
    title: &'a str,
    x: &'a str,
    y: &'a str,
    /// `true` if the vertical axis begins at zero; otherwise it is logarithmic.
    is_linear: bool,
}

/// Reads `results.csv` in a directory, and writes the plots there.
pub fn draw(mut words: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(words.next().ok_or("plot takes the directory of results.csv")?);
    let rows: Vec<Row> = fs::read_to_string(directory.join("results.csv"))?.lines().skip(1).filter_map(row).collect();
    let of = |scenario: &str, metric: &str, payload: Option<f64>, divisor: f64| {
        let fits = |row: &&Row| {
            row.scenario == scenario && row.metric == metric && payload.is_none_or(|payload| row.payload == payload)
        };
        let line = |kind: &str| {
            let of_kind = rows.iter().filter(fits).filter(|row| row.kind == kind);
            of_kind.map(|row| (row.connections, row.median / divisor)).collect::<Vec<_>>()
        };
        KINDS.map(|(kind, ..)| line(kind))
    };
    let plots = [
        (
            Plot {
                file: "flood.svg",
                title: "CPU per notification of 32 bytes",
                x: "connections",
                y: "nanoseconds",
                is_linear: false,
            },
            of("S1", "cpu_ns", Some(32.0), 1.0),
        ),
        (
            Plot {
                file: "wake.svg",
                title: "CPU per event on one of many connections",
                x: "connections",
                y: "microseconds",
                is_linear: true,
            },
            of("S3", "cpu_ns", None, 1e3),
        ),
        (
            Plot {
                file: "memory.svg",
                title: "Memory of an idle listening connection",
                x: "connections",
                y: "bytes, after the first",
                is_linear: false,
            },
            of("S2", "idle", None, 1.0),
        ),
    ];
    for (plot, lines) in plots {
        plot.draw(&directory, lines)?;
    }
    let latency = Plot {
        file: "latency.svg",
        title: "Latency of an event on one of 10,000 connections",
        x: "percentile",
        y: "microseconds",
        is_linear: true,
    };
    latency.draw_distribution(&directory, &rows)
}

fn row(line: &str) -> Option<Row> {
    let mut cells = line.split(',');
    Some(Row {
        scenario: cells.next()?.into(),
        connections: cells.next()?.parse().ok()?,
        payload: cells.next()?.parse().ok()?,
        kind: cells.next()?.into(),
        metric: cells.next()?.into(),
        median: cells.next()?.parse().ok()?,
    })
}

type Lines = [Vec<(f64, f64)>; KINDS.len()];
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, X, Y> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>;

impl Plot<'_> {
    /// Draws costs by the number of connections.
    fn draw(&self, directory: &Path, lines: Lines) -> Result<(), Box<dyn Error>> {
        // Zero cannot be drawn on a logarithmic axis.
        let lines = lines.map(|line| line.into_iter().filter(|(_, y)| *y > 0.0).collect::<Vec<_>>());
        let Some((x, y)) = bounds(&lines) else { return Ok(()) };
        let path = directory.join(self.file);
        let area = canvas(&path)?;
        let x = (x.0 * 0.9..x.1 * 1.1).log_scale();
        if self.is_linear {
            let chart = self.builder(&area).build_cartesian_2d(x, 0.0..y.1 * 1.1)?;
            self.fill(&area, chart, &lines, grouped)?;
        } else {
            let chart = self.builder(&area).build_cartesian_2d(x, (y.0 * 0.7..y.1 * 1.4).log_scale())?;
            self.fill(&area, chart, &lines, grouped)?;
        }
        Ok(area.present()?)
    }

    /// Draws latencies by percentile.
    fn draw_distribution(&self, directory: &Path, rows: &[Row]) -> Result<(), Box<dyn Error>> {
        let most = rows.iter().filter(|row| row.scenario == "S3").map(|row| row.connections).fold(0.0, f64::max);
        let lines = KINDS.map(|(kind, ..)| {
            let fits = |row: &&Row| row.scenario == "S3" && row.connections == most && row.kind == kind;
            let percentile = |row: &Row| {
                let percent: f64 = row.metric.strip_prefix('p')?.parse().ok()?;
                (1.0..=95.0).contains(&percent).then_some((percent, row.median / 1e3))
            };
            rows.iter().filter(fits).filter_map(percentile).collect::<Vec<_>>()
        });
        let Some((_, y)) = bounds(&lines) else { return Ok(()) };
        let path = directory.join(self.file);
        let area = canvas(&path)?;
        let chart = self.builder(&area).build_cartesian_2d(0.0..100.0, 0.0..y.1 * 1.1)?;
        self.fill(&area, chart, &lines, |x| format!("{x:.0}"))?;
        Ok(area.present()?)
    }

    fn builder<'a, 'b>(&self, area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
        let mut builder = ChartBuilder::on(area);
        builder
            .margin(14)
            .margin_right(LABEL_WIDTH)
            .caption(self.title, ("sans-serif", 18).into_font().style(FontStyle::Bold).color(&INK))
            .x_label_area_size(48)
            .y_label_area_size(66);
        builder
    }

    /// Draws the axes, the lines, and a label at the end of each line.
    fn fill<'a, X, Y>(
        &self,
        area: &Area<'a>,
        mut chart: Chart<'a, X, Y>,
        lines: &Lines,
        x_label: fn(f64) -> String,
    ) -> Result<(), Box<dyn Error>>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let small = ("sans-serif", 13).into_font().color(&INK);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK.mix(0.4))
            .x_desc(self.x)
            .y_desc(self.y)
            .x_labels(8)
            .y_labels(if self.is_linear { 8 } else { 12 })
            .x_label_formatter(&|x| x_label(*x))
            .y_label_formatter(&|y| if self.is_linear || is_round(*y) { grouped(*y) } else { String::new() })
            .label_style(small.clone())
            .axis_desc_style(small)
            .draw()?;
        let mut labels = Vec::new();
        // This crate is drawn last, so that its line is on top.
        for ((_, name, color, width), line) in KINDS.iter().zip(lines).rev() {
            let Some(end) = line.last() else { continue };
            chart.draw_series(LineSeries::new(line.iter().copied(), color.stroke_width(*width)))?;
            if line.len() < 10 {
                chart.draw_series(line.iter().map(|at| Circle::new(*at, *width + 1, color.filled())))?;
            }
            labels.push((chart.backend_coord(end), *name, *color));
        }
        labels.sort_by_key(|((_, y), ..)| *y);
        let mut free = i32::MIN;
        for ((x, y), name, color) in labels {
            // Labels of lines with the same end are placed below each other.
            let y = y.max(free);
            free = y + 17;
            let bold = if name == KINDS[0].1 { FontStyle::Bold } else { FontStyle::Normal };
            let style = ("sans-serif", 14).into_font().style(bold).color(&color);
            area.draw(&Text::new(name, (x + 12, y - 8), style))?;
        }
        Ok(())
    }
}

fn canvas(path: &Path) -> Result<Area<'_>, Box<dyn Error>> {
    let area = SVGBackend::new(path, (720, 440)).into_drawing_area();
    area.fill(&WHITE)?;
    Ok(area)
}

/// Returns the smallest and the largest value of both coordinates.
fn bounds(lines: &Lines) -> Option<((f64, f64), (f64, f64))> {
    let points = || lines.iter().flatten();
    let range = |of: fn(&(f64, f64)) -> f64| {
        let values = || points().map(of);
        (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max))
    };
    points().next()?;
    Some((range(|p| p.0), range(|p| p.1)))
}

/// Returns `true` if a value begins with 1, 2 or 5; a logarithmic axis has no room for other labels.
fn is_round(value: f64) -> bool {
    let digit = value / 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0].iter().any(|round| (digit - round).abs() < 0.01)
}

/// Formats a number, with separated thousands.
fn grouped(value: f64) -> String {
    if value > 0.0 && value < 1.0 || (value < 10.0 && value.fract() > 0.05) {
        return format!("{value:.1}");
    }
    let n = value.round() as u64;
    if n < 1000 { n.to_string() } else { format!("{},{:03}", n / 1000, n % 1000) }
}
