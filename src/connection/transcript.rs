//! The transcript of a session: each message on the wire is an event of the feature `tracing`, at the level TRACE. Without the
//! feature, nothing here has a size or does anything.
//!
//! ```text
//! connection=1 host="db1:5432" database="shop" direction="F" name="Query" length=18
//! connection=1 host="db1:5432" database="shop" direction="B" name="CommandComplete" length=11
//! ```
//!
//! The content of messages is a field only if the environment variable `NOTIFYMAN_TRACE_CONTENT` is `1`. It is not a target
//! of its own, since a filter for `notifyman` would match that, too.

#![cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "only the transcript uses the arguments"))]

#[cfg(feature = "tracing")]
use std::{num::NonZeroU64, sync::LazyLock};

use crate::config::Config;
use crate::proto::Direction;
#[cfg(feature = "tracing")]
use crate::proto::{MessageTrace, TracedMessage};

/// The connection to which messages belong: its id in a manager, if it is in one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TraceLabel {
    #[cfg(feature = "tracing")]
    connection: Option<NonZeroU64>,
}

impl TraceLabel {
    /// Returns the label of a connection in a manager, with its id there.
    #[inline]
    pub(crate) fn new(connection: u64) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            connection: NonZeroU64::new(connection),
        }
    }
}

/// Writes the messages of one connection as events.
#[derive(Debug, Clone)]
pub(super) struct MessageLog {
    #[cfg(feature = "tracing")]
    pub(super) label: TraceLabel,
    #[cfg(feature = "tracing")]
    label_text: Option<String>,
    #[cfg(feature = "tracing")]
    host: String,
    #[cfg(feature = "tracing")]
    database: String,
}

impl MessageLog {
    pub(super) fn new(config: &Config, label: TraceLabel) -> Self {
        #[cfg(not(feature = "tracing"))]
        return Self {};
        #[cfg(feature = "tracing")]
        Self {
            label,
            label_text: config.get_label().map(str::to_owned),
            host: host_of(config),
            database: database_of(config),
        }
    }

    /// Writes a message that was sent or received before a session, or on a stream of its own.
    pub(super) fn record(&self, direction: Direction, name: &'static str, length: usize) {
        #[cfg(feature = "tracing")]
        self.write(TracedMessage { direction, name, length, content: None });
    }

    #[cfg(feature = "tracing")]
    fn write(&self, TracedMessage { direction, name, length, content }: TracedMessage<'_>) {
        let Self { label, label_text, host, database } = self;
        tracing::trace!(
            target: "notifyman",
            connection = label.connection.map(tracing::field::display),
            label = label_text.as_deref(),
            host,
            database,
            direction = if direction == Direction::Frontend { "F" } else { "B" },
            name,
            length,
            content = content.map(|content| tracing::field::display(content.escape_ascii())),
            "message"
        );
    }
}

/// The transcript of one session. It exists only while a subscriber wants its events.
#[cfg(feature = "tracing")]
#[derive(Debug)]
pub(super) struct Transcript {
    trace: MessageTrace,
    pub(super) log: MessageLog,
}

#[cfg(feature = "tracing")]
impl Transcript {
    /// Begins the transcript between two messages: before the startup message, if the session `is_new`.
    pub(super) fn begin(config: &Config, label: TraceLabel, is_new: bool) -> Self {
        static HAS_CONTENT: LazyLock<bool> =
            LazyLock::new(|| std::env::var_os("NOTIFYMAN_TRACE_CONTENT").is_some_and(|value| value == "1"));
        let trace = MessageTrace::new(is_new, *HAS_CONTENT);
        Self { trace, log: MessageLog::new(config, label) }
    }

    /// Returns `true` if a subscriber may want the events. This is a comparison if none does.
    #[inline]
    pub(super) fn is_wanted() -> bool {
        tracing::enabled!(target: "notifyman", tracing::Level::TRACE)
    }

    /// Sets the connection to which the messages belong. A call outside the manager's loop has no label.
    pub(super) fn set_label(&mut self, label: TraceLabel) {
        self.log.label.connection = label.connection.or(self.log.label.connection);
    }

    /// Writes the messages that are complete with these bytes.
    pub(super) fn handle(&mut self, direction: Direction, bytes: &[u8]) {
        let Self { trace, log } = self;
        trace.handle(direction, bytes, |message| log.write(message));
    }
}

/// Returns the hosts of a configuration with their ports.
pub(crate) fn host_of(config: &Config) -> String {
    let endpoints = config.endpoints().unwrap_or_default();
    endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Returns the name of the database of a configuration.
pub(crate) fn database_of(config: &Config) -> String {
    config.effective_dbname().map(Into::into).unwrap_or_default()
}
