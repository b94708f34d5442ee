//! The connections that serve a channel, and how fresh they prove it to be.

use std::time::Instant;

use crate::fence::epoch::LinkState;

/// Identifies a source of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceId(u64);

/// The sources of a channel. All of them must be open for the channel to be.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    last: u64,
    all: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    id: SourceId,
    state: LinkState,
    as_of: Option<Instant>,
}

impl Sources {
    pub(crate) fn add(&mut self) -> SourceId {
        self.last += 1;
        let id = SourceId(self.last);
        self.all.push(Source { id, state: LinkState::Closed, as_of: None });
        id
    }

    pub(crate) fn remove(&mut self, id: SourceId) {
        self.all.retain(|source| source.id != id);
    }

    fn get_mut(&mut self, id: SourceId) -> Option<&mut Source> {
        self.all.iter_mut().find(|source| source.id == id)
    }

    /// Changes the state of a source. Returns `false` if it had that state already.
    pub(crate) fn set(&mut self, id: SourceId, state: LinkState) -> bool {
        match self.get_mut(id) {
            Some(source) if source.state == state => return false,
            Some(source) => (source.state, source.as_of) = (state, None),
            // A subscription that had been replaced is back, because the other one was refused.
            None if state == LinkState::Open => self.all.push(Source { id, state, as_of: None }),
            None => return false,
        }
        true
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
            let ids = [0, 1, 2].map(|_| sources.add());
            let mut naive = [Some((LinkState::Closed, None)); 3];
            for (second, (at, change)) in changes.into_iter().enumerate() {
                let proof = start + Duration::from_secs(second as u64);
                match (STATES.get(change), &mut naive[at]) {
                    (Some(state), it) => {
                        let before = it.map(|(state, _)| state);
                        let is_change = before != Some(*state) && (before.is_some() || *state == LinkState::Open);
                        if is_change {
                            *it = Some((*state, None));
                        }
                        prop_assert_eq!(sources.set(ids[at], *state), is_change);
                    }
                    (None, it) if change == 5 => {
                        *it = None;
                        sources.remove(ids[at]);
                    }
                    (None, it) => {
                        let proof = (change == 3).then_some(proof);
                        if let Some((LinkState::Open, last)) = it {
                            *last = proof;
                        }
                        sources.prove(ids[at], proof);
                    }
                }
                let all = || naive.iter().flatten();
                let is_all = |wanted| all().count() > 0 && all().all(|(state, _)| *state >= wanted);
                prop_assert_eq!(sources.state() == LinkState::Open, is_all(LinkState::Open));
                prop_assert_eq!(sources.state() >= LinkState::Away, is_all(LinkState::Away));
                let proofs: Option<Vec<_>> = all().map(|(_, proof)| *proof).collect();
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
        let (a, b) = (sources.add(), sources.add());
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
        assert_eq!(sources.as_of(), Some(now + Duration::from_secs(1)));
    }
}
