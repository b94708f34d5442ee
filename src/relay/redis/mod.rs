//! Redis and Valkey: the servers' addresses, connections, and the commands for streams. Only this directory uses the crate
//! `redis`.

mod address;
mod commands;
mod connection;
mod fault;
mod sink;
mod socket;
#[cfg(test)]
mod tests;

#[allow(unused_imports, reason = "the leader, which uses them, follows")]
pub(crate) use self::address::EngineConfig;
#[allow(unused_imports, reason = "the leader, which uses them, follows")]
pub(crate) use self::sink::RedisSink;
