//! The startup parameters, and the validation of values from the builder.

use std::borrow::Cow;
use std::time::Duration;

use super::{Config, KEEPALIVE_COUNT_MAX, KEEPALIVE_SECONDS_MAX, keywords, sources};
use crate::error::{ConfigError, Error};

/// The server's `MAX_STARTUP_PACKET_LENGTH`, which does not include the length field. The server closes the connection
/// without an error if a packet is longer.
const STARTUP_PACKET_MAX: usize = 10_000;

impl Config {
    /// Returns the role: the given one, or the operating system's user.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Config`] if no role is set and the name of the operating system's user is unknown.
    pub(crate) fn effective_user(&self) -> Result<Cow<'_, str>, Error> {
        let user = self.inner.user.as_deref().map(Cow::from).or_else(|| sources::os_user().map(Cow::from));
        Ok(user.ok_or_else(|| ConfigError {
            origin: "user".into(),
            position: None,
            message: "none is set, and the name of the operating system's user is unknown: set user= or PGUSER".into(),
        })?)
    }

    /// Returns the database: the given one, or the one with the name of the role.
    ///
    /// # Errors
    ///
    /// See [`effective_user`](Self::effective_user).
    pub(crate) fn effective_dbname(&self) -> Result<Cow<'_, str>, Error> {
        self.inner.dbname.as_deref().map_or_else(|| self.effective_user(), |name| Ok(name.into()))
    }

    /// Returns `application_name`, or else `fallback_application_name`.
    pub(crate) fn effective_application_name(&self) -> Option<&str> {
        self.inner.application_name.as_deref().or(self.inner.fallback_application_name.as_deref())
    }

    /// Returns `true` if a session of one configuration can be used for the other: all settings with an effect are
    /// equal, including secrets, except the application name.
    pub(crate) fn shares_session_with(&self, other: &Self) -> bool {
        // A configuration without a valid value is rejected when it is used.
        let effective = |config: &Self| {
            let endpoints = config.endpoints().ok()?;
            let (user, dbname) = (config.effective_user().ok()?.into(), config.effective_dbname().ok()?.into());
            let settings = super::ConfigValues {
                hosts: Vec::new(),
                hostaddrs: Vec::new(),
                zones: Vec::new(),
                ports: Vec::new(),
                user: Some(user),
                dbname: Some(dbname),
                application_name: None,
                fallback_application_name: None,
                ..(*config.inner).clone()
            };
            Some((endpoints, settings))
        };
        match (effective(self), effective(other)) {
            (Some(one), Some(other)) => one == other,
            _ => self == other,
        }
    }

    /// Returns the names and values in the startup packet, in order.
    ///
    /// The server processes `options` before the other parameters, so `client_encoding` overrides `options`. It is
    /// nevertheless the last one.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Config`] if a value cannot be sent, or if all values together are longer than the server
    /// accepts.
    pub(crate) fn startup_parameters(&self) -> Result<Vec<(&'static str, Cow<'_, str>)>, Error> {
        self.check()?;
        let user = self.effective_user()?;
        let dbname = self.get_dbname().map_or_else(|| user.clone(), Cow::from);
        let mut parameters = vec![("user", user), ("database", dbname)];
        parameters.extend(self.effective_application_name().map(|name| ("application_name", name.into())));
        parameters.extend(self.get_options().map(|options| ("options", options.into())));
        parameters.push(("client_encoding", "UTF8".into()));

        // Contains the protocol version, the strings with their NULs, and the final NUL.
        let strings: usize = parameters.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        if 5 + strings > STARTUP_PACKET_MAX {
            let message = format!(
                "user, dbname, application_name and options make a startup packet of {} bytes, but the server accepts \
                 {STARTUP_PACKET_MAX}: shorten options",
                5 + strings
            );
            return Err(builder_fault(message).into());
        }
        Ok(parameters)
    }

    /// Formats role and database, to follow an address in an error text: ` as "app", database "shop"`.
    pub(crate) fn role_and_database(&self) -> String {
        let mut text = String::new();
        if let Ok(user) = self.effective_user() {
            text.push_str(&format!(" as {user:?}"));
        }
        if let Ok(dbname) = self.effective_dbname() {
            text.push_str(&format!(", database {dbname:?}"));
        }
        text
    }

    /// Validates the values from the builder. A parsed configuration is always valid.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let s = &*self.inner;
        s.check_counts("builder")?;
        s.check_tls().map_err(builder_fault)?;
        keywords::check_database(s.dbname.as_deref().unwrap_or_default()).map_err(builder_fault)?;
        if s.ports.contains(&0) {
            return Err(builder_fault("port must be from 1 to 65535"));
        }
        if s.call_timeout.is_zero() {
            return Err(builder_fault("call_timeout must be greater than zero; Duration::MAX means no limit"));
        }
        let seconds = Duration::from_secs(KEEPALIVE_SECONDS_MAX.unsigned_abs().into());
        if s.keepalives_idle.max(s.keepalives_interval) > Some(seconds) {
            return Err(builder_fault(format!(
                "keepalives_idle and keepalives_interval must be at most {KEEPALIVE_SECONDS_MAX} seconds"
            )));
        }
        if s.keepalives_count > Some(KEEPALIVE_COUNT_MAX.unsigned_abs()) {
            return Err(builder_fault(format!("keepalives_count must be at most {KEEPALIVE_COUNT_MAX}")));
        }
        if s.tcp_user_timeout > Some(Duration::from_millis(i32::MAX.unsigned_abs().into())) {
            return Err(builder_fault(format!("tcp_user_timeout must be at most {} milliseconds", i32::MAX)));
        }
        let texts = [
            ("user", &s.user),
            ("password", &s.password),
            ("dbname", &s.dbname),
            ("application_name", &s.application_name),
            ("options", &s.options),
        ];
        let hosts = s.hosts.iter().map(|host| ("host", host));
        let mut texts = texts.iter().filter_map(|(name, text)| Some((*name, text.as_ref()?))).chain(hosts);
        match texts.find(|(_, text)| text.contains('\0')) {
            Some((name, _)) => {
                Err(builder_fault(format!("{name} contains a NUL byte, which PostgreSQL does not support")))
            }
            None => Ok(()),
        }
    }
}

