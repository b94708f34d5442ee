//! Many connections on one loop.
//!
//! ```text
//!   Handle ── messages ▶ requests ─┐            ┌─ pulse: is anybody there?  canary: does it come?  audit: does it know?
//!                                  ▼            ▼
//!   for event in nm ──────▶  turn: who is ready is served, one read each ──▶ batches, idle events
//!                                │  ▲
//!                       died ──▶ lost ──▶ restore: dial, log in, listen again ──▶ a gap, then what comes later
//! ```
//!
//! `members` says who is where, `timers` who is looked at when; `recovery` and `rounds` hold what can be decided without
//! a socket.
//!
//! It refuses to look at a connection that isn't ready, to wait for a server, to stop reading because a consumer is slow,
//! and to fail: connections do, one by one.

mod audit;
mod canary;
mod cancels;
mod edits;
mod guard;
mod handle;
mod log;
mod lost;
mod members;
mod pulse;
mod recovery;
mod requests;
mod restore;
mod rounds;
#[cfg(test)]
mod simulation;
mod stats;
mod ticket;
mod timers;
mod turn;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use self::audit::Rota;
use self::canary::Canary;
pub(crate) use self::canary::PERIOD_MIN as CANARY_PERIOD_MIN;
use self::cancels::Cancels;
pub use self::guard::ConnectionMut;
pub use self::handle::Handle;
use self::handle::Shared;
pub use self::members::{ConnId, Dead};
use self::members::{Life, Members};
pub use self::recovery::Backoff;
use self::recovery::{Dials, Heartbeat, Jitter};
use self::requests::PendingReply;
pub use self::stats::Stats;
pub use self::ticket::Ticket;
pub(crate) use self::ticket::{Resolver, ThreadMark};
use self::timers::Timers;
use self::turn::{Manner, WATCHING};
use self::watch::OpenTransactions;
use crate::clock;
use crate::config::Config;
use crate::connection::idle::Idle;
use crate::connection::{Common, Connection};
use crate::error::Error;
use crate::gap::Gap;
use crate::net::{PollWaker, Reactor};
use crate::notification::Batch;
use crate::proto::{READ_SIZE, ReadBuffer, RequestId, sql};

/// Waits on many connections at once, and yields what each of them has: `Some((conn, batch))`, or `None` when idle.
///
/// *Idle* is `Some(None)`, a safe place to stop or to do other work; *the end* is `None`.
///
/// ```no_run
/// use std::time::Duration;
/// use notifyman::{Connection, NotificationManager};
///
/// # fn main() -> Result<(), notifyman::Error> {
/// let mut conns = Vec::new();
/// for shop in ["berlin", "oslo"] {
///     let mut db = Connection::connect(format!("postgres://db.example/{shop}"))?;
///     db.listen(["prices"])?;
///     conns.push(db);
/// }
/// for event in NotificationManager::new(conns).timeout(Duration::from_secs(2)) {
///     match event {
///         None => println!("idle"),
///         Some((conn, notifies)) => {
///             for n in &notifies {
///                 println!("{conn} {} {} {}", n.channel(), n.payload(), n.pid());
///             }
///         }
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # When it yields, and when it ends
///
/// - **No timeout:** batches, for as long as there are connections.
/// - **A timeout:** also an idle event about that often, never early, also under load. At an idle event the manager
///   holds nothing undelivered.
/// - **Zero:** reads every socket once until it is empty, yields the notifications, and ends. No idle event.
///   Notifications that arrive later, even because of the loop's body, belong to the next iteration.
/// - **It ends at once** when there is no good connection and none is being restored, unless it was told to
///   [park](Self::park_when_empty). So look at the garbage after the loop, too.
///
/// The iterator isn't fused: after an end (zero timeout, no connections, a stop) it can be iterated again.
///
/// However much some have to say, nobody waits long: each is read from once (64 KiB) in its turn, and stands in line again.
/// Whoever has something comes after at most two such reads of each other that has; where over 1,024 wake at once, after
/// one more for each 1,024 of them.
///
/// # Connections that die
///
/// What had come from them is yielded; then they are in the [garbage](Self::garbage) with the reason, until they are
/// taken, and perhaps [revived](Self::revive). [`next_event`](Self::next_event) tells of each as it happens.
///
/// # What it won't do
///
/// It never stops reading because a consumer is slow within one process: a listener that doesn't read fills the
/// server's NOTIFY queue and blocks its VACUUM. So hand work to other threads rather than do it in the loop's body.
/// Dropping it closes its sessions; to keep them, take them out with [`into_connections`](Self::into_connections).
pub struct NotificationManager {
    members: Members,
    /// What its connections have in common.
    common: Common,
    reactor: Result<Reactor, Error>,
    waker: Option<PollWaker>,
    buffer: ReadBuffer,
    idle: Idle,
    parks: bool,
    /// The time, as of the last look at the sockets.
    now: Instant,

