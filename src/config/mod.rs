//! The configuration of a connection: addresses, credentials, timeouts and TLS.
//!
//! ```text
//! "postgres://..."  ──┐
//! "host=... ..."    ──┤ dsn ──────────────┐
//! service files ──────── service ─────────┼ sources ──> keywords ──> values ──> endpoints, startup parameters,
//! PGHOST, PGUSER, ... ── environment ─────┘                            ^        login policy
//!                              builder (Config) ───────────────────────┘          └─ passfile, at each login
//! ```
//!
//! A setting has the same meaning as in libpq, or it is rejected: see [`keywords`]. This module opens no socket, and
//! none of its texts contains a password.

mod conversions;
mod dsn;
mod endpoints;
mod environment;
mod feature;
mod keywords;
#[cfg(test)]
mod libpq_tests;
mod names;
#[cfg(feature = "tls")]
mod own_tls;
mod passfile;
mod password;
mod policy;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod secret;
mod service;
pub(crate) mod session_attrs;
mod sources;
mod startup;
mod tls;
mod values;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::values::{ConfigValues, TimeLimit, given, given_path, whole_millis, whole_seconds};
use crate::error::Error;

pub(crate) use endpoints::{Endpoint, Host};
pub(crate) use feature::BUILT_IN as TLS_BUILT_IN;
pub use names::UnknownName;
pub(crate) use names::{Named, named};
pub(crate) use passfile::Passfile;
pub(crate) use password::PasswordProvider;
pub use password::PasswordRequest;
pub(crate) use policy::AuthMethods;
pub use policy::{AuthMethod, ChannelBinding, SslMode};
pub(crate) use secret::Secret;
pub use session_attrs::{LoadBalanceHosts, TargetSessionAttrs};
#[cfg_attr(not(feature = "tls"), allow(unused_imports, reason = "looked at by what encrypts"))]
pub(crate) use tls::TlsSettings;
pub use tls::{SslCertMode, SslNegotiation, TlsVersion};

/// The longest label, in bytes.
const LABEL_MAX: usize = 63;

/// The configuration of a connection: addresses, credentials, timeouts and TLS.
///
/// A configuration can be parsed from a connection string, which has the same meaning as for `psql`. Settings in the
/// string override the service file that it names, which overrides the `PG*` environment variables, which override the
/// defaults. All keywords are listed under [`keywords`](crate::docs::keywords).
///
/// ```no_run
/// use notifyman::Config;
///
/// let url: Config =
///     "postgres://app:secret@db1,db2/shop?connect_timeout=5".parse()?;
/// let pairs: Config =
///     "host=db1,db2 user=app password=secret dbname=shop".parse()?;
/// let environment = Config::from_env()?; // PGHOST, PGUSER, PGPASSWORD, ...
/// # Ok::<(), notifyman::Error>(())
/// ```
///
/// If no password is set, each login looks for one in the password file (`passfile`, PGPASSFILE, `~/.pgpass`).
///
/// A configuration can also be built, independently of the environment:
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
/// assert_eq!(
///     config,
///     Config::without_env(
///         "postgres://app:secret@db1,db2:5432/shop?port=&connect_timeout=5"
///     )?
/// );
/// assert!(!format!("{config:?}").contains("secret"));
/// # Ok::<(), notifyman::Error>(())
/// ```
///
/// The builder methods can also change a parsed configuration. `host`, `hostaddr` and `port` append to their lists;
/// every other method replaces the value.
///
/// Clones share their memory, so thousands of connections need one configuration. The password never appears in
/// `Debug`, in `Display` or in an error. The values given to the builder are validated when a connection is opened.
///
/// # Several hosts
///
/// Hosts are tried in the given order, or in random order ([`load_balance_hosts`](Self::load_balance_hosts)), until one
/// satisfies [`target_session_attrs`](Self::target_session_attrs). The list of ports contains one port for all hosts,
/// or one for each. If there are addresses (`hostaddr`), there must be one for each host. The default host is the Unix
/// socket of a local server (in `/var/run/postgresql` or `/tmp`) if it exists, and `localhost` otherwise.
///
/// # What differs from libpq
///
/// - `connect_timeout` defaults to 30 seconds and limits the whole attempt, including name resolution, all hosts and
///   the login. In libpq, it defaults to no limit and applies to each host. While an address has not accepted the
///   connection, it may use an equal share of the remaining time. After that it may use seven eighths of the remaining
///   time, and all of it after the first byte of an answer. Only the first silent server may use that much; each later
///   one may use its share. For example, each of 3 addresses has 10 of 30 seconds to accept the connection. If the first
///   one accepts it immediately and then remains silent, it may use 26.25 seconds, and the other two share the rest.
/// - If a host does not satisfy `target_session_attrs`, the other addresses of its name are tried, too; libpq continues
///   with the next host. Any error of a server except a refused login continues with the next address; libpq continues
///   if a server is starting up, but not if it has too many connections.
/// - A password file that other users can access is ignored, as in libpq, and the error of the login states it.
/// - The system-wide service file is searched for in PGSYSCONFDIR, and otherwise in the directories of Debian, Red Hat
///   and PostgreSQL. LDAP in a service file is rejected.
/// - TLS requires the feature `tls`. Without it, `sslmode=require` and stricter modes are rejected, and `prefer`
///   connects without encryption. With it, the following are not supported: versions before 1.2; keys other than RSA
///   (at least 2048 bits), P-256, P-384 and Ed25519; and keys that need a password (`sslpassword`). A certificate
///   without extensions (X.509 version 1) is accepted only if certificates are not verified. A server certificate that
///   is a certificate authority (CA:TRUE) is accepted only if the root file contains it. If only `hostaddr` is set, the
///   certificate must be valid for that address.
/// - If a login is refused, `prefer` and `allow` try again with or without encryption, except after a wrong password,
///   an unknown database, or an error of a server that has too many connections or is starting up.
/// - SCRAM passwords are normalized as PostgreSQL does, with two exceptions: right-to-left letters together with a
///   character whose normal form contains letters of the other direction, such as U+2121; and passwords of exactly 64
///   bytes with a character that has a normal form and is not in Unicode 3.2.
/// - `client_encoding` is always UTF8. PGCLIENTENCODING, PGTZ, PGDATESTYLE and PGGEQO are ignored.
/// - A second unescaped `@` in a URL is rejected, and so is `key= other=value`, because both may contain part of a
///   password. libpq accepts them with a meaning that is rarely intended.
/// - Tabs and line breaks around a part of a URL are ignored, like spaces.
/// - A connection string cannot consist of only a database name (write `dbname=shop`), and `dbname` cannot be a URL.
///
/// `Debug` formats all settings. Of the password it shows only whether there is one.
#[derive(Debug, Clone, PartialEq, Default)]
#[doc(alias = "dsn")]
#[doc(alias = "conninfo")]
#[doc(alias = "ConnConfig")]
#[doc(alias = "ConnectParams")]
pub struct Config {
    inner: Arc<ConfigValues>,
}

