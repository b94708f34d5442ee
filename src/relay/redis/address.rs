//! The addresses of an engine, from their URLs.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{ConfigError, Error, Escaped};

/// The port of a URL without one.
const DEFAULT_PORT: u16 = 6379;
/// The default time limit for connecting to a server, and for each of its answers.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// The servers of an engine: Redis from version 6 on, or Valkey. The one that is a master is used.
///
/// ```
/// use notifyman::relay::EngineConfig;
///
/// let engine = EngineConfig::new(["redis://r1:6379", "redis://r2:6379"])?;
/// assert_eq!(engine.to_string(), "redis://r1:6379, redis://r2:6379");
/// # Ok::<(), notifyman::Error>(())
/// ```
///
/// A failover is followed if all servers are listed. Sentinel and Cluster are not supported. Connecting to a server, and each of
/// its answers, may take 5 seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    pub(crate) addresses: Vec<EngineAddress>,
    /// The time limit for connecting to one server, its name resolution aside.
    pub(crate) connect_timeout: Duration,
    /// The time limit for the answer to a command, in addition to the time for which the command waits.
    pub(crate) answer_timeout: Duration,
}

impl EngineConfig {
    /// Reads the URLs of the servers: `redis://` or `valkey://`, with TLS `rediss://` or `valkeys://`, or `unix://` with the
    /// path of a socket.
    ///
    /// ```text
    /// redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE][?sslrootcert=FILE]
    /// unix://[[USER]:PASSWORD@]/PATH[?db=DATABASE]
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there is no URL or one is invalid. The text contains no part of a URL that may be secret.
    pub fn new<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Result<Self, Error> {
        let addresses = urls.into_iter().map(|url| EngineAddress::parse(url.as_ref()));
        let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(invalid("there is none: give at least one, such as redis://localhost:6379").into());
        }
        Ok(Self { addresses, connect_timeout: TIME_LIMIT, answer_timeout: TIME_LIMIT })
    }

    /// Sets the password for servers whose URL has none.
    ///
    /// ```
    /// use notifyman::relay::EngineConfig;
    ///
    /// let engine = EngineConfig::new(["redis://r1.example"])?;
    /// let engine = engine.default_password("secret");
    /// assert!(!format!("{engine} {engine:?}").contains("secret"));
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn default_password(mut self, password: impl Into<String>) -> Self {
        let password = password.into();
        for address in self.addresses.iter_mut().filter(|address| address.password.is_none()) {
            address.password = Some(password.clone());
        }
        self
    }
}

/// One server, by its URL: see [`EngineConfig::new`].
impl TryFrom<&str> for EngineConfig {
    type Error = Error;

    fn try_from(url: &str) -> Result<Self, Error> {
        Self::new([url])
    }
}

/// One server, by its URL: see [`EngineConfig::new`].
impl TryFrom<String> for EngineConfig {
    type Error = Error;

    fn try_from(url: String) -> Result<Self, Error> {
        Self::new([url])
    }
}

/// The servers of an engine, by their URLs: see [`EngineConfig::new`].
impl<U: AsRef<str>, const N: usize> TryFrom<[U; N]> for EngineConfig {
    type Error = Error;

    fn try_from(urls: [U; N]) -> Result<Self, Error> {
        Self::new(urls)
    }
}

/// The servers of an engine, by their URLs: see [`EngineConfig::new`].
impl<U: AsRef<str>> TryFrom<Vec<U>> for EngineConfig {
    type Error = Error;

    fn try_from(urls: Vec<U>) -> Result<Self, Error> {
        Self::new(urls)
    }
}

/// Formats the addresses, without logins.
impl fmt::Display for EngineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if number > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// The address of one server, with the login. Only the address is ever printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EngineAddress {
    pub(crate) place: EnginePlace,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: u32,
}

/// The transport and the place of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EnginePlace {
    Tcp {
        host: String,
        port: u16,
        tls: Option<EngineTls>,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// The settings of an encrypted connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EngineTls {
    /// The file with the trusted authorities; without it, those of the operating system are trusted.
    pub(crate) root_file: Option<PathBuf>,
}

