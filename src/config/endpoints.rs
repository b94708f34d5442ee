//! Combines hosts, addresses and ports by libpq's rules, in the order in which they are tried.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::values::{ConfigValues, fault};
use crate::error::ConfigError;

/// The registered port of PostgreSQL.
pub(super) const DEFAULT_PORT: u16 = 5432;

/// An address to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// A host before name resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A name that must be resolved.
    Name(String),
    /// An address, and the name that was given with it.
    Addr { ip: IpAddr, name: Option<String> },
    /// An IPv6 address with its zone, such as `fe80::1%eth0` or `fe80::1%3`, which the system resolves to an interface
    /// index; and the name that was given with it.
    Zoned { address: String, name: Option<String> },
    /// The path of a Unix socket. Linux's abstract names begin with a NUL byte, as `socket2` expects.
    Socket(PathBuf),
}

/// The longest path of a socket in bytes: the size of `sun_path` in `sockaddr_un`, minus the final NUL.
const SOCKET_PATH_MAX: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 107 } else { 103 };

/// Returns the addresses to connect to, in order. There is at least one. `exists` returns `true` for an existing file.
///
/// # Errors
///
/// Returns an error if the settings contradict each other or are invalid.
pub(super) fn endpoints(values: &ConfigValues, exists: &dyn Fn(&Path) -> bool) -> Result<Vec<Endpoint>, ConfigError> {
    values.check()?;
    let places = (0..values.host_count()).map(|i| {
        let port = match values.ports.as_slice() {
            [one] => *one,
            ports => ports.get(i).copied().unwrap_or(DEFAULT_PORT),
        };
        let name = values.hosts.get(i).filter(|name| !name.is_empty()).cloned();
        let zone = values.zones.get(i).and_then(Option::as_ref);
        let host = match (values.hostaddrs.get(i).copied().flatten(), name) {
            (Some(ip), name) => match zone {
                Some(zone) => Host::Zoned { address: format!("{ip}%{zone}"), name },
                None => Host::Addr { ip, name },
            },
            (None, Some(name)) => host_named(name, port)?,
            (None, None) => match default_socket(port, exists) {
                Some(path) => Host::Socket(path),
                None => Host::Name("localhost".into()),
            },
        };
        Ok(Endpoint { host, port })
    });
    places.collect()
}

fn host_named(name: String, port: u16) -> Result<Host, ConfigError> {
    if name.starts_with(['/', '@']) {
        return socket(&name, port).map(Host::Socket);
    }
    Ok(match name.parse() {
        Ok(ip) => Host::Addr { ip, name: None },
        Err(_) if zoned(&name).is_some() => Host::Zoned { address: name, name: None },
        Err(_) => Host::Name(name),
    })
}

/// Splits an IPv6 address from its zone.
pub(super) fn zoned(text: &str) -> Option<(Ipv6Addr, &str)> {
    let (ip, zone) = text.split_once('%')?;
    Some((ip.parse().ok()?, zone)).filter(|_| !zone.is_empty() && !zone.contains('\0'))
}

impl Host {
    /// Returns the name or address that a certificate must contain: without a zone, which only has a meaning on this
    /// machine.
    pub(crate) fn name_in_certificate(&self) -> Option<String> {
        match self {
            Host::Name(name) | Host::Addr { name: Some(name), .. } | Host::Zoned { name: Some(name), .. } => {
                Some(zoned(name).map_or_else(|| name.clone(), |(ip, _)| ip.to_string()))
            }
            Host::Addr { name: None, .. } | Host::Zoned { name: None, .. } | Host::Socket(_) => None,
        }
    }

    /// Returns the host as it was given: the name, or else the address, or the path of the socket.
    pub(super) fn given(&self) -> String {
        match self {
            Host::Name(name) | Host::Addr { name: Some(name), .. } | Host::Zoned { name: Some(name), .. } => {
                name.clone()
            }
            Host::Addr { ip, name: None } => ip.to_string(),
            Host::Zoned { address, name: None } => address.clone(),
            Host::Socket(path) => path.display().to_string(),
        }
    }

