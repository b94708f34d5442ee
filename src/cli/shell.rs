//! A shell command that is run for one notification or event, for `listen --exec` and `worker --exec`.
//!
//! ```text
//!   command, with its environment ──▶ start ──▶ write_input: its standard input ──▶ wait
//! ```

use std::io::{ErrorKind, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Returns a command whose standard input is a pipe.
pub(crate) fn command(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).stdin(Stdio::piped());
    command
}

pub(crate) fn start(mut command: Command) -> Result<Child, String> {
    command.spawn().map_err(|error| format!("could not start /bin/sh: {error}"))
}

/// Writes the command's standard input, and closes it. A command may close its input without reading it.
pub(crate) fn write_input(input: Option<ChildStdin>, bytes: &[u8]) -> Result<(), String> {
    match input.map_or(Ok(()), |mut input| input.write_all(bytes)) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("could not write its input: {error}")),
        _ => Ok(()),
    }
}

/// Waits until the command ends. Any exit status but 0 is an error.
pub(crate) fn wait(mut child: Child) -> Result<(), String> {
    let status = child.wait().map_err(|error| format!("could not wait for its end: {error}"))?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}
