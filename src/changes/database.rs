//! The part of a worker that follows one database: a state machine on one session, without a thread of its own.
//!
//! ```text
//!   Away ──opened──> Preparing: settings ──> Prepared: installation, LISTEN, log, spilled payloads, checks
//!     ▲                 │                       │
//!     └──────lost───────┴───────────────────────┘        Ended: lost for good, or nothing is installed
//! ```
//!
//! Events, replies and timers go in; requests by the manager's handle and items for the consumer come out. Nothing blocks,
//! and nothing is sent to a session before that session has its settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::LoopContext;
use super::event::ChangeEvent;
use super::installation::{self, Objects};
use super::log::{LOG_CHANNEL, LogNeed, LogOptions, LogOutput, LogRequest};
use super::log_follower::LogFollower;
use super::mailbox::{DatabaseReply, LoopMessage};
use super::options::InstallOptions;
use super::payload;
use super::queue::QueueItem;
use super::request::DatabaseRequest;
use super::rows::{changes_error, from_json, string};
use super::spilled::SpilledReader;
use super::sql::{self, CHANNEL};
use super::status::queue_warning;
use crate::error::Error;
use crate::gap::Gap;
use crate::manager::ConnId;
use crate::row::Row;

/// The interval of the checks of the installation, the NOTIFY queue and the spilled payloads.
const CHECK: Duration = Duration::from_secs(30);
/// The shortest interval of these checks.
const CHECK_MIN: Duration = Duration::from_millis(500);
/// The time between two checks of every table.
const CHECK_TABLES: Duration = Duration::from_secs(300);
/// The time after which a failed request is repeated.
const RETRY: Duration = Duration::from_secs(2);
/// The cause of a gap when the delivery was changed while the worker followed.
const OTHER_DELIVERY: &str = "the delivery of the installation has changed, so changes may be missing that were made before \
                              the worker noticed it";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkerPhase {
    /// There is no session.
    Away,
    /// The session does not have its settings yet.
    Preparing,
    /// The session has its settings.
    Prepared,
    /// The database is no longer followed.
    Ended,
}

/// Follows one database.
#[derive(Debug)]
pub(crate) struct DatabaseFollower {
    pub(crate) id: ConnId,
    /// The timer that the loop has set.
    pub(crate) timer: Option<Instant>,
    /// The place of the database, for error texts.
    place: String,
    /// The number of sessions so far.
    session: u64,
    phase: WorkerPhase,
    /// `true` if the database was last reported as connected; `None` before the first report.
    is_reported_connected: Option<bool>,
    /// The options of the installation; `None` until they have been read for the first time.
    options: Option<InstallOptions>,
    /// The channel that the session listens to.
    channel: Option<&'static str>,
    /// The time of the next check, or of the next attempt after a failure.
    next_check: Option<Instant>,
    /// The time from which on a check includes every table.
    next_table_check: Option<Instant>,
    /// The last warning about each kind of request, until a request of that kind succeeds.
    warnings: BTreeMap<DatabaseRequest, String>,
    pub(crate) spilled: SpilledReader,
    log: LogFollower,
}

impl DatabaseFollower {
    pub(crate) fn new(id: ConnId, place: String, log: LogOptions) -> Self {
        Self {
            id,
            timer: None,
            place,
            session: 0,
            phase: WorkerPhase::Away,
            is_reported_connected: None,
            options: None,
            channel: None,
            next_check: None,
            next_table_check: None,
            warnings: BTreeMap::new(),
            spilled: SpilledReader::default(),
            log: LogFollower::new(log),
        }
    }

    // ---- state ------------------------------------------------------------------------------------------------------

    pub(crate) fn is_ended(&self) -> bool {
        self.phase == WorkerPhase::Ended
    }

