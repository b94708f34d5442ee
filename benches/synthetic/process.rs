//! The server's process: one thread, one poll, and the commands of the bench.

use std::collections::HashSet;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustls::ServerConfig;
use socket2::{Domain, SockAddr, Socket, Type};

use super::conversation::{self, Conversation};
use super::stream::{self, Stream};
use super::{CHANNEL, Flood, PERCENTILES, Waiting};
use crate::job;

const LISTENER: Token = Token(usize::MAX);
const COMMAND: Token = Token(usize::MAX - 1);
/// The approximate number of bytes of a flood that are written at a time.
const BLOCK: usize = 256 * 1024;
/// Like [`BLOCK`], while another session waits.
const SMALL_BLOCK: usize = 64 * 1024;
/// The longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves on an address or in a directory, with TLS or unencrypted, until standard input ends.
pub fn serve(host: &str, encrypted: bool) -> io::Result<()> {
    // Raising the limit to the hard limit needs no privilege.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)?;
    let (listener, port) = listen(host, 1)?;
    let (answers, answer_port) = listen(host, 2)?;
    let encryption = if encrypted { Some(stream::encryption()?) } else { None };
    let mut process = Process::new(listener, encryption)?;
    println!("{port} {answer_port}");
    loop {
        let Some(line) = process.next_command()? else { return Ok(()) };
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
        match words.first().copied() {
            Some("flood") => {
                let (payload, each, first) = (number(1) as usize, number(2), number(3));
                process.flood(&Flood { payload, each, first, channels: number(4), payloads: number(5) })?;
                println!("done");
            }
            Some("sleep") => print_percentiles(process.wake(&answers, number(1), Waiting::Sleeping)?),
            Some("sleep-one-way") => {
                print_percentiles(process.wake(&answers, number(1), Waiting::SleepingOneWay)?);
            }
            Some("spin") => print_percentiles(process.wake(&answers, number(1), Waiting::Spinning)?),
            Some("flood-and-wake") => {
                print_percentiles(process.wake(&answers, number(1), Waiting::Flooding)?);
            }
            Some("hang-up") => {
                process.sessions.iter_mut().for_each(|session| *session = None);
                println!("done");
            }
            _ => return Err(io::Error::other(format!("unknown command: {line}"))),
        }
    }
}

fn print_percentiles(mut latencies: Vec<u64>) {
    latencies.sort_unstable();
    let at = |percent: f64| ((latencies.len() - 1) as f64 * percent / 100.0) as usize;
    let words: Vec<String> = PERCENTILES.iter().map(|p| latencies[at(*p)].to_string()).collect();
    println!("{}", words.join(" "));
}

/// Listens on a free TCP port, or on this port in a directory, where all are free.
fn listen(host: &str, port: u16) -> io::Result<(Socket, u16)> {
    let (domain, address) = match host.strip_prefix('/') {
        Some(_) => (Domain::UNIX, SockAddr::unix(format!("{host}/.s.PGSQL.{port}"))?),
        None => (Domain::IPV4, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()),
    };
    let listener = Socket::new(domain, Type::STREAM, None)?;
    listener.bind(&address)?;
    listener.listen(4096)?;
    let port = listener.local_addr()?.as_socket().map_or(port, |address| address.port());
    Ok((listener, port))
}

struct Session {
    stream: Stream,
    conversation: Conversation,
    /// The bytes to send once the socket accepts them.
    answer: Vec<u8>,
    /// `true` while a flood has sent only a part of a frame.
    is_in_frame: bool,
}

