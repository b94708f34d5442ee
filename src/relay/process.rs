//! A running relay: one loop for all databases, and a thread for each stream.
//!
//! ```text
//!   manager's loop ──▶ inbox of a database ──▶ its thread: candidate or leader ──▶ engine
//!                                                  └─ lock, canary: by the handle ─▶ the session in the loop
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock;
use crate::config::Config;
use crate::error::Error;
use crate::manager::{Backoff, CANARY_CHANNEL, ConnId, Event, Handle, Jitter, NotificationManager};
use crate::relay::builder::RelayBuilder;
use crate::relay::identity::RelayIdentity;
use crate::relay::inbox::{Inbox, Received};
use crate::relay::leader::{StreamLeader, StreamSetup};
use crate::relay::pace::RelayPace;
use crate::relay::redis::{EngineConfig, Interrupt, RedisSink};
use crate::relay::session::{LeaderSession, MARKER_CHANNEL, ManagedSession};
use crate::relay::sink::Sink;
use crate::relay::status::{RelayRole, RelayStatus, StreamStatus};
use crate::relay::watch::later;

/// The shortest limit for opening a session, and for a request on it.
const LIMIT_MIN: Duration = Duration::from_secs(3);

/// The time between two looks at threads that are ending.
const STOP_STEP: Duration = Duration::from_millis(5);

/// A relay that runs on threads of its own, until it is stopped or dropped.
///
/// Start two of them, on two machines, for each group of databases: one leads, and the other one takes over if it fails. Which
/// one that is, they agree on for each database.
///
/// It has a thread for its loop and one for each database. For each database, up to 64 MiB or 100,000 notifications wait for an
/// engine that is slow or away, and beyond that there is a gap; a candidate keeps up to 64 MiB of what it has received.
///
/// ```no_run
/// use notifyman::relay::{Relay, RelayRole};
///
/// # fn main() -> Result<(), notifyman::Error> {
/// let relay = Relay::builder("redis://localhost")?
///     .database("postgres://localhost/shop", ["prices"])?
///     .start()?;
/// let leads = |relay: &Relay| relay.status()[0].role == RelayRole::Leader;
/// while !leads(&relay) {
///     std::thread::sleep(std::time::Duration::from_secs(1));
/// }
/// relay.stop();
/// # Ok(()) }
/// ```
pub struct Relay {
    handle: Handle,
    threads: Mutex<Vec<JoinHandle<()>>>,
    statuses: Vec<Arc<StreamStatus>>,
    /// The ends of the calls to the engine, for each stream.
    interrupts: Vec<Arc<Interrupt>>,
    /// The time that an answer of the engine may take.
    answer_timeout: Duration,
}

impl Relay {
    /// Returns the settings of a relay to an engine.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for an invalid URL.
    pub fn builder<E>(engine: E) -> Result<RelayBuilder, Error>
    where
        E: TryInto<EngineConfig>,
        E::Error: Into<Error>,
    {
        Ok(RelayBuilder::new(engine.try_into().map_err(Into::into)?))
    }

