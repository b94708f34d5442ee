//! Opens a connection without blocking: name resolution, connecting, TLS, login, a check of the server's role, and the SQL
//! of `after_connect`; then the next address, until one succeeds.
//!
//! ```text
//!   Next ──▶ Resolving ──▶ Next ──▶ Connecting ──▶ Encrypting ──▶ LoggingIn ──▶ CheckingRole ──▶ Preparing ──▶ done
//!    ▲           │                   ▲  │  └─ unencrypted ─┼────────▲ │               │              │
//!    │           │                   └──┼─ other encryption┴──────────┤               │              │
//!    └───────────┴───── attempt failed ─┴─────────────────────────────┴───────────────┴──────────────┘
//! ```
//!
//! If a standby is preferred and none is found, the other servers are dialled again, and the first that
//! succeeds is used.
//!
//! The caller watches the stream, calls [`Dial::advance`] when something may have changed, and waits as that returns. All
//! attempts together are limited by `connect_timeout`, and each address by its [limit](AttemptLimit), so that an
//! address that does not answer leaves time for the others. The SQL has a limit of its own, `call_timeout`; SQL
//! that takes longer is cancelled before the attempt fails.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::ErrorKind::WouldBlock;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, Endpoint, Host, LoadBalanceHosts, TargetSessionAttrs};
use crate::connection::attempt_limit::AttemptLimit;
use crate::connection::link::{Exchange, Link};
use crate::connection::password::{PasswordLookup, place};
use crate::connection::preparation::{Preparation, PreparationProgress};
use crate::connection::read_context::ReadContext;
use crate::connection::shuffle::shuffle;
use crate::connection::target::Verdict;
use crate::connection::tls_upgrade::{Encrypted, TlsUpgrade, encryption_order, may_depend_on_encryption, not_offered};
use crate::connection::transcript::{MessageLog, TraceLabel};
use crate::error::{ConnectError, Error, LOGGING_IN, NEGOTIATING_TLS, RESOLVING};
use crate::net::{Address, Encryption, EncryptionJob, NameResolution, PollWaker, Transport};
use crate::proto::{Binding, Request, RequestId, Session};

/// The time before the next attempt at a Unix socket whose server cannot accept another client yet.
const RETRY: Duration = Duration::from_millis(20);
/// The size of the read buffer for logins alone.
pub(super) const LOGIN_READ: usize = 4096;

/// A connection that is being opened.
#[derive(Debug)]
pub(crate) struct Dial<S: Transport> {
    config: Config,
    endpoints: VecDeque<Endpoint>,
    addresses: VecDeque<Address>,
    phase: DialPhase<S>,
    /// The deadlines of the current attempt and of all attempts.
    limit: AttemptLimit,
    /// The endpoint whose addresses are being tried.
    endpoint: Option<Endpoint>,
    /// The address that is being tried; `None` while the name is being resolved.
    address: Option<Address>,
    /// The role that the server must have.
    wanted: TargetSessionAttrs,
    /// The servers that are not a standby, if a standby is preferred.
    second_choice: VecDeque<(Option<Endpoint>, Address)>,
    /// Wakes the caller when another thread has finished a job.
    waker: Option<PollWaker>,
    /// The password for the address.
    password: PasswordLookup,
    /// A note on the source of the password, for the error.
    password_note: Option<String>,
    /// The encryption of this attempt, and of the next one at the same address if this one fails.
    encrypted: Encrypted,
    otherwise: Option<Encrypted>,
    /// The encryption of another connection, which this one must have, too.
    like: Option<Encryption>,
    /// The failed attempts: places and reasons.
    failed: Vec<(String, Error)>,
    /// The number of streams so far.
    streams: u32,
    /// The connection that is being opened, for the transcript.
    label: TraceLabel,
}

#[derive(Debug)]
enum DialPhase<S: Transport> {
    Next,
    Resolving(NameResolution),
    Waiting(Instant),
    Connecting(S),
    /// Waiting for the password; the stream is ready for the login.
    AwaitingPassword(S),
    Encrypting(Box<TlsUpgrade<S>>),
    LoggingIn(Box<Link<S>>),
    CheckingRole(Box<Link<S>>, RequestId),
    /// The server has the right role; `true` if its stream may hold more data.
    Suitable(Box<Link<S>>, bool),
    Preparing(Preparation<S>),
}

