//! Changes of the channels of a connection while it is being restored.
//!
//! A LISTEN is a separate request, after those for the channels of the lost session: if the server refuses it, its
//! ticket resolves to the error, and the connection is still restored. An UNLISTEN removes the names from the requests
//! that have not been sent. There may be many changes of many channels, so none looks through the channels of another:
//! which channels of a LISTEN are still wanted is computed when they are needed.

use std::collections::{HashMap, VecDeque};

use crate::connection::{Link, Transport};
use crate::error::Error;
use crate::manager::dead::Dead;
use crate::proto::{Reply, Request, RequestId};
use crate::ticket::Resolver;

/// The changes since the connection was lost.
#[derive(Default)]
pub(super) struct Edits {
    /// LISTENs that no server has acknowledged, in the order of the calls.
    waiting: VecDeque<WaitingListen>,
    /// The channels of those that the session of this attempt has acknowledged, with the numbers of the LISTENs.
    acknowledged: Vec<(u64, Vec<Box<str>>)>,
    /// The tickets to resolve once the connection is restored.
    tickets: Vec<Resolver<()>>,
    unlistens: Unlistens,
    /// The number of the last change.
    last: u64,
}

/// The UNLISTENs since there has been a LISTEN that they may affect.
#[derive(Default)]
struct Unlistens {
    /// The number of the last UNLISTEN of each channel.
    named: HashMap<Box<str>, u64>,
    /// The number of the last UNLISTEN of all channels.
    all: u64,
}

impl Unlistens {
    /// Returns the channels of a LISTEN that no later UNLISTEN has taken back.
    fn left(&self, number: u64, channels: impl IntoIterator<Item = Box<str>>) -> Vec<Box<str>> {
        let is_left = |name: &str| self.all < number && self.named.get(name).is_none_or(|unlisten| *unlisten < number);
        channels.into_iter().filter(|name| is_left(name)).collect()
    }
}

/// A LISTEN that was requested during the restore.
struct WaitingListen {
    /// Its place among the changes.
    number: u64,
    channels: Vec<Box<str>>,
    ticket: Resolver<()>,
    /// The id of the request in the session of this attempt.
    request: Option<RequestId>,
}

impl Edits {
    /// Adds a change, and requests it if there is a session.
    pub(super) fn add<S: Transport>(
        &mut self,
        request: Request,
        ticket: Resolver<()>,
        dead: &mut Dead,
        link: Option<&mut Link<S>>,
    ) {
        self.last += 1;
        let number = self.last;
        if let Request::Listen(channels) = request {
            let request = link.map(|link| link.request(Request::Listen(channels.clone())));
            self.waiting.push_back(WaitingListen { number, channels, ticket, request });
            return;
        }
        let Unlistens { named, all } = &mut self.unlistens;
        match &request {
            Request::Unlisten(_) if self.waiting.is_empty() && self.acknowledged.is_empty() => named.clear(),
            Request::Unlisten(names) => named.extend(names.iter().map(|name| (name.clone(), number))),
            _ => (*named, *all) = (HashMap::new(), number),
        }
        dead.edit(&request);
        if let Some(link) = link {
            link.request(request);
        }
        self.tickets.push(ticket);
    }

    /// Returns the channels of all LISTENs that have not been taken back.
    pub(super) fn channels(&self) -> Vec<Box<str>> {
        let waiting = self.waiting.iter().map(|listen| (listen.number, &listen.channels));
        let acknowledged = self.acknowledged.iter().map(|(number, channels)| (*number, channels));
        let all = waiting.chain(acknowledged);
        all.flat_map(|(number, channels)| self.unlistens.left(number, channels.iter().cloned())).collect()
    }

    /// Requests the waiting LISTENs in the session of a new attempt.
    pub(super) fn request<S: Transport>(&mut self, link: &mut Link<S>) {
        for listen in &mut self.waiting {
            listen.channels = self.unlistens.left(listen.number, std::mem::take(&mut listen.channels));
            listen.request = Some(link.request(Request::Listen(listen.channels.clone())));
        }
    }

    /// Takes the reply to a request; returns it if the request is not one of these, or if the session ended with it.
    pub(super) fn take_reply(
        &mut self,
        id: RequestId,
        reply: Result<Reply, Error>,
        is_closed: bool,
    ) -> Option<Result<Reply, Error>> {
        // Requests are answered in order.
        let is_first = self.waiting.front().is_some_and(|listen| listen.request == Some(id));
        if !is_first || reply.is_err() && is_closed {
            return Some(reply);
        }
        let listen = self.waiting.pop_front()?;
        match reply {
            Ok(_) => {
                self.acknowledged.push((listen.number, listen.channels));
                self.tickets.push(listen.ticket);
            }
            Err(error) => listen.ticket.resolve(Err(error)),
        }
        None
    }

