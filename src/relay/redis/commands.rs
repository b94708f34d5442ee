//! The commands that relays and readers use, with their answers checked.

use std::time::Duration;

use redis::{Cmd, Value, cmd};

use super::connection::{EngineConnection, property};
use super::fault::{EngineFault, FaultKind};
use crate::relay::engine_time::EngineTime;
use crate::relay::entry::StreamEntry;
use crate::relay::position::StreamPosition;

/// The names and values of one entry, as the engine stores them.
pub(crate) type RawFields = Vec<(Vec<u8>, Vec<u8>)>;

/// An entry as the engine stores it, with its position.
pub(crate) type RawEntry = (StreamPosition, RawFields);

/// The beginning of the key of a stream, behind which its name follows.
pub(crate) const KEY_PREFIX: &str = "notifyman:";

/// Returns the key of a stream.
pub(crate) fn key_of(name: &str) -> String {
    format!("{KEY_PREFIX}{name}")
}

/// Returns the time of the engine's clock, as the time since 1970.
pub(crate) fn time(connection: &mut EngineConnection) -> Result<Duration, EngineFault> {
    let answer = connection.call(&cmd("TIME"))?;
    let parts = match &answer {
        Value::Array(parts) => parts.iter().map(decimal).collect::<Option<Vec<u64>>>(),
        _ => None,
    };
    match parts.as_deref() {
        Some([seconds, micros]) => Ok(Duration::from_secs(*seconds).saturating_add(Duration::from_micros(*micros))),
        _ => Err(EngineFault::of_protocol(connection.address(), "TIME")),
    }
}

/// Returns an error if the server is no master any more. A server that was demoted keeps its connections.
pub(crate) fn check_role(connection: &mut EngineConnection) -> Result<(), EngineFault> {
    let role = match connection.call(&cmd("ROLE"))? {
        Value::Array(parts) => parts.into_iter().next().and_then(bytes),
        _ => None,
    };
    match role.as_deref() {
        Some(b"master") => Ok(()),
        Some(_) => Err(EngineFault::new(
            FaultKind::Unreachable,
            connection.address(),
            "the server has become a replica: give the addresses of all servers",
        )),
        None => Err(EngineFault::of_protocol(connection.address(), "ROLE")),
    }
}

/// Returns an error if the server refuses to append to a stream. No stream accepts the position of this entry, and the server
/// looks at the position last: after the privileges, its memory, its disk and its replicas.
pub(crate) fn check_writable(connection: &mut EngineConnection, key: &str) -> Result<(), EngineFault> {
    match connection.call(cmd("XADD").arg(key).arg("0-0").arg("v").arg("")) {
        Err(fault) if fault.kind == FaultKind::Stale => Ok(()),
        Err(fault) => Err(fault),
        Ok(_) => Err(EngineFault::of_protocol(connection.address(), "XADD")),
    }
}

/// Returns the run id of the server's process; an empty text if it reports none.
pub(crate) fn engine(connection: &mut EngineConnection) -> Result<Box<str>, EngineFault> {
    if let Some(engine) = connection.engine() {
        return Ok(engine.into());
    }
    let info = bytes(connection.call(cmd("INFO").arg("server"))?).unwrap_or_default();
    let info = String::from_utf8_lossy(&info);
    let engine = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    let engine = engine.filter(|engine| EngineTime::is_engine(engine)).unwrap_or_default();
    connection.set_engine(engine);
    Ok(engine.into())
}

/// Returns the position above which the engine accepts entries of a stream: that of the last one that it had.
pub(crate) fn last_position(
    connection: &mut EngineConnection,
    key: &str,
) -> Result<Option<StreamPosition>, EngineFault> {
    let answer = match connection.call(cmd("XINFO").arg("STREAM").arg(key)) {
        Err(fault) if fault.kind == FaultKind::NoKey => return Ok(None),
        answer => answer?,
    };
    let last = property(&answer, "last-generated-id").and_then(|id| id.parse::<StreamPosition>().ok());
    match last {
        None => Err(EngineFault::of_protocol(connection.address(), "XINFO")),
        last => Ok(last),
    }
}

