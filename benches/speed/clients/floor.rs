//! The physical floor: wait, read into one shared buffer, parse the headers, and nothing else; with TLS, decrypt in that
//! buffer.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConfig;
use socket2::{SockAddr, Socket, Type};
use std::os::fd::AsRawFd;

use crate::encrypted::Tls;
use crate::job::{Answers, CHANNEL, CONCURRENT_DIALS, Job};
use crate::plan::TIMED_FLOOR;
use crate::trust;

const BUFFER: usize = 64 * 1024;
/// The bytes of a tag and a length.
const HEADER: usize = 5;

/// The first messages of a client.
const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const START_UP: &[u8] = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0";
/// The end of each answer of the server.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// A session, which keeps only a partial frame.
struct Session {
    socket: Socket,
    tls: Option<Box<Tls>>,
    scan: Scan,
    queued: bool,
}

/// The position of a session between frames.
#[derive(Default)]
struct Scan {
    /// The number of missing bytes of a partial frame.
    skip: usize,
    /// A partial header, and its length.
    head: [u8; HEADER],
    has: u8,
}

/// The stage of a login.
#[derive(Clone, Copy)]
enum Stage {
    Connecting,
    TlsRequested,
    Handshaking,
    LoggingIn,
    Listening,
    Open,
}

struct Floor {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    sessions: Vec<Session>,
    /// The timeout of each wait, if it has one.
    timeout: Option<Duration>,
}

pub fn run(mut job: Job) -> io::Result<()> {
    let mut floor = Floor {
        poll: Poll::new()?,
        events: Events::with_capacity(1024),
        buffer: vec![0; BUFFER],
        sessions: Vec::new(),
        timeout: (job.kind == TIMED_FLOOR).then_some(Duration::from_secs(60)),
    };
    floor.sessions.reserve_exact(job.connections);
    floor.dial(&job, 1)?;
    job.first_is_open();
    floor.dial(&job, job.connections - 1)?;
    let mut answers = job.answers()?;
    let meter = job.all_are_open();
    match job.task.as_str() {
        "poll" => floor.poll_repeatedly(job.expected)?,
        _ => floor.receive(job.expected, answers.as_mut())?,
    }
    job.done(&meter)
}

