//! Observers of a subscription: they learn whether it receives, and when everything before a canary has been handed out.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::sync::Mutex;

/// The state of a subscription, for its observer. Changes are reported in their order, under the lock of the notifier's state.
pub(crate) trait ReceptionObserver: Send + Sync {
    /// The channel is listened to: the callback is called for every later notification.
    fn on_listening(&self);

    /// The session is lost, and is being restored.
    fn on_disconnected(&self);

    /// The callback is not called until the channel is listened to again: the subscription is muted, the notifier is stopped,
    /// or the session is lost for good.
    fn on_silenced(&self);

    /// The subscription has ended.
    fn on_ended(&self);

    /// The callback has been called for everything that was committed before this time.
    fn on_caught_up(&self, as_of: Instant);
}

/// An observer, and the canary that it waits for.
pub(crate) struct ObservedReception {
    observer: Arc<dyn ReceptionObserver>,
    canary: Mutex<Option<PassingCanary>>,
}

/// A canary that has arrived behind notifications that may still wait for the callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PassingCanary {
    sent: Instant,
    /// The head of the channel when the canary arrived.
    head: u64,
}

/// A change of the state of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceptionChange {
    Listening,
    Disconnected,
    Silenced,
    Ended,
}

impl ObservedReception {
    pub(crate) fn new(observer: Arc<dyn ReceptionObserver>) -> Self {
        Self { observer, canary: Mutex::default() }
    }

    /// Informs the observer of a change. A canary that arrived before proves nothing any more.
    pub(crate) fn inform(&self, change: ReceptionChange) {
        let mut canary = self.canary.lock().unwrap_or_else(PoisonError::into_inner);
        *canary = None;
        match change {
            ReceptionChange::Listening => self.observer.on_listening(),
            ReceptionChange::Disconnected => self.observer.on_disconnected(),
            ReceptionChange::Silenced => self.observer.on_silenced(),
            ReceptionChange::Ended => self.observer.on_ended(),
        }
    }

    /// Records that a canary has arrived, when the channel had this head.
    pub(crate) fn pass_canary(&self, sent: Instant, head: u64) {
        *self.canary.lock().unwrap_or_else(PoisonError::into_inner) = Some(PassingCanary { sent, head });
    }

    /// Returns the canary that a visit can prove, at its beginning.
    pub(crate) fn canary(&self) -> Option<PassingCanary> {
        *self.canary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports that a visit has handed out everything up to `head`, and that this canary had arrived at its beginning.
    pub(crate) fn catch_up(&self, passed: PassingCanary, head: u64) {
        let mut canary = self.canary.lock().unwrap_or_else(PoisonError::into_inner);
        // A later canary waits on; a change of the state in between has removed both.
        if canary.is_some() && passed.head <= head {
            self.observer.on_caught_up(passed.sent);
            canary.take_if(|it| *it == passed);
        }
    }
}
