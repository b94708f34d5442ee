//! A model of the fence's algorithm, whose states are all visited: fillers, a writer, a link that is lost and restored, and a
//! standby that lags.
//!
//! ```text
//!   writer ──commit──▶ primary ──replay──▶ standby
//!                        │ notification       │
//!                        ▼                    │ read
//!                     link, queue             ▼
//!                        │ handler         fillers: begin, read, admit
//!                        └────▶ fence ◀───────┘
//! ```
//!
//! A step is an operation of one lock or one atomic of `ChannelCore`, `Stripe`, `Epoch` and `Floors`, in the order of the
//! code. The versions of one row are numbers, and so are positions in the log. Each `Mistake` is one that others have
//! made: the model must find that a stale value is served.
//!
//! The bounds: one key, the first LISTEN, and what `BOUNDS` say.

mod state;
mod steps;

use stateright::{Checker, HasDiscoveries, Model, Property};

use self::state::{
    BEGINNING, Bounds, FenceModel, FenceModelAction, FenceModelState, LinkPhase, Mistake, ModelFloor, NoticeKind,
    QuestionPhase,
};

/// The bounds within which all states are visited.
const BOUNDS: [Bounds; 7] = [
    Bounds { serves: false, standby: false, fills: 2, commits: 2, kinds: 3, loses: false, has_canary: false },
    Bounds { serves: true, standby: false, fills: 2, commits: 2, kinds: 3, loses: false, has_canary: false },
    Bounds { serves: false, standby: false, fills: 1, commits: 2, kinds: 3, loses: true, has_canary: true },
    Bounds { serves: true, standby: false, fills: 1, commits: 2, kinds: 3, loses: true, has_canary: true },
    Bounds { serves: false, standby: true, fills: 1, commits: 2, kinds: 3, loses: false, has_canary: false },
    Bounds { serves: false, standby: true, fills: 1, commits: 2, kinds: 1, loses: true, has_canary: false },
    Bounds { serves: true, standby: true, fills: 1, commits: 1, kinds: 2, loses: true, has_canary: false },
];
const NEVER_STALE: &str = "no hit is older than what was handled";
const HITS: [&str; 3] = ["a hit", "a hit after an invalidation was handled", "a hit after the link was restored"];

/// The mistakes that let a stale value be served, each with the bounds that suffice to find it.
const MISTAKES: [(Mistake, usize); 16] = [
    (Mistake::RemovesBeforeStamp, 0),
    (Mistake::ComparesBeforeLock, 0),
    (Mistake::EvictsStamp, 0),
    (Mistake::IgnoresEpochOfEntry, 0),
    (Mistake::IgnoresEpochOfFill, 0),
    (Mistake::FlushesKnownKeys, 2),
    (Mistake::OpensBeforeListen, 2),
    (Mistake::OpensBeforeEpoch, 2),
    (Mistake::IgnoresFloor, 4),
    (Mistake::FloorOfWriter, 4),
    (Mistake::TakesEarlierAnswer, 4),
    (Mistake::SweepsWithoutNumber, 0),
    (Mistake::SweepsWithoutWait, 0),
    (Mistake::GapKeepsFloors, 5),
    (Mistake::ResumesForAll, 2),
    (Mistake::ResumeKeepsFloors, 5),
];

impl Model for FenceModel {
    type State = FenceModelState;
    type Action = FenceModelAction;

    fn init_states(&self) -> Vec<FenceModelState> {
        vec![FenceModelState {
            committed: 0,
            replayed: 0,
            link: LinkPhase::Away,
            queue: Vec::new(),
            can_lose: self.bounds.loses,
            can_send_canary: self.bounds.has_canary,
            has_standby: self.bounds.standby,
            is_away: true,
            epoch: 0,
            stamp: 0,
            sweeps: 0,
            floors: [0, 1].map(|_| ModelFloor { lsn: Some(0), ..ModelFloor::default() }),
            question: QuestionPhase::None,
            lock: None,
            entry: None,
            handling: None,
            handled: 0,
            fills: [BEGINNING, BEGINNING],
        }]
    }