impl Floor {
    /// Opens sessions that listen, up to 256 concurrently.
    fn dial(&mut self, job: &Job, many: usize) -> io::Result<()> {
        let to = match job.host.strip_prefix('/') {
            Some(_) => SockAddr::unix(format!("{}/.s.PGSQL.{}", job.host, job.port))?,
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, job.port)).into(),
        };
        let encryption = if job.is_encrypted() { Some(trust::config().map_err(io::Error::other)?) } else { None };
        let encryption = encryption.map(Arc::new);
        let (mut begun, mut open) = (0, 0);
        let from = self.sessions.len();
        let mut stages = vec![Stage::Connecting; many];
        while open < many {
            while begun < many && begun - open < CONCURRENT_DIALS {
                let socket = Socket::new(to.domain(), Type::STREAM.nonblocking(), None)?;
                if !to.is_unix() {
                    socket.set_tcp_nodelay(true)?;
                }
                let is_connected = match socket.connect(&to) {
                    Ok(()) => true,
                    Err(e) if e.raw_os_error() == Some(115) => false,
                    Err(e) => return Err(e),
                };
                let token = Token(self.sessions.len());
                let mut session = Session { socket, tls: None, scan: Scan::default(), queued: false };
                let mut interest = Interest::READABLE;
                if is_connected {
                    stages[begun] = session.begin(encryption.is_some())?;
                } else {
                    interest |= Interest::WRITABLE;
                }
                self.poll.registry().register(&mut SourceFd(&session.socket.as_raw_fd()), token, interest)?;
                self.sessions.push(session);
                begun += 1;
            }
            self.poll.poll(&mut self.events, None)?;
            for event in &self.events {
                let at = event.token().0;
                let Some(stage) = at.checked_sub(from).and_then(|at| stages.get_mut(at)) else { continue };
                let session = &mut self.sessions[at];
                if event.is_writable() && matches!(stage, Stage::Connecting) {
                    *stage = session.begin(encryption.is_some())?;
                }
                if !event.is_readable() {
                    continue;
                }
                *stage = match session.advance(*stage, &mut self.buffer, encryption.as_ref()) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                    stage => stage?,
                };
                if !matches!(stage, Stage::Open) {
                    continue;
                }
                open += 1;
                if !to.is_unix() {
                    self.poll.registry().reregister(
                        &mut SourceFd(&session.socket.as_raw_fd()),
                        event.token(),
                        Interest::READABLE,
                    )?;
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, expected: u64, mut answers: Option<&mut Answers>) -> io::Result<()> {
        let mut ready: VecDeque<usize> = VecDeque::new();
        let mut count = 0;
        while count < expected {
            let timeout = if ready.is_empty() { self.timeout } else { Some(Duration::ZERO) };
            self.poll.poll(&mut self.events, timeout)?;
            for event in &self.events {
                let at = event.token().0;
                if !std::mem::replace(&mut self.sessions[at].queued, true) {
                    ready.push_back(at);
                }
            }
            for _ in 0..ready.len() {
                let Some(at) = ready.pop_front() else { break };
                let session = &mut self.sessions[at];
                session.queued = false;
                let read = session.read(&mut self.buffer, |scan, bytes| match &mut answers {
                    None => count += scan.count(bytes, |_| true),
                    Some(answers) => count += scan.count(bytes, |payload| answers.answer(payload)),
                });
                match read {
                    Ok(false) => {}
                    Ok(true) => {
                        session.queued = true;
                        ready.push_back(at);
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    /// Polls this number of times, while nothing arrives.
    fn poll_repeatedly(&mut self, times: u64) -> io::Result<()> {
        let [session] = &mut self.sessions[..] else {
            for _ in 0..times {
                self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
            }
            return Ok(());
        };
        for _ in 0..times {
            match session.socket.read(&mut self.buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                _ => return Err(io::Error::other("a notification was received")),
            }
        }
        Ok(())
    }
}

impl Session {
    /// Sends the first message on a connected socket.
    fn begin(&mut self, encrypted: bool) -> io::Result<Stage> {
        self.send(if encrypted { SSL_REQUEST } else { START_UP })?;
        Ok(if encrypted { Stage::TlsRequested } else { Stage::LoggingIn })
    }

    /// Reads the server's answer, and sends the next message.
    fn advance(
        &mut self,
        stage: Stage,
        buffer: &mut [u8],
        encryption: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Stage> {
        let mut is_last = false;
        // The answers are short, so one read returns a whole one.
        self.read(buffer, |_, bytes| is_last = bytes == b"S" || bytes.ends_with(READY))?;
        match (stage, encryption, &self.tls) {
            (Stage::TlsRequested, Some(encryption), _) if is_last => {
                let (tls, hello) = Tls::begin(encryption)?;
                self.send(&hello)?;
                self.tls = Some(Box::new(tls));
                Ok(Stage::Handshaking)
            }
            (Stage::Handshaking, _, Some(tls)) if !tls.is_handshaking() => {
                self.send(START_UP)?;
                Ok(Stage::LoggingIn)
            }
            (Stage::LoggingIn, ..) if is_last => {
                let sql = format!("LISTEN \"{CHANNEL}\"\0");
                let length = (sql.len() + 4) as u32;
                self.send(&[b"Q", &length.to_be_bytes()[..], sql.as_bytes()].concat())?;
                Ok(Stage::Listening)
            }
            (Stage::Listening, ..) if is_last => Ok(Stage::Open),
            (stage, ..) => Ok(stage),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.socket.write_all(bytes),
            Some(tls) => self.socket.write_all(&tls.encrypt(bytes)?),
        }
    }

    /// Reads once, and passes the bytes to `see`; returns `true` if there may be more.
    #[inline]
    fn read(&mut self, buffer: &mut [u8], mut see: impl FnMut(&mut Scan, &[u8])) -> io::Result<bool> {
        let partial = self.tls.as_ref().map_or(0, |tls| tls.partial_record.len());
        let read = match self.socket.read(&mut buffer[partial..])? {
            0 => return Err(io::Error::other("the server has ended")),
            read => partial + read,
        };
        let is_full = read == buffer.len();
        match &mut self.tls {
            None => see(&mut self.scan, &buffer[..read]),
            Some(tls) => {
                buffer[..partial].copy_from_slice(&tls.partial_record);
                let answer = tls.decrypt(&mut buffer[..read], |bytes| see(&mut self.scan, bytes))?;
                self.socket.write_all(&answer)?;
            }
        }
        Ok(is_full)
    }
}

impl Scan {
    /// Counts the notifications for which `counts` returns `true`.
    #[inline]
    fn count(&mut self, bytes: &[u8], mut counts: impl FnMut(&[u8]) -> bool) -> u64 {
        let mut count = 0;
        let mut at = self.skip;
        if self.has > 0 {
            let has = usize::from(self.has);
            let missing = HEADER - has;
            self.head[has..].copy_from_slice(&bytes[..missing]);
            count += u64::from(self.head[0] == b'A' && counts(b""));
            at = missing + length(&self.head) - 4;
            self.has = 0;
        }
        while let Some(head) = bytes.get(at..at + HEADER) {
            if black_box(head)[0] == b'A' {
                let payload = bytes.get(at + HEADER + 4 + CHANNEL.len() + 1..).unwrap_or_default();
                count += u64::from(counts(payload));
            }
            at += 1 + length(head);
        }
        if let Some(rest) = bytes.get(at..) {
            self.head[..rest.len()].copy_from_slice(rest);
            self.has = rest.len() as u8;
        }
        self.skip = at.saturating_sub(bytes.len());
        count
    }
}

/// Returns the length in a header, which includes itself but not the tag.
#[inline]
fn length(head: &[u8]) -> usize {
    u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize
}
