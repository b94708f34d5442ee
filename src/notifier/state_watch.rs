//! Calls a function when the state of a database changes.

use std::hash::Hash;
use std::mem::{Discriminant, discriminant};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread;

use crate::config::Config;
use crate::error::Error;
use crate::notifier::lifecycle::State;
use crate::notifier::owner::StopOnDrop;
use crate::notifier::shared::{NotifierCore, NotifierState, RunPhase};

/// A change of the state of one database: see [`Notifier::on_state_change`](crate::Notifier::on_state_change).
///
/// ```
/// use notifyman::notifier::{State, StateChange};
///
/// fn log(change: &StateChange) {
///     match change.state() {
///         State::Lost(error) => {
///             eprintln!("{} is lost: {error:#}", change.config());
///         }
///         state => println!("{} is {state:?}", change.config()),
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct StateChange {
    config: Config,
    state: State,
    overall: State,
}

impl StateChange {
    /// Returns the configuration of the database, with its [label](Config::get_label).
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the new state of the database.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns the state over all databases: see [`Notifier::overall_state`](crate::Notifier::overall_state).
    pub fn overall(&self) -> &State {
        &self.overall
    }
}

/// Starts a thread that calls a function with the state of each database, and with each change, until the notifier has no
/// handle and has stopped.
pub(crate) fn start<I: Clone + Eq + Hash + Send + 'static>(
    owner: &Arc<StopOnDrop<I>>,
    callback: impl FnMut(&StateChange) + Send + 'static,
) -> Result<(), Error> {
    let (core, owner) = (Arc::clone(&owner.0), Arc::downgrade(owner));
    let watch = move || watch(&core, &owner, callback);
    let started = thread::Builder::new().name("notifier states".into()).spawn(watch);
    started.map(drop).map_err(|error| Error::io("starting a thread", error))
}

fn watch<I: Clone + Eq + Hash + Send + 'static>(
    core: &NotifierCore<I>,
    owner: &Weak<StopOnDrop<I>>,
    mut callback: impl FnMut(&StateChange),
) {
    let mut known = Vec::new();
    let mut state = core.lock();
    loop {
        let changes = changes(&state, &mut known);
        if !changes.is_empty() {
            drop(state);
            for change in &changes {
                // The panic hook has reported a panic, and the next change is reported all the same.
                let _ = catch_unwind(AssertUnwindSafe(|| callback(change)));
            }
            state = core.lock();
        } else if owner.strong_count() == 0 && state.phase == RunPhase::Stopped {
            return;
        } else {
            state = core.wait(state);
        }
    }
}

/// Returns the databases whose state differs from the known one, which is updated.
fn changes<I>(state: &NotifierState<I>, known: &mut Vec<Discriminant<State>>) -> Vec<StateChange> {
    let states: Vec<_> = (0..state.databases.len()).map(|at| State::of(state, at)).collect();
    let has_changed = |(at, now): &(usize, &State)| known.get(*at) != Some(&discriminant(*now));
    let overall = State::of_all(state);
    let changes = states.iter().enumerate().filter(has_changed).filter_map(|(at, now)| {
        let config = state.databases.get(at)?.config.clone();
        Some(StateChange { config, state: now.clone(), overall: overall.clone() })
    });
    let changes = changes.collect();
    *known = states.iter().map(discriminant).collect();
    changes
}
