//! `notifyman listen`: prints one line of JSON for each notification of many connections, or runs a command for each.
//!
//! ```text
//!   print: a manager's loop ─────────┐
//!                                    ├──▶ connections: reports their states    delivery: checks that NOTIFY arrives
//!   exec: a notifier, pool, watcher ─┘
//! ```

mod connections;
mod delivery;
mod exec;
mod pool;
mod print;
mod recovery;
mod relayed;
mod watcher;

use super::args::ListenArgs;
use super::outcome::{Exit, Failure};

pub(super) use self::connections::REPORT_AFTER;

pub(super) fn run(args: ListenArgs) -> Result<Exit, Failure> {
    match args.exec.clone() {
        Some(command) => exec::run(&args, &command),
        None if !args.from.is_empty() => relayed::run(args),
        None => print::run(args),
    }
}
