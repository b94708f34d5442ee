//! The recovery settings of `listen`.

use std::time::Duration;

use notifyman::Backoff;

/// The silence after which a heartbeat is sent, and the time limit for its answer.
pub(super) const HEARTBEAT: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(5));
/// The time after which a missing canary is examined.
pub(super) const CANARY_DEADLINE: Duration = Duration::from_secs(10);
/// The longest wait between two attempts to connect.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Returns a policy with a permit for each connection, because a server that does not answer occupies one.
pub(super) fn backoff(connections: usize) -> Backoff {
    Backoff::default().longest(BACKOFF_MAX).at_once(connections.max(64))
}
