//! The thread that opens connections for callers that must not block: one for the process, while there are requests.
//!
//! ```text
//!   connect_ticket ──▶ waiting ──▶ thread: connect_many, on one poller ──▶ tickets
//! ```

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::config::Config;
use crate::connection::Connection;
use crate::connection::many::ConnectMany;
use crate::error::Error;
use crate::net::PollWaker;
use crate::ticket::{Resolver, ThreadMark, Ticket};

static CONNECTOR: Connector = Connector(Mutex::new(ConnectorState { waiting: VecDeque::new(), thread: None }));
/// Marks no thread: a ticket can be waited for on any.
static NO_THREAD: LazyLock<Arc<ThreadMark>> = LazyLock::new(Arc::default);

struct Connector(Mutex<ConnectorState>);

struct ConnectorState {
    waiting: VecDeque<(Config, Resolver<Connection>)>,
    /// The thread, if it runs.
    thread: Option<ConnectorThread>,
}

/// The means to wake the thread; it has none before its first look at the requests.
#[derive(Default)]
struct ConnectorThread(Option<PollWaker>);

/// Opens a connection on the shared thread.
pub(super) fn connect(config: Result<Config, Error>) -> Ticket<Connection> {
    let config = match config {
        Ok(config) => config,
        Err(error) => return Ticket::resolved(&NO_THREAD, Err(error)),
    };
    let (resolver, ticket) = Ticket::new(&NO_THREAD);
    let mut state = CONNECTOR.lock();
    state.waiting.push_back((config, resolver));
    match &state.thread {
        Some(ConnectorThread(waker)) => waker.iter().for_each(PollWaker::wake),
        None => match thread::Builder::new().name("notifyman connect".into()).spawn(|| CONNECTOR.run()) {
            Ok(_) => state.thread = Some(ConnectorThread::default()),
            Err(error) => {
                let failed = std::mem::take(&mut state.waiting);
                drop(state);
                let error = Error::io("starting a thread", error);
                failed.into_iter().for_each(|(_, resolver)| resolver.resolve(Err(error.clone())));
            }
        },
    }
    ticket
}

impl Connector {
    fn lock(&self) -> MutexGuard<'_, ConnectorState> {
        // The state is consistent whenever the lock is released.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens connections until there are no requests.
    fn run(&self) {
        let mut many = ConnectMany::new([] as [Config; 0]);
        let waker = many.waker();
        let mut resolvers = HashMap::new();
        loop {
            let mut state = self.lock();
            if state.waiting.is_empty() && resolvers.is_empty() {
                state.thread = None;
                return;
            }
            let new = std::mem::take(&mut state.waiting);
            state.thread = Some(ConnectorThread(waker.clone()));
            drop(state);
            resolvers.extend(new.into_iter().map(|(config, resolver)| (many.add(config), resolver)));
            for (index, result) in many.advance_all() {
                let Some(resolver) = resolvers.remove(&index) else { continue };
                // The waker of a task is code of the user. Its panic must not end the thread of all others.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| resolver.resolve(result))) {
                    // Dropping the payload of the panic could panic again.
                    std::mem::forget(panic);
                }
            }
        }
    }
}
