//! The cost of a callback: one session receives notifications for many subscribers.
//!
//! ```text
//! cargo bench --bench fanout
//! cargo bench --bench fanout -- --smoke    # with small numbers, as a test
//! ```
//!
//! The result is the CPU time of the process per callback in nanoseconds, with that for receiving. It stands next to a loop
//! that calls the same boxed closures directly, and next to other ways to hand out: `tokio::sync::broadcast` with as many
//! receivers that are polled in turn, and, for one subscriber, a bounded channel between two threads (that of the standard
//! library, which is that of `crossbeam-channel`) after the manager with owned notifications. All are measured
//! alternately in one run, and the median counts. Compare the results of one run; absolute numbers depend on the machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "speed/job.rs"]
mod job;
mod synthetic;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use notifyman::notifier::{Delivery, Policy, Queue};
use notifyman::{Config, Connection, NotificationManager, Notifier};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::broadcast;

use self::synthetic::{CHANNEL, Link, Server};

const ROUNDS: usize = 5;
/// The number of notifications that are sent before the next ones wait for their callbacks, as memory is limited.
const PORTION: u64 = 8_000;

/// A measured way of handing out, with the result in nanoseconds of CPU time per callback.
type Samples = BTreeMap<&'static str, Vec<f64>>;

fn main() {
    synthetic::serve_if_requested();
    println!("{:<34} {:>9} {:>9} {:>9} {:>9}", "ns of CPU per callback", "direct", "broadcast", "hop", "notifier");
    let is_smoke = std::env::args().any(|word| word == "--smoke");
    let (rounds, divisor) = if is_smoke { (1, 50) } else { (ROUNDS, 1) };
    for payload in [32, 512] {
        for (subscribers, notifications) in [(1, 1_000_000), (10, 300_000), (1_000, 5_000), (100_000, 60)] {
            measure(payload, subscribers, (notifications / divisor).max(1), rounds);
        }
    }
    workers(2_000 / divisor, rounds);
    memory();
}

