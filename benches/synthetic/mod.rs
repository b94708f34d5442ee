//! A synthetic server: it sends the messages of PostgreSQL and does nothing else, in a process of its own.
//!
//! ```text
//!   the bench ── commands, on standard input ──▶ server process ◀── sessions ──────── the client that is measured
//!             ◀── measurements, on standard output ──          ◀── an answer to each event that requests one ──
//! ```
//!
//! The process is the bench's own program, started again: a bench that uses this module first calls
//! [`serve_if_requested`]. The server accepts every login. It answers the statements of `notifyman`, libpq, tokio-postgres
//! and sqlx before they listen, and those of an audit and a canary. It floods with frames that are encoded in advance, and
//! with TLS also encrypted in advance. It runs no other SQL and checks nothing.
//!
//! A command returns when it is completed. A bench that also receives in the same process calls it on another thread.

#![allow(dead_code, unreachable_pub, reason = "each bench uses a part, in a private module")]

mod conversation;
#[path = "../../tests/support/msg.rs"]
mod msg;
mod process;
mod stream;

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The channel of all listeners, with 16 bytes.
pub const CHANNEL: &str = "cache_invalidate";
/// The first byte of a payload that requests an answer.
pub const ANSWER_REQUESTED: u8 = b's';

/// Becomes the server and never returns, in the process that [`Server::start`] has started.
pub fn serve_if_requested() {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(ARGUMENT) {
        let host = words.next().unwrap_or_default();
        if let Err(error) = process::serve(&host, words.next().as_deref() == Some(ENCRYPTED)) {
            eprintln!("synthetic server: {error}");
            std::process::exit(1);
        }
        std::process::exit(0);
    }
}

const ARGUMENT: &str = "--synthetic-server";
/// The argument after the host for a server with TLS.
const ENCRYPTED: &str = "tls";

/// A running server, which ends when this value is dropped.
#[derive(Debug)]
pub struct Server {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    host: String,
    /// The directory of its sockets, which is removed.
    directory: Option<PathBuf>,
    port: u16,
    answer_port: u16,
}

/// The transport of the sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Unix sockets, which cost the system least, so that the client's share is largest.
    Unix,
    /// TCP on 127.0.0.1.
    Tcp,
    /// TCP on 127.0.0.1 with TLS.
    Tls,
}

impl Server {
    /// Starts a server. `prefix` contains the words of a command that runs it, such as `taskset -c 0`.
    pub fn start(link: Link, prefix: &[&str]) -> io::Result<Self> {
        let directory = match link {
            Link::Tcp | Link::Tls => None,
            Link::Unix => Some(socket_directory()?),
        };
        let host = directory.as_ref().map_or_else(|| "127.0.0.1".into(), |directory| directory.display().to_string());
        let mut command = this_program(prefix)?;
        command.args([ARGUMENT, &host]).args((link == Link::Tls).then_some(ENCRYPTED));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let commands = process.stdin.take().ok_or_else(|| io::Error::other("no standard input"))?;
        let answers = BufReader::new(process.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?);
        let mut server = Self { process, commands, answers, host, directory, port: 0, answer_port: 0 };
        let ports = numbers(&server.answer()?)?;
        let [port, answer_port] = ports[..] else { return Err(io::Error::other("the server reported no ports")) };
        (server.port, server.answer_port) = (port as u16, answer_port as u16);
        Ok(server)
    }

    /// Returns the host of sessions: an address, or the directory of the socket.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port of sessions, which is part of a socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the port for answers, to which one client connects.
    pub fn answer_port(&self) -> u16 {
        self.answer_port
    }

    /// Sends this many equal notifications to every listening session, as fast as possible; returns when all are sent.
    pub fn flood(&mut self, payload: usize, each: u64) -> io::Result<()> {
        self.flood_with(&Flood { payload, each, ..Flood::default() })
    }

    /// Sends notifications to every session that listens to the first channel, as fast as possible; returns when all are
    /// sent.
    pub fn flood_with(&mut self, flood: &Flood) -> io::Result<()> {
        let Flood { payload, each, first, channels, payloads } = flood;
        self.command(&format!("flood {payload} {each} {first} {channels} {payloads}")).map(drop)
    }

    /// Sends one notification at a time to a random session, and waits for the answer. Returns the percentiles of the
    /// latency in nanoseconds: see [`PERCENTILES`]. The latency ends when the client sends the answer, or, with
    /// [`Waiting::Sleeping`], when the server has it.
    pub fn wake(&mut self, events: u64, waiting: Waiting) -> io::Result<Vec<u64>> {
        let waiting = match waiting {
            Waiting::Sleeping => "sleep",
            Waiting::SleepingOneWay => "sleep-one-way",
            Waiting::Spinning => "spin",
            Waiting::Flooding => "flood-and-wake",
        };
        numbers(&self.command(&format!("{waiting} {events}"))?)
    }

    /// Closes all sessions without a message.
    pub fn hang_up(&mut self) -> io::Result<()> {
        self.command("hang-up").map(drop)
    }

    fn command(&mut self, command: &str) -> io::Result<String> {
        writeln!(self.commands, "{command}")?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(io::Error::other("the synthetic server has ended"));
        }
        Ok(line)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // If this fails, the process has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// Returns a command that runs this program again. `prefix` contains the words of a command that runs it.
pub fn this_program(prefix: &[&str]) -> io::Result<Command> {
    let this = std::env::current_exe()?;
    Ok(match prefix.split_first() {
        None => Command::new(this),
        Some((first, more)) => {
            let mut command = Command::new(first);
            command.args(more).arg(this);
            command
        }
    })
}

/// Creates a directory for sockets, whose paths must be short.
fn socket_directory() -> io::Result<PathBuf> {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("notifyman-bench-{}-{number}", std::process::id()));
    fs::create_dir(&directory)?;
    Ok(directory)
}

/// Notifications that are sent as fast as possible, all of one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood {
    /// The length of a payload.
    pub payload: usize,
    /// The number of notifications for each session.
    pub each: u64,
    /// The number of the first notification, which determines its channel and its payload.
    pub first: u64,
    /// The number of channels, which take turns: see [`channel`].
    pub channels: u64,
    /// The number of different payloads, which take turns; `u64::MAX` if all are different.
    pub payloads: u64,
}

impl Default for Flood {
    fn default() -> Self {
        Self { payload: 0, each: 0, first: 0, channels: 1, payloads: 1 }
    }
}

/// Returns the name of one of at most 10,000 channels. The first is [`CHANNEL`], and the others are as long.
pub fn channel(number: u64) -> String {
    if number == 0 { CHANNEL.to_owned() } else { format!("{}{number:04}", &CHANNEL[..CHANNEL.len() - 4]) }
}

/// The way in which the server waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// It sleeps, so that it can share a processor with the client.
    Sleeping,
    /// Like `Sleeping`, but the latency ends when the client sends the answer.
    SleepingOneWay,
    /// It polls continuously, on a processor of its own.
    Spinning,
    /// It polls continuously, and meanwhile floods the first session, which gets no other notification.
    Flooding,
}

/// The percentiles of a latency that are reported.
pub const PERCENTILES: [f64; 25] = [
    0.0, 1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0, 55.0, 60.0, 65.0, 70.0, 75.0, 80.0, 85.0,
    90.0, 95.0, 98.0, 99.0, 99.5, 99.9,
];

fn numbers(line: &str) -> io::Result<Vec<u64>> {
    let word = |word: &str| word.parse().map_err(|_| io::Error::other(format!("the server sent {line:?}")));
    line.split_whitespace().map(word).collect()
}
