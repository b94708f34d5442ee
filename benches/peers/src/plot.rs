//! Draws what was measured: one picture for each question, ours and the others' in it.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

/// The kinds that are drawn: what they are called, in which colour, and how boldly.
const KINDS: [(&str, &str, RGBColor, u32); 5] = [
    ("borrowed", "notifyman", RGBColor(0xc2, 0x41, 0x0c), 3),
    ("floor", "floor", RGBColor(0x9c, 0xa3, 0xaf), 2),
    ("libpq", "libpq", RGBColor(0x1d, 0x4e, 0xd8), 2),
    ("tokio-postgres", "tokio-postgres", RGBColor(0x04, 0x78, 0x57), 2),
    ("sqlx", "sqlx", RGBColor(0x7e, 0x22, 0xce), 2),
];
const INK: RGBColor = RGBColor(0x37, 0x41, 0x51);
const GRID: RGBColor = RGBColor(0xe5, 0xe7, 0xeb);

/// How much room the names have on the right.
const NAMES: u32 = 125;

/// One number of the results.
struct Row {
    scenario: String,
    connections: f64,
    payload: f64,
    kind: String,
    metric: String,
    median: f64,
}

/// A picture: what it is called, and its axes.
struct Picture<'a> {
    file: &'a str,
    title: &'a str,
    x: &'a str,
    y: &'a str,
    /// Whether the upright axis begins at nothing; else it is logarithmic.
    from_zero: bool,
}

/// Reads `results.csv` in a folder and draws beside it.
pub fn draw(mut words: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(words.next().ok_or("plot takes the folder of results.csv")?);
    let rows: Vec<Row> = fs::read_to_string(folder.join("results.csv"))?.lines().skip(1).filter_map(row).collect();
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
    let pictures = [
        (
            Picture {
                file: "flood.svg",
                title: "CPU for one notification of 32 bytes",
                x: "connections",
                y: "nanoseconds",
                from_zero: false,
            },
            of("S1", "cpu_ns", Some(32.0), 1.0),
        ),
        (
            Picture {
                file: "wake.svg",
                title: "CPU for one event, when one of many connections wakes",
                x: "connections",
                y: "microseconds",
                from_zero: true,
            },
            of("S3", "cpu_ns", None, 1e3),
        ),
        (
            Picture {
                file: "memory.svg",
                title: "Memory of an idle listening connection",
                x: "connections",
                y: "bytes beyond the first",
                from_zero: false,
            },
            of("S2", "idle", None, 1.0),
        ),
    ];
    for (picture, lines) in pictures {
        picture.draw(&folder, lines)?;
    }
    let latency = Picture {
        file: "latency.svg",
        title: "From an event to its answer, one of 10,000 connections",
        x: "of 100 events, so many are answered …",
        y: "… within microseconds",
        from_zero: true,
    };
    latency.draw_distribution(&folder, &rows)
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

impl Picture<'_> {
    /// Costs against connections.
    fn draw(&self, folder: &Path, lines: Lines) -> Result<(), Box<dyn Error>> {
        // Nothing can't be drawn on an axis that is logarithmic.
        let lines = lines.map(|line| line.into_iter().filter(|(_, y)| *y > 0.0).collect::<Vec<_>>());
        let Some((x, y)) = bounds(&lines) else { return Ok(()) };
        let path = folder.join(self.file);
        let area = canvas(&path)?;
        let x = (x.0 * 0.9..x.1 * 1.1).log_scale();
        if self.from_zero {
            let chart = self.builder(&area).build_cartesian_2d(x, 0.0..y.1 * 1.1)?;
            self.fill(&area, chart, &lines, grouped)?;
        } else {
            let chart = self.builder(&area).build_cartesian_2d(x, (y.0 * 0.7..y.1 * 1.4).log_scale())?;
            self.fill(&area, chart, &lines, grouped)?;
        }
        Ok(area.present()?)
    }

    /// Latency against the share of events that had it.
    fn draw_distribution(&self, folder: &Path, rows: &[Row]) -> Result<(), Box<dyn Error>> {
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
        let path = folder.join(self.file);
        let area = canvas(&path)?;
        let chart = self.builder(&area).build_cartesian_2d(0.0..100.0, 0.0..y.1 * 1.1)?;
        self.fill(&area, chart, &lines, |x| format!("{x:.0}"))?;
        Ok(area.present()?)
    }

    fn builder<'a, 'b>(&self, area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
        let mut builder = ChartBuilder::on(area);
        builder
            .margin(14)
            .margin_right(NAMES)
            .caption(self.title, ("sans-serif", 18).into_font().style(FontStyle::Bold).color(&INK))
            .x_label_area_size(48)
            .y_label_area_size(66);
        builder
    }

    /// The axes, the lines, and at the end of each line whose it is.
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
            .y_labels(if self.from_zero { 8 } else { 12 })
            .x_label_formatter(&|x| x_label(*x))
            .y_label_formatter(&|y| if self.from_zero || is_round(*y) { grouped(*y) } else { String::new() })
            .label_style(small.clone())
            .axis_desc_style(small)
            .draw()?;
        let mut names = Vec::new();
        // Ours comes last, so that it lies on top.
        for ((_, name, colour, width), line) in KINDS.iter().zip(lines).rev() {
            let Some(end) = line.last() else { continue };
            chart.draw_series(LineSeries::new(line.iter().copied(), colour.stroke_width(*width)))?;
            if line.len() < 10 {
                chart.draw_series(line.iter().map(|at| Circle::new(*at, *width + 1, colour.filled())))?;
            }
            names.push((chart.backend_coord(end), *name, *colour));
        }
        names.sort_by_key(|((_, y), ..)| *y);
        let mut free = i32::MIN;
        for ((x, y), name, colour) in names {
            // Lines that end together have their names one below the other.
            let y = y.max(free);
            free = y + 17;
            let bold = if name == KINDS[0].1 { FontStyle::Bold } else { FontStyle::Normal };
            let style = ("sans-serif", 14).into_font().style(bold).color(&colour);
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

/// The least and the most of both coordinates.
fn bounds(lines: &Lines) -> Option<((f64, f64), (f64, f64))> {
    let points = || lines.iter().flatten();
    let range = |of: fn(&(f64, f64)) -> f64| {
        let values = || points().map(of);
        (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max))
    };
    points().next()?;
    Some((range(|p| p.0), range(|p| p.1)))
}

/// Whether it begins with 1, 2 or 5: on a logarithmic axis there is no room for the others.
fn is_round(value: f64) -> bool {
    let digit = value / 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0].iter().any(|round| (digit - round).abs() < 0.01)
}

/// Whole numbers with their thousands apart, others as they are.
fn grouped(value: f64) -> String {
    if value > 0.0 && value < 1.0 || (value < 10.0 && value.fract() > 0.05) {
        return format!("{value:.1}");
    }
    let n = value.round() as u64;
    if n < 1000 { n.to_string() } else { format!("{},{:03}", n / 1000, n % 1000) }
}
