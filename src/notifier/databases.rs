//! The databases of a notifier: those that are added, and those of an external source.

use std::hash::Hash;
use std::sync::Arc;

use crate::config::Config;
use crate::error::Error;
use crate::manager::{ConnId, EventSource};
use crate::notifier::database::{Database, DatabaseSession};
use crate::notifier::deferred::DeferredActions;
use crate::notifier::shared::NotifierCore;
use crate::notifier::source::SourceHandle;

/// Returns the index of the database that shares a session with `config`. A new database is added, and dialled if the
/// notifier is running.
///
/// # Errors
///
/// [`Error::NoDatabase`] if the notifier has an external source.
pub(crate) fn add_database<I: Clone + Eq + Hash + Send + 'static>(
    core: &Arc<NotifierCore<I>>,
    config: Config,
) -> Result<usize, Error> {
    let mut state = core.lock();
    if state.is_external {
        let instead = "create another notifier for the database";
        return Err(Error::NoDatabase { action: "add a database", instead });
    }
    let known = state.databases.iter().position(|database| database.config.shares_session_with(&config));
    if let Some(at) = known {
        return Ok(at);
    }
    let at = state.databases.len();
    let mut database = Database::new(at, config, &core.context);
    if let Some(SourceHandle::Manager(handle)) = &state.handle {
        // A new database has no subscription that must be changed.
        let channels = database.begin_session(core.settings.own_channel(), true, &mut DeferredActions::default());
        let (core, run) = (Arc::clone(core), state.run);
        handle.dial_then(database.config.clone(), channels, move |id| {
            core.change_run(run, |state, _| {
                if let (Ok(id), Some(database)) = (id, state.databases.get_mut(at)) {
                    database.session = DatabaseSession::Opening(Some(id));
                    state.by_connection.insert(id, at);
                }
            });
        });
    }
    state.databases.push(database);
    core.notify_phase_changed();
    Ok(at)
}

/// Receives from an external source, with a database for each connection.
pub(crate) fn set_external<I: Clone + Eq + Hash + 'static>(core: &NotifierCore<I>, source: Box<dyn EventSource>) {
    let mut state = core.lock();
    let of = |(at, id): (usize, &ConnId)| {
        let config = Config::new().label(id.label().unwrap_or_default());
        Database::new(at, config, &core.context)
    };
    state.databases = source.connections().iter().enumerate().map(of).collect();
    (state.is_external, state.external) = (true, Some(source));
}