fn measure(payload: usize, subscribers: usize, notifications: u64, rounds: usize) {
    let mut samples = Samples::new();
    for _ in 0..rounds {
        let calls = (subscribers as u64 * notifications) as f64;
        let mut add = |name, time: Duration| samples.entry(name).or_default().push(time.as_nanos() as f64 / calls);
        add("direct", direct(payload, subscribers, notifications));
        add("broadcast", broadcast(payload, subscribers, notifications));
        if subscribers == 1 {
            add("hop", hop(payload, notifications));
        }
        for (name, policy) in [("notifier", Policy::DropOldest), ("coalesce", Policy::Coalesce)] {
            add(name, notifier(payload, subscribers, notifications, policy, 1, Duration::ZERO).cpu);
        }
    }
    let median = |name: &str| samples.get(name).map(|times| median(times.clone()));
    let text = |name: &str| median(name).map_or("-".into(), |time| format!("{time:.1}"));
    let row = format!("{subscribers} subscribers, {payload} bytes");
    println!(
        "{row:<34} {:>9} {:>9} {:>9} {:>9}   coalesce {}",
        text("direct"),
        text("broadcast"),
        text("hop"),
        text("notifier"),
        text("coalesce")
    );
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

type Closure = Box<dyn FnMut(&[u8]) + Send>;

/// Returns closures that count their calls, as subscribers do.
fn closures(count: usize) -> Vec<Closure> {
    let bytes = Arc::new(AtomicU64::new(0));
    let closure = |_| {
        let bytes = Arc::clone(&bytes);
        Box::new(move |payload: &[u8]| _ = black_box(bytes.fetch_add(payload.len() as u64, Relaxed))) as Closure
    };
    (0..count).map(closure).collect()
}

fn direct(payload: usize, subscribers: usize, notifications: u64) -> Duration {
    let mut closures = closures(subscribers);
    let text = vec![b'y'; payload];
    let before = cpu();
    for _ in 0..notifications {
        closures.iter_mut().for_each(|call| call(black_box(&text)));
    }
    cpu() - before
}

fn broadcast(payload: usize, subscribers: usize, notifications: u64) -> Duration {
    let capacity = 64;
    let (sender, receiver) = broadcast::channel::<Arc<[u8]>>(capacity);
    let mut receivers: Vec<_> = (1..subscribers).map(|_| sender.subscribe()).chain([receiver]).collect();
    let mut closures = closures(subscribers);
    let text = vec![b'y'; payload];
    let before = cpu();
    for from in (0..notifications).step_by(capacity) {
        for _ in from..notifications.min(from + capacity as u64) {
            sender.send(text.as_slice().into()).unwrap();
        }
        for (receiver, call) in receivers.iter_mut().zip(&mut closures) {
            while let Ok(payload) = receiver.try_recv() {
                call(&payload);
            }
        }
    }
    cpu() - before
}

/// The manager with owned notifications, and a channel to another thread.
fn hop(payload: usize, notifications: u64) -> Duration {
    let mut server = Server::start(Link::Unix, &[]).unwrap();
    let mut db = Connection::connect(config(&server)).unwrap();
    db.listen([CHANNEL]).unwrap();
    let (sender, receiver) = mpsc::sync_channel(1024);
    let before = cpu();
    let loop_thread = thread::spawn(move || {
        let mut sent = 0;
        for event in NotificationManager::new([db]) {
            let Some((_, batch)) = event else { continue };
            for n in batch {
                sender.send(n).unwrap();
                sent += 1;
            }
            if sent == notifications {
                return;
            }
        }
    });
    let calling = thread::spawn(move || {
        let mut closures = closures(1);
        for n in receiver {
            closures[0](n.payload_bytes());
        }
    });
    for from in (0..notifications).step_by(PORTION as usize) {
        server.flood(payload, PORTION.min(notifications - from)).unwrap();
    }
    loop_thread.join().unwrap();
    calling.join().unwrap();
    cpu() - before
}

fn config(server: &Server) -> Config {
    Config::new().host(server.host()).port(server.port()).user("bench")
}

struct Cost {
    cpu: Duration,
    wall: Duration,
}

fn notifier(
    payload: usize,
    subscribers: usize,
    notifications: u64,
    policy: Policy,
    workers: usize,
    busy: Duration,
) -> Cost {
    let mut server = Server::start(Link::Unix, &[]).unwrap();
    // Nothing is dropped, whichever side is faster.
    let queue = Queue::new(policy).items(usize::MAX).bytes(usize::MAX);
    let n: Notifier<u64> =
        Notifier::builder(config(&server)).unwrap().queue(queue).workers(workers).autorun(false).start().unwrap();
    let received_by_last = Arc::new(AtomicU64::new(0));
    for (id, mut call) in (0..).zip(closures(subscribers)) {
        let received = (id + 1 == subscribers as u64).then(|| Arc::clone(&received_by_last));
        let callback = move |delivery: &Delivery<'_, u64>| {
            if let Delivery::Notification(n) = delivery {
                call(n.payload().bytes());
                spin(busy);
                received.iter().for_each(|received| _ = received.fetch_add(1 + n.folded(), Relaxed));
            }
        };
        n.subscribe(id, CHANNEL, callback).unwrap();
    }
    n.autorun(true);
    n.apply().unwrap().wait(None).unwrap();
    let (before, begun) = (cpu(), Instant::now());
    let mut sent = 0;
    while sent < notifications {
        let portion = PORTION.min(notifications - sent);
        server.flood(payload, portion).unwrap();
        sent += portion;
        while received_by_last.load(Relaxed) < sent {
            thread::sleep(Duration::from_micros(50));
        }
    }
    let all = subscribers as u64 * notifications;
    while n.stats().delivered + n.stats().folded < all {
        thread::sleep(Duration::from_micros(200));
    }
    Cost { cpu: cpu() - before, wall: begun.elapsed() }
}

fn spin(time: Duration) {
    if !time.is_zero() {
        let begun = Instant::now();
        while begun.elapsed() < time {}
    }
}

/// Two dispatching threads, compared with one.
fn workers(notifications: u64, rounds: usize) {
    for busy in [Duration::ZERO, Duration::from_micros(1)] {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let run = |workers| notifier(32, 1_000, notifications, Policy::DropOldest, workers, busy);
            let (a, b) = (run(1), run(2));
            one.push(a.cpu.as_secs_f64() / b.cpu.as_secs_f64());
            two.push(a.wall.as_secs_f64() / b.wall.as_secs_f64());
        }
        println!("2 workers, callbacks of {busy:?}: CPU x {:.2}, throughput x {:.2}", 1.0 / median(one), median(two));
    }
}

/// The time and the memory of idle subscribers.
fn memory() {
    const SUBSCRIBERS: u64 = 100_000;
    let n = Notifier::builder("host=localhost user=bench").unwrap().autorun(false).build::<u64>();
    let begun = Instant::now();
    let info = allocation_counter::measure(|| {
        for id in 0..SUBSCRIBERS {
            n.subscribe(id, CHANNEL, |_| ()).unwrap();
        }
    });
    let bytes = info.bytes_current as f64 / SUBSCRIBERS as f64;
    println!("{SUBSCRIBERS} subscribers: {:?} (with counting), {bytes:.0} bytes each", begun.elapsed());
}
