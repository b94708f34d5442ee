//! The results of a run: the goals with what was measured, as a table and as a plot.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

const INK: &str = "#374151";
const GRID: &str = "#E5E7EB";
const ALONE: &str = "#9CA3AF";
const RELAYED: &str = "#0F766E";
const DIRECT: &str = "#C2410C";
const WIDTH: usize = 720;
/// The start of the first panel, the step between panels, and the length of the longest bar.
const LEFT: f64 = 200.0;
const STEP: f64 = 265.0;
const LONGEST: f64 = 150.0;
const TOP: f64 = 84.0;
const BAR: f64 = 20.0;

/// The cost of notifications for the server: the processor time of one, and the median time of its commit.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotifyCost {
    pub server: Duration,
    pub commit: Duration,
}

/// The numbers of a run.
#[derive(Debug, Default)]
pub struct Results {
    pub readers: usize,
    pub seconds: u64,
    /// The load of the machine at the beginning.
    pub load: String,
    pub alone: NotifyCost,
    pub relayed: NotifyCost,
    pub direct: NotifyCost,
    pub flood_per_second: f64,
    /// The median and the 99th percentile of the latency, of a direct listener and behind the relay.
    pub latency_direct: [Duration; 2],
    pub latency_relayed: [Duration; 2],
    pub idle_wakeups: f64,
    pub kill: KillResult,
}

/// The result of killing the leader.
#[derive(Debug, Default)]
pub struct KillResult {
    pub sent: u64,
    pub lost: u64,
    pub repeated: u64,
    pub gaps: u64,
    pub pause: Duration,
}

impl Results {
    fn ratio(&self, of: fn(&NotifyCost) -> Duration) -> f64 {
        of(&self.relayed).as_secs_f64() / of(&self.alone).as_secs_f64().max(1e-9)
    }

    /// Returns the goals: their names, their limits, what was measured, and whether that is within the limit.
    fn goals(&self) -> Vec<(String, &'static str, String, bool)> {
        let (server, commit) = (self.ratio(|cost| cost.server), self.ratio(|cost| cost.commit));
        let added = self.latency_relayed[1].saturating_sub(self.latency_direct[1]).as_secs_f64() * 1e3;
        let KillResult { sent, lost, repeated, gaps, pause } = self.kill;
        let readers = self.readers;
        let name = |what: &str| format!("{what} with {readers} readers, relative to none");
        vec![
            (name("server time for one NOTIFY"), "1.1", format!("{server:.2}"), server <= 1.1),
            (name("median time of a commit"), "1.1", format!("{commit:.2}"), commit <= 1.1),
            (
                "notifications per second".to_owned(),
                "at least 50,000",
                format!("{:.0}", self.flood_per_second),
                self.flood_per_second >= 50_000.0,
            ),
            ("p99 added at 5,000/s, ms".to_owned(), "2", format!("{added:.1}"), added <= 2.0),
            (
                format!("`kill -9` of the leader at 5,000/s, of {sent} sent: lost, repeated, gaps"),
                "0, 0, 0",
                format!("{lost}, {repeated}, {gaps}"),
                lost + repeated + gaps == 0,
            ),
            (
                "the same: longest pause of a reader, ms".to_owned(),
                "1,000",
                pause.as_millis().to_string(),
                pause <= Duration::from_secs(1),
            ),
            (
                "wake-ups of an idle reader per minute".to_owned(),
                "5",
                format!("{:.1}", self.idle_wakeups),
                self.idle_wakeups <= 5.0,
            ),
        ]
    }

    /// Returns the tables.
    pub fn markdown(&self) -> String {
        let Self { readers, seconds, load, .. } = self;
        let mut text = format!(
            "# S8. The relay\n\n{readers} readers, {seconds} s for each part, load of the machine at the beginning: {load} (an idle one \
             has about 0). The server, the engine, both relays and all readers share \
             it; the engine and the readers have the lowest priority, since in a deployment they are on other machines.\n\n| | server time for one NOTIFY, µs | \
             commit, p50, µs |\n|---|--:|--:|\n"
        );
        for (name, cost) in self.costs() {
            let _ = writeln!(text, "| {name} | {} | {} |", cost.server.as_micros(), cost.commit.as_micros());
        }
        text.push_str("\n| latency at 5,000/s, µs | p50 | p99 |\n|---|--:|--:|\n");
        for (name, [half, most]) in
            [("a direct listener", self.latency_direct), ("behind the relay", self.latency_relayed)]
        {
            let _ = writeln!(text, "| {name} | {} | {} |", half.as_micros(), most.as_micros());
        }
        text.push_str("\n| goal | limit | measured | |\n|---|--:|--:|---|\n");
        for (name, limit, measured, is_met) in self.goals() {
            let _ = writeln!(text, "| {name} | {limit} | {measured} | {} |", if is_met { "met" } else { "**missed**" });
        }
        text
    }

    fn costs(&self) -> [(String, NotifyCost); 3] {
        let readers = self.readers;
        [
            ("two relays, no reader, at 50/s".to_owned(), self.alone),
            (format!("{readers} readers, at 50/s"), self.relayed),
            (format!("{readers} direct listeners, at 10/s"), self.direct),
        ]
    }

    /// Returns the plot as SVG: what a NOTIFY costs the server and its sender.
    pub fn svg(&self) -> String {
        let height = TOP + 3.0 * (BAR + 10.0) + 18.0;
        let mut svg = format!(
            "<svg width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" xmlns=\"http://www.w3.org/2000/svg\" \
             font-family=\"sans-serif\" font-size=\"11\" fill=\"{INK}\">\n<rect width=\"{WIDTH}\" height=\"{height}\" \
             fill=\"#FFFFFF\"/>\n<text x=\"16\" y=\"26\" font-size=\"15\" font-weight=\"bold\">The cost of a NOTIFY: readers behind \
             a relay, and direct listeners</text>\n"
        );
        let costs = self.costs();
        let titles = ["server time for one NOTIFY, microseconds", "median time of a commit, microseconds"];
        for (panel, title) in titles.into_iter().enumerate() {
            let of = |cost: &NotifyCost| if panel == 0 { cost.server } else { cost.commit };
            let x = LEFT + panel as f64 * STEP;
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"58\" font-weight=\"bold\">{title}</text>");
            let _ = writeln!(
                svg,
                "<line x1=\"{x}\" y1=\"68\" x2=\"{x}\" y2=\"{}\" stroke=\"{GRID}\"/>",
                TOP + 3.0 * (BAR + 10.0)
            );
            let most = costs.iter().map(|(_, cost)| of(cost).as_secs_f64()).fold(1e-9, f64::max);
            for (row, ((name, cost), color)) in costs.iter().zip([ALONE, RELAYED, DIRECT]).enumerate() {
                let y = TOP + row as f64 * (BAR + 10.0);
                let length = of(cost).as_secs_f64() / most * LONGEST;
                let (middle, after) = (y + BAR * 0.7, x + length + 6.0);
                if panel == 0 {
                    let _ = writeln!(svg, "<text x=\"16\" y=\"{middle}\">{name}</text>");
                }
                let _ = writeln!(
                    svg,
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{color}\"/>\n<text x=\"{after:.1}\" \
                     y=\"{middle}\">{}</text>",
                    of(cost).as_micros()
                );
            }
        }
        svg + "</svg>\n"
    }

    /// Writes `relay.md` and `relay.svg`.
    pub fn write(&self, directory: &Path) -> std::io::Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("relay.md"), self.markdown())?;
        fs::write(directory.join("relay.svg"), self.svg())
    }
}

/// Returns the load of the machine in the last minute, if the system says it.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown").to_owned()
}
