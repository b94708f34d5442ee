//! Starting and stopping: the threads of one run.
//!
//! ```text
//!   start ─▶ thread of the loop: manager ──▶ queues ──▶ dispatching threads
//!   stop ──▶ the loop ends, each dispatching thread ends after its current call, the last thread reports that
//! ```

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::error::Error;
use crate::manager::Ticket;
use crate::notifier::database::DatabaseSession;
use crate::notifier::deferred::DeferredActions;
use crate::notifier::dispatcher::Dispatcher;
use crate::notifier::event_loop::NotifierLoop;
use crate::notifier::running_source::RunningSource;
#[cfg(feature = "metrics")]
use crate::notifier::samples;
use crate::notifier::shared::{NotifierCore, NotifierState, RunPhase};
use crate::notifier::source::RunSource;

/// The time after which the state is checked again while idle threads are about to end.
const MOMENT: Duration = Duration::from_millis(1);

/// The state of a notifier with respect to one database; the [table](crate::notifier#states) shows the transitions.
///
/// ```
/// # fn main() -> Result<(), notifyman::Error> {
/// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
/// use notifyman::notifier::State;
///
/// match n.state() {
///     State::Listening => println!("notifications arrive"),
///     State::Lost(error) | State::Failed(error) => {
///         eprintln!("restart the notifier after fixing this: {error:#}");
///     }
///     other => println!("for now: {other:?}"),
/// }
/// # assert!(matches!(n.state(), State::Stopped));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum State {
    /// The notifier was stopped, or has not been started.
    Stopped,
    /// The notifier could not be started, or ended with an error.
    Failed(Error),
    /// The notifier opens its sessions.
    Starting,
    /// The session listens.
    Listening,
    /// The session is not open now, and is being opened.
    Away,
    /// The session is lost, and trying again cannot help.
    Lost(Error),
    /// The notifier has been stopped, and a callback still runs.
    Stopping,
}

impl State {
    pub(crate) fn of<I>(state: &NotifierState<I>, at: usize) -> Self {
        match (state.phase, state.databases.get(at).map(|database| &database.session)) {
            (RunPhase::Stopped, _) => state.failure.clone().map_or(State::Stopped, State::Failed),
            (RunPhase::Starting, _) => State::Starting,
            (RunPhase::Stopping, _) => State::Stopping,
            (RunPhase::Running, Some(DatabaseSession::Open(_))) => State::Listening,
            (RunPhase::Running, Some(DatabaseSession::Lost(error))) => State::Lost(error.clone()),
            (RunPhase::Running, _) => State::Away,
        }
    }

    /// Returns the state of the database that is worst off.
    pub(crate) fn of_all<I>(state: &NotifierState<I>) -> Self {
        let badness = |state: &State| match state {
            State::Lost(_) => 2,
            State::Away => 1,
            // All other states are of the notifier as a whole.
            _ => 0,
        };
        let states = (0..state.databases.len()).map(|at| State::of(state, at));
        states.max_by_key(badness).unwrap_or_else(|| State::of(state, 0))
    }
}

/// A callback that is still running: see [`Notifier::stop_within`](crate::Notifier::stop_within).
///
/// ```
/// # fn main() -> Result<(), notifyman::Error> {
/// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
/// use std::time::Duration;
/// use notifyman::notifier::StillRunning;
///
/// let stopped = n.stop_within(Duration::from_secs(2));
/// if let Err(StillRunning { id, channel, .. }) = stopped {
///     eprintln!("the callback of subscriber {id} for {channel} does not return");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StillRunning<I> {
    /// The id of the subscriber.
    pub id: I,
    /// The channel of the callback.
    pub channel: Box<str>,
}

impl<I> fmt::Display for StillRunning<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the notifier is stopped, but a callback for channel {:?} is still running", self.channel)
    }
}

impl<I: fmt::Debug> std::error::Error for StillRunning<I> {}

pub(crate) fn start<I: Clone + Eq + Hash + Send + 'static>(core: &Arc<NotifierCore<I>>) -> Result<(), Error> {
    let mut state = core.lock();
    while state.phase == RunPhase::Stopping && !core.is_own_thread() {
        if let Some((_, channel)) = state.dispatcher.as_ref().and_then(|dispatcher| dispatcher.running_call()) {
            return Err(Error::StillRunning { channel });
        }
        // No callback runs, so the threads are about to end.
        state = core.wait_timeout(state, MOMENT);
    }
    let run = match state.phase {
        // All sessions are lost for good, so only the threads and calls that began earlier still run.
        RunPhase::Running if !state.can_receive() && !core.is_own_thread() => {
            drop(state);
            // Without a limit there is no error.
            let _ = stop_within(core, None);
            return start(core);
        }
        RunPhase::Running => return Ok(()),
        _ if core.is_own_thread() => {
            return Err(Error::InsideCallback { instead: "start it from another thread" });
        }
        // Another thread starts the notifier, so both get the same result.
        RunPhase::Starting | RunPhase::Stopping => {
            let run = state.run;
            drop(state);
            run
        }
        RunPhase::Stopped => {
            let mut actions = DeferredActions::default();
            let threads = RunThreads::begin(core, &mut state, &mut actions);
            drop(state);
            core.notify_phase_changed();
            core.run_actions(actions, Some(&threads.dispatcher));
            threads.spawn()?
        }
    };
    wait_for_start(core, run)
}

