//! The messages from handles to the loop.

use std::time::Duration;

use crate::config::Config;
use crate::error::{Error, ErrorWith};
use crate::manager::conn_id::ConnId;
use crate::manager::dead::Dead;
use crate::proto::{Reply, Request, sql};
use crate::row::Row;
use crate::ticket::Resolver;

/// A message to the loop, about connections of type `C`.
pub(crate) enum ControlMessage<C> {
    Insert(Box<C>, Resolver<ConnId, ErrorWith<C>>),
    Dial(Config, Vec<Box<str>>, sql::Limits, Resolver<ConnId>),
    Remove(ConnId, Resolver<C, ErrorWith<Dead>>),
    Request(ConnId, Command, RequestTicket),
    SetTimeout(Option<Duration>, Resolver<()>),
    Stop(Resolver<()>),
}

impl<C> ControlMessage<C> {
    /// Resolves the ticket of a message that will not be run.
    pub(super) fn refuse(self) {
        // The tickets of all other messages resolve when they are dropped.
        if let ControlMessage::Insert(connection, resolver) = self {
            resolver.resolve(Err(ErrorWith::new(Error::Stopped, *connection)));
        }
    }
}

/// A request by a handle.
#[derive(Debug)]
pub(crate) enum Command {
    Listen(Vec<String>),
    Unlisten(Vec<String>),
    UnlistenAll,
    Notify(Vec<(String, String)>),
    Query(String),
}

impl Command {
    /// Returns the approximate number of bytes that the request takes until it is answered.
    pub(crate) fn size(&self) -> usize {
        let strings = |strings: &[String]| strings.iter().map(|string| size_of::<String>() + string.len()).sum();
        match self {
            Command::Listen(channels) | Command::Unlisten(channels) => strings(channels),
            Command::UnlistenAll => 0,
            Command::Notify(pairs) => pairs.iter().map(|(c, p)| 2 * size_of::<String>() + c.len() + p.len()).sum(),
            Command::Query(sql) => sql.len(),
        }
    }

    /// Checks the command and converts it for the session; `None` if there is nothing to do.
    pub(crate) fn into_request(self, limits: sql::Limits) -> Result<Option<Request>, Error> {
        Ok(match self {
            Command::Listen(channels) | Command::Unlisten(channels) if channels.is_empty() => None,
            Command::Notify(pairs) if pairs.is_empty() => None,
            Command::Listen(channels) => Some(Request::Listen(sql::checked_channels(channels, limits)?)),
            Command::Unlisten(channels) => Some(Request::Unlisten(sql::checked_channels(channels, limits)?)),
            Command::UnlistenAll => Some(Request::UnlistenAll),
            Command::Notify(pairs) => Some(Request::Notify(sql::checked_notify_many(&pairs, limits)?)),
            Command::Query(sql) => Some(Request::Query(sql)),
        })
    }
}

/// The loop's end of the ticket of a request.
pub(crate) enum RequestTicket {
    /// Resolves without a value, once the server has acknowledged the request.
    Done(Resolver<()>),
    /// Resolves to the rows of the answer.
    Rows(Resolver<Vec<Row>>),
}

impl RequestTicket {
    pub(crate) fn resolve(self, result: Result<Reply, Error>) {
        match self {
            Self::Done(ticket) => ticket.resolve(result.map(drop)),
            Self::Rows(ticket) => ticket.resolve(result.map(|reply| reply.rows)),
        }
    }
}

/// Checks the arguments of a dial before anything is opened.
pub(super) fn checked_dial<C, I>(config: C, channels: I) -> Result<(Config, Vec<Box<str>>), Error>
where
    C: TryInto<Config>,
    C::Error: Into<Error>,
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let config = config.try_into().map_err(Into::into)?;
    config.startup_parameters()?;
    config.endpoints()?;
    let channels = sql::checked_channels(channels, sql::Limits::ServerDecides)?;
    Ok((config, channels))
}