    /// Who is to be served, by token; each stands there once.
    ready: VecDeque<u32>,
    /// How many of those belong to the turn that runs.
    to_serve: usize,
    /// Who was touched by the caller in this turn.
    touched: Vec<u32>,
    /// Connections that have become ready since the pass of a zero timeout drained them.
    deferred: Vec<u32>,
    /// Connections that this pass has read.
    drained: Vec<u32>,
    /// The server processes of connections that were taken out after the pass had drained them: if one is inserted again
    /// meanwhile, what it has since is for the next pass.
    taken_drained: Vec<i32>,
    /// Whether the sockets have been looked at since the idle event came due.
    looked: bool,
    /// What is to be told next.
    collected: VecDeque<Event>,
    /// When to look at whom, whatever its socket does.
    timers: Timers,
    /// How the lost are brought back, if they are.
    backoff: Option<Backoff>,
    /// Who dials, and who waits for that.
    dials: Dials<ConnId>,
    /// The same for those that are opened for the first time.
    first_dials: Dials<ConnId>,
    heartbeat: Option<Heartbeat>,
    canary: Option<Box<Canary>>,
    audit: Option<Rota>,
    jitter: Jitter,
    /// What handles and the loop itself have asked the servers, and wait for.
    asked: BTreeMap<(ConnId, RequestId), PendingReply>,
    cancels: Cancels,
    /// Who waits for the waker, because a name is being looked up.
    looking_up: Vec<ConnId>,
    in_transaction: OpenTransactions,
    /// The refused checks of delivery that have been reported.
    refused_checks: BTreeSet<(ConnId, Check)>,
    /// How many stops are to be obeyed.
    stops: usize,
    shared: Arc<Shared>,
}

/// Everything that a manager tells: see [`NotificationManager::next_event`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Nothing has come for the time of the timeout, or the time was over under load; nothing is held undelivered.
    Idle,
    /// What one connection had, in the server's order; never empty.
    Notifies(ConnId, Batch),
    /// A connection that the manager was told to [dial](NotificationManager::dial) is open, and listens.
    Opened(ConnId),
    /// A connection is back, or listens again to what its server had forgotten, and what it may have missed; it comes
    /// before anything that was heard since.
    Restored(ConnId, Gap),
    /// A connection has died, or couldn't be brought back, and is in the garbage.
    Lost(ConnId, Error),
    /// A connection's transaction has been open for over a second. Until it ends, the server delivers nothing to it.
    InTransaction(ConnId),
    /// The server has refused a check of delivery, with this error: until the session ends, faults that only this check
    /// finds remain unnoticed. Reported once for each session and check.
    CheckRefused(ConnId, Check, Error),
}

/// A check of delivery: see [`Event::CheckRefused`].
///
/// ```
/// use notifyman::Check;
///
/// assert_eq!(Check::Audit.to_string(), "audit");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Check {
    /// The [canary](NotificationManager::canary).
    Canary,
    /// The [audit](NotificationManager::audit), also after a canary that did not arrive.
    Audit,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::Canary => "canary",
            Check::Audit => "audit",
        })
    }
}