/// Waits until every session is open, or until the first could not be opened.
fn wait_for_start<I: Clone + Eq + Hash + Send + 'static>(core: &NotifierCore<I>, run: u64) -> Result<(), Error> {
    let mut state = core.lock();
    while state.run == run && state.phase == RunPhase::Starting {
        state = core.wait(state);
    }
    // A start that failed is over when its threads have ended.
    while state.run == run && state.phase == RunPhase::Stopping && state.failure.is_some() {
        state = core.wait(state);
    }
    match &state.failure {
        // The notifier may have been stopped since.
        _ if state.last_running >= run => Ok(()),
        Some(error) if state.run == run => Err(error.clone()),
        _ => Err(Error::Stopped),
    }
}

pub(crate) fn stop_within<I: Clone + Eq + Hash + Send + 'static>(
    core: &Arc<NotifierCore<I>>,
    limit: Option<Duration>,
) -> Result<(), StillRunning<I>> {
    if !core.halt(None) || core.is_own_thread() {
        return Ok(());
    }
    let deadline = limit.and_then(|limit| clock::now().checked_add(limit));
    let mut state = core.lock();
    let run = state.run;
    while state.run == run && state.phase == RunPhase::Stopping {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(clock::now()));
        state = match left {
            None => core.wait(state),
            Some(left) => {
                let call = state.dispatcher.as_ref().and_then(|dispatcher| dispatcher.running_call());
                if left.is_zero()
                    && let Some((id, channel)) = call
                {
                    return Err(StillRunning { id, channel });
                }
                // Without a call, the threads are about to end.
                let left = left.max(MOMENT);
                core.wait_timeout(state, left)
            }
        };
    }
    Ok(())
}

/// Starts without waiting.
pub(crate) fn start_ticket<I: Clone + Eq + Hash + Send + 'static>(core: &Arc<NotifierCore<I>>) -> Ticket<()> {
    on_thread(core, "notifier start", start)
}

/// Stops without waiting.
pub(crate) fn stop_ticket<I: Clone + Eq + Hash + Send + 'static>(core: &Arc<NotifierCore<I>>) -> Ticket<()> {
    core.halt(None);
    on_thread(core, "notifier stop", |core| {
        // Without a limit there is no error.
        let _ = stop_within(core, None);
        Ok(())
    })
}

/// Calls a function that blocks on a thread of its own. The ticket resolves to its result.
fn on_thread<I: Clone + Eq + Hash + Send + 'static>(
    core: &Arc<NotifierCore<I>>,
    name: &str,
    call: impl FnOnce(&Arc<NotifierCore<I>>) -> Result<(), Error> + Send + 'static,
) -> Ticket<()> {
    let (resolver, ticket) = Ticket::new(&core.threads);
    let spawned = {
        let core = Arc::clone(core);
        thread::Builder::new().name(name.into()).spawn(move || resolver.resolve(call(&core)))
    };
    match spawned {
        Ok(_) => ticket,
        Err(error) => Ticket::resolved(&core.threads, Err(Error::io("starting a thread", error))),
    }
}

/// The threads of a run, before they are spawned.
struct RunThreads<I: Clone + Eq + Hash + Send + 'static> {
    core: Arc<NotifierCore<I>>,
    source: RunningSource<I>,
    dispatcher: Arc<Dispatcher<I>>,
    run: u64,
}

