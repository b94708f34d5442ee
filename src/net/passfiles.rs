//! Reads password files without blocking the caller.

use std::path::PathBuf;

use crate::config::Passfile;
use crate::net::offload::{Job, Line};
use crate::net::reactor::Alarm;

static LINE: Line<PathBuf, Passfile> = Line::new(
    "notifyman-file",
    |path| Passfile::read(path),
    |error| Passfile::Unused(format!("could not start a thread to read it: {error}")),
);

/// Begins to read a password file. The alarm, if there is one, rings when the file has been read.
pub(crate) fn read_passfile(path: PathBuf, alarm: Option<Alarm>) -> Job<Passfile> {
    LINE.ask(path, alarm)
}
