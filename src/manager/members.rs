//! Who is in a manager: each connection is in exactly one of connections, restoring and garbage, or has been taken.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Instant, SystemTime};

use crate::clock;
use crate::config::Config;
use crate::connection::Connection;
use crate::error::Error;
use crate::gap::{Gap, GapData};
use crate::manager::cancels::Cancelling;
use crate::manager::recovery::Heart;
use crate::manager::restore::Restore;
use crate::manager::timers::Set;
use crate::proto::sql::Limits;
use crate::proto::{CHANNELS_PER_REQUEST, Request};

/// Names a connection inside a manager.
///
/// Counted from 1 in the order given, the same whether the connection is good, being restored or dead, and never used
/// again for another. To get from it to something of your own, keep a map:
///
/// ```no_run
/// # fn main() -> Result<(), notifyman::Error> {
/// use std::collections::HashMap;
/// use notifyman::{ConnId, Connection, NotificationManager};
///
/// let mut nm = NotificationManager::new([]);
/// let mut shops: HashMap<ConnId, &str> = HashMap::new();
/// for shop in ["berlin", "oslo"] {
///     let mut db = Connection::connect(format!("postgres://db.example/{shop}"))?;
///     db.listen(["prices"])?;
///     shops.insert(nm.insert(db), shop);
/// }
/// for (id, batch) in nm.flatten() {
///     println!("{} prices changed in {}", batch.len(), shops[&id]);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is left of a connection that died: enough to say why, and to open it again.
///
/// It holds no undelivered notification: those came before it did.
///
/// ```no_run
/// # let mut nm = notifyman::NotificationManager::new([]);
/// for (id, dead) in nm.take_garbage() {
///     eprintln!("{id} is gone: {}", dead.error());
///     if dead.error().is_transient() {
///         nm.revive(id, dead);
///     }
/// }
/// ```
pub struct Dead {
    inner: Box<Remains>,
}

/// The most channels of one edit that are looked up one by one.
const FEW: usize = 16;

struct Remains {
    config: Config,
    /// Sorted, without duplicates.
    channels: Vec<Box<str>>,
    /// Why it died.
    cause: Error,
    /// Why it is still dead.
    error: Error,
    since: (Instant, SystemTime),
    epoch: u64,
    limits: Limits,
}

impl Dead {
    /// What remains of a closed connection.
    pub(crate) fn of(connection: &Connection) -> Self {
        let cause = connection.error().cloned().unwrap_or(Error::Closed);
        let since = match cause {
            // It went on talking, and of other things.
            Error::NotDelivering { .. } | Error::HeldBack { .. } => connection.delivery_proven(),
            _ => connection.last_read(),
        };
        // Channels may have been lost before the session was.
        let since = connection.relistening().map_or(since, |gap| since.min(gap.since()));
        Self {
            inner: Box::new(Remains {
                config: connection.config().clone(),
                channels: connection.session.possible_channels().map(Box::from).collect(),
                error: cause.clone(),
                cause,
                since: with_wall(since),
                epoch: connection.epoch(),
                limits: connection.session.limits(),
            }),
        }
    }

    /// What is to be opened for the first time.
    pub(crate) fn unopened(config: Config, channels: Vec<Box<str>>, limits: Limits) -> Self {
        let mut dead = Self {
            inner: Box::new(Remains {
                config,
                channels: Vec::new(),
                error: Error::Unopened,
                cause: Error::Unopened,
                since: (clock::now(), clock::wall()),
                epoch: 0,
                limits,
            }),
        };
        dead.edit(&Request::Listen(channels));
        dead
    }

    /// Whether it has never been open: then there is nothing that it may have missed.
    pub(crate) fn is_unopened(&self) -> bool {
        matches!(self.inner.cause, Error::Unopened)
    }

    /// The same, dead for another reason: an attempt to revive it failed.
    pub(crate) fn again(mut self, error: Error) -> Self {
        self.fail_again(error);
        self
    }

    /// An attempt to revive it failed.
    pub(crate) fn fail_again(&mut self, error: Error) {
        self.inner.error = error;
    }

    /// Where it was connected to.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// What it listened to, sorted.
    pub fn channels(&self) -> &[Box<str>] {
        &self.inner.channels
    }

