//! The state of each database of a worker, for other threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::{Error, Escaped};

/// The state of one database of a worker, at one time: see [`WorkerWatch`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatabaseState {
    /// `true` while changes are received: the session listens, or reads the log.
    pub is_connected: bool,
    /// The time since delivery was last proven: since the log was read, or else since a [canary](super::Worker::canary) arrived. `None`
    /// before the first time.
    pub proven_age: Option<Duration>,
    /// The reasons why changes may not arrive, such as the loss of the session; empty if none is known. Each is one line, escaped.
    pub problems: Vec<String>,
}

/// Shows the state of a worker's databases to any thread, for a health check.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// use notifyman::changes::{Installer, Worker};
/// use notifyman::{Config, Connection};
///
/// # fn main() -> Result<(), notifyman::Error> {
/// # let mut db = Connection::connect(database())?;
/// # db.execute("CREATE TABLE price (id int PRIMARY KEY, cents int)")?;
/// # Installer::new().build(&mut db)?;
/// let mut changes = Worker::new([database().parse::<Config>()?]).start()?;
/// let watch = changes.watch();
/// assert_eq!(watch.databases().len(), 1);
/// changes.next(); // connected
/// let is_healthy = watch.databases().iter().all(|it| it.is_connected);
/// assert!(is_healthy);
/// # Ok(()) }
/// ```
///
/// # Limits
///
/// - It shows what the worker knows. A server that has stopped silently is noticed by the heartbeat, within 25 seconds; a
///   pooler that delivers nothing only by the [canary](super::Worker::canary), or because a log is not read.
/// - What is installed is not judged: see [`Status`](super::Status).
#[derive(Debug, Clone, Default)]
pub struct WorkerWatch {
    states: Arc<Mutex<Vec<WatchedDatabase>>>,
}

#[derive(Debug, Default)]
struct WatchedDatabase {
    is_connected: bool,
    proven: Option<Instant>,
    /// The reason why the database is not connected.
    loss: Option<String>,
    /// The warnings that last.
    warnings: Vec<String>,
}

impl WorkerWatch {
    pub(crate) fn new(databases: usize) -> Self {
        let states = std::iter::repeat_with(WatchedDatabase::default).take(databases).collect();
        Self { states: Arc::new(Mutex::new(states)) }
    }

    /// Returns the state of each database, in the order of their numbers.
    pub fn databases(&self) -> Vec<DatabaseState> {
        let now = clock::now();
        let state = |database: &WatchedDatabase| DatabaseState {
            is_connected: database.is_connected,
            proven_age: database.proven.map(|at| now.saturating_duration_since(at)),
            problems: database.loss.iter().chain(&database.warnings).cloned().collect(),
        };
        self.lock().iter().map(state).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<WatchedDatabase>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state of the database with this number, from 1.
    fn update(&self, database: usize, change: impl FnOnce(&mut WatchedDatabase)) {
        if let Some(database) = self.lock().get_mut(database.wrapping_sub(1)) {
            change(database);
        }
    }

    pub(crate) fn set_connected(&self, database: usize) {
        self.update(database, |it| (it.is_connected, it.loss) = (true, None));
    }

    pub(crate) fn set_lost(&self, database: usize, error: &Error) {
        let loss = Escaped(format!("{error:#}")).to_string();
        self.update(database, |it| (it.is_connected, it.loss) = (false, Some(loss)));
    }

    pub(crate) fn set_proven(&self, database: usize, now: Instant) {
        self.update(database, |it| it.proven = Some(now));
    }

    pub(crate) fn set_warnings<'w>(&self, database: usize, warnings: impl Iterator<Item = &'w String>) {
        let warnings = warnings.map(|warning| Escaped(warning).to_string()).collect();
        self.update(database, |it| it.warnings = warnings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r07_the_state_of_a_database_is_that_of_its_last_change() {
        let watch = WorkerWatch::new(2);
        watch.set_connected(1);
        watch.set_proven(1, clock::now());
        watch.set_lost(2, &Error::Disconnected);
        watch.set_warnings(2, ["no\x1b".to_owned()].iter());
        watch.set_connected(3);
        let states = watch.databases();
        assert!(states[0].is_connected && states[0].problems.is_empty() && states[0].proven_age.is_some());
        let problems = &states[1].problems;
        assert!(!states[1].is_connected && problems.len() == 2 && problems[1] == "no\\u{1b}", "{states:?}");
        watch.set_warnings(2, [].iter());
        watch.set_connected(2);
        assert!(watch.databases()[1].is_connected && watch.databases()[1].problems.is_empty());
    }
}