    /// Returns the address without its zone, if no name resolution is needed.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Host::Addr { ip, .. } => Some(*ip),
            Host::Zoned { address, .. } => zoned(address).map(|(ip, _)| ip.into()),
            Host::Name(_) | Host::Socket(_) => None,
        }
    }
}

fn socket(directory: &str, port: u16) -> Result<PathBuf, ConfigError> {
    let path = socket_in(directory, port);
    let bytes = path.as_os_str().len();
    if bytes > SOCKET_PATH_MAX {
        let why = format!(
            "the path of the socket {} has {bytes} bytes, but the limit is {SOCKET_PATH_MAX}: use a shorter directory, or a \
             symbolic link to it",
            path.display()
        );
        return Err(fault("host", why));
    }
    match directory.strip_prefix('@') {
        None => Ok(path),
        Some(rest) if cfg!(any(target_os = "linux", target_os = "android")) => {
            Ok(socket_in(&format!("\0{rest}"), port))
        }
        Some(_) => Err(fault("host", "abstract sockets, written with '@', exist only on Linux: use a directory")),
    }
}

/// The usual directories of sockets: on Debian and Red Hat, and in a default build of PostgreSQL.
pub(super) const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Returns the socket of a local server, if one of the usual directories contains it.
pub(super) fn default_socket(port: u16, exists: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    SOCKET_DIRECTORIES.iter().map(|directory| socket_in(directory, port)).find(|path| exists(path))
}

/// Returns the path of the socket of a server that listens on `port`.
pub(super) fn socket_in(directory: &str, port: u16) -> PathBuf {
    Path::new(directory).join(format!(".s.PGSQL.{port}"))
}

