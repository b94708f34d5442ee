//! How a connection is encrypted: libpq's `ssl*` settings beside [`SslMode`], and the rules of how they go together.
//!
//! Nothing here looks at a file: that is done as a connection is opened, so that what was renewed meanwhile is used.

use std::fmt;
use std::path::{Path, PathBuf};

#[cfg(feature = "tls")]
use super::own_tls::OwnTls;
use super::policy::{SslMode, by_name, name_of};
use super::{Config, Settings};

/// Whether this version can encrypt.
pub(crate) const BUILT_IN: bool = cfg!(feature = "tls");

/// What `sslrootcert` says for the roots that the operating system trusts.
const SYSTEM: &str = "system";

/// How TLS begins, as libpq's `sslnegotiation`.
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
    /// The server is asked first whether it has TLS; the default. Every server knows that.
    #[default]
    Postgres,
    /// At once, which saves a round trip. It needs a server of version 17 or later, and an `sslmode` of `require` or
    /// stricter.
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

/// Whether a certificate of ours is shown to the server, as libpq's `sslcertmode`.
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
    /// Never, even where there is one.
    Disable,
    /// Where there is one and the server asks for it; the default.
    #[default]
    Allow,
    /// Always: a server that doesn't ask for one is refused.
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

/// A version of TLS that can be asked for, as in libpq's `ssl_min_protocol_version`. Older ones aren't spoken here.
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

    /// An older version as the least is none at all: nothing older than 1.2 is ever spoken.
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
                Err("ssl_max_protocol_version can be TLSv1.2 or TLSv1.3: the older ones are \
                                               broken, and not spoken here"
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

/// What is said about TLS besides `sslmode`.
#[derive(Clone, PartialEq)]
pub(crate) struct TlsSettings {
    pub(crate) root_cert: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// Only to say that there is one: a key that needs it can't be read.
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
    /// Whether the roots are those of the operating system.
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

/// An empty path is none.
pub(super) fn path(text: impl Into<PathBuf>) -> Option<PathBuf> {
    Some(text.into()).filter(|path| !path.as_os_str().is_empty())
}

impl Settings {
    /// Whether to encrypt: where nothing is said, whoever trusts the system's roots wants them to be looked at.
    pub(super) fn effective_sslmode(&self) -> SslMode {
        match self.sslmode {
            Some(mode) => mode,
            None if self.tls.trusts_system() => SslMode::VerifyFull,
            None => SslMode::default(),
        }
    }

    /// Checks that the settings of TLS go together, as libpq does.
    pub(super) fn check_tls(&self) -> Result<(), String> {
        let mode = self.effective_sslmode();
        mode.check()?;
        self.channel_binding.check()?;
        if self.tls.trusts_system() && mode != SslMode::VerifyFull {
            return Err(format!(
                "sslmode={mode} is too weak for sslrootcert=system, since anybody can have a certificate of a public \
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
                "ssl_min_protocol_version={min} is above ssl_max_protocol_version={max}: that leaves no version"
            )),
            _ => Ok(()),
        }
    }
}

/// What can't be kept without TLS.
pub(super) fn needs_feature(setting: &str) -> String {
    format!(
        "{setting} can't be kept: TLS is not built into this program; build notifyman with its feature `tls`, or use \
         sslmode=prefer where the network is trusted"
    )
}

/// How the connection is encrypted, besides [`sslmode`](Self::sslmode).
///
/// Files are read as a connection is opened, and again as one is brought back; a relative path counts from the working
/// directory of that moment. Where none is given, those in `~/.postgresql` are used that exist, as by `psql`:
/// `root.crt`, `postgresql.crt`, `postgresql.key` and `root.crl`. All but the key are PEM files that may hold several.
impl Config {
    /// The authorities whose signature makes a server's certificate good: a file, or `system` for those that the
    /// operating system trusts.
    ///
    /// Where that file exists, the certificate is checked in every `sslmode`, so that `require` is as strict as
    /// `verify-ca`; where it doesn't, `verify-ca` and `verify-full` fail. `system` demands `verify-full`, and is
    /// `verify-full` where no `sslmode` is given.
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

    /// Our certificate, for a server that asks for one, followed by those that lead from it to an authority.
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

    /// The private key of our certificate: PKCS#8, PKCS#1 or SEC1, as PEM or DER, without a password.
    ///
    /// A key that others can read is refused, as by `psql`: it may have the mode 0600 at most, or 0640 if it belongs
    /// to root.
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

    /// Whether our certificate is shown.
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

    /// A list of certificates that have been revoked. One that doesn't exist is none, as for `psql`; a file that is there
    /// and holds no list is refused.
    ///
    /// Once there is a list, there must be a current one for each authority between the server and the root.
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

    /// A folder of such lists; every PEM file in it is read, and there must be one.
    ///
    /// ```
    /// use notifyman::Config;
    ///
    /// let config = Config::new().sslcrldir("/etc/revoked");
    /// assert_eq!(config, Config::without_env("sslcrldir=/etc/revoked")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn sslcrldir(self, folder: impl Into<PathBuf>) -> Self {
        self.set(|s| s.tls.crl_dir = path(folder))
    }

    /// Whether the server is told, in clear, under which name it is dialled. Default: yes. Never for an address.
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

    /// The least version of TLS. Default: 1.2, the oldest that is spoken.
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

    /// The latest version of TLS. Default: the latest that both sides speak.
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

    /// How TLS begins.
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

/// What was set about TLS; for files, `None` is the one in `~/.postgresql`.
impl Config {
    /// The file of the authorities that are trusted, or `system`.
    pub fn get_sslrootcert(&self) -> Option<&Path> {
        self.tls().root_cert.as_deref()
    }

    /// The file of our certificate.
    pub fn get_sslcert(&self) -> Option<&Path> {
        self.tls().cert.as_deref()
    }

    /// The file of its private key.
    pub fn get_sslkey(&self) -> Option<&Path> {
        self.tls().key.as_deref()
    }

    /// Whether our certificate is shown.
    pub fn get_sslcertmode(&self) -> SslCertMode {
        self.tls().cert_mode
    }

    /// The file of the certificates that have been revoked.
    pub fn get_sslcrl(&self) -> Option<&Path> {
        self.tls().crl.as_deref()
    }

    /// The folder of such files; `None` is none.
    pub fn get_sslcrldir(&self) -> Option<&Path> {
        self.tls().crl_dir.as_deref()
    }

    /// Whether the server is told under which name it is dialled.
    pub fn get_sslsni(&self) -> bool {
        self.tls().sni
    }

    /// The least version of TLS; `None` is 1.2.
    pub fn get_ssl_min_protocol_version(&self) -> Option<TlsVersion> {
        self.tls().min_version
    }

    /// The latest version of TLS; `None` is the latest that both sides speak.
    pub fn get_ssl_max_protocol_version(&self) -> Option<TlsVersion> {
        self.tls().max_version
    }

    /// How TLS begins.
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
        assert!(refusal("ssl_max_protocol_version=TLSv1.1").contains("broken"));
        let none = refusal("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2");
        assert!(none.contains("leaves no version"), "{none}");
    }

    #[test]
    fn the_systems_roots_ask_for_the_full_check() {
        let config = Config::without_env("sslrootcert=system").unwrap();
        assert_eq!(config.get_sslmode(), SslMode::VerifyFull);
        assert!(Config::without_env("sslrootcert=system sslmode=verify-full").is_ok());
        for weak in ["disable", "allow", "prefer", "require", "verify-ca"] {
            assert!(refusal(&format!("sslrootcert=system sslmode={weak}")).contains("verify-full"));
        }
        assert_eq!(Config::without_env("sslrootcert=/x").unwrap().get_sslmode(), SslMode::Prefer);
    }

    #[test]
    fn direct_tls_needs_a_mode_that_never_goes_on_in_clear() {
        for weak in ["", "sslmode=disable", "sslmode=allow", "sslmode=prefer"] {
            assert!(refusal(&format!("sslnegotiation=direct {weak}")).contains("too weak"));
        }
        for strict in ["require", "verify-ca", "verify-full"] {
            assert!(Config::without_env(&format!("sslnegotiation=direct sslmode={strict}")).is_ok());
        }
    }

    #[test]
    fn the_builder_and_the_keywords_say_the_same() {
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
    fn what_demands_tls_is_refused_with_its_place_and_names_the_feature() {
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
