//! A TLS configuration made by the caller. This is the only file outside `net/tls` that uses `rustls`.

use std::fmt;
use std::sync::Arc;

use super::Config;

/// Two values are equal only if they share the configuration, whose contents cannot be compared.
#[derive(Clone)]
pub(crate) struct OwnTls(pub(crate) Arc<rustls::ClientConfig>);

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

impl Config {
    /// Sets a TLS configuration made by the caller, for requirements that `sslrootcert` and the other settings do not
    /// cover: keys in hardware, root certificates that are not in files, or another cryptography provider.
    ///
    /// The configuration determines the trusted roots, the client certificate and the TLS versions. Of the settings
    /// that begin with `ssl`, only two have an effect: [`sslnegotiation`](Self::sslnegotiation) and
    /// [`sslmode`](Self::sslmode), which determines whether TLS is used: never for `disable`, if the server supports it
    /// for `allow` and `prefer`, and always for `require` and stricter modes. The certificate is verified for the name
    /// of the host.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use notifyman::rustls::crypto::ring;
    /// use notifyman::rustls::{ClientConfig, RootCertStore};
    /// use notifyman::{Config, SslMode};
    ///
    /// # fn main() -> Result<(), notifyman::rustls::Error> {
    /// # let my_roots = RootCertStore::empty();
    /// let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
    ///     .with_safe_default_protocol_versions()?
    ///     .with_root_certificates(my_roots)
    ///     .with_no_client_auth();
    /// let config = Config::new().host("db1").sslmode(SslMode::VerifyFull).tls_config(Arc::new(tls));
    /// # let _ = config;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn tls_config(self, config: Arc<rustls::ClientConfig>) -> Self {
        self.set(|s| s.tls.own = Some(OwnTls(config)))
    }
}
