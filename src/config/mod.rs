//! Where and how to connect, and as whom.
//!
//! ```text
//! "postgres://..."  ──┐
//! "host=... ..."    ──┤ dsn ──> pairs ──┐
//! service files ──────── service ───────┼ keywords ──> Config ──> endpoints, start-up parameters, login policy
//! PGHOST, PGUSER, ... ── sources ───────┘    ^                        └─ passfile, at each login
//!                             builder ───────┘
//! ```
//!
//! A setting means what it means to libpq, or it is refused: see [`keywords`]. Nothing here opens a socket, and no
//! text made here shows a password.

mod dsn;
mod endpoints;
mod keywords;
#[cfg(test)]
mod libpq_tests;
#[cfg(feature = "tls")]
mod own_tls;
mod passfile;
mod policy;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod service;
mod session_attrs;
mod sources;
mod startup;
mod tls;

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

pub(crate) use endpoints::{Endpoint, Host};
pub(crate) use passfile::Passfile;
pub(crate) use policy::AuthMethods;
pub use policy::{AuthMethod, ChannelBinding, SslMode};
pub use session_attrs::{LoadBalanceHosts, TargetSessionAttrs};
pub(crate) use tls::BUILT_IN as TLS_BUILT_IN;
#[cfg_attr(not(feature = "tls"), allow(unused_imports, reason = "looked at by what encrypts"))]
pub(crate) use tls::TlsSettings;
pub use tls::{SslCertMode, SslNegotiation, TlsVersion};

/// PostgreSQL's registered port.
const DEFAULT_PORT: u16 = 5432;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Linux's `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL`.
const KEEPALIVE_SECONDS_MAX: i32 = 32_767;
/// Linux's `MAX_TCP_KEEPCNT`.
const KEEPALIVE_COUNT_MAX: i32 = 127;

