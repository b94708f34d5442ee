//! The values of a configuration, their defaults, and the rules for their combination.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::environment::os_user;
use super::feature;
use super::password::PasswordProvider;
use super::policy::{AuthMethods, ChannelBinding, SslMode};
use super::secret::Secret;
use super::session_attrs::{LoadBalanceHosts, TargetSessionAttrs};
use super::tls::{SslCertMode, SslNegotiation, TlsSettings};
use crate::error::ConfigError;

/// Linux's `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL`.
pub(super) const KEEPALIVE_SECONDS_MAX: u32 = 32_767;
/// Linux's `MAX_TCP_KEEPCNT`.
pub(super) const KEEPALIVE_COUNT_MAX: u32 = 127;
/// The largest value of libpq's integers.
pub(super) const INTEGER_MAX: u32 = i32::MAX.unsigned_abs();

/// The values of a configuration. Empty strings mean "not set" and are never stored.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ConfigValues {
    /// Names, addresses and socket directories. An empty string is the default host.
    pub(super) hosts: Vec<String>,
    /// One address for each of `hosts`; `None` means that the name is resolved.
    pub(super) hostaddrs: Vec<Option<IpAddr>>,
    /// The zones of the addresses, in the order of `hostaddrs`; shorter if the last addresses have none.
    pub(super) zones: Vec<Option<Box<str>>>,
    pub(super) ports: Vec<u16>,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    /// Computes the password for each attempt, instead of `password`.
    pub(super) password_provider: Option<PasswordProvider>,
    pub(super) passfile: Option<PathBuf>,
    pub(super) dbname: Option<String>,
    pub(super) label: Option<Box<str>>,
    pub(super) application_name: Option<String>,
    pub(super) fallback_application_name: Option<String>,
    pub(super) options: Option<String>,
    /// The SQL that each new session executes. It may contain a secret.
    pub(super) after_connect: Option<Secret>,
    pub(super) connect_timeout: TimeLimit,
    pub(super) call_timeout: TimeLimit,
    pub(super) omits_keepalives: bool,
    pub(super) keepalives_idle: Option<Duration>,
    pub(super) keepalives_interval: Option<Duration>,
    pub(super) keepalives_count: Option<u32>,
    pub(super) tcp_user_timeout: Option<Duration>,
    pub(super) require_auth: AuthMethods,
    pub(super) channel_binding: ChannelBinding,
    pub(super) target_session_attrs: TargetSessionAttrs,
    pub(super) load_balance_hosts: LoadBalanceHosts,
    pub(super) sslmode: Option<SslMode>,
    pub(super) tls: TlsSettings,
}

/// The time limit for connecting, or for a call. [`Duration::MAX`] means no limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TimeLimit(pub(super) Duration);

impl Default for TimeLimit {
    fn default() -> Self {
        Self(Duration::from_secs(30))
    }
}

