//! The steps of relays and of the engine, each with the mistakes that change it.

use super::super::engine_time::EngineTime;
use super::super::entry::{EntryContent, StreamEntry, StreamOrigin};
use super::super::history::{History, Resume};
use super::super::position::StreamPosition;
use super::super::tail::{NoCanary, Tail, TailCanary, TailReader};
use super::state::{
    Leadership, Mistake, ModelEntry, ModelTail, RelayModel, RelayModelState, RelayPhase, RelayState, RequestFate,
};
use crate::notification::Notification;

const MAX_BYTES: usize = 1 << 20;
/// The marker of the canary that a candidate sends after its claim.
const BARRIER: &str = "barrier";

impl RelayModelState {
    /// Appends an entry, unless the engine has one at its position or above it.
    fn append(&mut self, at: StreamPosition, entry: ModelEntry) -> bool {
        let is_accepted = self.top < Some(at);
        if is_accepted {
            self.stream.push((at, entry));
            self.top = Some(at);
        }
        is_accepted
    }

    /// Sends an entry. Returns the answer, if one arrives.
    fn request(&mut self, relay: usize, at: StreamPosition, entry: ModelEntry, fate: RequestFate) -> Option<bool> {
        match fate {
            RequestFate::Answered => return Some(self.append(at, entry)),
            RequestFate::AnswerLost => drop(self.append(at, entry)),
            RequestFate::Delayed => self.relays[relay].delayed = Some((at, entry)),
        }
        self.network_faults -= 1;
        None
    }
}

impl RelayModel {
    pub(super) fn is(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }

    /// Returns `true` if an event is a notification, and not a canary.
    pub(super) fn is_notification(&self, event: u8) -> bool {
        self.bounds.events[usize::from(event)] == b'n'
    }

    /// Returns what a relay receives for an event.
    fn received(&self, event: u8) -> EntryContent {
        if self.is_notification(event) {
            EntryContent::Notifications([Notification::new("c", event.to_string(), 1)].into_iter().collect())
        } else {
            canary(&event.to_string())
        }
    }

    /// Returns an entry as a reader reads it.
    pub(super) fn content(&self, entry: ModelEntry) -> EntryContent {
        match entry {
            ModelEntry::Claim => EntryContent::Claim { relay: "relay".into() },
            ModelEntry::Start(continues) => EntryContent::Start { continues, channels: Vec::new(), silence_ms: 20_000 },
            ModelEntry::Event(event) => self.received(event),
            ModelEntry::Gap => {
                EntryContent::Gap { channels: Vec::new(), cause: "reset".into(), since_unix_ms: 0, until_unix_ms: 0 }
            }
        }
    }

    /// Reads the end of the stream.
    pub(super) fn tail(&self, state: &RelayModelState, before: Option<StreamPosition>) -> ModelTail {
        let mut reader = TailReader::new(before, MAX_BYTES);
        for (at, entry) in state.stream.iter().rev() {
            if !reader.push(*at, &StreamEntry { origin: ORIGIN, content: self.content(*entry) }) {
                break;
            }
        }
        let tail = reader.finish();
        let newest = state.stream.iter().rev().find(|(at, _)| before.is_none_or(|before| *at < before));
        let is_dangling = newest.is_some_and(|(at, _)| at.is_claim());
        ModelTail {
            last: tail.last.map(|(at, _)| at),
            canary: match tail.canary {
                Ok(_) if is_dangling && self.is(Mistake::StopsAtDanglingClaim) => Err(NoCanary::Empty),
                Ok(canary) => Ok(number(&canary.marker)),
                Err(reason) => Err(reason),
            },
            notifications: tail.notifications.iter().flatten().map(|n| number(&n.payload())).collect(),
        }
    }

    pub(super) fn miss_events(&self, state: &mut RelayModelState, at: usize) -> Option<()> {
        let committed = state.committed;
        let relay = &mut state.relays[at];
        if state.session_faults == 0 || relay.received == committed || relay.missed.is_some() {
            return None;
        }
        let missed = (relay.received, committed);
        relay.received = committed;
        if matches!(relay.phase, RelayPhase::Leading(_)) {
            relay.missed = Some(missed);
            relay.is_silent = self.is(Mistake::HidesOwnGap);
        } else if self.is(Mistake::KeepsHistoryAtGap) {
            relay.missed = Some(missed);
            relay.is_silent = true;
        } else {
            relay.since = committed;
        }
        state.session_faults -= 1;
        Some(())
    }

