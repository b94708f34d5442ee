//! Opening a connection, without ever blocking: look up, dial, log in, and ask for what the server is; then the next
//! address, until one is good.
//!
//! ```text
//!   Next ──▶ LookingUp ──▶ Next ──▶ Connecting ──▶ Securing ──▶ LoggingIn ──▶ Examining ──▶ done
//!    ▲            │                  ▲  │   └─ in clear ┼──────────▲ │            │
//!    │            │                  └──┼─ the other way┴────────────┤            │
//!    └────────────┴──── this failed ────┴────────────────────────────┴────────────┘
//! ```
//!
//! Who prefers a standby and has found none dials those again that were none, and takes the first.
//!
//! The caller watches the stream, calls [`Dial::step`] when something may have changed, and waits as that returns. All
//! attempts together are bounded by `connect_timeout`, and each address by its [limit](AttemptLimit), so that an
//! address that does not answer leaves time for the others.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, Endpoint, Host, LoadBalanceHosts, Passfile, TargetSessionAttrs};
use crate::connection::Connection;
use crate::connection::attempt_limit::AttemptLimit;
use crate::connection::converse::{Talk, ask, log_in};
use crate::connection::ear::Ear;
use crate::connection::securing::{Manner, Securing, Way, may_depend_on_way, ways};
use crate::connection::shuffle::shuffle;
use crate::connection::target::{Verdict, unfit};
use crate::error::{ConnectError, Error, TlsError, TlsErrorKind};
use crate::net::{Address, Encryption, EncryptionJob, NameResolution, OffloadJob, PollWaker, Stream, read_passfile};
use crate::proto::{Binding, Request, RequestId, Session};

/// When to try a Unix socket again whose server has no room for another client yet.
const RETRY: Duration = Duration::from_millis(20);
/// What a login reads at once, where nothing else is read by the way: it is small talk.
pub(super) const LOGIN_READ: usize = 4096;
/// After so many reads of one that never stops talking the others have their turn.
pub(crate) const READS_AT_ONCE: u32 = 64;

/// A connection being opened.
#[derive(Debug)]
pub(crate) struct Dial {
    config: Config,
    endpoints: VecDeque<Endpoint>,
    addresses: VecDeque<Address>,
    phase: Phase,
    /// The deadlines of the current attempt and of all attempts.
    limit: AttemptLimit,
    /// Whose addresses are being tried.
    endpoint: Option<Endpoint>,
    /// What the server must be.
    wanted: TargetSessionAttrs,
    /// Who was no standby, where one is preferred.
    second_choice: VecDeque<(Option<Endpoint>, Address)>,
    /// Wakes the caller when another thread has finished a job.
    waker: Option<PollWaker>,
    /// The password file for the address: the job that reads it, and its content.
    passfile: (Option<OffloadJob<Passfile>>, Option<Passfile>),
    /// Where the password of the login under way comes from, if that is worth a word.
    password_note: Option<String>,
    /// How this attempt is carried, and how the next one at the same address is if it fails.
    way: Way,
    other_way: Option<Way>,
    /// Encrypted just as another connection is.
    like: Option<Encryption>,
    /// What has failed so far, where and why.
    failed: Vec<(String, Error)>,
    /// Counts the streams, so that a new one is noticed.
    streams: u32,
}

#[derive(Debug)]
enum Phase {
    Next,
    LookingUp(NameResolution),
    Waiting(Address, Instant),
    Connecting(Address, Stream),
    /// Waiting for the password file; the stream is connected.
    Reading(Address, Stream),
    Securing(Address, Box<Securing>),
    LoggingIn(Address, Box<Connection>),
    Examining(Address, Box<Connection>, RequestId),
}

/// What the caller is to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Step again when the stream is ready, when the waker wakes the poll, and at the latest at this time.
    Wait(Option<Instant>),
    /// It is open; and whether more may have come, of which its stream, which is being watched, won't tell again.
    Done(Box<Connection>, bool),
    /// No address is good.
    Failed(Error),
}

