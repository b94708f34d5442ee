//! The plot for the README: bars for each variant, with the goals.

use std::fmt::Write as _;

use crate::Measured;
use crate::goals::{MEMORY, ONE_ROW};
use crate::table::number;
use crate::variants::Variant;

const INK: &str = "#374151";
const GRID: &str = "#E5E7EB";
const BY_HAND: &str = "#9CA3AF";
const NOTIFY: &str = "#C2410C";
const TABLE: &str = "#FDBA74";

const WIDTH: usize = 720;
const HEIGHT: usize = 296;
/// The start of the first panel, and the step between panels.
const LEFT: f64 = 216.0;
const STEP: f64 = 170.0;
/// The length of the longest bar. Its number follows it.
const LONGEST: f64 = 112.0;
const TOP: f64 = 96.0;
const BAR: f64 = 16.0;

/// A column of bars.
struct Panel<'a> {
    title: [&'a str; 2],
    value: Box<dyn Fn(Variant) -> Option<f64> + 'a>,
    /// The goal of a variant, as a multiple of the hand-written trigger's value.
    goal: Box<dyn Fn(Variant) -> Option<f64>>,
}

/// Returns the plot as SVG.
pub fn svg(measured: &Measured) -> String {
    let is_judged = |variant: Variant| ONE_ROW.iter().find(|(judged, _)| *judged == variant);
    let panels = [
        Panel {
            title: ["one UPDATE of one row,", "added microseconds"],
            value: Box::new(|variant| measured.one_row[1].added(variant)),
            goal: Box::new(move |variant| is_judged(variant).map(|(_, limit)| *limit)),
        },
        Panel {
            title: ["one UPDATE of 10,000 rows,", "relative to no trigger"],
            value: Box::new(|variant| measured.bulk[1].relative(variant)),
            goal: Box::new(|_| None),
        },
        Panel {
            title: ["session after 1,000 tables,", "megabytes"],
            value: Box::new(|variant| Some(measured.memory.as_ref()?.median(variant)? / 1e6)),
            goal: Box::new(move |variant| is_judged(variant).map(|_| MEMORY)),
        },
    ];
    let mut svg = format!(
        "<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" xmlns=\"http://www.w3.org/2000/svg\" \
         font-family=\"sans-serif\" font-size=\"11\" fill=\"{INK}\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#FFFFFF\"/>\n"
    );
    text(
        &mut svg,
        WIDTH as f64 / 2.0,
        28.0,
        "middle\" font-size=\"14.5\" font-weight=\"bold",
        "Cost of change triggers",
    );
    for (variant, y) in lines() {
        text(&mut svg, LEFT - 10.0, y + 12.0, "end", variant.name());
    }
    for (n, panel) in panels.iter().enumerate() {
        panel.draw(&mut svg, LEFT + STEP * n as f64);
    }
    let y = HEIGHT as f64 - 18.0;
    let _ = writeln!(svg, "{}", goal_line(LEFT, y - 10.0));
    text(&mut svg, LEFT + 8.0, y, "start", "goal: at most this multiple of the hand-written trigger");
    svg + "</svg>\n"
}

/// Returns the drawn variants, each with the top of its bar. A space separates rows from keys.
fn lines() -> impl Iterator<Item = (Variant, f64)> {
    let top = |n: usize| TOP + n as f64 * (BAR + 7.0) + if n < 3 { 0.0 } else { 18.0 };
    Variant::ALL
        .into_iter()
        .skip(1)
        .filter(|variant| *variant != Variant::HandInsert)
        .enumerate()
        .map(move |(n, variant)| (variant, top(n)))
}

impl Panel<'_> {
    fn draw(&self, svg: &mut String, left: f64) {
        self.title.iter().enumerate().for_each(|(n, line)| text(svg, left, 58.0 + 14.0 * n as f64, "start", line));
        let goal = |variant: Variant| Some((self.goal)(variant)? * (self.value)(variant.by_hand()?)?);
        let values = lines().flat_map(|(variant, _)| [(self.value)(variant), goal(variant)]).flatten();
        let scale = LONGEST / values.fold(f64::MIN_POSITIVE, f64::max);
        let bottom = lines().last().map_or(TOP, |(_, y)| y + BAR + 4.0);
        let _ =
            writeln!(svg, "<line x1=\"{left}\" y1=\"{}\" x2=\"{left}\" y2=\"{bottom}\" stroke=\"{GRID}\"/>", TOP - 4.0);
        for (variant, y) in lines() {
            let Some(value) = (self.value)(variant) else { continue };
            let colour = match variant {
                Variant::NoTrigger | Variant::HandRow | Variant::HandStatement | Variant::HandInsert => BY_HAND,
                Variant::Rows | Variant::Keys => NOTIFY,
                Variant::RowsLog | Variant::KeysLog => TABLE,
            };
            let width = (value * scale).max(1.0);
            let _ =
                writeln!(svg, "<rect x=\"{left}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>");
            let goal = goal(variant).map(|goal| left + goal * scale);
            if let Some(x) = goal {
                let _ = writeln!(svg, "{}", goal_line(x, y - 2.0));
            }
            // The number does not overlap the goal.
            let end = left + width;
            let x = goal.filter(|x| (end - 4.0..end + 34.0).contains(x)).unwrap_or(end);
            text(svg, x + 5.0, y + 12.0, "start", &number(value));
        }
    }
}

fn goal_line(x: f64, y: f64) -> String {
    let end = y + BAR + 4.0;
    format!("<line x1=\"{x:.1}\" y1=\"{y}\" x2=\"{x:.1}\" y2=\"{end}\" stroke=\"{INK}\" stroke-dasharray=\"3 2\"/>")
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>");
}
