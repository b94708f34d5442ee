//! The crate's errors.
//!
//! The text of an [`Error`] is one line that states the cause, the place, the limit and the remedy. `{}` leaves out the text of
//! the [`source`](std::error::Error::source), so that a reporter that prints the chain of sources prints each cause once;
//! `{:#}` is the whole chain. Text from outside the program is [`Escaped`].

mod escaped;
mod protocol;
mod server;
mod text;
mod tls;
mod with;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use self::escaped::Escaped;
pub use self::protocol::ProtocolError;
pub use self::server::ServerError;
pub use self::tls::{TlsError, TlsErrorKind};
pub use self::with::ErrorWith;
use crate::config::session_attrs::TargetSessionAttrs;

/// The steps of a connection attempt that a timeout names, by which the diagnosis distinguishes them.
pub(crate) const RESOLVING: &str = "resolving the host name";
pub(crate) const NEGOTIATING_TLS: &str = "negotiating TLS";
pub(crate) const LOGGING_IN: &str = "logging in";

/// The error of every fallible operation of this crate.
///
/// Errors are cheap to clone: the event, the garbage and the connection itself all hold the error that ended the
/// connection. A mistake of the caller ([`is_usage`](Self::is_usage)) and a violation by the peer
/// ([`is_protocol`](Self::is_protocol)) are different variants.
///
/// # Display
///
/// `{error:#}` is the whole error in one line, with its cause: print this, unless a reporter prints the sources. `{error}` leaves
/// out the text of the [`source`](std::error::Error::source). An error that could not connect, a system call that failed and SQL
/// of `after_connect` that failed have a source; all other errors are complete.
///
/// ```
/// use std::error::Error;
/// use notifyman::{Config, Connection};
///
/// // No server listens on this port.
/// let error = Connection::connect("host=127.0.0.1 port=1 user=app").unwrap_err();
/// let target = r#"cannot connect to 127.0.0.1:1 as "app", database "app""#;
/// assert_eq!(error.to_string(), target);
/// let line = format!("{error:#}");
/// assert!(line.starts_with(&format!("{target}: connecting: Connection refused")));
/// let system = error.source().and_then(Error::source).unwrap();
/// assert!(system.is::<std::io::Error>());
/// ```
///
/// ```
/// use notifyman::{Config, Error};
///
/// let error: Error = "host=db port=70000".parse::<Config>().unwrap_err();
/// assert!(error.is_usage());
/// assert!(error.to_string().contains("port"));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// A connection string, an environment variable or a builder value is invalid.
    Config(Box<ConfigError>),
    /// A channel name or a payload exceeds a limit of PostgreSQL, which would reject or silently truncate it.
    Value(Box<ValueError>),
    /// A connection could not be opened. The error contains the address, the user and the reason.
    Connect(Arc<ConnectError>),
    /// The server reported an error.
    Server(Arc<ServerError>),
    /// The peer does not speak the protocol, or violates it.
    Protocol(ProtocolError),
    /// The client cannot authenticate, or `require_auth` or `channel_binding` does not allow the requested method.
    Auth(Box<str>),
    /// The connection could not be encrypted, or the server could not be verified.
    Tls(Box<TlsError>),
    /// A system call failed.
    Io {
        /// The operation that failed, such as "reading from the server".
        action: &'static str,
        /// The error of the operating system.
        error: Arc<io::Error>,
    },
    /// The host name could not be resolved.
    Resolve {
        /// The reason given by the system's resolver.
        reason: Box<str>,
    },
    /// The function of [`Config::password_with`](crate::Config::password_with) returned an error or panicked, or no thread
    /// could be started to call it. The next attempt calls it again.
    Password {
        /// The error of the function, with its sources.
        reason: Box<str>,
    },
    /// The SQL of [`Config::after_connect`](crate::Config::after_connect) failed, so the connection was not opened.
    AfterConnect(Arc<Error>),
    /// The SQL of [`Config::after_connect`](crate::Config::after_connect) left a transaction open, so the connection was
    /// not opened.
    LeftInTransaction,
    /// The server does not satisfy `target_session_attrs`.
    Target {
        /// The value of `target_session_attrs`.
        wanted: TargetSessionAttrs,
        /// The actual state, such as "the server is a standby".
        found: &'static str,
    },
    /// The server sent more notifications during one call than the connection stores.
    Overflow {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A call or a connection attempt exceeded its timeout.
    Timeout {
        /// The operation that exceeded the timeout.
        action: &'static str,
        /// The timeout.
        after: Duration,
        /// `true` if the connection was closed because of the timeout.
        closed: bool,
    },
    /// The server closed the connection without sending an error.
    Disconnected,
    /// The server answers requests but delivers no notifications: a manager's canary did not arrive although the server
    /// lists its channel, or the server has lost the LISTEN of the canary channel twice in a row.
    #[doc(alias = "deaf")]
    NotDelivering {
        /// The time since the last canary was sent.
        after: Duration,
    },
    /// Notifications reach this connection only together with the answer to a request: a proxy holds them back while
    /// the connection is idle. A manager reports this error after two such canaries in a row.
    HeldBack {
        /// The time since the last canary was sent.
        after: Duration,
    },
    /// The server no longer listed channels that the connection listens to, and a manager's audit has restored them.
    /// This error is only the cause of a gap; it does not end the connection.
    Unregistered,
    /// The program took events from a stream of a manager too slowly, so notifications of this connection were dropped. This
    /// error is only the cause of a gap; it does not end the connection.
    TooSlow {
        /// The number of notifications.
        dropped: u64,
    },
    /// This program closed the connection.
    Closed,
    /// The manager is still opening the connection for the first time.
    Unopened,
    /// The manager has no connection with this id.
    UnknownConnection,
    /// The manager was stopped or dropped before it completed the request.
    Stopped,
    /// The notifier does not have this channel: it was neither added nor subscribed to.
    UnknownChannel {
        /// The name of the channel.
        channel: Box<str>,
    },
    /// The notifier has no subscriber with this id, or the subscriber has no subscription to this channel.
    UnknownSubscriber {
        /// The channel, if the call named one.
        channel: Option<Box<str>>,
    },
    /// The notifier is not running.
    NotRunning,
    /// A blocking call was made inside a callback of the same notifier.
    InsideCallback {
        /// The alternative.
        instead: &'static str,
    },
    /// The id has a callback for the channel already, which a fence does not replace.
    AlreadySubscribed {
        /// The channel.
        channel: Box<str>,
    },
    /// The connection does not listen to the channel whose notifications were to be applied.
    NotListening {
        /// The channel.
        channel: Box<str>,
    },
    /// An [`EventSource`](crate::EventSource) does not carry the channel, so nothing can listen to it there.
    NotRelayed {
        /// The channel.
        channel: Box<str>,
    },
    /// The operation needs a session of a database, and there is an [`EventSource`](crate::EventSource) in its place.
    NoDatabase {
        /// The operation.
        action: &'static str,
        /// The alternative.
        instead: &'static str,
    },
    /// A closure that a [fence](crate::fence) calls under a lock used the fence, for example in a listener that a cache calls
    /// for evicted entries.
    InsideFence,
    /// A callback has not returned since the notifier was stopped.
    StillRunning {
        /// The channel of the callback.
        channel: Box<str>,
    },
    /// The queue of notifications to send is full.
    Backlog {
        /// The number of waiting notifications.
        pairs: usize,
    },
    /// The handles of a manager have too many unanswered requests. The request was not sent.
    TooManyRequests {
        /// The limit in bytes, for all handles of the manager together.
        limit: usize,
    },
    /// The result of the ticket has already been taken.
    TicketSpent,
    /// A late request of a handle is being cancelled, so the connection can make no call until that has ended. Nothing was sent.
    Cancelling,
    /// The answer to a query is too long to be stored. The server has executed the query.
    AnswerTooLong(Box<str>),
    /// An operation on the table changes of a database is not possible. The text contains the reason and the remedy.
    Changes(Box<str>),
    /// A relay or a reader of its streams cannot continue. The text contains the reason, the stream and the remedy.
    Relay(Box<str>),
    /// The thread that must resolve a ticket waited for it: the thread that iterates the manager, or a thread of the
    /// notifier, which calls the callbacks.
    WouldDeadlock,
}

