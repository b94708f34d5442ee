//! The connections that serve a channel, and how fresh they prove it to be.

use std::time::Instant;

use crate::fence::epoch::LinkState;
use crate::manager::ConnId;

/// Identifies a source of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceId(u64);

/// The sources of a channel. All of them must be open for the channel to be. One that has ended keeps the channel closed until
/// another one is added: what it protected is protected no more.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    last: u64,
    all: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    id: SourceId,
    /// The connection of a manager. Another source with the same one takes its place.
    conn: Option<ConnId>,
    state: LinkState,
    as_of: Option<Instant>,
    was_open: bool,
    has_ended: bool,
}

impl Sources {
    pub(crate) fn add(&mut self, conn: Option<ConnId>) -> SourceId {
        self.last += 1;
        let id = SourceId(self.last);
        self.all.retain(|source| !source.has_ended);
        self.push(id, conn, LinkState::Closed);
        id
    }

    fn push(&mut self, id: SourceId, conn: Option<ConnId>, state: LinkState) {
        let was_open = state == LinkState::Open;
        self.all.push(Source { id, conn, state, as_of: None, was_open, has_ended: false });
    }

    /// Ends a source. One that has never been open is removed.
    pub(crate) fn remove(&mut self, id: SourceId) {
        let Some(ended) = self.get_mut(id) else { return };
        (ended.state, ended.as_of, ended.has_ended) = (LinkState::Closed, None, true);
        let (conn, was_open) = (ended.conn, ended.was_open);
        let is_replaced = conn.is_some() && self.all.iter().any(|other| other.conn == conn && other.id != id);
        if !was_open || is_replaced {
            self.all.retain(|source| source.id != id);
        }
    }

    fn get_mut(&mut self, id: SourceId) -> Option<&mut Source> {
        self.all.iter_mut().find(|source| source.id == id)
    }

    /// Changes the state of a source. Returns `false` if it had that state already, or nothing arrived from it before its
    /// connection was lost.
    pub(crate) fn set(&mut self, id: SourceId, state: LinkState) -> bool {
        match self.get_mut(id) {
            Some(source) if source.state == state => return false,
            Some(source) if state == LinkState::Away && source.state == LinkState::Closed => return false,
            Some(source) => {
                (source.state, source.as_of) = (state, None);
                // A subscription that had been replaced is back, because the other one was refused.
                (source.was_open, source.has_ended) = (source.was_open || state == LinkState::Open, false);
            }
            None if state == LinkState::Open => self.push(id, None, state),
            None => return false,
        }
        true
    }

    /// Opens a source that was away and has missed nothing. Returns `false` if it was not away.
    pub(crate) fn resume(&mut self, id: SourceId) -> bool {
        let is_away = self.get_mut(id).is_some_and(|source| source.state == LinkState::Away);
        is_away && self.set(id, LinkState::Open)
    }

    /// Records that everything committed before a time has been applied, or that this is not certain.
    pub(crate) fn prove(&mut self, id: SourceId, as_of: Option<Instant>) {
        if let Some(source) = self.get_mut(id).filter(|source| source.state == LinkState::Open) {
            source.as_of = as_of;
        }
    }

    /// Returns the state of the channel: that of the source that is worst off.
    pub(crate) fn state(&self) -> LinkState {
        self.all.iter().map(|source| source.state).min().unwrap_or(LinkState::Closed)
    }

