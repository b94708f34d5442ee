//! A command that is run for each change, and tried again where it fails.

use std::thread;
use std::time::Duration;

use super::line::Line;
use crate::cli::shell;
use crate::cli::signals::Lookout;

const FIRST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(10);
/// How often a rest looks for a signal.
const TICK: Duration = Duration::from_millis(50);

/// What came of a line.
pub(crate) enum Outcome {
    Done,
    /// It failed as often as it may; why it did last.
    Failed(String),
    /// A signal came while it was to be tried again.
    Interrupted,
}

/// Runs the command for a line, and again while it fails and may be tried.
pub(crate) fn run(command: &str, line: &Line, retries: u32, lookout: &Lookout) -> Outcome {
    let mut rest = FIRST_REST;
    for tried in 0.. {
        match once(command, line) {
            Ok(()) => return Outcome::Done,
            Err(reason) if tried >= retries => return Outcome::Failed(reason),
            Err(_) => {}
        }
        let mut left = rest;
        while !left.is_zero() {
            if lookout.got().is_some() {
                return Outcome::Interrupted;
            }
            let nap = left.min(TICK);
            thread::sleep(nap);
            left -= nap;
        }
        rest = (rest * 2).min(LONGEST_REST);
    }
    Outcome::Done
}

fn once(command: &str, line: &Line) -> Result<(), String> {
    let mut command = shell::command(command);
    command.env("NOTIFYMAN_KIND", line.kind).env("NOTIFYMAN_DATABASE", line.database.to_string());
    if let Some((schema, table)) = &line.table {
        command.env("NOTIFYMAN_SCHEMA", schema).env("NOTIFYMAN_TABLE", table);
    }
    let mut child = shell::start(command)?;
    let fed = shell::feed(child.stdin.take(), format!("{}\n", line.text).as_bytes());
    shell::finish(child).and(fed)
}