    pub(super) fn claim(&self, state: &mut RelayModelState, at: usize, fate: RequestFate) -> Option<()> {
        let tail = match &state.relays[at].phase {
            RelayPhase::Candidate if !self.is(Mistake::ReadsBeforeClaim) => None,
            RelayPhase::Hasty(tail) => Some(tail.clone()),
            _ => return None,
        };
        // The relays are alike, so they begin in this order.
        if at > state.claimants || state.claims == self.bounds.claims || !can_fail(state, at, fate) {
            return None;
        }
        state.claimants = state.claimants.max(at + 1);
        state.claims += 1;
        // Never claimed before, even if the engine has lost it.
        let unique = if self.is(Mistake::TermFromTop) { 0 } else { state.claims };
        let term = unique.max(state.top.map_or(0, |top| top.term + 1));
        let answer = state.request(at, StreamPosition::claim_of(term), ModelEntry::Claim, fate);
        let barrier = state.committed;
        state.relays[at].phase = match (answer, tail) {
            (Some(true), Some(tail)) => RelayPhase::Read { term, barrier, tail },
            (Some(true), None) => RelayPhase::Claimed { term, barrier },
            // A claim without an answer is left behind.
            _ => RelayPhase::Candidate,
        };
        Some(())
    }

    pub(super) fn read_back(&self, state: &mut RelayModelState, at: usize) -> Option<()> {
        state.relays[at].phase = match state.relays[at].phase {
            RelayPhase::Candidate if self.is(Mistake::ReadsBeforeClaim) => RelayPhase::Hasty(self.tail(state, None)),
            RelayPhase::Claimed { term, barrier } => {
                let tail = self.tail(state, Some(StreamPosition::claim_of(term)));
                RelayPhase::Read { term, barrier, tail }
            }
            _ => return None,
        };
        Some(())
    }

    /// Returns the history of a relay as the shipped code keeps it, with the canary that was sent after the claim.
    fn history(&self, relay: &RelayState, barrier: u8) -> History {
        let mut history = History::new(MAX_BYTES);
        let barrier = barrier.max(relay.since);
        for event in relay.since..=relay.received {
            if event == barrier {
                history.push(canary(BARRIER));
            }
            let is_missed = relay.missed.is_some_and(|(from, to)| (from..to).contains(&event));
            if event < relay.received && !is_missed {
                history.push(self.received(event));
            }
        }
        history
    }

    /// Decides where the term continues, if enough has been received.
    fn resume(&self, state: &mut RelayModelState, at: usize) -> Option<Leadership> {
        let relay = &state.relays[at];
        let RelayPhase::Read { term, barrier, tail } = &relay.phase else { return None };
        let shipped = Tail {
            last: tail.last.map(|last| (last, ORIGIN)),
            canary: tail
                .canary
                .map(|event| TailCanary { at: StreamPosition::claim_of(0), marker: event.to_string().into() }),
            notifications: tail
                .notifications
                .iter()
                .map(|event| [Notification::new("c", event.to_string(), 1)].into_iter().collect())
                .collect(),
        };
        let (continues, next) = match self.history(relay, *barrier).resume(&shipped, BARRIER) {
            Resume::Wait(_) => return None,
            Resume::Continue(_) if self.is(Mistake::AppendsAllBehindCanary) => {
                (tail.last, tail.canary.map_or(relay.received, |canary| canary + 1))
            }
            Resume::Continue(rest) => (tail.last, self.first_event(&rest).unwrap_or(relay.received)),
            Resume::Gap(_) if self.is(Mistake::ContinuesWithoutComparing) => (tail.last, relay.received),
            Resume::Gap(_) => {
                state.violations.needless_gap |= self.could_continue(state, *term);
                (None, relay.received)
            }
        };
        Some(Leadership { term: *term, sequence: StreamPosition::START, continues, next, is_unsure: false })
    }

    /// Returns the first event of contents.
    fn first_event(&self, contents: &[EntryContent]) -> Option<u8> {
        contents.iter().find_map(|content| match content {
            EntryContent::Notifications(batch) => batch.iter().next().map(|n| number(&n.payload())),
            EntryContent::Canary { marker, .. } => marker.parse().ok(),
            _ => None,
        })
    }

    /// Returns `true` if nothing has ever been lost, and the last canary behind a gap is in the history.
    fn could_continue(&self, state: &RelayModelState, term: u64) -> bool {
        let before = state.stream.iter().filter(|(position, _)| position.term < term);
        let canary = before.fold(None, |canary, (_, entry)| match entry {
            ModelEntry::Start(None) | ModelEntry::Gap => None,
            ModelEntry::Event(event) if !self.is_notification(*event) => Some(*event),
            _ => canary,
        });
        self.is_intact(state) && canary.is_some()
    }

    /// Returns `true` if neither the engine nor a session has lost anything.
    pub(super) fn is_intact(&self, state: &RelayModelState) -> bool {
        (state.engine_faults, state.session_faults) == (self.bounds.engine_faults, self.bounds.session_faults)
    }

    /// Returns the next entry that a leader appends.
    fn next_entry(&self, relay: &RelayState, leadership: &Leadership) -> Option<ModelEntry> {
        if leadership.sequence == StreamPosition::START {
            return Some(ModelEntry::Start(leadership.continues));
        }
        match relay.missed {
            Some((from, _)) if from == leadership.next => Some(ModelEntry::Gap),
            _ => (leadership.next < relay.received).then_some(ModelEntry::Event(leadership.next)),
        }
    }

