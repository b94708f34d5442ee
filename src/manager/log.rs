//! One line for each change in a connection's life, where the feature `tracing` is on; nothing for each attempt.

use crate::error::Error;
use crate::gap::Gap;
use crate::manager::Check;
use crate::manager::members::ConnId;

/// It has died, and is brought back or is in the garbage.
pub(super) fn lost(id: ConnId, error: &Error, comes_back: bool) {
    #[cfg(feature = "tracing")]
    tracing::warn!(connection = %id, %error, comes_back, "connection lost");
    let _ = (id, error, comes_back);
}

/// It couldn't be brought back, and is in the garbage.
pub(super) fn gave_up(id: ConnId, error: &Error, attempts: u32) {
    #[cfg(feature = "tracing")]
    tracing::error!(connection = %id, %error, attempts, "connection given up");
    let _ = (id, error, attempts);
}

/// It is back.
pub(super) fn restored(id: ConnId, gap: &Gap, attempts: u32) {
    #[cfg(feature = "tracing")]
    tracing::info!(
        connection = %id,
        deaf = ?gap.duration(),
        channels = gap.channels().len(),
        epoch = gap.epoch(),
        attempts,
        "connection restored"
    );
    let _ = (id, gap, attempts);
}

/// Its server had forgotten channels.
pub(super) fn unregistered(id: ConnId, channels: usize) {
    #[cfg(feature = "tracing")]
    tracing::warn!(connection = %id, channels, "the server had forgotten channels; it listens to them again");
    let _ = (id, channels);
}

/// It couldn't send a canary.
pub(super) fn no_canary(id: ConnId, error: &Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(connection = %id, %error, "no canary can be sent");
    let _ = (id, error);
}

/// Logs that the server refuses a check of delivery.
pub(super) fn check_refused(id: ConnId, check: Check, error: &Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(connection = %id, %check, %error, "delivery is not checked: the server refuses it");
    let _ = (id, check, error);
}

/// It is in a transaction, and hears nothing.
pub(super) fn in_transaction(id: ConnId) {
    #[cfg(feature = "tracing")]
    tracing::warn!(connection = %id, "connection in a transaction: it receives nothing");
    let _ = id;
}
