//! A server that says what PostgreSQL says, and does nothing else: a process of its own, so that its cost isn't counted.
//!
//! ```text
//!   the bench ── commands, by standard input ──▶ server process ◀── sessions, by TCP ── the client that is measured
//!             ◀── what it measured, by output ──               ◀── a byte for each event that asks for one ──
//! ```
//!
//! The process is the bench's own program, started again: whoever uses this calls [`serve_if_asked`] first of all. It
//! lets everybody in, answers whatever `notifyman`, libpq, tokio-postgres and sqlx ask a server before they listen, and
//! floods with frames that were encoded before. It refuses to run SQL, to speak TLS, and to check anything.

#![allow(dead_code, unreachable_pub, reason = "each bench uses a part, in a private module")]

mod process;
mod wire;

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The channel to which all listen: 16 bytes.
pub const CHANNEL: &str = "cache_invalidate";
/// What a payload begins with that asks for a byte in answer.
pub const PLEASE_ANSWER: u8 = b's';

/// Becomes the server and never returns, in the process that [`Server::start`] has started.
pub fn serve_if_asked() {
    if std::env::args().nth(1).as_deref() == Some(ARGUMENT) {
        if let Err(error) = process::serve() {
            eprintln!("synthetic server: {error}");
            std::process::exit(1);
        }
        std::process::exit(0);
    }
}

const ARGUMENT: &str = "--synthetic-server";

/// A running server, which ends when this drops.
#[derive(Debug)]
pub struct Server {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    port: u16,
    answer_port: u16,
}

impl Server {
    /// Starts one, on ports of its own; `prefix` are the words of a command that runs it, such as `taskset -c 0`.
    pub fn start(prefix: &[&str]) -> io::Result<Self> {
        let this = std::env::current_exe()?;
        let mut command = match prefix.split_first() {
            None => Command::new(this),
            Some((first, more)) => {
                let mut command = Command::new(first);
                command.args(more).arg(this);
                command
            }
        };
        let mut process = command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let commands = process.stdin.take().ok_or_else(|| io::Error::other("no standard input"))?;
        let answers = BufReader::new(process.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?);
        let mut server = Self { process, commands, answers, port: 0, answer_port: 0 };
        let ports = numbers(&server.answer()?)?;
        let [port, answer_port] = ports[..] else { return Err(io::Error::other("the server told no ports")) };
        (server.port, server.answer_port) = (port as u16, answer_port as u16);
        Ok(server)
    }

    /// Where sessions are opened, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the bytes go that answer events; one client connects to it.
    pub fn answer_port(&self) -> u16 {
        self.answer_port
    }

    /// Sends every session that listens this many notifications, as fast as they are taken; returns once all are sent.
    pub fn flood(&mut self, payload: usize, each: u64) -> io::Result<()> {
        self.ask(&format!("flood {payload} {each}")).map(drop)
    }

    /// Wakes one session after the other, at random, each with one notification, and waits for the answer to it. Gives
    /// the percentiles of the time between, in nanoseconds: see [`PERCENTILES`].
    pub fn wake(&mut self, events: u64) -> io::Result<Vec<u64>> {
        numbers(&self.ask(&format!("wake {events}"))?)
    }

    /// The same among all sessions but the first, which is flooded all the while.
    pub fn wake_beside_a_flood(&mut self, events: u64) -> io::Result<Vec<u64>> {
        numbers(&self.ask(&format!("beside {events}"))?)
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
    }
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
