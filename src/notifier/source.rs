//! The source of a notifier's events: a manager with sessions of its own, or a source that something else fills.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::Linked as _;
use crate::error::Error;
use crate::manager::{ConnId, Event, EventSource, Handle, NotificationManager};
use crate::notifier::settings::NotifierSettings;
use crate::proto::sql::Limits;

/// The source of one run.
pub(crate) enum RunSource {
    Manager(Box<NotificationManager>),
    External(Box<dyn EventSource>),
}

/// A connection of a source that is open.
pub(crate) struct OpenConnection<'s> {
    /// The process ID of the backend of a session.
    pub(crate) pid: Option<i32>,
    /// The channels that it listens to, or carries.
    pub(crate) channels: BTreeSet<&'s str>,
    pub(crate) limits: Limits,
}

/// Control of a source from any thread.
#[derive(Clone)]
pub(crate) enum SourceHandle {
    Manager(Handle),
    /// Stops the source.
    External(Arc<dyn Fn() + Send + Sync>),
}

impl RunSource {
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        match self {
            Self::Manager(manager) => manager.next_event(),
            Self::External(source) => source.next_event(),
        }
    }

    /// Returns `true` if nothing can be listened to.
    pub(crate) fn is_external(&self) -> bool {
        matches!(self, Self::External(_))
    }

    pub(crate) fn handle(&self) -> SourceHandle {
        match self {
            Self::Manager(manager) => SourceHandle::Manager(manager.handle()),
            Self::External(source) => SourceHandle::External(source.stopper().into()),
        }
    }

    /// Restores lost sessions and checks silent ones from now on. An external source does so by itself.
    pub(crate) fn supervise(self, settings: &NotifierSettings) -> Self {
        match self {
            Self::Manager(manager) => Self::Manager(Box::new(settings.supervise(*manager))),
            external @ Self::External(_) => external,
        }
    }

    /// Calls a function with a connection, if that is open.
    pub(crate) fn with_open<T>(&self, id: ConnId, then: impl FnOnce(OpenConnection<'_>) -> T) -> Option<T> {
        match self {
            Self::Manager(manager) => {
                let db = manager.get(id)?;
                let (channels, limits) = (db.link().channels().collect(), db.link().limits());
                Some(then(OpenConnection { pid: Some(db.pid()), channels, limits }))
            }
            Self::External(source) => {
                let carried = source.channels(id)?;
                let channels = carried.iter().map(AsRef::as_ref).collect();
                Some(then(OpenConnection { pid: None, channels, limits: Limits::Exact }))
            }
        }
    }

    /// Takes the reason for which the source has ended without a stop.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        match self {
            // A manager ends only if its poll fails, which moves all connections to the garbage.
            Self::Manager(manager) => manager.take_garbage().pop().map(|(_, dead)| dead.error().clone()),
            Self::External(_) => Some(Error::Stopped),
        }
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn set_timeout(&mut self, timeout: Option<Duration>) {
        match self {
            Self::Manager(manager) => manager.set_timeout(timeout),
            Self::External(source) => source.set_timeout(timeout),
        }
    }
}

impl SourceHandle {
    /// Returns the handle of the manager, by which requests are made.
    pub(crate) fn manager(&self) -> Option<&Handle> {
        match self {
            Self::Manager(handle) => Some(handle),
            Self::External(_) => None,
        }
    }

    pub(crate) fn stop(&self) {
        match self {
            Self::Manager(handle) => drop(handle.stop()),
            Self::External(stop) => stop(),
        }
    }

    /// Returns the delivery time of the latest canary.
    pub(crate) fn canary_time(&self) -> Option<Duration> {
        self.manager()?.stats().canary_time
    }
}