    pub(crate) fn start(builder: RelayBuilder) -> Result<Self, Error> {
        let RelayBuilder { engine, databases, keep, pace, on_event } = builder;
        let mut manager = NotificationManager::new([])
            .park_when_empty(true)
            .timeout(None)
            .reconnect(Backoff::default().retry_all(true))
            .heartbeat(pace.period, pace.deadline)
            .canary_at_any_pace(CANARY_CHANNEL, pace.period, pace.deadline);
        let handle = manager.handle();
        let (relay, number) = relay_name();
        let mut started = Self {
            handle: handle.clone(),
            threads: Mutex::default(),
            statuses: Vec::new(),
            interrupts: Vec::new(),
            answer_timeout: engine.answer_timeout,
        };
        // After an error the queues are dropped first, and so the threads end that are waited for.
        let mut inboxes = HashMap::new();
        for (index, database) in (0_u64..).zip(databases) {
            let listened = database.channels.iter().map(|channel| &**channel).chain([MARKER_CHANNEL]);
            let id = manager.dial(limited(&database.config, pace), listened)?;
            let inbox = Arc::new(Inbox::default());
            let shown = database.config.get_label().map_or_else(|| id.to_string(), str::to_owned);
            let status = Arc::new(StreamStatus::new(&shown, Arc::clone(&inbox), Arc::clone(&on_event)));
            let changes_of = database.has_changes.then(|| database.config.to_string().into());
            let (engine, interrupt) = (engine.clone(), Arc::<Interrupt>::default());
            started.interrupts.push(Arc::clone(&interrupt));
            let setup = StreamSetup {
                engine: Box::new(move |stream: &str| {
                    RedisSink::new(engine.clone(), stream, keep, Arc::clone(&interrupt))
                }),
                label: database.config.get_label().map(Into::into),
                channels: database.channels,
                pace,
                // Two of them may be of one database: no marker of one stream is that of another.
                identity: RelayIdentity::new(&format!("{relay}-{index}"), number.wrapping_add(index)),
            };
            let session = ManagedSession::new(handle.clone(), id, pace.silence(), changes_of);
            let leader = StreamLeader::new(setup, session, Arc::clone(&status));
            started.spawn("relay stream", {
                let (inbox, status) = (Arc::clone(&inbox), StatusGuard(Arc::clone(&status)));
                move || {
                    let _status = status;
                    serve(leader, &inbox);
                }
            })?;
            started.statuses.push(status);
            inboxes.insert(id, InboxFiller(inbox));
        }
        started.spawn("relay loop", move || receive(manager, &inboxes))?;
        Ok(started)
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let spawned = thread::Builder::new().name(name.into()).spawn(run);
        self.threads().push(spawned.map_err(|error| Error::io("starting a thread", error))?);
        Ok(())
    }

