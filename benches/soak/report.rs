//! What is printed, and what is measured of this process.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use notifyman::Stats;

use crate::args::Args;
use crate::books::{Books, Breach};

/// What this process takes: known on Linux only.
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

    /// Nothing has leaked since the warm-up: the proxy and the books are in this process too, so there is some slack.
    pub fn check(self, before: Option<Self>, connections: u64) -> Result<(), Breach> {
        if let (Some(now), Some(before)) = (self.mebibytes, before.and_then(|it| it.mebibytes))
            && now > before + before / 2 + 24
        {
            return Err(Breach(format!("memory grew from {before} to {now} MiB")));
        }
        // One at each end of the proxy, and one of the connection's.
        let most = connections * 3 + 200;
        match self.descriptors {
            Some(now) if now > most => Err(Breach(format!("{now} descriptors for {connections} connections"))),
            _ => Ok(()),
        }
    }
}

pub struct Report {
    begun: Instant,
    seconds: u64,
    told: u64,
    live: bool,
}

impl Report {
    pub fn new(args: &Args, begun: Instant) -> Self {
        Self { begun, seconds: args.seconds, told: 0, live: std::io::stdout().is_terminal() }
    }

    /// A line a second, or a line that changes.
    pub fn tick(&mut self, stats: &Stats, books: &Books) {
        let second = self.begun.elapsed().as_secs();
        if second == self.told {
            return;
        }
        self.told = second;
        let line = format!(
            "{second:>4} of {} s  {:>3} good {:>3} away  {:>9} heard  {:>5} losses {:>5} restores  {:>5} tickets  {:>4} faults",
            self.seconds,
            stats.connections,
            stats.restoring,
            stats.notifications,
            stats.losses,
            stats.restores,
            books.tickets.load(Relaxed),
            books.faults.load(Relaxed),
        );
        if self.live {
            print!("\r{line}\x1b[K");
            let _ = std::io::stdout().flush();
        } else {
            println!("{line}");
        }
    }

    pub fn summary(&self, stats: &Stats, books: &Books, before: Option<Footprint>, now: Footprint) -> String {
        let end = if self.live { "\n" } else { "" };
        let told = |it: Option<u64>| it.map_or_else(|| "?".to_owned(), |n| n.to_string());
        format!(
            "{end}{} numbers sent, {} notifications heard, {} more told as gaps; {} gaps, {} losses, {} restores\n\
             {} faults; {} tickets resolved, {} of them refused; {} damaged by forged bytes; the latest canary took {} µs\n\
             memory {} MiB after the warm-up, {} MiB at the end; {} descriptors for {} connections",
            books.sent(),
            stats.notifications,
            books.covered.load(Relaxed),
            stats.gaps,
            stats.losses,
            stats.restores,
            books.faults.load(Relaxed),
            books.tickets.load(Relaxed),
            books.refused.load(Relaxed),
            books.damaged.load(Relaxed),
            stats.canary_micros,
            told(before.and_then(|it| it.mebibytes)),
            told(now.mebibytes),
            told(now.descriptors),
            stats.connections,
        )
    }
}
