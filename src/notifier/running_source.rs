//! The source of a run, which the next run may use again.

use std::hash::Hash;
use std::sync::Arc;

use crate::notifier::settings::NotifierSettings;
use crate::notifier::shared::NotifierCore;
use crate::notifier::source::RunSource;

/// Returns an external source to the notifier when it is dropped, also by a panic. A manager is dropped with it.
pub(crate) struct RunningSource<I: Clone + Eq + Hash + Send + 'static> {
    core: Arc<NotifierCore<I>>,
    source: Option<RunSource>,
}

impl<I: Clone + Eq + Hash + Send + 'static> Drop for RunningSource<I> {
    fn drop(&mut self) {
        if let Some(RunSource::External(source)) = self.source.take() {
            self.core.lock().external = Some(source);
        }
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> RunningSource<I> {
    pub(crate) fn new(core: &Arc<NotifierCore<I>>, source: Option<RunSource>) -> Self {
        Self { core: Arc::clone(core), source }
    }

    pub(crate) fn get_mut(&mut self) -> Option<&mut RunSource> {
        self.source.as_mut()
    }

    /// Restores lost sessions and checks silent ones from now on.
    pub(crate) fn supervise(&mut self, settings: &NotifierSettings) {
        self.source = self.source.take().map(|source| source.supervise(settings));
    }
}
