//! The engine of a relay or of its readers, from URLs and the environment.

use std::env;

use notifyman::relay::{EngineConfig, RelayReader, RelayReaderBuilder};
use notifyman::{Error, Escaped};

/// Returns the engine with these URLs. A URL without a password has that of the environment, as with `redis-cli`.
pub(super) fn engine(urls: &[String]) -> Result<EngineConfig, Error> {
    let engine = EngineConfig::new(urls)?;
    Ok(match env::var("REDISCLI_AUTH") {
        Ok(password) if !password.is_empty() => engine.default_password(password),
        _ => engine,
    })
}

/// Returns the settings of a reader of these streams.
pub(super) fn reader(urls: &[String], streams: &[String]) -> Result<RelayReaderBuilder, Error> {
    Ok(streams.iter().fold(RelayReader::builder(engine(urls)?)?, |builder, name| builder.stream(name)))
}

/// Returns the name of a stream for a message.
pub(super) fn place(stream: &str) -> String {
    format!("stream {}", Escaped(stream))
}
