//! One request at a time: what its answer teaches, and what is sent next.

use std::collections::BTreeSet;

use super::{Output, Session, SessionState, TransactionStatus};
use crate::error::{Error, ServerError};
use crate::proto::channels::Channels;
use crate::proto::encoding;
use crate::proto::listen_scan;
use crate::proto::request::{InFlight, QueuedRequest, Reply, Request};
use crate::proto::sql;

/// The SQLSTATE of what a standby refuses.
const READ_ONLY: &str = "25006";
/// The SQLSTATE of a channel name that is too long.
const TOO_LONG: &str = "22023";

impl Session {
    /// A request is answered in full: learns from it, and hands on the reply.
    pub(super) fn finish(&mut self, mut done: InFlight, before: TransactionStatus) {
        let in_transaction = before != TransactionStatus::Idle || self.status != TransactionStatus::Idle;
        let is_open = self.status != TransactionStatus::Idle;
        let (has_ended, is_rolled_back) = (!is_open || done.has_ended_transaction(), done.is_rolled_back());
        self.new_transaction |= is_open && (before == TransactionStatus::Idle || has_ended);
        if !in_transaction && done.can_be_healed() {
            let requests = &mut self.pending.get_or_insert_default().requests;
            requests.push_front(QueuedRequest { healed: true, ..done.request });
            requests.push_front(QueuedRequest { id: None, ask: Request::ReadQueueTail, healed: true });
            return;
        }
        if let Some(ask) = done.check_warning(in_transaction) {
            let requests = &mut self.pending.get_or_insert_default().requests;
            requests.push_front(QueuedRequest { id: done.request.id, ask, healed: true });
            return;
        }
        done.confirm();
        // A request that failed needs no undo.
        let undone = done.error.is_none() && (done.name_cut.is_some() || done.ignored.is_some());
        let result = done.result();
        let result = explained(&done.request.ask, result, self.limits());
        let took_bytes = matches!(done.request.ask, Request::UseSqlAscii);
        let follows_up = took_bytes || undone || matches!(done.request.ask, Request::ReadChannels);
        match done.request.ask {
            Request::Listen(names) if undone => self.undo(names),
            ask => {
                self.update_canary(&ask, &result, in_transaction);
                self.learn(ask, &result, in_transaction);
            }
        }
        if has_ended {
            self.end_transaction(is_rolled_back);
        }
        // Once for each request that may have changed something: a server that refuses isn't asked for ever.
        if !follows_up && self.status == TransactionStatus::Idle {
            if self.channels_stale {
                self.request_next(Request::ReadChannels);
            }
            // A reset of all settings, or a rollback, has taken it back.
            if self.must_take_bytes() {
                self.take_bytes();
            }
        }
        self.update_canary_probe();
        if took_bytes {
            self.become_ready();
        }
        if let Some(id) = done.request.id {
            self.pending.get_or_insert_default().outputs.push_back(Output::Reply(id, result));
        }
    }

    /// Keeps account of what is listened to.
    fn learn(&mut self, ask: Request, result: &Result<Reply, Error>, in_transaction: bool) {
        match (ask, result) {
            (Request::Query(text), _) => {
                let touches = sql::affects_listening(&text);
                self.channels_stale |= in_transaction || touches;
                if touches {
                    self.note_listens(listen_scan::listened(&text), in_transaction);
                }
            }
            (Request::ReadChannels, Ok(reply)) => {
                let told = self.listed_channels(reply);
                self.set_channels(told.iter().map(AsRef::as_ref).collect());
                self.channels_stale = false;
                // Inside a transaction, the server lists only the channels from before it.
                if !in_transaction && let Some(pending) = &mut self.pending {
                    pending.unconfirmed.clear();
                }
            }
            (Request::Audit, Ok(reply)) if !in_transaction && !self.channels_stale => {
                let told = self.listed_channels(reply);
                let told: BTreeSet<&str> = told.iter().map(AsRef::as_ref).collect();
                let lost: Vec<Box<str>> =
                    self.channels.iter().filter(|channel| !told.contains(channel)).map(Box::from).collect();
                // What is missed is still wanted.
                self.set_channels(self.channels.iter().chain(told).collect());
                self.pending.get_or_insert_default().lost = lost;
            }
            (Request::Relisten(names), Ok(_)) => self.pending.get_or_insert_default().relistened.extend(names),
            // As when it is refused to a session that takes over.
            (Request::Relisten(_), Err(error)) => self.fail(error.clone()),
            // What the server cut a name to is known to the server alone.
            (Request::UndoListen(..), _) => self.channels_stale = true,
            // What is done in a transaction counts from its commit on.
            (Request::Listen(names), Ok(_)) if in_transaction => {
                self.channels_stale = true;
                self.note_listens(names, in_transaction);
            }
            (Request::Listen(_) | Request::Unlisten(_) | Request::UnlistenAll, _) if in_transaction => {
                self.channels_stale = true
            }
            (Request::Listen(names), Ok(_)) => {
                self.unshared |= self.channels.add(names.iter().map(AsRef::as_ref));
            }
            (Request::Unlisten(names), Ok(_)) => {
                self.unshared |= self.channels.remove(names.iter().map(AsRef::as_ref));
            }
            (Request::UnlistenAll, Ok(_)) => self.set_channels(Channels::default()),
            _ => {}
        }
    }