/// The progress of a dial.
#[derive(Debug)]
pub(crate) enum DialProgress<S: Transport> {
    /// Advance again when the stream is ready, when the waker wakes the poll, and at this time.
    Wait(Option<Instant>),
    /// The connection is open; `true` if its stream may hold more data, which it will not report again.
    Open(Box<Link<S>>, bool),
    /// Every address has failed.
    Failed(Error),
}

impl<S: Transport> Dial<S> {
    /// Begins to open a connection, at `now`.
    pub(crate) fn new(config: &Config, now: Instant) -> Result<Self, Error> {
        let mut endpoints = config.endpoints()?;
        shuffle_if_configured(config, &mut endpoints);
        let dial = Self::among(config, endpoints.into(), VecDeque::new(), now);
        Ok(Self { wanted: config.get_target_session_attrs(), ..dial })
    }

    /// Begins to open a connection to the peer of another one, with the same encryption, at `now`.
    pub(crate) fn like(config: &Config, peer: Address, like: Option<&Encryption>, now: Instant) -> Self {
        let mut dial = Self::among(config, VecDeque::new(), [peer].into(), now);
        dial.like = like.cloned();
        dial
    }

    fn among(config: &Config, endpoints: VecDeque<Endpoint>, addresses: VecDeque<Address>, now: Instant) -> Self {
        Self {
            config: config.clone(),
            endpoints,
            addresses,
            phase: DialPhase::Next,
            limit: AttemptLimit::new(config.get_connect_timeout(), now),
            endpoint: None,
            address: None,
            wanted: TargetSessionAttrs::Any,
            second_choice: VecDeque::new(),
            waker: None,
            password: PasswordLookup::Unneeded,
            password_note: None,
            encrypted: Encrypted::No,
            otherwise: None,
            like: None,
            failed: Vec::new(),
            streams: 0,
            label: TraceLabel::default(),
        }
    }

    /// Returns the stream to watch, with its number. A new number is a new stream; the one before it is closed.
    pub(crate) fn stream(&self) -> Option<(u32, &S)> {
        let stream = match &self.phase {
            DialPhase::Connecting(stream) | DialPhase::AwaitingPassword(stream) => stream,
            DialPhase::Encrypting(upgrade) => &upgrade.stream,
            DialPhase::LoggingIn(link) | DialPhase::CheckingRole(link, _) if !link.is_closed() => link.stream(),
            DialPhase::Preparing(preparation) => {
                return preparation.stream().map(|(number, stream)| (self.streams + number, stream));
            }
            _ => return None,
        };
        Some((self.streams, stream))
    }

