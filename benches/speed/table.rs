//! The tables, in Markdown: what everything cost, and how that stands to the targets.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::options::Options;
use crate::plan::{BORROWED, Cell, FLOOR, GUARDED, LIBPQ, OWNED, PEERS, STR, THREADS, TIMED, TIMED_FLOOR, Task};
use crate::results::Results;
use crate::synthetic::Manner;

/// A table: its title, the scenario, the metric, its unit, and by what that divides.
const TABLES: [(&str, &str, &str, &str, f64); 28] = [
    ("S1. A flood: CPU of the client for one notification", "S1", "cpu_ns", "ns", 1.0),
    ("S1. System calls for 1,000 notifications", "S1", "calls_per_1000", "", 1.0),
    ("S2. Memory of an idle listening connection, beyond the first", "S2", "idle", "B", 1.0),
    ("S2. The same after 20 notifications of 512 B on each", "S2", "after", "B", 1.0),
    ("S2. Dial and LISTEN, 256 side by side: CPU", "S2", "dial_cpu_ns", "µs", 1e3),
    ("S2. Dial and LISTEN, 256 side by side: wall time", "S2", "dial_wall_ns", "µs", 1e3),
    ("S3. One random connection wakes at a time: CPU for one event", "S3", "cpu_ns", "µs", 1e3),
    ("S3. System calls for one event, the answer to it included", "S3", "calls", "", 1.0),
    ("S3. From the event to its answer: median", "S3", "p50", "µs", 1e3),
    ("S3. From the event to its answer: 99 %", "S3", "p99", "µs", 1e3),
    ("S4. A real server's burst to all, by TCP: CPU of the client for one notification", "S4", "cpu_ns", "ns", 1.0),
    ("S4. The same: CPU of the server for one notification", "S4", "server_cpu_ns", "ns", 1.0),
    ("S4. A real server's burst to all, by TCP: delivered a second, in millions", "S4", "per_second", "", 1e6),
    ("S5. 63 sparse connections beside one that is silent (0 B) or flooded (32 B): median", "S5", "p50", "µs", 1e3),
    ("S5. The same: 99 %", "S5", "p99", "µs", 1e3),
    ("A look where there is nothing: CPU", "look", "cpu_ns", "ns", 1.0),
    (
        "S6. Split among managers, one a thread: CPU for one notification, all threads together",
        "S6",
        "cpu_ns",
        "ns",
        1.0,
    ),
    ("S6. The same: delivered a second, in millions", "S6", "per_second", "", 1e6),
    ("S1-TLS. A flood in TLS: CPU of the client for one notification", "S1-TLS", "cpu_ns", "ns", 1.0),
    ("S1-TLS. System calls for 1,000 notifications", "S1-TLS", "calls_per_1000", "", 1.0),
    ("S2-TLS. Memory of an idle listening connection in TLS, beyond the first", "S2-TLS", "idle", "B", 1.0),
    ("S2-TLS. The same after 20 notifications of 512 B on each", "S2-TLS", "after", "B", 1.0),
    ("S2-TLS. Dial, agree on TLS and LISTEN, 256 side by side: CPU", "S2-TLS", "dial_cpu_ns", "µs", 1e3),
    ("S2-TLS. Dial, agree on TLS and LISTEN, 256 side by side: wall time", "S2-TLS", "dial_wall_ns", "µs", 1e3),
    ("S3-TLS. One random connection in TLS wakes at a time: CPU for one event", "S3-TLS", "cpu_ns", "µs", 1e3),
    ("S3-TLS. System calls for one event, the answer to it included", "S3-TLS", "calls", "", 1.0),
    ("S3-TLS. From the event to its answer: median", "S3-TLS", "p50", "µs", 1e3),
    ("S3-TLS. From the event to its answer: 99 %", "S3-TLS", "p99", "µs", 1e3),
];

/// Everything that was measured, and the machine.
pub fn markdown(results: &Results, options: &Options) -> String {
    let link = if options.tcp { "TCP on 127.0.0.1" } else { "Unix sockets" };
    let (machine, runs) = (machine(), options.runs);
    let mut text = format!("# Measured\n\n{machine}, {link}. Medians of {runs}, kinds in random order.\n");
    if !options.smoke && results.0.iter().any(|row| row.cell.repeats() > 1) {
        let _ = writeln!(text, "Of S1 with 64 connections or 32 B, S4 and S5: medians of {}.", 3 * runs);
    }
    if results.0.iter().any(|row| row.cell.is_encrypted()) {
        text.push_str(
            "Where it says TLS it is TLS 1.3 with AES-128-GCM, by TCP on 127.0.0.1; nobody checks the certificate.\n",
        );
    }
    if results.0.iter().any(|row| row.cell.task == Task::Dial) {
        text.push_str("What this crate dials are connections that had died, which its recovery brings back.\n");
    }
    if results.0.iter().any(|row| matches!(row.cell.task, Task::Wake(_, Manner::Awake | Manner::BesideAFlood))) {
        text.push_str(
            "An answer comes as the server has it in S3, and as the client gives it in S5, where the server is busy.\n",
        );
    }
    for (title, scenario, metric, unit, divisor) in TABLES {
        let title = if unit.is_empty() { title.to_owned() } else { format!("{title}, {unit}") };
        table(&mut text, results, &title, scenario, metric, divisor);
    }
    if options.smoke {
        text.push_str("\nA smoke run: these numbers say nothing.\n");
    } else {
        targets(&mut text, results);
    }
    text
}

