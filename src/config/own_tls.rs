//! A TLS configuration that the caller made. The only file outside `net/tls` that says `rustls`.

use std::fmt;
use std::sync::Arc;

use super::Config;

/// It equals only itself: what is in it can't be compared.
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
    /// Encrypts by a configuration of your own, for what `sslrootcert` and the others can't say: keys in hardware,
    /// roots that aren't in files, another provider.
    ///
    /// It decides whom to trust, which certificate to show and which versions to speak. Of the settings that begin with
    /// `ssl`, only two then have an effect: [`sslnegotiation`](Self::sslnegotiation), and
    /// [`sslmode`](Self::sslmode), which decides whether TLS is used: `disable` never, `allow` and `prefer` where the
    /// server will, `require` and the stricter ones always. The name that it is given to check is the host's.
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