impl Dial {
    /// Begins to open a connection, at `now`.
    pub(crate) fn new(config: &Config, now: Instant) -> Result<Self, Error> {
        let mut endpoints = config.endpoints()?;
        shuffle_if_asked(config, &mut endpoints);
        let dial = Self::among(config, endpoints.into(), VecDeque::new(), now);
        Ok(Self { wanted: config.get_target_session_attrs(), ..dial })
    }

    /// Begins to open a connection to where another one is, encrypted like that, at `now`.
    pub(crate) fn beside(config: &Config, peer: Address, like: Option<&Encryption>, now: Instant) -> Self {
        let mut dial = Self::among(config, VecDeque::new(), [peer].into(), now);
        dial.like = like.cloned();
        dial
    }

    fn among(config: &Config, endpoints: VecDeque<Endpoint>, addresses: VecDeque<Address>, now: Instant) -> Self {
        Self {
            config: config.clone(),
            endpoints,
            addresses,
            phase: Phase::Next,
            limit: AttemptLimit::new(config.get_connect_timeout(), now),
            endpoint: None,
            wanted: TargetSessionAttrs::Any,
            second_choice: VecDeque::new(),
            waker: None,
            passfile: (None, None),
            password_note: None,
            way: Way::Clear,
            other_way: None,
            like: None,
            failed: Vec::new(),
            streams: 0,
        }
    }

    /// The stream to be watched, with its number: another number is another stream, and the one before it is closed.
    pub(crate) fn stream(&self) -> Option<(u32, &Stream)> {
        let stream = match &self.phase {
            Phase::Connecting(_, stream) | Phase::Reading(_, stream) => stream,
            Phase::Securing(_, securing) => securing.stream(),
            Phase::LoggingIn(_, connection) | Phase::Examining(_, connection, _) => connection.stream()?,
            _ => return None,
        };
        Some((self.streams, stream))
    }

    /// Whether it waits for room to write, too: the stream is to be watched for that.
    pub(crate) fn wants_write(&self) -> bool {
        match &self.phase {
            Phase::LoggingIn(_, connection) | Phase::Examining(_, connection, _) => connection.wants_write(),
            // As long as it is being connected, and while it is agreed on TLS.
            _ => true,
        }
    }

    /// Returns `true` while a name is being resolved or a file read, which only the waker reports.
    pub(crate) fn is_looking_up(&self) -> bool {
        match &self.phase {
            Phase::LookingUp(..) | Phase::Reading(..) => true,
            Phase::Securing(_, securing) => securing.is_reading(),
            _ => false,
        }
    }

