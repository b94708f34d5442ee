//! The settings of a notifier, and the manager that they describe.

use std::sync::Arc;
use std::time::Duration;

use crate::manager::{Backoff, NotificationManager};
use crate::notifier::database::SYSTEM_CHANNEL;
use crate::notifier::queue::Queue;

#[derive(Debug, Clone)]
pub(crate) struct NotifierSettings {
    pub(crate) workers: usize,
    pub(crate) queue: Arc<Queue>,
    pub(crate) backoff: Backoff,
    pub(crate) heartbeat: (Duration, Duration),
    pub(crate) canary: Option<(Duration, Duration)>,
    pub(crate) audit: Option<Duration>,
    pub(crate) keep_trying: bool,
    pub(crate) autorun: bool,
}

impl Default for NotifierSettings {
    fn default() -> Self {
        Self {
            workers: 1,
            queue: Arc::default(),
            backoff: Backoff::default(),
            heartbeat: (Duration::from_secs(15), Duration::from_secs(5)),
            canary: None,
            audit: None,
            keep_trying: false,
            autorun: true,
        }
    }
}

impl NotifierSettings {
    /// Creates a manager without connections, and without heartbeat and reconnection.
    pub(crate) fn manager(&self) -> NotificationManager {
        let mut manager = NotificationManager::new([]).park_when_empty(true);
        if let Some((period, deadline)) = self.canary {
            manager = manager.canary_at_any_pace(SYSTEM_CHANNEL, period, deadline).report_canaries();
        }
        match self.audit {
            Some(period) => manager.audit(period),
            None => manager,
        }
    }

    /// Makes a manager restore lost connections and check silent ones.
    pub(crate) fn supervise(&self, manager: NotificationManager) -> NotificationManager {
        let (idle, deadline) = self.heartbeat;
        manager.reconnect(self.backoff).heartbeat(idle, deadline)
    }

    /// Returns the channel that sessions listen to for the notifier itself, unless the canary listens to it.
    pub(crate) fn own_channel(&self) -> Option<&'static str> {
        self.canary.is_none().then_some(SYSTEM_CHANNEL)
    }
}
