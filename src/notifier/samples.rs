//! The times at which the metrics of a notifier are recorded: at most once a second, for as long as notifications arrive or wait.

use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::clock;
use crate::notifier::shared::NotifierCore;
use crate::notifier::source::RunSource;

/// The time between two samples.
const PERIOD: Duration = Duration::from_secs(1);

/// Publishes the counters and the queues of a notifier, unless another thread does so now. The caller holds no lock. Once
/// `is_over`, the notifier leaves the gauges. Returns `true` if nothing waits, and nothing has changed since the last time.
pub(crate) fn publish<I: Clone + Eq + Hash + Send + 'static>(core: &NotifierCore<I>, is_over: bool) -> bool {
    let Some(mut meters) = core.take_meters() else { return false };
    let is_quiet = meters.publish(&core.stats(), is_over);
    core.return_meters(meters);
    is_quiet
}

/// The times at which the loop of a notifier publishes its metrics.
#[derive(Debug, Default)]
pub(crate) struct SampleTimer {
    next: Option<Instant>,
    is_armed: bool,
}

impl SampleTimer {
    /// Publishes the metrics if that is due after an event, and lets the source report when it is due again.
    pub(crate) fn handle_event<I>(&mut self, core: &NotifierCore<I>, source: &mut RunSource)
    where
        I: Clone + Eq + Hash + Send + 'static,
    {
        let now = clock::now();
        let is_due = self.next.is_none_or(|next| now >= next);
        if is_due {
            self.next = now.checked_add(PERIOD);
        }
        let is_armed = !(is_due && publish(core, false));
        if std::mem::replace(&mut self.is_armed, is_armed) != is_armed {
            source.set_timeout(is_armed.then_some(PERIOD));
        }
    }
}
