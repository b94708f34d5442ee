//! The identities: which connection has which id, which token, and which connections are in the garbage.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::log;
use super::member::Member;
use super::ready_queue::Schedule;
use super::task::Task;
use crate::config::Config;
use crate::connection::Linked;
use crate::manager::conn_id::ConnId;
use crate::manager::dead::Dead;

/// The place of a connection or a task. Its index is the token in the poll.
///
/// A live connection lies in its slot, so a connection that is ready is found with one access to memory, in three cache
/// lines. Together with the names of its channels, where no other connection has the same, that is all that an idle
/// connection costs.
pub(super) struct Slot<C: Linked> {
    pub(super) schedule: Schedule,
    pub(super) occupant: Occupant<C>,
}

#[allow(clippy::large_enum_variant, reason = "nearly all are members")]
pub(super) enum Occupant<C: Linked> {
    Member(Member<C>),
    /// A connection that the fleet opens for itself, which no user sees.
    Task(Box<Task<C::Stream>>),
}

impl<C: Linked> Slot<C> {
    pub(super) fn member(&self) -> Option<&Member<C>> {
        if let Occupant::Member(member) = &self.occupant { Some(member) } else { None }
    }

    pub(super) fn member_mut(&mut self) -> Option<&mut Member<C>> {
        if let Occupant::Member(member) = &mut self.occupant { Some(member) } else { None }
    }
}

/// All connections and tasks.
pub(super) struct Roster<C: Linked> {
    slots: Vec<Option<Box<Slot<C>>>>,
    free: Vec<u32>,
    tokens: TokenMap,
    pub(super) garbage: Vec<(ConnId, Dead)>,
    last_id: u64,
    /// The number of connections that are being restored or opened.
    pub(super) restoring: usize,
    /// The number of accesses to slots.
    #[cfg(test)]
    pub(super) accesses: std::cell::Cell<u64>,
}

impl<C: Linked> Default for Roster<C> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            tokens: TokenMap::default(),
            garbage: Vec::new(),
            last_id: 0,
            restoring: 0,
            #[cfg(test)]
            accesses: std::cell::Cell::default(),
        }
    }
}

impl<C: Linked> Roster<C> {
    /// Returns a new id, with the name of a connection with this configuration.
    pub(super) fn new_id(&mut self, config: &Config) -> ConnId {
        self.last_id += 1;
        ConnId::new(self.last_id, config)
    }

    /// Returns `true` if this id was given out and belongs to no connection now.
    pub(super) fn is_vacant(&self, id: ConnId) -> bool {
        id.number() <= self.last_id && self.token(id).is_none() && !self.garbage.iter().any(|(dead, _)| *dead == id)
    }

    /// Adds a connection and returns its token.
    pub(super) fn add(&mut self, member: Member<C>) -> u32 {
        let id = member.id;
        self.restoring += usize::from(member.as_live().is_none());
        let token = self.occupy(Occupant::Member(member));
        self.tokens.insert(id, token);
        token
    }