impl Error {
    /// Returns `true` if an argument or the call itself was invalid. Nothing was sent, and the connection is unchanged.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Error::Config(_)
                | Error::Value(_)
                | Error::UnknownConnection
                | Error::UnknownChannel { .. }
                | Error::UnknownSubscriber { .. }
                | Error::NotRunning
                | Error::InsideCallback { .. }
                | Error::InsideFence
                | Error::AlreadySubscribed { .. }
                | Error::NotListening { .. }
                | Error::NotRelayed { .. }
                | Error::NoDatabase { .. }
                | Error::TicketSpent
                | Error::Cancelling
                | Error::WouldDeadlock
        )
    }

    /// Returns `true` if the peer violated the protocol.
    pub fn is_protocol(&self) -> bool {
        matches!(self.root(), Error::Protocol(_))
    }

    /// Returns `true` if a timeout was exceeded.
    pub fn is_timeout(&self) -> bool {
        match self.root() {
            Error::AfterConnect(e) => e.is_timeout(),
            root => matches!(root, Error::Timeout { .. }),
        }
    }

    /// Returns `true` if authentication failed: a wrong password, an unknown role, or a method that is not allowed.
    pub fn is_auth(&self) -> bool {
        match self.root() {
            Error::Auth(_) => true,
            Error::Server(e) => e.code().starts_with("28"),
            _ => false,
        }
    }

    /// Returns `true` if TLS failed: the server does not support it, its certificate was rejected, or a file of the
    /// client, such as its certificate, is invalid.
    pub fn is_tls(&self) -> bool {
        self.tls().is_some()
    }

    /// Returns `true` if the same connection attempt or call may succeed later without a change on the client's side.
    ///
    /// | error | transient |
    /// |---|---|
    /// | server unreachable, connection lost, timeout, nothing delivered | yes |
    /// | no password from the function of `password_with` | yes |
    /// | SQL of `after_connect` failed | as its cause |
    /// | `target_session_attrs` not satisfied, which changes with a failover | yes |
    /// | too many requests | yes |
    /// | SQLSTATE class 08 (connection), 40 (rollback), 53 (resources), 57 (operator intervention), 58 (system) | yes |
    /// | any server error with which the connection ended | yes |
    /// | TLS handshake interrupted, or server certificate expired | yes |
    /// | any other certificate error | no |
    /// | wrong password, unknown database, invalid argument, protocol violation | no |
    ///
    /// If several addresses were tried, one transient error is enough, unless the last address refused the login.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Io { .. } | Error::Resolve { .. } | Error::Timeout { .. } | Error::Disconnected => true,
            Error::Password { .. } => true,
            Error::AfterConnect(e) => e.is_transient(),
            // A standby may be promoted, and a primary come back as a standby.
            Error::Target { .. } => true,
            Error::NotDelivering { .. } | Error::HeldBack { .. } | Error::Unregistered => true,
            Error::TooManyRequests { .. } => true,
            Error::Server(e) => {
                let class = e.code().get(..2).unwrap_or_default();
                // Without a code, the server could not start a session.
                e.was_last || matches!(class, "" | "08" | "40" | "53" | "57" | "58")
            }
            Error::Tls(e) => e.is_transient(),
            Error::Connect(e) => e.any(Error::is_transient),
            _ => false,
        }
    }

    /// Returns the error that the server reported, if it reported one.
    #[doc(alias = "diag")]
    #[doc(alias = "as_db_error")]
    pub fn server(&self) -> Option<&ServerError> {
        match self.root() {
            Error::Server(e) => Some(e),
            Error::AfterConnect(e) => e.server(),
            _ => None,
        }
    }

    /// Returns the TLS error, if TLS failed.
    pub fn tls(&self) -> Option<&TlsError> {
        match self.root() {
            Error::Tls(e) => Some(e),
            _ => None,
        }
    }

    /// Returns the five-character SQLSTATE, if the server reported one.
    ///
    /// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
    #[doc(alias = "pgcode")]
    #[doc(alias = "code")]
    pub fn sqlstate(&self) -> Option<&str> {
        self.server().map(ServerError::code).filter(|code| !code.is_empty())
    }

    /// Returns the error itself, or the cause of a failed attempt to open a connection.
    fn root(&self) -> &Error {
        match self {
            Error::Connect(e) => e.cause.root(),
            other => other,
        }
    }

    pub(crate) fn io(action: &'static str, error: io::Error) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
            return tls.clone().into();
        }
        Error::Io { action, error: Arc::new(error) }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Io { error, .. } => Some(&**error),
            Error::Connect(error) => error.source(),
            Error::AfterConnect(error) => Some(&**error),
            _ => None,
        }
    }
}