    /// Why it died: the server's last word if there was one (a FATAL, or the WARNING that a crash sends), else what
    /// was noticed on this side. After an attempt to bring it back, or to open it at all: why that failed.
    pub fn error(&self) -> &Error {
        &self.inner.error
    }

    /// Opens it again, listens to the same channels, and gives the new connection, whose first batch carries the gap.
    ///
    /// It blocks, for up to the connect timeout and the call timeout. Inside a loop, use
    /// [`NotificationManager::revive`](crate::NotificationManager::revive), which doesn't.
    ///
    /// # Errors
    ///
    /// As [`Connection::connect`] and [`Connection::listen`]; what is dead stays as it was, to be tried again.
    pub fn reconnect(&self) -> Result<Connection, Error> {
        let mut connection = Connection::connect(&self.inner.config)?;
        for channels in self.channels().chunks(CHANNELS_PER_REQUEST) {
            connection.listen(channels)?;
        }
        self.mark_successor(&mut connection, 0, Vec::new());
        Ok(connection)
    }

    /// How far names can be checked on this side, as of the last session.
    pub(crate) fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// Changes what is to be listened to.
    pub(crate) fn edit(&mut self, ask: &Request) {
        let channels = &mut self.inner.channels;
        match ask {
            // There may be many edits of few channels each, and there may be edits of many.
            Request::Unlisten(less) if less.len() <= FEW => {
                for name in less {
                    if let Ok(at) = channels.binary_search(name) {
                        channels.remove(at);
                    }
                }
            }
            Request::Unlisten(less) => {
                let less: BTreeSet<&str> = less.iter().map(AsRef::as_ref).collect();
                channels.retain(|channel| !less.contains(&**channel));
            }
            Request::Listen(more) => {
                channels.extend_from_slice(more);
                channels.sort_unstable();
                channels.dedup();
            }
            Request::UnlistenAll => channels.clear(),
            _ => {}
        }
    }

    /// Marks a new connection, on which the channels are listened to again, as this one's successor; so many attempts
    /// have failed before.
    pub(crate) fn mark_successor(&self, connection: &mut Connection, failed: u32, more: Vec<Box<str>>) {
        let now = clock::now();
        if self.is_unopened() {
            // Most connections need no record of failed attempts.
            if failed > 0 {
                connection.establish(now, failed);
            }
            return;
        }
        let gap = GapData {
            channels: self.inner.channels.iter().cloned().chain(more).collect::<BTreeSet<_>>().into_iter().collect(),
            cause: self.inner.cause.clone(),
            since: self.inner.since,
            until: (now, clock::wall()),
            epoch: self.inner.epoch + 1,
        };
        connection.succeed(gap.into(), now, failed);
    }
}

/// What a session may have missed that had lost these channels since then.
pub(crate) fn unregistered_since(since: Instant, channels: &[Box<str>]) -> Gap {
    let since = with_wall(since);
    GapData { channels: channels.into(), cause: Error::Unregistered, since, until: since, epoch: 0 }.into()
}

/// A time in the past, on both clocks.
fn with_wall(at: Instant) -> (Instant, SystemTime) {
    let (ago, wall) = (clock::now().saturating_duration_since(at), clock::wall());
    (at, wall.checked_sub(ago).unwrap_or(wall))
}

impl fmt::Debug for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dead")
            .field("to", &format_args!("{}", self.inner.config))
            .field("channels", &self.inner.channels)
            .field("error", &self.inner.error)
            .finish()
    }
}

/// A place in the loop.
///
/// The connection itself lies in it: so who is ready is found with one look into memory, in three cache lines. With the
/// names of its channels, where no other connection has the same, that is all an idle one costs.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: ConnId,
    pub(crate) life: Life,
    /// Whether it stands in the queue of those to be served.
    pub(crate) queued: bool,
    /// Whether the peer has said that it will send no more: then only a read of nothing is the end.
    pub(crate) read_closed: bool,
    /// Whether the socket is watched for room to write, too.
    pub(crate) watches_write: bool,
    /// Whether its heartbeat is due.
    pub(crate) pulse_due: bool,
    /// The number of bytes that the pass of a zero timeout has read from the socket; `DRAIN_MAX` once the socket is
    /// empty.
    pub(crate) drained: u32,
    pub(crate) heart: Heart,
    /// Which of its timers count.
    pub(crate) set: Set,
}