    pub(super) fn occupy(&mut self, occupant: Occupant<C>) -> u32 {
        let slot = Some(Box::new(Slot { schedule: Schedule::default(), occupant }));
        // No system has file descriptors for more.
        let token = self.free.pop().unwrap_or_else(|| u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        match self.slots.get_mut(token as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        token
    }

    #[inline]
    pub(super) fn get_mut(&mut self, token: u32) -> Option<&mut Slot<C>> {
        #[cfg(test)]
        self.accesses.set(self.accesses.get() + 1);
        self.slots.get_mut(token as usize)?.as_deref_mut()
    }

    #[inline]
    pub(super) fn get(&self, token: u32) -> Option<&Slot<C>> {
        #[cfg(test)]
        self.accesses.set(self.accesses.get() + 1);
        self.slots.get(token as usize)?.as_deref()
    }

    pub(super) fn token(&self, id: ConnId) -> Option<u32> {
        self.tokens.get(id)
    }

    pub(super) fn find(&self, id: ConnId) -> Option<&Member<C>> {
        self.get(self.token(id)?)?.member()
    }

    /// Logs a timer that has fired for a connection, or for a task on its behalf.
    pub(super) fn log_timer(&self, token: u32, timer: impl Debug) {
        let (id, member) = match self.get(token).map(|slot| &slot.occupant) {
            Some(Occupant::Member(member)) => (member.id, Some(member)),
            Some(Occupant::Task(task)) => (task.owner, self.find(task.owner)),
            None => return,
        };
        log::timer_fired(id, member.and_then(Member::config), timer);
    }

    /// Removes a connection or a task.
    pub(super) fn remove(&mut self, token: u32) -> Option<Slot<C>> {
        let slot = self.slots.get_mut(token as usize)?.take()?;
        if let Some(member) = slot.member() {
            self.tokens.remove(member.id);
            self.restoring -= usize::from(member.as_live().is_none());
        }
        self.free.push(token);
        Some(*slot)
    }

    /// Removes the CancelRequests for a connection.
    pub(super) fn remove_cancels(&mut self, owner: ConnId) {
        let is_cancel =
            |slot: &Slot<C>| matches!(&slot.occupant, Occupant::Task(task) if task.is_cancel() && task.owner == owner);
        for (token, slot) in (0..).zip(&mut self.slots) {
            if slot.take_if(|slot| is_cancel(slot)).is_some() {
                self.free.push(token);
            }
        }
    }

    /// Returns the number of connections, live or being restored.
    pub(super) fn len(&self) -> usize {
        self.tokens.len
    }

    /// Returns the connection after this one in the order of ids; after the last, the first.
    pub(super) fn after(&self, id: Option<ConnId>) -> Option<(ConnId, u32)> {
        let next = id.and_then(|id| self.tokens.after(id.number()));
        let token = next.or_else(|| self.tokens.after(0))?;
        Some((self.get(token)?.member()?.id, token))
    }

    /// Returns the tokens of all connections, in the order of ids.
    pub(super) fn tokens(&self) -> Vec<u32> {
        self.tokens.iter().collect()
    }

    /// Returns the tokens of all tasks.
    pub(super) fn tasks(&self) -> Vec<u32> {
        let is_task = |slot: &Option<Box<Slot<C>>>| slot.as_ref().is_some_and(|slot| slot.member().is_none());
        (0..).zip(&self.slots).filter(|(_, slot)| is_task(slot)).map(|(token, _)| token).collect()
    }

    /// Returns all connections, in the order of ids.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member<C>> {
        self.tokens.iter().filter_map(|token| self.get(token)?.member())
    }

    // ---- the garbage ------------------------------------------------------------------------------------------------

    pub(super) fn remove_garbage(&mut self, id: ConnId) -> Option<Dead> {
        let at = self.garbage.iter().position(|(dead, _)| *dead == id)?;
        Some(self.garbage.remove(at).1)
    }
}

/// A map from ids to tokens, in the order of ids. Ids are dense as long as few connections have been removed, so they are
/// stored in pages: a few bytes for each.
#[derive(Debug, Default)]
struct TokenMap {
    pages: BTreeMap<u64, [u32; PAGE as usize]>,
    len: usize,
}

/// The number of ids in a page.
const PAGE: u64 = 16;
/// The absence of a token.
const VACANT: u32 = u32::MAX;

impl TokenMap {
    fn get(&self, id: ConnId) -> Option<u32> {
        let token = self.pages.get(&(id.number() / PAGE))?.get((id.number() % PAGE) as usize);
        token.copied().filter(|token| *token != VACANT)
    }

    fn insert(&mut self, id: ConnId, token: u32) {
        let page = self.pages.entry(id.number() / PAGE).or_insert([VACANT; PAGE as usize]);
        if let Some(place) = page.get_mut((id.number() % PAGE) as usize) {
            self.len += usize::from(std::mem::replace(place, token) == VACANT);
        }
    }

    fn remove(&mut self, id: ConnId) {
        let Some(page) = self.pages.get_mut(&(id.number() / PAGE)) else { return };
        if let Some(place) = page.get_mut((id.number() % PAGE) as usize) {
            self.len -= usize::from(std::mem::replace(place, VACANT) != VACANT);
        }
        if page.iter().all(|token| *token == VACANT) {
            self.pages.remove(&(id.number() / PAGE));
        }
    }

    /// Returns the token of the first connection whose number is greater than this one.
    fn after(&self, number: u64) -> Option<u32> {
        let from = number.checked_add(1)?;
        let tokens = self.pages.range(from / PAGE..).flat_map(|(page, tokens)| (page * PAGE..).zip(*tokens));
        tokens.into_iter().find(|(number, token)| *number >= from && *token != VACANT).map(|(_, token)| token)
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        self.pages.values().flatten().copied().filter(|token| *token != VACANT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_by_id_in_order_and_leave_nothing_behind() {
        let mut tokens = TokenMap::default();
        let ids: Vec<_> = (1..200).map(ConnId::for_test).collect();
        ids.iter().rev().for_each(|id| tokens.insert(*id, 1000 - id.number() as u32));
        tokens.insert(ConnId::for_test(7), 5);
        assert_eq!(
            (tokens.len, tokens.get(ConnId::for_test(7)), tokens.get(ConnId::for_test(200))),
            (199, Some(5), None)
        );
        let in_order: Vec<_> = tokens.iter().collect();
        assert_eq!(in_order, ids.iter().map(|id| tokens.get(*id).unwrap()).collect::<Vec<_>>());
        assert!((0..199).all(|number| number == 6 || tokens.after(number) == Some(999 - number as u32)));
        assert_eq!((tokens.after(6), tokens.after(199), tokens.after(u64::MAX)), (Some(5), None, None));
        tokens.remove(ConnId::for_test(16));
        assert_eq!(tokens.after(15), Some(983));
        for id in &ids {
            tokens.remove(*id);
            tokens.remove(*id);
            assert_eq!(tokens.get(*id), None);
        }
        assert_eq!((tokens.len, tokens.pages.len()), (0, 0));
    }
}
