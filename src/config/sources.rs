//! The precedence among the sources of settings: a connection string, the service that it names, an environment, and the
//! defaults.
//!
//! Without HOME in the environment, only the files that are named explicitly are read, by [`super::service`] and
//! [`super::passfile`].

use std::path::Path;

use super::dsn;
use super::environment::Environment;
use super::keywords::{self, KEYWORDS, Keyword};
use super::service::Service;
use super::values::{ConfigValues, fault};
use crate::error::ConfigError;

/// A value and its position.
struct Given {
    value: String,
    origin: String,
    position: Option<usize>,
}

/// Merges a connection string, the service that it names, an environment and the defaults, in this order of precedence.
///
/// As in libpq, the last of several equal keywords is used, and an empty value overrides the variable and means the
/// default. A variable that the string overrides is not read, so it may be invalid.
pub(super) fn resolve(text: &str, environment: Environment<'_>) -> Result<ConfigValues, ConfigError> {
    let pairs = known_pairs(text)?;
    let said = |name: &str| {
        let pair = pairs.iter().rev().find(|pair| pair.key == name)?;
        Some(Given { value: pair.value.clone(), origin: dsn::ORIGIN.into(), position: Some(pair.value_at) })
    };
    // The service that the connection string names, or PGSERVICE if it names none.
    let service = match said("service") {
        Some(service) => Some(service),
        None => variable("PGSERVICE", environment)?,
    };
    let file = said("servicefile").map(|file| file.value).filter(|file| !file.is_empty());
    let service = match service.filter(|service| !service.value.is_empty()) {
        Some(service) => Some(Service::find(&service.value, file.as_deref(), environment)?),
        None => None,
    };
    let of_service = |name| {
        let (value, origin) = service.as_ref()?.get(name)?;
        Some(Given { value: value.into(), origin, position: None })
    };

    let mut settings = ConfigValues::default();
    for keyword in KEYWORDS {
        let given = match said(keyword.name).or_else(|| of_service(keyword.name)) {
            Some(given) => Some(given),
            None => variable_of(keyword, environment)?,
        };
        if let Some(Given { value, origin, position }) = given {
            keyword.apply(&mut settings, &value).map_err(|message| ConfigError { origin, position, message })?;
        }
    }
    if settings.passfile.is_none() {
        settings.passfile = environment("HOME").map(|home| Path::new(&home).join(".pgpass"));
    }
    settings.check_combination("connection string and environment")?;
    Ok(settings)
}

/// Returns the settings of a connection string, each with a known and current keyword.
pub(super) fn known_pairs(text: &str) -> Result<Vec<dsn::DsnPair>, ConfigError> {
    let mut pairs = dsn::split(text)?;
    for i in 0..pairs.len() {
        let (before, rest) = pairs.split_at_mut(i);
        let Some(pair) = rest.first_mut() else { break };
        if pair.key == keywords::OLD_SSLMODE {
            pair.key = "sslmode".into();
            pair.value = keywords::sslmode_of_old(&pair.value).into();
        }
        if !keywords::is_known(&pair.key) {
            let message = keywords::unknown(&pair.key, dsn::may_be_repeated(text, before));
            return Err(dsn::fault(pair.key_at, message));
        }
    }
    Ok(pairs)
}

fn variable_of(keyword: &Keyword, environment: Environment<'_>) -> Result<Option<Given>, ConfigError> {
    let Some(name) = keyword.variable else { return Ok(None) };
    if let Some(given) = variable(name, environment)? {
        return Ok(Some(given));
    }
    // Older programs set PGREQUIRESSL=1; libpq still supports it, and ignoring it would weaken the connection.
    let old = if keyword.name == "sslmode" { variable("PGREQUIRESSL", environment)? } else { None };
    Ok(old.map(|old| Given { value: keywords::sslmode_of_old(&old.value).into(), ..old }))
}

