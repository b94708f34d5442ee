//! The states of the model, and the mistakes that can be made in its steps.

use super::super::follower::Follower;
use super::super::position::StreamPosition;
use super::super::tail::NoCanary;

/// The largest number of relays.
pub(super) const RELAYS: usize = 3;

/// A change of the algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mistake {
    None,
    /// A candidate reads the stream before its claim.
    ReadsBeforeClaim,
    /// A candidate continues, whatever its history says.
    ContinuesWithoutComparing,
    /// A candidate appends everything behind the canary.
    AppendsAllBehindCanary,
    /// A candidate takes a claim without a start for a leader, whose term has no canary.
    StopsAtDanglingClaim,
    /// A candidate keeps its history when its session has missed notifications.
    KeepsHistoryAtGap,
    /// A leader whose session has missed notifications appends no gap.
    HidesOwnGap,
    /// A candidate claims the term above the top of the stream, which another relay may have claimed before the engine lost it.
    TermFromTop,
    /// A leader numbers its entries by the top of the stream.
    SequenceFromTop,
    /// A leader whose append was refused does not read the tail.
    StepsDownWithoutReading,
    /// A leader that was refused resends what it has, in a new entry.
    ResendsWithoutReading,
    /// A reader does not compare the field `continues`.
    IgnoresContinues,
    /// A reader accepts any greater number of the same term.
    AcceptsSkip,
    /// A reader takes a claim for an entry like others.
    FollowsClaims,
    /// A reader does not compare the top with its position.
    IgnoresTop,
    /// A reader reports the gap before it knows where it begins again.
    ReportsGapBeforeBeginning,
}

/// An entry of the stream. The position says whether it is a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ModelEntry {
    Claim,
    Start(Option<StreamPosition>),
    /// An event of the database, by its number: a notification or a canary.
    Event(u8),
    Gap,
}

/// The part of a tail that is needed to continue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ModelTail {
    pub(super) last: Option<StreamPosition>,
    /// The number of the event.
    pub(super) canary: Result<u8, NoCanary>,
    pub(super) notifications: Vec<u8>,
}

/// The progress of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum RelayPhase {
    Candidate,
    /// Has read the tail before its claim: a mistake.
    Hasty(ModelTail),
    /// The engine has accepted the claim, after which the barrier was sent behind so many events.
    Claimed {
        term: u64,
        barrier: u8,
    },
    Read {
        term: u64,
        barrier: u8,
        tail: ModelTail,
    },
    Leading(Leadership),
}

/// A leader, or a candidate that appends its start.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Leadership {
    pub(super) term: u64,
    /// The number of the next entry, which is the start if it is 1.
    pub(super) sequence: u64,
    pub(super) continues: Option<StreamPosition>,
    /// The next event to append.
    pub(super) next: u8,
    /// The answer to the last append was lost, or a refusal.
    pub(super) is_unsure: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RelayState {
    pub(super) phase: RelayPhase,
    /// The history has the events from `since` up to `received`.
    pub(super) since: u8,
    pub(super) received: u8,
    /// Events that the session has missed, within those.
    pub(super) missed: Option<(u8, u8)>,
    /// Appends nothing for them: a mistake.
    pub(super) is_silent: bool,
    /// A request that the network has delayed.
    pub(super) delayed: Option<(StreamPosition, ModelEntry)>,
}

/// A reader, and what it knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ReaderState {
    pub(super) follower: Option<Follower>,
    /// All events before this one were delivered, or are covered by a gap.
    pub(super) seen: u8,
    /// The last notification that was delivered since the last gap.
    pub(super) delivered: Option<u8>,
    pub(super) has_gap: bool,
    /// Has reported the gap, and begins again: a mistake.
    pub(super) begins_again: bool,
}

/// Violations that a step found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Violations {
    /// Something was lost without a gap.
    pub(super) lost: bool,
    /// Something was delivered twice without a gap.
    pub(super) twice: bool,
    /// There was a gap, and nothing had been lost.
    pub(super) needless_gap: bool,
    /// A leader has ended its term that no other relay had ended.
    pub(super) needless_end: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RelayModelState {
    /// The number of events that the database has committed.
    pub(super) committed: u8,
    pub(super) stream: Vec<(StreamPosition, ModelEntry)>,
    /// The position that the engine compares with, which trimming leaves.
    pub(super) top: Option<StreamPosition>,
    /// The number of claims.
    pub(super) claims: u64,
    /// The number of relays that have claimed a term.
    pub(super) claimants: usize,
    pub(super) relays: [RelayState; RELAYS],
    pub(super) reader: ReaderState,
    pub(super) engine_faults: u8,
    pub(super) network_faults: u8,
    pub(super) session_faults: u8,
    pub(super) violations: Violations,
}

/// The fate of a request to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestFate {
    Answered,
    AnswerLost,
    /// The request has no answer, and may reach the engine later.
    Delayed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelayModelAction {
    Commit,
    Receive(usize),
    /// The session of a relay is lost and restored, and has missed what it had not received.
    MissEvents(usize),
    Claim(usize, RequestFate),
    ReadBack(usize),
    Append(usize, RequestFate),
    Compare(usize),
    /// A request that was delayed reaches the engine.
    Arrive(usize),
    /// The engine loses all entries but the first ones.
    LoseEntries(usize),
    Delete,
    /// The engine removes the oldest entries.
    Trim(usize),
    Begin,
    Read,
    CheckTop,
}

/// The bounds of a model.
#[derive(Debug, Clone, Copy)]
pub(super) struct RelayBounds {
    /// The events: `c` for a canary and `n` for a notification.
    pub(super) events: &'static [u8],
    pub(super) relays: usize,
    pub(super) claims: u64,
    pub(super) engine_faults: u8,
    pub(super) network_faults: u8,
    pub(super) session_faults: u8,
}

pub(super) struct RelayModel {
    pub(super) bounds: RelayBounds,
    pub(super) mistake: Mistake,
}