    pub(super) fn append(&self, state: &mut RelayModelState, at: usize, fate: RequestFate) -> Option<()> {
        let mut leadership = match &state.relays[at].phase {
            RelayPhase::Leading(leadership) => leadership.clone(),
            _ => self.resume(state, at)?,
        };
        self.skip_silently(&mut state.relays[at], &mut leadership);
        let entry = self.next_entry(&state.relays[at], &leadership)?;
        if leadership.is_unsure || !can_fail(state, at, fate) {
            return None;
        }
        if self.is(Mistake::SequenceFromTop)
            && let Some(top) = state.top.filter(|top| top.term == leadership.term && !top.is_claim())
        {
            leadership.sequence = top.sequence + 1;
        }
        let position = StreamPosition { term: leadership.term, sequence: leadership.sequence };
        let answer = state.request(at, position, entry, fate);
        let is_blind = self.is(Mistake::StepsDownWithoutReading) && answer == Some(false);
        state.relays[at].phase = RelayPhase::Leading(leadership);
        match answer {
            Some(true) => self.advance(state, at),
            _ if is_blind => self.step_down(state, at),
            _ => self.doubt(state, at),
        }
        Some(())
    }

    /// Passes events that were missed without a report: a mistake.
    fn skip_silently(&self, relay: &mut RelayState, leadership: &mut Leadership) {
        if let Some((from, to)) = relay.missed
            && relay.is_silent
            && leadership.next >= from
            && leadership.sequence > StreamPosition::START
        {
            leadership.next = leadership.next.max(to);
            relay.missed = None;
            relay.since = to;
        }
    }

    /// Notes that the next entry of a leader is in the stream.
    fn advance(&self, state: &mut RelayModelState, at: usize) {
        let relay = &mut state.relays[at];
        let RelayPhase::Leading(leadership) = &mut relay.phase else { return };
        leadership.is_unsure = false;
        if leadership.sequence > StreamPosition::START {
            match relay.missed {
                Some((from, to)) if from == leadership.next => {
                    (leadership.next, relay.since, relay.missed) = (to, to, None);
                }
                _ => leadership.next += 1,
            }
        }
        leadership.sequence += 1;
        leadership.continues = None;
    }

    /// Notes that it is not known whether the last entry is in the stream.
    fn doubt(&self, state: &mut RelayModelState, at: usize) {
        let RelayPhase::Leading(leadership) = &mut state.relays[at].phase else { return };
        if self.is(Mistake::ResendsWithoutReading) && leadership.sequence > StreamPosition::START {
            leadership.sequence += 1;
        } else if !self.is(Mistake::StepsDownWithoutReading) {
            leadership.is_unsure = true;
        }
    }

    /// Ends the term of a leader.
    fn step_down(&self, state: &mut RelayModelState, at: usize) {
        let relay = &mut state.relays[at];
        let RelayPhase::Leading(leadership) = &relay.phase else { return };
        state.violations.needless_end |= state.top.is_some_and(|top| top.term == leadership.term);
        relay.phase = RelayPhase::Candidate;
        if let Some((_, to)) = relay.missed
            && !self.is(Mistake::KeepsHistoryAtGap)
        {
            relay.since = to;
            relay.missed = None;
        }
    }

    /// Reads the top, and compares it with the own last append.
    pub(super) fn compare(&self, state: &mut RelayModelState, at: usize) -> Option<()> {
        let top = state.top;
        let RelayPhase::Leading(leadership) = &mut state.relays[at].phase else { return None };
        if !leadership.is_unsure {
            return None;
        }
        let own = Some(StreamPosition { term: leadership.term, sequence: leadership.sequence });
        if top == own {
            self.advance(state, at);
        } else if top < own {
            leadership.is_unsure = false;
        } else {
            self.step_down(state, at);
        }
        Some(())
    }

    /// A request that was delayed reaches the engine.
    pub(super) fn arrive(&self, state: &mut RelayModelState, at: usize) -> Option<()> {
        let (position, entry) = state.relays[at].delayed.take()?;
        state.append(position, entry);
        Some(())
    }
}

/// Returns `true` if a request can have this fate.
fn can_fail(state: &RelayModelState, at: usize, fate: RequestFate) -> bool {
    match fate {
        RequestFate::Answered => true,
        RequestFate::AnswerLost => state.network_faults > 0,
        RequestFate::Delayed => state.network_faults > 0 && state.relays[at].delayed.is_none(),
    }
}

fn canary(marker: &str) -> EntryContent {
    EntryContent::Canary {
        marker: marker.into(),
        sent: EngineTime::default(),
        channels: Vec::new(),
        silence_ms: 20_000,
    }
}

fn number(text: &str) -> u8 {
    text.parse().unwrap()
}

pub(super) const ORIGIN: StreamOrigin = StreamOrigin { system: 1, timeline: 1, database: 5 };
