//! The texts of errors.

use std::fmt::{self, Display};

use crate::error::{Error, Escaped};

/// Formats the error as one line; `{:#}` with the texts of its sources.
impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // These add nothing to the error that they contain.
            Error::Config(error) => error.fmt(f),
            Error::Value(error) => error.fmt(f),
            Error::Connect(error) => error.fmt(f),
            Error::Server(error) => error.fmt(f),
            Error::Protocol(error) => error.fmt(f),
            Error::Tls(error) => error.fmt(f),
            Error::AnswerTooLong(text) | Error::Changes(text) | Error::Relay(text) => Escaped(text).fmt(f),

            Error::Io { action, error } => with_source(f, action, Escaped(error)),
            Error::AfterConnect(error) => with_source(f, "the SQL of after_connect failed", error),

            Error::Auth(reason) => write!(f, "login refused by the client: {}", Escaped(reason)),
            Error::Resolve { reason } => write!(f, "could not resolve the host name: {}", Escaped(reason)),
            Error::Password { reason } => write!(f, "could not obtain the password: {}", Escaped(reason)),
            Error::LeftInTransaction => f.write_str(
                "the SQL of after_connect left a transaction open, in which the server delivers no notifications: end \
                 it with COMMIT or ROLLBACK",
            ),
            Error::Target { wanted, found } => {
                write!(f, "{found}, which does not satisfy target_session_attrs={wanted}")
            }
            Error::Overflow { limit } => write!(
                f,
                "received more than {limit} bytes of notifications during one call: iterate the connection before the \
                 call, or add it to a manager, which delivers notifications as they arrive"
            ),
            Error::Timeout { action, after, closed } => {
                let state = if *closed { "not open" } else { "still open" };
                write!(f, "{action} took longer than {after:?}; the connection is {state}")
            }
            Error::Disconnected => f.write_str(
                "the server closed the connection unexpectedly: the backend, its host or a proxy may have terminated",
            ),
            Error::NotDelivering { after } => write!(
                f,
                "the server accepts LISTEN on this connection but delivers no notifications: a canary sent {after:?} \
                 ago has not arrived; a connection pooler must be in session mode, or must be bypassed"
            ),
            Error::HeldBack { after } => write!(
                f,
                "a proxy holds notifications back while this connection is idle: two canaries in a row, the last sent \
                 {after:?} ago, arrived only with the answer to a query; connect to the server directly, or replace \
                 the proxy"
            ),
            Error::Unregistered => f.write_str(
                "the server no longer listed channels that this connection listens to: a function may have run \
                 UNLISTEN or DISCARD, or a connection pooler may have given the server session to another client",
            ),
            Error::TooSlow { dropped } => write!(
                f,
                "the program was too slow for the stream of the manager, whose limit was reached: {dropped} \
                 notifications were received and dropped"
            ),
            Error::Closed => f.write_str("the connection was closed by this program"),
            Error::Unopened => f.write_str("the connection has not been opened yet"),
            Error::UnknownConnection => {
                f.write_str("the manager has no connection with this id: it was removed, or belongs to another manager")
            }
            Error::Stopped => f.write_str("the notification manager has stopped"),
            Error::UnknownChannel { channel } => {
                write!(f, "the notifier has no channel {channel:?}: add it, or subscribe to it, first")
            }
            Error::UnknownSubscriber { channel } => {
                f.write_str("the notifier has no subscriber with this id")?;
                if let Some(channel) = channel {
                    write!(f, " on channel {channel:?}")?;
                }
                f.write_str(": subscribe it first")
            }
            Error::NotRunning => f.write_str(
                "the notifier is not running: start it first, or disable autorun to record changes until it is started",
            ),
            Error::InsideCallback { instead } => {
                write!(f, "this call blocks, and inside a callback it would never return: {instead}")
            }
            Error::AlreadySubscribed { channel } => write!(
                f,
                "the subscriber has a callback for channel {channel:?} already: unsubscribe it first, or use another id"
            ),
            Error::NotListening { channel } => write!(
                f,
                "the connection does not listen to {channel:?}: listen first, or name the channel when it is dialled"
            ),
            // The channel of table changes: see `changes::CHANNEL`.
            Error::NotRelayed { channel } if &**channel == "notifyman" => f.write_str(
                "the changes of tables are not relayed: start all relays of the database with --changes, or receive them from the \
                 database itself",
            ),
            Error::NotRelayed { channel } => write!(
                f,
                "channel {channel:?} is not relayed: add it to the channels of all relays of the database, or receive it \
                 from the database itself"
            ),
            Error::NoDatabase { action, instead } => {
                write!(
                    f,
                    "cannot {action}: a source is in the place of the database, so there is no session; {instead}"
                )
            }
            Error::InsideFence => f.write_str(
                "this call would deadlock inside a closure of the same thread's fence: everything on the channel was \
                 forgotten instead; make the call after the closure has returned",
            ),
            Error::StillRunning { channel } => write!(
                f,
                "the notifier was stopped, but its callback for channel {channel:?} is still running: wait for it to \
                 return"
            ),
            Error::Backlog { pairs } => write!(
                f,
                "{pairs} notifications are waiting to be sent, which is the limit: the server is slower than the senders"
            ),
            Error::TooManyRequests { limit } => write!(
                f,
                "unanswered requests of the manager's handles exceed {limit} bytes: wait for tickets before making more \
                 requests"
            ),
            Error::TicketSpent => f.write_str("the result of this ticket has already been taken"),
            Error::Cancelling => f.write_str(
                "a late request of a handle is being cancelled: iterate the manager, and repeat the call after its \
                 ticket has resolved",
            ),
            Error::WouldDeadlock => f.write_str(
                "waiting for a ticket on the thread that must resolve it would never return: iterate the manager, or \
                 return from the callback, instead",
            ),
        }
    }
}

/// Formats an error, and its source only with `{:#}`.
fn with_source(f: &mut fmt::Formatter<'_>, text: &str, source: impl Display) -> fmt::Result {
    f.write_str(text)?;
    if f.alternate() { write!(f, ": {source:#}") } else { Ok(()) }
}
