//! The cursors of a subscriber.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};

use crate::notifier::cursor::{Cursor, address};
use crate::notifier::log::LogLimits;

/// Cursors, sorted by the address of the subscription. Most subscribers have one, which takes no allocation.
#[derive(Debug)]
pub(crate) enum CursorList<S> {
    One(Cursor<S>),
    /// `None` without a cursor, which is not a variant of its own since that would take 8 bytes more.
    Several(Option<Box<SeveralCursors<S>>>),
}

#[derive(Debug)]
pub(crate) struct SeveralCursors<S> {
    cursors: Vec<Cursor<S>>,
    /// The addresses of the subscriptions that may have unread notifications, if there are too many to look at each.
    unread: BTreeSet<usize>,
    /// The address of the subscription that was the only one with unread notifications at the last look.
    read: usize,
    /// The room that was left for each cursor when their checks were planned, unless it was exceeded.
    room: Option<LogLimits>,
}

/// The largest number of cursors that are all looked at for unread notifications. Unit tests have few.
pub(crate) const SCANNED_MAX: usize = if cfg!(test) { 2 } else { 64 };

impl<S> Default for CursorList<S> {
    fn default() -> Self {
        Self::Several(None)
    }
}

impl<S> Deref for CursorList<S> {
    type Target = [Cursor<S>];

    fn deref(&self) -> &[Cursor<S>] {
        match self {
            Self::One(cursor) => std::slice::from_ref(cursor),
            Self::Several(several) => several.as_ref().map_or(&[], |several| &several.cursors),
        }
    }
}

impl<S> DerefMut for CursorList<S> {
    fn deref_mut(&mut self) -> &mut [Cursor<S>] {
        match self {
            Self::One(cursor) => std::slice::from_mut(cursor),
            Self::Several(several) => several.as_mut().map_or(&mut [], |several| &mut several.cursors),
        }
    }
}

impl<S> CursorList<S> {
    /// Adds a cursor, and returns its index.
    pub(crate) fn insert(&mut self, cursor: Cursor<S>) -> usize {
        let at = self.partition_point(|other| other.address() < cursor.address());
        match std::mem::take(self) {
            Self::Several(None) => *self = Self::One(cursor),
            Self::One(other) => {
                let cursors = if at == 0 { vec![cursor, other] } else { vec![other, cursor] };
                *self = Self::Several(Some(Box::new(SeveralCursors {
                    cursors,
                    unread: BTreeSet::new(),
                    read: 0,
                    room: None,
                })));
            }
            Self::Several(Some(mut several)) => {
                several.cursors.insert(at, cursor);
                *self = Self::Several(Some(several));
            }
        }
        at
    }

    pub(crate) fn remove(&mut self, subscription: &S) -> Option<Cursor<S>> {
        let at = self.position(subscription)?;
        match std::mem::take(self) {
            Self::One(cursor) => Some(cursor),
            Self::Several(several) => {
                let mut several = several?;
                let removed = several.cursors.remove(at);
                several.unread.remove(&removed.address());
                *self = match &*several.cursors {
                    [_] => several.cursors.pop().map(Self::One).unwrap_or_default(),
                    _ => Self::Several(Some(several)),
                };
                Some(removed)
            }
        }
    }

    /// Returns the index of the cursor of a subscription.
    pub(crate) fn position(&self, subscription: &S) -> Option<usize> {
        self.position_of(address(subscription))
    }

    fn position_of(&self, address: usize) -> Option<usize> {
        self.binary_search_by_key(&address, Cursor::address).ok()
    }

    /// Returns `true` if the loop must note which of the cursors have unread notifications.
    pub(crate) fn is_noted(&self) -> bool {
        self.len() > SCANNED_MAX
    }

    /// Notes that a cursor may have unread notifications, if it has some.
    pub(crate) fn add_unread(&mut self, at: usize) {
        if let Self::Several(Some(several)) = self
            && let Some(cursor) = several.cursors.get(at).filter(|cursor| cursor.unread() > 0)
        {
            several.unread.insert(cursor.address());
        }
    }

    /// Records the room for each of several cursors.
    pub(crate) fn set_room(&mut self, room: Option<LogLimits>) {
        if let Self::Several(Some(several)) = self {
            several.room = room;
        }
    }

    pub(crate) fn room(&self) -> Option<LogLimits> {
        if let Self::Several(Some(several)) = self { several.room } else { None }
    }

    /// Forgets all notes.
    pub(crate) fn clear_unread(&mut self) {
        if let Self::Several(Some(several)) = self {
            several.unread.clear();
        }
    }

    /// Returns the cursors that have unread notifications.
    pub(crate) fn unread(&self) -> impl Iterator<Item = &Cursor<S>> {
        let (all, noted) = match self {
            Self::Several(Some(several)) if self.is_noted() => (&[][..], Some(&several.unread)),
            _ => (&**self, None),
        };
        let noted = noted.into_iter().flatten().filter_map(|address| self.get(self.position_of(*address)?));
        all.iter().chain(noted).filter(|cursor| cursor.unread() > 0)
    }

    /// Returns the only cursor, or that of several that alone has unread notifications.
    pub(crate) fn only_unread(&mut self) -> Option<&mut Cursor<S>> {
        if let Self::Several(_) = self {
            self.clear_read();
            let mut unread = self.unread().map(Cursor::address);
            let address = unread.next().filter(|_| unread.next().is_none())?;
            drop(unread);
            if let Self::Several(Some(several)) = self {
                several.read = address;
            }
        }
        self.last_only_unread()
    }

    /// Removes the notes of cursors that have read everything.
    fn clear_read(&mut self) {
        if let Self::Several(Some(several)) = self
            && several.unread.len() > 1
        {
            let SeveralCursors { cursors, unread, .. } = &mut **several;
            unread.retain(|address| {
                let at = cursors.binary_search_by_key(address, Cursor::address).ok();
                at.and_then(|at| cursors.get(at)).is_some_and(|cursor| cursor.unread() > 0)
            });
        }
    }

    /// Returns the only cursor, or that of several that [alone](Self::only_unread) had unread notifications at the last look.
    pub(crate) fn last_only_unread(&mut self) -> Option<&mut Cursor<S>> {
        let address = match self {
            Self::One(cursor) => return Some(cursor),
            Self::Several(several) => several.as_ref()?.read,
        };
        let at = self.position_of(address)?;
        self.get_mut(at)
    }

    /// Returns the indices of the cursors that may have unread notifications. Of several cursors, none is noted then.
    pub(crate) fn take_unread(&mut self) -> Vec<usize> {
        let is_noted = self.is_noted();
        match self {
            Self::Several(Some(several)) if is_noted => {
                let unread = std::mem::take(&mut several.unread);
                unread.into_iter().filter_map(|address| self.position_of(address)).collect()
            }
            _ => (0..self.len()).collect(),
        }
    }
}