/// Returns up to `count` entries before a position, or the last ones; the newest is the first.
pub(crate) fn read_back(
    connection: &mut EngineConnection,
    key: &str,
    before: Option<StreamPosition>,
    count: usize,
) -> Result<Vec<RawEntry>, EngineFault> {
    let end = match before.map(predecessor) {
        None => "+".to_owned(),
        Some(Some(end)) => end.to_string(),
        Some(None) => return Ok(Vec::new()),
    };
    let answer = connection.call(cmd("XREVRANGE").arg(key).arg(end).arg("-").arg("COUNT").arg(count))?;
    entries(answer).ok_or_else(|| EngineFault::of_protocol(connection.address(), "XREVRANGE"))
}

/// Returns up to `count` entries of each stream behind its position, with the number of the stream in `streams`. Waits for at
/// most `wait` until there is one.
pub(crate) fn read_on(
    connection: &mut EngineConnection,
    streams: &[(&str, StreamPosition)],
    count: usize,
    wait: Duration,
) -> Result<Vec<(usize, Vec<RawEntry>)>, EngineFault> {
    let mut command = cmd("XREAD");
    command.arg("COUNT").arg(count);
    // 0 waits without a limit.
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).clamp(1, i64::MAX.unsigned_abs());
    command.arg("BLOCK").arg(millis).arg("STREAMS");
    for (key, _) in streams {
        command.arg(key);
    }
    for (_, position) in streams {
        command.arg(position.to_string());
    }
    let found = match connection.call_waiting(&command, wait)? {
        Value::Nil => Some(Vec::new()),
        Value::Array(found) => found.into_iter().map(|stream| of_stream(stream, streams)).collect(),
        _ => None,
    };
    found.ok_or_else(|| EngineFault::of_protocol(connection.address(), "XREAD"))
}

/// Returns the command that appends an entry, and trims the stream to about `keep` entries.
pub(crate) fn append(key: &str, keep: u64, position: StreamPosition, entry: &StreamEntry) -> Cmd {
    let mut command = cmd("XADD");
    command.arg(key).arg("MAXLEN").arg("~").arg(keep).arg(position.to_string());
    for (name, value) in entry.to_fields() {
        command.arg(name).arg(&*value);
    }
    command
}

/// Returns the highest position below this one.
fn predecessor(position: StreamPosition) -> Option<StreamPosition> {
    match (position.term, position.sequence.checked_sub(1)) {
        (term, Some(sequence)) => Some(StreamPosition { term, sequence }),
        (term, None) => Some(StreamPosition { term: term.checked_sub(1)?, sequence: u64::MAX }),
    }
}

fn of_stream(value: Value, streams: &[(&str, StreamPosition)]) -> Option<(usize, Vec<RawEntry>)> {
    let Value::Array(parts) = value else { return None };
    let [key, found] = <[Value; 2]>::try_from(parts).ok()?;
    let key = bytes(key)?;
    let number = streams.iter().position(|(known, _)| known.as_bytes() == key)?;
    Some((number, entries(found)?))
}

fn entries(value: Value) -> Option<Vec<RawEntry>> {
    match value {
        Value::Array(entries) => entries.into_iter().map(entry).collect(),
        Value::Nil => Some(Vec::new()),
        _ => None,
    }
}

fn entry(value: Value) -> Option<RawEntry> {
    let Value::Array(parts) = value else { return None };
    let [id, fields] = <[Value; 2]>::try_from(parts).ok()?;
    let position = str::from_utf8(&bytes(id)?).ok()?.parse().ok()?;
    let Value::Array(fields) = fields else { return None };
    let mut fields = fields.into_iter();
    let mut pairs = Vec::with_capacity(fields.len() / 2);
    while let Some(name) = fields.next() {
        pairs.push((bytes(name)?, bytes(fields.next()?)?));
    }
    Some((position, pairs))
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

fn decimal(value: &Value) -> Option<u64> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok()?.parse().ok(),
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}
