//! Ctrl-C (SIGINT) and SIGTERM: the first signal stops the command. A second one ends the program immediately, and so does an
//! output that is not read, for which a command may wait for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;
use std::{io, thread};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::messages::takes;
use super::outcome::Failure;

/// The time without a reader of the output after which a command that was stopped is ended.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time between two looks at an output that has a reader.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// Watches for signals until it is dropped. Signals that arrive later are ignored.
pub(crate) struct SignalWatcher {
    received: Arc<AtomicI32>,
    handle: signal_hook::iterator::Handle,
}

impl SignalWatcher {
    /// Starts to watch; `stop` is called on another thread at the first signal.
    pub(crate) fn new(stop: impl Fn() + Send + 'static) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::Failed(format!("could not watch for signals: {error}"));
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
        let watcher = Self { received: Arc::default(), handle: signals.handle() };
        let received = Arc::clone(&watcher.received);
        let watch = move || {
            for signal in &mut signals {
                if received.swap(signal, Ordering::Relaxed) != 0 {
                    end_by(signal);
                }
                // Without a thread, a second signal ends the program.
                let _ = thread::Builder::new().name("output".into()).spawn(move || end_with_its_readers(signal));
                stop();
            }
        };
        thread::Builder::new().name("signals".into()).spawn(watch).map_err(failed)?;
        Ok(watcher)
    }

    /// Returns the number of the signal that arrived, if any.
    pub(crate) fn received(&self) -> Option<i32> {
        Some(self.received.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }
}

fn end_by(signal: i32) {
    let _ = emulate_default_handler(signal);
}

/// Ends the program if its output is not read.
fn end_with_its_readers(signal: i32) {
    while takes(&io::stdout(), PATIENCE) && takes(&io::stderr(), PATIENCE) {
        thread::sleep(LOOK_PERIOD);
    }
    end_by(signal);
}

impl Drop for SignalWatcher {
    fn drop(&mut self) {
        self.handle.close();
    }
}
