//! The handles of a notifier, as far as its lifetime depends on them.

use std::hash::Hash;
use std::sync::Arc;

use crate::notifier::shared::NotifierCore;

/// Stops the notifier when its last handle is dropped. Its threads own only the core.
pub(crate) struct StopOnDrop<I: Clone + Eq + Hash + Send + 'static>(pub(crate) Arc<NotifierCore<I>>);

impl<I: Clone + Eq + Hash + Send + 'static> Drop for StopOnDrop<I> {
    fn drop(&mut self) {
        self.0.halt(None);
        // A watcher of states that has found this owner under the lock waits by now.
        drop(self.0.lock());
        self.0.notify_phase_changed();
    }
}
