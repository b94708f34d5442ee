//! The engine as a leader sees it.

use std::sync::Arc;

use super::address::EngineConfig;
use super::commands;
use super::connection::EngineConnection;
use super::fault::{EngineFault, FaultKind};
use super::socket::Interrupt;
use crate::error::Error;
use crate::relay::engine_time::EngineTime;
use crate::relay::entry::StreamEntry;
use crate::relay::position::StreamPosition;
use crate::relay::sink::{AppendError, Sink};

/// A stream of a Redis or Valkey server, to which a leader appends.
///
/// It connects when it is used, and again after an error, then looking for the master again.
pub(crate) struct RedisSink {
    config: EngineConfig,
    name: Box<str>,
    key: String,
    keep: u64,
    interrupt: Arc<Interrupt>,
    connection: Option<EngineConnection>,
}

impl RedisSink {
    /// Creates the sink of the stream with a name, which is trimmed to about `keep` entries. It does no I/O yet.
    pub(crate) fn new(config: EngineConfig, name: &str, keep: u64, interrupt: Arc<Interrupt>) -> Self {
        let key = commands::key_of(name);
        Self { config, name: name.into(), key, keep, interrupt, connection: None }
    }

    /// Makes a call on the connection, which is opened if there is none, and closed after an error.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut EngineConnection, &str) -> Result<T, EngineFault>,
    ) -> Result<T, EngineFault> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => EngineConnection::open(&self.config, &self.interrupt)?,
        };
        let called = call(&mut connection, &self.key);
        let is_usable = called.as_ref().err().is_none_or(|fault| fault.kind == FaultKind::Stale);
        self.connection = Some(connection).filter(|_| is_usable);
        called
    }
}

impl Sink for RedisSink {
    fn time(&mut self) -> Result<EngineTime, Error> {
        let (time, engine) = self.call(|connection, _| {
            // A candidate would measure the clock of a server that was demoted.
            commands::check_role(connection)?;
            Ok((commands::time(connection)?, commands::engine(connection)?))
        })?;
        Ok(EngineTime { unix_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX), engine })
    }

    fn check_writable(&mut self) -> Result<(), Error> {
        Ok(self.call(|connection, key| {
            // A replica may be set to accept writes.
            commands::check_role(connection)?;
            commands::check_writable(connection, key)?;
            // A leader needs these, too, and must not miss one only once it leads.
            commands::time(connection)?;
            commands::last_position(connection, key)?;
            connection.call_together(&[]).map(|_| ())
        })?)
    }

    fn top(&mut self) -> Result<Option<StreamPosition>, Error> {
        Ok(self.call(commands::last_position)?)
    }

    fn append(&mut self, entries: &[(StreamPosition, StreamEntry)]) -> Result<(), AppendError> {
        if entries.is_empty() {
            return Ok(());
        }
        let keep = self.keep;
        let appended = self.call(|connection, key| {
            let commands: Vec<_> =
                entries.iter().map(|(position, entry)| commands::append(key, keep, *position, entry)).collect();
            if let [command] = commands.as_slice() {
                return connection.call(command).map(|_| ());
            }
            // In a transaction, because a server without memory would refuse some entries, and then accept others behind them.
            let answers = connection.call_together(&commands)?;
            let name = format!("XADD {key}");
            let mut faults =
                answers.iter().filter_map(|answer| EngineFault::of_answer(connection.address(), &name, answer));
            faults.next().map_or(Ok(()), Err)
        });
        appended.map_err(|fault| match fault.kind {
            FaultKind::Stale => AppendError::Stale,
            _ => AppendError::Failed(fault.into()),
        })
    }

    fn read_back(
        &mut self,
        before: Option<StreamPosition>,
        count: usize,
    ) -> Result<Vec<(StreamPosition, StreamEntry)>, Error> {
        let raw = self.call(|connection, key| commands::read_back(connection, key, before, count))?;
        let entries = raw.into_iter().map(|(position, fields)| {
            let entry = StreamEntry::from_fields(position, &fields);
            let named = |error| Error::Relay(format!("stream {:?}: {error}", self.name).into());
            entry.map(|entry| (position, entry)).map_err(named)
        });
        entries.collect()
    }
}

#[cfg(test)]
impl RedisSink {
    /// Deletes the stream.
    pub(crate) fn delete(&mut self) {
        let deleted = self.call(|connection, key| connection.call(redis::cmd("DEL").arg(key)));
        assert!(deleted.is_ok(), "{deleted:?}");
    }
}