impl Member {
    fn new(id: ConnId, life: Life) -> Self {
        Self {
            id,
            life,
            queued: false,
            read_closed: false,
            watches_write: false,
            pulse_due: false,
            drained: 0,
            heart: Heart::default(),
            set: Set::default(),
        }
    }
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are good, and nearly always")]
pub(crate) enum Life {
    Good(Connection),
    Restoring(Box<Restore>),
    /// A session of our own that is opened to send one canary: nobody sees it, and nobody waits for it.
    Messenger(Box<Restore>),
    /// A CancelRequest on behalf of a connection, which is hidden as well.
    Cancelling(Box<Cancelling>),
}

impl Life {
    /// Returns `true` for a member that the loop opened for itself, which no user sees.
    fn is_hidden(&self) -> bool {
        matches!(self, Life::Messenger(_) | Life::Cancelling(_))
    }
}

/// All of them. Those that live have a slot, whose number is their token in the reactor.
#[derive(Debug, Default)]
pub(crate) struct Members {
    slots: Vec<Option<Box<Member>>>,
    free: Vec<u32>,
    tokens: Tokens,
    restoring: usize,
    hidden: usize,
    garbage: Vec<(ConnId, Dead)>,
    last_id: u64,
    last_messenger: u64,
    /// How many times one has been looked at.
    #[cfg(test)]
    pub(crate) looks: std::cell::Cell<u64>,
}

impl Members {
    pub(crate) fn new_id(&mut self) -> ConnId {
        self.last_id += 1;
        ConnId(self.last_id)
    }

    /// An id that no user ever sees.
    pub(crate) fn new_messenger_id(&mut self) -> ConnId {
        self.last_messenger += 1;
        ConnId(u64::MAX - self.last_messenger)
    }

    /// Whether this id was given out by this manager, and names none that is in it.
    pub(crate) fn is_vacant(&self, id: ConnId) -> bool {
        id.0 <= self.last_id && self.token(id).is_none() && !self.garbage.iter().any(|(dead, _)| *dead == id)
    }

    /// Gives it a slot; the token is the slot's number.
    pub(crate) fn add(&mut self, id: ConnId, life: Life) -> u32 {
        self.restoring += usize::from(matches!(life, Life::Restoring(_)));
        self.hidden += usize::from(life.is_hidden());
        let member = Some(Box::new(Member::new(id, life)));
        // No system has descriptors for more.
        let token = self.free.pop().unwrap_or_else(|| u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        match self.slots.get_mut(token as usize) {
            Some(slot) => *slot = member,
            None => self.slots.push(member),
        }
        self.tokens.insert(id, token);
        token
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, token: u32) -> Option<&mut Member> {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
        self.slots.get_mut(token as usize)?.as_deref_mut()
    }

    pub(crate) fn get(&self, token: u32) -> Option<&Member> {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
        self.slots.get(token as usize)?.as_deref()
    }

    pub(crate) fn token(&self, id: ConnId) -> Option<u32> {
        self.tokens.get(id)
    }

    /// Empties a slot.
    pub(crate) fn take(&mut self, token: u32) -> Option<Member> {
        let member = self.slots.get_mut(token as usize)?.take()?;
        self.restoring -= usize::from(matches!(member.life, Life::Restoring(_)));
        self.hidden -= usize::from(member.life.is_hidden());
        self.tokens.remove(member.id);
        self.free.push(token);
        Some(*member)
    }

    /// A connection that was being restored is good: it keeps its slot.
    pub(crate) fn promote(&mut self, token: u32, connection: Connection) {
        if let Some(member) = self.get_mut(token) {
            member.life = Life::Good(connection);
            member.set = Set::default();
            self.restoring -= 1;
        }
    }

    pub(crate) fn bury(&mut self, id: ConnId, dead: Dead) {
        self.garbage.push((id, dead));
    }

    /// Takes one out of the garbage.
    pub(crate) fn exhume(&mut self, id: ConnId) -> Option<Dead> {
        let at = self.garbage.iter().position(|(dead, _)| *dead == id)?;
        Some(self.garbage.remove(at).1)
    }

    pub(crate) fn good(&self) -> usize {
        self.tokens.len - self.restoring - self.hidden
    }

    pub(crate) fn restoring(&self) -> usize {
        self.restoring
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len
    }

    /// Who lives and comes behind this one by id; behind the last, the first.
    pub(crate) fn after(&self, id: Option<ConnId>) -> Option<(ConnId, u32)> {
        id.and_then(|id| self.tokens.after(id)).or_else(|| self.tokens.after(ConnId(0)))
    }

    /// Whether nobody is there that could ever have something to say.
    pub(crate) fn is_deserted(&self) -> bool {
        self.tokens.len == self.hidden
    }

    pub(crate) fn tokens(&self) -> Vec<u32> {
        self.tokens.iter().collect()
    }

    /// Those that live, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.tokens.iter().filter_map(|token| self.get(token))
    }

