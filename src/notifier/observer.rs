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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[derive(Default)]
    struct RecordedReception(Mutex<Vec<String>>);

    impl RecordedReception {
        fn add(&self, text: impl Into<String>) {
            self.0.lock().unwrap().push(text.into());
        }
    }

    impl ReceptionObserver for RecordedReception {
        fn on_listening(&self) {
            self.add("listening");
        }
        fn on_disconnected(&self) {
            self.add("disconnected");
        }
        fn on_silenced(&self) {
            self.add("silenced");
        }
        fn on_ended(&self) {
            self.add("ended");
        }
        fn on_caught_up(&self, as_of: Instant) {
            self.add(format!("{as_of:?}"));
        }
    }

    fn observed() -> (Arc<RecordedReception>, ObservedReception) {
        let recorded = Arc::new(RecordedReception::default());
        (Arc::clone(&recorded), ObservedReception::new(recorded))
    }

    fn take(recorded: &RecordedReception) -> Vec<String> {
        std::mem::take(&mut recorded.0.lock().unwrap())
    }

    #[test]
    fn f03_a_canary_is_certified_by_a_visit_that_began_after_it_and_reached_its_head() {
        let (recorded, observed) = observed();
        let (first, second) = (clock::now(), clock::now() + Duration::from_secs(1));
        assert_eq!(observed.canary(), None);
        observed.pass_canary(first, 5);
        let passed = observed.canary().unwrap();
        observed.catch_up(passed, 4);
        assert!(take(&recorded).is_empty(), "a notification before it has not been handed out");
        observed.pass_canary(second, 7);
        observed.catch_up(passed, 6);
        assert_eq!(take(&recorded), [format!("{first:?}")], "the later one arrived after the visit began");
        let passed = observed.canary().unwrap();
        observed.catch_up(passed, 7);
        assert_eq!(take(&recorded), [format!("{second:?}")]);
        assert_eq!(observed.canary(), None, "it is certified once");
    }

    #[test]
    fn f03_a_change_of_the_state_withdraws_a_canary() {
        let changes = [
            (ReceptionChange::Listening, "listening"),
            (ReceptionChange::Disconnected, "disconnected"),
            (ReceptionChange::Silenced, "silenced"),
            (ReceptionChange::Ended, "ended"),
        ];
        for (change, expected) in changes {
            let (recorded, observed) = observed();
            observed.pass_canary(clock::now(), 5);
            let passed = observed.canary().unwrap();
            observed.inform(change);
            assert_eq!(observed.canary(), None);
            observed.catch_up(passed, 5);
            assert_eq!(take(&recorded), [expected]);
        }
    }
}