impl EngineAddress {
    fn parse(url: &str) -> Result<Self, ConfigError> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(invalid("not a URL: write it as redis://HOST:PORT"));
        };
        let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
        if query.contains('#') || rest.contains('#') {
            return Err(invalid("'#' has no meaning here: write it as %23"));
        }
        // A password may contain '/', and a path '@', but neither in the documented form.
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (decode(user)?, decode(password)?),
            None => (String::new(), String::new()),
        };
        let tls = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            "unix" | "redis+unix" | "valkey+unix" => return Self::unix(rest, query, user, password),
            other => {
                let other = Escaped(other.chars().take(20).collect::<String>()).to_string();
                return Err(invalid(format!(
                    "unknown scheme {other:?}: use redis, rediss (with TLS), valkey, valkeys, or unix"
                )));
            }
        };
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = split_port(place)?;
        let host = decode(host)?;
        if host.is_empty() {
            return Err(invalid("without a host: write it as redis://HOST:PORT"));
        }
        let mut tls = tls.then_some(EngineTls { root_file: None });
        for (name, value) in parameters(query)? {
            match (name.as_str(), &mut tls) {
                ("sslrootcert", Some(tls)) => tls.root_file = Some(value.into()),
                ("sslrootcert", None) => return Err(invalid("sslrootcert without TLS: use the scheme rediss")),
                _ => return Err(unknown_parameter(&name)),
            }
        }
        let place = EnginePlace::Tcp { host, port, tls };
        Ok(Self { place, user: filled(user), password: filled(password), database: number(database)? })
    }

    fn unix(path: &str, query: &str, user: String, password: String) -> Result<Self, ConfigError> {
        let path = decode(path)?;
        if !path.starts_with('/') {
            return Err(invalid("without an absolute path of a socket: write it as unix:///PATH"));
        }
        let mut database = 0;
        for (name, value) in parameters(query)? {
            match name.as_str() {
                "db" => database = number(&value)?,
                _ => return Err(unknown_parameter(&name)),
            }
        }
        Ok(Self { place: EnginePlace::Unix(path.into()), user: filled(user), password: filled(password), database })
    }
}

/// Formats the URL without the login.
impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            EnginePlace::Tcp { host, port, tls } => {
                let scheme = if tls.is_some() { "rediss" } else { "redis" };
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "{scheme}://{open}{}{close}:{port}", Escaped(host))?;
            }
            EnginePlace::Unix(path) => write!(f, "unix://{}", Escaped(path.display()))?,
        }
        if self.database > 0 { write!(f, "/{}", self.database) } else { Ok(()) }
    }
}

impl fmt::Debug for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineAddress({self})")
    }
}

fn invalid(problem: impl fmt::Display) -> ConfigError {
    ConfigError { origin: "URL of an engine".into(), position: None, message: problem.to_string() }
}

fn unknown_parameter(name: &str) -> ConfigError {
    let name = Escaped(name.chars().take(20).collect::<String>()).to_string();
    invalid(format!("unknown parameter {name:?}: there are sslrootcert, with TLS, and db, for a Unix socket"))
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Splits `HOST:PORT` and `[IPV6]:PORT`.
fn split_port(place: &str) -> Result<(&str, u16), ConfigError> {
    let (host, port) = match place.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(None) => return Err(invalid("'[' without ']': write an IPv6 address as [::1]")),
        Some(Some((host, rest))) => (host, rest.strip_prefix(':').unwrap_or(rest)),
        None => place.split_once(':').unwrap_or((place, "")),
    };
    if port.is_empty() {
        return Ok((host, DEFAULT_PORT));
    }
    // The text after the colon may be a password if '@' was forgotten, so it is not shown.
    let port = port.parse().ok().filter(|port| *port > 0);
    port.map(|port| (host, port)).ok_or_else(|| invalid("the port is not a number from 1 to 65535"))
}