impl NotificationManager {
    /// A manager of these connections, with ids counted from 1 in their order.
    ///
    /// It doesn't fail: where the system has no poller left, the first turn moves every connection to the garbage with
    /// that reason.
    pub fn new(connections: impl IntoIterator<Item = Connection>) -> Self {
        // A poller that no handle could wake is none.
        let made = Reactor::new().and_then(|reactor| Ok((reactor.waker()?, reactor)));
        let (waker, reactor) = match made {
            Ok((waker, reactor)) => (Some(waker), Ok(reactor)),
            Err(e) => (None, Err(Error::io("making a poller", e))),
        };
        let mut manager = Self {
            members: Members::default(),
            common: Common::default(),
            reactor,
            waker: waker.clone(),
            buffer: ReadBuffer::new(READ_SIZE),
            idle: Idle::default(),
            parks: false,
            now: clock::now(),
            ready: VecDeque::new(),
            to_serve: 0,
            touched: Vec::new(),
            deferred: Vec::new(),
            drained: Vec::new(),
            taken_drained: Vec::new(),
            looked: false,
            collected: VecDeque::new(),
            timers: Timers::default(),
            backoff: None,
            dials: Dials::default(),
            first_dials: Dials::default(),
            heartbeat: None,
            canary: None,
            audit: None,
            jitter: Jitter::random(),
            asked: BTreeMap::new(),
            cancels: Cancels::default(),
            looking_up: Vec::new(),
            in_transaction: OpenTransactions::default(),
            refused_checks: BTreeSet::new(),
            stops: 0,
            shared: Arc::new(Shared::new(waker)),
        };
        for connection in connections {
            manager.insert(connection);
        }
        manager
    }

