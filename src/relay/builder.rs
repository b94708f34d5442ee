//! The settings of a relay, and its start.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "changes")]
use crate::changes;
use crate::config::Config;
use crate::error::{ConfigError, Error, Escaped, ValueError};
use crate::proto::sql::{self, Limits};
use crate::relay::pace::RelayPace;
use crate::relay::process::Relay;
use crate::relay::redis::EngineConfig;
use crate::relay::session::MARKER_CHANNEL;
use crate::relay::status::{EventSink, RelayEvent};

/// The settings of a relay, which [`Relay::builder`] returns.
///
/// ```
/// use std::time::Duration;
/// use notifyman::Config;
/// use notifyman::relay::Relay;
///
/// let db1: Config = "postgres://db1.example/shop".parse()?;
/// let builder = Relay::builder(["redis://r1.example", "redis://r2.example"])?
///     .database(db1.label("shop"), ["prices", "stock"])?
///     .keep(500_000)
///     .canary(Duration::from_secs(5), Duration::from_secs(2));
/// # drop(builder);
/// # Ok::<(), notifyman::Error>(())
/// ```
#[must_use = "a builder does nothing until it starts"]
pub struct RelayBuilder {
    pub(crate) engine: EngineConfig,
    pub(crate) databases: Vec<RelayedDatabase>,
    pub(crate) keep: u64,
    pub(crate) pace: RelayPace,
    pub(crate) on_event: EventSink,
}

/// A database whose notifications are relayed.
#[derive(Debug)]
pub(crate) struct RelayedDatabase {
    pub(crate) config: Config,
    pub(crate) channels: Vec<Box<str>>,
    /// The changes of its tables are relayed.
    pub(crate) has_changes: bool,
}

impl fmt::Debug for RelayBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { engine, databases, keep, pace, on_event: _ } = self;
        f.debug_struct("RelayBuilder")
            .field("engine", engine)
            .field("databases", databases)
            .field("keep", keep)
            .field("pace", pace)
            .finish_non_exhaustive()
    }
}

impl RelayBuilder {
    pub(crate) fn new(engine: EngineConfig) -> Self {
        let pace = RelayPace { period: Duration::from_secs(15), deadline: Duration::from_secs(5) };
        Self { engine, databases: Vec::new(), keep: 100_000, pace, on_event: Arc::new(|_| ()) }
    }

    /// Adds a database and the channels of it that are relayed. The [label](Config::label) of the configuration names its stream:
    /// `notifyman:LABEL`; without one it is `notifyman:SYSTEM/DATABASE`, of the identifier of the cluster, which a failover does
    /// not change, and the name of the database.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for an invalid connection string and a label or a database that is taken, and [`Error::Value`] for an invalid channel.
    pub fn database<C, I>(mut self, config: C, channels: I) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        C::Error: Into<Error>,
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let config = config.try_into().map_err(Into::into)?;
        let channels = sql::checked_channels(channels, Limits::Exact)?;
        if channels.iter().any(|channel| **channel == *MARKER_CHANNEL) {
            let message =
                format!("cannot relay channel {MARKER_CHANNEL}: it is reserved for the relays; use another name");
            return Err(ValueError { message }.into());
        }
        if let Some(label) = config.get_label()
            && self.databases.iter().any(|database| database.config.get_label() == Some(label))
        {
            let message = format!(
                "two databases have the label {:?}: it names a stream, so give each its own",
                Escaped(label).to_string()
            );
            return Err(ConfigError { origin: "relay".into(), position: None, message }.into());
        }
        if config.get_label().is_none() && self.databases.iter().any(|database| database.config == config) {
            let message = "a database is given twice: its stream needs one relay in each process".into();
            return Err(ConfigError { origin: "relay".into(), position: None, message }.into());
        }
        self.databases.push(RelayedDatabase { config, channels, has_changes: false });
        Ok(self)
    }

    /// Adds a database like [`database`](Self::database), and relays the changes of its tables, too, for workers that
    /// [follow](crate::changes::Worker::follow) a reader. There need be no other channel.
    ///
    /// ```
    /// use notifyman::relay::Relay;
    ///
    /// let relay = Relay::builder("redis://r1.example")?
    ///     .database_with_changes("postgres://db1.example/shop", [] as [&str; 0])?;
    /// # drop(relay);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// The changes are those that an [`Installer`](crate::changes::Installer) reports with delivery by NOTIFY. Payloads that are too
    /// long for it arrive as the installation says; one that was [spilled](crate::changes::Oversize::Spill) stays in the database, and
    /// the change says so. With delivery by the log nothing of the database is relayed, which is a
    /// [fault](crate::relay::RelayStatus::fault), as if nothing is installed: workers read a log by themselves. The delivery is checked
    /// with each canary. If it has changed, there is a gap.
    ///
    /// # Errors
    ///
    /// The errors of [`database`](Self::database), for the same reasons.
    #[cfg(feature = "changes")]
    pub fn database_with_changes<C, I>(self, config: C, channels: I) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        C::Error: Into<Error>,
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut builder = self.database(config, channels)?;
        if let Some(database) = builder.databases.last_mut() {
            database.has_changes = true;
            if database.channels.iter().all(|channel| **channel != *changes::CHANNEL) {
                database.channels.push(changes::CHANNEL.into());
            }
        }
        Ok(builder)
    }

    /// Sets about how many entries the engine keeps of each stream: a reader that was away for longer has a gap. The default is
    /// 100,000.
    pub fn keep(mut self, entries: u64) -> Self {
        self.keep = entries;
        self
    }

    /// Sets the canary: the leader marks the place in every `period`, by one notification on the channel `notifyman_relay`, and
    /// another relay does if it does not. A leader that appends nothing for its `period + deadline` is replaced: candidates
    /// and readers take that time from its entries. The defaults are 15 and 5 seconds.
    pub fn canary(mut self, period: Duration, deadline: Duration) -> Self {
        self.pace = RelayPace { period, deadline };
        self
    }

    /// Sets a function that is called for each change, for a log. It is called on the threads of the relay, and should return
    /// soon.
    pub fn on_event(mut self, call: impl Fn(&RelayEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Arc::new(call);
        self
    }

    /// Starts the relay, on threads of its own. Servers and an engine that cannot be reached are tried again.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a thread cannot be started.
    pub fn start(self) -> Result<Relay, Error> {
        Relay::start(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r01_a_label_is_that_of_one_database() {
        let config = |label: &str| Config::without_env("postgres://app@db1/shop").unwrap().label(label);
        let builder = Relay::builder("redis://r1").unwrap().database(config("a"), ["c"]).unwrap();
        let builder = builder.database(config("b"), ["c"]).unwrap();
        let error = builder.database(config("a"), ["c"]).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("two databases have the label"), "{error}");
        let builder = Relay::builder("redis://r1").unwrap().database("postgres://app@db1/shop", ["c"]).unwrap();
        let builder = builder.database("postgres://app@db2/shop", ["c"]).unwrap();
        let error = builder.database("postgres://app@db1/shop", ["d"]).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("a database is given twice"), "{error}");
        assert!(Relay::builder("redis://r1").unwrap().database("host=db1", [MARKER_CHANNEL]).unwrap_err().is_usage());
    }
}