fn variable(name: &str, environment: Environment<'_>) -> Result<Option<Given>, ConfigError> {
    let Some(value) = environment(name) else { return Ok(None) };
    let origin = format!("environment variable {name}");
    match value.into_string() {
        Ok(value) => Ok(Some(Given { value, origin, position: None })),
        Err(_) => Err(fault(origin, "its value is not UTF-8, which is the only supported encoding")),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::environment::nothing;
    use super::super::{Config, SslMode};
    use super::*;

    fn resolve(text: &str, environment: Environment<'_>) -> Result<Config, ConfigError> {
        super::resolve(text, environment).map(Config::from)
    }

    fn env<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
    }

    #[test]
    fn the_string_wins_over_the_environment() {
        let env =
            env(&[("PGHOST", "far"), ("PGPORT", "1"), ("PGUSER", "eve"), ("PGPASSWORD", "pw"), ("PGAPPNAME", "x")]);
        let config = resolve("host=near user=ann", &env).unwrap();
        assert_eq!(config, Config::new().host("near").port(1).user("ann").password("pw").application_name("x"));
    }

    #[test]
    fn an_empty_value_hides_the_variable() {
        let env = env(&[("PGHOST", "far"), ("PGCONNECT_TIMEOUT", "5")]);
        assert_eq!(resolve("host='' connect_timeout=''", &env).unwrap(), Config::new());
    }

    #[test]
    fn a_hidden_variable_may_be_wrong() {
        let env = env(&[("PGPORT", "none"), ("PGSSLMODE", "require")]);
        assert!(resolve("port=5432 sslmode=disable", &env).is_ok());
        let error = resolve("sslmode=disable", &env).unwrap_err();
        assert!(error.to_string().starts_with("environment variable PGPORT: port must"), "{error}");
        assert_eq!(error.position(), None);
    }

    #[test]
    fn variables_with_unsupported_values_are_rejected() {
        for (variable, value) in [
            ("PGTARGETSESSIONATTRS", "master"),
            ("PGSSLMODE", "full"),
            ("PGSSLMAXPROTOCOLVERSION", "TLSv1"),
            ("PGREQUIREPEER", "postgres"),
        ] {
            let variables = [(variable, value)];
            let error = resolve("", &env(&variables)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("environment variable {variable}: ")), "{error}");
        }
    }

    #[test]
    fn the_default_password_file_is_in_the_home_directory() {
        let passfile = |text, variables: &[(&str, &str)]| {
            let config = resolve(text, &env(variables)).unwrap();
            config.get_passfile().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let (home, named) = (("HOME", "/home/ann"), ("PGPASSFILE", "/b"));
        assert_eq!(passfile("passfile=/a", &[home, named]), "/a");
        assert_eq!(passfile("", &[home, named]), "/b");
        assert_eq!(passfile("", &[home]), "/home/ann/.pgpass");
        assert_eq!(passfile("passfile=''", &[home, named]), "/home/ann/.pgpass");
        assert_eq!(passfile("", &[]), "");
    }

    #[test]
    fn an_error_is_one_line_for_any_file_name() {
        let error = resolve("service=x servicefile='/no\nwhere'", &nothing).unwrap_err().to_string();
        assert!(error.starts_with("service file /no\\nwhere: ") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn an_unknown_keyword_is_named_unless_it_may_be_a_part_of_a_password() {
        let refusal = |text| resolve(text, &nothing).unwrap_err().to_string();
        assert!(refusal("user=x frobnicate=1").contains("byte 7: unknown keyword frobnicate;"));
        for secret in ["password=two words=1", "passwd=x words=2", "postgres://u:?words=1@h", "postgres://u@h?words=x"]
        {
            assert!(!refusal(secret).contains("words"), "{secret}");
        }
    }

    #[test]
    fn the_client_encoding_variable_is_ignored() {
        assert_eq!(resolve("", &env(&[("PGCLIENTENCODING", "LATIN1")])).unwrap(), Config::new());
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_utf8_is_rejected() {
        use std::os::unix::ffi::OsStringExt;
        let env = |name: &str| (name == "PGUSER").then(|| OsString::from_vec(vec![0xff]));
        assert!(resolve("", &env).unwrap_err().to_string().contains("PGUSER: its value is not UTF-8"));
    }

    #[test]
    fn the_old_requiressl_is_sslmode() {
        // Without the feature, the error for `require` names the mode.
        let demands = |text, variables: &[(&str, &str)]| match resolve(text, &env(variables)) {
            Ok(config) => config.get_sslmode() == SslMode::Require,
            Err(error) => error.to_string().contains("sslmode=require"),
        };
        assert!(demands("requiressl=1", &[]));
        assert!(demands("", &[("PGREQUIRESSL", "1")]));
        assert!(!demands("requiressl=1 sslmode=prefer", &[]));
        assert!(!demands("requiressl=0", &[("PGSSLMODE", "require")]));
    }
}