    /// Returns `true` if the consumer has acknowledged everything, and the position is saved.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_ended()
            || self.spilled.is_idle() && self.is_saved() && (!self.reads_log() || self.log.reader.is_empty())
    }

    /// Returns `true` if the position that the consumer has acknowledged is saved.
    pub(crate) fn is_saved(&self) -> bool {
        self.is_ended() || !self.reads_log() || self.log.reader.is_saved()
    }

    /// Returns the time at which [`handle_timer`](Self::handle_timer) must be called.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        match self.phase {
            WorkerPhase::Away | WorkerPhase::Ended => None,
            WorkerPhase::Preparing => self.next_check,
            WorkerPhase::Prepared => [self.next_check, self.log.reader.next_timer()].into_iter().flatten().min(),
        }
    }

    fn reads_log(&self) -> bool {
        self.options.as_ref().is_some_and(InstallOptions::has_log)
    }

    // ---- events -----------------------------------------------------------------------------------------------------

    /// Handles the opening of the first session.
    pub(crate) fn handle_opened(&mut self, cx: &LoopContext) {
        self.session += 1;
        self.phase = WorkerPhase::Preparing;
        self.set_session(0, cx);
    }

    /// Handles a new session in place of a lost one. It listens to the same channels.
    pub(crate) fn handle_restored(&mut self, gap: Gap, cx: &LoopContext) {
        let is_listening = |channel: &&str| gap.channels().iter().any(|name| **name == **channel);
        self.channel = [CHANNEL, LOG_CHANNEL].into_iter().find(is_listening);
        if self.channel == Some(CHANNEL) {
            self.report_connected(cx);
            cx.push(QueueItem::Event(ChangeEvent::Gap(gap)));
        }
        self.handle_opened(cx);
    }

    /// Handles a session that was lost or could not be opened, and is being restored.
    pub(crate) fn handle_disconnected(&mut self, error: Error, cx: &LoopContext) {
        self.end_session();
        cx.watch.set_lost(cx.database, &error);
        if self.is_reported_connected.replace(false) != Some(false) {
            cx.push(QueueItem::Event(ChangeEvent::Disconnected(error)));
        }
    }

    /// Handles a session that was lost or could not be opened, for good.
    pub(crate) fn handle_lost(&mut self, error: Error, cx: &LoopContext) {
        self.end_session();
        self.end(error, cx);
    }

    fn end_session(&mut self) {
        self.session += 1;
        self.phase = WorkerPhase::Away;
        self.next_check = None;
        self.log.reader.handle_lost();
        self.spilled.handle_lost();
    }

    pub(crate) fn handle_notification(&mut self, channel: &[u8], payload: &[u8], cx: &LoopContext) {
        if channel == LOG_CHANNEL.as_bytes() {
            let output = self.log.reader.handle_notification(&String::from_utf8_lossy(payload));
            return self.handle_log(LogRequest::Send, output.into_iter().collect(), cx);
        }
        if payload::is_incomplete(payload) {
            self.check_tables_soon(cx);
        }
        self.spilled.push(payload, cx);
        self.read_spilled(cx);
    }

    /// Handles a message from the consumer: it has made room, has acknowledged an item, or has stopped.
    pub(crate) fn handle_consumer(&mut self, cx: &LoopContext) {
        self.read_spilled(cx);
        self.advance_log(cx);
    }

    pub(crate) fn handle_timer(&mut self, cx: &LoopContext) {
        if self.next_check.is_some_and(|at| at <= cx.now) {
            self.next_check = None;
            match self.phase {
                WorkerPhase::Preparing => self.set_session(0, cx),
                WorkerPhase::Prepared => self.query(DatabaseRequest::Installation, sql::INSTALLED.to_owned(), cx),
                WorkerPhase::Away | WorkerPhase::Ended => {}
            }
        }
        self.advance_log(cx);
    }

    // ---- replies ----------------------------------------------------------------------------------------------------

    /// Handles the reply to a request.
    pub(crate) fn handle_reply(&mut self, reply: DatabaseReply, cx: &LoopContext) {
        if reply.session != self.session || matches!(self.phase, WorkerPhase::Away | WorkerPhase::Ended) {
            return;
        }
        let request = reply.request;
        let rows = match reply.result {
            Ok(rows) => rows,
            Err(error) => return self.handle_error(request, &error, cx),
        };
        let warning = match request {
            DatabaseRequest::Settings(index) => {
                self.set_session(index + 1, cx);
                None
            }
            DatabaseRequest::Installation => {
                return match installation::readable_options(&rows, &self.place) {
                    Ok(options) => self.adopt_installation(options, cx),
                    Err(error) => self.handle_not_installed(error, cx),
                };
            }
            DatabaseRequest::Objects | DatabaseRequest::Coverage => {
                let problems = self.problems(request, &rows);
                (!problems.is_empty()).then(|| format!("{}: {}", self.place, problems.join("; ")))
            }
            DatabaseRequest::Listen => {
                self.channel = Some(if self.reads_log() { LOG_CHANNEL } else { CHANNEL });
                if !self.reads_log() {
                    self.report_connected(cx);
                }
                None
            }
            DatabaseRequest::QueueUsage => {
                queue_warning(rows.first().and_then(|row| string(row, 0).parse().ok()).unwrap_or_default())
            }
            DatabaseRequest::ReadSpilled(number) => {
                self.handle_spilled(number, rows.first(), cx);
                None
            }
            DatabaseRequest::Log(log_request) => {
                return match self.log.handle_reply(log_request, &rows, cx) {
                    Some(outputs) => self.handle_log(log_request, outputs, cx),
                    None => {
                        let error = changes_error("the server sent a reply of an unexpected form");
                        self.handle_error(request, &error, cx);
                    }
                };
            }
            DatabaseRequest::ClearSpilled => None,
        };
        self.set_warning(request, warning, cx);
    }

    /// Returns the problems that the reply to a check shows.
    fn problems(&self, request: DatabaseRequest, rows: &[Row]) -> Vec<String> {
        match (request, rows.first(), &self.options) {
            (DatabaseRequest::Objects, Some(row), Some(options)) => match from_json::<Objects>(row) {
                Ok(objects) => [objects.problems(options), objects.warnings(options)].concat(),
                Err(error) => vec![format!("{error:#}")],
            },
            (DatabaseRequest::Coverage, ..) => rows.iter().map(installation::uncovered_problem).collect(),
            _ => Vec::new(),
        }
    }

    /// Handles a request that failed while the session is still open.
    fn handle_error(&mut self, request: DatabaseRequest, error: &Error, cx: &LoopContext) {
        match request {
            DatabaseRequest::Settings(_) | DatabaseRequest::Installation | DatabaseRequest::Listen => {
                self.next_check = cx.now.checked_add(RETRY);
            }
            DatabaseRequest::ReadSpilled(number) => self.handle_spilled(number, None, cx),
            DatabaseRequest::Log(request) => self.log.reader.handle_failed(request, cx.now),
            DatabaseRequest::Objects
            | DatabaseRequest::Coverage
            | DatabaseRequest::QueueUsage
            | DatabaseRequest::ClearSpilled => {}
        }
        let remedy = match (request, error.sqlstate()) {
            (DatabaseRequest::Log(_), Some("42501")) => ". Grant its role the privileges that `notifyman build` prints",
            _ => "",
        };
        let warning = format!("could not {}: {error:#}{remedy}", request.purpose());
        self.set_warning(request, Some(warning), cx);
    }

    /// Ends, unless something was installed before: then another build may install it again.
    fn handle_not_installed(&mut self, error: Error, cx: &LoopContext) {
        if self.options.is_none() {
            return self.end(error, cx);
        }
        self.next_check = cx.now.checked_add(RETRY);
        self.set_warning(DatabaseRequest::Installation, Some(format!("{error:#}")), cx);
    }

    // ---- preparing --------------------------------------------------------------------------------------------------

    /// Sets the session's settings from this index on, and then reads the installation.
    fn set_session(&mut self, index: usize, cx: &LoopContext) {
        match sql::SESSION.get(index) {
            Some(settings) => self.query(DatabaseRequest::Settings(index), (*settings).to_owned(), cx),
            None => {
                self.phase = WorkerPhase::Prepared;
                self.read_spilled(cx);
                self.query(DatabaseRequest::Installation, sql::INSTALLED.to_owned(), cx);
            }
        }
    }

    /// Checks the tables soon, because an event trigger has left some to the next build.
    fn check_tables_soon(&mut self, cx: &LoopContext) {
        self.next_table_check = None;
        self.next_check = self.next_check.map(|at| at.min(cx.now + CHECK_MIN));
    }

    /// Follows the installation by the path that it delivers by, and checks it.
    fn adopt_installation(&mut self, options: InstallOptions, cx: &LoopContext) {
        self.next_check = cx.now.checked_add(CHECK.min(cx.keep_spilled.max(CHECK_MIN)));
        self.set_warning(DatabaseRequest::Installation, None, cx);
        self.log.reader.set_keep_for(options.keep_for);
        let before = self.options.replace(options.clone());
        let has_other_delivery = before.as_ref().is_some_and(|before| before.has_log() != options.has_log());
        if options.has_log() {
            if has_other_delivery {
                self.log.reader.gap = Some(OTHER_DELIVERY);
            }
            self.listen(LOG_CHANNEL, cx);
        } else {
            if has_other_delivery {
                let gap = self.log.gap(OTHER_DELIVERY, None, cx.now);
                cx.push(QueueItem::Event(ChangeEvent::Gap(gap)));
            }
            match self.log.reader.needs_log() {
                Some(LogNeed::Begin) => {
                    let reason = format!("{} has no log to begin in: build with --delivery log", self.place);
                    return self.end(changes_error(reason), cx);
                }
                Some(LogNeed::Name) => {
                    let warning = format!(
                        "{} delivers by NOTIFY, so no position is kept under the worker's name, and changes that are made \
                         while it does not run are not reported: build with --delivery log",
                        self.place
                    );
                    self.set_warning(DatabaseRequest::Log(LogRequest::Claim), Some(warning), cx);
                }
                None => {}
            }
            if self.channel == Some(CHANNEL) {
                self.report_connected(cx);
            }
            self.listen(CHANNEL, cx);
            if options.spills() {
                self.query(DatabaseRequest::ClearSpilled, sql::clear_spilled(cx.keep_spilled), cx);
            }
        }
        self.query(DatabaseRequest::QueueUsage, sql::QUEUE_USAGE.to_owned(), cx);
        self.advance_log(cx);
        self.query(DatabaseRequest::Objects, sql::OBJECTS.to_owned(), cx);
        if self.next_table_check.is_none_or(|at| at <= cx.now) || before.as_ref() != Some(&options) {
            self.next_table_check = cx.now.checked_add(CHECK_TABLES);
            self.query(DatabaseRequest::Coverage, sql::uncovered(&options), cx);
        }
    }

    fn report_connected(&mut self, cx: &LoopContext) {
        cx.watch.set_connected(cx.database);
        if self.is_reported_connected.replace(true) != Some(true) {
            cx.push(QueueItem::Event(ChangeEvent::Connected));
        }
    }

    // ---- spilled payloads, and the log ------------------------------------------------------------------------------

    fn read_spilled(&mut self, cx: &LoopContext) {
        if self.phase == WorkerPhase::Prepared
            && let Some(number) = self.spilled.next_request(cx)
        {
            self.query(DatabaseRequest::ReadSpilled(number), sql::read_spilled(number), cx);
        }
    }

    fn handle_spilled(&mut self, number: i64, row: Option<&Row>, cx: &LoopContext) {
        self.spilled.handle_reply(number, row, cx);
        self.read_spilled(cx);
    }

    fn advance_log(&mut self, cx: &LoopContext) {
        if let Some((position, count)) = cx.queue.take_acknowledged(cx.database) {
            self.log.reader.acknowledge(position, count);
        }
        if self.phase == WorkerPhase::Prepared
            && let Some(options) = self.options.as_ref().filter(|options| options.has_log())
            && let Some((request, sql)) = self.log.next_query(options, cx)
        {
            self.query(DatabaseRequest::Log(request), sql, cx);
        }
    }

    /// Adds the reader's outputs to the queue, and continues unless the log can never be read.
    fn handle_log(&mut self, request: LogRequest, outputs: Vec<LogOutput>, cx: &LoopContext) {
        if request == LogRequest::Read && self.log.reader.has_begun {
            self.report_connected(cx);
            cx.watch.set_proven(cx.database, cx.now);
        }
        let mut warning = None;
        for output in outputs {
            match output {
                LogOutput::Gap { reason, since, position } => {
                    let gap = self.log.gap(reason, since, cx.now);
                    cx.push(QueueItem::LoggedGap(position, gap));
                }
                LogOutput::Change(position, payload) => {
                    if payload::is_incomplete(&payload) {
                        self.check_tables_soon(cx);
                    }
                    cx.push(QueueItem::Logged(position, payload));
                }
                LogOutput::Waiting(reason) => warning = Some(reason),
                LogOutput::Refused(reason) => {
                    return self.end(changes_error(format!("{}: {reason}", self.place)), cx);
                }
            }
        }
        self.set_warning(DatabaseRequest::Log(request), warning, cx);
        self.advance_log(cx);
    }

    // ---- requests ---------------------------------------------------------------------------------------------------

    fn query(&self, request: DatabaseRequest, sql: String, cx: &LoopContext) {
        cx.handle.query_then(self.id, sql, self.reply_to(request, cx));
    }

    /// Returns the function that sends the result of a request to the loop.
    fn reply_to(
        &self,
        request: DatabaseRequest,
        cx: &LoopContext,
    ) -> impl FnOnce(Result<Vec<Row>, Error>) + Send + use<> {
        let (database, session, queue) = (cx.database, self.session, Arc::clone(&cx.queue));
        move |result| {
            queue.mailbox.send(LoopMessage::Reply(DatabaseReply { database, session, request, result }));
        }
    }

    /// Listens to this channel instead of another one.
    fn listen(&mut self, channel: &'static str, cx: &LoopContext) {
        if self.channel == Some(channel) {
            return;
        }
        if self.channel.take().is_some() {
            drop(cx.handle.unlisten_all(self.id));
        }
        let reply = self.reply_to(DatabaseRequest::Listen, cx);
        cx.handle.listen_then(self.id, vec![channel.to_owned()], move |result| reply(result.map(|()| Vec::new())));
    }

    /// Reports a warning about a request, unless it is the last one again. Without a warning, the request has succeeded.
    fn set_warning(&mut self, request: DatabaseRequest, warning: Option<String>, cx: &LoopContext) {
        let before = self.warnings.remove(&request.kind());
        self.warnings.extend(warning.clone().map(|warning| (request.kind(), warning)));
        if before != warning {
            let stopping = self.warnings.iter().filter(|(request, _)| request.is_necessary(self.reads_log()));
            cx.watch.set_warnings(cx.database, stopping.map(|(_, warning)| warning));
        }
        let Some(warning) = warning else { return };
        if before.as_ref() != Some(&warning) {
            cx.push(QueueItem::Event(ChangeEvent::Warning(warning)));
        }
    }

    /// Ends for good.
    fn end(&mut self, error: Error, cx: &LoopContext) {
        self.spilled.release_all(cx);
        self.phase = WorkerPhase::Ended;
        cx.watch.set_lost(cx.database, &error);
        cx.push(QueueItem::Event(ChangeEvent::Lost(error)));
        drop(cx.handle.remove(self.id));
    }
}
