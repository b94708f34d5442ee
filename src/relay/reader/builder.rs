//! The settings of a reader.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::RelayReader;
use crate::error::{ConfigError, Error, Escaped};
use crate::relay::redis::EngineConfig;
use crate::relay::redis::commands::KEY_PREFIX;

/// The longest name of a stream, in bytes.
const NAME_MAX: usize = 512;

/// The settings of a [`RelayReader`], from [`RelayReader::builder`].
///
/// ```
/// use std::time::Duration;
/// use notifyman::relay::RelayReader;
///
/// let reader = RelayReader::builder(["redis://cache1", "redis://cache2"])?
///     .stream("berlin")
///     .stream("oslo")
///     .timeout(Duration::from_secs(2))
///     .build()?;
/// let streams: Vec<_> = reader.streams().map(|id| id.to_string()).collect();
/// assert_eq!(streams, ["berlin", "oslo"]);
/// # Ok::<(), notifyman::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct RelayReaderBuilder {
    engine: EngineConfig,
    pub(super) streams: Vec<Box<str>>,
    pub(super) timeout: Option<Duration>,
    pub(super) silence: Option<Duration>,
    pub(super) reports_canaries: bool,
}

impl RelayReaderBuilder {
    pub(super) fn new(engine: EngineConfig) -> Self {
        Self { engine, streams: Vec::new(), timeout: None, silence: None, reports_canaries: false }
    }

    /// Adds the stream with this name: the label of the database at the relay, or its `SYSTEMIDENTIFIER/DATABASE`. All streams are read
    /// on one connection. Its key in the engine is `notifyman:` with the name.
    pub fn stream(mut self, name: impl AsRef<str>) -> Self {
        self.streams.push(name.as_ref().into());
        self
    }

    /// Sets the time after which an idle event is returned: see [`RelayReader::set_timeout`]. The default is none.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Sets the time without an entry after which a stream counts as disconnected. By default it is that of the relay, whose
    /// entries name it: the period of its canary and the deadline, together 20 s unless the relay sets other times.
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = Some(silence);
        self
    }

    /// Sets whether the canaries of the relay are reported as [`Event::CanaryReceived`](crate::Event::CanaryReceived): off by default,
    /// because each then wakes the program, and asks the engine for its time. A [fence](crate::fence) works without them, and needs
    /// them only for [`as_of`](crate::fence::FenceChannel::as_of), which is as fine as the period of the relay's canary.
    pub fn report_canaries(mut self, report: bool) -> Self {
        self.reports_canaries = report;
        self
    }

    /// Sets the time limit for connecting to one server, and for each of its answers. The default is 5 s.
    pub fn call_timeout(mut self, limit: Duration) -> Self {
        (self.engine.connect_timeout, self.engine.answer_timeout) = (limit, limit);
        self
    }

    /// Creates the reader. Nothing is read before [`RelayReader::next_event`] is first called.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there is no stream, or one twice, and for an invalid name or time.
    pub fn build(self) -> Result<RelayReader, Error> {
        let engine = self.engine.clone();
        if self.streams.is_empty() {
            return Err(invalid("there is no stream: give the name of at least one"));
        }
        for (number, name) in self.streams.iter().enumerate() {
            let shown = Escaped(name.chars().take(60).collect::<String>()).to_string();
            if name.is_empty() || name.len() > NAME_MAX {
                return Err(invalid(format!(
                    "the name of a stream has 1 to {NAME_MAX} bytes, and {shown:?} has {}",
                    name.len()
                )));
            }
            if let Some(label) = name.strip_prefix(KEY_PREFIX) {
                let label = Escaped(label.chars().take(60).collect::<String>()).to_string();
                return Err(invalid(format!(
                    "the name of a stream has no {KEY_PREFIX:?}, which only its key has: give {label:?}"
                )));
            }
            if self.streams.iter().take(number).any(|other| other == name) {
                return Err(invalid(format!("the stream {shown:?} is given twice")));
            }
        }
        if self.silence.is_some_and(|silence| silence.is_zero()) || engine.answer_timeout.is_zero() {
            return Err(invalid("a time limit of zero: give one of at least a millisecond"));
        }
        Ok(RelayReader::new(self, Arc::new(engine)))
    }
}

fn invalid(message: impl fmt::Display) -> Error {
    ConfigError { origin: "reader of a relay".into(), position: None, message: message.to_string() }.into()
}