    /// Goes on as far as it can.
    pub(crate) fn step(&mut self, now: Instant, waker: Option<&PollWaker>, ear: &mut Ear<'_>) -> Step {
        let watched = self.streams;
        if self.waker.is_none() {
            self.waker = waker.cloned();
        }
        loop {
            self.phase = match std::mem::replace(&mut self.phase, Phase::Next) {
                Phase::Next => match self.next_phase(now) {
                    Ok(phase) => phase,
                    Err(step) => return step,
                },
                Phase::LookingUp(lookup) => match lookup.poll() {
                    Some(Ok(mut found)) => {
                        shuffle_if_asked(&self.config, &mut found);
                        self.addresses.extend(found.into_iter().map(Address::Tcp));
                        if self.addresses.is_empty() {
                            self.fail(None, Error::Resolve { reason: "the name has no address".into() });
                        }
                        Phase::Next
                    }
                    Some(Err(reason)) => self.fail(None, self.unresolved(reason)),
                    None if self.is_late(now) => self.fail(None, self.timeout("looking up the host's name")),
                    None => return self.wait(Phase::LookingUp(lookup)),
                },
                Phase::Waiting(address, at) if now < at => {
                    self.phase = Phase::Waiting(address, at);
                    return Step::Wait(Some(at));
                }
                Phase::Waiting(address, _) => self.dial(address, now),
                Phase::Connecting(address, stream) => match stream.check() {
                    Ok(true) => self.connected(address, stream, now),
                    Ok(false) if self.is_late(now) => self.fail(Some(&address), self.timeout("connecting")),
                    Ok(false) => return self.wait(Phase::Connecting(address, stream)),
                    Err(e) => self.fail(Some(&address), Error::io("connecting", e)),
                },
                Phase::Reading(address, stream) if self.has_passfile() => self.begin_session(address, stream, now),
                Phase::Reading(address, _) if self.is_late(now) => {
                    self.fail(Some(&address), self.timeout("reading the password file"))
                }
                Phase::Reading(address, stream) => return self.wait(Phase::Reading(address, stream)),
                Phase::Securing(address, mut securing) => match self.continue_securing(&mut securing) {
                    Ok(Some(true)) => self.begin_session(address, securing.into_stream(), now),
                    Ok(Some(false)) if self.other_way == Some(Way::Clear) => {
                        self.other_way = None;
                        self.begin_session(address, securing.into_stream(), now)
                    }
                    Ok(Some(false)) => self.fail(Some(&address), not_offered()),
                    Ok(None) if self.is_late(now) => {
                        let action =
                            if securing.is_reading() { "reading the files for TLS" } else { "agreeing on TLS" };
                        self.fail(Some(&address), self.timeout(action))
                    }
                    Ok(None) => return self.wait(Phase::Securing(address, securing)),
                    Err(e) => self.try_other_way(address, e, now),
                },
                Phase::LoggingIn(address, mut connection) => {
                    // A stream that isn't watched yet tells whether anything has come as soon as it is.
                    let ear = (self.streams == watched).then_some(&mut *ear);
                    let talk = log_in(&mut connection, ear, now);
                    if connection.session.has_received_anything() {
                        self.limit.receive();
                    }
                    match talk {
                        Talk::Over(Ok(()), more) => match Verdict::of(&connection.session, self.wanted) {
                            Verdict::Fits => return Step::Done(connection, more),
                            Verdict::Unfit(found) => self.reject(address, found),
                            Verdict::Ask(sql) => {
                                let request = connection.session.request(Request::Query(sql.into()));
                                Phase::Examining(address, connection, request)
                            }
                        },
                        Talk::Over(Err(e), _) if self.other_way.is_some() && may_depend_on_way(&e) => {
                            self.try_other_way(address, e, now)
                        }
                        // Another server would refuse the same password, and three tries lock an account.
                        Talk::Over(Err(e), _) if e.is_auth() => self.give_up(&address, e),
                        Talk::Over(Err(e), _) => self.fail(Some(&address), e),
                        _ if self.is_late(now) => self.fail(Some(&address), self.timeout("logging in")),
                        Talk::Silent => return self.wait(Phase::LoggingIn(address, connection)),
                        Talk::GoesOn => return self.go_on(Phase::LoggingIn(address, connection), now),
                    }
                }
                Phase::Examining(address, mut connection, request) => match ask(&mut connection, request, ear, now) {
                    Talk::Over(Ok(reply), more) => match Verdict::of_answer(&reply, self.wanted) {
                        Verdict::Unfit(found) => self.reject(address, found),
                        _ => return Step::Done(connection, more),
                    },
                    Talk::Over(Err(e), _) => self.fail(Some(&address), e),
                    _ if self.is_late(now) => self.fail(Some(&address), self.timeout("asking what the server is")),
                    Talk::Silent => return self.wait(Phase::Examining(address, connection, request)),
                    Talk::GoesOn => return self.go_on(Phase::Examining(address, connection, request), now),
                },
            };
        }
    }