fn builder_fault(message: impl Into<String>) -> ConfigError {
    ConfigError { origin: "builder".into(), position: None, message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::super::SslNegotiation;
    use super::*;

    fn parameters(config: &Config) -> Vec<String> {
        config.startup_parameters().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn n12_a_session_is_shared_if_all_settings_with_an_effect_are_equal() {
        let config = |text| Config::without_env(text).unwrap();
        let base = config("host=db user=app dbname=shop password=a");
        let same = config("host=db port=5432 user=app dbname=shop password=a application_name=other");
        assert!(base.shares_session_with(&same));
        for other in [
            "host=db user=app dbname=shop password=b",
            "host=db user=app dbname=shop",
            "host=db port=5433 user=app dbname=shop password=a",
            "host=db user=app dbname=till password=a",
            "host=db user=app dbname=shop password=a sslmode=disable",
            "host=db user=app dbname=shop password=a require_auth=md5",
            "host=db user=app dbname=shop password=a options='-c search_path=x'",
            "host=db user=app dbname=shop password=a connect_timeout=1",
        ] {
            assert!(!base.shares_session_with(&config(other)), "{other}");
        }
        assert!(config("user=app").shares_session_with(&config("user=app dbname=app")));
    }

    #[test]
    fn the_encoding_is_always_utf8_and_comes_last() {
        let config = Config::without_env("user=ann options='-c client_encoding=LATIN1' client_encoding=utf-8").unwrap();
        assert_eq!(
            parameters(&config),
            ["user=ann", "database=ann", "options=-c client_encoding=LATIN1", "client_encoding=UTF8"]
        );
        assert!(Config::without_env("client_encoding=LATIN1").is_err());
    }

    #[test]
    fn the_fallback_name_is_used_if_there_is_no_application_name() {
        let named = |text| Config::without_env(text).unwrap().effective_application_name().map(String::from);
        assert_eq!(named("fallback_application_name=psql"), Some("psql".into()));
        assert_eq!(named("fallback_application_name=psql application_name=shop"), Some("shop".into()));
        assert_eq!(named(""), None);
    }

    #[test]
    fn builder_values_are_validated_when_they_are_used() {
        let new = || Config::new().user("ann");
        let too_long = Duration::from_secs(32_768);
        for (config, part) in [
            (new().port(0), "port"),
            (new().sslnegotiation(SslNegotiation::Direct), "sslnegotiation=direct"),
            (new().call_timeout(Duration::ZERO), "call_timeout"),
            (new().keepalives_idle(too_long), "32767"),
            (new().keepalives_interval(Duration::MAX), "32767"),
            (new().keepalives_count(128), "127"),
            (new().tcp_user_timeout(Duration::MAX), "milliseconds"),
            (new().dbname("a\0b"), "dbname contains a NUL"),
            (new().dbname("postgres://u:s3cr3t@h"), "whole URL"),
            (new().host("a\0b"), "host contains a NUL"),
            (new().password("s3cr3t90210\0"), "password contains a NUL"),
            (new().options("x".repeat(10_000)), "shorten options"),
        ] {
            let error = config.startup_parameters().unwrap_err();
            assert!(error.is_usage());
            assert!(error.to_string().contains(part), "{error}");
            assert!(!error.to_string().contains("s3cr3t"), "{error}");
        }
    }

    #[test]
    fn a_startup_packet_may_have_the_largest_size_that_the_server_accepts() {
        let spare = STARTUP_PACKET_MAX - 5 - "user.ann.database.ann.options..client_encoding.UTF8.".len();
        let config = |bytes| Config::new().user("ann").options("x".repeat(bytes));
        assert!(config(spare).startup_parameters().is_ok());
        assert!(config(spare + 1).startup_parameters().is_err());
    }
}