impl<I: Clone + Eq + Hash + Send + 'static> RunThreads<I> {
    /// Begins a run: dials a session for each database, or starts the external source.
    fn begin(core: &Arc<NotifierCore<I>>, state: &mut NotifierState<I>, actions: &mut DeferredActions<I>) -> Self {
        let settings = &core.settings;
        let dispatcher = Arc::new(Dispatcher::new(settings.workers));
        state.run += 1;
        state.phase = RunPhase::Starting;
        if settings.keep_trying {
            (state.phase, state.last_running) = (RunPhase::Running, state.run);
        }
        state.failure = None;
        state.dispatcher = Some(Arc::clone(&dispatcher));
        state.by_connection.clear();
        let source =
            if state.is_external { begin_external(core, state, actions) } else { begin_manager(core, state, actions) };
        state.handle = source.as_ref().map(RunSource::handle);
        Self { core: Arc::clone(core), source: RunningSource::new(core, source), dispatcher, run: state.run }
    }

    /// Spawns the threads, and returns the number of the run. Threads that cannot be spawned count as ended, and the others
    /// end too.
    fn spawn(self) -> Result<u64, Error> {
        let Self { core, source, dispatcher, run } = self;
        let new_exit = || ThreadExit { core: Arc::clone(&core), dispatcher: Arc::clone(&dispatcher), run };
        let builder = |name: &str| thread::Builder::new().name(format!("notifier {name}"));
        let mut spawned = Ok(());
        for number in 0..core.settings.workers {
            let exit = new_exit();
            if spawned.is_ok() {
                let dispatch = move || {
                    exit.core.threads.join();
                    exit.dispatcher.run(number, &exit.core.context, &exit.core.panics);
                };
                spawned = builder("dispatcher").spawn(dispatch).map(drop);
            }
        }
        let (exit, notifier_loop) = (new_exit(), NotifierLoop::new(Arc::clone(&core), run));
        if spawned.is_ok() {
            let receive = move || {
                // The thread has ended only once the manager is dropped, or the source returned.
                let (_exit, notifier_loop) = (exit, notifier_loop);
                core.threads.join();
                notifier_loop.run(source);
            };
            spawned = builder("loop").spawn(receive).map(drop);
        }
        // The loop stops the run when it is dropped, also with a closure that could not be spawned.
        spawned.map(|()| run).map_err(|error| Error::io("starting a thread", error))
    }
}

/// Begins a run with a manager: dials a session for each database.
fn begin_manager<I: Clone + Eq + Hash + Send + 'static>(
    core: &NotifierCore<I>,
    state: &mut NotifierState<I>,
    actions: &mut DeferredActions<I>,
) -> Option<RunSource> {
    let settings = &core.settings;
    let mut manager = settings.manager();
    if settings.keep_trying {
        manager = settings.supervise(manager);
    }
    for (at, database) in state.databases.iter_mut().enumerate() {
        let channels = database.begin_session(settings.own_channel(), !settings.keep_trying, actions);
        match manager.dial(&database.config, channels) {
            Ok(id) => {
                database.session = DatabaseSession::Opening(Some(id));
                state.by_connection.insert(id, at);
            }
            Err(error) => database.handle_final_loss(&error, actions),
        }
    }
    Some(RunSource::Manager(Box::new(manager)))
}

/// Begins a run with the external source, each connection of which has a database.
fn begin_external<I: Clone + Eq + Hash + Send + 'static>(
    core: &NotifierCore<I>,
    state: &mut NotifierState<I>,
    actions: &mut DeferredActions<I>,
) -> Option<RunSource> {
    let mut source = state.external.take();
    // The former run returns the source before it has ended.
    let started = source.as_mut().map_or(Err(Error::Stopped), |source| source.start());
    let connections = source.as_ref().map(|source| source.connections()).unwrap_or_default();
    for (at, database) in state.databases.iter_mut().enumerate() {
        database.begin_session(None, !core.settings.keep_trying, actions);
        match (connections.get(at), &started) {
            (Some(id), Ok(())) => {
                database.session = DatabaseSession::Opening(Some(*id));
                state.by_connection.insert(*id, at);
            }
            (None, Ok(())) => database.handle_final_loss(&Error::UnknownConnection, actions),
            (_, Err(error)) => database.handle_final_loss(error, actions),
        }
    }
    source.map(RunSource::External)
}

/// Records the end of a thread of a run when it is dropped, also by a panic.
pub(crate) struct ThreadExit<I: Clone + Eq + Hash + Send + 'static> {
    pub(crate) core: Arc<NotifierCore<I>>,
    pub(crate) dispatcher: Arc<Dispatcher<I>>,
    pub(crate) run: u64,
}

impl<I: Clone + Eq + Hash + Send + 'static> Drop for ThreadExit<I> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.core.fail(self.run);
        }
        if !self.dispatcher.leave() {
            return;
        }
        // The run is this one until the phase changes. Notifications that still wait are dropped; each subscriber is informed at
        // the next start.
        self.core.discard_waiting();
        #[cfg(feature = "metrics")]
        samples::publish(&self.core, true);
        let mut state = self.core.lock();
        if state.run == self.run {
            state.phase = RunPhase::Stopped;
            state.dispatcher = None;
            self.core.notify_phase_changed();
        }
    }
}
