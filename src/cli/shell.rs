//! A command of the user's for one thing that came, as the shell runs it: for `listen --exec` and `worker --exec`.
//!
//! ```text
//!   command, with what it is told in its environment ──▶ start ──▶ feed: its standard input ──▶ finish
//! ```

use std::io::{ErrorKind, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};

/// A command that will be fed.
pub(crate) fn command(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).stdin(Stdio::piped());
    command
}

pub(crate) fn start(mut command: Command) -> Result<Child, String> {
    command.spawn().map_err(|error| format!("/bin/sh can't be started: {error}"))
}

/// Gives it its input, which then ends. A command that doesn't read it is free not to.
pub(crate) fn feed(input: Option<ChildStdin>, bytes: &[u8]) -> Result<(), String> {
    match input.map_or(Ok(()), |mut input| input.write_all(bytes)) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("writing its input: {error}")),
        _ => Ok(()),
    }
}

/// Waits for its end; any but success is a failure.
pub(crate) fn finish(mut child: Child) -> Result<(), String> {
    let status = child.wait().map_err(|error| format!("waiting for its end: {error}"))?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}
