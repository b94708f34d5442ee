//! The server's process: one thread, one poll, and what the bench commands.

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

use super::stream::{self, Stream};
use super::wire::{self, Conversation};
use super::{CHANNEL, Manner, PERCENTILES};
use crate::job;

const LISTENER: Token = Token(usize::MAX);
const COMMAND: Token = Token(usize::MAX - 1);
/// How much of a flood is written at once, about.
const BLOCK: usize = 256 * 1024;
/// The same where somebody else waits meanwhile.
const SMALL_BLOCK: usize = 64 * 1024;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves at an address, or in a folder, in TLS or in clear, until standard input ends.
pub fn serve(host: &str, encrypted: bool) -> io::Result<()> {
    // The hard limit is as far as anybody may go by himself.
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
                process.flood(number(1) as usize, number(2))?;
                println!("done");
            }
            Some("asleep") => tell(process.wake(&answers, number(1), Manner::Asleep)?),
            Some("awake") => tell(process.wake(&answers, number(1), Manner::Awake)?),
            Some("beside") => tell(process.wake(&answers, number(1), Manner::BesideAFlood)?),
            Some("hang-up") => {
                process.sessions.iter_mut().for_each(|session| *session = None);
                println!("done");
            }
            _ => return Err(io::Error::other(format!("no such command: {line}"))),
        }
    }
}

fn tell(mut latencies: Vec<u64>) {
    latencies.sort_unstable();
    let at = |percent: f64| ((latencies.len() - 1) as f64 * percent / 100.0) as usize;
    let words: Vec<String> = PERCENTILES.iter().map(|p| latencies[at(*p)].to_string()).collect();
    println!("{}", words.join(" "));
}

/// Listens on a port that is free; in a folder, where they all are, on this one.
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
    /// What is said to it once there is room.
    answer: Vec<u8>,
    /// Whether a flood has just been cut in the middle of a frame.
    is_torn: bool,
}

impl Session {
    /// Says what there is to say, as far as there is room, and nothing in the middle of a frame; false where more room
    /// is needed.
    fn say(&mut self) -> bool {
        while !self.is_torn && !self.answer.is_empty() {
            match self.stream.write(&self.answer) {
                Ok(written) => drop(self.answer.drain(..written)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                // It has ended, which reading will tell.
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
            // Whoever started it has gone.
            std::process::exit(0);
        });
        let events = Events::with_capacity(1024);
        Ok(Self { poll, events, listener, encryption, sessions: Vec::new(), commands: received })
    }

    /// Lets clients in and answers them, until there is a command.
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

    /// Waits, lets in and answers who is ready, and gives their places.
    fn serve(&mut self) -> io::Result<Vec<usize>> {
        match self.poll.poll(&mut self.events, None) {
            Err(e) if e.kind() == ErrorKind::Interrupted => self.events.clear(),
            other => other?,
        }
        let ready: Vec<_> = self.events.iter().map(|event| (event.token(), event.is_readable())).collect();
        let mut served = Vec::new();
        for (token, speaks) in ready {
            match token {
                COMMAND => {}
                LISTENER => self.let_in()?,
                Token(at) => {
                    if speaks {
                        self.answer(at);
                    } else if let Some(Some(session)) = self.sessions.get_mut(at) {
                        session.say();
                    }
                    served.push(at);
                }
            }
        }
        Ok(served)
    }

    fn let_in(&mut self) -> io::Result<()> {
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
            self.sessions.push(Some(Session { stream, conversation, answer: Vec::new(), is_torn: false }));
        }
    }

