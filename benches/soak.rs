//! Hundreds of connections through links and servers that fail at random, and books that must balance at every step.
//!
//! ```text
//! tests/with-postgres cargo bench --bench soak -- --seconds 300 --seed 7 --connections 300 --clusters 3
//! ```
//!
//! Writers number the notifications of every channel. Each number must come, once and in order, or lie in a gap that
//! was told; each ticket must resolve; memory and descriptors must not grow. The first breach ends it with exit code 1.
//! The seed decides which faults come and when, not how the machine schedules them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "soak/args.rs"]
mod args;
#[path = "soak/books.rs"]
mod books;
#[path = "../src/cli/cluster/mod.rs"]
mod cluster;
#[path = "soak/control.rs"]
mod control;
#[path = "soak/faults.rs"]
mod faults;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/proxy.rs"]
mod proxy;
#[path = "soak/report.rs"]
mod report;
#[path = "soak/writer.rs"]
mod writer;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use notifyman::{Backoff, Event, NotificationManager};

use self::args::Args;
use self::books::{Books, Breach};
use self::cluster::{Cluster, Options};
use self::control::Control;
use self::proxy::Proxy;
use self::report::{Footprint, Report};

/// How long the books may take to balance, once all is well again.
const LIMIT: Duration = Duration::from_secs(60);
/// How many proxies stand before each server, so that a fault hits some of its sessions.
const PROXIES: usize = 4;

fn main() -> ExitCode {
    let args = match Args::read() {
        Ok(args) => args,
        Err(message) => {
            eprintln!("soak: {message}");
            return ExitCode::from(2);
        }
    };
    println!("soak: {args}");
    match soak(&args) {
        Ok(summary) => {
            println!("{summary}\nsoak: the books balance (seed {})", args.seed);
            ExitCode::SUCCESS
        }
        Err(Breach(what)) => {
            eprintln!("\nsoak: FAILED: {what}\nsoak: again with: {args}");
            ExitCode::FAILURE
        }
    }
}

/// One server, and the ways to it.
struct Site {
    server: Cluster,
    proxies: Vec<Proxy>,
}

impl Site {
    fn start(connections: usize) -> Result<Self, Breach> {
        let most = u32::try_from(connections * 3 + 50).unwrap_or(u32::MAX);
        let server = Cluster::start(Options::new().max_connections(most)).map_err(Breach::because("no server"))?;
        let to = ([127, 0, 0, 1], server.port()).into();
        Ok(Self { server, proxies: (0..PROXIES).map(|_| Proxy::start(to)).collect() })
    }
}

/// What the control needs to know of a site.
struct Ways {
    proxied: Vec<String>,
}

fn soak(args: &Args) -> Result<String, Breach> {
    let share = args.connections.div_ceil(args.clusters);
    let sites = (0..args.clusters).map(|_| Site::start(share)).collect::<Result<Vec<_>, _>>()?;
    let ways: Arc<[Ways]> = sites
        .iter()
        .map(|site| Ways {
            proxied: site
                .proxies
                .iter()
                .map(|p| format!("postgres://postgres@{}/postgres?connect_timeout=5", p.addr()))
                .collect(),
        })
        .collect();

    let books = Arc::new(Books::new(args.clusters));
    let manager = NotificationManager::new([])
        .park_when_empty(true)
        .timeout(Duration::from_millis(50))
        .reconnect(Backoff::default().first(Duration::from_millis(20)).longest(Duration::from_secs(1)))
        .heartbeat(Duration::from_millis(800), Duration::from_millis(800))
        .canary_at_any_pace("soak canary", Duration::from_secs(2), Duration::from_millis(500))
        .audit(Duration::from_secs(2));
    let control = Control::new(manager.handle(), Arc::clone(&books), ways, args);

    thread::scope(|scope| {
        // Whoever ends first, by a breach or a panic, ends the others.
        let writers: Vec<_> = sites
            .iter()
            .enumerate()
            .map(|(at, site)| (at, site.server.url()))
            .map(|(at, url)| {
                let books = &books;
                scope.spawn(move || books.guarded(|| writer::write(books, at, &url)))
            })
            .collect();
        let control = scope.spawn(|| books.guarded(|| control.run()));
        let faults = scope.spawn(|| books.guarded(|| faults::strike(sites, &books, args)));
        let summary = books.guarded(|| read(manager, &books, args));
        books.end();
        let outcome = [control.join(), faults.join()].into_iter().chain(writers.into_iter().map(|w| w.join()));
        let broken = outcome.filter(Result::is_err).count();
        match books.breach() {
            Some(breach) => Err(breach),
            None if broken > 0 => Err(Breach("a thread of the soak panicked".into())),
            None => summary.ok_or_else(|| Breach("the loop ended early".into())),
        }
    })
}

/// The loop: every notification is entered in the books as it comes.
fn read(mut nm: NotificationManager, books: &Books, args: &Args) -> Result<String, Breach> {
    let begun = Instant::now();
    let mut report = Report::new(args, begun);
    let mut footprint = None;
    let mut quiet_since: Option<Instant> = None;
    loop {
        match nm.next_event().ok_or_else(|| Breach("the iterator ended, and nobody had stopped it".into()))? {
            Event::Notifies(id, batch) => books.enter(id, &batch)?,
            Event::Restored(id, gap) => books.enter_gap(id, &gap)?,
            Event::Lost(..) => {}
            Event::Idle => {
                if let Some(breach) = books.breach() {
                    return Err(breach);
                }
            }
            _ => {}
        }
        for (id, dead) in nm.take_garbage() {
            // Bytes that were forged can say anything, also that the password is wrong.
            if !books.is_forged() {
                return Err(Breach(format!("{id} was given up, though all faults here pass: {}", dead.error())));
            }
            nm.revive(id, dead);
        }
        report.tick(&nm.stats(), books);
        if nm.stats().deaf + nm.stats().unregistered > 0 {
            return Err(Breach(format!("no server here forgets or is mute, and one was called so: {:?}", nm.stats())));
        }
        let elapsed = begun.elapsed();
        if footprint.is_none() && elapsed > args.warm_up() {
            footprint = Some(Footprint::now());
        }
        if elapsed < Duration::from_secs(args.seconds) {
            continue;
        }
        let quiet = *quiet_since.get_or_insert_with(|| {
            books.call_off();
            Instant::now()
        });
        if quiet.elapsed() > LIMIT {
            return Err(Breach(format!(
                "{LIMIT:?} after the last fault {}; {:?}; restoring: {:?}",
                books.open_items(),
                nm.stats(),
                nm.restoring().take(3).collect::<Vec<_>>()
            )));
        }
        if nm.restoring().next().is_none() && books.is_balanced() {
            let now = Footprint::now();
            let summary = report.summary(&nm.stats(), books, footprint, now);
            now.check(footprint, nm.stats().connections)?;
            return Ok(summary);
        }
    }
}
