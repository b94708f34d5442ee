//! The plot for the README: bars for each way, with the goals.

use std::fmt::Write as _;

use crate::Measured;
use crate::goals::{MEMORY, ONE_ROW};
use crate::table::number;
use crate::ways::Way;

const INK: &str = "#374151";
const GRID: &str = "#E5E7EB";
const BY_HAND: &str = "#9CA3AF";
const NOTIFY: &str = "#C2410C";
const TABLE: &str = "#FDBA74";

const WIDTH: usize = 720;
const HEIGHT: usize = 296;
/// Where the panels begin, and the step from one to the next.
const LEFT: f64 = 216.0;
const STEP: f64 = 170.0;
/// The longest bar; its number comes after it.
const LONGEST: f64 = 112.0;
const TOP: f64 = 96.0;
const BAR: f64 = 16.0;

/// A column of bars.
struct Panel<'a> {
    title: [&'a str; 2],
    value: Box<dyn Fn(Way) -> Option<f64> + 'a>,
    /// The goal of a way, as a multiple of the hand-written trigger's value.
    goal: Box<dyn Fn(Way) -> Option<f64>>,
}

/// The plot as SVG.
pub fn svg(measured: &Measured) -> String {
    let is_judged = |way: Way| ONE_ROW.iter().find(|(judged, _)| *judged == way);
    let panels = [
        Panel {
            title: ["one UPDATE of one row,", "added microseconds"],
            value: Box::new(|way| measured.one_row[1].added(way)),
            goal: Box::new(move |way| is_judged(way).map(|(_, limit)| *limit)),
        },
        Panel {
            title: ["one UPDATE of 10,000 rows,", "times that without a trigger"],
            value: Box::new(|way| measured.bulk[1].relative(way)),
            goal: Box::new(|_| None),
        },
        Panel {
            title: ["session that wrote 1,000", "tables, megabytes"],
            value: Box::new(|way| Some(measured.memory.as_ref()?.median(way)? / 1e6)),
            goal: Box::new(move |way| is_judged(way).map(|_| MEMORY)),
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
    for (way, y) in lines() {
        text(&mut svg, LEFT - 10.0, y + 12.0, "end", way.name());
    }
    for (n, panel) in panels.iter().enumerate() {
        panel.draw(&mut svg, LEFT + STEP * n as f64);
    }
    let y = HEIGHT as f64 - 18.0;
    let _ = writeln!(svg, "{}", goal_line(LEFT, y - 10.0));
    text(&mut svg, LEFT + 8.0, y, "start", "goal: at most this multiple of the hand-written trigger");
    svg + "</svg>\n"
}

/// The ways that are drawn, each with the top of its bar; a gap separates rows from keys.
fn lines() -> impl Iterator<Item = (Way, f64)> {
    let top = |n: usize| TOP + n as f64 * (BAR + 7.0) + if n < 3 { 0.0 } else { 18.0 };
    Way::ALL.into_iter().skip(1).filter(|way| *way != Way::HandInsert).enumerate().map(move |(n, way)| (way, top(n)))
}

impl Panel<'_> {
    fn draw(&self, svg: &mut String, left: f64) {
        self.title.iter().enumerate().for_each(|(n, line)| text(svg, left, 58.0 + 14.0 * n as f64, "start", line));
        let goal = |way: Way| Some((self.goal)(way)? * (self.value)(way.by_hand()?)?);
        let values = lines().flat_map(|(way, _)| [(self.value)(way), goal(way)]).flatten();
        let scale = LONGEST / values.fold(f64::MIN_POSITIVE, f64::max);
        let bottom = lines().last().map_or(TOP, |(_, y)| y + BAR + 4.0);
        let _ =
            writeln!(svg, "<line x1=\"{left}\" y1=\"{}\" x2=\"{left}\" y2=\"{bottom}\" stroke=\"{GRID}\"/>", TOP - 4.0);
        for (way, y) in lines() {
            let Some(value) = (self.value)(way) else { continue };
            let colour = match way {
                Way::NoTrigger | Way::HandRow | Way::HandStatement | Way::HandInsert => BY_HAND,
                Way::Rows | Way::Keys => NOTIFY,
                Way::RowsLog | Way::KeysLog => TABLE,
            };
            let width = (value * scale).max(1.0);
            let _ =
                writeln!(svg, "<rect x=\"{left}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>");
            let goal = goal(way).map(|goal| left + goal * scale);
            if let Some(x) = goal {
                let _ = writeln!(svg, "{}", goal_line(x, y - 2.0));
            }
            // The number stays clear of the goal.
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
