//! The reader of standard output, which may close it while nothing is printed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Watches standard output until the program ends.
pub(crate) struct ReaderWatcher(Arc<AtomicBool>);

impl ReaderWatcher {
    /// Starts to watch; `stop` is called on another thread when the reader has closed the output. If the output is a file or
    /// a terminal, this does not happen.
    pub(crate) fn new(stop: impl FnOnce() + Send + 'static) -> Self {
        let is_gone = Arc::new(AtomicBool::new(false));
        let gone = Arc::clone(&is_gone);
        let watch = move || {
            if wait_for_hang_up() {
                gone.store(true, Ordering::Relaxed);
                stop();
            }
        };
        // Without a thread, the next write finds out.
        let _ = thread::Builder::new().name("reader".into()).spawn(watch);
        Self(is_gone)
    }

    /// Returns `true` once the reader has closed the output.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Waits until the reader of standard output has closed it; returns `false` if that cannot be waited for.
fn wait_for_hang_up() -> bool {
    let out = io::stdout();
    loop {
        // Without an event to wait for, only errors and a hang-up are returned.
        let mut polled = [PollFd::new(&out, PollFlags::empty())];
        match poll(&mut polled, None) {
            Ok(_) => return polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