/// Where and how to connect, and as whom.
///
/// It comes from a connection string, which means what it means to `psql`: the string over the service file that it
/// names over the `PG*` variables of the environment over the defaults. What becomes of each keyword is listed under
/// [`keywords`](crate::docs::keywords).
///
/// ```no_run
/// use notifyman::Config;
///
/// let url: Config = "postgres://app:secret@db1,db2/shop?connect_timeout=5".parse()?;
/// let pairs: Config = "host=db1,db2 user=app password=secret dbname=shop".parse()?;
/// let environment = Config::from_env()?; // PGHOST, PGUSER, PGPASSWORD, ...
/// # Ok::<(), notifyman::Error>(())
/// ```
///
/// A password that isn't given is looked for in the password file (`passfile`, PGPASSFILE, `~/.pgpass`) at each login.
///
/// Or it is built, and then owes nothing to the environment:
///
/// ```
/// use notifyman::Config;
/// use std::time::Duration;
///
/// let config = Config::new()
///     .host("db1")
///     .host("db2")
///     .user("app")
///     .password("secret")
///     .dbname("shop")
///     .connect_timeout(Duration::from_secs(5));
///
/// assert_eq!(config, Config::without_env("postgres://app:secret@db1,db2:5432/shop?port=&connect_timeout=5")?);
/// assert!(!format!("{config:?}").contains("secret"));
/// # Ok::<(), notifyman::Error>(())
/// ```
///
/// Both can be mixed: a parsed configuration takes the builder's calls, too. `host`, `hostaddr` and `port` add to
/// their lists, every other call replaces.
///
/// Cloning is cheap and shares everything, so thousands of connections cost one configuration. Neither `Debug` nor
/// `Display` nor any error shows the password. What the builder is given is checked when it is used: by connecting.
///
/// # Several hosts
///
/// Hosts are tried in the order given, or at random ([`load_balance_hosts`](Self::load_balance_hosts)), until one
/// answers that is [fit](Self::target_session_attrs). There may be one port for all, or one for each; where
/// there are addresses (`hostaddr`), one for each host. Without any host it is the socket of a server on this machine
/// (in `/var/run/postgresql` or `/tmp`) where there is one for the port, else `localhost`.
///
/// # What differs from libpq
///
/// - `connect_timeout` is 30 seconds unless given, and bounds the whole attempt (all hosts, the name look-up and the
///   login), where libpq has no limit by default and counts for each host. Each address has an equal share of the time
///   left to accept the connection. After accepting it has all the time left but an eighth, and after the first byte of
///   an answer all of it. Only the first silent server gets that much; each later one gets its share.
/// - A host that isn't what `target_session_attrs` asks for has its name's other addresses tried, too; libpq goes on to
///   the next host. And whatever a server refuses, but a login, hands on to the next; libpq goes on from a server that is
///   starting up, and ends at one that is full.
/// - A password file that others can get at is not used, as in libpq; here the error of the login says so.
/// - The system's service file is sought in PGSYSCONFDIR, else where Debian, Red Hat and PostgreSQL itself have it; LDAP
///   in a service file is refused.
/// - TLS needs the feature `tls`: without it, `sslmode=require` and stricter are refused, and `prefer` connects in clear.
///   With it, versions before 1.2 aren't spoken, nor keys other than RSA (from 2048 bits), P-256, P-384 and Ed25519; a
///   key that needs a password isn't read (`sslpassword`); a certificate without extensions (X.509 version 1) passes
///   only where no check is done; a server's certificate that is an authority's (CA:TRUE) passes only if the root file
///   contains it; and a host that is given only by its `hostaddr` is checked by that address.
/// - Where a login is refused, `prefer` and `allow` try it the other way, in clear or with TLS, except for a wrong
///   password, an unknown database and a server that is full or starting up, which would say the same once more.
/// - A SCRAM password is hashed as PostgreSQL hashes it, with two exceptions: right-to-left letters together with a
///   character whose normal form has letters of the other direction, such as U+2121; and exactly 64 bytes with a
///   character that has a normal form and is not in Unicode 3.2.
/// - `client_encoding` is always UTF8; PGCLIENTENCODING isn't looked at, nor are PGTZ, PGDATESTYLE and PGGEQO.
/// - A bare `@` in a URL behind the one that ends the user and password is refused, as is `key= other=value`: libpq
///   takes these for something that is hardly ever meant, and may be a part of a password.
/// - In a URL, tabs and line breaks around a part are dropped, as spaces are, such as the end of a file's line.
/// - The string itself can't be the bare name of a database (write `dbname=shop`), nor the name of a database a URL.
#[derive(Clone, PartialEq)]
pub struct Config {
    inner: Arc<Settings>,
}

/// All that a configuration says. Empty strings are "not given" and never kept.
#[derive(Clone, PartialEq)]
struct Settings {
    /// Names, addresses, socket folders; an empty one is the default host.
    hosts: Vec<String>,
    /// Goes by pairs with `hosts`; `None` means that the name is looked up.
    hostaddrs: Vec<Option<IpAddr>>,
    /// The zones of the addresses, in the order of `hostaddrs`; shorter if the last addresses have none.
    zones: Vec<Option<Box<str>>>,
    ports: Vec<u16>,
    user: Option<String>,
    password: Option<String>,
    passfile: Option<PathBuf>,
    dbname: Option<String>,
    application_name: Option<String>,
    fallback_application_name: Option<String>,
    options: Option<String>,
    connect_timeout: Option<Duration>,
    call_timeout: Duration,
    keepalives: bool,
    keepalives_idle: Option<Duration>,
    keepalives_interval: Option<Duration>,
    keepalives_count: Option<u32>,
    tcp_user_timeout: Option<Duration>,
    auth_methods: AuthMethods,
    channel_binding: ChannelBinding,
    target_session_attrs: TargetSessionAttrs,
    load_balance_hosts: LoadBalanceHosts,
    sslmode: Option<SslMode>,
    tls: TlsSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            hosts: Vec::new(),
            hostaddrs: Vec::new(),
            zones: Vec::new(),
            ports: Vec::new(),
            user: None,
            password: None,
            passfile: None,
            dbname: None,
            application_name: None,
            fallback_application_name: None,
            options: None,
            connect_timeout: Some(DEFAULT_CONNECT_TIMEOUT),
            call_timeout: DEFAULT_CALL_TIMEOUT,
            keepalives: true,
            keepalives_idle: None,
            keepalives_interval: None,
            keepalives_count: None,
            tcp_user_timeout: None,
            auth_methods: AuthMethods::ALL,
            channel_binding: ChannelBinding::default(),
            target_session_attrs: TargetSessionAttrs::default(),
            load_balance_hosts: LoadBalanceHosts::default(),
            sslmode: None,
            tls: TlsSettings::default(),
        }
    }
}

