//! What can go wrong, said once and in full.
//!
//! An [`Error`]'s text is complete: it names the cause, the place, the limit and what to do, on one line, and
//! [`source`](std::error::Error::source) adds nothing to it, so that a cause is never printed twice. External text is
//! [`Escaped`] in it.

mod escaped;
mod tls;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use self::escaped::Escaped;
pub use self::tls::{TlsError, TlsErrorKind};
use crate::config::TargetSessionAttrs;

/// Everything that a call or a connection can fail with.
///
/// Errors are cheap to clone: the one that ended a connection is told by the event, by the garbage and by the
/// connection itself. A caller's mistakes ([`is_usage`](Self::is_usage)) and a peer's
/// ([`is_protocol`](Self::is_protocol)) are different variants.
///
/// ```
/// use notifyman::{Config, Error};
///
/// let error: Error = "host=db port=70000".parse::<Config>().unwrap_err();
/// assert!(error.is_usage());
/// assert!(error.to_string().contains("port"));
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A connection string, an environment variable or a builder's value that can't be used.
    #[error("{0}")]
    Config(Box<ConfigError>),
    /// A channel name or a payload that PostgreSQL would refuse, or silently cut.
    #[error("{0}")]
    Value(Box<ValueError>),
    /// A connection that couldn't be opened: where, as whom, and why.
    #[error("{0}")]
    Connect(Arc<ConnectError>),
    /// What the server reported.
    #[error("{0}")]
    Server(Arc<ServerError>),
    /// The peer doesn't speak the protocol, or cheats.
    #[error("{0}")]
    Protocol(ProtocolError),
    /// The login can't be done, or isn't allowed by `require_auth` or `channel_binding`.
    #[error("login refused by the client: {}", Escaped(.0))]
    Auth(Box<str>),
    /// The connection couldn't be encrypted, or not with whom it should be.
    #[error("{0}")]
    Tls(Box<TlsError>),
    /// The operating system refused: what was being done, and its reason.
    #[error("{action}: {}", Escaped(.error))]
    Io {
        /// What was being done, such as "reading from the server".
        action: &'static str,
        /// The system's reason.
        error: Arc<io::Error>,
    },
    /// A host's name couldn't be looked up.
    #[error("could not resolve the host name: {}", Escaped(.reason))]
    Resolve {
        /// The system's reason.
        reason: Box<str>,
    },
    /// The server isn't what `target_session_attrs` asks for.
    #[error("{found}, which is not what target_session_attrs={wanted} asks for")]
    Target {
        /// What was asked for.
        wanted: TargetSessionAttrs,
        /// What the server is instead, such as "the server is a standby".
        found: &'static str,
    },
    /// The server sent more notifications during one call than can be kept.
    #[error(
        "more than {limit} bytes of notifications came during one call: iterate the connection before you call, \
         or keep it in a manager, so that they are taken as they come"
    )]
    Overflow {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A call or a dial took longer than it may.
    #[error(
        "{action} took longer than {after:?}; the connection is {}",
        if *.closed { "closed" } else { "still good" }
    )]
    Timeout {
        /// What was waited for.
        action: &'static str,
        /// The limit.
        after: Duration,
        /// Whether the connection was given up for it.
        closed: bool,
    },
    /// The server's end closed the connection without a word.
    #[error("the server closed the connection without a word: its process, its host or a proxy between has gone")]
    Disconnected,
    /// The server answers, and delivers nothing: a manager's canary didn't come, though the server said that it listens;
    /// or the server had twice in a row forgotten that it was to listen.
    #[error(
        "the server takes LISTEN on this connection and delivers nothing: a canary that was sent {after:?} ago hasn't \
         come; if there is a pooler between, it must be in session mode, or be gone round"
    )]
    Deaf {
        /// How long ago it was sent.
        after: Duration,
    },
    /// Notifications reach this connection only together with the answer to a request: a proxy holds them back while
    /// the connection is idle. A manager reports this after two such canaries in a row.
    #[error(
        "a proxy holds notifications back while this connection is idle: two canaries in a row, the last sent {after:?} \
         ago, arrived only with the answer to a query; connect to the server directly, or replace the proxy"
    )]
    HeldBack {
        /// The time since the last canary was sent.
        after: Duration,
    },
    /// The server had forgotten channels that it had been told to listen to, as a manager's audit found. It listens to
    /// them again; this is the cause of a gap, and ends no connection.
    #[error(
        "the server had forgotten channels that this connection listens to; something ran UNLISTEN or DISCARD in a \
         function, or a pooler between has given the session to others"
    )]
    Unregistered,
    /// The connection was closed by this program.
    #[error("the connection was closed by this program")]
    Closed,
    /// The connection is being opened by its manager for the first time.
    #[error("the connection has not been opened yet")]
    Unopened,
    /// An id that names no connection in this manager: it was taken out, or never was.
    #[error("no connection of this id is in the manager: it was taken out, or is another manager's")]
    UnknownConnection,
    /// The manager stopped, or was dropped, before it came to this.
    #[error("the notification manager has stopped")]
    Stopped,
    /// The notifier has no such channel: nobody added it, and nobody subscribes to it.
    #[error("no channel {channel:?} is here: add it, or subscribe to it, first")]
    UnknownChannel {
        /// Its name.
        channel: Box<str>,
    },
    /// The notifier has no subscriber of this id, or not on this channel.
    #[error(
        "no subscriber of this id is here{}: subscribe it first",
        .channel.as_ref().map(|channel| format!(" on channel {channel:?}")).unwrap_or_default()
    )]
    UnknownSubscriber {
        /// The channel, where one was named.
        channel: Option<Box<str>>,
    },
    /// The notifier isn't running.
    #[error(
        "the notifier isn't running: start it first, or turn autorun off, and what changes is recorded until it starts"
    )]
    NotRunning,
    /// A call that has to wait was made inside a callback of the same notifier.
    #[error("this call waits, and inside a callback that would never end: {instead}")]
    InsideCallback {
        /// What can be called instead.
        instead: &'static str,
    },
    /// A callback hasn't returned since the notifier was stopped.
    #[error(
        "the notifier was stopped, but its callback for channel {channel:?} is still running: wait for it to return"
    )]
    StillRunning {
        /// The callback's channel.
        channel: Box<str>,
    },
    /// More is waiting to be sent than is kept.
    #[error(
        "{pairs} notifications are waiting to be sent, and no more are kept: the server is slower than the senders"
    )]
    Backlog {
        /// How many wait.
        pairs: usize,
    },
    /// Handles have asked a manager for more than is kept until it is answered. Nothing was sent.
    #[error(
        "requests of over {limit} bytes wait for the manager and its servers, and more are not kept: wait for tickets \
         before asking for more"
    )]
    TooManyRequests {
        /// The limit, in bytes, over all handles of the manager.
        limit: usize,
    },
    /// A ticket's result has been given already.
    #[error("this ticket's result has been given already, and is given once")]
    TicketSpent,
    /// The answer to a query is longer than is kept. The query was carried out all the same.
    #[error("{}", Escaped(.0))]
    AnswerTooLong(Box<str>),
    /// What can't be done to, or with, the table changes of a database: why, and what to do.
    #[error("{}", Escaped(.0))]
    Changes(Box<str>),
    /// A ticket was waited for on the thread that must resolve it: the one that iterates the manager, or one of the
    /// notifier's, which call its callbacks.
    #[error(
        "waiting for a ticket on the thread that must resolve it would never end: iterate the manager, or return from \
         the callback, instead"
    )]
    WouldDeadlock,
}

