//! The TLS filter between the socket and its readers and writers. Only this directory uses `rustls`.
//!
//! ```text
//!   Config ──▶ files ──▶ Encryption ──▶ Tls ──▶ plaintext      verify: trusted authorities
//!             (at each dial)    (shared)    ▲                  end_point: what a login is bound to
//!                                           └── the socket, lent for each call
//! ```
//!
//! The filter borrows the socket for each call, so neither the loop nor the registration depends on it. Without the
//! feature `tls`, `no_tls` takes the place of this module.

#[cfg(feature = "relay")]
mod blocking;
mod encryption;
mod end_point;
mod fault;
mod files;
mod filter;
mod identity;
mod names;
mod pem;
#[cfg(test)]
mod properties;
mod scratch;
mod verify;

#[cfg(feature = "relay")]
pub(crate) use self::blocking::BlockingTls;
pub(crate) use self::encryption::{Encryption, EncryptionJob};
pub(crate) use self::filter::Tls;
