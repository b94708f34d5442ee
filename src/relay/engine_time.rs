//! Times of an engine's clock, which another engine's clock does not know.

/// A time of the clock of one engine.
///
/// After a failover the other engine has another clock. So a time is compared only with that of the same server process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct EngineTime {
    /// Milliseconds since 1970.
    pub(crate) unix_ms: u64,
    /// The run id of the engine's process; empty if it is not known, and then the time means nothing.
    pub(crate) engine: Box<str>,
}

impl EngineTime {
    /// Returns `true` if a text can be the run id of an engine.
    pub(crate) fn is_engine(text: &str) -> bool {
        (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }
}
