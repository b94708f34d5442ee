//! What callbacks panicked with, kept until somebody asks.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "tracing")]
use crate::error::Escaped;

/// How many panics are kept; the oldest go first.
const KEPT: usize = 64;

/// A callback that panicked: it was caught, and the subscription goes on.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// # fn main() -> Result<(), notifyman::Error> {
/// # let conf = database();
/// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
/// n.subscribe(7, "prices", |_| panic!("no price today"))?;
/// n.notify("prices", "42");
/// # while n.stats().panics == 0 { std::thread::yield_now() }
/// let panicked = &n.take_panics()[0];
/// assert_eq!((panicked.id, &*panicked.message), (7, "no price today"));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Panicked<I> {
    /// The subscriber.
    pub id: I,
    /// The channel of the callback.
    pub channel: Box<str>,
    /// What it panicked with, where that is a text.
    pub message: Box<str>,
}

#[derive(Debug)]
pub(crate) struct PanicLog<I>(Mutex<VecDeque<Panicked<I>>>);

impl<I> Default for PanicLog<I> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<I> PanicLog<I> {
    pub(crate) fn keep(&self, id: I, channel: &str, message: &str) {
        #[cfg(feature = "tracing")]
        tracing::error!(channel = %Escaped(channel), message = %Escaped(message), "a callback panicked");
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Panicked { id, channel: channel.into(), message: message.into() });
    }

    pub(crate) fn take(&self) -> Vec<Panicked<I>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}