    /// Hears what a session says, and answers it.
    fn answer(&mut self, at: usize) {
        let Some(session) = self.sessions.get_mut(at).and_then(Option::as_mut) else { return };
        let mut space = [0; 4096];
        loop {
            match session.stream.read(&mut space) {
                Ok(0) => session.conversation.over = true,
                Ok(read) => {
                    session.conversation.hear(&space[..read], &mut session.answer);
                    // What is left comes with the next look, which a short read leaves nothing for.
                    if read == space.len() || !session.stream.short_read_means_drained() {
                        continue;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => session.conversation.over = true,
            }
            break;
        }
        session.say();
        let notifies = std::mem::take(&mut session.conversation.notifies);
        if session.conversation.over {
            self.sessions[at] = None;
        }
        for (channel, frame) in notifies {
            for to in self.listeners(&channel) {
                let Some(session) = &mut self.sessions[to] else { continue };
                session.answer.extend_from_slice(&frame);
                session.say();
            }
        }
    }

    fn listeners(&self, channel: &str) -> Vec<usize> {
        let listens =
            |session: &Option<Session>| session.as_ref().is_some_and(|it| it.conversation.listens_to(channel));
        self.sessions.iter().enumerate().filter(|(_, session)| listens(session)).map(|(at, _)| at).collect()
    }

    /// Sends each listener `each` notifications, whoever has room.
    fn flood(&mut self, payload: usize, each: u64) -> io::Result<()> {
        let frame = wire::notification(payload, false);
        let total = frame.len() * each as usize;
        let block = Block::of(&frame, BLOCK);
        let mut has_room = self.listeners(CHANNEL);
        let mut sent = vec![0; self.sessions.len()];
        let mut open: HashSet<usize> = has_room.iter().copied().collect();
        for at in &has_room {
            let Some(session) = &mut self.sessions[*at] else { continue };
            if session.stream.encrypt_before(block.parts(total))? {
                sent[*at] = total;
            }
        }
        while !open.is_empty() {
            for at in std::mem::take(&mut has_room) {
                let Some(session) = &mut self.sessions[at] else {
                    open.remove(&at);
                    continue;
                };
                if !session.say() {
                    continue;
                }
                match session.stream.write(block.part(sent[at], total)) {
                    Ok(written) => {
                        sent[at] += written;
                        session.is_torn = !sent[at].is_multiple_of(frame.len());
                        if sent[at] < total {
                            has_room.push(at);
                        } else {
                            open.remove(&at);
                            session.say();
                        }
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
            if has_room.is_empty() && !open.is_empty() {
                has_room.extend(self.serve()?.into_iter().filter(|at| open.contains(at)));
            }
        }
        Ok(())
    }

    /// Wakes one listener at a time, and waits for the answer.
    fn wake(&mut self, answers: &Socket, events: u64, manner: Manner) -> io::Result<Vec<u64>> {
        let (mut answers, _) = answers.accept()?;
        answers.set_nonblocking(manner != Manner::Asleep)?;
        answers.set_read_timeout(Some(PATIENCE))?;
        let mut listeners = self.listeners(CHANNEL);
        let mut flood = (manner == Manner::BesideAFlood).then(|| Flood {
            block: Block::of(&wire::notification(32, false), SMALL_BLOCK),
            sent: 0,
            at: listeners.remove(0),
        });
        let event = wire::notification(32, true);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut latencies = Vec::new();
        let warm_up = events / 10;
        for number in 0..events {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = listeners[(random >> 33) as usize % listeners.len()];
            if let Some(flood) = &mut flood {
                // The flood stands before the wires at every event.
                flood.go_on(&mut self.sessions)?;
            }
            let Some(session) = &mut self.sessions[at] else { return Err(io::Error::other("a session has ended")) };
            let (begun, sent) = (Instant::now(), job::now());
            session.stream.write_all(&event)?;
            let answered = loop {
                if let Some(answered) = heard(&mut answers)? {
                    break answered;
                }
                if let Some(flood) = &mut flood {
                    flood.go_on(&mut self.sessions)?;
                }
                if begun.elapsed() > PATIENCE {
                    return Err(io::Error::other("no answer to an event"));
                }
            };
            if number >= warm_up {
                latencies.push(match manner {
                    Manner::Asleep => begun.elapsed().as_nanos() as u64,
                    // By the client's word: while this one writes a flood, it hears no answer.
                    Manner::Awake | Manner::BesideAFlood => answered.saturating_sub(sent),
                });
            }
        }
        Ok(latencies)
    }
}

/// When the client has answered, if it has.
fn heard(answers: &mut Socket) -> io::Result<Option<u64>> {
    let mut answer = [0; 8];
    match answers.read(&mut answer) {
        Ok(8) => Ok(Some(u64::from_ne_bytes(answer))),
        Ok(0) => Err(io::Error::other("the client has ended")),
        Ok(_) => Err(io::Error::other("a part of an answer")),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// A flood of one session that goes on for as long as it is asked to.
struct Flood {
    block: Block,
    sent: usize,
    at: usize,
}

impl Flood {
    fn go_on(&mut self, sessions: &mut [Option<Session>]) -> io::Result<()> {
        let Some(session) = &mut sessions[self.at] else { return Ok(()) };
        match session.stream.write(self.block.part(self.sent, usize::MAX)) {
            Ok(written) => self.sent += written,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

/// Whole frames, one behind the other, that are sent again and again.
struct Block(Vec<u8>);

impl Block {
    fn of(frame: &[u8], size: usize) -> Self {
        Self(frame.repeat(size.div_ceil(frame.len())))
    }

    /// What comes next when so much of so much has been sent.
    fn part(&self, sent: usize, total: usize) -> &[u8] {
        let from = sent % self.0.len();
        &self.0[from..self.0.len().min(from.saturating_add(total - sent))]
    }

    /// All of it, part by part.
    fn parts(&self, total: usize) -> impl Iterator<Item = &[u8]> {
        (0..total).step_by(self.0.len()).map(move |sent| self.part(sent, total))
    }
}