impl Error {
    /// Whether the caller gave something that can't be: nothing was sent, and the connection is as it was.
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
                | Error::TicketSpent
                | Error::WouldDeadlock
        )
    }

    /// Whether the peer broke the protocol.
    pub fn is_protocol(&self) -> bool {
        match self {
            Error::Protocol(_) => true,
            Error::Connect(e) => e.cause.is_protocol(),
            _ => false,
        }
    }

    /// Whether a time limit ran out.
    pub fn is_timeout(&self) -> bool {
        match self {
            Error::Timeout { .. } => true,
            Error::Connect(e) => e.cause.is_timeout(),
            _ => false,
        }
    }

    /// Whether the login failed: a wrong password, an unknown role, or a method that isn't allowed.
    pub fn is_auth(&self) -> bool {
        match self {
            Error::Auth(_) => true,
            Error::Server(e) => e.code().starts_with("28"),
            Error::Connect(e) => e.cause.is_auth(),
            _ => false,
        }
    }

    /// Whether it is about TLS: the server has none, its certificate isn't good, or a file of ours isn't.
    pub fn is_tls(&self) -> bool {
        self.tls().is_some()
    }

    /// Whether the same dial or call may well succeed later, with nothing changed on our side.
    ///
    /// True for a peer that can't be reached, went away or delivers nothing, for a time limit, for a server that isn't
    /// what `target_session_attrs` asks for (which changes with a failover), for too many requests at once, and for
    /// SQLSTATEs of the classes 08 (connection), 40 (rolled back), 53 (resources), 57 (operator intervention, such as
    /// starting up and shutting down) and 58 (system), and for an error of any class with which the connection ended;
    /// in TLS for a handshake that was interrupted, and for a server's certificate that has expired, which its operator
    /// renews; false for any other fault of a certificate, for a wrong password, an unknown database, a caller's
    /// mistake and a peer that violates the protocol. Where several addresses were tried, one transient failure is
    /// enough, unless the last refused the login.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Io { .. } | Error::Resolve { .. } | Error::Timeout { .. } | Error::Disconnected => true,
            // A standby may be promoted, and a primary come back as a standby.
            Error::Target { .. } => true,
            Error::Deaf { .. } | Error::HeldBack { .. } | Error::Unregistered => true,
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

    /// What the server reported, where the server reported something.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Error::Server(e) => Some(e),
            Error::Connect(e) => e.cause.server(),
            _ => None,
        }
    }

    /// What was wrong with TLS, where that is why.
    pub fn tls(&self) -> Option<&TlsError> {
        match self {
            Error::Tls(e) => Some(e),
            Error::Connect(e) => e.cause.tls(),
            _ => None,
        }
    }

    /// The server's SQLSTATE, five characters, where the server reported one.
    ///
    /// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
    pub fn sqlstate(&self) -> Option<&str> {
        self.server().map(ServerError::code).filter(|code| !code.is_empty())
    }

    pub(crate) fn io(action: &'static str, error: io::Error) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
            return tls.clone().into();
        }
        Error::Io { action, error: Arc::new(error) }
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