impl Config {
    /// Creates a configuration with default values, independent of the environment.
    pub fn new() -> Self {
        Config::default()
    }

    /// Creates a configuration from the `PG*` environment variables and the service named by PGSERVICE, like `psql`
    /// without arguments.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Config`] if the value of a variable is invalid or not supported.
    #[doc(alias = "environment")]
    pub fn from_env() -> Result<Self, Error> {
        Ok(sources::resolve("", &environment::process)?.into())
    }

    /// Parses a connection string without using the environment or the home directory.
    ///
    /// The files that the string names with `servicefile` and `passfile` are read.
    ///
    /// ```
    /// let config =
    ///     notifyman::Config::without_env("host=/run/postgresql dbname=shop")?;
    /// assert_eq!(config.get_hosts(), ["/run/postgresql"]);
    /// assert_eq!(config.get_user(), None); // that is: the operating system's user
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Error::Config`] if the string is malformed, or if a value is invalid or not supported. The error
    /// contains the byte offset, but not the string, which may contain a password.
    #[doc(alias = "ParseConfig")]
    #[doc(alias = "PQconninfoParse")]
    pub fn without_env(text: &str) -> Result<Self, Error> {
        Ok(sources::resolve(text, &environment::nothing)?.into())
    }
}

/// The builder methods. Each takes the configuration and returns the changed one.
impl Config {
    fn set(mut self, change: impl FnOnce(&mut ConfigValues)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    /// Adds a host: a name, an address, or the directory of a Unix socket, which begins with `/`, or with `@` for
    /// Linux's abstract sockets.
    ///
    /// Several hosts can be given, separated by commas, as in a connection string.
    #[must_use]
    pub fn host(self, host: impl AsRef<str>) -> Self {
        self.set(|s| s.hosts.extend(host.as_ref().split(',').map(String::from)))
    }

    /// Adds an address, which makes name resolution unnecessary. If hosts are set, there must be one address for each.
    ///
    /// An address with a zone, such as `fe80::1%eth0`, must be given to [`host`](Self::host).
    #[must_use]
    pub fn hostaddr(self, address: IpAddr) -> Self {
        self.set(|s| s.hostaddrs.push(Some(address)))
    }

    /// Adds a port. There must be one port for all hosts, or one for each. Default: 5432.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.set(|s| s.ports.push(port))
    }

    /// Sets the role. Default: the name of the operating system's user.
    #[must_use]
    #[doc(alias = "username")]
    pub fn user(self, user: impl Into<String>) -> Self {
        self.set(|s| s.user = given(user))
    }

    /// Sets the password. It is sent only if the server requests one.
    #[must_use]
    pub fn password(self, password: impl Into<String>) -> Self {
        self.set(|s| (s.password, s.password_provider) = (given(password).map(Secret), None))
    }

    /// Sets a function that computes the password, for each connection attempt: for tokens that expire, as for Amazon RDS
    /// (IAM) and Azure (Entra ID).
    ///
    /// Each attempt at an address calls the function once, after the server has accepted the connection, and so does each
    /// later reconnect. Until then the function is not called, nor for a server that cannot be reached. The result is not
    /// stored. This setting replaces [`password`](Self::password), and the password file is not read.
    ///
    /// ```
    /// use notifyman::{Config, PasswordRequest};
    ///
    /// /// Requests a token from the cloud; it may block for a while.
    /// fn token(request: &PasswordRequest) -> std::io::Result<String> {
    ///     std::fs::read_to_string(format!("/run/tokens/{}", request.user()))
    /// }
    ///
    /// let config = Config::new()
    ///     .host("db.example")
    ///     .user("app")
    ///     .password_with(|request| Ok(token(request)?));
    /// # let _ = config;
    /// ```
    ///
    /// # Threads
    ///
    /// The function runs on threads of this crate, never on the caller's or in a manager's loop: at most 4 for the whole
    /// process, and at most 3 of them for one function, so that a function that hangs leaves one for the others. Further
    /// attempts wait for a thread. All of this counts towards [`connect_timeout`](Self::connect_timeout): a function that
    /// takes longer fails its attempt, but occupies its thread until it returns, so give it a shorter timeout of its own.
    ///
    /// # Errors
    ///
    /// If the function returns an error or panics, the attempt fails with [`Error::Password`], which is
    /// [transient](Error::is_transient): a manager tries again. The error's text appears in logs, so it must not contain a
    /// secret. A refused password is final, as without a function.
    ///
    /// # Equality
    ///
    /// Two configurations with a function are equal only if one is a clone of the other, with the same function. So
    /// targets of a [`Notifier`](crate::Notifier) share a session only if their configurations are clones.
    #[must_use]
    #[doc(alias("token", "iam", "BeforeConnect", "password_provider"))]
    pub fn password_with<F>(self, provide: F) -> Self
    where
        F: Fn(&PasswordRequest) -> Result<String, Box<dyn StdError + Send + Sync>> + Send + Sync + 'static,
    {
        let provider = Some(PasswordProvider::new(provide));
        self.set(|s| (s.password, s.password_provider) = (None, provider))
    }

