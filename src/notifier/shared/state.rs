//! The state of a notifier, all of which is under one lock.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Error;
use crate::manager::{ConnId, Handle};
use crate::notifier::database::{Database, DatabaseSession};
use crate::notifier::dispatcher::Dispatcher;

pub(crate) struct NotifierState<I: 'static> {
    pub(crate) phase: RunPhase,
    /// The number of starts, which identifies the run of a late event.
    pub(crate) run: u64,
    /// The latest run that reached [`RunPhase::Running`].
    pub(crate) last_running: u64,
    /// The handle of the manager, while it is running.
    pub(crate) handle: Option<Handle>,
    pub(crate) dispatcher: Option<Arc<Dispatcher<I>>>,
    /// The reason why the last run ended, if it was not stopped.
    pub(crate) failure: Option<Error>,
    /// Changes reach the servers without a call of `apply`.
    pub(crate) is_autorun: bool,
    pub(crate) databases: Vec<Database<I>>,
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
            dispatcher: None,
            failure: None,
            is_autorun,
            databases: Vec::new(),
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
