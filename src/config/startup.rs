//! What is told to the server, after a last look at what the builder took unseen.

use std::borrow::Cow;
use std::time::Duration;

use super::{Config, KEEPALIVE_COUNT_MAX, KEEPALIVE_SECONDS_MAX, keywords, sources};
use crate::error::{ConfigError, Error};

/// The server's `MAX_STARTUP_PACKET_LENGTH`, the packet's length field not counted: on a longer one it hangs up without
/// a word to the client.
const STARTUP_PACKET_MAX: usize = 10_000;

impl Config {
    /// The role to log in as: the one given, else the operating system's user.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] where none is given and the system doesn't tell.
    pub(crate) fn effective_user(&self) -> Result<Cow<'_, str>, Error> {
        let user = self.inner.user.as_deref().map(Cow::from).or_else(|| sources::os_user().map(Cow::from));
        Ok(user.ok_or_else(|| ConfigError {
            origin: "user".into(),
            position: None,
            message: "none is given, and the operating system doesn't tell who runs this: set user= or PGUSER".into(),
        })?)
    }

    /// The database: the one given, else the one named like the role.
    ///
    /// # Errors
    ///
    /// As [`effective_user`](Self::effective_user).
    pub(crate) fn effective_dbname(&self) -> Result<Cow<'_, str>, Error> {
        self.inner.dbname.as_deref().map_or_else(|| self.effective_user(), |name| Ok(name.into()))
    }

    /// `application_name`, else `fallback_application_name`.
    pub(crate) fn effective_application_name(&self) -> Option<&str> {
        self.inner.application_name.as_deref().or(self.inner.fallback_application_name.as_deref())
    }

    /// Whether a session opened by the one does as well for the other: everything is equal that has an effect, secrets
    /// included, but for the application's name.
    pub(crate) fn shares_session_with(&self, other: &Self) -> bool {
        // What has no such value is refused as it is used, by each for itself.
        let effective = |config: &Self| {
            let endpoints = config.endpoints().ok()?;
            let (user, dbname) = (config.effective_user().ok()?.into(), config.effective_dbname().ok()?.into());
            let settings = super::Settings {
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

    /// The start-up packet's names and values, in order.
    ///
    /// The server works through `options` first and then through the other parameters, so that `client_encoding` wins
    /// over anything in `options`; it comes last all the same.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] where a value can't be sent, or all together are longer than the server accepts.
    pub(crate) fn startup_parameters(&self) -> Result<Vec<(&'static str, Cow<'_, str>)>, Error> {
        self.check()?;
        let user = self.effective_user()?;
        let dbname = self.get_dbname().map_or_else(|| user.clone(), Cow::from);
        let mut parameters = vec![("user", user), ("database", dbname)];
        parameters.extend(self.effective_application_name().map(|name| ("application_name", name.into())));
        parameters.extend(self.get_options().map(|options| ("options", options.into())));
        parameters.push(("client_encoding", "UTF8".into()));

        // The protocol's version, each string with its NUL, and the NUL at the end.
        let strings: usize = parameters.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        if 5 + strings > STARTUP_PACKET_MAX {
            let message = format!(
                "user, dbname, application_name and options make a start-up packet of {} bytes, the server accepts \
                 {STARTUP_PACKET_MAX}: shorten options",
                5 + strings
            );
            return Err(builder_fault(message).into());
        }
        Ok(parameters)
    }

    /// As whom and where to, to follow a place in an error's text: ` as "app", database "shop"`.
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

    /// Checks what the builder took unseen. A parsed configuration passes.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let s = &*self.inner;
        s.check_counts("builder")?;
        s.check_tls().map_err(builder_fault)?;
        keywords::check_database(s.dbname.as_deref().unwrap_or_default()).map_err(builder_fault)?;
        if s.ports.contains(&0) {
            return Err(builder_fault("port must be from 1 to 65535"));
        }
        if s.call_timeout.is_zero() {
            return Err(builder_fault("call_timeout must be more than zero; Duration::MAX means no limit"));
        }
        let seconds = Duration::from_secs(KEEPALIVE_SECONDS_MAX.unsigned_abs().into());
        if s.keepalives_idle.max(s.keepalives_interval) > Some(seconds) {
            return Err(builder_fault(format!(
                "keepalives_idle and keepalives_interval can be {KEEPALIVE_SECONDS_MAX} seconds at most"
            )));
        }
        if s.keepalives_count > Some(KEEPALIVE_COUNT_MAX.unsigned_abs()) {
            return Err(builder_fault(format!("keepalives_count can be {KEEPALIVE_COUNT_MAX} at most")));
        }
        if s.tcp_user_timeout > Some(Duration::from_millis(i32::MAX.unsigned_abs().into())) {
            return Err(builder_fault(format!("tcp_user_timeout can be {} milliseconds at most", i32::MAX)));
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
            Some((name, _)) => Err(builder_fault(format!("{name} holds a NUL byte, which PostgreSQL can't store"))),
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
    fn n12_a_session_is_shared_where_all_is_equal_that_has_an_effect() {
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
    fn the_fallback_name_stands_in_for_a_missing_one() {
        let named = |text| Config::without_env(text).unwrap().effective_application_name().map(String::from);
        assert_eq!(named("fallback_application_name=psql"), Some("psql".into()));
        assert_eq!(named("fallback_application_name=psql application_name=shop"), Some("shop".into()));
        assert_eq!(named(""), None);
    }

    #[test]
    fn what_the_builder_took_is_checked_when_it_is_used() {
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
            (new().dbname("a\0b"), "dbname holds a NUL"),
            (new().dbname("postgres://u:s3cr3t@h"), "whole URL"),
            (new().host("a\0b"), "host holds a NUL"),
            (new().password("s3cr3t90210\0"), "password holds a NUL"),
            (new().options("x".repeat(10_000)), "shorten options"),
        ] {
            let error = config.startup_parameters().unwrap_err();
            assert!(error.is_usage());
            assert!(error.to_string().contains(part), "{error}");
            assert!(!error.to_string().contains("s3cr3t"), "{error}");
        }
    }

    #[test]
    fn a_start_up_packet_may_have_just_the_size_that_the_server_accepts() {
        let spare = STARTUP_PACKET_MAX - 5 - "user.ann.database.ann.options..client_encoding.UTF8.".len();
        let config = |bytes| Config::new().user("ann").options("x".repeat(bytes));
        assert!(config(spare).startup_parameters().is_ok());
        assert!(config(spare + 1).startup_parameters().is_err());
    }
}