/// A connection setting that can't be used: where it stands, what is wrong, and what would be right.
///
/// Its text never holds a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the setting came from: "connection string", "environment variable PGPORT", "builder".
    pub(crate) origin: String,
    /// The byte of the connection string at which it stands, from 0.
    pub(crate) position: Option<usize>,
    /// What is wrong, the limit, and what to do.
    pub(crate) message: String,
}

impl ConfigError {
    /// The byte of the connection string at which the fault stands, from 0, where there is a string.
    pub fn position(&self) -> Option<usize> {
        self.position
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(&self.origin))?;
        if let Some(position) = self.position {
            write!(f, ", byte {position}")?;
        }
        write!(f, ": {}", Escaped(&self.message))
    }
}

/// A channel name or a payload that breaks one of PostgreSQL's limits; nothing was sent.
///
/// The limits: a name is 1 to 63 bytes (NAMEDATALEN - 1), a payload 0 to 7,999 bytes
/// (<https://www.postgresql.org/docs/current/sql-notify.html>), neither may hold a NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError {
    /// The whole text, ready to print.
    pub(crate) message: String,
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(&self.message))
    }
}

/// A connection that couldn't be opened.
#[derive(Debug, Clone)]
pub struct ConnectError {
    /// Where and as whom, such as `db1:5432 as "app", database "shop"`.
    pub(crate) target: String,
    /// Why the last address tried failed.
    pub(crate) cause: Error,
    /// Addresses that failed before it, each with its reason.
    pub(crate) earlier: Vec<(String, Error)>,
    /// Where the password came from, or why it didn't, if the login failed.
    pub(crate) note: Option<String>,
}

impl ConnectError {
    /// Why: the error of the last address that was tried.
    pub fn cause(&self) -> &Error {
        &self.cause
    }

    /// Whether this is true of an address that was tried: any of them may be the good one next time. But a refused login
    /// decides for all, since whoever tries that again may lock the account; and what failed in TLS before may have been
    /// tried in clear at the same address.
    pub(crate) fn any(&self, is: impl Fn(&Error) -> bool) -> bool {
        let counts = |error: &Error| !error.is_tls() && is(error);
        is(&self.cause) || !self.cause.is_auth() && self.earlier.iter().any(|(_, error)| counts(error))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {}: {}", Escaped(&self.target), self.cause)?;
        if let Some(note) = &self.note {
            write!(f, " ({})", Escaped(note))?;
        }
        for (address, error) in &self.earlier {
            write!(f, " (before that, {}: {error})", Escaped(address))?;
        }
        Ok(())
    }
}

