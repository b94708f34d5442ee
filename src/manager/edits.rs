//! Changes of the channels of a connection while it is being restored.
//!
//! A LISTEN is a separate request, after those for the channels of the lost session: if the server refuses it, its
//! ticket resolves to the error, and the connection is still restored. An UNLISTEN removes the names from the requests
//! that have not been sent.

use std::collections::VecDeque;

use crate::error::Error;
use crate::manager::members::Dead;
use crate::manager::ticket::Resolver;
use crate::proto::{Ask, Reply, RequestId, Session};

/// The changes since the connection was lost.
#[derive(Default)]
pub(crate) struct Edits {
    /// LISTENs that no server has acknowledged, in the order of the calls.
    waiting: VecDeque<Listen>,
    /// The channels of those that the session of this attempt has acknowledged.
    acknowledged: Vec<Box<str>>,
    /// The tickets to resolve once the connection is restored.
    tickets: Vec<Resolver<()>>,
}

/// A LISTEN that was requested during the restore.
struct Listen {
    channels: Vec<Box<str>>,
    ticket: Resolver<()>,
    /// The id of the request in the session of this attempt.
    request: Option<RequestId>,
}

impl Edits {
    /// Adds a change, and sends it if there is a session to send it to.
    pub(crate) fn add(&mut self, ask: Ask, ticket: Resolver<()>, dead: &mut Dead, session: Option<&mut Session>) {
        if let Ask::Listen(channels) = ask {
            let request = session.map(|session| session.request(Ask::Listen(channels.clone())));
            self.waiting.push_back(Listen { channels, ticket, request });
            return;
        }
        let is_left = |name: &str| match &ask {
            Ask::Unlisten(names) => !names.iter().any(|gone| **gone == *name),
            _ => false,
        };
        self.waiting.iter_mut().for_each(|listen| listen.channels.retain(|name| is_left(name)));
        self.acknowledged.retain(|name| is_left(name));
        dead.edit(&ask);
        if let Some(session) = session {
            session.request(ask);
        }
        self.tickets.push(ticket);
    }

    /// Sends the waiting LISTENs to the session of a new attempt.
    pub(crate) fn send(&mut self, session: &mut Session) {
        for listen in &mut self.waiting {
            listen.request = Some(session.request(Ask::Listen(listen.channels.clone())));
        }
    }

    /// Takes the reply to a request; returns it if the request is not one of these, or if the session ended with it.
    pub(crate) fn take_reply(
        &mut self,
        id: RequestId,
        reply: Result<Reply, Error>,
        session: &Session,
    ) -> Option<Result<Reply, Error>> {
        // Requests are answered in order.
        let is_first = self.waiting.front().is_some_and(|listen| listen.request == Some(id));
        if !is_first || reply.is_err() && session.is_closed() {
            return Some(reply);
        }
        let listen = self.waiting.pop_front()?;
        match reply {
            Ok(_) => {
                self.acknowledged.extend(listen.channels);
                self.tickets.push(listen.ticket);
            }
            Err(error) => listen.ticket.resolve(Err(error)),
        }
        None
    }

    /// Ends an attempt: channels that its session had acknowledged are added to those of the lost connection.
    pub(crate) fn end_attempt(&mut self, dead: &mut Dead) {
        if !self.acknowledged.is_empty() {
            dead.edit(&Ask::Listen(std::mem::take(&mut self.acknowledged)));
        }
        self.waiting.iter_mut().for_each(|listen| listen.request = None);
    }

    /// Takes the tickets of a connection that is restored.
    pub(crate) fn take_tickets(&mut self) -> Vec<Resolver<()>> {
        std::mem::take(&mut self.tickets)
    }

    /// Ends the restore: every ticket resolves to the error, and every channel is added to those of the lost
    /// connection.
    pub(crate) fn fail(mut self, error: &Error, dead: &mut Dead) {
        self.end_attempt(dead);
        let waiting: Vec<Box<str>> =
            self.waiting.iter_mut().flat_map(|listen| std::mem::take(&mut listen.channels)).collect();
        if !waiting.is_empty() {
            dead.edit(&Ask::Listen(waiting));
        }
        let tickets = self.waiting.into_iter().map(|listen| listen.ticket).chain(self.tickets);
        tickets.for_each(|ticket| ticket.resolve(Err(error.clone())));
    }
}