    /// Sets the password file, which is read at each login if no password is set.
    ///
    /// The file has the format of `~/.pgpass` (<https://www.postgresql.org/docs/current/libpq-pgpass.html>), and only
    /// its owner may have access to it. Default: none; for a parsed configuration PGPASSFILE, or else `~/.pgpass`.
    ///
    /// ```
    /// use notifyman::Config;
    ///
    /// let config = Config::new().passfile("/etc/shop/pgpass");
    /// assert_eq!(config, Config::without_env("passfile=/etc/shop/pgpass")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    #[doc(alias = "pgpass")]
    pub fn passfile(self, file: impl Into<PathBuf>) -> Self {
        self.set(|s| s.passfile = given_path(file))
    }

    /// Sets the database. Default: the database with the name of the role.
    #[must_use]
    #[doc(alias = "database")]
    pub fn dbname(self, dbname: impl Into<String>) -> Self {
        self.set(|s| s.dbname = given(dbname))
    }

    /// Sets the name that the server shows in `pg_stat_activity` and its log, which is truncated to 63 bytes. Default:
    /// empty.
    #[must_use]
    pub fn application_name(self, name: impl Into<String>) -> Self {
        self.set(|s| s.application_name = given(name))
    }

    /// Sets the label of connections with this configuration, by which messages name them: any text. Default: none.
    ///
    /// It appears in the [ids](crate::ConnId) of a manager, and thus in its events; in `Display` and in errors of connecting,
    /// with the address and the database; and as the field `label` of the events of the feature `tracing`. The server does
    /// not receive it. Control characters are escaped where the label is shown. It is no keyword of connection strings.
    ///
    /// ```
    /// use notifyman::Config;
    ///
    /// let config = Config::without_env("postgres://app@db1/shop")?.label("berlin");
    /// let expected = r#"berlin at db1:5432 as "app", database "shop""#;
    /// assert_eq!(config.to_string(), expected);
    /// assert_eq!(config.get_label(), Some("berlin"));
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    ///
    /// # Limits
    ///
    /// A label is truncated to 63 bytes. Connections with different labels do not share the memory of their configurations:
    /// about a kilobyte for each label. Targets of a [`Notifier`](crate::Notifier) share a session also if their labels differ;
    /// the session has the first one.
    #[must_use]
    #[doc(alias("name", "tag"))]
    pub fn label(self, label: impl Into<String>) -> Self {
        let mut label = label.into();
        let is_end = |at: &usize| label.is_char_boundary(*at);
        label.truncate((0..=LABEL_MAX.min(label.len())).rfind(is_end).unwrap_or_default());
        self.set(|s| s.label = given(label).map(String::into_boxed_str))
    }