impl ConfigValues {
    /// Returns the role: the given one, or the operating system's user.
    pub(super) fn effective_user(&self) -> Result<Cow<'_, str>, ConfigError> {
        let user = self.user.as_deref().map(Cow::from).or_else(|| os_user().map(Cow::from));
        let unknown = "none is set, and the name of the operating system's user is unknown: set user= or PGUSER";
        user.ok_or_else(|| fault("user", unknown))
    }

    /// Returns the database: the given one, or the one with the name of the role.
    pub(super) fn effective_dbname(&self) -> Result<Cow<'_, str>, ConfigError> {
        self.dbname.as_deref().map_or_else(|| self.effective_user(), |name| Ok(name.into()))
    }

    /// Returns `application_name`, or else `fallback_application_name`.
    pub(super) fn effective_application_name(&self) -> Option<&str> {
        self.application_name.as_deref().or(self.fallback_application_name.as_deref())
    }

    /// Returns the mode. If none is set, trusting the system's roots implies `verify-full`.
    pub(super) fn effective_sslmode(&self) -> SslMode {
        match self.sslmode {
            Some(mode) => mode,
            None if self.tls.trusts_system() => SslMode::VerifyFull,
            None => SslMode::default(),
        }
    }

    /// Returns the number of addresses to connect to.
    pub(super) fn host_count(&self) -> usize {
        self.hosts.len().max(self.hostaddrs.len()).max(1)
    }

    /// Checks that the values are compatible, as libpq does. An error names the source of the values.
    pub(super) fn check_combination(&self, origin: &str) -> Result<(), ConfigError> {
        self.check_counts().and_then(|()| self.check_tls()).map_err(|message| fault(origin, message))
    }

    /// Checks that the lists of hosts, addresses and ports match.
    fn check_counts(&self) -> Result<(), String> {
        let (hosts, addresses, ports) = (self.hosts.len(), self.hostaddrs.len(), self.ports.len());
        if hosts > 0 && addresses > 0 && hosts != addresses {
            return Err(format!(
                "{hosts} in host but {addresses} in hostaddr: give one address for each host, or leave one list out"
            ));
        }
        if ports > 1 && ports != self.host_count() {
            let hosts = self.host_count();
            return Err(format!("{ports} ports for {hosts} host(s): give one port for all, or one for each"));
        }
        Ok(())
    }

    fn check_tls(&self) -> Result<(), String> {
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
        feature::check(self.tls.cert_mode == SslCertMode::Require, "sslcertmode=require")?;
        match (self.tls.min_version, self.tls.max_version) {
            (Some(min), Some(max)) if min > max => Err(format!(
                "ssl_min_protocol_version={min} is above ssl_max_protocol_version={max}: no version remains"
            )),
            _ => Ok(()),
        }
    }

    /// Validates the values from the builder. Those of a parsed configuration are always valid.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_combination(BUILDER)?;
        self.check_ranges().map_err(|message| fault(BUILDER, message))
    }

    fn check_ranges(&self) -> Result<(), String> {
        check_database(self.dbname.as_deref().unwrap_or_default())?;
        if self.ports.contains(&0) {
            return Err("port must be from 1 to 65535".into());
        }
        for (name, limit) in [("connect_timeout", self.connect_timeout), ("call_timeout", self.call_timeout)] {
            if limit.0.is_zero() {
                return Err(format!("{name} must be greater than zero; None means no limit"));
            }
        }
        let periods = [self.keepalives_idle, self.keepalives_interval, self.tcp_user_timeout];
        if periods.contains(&Some(Duration::ZERO)) || self.keepalives_count == Some(0) {
            return Err(
                "keepalives_idle, keepalives_interval, keepalives_count and tcp_user_timeout must be greater than zero; \
                 None means the system's default"
                    .into(),
            );
        }
        let seconds = Duration::from_secs(KEEPALIVE_SECONDS_MAX.into());
        if self.keepalives_idle.max(self.keepalives_interval) > Some(seconds) {
            return Err(format!(
                "keepalives_idle and keepalives_interval must be at most {KEEPALIVE_SECONDS_MAX} seconds"
            ));
        }
        if self.keepalives_count > Some(KEEPALIVE_COUNT_MAX) {
            return Err(format!("keepalives_count must be at most {KEEPALIVE_COUNT_MAX}"));
        }
        if self.tcp_user_timeout > Some(Duration::from_millis(INTEGER_MAX.into())) {
            return Err(format!("tcp_user_timeout must be at most {INTEGER_MAX} milliseconds"));
        }
        let texts = [
            ("user", self.user.as_ref()),
            ("password", self.password.as_ref().map(|password| &password.0)),
            ("dbname", self.dbname.as_ref()),
            ("application_name", self.application_name.as_ref()),
            ("options", self.options.as_ref()),
            ("after_connect", self.after_connect.as_ref().map(|sql| &sql.0)),
        ];
        let hosts = self.hosts.iter().map(|host| ("host", host));
        let mut texts = texts.into_iter().filter_map(|(name, text)| Some((name, text?))).chain(hosts);
        match texts.find(|(_, text)| text.contains('\0')) {
            Some((name, _)) => Err(format!("{name} contains a NUL byte, which PostgreSQL does not support")),
            None => Ok(()),
        }
    }
}

/// The origin of a value that was given to the builder, in errors.
pub(super) const BUILDER: &str = "builder";

/// Rejects a URL as the name of a database: libpq would send it, and the password would appear in the server's log.
pub(super) fn check_database(name: &str) -> Result<(), String> {
    if name.starts_with("postgres://") || name.starts_with("postgresql://") {
        return Err("dbname contains a whole URL: use it as the connection string".into());
    }
    Ok(())
}

/// Treats an empty string as not set.
pub(super) fn given(text: impl Into<String>) -> Option<String> {
    Some(text.into()).filter(|text| !text.is_empty())
}

/// Treats an empty path as not set.
pub(super) fn given_path(path: impl Into<PathBuf>) -> Option<PathBuf> {
    Some(path.into()).filter(|path| !path.as_os_str().is_empty())
}

/// Rounds up to whole seconds.
pub(super) fn whole_seconds(duration: Duration) -> Duration {
    let more = u64::from(duration.subsec_nanos() > 0);
    Duration::from_secs(duration.as_secs().saturating_add(more))
}

/// Rounds up to whole milliseconds.
pub(super) fn whole_millis(duration: Duration) -> Duration {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// Returns an error without a position.
pub(super) fn fault(origin: impl Into<String>, message: impl Into<String>) -> ConfigError {
    ConfigError { origin: origin.into(), position: None, message: message.into() }
}

#[cfg(test)]
#[cfg(feature = "tls")]
mod tests {
    use super::super::{Config, TlsVersion};
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