/// Where a configuration comes from.
impl Config {
    /// All defaults, and nothing from the environment.
    pub fn new() -> Self {
        Config::from(Settings::default())
    }

    /// The `PG*` variables of the environment, and the service that PGSERVICE names, over the defaults, as `psql`
    /// without arguments.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a variable whose value can't be used, or that asks for what this version can't do.
    pub fn from_env() -> Result<Self, Error> {
        Ok(sources::resolve("", &sources::process)?)
    }

    /// A connection string over the defaults, without a look at the environment or the home folder.
    ///
    /// The files that the string itself names, by `servicefile` and `passfile`, are read.
    ///
    /// ```
    /// let config = notifyman::Config::without_env("host=/run/postgresql dbname=shop")?;
    /// assert_eq!(config.get_hosts(), ["/run/postgresql"]);
    /// assert_eq!(config.get_user(), None); // that is: the operating system's user
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] where the string is malformed, or asks for what this version can't do; it says at which byte,
    /// and doesn't repeat the string, which may hold a password.
    pub fn without_env(text: &str) -> Result<Self, Error> {
        Ok(sources::resolve(text, &sources::nothing)?)
    }
}

/// The builder: each call takes the configuration and gives it back changed.
impl Config {
    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    /// Adds a host: a name, an address, or a socket's folder, which begins with `/` (or `@`: Linux's abstract names).
    ///
    /// A comma separates several, as in a connection string.
    #[must_use]
    pub fn host(self, host: impl AsRef<str>) -> Self {
        self.set(|s| s.hosts.extend(host.as_ref().split(',').map(String::from)))
    }

    /// Adds an address, which saves the look-up of the host's name; with hosts given, there is one for each.
    ///
    /// An address with a zone, such as `fe80::1%eth0`, goes into [`host`](Self::host).
    #[must_use]
    pub fn hostaddr(self, address: IpAddr) -> Self {
        self.set(|s| s.hostaddrs.push(Some(address)))
    }