    /// Sets options for the session in the format of the server's command line, such as `-c statement_timeout=5s`.
    #[must_use]
    pub fn options(self, options: impl Into<String>) -> Self {
        self.set(|s| s.options = given(options))
    }

    /// Sets SQL that each new session executes after the login, and before it listens to a channel: for example
    /// `SET ROLE app` or `SET statement_timeout = '5s'`.
    ///
    /// It runs for each connection that is opened or restored: by [`Connection`](crate::Connection), by a manager, by a
    /// notifier, by the workers of `changes`, and for the second session of a
    /// [diagnosis](crate::Connection::diagnose). It does not run for a [`CancelRequest`](Self::call_timeout), which is no
    /// session. Rows are discarded. Several statements are one transaction, unless they control transactions themselves.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::{Config, Connection};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let url = database();
    /// let config: Config = url.parse()?;
    /// let sql = "SET application_name = 'price cache'";
    /// let mut db = Connection::connect(config.after_connect(sql))?;
    /// let name = db.query("SHOW application_name")?;
    /// assert_eq!(name[0].get(0).as_deref(), Some("price cache"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Limits
    ///
    /// The SQL may take as long as [`call_timeout`](Self::call_timeout), in addition to
    /// [`connect_timeout`](Self::connect_timeout). After that the SQL is cancelled at the server, which may take another
    /// second, the connection is closed, and the attempt has failed. The text may contain a secret, so `Debug` does not show it.
    ///
    /// # Errors
    ///
    /// The attempt fails with [`Error::AfterConnect`] if the server reports an error, if the SQL takes too long or if it
    /// changes `client_encoding`, and with [`Error::LeftInTransaction`] if it leaves a transaction open. The next host is
    /// tried, and a manager that reconnects tries again.
    #[must_use]
    #[doc(alias("init_sql", "AfterConnect", "on_connect", "search_path"))]
    pub fn after_connect(self, sql: impl Into<String>) -> Self {
        self.set(|s| s.after_connect = given(sql).map(Secret))
    }

    /// Sets the limit for opening a connection, including name resolution, all hosts and addresses, and the login.
    /// Default: 30 seconds.
    ///
    /// `None` and `Duration::MAX` mean no limit. It must be greater than zero. (In a connection string, `connect_timeout=0`
    /// means no limit, as in libpq.)
    #[must_use]
    pub fn connect_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        let limit = timeout.into().unwrap_or(Duration::MAX);
        self.set(|s| s.connect_timeout = TimeLimit(limit))
    }

    /// Sets the limit for a single blocking call, such as `listen` or `query`. Default: 30 seconds.
    ///
    /// `None` and `Duration::MAX` mean no limit. It must be greater than zero.
    #[must_use]
    pub fn call_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        let limit = timeout.into().unwrap_or(Duration::MAX);
        self.set(|s| s.call_timeout = TimeLimit(limit))
    }

    /// Enables or disables TCP keepalives. Default: enabled.
    #[must_use]
    pub fn keepalives(self, on: bool) -> Self {
        self.set(|s| s.omits_keepalives = !on)
    }

    /// Sets the idle time before the first TCP keepalive probe. `None` means the system's default.
    ///
    /// The value is rounded up to whole seconds; the minimum is 1, the maximum 32,767 (Linux's limit).
    #[must_use]
    pub fn keepalives_idle(self, idle: impl Into<Option<Duration>>) -> Self {
        let idle = idle.into().map(whole_seconds);
        self.set(|s| s.keepalives_idle = idle)
    }

    /// Sets the interval between TCP keepalive probes. `None` means the system's default.
    ///
    /// The value is rounded up to whole seconds; the minimum is 1, the maximum 32,767 (Linux's limit).
    #[must_use]
    pub fn keepalives_interval(self, interval: impl Into<Option<Duration>>) -> Self {
        let interval = interval.into().map(whole_seconds);
        self.set(|s| s.keepalives_interval = interval)
    }

    /// Sets the number of unanswered TCP keepalive probes after which the connection is lost. `None` means the system's
    /// default; the minimum is 1, the maximum 127 (Linux's limit).
    #[must_use]
    pub fn keepalives_count(self, count: impl Into<Option<u32>>) -> Self {
        let count = count.into();
        self.set(|s| s.keepalives_count = count)
    }

    /// Sets how long transmitted data may stay unacknowledged before the connection is lost. `None` means the system's
    /// default.
    ///
    /// The value is rounded up to whole milliseconds; the minimum is 1, the maximum 2,147,483,647. It has an effect only on
    /// Linux.
    #[must_use]
    pub fn tcp_user_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        let timeout = timeout.into().map(whole_millis);
        self.set(|s| s.tcp_user_timeout = timeout)
    }

    /// Sets the authentication methods that are allowed. An empty list allows all.
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
        self.set(|s| s.require_auth = methods)
    }

    /// Sets whether SCRAM authentication is bound to the TLS channel.
    #[must_use]
    pub fn channel_binding(self, binding: ChannelBinding) -> Self {
        self.set(|s| s.channel_binding = binding)
    }

    /// Sets whether the connection is encrypted and the server verified.
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

    /// Sets which servers are acceptable, such as only a primary. Default: any.
    ///
    /// ```
    /// use notifyman::{Config, TargetSessionAttrs};
    ///
    /// let config = Config::new()
    ///     .host("db1,db2")
    ///     .target_session_attrs(TargetSessionAttrs::ReadWrite);
    /// assert_eq!(
    ///     config,
    ///     Config::without_env("host=db1,db2 target_session_attrs=read-write")?
    /// );
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn target_session_attrs(self, attrs: TargetSessionAttrs) -> Self {
        self.set(|s| s.target_session_attrs = attrs)
    }

    /// Sets the order in which hosts are tried. Default: the given order.
    ///
    /// ```
    /// use notifyman::{Config, LoadBalanceHosts};
    ///
    /// let config = Config::new()
    ///     .host("db1,db2")
    ///     .load_balance_hosts(LoadBalanceHosts::Random);
    /// assert_eq!(
    ///     config,
    ///     Config::without_env("host=db1,db2 load_balance_hosts=random")?
    /// );
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn load_balance_hosts(self, order: LoadBalanceHosts) -> Self {
        self.set(|s| s.load_balance_hosts = order)
    }
}

