//! Everything that a configuration takes from outside the program's own words: the environment, the operating
//! system's user, and where servers usually put their sockets.
//!
//! Each of them comes in through a closure, so that what is made of it is pure; [`process`] and the two functions
//! below it are the only ones that look at the real thing. Service and password files belong here, too.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::keywords::{self, KEYWORDS, Keyword};
use super::{Config, Settings, dsn};
use crate::error::ConfigError;

/// An environment: the value of a variable, where it is set.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The process's own environment.
pub(super) fn process(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// An environment without any variable.
pub(super) fn nothing(_: &str) -> Option<OsString> {
    None
}

/// Lays a connection string over an environment over the defaults.
///
/// As in libpq, the last of several equal keywords wins, and an empty value hides the variable and means the default.
/// A variable that the string hides isn't looked at, so it may be wrong.
pub(super) fn resolve(text: &str, environment: Environment<'_>) -> Result<Config, ConfigError> {
    let mut pairs = dsn::split(text)?;
    for pair in &mut pairs {
        if pair.key == keywords::OLD_SSLMODE {
            pair.key = "sslmode".into();
            pair.value = keywords::sslmode_of_old(&pair.value).into();
        }
        if !keywords::is_known(&pair.key) {
            return Err(dsn::fault(pair.key_at, keywords::unknown(&pair.key)));
        }
    }

    let mut settings = Settings::default();
    for keyword in KEYWORDS {
        if let Some(pair) = pairs.iter().rev().find(|pair| pair.key == keyword.name) {
            keyword.apply(&mut settings, &pair.value).map_err(|message| dsn::fault(pair.value_at, message))?;
        } else if let Some((variable, value)) = variable_of(keyword, environment) {
            let origin = || format!("environment variable {variable}");
            let value = value.into_string().map_err(|_| ConfigError {
                origin: origin(),
                position: None,
                message: "its value is not UTF-8, which is the only encoding used here".into(),
            })?;
            keyword.apply(&mut settings, &value).map_err(|message| ConfigError {
                origin: origin(),
                position: None,
                message,
            })?;
        }
    }
    const BOTH: &str = "connection string and environment";
    settings.check_counts(BOTH)?;
    settings.check_tls().map_err(|message| ConfigError { origin: BOTH.into(), position: None, message })?;
    Ok(Config::from(settings))
}

fn variable_of(keyword: &Keyword, environment: Environment<'_>) -> Option<(&'static str, OsString)> {
    let variable = keyword.variable?;
    if let Some(value) = environment(variable) {
        return Some((variable, value));
    }
    // Older programs say PGREQUIRESSL=1; libpq still understands it, and it must not be lost.
    let old = (keyword.name == "sslmode").then(|| environment("PGREQUIRESSL")).flatten()?;
    Some(("PGREQUIRESSL", keywords::sslmode_of_old(old.to_str()?).into()))
}

/// The name of the operating system's user, which is whom PostgreSQL's programs log in as unless told.
///
/// libpq asks for the name of the effective user id. Here it comes from the two files that say so on Linux; elsewhere,
/// and for a user from a directory service, from USER or LOGNAME.
pub(super) fn os_user() -> Option<String> {
    let read = |path: &str| std::fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    os_user_from(&read, &process)
}

fn os_user_from(read: &dyn Fn(&str) -> Option<String>, environment: Environment<'_>) -> Option<String> {
    let known =
        read("/proc/self/status").and_then(|status| name_in_passwd(&read("/etc/passwd")?, effective_uid(&status)?));
    known.or_else(|| {
        ["USER", "LOGNAME"]
            .iter()
            .find_map(|name| environment(name)?.into_string().ok().filter(|user| !user.is_empty()))
    })
}

/// The second number of the line `Uid: real effective saved filesystem`.
fn effective_uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// The name in the first line `name:password:uid:...` with that id.
fn name_in_passwd(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The socket of a server on this machine, where one is in a usual folder: Debian's and Red Hat's first, then the one
/// that PostgreSQL is built with unless told otherwise.
pub(super) fn default_socket(port: u16, exists: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    ["/var/run/postgresql", "/tmp"].iter().map(|folder| socket_in(folder, port)).find(|path| exists(path))
}

/// The file that a server listening on `port` makes in its socket folder.
pub(super) fn socket_in(folder: &str, port: u16) -> PathBuf {
    Path::new(folder).join(format!(".s.PGSQL.{port}"))
}

#[cfg(test)]
mod tests {
    use super::super::SslMode;
    use super::*;

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
    fn variables_that_ask_for_what_we_cannot_do_are_refused() {
        for (variable, value) in [
            ("PGSSLMODE", "full"),
            ("PGSSLMAXPROTOCOLVERSION", "TLSv1"),
            ("PGSERVICE", "shop"),
            ("PGTARGETSESSIONATTRS", "read-write"),
            ("PGREQUIREPEER", "postgres"),
        ] {
            let variables = [(variable, value)];
            let error = resolve("", &env(&variables)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("environment variable {variable}: ")), "{error}");
        }
    }

    #[test]
    fn the_client_encoding_variable_is_not_looked_at() {
        assert_eq!(resolve("", &env(&[("PGCLIENTENCODING", "LATIN1")])).unwrap(), Config::new());
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_utf8_is_refused() {
        use std::os::unix::ffi::OsStringExt;
        let env = |name: &str| (name == "PGUSER").then(|| OsString::from_vec(vec![0xff]));
        assert!(resolve("", &env).unwrap_err().to_string().contains("PGUSER: its value is not UTF-8"));
    }

    #[test]
    fn the_old_requiressl_is_sslmode() {
        // Where TLS isn't built in, `require` is refused by its name.
        let demands = |text, variables: &[(&str, &str)]| match resolve(text, &env(variables)) {
            Ok(config) => config.get_sslmode() == SslMode::Require,
            Err(error) => error.to_string().contains("sslmode=require"),
        };
        assert!(demands("requiressl=1", &[]));
        assert!(demands("", &[("PGREQUIRESSL", "1")]));
        assert!(!demands("requiressl=1 sslmode=prefer", &[]));
        assert!(!demands("requiressl=0", &[("PGSSLMODE", "require")]));
    }

    #[test]
    fn the_user_is_the_effective_one() {
        let read = |path: &str| match path {
            "/proc/self/status" => Some("Name:\tx\nUid:\t0\t26\t26\t26\nGid:\t0\t0\t0\t0\n".to_owned()),
            "/etc/passwd" => Some("root:x:0:0::/:/bin/sh\n:x:26:\nbad\npostgres:x:26:26::/:/bin/sh\n".to_owned()),
            _ => None,
        };
        assert_eq!(os_user_from(&read, &env(&[("USER", "eve")])).as_deref(), Some("postgres"));
    }

    #[test]
    fn the_user_of_a_directory_service_comes_from_the_environment() {
        let read = |path: &str| (path == "/etc/passwd").then(|| "root:x:0:0::/:/bin/sh".to_owned());
        assert_eq!(os_user_from(&read, &env(&[("USER", ""), ("LOGNAME", "ann")])).as_deref(), Some("ann"));
        assert_eq!(os_user_from(&read, &nothing), None);
    }
}