    /// Adds a port: one for all hosts, or one for each. Default: 5432.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.set(|s| s.ports.push(port))
    }

    /// The role to log in as. Default: the operating system's user.
    #[must_use]
    pub fn user(self, user: impl Into<String>) -> Self {
        self.set(|s| s.user = given(user))
    }

    /// The password, for a server that asks for one.
    #[must_use]
    pub fn password(self, password: impl Into<String>) -> Self {
        self.set(|s| s.password = given(password))
    }

    /// The file to take the password from where none is set; it is read at each login.
    ///
    /// Its form is that of `~/.pgpass` (<https://www.postgresql.org/docs/current/libpq-pgpass.html>), and nobody but its
    /// owner may have access to it. Default: none; a parsed configuration has PGPASSFILE, else `~/.pgpass`.
    ///
    /// ```
    /// use notifyman::Config;
    ///
    /// let config = Config::new().passfile("/etc/shop/pgpass");
    /// assert_eq!(config, Config::without_env("passfile=/etc/shop/pgpass")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn passfile(self, file: impl Into<PathBuf>) -> Self {
        let file = Some(file.into()).filter(|file| !file.as_os_str().is_empty());
        self.set(|s| s.passfile = file)
    }

    /// The database. Default: the one named like the role.
    #[must_use]
    pub fn dbname(self, dbname: impl Into<String>) -> Self {
        self.set(|s| s.dbname = given(dbname))
    }

    /// What the server shows in `pg_stat_activity` and its log; it keeps 63 bytes. Default: nothing.
    #[must_use]
    pub fn application_name(self, name: impl Into<String>) -> Self {
        self.set(|s| s.application_name = given(name))
    }

    /// Settings for the session in the form of the server's command line, such as `-c statement_timeout=5s`.
    #[must_use]
    pub fn options(self, options: impl Into<String>) -> Self {
        self.set(|s| s.options = given(options))
    }

    /// How long connecting may take as a whole: look-up, all hosts and addresses, login. Default: 30 seconds.
    ///
    /// `None`, zero (as in libpq) and `Duration::MAX` mean no limit.
    #[must_use]
    pub fn connect_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        let timeout = timeout.into().filter(|timeout| !timeout.is_zero() && *timeout != Duration::MAX);
        self.set(|s| s.connect_timeout = timeout)
    }

    /// How long a single call on the connection may take, such as `listen` or `query`. Default: 30 seconds.
    ///
    /// It must be more than zero; `Duration::MAX` means no limit.
    #[must_use]
    pub fn call_timeout(self, timeout: Duration) -> Self {
        self.set(|s| s.call_timeout = timeout)
    }

    /// Whether the system probes an idle TCP connection. Default: yes.
    #[must_use]
    pub fn keepalives(self, on: bool) -> Self {
        self.set(|s| s.keepalives = on)
    }

    /// After how long without traffic probing begins; zero is the system's default.
    ///
    /// Counted in whole seconds, rounded up, at most 32,767 (Linux's limit).
    #[must_use]
    pub fn keepalives_idle(self, idle: Duration) -> Self {
        self.set(|s| s.keepalives_idle = whole_seconds(idle))
    }

    /// The time between two probes; zero is the system's default.
    ///
    /// Counted in whole seconds, rounded up, at most 32,767 (Linux's limit).
    #[must_use]
    pub fn keepalives_interval(self, interval: Duration) -> Self {
        self.set(|s| s.keepalives_interval = whole_seconds(interval))
    }

    /// After how many unanswered probes the connection is lost; zero is the system's default, 127 Linux's limit.
    #[must_use]
    pub fn keepalives_count(self, count: u32) -> Self {
        self.set(|s| s.keepalives_count = Some(count).filter(|count| *count > 0))
    }

    /// How long sent data may stay unacknowledged until the connection is lost; zero is the system's default.
    ///
    /// Counted in whole milliseconds, rounded up, at most 2,147,483,647. Linux only; elsewhere without effect.
    #[must_use]
    pub fn tcp_user_timeout(self, timeout: Duration) -> Self {
        self.set(|s| s.tcp_user_timeout = whole_millis(timeout))
    }

    /// The only ways in which the server may ask who we are; none given means any.
    ///
    /// ```
    /// use notifyman::{AuthMethod, Config};
    ///
    /// let config = Config::new().require_auth([AuthMethod::ScramSha256]);
    /// assert_eq!(config, Config::without_env("require_auth=scram-sha-256")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn require_auth(self, methods: impl IntoIterator<Item = AuthMethod>) -> Self {
        let methods = methods.into_iter().collect();
        self.set(|s| s.auth_methods = methods)
    }

    /// Whether a SCRAM login is tied to its TLS channel.
    #[must_use]
    pub fn channel_binding(self, binding: ChannelBinding) -> Self {
        self.set(|s| s.channel_binding = binding)
    }

    /// Whether the connection is encrypted.
    ///
    /// ```
    /// use notifyman::{Config, SslMode};
    ///
    /// let config = Config::new().sslmode(SslMode::VerifyFull);
    /// assert_eq!(config.get_sslmode(), SslMode::VerifyFull);
    /// ```
    #[must_use]
    pub fn sslmode(self, mode: SslMode) -> Self {
        self.set(|s| s.sslmode = Some(mode))
    }

    /// What a server must be for the connection to stay on it. Default: whichever answers.
    ///
    /// ```
    /// use notifyman::{Config, TargetSessionAttrs};
    ///
    /// let config = Config::new().host("db1,db2").target_session_attrs(TargetSessionAttrs::ReadWrite);
    /// assert_eq!(config, Config::without_env("host=db1,db2 target_session_attrs=read-write")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn target_session_attrs(self, attrs: TargetSessionAttrs) -> Self {
        self.set(|s| s.target_session_attrs = attrs)
    }

    /// Whether hosts are tried in the order given. Default: yes.
    ///
    /// ```
    /// use notifyman::{Config, LoadBalanceHosts};
    ///
    /// let config = Config::new().host("db1,db2").load_balance_hosts(LoadBalanceHosts::Random);
    /// assert_eq!(config, Config::without_env("host=db1,db2 load_balance_hosts=random")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn load_balance_hosts(self, order: LoadBalanceHosts) -> Self {
        self.set(|s| s.load_balance_hosts = order)
    }
}

