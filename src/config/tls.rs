//! The TLS settings: libpq's `ssl*` keywords except [`SslMode`], and the rules for their combination.
//!
//! This module reads no file: files are read when a connection is opened, so that renewed ones are used.

use std::fmt;
use std::path::{Path, PathBuf};

use super::feature::{BUILT_IN, needs_feature};
use super::names::{by_name, name_of};
#[cfg(feature = "tls")]
use super::own_tls::OwnTls;
use super::policy::SslMode;
use super::{Config, ConfigValues};

/// The value of `sslrootcert` for the roots that the operating system trusts.
const SYSTEM: &str = "system";

/// The start of TLS, as in libpq's `sslnegotiation`.
///
/// ```
/// use notifyman::{Config, SslMode, SslNegotiation};
///
/// let config = Config::new().host("db1").sslmode(SslMode::Require).sslnegotiation(SslNegotiation::Direct);
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

impl SslNegotiation {
    const NAMES: [(&'static str, SslNegotiation); 2] =
        [("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)];

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        by_name(&Self::NAMES, text, "sslnegotiation")
    }
}

impl fmt::Display for SslNegotiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::NAMES, *self))
    }
}

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

impl SslCertMode {
    const NAMES: [(&'static str, SslCertMode); 3] =
        [("disable", SslCertMode::Disable), ("allow", SslCertMode::Allow), ("require", SslCertMode::Require)];

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        by_name(&Self::NAMES, text, "sslcertmode")
    }
}

impl fmt::Display for SslCertMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::NAMES, *self))
    }
}

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
    const NAMES: [(&'static str, TlsVersion); 2] = [("TLSv1.2", TlsVersion::V1_2), ("TLSv1.3", TlsVersion::V1_3)];
    const OLD: [&'static str; 2] = ["TLSv1", "TLSv1.1"];

    fn known(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, version)| *version)
    }

    fn is_old(text: &str) -> bool {
        Self::OLD.iter().any(|name| name.eq_ignore_ascii_case(text))
    }

    /// Parses the minimum. An older version means no minimum, because only 1.2 and later are supported.
    pub(super) fn parse_min(text: &str) -> Result<Option<Self>, String> {
        match Self::known(text) {
            None if text.is_empty() || Self::is_old(text) => Ok(None),
            None => Err("ssl_min_protocol_version must be TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3".into()),
            version => Ok(version),
        }
    }

    pub(super) fn parse_max(text: &str) -> Result<Option<Self>, String> {
        match Self::known(text) {
            None if text.is_empty() => Ok(None),
            None if Self::is_old(text) => {
                Err("ssl_max_protocol_version must be TLSv1.2 or TLSv1.3: older versions are \
                                               insecure and not supported"
                    .into())
            }
            None => Err("ssl_max_protocol_version must be TLSv1.2 or TLSv1.3".into()),
            version => Ok(version),
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::NAMES, *self))
    }
}

/// The TLS settings except `sslmode`.
#[derive(Clone, PartialEq)]
pub(crate) struct TlsSettings {
    pub(crate) root_cert: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// Records only that a password was given, because encrypted keys are not supported.
    pub(crate) has_password: bool,
    pub(crate) cert_mode: SslCertMode,
    pub(crate) crl: Option<PathBuf>,
    pub(crate) crl_dir: Option<PathBuf>,
    pub(crate) sni: bool,
    pub(crate) min_version: Option<TlsVersion>,
    pub(crate) max_version: Option<TlsVersion>,
    pub(crate) negotiation: SslNegotiation,
    #[cfg(feature = "tls")]
    pub(crate) own: Option<OwnTls>,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            root_cert: None,
            cert: None,
            key: None,
            has_password: false,
            cert_mode: SslCertMode::default(),
            crl: None,
            crl_dir: None,
            sni: true,
            min_version: None,
            max_version: None,
            negotiation: SslNegotiation::default(),
            #[cfg(feature = "tls")]
            own: None,
        }
    }
}

impl TlsSettings {
    /// Returns `true` if the roots of the operating system are trusted.
    pub(crate) fn trusts_system(&self) -> bool {
        self.root_cert.as_deref() == Some(Path::new(SYSTEM))
    }
}

impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("Tls");
        all.field("sslrootcert", &self.root_cert)
            .field("sslcert", &self.cert)
            .field("sslkey", &self.key)
            .field("sslpassword", &self.has_password.then_some(format_args!("***")))
            .field("sslcertmode", &self.cert_mode)
            .field("sslcrl", &self.crl)
            .field("sslcrldir", &self.crl_dir)
            .field("sslsni", &self.sni)
            .field("ssl_min_protocol_version", &self.min_version)
            .field("ssl_max_protocol_version", &self.max_version)
            .field("sslnegotiation", &self.negotiation);
        #[cfg(feature = "tls")]
        all.field("tls_config", &self.own);
        all.finish()
    }
}

