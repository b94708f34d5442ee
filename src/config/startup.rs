//! The startup parameters, by which a client requests a session.

use std::borrow::Cow;

use super::endpoints::{Endpoint, endpoints};
use super::values::{BUILDER, ConfigValues, fault};
use crate::error::ConfigError;

/// The server's `MAX_STARTUP_PACKET_LENGTH`, which does not include the length field. The server closes the connection
/// without an error if a packet is longer.
const STARTUP_PACKET_MAX: usize = 10_000;

/// Returns the names and values in the startup packet, in order.
///
/// The server processes `options` before the other parameters, so `client_encoding` overrides `options`. It is
/// nevertheless the last one.
///
/// # Errors
///
/// Returns an error if a value cannot be sent, or if all values together are longer than the server accepts.
pub(super) fn parameters(values: &ConfigValues) -> Result<Vec<(&'static str, Cow<'_, str>)>, ConfigError> {
    values.check()?;
    let user = values.effective_user()?;
    let dbname = values.dbname.as_deref().map_or_else(|| user.clone(), Cow::from);
    let mut parameters = vec![("user", user), ("database", dbname)];
    parameters.extend(values.effective_application_name().map(|name| ("application_name", name.into())));
    parameters.extend(values.options.as_deref().map(|options| ("options", options.into())));
    parameters.push(("client_encoding", "UTF8".into()));

    // Contains the protocol version, the strings with their NULs, and the final NUL.
    let length = 5 + parameters.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
    if length > STARTUP_PACKET_MAX {
        let message = format!(
            "user, dbname, application_name and options make a startup packet of {length} bytes, but the server accepts \
             {STARTUP_PACKET_MAX}: shorten options"
        );
        return Err(fault(BUILDER, message));
    }
    Ok(parameters)
}

/// Returns `true` if a session of one configuration can be used for the other: all settings with an effect are equal,
/// including secrets, except the label and the application name.
pub(super) fn share_session(one: &ConfigValues, other: &ConfigValues) -> bool {
    // A configuration without a valid value is rejected when it is used.
    match (effective(one), effective(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// Returns the addresses, and the values with the effective role and database in place of those that led to them.
fn effective(values: &ConfigValues) -> Result<(Vec<Endpoint>, ConfigValues), ConfigError> {
    let effective = ConfigValues {
        hosts: Vec::new(),
        hostaddrs: Vec::new(),
        zones: Vec::new(),
        ports: Vec::new(),
        user: Some(values.effective_user()?.into()),
        dbname: Some(values.effective_dbname()?.into()),
        label: None,
        application_name: None,
        fallback_application_name: None,
        ..values.clone()
    };
    Ok((endpoints(values, &|path| path.exists())?, effective))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Config, SslNegotiation};
    use super::*;

    fn parameters(config: &Config) -> Vec<String> {
        config.startup_parameters().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn n12_a_session_is_shared_if_all_settings_with_an_effect_are_equal() {
        let config = |text| Config::without_env(text).unwrap();
        let base = config("host=db user=app dbname=shop password=a");
        let same = config("host=db port=5432 user=app dbname=shop password=a application_name=other");
        assert!(base.shares_session_with(&same) && base.shares_session_with(&same.label("berlin")));
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
        let named = |text| Config::without_env(text).unwrap().inner.effective_application_name().map(String::from);
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
            (new().call_timeout(Duration::ZERO), "call_timeout must be greater than zero"),
            (new().connect_timeout(Duration::ZERO), "connect_timeout must be greater than zero"),
            (new().keepalives_idle(Duration::ZERO), "None means the system's default"),
            (new().keepalives_interval(Duration::ZERO), "greater than zero"),
            (new().keepalives_count(0), "greater than zero"),
            (new().tcp_user_timeout(Duration::ZERO), "greater than zero"),
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
