//! The TLS filter between the socket and its readers and writers. Only this directory uses `rustls`.
//!
//! ```text
//!   Config ──▶ files ──▶ Encryption ──▶ Tls ──▶ plaintext      verify: trusted authorities
//!             (at each dial)    (shared)    ▲                  end_point: what a login is bound to
//!                                           └── the socket, lent for each call
//! ```
//!
//! The filter borrows the socket for each call, so neither the loop nor the registration depends on it. Without the
//! feature `tls`, its types have no values.

#[cfg(feature = "tls")]
mod encryption;
#[cfg(feature = "tls")]
mod end_point;
#[cfg(feature = "tls")]
mod fault;
#[cfg(feature = "tls")]
mod files;
#[cfg(feature = "tls")]
mod filter;
#[cfg(feature = "tls")]
mod identity;
#[cfg(feature = "tls")]
mod names;
#[cfg(not(feature = "tls"))]
mod none;
#[cfg(feature = "tls")]
mod pem;
#[cfg(all(test, feature = "tls"))]
mod properties;
#[cfg(feature = "tls")]
mod scratch;
#[cfg(feature = "tls")]
mod verify;

#[cfg(feature = "tls")]
pub(crate) use self::encryption::{Encryption, EncryptionJob};
#[cfg(feature = "tls")]
pub(crate) use self::filter::Tls;
#[cfg(not(feature = "tls"))]
pub(crate) use self::none::{Encryption, EncryptionJob, Tls};
