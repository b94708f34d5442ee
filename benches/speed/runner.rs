//! One run of one client: its process, the server's process, and their measurements.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use notifyman::{Config, Connection};

use crate::CLIENT;
use crate::cluster::{Cluster, Options};
use crate::job::CHANNEL;
use crate::plan::{Cell, EARLIER, LIBPQ, PEERS, Task};
use crate::synthetic::{Link, PERCENTILES, Server, Waiting};

/// The time limit of a client.
const LIMIT: Duration = Duration::from_secs(60);

/// The measurements of one run, by name.
pub type Measured = BTreeMap<String, f64>;

/// The client programs, and the way to run them.
#[derive(Debug)]
pub struct Runner {
    pub peers: Option<PathBuf>,
    pub libpq: Option<PathBuf>,
    /// An earlier build of this bench.
    pub earlier: Option<PathBuf>,
    /// `true` if each process is pinned to a processor.
    pub is_pinned: bool,
    pub link: Link,
    pub has_strace: bool,
}

impl Runner {
    /// Returns `true` if this kind of client can run here.
    pub fn can_run(&self, cell: &Cell, kind: &str) -> bool {
        (!cell.is_traced() || self.has_strace)
            && (!cell.is_encrypted() || cfg!(feature = "tls"))
            && match kind {
                LIBPQ => self.libpq.is_some(),
                _ if PEERS.contains(&kind) => self.peers.is_some(),
                _ if earlier_kind(kind).is_some() => self.earlier.is_some(),
                _ => true,
            }
    }

    /// Runs one kind of client through one cell.
    pub fn run(&self, cell: &Cell, kind: &str) -> Result<Measured, Box<dyn Error>> {
        match cell.task {
            Task::Burst(each) => self.on_a_real_server(cell, kind, each),
            _ => self.on_the_synthetic_server(cell, kind),
        }
    }

    fn on_the_synthetic_server(&self, cell: &Cell, kind: &str) -> Result<Measured, Box<dyn Error>> {
        let (servers, clients) = self.processors(cell);
        let link = if cell.is_encrypted() { Link::Tls } else { self.link };
        let mut server = Server::start(link, servers)?;
        let command = self.command(clients, kind)?;
        let mut client = Client::start(command, cell, kind, (server.host(), server.port(), server.answer_port()))?;
        let mut measured = client.line()?;
        let trace = if cell.is_traced() { Some(Trace::start(client.process.id())?) } else { None };
        client.go()?;
        let latencies = match cell.task {
            Task::Flood(each) | Task::FloodTraced(each) => server.flood(cell.payload, each).map(|()| Vec::new()),
            Task::Wake(events, manner) => server.wake(events, manner),
            Task::WakeTraced(events) => server.wake(events, Waiting::Sleeping),
            Task::Dial | Task::Poll(_) | Task::Burst(_) => Ok(Vec::new()),
        }?;
        for (percentile, nanos) in PERCENTILES.iter().zip(latencies) {
            measured.insert(format!("p{percentile}"), nanos as f64);
        }
        measured.extend(client.line()?);
        if let Some(trace) = trace {
            measured.insert("calls".into(), trace.stop()? as f64);
        }
        Ok(measured)
    }

    /// Measures a burst that is committed once all connections listen.
    fn on_a_real_server(&self, cell: &Cell, kind: &str, each: u64) -> Result<Measured, Box<dyn Error>> {
        let server = Cluster::start(Options::new().max_connections(cell.connections as u32 + 20))?;
        let mut client = Client::start(self.command(&[], kind)?, cell, kind, ("127.0.0.1", server.port(), 0))?;
        let mut measured = client.line()?;
        let mut sender = Connection::connect(Config::without_env(&server.url())?)?;
        sender.query("BEGIN")?;
        let padding = cell.payload - 8;
        sender.query(&format!(
            "SELECT count(pg_notify('{CHANNEL}', repeat('x', {padding}) || lpad(n::text, 8, '0'))) \
             FROM generate_series(1, {each}) AS n"
        ))?;
        let before = server.pid().and_then(cpu_of);
        client.go()?;
        sender.query("COMMIT")?;
        measured.extend(client.line()?);
        if let Some((before, after)) = before.zip(server.pid().and_then(cpu_of)) {
            measured.insert("server_cpu".into(), after.saturating_sub(before) as f64);
        }
        Ok(measured)
    }

