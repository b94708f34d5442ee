//! The cost of readers behind a relay, and what the relay adds: in one run, on one machine.
//!
//! ```text
//! tests/with-postgres --tools cargo bench --all-features --bench relay -- --seconds 20 --readers 1000
//! benches/run --only S8    # the same, written to target/bench-results/ as a table and a plot
//! ```
//!
//! | part | what is compared |
//! |---|---|
//! | fan-out | the processor time of the server for one NOTIFY, and the time of its commit: with two relays alone, with readers behind them, and with as many direct listeners |
//! | flood | notifications per second, from the first NOTIFY until the last one is read |
//! | latency | from before NOTIFY until it is received: by a direct listener, and by a reader behind the relay |
//! | kill | the leader is killed under load: notifications lost and repeated, gaps, and the longest pause |
//! | idle | wake-ups of an idle reader per minute |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "../tests/support/cluster.rs"]
mod cluster;
#[path = "relay/report.rs"]
mod report;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::relay::RelayReader;
use notifyman::{Connection, Event, NotificationManager};
use rustix::process::{Pid, setpriority_process};

use self::cluster::{Cluster, EngineKind, EngineServer, Options};
use self::report::{KillResult, NotifyCost, Results};

const CHANNEL: &str = "prices";
const PROGRAM: &str = env!("CARGO_BIN_EXE_notifyman");

/// The options of a run.
#[derive(Debug, Clone)]
struct BenchOptions {
    seconds: u64,
    readers: usize,
    /// The directory to which the results are written.
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("relay: {message}");
            return ExitCode::from(2);
        }
    };
    let BenchOptions { seconds, readers, out } = options.clone();
    let mut results = Results { readers, seconds, load: report::load(), ..Results::default() };
    let bench = Bench::start(options);
    bench.fan_out(&mut results);
    results.flood_per_second = bench.flood();
    bench.latency(&mut results);
    results.idle_wakeups = bench.idle();
    results.kill = bench.kill();
    println!("\n{}", results.markdown());
    if let Some(out) = out {
        results.write(&out).unwrap();
    }
    ExitCode::SUCCESS
}

fn options() -> Result<BenchOptions, String> {
    let mut options = BenchOptions { seconds: 5, readers: 100, out: None };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        if word == "--out" {
            options.out = Some(words.next().ok_or("--out takes a directory")?.into());
            continue;
        }
        let number =
            words.next().and_then(|value| value.parse::<u64>().ok()).filter(|number| (1..=2000).contains(number));
        let number = number.ok_or_else(|| format!("{word} takes a number from 1 to 2000"))?;
        match word.as_str() {
            "--seconds" => options.seconds = number,
            "--readers" => options.readers = number as usize,
            _ => return Err(format!("unknown option {word}; options are --seconds, --readers and --out")),
        }
    }
    Ok(options)
}

/// A server, an engine and two relays.
struct Bench {
    options: BenchOptions,
    cluster: Cluster,
    engine: EngineServer,
    relays: Vec<RelayProcess>,
}

struct RelayProcess(Child);

