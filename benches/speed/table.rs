//! The tables in Markdown: all results, and their ratios to the targets.

use std::fmt::Write as _;

use crate::format::{grouped, machine, number};
use crate::options::Options;
use crate::plan::{
    BORROWED, Cell, EARLIER, FLOOR, LIBPQ, OWNED, PEERS, RECOVERY, STR, THREADS, TIMED, TIMED_FLOOR, Task,
};
use crate::results::Results;
use crate::synthetic::Waiting;

/// The tables: title, scenario, metric, unit, and divisor.
const TABLES: [(&str, &str, &str, &str, f64); 28] = [
    ("S1. Flood: client CPU per notification", "S1", "cpu_ns", "ns", 1.0),
    ("S1. System calls per 1,000 notifications", "S1", "calls_per_1000", "", 1.0),
    ("S2. Memory of an idle listening connection, after the first", "S2", "idle", "B", 1.0),
    ("S2. Memory per connection after 20 notifications of 512 B on each", "S2", "after", "B", 1.0),
    ("S2. Connect and LISTEN, 256 concurrently: CPU", "S2", "dial_cpu_ns", "µs", 1e3),
    ("S2. Connect and LISTEN, 256 concurrently: wall time", "S2", "dial_wall_ns", "µs", 1e3),
    ("S3. Events on random connections, one at a time: CPU per event", "S3", "cpu_ns", "µs", 1e3),
    ("S3. System calls per event, including the answer", "S3", "calls", "", 1.0),
    ("S3. Latency from event to answer: median", "S3", "p50", "µs", 1e3),
    ("S3. Latency from event to answer: p99", "S3", "p99", "µs", 1e3),
    ("S4. Burst of a real server to all, TCP: client CPU per notification", "S4", "cpu_ns", "ns", 1.0),
    ("S4. Burst of a real server to all, TCP: server CPU per notification", "S4", "server_cpu_ns", "ns", 1.0),
    ("S4. Burst of a real server to all, TCP: millions delivered per second", "S4", "per_second", "", 1e6),
    ("S5. Latency of 63 sparse connections, one more idle (0 B) or flooded (32 B): median", "S5", "p50", "µs", 1e3),
    ("S5. Latency of 63 sparse connections, one more idle (0 B) or flooded (32 B): p99", "S5", "p99", "µs", 1e3),
    ("Poll without notifications: CPU", "poll", "cpu_ns", "ns", 1.0),
    ("S6. Several managers, one per thread: CPU per notification, all threads together", "S6", "cpu_ns", "ns", 1.0),
    ("S6. Several managers, one per thread: millions delivered per second", "S6", "per_second", "", 1e6),
    ("S1-TLS. Flood with TLS: client CPU per notification", "S1-TLS", "cpu_ns", "ns", 1.0),
    ("S1-TLS. System calls per 1,000 notifications", "S1-TLS", "calls_per_1000", "", 1.0),
    ("S2-TLS. Memory of an idle listening connection with TLS, after the first", "S2-TLS", "idle", "B", 1.0),
    ("S2-TLS. Memory per connection after 20 notifications of 512 B on each", "S2-TLS", "after", "B", 1.0),
    ("S2-TLS. Connect with TLS and LISTEN, 256 concurrently: CPU", "S2-TLS", "dial_cpu_ns", "µs", 1e3),
    ("S2-TLS. Connect with TLS and LISTEN, 256 concurrently: wall time", "S2-TLS", "dial_wall_ns", "µs", 1e3),
    ("S3-TLS. Events on random connections, one at a time: CPU per event", "S3-TLS", "cpu_ns", "µs", 1e3),
    ("S3-TLS. System calls per event, including the answer", "S3-TLS", "calls", "", 1.0),
    ("S3-TLS. Latency from event to answer: median", "S3-TLS", "p50", "µs", 1e3),
    ("S3-TLS. Latency from event to answer: p99", "S3-TLS", "p99", "µs", 1e3),
];

/// Returns all results, with a description of the machine.
pub fn markdown(results: &Results, options: &Options) -> String {
    let link = if options.tcp { "TCP on 127.0.0.1" } else { "Unix sockets" };
    let (machine, runs) = (machine(), options.runs);
    let mut text =
        format!("# Results\n\n{machine}, {link}. Medians of {runs} runs, kinds of client in random order.\n");
    if !options.smoke && results.0.iter().any(|row| row.cell.repeats() > 1) {
        let _ = writeln!(text, "S1 with 64 connections or 32 B, S4 and S5: medians of {} runs.", 3 * runs);
    }
    if results.0.iter().any(|row| row.cell.is_encrypted()) {
        text.push_str(
            "TLS is version 1.3 with AES-128-GCM, over TCP on 127.0.0.1, without certificate verification.\n",
        );
    }
    if results.0.iter().any(|row| row.cell.task == Task::Dial) {
        text.push_str(
            "When connections are opened, those of this crate are lost connections that its recovery restores.\n",
        );
    }
    if results.0.iter().any(|row| matches!(row.cell.task, Task::Wake(_, Waiting::Spinning | Waiting::Flooding))) {
        text.push_str(
            "The latency ends when the server has the answer in S3, and when the client has sent it in S5.\n",
        );
    }
    for (title, scenario, metric, unit, divisor) in TABLES {
        let title = if unit.is_empty() { title.to_owned() } else { format!("{title}, {unit}") };
        table(&mut text, results, &title, scenario, metric, divisor);
    }
    if options.smoke {
        text.push_str("\nThis was a smoke run: the numbers mean nothing.\n");
    } else {
        targets(&mut text, results);
    }
    text
}

