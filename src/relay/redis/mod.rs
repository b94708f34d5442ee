//! Redis and Valkey: the servers' addresses, connections, and the commands for streams. Only this directory uses the crate
//! `redis`.

mod address;
pub(crate) mod commands;
mod connection;
mod fault;
mod sink;
mod socket;
#[cfg(test)]
pub(crate) mod tests;

pub use self::address::EngineConfig;
pub(crate) use self::commands::RawEntry;
pub(crate) use self::connection::EngineConnection;
pub(crate) use self::fault::{EngineFault, FaultKind};
pub(crate) use self::sink::RedisSink;
pub(crate) use self::socket::Interrupt;
