//! Ctrl-C and SIGTERM: the first one stops the loop between two events, a second one ends the program at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use notifyman::Handle;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Looks out for signals until it is dropped; from then on they are passed over.
pub(crate) struct Lookout {
    got: Arc<AtomicI32>,
    signals: signal_hook::iterator::Handle,
}

impl Lookout {
    /// Stops the manager of this handle at the first signal.
    pub(crate) fn new(manager: Handle) -> io::Result<Self> {
        Self::calling(move || drop(manager.stop()))
    }

    /// Calls this at the first signal.
    pub(crate) fn calling(stop: impl Fn() + Send + 'static) -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let lookout = Self { got: Arc::default(), signals: signals.handle() };
        let got = Arc::clone(&lookout.got);
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in &mut signals {
                if got.swap(signal, Ordering::Relaxed) != 0 {
                    // Whatever is going on takes too long.
                    let _ = emulate_default_handler(signal);
                }
                stop();
            }
        })?;
        Ok(lookout)
    }

    /// The signal that came, if one did.
    pub(crate) fn got(&self) -> Option<i32> {
        Some(self.got.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.signals.close();
    }
}
