//! Observers of a subscription: they learn whether it receives, and when everything before a canary has been handed out.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::sync::{Mutex, MutexGuard};

/// The state of a subscription, for its observer. Changes are reported in their order, under the lock of the notifier's state.
pub(crate) trait ReceptionObserver: Send + Sync {
    /// The channel is listened to: the callback is called for every later notification.
    fn on_listening(&self);

    /// The session is lost, and is being restored.
    fn on_disconnected(&self);

    /// The session is restored, and nothing was missed.
    fn on_resumed(&self);

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
    canaries: Mutex<PassingCanaries>,
}

/// The first canary that has not been passed, and the last one behind it. The first stays, so that a subscriber passes one now and
/// then although more than one period's notifications always wait for it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PassingCanaries {
    first: Option<PassingCanary>,
    last: Option<PassingCanary>,
    /// The number of changes of the state, each of which has removed the canaries.
    changes: u64,
}

/// A canary that has arrived behind notifications that may still wait for the callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PassingCanary {
    sent: Instant,
    /// The head of the channel when the canary arrived.
    head: u64,
}

/// A change of the state of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceptionChange {
    Listening,
    Disconnected,
    Resumed,
    Silenced,
    Ended,
}

impl ObservedReception {
    pub(crate) fn new(observer: Arc<dyn ReceptionObserver>) -> Self {
        Self { observer, canaries: Mutex::default() }
    }

    fn canaries(&self) -> MutexGuard<'_, PassingCanaries> {
        self.canaries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Informs the observer of a change. Canaries that arrived before prove nothing any more.
    pub(crate) fn inform(&self, change: ReceptionChange) {
        let mut canaries = self.canaries();
        *canaries = PassingCanaries { changes: canaries.changes + 1, ..PassingCanaries::default() };
        match change {
            ReceptionChange::Listening => self.observer.on_listening(),
            ReceptionChange::Disconnected => self.observer.on_disconnected(),
            ReceptionChange::Resumed => self.observer.on_resumed(),
            ReceptionChange::Silenced => self.observer.on_silenced(),
            ReceptionChange::Ended => self.observer.on_ended(),
        }
    }

    /// Records that a canary has arrived, when the channel had this head.
    pub(crate) fn pass_canary(&self, sent: Instant, head: u64) {
        let mut canaries = self.canaries();
        let place = if canaries.first.is_none() { &mut canaries.first } else { &mut canaries.last };
        *place = Some(PassingCanary { sent, head });
    }

    /// Returns the canaries that a visit can prove, at its beginning, if there are any.
    pub(crate) fn waiting_canaries(&self) -> Option<PassingCanaries> {
        Some(*self.canaries()).filter(|canaries| canaries.first.is_some())
    }

    /// Reports that a visit has handed out everything up to `head`, and that these canaries had arrived at its beginning.
    pub(crate) fn catch_up(&self, arrived: PassingCanaries, head: u64) {
        let passed = [arrived.last, arrived.first].into_iter().flatten().find(|canary| canary.head <= head);
        let Some(passed) = passed else { return };
        let mut canaries = self.canaries();
        let is_waiting = canaries.first.is_some_and(|first| first.sent <= passed.sent);
        if is_waiting && canaries.changes == arrived.changes {
            self.observer.on_caught_up(passed.sent);
            canaries.first = canaries.last.take().filter(|last| last.sent > passed.sent);
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
        fn on_resumed(&self) {
            self.add("resumed");
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

    /// Returns the same time in each call.
    fn clock_base() -> Instant {
        static BASE: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *BASE.get_or_init(clock::now)
    }

    fn take(recorded: &RecordedReception) -> Vec<String> {
        std::mem::take(&mut recorded.0.lock().unwrap())
    }

    #[test]
    fn f03_a_canary_is_certified_by_a_visit_that_began_after_it_and_reached_its_head() {
        let (recorded, observed) = observed();
        let sent = |second| clock_base() + Duration::from_secs(second);
        assert!(observed.waiting_canaries().is_none());
        observed.pass_canary(sent(1), 5);
        let arrived = observed.waiting_canaries().unwrap();
        observed.catch_up(arrived, 4);
        assert!(take(&recorded).is_empty(), "a notification before it has not been handed out");
        observed.pass_canary(sent(2), 7);
        observed.pass_canary(sent(3), 8);
        observed.catch_up(arrived, 9);
        assert_eq!(take(&recorded), [format!("{:?}", sent(1))], "the others arrived after the visit began");
        observed.catch_up(arrived, 9);
        assert!(take(&recorded).is_empty(), "it is certified once");
        observed.pass_canary(sent(4), 9);
        let arrived = observed.waiting_canaries().unwrap();
        observed.catch_up(arrived, 8);
        assert_eq!(take(&recorded), [format!("{:?}", sent(3))], "the first that waited is kept");
        observed.pass_canary(sent(5), 10);
        let arrived = observed.waiting_canaries().unwrap();
        observed.catch_up(arrived, 10);
        assert_eq!(take(&recorded), [format!("{:?}", sent(5))], "the last that was reached");
        assert!(observed.waiting_canaries().is_none());
    }

    #[test]
    fn f03_a_change_of_the_state_withdraws_a_canary() {
        let changes = [
            (ReceptionChange::Listening, "listening"),
            (ReceptionChange::Disconnected, "disconnected"),
            (ReceptionChange::Resumed, "resumed"),
            (ReceptionChange::Silenced, "silenced"),
            (ReceptionChange::Ended, "ended"),
        ];
        for (change, expected) in changes {
            let (recorded, observed) = observed();
            observed.pass_canary(clock::now(), 5);
            let arrived = observed.waiting_canaries().unwrap();
            observed.inform(change);
            assert!(observed.waiting_canaries().is_none());
            observed.pass_canary(clock::now(), 5);
            observed.catch_up(arrived, 5);
            assert_eq!(take(&recorded), [expected]);
        }
    }
}