/// The TLS settings, except [`sslmode`](Self::sslmode).
///
/// Files are read when a connection is opened, and again when it is restored. A relative path refers to the working
/// directory at that time. By default, the existing files of `root.crt`, `postgresql.crt`, `postgresql.key` and
/// `root.crl` in `~/.postgresql` are used, as by `psql`. All except the key are PEM files that may contain several
/// entries.
impl Config {
    /// Sets the trusted certificate authorities: a file, or `system` for the authorities that the operating system
    /// trusts.
    ///
    /// If the file exists, the certificate is verified in every `sslmode`, so that `require` is as strict as
    /// `verify-ca`; if it does not exist, `verify-ca` and `verify-full` fail. `system` requires `verify-full`, and
    /// implies it if no `sslmode` is set.
    ///
    /// ```
    /// use notifyman::{Config, SslMode};
    ///
    /// let config = Config::new()
    ///     .host("db1")
    ///     .sslmode(SslMode::VerifyFull)
    ///     .sslrootcert("/etc/ssl/shop-ca.crt");
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn sslrootcert(self, file: impl Into<PathBuf>) -> Self {
        self.set(|s| s.tls.root_cert = given_path(file))
    }

    /// Sets the client certificate, followed by the intermediate certificates.
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
        self.set(|s| s.tls.cert = given_path(file))
    }

    /// Sets the private key of the client certificate: PKCS#8, PKCS#1 or SEC1, in PEM or DER, without a password.
    ///
    /// A key that other users can read is rejected, as by `psql`: its mode must be at most 0600, or 0640 if its owner
    /// is root.
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
        self.set(|s| s.tls.key = given_path(file))
    }

    /// Sets whether the client certificate is sent.
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

    /// Sets a certificate revocation list. A file that does not exist is ignored, as by `psql`; an existing file
    /// without a list is rejected.
    ///
    /// If there is a list, there must be a current one for each authority between the server and the root.
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
        self.set(|s| s.tls.crl = given_path(file))
    }

    /// Sets a directory of certificate revocation lists. All PEM files in it are read, and there must be at least one.
    ///
    /// ```
    /// use notifyman::Config;
    ///
    /// let config = Config::new().sslcrldir("/etc/revoked");
    /// assert_eq!(config, Config::without_env("sslcrldir=/etc/revoked")?);
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    #[must_use]
    pub fn sslcrldir(self, directory: impl Into<PathBuf>) -> Self {
        self.set(|s| s.tls.crl_dir = given_path(directory))
    }

    /// Sets whether the host name is sent to the server, unencrypted (SNI). Default: yes. Addresses are never sent.
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
        self.set(|s| s.tls.omits_sni = !on)
    }

    /// Sets the minimum version of TLS. Default: 1.2, the oldest that is supported.
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

    /// Sets the maximum version of TLS. Default: the latest that both sides support.
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

    /// Sets how TLS starts.
    ///
    /// ```
    /// use notifyman::{Config, SslMode, SslNegotiation};
    ///
    /// let config = Config::new()
    ///     .sslnegotiation(SslNegotiation::Direct)
    ///     .sslmode(SslMode::Require);
    /// assert_eq!(config.get_sslnegotiation(), SslNegotiation::Direct);
    /// ```
    #[must_use]
    pub fn sslnegotiation(self, negotiation: SslNegotiation) -> Self {
        self.set(|s| s.tls.negotiation = negotiation)
    }

    /// Sets a TLS configuration made by the caller, for requirements that `sslrootcert` and the other settings do not
    /// cover: keys in hardware, root certificates that are not in files, or another cryptography provider.
    ///
    /// The configuration determines the trusted roots, the client certificate and the TLS versions. Of the settings
    /// that begin with `ssl`, only two have an effect: [`sslnegotiation`](Self::sslnegotiation) and
    /// [`sslmode`](Self::sslmode), which determines whether TLS is used: never for `disable`, if the server supports it
    /// for `allow` and `prefer`, and always for `require` and stricter modes. The certificate is verified for the name
    /// of the host.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use notifyman::rustls::crypto::ring;
    /// use notifyman::rustls::{ClientConfig, RootCertStore};
    /// use notifyman::{Config, SslMode};
    ///
    /// # fn main() -> Result<(), notifyman::rustls::Error> {
    /// # let my_roots = RootCertStore::empty();
    /// let tls =
    ///     ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
    ///         .with_safe_default_protocol_versions()?
    ///         .with_root_certificates(my_roots)
    ///         .with_no_client_auth();
    /// let config = Config::new()
    ///     .host("db1")
    ///     .sslmode(SslMode::VerifyFull)
    ///     .tls_config(Arc::new(tls));
    /// # let _ = config;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_config(self, config: Arc<own_tls::ClientConfig>) -> Self {
        self.set(|s| s.tls.own = Some(own_tls::OwnTls(config)))
    }
}