/// What was set.
impl Config {
    /// Hosts in the order in which they are tried; an empty string is the default host.
    pub fn get_hosts(&self) -> &[String] {
        &self.inner.hosts
    }

    /// Addresses; with hosts given there is one for each, and `None` means that the host's name is resolved. The zone
    /// of an address (`fe80::1%eth0`) is left out.
    pub fn get_hostaddrs(&self) -> &[Option<IpAddr>] {
        &self.inner.hostaddrs
    }

    /// Ports: none for 5432, one for all hosts, or one for each.
    pub fn get_ports(&self) -> &[u16] {
        &self.inner.ports
    }

    /// The role to log in as; `None` is the operating system's user.
    pub fn get_user(&self) -> Option<&str> {
        self.inner.user.as_deref()
    }

    /// The file to take the password from where none is set.
    pub fn get_passfile(&self) -> Option<&Path> {
        self.inner.passfile.as_deref()
    }

    /// The database; `None` is the one named like the role.
    pub fn get_dbname(&self) -> Option<&str> {
        self.inner.dbname.as_deref()
    }

    /// What the server is told to show for the session.
    pub fn get_application_name(&self) -> Option<&str> {
        self.inner.application_name.as_deref()
    }

    /// Settings for the session in the form of the server's command line.
    pub fn get_options(&self) -> Option<&str> {
        self.inner.options.as_deref()
    }

    /// How long connecting may take as a whole; `None` is no limit.
    pub fn get_connect_timeout(&self) -> Option<Duration> {
        self.inner.connect_timeout
    }

    /// How long a single call may take; `Duration::MAX` is no limit.
    pub fn get_call_timeout(&self) -> Duration {
        self.inner.call_timeout
    }

    /// Whether the system probes an idle TCP connection.
    pub fn get_keepalives(&self) -> bool {
        self.inner.keepalives
    }

    /// After how long without traffic probing begins, in whole seconds; `None` is the system's default.
    pub fn get_keepalives_idle(&self) -> Option<Duration> {
        self.inner.keepalives_idle
    }

    /// The time between two probes, in whole seconds; `None` is the system's default.
    pub fn get_keepalives_interval(&self) -> Option<Duration> {
        self.inner.keepalives_interval
    }

    /// After how many unanswered probes the connection is lost; `None` is the system's default.
    pub fn get_keepalives_count(&self) -> Option<u32> {
        self.inner.keepalives_count
    }

    /// How long sent data may stay unacknowledged, in whole milliseconds; `None` is the system's default.
    pub fn get_tcp_user_timeout(&self) -> Option<Duration> {
        self.inner.tcp_user_timeout
    }

    /// Whether a SCRAM login is tied to its TLS channel.
    pub fn get_channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding
    }

    /// Whether the connection is encrypted.
    pub fn get_sslmode(&self) -> SslMode {
        self.inner.effective_sslmode()
    }

    /// What a server must be for the connection to stay on it.
    pub fn get_target_session_attrs(&self) -> TargetSessionAttrs {
        self.inner.target_session_attrs
    }

    /// Whether hosts are tried in the order given.
    pub fn get_load_balance_hosts(&self) -> LoadBalanceHosts {
        self.inner.load_balance_hosts
    }

    /// For the login alone, so that it stays in few hands.
    pub(crate) fn get_password(&self) -> Option<&str> {
        self.inner.password.as_deref()
    }

    pub(crate) fn auth_methods(&self) -> AuthMethods {
        self.inner.auth_methods
    }
}