/// Treats an empty path as not set.
pub(super) fn path(text: impl Into<PathBuf>) -> Option<PathBuf> {
    Some(text.into()).filter(|path| !path.as_os_str().is_empty())
}

impl ConfigValues {
    /// Returns the mode. If none is set, trusting the system's roots implies `verify-full`.
    pub(super) fn effective_sslmode(&self) -> SslMode {
        match self.sslmode {
            Some(mode) => mode,
            None if self.tls.trusts_system() => SslMode::VerifyFull,
            None => SslMode::default(),
        }
    }

    /// Checks that the TLS settings are compatible, as libpq does.
    pub(super) fn check_tls(&self) -> Result<(), String> {
        let mode = self.effective_sslmode();
        mode.check()?;
        self.channel_binding.check()?;
        if self.tls.trusts_system() && mode != SslMode::VerifyFull {
            return Err(format!(
                "sslmode={mode} is too weak for sslrootcert=system, because anyone can obtain a certificate of a public \
                 authority: use sslmode=verify-full"
            ));
        }
        if self.tls.negotiation == SslNegotiation::Direct && !mode.is_strict() {
            return Err(format!(
                "sslmode={mode} is too weak for sslnegotiation=direct: use require, verify-ca or verify-full"
            ));
        }
        if self.tls.cert_mode == SslCertMode::Require && !BUILT_IN {
            return Err(needs_feature("sslcertmode=require"));
        }
        match (self.tls.min_version, self.tls.max_version) {
            (Some(min), Some(max)) if min > max => Err(format!(
                "ssl_min_protocol_version={min} is above ssl_max_protocol_version={max}: no version remains"
            )),
            _ => Ok(()),
        }
    }
}

/// The TLS settings, except [`sslmode`](Self::sslmode).
///
/// Files are read when a connection is opened, and again when it is restored. A relative path refers to the working
/// directory at that time. By default, the existing files of `root.crt`, `postgresql.crt`, `postgresql.key` and
/// `root.crl` in `~/.postgresql` are used, as by `psql`. All except the key are PEM files that may contain several
/// entries.
impl Config {
    /// Sets the trusted certificate authorities: a file, or `system` for the authorities that the operating system
    /// trusts.
    ///
    /// If the file exists, the certificate is verified in every `sslmode`, so that `require` is as strict as
    /// `verify-ca`; if it does not exist, `verify-ca` and `verify-full` fail. `system` requires `verify-full`, and
    /// implies it if no `sslmode` is set.
    ///
    /// ```
    /// use notifyman::{Config, SslMode};
    ///
    /// let config = Config::new().host("db1").sslmode(SslMode::VerifyFull).sslrootcert("/etc/ssl/shop-ca.crt");
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn sslrootcert(self, file: impl Into<PathBuf>) -> Self {
        self.set(|s| s.tls.root_cert = path(file))
    }