    /// Returns the time before which everything committed has been applied, if all sources are open and prove one.
    pub(crate) fn as_of(&self) -> Option<Instant> {
        let open = self.all.iter().map(|source| source.as_of.filter(|_| source.state == LinkState::Open));
        // `None` is the least.
        open.min().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A change is of a source, to one of three states, a proof (3), a withdrawal (4) or the end (5).
        #[test]
        fn f02_a_channel_is_open_and_certified_only_if_each_source_is(changes in vec((0..3_usize, 0..6_usize), 0..30)) {
            const STATES: [LinkState; 3] = [LinkState::Closed, LinkState::Away, LinkState::Open];
            let start = crate::clock::now();
            let mut sources = Sources::default();
            let ids = [0, 1, 2].map(|_| sources.add(None));
            // The state, the proof, and `true` once it was open.
            let mut naive = [Some((LinkState::Closed, None, false)); 3];
            for (second, (at, change)) in changes.into_iter().enumerate() {
                let proof = start + Duration::from_secs(second as u64);
                match (STATES.get(change), &mut naive[at]) {
                    (Some(state), it) => {
                        let is_change = match it {
                            None => *state == LinkState::Open,
                            Some((before, ..)) => before != state && (*before, *state) != (LinkState::Closed, LinkState::Away),
                        };
                        if is_change {
                            let was_open = *state == LinkState::Open || it.is_some_and(|(_, _, was_open)| was_open);
                            *it = Some((*state, None, was_open));
                        }
                        prop_assert_eq!(sources.set(ids[at], *state), is_change);
                    }
                    (None, it) if change == 5 => {
                        *it = it.filter(|(_, _, was_open)| *was_open).map(|_| (LinkState::Closed, None, true));
                        sources.remove(ids[at]);
                    }
                    (None, it) => {
                        let proof = (change == 3).then_some(proof);
                        if let Some((LinkState::Open, last, _)) = it {
                            *last = proof;
                        }
                        sources.prove(ids[at], proof);
                    }
                }
                let all = || naive.iter().flatten();
                let is_all = |wanted| all().count() > 0 && all().all(|(state, ..)| *state >= wanted);
                prop_assert_eq!(sources.state() == LinkState::Open, is_all(LinkState::Open));
                prop_assert_eq!(sources.state() >= LinkState::Away, is_all(LinkState::Away));
                let proofs: Option<Vec<_>> = all().map(|(_, proof, _)| *proof).collect();
                let worst = proofs.unwrap_or_default().into_iter().min();
                prop_assert_eq!(sources.as_of(), worst.filter(|_| is_all(LinkState::Open)));
            }
        }
    }

    #[test]
    fn f03_a_channel_is_as_fresh_as_its_worst_source() {
        let mut sources = Sources::default();
        assert_eq!((sources.state(), sources.as_of()), (LinkState::Closed, None));
        let now = Instant::now();
        let (a, b) = (sources.add(None), sources.add(None));
        assert!(sources.set(a, LinkState::Open) && !sources.set(a, LinkState::Open));
        assert_eq!(sources.state(), LinkState::Closed);
        sources.set(b, LinkState::Open);
        sources.prove(a, Some(now + Duration::from_secs(1)));
        assert_eq!((sources.state(), sources.as_of()), (LinkState::Open, None), "one proves nothing");
        sources.prove(b, Some(now));
        assert_eq!(sources.as_of(), Some(now));
        sources.set(b, LinkState::Away);
        sources.prove(b, Some(now));
        assert_eq!((sources.state(), sources.as_of()), (LinkState::Away, None));
        sources.remove(b);
        assert_eq!((sources.state(), sources.as_of()), (LinkState::Closed, None), "nothing protects what it protected");
        let c = sources.add(None);
        assert_eq!(sources.state(), LinkState::Closed);
        sources.remove(c);
        assert_eq!(sources.as_of(), Some(now + Duration::from_secs(1)), "it has never been open");
    }

    #[test]
    fn f02_another_source_of_a_connection_takes_the_place_of_one_that_ends_later() {
        let mut sources = Sources::default();
        let conn = Some(ConnId::for_test(1));
        let former = sources.add(conn);
        sources.set(former, LinkState::Open);
        let new = sources.add(conn);
        sources.set(new, LinkState::Open);
        sources.remove(former);
        assert_eq!(sources.state(), LinkState::Open);
        sources.remove(new);
        assert_eq!(sources.state(), LinkState::Closed);
    }
}