    /// The channels in the server's answer, but for the private one, which is taken note of.
    fn listed_channels(&mut self, reply: &Reply) -> Vec<Box<str>> {
        let told = reply.rows.iter().filter_map(|row| Some(row.get(0)?.into()));
        let mut told: Vec<Box<str>> = told.collect();
        self.note_listed_canary(&mut told);
        told
    }

    fn set_channels(&mut self, channels: Channels) {
        // An audit that finds all in order is none of others' business.
        self.unshared |= self.channels.replace(channels);
    }

    /// Keeps the channels of LISTENs of which it is not known yet whether they count.
    fn note_listens(&mut self, names: Vec<Box<str>>, in_transaction: bool) {
        if !names.is_empty() {
            let pending = self.pending.get_or_insert_default();
            if in_transaction { pending.uncommitted.extend(names) } else { pending.unconfirmed.extend(names) }
        }
    }

    /// The transaction has ended: its LISTENs may count, unless it was rolled back.
    fn end_transaction(&mut self, is_rolled_back: bool) {
        let Some(pending) = &mut self.pending else { return };
        match is_rolled_back {
            true => pending.uncommitted.clear(),
            false => pending.unconfirmed.append(&mut pending.uncommitted),
        }
    }

    /// Undoes a LISTEN of which the server truncated a name, or which it ignored.
    fn undo(&mut self, names: Vec<Box<str>>) {
        let bad = names.into_iter().filter(|name| !self.channels.contains(name)).collect();
        let good = self.channels.iter().map(Box::from).collect();
        self.request_next(Request::UndoListen(bad, good));
    }

    /// Puts a request of the session's own before all others.
    pub(super) fn request_next(&mut self, ask: Request) {
        self.pending.get_or_insert_default().requests.push_front(QueuedRequest { id: None, ask, healed: false });
    }

    /// The login is done.
    pub(super) fn become_ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            self.pending.get_or_insert_default().outputs.push_back(Output::Ready);
        }
    }

    /// Whether the database takes and gives any bytes, in no encoding.
    pub(super) fn knows_no_encoding(&self) -> bool {
        self.parameter("server_encoding").is_some_and(encoding::is_sql_ascii)
    }

    /// Whether a notification that isn't UTF-8 would end the session: such a server has to be told not to look.
    pub(super) fn must_take_bytes(&self) -> bool {
        self.knows_no_encoding() && !self.parameter("client_encoding").is_some_and(encoding::is_sql_ascii)
    }

    pub(super) fn take_bytes(&mut self) {
        self.request_next(Request::UseSqlAscii);
    }

    /// Sends what is to be asked next, if nothing is under way.
    pub(super) fn send_next(&mut self) {
        let limits = self.limits();
        let Some(pending) = &mut self.pending else { return };
        if pending.paused || !matches!(pending.state, SessionState::Idle) {
            return;
        }
        while let Some(mut request) = pending.requests.pop_front() {
            if let Request::Relisten(names) = &mut request.ask {
                // Requests that came before it may have left some.
                let listened: BTreeSet<&str> = self.channels.iter().collect();
                names.retain(|name| listened.contains(&**name));
                if names.is_empty() {
                    pending.outputs.extend(request.id.map(|id| Output::Reply(id, Ok(Reply::default()))));
                    continue;
                }
            }
            let before = pending.transmit.len();
            let Err(error) = request.ask.encode(limits, &mut pending.transmit) else {
                pending.state = SessionState::Busy(Box::new(InFlight::new(request)));
                return;
            };
            // Only a NUL or 2 GiB of text can't be said, and both are the caller's.
            pending.transmit.truncate(before);
            if let Some(id) = request.id {
                pending.outputs.push_back(Output::Reply(id, Err(Error::io("writing a query", error))));
            }
        }
        self.drop_if_empty();
    }
}

/// Adds the remedy to a standby's refusal of LISTEN, and the name to the error of one that is too long.
fn explained(ask: &Request, result: Result<Reply, Error>, limits: sql::Limits) -> Result<Reply, Error> {
    match (ask, result) {
        (Request::Listen(names) | Request::Unlisten(names), Err(Error::Server(error))) if error.code() == TOO_LONG => {
            Err(sql::too_long_for_server(names, limits))
        }
        (Request::Listen(_), Err(Error::Server(error))) if error.code() == READ_ONLY && error.hint().is_none() => {
            let hint = "this server is a standby, which can't LISTEN: give all servers as hosts, and \
                        target_session_attrs=primary";
            Err(ServerError { hint: Some(hint.into()), ..(*error).clone() }.into())
        }
        (_, result) => result,
    }
}