    /// Returns the commands that pin the server and the client to a processor each. If one sleeps while the other works,
    /// they share one, because waking another processor takes longer than the work that is measured.
    fn processors(&self, cell: &Cell) -> (&'static [&'static str], &'static [&'static str]) {
        const FIRST: &[&str] = &["taskset", "-c", "0"];
        const SECOND: &[&str] = &["taskset", "-c", "1"];
        match cell.task {
            _ if !self.is_pinned => (&[], &[]),
            Task::Wake(_, Waiting::Sleeping) | Task::WakeTraced(_) => (SECOND, SECOND),
            // With several client threads, the server shares their processors.
            _ if cell.scenario == "S6" => (&[], &[]),
            _ => (FIRST, SECOND),
        }
    }

    /// Returns the client's command, after the words of `prefix`.
    fn command(&self, prefix: &[&str], kind: &str) -> Result<Command, Box<dyn Error>> {
        let program = |path: &Option<PathBuf>| path.clone().ok_or_else(|| format!("no program for {kind}"));
        let mut words: Vec<PathBuf> = prefix.iter().map(PathBuf::from).collect();
        match kind {
            LIBPQ => words.push(program(&self.libpq)?),
            _ if PEERS.contains(&kind) => words.push(program(&self.peers)?),
            _ if earlier_kind(kind).is_some() => words.extend([program(&self.earlier)?, CLIENT.into()]),
            _ => words.extend([std::env::current_exe()?, CLIENT.into()]),
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        Ok(command)
    }
}

/// Returns the name that an earlier build has for one of its kinds.
fn earlier_kind(kind: &str) -> Option<&'static str> {
    EARLIER.iter().find(|(name, _)| *name == kind).map(|(_, kind)| *kind)
}

/// A client's process, which ends when this value is dropped.
struct Client {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Ends the watchdog when it is dropped.
    _alive: mpsc::Sender<()>,
}

impl Client {
    fn start(
        mut command: Command,
        cell: &Cell,
        kind: &str,
        (host, port, answers): (&str, u16, u16),
    ) -> Result<Self, Box<dyn Error>> {
        let (task, expected) = cell.job();
        let sslmode = if cell.is_encrypted() { "require" } else { "disable" };
        let kind = earlier_kind(kind).unwrap_or(kind);
        command.args([kind, task, host, &port.to_string(), sslmode]).args([
            cell.connections.to_string(),
            expected.to_string(),
            answers.to_string(),
        ]);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
            command.env_remove(name);
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().ok_or("no standard output")?);
        let (alive, watched) = mpsc::channel::<()>();
        let id = process.id();
        std::thread::spawn(move || {
            if watched.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("speed: a client exceeded the time limit of {LIMIT:?}");
                let _ = Command::new("kill").args(["-KILL", &id.to_string()]).status();
            }
        });
        Ok(Self { process, input, output, _alive: alive })
    }

    /// Reads the next line of measurements.
    fn line(&mut self) -> Result<Measured, Box<dyn Error>> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("the client ended early".into());
        }
        let pair = |word: &str| word.split_once('=').and_then(|(name, value)| Some((name.into(), value.parse().ok()?)));
        line.split_whitespace()
            .map(|word| pair(word).ok_or_else(|| format!("the client printed {line:?}").into()))
            .collect()
    }

    fn go(&mut self) -> std::io::Result<()> {
        self.input.as_mut().map_or(Ok(()), |input| writeln!(input, "go"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The client ends when its input is closed; it is killed in case it does not.
        self.input = None;
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Counts the system calls of a running process.
struct Trace {
    strace: Child,
    table: PathBuf,
}

impl Trace {
    fn start(process: u32) -> Result<Self, Box<dyn Error>> {
        let table = std::env::temp_dir().join(format!("notifyman-strace-{process}"));
        let mut strace = Command::new("strace")
            .args(["-f", "-c", "-o"])
            .arg(&table)
            .args(["-p", &process.to_string()])
            .stderr(Stdio::piped())
            .spawn()?;
        let mut word = String::new();
        BufReader::new(strace.stderr.take().ok_or("no standard error")?).read_line(&mut word)?;
        if !word.contains("attached") {
            return Err(format!("strace: {word}").into());
        }
        Ok(Self { strace, table })
    }

    fn stop(mut self) -> Result<u64, Box<dyn Error>> {
        Command::new("kill").args(["-INT", &self.strace.id().to_string()]).status()?;
        self.strace.wait()?;
        let table = fs::read_to_string(&self.table)?;
        fs::remove_file(&self.table)?;
        // The last line is the sum: share, seconds, microseconds per call, calls, and errors if there were any.
        let total = table.lines().last().and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
        total.ok_or_else(|| format!("strace wrote {table:?}").into())
    }
}

/// Returns the CPU time of a server and its backends in nanoseconds, if the system reports it.
fn cpu_of(postmaster: u32) -> Option<u64> {
    let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).ok()?;
    let processes = children.split_whitespace().map(str::to_owned).chain([postmaster.to_string()]);
    let cpu_of_one = |process: String| {
        fs::read_to_string(format!("/proc/{process}/schedstat")).ok()?.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(processes.filter_map(cpu_of_one).sum()).filter(|all| *all > 0)
}