    /// Returns the state of each stream, in the order of the databases.
    pub fn status(&self) -> Vec<RelayStatus> {
        self.statuses.iter().map(|status| status.read()).collect()
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the relay: what was received is appended, and another relay may lead immediately. Stopping again has no effect.
    ///
    /// It waits for the engine as long as one answer may take, at most 5 seconds, whatever is left to append.
    pub fn stop(&self) {
        drop(self.handle.stop());
        let deadline = later(clock::now(), self.answer_timeout);
        self.interrupts.iter().for_each(|interrupt| interrupt.stop_by(deadline));
        let mut threads = std::mem::take(&mut *self.threads());
        // The function that is called for events may stop the relay; its thread cannot wait for itself.
        threads.retain(|it| it.thread().id() != thread::current().id());
        while !threads.iter().all(JoinHandle::is_finished) && clock::now() < deadline {
            thread::sleep(STOP_STEP);
        }
        // A call that began before has a later limit, and a handshake one for each of its reads.
        self.interrupts.iter().for_each(|interrupt| interrupt.stop());
        for thread in threads {
            // A panic of a thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("streams", &self.status()).finish_non_exhaustive()
    }
}

impl Drop for Relay {
    /// Stops the relay: see [`stop`](Self::stop).
    fn drop(&mut self) {
        self.stop();
    }
}

/// Limits each wait of a session to the time after which a leader counts as failed, so that a half-open link is replaced then.
fn limited(config: &Config, pace: RelayPace) -> Config {
    let limit = pace.silence().max(LIMIT_MIN);
    let within = |timeout: Option<Duration>| timeout.map_or(limit, |timeout| timeout.min(limit));
    let (call, connect) = (within(config.get_call_timeout()), within(config.get_connect_timeout()));
    config.clone().call_timeout(call).connect_timeout(connect)
}

/// Records that the thread of a stream has ended, also by a panic.
struct StatusGuard(Arc<StreamStatus>);

impl Drop for StatusGuard {
    fn drop(&mut self) {
        self.0.set_role(RelayRole::Away, None);
    }
}

/// Ends the queue of a stream when it is dropped.
struct InboxFiller(Arc<Inbox>);

impl Drop for InboxFiller {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Sorts the events of the loop by stream, until it is stopped.
fn receive(mut manager: NotificationManager, inboxes: &HashMap<ConnId, InboxFiller>) {
    while let Some(event) = manager.next_event() {
        let (id, received) = match event {
            Event::Notifies(id, batch) => (id, Received::Notifications(batch.detach())),
            Event::Opened(id) => (id, Received::Opened),
            Event::Restored(id, gap) => (id, Received::Restored(gap)),
            Event::Disconnected(id, error) | Event::Lost(id, error) => (id, Received::Disconnected(error)),
            _ => continue,
        };
        if let Some(InboxFiller(inbox)) = inboxes.get(&id) {
            inbox.push(received);
        }
    }
}

/// Serves a stream until its queue is stopped.
fn serve<K: Sink, S: LeaderSession>(mut leader: StreamLeader<K, S>, inbox: &Inbox) {
    loop {
        let received = inbox.take(leader.deadline(clock::now()), leader.takes());
        let now = clock::now();
        received.into_iter().for_each(|received| leader.handle(received, now));
        if inbox.is_stopped() {
            // There is no session any more for anything else.
            inbox.take(now, true).into_iter().for_each(|received| leader.handle(received, now));
            return leader.finish(now);
        }
        leader.advance(&clock::now);
    }
}

/// Returns a name for this process, and a number, which no other has.
fn relay_name() -> (String, u64) {
    let number = Jitter::random().number();
    (format!("{}-{number:016x}", std::process::id()), number)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;
    use crate::relay::memory_sink::MemorySink;
    use crate::relay::session::{LockHolder, PreparedSession};

    /// A session that counts the requests, which all fail.
    struct CountingSession(Arc<AtomicUsize>);

    impl CountingSession {
        fn refuse<T>(&self) -> Result<T, Error> {
            self.0.fetch_add(1, SeqCst);
            Err(Error::Disconnected)
        }
    }

    impl LeaderSession for CountingSession {
        fn prepare(&mut self) -> Result<PreparedSession, Error> {
            self.refuse()
        }

        fn try_lock(&mut self, _: &str) -> Result<bool, Error> {
            self.refuse()
        }

        fn publish_term(&mut self, _: u64) -> Result<(), Error> {
            self.refuse()
        }

        fn unlock(&mut self) -> Result<(), Error> {
            self.refuse()
        }

        fn send_marker(&mut self, _: &str) {
            self.0.fetch_add(1, SeqCst);
        }

        fn holder(&mut self, _: &str) -> Result<Option<LockHolder>, Error> {
            self.refuse()
        }

        fn end_holder(&mut self, _: &str, _: i32) -> Result<bool, Error> {
            self.refuse()
        }
    }

    #[test]
    fn r06_a_relay_that_is_stopped_makes_no_more_requests() {
        let (requests, inbox) = (Arc::<AtomicUsize>::default(), Arc::<Inbox>::default());
        let pace = RelayPace { period: Duration::from_secs(15), deadline: Duration::from_secs(5) };
        let setup = StreamSetup {
            engine: Box::new(|_: &str| MemorySink::default()),
            label: Some("shop".into()),
            channels: vec!["a".into()],
            pace,
            identity: RelayIdentity::new("a", 7),
        };
        let status = Arc::new(StreamStatus::new("shop", Arc::clone(&inbox), Arc::new(|_| ())));
        inbox.push(Received::Opened);
        inbox.stop();
        serve(StreamLeader::new(setup, CountingSession(Arc::clone(&requests)), status), &inbox);
        assert_eq!(requests.load(SeqCst), 0);
    }
}
