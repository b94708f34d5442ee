//! What a client process is told to do, and how it says what that cost. The clients in other packages and languages
//! speak the same:
//!
//! ```text
//!   arguments:  KIND TASK HOST PORT SSLMODE CONNECTIONS EXPECTED ANSWER_PORT
//!   it says:    dial_cpu=… dial_wall=… idle=…       once all its sessions listen; then it waits for a line
//!               cpu=… wall=… after=…                once all that it expects has come; then it exits
//!   it answers: the monotonic clock's time, 8 bytes in the machine's order, to each event of the task `wake`
//! ```
//!
//! Times are nanoseconds, of this process alone; memory is the process's own (anonymous, resident), in bytes a
//! connection beyond the first.

#![allow(dead_code, unreachable_pub, reason = "each client uses a part, in a private module")]

use std::fs;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The channel to which all listen.
pub const CHANNEL: &str = "cache_invalidate";
/// What a payload begins with that asks for an answer.
pub const PLEASE_ANSWER: u8 = b's';
/// How many dials may be under way at a time.
pub const SIDE_BY_SIDE: usize = 256;

/// What to do.
#[derive(Debug, Clone)]
pub struct Job {
    pub kind: String,
    /// `receive`: until all that is expected has come. `wake`: the same, and answer each. `poll`: look that many times
    /// whether there is anything, when there is nothing. `dial`: as `receive`, of nothing.
    pub task: String,
    /// An address, or the folder of the server's sockets.
    pub host: String,
    pub port: u16,
    /// `disable` or `require`. Whatever certificate the server shows is believed.
    pub sslmode: String,
    pub connections: usize,
    pub expected: u64,
    pub answer_port: u16,
    first: u64,
    dialling: Meter,
}

impl Job {
    /// From the words after the program's name.
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
        // The hard limit is as far as anybody may go by himself.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).ok()?;
        Some(job)
    }

    /// The first session listens.
    pub fn first_is_there(&mut self) {
        self.first = memory();
        self.dialling = Meter::start();
    }

    /// All sessions listen: waits until it is to begin.
    pub fn all_are_there(&self) -> Meter {
        self.all_are_there_after(self.dialling.cpu(), self.dialling.wall())
    }

    /// The same, for who has timed the dialling itself.
    pub fn all_are_there_after(&self, cpu: u64, wall: u64) -> Meter {
        let others = self.connections.saturating_sub(1).max(1) as u64;
        say(&format!("dial_cpu={} dial_wall={} idle={}", cpu / others, wall / others, self.beyond_the_first()));
        let mut line = String::new();
        let _ = io::stdin().read_line(&mut line);
        Meter::start()
    }

    /// Everything has come: says what it cost, and ends the process, sessions and all.
    pub fn done(&self, meter: &Meter) -> ! {
        let (cpu, wall) = (meter.cpu(), meter.wall());
        say(&format!("cpu={cpu} wall={wall} after={}", self.beyond_the_first()));
        // Who counts system calls wants none of the clearing up.
        let _ = io::stdin().read_line(&mut String::new());
        std::process::exit(0)
    }

    /// Where the server is, as every client understands it.
    pub fn conninfo(&self) -> String {
        format!("host={} port={} sslmode={} user=postgres dbname=postgres", self.host, self.port, self.sslmode)
    }

    /// Whether all is to be in TLS.
    pub fn is_encrypted(&self) -> bool {
        self.sslmode == "require"
    }

    /// Where an event is answered.
    pub fn answers(&self) -> io::Result<Option<Answers>> {
        if self.task == "wake" { Answers::connect(&self.host, self.answer_port).map(Some) } else { Ok(None) }
    }

    fn beyond_the_first(&self) -> u64 {
        memory().saturating_sub(self.first) / self.connections.saturating_sub(1).max(1) as u64
    }
}

/// Answers events.
#[derive(Debug)]
pub struct Answers(OwnedFd);

impl Answers {
    /// To a server at an address, or with its sockets in a folder.
    pub fn connect(host: &str, port: u16) -> io::Result<Self> {
        if host.starts_with('/') {
            return Ok(Self(UnixStream::connect(format!("{host}/.s.PGSQL.{port}"))?.into()));
        }
        let stream = TcpStream::connect((host, port))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream.into()))
    }

    /// What time it is, in the machine's own order of bytes, if the payload asks for that; says whether it did.
    #[inline]
    pub fn answer(&mut self, payload: &[u8]) -> bool {
        payload.first() == Some(&PLEASE_ANSWER) && rustix::io::write(&self.0, &now().to_ne_bytes()).is_ok()
    }
}

/// What a stretch of time has cost.
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

/// The time since whatever began, the same for all processes.
pub fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// User and system time of this process.
fn cpu() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32).as_nanos() as u64
}

/// What is resident and belongs to this process alone.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

fn say(line: &str) {
    println!("{line}");
    let _ = io::stdout().flush();
}
