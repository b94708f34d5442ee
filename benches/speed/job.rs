//! The task of a client process, and its report of the cost. The clients in other packages and languages use the same
//! protocol:
//!
//! ```text
//!   arguments:  KIND TASK HOST PORT SSLMODE CONNECTIONS EXPECTED ANSWER_PORT
//!   prints:     dial_cpu=… dial_wall=… idle=…       once all sessions listen; then it waits for a line
//!               cpu=… wall=… after=…                once everything expected has arrived; then it exits
//!   answers:    the time of the monotonic clock, 8 bytes in native order, to each event of the task `wake`
//! ```
//!
//! Times are nanoseconds of this process. Memory is the process's anonymous resident memory, in bytes for each connection
//! after the first.

#![allow(dead_code, unreachable_pub, reason = "each client uses a part, in a private module")]

use std::fs;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The channel of all listeners.
pub const CHANNEL: &str = "cache_invalidate";
/// The first byte of a payload that requests an answer.
pub const ANSWER_REQUESTED: u8 = b's';
/// The number of connections that are opened concurrently.
pub const CONCURRENT_DIALS: usize = 256;

/// The task of a client.
#[derive(Debug, Clone)]
pub struct Job {
    pub kind: String,
    /// `receive`: receive everything that is expected. `wake`: like `receive`, with an answer to each event. `poll`: poll
    /// that many times, while nothing arrives. `dial`: like `receive`, with nothing expected.
    pub task: String,
    /// An address, or the directory of the server's sockets.
    pub host: String,
    pub port: u16,
    /// `disable` or `require`. Any certificate of the server is accepted.
    pub sslmode: String,
    pub connections: usize,
    pub expected: u64,
    pub answer_port: u16,
    first: u64,
    dialling: Meter,
}

impl Job {
    /// Parses the words after the program's name.
    pub fn read(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let (kind, task, host) = (words.next()?, words.next()?, words.next()?);
        let (port, sslmode) = (words.next()?.parse().ok()?, words.next()?);
        let mut number = || words.next()?.parse::<u64>().ok();
        let job = Self {
            kind,
            task,
            host,
            port,
            sslmode,
            connections: number()? as usize,
            expected: number()?,
            answer_port: number()? as u16,
            first: 0,
            dialling: Meter::start(),
        };
        // Raising the limit to the hard limit needs no privilege.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).ok()?;
        Some(job)
    }

    /// Records that the first session listens.
    pub fn first_is_open(&mut self) {
        self.first = memory();
        self.dialling = Meter::start();
    }

    /// Reports that all sessions listen, and waits for the start.
    pub fn all_are_open(&self) -> Meter {
        self.all_are_open_after(self.dialling.cpu(), self.dialling.wall())
    }

    /// Like [`all_are_open`](Self::all_are_open), with times that the client has measured itself.
    pub fn all_are_open_after(&self, cpu: u64, wall: u64) -> Meter {
        let others = self.connections.saturating_sub(1).max(1) as u64;
        print_line(&format!(
            "dial_cpu={} dial_wall={} idle={}",
            cpu / others,
            wall / others,
            self.bytes_per_connection()
        ));
        let mut line = String::new();
        let _ = io::stdin().read_line(&mut line);
        Meter::start()
    }

    /// Reports the cost once everything has arrived, and ends the process with its sessions.
    pub fn done(&self, meter: &Meter) -> ! {
        let (cpu, wall) = (meter.cpu(), meter.wall());
        print_line(&format!("cpu={cpu} wall={wall} after={}", self.bytes_per_connection()));
        // The system calls of the cleanup must not be counted.
        let _ = io::stdin().read_line(&mut String::new());
        std::process::exit(0)
    }

    /// Returns the connection string, for every client.
    pub fn conninfo(&self) -> String {
        format!("host={} port={} sslmode={} user=postgres dbname=postgres", self.host, self.port, self.sslmode)
    }

    /// Returns `true` if TLS is required.
    pub fn is_encrypted(&self) -> bool {
        self.sslmode == "require"
    }

    /// Connects to the port for answers, if the task needs it.
    pub fn answers(&self) -> io::Result<Option<Answers>> {
        if self.task == "wake" { Answers::connect(&self.host, self.answer_port).map(Some) } else { Ok(None) }
    }

    fn bytes_per_connection(&self) -> u64 {
        memory().saturating_sub(self.first) / self.connections.saturating_sub(1).max(1) as u64
    }
}

/// The connection for answers to events.
#[derive(Debug)]
pub struct Answers(OwnedFd);

impl Answers {
    /// Connects to a server at an address, or with its sockets in a directory.
    pub fn connect(host: &str, port: u16) -> io::Result<Self> {
        if host.starts_with('/') {
            return Ok(Self(UnixStream::connect(format!("{host}/.s.PGSQL.{port}"))?.into()));
        }
        let stream = TcpStream::connect((host, port))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream.into()))
    }

    /// Sends the time in native byte order if the payload requests an answer; returns `false` if it does not.
    #[inline]
    pub fn answer(&mut self, payload: &[u8]) -> bool {
        payload.first() == Some(&ANSWER_REQUESTED) && rustix::io::write(&self.0, &now().to_ne_bytes()).is_ok()
    }
}

/// Measures the cost of a span of time.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    cpu: u64,
    wall: Instant,
}

impl Meter {
    pub fn start() -> Self {
        Self { cpu: cpu(), wall: Instant::now() }
    }

    pub fn cpu(&self) -> u64 {
        cpu().saturating_sub(self.cpu)
    }

    pub fn wall(&self) -> u64 {
        self.wall.elapsed().as_nanos() as u64
    }
}

/// Returns the time of the monotonic clock, which all processes share.
pub fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Returns the user and system time of this process.
fn cpu() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32).as_nanos() as u64
}

/// Returns the anonymous resident memory of this process.
pub fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

fn print_line(line: &str) {
    println!("{line}");
    let _ = io::stdout().flush();
}
