//! `notifyman demo`: a few servers, hundreds of connections, one loop. One of the servers is shut down and restarted.
//!
//! ```text
//! plan ──> servers, connections ──> the loop (show) ──> meter ──> view ──> screen
//!     └──> writers, one for each server ──> counts of deliveries due ──> summary ┘
//! ```
//!
//! The loop is that of the library's documentation. All counts are taken where it receives. Meanwhile, programs on the first
//! server change and read a cached price, with a fence and without: see [`cache`]. The act [`relay`] has servers of its own.

mod cache;
mod latency;
mod message;
mod meter;
mod outage;
mod plan;
mod relay;
mod screen;
mod server;
mod show;
mod summary;
mod view;
mod writer;
mod writers;

use notifyman::NotificationManager;

use self::plan::{IDLE_PERIOD, Plan};
use self::show::Show;
use super::args::{DemoAct, DemoArgs};
use super::cluster::{ClusterError, find_server};
use super::outcome::{Exit, Failure};
use super::signals::SignalWatcher;

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        // The error may contain several lines of the server's log.
        let lines: Vec<_> = error.to_string().lines().map(|line| line.trim().to_owned()).collect();
        Failure::Advised(lines.join("; "), "install PostgreSQL's programs as described in the README")
    }
}

pub(crate) fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    if args.act != Some(DemoAct::Relay) && args.connections < args.clusters {
        return Err(Failure::Usage("--connections must be at least --clusters: each server needs one".into()));
    }
    find_server()?;
    match args.act {
        Some(DemoAct::Cache) => return cache::run(args.duration),
        Some(DemoAct::Relay) => return relay::run(args),
        Some(DemoAct::Connections) | None => {}
    }
    let mut nm = NotificationManager::new([]).timeout(IDLE_PERIOD);
    let handle = nm.handle();
    let signals = SignalWatcher::new(move || drop(handle.stop()))?;
    let mut show = Show::new(Plan::new(args), args);
    if show.set_up(&mut nm, &signals)? {
        show.run(&mut nm).map_err(Failure::Output)?;
    }
    show.finish(signals.received())
}