impl From<ProtocolError> for Error {
    fn from(error: ProtocolError) -> Self {
        Error::Protocol(error)
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Error::Config(Box::new(error))
    }
}

impl From<ValueError> for Error {
    fn from(error: ValueError) -> Self {
        Error::Value(Box::new(error))
    }
}

impl From<TlsError> for Error {
    fn from(error: TlsError) -> Self {
        Error::Tls(Box::new(error))
    }
}

impl From<ServerError> for Error {
    fn from(error: ServerError) -> Self {
        Error::Server(Arc::new(error))
    }
}

/// An invalid setting. The text states where the setting is, what is wrong, and what is valid.
///
/// The text never contains a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The source of the setting: "connection string", "environment variable PGPORT", "builder".
    pub(crate) origin: String,
    /// The byte offset in the connection string.
    pub(crate) position: Option<usize>,
    /// The mistake, the limit and the remedy.
    pub(crate) message: String,
}

impl ConfigError {
    /// Returns the byte offset of the mistake in the connection string, if the setting came from one.
    pub fn position(&self) -> Option<usize> {
        self.position
    }
}

impl StdError for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(&self.origin))?;
        if let Some(position) = self.position {
            write!(f, ", byte {position}")?;
        }
        write!(f, ": {}", Escaped(&self.message))
    }
}

