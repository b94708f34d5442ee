//! What a session is asked to do, and how each of it is said in SQL.
//!
//! One is under way at a time: what the server makes of a LISTEN decides what is sent next.

use std::collections::VecDeque;
use std::io;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::error::{Error, ServerError, ValueError};
use crate::proto::frame::ROW_MAX;
use crate::proto::sql;
use crate::row::Row;

/// How much of a query's answer is kept. It is a listener's client: long answers have better ones.
pub(crate) const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// The most channels of one request that restores a connection. A server before version 19 compares each LISTEN of a
/// transaction with those before it, so that the time grows with the square.
pub(crate) const CHANNELS_PER_REQUEST: usize = 10_000;

/// Names a request of one session, so that its reply is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(crate) u64);

impl RequestId {
    /// The bounds of all that there can be.
    pub(crate) const FIRST: Self = Self(0);
    pub(crate) const LAST: Self = Self(u64::MAX);
}

/// What the server answered to one request.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) rows: Vec<Row>,
    /// How many rows the statements touched, added up.
    pub(crate) affected: u64,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Request {
    /// Any SQL of the user's.
    Query(String),
    /// A statement of ours that sends notifications.
    Notify(String),
    Listen(Vec<Box<str>>),
    Unlisten(Vec<Box<str>>),
    UnlistenAll,
    /// Which channels the server has for us: asked by the session itself when it can't know.
    ReadChannels,
    /// The same, to be compared with what is believed.
    Audit,
    /// Listens again to channels that an audit has missed, as far as they are still wanted.
    Relisten(Vec<Box<str>>),
    /// Listens to the private channel, and asks in which database that is.
    ListenCanary(Box<str>),
    UnlistenCanary(Box<str>),
    /// Reads the NOTIFY queue's tail, which mends the server bug behind a LISTEN that fails with 58P01.
    ReadQueueTail,
    /// Has the server send bytes as they are, from a database that knows no encoding.
    UseSqlAscii,
    /// Checks that the server lists the channels of a LISTEN that it answered with a warning.
    ConfirmListen(Box<ListenConfirmation>),
    /// Takes back the LISTENs of which the server cut a name, and makes the good ones sure.
    UndoListen(Vec<Box<str>>, Vec<Box<str>>),
    /// Whether anybody is there: no SQL, and no answer but ReadyForQuery.
    Sync,
}

/// A LISTEN that succeeded with a warning, and its reply.
#[derive(Debug)]
pub(crate) struct ListenConfirmation {
    pub(crate) ask: Request,
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
            Request::UseSqlAscii => sql::SET_SQL_ASCII.to_owned(),
            Request::UndoListen(bad, good) => [sql::unlisten(names(bad)), sql::listen(names(good))].join(";"),
            Request::Sync => String::new(),
        }
    }

    /// Whether it is a question of our own that no lock of the server's can keep it from answering: while it does not,
    /// the server is as silent as one that leaves a heartbeat unanswered.
    pub(crate) fn is_answered_immediately(&self) -> bool {
        match self {
            Request::Query(_)
            | Request::Notify(_)
            | Request::Listen(_)
            | Request::Unlisten(_)
            | Request::UnlistenAll => false,
            Request::ReadChannels
            | Request::Audit
            | Request::Relisten(_)
            | Request::ListenCanary(_)
            | Request::UnlistenCanary(_) => true,
            Request::ReadQueueTail
            | Request::UseSqlAscii
            | Request::ConfirmListen(_)
            | Request::UndoListen(..)
            | Request::Sync => true,
        }
    }

    /// Writes it as it is said on the wire.
    pub(crate) fn encode(&self, limits: sql::Limits, transmit: &mut BytesMut) -> io::Result<()> {
        match self {
            Request::Sync => {
                frontend::sync(transmit);
                Ok(())
            }
            _ => {
                let sql = self.sql(limits);
                // With the message's type, its length, and the NUL at the end.
                transmit.reserve(1 + 4 + sql.len() + 1);
                frontend::query(&sql, transmit)
            }
        }
    }
}

/// A request, waiting for its turn or for its answer.
#[derive(Debug)]
pub(crate) struct QueuedRequest {
    /// Who gets the reply; nobody, for what the session asks for itself.
    pub(crate) id: Option<RequestId>,
    pub(crate) ask: Request,
    /// Whether a failed LISTEN has been healed and is tried for the second time.
    pub(crate) healed: bool,
}

/// The request under way, and what has been answered so far.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) request: QueuedRequest,
    pub(crate) reply: Reply,
    /// How many columns the rows to come have.
    pub(crate) columns: Option<usize>,
    /// What the rows of the answer take.
    answer_size: usize,
    /// Why the answer isn't kept.
    too_long: Option<String>,
    /// Whether it wanted COPY data and was told that there is none.
    pub(crate) copy_refused: bool,
    /// The first error: what comes after it in the same request isn't done.
    pub(crate) error: Option<ServerError>,
    /// The server's word that it cut a name (42622).
    pub(crate) name_cut: Option<ServerError>,
    /// `true` if a transaction was committed or rolled back, and if one was begun after a rollback, according to the tags of
    /// the commands.
    commits: bool,
    rolls_back: bool,
    begins_behind: bool,
    /// An unexpected warning in answer to LISTEN: the server may not listen.
    pub(crate) warning: Option<ServerError>,
    /// The warning, once it is known that the server does not listen.
    pub(crate) ignored: Option<ServerError>,
}

