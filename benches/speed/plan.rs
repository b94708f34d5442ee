//! The plan of the measurements: cells, sizes and kinds of client.

use crate::synthetic::Waiting;

/// The kinds of this crate: borrowed batches; borrowed with an idle timeout of a minute; borrowed with recovery and
/// heartbeat enabled; payloads checked as strings; owned notifications.
pub const BORROWED: &str = "borrowed";
pub const TIMED: &str = "timed";
pub const RECOVERY: &str = "recovery";
pub const STR: &str = "str";
pub const OWNED: &str = "owned";
pub const THREADS: [&str; 2] = ["threads-1", "threads-2"];
/// The kinds of this crate in an earlier build, which alternate with those of this one: the name here, and the name there.
pub const EARLIER: [(&str, &str); 7] = [
    ("earlier-borrowed", BORROWED),
    ("earlier-str", STR),
    ("earlier-owned", OWNED),
    ("earlier-timed", TIMED),
    ("earlier-recovery", RECOVERY),
    ("earlier-threads-1", THREADS[0]),
    ("earlier-threads-2", THREADS[1]),
];
/// The physical floor; and the floor with a timeout for each wait, for which the system sets a timer.
pub const FLOOR: &str = "floor";
pub const TIMED_FLOOR: &str = "timed-floor";
pub const LIBPQ: &str = "libpq";
pub const PEERS: [&str; 2] = ["tokio-postgres", "sqlx"];

/// One line of a table: a task and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub scenario: &'static str,
    pub connections: usize,
    pub payload: usize,
    pub task: Task,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Each connection receives this number of notifications, as fast as possible.
    Flood(u64),
    /// Like `Flood`, but system calls are counted instead of time.
    FloodTraced(u64),
    /// This number of events, one at a time; the server waits for answers in this way.
    Wake(u64, Waiting),
    WakeTraced(u64),
    Dial,
    /// Polls this number of times, while nothing arrives.
    Poll(u64),
    /// A real server sends this number of notifications to all connections.
    Burst(u64),
}

impl Cell {
    /// Returns the client's task, and the number of things that it expects.
    pub fn job(&self) -> (&'static str, u64) {
        match self.task {
            Task::Flood(each) | Task::FloodTraced(each) | Task::Burst(each) => {
                ("receive", each * self.connections as u64)
            }
            Task::Wake(events, _) | Task::WakeTraced(events) => ("wake", events),
            Task::Dial => ("dial", 0),
            Task::Poll(times) => ("poll", times),
        }
    }

    /// Returns `true` for a scenario with TLS. These have names of their own, so that their numbers are not confused with
    /// unencrypted ones.
    pub fn is_encrypted(&self) -> bool {
        self.scenario.ends_with("-TLS")
    }

    pub fn is_traced(&self) -> bool {
        matches!(self.task, Task::FloodTraced(_) | Task::WakeTraced(_))
    }

    /// Returns the factor for the number of runs, which is greater where results vary more: in short runs, or with hundreds
    /// of processes.
    pub fn repeats(&self) -> usize {
        match self.task {
            Task::Burst(_) | Task::Wake(_, Waiting::Spinning | Waiting::Flooding) => 3,
            Task::Flood(_) if self.scenario == "S1" && (self.connections == 64 || self.payload == 32) => 3,
            _ => 1,
        }
    }

    /// Returns the kinds of client that run in this cell.
    pub fn kinds(&self) -> Vec<&'static str> {
        let own: &[&str] = match self.scenario {
            "S1" if self.is_traced() => &[BORROWED],
            "S1" => &[BORROWED, STR, OWNED, RECOVERY],
            "S3" if !self.is_traced() => &[TIMED_FLOOR, BORROWED, TIMED, RECOVERY],
            "S2" | "S3" => &[BORROWED, RECOVERY],
            "S6" => &THREADS,
            _ => &[BORROWED],
        };
        let own: Vec<_> = own.iter().copied().filter(|kind| self.task != Task::Dial || *kind != RECOVERY).collect();
        let earlier = EARLIER.iter().filter(|(_, kind)| own.contains(kind)).map(|(name, _)| *name);
        let own = own.iter().copied().chain(earlier);
        match self.task {
            _ if self.scenario == "S6" => own.collect(),
            Task::Poll(_) => [FLOOR].into_iter().chain(own).chain([LIBPQ]).collect(),
            _ => [FLOOR].into_iter().chain(own).chain([LIBPQ]).chain(PEERS).collect(),
        }
    }
}

/// Returns all cells, with the sizes to publish, or with sizes that take only seconds.
pub fn cells(smoke: bool) -> Vec<Cell> {
    let cell = |scenario, connections, payload, task| Cell { scenario, connections, payload, task };
    let most = if smoke { 200 } else { 10_000 };
    let few = |n: u64| if smoke { n.div_ceil(200) } else { n };
    let mut cells = Vec::new();
    for (payload, total) in [(0, 4_000_000), (32, 3_000_000), (512, 600_000), (7_999, 60_000)] {
        for connections in [1, 64, most] {
            // If opening the connections does not take longer, there are more notifications, so that results vary less.
            let total = if connections == most { total } else { 3 * total };
            // Each connection receives the same number of whole frames.
            let each = few(total).div_ceil(connections as u64);
            cells.push(cell("S1", connections, payload, Task::Flood(each)));
        }
    }
    cells.push(cell("S1", 64, 32, Task::FloodTraced(few(4_000_000).div_ceil(64))));
    for connections in [most / 100, most / 10, most] {
        cells.push(cell("S2", connections, 512, Task::Flood(20)));
    }
    cells.push(cell("S2", most, 0, Task::Dial));
    for connections in [1, 64, most / 10, most] {
        cells.push(cell("S3", connections, 32, Task::Wake(few(50_000), Waiting::Sleeping)));
    }
    cells.push(cell("S3", most, 32, Task::WakeTraced(few(10_000))));
    for listeners in [100, 500] {
        let listeners = if smoke { listeners / 10 } else { listeners };
        cells.push(cell("S4", listeners, 32, Task::Burst(few(2_000_000) / listeners as u64)));
    }
    cells.push(cell("S5", 64, 0, Task::Wake(few(3_000), Waiting::Spinning)));
    cells.push(cell("S5", 64, 32, Task::Wake(few(3_000), Waiting::Flooding)));
    cells.push(cell("S6", 64, 32, Task::Flood(few(8_000_000).div_ceil(64))));
    for connections in [1, most / 10, most] {
        cells.push(cell("poll", connections, 0, Task::Poll(few(200_000))));
    }
    // The server holds everything that it encrypts in advance: about 60 MB.
    for (payload, total) in [(32, 1_000_000), (512, 120_000), (7_999, 8_000)] {
        cells.push(cell("S1-TLS", 64, payload, Task::Flood(few(total).div_ceil(64))));
    }
    cells.push(cell("S1-TLS", 64, 32, Task::FloodTraced(few(1_000_000).div_ceil(64))));
    for connections in [most / 10, most] {
        cells.push(cell("S2-TLS", connections, 512, Task::Flood(20)));
    }
    cells.push(cell("S2-TLS", most / 10, 0, Task::Dial));
    for connections in [1, most / 10] {
        cells.push(cell("S3-TLS", connections, 32, Task::Wake(few(50_000), Waiting::Sleeping)));
    }
    cells.push(cell("S3-TLS", most / 10, 32, Task::WakeTraced(few(10_000))));
    cells
}