    /// What to begin next.
    fn next_phase(&mut self, now: Instant) -> Result<Phase, Step> {
        let to_try = self.addresses.len() + self.endpoints.len() + self.second_choice.len();
        self.limit.begin(to_try, now);
        if let Some(address) = self.addresses.pop_front() {
            return Ok(self.connect(address, now));
        }
        if self.endpoints.is_empty()
            && let Some((endpoint, address)) = self.second_choice.pop_front()
        {
            (self.wanted, self.endpoint) = (TargetSessionAttrs::Any, endpoint);
            return Ok(self.connect(address, now));
        }
        self.endpoint = self.endpoints.pop_front();
        let Some(Endpoint { host, port }) = self.endpoint.clone() else {
            return Err(Step::Failed(self.error()));
        };
        match host {
            Host::Name(name) => Ok(Phase::LookingUp(NameResolution::start(&name, port, self.waker.clone()))),
            Host::Zoned { address, .. } => {
                Ok(Phase::LookingUp(NameResolution::start(&address, port, self.waker.clone())))
            }
            Host::Addr { ip, .. } => Ok(self.connect(Address::Tcp((ip, port).into()), now)),
            Host::Socket(path) => Ok(self.connect(Address::Unix(path), now)),
        }
    }

    /// Makes the first attempt at an address.
    fn connect(&mut self, address: Address, now: Instant) -> Phase {
        let reading = self.config.passfile_to_read().map(|path| read_passfile(path.to_owned(), self.waker.clone()));
        self.passfile = (reading, None);
        (self.way, self.other_way) = match (&address, &self.endpoint, &self.like) {
            // Nobody is between the two ends of it.
            (Address::Unix(_), ..) | (_, None, None) => (Way::Clear, None),
            (Address::Tcp(_), _, Some(_)) => (Way::Tls, None),
            (Address::Tcp(_), Some(_), None) => ways(self.config.get_sslmode()),
        };
        self.dial(address, now)
    }