fn table(text: &mut String, results: &Results, title: &str, scenario: &str, metric: &str, divisor: f64) {
    let rows = || results.0.iter().filter(|row| row.cell.scenario == scenario && row.metric == metric);
    let mut cells: Vec<Cell> = rows().map(|row| row.cell).collect();
    cells.dedup();
    let ours = [BORROWED, STR, OWNED, TIMED, GUARDED];
    let order = [&[FLOOR, TIMED_FLOOR], &ours[..], &[LIBPQ], &PEERS, &THREADS].concat();
    let kinds: Vec<_> = order.into_iter().filter(|kind| rows().any(|row| row.kind == *kind)).collect();
    if cells.is_empty() {
        return;
    }
    let _ = write!(text, "\n## {title}\n\n| connections | payload |");
    kinds.iter().for_each(|kind| _ = write!(text, " {kind} |"));
    let _ = write!(text, "\n|--:|--:|{}\n", "--:|".repeat(kinds.len()));
    for cell in cells {
        let payload = match cell.task {
            Task::Dial | Task::Look(_) => String::new(),
            _ => format!("{} B", grouped(cell.payload)),
        };
        let _ = write!(text, "| {} | {payload} |", grouped(cell.connections));
        for kind in &kinds {
            let value = rows().find(|row| row.cell == cell && row.kind == *kind).map(|row| row.median / divisor);
            let _ = write!(text, " {} |", value.map_or(String::new(), number));
        }
        text.push('\n');
    }
}

/// One target: what it is, our number, what the floor costs in our place, the number that both are compared with, and
/// the ratio that is allowed, or wanted at least.
struct Target {
    what: &'static str,
    ours: Option<f64>,
    floor: Option<f64>,
    other: Option<f64>,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    /// Ours may be so many times the other's.
    AtMost(f64),
    /// The other's is to be so many times ours.
    Better(f64),
    /// Ours is to be so many times the other's.
    More(f64),
}

impl Bound {
    /// What is aimed at, in words; the ratio; and whether it holds.
    fn judge(self, ours: f64, other: f64) -> (String, f64, bool) {
        match self {
            Bound::AtMost(most) => (format!("≤ {most} ×"), ours / other, ours / other <= most),
            Bound::Better(least) => (format!("≥ {least} × better"), other / ours, other / ours >= least),
            Bound::More(least) => (format!("≥ {least} × more"), ours / other, ours / other >= least),
        }
    }
}

