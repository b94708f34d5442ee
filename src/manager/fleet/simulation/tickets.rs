//! The tickets of a history, and the results that contradict what the server has answered.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::history::CALL_TIMEOUT;
use super::ledger::{Checked, Record};
use super::network::Network;
use crate::error::Error;
use crate::manager::command::{Command, RequestTicket};
use crate::manager::conn_id::ConnId;
use crate::row::Row;
use crate::ticket::{ThreadMark, Ticket};

/// A ticket, and what follows from it.
pub(super) struct OpenTicket {
    ticket: AnyTicket,
    pub(super) name: &'static str,
    pub(super) id: ConnId,
    /// The number of the request.
    number: u64,
    expected: Expected,
    /// The time of the call.
    begun: Instant,
}

enum AnyTicket {
    Done(Ticket<()>),
    Rows(Ticket<Vec<Row>>),
}

/// The consequences of a request that the history knows.
enum Expected {
    /// The session listens to these channels, unless a later request has changed that.
    Listens(Vec<String>),
    /// The session does not listen to these channels, with the same exception.
    Unlistens(Vec<String>),
    /// The server's answer to the statement with this mark, which is the number of the request.
    Answer(u64),
    /// An error of the server.
    Failure,
    Unknown,
}

/// Returns the literal that marks a statement, by which the network recognizes its answer.
pub(super) fn mark(number: u64) -> String {
    format!("m{number}")
}

/// Returns the mark of a statement.
pub(super) fn marked(query: &str) -> Option<u64> {
    query.split_once("'m")?.1.split_once('\'')?.0.parse().ok()
}

impl OpenTicket {
    /// Returns a ticket for a command, which is the request with this number.
    pub(super) fn new(
        iterating: &Arc<ThreadMark>,
        id: ConnId,
        name: &'static str,
        command: &Command,
        number: u64,
        begun: Instant,
    ) -> (RequestTicket, Self) {
        let expected = match command {
            Command::Listen(channels) => Expected::Listens(channels.clone()),
            Command::Unlisten(channels) => Expected::Unlistens(channels.clone()),
            Command::Notify(_) => Expected::Answer(number),
            Command::Query(query) if query == "FAIL" => Expected::Failure,
            Command::Query(query) => marked(query).map_or(Expected::Unknown, Expected::Answer),
            Command::UnlistenAll => Expected::Unknown,
        };
        let (request, ticket) = match command {
            Command::Query(_) => {
                let (resolver, ticket) = Ticket::new(iterating);
                (RequestTicket::Rows(resolver), AnyTicket::Rows(ticket))
            }
            _ => {
                let (resolver, ticket) = Ticket::new(iterating);
                (RequestTicket::Done(resolver), AnyTicket::Done(ticket))
            }
        };
        (request, Self { ticket, name, id, number, expected, begun })
    }

    pub(super) fn try_get(&mut self) -> Option<Result<(), Error>> {
        match &mut self.ticket {
            AnyTicket::Done(ticket) => ticket.try_get(),
            AnyTicket::Rows(ticket) => ticket.try_get().map(|rows| rows.map(drop)),
        }
    }

    /// Checks the result, of which the record takes note. `link` is the link of the connection's session.
    pub(super) fn check(
        &self,
        result: &Result<(), Error>,
        mut record: Option<&mut Record>,
        link: Option<u64>,
        removed: &BTreeSet<ConnId>,
        network: &Network,
    ) -> Checked {
        if let Some(record) = &mut record {
            record.finish(network, link, self.number);
        }
        match (&self.expected, result) {
            (Expected::Listens(channels), Ok(())) => {
                record.map_or(Ok(()), |record| record.acknowledge(network, link, channels, self.number))
            }
            (Expected::Unlistens(channels), Ok(())) => {
                record.map_or(Ok(()), |record| record.check_unlisten(network, link, channels, self.number))
            }
            (Expected::Answer(mark), Ok(())) if !network.answered.contains(mark) => {
                Err("the request is done, but its answer has not been received".into())
            }
            (Expected::Failure, Ok(())) => Err("the server has refused the request, but it is done".into()),
            (_, Ok(())) => Ok(()),
            (_, Err(error)) => self.check_error(error, removed, network),
        }
    }

    fn check_error(&self, error: &Error, removed: &BTreeSet<ConnId>, network: &Network) -> Checked {
        let is_wrong = match (&self.expected, error) {
            // A ticket that was forgotten.
            (_, Error::Stopped) => true,
            (_, Error::UnknownConnection) => !removed.contains(&self.id),
            // If the connection is closed, an earlier request may have been late.
            (_, Error::Timeout { closed: false, .. }) if network.now < self.begun + CALL_TIMEOUT => true,
            (Expected::Answer(mark), _) if network.answered.contains(mark) => true,
            // The session ended after an error, which is the reason for the loss.
            (_, Error::Server(error)) if error.was_last => false,
            (expected, error) => error.sqlstate() == Some("22012") && !matches!(expected, Expected::Failure),
        };
        if is_wrong { Err(format!("the result contradicts what has happened: {error}")) } else { Ok(()) }
    }
}