/// Formats the address on one line: `db1:5432`, `[::1]:5432`, `192.0.2.7:5432 (db1)`, `/tmp/.s.PGSQL.5432`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.host {
            Host::Name(name) if name.contains(':') => write!(f, "[{}]:{port}", name.escape_debug()),
            Host::Name(name) => write!(f, "{}:{port}", name.escape_debug()),
            Host::Addr { ip, name } => {
                write!(f, "{}", SocketAddr::new(*ip, port))?;
                name.as_ref().map_or(Ok(()), |name| write!(f, " ({})", name.escape_debug()))
            }
            Host::Zoned { address, name } => {
                write!(f, "[{}]:{port}", address.escape_debug())?;
                name.as_ref().map_or(Ok(()), |name| write!(f, " ({})", name.escape_debug()))
            }
            Host::Socket(path) => {
                let path = path.to_string_lossy();
                match path.strip_prefix('\0') {
                    Some(rest) => write!(f, "@{}", rest.escape_debug()),
                    None => write!(f, "{}", path.escape_debug()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::environment::nothing;
    use super::super::{Config, sources};
    use super::*;

    /// Returns the addresses on a machine without a local server.
    fn endpoints_of(text: &str) -> Result<Vec<Endpoint>, ConfigError> {
        endpoints(&sources::resolve(text, &nothing)?, &|_| false)
    }

    fn places(text: &str) -> Vec<String> {
        endpoints_of(text).unwrap().iter().map(ToString::to_string).collect()
    }

    fn refusal(text: &str) -> String {
        endpoints_of(text).unwrap_err().to_string()
    }

    #[test]
    fn an_address_may_have_a_zone() {
        for text in [
            "hostaddr=fe80::1%eth0",
            "host=fe80::1%eth0",
            "postgres://[fe80::1%25eth0]/",
            "postgres://fe80%3A%3A1%25eth0/",
            "postgres:///?hostaddr=fe80::1%25eth0",
        ] {
            assert_eq!(places(text), ["[fe80::1%eth0]:5432"], "{text}");
        }
        assert_eq!(places("host=a,b hostaddr=fe80::1%3,::1"), ["[fe80::1%3]:5432 (a)", "[::1]:5432 (b)"]);
        for text in ["hostaddr=fe80::1%", "hostaddr=192.0.2.7%eth0", "hostaddr=%eth0", "hostaddr=db1%eth0"] {
            assert!(Config::without_env(text).unwrap_err().to_string().contains("fe80::7%eth0"), "{text}");
        }
        let config = Config::without_env("host=fe80::2%v0,db hostaddr=fe80::1%eth0,::1").unwrap();
        assert_eq!(config.get_hostaddrs()[0], Some("fe80::1".parse().unwrap()));
        let hosts: Vec<Host> = config.endpoints().unwrap().into_iter().map(|endpoint| endpoint.host).collect();
        assert_eq!(hosts[0].name_in_certificate().as_deref(), Some("fe80::2"));
        assert_eq!(hosts[0].ip(), config.get_hostaddrs()[0]);
        assert_eq!(hosts[1].name_in_certificate().as_deref(), Some("db"));
    }

    #[test]
    fn one_port_applies_to_all_hosts() {
        assert_eq!(places("host=a,b port=6000"), ["a:6000", "b:6000"]);
        assert_eq!(places("host=a,b"), ["a:5432", "b:5432"]);
    }

    #[test]
    fn several_ports_apply_to_their_hosts() {
        assert_eq!(places("host=a,b,c port=1,,3"), ["a:1", "b:5432", "c:3"]);
        assert_eq!(places("postgres://a,b:2/db"), ["a:5432", "b:2"]);
    }

    #[test]
    fn lists_of_different_lengths_are_rejected() {
        assert!(refusal("host=a,b port=1,2,3").contains("3 ports for 2 host(s)"));
        assert!(refusal("port=1,2").contains("2 ports for 1 host(s)"));
        assert!(refusal("host=a,b hostaddr=::1").contains("2 in host but 1 in hostaddr"));
        let late = Config::new().host("a").port(1).port(2).endpoints();
        assert!(late.unwrap_err().to_string().starts_with("builder: 2 ports"));
    }

    #[test]
    fn an_address_needs_no_name_resolution() {
        assert_eq!(places("hostaddr=10.0.0.1,::1 host=a,b"), ["10.0.0.1:5432 (a)", "[::1]:5432 (b)"]);
        assert_eq!(places("hostaddr=,::1 host=a,"), ["a:5432", "[::1]:5432"]);
        assert_eq!(places("host=::1,10.0.0.1"), ["[::1]:5432", "10.0.0.1:5432"]);
        assert_eq!(places("host=fe80::1%eth0"), ["[fe80::1%eth0]:5432"]);
    }

    #[test]
    fn a_directory_means_the_socket_in_it() {
        assert_eq!(places("host=/run/pg,/tmp/ port=5433"), ["/run/pg/.s.PGSQL.5433", "/tmp/.s.PGSQL.5433"]);
        assert_eq!(places("postgres://%2Frun%2Fpg/shop"), ["/run/pg/.s.PGSQL.5432"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket_begins_with_a_nul() {
        let config = Config::new().host("@pg");
        let endpoints = config.endpoints().unwrap();
        assert_eq!(endpoints[0].host, Host::Socket("\0pg/.s.PGSQL.5432".into()));
        assert_eq!(endpoints[0].to_string(), "@pg/.s.PGSQL.5432");
    }

    #[test]
    fn a_socket_path_has_a_limit() {
        let directory = |bytes| format!("host=/{}", "d".repeat(bytes - 1 - "/.s.PGSQL.5432".len()));
        assert_eq!(places(&directory(SOCKET_PATH_MAX))[0].len(), SOCKET_PATH_MAX);
        let error = refusal(&directory(SOCKET_PATH_MAX + 1));
        assert!(error.contains(&format!("limit is {SOCKET_PATH_MAX}")), "{error}");
    }

    #[test]
    fn the_default_host_is_an_existing_socket_or_localhost() {
        let config = Config::new().port(6000);
        let with = |there: &str| endpoints(&config.inner, &|path| path.starts_with(there)).unwrap()[0].to_string();
        assert_eq!(with("/var/run/postgresql"), "/var/run/postgresql/.s.PGSQL.6000");
        assert_eq!(with("/tmp"), "/tmp/.s.PGSQL.6000");
        assert_eq!(with("/nowhere"), "localhost:6000");
    }

    #[test]
    fn an_endpoint_is_one_line() {
        let endpoint = Endpoint { host: Host::Name("a\nb".into()), port: 1 };
        assert_eq!(endpoint.to_string(), "a\\nb:1");
    }
}
