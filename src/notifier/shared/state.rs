//! The state of a notifier, all of which is under one lock.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::error::Error;
use crate::manager::{ConnId, EventSource};
use crate::notifier::database::{Database, DatabaseSession};
use crate::notifier::deferred::DeferredActions;
use crate::notifier::dispatcher::Dispatcher;
use crate::notifier::source::SourceHandle;

pub(crate) struct NotifierState<I: 'static> {
    pub(crate) phase: RunPhase,
    /// The number of starts, which identifies the run of a late event.
    pub(crate) run: u64,
    /// The latest run that reached [`RunPhase::Running`].
    pub(crate) last_running: u64,
    /// The handle of the source, while it is running.
    pub(crate) handle: Option<SourceHandle>,
    /// `true` if there is one source for all runs, and not a manager for each.
    pub(crate) is_external: bool,
    /// That source, between two runs.
    pub(crate) external: Option<Box<dyn EventSource>>,
    pub(crate) dispatcher: Option<Arc<Dispatcher<I>>>,
    /// The reason why the last run ended, if it was not stopped.
    pub(crate) failure: Option<Error>,
    /// Changes reach the servers without a call of `apply`.
    pub(crate) is_autorun: bool,
    pub(crate) databases: Vec<Database<I>>,
    /// The LISTENs that an external source must answer: the index of the database, and the channel with its generation.
    pub(crate) unanswered: Vec<(usize, (Box<str>, u32))>,
    pub(crate) by_connection: HashMap<ConnId, usize>,
    /// The process IDs of the open sessions, and of earlier ones.
    pub(crate) pids: HashMap<ConnId, i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunPhase {
    Stopped,
    Starting,
    Running,
    Stopping,
}

impl<I: 'static> NotifierState<I> {
    pub(crate) fn new(is_autorun: bool) -> Self {
        Self {
            phase: RunPhase::Stopped,
            run: 0,
            last_running: 0,
            handle: None,
            is_external: false,
            external: None,
            dispatcher: None,
            failure: None,
            is_autorun,
            databases: Vec::new(),
            unanswered: Vec::new(),
            by_connection: HashMap::new(),
            pids: HashMap::new(),
        }
    }

    /// Returns `true` if notifications can arrive, now or after a session is restored.
    pub(crate) fn can_receive(&self) -> bool {
        let is_lost = |database: &Database<I>| matches!(database.session, DatabaseSession::Lost(_));
        self.phase == RunPhase::Running && (self.databases.is_empty() || !self.databases.iter().all(is_lost))
    }

    pub(crate) fn database(&mut self, at: usize) -> Result<&mut Database<I>, Error> {
        self.databases.get_mut(at).ok_or(Error::NotRunning)
    }

    /// Returns the process ID of the backend of an open session.
    pub(crate) fn session_pid(&self, at: usize) -> Option<i32> {
        let session = &self.databases.get(at)?.session;
        self.pids.get(&session.id().filter(|_| session.is_open())?).copied()
    }

    /// Answers the LISTENs that an external source must answer, at the end of a change: by then, what waits for the answers does.
    pub(crate) fn answer_requests(&mut self, actions: &mut DeferredActions<I>)
    where
        I: Clone + Eq + Hash,
    {
        for (at, channel) in std::mem::take(&mut self.unanswered) {
            if let Some(database) = self.databases.get_mut(at) {
                database.answer(channel, actions);
            }
        }
    }

    pub(crate) fn check_running(&self) -> Result<(), Error> {
        match self.phase {
            RunPhase::Starting | RunPhase::Running => Ok(()),
            RunPhase::Stopped | RunPhase::Stopping => Err(Error::NotRunning),
        }
    }

    /// Checks that a new channel would be listened to, unless that is left to `apply`.
    pub(crate) fn check_can_listen(&self, at: usize) -> Result<(), Error> {
        if !self.is_autorun {
            return Ok(());
        }
        self.check_running()?;
        match self.databases.get(at).map(|database| &database.session) {
            None => Err(Error::NotRunning),
            Some(DatabaseSession::Lost(error)) => Err(error.clone()),
            Some(_) => Ok(()),
        }
    }
}