    fn actions(&self, _: &FenceModelState, actions: &mut Vec<FenceModelAction>) {
        let kinds = [NoticeKind::Key, NoticeKind::Prefix, NoticeKind::Unknown];
        actions.extend(kinds.into_iter().take(self.bounds.kinds).map(FenceModelAction::Commit));
        actions.extend((0..=self.bounds.commits as usize).map(FenceModelAction::Lose));
        actions.extend((0..self.bounds.fills).map(FenceModelAction::Fill));
        actions.extend([
            FenceModelAction::Replay,
            FenceModelAction::Canary,
            FenceModelAction::Silence,
            FenceModelAction::Advance,
            FenceModelAction::Handle,
        ]);
        actions.extend([FenceModelAction::Ask, FenceModelAction::Answer, FenceModelAction::Evict]);
    }

    fn next_state(&self, last: &FenceModelState, action: FenceModelAction) -> Option<FenceModelState> {
        let mut next = last.clone();
        let state = &mut next;
        match action {
            FenceModelAction::Commit(_) if state.committed == self.bounds.commits => return None,
            FenceModelAction::Commit(kind) => {
                state.committed += 1;
                if state.listens() {
                    state.queue.push((kind, state.committed));
                }
            }
            FenceModelAction::Replay if state.replayed == state.committed || !state.has_standby => return None,
            FenceModelAction::Replay => state.replayed += 1,
            FenceModelAction::Canary if state.can_send_canary && state.link == LinkPhase::Open => {
                state.can_send_canary = false;
                state.queue.push((NoticeKind::Canary, state.committed));
            }
            FenceModelAction::Canary => return None,
            FenceModelAction::Lose(kept)
                if state.can_lose && state.link == LinkPhase::Open && kept <= state.queue.len() =>
            {
                state.can_lose = false;
                state.queue.truncate(kept);
                state.link = LinkPhase::Lost;
            }
            FenceModelAction::Lose(_) => return None,
            FenceModelAction::Silence if state.can_lose && state.link == LinkPhase::Open => {
                (state.can_lose, state.is_away) = (false, true);
                state.link = LinkPhase::Silent;
            }
            FenceModelAction::Silence => return None,
            FenceModelAction::Advance => self.advance(state)?,
            FenceModelAction::Handle => self.handle(state)?,
            FenceModelAction::Ask if state.question != QuestionPhase::None => return None,
            FenceModelAction::Ask if !state.floors.iter().any(|floor| floor.is_marked) => return None,
            FenceModelAction::Ask => {
                for floor in &mut state.floors {
                    floor.is_asked = std::mem::take(&mut floor.is_marked);
                }
                state.question = QuestionPhase::Asked;
            }
            FenceModelAction::Answer => self.answer(state)?,
            FenceModelAction::Fill(at) => self.fill(state, at)?,
            FenceModelAction::Evict => {
                state.entry.take()?;
                if self.is(Mistake::EvictsStamp) {
                    state.stamp = 0;
                }
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NEVER_STALE, |model: &Self, state: &FenceModelState| {
                model.hit(state).is_none_or(|hit| hit >= state.handled)
            }),
            Property::sometimes(HITS[0], |model: &Self, state: &FenceModelState| model.hit(state).is_some()),
            Property::sometimes(HITS[1], |model: &Self, state: &FenceModelState| {
                model.hit(state).is_some() && state.handled > 0
            }),
            Property::sometimes(HITS[2], |model: &Self, state: &FenceModelState| {
                let is_back = state.link == LinkPhase::Open && (!model.bounds.loses || !state.can_lose);
                model.hit(state).is_some() && is_back
            }),
        ]
    }
}

/// Visits all states, or until a stale value is found.
fn check(bounds: Bounds, mistake: Mistake) -> impl Checker<FenceModel> {
    let checker = FenceModel { bounds, mistake }.checker();
    checker.finish_when(HasDiscoveries::AnyFailures).threads(2).spawn_bfs().join()
}

#[test]
fn f01_no_state_of_the_model_serves_a_stale_value_and_there_are_hits() {
    for bounds in BOUNDS {
        let checker = check(bounds, Mistake::None);
        println!("{} states of {bounds:?}", checker.unique_state_count());
        checker.assert_properties();
    }
}

#[test]
fn f01_the_model_finds_each_mistake() {
    for (mistake, bounds) in MISTAKES {
        let checker = check(BOUNDS[bounds], mistake);
        println!("{mistake:?}: {} states", checker.unique_state_count());
        assert!(checker.discovery(NEVER_STALE).is_some(), "{mistake:?} was not found");
    }
    let empty = check(BOUNDS[0], Mistake::StoresNothing);
    assert!(HITS.iter().all(|hit| empty.discovery(hit).is_none()), "a cache that is always empty has no hit");
}