fn number(text: &str) -> Result<u32, ConfigError> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| invalid("the database is not a number, such as 0"))
}

fn parameters(query: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| Ok((decode(name)?, decode(value)?))).collect()
}

/// Decodes percent-encoding.
fn decode(raw: &str) -> Result<String, ConfigError> {
    let mut parts = raw.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or(("", ""));
        let is_hex = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let byte = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex);
        let Some(byte) = byte else {
            return Err(invalid("'%' without two hexadecimal digits: write a percent sign as %25"));
        };
        bytes.push(byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| invalid("percent-encoded bytes that are not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(url: &str) -> EngineAddress {
        EngineConfig::new([url]).unwrap_or_else(|error| panic!("{url}: {error}")).addresses.remove(0)
    }

    #[test]
    fn r01_the_url_of_an_engine_has_the_usual_parts() {
        let address = one("redis://app:p%40ss%2Fword@db1:7000/3");
        assert_eq!((address.user.as_deref(), address.password.as_deref()), (Some("app"), Some("p@ss/word")));
        assert_eq!((address.to_string().as_str(), address.database), ("redis://db1:7000/3", 3));
        for (url, shown) in [
            ("redis://localhost", "redis://localhost:6379"),
            ("valkey://localhost/", "redis://localhost:6379"),
            ("valkeys://10.0.0.1:1", "rediss://10.0.0.1:1"),
            ("redis://[::1]:7000", "redis://[::1]:7000"),
            ("redis://[::1]", "redis://[::1]:6379"),
            ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock/2"),
            ("redis+unix://:secret@/run/redis.sock", "unix:///run/redis.sock"),
        ] {
            assert_eq!(one(url).to_string(), shown, "{url}");
        }
        let address = one("redis://:secret@db1");
        assert_eq!((address.user, address.password.as_deref()), (None, Some("secret")));
        let EnginePlace::Tcp { tls, .. } = one("rediss://db1?sslrootcert=/etc/a%20b.pem").place else { panic!() };
        assert_eq!(tls, Some(EngineTls { root_file: Some("/etc/a b.pem".into()) }));
    }

    #[test]
    fn r01_an_invalid_url_is_a_usage_error_that_contains_no_secret() {
        for (url, problem) in [
            ("secret", "not a URL"),
            ("postgres://app:secret@db1/x", "unknown scheme \"postgres\""),
            ("redis://", "without a host"),
            ("redis://:secret@", "without a host"),
            ("redis://app:secret", "the port is not a number"),
            ("redis://db1:0", "the port is not a number"),
            ("redis://db1/secret", "the database is not a number"),
            ("redis://app:secret%zz@db1", "'%' without two"),
            ("redis://app:secret%é@db1", "'%' without two"),
            ("redis://app:secret%ff@db1", "not UTF-8"),
            ("redis://app:secret#1@db1", "'#' has no meaning"),
            ("redis://[::1", "'[' without ']'"),
            ("redis://db1?sslrootcert=secret", "sslrootcert without TLS"),
            ("rediss://db1?tls=secret", "unknown parameter \"tls\""),
            ("unix://secret", "without an absolute path"),
            ("unix:///run/a?db=secret", "the database is not a number"),
        ] {
            let error = EngineConfig::new([url]).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(problem), "{url}: {error}");
            assert!(!format!("{error:?} {error:#}").contains("secret"), "{url}: {error:?}");
        }
        let error = EngineConfig::new([] as [&str; 0]).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("at least one"), "{error}");
    }

    #[test]
    fn r01_no_format_of_an_address_contains_the_login() {
        let config = EngineConfig::new(["redis://name:secret@db1", "unix://name:secret@/run/x"]).unwrap();
        let shown = format!("{config} {config:?} {config:#?}");
        assert!(!shown.contains("secret") && !shown.contains("name"), "{shown}");
        assert_eq!(config.to_string(), "redis://db1:6379, unix:///run/x");
    }
}
