//! A model of relays, an engine and a reader, whose states are all visited. The reader follows by the shipped [`Follower`], and
//! candidates take over by the shipped [`TailReader`] and [`History`].
//!
//! ```text
//!   database ──event──▶ sessions of the relays ──append──▶ engine ──read──▶ reader
//!   commits             miss events                        loses entries, is deleted, trims
//!                                     answers are lost, requests arrive late
//! ```
//!
//! There is no lock: any relay may claim a term at any time, as if the lock had any number of holders. A relay of which no
//! step is taken for some time is a stopped process, which wakes when one is. The reader may begin at any time and be slow, so it
//! stands for all readers. Each `Mistake` must be found.
//!
//! The bounds: what [`RelayBounds`] say, one notification in each entry, and terms that are never claimed twice.

mod readers;
mod state;
mod steps;

use stateright::{Checker, HasDiscoveries, Model, Property};

use self::state::{
    Mistake, ModelEntry, ReaderState, RelayBounds, RelayModel, RelayModelAction, RelayModelState, RelayPhase,
    RelayState, RequestFate, Violations,
};

const NOTHING: RelayBounds =
    RelayBounds { events: b"cnn", relays: 2, claims: 2, engine_faults: 0, network_faults: 0, session_faults: 0 };
/// The bounds within which all states are visited.
const BOUNDS: [RelayBounds; 6] = [
    RelayBounds { events: b"cnn", ..NOTHING },
    RelayBounds { events: b"cn", network_faults: 1, ..NOTHING },
    RelayBounds { session_faults: 1, ..NOTHING },
    RelayBounds { events: b"cn", engine_faults: 1, ..NOTHING },
    RelayBounds { events: b"cn", relays: 3, claims: 3, ..NOTHING },
    RelayBounds { events: b"nc", claims: 3, engine_faults: 1, ..NOTHING },
];

const LOST: &str = "each notification is delivered, or covered by a gap";
const TWICE: &str = "no notification is delivered twice without a gap";
const NEEDLESS_GAP: &str = "there is no gap when nothing was lost";
const NEEDLESS_END: &str = "a leader ends only if a newer term was claimed";
const STUCK: &str = "a reader that waits has read the last entry";
const ALWAYS: [&str; 5] = [LOST, TWICE, NEEDLESS_GAP, NEEDLESS_END, STUCK];
const TAKEOVER: &str = "a takeover without a gap";
const DANGLING: &str = "a takeover past a claim without a start";

/// The mistakes, each with the bounds that suffice to find it, and the property that finds it.
const MISTAKES: [(Mistake, usize, &str); 15] = [
    (Mistake::ReadsBeforeClaim, 0, NEEDLESS_GAP),
    (Mistake::ContinuesWithoutComparing, 2, LOST),
    (Mistake::AppendsAllBehindCanary, 0, TWICE),
    (Mistake::StopsAtDanglingClaim, 4, NEEDLESS_GAP),
    (Mistake::KeepsHistoryAtGap, 2, LOST),
    (Mistake::HidesOwnGap, 2, LOST),
    (Mistake::TermFromTop, 5, LOST),
    (Mistake::SequenceFromTop, 3, TWICE),
    (Mistake::StepsDownWithoutReading, 1, NEEDLESS_END),
    (Mistake::ResendsWithoutReading, 1, TWICE),
    (Mistake::IgnoresContinues, 0, LOST),
    (Mistake::AcceptsSkip, 5, LOST),
    (Mistake::FollowsClaims, 0, NEEDLESS_GAP),
    (Mistake::IgnoresTop, 3, STUCK),
    (Mistake::ReportsGapBeforeBeginning, 5, LOST),
];

impl Model for RelayModel {
    type State = RelayModelState;
    type Action = RelayModelAction;

    fn init_states(&self) -> Vec<RelayModelState> {
        let relay = RelayState {
            phase: RelayPhase::Candidate,
            since: 0,
            received: 0,
            missed: None,
            is_silent: false,
            delayed: None,
        };
        vec![RelayModelState {
            committed: 0,
            stream: Vec::new(),
            top: None,
            claims: 0,
            claimants: 0,
            relays: std::array::from_fn(|_| relay.clone()),
            reader: ReaderState { follower: None, seen: 0, delivered: None, has_gap: false, begins_again: false },
            engine_faults: self.bounds.engine_faults,
            network_faults: self.bounds.network_faults,
            session_faults: self.bounds.session_faults,
            violations: Violations::default(),
        }]
    }

    fn actions(&self, state: &RelayModelState, actions: &mut Vec<RelayModelAction>) {
        use RelayModelAction::{
            Append, Arrive, Begin, CheckTop, Claim, Commit, Compare, Delete, LoseEntries, MissEvents, Read, ReadBack,
            Receive, Trim,
        };
        actions.extend([Commit, Begin, Read, CheckTop, Delete]);
        actions.extend((0..state.stream.len()).map(LoseEntries));
        actions.extend((1..state.stream.len()).map(Trim));
        for at in 0..self.bounds.relays {
            actions.extend([Receive(at), MissEvents(at), ReadBack(at), Compare(at), Arrive(at)]);
            for fate in [RequestFate::Answered, RequestFate::AnswerLost, RequestFate::Delayed] {
                actions.extend([Claim(at, fate), Append(at, fate)]);
            }
        }
    }