/// Empty is "not given".
fn given(text: impl Into<String>) -> Option<String> {
    Some(text.into()).filter(|text| !text.is_empty())
}

/// A file's name for messages, which are one line whatever it is.
fn one_line(file: &Path) -> String {
    file.to_string_lossy().escape_debug().to_string()
}

fn whole_seconds(duration: Duration) -> Option<Duration> {
    let more = u64::from(duration.subsec_nanos() > 0);
    Some(Duration::from_secs(duration.as_secs().saturating_add(more))).filter(|duration| !duration.is_zero())
}

fn whole_millis(duration: Duration) -> Option<Duration> {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))).filter(|duration| !duration.is_zero())
}

impl Default for Config {
    fn default() -> Self {
        Config::new()
    }
}

impl From<Settings> for Config {
    fn from(settings: Settings) -> Self {
        Config { inner: Arc::new(settings) }
    }
}

/// A connection string over the environment over the defaults.
impl FromStr for Config {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(sources::resolve(text, &sources::process)?)
    }
}

/// As parsing it.
impl TryFrom<&str> for Config {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

/// As parsing it.
impl TryFrom<&String> for Config {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self, Error> {
        text.parse()
    }
}

/// As parsing it.
impl TryFrom<String> for Config {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

/// A cheap clone, so that a call that takes anything that becomes a configuration takes a borrowed one.
impl From<&Config> for Config {
    fn from(config: &Config) -> Self {
        config.clone()
    }
}

/// Lets a call take a `Config`, which can't fail, like a string, which can.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Everything but the password, of which it shows only that there is one.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &*self.inner;
        f.debug_struct("Config")
            .field("hosts", &s.hosts)
            .field("hostaddrs", &s.hostaddrs)
            .field("zones", &s.zones)
            .field("ports", &s.ports)
            .field("user", &s.user)
            .field("password", &s.password.as_ref().map(|_| format_args!("***")))
            .field("passfile", &s.passfile)
            .field("dbname", &s.dbname)
            .field("application_name", &s.application_name)
            .field("fallback_application_name", &s.fallback_application_name)
            .field("options", &s.options)
            .field("connect_timeout", &s.connect_timeout)
            .field("call_timeout", &s.call_timeout)
            .field("keepalives", &s.keepalives)
            .field("keepalives_idle", &s.keepalives_idle)
            .field("keepalives_interval", &s.keepalives_interval)
            .field("keepalives_count", &s.keepalives_count)
            .field("tcp_user_timeout", &s.tcp_user_timeout)
            .field("require_auth", &format_args!("{}", s.auth_methods))
            .field("channel_binding", &s.channel_binding)
            .field("target_session_attrs", &s.target_session_attrs)
            .field("load_balance_hosts", &s.load_balance_hosts)
            .field("sslmode", &s.effective_sslmode())
            .field("tls", &s.tls)
            .finish()
    }
}

