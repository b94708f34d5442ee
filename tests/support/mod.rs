//! Support for the tests: throwaway servers, scripted servers, and a proxy that injects faults.

#![allow(dead_code, unused_imports, reason = "each test uses a part")]

pub mod block_on;
pub mod cluster;
pub mod engine;
pub mod fence_load;
pub mod holding;
pub mod libpq;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod msg;
pub mod peer;
pub mod pgbouncer;
#[cfg(feature = "tls")]
pub mod pki;
pub mod proxy;
pub mod server;
pub mod source;
pub mod subprocess;
#[cfg(feature = "tls")]
pub mod tls_peer;
pub mod tools;
pub mod unix_peer;

pub use cluster::{Cluster, Options};
pub use engine::{EngineKind, EngineServer};
pub use holding::HoldingProxy;
pub use peer::{Peer, Step};
pub use pgbouncer::PgBouncer;
pub use proxy::Proxy;
pub use unix_peer::UnixPeer;