/// The getters.
impl Config {
    /// Returns the hosts in the order in which they are tried. An empty string is the default host.
    pub fn get_hosts(&self) -> &[String] {
        &self.inner.hosts
    }

    /// Returns the addresses. If hosts are set, there is one for each, and `None` means that the host's name is
    /// resolved. The zone of an address (`fe80::1%eth0`) is not included.
    pub fn get_hostaddrs(&self) -> &[Option<IpAddr>] {
        &self.inner.hostaddrs
    }

    /// Returns the ports: none for 5432, one for all hosts, or one for each.
    pub fn get_ports(&self) -> &[u16] {
        &self.inner.ports
    }

    /// Returns the role. `None` means the name of the operating system's user.
    pub fn get_user(&self) -> Option<&str> {
        self.inner.user.as_deref()
    }

    /// Returns the password file, which is used if no password is set.
    pub fn get_passfile(&self) -> Option<&Path> {
        self.inner.passfile.as_deref()
    }

    /// Returns the database. `None` means the database with the name of the role.
    pub fn get_dbname(&self) -> Option<&str> {
        self.inner.dbname.as_deref()
    }

    /// Returns the name that the server shows for the session.
    pub fn get_application_name(&self) -> Option<&str> {
        self.inner.application_name.as_deref()
    }

    /// Returns the label.
    pub fn get_label(&self) -> Option<&str> {
        self.inner.label.as_deref()
    }

    /// Returns the options for the session, in the format of the server's command line.
    pub fn get_options(&self) -> Option<&str> {
        self.inner.options.as_deref()
    }

    /// Returns the limit for opening a connection. `None` means no limit.
    pub fn get_connect_timeout(&self) -> Option<Duration> {
        Some(self.inner.connect_timeout.0).filter(|limit| *limit != Duration::MAX)
    }

    /// Returns the limit for a single blocking call. `None` means no limit.
    pub fn get_call_timeout(&self) -> Option<Duration> {
        Some(self.inner.call_timeout.0).filter(|limit| *limit != Duration::MAX)
    }

    /// Returns `true` if TCP keepalives are enabled.
    pub fn get_keepalives(&self) -> bool {
        !self.inner.omits_keepalives
    }

    /// Returns the idle time before the first TCP keepalive probe. `None` means the system's default.
    pub fn get_keepalives_idle(&self) -> Option<Duration> {
        self.inner.keepalives_idle
    }

    /// Returns the interval between TCP keepalive probes. `None` means the system's default.
    pub fn get_keepalives_interval(&self) -> Option<Duration> {
        self.inner.keepalives_interval
    }

    /// Returns the number of unanswered TCP keepalive probes after which the connection is lost. `None` means the
    /// system's default.
    pub fn get_keepalives_count(&self) -> Option<u32> {
        self.inner.keepalives_count
    }

