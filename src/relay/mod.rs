//! A relay of notifications onto the streams of Redis or Valkey, for readers beyond one machine.
//!
//! ```text
//!   PostgreSQL ──▶ leader ──append──▶ stream of the database ──read──▶ readers
//!        └───────▶ candidate (hot)
//! ```
//!
//! Each listening session slows every NOTIFY of its database, so a service of a thousand nodes should not hold a thousand. Two
//! [relays](Relay) listen, on two machines; one of them appends what it receives to a stream for each database, and the other one
//! takes over without a loss if the first fails. Whatever the relays or the engine lose is a gap that each reader finds by itself:
//! the page [`relay`](crate::docs::relay) has the format and the rule, for any language.
//!
//! ```no_run
//! use notifyman::relay::Relay;
//!
//! # fn main() -> Result<(), notifyman::Error> {
//! let relay = Relay::builder("redis://r1.example")?
//!     .database("postgres://db1.example/shop?sslmode=verify-full", ["prices"])?
//!     .on_event(|event| eprintln!("{event}"))
//!     .start()?;
//! loop {
//!     std::thread::park(); // until the process ends
//! #   drop(relay.status());
//! }
//! # }
//! ```
//!
//! The program does the same: `notifyman relay --url postgres://.. --to redis://.. prices`.
//!
//! # What a relay needs of its server
//!
//! A session that may LISTEN and NOTIFY on a primary; nothing is installed there. To end the session of a leader that has stopped,
//! both relays log in as the same role. The relays of a database listen to the channel `notifyman_relay`, on which the leader marks
//! the place every 15 seconds, and after every 1,000 notifications; another relay does so if there is no mark.

mod builder;
mod engine_time;
mod entry;
mod follower;
mod history;
mod identity;
mod inbox;
mod leader;
#[cfg(test)]
mod memory_sink;
#[cfg(test)]
mod model;
#[cfg(test)]
mod naive;
mod outbox;
mod pace;
mod position;
mod process;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod reader;
mod redis;
mod role;
mod session;
#[cfg(test)]
mod simulation;
mod sink;
mod status;
mod tail;
mod takeover;
mod watch;

pub use self::builder::RelayBuilder;
pub use self::process::Relay;
pub use self::reader::{RelayReader, RelayReaderBuilder, RelayReaderHandle};
pub use self::redis::EngineConfig;
pub use self::status::{RelayChange, RelayEvent, RelayRole, RelayStatus};