    fn next_state(&self, last: &RelayModelState, action: RelayModelAction) -> Option<RelayModelState> {
        let mut next = last.clone();
        let state = &mut next;
        match action {
            RelayModelAction::Commit if usize::from(state.committed) == self.bounds.events.len() => return None,
            RelayModelAction::Commit => state.committed += 1,
            RelayModelAction::Receive(at) if state.relays[at].received == state.committed => return None,
            RelayModelAction::Receive(at) => state.relays[at].received = state.committed,
            RelayModelAction::MissEvents(at) => self.miss_events(state, at)?,
            RelayModelAction::Claim(at, fate) => self.claim(state, at, fate)?,
            RelayModelAction::ReadBack(at) => self.read_back(state, at)?,
            RelayModelAction::Append(at, fate) => self.append(state, at, fate)?,
            RelayModelAction::Compare(at) => self.compare(state, at)?,
            RelayModelAction::Arrive(at) => self.arrive(state, at)?,
            RelayModelAction::LoseEntries(_) | RelayModelAction::Delete | RelayModelAction::Trim(_)
                if state.engine_faults == 0 =>
            {
                return None;
            }
            RelayModelAction::LoseEntries(kept) => {
                state.engine_faults -= 1;
                state.stream.truncate(kept);
                state.top = state.stream.last().map(|(at, _)| *at);
            }
            RelayModelAction::Delete if state.stream.is_empty() => return None,
            RelayModelAction::Delete => {
                state.engine_faults -= 1;
                state.stream.clear();
                state.top = None;
            }
            RelayModelAction::Trim(removed) => {
                state.engine_faults -= 1;
                state.stream.drain(..removed);
            }
            RelayModelAction::Begin => self.begin(state)?,
            RelayModelAction::Read => self.read(state)?,
            RelayModelAction::CheckTop => self.check_top(state)?,
        }
        // An entry that cannot be lost any more has the same effect when it is read later, or a smaller one.
        while state.engine_faults == 0 && self.read(state).is_some() {}
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LOST, |_, state: &RelayModelState| !state.violations.lost),
            Property::always(TWICE, |_, state: &RelayModelState| !state.violations.twice),
            Property::always(NEEDLESS_GAP, |_, state: &RelayModelState| !state.violations.needless_gap),
            Property::always(NEEDLESS_END, |_, state: &RelayModelState| !state.violations.needless_end),
            Property::always(STUCK, |model: &Self, state: &RelayModelState| !model.waits_in_vain(state)),
            Property::sometimes(TAKEOVER, |model: &Self, state: &RelayModelState| {
                let continues = |(_, entry): &(_, ModelEntry)| matches!(entry, ModelEntry::Start(Some(_)));
                let last = (0..state.committed).rfind(|event| model.is_notification(*event));
                let is_complete = last.is_some() && state.reader.delivered == last && !state.reader.has_gap;
                is_complete && state.stream.iter().any(continues)
            }),
            Property::sometimes(DANGLING, |model: &Self, state: &RelayModelState| {
                let is_claim = |at: usize| state.stream.get(at).is_some_and(|(at, _)| at.is_claim());
                let is_dangling = |at: usize| is_claim(at) && is_claim(at + 1);
                let continues = |(_, entry): &(_, ModelEntry)| matches!(entry, ModelEntry::Start(Some(_)));
                let first = (0..state.stream.len()).find(|at| is_dangling(*at));
                model.bounds.claims < 3 || first.is_some_and(|at| state.stream[at..].iter().any(continues))
            }),
        ]
    }
}

/// Visits all states, or until one of these properties is violated.
fn check<const N: usize>(
    bounds: RelayBounds,
    mistake: Mistake,
    properties: [&'static str; N],
) -> impl Checker<RelayModel> {
    let checker = RelayModel { bounds, mistake }.checker();
    checker.finish_when(HasDiscoveries::AnyOf(properties.into())).threads(2).spawn_bfs().join()
}

#[test]
fn r05_no_state_of_the_model_loses_a_notification_silently_or_repeats_it() {
    for bounds in BOUNDS {
        let checker = check(bounds, Mistake::None, ALWAYS);
        println!("{} states of {bounds:?}", checker.unique_state_count());
        checker.assert_properties();
    }
}

#[test]
fn r05_the_model_finds_each_mistake() {
    for (mistake, bounds, property) in MISTAKES {
        let checker = check(BOUNDS[bounds], mistake, [property]);
        println!("{mistake:?}: {} states", checker.unique_state_count());
        assert!(checker.discovery(property).is_some(), "{mistake:?} was not found: {:?}", checker.discoveries().keys());
    }
}
