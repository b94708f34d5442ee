//! A command that is run for each event, and retried when it fails.

use std::thread;
use std::time::Duration;

use super::line::EventLine;
use crate::cli::shell;
use crate::cli::signals::SignalWatcher;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The time between two checks for a signal during a pause.
const TICK: Duration = Duration::from_millis(50);

/// The outcome of running the command for a line.
pub(crate) enum CommandOutcome {
    Done,
    /// All attempts failed; this is the reason of the last failure.
    Failed(String),
    /// A signal came during a pause between two attempts.
    Interrupted,
}

/// Runs the command for a line, and retries it as often as allowed.
pub(crate) fn run(command: &str, line: &EventLine, retries: u32, signals: &SignalWatcher) -> CommandOutcome {
    let mut pause = FIRST_PAUSE;
    for retried in 0.. {
        match once(command, line) {
            Ok(()) => return CommandOutcome::Done,
            Err(reason) if retried >= retries => return CommandOutcome::Failed(reason),
            Err(_) => {}
        }
        let mut left = pause;
        while !left.is_zero() {
            if signals.received().is_some() {
                return CommandOutcome::Interrupted;
            }
            let nap = left.min(TICK);
            thread::sleep(nap);
            left -= nap;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
    CommandOutcome::Done
}

fn once(command: &str, line: &EventLine) -> Result<(), String> {
    let mut command = shell::command(command);
    command.env("NOTIFYMAN_KIND", line.kind).env("NOTIFYMAN_DATABASE", line.database.to_string());
    if let Some((schema, table)) = &line.table {
        command.env("NOTIFYMAN_SCHEMA", schema).env("NOTIFYMAN_TABLE", table);
    }
    let mut child = shell::start(command)?;
    let written = shell::write_input(child.stdin.take(), format!("{}\n", line.text).as_bytes());
    shell::wait(child).and(written)
}