    fn dial(&mut self, address: Address, now: Instant) -> Phase {
        match Stream::dial(&address, &self.config) {
            Ok((stream, is_connected)) => {
                self.streams += 1;
                if is_connected { self.connected(address, stream, now) } else { Phase::Connecting(address, stream) }
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && !self.is_late(now) => {
                Phase::Waiting(address, now + RETRY)
            }
            Err(e) => self.fail(Some(&address), Error::io("connecting", e)),
        }
    }

    /// The server has taken the connection.
    fn connected(&mut self, address: Address, stream: Stream, now: Instant) -> Phase {
        self.limit.accept(now);
        match self.way {
            Way::Tls => self.secure(address, stream),
            Way::Clear => self.begin_session(address, stream, now),
        }
    }

    /// The configuration with the password for this address.
    fn credentials(&mut self, address: &Address) -> Config {
        let place = self.endpoint.as_ref().map(Cow::Borrowed);
        let place = place.or_else(|| place_of(&self.config, address).map(Cow::Owned));
        let Some(place) = place else { return self.config.clone() };
        let passfile = self.passfile.1.as_ref().unwrap_or(&Passfile::Missing);
        let (config, note) = self.config.with_password_for(&place, passfile);
        self.password_note = note;
        config
    }

    /// The server is something else than is wanted. The session says goodbye as it is dropped.
    fn reject(&mut self, address: Address, found: &'static str) -> Phase {
        if self.wanted == TargetSessionAttrs::PreferStandby {
            self.second_choice.push_back((self.endpoint.clone(), address.clone()));
        }
        self.fail(Some(&address), unfit(self.wanted, found))
    }

    /// Begins to encrypt.
    fn secure(&mut self, address: Address, stream: Stream) -> Phase {
        let manner = match &self.like {
            Some(encryption) => Manner::Like(encryption.clone()),
            None => {
                let ip = if let Address::Tcp(to) = &address { Some(to.ip()) } else { None };
                let host = self.endpoint.as_ref().and_then(|endpoint| endpoint.host.name_in_certificate());
                Manner::By(EncryptionJob::start(&self.config, host, ip, self.waker.clone()))
            }
        };
        Phase::Securing(address, Box::new(Securing::begin(stream, manner)))
    }

    /// Continues the TLS upgrade, and extends the time limit if the server has sent anything.
    fn continue_securing(&mut self, securing: &mut Securing) -> Result<Option<bool>, Error> {
        let progress = securing.step();
        if securing.has_heard() || matches!(progress, Ok(Some(_))) {
            self.limit.receive();
        }
        progress
    }

    /// Returns `true` once the password file has been read, if it must be.
    fn has_passfile(&mut self) -> bool {
        if let Some(read) = self.passfile.0.as_ref().and_then(OffloadJob::poll) {
            self.passfile = (None, Some(read));
        }
        self.passfile.0.is_none()
    }

    /// Begins the login, once the password is known.
    fn begin_session(&mut self, address: Address, stream: Stream, now: Instant) -> Phase {
        if !self.has_passfile() {
            return Phase::Reading(address, stream);
        }
        let binding = match (stream.encryption(), stream.end_point()) {
            (None, _) => Binding::Unencrypted,
            (Some(_), None) => Binding::Unbindable,
            (Some(_), Some(hash)) => Binding::EndPoint(hash),
        };
        match Session::new(&self.credentials(&address)) {
            Ok(session) => {
                let connection = Connection::new(session.with_binding(binding), stream, self.config.clone(), now);
                Phase::LoggingIn(address, Box::new(connection))
            }
            Err(e) => self.give_up(&address, e),
        }
    }

    /// This attempt failed; there may be another way to the same address.
    fn try_other_way(&mut self, address: Address, error: Error, now: Instant) -> Phase {
        let other_way = self.other_way.take().filter(|_| may_depend_on_way(&error));
        let failed = self.fail(Some(&address), error);
        let Some(way) = other_way else { return failed };
        self.way = way;
        self.dial(address, now)
    }

    fn wait(&mut self, phase: Phase) -> Step {
        self.phase = phase;
        Step::Wait(self.limit.until())
    }

    /// There is more to be read at once.
    fn go_on(&mut self, phase: Phase, now: Instant) -> Step {
        self.phase = phase;
        Step::Wait(Some(now))
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

    /// This address failed, or the look-up of its name.
    fn fail(&mut self, address: Option<&Address>, error: Error) -> Phase {
        let mut place = self.endpoint.as_ref().map(ToString::to_string).unwrap_or_default();
        let has_zone = matches!(&self.endpoint, Some(Endpoint { host: Host::Zoned { .. }, .. }));
        let address = address.filter(|_| !has_zone).map(ToString::to_string);
        if let Some(address) = address.filter(|address| !place.contains(address.as_str())) {
            // Beside another connection there is only the address.
            place = if place.is_empty() { address } else { format!("{place} ({address})") };
        }
        self.failed.push((place, error));
        Phase::Next
    }

    /// Fails, and tries no other address.
    fn give_up(&mut self, address: &Address, error: Error) -> Phase {
        self.addresses.clear();
        self.endpoints.clear();
        self.second_choice.clear();
        self.fail(Some(address), error)
    }

    fn error(&mut self) -> Error {
        let mut earlier = std::mem::take(&mut self.failed);
        let (place, cause) = earlier.pop().unwrap_or_else(|| (String::new(), Error::Disconnected));
        let target = place + &self.config.role_and_database();
        let note = self.password_note.take().filter(|_| cause.is_auth());
        Error::Connect(Arc::new(ConnectError { target, cause, earlier, note }))
    }
}

/// The place among those of the configuration that this address most likely belongs to: for the password file.
fn place_of(config: &Config, address: &Address) -> Option<Endpoint> {
    let mut places = config.endpoints().ok()?;
    let is_there = |place: &Endpoint| match (&place.host, address) {
        (Host::Name(_), Address::Tcp(at)) => place.port == at.port(),
        (host, Address::Tcp(at)) => (host.ip(), place.port) == (Some(at.ip()), at.port()),
        (Host::Socket(path), Address::Unix(at)) => path == at,
        _ => false,
    };
    let found = places.iter().position(is_there)?;
    Some(places.swap_remove(found))
}

fn shuffle_if_asked<T>(config: &Config, items: &mut [T]) {
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        shuffle(items);
    }
}

fn not_offered() -> Error {
    let message = "the server has none: switch its setting ssl on, or use sslmode=prefer where the network is trusted";
    TlsError::new(TlsErrorKind::NotOffered, message).into()
}
