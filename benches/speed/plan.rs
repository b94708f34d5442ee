//! What is measured: which cells, in which sizes, by which clients.

use crate::synthetic::Manner;

/// Our kinds: batches borrowed; the same with an idle timeout of a minute; with recovery and heartbeat switched on;
/// payloads checked as text; owned.
pub const BORROWED: &str = "borrowed";
pub const TIMED: &str = "timed";
pub const GUARDED: &str = "guarded";
pub const STR: &str = "str";
pub const OWNED: &str = "owned";
pub const THREADS: [&str; 2] = ["threads-1", "threads-2"];
/// What they are measured beside; and the same when a wait has an end, for which the system sets a timer each time.
pub const FLOOR: &str = "floor";
pub const TIMED_FLOOR: &str = "timed-floor";
pub const LIBPQ: &str = "libpq";
pub const PEERS: [&str; 2] = ["tokio-postgres", "sqlx"];

/// One line of a table: what is done, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub scenario: &'static str,
    pub connections: usize,
    pub payload: usize,
    pub task: Task,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Each connection gets so many, all at once.
    Flood(u64),
    /// The same, and the system calls are counted rather than the time.
    FloodTraced(u64),
    /// So many wake, one at a time, in the server's [`Manner`] of waiting.
    Wake(u64, Manner),
    WakeTraced(u64),
    Dial,
    /// Looks so many times where there is nothing.
    Look(u64),
    /// A real server sends so many to all.
    Burst(u64),
}

impl Cell {
    /// What the client is told to do, and how many things it is to expect.
    pub fn order(&self) -> (&'static str, u64) {
        match self.task {
            Task::Flood(each) | Task::FloodTraced(each) | Task::Burst(each) => {
                ("receive", each * self.connections as u64)
            }
            Task::Wake(events, _) | Task::WakeTraced(events) => ("wake", events),
            Task::Dial => ("dial", 0),
            Task::Look(times) => ("poll", times),
        }
    }

    /// Whether the server and all clients speak TLS: such scenarios have names of their own, so that nothing takes
    /// their numbers for those in clear.
    pub fn is_encrypted(&self) -> bool {
        self.scenario.ends_with("-TLS")
    }

    pub fn is_traced(&self) -> bool {
        matches!(self.task, Task::FloodTraced(_) | Task::WakeTraced(_))
    }

    /// How often it is measured, to once of the others: where a target hangs on a run that is short, or that shares the
    /// processors with hundreds of others, so that chance weighs more.
    pub fn repeats(&self) -> usize {
        match self.task {
            Task::Burst(_) | Task::Wake(_, Manner::Awake | Manner::BesideAFlood) => 3,
            Task::Flood(_) if self.scenario == "S1" && (self.connections == 64 || self.payload == 32) => 3,
            _ => 1,
        }
    }

    /// Who takes part.
    pub fn kinds(&self) -> Vec<&'static str> {
        let ours: &[&str] = match self.scenario {
            "S1" if self.is_traced() => &[BORROWED],
            "S1" => &[BORROWED, STR, OWNED, GUARDED],
            "S3" if !self.is_traced() => &[TIMED_FLOOR, BORROWED, TIMED, GUARDED],
            "S2" | "S3" => &[BORROWED, GUARDED],
            "S6" => return THREADS.to_vec(),
            _ => &[BORROWED],
        };
        let all = [&[FLOOR], ours, &[LIBPQ], &PEERS].concat();
        match self.task {
            Task::Look(_) => all.into_iter().filter(|kind| !PEERS.contains(kind)).collect(),
            Task::Dial => all.into_iter().filter(|kind| *kind != GUARDED).collect(),
            _ => all,
        }
    }
}

/// Everything, in the sizes that are worth publishing, or so small that it takes seconds.
pub fn cells(smoke: bool) -> Vec<Cell> {
    let cell = |scenario, connections, payload, task| Cell { scenario, connections, payload, task };
    let most = if smoke { 200 } else { 10_000 };
    let few = |n: u64| if smoke { n.div_ceil(200) } else { n };
    let mut cells = Vec::new();
    for (payload, total) in [(0, 4_000_000), (32, 3_000_000), (512, 600_000), (7_999, 60_000)] {
        for connections in [1, 64, most] {
            // Where dialling doesn't take longer, more of it, so that what happens by chance weighs less.
            let total = if connections == most { total } else { 3 * total };
            // As much for each connection as ends with a whole frame on all.
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
        cells.push(cell("S3", connections, 32, Task::Wake(few(50_000), Manner::Asleep)));
    }
    cells.push(cell("S3", most, 32, Task::WakeTraced(few(10_000))));
    for listeners in [100, 500] {
        let listeners = if smoke { listeners / 10 } else { listeners };
        cells.push(cell("S4", listeners, 32, Task::Burst(few(2_000_000) / listeners as u64)));
    }
    cells.push(cell("S5", 64, 0, Task::Wake(few(3_000), Manner::Awake)));
    cells.push(cell("S5", 64, 32, Task::Wake(few(3_000), Manner::BesideAFlood)));
    cells.push(cell("S6", 64, 32, Task::Flood(few(8_000_000).div_ceil(64))));
    for connections in [1, most / 10, most] {
        cells.push(cell("look", connections, 0, Task::Look(few(200_000))));
    }
    // What the server encrypts before it sends it, it holds: some 60 MB.
    for (payload, total) in [(32, 1_000_000), (512, 120_000), (7_999, 8_000)] {
        cells.push(cell("S1-TLS", 64, payload, Task::Flood(few(total).div_ceil(64))));
    }
    cells.push(cell("S1-TLS", 64, 32, Task::FloodTraced(few(1_000_000).div_ceil(64))));
    for connections in [most / 10, most] {
        cells.push(cell("S2-TLS", connections, 512, Task::Flood(20)));
    }
    cells.push(cell("S2-TLS", most / 10, 0, Task::Dial));
    for connections in [1, most / 10] {
        cells.push(cell("S3-TLS", connections, 32, Task::Wake(few(50_000), Manner::Asleep)));
    }
    cells.push(cell("S3-TLS", most / 10, 32, Task::WakeTraced(few(10_000))));
    cells
}
