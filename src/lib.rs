//! PostgreSQL LISTEN/NOTIFY over thousands of connections on one poll loop.

mod config;
mod error;

pub use config::{AuthMethod, ChannelBinding, Config, SslMode};
pub use error::{ConfigError, ConnectError, Error, ProtocolError, ServerError, ValueError};
