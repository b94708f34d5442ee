//! Requests to the servers inside the loop, from handles and from the loop itself: sent without waiting, and completed
//! when the server has answered, or has not answered in time.

use std::time::{Duration, Instant};

use crate::clock;
use crate::connection::QUERY_CANCELED;
use crate::error::Error;
use crate::manager::canary::MissedCanary;
use crate::manager::members::{ConnId, Life, Member};
use crate::manager::ticket::Resolver;
use crate::manager::timers::Why;
use crate::manager::{Check, NotificationManager};
use crate::proto::{Reply, Request, RequestId, refuse_canary_channel, sql};
use crate::row::Row;

/// A request that has not been answered.
pub(super) struct PendingReply {
    by: RequestOrigin,
    until: Option<Instant>,
    /// `true` once a CancelRequest has been sent for the request.
    cancelled: bool,
}

impl PendingReply {
    pub(super) fn is_by_handle(&self) -> bool {
        matches!(self.by, RequestOrigin::Handle(_))
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// The purpose of the request, for error texts.
    pub(super) fn action(&self) -> &'static str {
        self.by.action()
    }

    /// Records that the request is being cancelled, and the deadline for its answer.
    pub(super) fn cancel(&mut self, until: Option<Instant>) {
        (self.cancelled, self.until) = (true, until);
    }

    /// Resolves the ticket of the request to an error.
    pub(super) fn fail(self, error: Error) {
        if let RequestOrigin::Handle(ticket) = self.by {
            ticket.resolve(Err(error));
        }
    }
}

/// The origin of a request.
pub(super) enum RequestOrigin {
    Handle(RequestTicket),
    /// The loop, to listen to the canary's channel, to send a canary, or to listen again.
    Attendance,
    Canary,
    Relisten,
    /// The loop: when it began, and the canary that the connection should have received.
    Audit(Instant, Option<MissedCanary>),
}

/// The loop's end of the ticket of a request.
pub(crate) enum RequestTicket {
    /// Resolves without a value, once the server has acknowledged the request.
    Done(Resolver<()>),
    /// Resolves to the rows of the answer.
    Rows(Resolver<Vec<Row>>),
}

impl RequestTicket {
    fn resolve(self, result: Result<Reply, Error>) {
        match self {
            Self::Done(ticket) => ticket.resolve(result.map(drop)),
            Self::Rows(ticket) => ticket.resolve(result.map(|reply| reply.rows)),
        }
    }
}

impl RequestOrigin {
    /// Returns `true` if the request may have changed the channels in a way that only the server knows.
    fn is_query(&self) -> bool {
        matches!(self, RequestOrigin::Handle(RequestTicket::Rows(_)))
    }

    /// The purpose of the request, for error texts.
    fn action(&self) -> &'static str {
        match self {
            RequestOrigin::Handle(_) => "a request by the handle",
            RequestOrigin::Attendance => "listening to the canary's channel",
            RequestOrigin::Canary => "sending a canary",
            RequestOrigin::Relisten => "listening again",
            RequestOrigin::Audit(..) => "an audit of the channels",
        }
    }
}

/// The time limit of the loop's own requests if calls have none.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

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
        let texts = |texts: &[String]| texts.iter().map(|text| size_of::<String>() + text.len()).sum();
        match self {
            Command::Listen(channels) | Command::Unlisten(channels) => texts(channels),
            Command::UnlistenAll => 0,
            Command::Notify(pairs) => pairs.iter().map(|(c, p)| 2 * size_of::<String>() + c.len() + p.len()).sum(),
            Command::Query(sql) => sql.len(),
        }
    }

    /// Checks the command and converts it for the session; `None` if there is nothing to do.
    fn into_ask(self, limits: sql::Limits) -> Result<Option<Request>, Error> {
        Ok(match self {
            Command::Listen(channels) if channels.is_empty() => None,
            Command::Unlisten(channels) if channels.is_empty() => None,
            Command::Notify(pairs) if pairs.is_empty() => None,
            Command::Listen(channels) => Some(Request::Listen(sql::checked_channels(channels, limits)?)),
            Command::Unlisten(channels) => Some(Request::Unlisten(sql::checked_channels(channels, limits)?)),
            Command::UnlistenAll => Some(Request::UnlistenAll),
            Command::Notify(pairs) => Some(Request::Notify(sql::checked_notify_many(&pairs, limits)?)),
            Command::Query(sql) => Some(Request::Query(sql)),
        })
    }
}

impl NotificationManager {
    /// Makes a request to a server on behalf of a handle.
    pub(super) fn ask(&mut self, id: ConnId, command: Command, ticket: RequestTicket) {
        let Some(token) = self.members.token(id) else {
            let dead = self.members.garbage().iter().find(|(dead, _)| *dead == id);
            return ticket.resolve(Err(dead.map_or(Error::UnknownConnection, |(_, dead)| dead.error().clone())));
        };
        let Some(member) = self.members.get_mut(token) else { return };
        let reserved = self.canary.as_ref().map(|canary| canary.channel());
        let limits = match &member.life {
            Life::Good(connection) => connection.session.limits(),
            Life::Restoring(restore) | Life::Messenger(restore) => restore.dead().limits(),
            Life::Cancelling(_) => return ticket.resolve(Err(Error::UnknownConnection)),
        };
        let ask = match command.into_ask(limits) {
            Ok(Some(Request::Listen(names))) => match refuse_canary_channel(reserved, &names) {
                Ok(()) => Request::Listen(names),
                Err(error) => return ticket.resolve(Err(error)),
            },
            Ok(Some(ask)) => ask,
            Ok(None) => return ticket.resolve(Ok(Reply::default())),
            Err(error) => return ticket.resolve(Err(error)),
        };
        match &mut member.life {
            Life::Good(connection) => {
                let request = connection.session.request(ask);
                let timeout = connection.call_timeout();
                self.await_answer(token, request, RequestOrigin::Handle(ticket), timeout);
            }
            Life::Restoring(restore) => match ticket {
                RequestTicket::Done(ticket) if !matches!(ask, Request::Notify(_)) => restore.edit(ask, ticket),
                ticket => ticket.resolve(Err(restore.dead().error().clone())),
            },
            Life::Messenger(_) | Life::Cancelling(_) => ticket.resolve(Err(Error::UnknownConnection)),
        }
    }