    /// With this timeout: `None` for no idle events, [`Duration::ZERO`] to drain and end; [`Duration::MAX`] is never.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.set_timeout(timeout);
        self
    }

    /// Changes the timeout, also between two events; a new period begins with the next.
    pub fn set_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.idle = Idle::new(timeout.into());
        self.looked = false;
        self.undefer();
    }

    /// The timeout that is set.
    pub fn current_timeout(&self) -> Option<Duration> {
        self.idle.period()
    }

    /// Whether to wait for the [handle](Self::handle) when there is no connection, rather than to end: for a service
    /// that starts empty. It ends by [`Handle::stop`], and with a zero timeout.
    #[must_use]
    pub fn park_when_empty(mut self, parks: bool) -> Self {
        self.parks = parks;
        self
    }

    /// With lost connections brought back by themselves: dialled inside the loop, without stalling it, and listening to
    /// the same channels under the same id.
    ///
    /// Meanwhile a connection is [restoring](Self::restoring): neither among the [connections](Self::connections) nor
    /// in the garbage. Its first batch after the restore carries the [`Gap`]. Few failures are final: refused
    /// credentials, a missing database and a refused certificate move the connection to the garbage, unless
    /// [`Backoff::retry_all`] is set; so does closing it in this program. Names are resolved again for each attempt.
    /// Each request listens to up to 10,000 channels.
    ///
    /// ```no_run
    /// # let conns: [notifyman::Connection; 0] = [];
    /// use std::time::Duration;
    /// use notifyman::{Backoff, NotificationManager};
    ///
    /// let nm = NotificationManager::new(conns)
    ///     .reconnect(Backoff::default())
    ///     .heartbeat(Duration::from_secs(15), Duration::from_secs(5));
    /// for (conn, batch) in nm.flatten() {
    ///     if let Some(gap) = batch.gap() {
    ///         println!("{conn} was away for {:?}: {:?} are stale", gap.duration(), gap.channels());
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn reconnect(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// With a heartbeat: a connection from which no byte came for `idle` is asked whether it is there, by the cheapest
    /// message that the protocol has (`Sync`); if none has come `deadline` later, it is lost.
    ///
    /// So a link that died without a word is found within `idle + deadline`, whatever the network does; keepalive
    /// doesn't see a frozen server, nor anything behind a proxy. Any byte from the server counts as life. While a request
    /// by the handle or a canary is unanswered, its own limit, the call timeout, counts instead.
    ///
    /// The periods are spread over a quarter of `idle`, so that many connections don't ask at once; and the loop wakes for
    /// them at most 32 times in the shorter of the two, so that many timers cost no more than a few.
    #[must_use]
    pub fn heartbeat(mut self, idle: Duration, deadline: Duration) -> Self {
        self.heartbeat = Some(Heartbeat { idle, deadline });
        self.start_all_pulses();
        self
    }

    // ---- events -------------------------------------------------------------------------------------------------

    /// The next event, with nothing left out; `None` is the end.
    ///
    /// The iterator takes from the same queue, but leaves out [`Event::Lost`] (see the garbage), [`Event::Opened`],
    /// [`Event::InTransaction`] and [`Event::CheckRefused`], and puts the gap of [`Event::Restored`] into a
    /// [batch](Batch::gap): the first one with notifications, or an empty one.
    ///
    /// ```no_run
    /// use notifyman::Event;
    /// # let mut nm = notifyman::NotificationManager::new([]);
    /// while let Some(event) = nm.next_event() {
    ///     match event {
    ///         Event::Idle => println!("idle"),
    ///         Event::Notifies(id, batch) => println!("{id}: {} notifications", batch.len()),
    ///         Event::Lost(id, error) => eprintln!("{id} is gone: {error}"),
    ///         Event::Restored(id, gap) => println!("{id} is back, and missed {:?}", gap.duration()),
    ///         _ => {}
    ///     }
    /// }
    /// ```
    pub fn next_event(&mut self) -> Option<Event> {
        match self.turn(Manner { wait: true, gap_apart: true }) {
            Poll::Ready(event) => event,
            // It doesn't happen to whom waits; and if it did, an idle event harms nobody.
            Poll::Pending => Some(Event::Idle),
        }
    }

    /// The next event if there is one now; for running inside another loop.
    ///
    /// Call it until it gives `Pending`; then wait until the manager's descriptor is readable or
    /// [`next_deadline`](Self::next_deadline) is over, whichever comes first, and call it again. `Ready(None)` is the
    /// end, as in [`next_event`](Self::next_event).
    ///
    /// In tokio, with an `AsyncFd`:
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use std::os::fd::AsRawFd;
    /// use std::task::Poll;
    /// use notifyman::{Connection, Event, NotificationManager};
    /// use tokio::io::{Interest, unix::AsyncFd};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut db = Connection::connect(database())?;
    /// # db.listen(["prices"])?;
    /// # db.notify("prices", "42")?;
    /// let mut nm = NotificationManager::new([db]);
    /// let readable = AsyncFd::with_interest(nm.as_raw_fd(), Interest::READABLE)?;
    /// 'events: loop {
    ///     while let Poll::Ready(event) = nm.try_next_event() {
    ///         match event {
    ///             Some(Event::Notifies(id, batch)) => println!("{id}: {}", batch.len()),
    ///             Some(event) => println!("{event:?}"),
    ///             None => break 'events,
    ///         }
    /// #       break 'events;
    ///     }
    ///     match nm.next_deadline() {
    ///         Some(at) => tokio::select! {
    ///             guard = readable.readable() => guard?.clear_ready(),
    ///             () = tokio::time::sleep_until(at.into()) => {}
    ///         },
    ///         None => readable.readable().await?.clear_ready(),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn try_next_event(&mut self) -> Poll<Option<Event>> {
        self.turn(Manner { wait: false, gap_apart: true })
    }

    /// When [`try_next_event`](Self::try_next_event) is to be called at the latest, whatever the descriptor does;
    /// `None` for never. It is in the past while anything is left over, which the descriptor doesn't show.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline()
    }

    // ---- connections --------------------------------------------------------------------------------------------

    /// Adds a connection, also between two events. What it already holds is yielded; one that is closed goes to the
    /// garbage with the next turn.
    pub fn insert(&mut self, mut connection: Connection) -> ConnId {
        connection.forget_pass();
        connection.share(&mut self.common);
        let id = self.members.new_id();
        let was_drained = self.taken_drained.contains(&connection.pid());
        let token = self.members.add(id, Life::Good(connection));
        if was_drained {
            self.set_drained(token);
        }
        self.touch(token);
        self.watch(token);
        self.start_pulse(token);
        self.attend(token);
        self.count_members();
        id
    }

    /// Opens a connection inside the loop, to listen to these channels, and gives its id at once.
    ///
    /// Up to 256 are dialled side by side, without stalling those that are open: so a manager of a thousand databases
    /// works for each from the moment it is there, and one that hangs holds up nobody. Until it is open it is
    /// [restoring](Self::restoring); then [`Event::Opened`] tells. One that fails goes to the garbage with the reason;
    /// with [`reconnect`](Self::reconnect), if trying again can help, that is done until it does. What the loop's body
    /// takes counts towards `connect_timeout`: a body that takes longer leaves a dial no time.
    ///
    /// To have all of them open before the loop begins, use [`Connection::connect_many`].
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::{Event, NotificationManager};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let dsns = [database(), database(), "host=127.0.0.1 port=1 user=nobody".to_owned()];
    /// let mut nm = NotificationManager::new([]);
    /// for dsn in &dsns {
    ///     nm.dial(dsn, ["prices"])?;
    /// }
    /// # let (mut opened, mut lost) = (0, 0);
    /// while let Some(event) = nm.next_event() {
    ///     match event {
    ///         Event::Opened(id) => println!("{id} listens"),
    ///         Event::Lost(id, error) => eprintln!("{id}: {error}"),
    ///         event => println!("{event:?}"),
    ///     }
    /// #   opened = nm.connections().count();
    /// #   lost = nm.garbage().count();
    /// #   if opened + lost == 3 { break }
    /// }
    /// # assert_eq!((opened, lost), (2, 1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for settings that can't be used, and [`Error::Value`] for a channel that can't be; nobody is
    /// dialled then.
    pub fn dial<C, I>(&mut self, config: C, channels: I) -> Result<ConnId, Error>
    where
        C: TryInto<Config>,
        C::Error: Into<Error>,
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let (config, channels) = check_dial(config, channels)?;
        Ok(self.open_now(config, channels, sql::Limits::ServerDecides))
    }

    /// The same, where it is known how far names can be checked; what can't be opened is in the garbage.
    pub(crate) fn dial_within<I>(&mut self, config: Config, channels: I, limits: sql::Limits) -> ConnId
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        match sql::checked_channels(channels, limits) {
            Ok(channels) => self.open_now(config, channels, limits),
            Err(error) => {
                let id = self.members.new_id();
                self.members.bury(id, Dead::unopened(config, Vec::new(), limits).again(error.clone()));
                self.count_members();
                self.collected.push_back(Event::Lost(id, error));
                id
            }
        }
    }

    /// Takes a connection out, also between two events, with what was not delivered still in it.
    ///
    /// Where there is a [canary](Self::canary) it is told to leave that channel, without waiting for the answer; in an
    /// open transaction, as that ends. Nothing of the channel ever comes out of it.
    ///
    /// Gives nothing for an id that isn't here; `Err` with what remains for one that is dead or being restored (which
    /// is given up).
    ///
    /// ```no_run
    /// # let mut nm = notifyman::NotificationManager::new([]);
    /// # let id = nm.connections().next().unwrap().0;
    /// if let Some(Ok(mut db)) = nm.remove(id) {
    ///     db.unlisten_all()?;
    /// }
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn remove(&mut self, id: ConnId) -> Option<Result<Connection, Dead>> {
        let Some(token) = self.members.token(id) else {
            let dead = self.members.exhume(id);
            self.count_members();
            return dead.map(Err);
        };
        if let Some((_, connection)) = self.give_back(token) {
            return Some(Ok(connection));
        }
        let Life::Restoring(restore) = self.members.take(token)?.life else { return None };
        if restore.has_place() {
            self.end_dial(restore.is_first());
        }
        self.count_members();
        Some(Err(restore.cancel()))
    }

    /// Opens a dead connection again, inside the loop and without stalling it: the same id, the same channels.
    ///
    /// Until that is done it is [restoring](Self::restoring). Then its first batch carries the [`Gap`]; or it is in the
    /// garbage once more, with the new reason. One attempt is made; with [`reconnect`](Self::reconnect), as many as it
    /// takes.
    ///
    /// The id must be one that this manager gave out, and of nobody who is in it; else the connection gets a new one.
    /// Gives the id that it has.
    pub fn revive(&mut self, id: ConnId, dead: Dead) -> ConnId {
        let id = if self.members.is_vacant(id) { id } else { self.members.new_id() };
        self.revive_now(id, dead);
        id
    }

    /// A good connection, to look at.
    pub fn get(&self, id: ConnId) -> Option<&Connection> {
        match &self.members.get(self.members.token(id)?)?.life {
            Life::Good(connection) => Some(connection),
            _ => None,
        }
    }

    /// A good connection, to call. The calls block the whole loop for a round trip, or up to their timeout.
    ///
    /// ```no_run
    /// # let mut nm = notifyman::NotificationManager::new([]);
    /// # let id = nm.connections().next().unwrap().0;
    /// if let Some(mut db) = nm.get_mut(id) {
    ///     db.listen(["one_more"])?;
    /// }
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn get_mut(&mut self, id: ConnId) -> Option<ConnectionMut<'_>> {
        let token = self.members.token(id)?;
        ConnectionMut::new(token, self.members.get_mut(token)?, &mut self.ready, &mut self.touched)
    }

    /// The good connections, by id.
    pub fn connections(&self) -> impl Iterator<Item = (ConnId, &Connection)> {
        self.members.iter().filter_map(|member| match &member.life {
            Life::Good(connection) => Some((member.id, connection)),
            _ => None,
        })
    }

    /// Those that are being restored, by id, and why they have to be, or why the last attempt failed; also those that are
    /// being opened for the first time.
    pub fn restoring(&self) -> impl Iterator<Item = (ConnId, &Dead)> {
        self.members.iter().filter_map(|member| match &member.life {
            Life::Restoring(restore) => Some((member.id, restore.dead())),
            _ => None,
        })
    }

    /// The dead, in the order in which they died.
    pub fn garbage(&self) -> impl Iterator<Item = (ConnId, &Dead)> {
        self.members.garbage().iter().map(|(id, dead)| (*id, dead))
    }

    /// Empties the garbage.
    pub fn take_garbage(&mut self) -> Vec<(ConnId, Dead)> {
        let garbage = self.members.take_garbage();
        self.count_members();
        garbage
    }

    /// Gives the good connections back, with what was not delivered still in them: nothing, at an idle event.
    pub fn into_connections(mut self) -> Vec<(ConnId, Connection)> {
        self.members.tokens().into_iter().filter_map(|token| self.give_back(token)).collect()
    }

    // ---- control ------------------------------------------------------------------------------------------------

    /// Control of this manager from other threads.
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared) }
    }

    /// The counters, as they are now.
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    /// Has the reactor watch a connection; where that fails, the connection is lost.
    fn watch(&mut self, token: u32) {
        if let Ok(reactor) = &self.reactor
            && let Some(member) = self.members.get(token)
            && let Life::Good(connection) = &member.life
            && let Some(stream) = connection.stream()
            && let Err(error) = reactor.register(stream, token, false)
        {
            self.close_for(token, Error::io(WATCHING, error));
        }
    }
}

