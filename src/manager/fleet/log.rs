//! One line for each change in a connection's life, with the feature `tracing`; nothing for each attempt.

use crate::error::Error;
use crate::gap::Gap;
use crate::manager::conn_id::ConnId;
use crate::manager::event::Check;

pub(super) fn lost(id: ConnId, error: &Error, is_restored: bool) {
    #[cfg(feature = "tracing")]
    tracing::warn!(connection = %id, %error, is_restored, "connection lost");
    let _ = (id, error, is_restored);
}

/// Logs that a connection cannot be restored, and is in the garbage.
pub(super) fn restore_failed(id: ConnId, error: &Error, attempts: u32) {
    #[cfg(feature = "tracing")]
    tracing::error!(connection = %id, %error, attempts, "connection cannot be restored");
    let _ = (id, error, attempts);
}

pub(super) fn restored(id: ConnId, gap: &Gap, attempts: u32) {
    #[cfg(feature = "tracing")]
    tracing::info!(
        connection = %id,
        gap_duration = ?gap.duration(),
        channels = gap.channels().len(),
        epoch = gap.epoch(),
        attempts,
        "connection restored"
    );
    let _ = (id, gap, attempts);
}

/// Logs that the server of a connection had forgotten channels.
pub(super) fn unregistered(id: ConnId, channels: usize) {
    #[cfg(feature = "tracing")]
    tracing::warn!(connection = %id, channels, "the server had forgotten channels; they are listened to again");
    let _ = (id, channels);
}

pub(super) fn canary_not_sent(id: ConnId, error: &Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(connection = %id, %error, "could not send a canary");
    let _ = (id, error);
}

/// Logs that the server refuses a check of delivery.
pub(super) fn check_refused(id: ConnId, check: Check, error: &Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(connection = %id, %check, %error, "delivery is not checked: the server refuses it");
    let _ = (id, check, error);
}

pub(super) fn in_transaction(id: ConnId) {
    #[cfg(feature = "tracing")]
    tracing::warn!(connection = %id, "connection in a transaction: it receives nothing");
    let _ = id;
}
