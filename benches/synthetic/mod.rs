//! A server that says what PostgreSQL says, and does nothing else: a process of its own, so that its cost isn't counted.
//!
//! ```text
//!   the bench ── commands, by standard input ──▶ server process ◀── sessions ──────── the client that is measured
//!             ◀── what it measured, by output ──               ◀── an answer to each event that asks for one ──
//! ```
//!
//! The process is the bench's own program, started again: whoever uses this calls [`serve_if_asked`] first of all. It
//! lets everybody in, answers whatever `notifyman`, libpq, tokio-postgres and sqlx ask a server before they listen, and
//! what an audit and a canary ask later, and floods with frames that were encoded before, and encrypted before where it
//! speaks TLS. It refuses to run any other SQL, and to check anything.
//!
//! A command returns once it is carried out. Whoever commands and receives in one process commands from another thread.

#![allow(dead_code, unreachable_pub, reason = "each bench uses a part, in a private module")]

#[path = "../../tests/support/msg.rs"]
mod msg;
mod process;
mod stream;
mod wire;

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The channel to which all listen: 16 bytes.
pub const CHANNEL: &str = "cache_invalidate";
/// What a payload begins with that asks for an answer.
pub const PLEASE_ANSWER: u8 = b's';

/// Becomes the server and never returns, in the process that [`Server::start`] has started.
pub fn serve_if_asked() {
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
/// What follows the host where all is in TLS.
const ENCRYPTED: &str = "tls";

/// A running server, which ends when this drops.
#[derive(Debug)]
pub struct Server {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    host: String,
    /// The folder of its sockets, which is removed.
    folder: Option<PathBuf>,
    port: u16,
    answer_port: u16,
}

/// How it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// By Unix sockets: the least that the system can do, so that what the client does shows the most.
    Unix,
    /// By TCP on 127.0.0.1.
    Tcp,
    /// The same, and all in TLS.
    Tls,
}

impl Server {
    /// Starts one, at a place of its own; `prefix` are the words of a command that runs it, such as `taskset -c 0`.
    pub fn start(link: Link, prefix: &[&str]) -> io::Result<Self> {
        let folder = match link {
            Link::Tcp | Link::Tls => None,
            Link::Unix => Some(own_folder()?),
        };
        let host = folder.as_ref().map_or_else(|| "127.0.0.1".into(), |folder| folder.display().to_string());
        let this = std::env::current_exe()?;
        let mut command = match prefix.split_first() {
            None => Command::new(this),
            Some((first, more)) => {
                let mut command = Command::new(first);
                command.args(more).arg(this);
                command
            }
        };
        command.args([ARGUMENT, &host]).args((link == Link::Tls).then_some(ENCRYPTED));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let commands = process.stdin.take().ok_or_else(|| io::Error::other("no standard input"))?;
        let answers = BufReader::new(process.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?);
        let mut server = Self { process, commands, answers, host, folder, port: 0, answer_port: 0 };
        let ports = numbers(&server.answer()?)?;
        let [port, answer_port] = ports[..] else { return Err(io::Error::other("the server told no ports")) };
        (server.port, server.answer_port) = (port as u16, answer_port as u16);
        Ok(server)
    }

    /// Where sessions are opened: an address, or the folder of the socket.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port there, which a socket has in its name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where events are answered; one client connects to it.
    pub fn answer_port(&self) -> u16 {
        self.answer_port
    }

    /// Sends every session that listens this many notifications, as fast as they are taken; returns once all are sent.
    pub fn flood(&mut self, payload: usize, each: u64) -> io::Result<()> {
        self.ask(&format!("flood {payload} {each}")).map(drop)
    }

    /// Wakes one session after the other, at random, each with one notification, and waits for the answer to it. Gives
    /// the percentiles of the time between, in nanoseconds: see [`PERCENTILES`]. It ends as the server has the answer, or,
    /// where that is awake, as the client has given it.
    pub fn wake(&mut self, events: u64, manner: Manner) -> io::Result<Vec<u64>> {
        let manner = match manner {
            Manner::Asleep => "asleep",
            Manner::Awake => "awake",
            Manner::BesideAFlood => "beside",
        };
        numbers(&self.ask(&format!("{manner} {events}"))?)
    }

    /// Ends all sessions, without a word.
    pub fn hang_up(&mut self) -> io::Result<()> {
        self.ask("hang-up").map(drop)
    }

    fn ask(&mut self, command: &str) -> io::Result<String> {
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
        // Where it fails, the process has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// A folder for sockets, whose paths must be short.
fn own_folder() -> io::Result<PathBuf> {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("notifyman-bench-{}-{number}", std::process::id()));
    fs::create_dir(&folder)?;
    Ok(folder)
}

/// How the server waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Asleep, so that it can share a processor with the client.
    Asleep,
    /// Looking for it all the time, on a processor of its own.
    Awake,
    /// The same, and the first session, which isn't woken, is flooded all the while.
    BesideAFlood,
}

/// Which percentiles of a latency are told.
pub const PERCENTILES: [f64; 25] = [
    0.0, 1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0, 55.0, 60.0, 65.0, 70.0, 75.0, 80.0, 85.0,
    90.0, 95.0, 98.0, 99.0, 99.5, 99.9,
];

fn numbers(line: &str) -> io::Result<Vec<u64>> {
    let word = |word: &str| word.parse().map_err(|_| io::Error::other(format!("the server said {line:?}")));
    line.split_whitespace().map(word).collect()
}