    /// Ends an attempt: channels that its session had acknowledged are added to those of the lost connection.
    pub(super) fn end_attempt(&mut self, dead: &mut Dead) {
        let acknowledged = std::mem::take(&mut self.acknowledged).into_iter();
        let acknowledged = acknowledged.flat_map(|(number, channels)| self.unlistens.left(number, channels));
        let acknowledged: Vec<Box<str>> = acknowledged.collect();
        if !acknowledged.is_empty() {
            dead.edit(&Request::Listen(acknowledged));
        }
        self.waiting.iter_mut().for_each(|listen| listen.request = None);
    }

    /// Takes the tickets of a connection that is restored.
    pub(super) fn take_tickets(&mut self) -> Vec<Resolver<()>> {
        std::mem::take(&mut self.tickets)
    }

    /// Ends the restore: every ticket resolves to the error, and every channel is added to those of the lost
    /// connection.
    pub(super) fn fail(mut self, error: &Error, dead: &mut Dead) {
        self.end_attempt(dead);
        let waiting = self.waiting.iter_mut().map(|listen| (listen.number, std::mem::take(&mut listen.channels)));
        let waiting: Vec<Box<str>> =
            waiting.flat_map(|(number, channels)| self.unlistens.left(number, channels)).collect();
        if !waiting.is_empty() {
            dead.edit(&Request::Listen(waiting));
        }
        let tickets = self.waiting.into_iter().map(|listen| listen.ticket).chain(self.tickets);
        tickets.for_each(|ticket| ticket.resolve(Err(error.clone())));
    }
}

/// Shows how much is outstanding, without the names of channels.
impl std::fmt::Debug for Edits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (listens, others) = (self.waiting.len(), self.tickets.len());
        write!(f, "{listens} LISTENs waiting, {} tickets unresolved", listens + others)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::Config;
    use crate::net::Stream;
    use crate::proto::sql::Limits;

    const NO_LINK: Option<&mut Link<Stream>> = None;

    fn dead(channels: &[Box<str>]) -> Dead {
        Dead::unopened(Config::new().user("u"), channels.to_vec(), Limits::Exact, Instant::now())
    }

    fn names(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    fn ticket() -> Resolver<()> {
        Resolver::call(drop)
    }

    #[test]
    fn m13_each_unlisten_takes_back_the_listens_before_it_and_none_after_it() {
        let mut dead = dead(&names(&["old", "older"]));
        let mut edits = Edits::default();
        for request in [
            Request::Listen(names(&["a", "b", "c"])),
            Request::Unlisten(names(&["a", "old"])),
            Request::Listen(names(&["a"])),
            Request::Unlisten(names(&["b"])),
        ] {
            edits.add(request, ticket(), &mut dead, NO_LINK);
        }
        assert_eq!(dead.channels(), &*names(&["older"]));
        edits.fail(&Error::Disconnected, &mut dead);
        assert_eq!(dead.channels(), &*names(&["a", "c", "older"]));
    }

    #[test]
    fn m13_unlisten_of_all_takes_back_every_listen_before_it() {
        let mut dead = dead(&names(&["old"]));
        let mut edits = Edits::default();
        for request in [Request::Listen(names(&["a", "b"])), Request::UnlistenAll, Request::Listen(names(&["b", "c"]))]
        {
            edits.add(request, ticket(), &mut dead, NO_LINK);
        }
        edits.add(Request::Unlisten(names(&["c"])), ticket(), &mut dead, NO_LINK);
        edits.fail(&Error::Disconnected, &mut dead);
        assert_eq!(dead.channels(), &*names(&["b"]));
    }

    /// If each change looked through all channels, this would take minutes.
    #[test]
    fn m13_a_change_of_one_channel_among_many_costs_no_look_at_the_others() {
        let begun = Instant::now();
        let all: Vec<Box<str>> = (0..100_000).map(|number| format!("channel_{number}").into()).collect();
        let mut dead = dead(&all);
        let mut edits = Edits::default();
        edits.add(Request::Listen(all.clone()), ticket(), &mut dead, NO_LINK);
        for name in all.iter().take(5_000) {
            edits.add(Request::Unlisten(vec![name.clone()]), ticket(), &mut dead, NO_LINK);
        }
        edits.add(Request::Unlisten(all.iter().skip(10_000).cloned().collect()), ticket(), &mut dead, NO_LINK);
        assert_eq!(dead.channels().len(), 5_000);
        edits.fail(&Error::Disconnected, &mut dead);
        assert_eq!(dead.channels().len(), 5_000);
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }
}
