//! The steps of the reader.

use super::super::entry::EntryContent;
use super::super::follower::{Continuity, Follower, StreamBreak, TopCheck};
use super::super::position::StreamPosition;
use super::state::{Mistake, ModelEntry, RelayModel, RelayModelState};

impl RelayModel {
    /// Begins behind the last entry. The program then reads its data, so all that was committed before is covered.
    pub(super) fn begin(&self, state: &mut RelayModelState) -> Option<()> {
        if state.reader.follower.is_some() {
            return None;
        }
        state.reader.follower = Some(Follower::starting_at(self.tail(state, None).last));
        if !std::mem::take(&mut state.reader.begins_again) {
            self.cover(state);
        }
        Some(())
    }

    /// Returns the entry that the engine returns next.
    pub(super) fn next_read(&self, state: &RelayModelState) -> Option<(StreamPosition, ModelEntry)> {
        let cursor = state.reader.follower.as_ref()?.cursor();
        state.stream.iter().find(|(at, _)| Some(*at) > cursor).copied()
    }

    pub(super) fn read(&self, state: &mut RelayModelState) -> Option<()> {
        let (at, entry) = self.next_read(state)?;
        let follower = state.reader.follower.as_mut()?;
        let before = follower.position();
        let content = self.content(entry);
        match follower.follow(at, &content) {
            Continuity::Pending if self.is(Mistake::FollowsClaims) => {
                *follower = Follower::starting_at(Some(at));
                return Some(());
            }
            Continuity::Pending => return Some(()),
            Continuity::Contiguous => {}
            Continuity::Broken(StreamBreak::Jump { from, to })
                if self.is(Mistake::AcceptsSkip) && from.term == to.term && from < to => {}
            Continuity::Broken(StreamBreak::NotContinued { .. } | StreamBreak::ContinuesOther { .. })
                if self.is(Mistake::IgnoresContinues) && before.is_some() => {}
            Continuity::Broken(reason) => {
                let is_reported = matches!(reason, StreamBreak::Beginning | StreamBreak::NotContinued { .. });
                state.violations.needless_gap |= !is_reported && self.is_intact(state);
                self.report_gap(state);
            }
        }
        match (entry, content) {
            (ModelEntry::Event(event), EntryContent::Canary { .. }) => {
                // Everything that was committed before is delivered or covered.
                state.violations.lost |= self.is_missing(state, event);
            }
            (ModelEntry::Event(event), _) => {
                state.violations.lost |= self.is_missing(state, event);
                state.violations.twice |= state.reader.delivered.is_some_and(|last| last >= event);
                state.reader.delivered = Some(event);
                state.reader.seen = state.reader.seen.max(event + 1);
            }
            (ModelEntry::Gap, _) => self.report_gap(state),
            _ => {}
        }
        Some(())
    }

    /// Returns `true` if a notification before an event was neither delivered nor covered.
    fn is_missing(&self, state: &RelayModelState, event: u8) -> bool {
        (state.reader.seen..event).any(|missing| self.is_notification(missing))
    }

    fn report_gap(&self, state: &mut RelayModelState) {
        state.reader.has_gap = true;
        self.cover(state);
    }

    /// The program reads its data again.
    fn cover(&self, state: &mut RelayModelState) {
        state.reader.seen = state.committed;
        state.reader.delivered = None;
    }

    /// Compares the top with the position, since no entry arrives.
    pub(super) fn check_top(&self, state: &mut RelayModelState) -> Option<()> {
        if self.next_read(state).is_some() || self.is(Mistake::IgnoresTop) {
            return None;
        }
        match state.reader.follower.as_mut()?.check_top(state.top) {
            TopCheck::Fine => return None,
            TopCheck::Rewound => {}
            TopCheck::Broken(_) if self.is(Mistake::ReportsGapBeforeBeginning) => {
                self.report_gap(state);
                state.reader.follower = None;
                state.reader.begins_again = true;
            }
            TopCheck::Broken(_) => {
                state.violations.needless_gap |= self.is_intact(state);
                state.reader.follower = Some(Follower::starting_at(self.tail(state, None).last));
                self.report_gap(state);
            }
        }
        Some(())
    }

    /// Returns `true` if the reader waits, and there is an entry that it will never read, or there may be one.
    pub(super) fn waits_in_vain(&self, state: &RelayModelState) -> bool {
        let Some(mut follower) = state.reader.follower else { return false };
        let is_fine = self.is(Mistake::IgnoresTop) || follower.check_top(state.top) == TopCheck::Fine;
        let position = state.reader.follower.and_then(|follower| follower.position());
        let last = state.stream.iter().rev().find(|(at, _)| !at.is_claim()).map(|(at, _)| *at);
        is_fine && self.next_read(state).is_none() && (last > position || state.top < position)
    }
}
