//! Reads password files without blocking the caller.

use std::path::PathBuf;

use crate::config::Passfile;
use crate::net::offload::{OffloadJob, OffloadQueue, ThreadLimit};
use crate::net::reactor::PollWaker;

static QUEUE: OffloadQueue<PathBuf, Passfile> = OffloadQueue::new(
    "notifyman-file",
    ThreadLimit::any(),
    |path| Passfile::read(path),
    |error| Passfile::Unused(format!("could not start a thread to read it: {error}")),
);

/// Starts to read a password file. The waker, if there is one, is called when the file was read.
pub(crate) fn read_passfile(path: PathBuf, waker: Option<PollWaker>) -> OffloadJob<Passfile> {
    QUEUE.ask(path, waker)
}