/// A channel name or a payload that exceeds a limit of PostgreSQL. Nothing was sent.
///
/// A name must have 1 to 63 bytes (`NAMEDATALEN - 1`), and a payload at most 7,999 bytes. Neither may contain a NUL.
/// See <https://www.postgresql.org/docs/current/sql-notify.html>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError {
    /// The complete text.
    pub(crate) message: String,
}

impl StdError for ValueError {}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(&self.message))
    }
}

/// A failed attempt to open a connection.
#[derive(Debug, Clone)]
pub struct ConnectError {
    /// The address, the user and the database, such as `db1:5432 as "app", database "shop"`.
    pub(crate) target: String,
    /// The error of the last address that was tried.
    pub(crate) cause: Error,
    /// The addresses that were tried before, each with its error.
    pub(crate) earlier: Vec<(String, Error)>,
    /// The source of the password, or the reason that there is none, if authentication failed.
    pub(crate) note: Option<String>,
}

impl ConnectError {
    /// Returns the error of the last address that was tried.
    pub fn cause(&self) -> &Error {
        &self.cause
    }

    /// Returns `true` if `is` is true for the error of any address that was tried, since any of them may succeed the
    /// next time.
    ///
    /// A refused login decides alone, because repeated attempts may lock the account. Earlier TLS errors do not count:
    /// the same address may have been tried again without encryption.
    pub(crate) fn any(&self, is: impl Fn(&Error) -> bool) -> bool {
        let counts = |error: &Error| !error.is_tls() && is(error);
        is(&self.cause) || !self.cause.is_auth() && self.earlier.iter().any(|(_, error)| counts(error))
    }
}

impl StdError for ConnectError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.cause)
    }
}