/// Refuses at once what can't be dialled, whatever the server.
fn check_dial<C, I>(config: C, channels: I) -> Result<(Config, Vec<Box<str>>), Error>
where
    C: TryInto<Config>,
    C::Error: Into<Error>,
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let config = config.try_into().map_err(Into::into)?;
    config.startup_parameters()?;
    config.endpoints()?;
    let channels = sql::checked_channels(channels, sql::Limits::ServerDecides)?;
    Ok((config, channels))
}

impl Iterator for NotificationManager {
    type Item = Option<(ConnId, Batch)>;

    /// The next batch, or `Some(None)` for an idle event, or `None` for the end.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.turn(Manner { wait: true, gap_apart: false }) {
                Poll::Ready(None) => return None,
                Poll::Ready(Some(Event::Idle)) | Poll::Pending => return Some(None),
                Poll::Ready(Some(Event::Notifies(id, batch))) => return Some(Some((id, batch))),
                Poll::Ready(Some(Event::Restored(id, gap))) => {
                    return Some(Some((id, Batch::empty().with_gap(gap))));
                }
                Poll::Ready(Some(
                    Event::Opened(_) | Event::Lost(..) | Event::InTransaction(_) | Event::CheckRefused(..),
                )) => {}
            }
        }
    }
}

impl Drop for NotificationManager {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl AsRawFd for NotificationManager {
    /// The poller's descriptor, to be watched for reading by another loop; -1 where there is no poller, and then
    /// [`try_next_event`](NotificationManager::try_next_event) says so.
    fn as_raw_fd(&self) -> RawFd {
        self.reactor.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl fmt::Debug for NotificationManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotificationManager")
            .field("timeout", &self.idle.period())
            .field("stats", &self.stats())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Stream;
    use crate::proto::Session;

    fn connection_over(fd: impl Into<std::os::fd::OwnedFd>) -> Connection {
        let config = Config::new().host("127.0.0.1").user("u");
        Connection::new(Session::new(&config).unwrap(), Stream::from_fd(fd.into()), config, clock::now())
    }

    /// A poller takes sockets, and refuses a file.
    #[cfg(target_os = "linux")]
    #[test]
    fn m10_a_registration_that_fails_sends_that_connection_to_the_garbage_and_no_other() {
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let (good, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        good.set_nonblocking(true).unwrap();
        let mut manager = NotificationManager::new([connection_over(file), connection_over(good)]);
        let Some(Event::Lost(id, Error::Io { action: WATCHING, .. })) = manager.next_event() else { panic!() };
        assert_eq!(id, ConnId::for_test(1));
        assert_eq!(manager.garbage().map(|(id, _)| id).collect::<Vec<_>>(), [id]);
        assert_eq!(manager.connections().map(|(id, _)| id).collect::<Vec<_>>(), [ConnId::for_test(2)]);
    }

    /// Ids that are brought back, each to a server that takes them and never says a word.
    fn reviving(count: usize, backoff: Backoff) -> (NotificationManager, Vec<ConnId>, std::net::TcpListener) {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let config = Config::new().host("127.0.0.1").port(server.local_addr().unwrap().port()).user("u");
        let mut manager = NotificationManager::new([]).reconnect(backoff);
        let dead = || {
            let (end, _) = std::os::unix::net::UnixStream::pair().unwrap();
            let session = Session::new(&config).unwrap();
            let mut connection = Connection::new(session, Stream::from_fd(end.into()), config.clone(), clock::now());
            connection.close_for(Error::Disconnected);
            Dead::of(&connection)
        };
        let ids = (0..count).map(|_| manager.revive(ConnId::for_test(1_000_000), dead())).collect();
        for _ in 0..3 {
            assert!(manager.try_next_event().is_pending());
        }
        (manager, ids, server)
    }

    fn has_place(manager: &NotificationManager, id: ConnId) -> bool {
        let member = manager.members.token(id).and_then(|token| manager.members.get(token)).unwrap();
        matches!(&member.life, Life::Restoring(restore) if restore.has_place())
    }

    #[test]
    fn m13_who_is_taken_out_while_it_waits_to_dial_keeps_no_place_from_the_next() {
        let (mut manager, ids, _server) = reviving(3, Backoff::default().at_once(1).per_second(100));
        assert_eq!(ids.iter().map(|id| has_place(&manager, *id)).collect::<Vec<_>>(), [true, false, false]);
        assert!(manager.remove(ids[0]).unwrap().is_err());
        // Its place is free, and the next's as soon as time allows; but that one is taken out.
        assert!(manager.try_next_event().is_pending());
        assert!(manager.remove(ids[1]).unwrap().is_err());
        let begun = clock::now();
        while !has_place(&manager, ids[2]) {
            assert!(begun.elapsed() < Duration::from_secs(60), "the last one waits for ever");
            assert!(manager.next_deadline().is_some_and(|at| at < begun + Duration::from_secs(10)));
            assert!(manager.try_next_event().is_pending());
        }
    }

    #[test]
    fn m13_those_who_wait_to_dial_cost_no_timers_and_no_turns() {
        let (manager, ids, _server) = reviving(500, Backoff::default().at_once(2).per_second(1000));
        assert!(ids.iter().filter(|id| has_place(&manager, **id)).count() <= 2);
        assert!(manager.timers.count(timers::Why::Look) <= 2);
    }

    #[test]
    fn a_manager_and_its_handle_can_go_to_another_thread() {
        fn is_send<T: Send>() {}
        fn is_sync<T: Sync>() {}
        is_send::<NotificationManager>();
        is_send::<Connection>();
        is_send::<Handle>();
        is_sync::<Handle>();
        is_send::<Ticket<Connection>>();
        is_send::<Error>();
        is_sync::<Error>();
    }
}
