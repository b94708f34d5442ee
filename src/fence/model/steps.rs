//! The steps of the model, each with the mistakes that change it.

use super::state::{
    BEGINNING, CHANNEL, FenceModel, FenceModelState, FillState, FillStep, HANDLER, LinkPhase, Mistake, NoticeKind,
    QuestionPhase, STRIPE,
};

impl FenceModel {
    pub(super) fn is(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }

    pub(super) fn is_open(&self, state: &FenceModelState) -> bool {
        self.bounds.serves || !state.is_away
    }

    /// Returns the value that a reader finds.
    pub(super) fn hit(&self, state: &FenceModelState) -> Option<u8> {
        let (value, epoch) = state.entry?;
        let is_fresh = epoch == state.epoch || self.is(Mistake::IgnoresEpochOfEntry);
        (is_fresh && self.is_open(state)).then_some(value)
    }

    /// Makes the next step towards an open channel.
    pub(super) fn advance(&self, state: &mut FenceModelState) -> Option<()> {
        state.link = match state.link {
            LinkPhase::Lost => {
                state.is_away = true;
                LinkPhase::Away
            }
            LinkPhase::Away if self.is(Mistake::OpensBeforeListen) => {
                state.mark(CHANNEL);
                state.epoch += 1;
                state.is_away = false;
                LinkPhase::Hasty
            }
            LinkPhase::Hasty => {
                state.handled = state.committed;
                LinkPhase::Open
            }
            LinkPhase::Away => {
                if !self.bounds.serves {
                    // A reader of the database has seen it, and must not see an older one later.
                    state.handled = state.committed;
                }
                LinkPhase::Registered(state.committed)
            }
            LinkPhase::Registered(since) => {
                if self.is(Mistake::OpensBeforeEpoch) {
                    state.is_away = false;
                }
                if !self.is(Mistake::GapKeepsFloors) {
                    state.mark(CHANNEL);
                }
                LinkPhase::Opening(since)
            }
            LinkPhase::Opening(since) => {
                if self.is(Mistake::FlushesKnownKeys) {
                    state.entry = None;
                    state.stamp += 1;
                } else {
                    state.epoch += 1;
                }
                state.is_away = false;
                state.handled = state.handled.max(since);
                LinkPhase::Open
            }
            LinkPhase::Silent => {
                if !self.bounds.serves {
                    // As before a LISTEN. In the mode `Serve`, readers have seen the cache.
                    state.handled = state.committed;
                }
                if !self.is(Mistake::ResumeKeepsFloors) {
                    state.mark(CHANNEL);
                }
                LinkPhase::Resuming
            }
            LinkPhase::Resuming => {
                if !self.bounds.serves {
                    state.epoch += u8::from(!self.is(Mistake::ResumesForAll));
                    if !self.bounds.standby {
                        // The primary has everything that a reader may have seen up to now.
                        state.handled = state.committed;
                    }
                }
                state.is_away = false;
                LinkPhase::Open
            }
            LinkPhase::Open => return None,
        };
        Some(())
    }

    /// Makes the next step of the handler of notifications.
    pub(super) fn handle(&self, state: &mut FenceModelState) -> Option<()> {
        let (kind, version, step) = match state.handling {
            Some(handling) => handling,
            None if matches!(state.link, LinkPhase::Silent | LinkPhase::Resuming) => return None,
            None if state.queue.is_empty() => return None,
            None => {
                let (kind, version) = state.queue.remove(0);
                (kind, version, 0)
            }
        };
        let is_done = match kind {
            NoticeKind::Key => self.invalidate(state, version, step)?,
            NoticeKind::Prefix => self.sweep(state, step)?,
            NoticeKind::Unknown => match step {
                0 => {
                    state.mark(CHANNEL);
                    false
                }
                _ if self.is(Mistake::FlushesKnownKeys) => {
                    if state.entry.is_some() && state.lock.is_some() {
                        return None;
                    }
                    if state.entry.take().is_some() {
                        state.stamp += 1;
                    }
                    true
                }
                _ => {
                    state.epoch += 1;
                    true
                }
            },
            NoticeKind::Canary => true,
        };
        state.handling = (!is_done).then_some((kind, version, step + 1));
        if is_done {
            state.handled = state.handled.max(version);
        }
        Some(())
    }