    /// Returns how long transmitted data may stay unacknowledged. `None` means the system's default.
    pub fn get_tcp_user_timeout(&self) -> Option<Duration> {
        self.inner.tcp_user_timeout
    }

    /// Returns whether SCRAM authentication is bound to the TLS channel.
    pub fn get_channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding
    }

    /// Returns whether the connection is encrypted and the server verified.
    pub fn get_sslmode(&self) -> SslMode {
        self.inner.effective_sslmode()
    }

    /// Returns which servers are acceptable.
    pub fn get_target_session_attrs(&self) -> TargetSessionAttrs {
        self.inner.target_session_attrs
    }

    /// Returns the order in which hosts are tried.
    pub fn get_load_balance_hosts(&self) -> LoadBalanceHosts {
        self.inner.load_balance_hosts
    }
}

/// The getters of the TLS settings. For files, `None` means the default file in `~/.postgresql`.
impl Config {
    /// Returns the file of the trusted certificate authorities, or `system`.
    pub fn get_sslrootcert(&self) -> Option<&Path> {
        self.tls().root_cert.as_deref()
    }

    /// Returns the file of the client certificate.
    pub fn get_sslcert(&self) -> Option<&Path> {
        self.tls().cert.as_deref()
    }

    /// Returns the file of the private key.
    pub fn get_sslkey(&self) -> Option<&Path> {
        self.tls().key.as_deref()
    }

    /// Returns whether the client certificate is sent.
    pub fn get_sslcertmode(&self) -> SslCertMode {
        self.tls().cert_mode
    }

    /// Returns the file of the certificate revocation lists.
    pub fn get_sslcrl(&self) -> Option<&Path> {
        self.tls().crl.as_deref()
    }

    /// Returns the directory of certificate revocation lists. `None` means that there is none.
    pub fn get_sslcrldir(&self) -> Option<&Path> {
        self.tls().crl_dir.as_deref()
    }

    /// Returns `true` if the host name is sent to the server.
    pub fn get_sslsni(&self) -> bool {
        !self.tls().omits_sni
    }

    /// Returns the minimum version of TLS. `None` means 1.2.
    pub fn get_ssl_min_protocol_version(&self) -> Option<TlsVersion> {
        self.tls().min_version
    }

    /// Returns the maximum version of TLS. `None` means the latest that both sides support.
    pub fn get_ssl_max_protocol_version(&self) -> Option<TlsVersion> {
        self.tls().max_version
    }

    /// Returns how TLS starts.
    pub fn get_sslnegotiation(&self) -> SslNegotiation {
        self.tls().negotiation
    }
}

/// Derived values, for the crate.
impl Config {
    /// Returns the password. Only authentication uses it, so there is no public getter.
    pub(crate) fn get_password(&self) -> Option<&str> {
        self.inner.password.as_ref().map(|password| password.0.as_str())
    }

    /// Returns the function that computes the password.
    pub(crate) fn password_provider(&self) -> Option<&PasswordProvider> {
        self.inner.password_provider.as_ref()
    }

    /// Returns the SQL that each new session executes.
    pub(crate) fn get_after_connect(&self) -> Option<&str> {
        self.inner.after_connect.as_ref().map(|sql| sql.0.as_str())
    }

    pub(crate) fn auth_methods(&self) -> AuthMethods {
        self.inner.require_auth
    }

    pub(crate) fn tls(&self) -> &TlsSettings {
        &self.inner.tls
    }