/// What a server said with an ErrorResponse or a NoticeResponse.
///
/// <https://www.postgresql.org/docs/current/protocol-error-fields.html>
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerError {
    pub(crate) severity: String,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    /// Set if the connection ended before the server sent anything more.
    pub(crate) was_last: bool,
}

impl ServerError {
    /// Returns how much is held of what the server said.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn held_bytes(&self) -> usize {
        let optional = [&self.detail, &self.hint].into_iter().flatten().map(String::len);
        self.severity.len() + self.code.len() + self.message.len() + optional.sum::<usize>()
    }

    /// `ERROR`, `FATAL`, `PANIC`, or for a notice `WARNING`, `NOTICE`, `DEBUG`, `INFO`, `LOG`; never translated.
    pub fn severity(&self) -> &str {
        &self.severity
    }

    /// The SQLSTATE, such as `42501`; empty if the server sent none, for example because it could not start a process.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The message, in the server's language and unescaped: it may contain line breaks and control characters.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The detail, if the server sent one; unescaped.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The hint, if the server sent one; unescaped. If a standby refuses a LISTEN without a hint, this crate adds one.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns `true` if the session ended with this error: by its severity, or because the connection broke before the
    /// server sent more.
    pub fn is_fatal(&self) -> bool {
        self.was_last || matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

/// Formats the error as one line, with control characters [`Escaped`].
impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, code, message, detail, hint, was_last } = self;
        let space = if code.is_empty() { "" } else { " " };
        write!(f, "{}{space}{}: {}", Escaped(severity), Escaped(code), Escaped(message))?;
        if let Some(detail) = detail {
            write!(f, "; {}", Escaped(detail))?;
        }
        if let Some(hint) = hint {
            write!(f, "; hint: {}", Escaped(hint))?;
        }
        if *was_last {
            f.write_str("; the connection ended with this error")?;
        }
        Ok(())
    }
}

/// How the peer broke the protocol. The connection is closed for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A length field outside what this type of message can have.
    #[error(
        "the peer sent a {message} of {length} bytes, allowed are {min} to {max}: \
         it is not a PostgreSQL server, or the stream is damaged"
    )]
    Length {
        /// The message's name in PostgreSQL's documentation.
        message: &'static str,
        /// What the length field said.
        length: i64,
        /// The least it can be.
        min: u32,
        /// The most that is accepted.
        max: u32,
    },
    /// A type byte that no server sends to this client.
    #[error(
        "the peer sent a message of unknown type {0:#04x}: it is not a PostgreSQL server, or the stream is damaged"
    )]
    UnknownType(u8),
    /// A message that can't come at this point.
    #[error("the peer sent {message} {when}, where the protocol doesn't allow it")]
    Unexpected {
        /// The message's name in PostgreSQL's documentation.
        message: &'static str,
        /// In which state.
        when: &'static str,
    },
    /// A message whose inside doesn't match its type.
    #[error("the peer sent a damaged {message}: {reason}")]
    Malformed {
        /// The message's name in PostgreSQL's documentation.
        message: &'static str,
        /// What doesn't match.
        reason: &'static str,
    },
    /// Bytes in clear behind the server's agreement to go on in TLS.
    #[error(
        "the peer sent bytes in clear behind its agreement to go on in TLS: it is not a PostgreSQL server, or somebody \
         between slips in what the server never said"
    )]
    Injected,
    /// The server couldn't prove that it knows the password, or changed the exchange.
    #[error("the SCRAM exchange failed: {}; another host may be impersonating the server", Escaped(.0))]
    Scram(Box<str>),
    /// The server changed `client_encoding`, which quoting relies on.
    #[error("the server changed client_encoding to {0:?}; only UTF8 is safe here")]
    Encoding(Box<str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_others_stays_in_one_line_and_controls_no_terminal() {
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
            Error::AnswerTooLong(HOSTILE.into()),
            Error::Changes(HOSTILE.into()),
            Error::UnknownChannel { channel: HOSTILE.into() },
            Error::UnknownSubscriber { channel: Some(HOSTILE.into()) },
            Error::StillRunning { channel: HOSTILE.into() },
        ] {
            let text = error.to_string();
            assert!(text.contains("b") && text.chars().all(|c| !Escaped(c).is_needed()), "{text:?}");
        }
    }
}