impl Session {
    /// Sends pending bytes, but not inside a frame; returns `false` if the socket accepts no more.
    fn flush(&mut self) -> bool {
        while !self.is_in_frame && !self.answer.is_empty() {
            match self.stream.write(&self.answer) {
                Ok(written) => drop(self.answer.drain(..written)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                // The session has ended, which the next read reports.
                Err(_) => self.answer.clear(),
            }
        }
        true
    }
}

struct Process {
    poll: Poll,
    events: Events,
    listener: Socket,
    encryption: Option<Arc<ServerConfig>>,
    sessions: Vec<Option<Session>>,
    commands: Receiver<String>,
}

impl Process {
    fn new(listener: Socket, encryption: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let poll = Poll::new()?;
        listener.set_nonblocking(true)?;
        poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), LISTENER, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), COMMAND)?;
        let (commands, received) = mpsc::channel();
        std::thread::spawn(move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                if commands.send(line).is_err() {
                    return;
                }
                let _ = waker.wake();
            }
            // The bench has ended.
            std::process::exit(0);
        });
        let events = Events::with_capacity(1024);
        Ok(Self { poll, events, listener, encryption, sessions: Vec::new(), commands: received })
    }

    /// Accepts clients and answers them, until there is a command.
    fn next_command(&mut self) -> io::Result<Option<String>> {
        loop {
            match self.commands.try_recv() {
                Ok(line) => return Ok(Some(line)),
                Err(mpsc::TryRecvError::Disconnected) => return Ok(None),
                Err(mpsc::TryRecvError::Empty) => {}
            }
            self.serve()?;
        }
    }

    /// Waits for readiness, accepts clients and answers sessions; returns the indexes of the sessions that were served.
    fn serve(&mut self) -> io::Result<Vec<usize>> {
        match self.poll.poll(&mut self.events, None) {
            Err(e) if e.kind() == ErrorKind::Interrupted => self.events.clear(),
            other => other?,
        }
        let ready: Vec<_> = self.events.iter().map(|event| (event.token(), event.is_readable())).collect();
        let mut served = Vec::new();
        for (token, is_readable) in ready {
            match token {
                COMMAND => {}
                LISTENER => self.accept()?,
                Token(at) => {
                    if is_readable {
                        self.answer(at);
                    } else if let Some(Some(session)) = self.sessions.get_mut(at) {
                        session.flush();
                    }
                    served.push(at);
                }
            }
        }
        Ok(served)
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let (socket, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            let stream = Stream::new(socket, self.encryption.as_ref())?;
            let at = self.sessions.len();
            self.poll.registry().register(
                &mut SourceFd(&stream.as_raw_fd()),
                Token(at),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            let conversation = Conversation::default();
            self.sessions.push(Some(Session { stream, conversation, answer: Vec::new(), is_in_frame: false }));
        }
    }

    /// Reads the requests of a session, and answers them.
    fn answer(&mut self, at: usize) {
        let Some(session) = self.sessions.get_mut(at).and_then(Option::as_mut) else { return };
        let mut space = [0; 4096];
        loop {
            match session.stream.read(&mut space) {
                Ok(0) => session.conversation.is_over = true,
                Ok(read) => {
                    session.conversation.read(&space[..read], &mut session.answer);
                    // After a short read nothing is left, unless the stream buffers.
                    if read == space.len() || !session.stream.is_drained_by_short_read() {
                        continue;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => session.conversation.is_over = true,
            }
            break;
        }
        session.flush();
        let notifies = std::mem::take(&mut session.conversation.notifies);
        if session.conversation.is_over {
            self.sessions[at] = None;
        }
        for (channel, frame) in notifies {
            for to in self.listeners(&channel) {
                let Some(session) = &mut self.sessions[to] else { continue };
                session.answer.extend_from_slice(&frame);
                session.flush();
            }
        }
    }

    fn listeners(&self, channel: &str) -> Vec<usize> {
        let listens =
            |session: &Option<Session>| session.as_ref().is_some_and(|it| it.conversation.listens_to(channel));
        self.sessions.iter().enumerate().filter(|(_, session)| listens(session)).map(|(at, _)| at).collect()
    }

    /// Sends each listener the notifications of a flood, in the order in which sockets accept them.
    fn flood(&mut self, flood: &Flood) -> io::Result<()> {
        let length = conversation::notification(flood.payload, false).len();
        let total = length * flood.each as usize;
        let block = Block::of(&conversation::frames(flood), BLOCK);
        let mut writable = self.listeners(CHANNEL);
        let mut sent = vec![0; self.sessions.len()];
        let mut open: HashSet<usize> = writable.iter().copied().collect();
        for at in &writable {
            let Some(session) = &mut self.sessions[*at] else { continue };
            if session.stream.encrypt_in_advance(block.parts(total))? {
                sent[*at] = total;
            }
        }
        while !open.is_empty() {
            for at in std::mem::take(&mut writable) {
                let Some(session) = &mut self.sessions[at] else {
                    open.remove(&at);
                    continue;
                };
                if !session.flush() {
                    continue;
                }
                match session.stream.write(block.part(sent[at], total)) {
                    Ok(written) => {
                        sent[at] += written;
                        session.is_in_frame = !sent[at].is_multiple_of(length);
                        if sent[at] < total {
                            writable.push(at);
                        } else {
                            open.remove(&at);
                            session.flush();
                        }
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
            if writable.is_empty() && !open.is_empty() {
                writable.extend(self.serve()?.into_iter().filter(|at| open.contains(at)));
            }
        }
        Ok(())
    }

    /// Sends an event to one listener at a time, and waits for the answer.
    fn wake(&mut self, answers: &Socket, events: u64, waiting: Waiting) -> io::Result<Vec<u64>> {
        let (mut answers, _) = answers.accept()?;
        answers.set_nonblocking(!matches!(waiting, Waiting::Sleeping | Waiting::SleepingOneWay))?;
        answers.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut listeners = self.listeners(CHANNEL);
        let mut flood = (waiting == Waiting::Flooding).then(|| EndlessFlood {
            block: Block::of(&conversation::notification(32, false), SMALL_BLOCK),
            sent: 0,
            at: listeners.remove(0),
        });
        let event = conversation::notification(32, true);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut latencies = Vec::new();
        let warm_up = events / 10;
        for number in 0..events {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = listeners[(random >> 33) as usize % listeners.len()];
            if let Some(flood) = &mut flood {
                // The flooded session has pending bytes at every event.
                flood.advance(&mut self.sessions)?;
            }
            let Some(session) = &mut self.sessions[at] else { return Err(io::Error::other("a session has ended")) };
            let (begun, sent) = (Instant::now(), job::now());
            session.stream.write_all(&event)?;
            let answered = loop {
                if let Some(answered) = read_answer(&mut answers)? {
                    break answered;
                }
                if let Some(flood) = &mut flood {
                    flood.advance(&mut self.sessions)?;
                }
                if begun.elapsed() > ANSWER_TIMEOUT {
                    return Err(io::Error::other("no answer to an event"));
                }
            };
            if number >= warm_up {
                latencies.push(match waiting {
                    Waiting::Sleeping => begun.elapsed().as_nanos() as u64,
                    // The time is the client's: while this process writes a flood, it reads no answer.
                    Waiting::SleepingOneWay | Waiting::Spinning | Waiting::Flooding => answered.saturating_sub(sent),
                });
            }
        }
        Ok(latencies)
    }
}

/// Reads the time at which the client has answered, if it has.
fn read_answer(answers: &mut Socket) -> io::Result<Option<u64>> {
    let mut answer = [0; 8];
    match answers.read(&mut answer) {
        Ok(8) => Ok(Some(u64::from_ne_bytes(answer))),
        Ok(0) => Err(io::Error::other("the client has ended")),
        Ok(_) => Err(io::Error::other("a part of an answer")),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// A flood of one session without an end.
struct EndlessFlood {
    block: Block,
    sent: usize,
    at: usize,
}

impl EndlessFlood {
    fn advance(&mut self, sessions: &mut [Option<Session>]) -> io::Result<()> {
        let Some(session) = &mut sessions[self.at] else { return Ok(()) };
        match session.stream.write(self.block.part(self.sent, usize::MAX)) {
            Ok(written) => self.sent += written,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

/// Consecutive whole frames that are sent repeatedly.
struct Block(Vec<u8>);

impl Block {
    fn of(frame: &[u8], size: usize) -> Self {
        Self(frame.repeat(size.div_ceil(frame.len())))
    }

    /// Returns the next bytes after `sent` of `total` bytes.
    fn part(&self, sent: usize, total: usize) -> &[u8] {
        let from = sent % self.0.len();
        &self.0[from..self.0.len().min(from.saturating_add(total - sent))]
    }

    /// Returns all bytes in parts.
    fn parts(&self, total: usize) -> impl Iterator<Item = &[u8]> {
        (0..total).step_by(self.0.len()).map(move |sent| self.part(sent, total))
    }
}