fn targets(text: &mut String, results: &Results) {
    let most = results.0.iter().map(|row| row.cell.connections).max().unwrap_or_default();
    let cpu = |scenario, connections, payload, kind| results.get(scenario, connections, payload, kind, "cpu_ns");
    let beside = |what, scenario, connections, payload, metric, kind, other, bound| {
        let get = |kind| results.get(scenario, connections, payload, kind, metric);
        // Beside another kind of ours, the floor says nothing.
        let floor = if [FLOOR, BORROWED, TIMED].contains(&other) { None } else { get(FLOOR) };
        Target { what, ours: get(kind), floor, other: get(other), bound }
    };
    // To have it switched on sets an end to each wait, and so it does to the floor's.
    let guarded = |what, connections, other, bound| Target {
        floor: cpu("S3", connections, 32, TIMED_FLOOR)
            .zip(cpu("S3", connections, 32, FLOOR))
            .zip(cpu("S3", connections, 32, BORROWED))
            .filter(|_| other == BORROWED)
            .map(|((timed, floor), off)| off * timed / floor),
        ..beside(what, "S3", connections, 32, "cpu_ns", GUARDED, other, bound)
    };
    let bytes = |what, metric| Target {
        what,
        ours: results.get("S2", most, 512, GUARDED, metric),
        floor: results.get("S2", most, 512, FLOOR, metric),
        other: Some(256.0),
        bound: AtMost(1.0),
    };
    // Two reads of 64 KiB, at what we need for them.
    let sparse = |kind| results.get("S5", 64, 32, kind, "p99");
    let reads = cpu("S1", 64, 32, BORROWED).map(|each| 2.0 * each * 65_536.0 / 59.0);
    use Bound::{AtMost, Better, More};
    let one = |what, kind, other, bound| beside(what, "S1", 64, 32, "cpu_ns", kind, other, bound);
    let list = [
        one("S1, 64 connections, 32 B, borrowed, to floor", BORROWED, FLOOR, AtMost(1.3)),
        one("the same, to libpq", BORROWED, LIBPQ, Better(7.0)),
        one("the same, to tokio-postgres", BORROWED, PEERS[0], Better(14.0)),
        one("the same, to sqlx", BORROWED, PEERS[1], Better(8.0)),
        one("S1, payload as checked `&str`, to floor", STR, FLOOR, AtMost(2.0)),
        one("S1, owned, to floor", OWNED, FLOOR, AtMost(2.7)),
        beside("S1, 512 B, borrowed, to floor", "S1", 64, 512, "cpu_ns", BORROWED, FLOOR, AtMost(1.15)),
        beside("S1, 7,999 B, borrowed, to floor", "S1", 64, 7_999, "cpu_ns", BORROWED, FLOOR, AtMost(1.2)),
        beside("S1, 10,000 connections, to floor", "S1", most, 32, "cpu_ns", BORROWED, FLOOR, AtMost(1.2)),
        beside("S1, system calls, to floor", "S1", 64, 32, "calls_per_1000", BORROWED, FLOOR, AtMost(1.2)),
        bytes("S2, bytes an idle connection, recovery on, to 256", "idle"),
        bytes("S2, bytes after the burst, recovery on, to 256", "after"),
        beside("S2, dial and LISTEN, wall, to floor", "S2", most, 0, "dial_wall_ns", BORROWED, FLOOR, AtMost(1.4)),
        beside("S2, dial and LISTEN, CPU, to floor", "S2", most, 0, "dial_cpu_ns", BORROWED, FLOOR, AtMost(1.9)),
        beside("S3, CPU an event at 1, to floor", "S3", 1, 32, "cpu_ns", BORROWED, FLOOR, AtMost(1.1)),
        beside("S3, CPU an event at 1,000, to floor", "S3", most / 10, 32, "cpu_ns", BORROWED, FLOOR, AtMost(1.1)),
        beside("S3, CPU an event at 10,000, to floor", "S3", most, 32, "cpu_ns", BORROWED, FLOOR, AtMost(1.1)),
        beside("S3, p50 at 10,000, to floor", "S3", most, 32, "p50", BORROWED, FLOOR, AtMost(1.15)),
        beside("S3, p99 at 10,000, to floor", "S3", most, 32, "p99", BORROWED, FLOOR, AtMost(1.15)),
        Target {
            what: "S3, system calls an event, to 3 with the answer",
            ours: results.get("S3", most, 32, BORROWED, "calls"),
            floor: results.get("S3", most, 32, FLOOR, "calls"),
            other: Some(3.0),
            bound: AtMost(1.01),
        },
        beside("S4, 100 listeners, CPU, to libpq", "S4", 100, 32, "cpu_ns", BORROWED, LIBPQ, AtMost(0.55)),
        beside("S4, 500 listeners, CPU, to libpq", "S4", 500, 32, "cpu_ns", BORROWED, LIBPQ, AtMost(0.55)),
        beside("S4, 100 listeners, deliveries, to libpq", "S4", 100, 32, "per_second", BORROWED, LIBPQ, More(1.1)),
        beside("S4, 500 listeners, deliveries, to libpq", "S4", 500, 32, "per_second", BORROWED, LIBPQ, More(1.25)),
        Target {
            what: "S5, p99 of the sparse, to that without the flood and two reads of 64 KiB",
            ours: sparse(BORROWED),
            floor: sparse(FLOOR),
            other: results.get("S5", 64, 0, BORROWED, "p99").zip(reads).map(|(silent, reads)| silent + reads),
            bound: AtMost(1.0),
        },
        one("recovery and heartbeat on, S1, to off", GUARDED, BORROWED, AtMost(1.05)),
        guarded("recovery and heartbeat on, S3 at 1,000, to off", most / 10, BORROWED, AtMost(1.05)),
        guarded("recovery and heartbeat on, S3 at 10,000, to off", most, BORROWED, AtMost(1.05)),
        guarded("the same, to an idle timeout alone", most, TIMED, AtMost(1.05)),
    ];
    if list.iter().all(|target| target.ours.is_none() || target.other.is_none()) {
        return;
    }
    text.push_str("\n## The targets\n\nThe floor is what it would be for the floor itself.\n\n");
    text.push_str("| | target | measured | floor | |\n|---|--:|--:|--:|---|\n");
    for Target { what, ours, floor, other, bound } in list {
        let (Some(ours), Some(other)) = (ours, other) else { continue };
        let (target, ratio, holds) = bound.judge(ours, other);
        let floor = floor.map_or(String::new(), |floor| format!("{:.2}", bound.judge(floor, other).1));
        let holds = if holds { "holds" } else { "**missed**" };
        let _ = writeln!(text, "| {what} | {target} | {ratio:.2} | {floor} | {holds} |");
    }
}

/// What this was measured on, and when.
fn machine() -> String {
    let said = |program: &str, words: &[&str]| {
        let said = Command::new(program).args(words).output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&said).trim().to_owned()
    };
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, m)| m);
    let many = std::thread::available_parallelism().map_or(1, usize::from);
    let (system, day) = (said("uname", &["-sr"]), said("date", &["-u", "+%F"]));
    format!("{day}, {many} processors ({}), {system}", model.unwrap_or("unknown"))
}

/// Three digits that count, thousands apart.
fn number(value: f64) -> String {
    if value >= 100.0 {
        grouped(value.round() as usize)
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

fn grouped(n: usize) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", grouped(n / 1000), n % 1000) }
}
