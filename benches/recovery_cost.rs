//! The cost of recovery, heartbeat, canary and audit for a notification in a flood, and for a single one.
//!
//! ```text
//! cargo bench --bench recovery_cost -- --seconds 30
//! ```
//!
//! S1: 64 connections are flooded with payloads of 32 bytes; the result is the CPU time per notification. S3: a random one
//! of 1,000 connections receives an event, which is answered; the result is the CPU time per event. The same connections
//! are measured with everything off (twice, which shows the noise), with idle events, with recovery and heartbeat, and
//! with canary and audit, in random order. The CPU time is that of the iterating thread; another one controls the server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "speed/job.rs"]
mod job;
mod synthetic;

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use notifyman::{Backoff, Config, Connection, NotificationManager};
use rustix::time::{ClockId, clock_gettime};

use self::job::Answers;
use self::synthetic::{CHANNEL, Link, Server, Waiting};

const PAYLOAD: usize = 32;

/// The features that are enabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Off,
    OffAgain,
    /// Idle events every minute: the cost of a timeout for each wait.
    Timeout,
    Recovery,
    Everything,
}

const MODES: [Mode; 5] = [Mode::Off, Mode::OffAgain, Mode::Timeout, Mode::Recovery, Mode::Everything];

impl Mode {
    fn manager(self, connections: Vec<Connection>) -> NotificationManager {
        let nm = NotificationManager::new(connections);
        let recovering =
            |nm: NotificationManager| nm.reconnect(Backoff::default()).heartbeat(Duration::from_secs(15), LIMIT);
        match self {
            Mode::Off | Mode::OffAgain | Mode::Timeout => nm,
            Mode::Recovery => recovering(nm),
            Mode::Everything => recovering(nm)
                .canary(Duration::from_secs(30), LIMIT)
                .expect("a period of more than a second")
                .audit(Duration::from_secs(60)),
        }
    }
}

/// The time limit for answers.
const LIMIT: Duration = Duration::from_secs(5);

/// A load.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    connections: usize,
    /// The number of notifications of one sample.
    count: usize,
    run: fn(&mut Server, &mut NotificationManager, usize) -> Duration,
}

const LOADS: [Load; 2] = [
    Load { name: "S1, flood of 64 connections", connections: 64, count: 64 * 30_000, run: flood },
    Load { name: "S3, events on one of 1,000 connections", connections: 1_000, count: 5_000, run: wake },
];

fn main() {
    synthetic::serve_if_requested();
    let seconds = seconds();
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    for load in LOADS {
        measure(load, Duration::from_secs(seconds) / LOADS.len() as u32);
    }
}

/// Returns the total time: `--seconds`, by default 20.
fn seconds() -> u64 {
    let words: Vec<String> = std::env::args().collect();
    let at = words.iter().position(|word| word == "--seconds");
    at.and_then(|at| words.get(at + 1)?.parse().ok()).unwrap_or(20)
}

fn measure(load: Load, time: Duration) {
    let mut server = Server::start(Link::Unix, &[]).unwrap();
    let config = Config::new().host(server.host()).port(server.port()).user("bench");
    let mut connections: Vec<Connection> = (0..load.connections)
        .map(|_| {
            let mut db = Connection::connect(&config).unwrap();
            db.listen([CHANNEL]).unwrap();
            db
        })
        .collect();

    let (mut samples, mut random) = ([const { Vec::new() }; MODES.len()], 1_u64);
    let begun = Instant::now();
    // The first round warms up.
    for round in 0.. {
        if round > 3 && begun.elapsed() >= time {
            break;
        }
        let mut order = [0, 1, 2, 3, 4];
        for at in (1..order.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(at, (random >> 33) as usize % (at + 1));
        }
        for which in order {
            let mut nm = MODES[which].manager(connections);
            run_until_idle(&mut nm);
            nm.set_timeout((MODES[which] == Mode::Timeout).then_some(Duration::from_secs(60)));
            let cpu = (load.run)(&mut server, &mut nm, load.count);
            assert_eq!(nm.stats().losses, 0, "{nm:?}");
            connections = nm.into_connections().into_iter().map(|(_, db)| db).collect();
            if round > 0 {
                samples[which].push(cpu.as_nanos() as f64 / load.count as f64);
            }
        }
    }

    let medians = samples.each_ref().map(|values| median(values));
    println!("{}: {} samples each, client CPU per notification", load.name, samples[0].len());
    for (mode, (values, value)) in MODES.iter().zip(samples.iter().zip(medians)) {
        let ratio = value / medians[0];
        println!("  {:<12} {value:>8.1} ns  {ratio:.3} of off  ± {:.3}", format!("{mode:?}"), spread(values, value));
    }
}

/// Runs the loop until the requests of a new manager are answered, so that they are not measured.
fn run_until_idle(nm: &mut NotificationManager) {
    nm.set_timeout(Duration::from_millis(20));
    while nm.next().expect("the loop must continue").is_some() {}
}

fn flood(server: &mut Server, nm: &mut NotificationManager, count: usize) -> Duration {
    let each = count / nm.connections().count();
    thread::scope(|scope| {
        let sending = scope.spawn(|| server.flood(PAYLOAD, each as u64));
        let begun = cpu();
        let mut received = 0;
        while received < count {
            let (_, batch) = nm.next().unwrap().unwrap();
            received += batch.len();
            for n in &batch {
                black_box(n.payload_bytes());
            }
        }
        let spent = cpu() - begun;
        sending.join().unwrap().unwrap();
        spent
    })
}

fn wake(server: &mut Server, nm: &mut NotificationManager, count: usize) -> Duration {
    let mut answers = Answers::connect(server.host(), server.answer_port()).unwrap();
    thread::scope(|scope| {
        let sending = scope.spawn(|| server.wake(count as u64, Waiting::Sleeping));
        let begun = cpu();
        for _ in 0..count {
            let (_, batch) = nm.next().unwrap().unwrap();
            assert_eq!(batch.len(), 1);
            for n in &batch {
                assert!(answers.answer(n.payload_bytes()));
            }
        }
        let spent = cpu() - begun;
        sending.join().unwrap().unwrap();
        spent
    })
}

/// Returns the CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Returns the median of the relative deviations from a value.
fn spread(values: &[f64], around: f64) -> f64 {
    median(&values.iter().map(|value| (value - around).abs() / around).collect::<Vec<_>>())
}