    pub(crate) fn garbage(&self) -> &[(ConnId, Dead)] {
        &self.garbage
    }

    pub(crate) fn take_garbage(&mut self) -> Vec<(ConnId, Dead)> {
        std::mem::take(&mut self.garbage)
    }
}

/// From id to token, in the order of ids. Ids are dense as long as few have gone, so they are kept by the page: a few
/// bytes for each.
#[derive(Debug, Default)]
struct Tokens {
    pages: BTreeMap<u64, [u32; PAGE as usize]>,
    len: usize,
}

/// How many ids a page has.
const PAGE: u64 = 16;
/// Stands for no token.
const NOBODY: u32 = u32::MAX;

impl Tokens {
    fn get(&self, id: ConnId) -> Option<u32> {
        let token = self.pages.get(&(id.0 / PAGE))?.get((id.0 % PAGE) as usize);
        token.copied().filter(|token| *token != NOBODY)
    }

    fn insert(&mut self, id: ConnId, token: u32) {
        let page = self.pages.entry(id.0 / PAGE).or_insert([NOBODY; PAGE as usize]);
        if let Some(place) = page.get_mut((id.0 % PAGE) as usize) {
            self.len += usize::from(std::mem::replace(place, token) == NOBODY);
        }
    }

    fn remove(&mut self, id: ConnId) {
        let Some(page) = self.pages.get_mut(&(id.0 / PAGE)) else { return };
        if let Some(place) = page.get_mut((id.0 % PAGE) as usize) {
            self.len -= usize::from(std::mem::replace(place, NOBODY) != NOBODY);
        }
        if page.iter().all(|token| *token == NOBODY) {
            self.pages.remove(&(id.0 / PAGE));
        }
    }

    /// The first behind this id.
    fn after(&self, id: ConnId) -> Option<(ConnId, u32)> {
        let from = id.0.checked_add(1)?;
        let ids = self.pages.range(from / PAGE..).flat_map(|(page, tokens)| (page * PAGE..).map(ConnId).zip(*tokens));
        ids.into_iter().find(|(id, token)| id.0 >= from && *token != NOBODY)
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        self.pages.values().flatten().copied().filter(|token| *token != NOBODY)
    }
}

#[cfg(test)]
impl ConnId {
    pub(crate) fn for_test(number: u64) -> Self {
        Self(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_by_id_in_order_and_leave_nothing_behind() {
        let mut tokens = Tokens::default();
        let ids: Vec<_> = (1..200).map(ConnId).collect();
        ids.iter().rev().for_each(|id| tokens.insert(*id, 1000 - id.0 as u32));
        tokens.insert(ConnId(7), 5);
        assert_eq!((tokens.len, tokens.get(ConnId(7)), tokens.get(ConnId(200))), (199, Some(5), None));
        let in_order: Vec<_> = tokens.iter().collect();
        assert_eq!(in_order, ids.iter().map(|id| tokens.get(*id).unwrap()).collect::<Vec<_>>());
        let behind = |id: u64| tokens.after(ConnId(id)).map(|(id, _)| id.0);
        assert!((0..199).all(|id| behind(id) == Some(id + 1)));
        assert_eq!((behind(199), behind(u64::MAX)), (None, None));
        tokens.remove(ConnId(16));
        assert_eq!(tokens.after(ConnId(15)), Some((ConnId(17), 983)));
        for id in &ids {
            tokens.remove(*id);
            tokens.remove(*id);
            assert_eq!(tokens.get(*id), None);
        }
        assert_eq!((tokens.len, tokens.pages.len()), (0, 0));
    }
}
