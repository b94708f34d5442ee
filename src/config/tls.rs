//! The TLS settings: libpq's `ssl*` keywords except [`SslMode`](super::SslMode).
//!
//! This module reads no file: files are read when a connection is opened, so that renewed ones are used.

use std::path::{Path, PathBuf};

use super::names::{Named as _, named};
#[cfg(feature = "tls")]
use super::own_tls::OwnTls;
use super::secret::Secret;

/// The value of `sslrootcert` for the roots that the operating system trusts.
const SYSTEM: &str = "system";

/// The start of TLS, as in libpq's `sslnegotiation`.
///
/// ```
/// use notifyman::{Config, SslMode, SslNegotiation};
///
/// let config = Config::new()
///     .host("db1")
///     .sslmode(SslMode::Require)
///     .sslnegotiation(SslNegotiation::Direct);
/// assert_eq!(config.get_sslnegotiation(), SslNegotiation::Direct);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SslNegotiation {
    /// The client first asks the server whether it supports TLS. This is the default, and every server supports it.
    #[default]
    Postgres,
    /// The client begins the TLS handshake immediately, which saves a round trip. It requires a server of version 17 or
    /// later, and an `sslmode` of `require` or stricter.
    Direct,
}

named!(SslNegotiation { Postgres: "postgres", Direct: "direct" });

/// The use of a client certificate, as in libpq's `sslcertmode`.
///
/// ```
/// use notifyman::{Config, SslCertMode};
///
/// let config = Config::without_env("host=db1 sslcertmode=disable")?;
/// assert_eq!(config.get_sslcertmode(), SslCertMode::Disable);
/// # Ok::<(), notifyman::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SslCertMode {
    /// A client certificate is never sent.
    Disable,
    /// A client certificate is sent if there is one and the server requests it. This is the default.
    #[default]
    Allow,
    /// A client certificate must be sent: a server that does not request one is rejected.
    Require,
}

named!(SslCertMode { Disable: "disable", Allow: "allow", Require: "require" });

/// A version of TLS, as in libpq's `ssl_min_protocol_version`. Older versions are not supported.
///
/// ```
/// use notifyman::{Config, TlsVersion};
///
/// let config = Config::without_env("host=db1 ssl_min_protocol_version=TLSv1.3")?;
/// assert_eq!(config.get_ssl_min_protocol_version(), Some(TlsVersion::V1_3));
/// # Ok::<(), notifyman::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2, RFC 5246.
    V1_2,
    /// TLS 1.3, RFC 8446.
    V1_3,
}

impl TlsVersion {
    const OLD: [&'static str; 2] = ["TLSv1", "TLSv1.1"];

    fn known(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, version)| *version)
    }

    fn is_old(text: &str) -> bool {
        Self::OLD.iter().any(|name| name.eq_ignore_ascii_case(text))
    }

    /// Parses the minimum. An older version means no minimum, because only 1.2 and later are supported.
    pub(super) fn parse_min(text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() || Self::is_old(text) {
            return Ok(None);
        }
        let invalid = || "ssl_min_protocol_version must be TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3".to_owned();
        Self::known(text).map(Some).ok_or_else(invalid)
    }

    pub(super) fn parse_max(text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let why = if Self::is_old(text) { ": older versions are insecure and not supported" } else { "" };
        let invalid = || format!("ssl_max_protocol_version must be TLSv1.2 or TLSv1.3{why}");
        Self::known(text).map(Some).ok_or_else(invalid)
    }
}

named!(TlsVersion { V1_2: "TLSv1.2", V1_3: "TLSv1.3" });

/// The TLS settings except `sslmode`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct TlsSettings {
    pub(crate) root_cert: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// Records only that a password was given, because encrypted keys are not supported.
    pub(crate) sslpassword: Option<Secret>,
    pub(crate) cert_mode: SslCertMode,
    pub(crate) crl: Option<PathBuf>,
    pub(crate) crl_dir: Option<PathBuf>,
    pub(crate) omits_sni: bool,
    pub(crate) min_version: Option<TlsVersion>,
    pub(crate) max_version: Option<TlsVersion>,
    pub(crate) negotiation: SslNegotiation,
    #[cfg(feature = "tls")]
    pub(crate) own: Option<OwnTls>,
}

impl TlsSettings {
    /// Returns `true` if the roots of the operating system are trusted.
    pub(crate) fn trusts_system(&self) -> bool {
        self.root_cert.as_deref() == Some(Path::new(SYSTEM))
    }
}
