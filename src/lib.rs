//! PostgreSQL LISTEN/NOTIFY over thousands of connections on one poll loop.

mod clock;
mod config;
mod connection;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod gap;
mod net;
mod notification;
mod proto;
mod row;

pub use config::{AuthMethod, ChannelBinding, Config, SslMode};
pub use connection::{Connection, Diagnosis, Finding, FindingKind, Severity, Wait};
pub use error::{ConfigError, ConnectError, Error, ProtocolError, ServerError, ValueError};
pub use gap::Gap;
pub use notification::{Batch, IntoIter, Iter, Notification, NotificationRef};
pub use proto::TransactionStatus;
pub use row::Row;
