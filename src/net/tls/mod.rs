//! Where TLS plugs in: a filter between the socket and whoever reads and writes. These are the only files that say
//! `rustls`.
//!
//! ```text
//!   Config ──▶ files ──▶ Encryption ──▶ Tls ──▶ plaintext      verify: whom to believe
//!             (at each dial)    (shared)    ▲                  end_point: what a login is bound to
//!                                           └── the socket, lent for each call
//! ```
//!
//! The filter is lent the socket for each call, so neither the loop nor the registration knows that it is there.
//! Without the feature `tls` there is none, and the types say so: there is no value of them.

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