/// Formats the address and the errors of earlier addresses, and with `{:#}` also the cause.
impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {}", Escaped(&self.target))?;
        if f.alternate() {
            write!(f, ": {:#}", self.cause)?;
        }
        if let Some(note) = &self.note {
            write!(f, " ({})", Escaped(note))?;
        }
        for (address, error) in &self.earlier {
            write!(f, " (before that, {}: {error:#})", Escaped(address))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_text_is_escaped_in_every_error() {
        const HOSTILE: &str = "a\u{1b}[2J\u{9b}\u{202e}\u{2028}\r\nb";
        let server = ServerError {
            severity: HOSTILE.into(),
            code: HOSTILE.into(),
            message: HOSTILE.into(),
            detail: Some(HOSTILE.into()),
            hint: Some(HOSTILE.into()),
            was_last: false,
        };
        assert_eq!((server.message(), server.detail()), (HOSTILE, Some(HOSTILE)));
        let config = ConfigError { origin: HOSTILE.into(), position: Some(1), message: HOSTILE.into() };
        let connect = ConnectError {
            target: HOSTILE.into(),
            cause: server.clone().into(),
            earlier: vec![(HOSTILE.into(), Error::Changes(HOSTILE.into()))],
            note: Some(HOSTILE.into()),
        };
        for error in [
            server.into(),
            config.into(),
            Error::Connect(Arc::new(connect)),
            ValueError { message: HOSTILE.into() }.into(),
            TlsError::new(TlsErrorKind::Handshake, HOSTILE).into(),
            ProtocolError::Scram(HOSTILE.into()).into(),
            ProtocolError::Encoding(HOSTILE.into()).into(),
            Error::Auth(HOSTILE.into()),
            Error::io("reading", io::Error::other(HOSTILE)),
            Error::Resolve { reason: HOSTILE.into() },
            Error::Password { reason: HOSTILE.into() },
            Error::AfterConnect(Arc::new(Error::Changes(HOSTILE.into()))),
            Error::AnswerTooLong(HOSTILE.into()),
            Error::Changes(HOSTILE.into()),
            Error::Relay(HOSTILE.into()),
            Error::UnknownChannel { channel: HOSTILE.into() },
            Error::NotRelayed { channel: HOSTILE.into() },
            Error::UnknownSubscriber { channel: Some(HOSTILE.into()) },
            Error::StillRunning { channel: HOSTILE.into() },
        ] {
            let text = format!("{error:#}");
            assert!(text.contains("b") && text.chars().all(|c| !Escaped(c).is_needed()), "{text:?}");
        }
    }

    /// Returns errors with a source, each with the texts of its chain.
    fn with_sources() -> Vec<(Error, Vec<&'static str>)> {
        let server = ServerError {
            severity: "FATAL".into(),
            code: "28P01".into(),
            message: "password authentication failed".into(),
            ..ServerError::default()
        };
        let server_text = "FATAL 28P01: password authentication failed";
        let connect = |cause: Error, earlier, note: Option<&str>| {
            let target = "db1:5432".into();
            Error::Connect(Arc::new(ConnectError { target, cause, earlier, note: note.map(Into::into) }))
        };
        let io = || Error::io("connecting", io::Error::other("refused"));
        vec![
            (io(), vec!["connecting", "refused"]),
            (connect(io(), Vec::new(), None), vec!["cannot connect to db1:5432", "connecting", "refused"]),
            (
                connect(server.clone().into(), Vec::new(), Some("the password is from a file")),
                vec!["cannot connect to db1:5432 (the password is from a file)", server_text],
            ),
            (
                connect(
                    Error::Disconnected,
                    vec![("db0:5432".into(), Error::io("reading", io::Error::other("reset")))],
                    None,
                ),
                vec![
                    "cannot connect to db1:5432 (before that, db0:5432: reading: reset)",
                    "the server closed the connection unexpectedly: the backend, its host or a proxy may have terminated",
                ],
            ),
            (Error::AfterConnect(Arc::new(server.into())), vec!["the SQL of after_connect failed", server_text]),
            (Error::AfterConnect(Arc::new(io())), vec!["the SQL of after_connect failed", "connecting", "refused"]),
        ]
    }

    #[test]
    fn a_reporter_prints_each_cause_once_and_so_does_the_alternate_form() {
        for (error, texts) in with_sources() {
            let chain: Vec<_> =
                std::iter::successors(Some(&error as &(dyn StdError + 'static)), |error| (*error).source())
                    .map(ToString::to_string)
                    .collect();
            assert_eq!(chain, texts);
            for (at, text) in chain.iter().enumerate() {
                assert!(chain.iter().enumerate().all(|(other, it)| other == at || !it.contains(text)), "{chain:?}");
            }
            let line = format!("{error:#}");
            assert!(!line.contains('\n') && texts[1..].iter().all(|text| line.matches(text).count() == 1), "{line}");
        }
        let [.., (error, _)] = &with_sources()[..3] else { panic!() };
        assert_eq!(
            format!("{error:#}"),
            "cannot connect to db1:5432: FATAL 28P01: password authentication failed (the password is from a file)"
        );
    }

    #[test]
    fn an_error_without_a_source_is_complete() {
        let server = ServerError { severity: "ERROR".into(), message: "no".into(), ..ServerError::default() };
        let after = Duration::from_secs(1);
        for error in [
            ConfigError { origin: "builder".into(), position: None, message: "no".into() }.into(),
            ValueError { message: "no".into() }.into(),
            server.into(),
            ProtocolError::Injected.into(),
            TlsError::new(TlsErrorKind::Handshake, "no").into(),
            Error::Auth("no".into()),
            Error::Resolve { reason: "no".into() },
            Error::Password { reason: "no".into() },
            Error::LeftInTransaction,
            Error::Target { wanted: TargetSessionAttrs::Primary, found: "the server is a standby" },
            Error::Overflow { limit: 1 },
            Error::Timeout { action: "a call", after, closed: true },
            Error::Disconnected,
            Error::NotDelivering { after },
            Error::HeldBack { after },
            Error::Unregistered,
            Error::TooSlow { dropped: 1 },
            Error::Changes("no".into()),
            Error::Relay("no".into()),
            Error::AnswerTooLong("no".into()),
            Error::WouldDeadlock,
        ] {
            assert!(error.source().is_none() && format!("{error}") == format!("{error:#}"), "{error}");
        }
    }
}
