//! The states of the model, and the mistakes that can be made in its steps.

/// The handler of notifications, as the holder of the lock. Smaller numbers are fillers.
pub(super) const HANDLER: usize = 2;
/// The indexes of the floors.
pub(super) const STRIPE: usize = 0;
pub(super) const CHANNEL: usize = 1;

/// A change of the algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mistake {
    None,
    /// Nothing is stored.
    StoresNothing,
    /// The removal precedes the lock and the stamp.
    RemovesBeforeStamp,
    /// The stamps are compared before the lock is taken.
    ComparesBeforeLock,
    /// The stamp of a key is forgotten when its entry is evicted.
    EvictsStamp,
    /// An entry is served in later epochs.
    IgnoresEpochOfEntry,
    /// A fill is admitted in a later epoch than it began.
    IgnoresEpochOfFill,
    /// A flush removes the keys that are cached.
    FlushesKnownKeys,
    /// The epoch begins before the server has acknowledged the LISTEN.
    OpensBeforeListen,
    /// The channel is open before its epoch begins.
    OpensBeforeEpoch,
    /// A fill from the standby is admitted like others.
    IgnoresFloor,
    /// The floor is a position that the writer read in its transaction.
    FloorOfWriter,
    /// A question that was asked before the invalidation is its answer, too.
    TakesEarlierAnswer,
    /// A prefix invalidation advances no number.
    SweepsWithoutNumber,
    /// A prefix invalidation does not wait for fills that are being inserted.
    SweepsWithoutWait,
    /// A gap leaves the floors as they are.
    GapKeepsFloors,
    /// The end of a silence in which nothing was missed begins no epoch for readers that have bypassed the cache meanwhile.
    ResumesForAll,
    /// The end of such a silence leaves the floors as they are.
    ResumeKeepsFloors,
}

/// The kind of a message that the writer or the canary causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum NoticeKind {
    Key,
    Prefix,
    Unknown,
    Canary,
}

/// The link, from its loss to the acknowledgement of the LISTEN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum LinkPhase {
    /// The session is lost, which is not known yet.
    Lost,
    /// The channel is away, and is being listened to again.
    Away,
    /// The server has registered the LISTEN after this version.
    Registered(u8),
    /// The floor is marked, or the first of two steps has been made.
    Opening(u8),
    /// The channel is open, and the LISTEN is on its way: a mistake.
    Hasty,
    /// Nothing arrives, though nothing is lost: the channel is away.
    Silent,
    /// The silence is over, and the floor is marked.
    Resuming,
    Open,
}

/// The progress of a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum FillStep {
    Stamp,
    Sweeps,
    Epoch,
    Replayed,
    Read,
    Lock,
    Compare,
    StripeFloor,
    ChannelFloor,
    Store,
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FillState {
    pub(super) step: FillStep,
    pub(super) stamp: u8,
    pub(super) sweeps: u8,
    pub(super) epoch: u8,
    pub(super) replayed: u8,
    pub(super) value: u8,
}

/// The floor of a stripe or of a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct ModelFloor {
    /// `None` while it is not known.
    pub(super) lsn: Option<u8>,
    pub(super) is_marked: bool,
    pub(super) is_asked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum QuestionPhase {
    None,
    Asked,
    Answered(u8),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FenceModelState {
    pub(super) committed: u8,
    pub(super) replayed: u8,
    pub(super) link: LinkPhase,
    pub(super) queue: Vec<(NoticeKind, u8)>,
    pub(super) can_lose: bool,
    pub(super) can_send_canary: bool,
    pub(super) has_standby: bool,
    pub(super) is_away: bool,
    pub(super) epoch: u8,
    pub(super) stamp: u8,
    pub(super) sweeps: u8,
    pub(super) floors: [ModelFloor; 2],
    pub(super) question: QuestionPhase,
    /// The holder of the stripe's lock.
    pub(super) lock: Option<usize>,
    /// The value and its epoch.
    pub(super) entry: Option<(u8, u8)>,
    /// The message that is being handled, and the number of steps made.
    pub(super) handling: Option<(NoticeKind, u8, u8)>,
    /// Everything up to this version has been invalidated.
    pub(super) handled: u8,
    pub(super) fills: [FillState; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FenceModelAction {
    Commit(NoticeKind),
    Replay,
    Canary,
    /// The session is lost with all messages but the first ones.
    Lose(usize),
    /// Messages are late.
    Silence,
    Advance,
    Handle,
    Ask,
    Answer,
    Fill(usize),
    Evict,
}

/// The bounds of a model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// `true` for the mode [`Serve`](crate::fence::Serve).
    pub(super) serves: bool,
    /// `true` if the fills read the standby.
    pub(super) standby: bool,
    pub(super) fills: usize,
    pub(super) commits: u8,
    /// The number of kinds of invalidations.
    pub(super) kinds: usize,
    pub(super) loses: bool,
    pub(super) has_canary: bool,
}

pub(super) struct FenceModel {
    pub(super) bounds: Bounds,
    pub(super) mistake: Mistake,
}

impl FenceModelState {
    pub(super) fn listens(&self) -> bool {
        !matches!(self.link, LinkPhase::Lost | LinkPhase::Away | LinkPhase::Hasty)
    }

    pub(super) fn mark(&mut self, floor: usize) {
        if !self.has_standby {
            return;
        }
        self.floors[floor].lsn = None;
        self.floors[floor].is_marked = true;
    }
}

pub(super) const BEGINNING: FillState =
    FillState { step: FillStep::Stamp, stamp: 0, sweeps: 0, epoch: 0, replayed: 0, value: 0 };