/// One line for messages: where, as whom and to which database, such as `db1:5432,db2:5432 as "app", database "shop"`.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.endpoints() {
            Ok(endpoints) => {
                let places: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
                write!(f, "{}{}", places.join(","), self.role_and_database())
            }
            Err(error) => write!(f, "unusable settings ({error})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `Connection::connect` takes it.
    fn taken<C>(config: C) -> Result<Config, Error>
    where
        C: TryInto<Config>,
        Error: From<C::Error>,
    {
        Ok(config.try_into()?)
    }

    #[test]
    fn a_call_takes_a_string_or_a_configuration() {
        let config = Config::new().host("db1");
        assert_eq!(taken(&config).unwrap(), config);
        assert_eq!(taken(config.clone()).unwrap(), config);
        let owned = "host".to_owned();
        for refused in [taken("host"), taken(&owned), taken(owned.clone())] {
            assert!(refused.unwrap_err().is_usage());
        }
    }

    #[test]
    fn a_clone_shares_until_it_is_changed() {
        let config = Config::new().host("db1");
        let clone = config.clone();
        assert!(Arc::ptr_eq(&config.inner, &clone.inner));
        let changed = clone.host("db2");
        assert_eq!(config.get_hosts(), ["db1"]);
        assert_eq!(changed.get_hosts(), ["db1", "db2"]);
    }

    #[test]
    fn debug_shows_that_there_is_a_password_but_not_which() {
        let shown = format!("{:?}", Config::new().password("s3cr3t").require_auth([AuthMethod::Md5]));
        assert!(shown.contains("password: Some(***)"), "{shown}");
        assert!(shown.contains("require_auth: md5"), "{shown}");
        assert!(!shown.contains("s3cr3t"), "{shown}");
        assert!(format!("{:?}", Config::new()).contains("password: None"));
    }

    #[test]
    fn display_says_where_as_whom_and_to_which_database() {
        let config = Config::without_env("host=db1,/tmp user=a\"pp password=s3cr3t dbname=shop").unwrap();
        assert_eq!(config.to_string(), r#"db1:5432,/tmp/.s.PGSQL.5432 as "a\"pp", database "shop""#);
        assert!(Config::new().port(0).to_string().starts_with("unusable settings (builder: port"));
    }

    #[test]
    fn durations_are_rounded_up_to_what_the_system_counts_in() {
        let config = Config::new()
            .keepalives_idle(Duration::from_millis(1))
            .keepalives_interval(Duration::ZERO)
            .tcp_user_timeout(Duration::from_micros(1001));
        assert_eq!(config.get_keepalives_idle(), Some(Duration::from_secs(1)));
        assert_eq!(config.get_keepalives_interval(), None);
        assert_eq!(config.get_tcp_user_timeout(), Some(Duration::from_millis(2)));
    }

    #[test]
    fn connecting_is_limited_unless_told_otherwise() {
        let limit = |text| Config::without_env(text).unwrap().get_connect_timeout();
        assert_eq!(limit(""), Some(Duration::from_secs(30)));
        assert_eq!(limit("connect_timeout=''"), Some(Duration::from_secs(30)));
        assert_eq!(limit("connect_timeout=1"), Some(Duration::from_secs(1)));
        assert_eq!(limit("connect_timeout=0"), None);
        assert_eq!(limit("connect_timeout=-1"), None);
        for never in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
            assert_eq!(Config::new().connect_timeout(never).get_connect_timeout(), None);
        }
    }

    #[test]
    fn a_value_out_of_its_range_is_refused_with_its_place() {
        for (text, position, part) in [
            ("host=a port=70000", 12, "1 to 65535"),
            ("host=a port=0", 12, "1 to 65535"),
            ("port=1,x", 5, "1 to 65535"),
            ("hostaddr=db1", 9, "hostaddr"),
            ("connect_timeout=5s", 16, "in seconds"),
            ("connect_timeout=99999999999", 16, "2147483647"),
            ("keepalives_idle=32768", 16, "32767"),
            ("keepalives_count=128", 17, "127"),
            ("tcp_user_timeout=1.5", 17, "milliseconds"),
            ("target_session_attrs=master", 21, "prefer-standby"),
            ("load_balance_hosts=on", 19, "random"),
            ("sslmode=full", 8, "verify-full"),
            ("gssencmode=require", 11, "disable or prefer"),
            ("dbname=postgres://u:p@h/d", 7, "whole URL"),
            ("user=a prot=5", 7, "did you mean port?"),
        ] {
            let Error::Config(error) = Config::without_env(text).unwrap_err() else { panic!("{text}") };
            assert_eq!(error.position(), Some(position), "{text}: {error}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn what_asks_for_nothing_special_is_accepted() {
        let text = "gssencmode=prefer krbsrvname=postgres target_session_attrs=any load_balance_hosts=disable \
                    replication=false sslcompression=0 sslcert='' service='' passfile='' port=bad port=5432";
        assert_eq!(Config::without_env(text).unwrap(), Config::new().port(5432));
    }
}