    /// Sets the client certificate, followed by the intermediate certificates.
    ///
    /// ```
    /// use notifyman::Config;
    ///
    /// let config = Config::new().sslcert("/etc/shop.crt");
    /// assert_eq!(config, Config::without_env("sslcert=/etc/shop.crt")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn sslcert(self, file: impl Into<PathBuf>) -> Self {
        self.set(|s| s.tls.cert = path(file))
    }

    /// Sets the private key of the client certificate: PKCS#8, PKCS#1 or SEC1, in PEM or DER, without a password.
    ///
    /// A key that other users can read is rejected, as by `psql`: its mode must be at most 0600, or 0640 if its owner
    /// is root.
    ///
    /// ```
    /// use notifyman::Config;
    ///
    /// let config = Config::new().sslkey("/etc/shop.key");
    /// assert_eq!(config, Config::without_env("sslkey=/etc/shop.key")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn sslkey(self, file: impl Into<PathBuf>) -> Self {
        self.set(|s| s.tls.key = path(file))
    }

    /// Sets whether the client certificate is sent.
    ///
    /// ```
    /// use notifyman::{Config, SslCertMode};
    ///
    /// let config = Config::new().sslcertmode(SslCertMode::Disable);
    /// assert_eq!(config, Config::without_env("sslcertmode=disable")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn sslcertmode(self, mode: SslCertMode) -> Self {
        self.set(|s| s.tls.cert_mode = mode)
    }

    /// Sets a certificate revocation list. A file that does not exist is ignored, as by `psql`; an existing file
    /// without a list is rejected.
    ///
    /// If there is a list, there must be a current one for each authority between the server and the root.
    ///
    /// ```
    /// use notifyman::Config;
    ///
    /// let config = Config::new().sslcrl("/etc/revoked.pem");
    /// assert_eq!(config, Config::without_env("sslcrl=/etc/revoked.pem")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn sslcrl(self, file: impl Into<PathBuf>) -> Self {
        self.set(|s| s.tls.crl = path(file))
    }

    /// Sets a directory of certificate revocation lists. All PEM files in it are read, and there must be at least one.
    ///
    /// ```
    /// use notifyman::Config;
    ///
    /// let config = Config::new().sslcrldir("/etc/revoked");
    /// assert_eq!(config, Config::without_env("sslcrldir=/etc/revoked")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn sslcrldir(self, directory: impl Into<PathBuf>) -> Self {
        self.set(|s| s.tls.crl_dir = path(directory))
    }

    /// Sets whether the host name is sent to the server, unencrypted (SNI). Default: yes. Addresses are never sent.
    ///
    /// ```
    /// use notifyman::Config;
    ///
    /// let config = Config::new().sslsni(false);
    /// assert_eq!(config, Config::without_env("sslsni=0")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn sslsni(self, on: bool) -> Self {
        self.set(|s| s.tls.sni = on)
    }

    /// Sets the minimum version of TLS. Default: 1.2, the oldest that is supported.
    ///
    /// ```
    /// use notifyman::{Config, TlsVersion};
    ///
    /// let config = Config::new().ssl_min_protocol_version(TlsVersion::V1_3);
    /// assert_eq!(config, Config::without_env("ssl_min_protocol_version=TLSv1.3")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn ssl_min_protocol_version(self, version: TlsVersion) -> Self {
        self.set(|s| s.tls.min_version = Some(version))
    }

    /// Sets the maximum version of TLS. Default: the latest that both sides support.
    ///
    /// ```
    /// use notifyman::{Config, TlsVersion};
    ///
    /// let config = Config::new().ssl_max_protocol_version(TlsVersion::V1_2);
    /// assert_eq!(config, Config::without_env("ssl_max_protocol_version=TLSv1.2")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn ssl_max_protocol_version(self, version: TlsVersion) -> Self {
        self.set(|s| s.tls.max_version = Some(version))
    }

    /// Sets how TLS starts.
    ///
    /// ```
    /// use notifyman::{Config, SslMode, SslNegotiation};
    ///
    /// let config = Config::new().sslnegotiation(SslNegotiation::Direct).sslmode(SslMode::Require);
    /// assert_eq!(config.get_sslnegotiation(), SslNegotiation::Direct);
    /// ```
    #[must_use]
    pub fn sslnegotiation(self, negotiation: SslNegotiation) -> Self {
        self.set(|s| s.tls.negotiation = negotiation)
    }

    pub(crate) fn tls(&self) -> &TlsSettings {
        &self.inner.tls
    }
}

/// The getters of the TLS settings. For files, `None` means the default file in `~/.postgresql`.
impl Config {
    /// Returns the file of the trusted certificate authorities, or `system`.
    pub fn get_sslrootcert(&self) -> Option<&Path> {
        self.tls().root_cert.as_deref()
    }

    /// Returns the file of the client certificate.
    pub fn get_sslcert(&self) -> Option<&Path> {
        self.tls().cert.as_deref()
    }

    /// Returns the file of the private key.
    pub fn get_sslkey(&self) -> Option<&Path> {
        self.tls().key.as_deref()
    }

    /// Returns whether the client certificate is sent.
    pub fn get_sslcertmode(&self) -> SslCertMode {
        self.tls().cert_mode
    }

    /// Returns the file of the certificate revocation lists.
    pub fn get_sslcrl(&self) -> Option<&Path> {
        self.tls().crl.as_deref()
    }

    /// Returns the directory of certificate revocation lists. `None` means that there is none.
    pub fn get_sslcrldir(&self) -> Option<&Path> {
        self.tls().crl_dir.as_deref()
    }

    /// Returns `true` if the host name is sent to the server.
    pub fn get_sslsni(&self) -> bool {
        self.tls().sni
    }

    /// Returns the minimum version of TLS. `None` means 1.2.
    pub fn get_ssl_min_protocol_version(&self) -> Option<TlsVersion> {
        self.tls().min_version
    }

    /// Returns the maximum version of TLS. `None` means the latest that both sides support.
    pub fn get_ssl_max_protocol_version(&self) -> Option<TlsVersion> {
        self.tls().max_version
    }

    /// Returns how TLS starts.
    pub fn get_sslnegotiation(&self) -> SslNegotiation {
        self.tls().negotiation
    }
}

