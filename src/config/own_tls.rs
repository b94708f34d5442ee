//! A TLS configuration made by the caller. This is the only file outside `net/tls` that uses `rustls`.

use std::fmt;
use std::sync::Arc;

pub(super) use rustls::ClientConfig;

/// Two values are equal only if they share the configuration, whose contents cannot be compared.
#[derive(Clone)]
pub(crate) struct OwnTls(pub(crate) Arc<ClientConfig>);

impl PartialEq for OwnTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for OwnTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("given by the caller")
    }
}