    /// Like `ChannelCore::invalidate`.
    pub(super) fn invalidate(&self, state: &mut FenceModelState, version: u8, step: u8) -> Option<bool> {
        match step {
            0 if self.is(Mistake::FloorOfWriter) => state.floors[STRIPE].lsn = Some(version - 1),
            0 => state.mark(STRIPE),
            1 if self.is(Mistake::RemovesBeforeStamp) => state.entry = None,
            1 | 2 if state.lock != Some(HANDLER) => {
                if state.lock.is_some() {
                    return None;
                }
                state.lock = Some(HANDLER);
                state.stamp += 1;
            }
            2 if !self.is(Mistake::RemovesBeforeStamp) => state.entry = None,
            _ => {
                state.lock = None;
                return Some(true);
            }
        }
        Some(false)
    }

    /// Like `ChannelCore::sweep`.
    pub(super) fn sweep(&self, state: &mut FenceModelState, step: u8) -> Option<bool> {
        match step {
            0 if self.is(Mistake::SweepsWithoutNumber) => {}
            0 => state.sweeps += 1,
            1 => state.mark(CHANNEL),
            // The lock is taken and released.
            2 if state.lock.is_some() && !self.is(Mistake::SweepsWithoutWait) => return None,
            2 => {}
            _ => {
                state.entry = None;
                return Some(true);
            }
        }
        Some(false)
    }

    /// Makes the next step of the question to the primary.
    pub(super) fn answer(&self, state: &mut FenceModelState) -> Option<()> {
        state.question = match state.question {
            QuestionPhase::None => return None,
            QuestionPhase::Asked => QuestionPhase::Answered(state.committed),
            QuestionPhase::Answered(lsn) => {
                for floor in &mut state.floors {
                    let is_answered = floor.is_asked && (!floor.is_marked || self.is(Mistake::TakesEarlierAnswer));
                    if is_answered {
                        (floor.lsn, floor.is_marked) = (Some(lsn), false);
                    }
                    floor.is_asked = false;
                }
                QuestionPhase::None
            }
        };
        Some(())
    }

    /// Makes the next step of a fill: `begin`, the query, and `admit`.
    pub(super) fn fill(&self, state: &mut FenceModelState, at: usize) -> Option<()> {
        let reads_standby = self.bounds.standby;
        let compares_first = self.is(Mistake::ComparesBeforeLock);
        let mut fill = state.fills[at].clone();
        let refuse = |state: &mut FenceModelState| {
            state.lock.take_if(|holder| *holder == at);
            FillStep::Done
        };
        fill.step = match fill.step {
            FillStep::Stamp => {
                fill.stamp = state.stamp;
                FillStep::Sweeps
            }
            FillStep::Sweeps => {
                fill.sweeps = state.sweeps;
                FillStep::Epoch
            }
            FillStep::Epoch => {
                fill.epoch = state.epoch;
                match self.is_open(state) {
                    false => FillStep::Done,
                    true if reads_standby => FillStep::Replayed,
                    true => FillStep::Read,
                }
            }
            FillStep::Replayed => {
                fill.replayed = state.replayed;
                FillStep::Read
            }
            FillStep::Read => {
                fill.value = if reads_standby { state.replayed } else { state.committed };
                FillStep::Lock
            }
            FillStep::Lock if compares_first => FillStep::Compare,
            FillStep::Lock if state.lock.is_some() => return None,
            FillStep::Lock => {
                state.lock = Some(at);
                let is_same = fill.epoch == state.epoch || self.is(Mistake::IgnoresEpochOfFill);
                if is_same && self.is_open(state) { FillStep::Compare } else { refuse(state) }
            }
            FillStep::Compare if fill.stamp != state.stamp || fill.sweeps != state.sweeps => refuse(state),
            FillStep::Compare if reads_standby && !self.is(Mistake::IgnoresFloor) => FillStep::StripeFloor,
            FillStep::Compare => FillStep::Store,
            FillStep::StripeFloor if state.floors[STRIPE].lsn.is_none_or(|lsn| lsn > fill.replayed) => refuse(state),
            FillStep::StripeFloor => FillStep::ChannelFloor,
            FillStep::ChannelFloor if state.floors[CHANNEL].lsn.is_none_or(|lsn| lsn > fill.replayed) => refuse(state),
            FillStep::ChannelFloor => FillStep::Store,
            FillStep::Store if compares_first && state.lock.is_some() => return None,
            FillStep::Store => {
                if !self.is(Mistake::StoresNothing) {
                    let epoch = if self.is(Mistake::IgnoresEpochOfFill) { state.epoch } else { fill.epoch };
                    state.entry = Some((fill.value, epoch));
                }
                refuse(state)
            }
            FillStep::Done => return None,
        };
        if fill.step == FillStep::Done {
            // What it noted means nothing any more.
            fill = FillState { step: FillStep::Done, ..BEGINNING };
        }
        state.fills[at] = fill;
        Some(())
    }
}
