//! What handles ask of the servers, inside the loop: sent without waiting, and resolved when the server has answered.

use std::time::Instant;

use crate::clock;
use crate::error::Error;
use crate::manager::NotificationManager;
use crate::manager::members::{ConnId, Life, Member};
use crate::manager::ticket::Resolver;
use crate::manager::timers::Why;
use crate::proto::{Ask, RequestId, sql};

/// A request whose answer somebody waits for.
pub(super) struct Asked {
    ticket: Resolver<()>,
    until: Option<Instant>,
}

/// What may be asked by a handle.
#[derive(Debug)]
pub(crate) enum Wish {
    Listen(Vec<String>),
    Unlisten(Vec<String>),
    UnlistenAll,
    Notify(Vec<(String, String)>),
}

impl Wish {
    /// How many bytes it takes until it is answered, about.
    pub(crate) fn size(&self) -> usize {
        let texts = |texts: &[String]| texts.iter().map(|text| size_of::<String>() + text.len()).sum();
        match self {
            Wish::Listen(channels) | Wish::Unlisten(channels) => texts(channels),
            Wish::UnlistenAll => 0,
            Wish::Notify(pairs) => pairs.iter().map(|(c, p)| 2 * size_of::<String>() + c.len() + p.len()).sum(),
        }
    }

    /// Checked, and as the protocol has it; nothing where there is nothing to do.
    fn into_ask(self, limits: sql::Limits) -> Result<Option<Ask>, Error> {
        Ok(match self {
            Wish::Listen(channels) if channels.is_empty() => None,
            Wish::Unlisten(channels) if channels.is_empty() => None,
            Wish::Notify(pairs) if pairs.is_empty() => None,
            Wish::Listen(channels) => Some(Ask::Listen(sql::checked_channels(channels, limits)?)),
            Wish::Unlisten(channels) => Some(Ask::Unlisten(sql::checked_channels(channels, limits)?)),
            Wish::UnlistenAll => Some(Ask::UnlistenAll),
            Wish::Notify(pairs) => Some(Ask::Notify(sql::checked_notify_many(&pairs, limits)?)),
        })
    }
}

impl NotificationManager {
    /// Asks a server for something, on behalf of a handle.
    pub(super) fn ask(&mut self, id: ConnId, wish: Wish, ticket: Resolver<()>) {
        let Some(token) = self.members.token(id) else {
            let dead = self.members.garbage().iter().find(|(dead, _)| *dead == id);
            return ticket.resolve(Err(dead.map_or(Error::UnknownConnection, |(_, dead)| dead.error().clone())));
        };
        let Some(member) = self.members.get_mut(token) else { return };
        let limits = match &member.life {
            Life::Good(connection) => connection.session.limits(),
            Life::Restoring(restore) => restore.dead().limits(),
        };
        let ask = match wish.into_ask(limits) {
            Ok(Some(ask)) => ask,
            Ok(None) => return ticket.resolve(Ok(())),
            Err(error) => return ticket.resolve(Err(error)),
        };
        match &mut member.life {
            Life::Good(connection) => {
                let request = connection.session.request(ask);
                connection.transmit();
                // Not the turn's time, which a slow body may have left far behind.
                let until = connection.call_timeout().and_then(|timeout| clock::now().checked_add(timeout));
                self.asked.insert((id, request), Asked { ticket, until });
                self.set_timer(token, Why::Look, until);
                // To send what is left, and where the session has ended meanwhile to say so.
                self.queue(token);
            }
            Life::Restoring(restore) if matches!(ask, Ask::Notify(_)) => {
                ticket.resolve(Err(restore.dead().error().clone()));
            }
            Life::Restoring(restore) => restore.edit(ask, ticket),
        }
    }

    /// Resolves what has been answered, and closes a connection that has not answered in time.
    pub(super) fn settle(&mut self, token: u32) {
        let Some(member) = self.members.get_mut(token) else { return };
        let Member { id, life: Life::Good(connection), .. } = member else { return };
        let id = *id;
        let of_this = (id, RequestId::FIRST)..=(id, RequestId::LAST);
        let (mut answered, mut next) = (Vec::new(), None);
        // They are answered in the order in which they were asked.
        for ((_, request), asked) in self.asked.range(of_this) {
            if let Some(reply) = connection.session.take_reply(*request) {
                answered.push((*request, reply.map(drop)));
                continue;
            }
            next = asked.until;
            if next.is_some_and(|until| until <= self.now) {
                let after = connection.call_timeout().unwrap_or_default();
                connection.close_for(Error::Timeout { action: "a request by the handle", after, closed: true });
            }
            break;
        }
        self.set_timer(token, Why::Look, next);
        for (request, result) in answered {
            if let Some(asked) = self.asked.remove(&(id, request)) {
                asked.ticket.resolve(result);
            }
        }
    }

    /// Nobody will answer any more: the connection was taken out.
    pub(super) fn forget_asked(&mut self, id: ConnId) {
        let of_this = (id, RequestId::FIRST)..=(id, RequestId::LAST);
        let asked: Vec<_> = self.asked.range(of_this).map(|(key, _)| *key).collect();
        for asked in asked.iter().filter_map(|key| self.asked.remove(key)) {
            asked.ticket.resolve(Err(Error::UnknownConnection));
        }
    }
}