    /// Returns the name of the phase, for logs.
    pub(crate) fn phase(&self) -> &'static str {
        match &self.phase {
            DialPhase::Next => "next",
            DialPhase::Resolving(_) => "resolving",
            DialPhase::Waiting(..) => "waiting",
            DialPhase::Connecting(..) => "connecting",
            DialPhase::AwaitingPassword(..) => "awaiting the password",
            DialPhase::Encrypting(..) => "encrypting",
            DialPhase::LoggingIn(..) => "logging in",
            DialPhase::CheckingRole(..) => "checking the role",
            DialPhase::Suitable(..) => "suitable",
            DialPhase::Preparing(_) => "executing the SQL of after_connect",
        }
    }

    /// Returns `true` if the stream must be watched for room to write.
    pub(crate) fn wants_write(&self) -> bool {
        match &self.phase {
            DialPhase::LoggingIn(link) | DialPhase::CheckingRole(link, _) => link.wants_write(),
            DialPhase::Preparing(preparation) => preparation.wants_write(),
            // While the stream is being connected or encrypted.
            _ => true,
        }
    }

    /// Returns `true` while a name is being resolved, a file is being read or a password is being computed, of which only
    /// the waker reports the end.
    pub(crate) fn awaits_waker(&self) -> bool {
        match &self.phase {
            DialPhase::Resolving(..) | DialPhase::AwaitingPassword(..) => true,
            DialPhase::Encrypting(upgrade) => upgrade.is_reading(),
            _ => false,
        }
    }

    /// Continues as far as possible.
    pub(crate) fn advance(&mut self, cx: &mut ReadContext<'_>) -> DialProgress<S> {
        let (now, watched) = (cx.now, self.streams);
        self.label = cx.label;
        if self.waker.is_none() {
            self.waker = cx.waker.cloned();
        }
        loop {
            self.phase = match std::mem::replace(&mut self.phase, DialPhase::Next) {
                DialPhase::Next => match self.next_phase(now) {
                    Some(phase) => phase,
                    None => return DialProgress::Failed(self.error()),
                },
                DialPhase::Resolving(resolution) => match resolution.poll() {
                    Some(Ok(mut found)) => {
                        shuffle_if_configured(&self.config, &mut found);
                        self.addresses.extend(found.into_iter().map(Address::Tcp));
                        if self.addresses.is_empty() {
                            self.fail(Error::Resolve { reason: "the name has no address".into() });
                        }
                        DialPhase::Next
                    }
                    Some(Err(reason)) => self.fail(self.unresolved(reason)),
                    None if self.is_late(now) => self.fail(self.timeout(RESOLVING)),
                    None => return self.wait(DialPhase::Resolving(resolution), None),
                },
                DialPhase::Waiting(at) if now < at => return self.wait(DialPhase::Waiting(at), Some(at)),
                DialPhase::Waiting(_) => self.dial(now),
                DialPhase::Connecting(stream) => match stream.check() {
                    Ok(true) => self.connected(stream, now),
                    Ok(false) if self.is_late(now) => self.fail(self.timeout("connecting")),
                    Ok(false) => return self.wait(DialPhase::Connecting(stream), None),
                    Err(e) => self.fail(Error::io("connecting", e)),
                },
                DialPhase::AwaitingPassword(stream) if self.has_password() => self.begin_session(stream, now),
                DialPhase::AwaitingPassword(_) if self.is_late(now) => self.fail(self.timeout(self.password.action())),
                phase @ DialPhase::AwaitingPassword(_) => return self.wait(phase, None),
                DialPhase::Encrypting(mut upgrade) => match self.advance_upgrade(&mut upgrade) {
                    Ok(Some(true)) => self.begin_session(upgrade.stream, now),
                    Ok(Some(false)) if self.otherwise == Some(Encrypted::No) => {
                        self.otherwise = None;
                        self.begin_session(upgrade.stream, now)
                    }
                    Ok(Some(false)) => self.fail(not_offered()),
                    Ok(None) if self.is_late(now) => {
                        let action = if upgrade.is_reading() { "reading the files for TLS" } else { NEGOTIATING_TLS };
                        self.fail(self.timeout(action))
                    }
                    Ok(None) => return self.wait(DialPhase::Encrypting(upgrade), None),
                    Err(e) => self.try_otherwise(e, now),
                },
                // A stream that is not watched yet reports what has arrived as soon as it is.
                DialPhase::LoggingIn(link) if self.streams != watched && !link.is_closed() => {
                    return self.wait(DialPhase::LoggingIn(link), None);
                }
                DialPhase::LoggingIn(mut link) => {
                    let progress = link.log_in(cx);
                    if link.has_received_anything() {
                        self.limit.receive();
                    }
                    match progress {
                        Exchange::Done(Ok(()), may_have_more) => match Verdict::of(&link, self.wanted) {
                            Verdict::Fits => DialPhase::Suitable(link, may_have_more),
                            Verdict::Unfit(found) => self.reject(found),
                            Verdict::Ask(sql) => {
                                let request = link.request(Request::Query(sql.into()));
                                DialPhase::CheckingRole(link, request)
                            }
                        },
                        Exchange::Done(Err(e), _) if self.otherwise.is_some() && may_depend_on_encryption(&e) => {
                            self.try_otherwise(e, now)
                        }
                        // Another server would refuse the same password, and a few attempts can lock an account.
                        Exchange::Done(Err(e), _) if e.is_auth() => self.fail_for_good(e),
                        Exchange::Done(Err(e), _) => self.fail(e),
                        Exchange::Pending(_) if self.is_late(now) => self.fail(self.timeout(LOGGING_IN)),
                        Exchange::Pending(at) => return self.wait(DialPhase::LoggingIn(link), at),
                    }
                }
                DialPhase::CheckingRole(mut link, request) => match link.await_reply(cx, request) {
                    Exchange::Done(Ok(reply), may_have_more) => match Verdict::of_answer(&reply, self.wanted) {
                        Verdict::Unfit(found) => self.reject(found),
                        _ => DialPhase::Suitable(link, may_have_more),
                    },
                    Exchange::Done(Err(e), _) => self.fail(e),
                    Exchange::Pending(_) if self.is_late(now) => self.fail(self.timeout("checking the server's role")),
                    Exchange::Pending(at) => return self.wait(DialPhase::CheckingRole(link, request), at),
                },
                DialPhase::Suitable(link, may_have_more) => match self.config.get_after_connect() {
                    Some(sql) => DialPhase::Preparing(Preparation::begin(link, sql, now)),
                    None => return DialProgress::Open(link, may_have_more),
                },
                DialPhase::Preparing(mut preparation) => match preparation.advance(cx) {
                    PreparationProgress::Done(link, may_have_more) => return DialProgress::Open(link, may_have_more),
                    PreparationProgress::Failed(e) => {
                        // A CancelRequest may have had a stream of its own.
                        self.streams += 1;
                        self.fail(e)
                    }
                    PreparationProgress::Wait(until) => {
                        self.phase = DialPhase::Preparing(preparation);
                        return DialProgress::Wait(until);
                    }
                },
            };
        }
    }

    /// Returns the first phase of the next attempt; `None` if nothing is left to try.
    fn next_phase(&mut self, now: Instant) -> Option<DialPhase<S>> {
        let to_try = self.addresses.len() + self.endpoints.len() + self.second_choice.len();
        self.limit.begin(to_try, now);
        self.address = None;
        if let Some(address) = self.addresses.pop_front() {
            return Some(self.connect(address, now));
        }
        if self.endpoints.is_empty()
            && let Some((endpoint, address)) = self.second_choice.pop_front()
        {
            (self.wanted, self.endpoint) = (TargetSessionAttrs::Any, endpoint);
            return Some(self.connect(address, now));
        }
        self.endpoint = self.endpoints.pop_front();
        let Endpoint { host, port } = self.endpoint.clone()?;
        Some(match host {
            Host::Name(name) | Host::Zoned { address: name, .. } => {
                DialPhase::Resolving(NameResolution::start(&name, port, self.waker.clone()))
            }
            Host::Addr { ip, .. } => self.connect(Address::Tcp((ip, port).into()), now),
            Host::Socket(path) => self.connect(Address::Unix(path), now),
        })
    }

    /// Makes the first attempt at an address.
    fn connect(&mut self, address: Address, now: Instant) -> DialPhase<S> {
        self.password = PasswordLookup::begin(&self.config, self.waker.as_ref());
        (self.encrypted, self.otherwise) = match (&address, &self.endpoint, &self.like) {
            // A Unix socket does not leave the machine.
            (Address::Unix(_), ..) | (_, None, None) => (Encrypted::No, None),
            (Address::Tcp(_), _, Some(_)) => (Encrypted::Yes, None),
            (Address::Tcp(_), Some(_), None) => encryption_order(self.config.get_sslmode()),
        };
        self.address = Some(address);
        self.dial(now)
    }

    fn dial(&mut self, now: Instant) -> DialPhase<S> {
        let Some(address) = &self.address else { return DialPhase::Next };
        match S::dial(address, &self.config) {
            Ok((stream, is_connected)) => {
                self.streams += 1;
                if is_connected { self.connected(stream, now) } else { DialPhase::Connecting(stream) }
            }
            Err(e) if e.kind() == WouldBlock && !self.is_late(now) => DialPhase::Waiting(now + RETRY),
            Err(e) => self.fail(Error::io("connecting", e)),
        }
    }

    /// Continues after the server has accepted the connection.
    fn connected(&mut self, stream: S, now: Instant) -> DialPhase<S> {
        self.limit.accept(now);
        match self.encrypted {
            Encrypted::Yes => self.encrypt(stream),
            Encrypted::No => self.begin_session(stream, now),
        }
    }

    /// Returns the endpoint of the address, for the password.
    fn place(&self) -> Option<Cow<'_, Endpoint>> {
        place(&self.config, self.endpoint.as_ref(), self.address.as_ref())
    }

    /// Rejects a server with another role. Its session is terminated when it is dropped.
    fn reject(&mut self, found: &'static str) -> DialPhase<S> {
        if self.wanted == TargetSessionAttrs::PreferStandby {
            self.second_choice.extend(self.address.clone().map(|address| (self.endpoint.clone(), address)));
        }
        self.fail(Error::Target { wanted: self.wanted, found })
    }

    fn encrypt(&mut self, stream: S) -> DialPhase<S> {
        let source = match &self.like {
            Some(encryption) => EncryptionJob::Ready(encryption.clone()),
            None => {
                let ip = if let Some(Address::Tcp(to)) = &self.address { Some(to.ip()) } else { None };
                let host = self.endpoint.as_ref().and_then(|endpoint| endpoint.host.name_in_certificate());
                EncryptionJob::start(&self.config, host, ip, self.waker.clone())
            }
        };
        let log = MessageLog::new(&self.config, self.label);
        DialPhase::Encrypting(Box::new(TlsUpgrade::begin(stream, source, log)))
    }

    /// Continues the TLS upgrade, and extends the time limit if the server has sent anything.
    fn advance_upgrade(&mut self, upgrade: &mut TlsUpgrade<S>) -> Result<Option<bool>, Error> {
        let progress = upgrade.advance();
        if upgrade.has_received_anything() || matches!(progress, Ok(Some(_))) {
            self.limit.receive();
        }
        progress
    }

    /// Continues to obtain the password. Returns `true` once it is known, or cannot be known.
    fn has_password(&mut self) -> bool {
        let mut password = std::mem::replace(&mut self.password, PasswordLookup::Unneeded);
        let is_known = password.advance(&self.config, self.place().as_deref(), self.waker.as_ref());
        self.password = password;
        is_known
    }

    /// Begins the login, once the password is known.
    fn begin_session(&mut self, stream: S, now: Instant) -> DialPhase<S> {
        if !self.has_password() {
            return DialPhase::AwaitingPassword(stream);
        }
        let credentials = match self.password.apply(&self.config, self.place().as_deref()) {
            Ok((config, note)) => {
                self.password_note = note;
                config
            }
            Err(e) => return self.fail(e),
        };
        let binding = match (stream.encryption(), stream.end_point()) {
            (None, _) => Binding::Unencrypted,
            (Some(_), None) => Binding::Unbindable,
            (Some(_), Some(hash)) => Binding::EndPoint(hash),
        };
        match Session::new(&credentials, binding) {
            Ok(session) => {
                let link = Link::new(session, stream, self.config.clone(), now, self.label);
                DialPhase::LoggingIn(Box::new(link))
            }
            Err(e) => self.fail_for_good(e),
        }
    }

    /// Records that the attempt failed, and tries the other encryption at the same address if that may succeed.
    fn try_otherwise(&mut self, error: Error, now: Instant) -> DialPhase<S> {
        let otherwise = self.otherwise.take().filter(|_| may_depend_on_encryption(&error));
        let failed = self.fail(error);
        let Some(encrypted) = otherwise else { return failed };
        self.encrypted = encrypted;
        self.dial(now)
    }

    /// Stays in a phase, until this time or the time limit.
    fn wait(&mut self, phase: DialPhase<S>, until: Option<Instant>) -> DialProgress<S> {
        self.phase = phase;
        DialProgress::Wait(until.or(self.limit.until))
    }

    fn is_late(&self, now: Instant) -> bool {
        self.limit.is_over(now)
    }

    fn timeout(&self, action: &'static str) -> Error {
        // The limit of this attempt, not of all.
        Error::Timeout { action, after: self.limit.given(), closed: true }
    }

    fn unresolved(&self, mut reason: String) -> Error {
        if let Some(Endpoint { host: Host::Zoned { address, .. }, .. }) = &self.endpoint {
            reason =
                format!("{address:?} must end with the name or the number of an interface of this machine ({reason})");
        }
        Error::Resolve { reason: reason.into() }
    }

    /// Records that the address, or the resolution of its name, has failed.
    fn fail(&mut self, error: Error) -> DialPhase<S> {
        let mut place = self.endpoint.as_ref().map(ToString::to_string).unwrap_or_default();
        let has_zone = matches!(&self.endpoint, Some(Endpoint { host: Host::Zoned { .. }, .. }));
        let address = self.address.as_ref().filter(|_| !has_zone).map(ToString::to_string);
        if let Some(address) = address.filter(|address| !place.contains(address.as_str())) {
            // A dial to the peer of another connection has no endpoint.
            place = if place.is_empty() { address } else { format!("{place} ({address})") };
        }
        self.failed.push((place, error));
        DialPhase::Next
    }

    /// Records the failure, and tries no other address.
    fn fail_for_good(&mut self, error: Error) -> DialPhase<S> {
        self.addresses.clear();
        self.endpoints.clear();
        self.second_choice.clear();
        self.fail(error)
    }

    fn error(&mut self) -> Error {
        let mut earlier = std::mem::take(&mut self.failed);
        let (place, cause) = earlier.pop().unwrap_or_else(|| (String::new(), Error::Disconnected));
        let target = self.config.label_at() + &place + &self.config.role_and_database();
        let note = self.password_note.take().filter(|_| cause.is_auth());
        Error::Connect(Arc::new(ConnectError { target, cause, earlier, note }))
    }
}

fn shuffle_if_configured<T>(config: &Config, items: &mut [T]) {
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        shuffle(items);
    }
}