#[cfg(test)]
#[cfg(feature = "tls")]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Config::without_env(text).unwrap_err().to_string()
    }

    #[test]
    fn versions_are_read_as_libpq_does() {
        let versions = |text| {
            let config = Config::without_env(text).unwrap();
            (config.tls().min_version, config.tls().max_version)
        };
        assert_eq!(versions(""), (None, None));
        assert_eq!(versions("ssl_min_protocol_version=tlsV1.3"), (Some(TlsVersion::V1_3), None));
        assert_eq!(versions("ssl_min_protocol_version=TLSv1 ssl_max_protocol_version=''"), (None, None));
        let both = "ssl_min_protocol_version=TLSv1.2 ssl_max_protocol_version=TLSv1.2";
        assert_eq!(versions(both), (Some(TlsVersion::V1_2), Some(TlsVersion::V1_2)));
        assert!(refusal("ssl_min_protocol_version=TLSv1.4").contains("must be TLSv1,"));
        assert!(refusal("ssl_min_protocol_version=SSLv3").contains("must be TLSv1,"));
        assert!(refusal("ssl_max_protocol_version=TLSv1.1").contains("insecure"));
        let none = refusal("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2");
        assert!(none.contains("no version remains"), "{none}");
    }

    #[test]
    fn the_roots_of_the_system_imply_verify_full() {
        let config = Config::without_env("sslrootcert=system").unwrap();
        assert_eq!(config.get_sslmode(), SslMode::VerifyFull);
        assert!(Config::without_env("sslrootcert=system sslmode=verify-full").is_ok());
        for weak in ["disable", "allow", "prefer", "require", "verify-ca"] {
            assert!(refusal(&format!("sslrootcert=system sslmode={weak}")).contains("verify-full"));
        }
        assert_eq!(Config::without_env("sslrootcert=/x").unwrap().get_sslmode(), SslMode::Prefer);
    }

    #[test]
    fn direct_tls_needs_a_mode_without_unencrypted_connections() {
        for weak in ["", "sslmode=disable", "sslmode=allow", "sslmode=prefer"] {
            assert!(refusal(&format!("sslnegotiation=direct {weak}")).contains("too weak"));
        }
        for strict in ["require", "verify-ca", "verify-full"] {
            assert!(Config::without_env(&format!("sslnegotiation=direct sslmode={strict}")).is_ok());
        }
    }

    #[test]
    fn the_builder_and_the_keywords_are_equivalent() {
        let text = "sslmode=verify-full sslrootcert=/r sslcert=/c sslkey=/k sslcertmode=require sslcrl=/l sslcrldir=/d \
                    sslsni=0 ssl_min_protocol_version=TLSv1.2 ssl_max_protocol_version=TLSv1.3 sslnegotiation=direct";
        let built = Config::new()
            .sslmode(SslMode::VerifyFull)
            .sslrootcert("/r")
            .sslcert("/c")
            .sslkey("/k")
            .sslcertmode(SslCertMode::Require)
            .sslcrl("/l")
            .sslcrldir("/d")
            .sslsni(false)
            .ssl_min_protocol_version(TlsVersion::V1_2)
            .ssl_max_protocol_version(TlsVersion::V1_3)
            .sslnegotiation(SslNegotiation::Direct);
        assert_eq!(Config::without_env(text).unwrap(), built);
    }

    #[test]
    fn a_password_of_a_key_is_never_shown() {
        let shown = format!("{:?}", Config::without_env("sslpassword=s3cr3t").unwrap());
        assert!(shown.contains("sslpassword: Some(***)") && !shown.contains("s3cr3t"), "{shown}");
    }
}

#[cfg(test)]
#[cfg(not(feature = "tls"))]
mod without_the_feature {
    use super::super::{ChannelBinding, Config, SslCertMode, SslMode};

    #[test]
    fn settings_that_need_tls_are_rejected_with_their_position_and_the_feature() {
        for (text, position) in [
            ("sslmode=verify-full", 8),
            ("postgres:///?ssl=true", 17),
            ("sslrootcert=system", 12),
            ("channel_binding=require", 16),
        ] {
            let error = Config::without_env(text).unwrap_err();
            let crate::Error::Config(fault) = &error else { panic!("{text}: {error}") };
            assert_eq!(fault.position(), Some(position), "{text}: {error}");
            assert!(error.to_string().contains("feature `tls`"), "{text}: {error}");
        }
        for built in [
            Config::new().sslmode(SslMode::Require),
            Config::new().channel_binding(ChannelBinding::Require),
            Config::new().sslcertmode(SslCertMode::Require),
        ] {
            assert!(built.endpoints().unwrap_err().to_string().contains("feature `tls`"));
        }
    }
}
