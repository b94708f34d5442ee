//! The output of the soak, and the resources of this process.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use notifyman::Stats;

use crate::args::Args;
use crate::ledger::{Ledger, Violation};

/// The resources of this process, which are known on Linux only.
#[derive(Clone, Copy)]
pub struct Footprint {
    mebibytes: Option<u64>,
    descriptors: Option<u64>,
}

impl Footprint {
    pub fn now() -> Self {
        let pages = fs::read_to_string("/proc/self/statm").ok();
        let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
        let descriptors = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
        Self { mebibytes: pages.map(|pages| pages * 4 / 1024), descriptors }
    }

    /// Checks that nothing has leaked since the warm-up. The proxies and the ledger are in this process, so the limits are
    /// wide.
    pub fn check(self, before: Option<Self>, connections: u64) -> Result<(), Violation> {
        if let (Some(now), Some(before)) = (self.mebibytes, before.and_then(|it| it.mebibytes))
            && now > before + before / 2 + 24
        {
            return Err(Violation(format!("memory grew from {before} to {now} MiB")));
        }
        // Each connection has one descriptor, and two in a proxy.
        let most = connections * 3 + 200;
        match self.descriptors {
            Some(now) if now > most => Err(Violation(format!("{now} descriptors for {connections} connections"))),
            _ => Ok(()),
        }
    }
}

pub struct Report {
    begun: Instant,
    seconds: u64,
    last_second: u64,
    is_terminal: bool,
}

impl Report {
    pub fn new(args: &Args, begun: Instant) -> Self {
        Self { begun, seconds: args.seconds, last_second: 0, is_terminal: std::io::stdout().is_terminal() }
    }

    /// Prints a line every second, or redraws one on a terminal.
    pub fn tick(&mut self, stats: &Stats, ledger: &Ledger) {
        let second = self.begun.elapsed().as_secs();
        if second == self.last_second {
            return;
        }
        self.last_second = second;
        let line = format!(
            "{second:>4} of {} s  {:>3} open {:>3} lost  {:>9} received  {:>5} losses {:>5} restored  {:>5} tickets  {:>4} faults",
            self.seconds,
            stats.connections,
            stats.restoring,
            stats.notifications,
            stats.losses,
            stats.restores,
            ledger.tickets.load(Relaxed),
            ledger.faults.load(Relaxed),
        );
        if self.is_terminal {
            print!("\r{line}\x1b[K");
            let _ = std::io::stdout().flush();
        } else {
            println!("{line}");
        }
    }

    pub fn summary(&self, stats: &Stats, ledger: &Ledger, before: Option<Footprint>, now: Footprint) -> String {
        let end = if self.is_terminal { "\n" } else { "" };
        let shown = |it: Option<u64>| it.map_or_else(|| "?".to_owned(), |n| n.to_string());
        format!(
            "{end}{} numbers sent, {} notifications received, {} more reported as gaps; {} gaps, {} losses, {} restorations\n\
             {} faults; {} tickets resolved, {} of them refused; {} damaged by forged bytes; the latest canary took {:?}\n\
             memory {} MiB after the warm-up, {} MiB at the end; {} descriptors for {} connections",
            ledger.sent(),
            stats.notifications,
            ledger.covered.load(Relaxed),
            stats.gaps,
            stats.losses,
            stats.restores,
            ledger.faults.load(Relaxed),
            ledger.tickets.load(Relaxed),
            ledger.refused.load(Relaxed),
            ledger.damaged.load(Relaxed),
            stats.canary_time.unwrap_or_default(),
            shown(before.and_then(|it| it.mebibytes)),
            shown(now.mebibytes),
            shown(now.descriptors),
            stats.connections,
        )
    }
}