fn table(text: &mut String, results: &Results, title: &str, scenario: &str, metric: &str, divisor: f64) {
    let rows = || results.0.iter().filter(|row| row.cell.scenario == scenario && row.metric == metric);
    let mut cells: Vec<Cell> = rows().map(|row| row.cell).collect();
    cells.dedup();
    let own = [BORROWED, STR, OWNED, TIMED, RECOVERY];
    let own = [&own[..], &THREADS, &EARLIER.map(|(name, _)| name)].concat();
    let order = [&[FLOOR, TIMED_FLOOR], &own[..], &[LIBPQ], &PEERS].concat();
    let kinds: Vec<_> = order.into_iter().filter(|kind| rows().any(|row| row.kind == *kind)).collect();
    if cells.is_empty() {
        return;
    }
    let _ = write!(text, "\n## {title}\n\n| connections | payload |");
    kinds.iter().for_each(|kind| _ = write!(text, " {kind} |"));
    let _ = write!(text, "\n|--:|--:|{}\n", "--:|".repeat(kinds.len()));
    for cell in cells {
        let payload = match cell.task {
            Task::Dial | Task::Poll(_) => String::new(),
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

/// A target: a title, this crate's number, the floor's number, the number that both are compared with, and the bound of
/// the ratio.
struct Target {
    title: &'static str,
    own: Option<f64>,
    floor: Option<f64>,
    other: Option<f64>,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    /// The own number may be at most this multiple of the other.
    AtMost(f64),
    /// The other number must be at least this multiple of the own.
    Better(f64),
    /// The own number must be at least this multiple of the other.
    More(f64),
}

impl Bound {
    /// Returns the target as text, the ratio, and `true` if the target is met.
    fn judge(self, own: f64, other: f64) -> (String, f64, bool) {
        match self {
            Bound::AtMost(most) => (format!("≤ {most} ×"), own / other, own / other <= most),
            Bound::Better(least) => (format!("≥ {least} × better"), other / own, other / own >= least),
            Bound::More(least) => (format!("≥ {least} × more"), own / other, own / other >= least),
        }
    }
}

fn targets(text: &mut String, results: &Results) {
    let most = results.0.iter().map(|row| row.cell.connections).max().unwrap_or_default();
    let cpu = |scenario, connections, payload, kind| results.get(scenario, connections, payload, kind, "cpu_ns");
    let compare = |title, scenario, connections, payload, metric, kind, other, bound| {
        let get = |kind| results.get(scenario, connections, payload, kind, metric);
        // Compared with another kind of this crate, the floor means nothing.
        let floor = if [FLOOR, BORROWED, TIMED].contains(&other) { None } else { get(FLOOR) };
        Target { title, own: get(kind), floor, other: get(other), bound }
    };
    // Recovery sets a timeout for each wait, so the floor is the one with a timeout.
    let recovery = |title, connections, other, bound| Target {
        floor: cpu("S3", connections, 32, TIMED_FLOOR)
            .zip(cpu("S3", connections, 32, FLOOR))
            .zip(cpu("S3", connections, 32, BORROWED))
            .filter(|_| other == BORROWED)
            .map(|((timed, floor), off)| off * timed / floor),
        ..compare(title, "S3", connections, 32, "cpu_ns", RECOVERY, other, bound)
    };
    let bytes = |title, metric| Target {
        title,
        own: results.get("S2", most, 512, RECOVERY, metric),
        floor: results.get("S2", most, 512, FLOOR, metric),
        other: Some(256.0),
        bound: AtMost(1.0),
    };
    // The cost of two reads of 64 KiB.
    let sparse = |kind| results.get("S5", 64, 32, kind, "p99");
    let reads = cpu("S1", 64, 32, BORROWED).map(|each| 2.0 * each * 65_536.0 / 59.0);
    use Bound::{AtMost, Better, More};
    let one = |title, kind, other, bound| compare(title, "S1", 64, 32, "cpu_ns", kind, other, bound);
    let list = [
        one("S1, 64 connections, 32 B, borrowed, to floor", BORROWED, FLOOR, AtMost(1.3)),
        one("S1, 64 connections, 32 B, borrowed, to libpq", BORROWED, LIBPQ, Better(7.0)),
        one("S1, 64 connections, 32 B, borrowed, to tokio-postgres", BORROWED, PEERS[0], Better(14.0)),
        one("S1, 64 connections, 32 B, borrowed, to sqlx", BORROWED, PEERS[1], Better(8.0)),
        one("S1, payload as checked `&str`, to floor", STR, FLOOR, AtMost(2.0)),
        one("S1, owned, to floor", OWNED, FLOOR, AtMost(2.7)),
        compare("S1, 512 B, borrowed, to floor", "S1", 64, 512, "cpu_ns", BORROWED, FLOOR, AtMost(1.15)),
        compare("S1, 7,999 B, borrowed, to floor", "S1", 64, 7_999, "cpu_ns", BORROWED, FLOOR, AtMost(1.2)),
        compare("S1, 10,000 connections, to floor", "S1", most, 32, "cpu_ns", BORROWED, FLOOR, AtMost(1.2)),
        compare("S1, system calls, to floor", "S1", 64, 32, "calls_per_1000", BORROWED, FLOOR, AtMost(1.2)),
        bytes("S2, bytes per idle connection, recovery and heartbeat, to 256", "idle"),
        bytes("S2, bytes after 20 notifications, recovery and heartbeat, to 256", "after"),
        compare(
            "S2, connect and LISTEN, wall time, to floor",
            "S2",
            most,
            0,
            "dial_wall_ns",
            BORROWED,
            FLOOR,
            AtMost(1.4),
        ),
        compare("S2, connect and LISTEN, CPU, to floor", "S2", most, 0, "dial_cpu_ns", BORROWED, FLOOR, AtMost(1.9)),
        compare("S3, CPU per event at 1, to floor", "S3", 1, 32, "cpu_ns", BORROWED, FLOOR, AtMost(1.1)),
        compare("S3, CPU per event at 1,000, to floor", "S3", most / 10, 32, "cpu_ns", BORROWED, FLOOR, AtMost(1.1)),
        compare("S3, CPU per event at 10,000, to floor", "S3", most, 32, "cpu_ns", BORROWED, FLOOR, AtMost(1.1)),
        compare("S3, p50 at 10,000, to floor", "S3", most, 32, "p50", BORROWED, FLOOR, AtMost(1.15)),
        compare("S3, p99 at 10,000, to floor", "S3", most, 32, "p99", BORROWED, FLOOR, AtMost(1.15)),
        Target {
            title: "S3, system calls per event, to 3 with the answer",
            own: results.get("S3", most, 32, BORROWED, "calls"),
            floor: results.get("S3", most, 32, FLOOR, "calls"),
            other: Some(3.0),
            bound: AtMost(1.01),
        },
        compare("S4, 100 listeners, CPU, to libpq", "S4", 100, 32, "cpu_ns", BORROWED, LIBPQ, AtMost(0.55)),
        compare("S4, 500 listeners, CPU, to libpq", "S4", 500, 32, "cpu_ns", BORROWED, LIBPQ, AtMost(0.55)),
        compare("S4, 100 listeners, deliveries, to libpq", "S4", 100, 32, "per_second", BORROWED, LIBPQ, More(1.1)),
        compare("S4, 500 listeners, deliveries, to libpq", "S4", 500, 32, "per_second", BORROWED, LIBPQ, More(1.25)),
        Target {
            title: "S5, p99 with the flood, to p99 without it and two reads of 64 KiB",
            own: sparse(BORROWED),
            floor: sparse(FLOOR),
            other: results.get("S5", 64, 0, BORROWED, "p99").zip(reads).map(|(silent, reads)| silent + reads),
            bound: AtMost(1.0),
        },
        one("S1, recovery and heartbeat, to borrowed", RECOVERY, BORROWED, AtMost(1.05)),
        recovery("S3 at 1,000, recovery and heartbeat, to borrowed", most / 10, BORROWED, AtMost(1.05)),
        recovery("S3 at 10,000, recovery and heartbeat, to borrowed", most, BORROWED, AtMost(1.05)),
        recovery("S3 at 10,000, recovery and heartbeat, to timed", most, TIMED, AtMost(1.05)),
    ];
    if list.iter().all(|target| target.own.is_none() || target.other.is_none()) {
        return;
    }
    text.push_str("\n## Targets\n\nThe column floor is the ratio of the floor itself.\n\n");
    text.push_str("| | target | measured | floor | |\n|---|--:|--:|--:|---|\n");
    for Target { title, own, floor, other, bound } in list {
        let (Some(own), Some(other)) = (own, other) else { continue };
        let (target, ratio, is_met) = bound.judge(own, other);
        let floor = floor.map_or(String::new(), |floor| format!("{:.2}", bound.judge(floor, other).1));
        let result = if is_met { "met" } else { "**missed**" };
        let _ = writeln!(text, "| {title} | {target} | {ratio:.2} | {floor} | {result} |");
    }
}