impl RelayProcess {
    fn start(database: &str, engine: &str) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["relay", "--quiet", "--url", &format!("shop={database}"), "--to", engine, CHANNEL]);
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Bench {
    fn start(options: BenchOptions) -> Self {
        let cluster = Cluster::start(Options::new().max_connections(options.readers as u32 + 20)).unwrap();
        let mut engine = EngineServer::create(EngineKind::Redis, vec!["maxclients 10000".into()]).unwrap();
        engine.launch_on_free_port().unwrap();
        yield_processor(engine.process.as_ref().map(Pid::from_child));
        let mut bench = Self { options, cluster, engine, relays: Vec::new() };
        bench.relays.push(bench.relay());
        // The first one leads.
        drop(bench.reader());
        bench.relays.push(bench.relay());
        thread::sleep(Duration::from_secs(2));
        bench
    }

    fn relay(&self) -> RelayProcess {
        RelayProcess::start(&self.cluster.url(), &self.engine.url())
    }

    /// Returns a reader that is open.
    fn reader(&self) -> RelayReader {
        let reader =
            RelayReader::builder([self.engine.url()]).unwrap().stream("shop").timeout(Duration::from_millis(100));
        let mut reader = reader.build().unwrap();
        while !matches!(reader.next_event(), Some(Event::Opened(_))) {}
        reader
    }

    fn session(&self) -> Connection {
        Connection::connect(self.cluster.url()).unwrap()
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.options.seconds)
    }

    /// Returns the processor time of all processes of the server.
    fn server_time(&self) -> Duration {
        let postmaster = self.cluster.pid().unwrap();
        let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name of the program may contain spaces.
            let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect();
            let parent: u32 = fields[1].parse().ok()?;
            if pid != postmaster && parent != postmaster {
                return None;
            }
            // In nanoseconds, if the kernel keeps this account; a tick of the other one is a hundredth of a second.
            let exact = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok();
            let exact = exact.and_then(|text| text.split(' ').next()?.parse().ok()).map(Duration::from_nanos);
            let ticks = || Some(fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?);
            exact.or_else(|| Some(Duration::from_millis(10 * ticks()?)))
        });
        processes.sum()
    }

    /// Notifies at a pace. Returns the processor time of the server for each notification, and the median time of a commit.
    fn paced(&self, per_second: u64) -> NotifyCost {
        let mut db = self.session();
        let (pause, begin, before) = (Duration::from_secs(1) / per_second as u32, Instant::now(), self.server_time());
        let mut commits = Vec::new();
        while begin.elapsed() < self.time() {
            let at = Instant::now();
            db.notify(CHANNEL, "42").unwrap();
            commits.push(at.elapsed());
            thread::sleep(pause.saturating_sub(at.elapsed()));
        }
        let took = self.server_time() - before;
        NotifyCost { server: took / commits.len() as u32, commit: percentile(&mut commits, 50) }
    }

    fn fan_out(&self, results: &mut Results) {
        let rate = 50;
        results.alone = self.paced(rate);
        let is_over = Arc::<AtomicBool>::default();
        let received = Arc::<AtomicU64>::default();
        thread::scope(|scope| {
            let open = Arc::<AtomicU64>::default();
            for _ in 0..self.options.readers {
                let (is_over, received, open) = (Arc::clone(&is_over), Arc::clone(&received), Arc::clone(&open));
                let read = move || {
                    // The reader's own thread inherits it.
                    yield_processor(None);
                    let mut reader = self.reader();
                    open.fetch_add(1, Relaxed);
                    while !is_over.load(Relaxed) {
                        if let Some(Event::Notifies(_, batch)) = reader.next_event() {
                            received.fetch_add(batch.len() as u64, Relaxed);
                        }
                    }
                };
                thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, read).unwrap();
            }
            while open.load(Relaxed) < self.options.readers as u64 {
                thread::sleep(Duration::from_millis(10));
            }
            results.relayed = self.paced(rate);
            is_over.store(true, Relaxed);
        });
        println!("each reader received {} notifications", received.load(Relaxed) / self.options.readers as u64);

        // With a thousand direct listeners, PostgreSQL before version 19 cannot sustain more.
        let listeners = (0..self.options.readers).map(|_| {
            let mut db = self.session();
            db.listen([CHANNEL]).unwrap();
            db
        });
        let mut nm = NotificationManager::new(listeners.collect::<Vec<_>>());
        let handle = nm.handle();
        thread::scope(|scope| {
            scope.spawn(|| while nm.next_event().is_some() {});
            results.direct = self.paced(10);
            drop(handle.stop());
        });
    }

    fn flood(&self) -> f64 {
        let (mut reader, sent) = (self.reader(), 100_000 * self.options.seconds.min(10));
        let begin = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut db = self.session();
                for first in (0..sent).step_by(1_000) {
                    db.notify_many((first..first + 1_000).map(|n| (CHANNEL, n.to_string()))).unwrap();
                }
            });
            let (mut received, mut gaps) = (0, 0);
            while received < sent && gaps == 0 {
                match reader.next_event() {
                    Some(Event::Notifies(_, batch)) => received += batch.len() as u64,
                    Some(Event::Restored(..)) => gaps += 1,
                    _ => {}
                }
            }
            let rate = received as f64 / begin.elapsed().as_secs_f64();
            println!("flood: {rate:.0} notifications per second through the relay, {gaps} gaps");
            rate
        })
    }

    fn latency(&self, results: &mut Results) {
        let mut direct = self.session();
        direct.listen([CHANNEL]).unwrap();
        let mut nm = NotificationManager::new([direct]).timeout(Duration::from_millis(100));
        let mut reader = self.reader();
        let (start, is_over) = (Instant::now(), AtomicBool::new(false));
        let age = |payload: &str| start.elapsed().saturating_sub(Duration::from_nanos(payload.parse().unwrap()));
        let mut next_direct = || nm.next_event();
        let mut next_relayed = || reader.next_event();
        let collect = |next: &mut (dyn FnMut() -> Option<Event> + Send)| {
            let mut ages = Vec::new();
            while !is_over.load(Relaxed) {
                if let Some(Event::Notifies(_, batch)) = next() {
                    ages.extend(batch.iter().map(|n| age(&n.payload())));
                }
            }
            ages
        };
        let (mut direct, mut relayed) = thread::scope(|scope| {
            let direct = scope.spawn(|| collect(&mut next_direct));
            let relayed = scope.spawn(|| collect(&mut next_relayed));
            let mut db = self.session();
            // 5,000 a second, in transactions of five.
            let (begin, mut sent) = (Instant::now(), 0);
            while begin.elapsed() < self.time() {
                let due = begin.elapsed().as_millis();
                while sent < due {
                    let at = start.elapsed().as_nanos();
                    db.notify_many((0..5).map(|n| (CHANNEL, (at + n).to_string()))).unwrap();
                    sent += 1;
                }
                thread::sleep(Duration::from_micros(200));
            }
            thread::sleep(Duration::from_millis(300));
            is_over.store(true, Relaxed);
            (direct.join().unwrap(), relayed.join().unwrap())
        });
        println!("latency: {} notifications, of which {} arrived behind the relay", direct.len(), relayed.len());
        results.latency_direct = [50, 99].map(|percent| percentile(&mut direct, percent));
        results.latency_relayed = [50, 99].map(|percent| percentile(&mut relayed, percent));
    }

    fn idle(&self) -> f64 {
        let mut reader = RelayReader::builder([self.engine.url()]).unwrap().stream("shop").build().unwrap();
        while !matches!(reader.next_event(), Some(Event::Opened(_))) {}
        let handle = reader.handle();
        let time = self.time().max(Duration::from_secs(2));
        thread::scope(|scope| {
            let reading = scope.spawn(|| while reader.next_event().is_some() {});
            thread::sleep(Duration::from_millis(500));
            let before = switches();
            thread::sleep(time);
            let woken = switches() - before;
            handle.stop();
            reading.join().unwrap();
            // This thread wakes once itself.
            let per_minute = woken.saturating_sub(1) as f64 * 60.0 / time.as_secs_f64();
            println!("idle: {per_minute:.1} wake-ups of a reader per minute, in {} s (with canaries)", time.as_secs());
            per_minute
        })
    }

    fn kill(mut self) -> KillResult {
        let mut reader = self.reader();
        let url = self.cluster.url();
        let is_over = AtomicBool::new(false);
        let time = self.time();
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut db = Connection::connect(&*url).unwrap();
                let (begin, mut sent) = (Instant::now(), 0_u64);
                while begin.elapsed() < time {
                    while u128::from(sent) < 5 * begin.elapsed().as_millis() {
                        db.notify_many((sent..sent + 5).map(|n| (CHANNEL, n.to_string()))).unwrap();
                        sent += 5;
                    }
                    thread::sleep(Duration::from_micros(200));
                }
                sent
            });
            let reading = scope.spawn(|| {
                let (mut next, mut repeated, mut lost, mut gaps, mut last, mut pause) =
                    (0, 0, 0, 0, Instant::now(), Duration::ZERO);
                while !is_over.load(Relaxed) {
                    match reader.next_event() {
                        Some(Event::Notifies(_, batch)) => {
                            pause = pause.max(last.elapsed());
                            last = Instant::now();
                            for n in &batch {
                                let number: u64 = n.payload().parse().unwrap();
                                repeated += u64::from(number < next);
                                lost += number.saturating_sub(next);
                                next = next.max(number + 1);
                            }
                        }
                        Some(Event::Restored(..)) => gaps += 1,
                        _ => {}
                    }
                }
                (next, repeated, lost, gaps, pause)
            });
            thread::sleep(time / 2);
            drop(self.relays.remove(0));
            let sent = sender.join().unwrap();
            thread::sleep(Duration::from_secs(2));
            is_over.store(true, Relaxed);
            let (next, repeated, lost, gaps, pause) = reading.join().unwrap();
            KillResult { sent, lost: lost + sent - next, repeated, gaps, pause }
        })
    }
}

/// Gives a process, or this thread, the lowest priority: in a deployment, the engine and the readers are on other machines.
fn yield_processor(process: Option<Pid>) {
    // Without it the server is measured together with them, as on macOS.
    let _ = setpriority_process(process.or_else(this_thread), 19);
}

/// Returns the id of this thread, which Linux takes for that of a process here.
fn this_thread() -> Option<Pid> {
    let path = fs::read_link("/proc/thread-self").ok()?;
    Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?)
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get(times.len() * percent / 100).copied().unwrap_or_default()
}

/// Returns how often the threads of this process have waited.
fn switches() -> u64 {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten().filter_map(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    threads.sum()
}
