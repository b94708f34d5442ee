//! Reads password files without making anybody wait.

use std::path::PathBuf;

use crate::config::Passfile;
use crate::net::offload::{Job, Line};
use crate::net::reactor::Alarm;

static LINE: Line<PathBuf, Passfile> = Line::new(
    "notifyman-file",
    |path| Passfile::read(path),
    |error| Passfile::Unused(format!("no thread to read it can be had: {error}")),
);

/// Begins to read one. The alarm, if there is one, rings when that is done.
pub(crate) fn read_passfile(path: PathBuf, alarm: Option<Alarm>) -> Job<Passfile> {
    LINE.ask(path, alarm)
}
