//! A fill: what it notes at its beginning, and its result.

use crate::fence::epoch::EpochStamp;
use crate::fence::floor::Lsn;
use crate::fence::stripe::RemovalStamp;

/// The stamps at the beginning of a fill.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FillStamps {
    pub(crate) stripe: usize,
    pub(crate) stamp: u64,
    pub(crate) sweeps: u64,
    pub(crate) removals: RemovalStamp,
    pub(crate) epoch: EpochStamp,
    /// The position that a standby had replayed before the query, if the fill reads a standby.
    pub(crate) replayed: Option<Lsn>,
}

/// The result of a fill.
///
/// ```
/// use notifyman::fence::Admission;
///
/// assert!(Admission::Stored.is_stored());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Admission {
    /// The value was stored.
    Stored,
    /// Not stored: the key, or one that shares its stripe, was invalidated since the lease began, or everything was.
    Invalidated,
    /// Not stored: notifications may be lost, because the connection of the channel is away, or nothing listens for the
    /// channel yet.
    Away,
    /// Not stored: the standby had not replayed the latest invalidation of the key when it was queried, or the primary has not
    /// said yet which position that is.
    Behind,
    /// Not stored: `admit` was called inside a closure that the fence calls under a lock.
    Reentrant,
}

impl Admission {
    /// Returns `true` if the value was stored.
    pub fn is_stored(self) -> bool {
        self == Self::Stored
    }
}