    /// Makes a request to a server on the loop's own behalf.
    pub(super) fn ask_for_us(&mut self, token: u32, ask: Request, by: RequestOrigin) {
        self.ask_behind(0, token, ask, by);
    }

    /// Makes a request on the loop's own behalf, after `others` that each may take the full time limit.
    pub(super) fn ask_behind(&mut self, others: u32, token: u32, ask: Request, by: RequestOrigin) {
        if let Some(Member { life: Life::Good(connection), .. }) = self.members.get_mut(token) {
            let request = connection.session.request(ask);
            let timeout = connection.call_timeout().unwrap_or(LIMIT);
            self.await_answer(token, request, by, Some(timeout.saturating_mul(others.saturating_add(1))));
        }
    }

    /// Sends a request that was made, and sets the time by which it must be answered.
    pub(super) fn await_answer(
        &mut self,
        token: u32,
        request: RequestId,
        by: RequestOrigin,
        timeout: Option<Duration>,
    ) {
        let Some(Member { id, life: Life::Good(connection), .. }) = self.members.get_mut(token) else { return };
        connection.transmit();
        // Not the turn's time, which a slow body may have left far behind.
        let until = timeout.and_then(|timeout| clock::now().checked_add(timeout));
        self.asked.insert((*id, request), PendingReply { by, until, cancelled: false });
        self.set_timer(token, Why::Look, until);
        // To send what is left, and where the session has ended meanwhile to say so.
        self.queue(token);
    }

    /// Completes the requests that have been answered. Cancels a late one, unless the socket may hold more data
    /// (`more`).
    pub(super) fn complete_requests(&mut self, token: u32, more: bool) {
        let Some(member) = self.members.get_mut(token) else { return };
        let Member { id, life: Life::Good(connection), .. } = member else { return };
        let id = *id;
        let of_this = (id, RequestId::FIRST)..=(id, RequestId::LAST);
        let (mut answered, mut next, mut late) = (Vec::new(), None, None);
        // A CancelRequest in progress may still affect these requests.
        let may_complete = !self.cancels.contains(id) || connection.is_closed();
        // They are answered in the order in which they were asked.
        for ((_, request), asked) in self.asked.range(of_this) {
            // A query that may have changed the channels is complete once they are known again.
            let is_complete = !asked.by.is_query() || !connection.session.is_reading_channels();
            if may_complete
                && is_complete
                && let Some(reply) = connection.session.take_reply(*request)
            {
                answered.push((*request, reply));
                continue;
            }
            next = asked.until;
            late = (!more && next.is_some_and(|until| until <= self.now)).then_some(*request);
            break;
        }
        let (after, is_closed) = (connection.call_timeout().unwrap_or(LIMIT), connection.is_closed());
        self.set_timer(token, Why::Look, next);
        if let Some(late) = late {
            self.time_out(token, late);
        }
        // All are taken out before anything is asked, as their numbers may be given anew then.
        let answered: Vec<_> =
            answered.into_iter().map(|(request, result)| (self.asked.remove(&(id, request)), result)).collect();
        for (asked, result) in answered {
            let (by, cancelled) = asked.map(|asked| (asked.by, asked.cancelled)).unzip();
            let result = match (&by, result) {
                (Some(by), Err(error)) if cancelled == Some(true) && error.sqlstate() == Some(QUERY_CANCELED) => {
                    Err(Error::Timeout { action: by.action(), after, closed: is_closed })
                }
                (_, result) => result,
            };
            match by {
                Some(RequestOrigin::Handle(ticket)) => ticket.resolve(result),
                Some(RequestOrigin::Canary) => self.canary_sent(id, result.map(drop)),
                Some(RequestOrigin::Audit(began, canary)) if result.is_ok() => {
                    self.audited(token, began, canary.as_ref())
                }
                Some(RequestOrigin::Audit(..)) => {
                    if let Err(error) = result {
                        self.report_refusal(id, Check::Audit, error);
                    }
                }
                // The session itself handles these replies.
                Some(RequestOrigin::Attendance | RequestOrigin::Relisten) | None => {}
            }
        }
    }

    /// Resolves the requests of a connection that was taken out.
    pub(super) fn forget_asked(&mut self, id: ConnId) {
        let of_this = (id, RequestId::FIRST)..=(id, RequestId::LAST);
        let asked: Vec<_> = self.asked.range(of_this).map(|(key, _)| *key).collect();
        for asked in asked.iter().filter_map(|key| self.asked.remove(key)) {
            asked.fail(Error::UnknownConnection);
        }
    }
}