impl InFlight {
    pub(crate) fn new(request: QueuedRequest) -> Self {
        Self {
            request,
            reply: Reply::default(),
            columns: None,
            answer_size: 0,
            too_long: None,
            copy_refused: false,
            error: None,
            name_cut: None,
            commits: false,
            rolls_back: false,
            begins_behind: false,
            warning: None,
            ignored: None,
        }
    }

    /// Records the tag of a completed command.
    pub(crate) fn note_tag(&mut self, tag: &[u8]) {
        match tag {
            b"COMMIT" | b"PREPARE TRANSACTION" => self.commits = true,
            // ROLLBACK TO SAVEPOINT has the same tag.
            b"ROLLBACK" => self.rolls_back = true,
            b"BEGIN" | b"START TRANSACTION" => self.begins_behind |= self.rolls_back,
            _ => {}
        }
    }

    /// Returns `true` if every transaction that has ended was rolled back.
    pub(crate) fn is_rolled_back(&self) -> bool {
        self.rolls_back && !self.commits
    }

    /// Returns `true` if a transaction that is open now began after the request.
    pub(crate) fn has_ended_transaction(&self) -> bool {
        let chains =
            || matches!(&self.request.ask, Request::Query(text) if text.to_ascii_uppercase().contains("CHAIN"));
        self.commits || self.begins_behind || self.rolls_back && chains()
    }

    /// Whether it is a LISTEN that fails by the server's bug (58P01), for the first time.
    pub(crate) fn can_be_healed(&self) -> bool {
        !self.request.healed
            && matches!(self.request.ask, Request::Listen(_) | Request::Relisten(_) | Request::ListenCanary(_))
            && self.error.as_ref().is_some_and(|error| error.code() == "58P01")
    }

    /// Records a notice in answer to LISTEN.
    pub(crate) fn note(&mut self, notice: &ServerError) {
        if self.request.ask.listens_to().is_none() {
            return;
        }
        if notice.code() == "42622" {
            self.name_cut = Some(notice.clone());
        } else if is_unsupported(notice) || notice.severity() == "WARNING" && !notice.code().starts_with("57") {
            self.warning.get_or_insert_with(|| notice.clone());
        }
    }

    /// Handles a LISTEN that was answered with a warning. Returns the request that checks whether the server listens,
    /// if that is necessary and possible.
    pub(crate) fn check_warning(&mut self, in_transaction: bool) -> Option<Request> {
        let warning = self.warning.take().filter(|_| self.error.is_none() && self.name_cut.is_none())?;
        if is_unsupported(&warning) {
            self.ignored = Some(warning);
        } else if !in_transaction {
            let ask = std::mem::replace(&mut self.request.ask, Request::Sync);
            return Some(Request::ConfirmListen(Box::new(ListenConfirmation {
                ask,
                reply: std::mem::take(&mut self.reply),
                warning,
            })));
        }
        None
    }

    /// Ends the check whether the server listens: completes the LISTEN with its own reply.
    pub(crate) fn confirm(&mut self) {
        let Request::ConfirmListen(confirm) = &mut self.request.ask else { return };
        let ListenConfirmation { ask, reply, warning } = std::mem::replace(
            &mut **confirm,
            ListenConfirmation { ask: Request::Sync, reply: Reply::default(), warning: ServerError::default() },
        );
        let listed = std::mem::replace(&mut self.reply, reply).rows;
        let is_listed = |name: &str| listed.iter().any(|row| row.get(0).is_some_and(|listed| listed == name));
        if self.error.take().is_some() || !ask.listens_to().unwrap_or_default().iter().all(|name| is_listed(name)) {
            self.ignored = Some(warning);
        }
        self.request.ask = ask;
    }

    /// Keeps a row, as long as the answer isn't too long to be kept.
    pub(crate) fn push_row(&mut self, row: Row) {
        self.answer_size = self.answer_size.saturating_add(row.held_bytes());
        if self.answer_size > ANSWER_MAX {
            self.give_up(format!("takes more than {ANSWER_MAX} bytes, which is the most that is kept"));
        } else if self.too_long.is_none() {
            self.reply.rows.push(row);
        }
    }

    /// Notes that a row of `size` bytes was too long to be kept.
    pub(crate) fn pass_over_row(&mut self, size: usize) {
        self.give_up(format!("has a row of {size} bytes, at most {ROW_MAX} are kept"));
    }

    fn give_up(&mut self, reason: String) {
        self.reply.rows = Vec::new();
        self.too_long.get_or_insert(reason);
    }

    /// What became of it.
    pub(crate) fn result(&mut self) -> Result<Reply, Error> {
        if let Some(error) = self.error.take() {
            return Err(error.into());
        }
        if let Some(warning) = self.ignored.take() {
            let hint =
                warning.hint.or_else(|| Some("the server does not support LISTEN: connect to one that does".into()));
            return Err(ServerError { hint, ..warning }.into());
        }
        if let Some(notice) = self.name_cut.take() {
            let message = format!(
                "a channel name is too long in the server's encoding ({}); PostgreSQL allows 63 bytes: \
                 nothing is listened to by this call",
                notice.message()
            );
            return Err(ValueError { message }.into());
        }
        if let Some(reason) = self.too_long.take() {
            let message = format!("the answer to the query {reason}: it was carried out; ask for less at a time");
            return Err(Error::AnswerTooLong(message.into()));
        }
        Ok(std::mem::take(&mut self.reply))
    }
}

/// Returns `true` if a server or proxy reports that a feature is not supported (class 0A).
fn is_unsupported(notice: &ServerError) -> bool {
    notice.code().starts_with("0A")
}

/// What is to be asked, in order.
pub(crate) type Requests = VecDeque<QueuedRequest>;
