//! The requests of a session, and their SQL.

use std::io;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::error::ServerError;
use crate::proto::sql;
use crate::row::Row;

/// The largest number of channels in one request that restores a connection. Servers before version 19 compare each LISTEN
/// of a transaction with the ones before it, so the time grows quadratically.
pub(crate) const CHANNELS_PER_REQUEST: usize = 10_000;

/// The id of a request in its session. Ids only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(crate) u64);

/// The server's reply to a request.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) rows: Vec<Row>,
    /// The total number of rows that the statements affected.
    pub(crate) affected: u64,
}

/// A request to the server.
#[derive(Debug, Default)]
pub(crate) enum Request {
    /// SQL of the caller.
    Query(String),
    /// SQL of this crate that sends notifications.
    Notify(String),
    Listen(Vec<Box<str>>),
    Unlisten(Vec<Box<str>>),
    UnlistenAll,
    /// Reads the channels of the session, because a query may have changed them.
    ReadChannels,
    /// Reads the channels of the session, to compare them with the expected ones.
    Audit,
    /// Listens again to the channels that an audit has found missing, except those that are no longer wanted.
    Relisten(Vec<Box<str>>),
    /// Listens to the canary channel, and reads the identity of the database.
    ListenCanary(Box<str>),
    UnlistenCanary(Box<str>),
    /// Reads the usage of the NOTIFY queue, which advances its tail and so works around the server bug that makes LISTEN
    /// fail with 58P01.
    ReadQueueTail,
    /// Sets the client's encoding to SQL_ASCII, so that a database in SQL_ASCII sends all bytes unchanged. `at_login` is
    /// `true` if this completes the login.
    UseSqlAscii {
        at_login: bool,
    },
    /// Checks that the server lists the channels of a LISTEN that it answered with a warning.
    ConfirmListen(Box<ListenConfirmation>),
    /// Undoes LISTENs of which the server has truncated a name: unlistens the first channels, and listens to the second.
    UndoListen(Vec<Box<str>>, Vec<Box<str>>),
    /// Checks that the server is alive: a Sync message without SQL, answered by ReadyForQuery.
    #[default]
    Sync,
}

/// A LISTEN that succeeded with a warning, and its reply.
#[derive(Debug, Default)]
pub(crate) struct ListenConfirmation {
    pub(crate) request: Request,
    pub(crate) reply: Reply,
    pub(crate) warning: ServerError,
}

impl Request {
    /// Returns the channels that the request listens to.
    pub(crate) fn listens_to(&self) -> Option<&[Box<str>]> {
        match self {
            Request::Listen(channels) | Request::Relisten(channels) => Some(channels),
            Request::ListenCanary(channel) => Some(std::slice::from_ref(channel)),
            _ => None,
        }
    }

    /// Returns the SQL of the request, for a server with these limits of names.
    pub(crate) fn sql(&self, limits: sql::Limits) -> String {
        fn names(list: &[Box<str>]) -> impl Iterator<Item = &str> {
            list.iter().map(AsRef::as_ref)
        }
        match self {
            Request::Query(text) | Request::Notify(text) => text.clone(),
            Request::Listen(channels) | Request::Relisten(channels) => {
                sql::refuse_truncation(channels, limits) + &sql::listen(names(channels))
            }
            Request::Unlisten(channels) => sql::refuse_truncation(channels, limits) + &sql::unlisten(names(channels)),
            Request::UnlistenAll => sql::UNLISTEN_ALL.to_owned(),
            Request::ReadChannels | Request::Audit | Request::ConfirmListen(_) => sql::LISTENING_CHANNELS.to_owned(),
            Request::ListenCanary(channel) => [&sql::listen([&**channel]), sql::DATABASE_IDENTITY].join(";"),
            Request::UnlistenCanary(channel) => sql::unlisten([&**channel]),
            Request::ReadQueueTail => sql::QUEUE_USAGE.to_owned(),
            Request::UseSqlAscii { .. } => sql::SET_SQL_ASCII.to_owned(),
            Request::UndoListen(wrong, right) => [sql::unlisten(names(wrong)), sql::listen(names(right))].join(";"),
            Request::Sync => String::new(),
        }
    }

    /// Returns `true` if the server answers the request immediately, because no lock can delay it: a server that does not is
    /// as silent as one that does not answer a heartbeat.
    pub(crate) fn is_answered_immediately(&self) -> bool {
        match self {
            Request::Query(_)
            | Request::Notify(_)
            | Request::Listen(_)
            | Request::Unlisten(_)
            | Request::UnlistenAll => false,
            Request::Relisten(_)
            | Request::ReadChannels
            | Request::Audit
            | Request::ConfirmListen(_)
            | Request::ListenCanary(_)
            | Request::UnlistenCanary(_)
            | Request::ReadQueueTail
            | Request::UseSqlAscii { .. }
            | Request::UndoListen(..)
            | Request::Sync => true,
        }
    }

    /// Appends the message to `transmit`.
    pub(crate) fn encode(&self, limits: sql::Limits, transmit: &mut BytesMut) -> io::Result<()> {
        if let Request::Sync = self {
            frontend::sync(transmit);
            return Ok(());
        }
        let sql = self.sql(limits);
        // Type byte, length, text and final NUL.
        transmit.reserve(1 + 4 + sql.len() + 1);
        frontend::query(&sql, transmit)
    }
}
