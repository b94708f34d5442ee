//! The events of the feature `tracing`: each change of a connection's state, each timer that fires, and each fault. Without
//! the feature, the functions do nothing.
//!
//! Every event has the target `notifyman`, and the connection's number, label (if it has one), host and database, unless it
//! concerns no connection.

#![cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "only events use the arguments"))]

use std::fmt::Debug;

use crate::config::Config;
#[cfg(feature = "tracing")]
use crate::connection::{database_of, host_of};
use crate::error::Error;
use crate::gap::Gap;
use crate::manager::conn_id::ConnId;
use crate::manager::event::Check;

/// Writes an event at this level. The values are computed only if a subscriber wants the event.
macro_rules! event {
    ($level:ident, $id:ident, $config:ident, $($rest:tt)+) => {
        #[cfg(feature = "tracing")]
        tracing::$level!(
            target: "notifyman",
            connection = %$id.number(),
            label = $config.get_label(),
            host = host_of($config),
            database = database_of($config),
            $($rest)+
        );
    };
}

/// Logs a change of state.
#[inline]
pub(super) fn state_changed(id: ConnId, config: &Config, from: &'static str, to: &'static str) {
    event!(debug, id, config, from, to, "state changed");
}

/// A schedule that several connections share, and that is no [`Timer`](super::timers::Timer) of one.
#[derive(Debug, Clone, Copy)]
pub(super) enum SharedTimer {
    /// The next step of a canary is due.
    Canary,
    /// The audit of connections is due.
    Audit,
    /// A connection attempt has its permit.
    DialPermit,
    /// An idle event is due.
    Idle,
}

/// Logs a timer that has fired, and still counts: that of a connection, or of a task on its behalf.
#[inline]
pub(super) fn timer_fired(id: ConnId, config: Option<&Config>, timer: impl Debug) {
    // A connection that has been removed has no configuration any more.
    #[cfg(feature = "tracing")]
    tracing::trace!(
        target: "notifyman",
        connection = %id.number(),
        label = config.and_then(Config::get_label),
        host = config.map(host_of),
        database = config.map(database_of),
        ?timer,
        "timer fired"
    );
}

/// Logs a timer that belongs to no connection.
#[inline]
pub(super) fn shared_timer_fired(timer: SharedTimer) {
    #[cfg(feature = "tracing")]
    tracing::trace!(target: "notifyman", ?timer, "timer fired");
}

pub(super) fn lost(id: ConnId, config: &Config, error: &Error, will_reconnect: bool) {
    event!(warn, id, config, error = %format_args!("{error:#}"), will_reconnect, "connection lost");
}

/// Logs that a connection cannot be opened or restored, and is in the garbage.
pub(super) fn restore_failed(id: ConnId, config: &Config, error: &Error, attempts: u32) {
    event!(error, id, config, error = %format_args!("{error:#}"), attempts, will_reconnect = false, "connection cannot be restored");
}

/// Logs a failed attempt to open a connection, which another one follows: the first one, which is also an event of the
/// manager, at a level at which it is seen.
pub(super) fn attempt_failed(id: ConnId, config: &Config, error: &Error, attempts: u32, is_first: bool) {
    if is_first {
        event!(warn, id, config, error = %format_args!("{error:#}"), attempts, will_reconnect = true, "connection attempt failed");
    } else {
        event!(debug, id, config, error = %format_args!("{error:#}"), attempts, will_reconnect = true, "connection attempt failed");
    }
}

/// Logs that a connection is open for the first time, after this number of attempts.
pub(super) fn opened(id: ConnId, config: &Config, attempts: u32) {
    event!(info, id, config, attempts, "connection opened");
}

pub(super) fn restored(id: ConnId, config: &Config, gap: &Gap, attempts: u32) {
    event!(
        info,
        id,
        config,
        gap_ms = u64::try_from(gap.duration().as_millis()).unwrap_or(u64::MAX),
        channels = gap.channels().len(),
        epoch = gap.epoch(),
        attempts,
        "connection restored"
    );
}

/// Logs that the server of a connection had forgotten channels.
pub(super) fn unregistered(id: ConnId, config: &Config, channels: usize) {
    event!(warn, id, config, channels, "the server had forgotten channels; they are listened to again");
}

pub(super) fn canary_not_sent(id: ConnId, config: &Config, error: &Error) {
    event!(warn, id, config, error = %format_args!("{error:#}"), "could not send a canary");
}

/// Logs that the server refuses a check of delivery.
pub(super) fn check_refused(id: ConnId, config: &Config, check: Check, error: &Error) {
    event!(warn, id, config, %check, error = %format_args!("{error:#}"), "delivery is not checked: the server refuses it");
}

pub(super) fn in_transaction(id: ConnId, config: &Config) {
    event!(warn, id, config, "connection in a transaction: it receives nothing");
}
