//! The panics of callbacks.

use std::collections::VecDeque;
use std::sync::PoisonError;

#[cfg(feature = "tracing")]
use crate::error::Escaped;
use crate::sync::Mutex;

/// The number of panics that are kept. The oldest are dropped first.
const PANICS_MAX: usize = 64;

/// A panic of a callback. The panic was caught, and the subscription continues: see
/// [`Notifier::take_panics`](crate::Notifier::take_panics).
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// # fn main() -> Result<(), notifyman::Error> {
/// # let conf = database();
/// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
/// n.subscribe(7, "prices", |_| panic!("no price today"))?;
/// n.notify("prices", "42");
/// # while n.stats().panics == 0 { std::thread::yield_now() }
/// let panic = &n.take_panics()[0];
/// assert_eq!((panic.id, &*panic.message), (7, "no price today"));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallbackPanic<I> {
    /// The id of the subscriber.
    pub id: I,
    /// The channel of the callback.
    pub channel: Box<str>,
    /// The message of the panic, if it is a string.
    pub message: Box<str>,
}

/// The latest panics of callbacks, until they are taken.
#[derive(Debug)]
pub(crate) struct PanicLog<I>(Mutex<VecDeque<CallbackPanic<I>>>);

impl<I> Default for PanicLog<I> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<I> PanicLog<I> {
    pub(crate) fn add(&self, id: I, channel: &str, message: &str) {
        #[cfg(feature = "tracing")]
        tracing::error!(
            target: "notifyman",
            channel = %Escaped(channel),
            panic = %Escaped(message),
            "a callback panicked"
        );
        let mut panics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if panics.len() == PANICS_MAX {
            panics.pop_front();
        }
        panics.push_back(CallbackPanic { id, channel: channel.into(), message: message.into() });
    }

    pub(crate) fn take(&self) -> Vec<CallbackPanic<I>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}
