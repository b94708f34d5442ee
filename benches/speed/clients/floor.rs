//! What is physically possible: wait, read into one shared buffer, look at the headers, and nothing else.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::{SockAddr, Socket, Type};
use std::os::fd::AsRawFd;

use crate::job::{Answers, CHANNEL, Job, SIDE_BY_SIDE};

const BUFFER: usize = 64 * 1024;
/// Type byte and length.
const HEADER: usize = 5;

/// A session, of which nothing is kept but the frame that a read has torn.
struct Session {
    socket: Socket,
    /// How much of the torn frame is still to come.
    skip: usize,
    /// A torn header, and how much of it is there.
    head: [u8; HEADER],
    has: usize,
    queued: bool,
}

struct Floor {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    sessions: Vec<Session>,
}

pub fn run(mut job: Job) -> io::Result<()> {
    let mut floor = Floor {
        poll: Poll::new()?,
        events: Events::with_capacity(1024),
        buffer: vec![0; BUFFER],
        sessions: Vec::new(),
    };
    floor.sessions.reserve_exact(job.connections);
    floor.dial(&job, 1)?;
    job.first_is_there();
    floor.dial(&job, job.connections - 1)?;
    let mut answers = job.answers()?;
    let meter = job.all_are_there();
    match job.task.as_str() {
        "poll" => floor.look(job.expected)?,
        _ => floor.receive(job.expected, answers.as_mut())?,
    }
    job.done(&meter)
}

impl Floor {
    /// Opens sessions that listen, up to 256 side by side.
    fn dial(&mut self, job: &Job, many: usize) -> io::Result<()> {
        let to = match job.host.strip_prefix('/') {
            Some(_) => SockAddr::unix(format!("{}/.s.PGSQL.{}", job.host, job.port))?,
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, job.port)).into(),
        };
        let (mut begun, mut open) = (0, 0);
        // For each session how many times the server has said ReadyForQuery.
        let from = self.sessions.len();
        let mut said = vec![0; many];
        while open < many {
            while begun < many && begun - open < SIDE_BY_SIDE {
                let socket = Socket::new(to.domain(), Type::STREAM, None)?;
                if !to.is_unix() {
                    socket.set_tcp_nodelay(true)?;
                }
                socket.set_nonblocking(true)?;
                match socket.connect(&to) {
                    Err(e) if e.raw_os_error() != Some(115) => return Err(e),
                    _ => {}
                }
                let token = Token(self.sessions.len());
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, interest)?;
                self.sessions.push(Session { socket, skip: 0, head: [0; HEADER], has: 0, queued: false });
                begun += 1;
            }
            self.poll.poll(&mut self.events, None)?;
            for event in &self.events {
                let at = event.token().0;
                let Some(stage) = at.checked_sub(from).and_then(|at| said.get_mut(at)) else { continue };
                let socket = &self.sessions[at].socket;
                if *stage == 0 && event.is_writable() {
                    (&*socket).write_all(b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0")?;
                    *stage = 1;
                }
                if !event.is_readable() {
                    continue;
                }
                let read = match { socket }.read(&mut self.buffer) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                    read => read?,
                };
                // The answers are short, and end with ReadyForQuery.
                if !self.buffer[..read].ends_with(b"Z\0\0\0\x05I") {
                    continue;
                }
                *stage += 1;
                if *stage == 2 {
                    let sql = format!("LISTEN \"{CHANNEL}\"\0");
                    let length = (sql.len() + 4) as u32;
                    (&*socket).write_all(&[b"Q", &length.to_be_bytes()[..], sql.as_bytes()].concat())?;
                } else {
                    open += 1;
                    self.poll.registry().reregister(
                        &mut SourceFd(&socket.as_raw_fd()),
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
            let patience = (!ready.is_empty()).then_some(Duration::ZERO);
            self.poll.poll(&mut self.events, patience)?;
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
                let read = match session.socket.read(&mut self.buffer) {
                    Ok(0) => return Err(io::Error::other("the server has ended")),
                    Ok(read) => read,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                    Err(e) => return Err(e),
                };
                if read == BUFFER {
                    session.queued = true;
                    ready.push_back(at);
                }
                let bytes = &self.buffer[..read];
                match &mut answers {
                    None => count += session.scan(bytes, |_| true),
                    Some(answers) => count += session.scan(bytes, |payload| answers.answer(payload)),
                }
            }
        }
        Ok(())
    }

    /// Looks that often whether there is anything.
    fn look(&mut self, times: u64) -> io::Result<()> {
        let [session] = &mut self.sessions[..] else {
            for _ in 0..times {
                self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
            }
            return Ok(());
        };
        for _ in 0..times {
            match session.socket.read(&mut self.buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                _ => return Err(io::Error::other("there was something")),
            }
        }
        Ok(())
    }
}

impl Session {
    /// Counts the notifications that count.
    #[inline]
    fn scan(&mut self, bytes: &[u8], mut counts: impl FnMut(&[u8]) -> bool) -> u64 {
        let mut count = 0;
        let mut at = self.skip;
        if self.has > 0 {
            let missing = HEADER - self.has;
            self.head[self.has..].copy_from_slice(&bytes[..missing]);
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
            self.has = rest.len();
        }
        self.skip = at.saturating_sub(bytes.len());
        count
    }
}

/// What a header says, itself counted but for the type byte.
#[inline]
fn length(head: &[u8]) -> usize {
    u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize
}