    /// Returns the addresses to connect to, in order. There is at least one.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Config`] if the settings contradict each other or are invalid.
    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        Ok(endpoints::endpoints(&self.inner, &|path| path.exists())?)
    }

    /// Returns the names and values in the startup packet, in order.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Config`] if a value cannot be sent, or if all values together are longer than the server
    /// accepts.
    pub(crate) fn startup_parameters(&self) -> Result<Vec<(&'static str, Cow<'_, str>)>, Error> {
        Ok(startup::parameters(&self.inner)?)
    }

    /// Returns the role: the given one, or the operating system's user.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Config`] if no role is set and the name of the operating system's user is unknown.
    pub(crate) fn effective_user(&self) -> Result<Cow<'_, str>, Error> {
        Ok(self.inner.effective_user()?)
    }

    /// Returns the database: the given one, or the one with the name of the role.
    ///
    /// # Errors
    ///
    /// See [`effective_user`](Self::effective_user).
    pub(crate) fn effective_dbname(&self) -> Result<Cow<'_, str>, Error> {
        Ok(self.inner.effective_dbname()?)
    }

    /// Formats the label, to precede an address in an error text: `berlin at `.
    pub(crate) fn label_at(&self) -> String {
        self.get_label().map(|label| format!("{label} at ")).unwrap_or_default()
    }

    /// Formats role and database, to follow an address in an error text: ` as "app", database "shop"`.
    pub(crate) fn role_and_database(&self) -> String {
        let role = self.effective_user().map(|user| format!(" as {user:?}"));
        let database = self.effective_dbname().map(|dbname| format!(", database {dbname:?}"));
        role.unwrap_or_default() + &database.unwrap_or_default()
    }

    /// Returns the path of the password file, if a login needs it.
    pub(crate) fn passfile_to_read(&self) -> Option<&Path> {
        let has_password = self.get_password().is_some() || self.password_provider().is_some();
        self.get_passfile().filter(|_| !has_password)
    }

    /// Returns the request for the password of a login at this address.
    ///
    /// # Errors
    ///
    /// See [`effective_user`](Self::effective_user).
    pub(crate) fn password_request(&self, place: &Endpoint) -> Result<PasswordRequest, Error> {
        let (user, dbname) = (self.effective_user()?, self.effective_dbname()?);
        Ok(PasswordRequest::new(place.host.given(), place.port, &user, &dbname))
    }

    /// Returns the configuration for a login at this address, with the password from the password file if none is set,
    /// and a note on the file for the error of a failed login. The note never contains the password.
    pub(crate) fn with_password_for(&self, place: &Endpoint, passfile: &Passfile) -> (Config, Option<String>) {
        let path = self.passfile_to_read();
        let (Some(path), Ok(user), Ok(dbname)) = (path, self.effective_user(), self.effective_dbname()) else {
            return (self.clone(), None);
        };
        let (password, note) = passfile.password_for(path, place, &dbname, &user);
        (password.map_or_else(|| self.clone(), |password| self.clone().password(password)), note)
    }

    /// Returns `true` if a session of one configuration can be used for the other: all settings with an effect are
    /// equal, including secrets, except the label and the application name.
    pub(crate) fn shares_session_with(&self, other: &Self) -> bool {
        startup::share_session(&self.inner, &other.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Converts like `Connection::connect`.
    fn taken<C>(config: C) -> Result<Config, Error>
    where
        C: TryInto<Config>,
        Error: From<C::Error>,
    {
        Ok(config.try_into()?)
    }

    #[test]
    fn a_function_accepts_a_string_or_a_configuration() {
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
    fn debug_hides_the_password() {
        let shown = format!("{:?}", Config::new().password("s3cr3t").require_auth([AuthMethod::Md5]));
        assert!(shown.contains("password: Some(***)"), "{shown}");
        assert!(shown.contains("require_auth: md5"), "{shown}");
        assert!(!shown.contains("s3cr3t"), "{shown}");
        assert!(format!("{:?}", Config::new()).contains("password: None"));
    }

    #[test]
    fn display_shows_addresses_role_and_database() {
        let config = Config::without_env("host=db1,/tmp user=a\"pp password=s3cr3t dbname=shop").unwrap();
        assert_eq!(config.to_string(), r#"db1:5432,/tmp/.s.PGSQL.5432 as "a\"pp", database "shop""#);
        assert!(Config::new().port(0).to_string().starts_with("unusable settings (builder: port"));
    }

    #[test]
    fn durations_are_rounded_up_to_the_units_of_the_system() {
        let config = Config::new()
            .keepalives_idle(Duration::from_millis(1))
            .keepalives_interval(None)
            .tcp_user_timeout(Duration::from_micros(1001));
        assert_eq!(config.get_keepalives_idle(), Some(Duration::from_secs(1)));
        assert_eq!(config.get_keepalives_interval(), None);
        assert_eq!(config.get_tcp_user_timeout(), Some(Duration::from_millis(2)));
    }

    #[test]
    fn connecting_has_a_timeout_by_default() {
        let limit = |text| Config::without_env(text).unwrap().get_connect_timeout();
        assert_eq!(limit(""), Some(Duration::from_secs(30)));
        assert_eq!(limit("connect_timeout=''"), Some(Duration::from_secs(30)));
        assert_eq!(limit("connect_timeout=1"), Some(Duration::from_secs(1)));
        assert_eq!(limit("connect_timeout=0"), None);
        assert_eq!(limit("connect_timeout=-1"), None);
        for never in [None, Some(Duration::MAX)] {
            assert_eq!(Config::new().connect_timeout(never).get_connect_timeout(), None);
        }
    }

    #[test]
    fn an_invalid_value_is_rejected_with_its_position() {
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
    fn default_values_of_unsupported_keywords_are_accepted() {
        let text = "gssencmode=prefer krbsrvname=postgres target_session_attrs=any load_balance_hosts=disable \
                    replication=false sslcompression=0 sslcert='' service='' passfile='' port=bad port=5432";
        assert_eq!(Config::without_env(text).unwrap(), Config::new().port(5432));
    }
}
