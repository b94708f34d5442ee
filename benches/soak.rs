//! Hundreds of connections through links and servers that fail at random, checked against a ledger at every step.
//!
//! ```text
//! tests/with-postgres cargo bench --bench soak -- --seconds 300 --seed 7 --connections 300 --clusters 3
//! ```
//!
//! Writers number the notifications of every channel. Each number must be received, once and in order, or be in a reported
//! gap; each ticket must resolve; memory and descriptors must not grow. The first violation ends the soak with exit code 1.
//! The seed determines the faults and their times, but not how the machine schedules threads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[path = "soak/args.rs"]
mod args;
#[path = "../tests/support/cluster.rs"]
mod cluster;
#[path = "soak/control.rs"]
mod control;
#[path = "soak/faults.rs"]
mod faults;
#[path = "soak/ledger.rs"]
mod ledger;
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
use self::cluster::{Cluster, Options};
use self::control::Control;
use self::ledger::{Ledger, Violation};
use self::proxy::Proxy;
use self::report::{Footprint, Report};

/// The time limit for the ledger to balance after the last fault.
const BALANCE_TIMEOUT: Duration = Duration::from_secs(60);
/// The number of proxies in front of each server, so that a fault affects only some of its sessions.
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
            println!("{summary}\nsoak: the ledger balances (seed {})", args.seed);
            ExitCode::SUCCESS
        }
        Err(Violation(text)) => {
            eprintln!("\nsoak: FAILED: {text}\nsoak: to repeat: {args}");
            ExitCode::FAILURE
        }
    }
}

/// A server, and the proxies in front of it.
struct Site {
    server: Cluster,
    proxies: Vec<Proxy>,
}

impl Site {
    fn start(connections: usize) -> Result<Self, Violation> {
        let most = u32::try_from(connections * 3 + 50).unwrap_or(u32::MAX);
        let server = Cluster::start(Options::new().max_connections(most))
            .map_err(Violation::context("could not start a server"))?;
        let to = ([127, 0, 0, 1], server.port()).into();
        Ok(Self { server, proxies: (0..PROXIES).map(|_| Proxy::start(to)).collect() })
    }
}

/// The connection strings of a site.
struct SiteUrls {
    proxied: Vec<String>,
}

fn soak(args: &Args) -> Result<String, Violation> {
    let share = args.connections.div_ceil(args.clusters);
    let sites = (0..args.clusters).map(|_| Site::start(share)).collect::<Result<Vec<_>, _>>()?;
    let urls: Arc<[SiteUrls]> = sites
        .iter()
        .map(|site| SiteUrls {
            proxied: site
                .proxies
                .iter()
                .map(|p| format!("postgres://postgres@{}/postgres?connect_timeout=5", p.addr()))
                .collect(),
        })
        .collect();

    let ledger = Arc::new(Ledger::new(args.clusters));
    let manager = NotificationManager::new([])
        .park_when_empty(true)
        .timeout(Duration::from_millis(50))
        .reconnect(Backoff::default().first(Duration::from_millis(20)).longest(Duration::from_secs(1)))
        .heartbeat(Duration::from_millis(800), Duration::from_millis(800))
        .canary_at_any_pace("soak canary", Duration::from_secs(2), Duration::from_millis(500))
        .audit(Duration::from_secs(2));
    let control = Control::new(manager.handle(), Arc::clone(&ledger), urls, args);

    thread::scope(|scope| {
        // The first thread that ends, by a violation or a panic, ends the others.
        let writers: Vec<_> = sites
            .iter()
            .enumerate()
            .map(|(at, site)| (at, site.server.url()))
            .map(|(at, url)| {
                let ledger = &ledger;
                scope.spawn(move || ledger.guarded(|| writer::write(ledger, at, &url)))
            })
            .collect();
        let control = scope.spawn(|| ledger.guarded(|| control.run()));
        let faults = scope.spawn(|| ledger.guarded(|| faults::inject(sites, &ledger, args)));
        let summary = ledger.guarded(|| receive(manager, &ledger, args));
        ledger.end();
        let outcome = [control.join(), faults.join()].into_iter().chain(writers.into_iter().map(|w| w.join()));
        let broken = outcome.filter(Result::is_err).count();
        match ledger.violation() {
            Some(violation) => Err(violation),
            None if broken > 0 => Err(Violation("a thread of the soak panicked".into())),
            None => summary.ok_or_else(|| Violation("the loop ended early".into())),
        }
    })
}

/// The loop: every notification is recorded in the ledger.
fn receive(mut nm: NotificationManager, ledger: &Ledger, args: &Args) -> Result<String, Violation> {
    let begun = Instant::now();
    let mut report = Report::new(args, begun);
    let mut footprint = None;
    let mut quiet_since: Option<Instant> = None;
    loop {
        match nm.next_event().ok_or_else(|| Violation("the iterator ended without a stop".into()))? {
            Event::Notifies(id, batch) => ledger.record(id, &batch)?,
            Event::Restored(id, gap) => ledger.record_gap(id, &gap)?,
            Event::Disconnected(..) | Event::Lost(..) => {}
            Event::Idle => {
                if let Some(violation) = ledger.violation() {
                    return Err(violation);
                }
            }
            _ => {}
        }
        for (id, dead) in nm.take_garbage() {
            // Forged bytes can contain any message, also an error that ends the retries.
            if !ledger.is_forged() {
                return Err(Violation(format!(
                    "{id} was abandoned, although all faults here are temporary: {}",
                    dead.error()
                )));
            }
            nm.revive(id, dead);
        }
        report.tick(&nm.stats(), ledger);
        if nm.stats().not_delivering + nm.stats().unregistered > 0 {
            return Err(Violation(format!(
                "no server here loses a LISTEN or stops delivering, but that was reported: {:?}",
                nm.stats()
            )));
        }
        let elapsed = begun.elapsed();
        if footprint.is_none() && elapsed > args.warm_up() {
            footprint = Some(Footprint::now());
        }
        if elapsed < Duration::from_secs(args.seconds) {
            continue;
        }
        let quiet = *quiet_since.get_or_insert_with(|| {
            ledger.wind_down();
            Instant::now()
        });
        if quiet.elapsed() > BALANCE_TIMEOUT {
            return Err(Violation(format!(
                "{BALANCE_TIMEOUT:?} after the last fault {}; {:?}; restoring: {:?}",
                ledger.open_items(),
                nm.stats(),
                nm.restoring().take(3).collect::<Vec<_>>()
            )));
        }
        if nm.restoring().next().is_none() && ledger.is_balanced() {
            let now = Footprint::now();
            let summary = report.summary(&nm.stats(), ledger, footprint, now);
            now.check(footprint, nm.stats().connections)?;
            return Ok(summary);
        }
    }
}
