//! The program, run as its users run it, against throwaway servers.

mod arguments;
mod builds;
mod changes;
mod delivery;
mod demo;
mod doctor;
mod exec;
mod exit_codes;
mod health;
mod help;
mod listen;
mod notify;
mod pty;
mod readers;
mod relay;
mod start;
mod systemd;
mod terminal;

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::{Config, Connection};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::support::{Cluster, Options};

/// The time limit of each step.
const LIMIT: Duration = crate::support::server::LIMIT;
const PROGRAM: &str = env!("CARGO_BIN_EXE_notifyman");

fn cluster() -> Cluster {
    Cluster::start(Options::new().max_connections(30)).unwrap()
}

fn connect(cluster: &Cluster) -> Connection {
    Connection::connect(Config::without_env(&cluster.url()).unwrap()).unwrap()
}

/// Returns a command without the environment's settings for servers and colors.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
    command
}

/// Runs the program to its end without input.
fn run(args: &[&str]) -> Finished {
    Running::start(args).finish()
}

/// A running program, with its output as lines.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Lines,
    err: Lines,
}

/// The exit status and the output of a program that has ended.
#[derive(Debug)]
struct Finished {
    status: ExitStatus,
    out: Vec<String>,
    err: Vec<String>,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        Self::spawn(command(PROGRAM).args(args))
    }

    /// Starts `listen`, and waits until all connections listen.
    fn listener(urls: &[String], args: &[&str]) -> Self {
        let mut command = command(PROGRAM);
        command.arg("listen").args(args);
        for url in urls {
            command.args(["--url", url]);
        }
        let running = Self::spawn(&mut command);
        let mut lines: Vec<_> = urls.iter().map(|_| running.err.next()).collect();
        // The connections are opened concurrently, so their lines come in any order.
        lines.sort();
        for (number, line) in (1..).zip(&lines) {
            assert!(line.starts_with(&format!("notifyman: connection {number} listens to ")), "{line}");
            assert!(line.contains(" at 127.0.0.1:"), "{line}");
        }
        running
    }

    fn spawn(command: &mut Command) -> Self {
        // A group of its own, for pipelines.
        command.process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = Lines::of(child.stdout.take().unwrap());
        let err = Lines::of(child.stderr.take().unwrap());
        Self { stdin: child.stdin.take(), child, out, err }
    }

    fn write_input(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Sends a signal, named without SIG.
    fn signal(&self, name: &str) {
        crate::support::cluster::signal(self.child.id(), name).unwrap();
    }

    /// Closes the program's input, and waits for its end.
    fn finish(mut self) -> Finished {
        drop(self.stdin.take());
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < LIMIT, "the program does not end");
            thread::sleep(Duration::from_millis(5));
        };
        Finished { status, out: self.out.rest(), err: self.err.rest() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Finished {
    #[track_caller]
    fn ends_with(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self
    }

    fn err(&self) -> String {
        self.err.join("\n")
    }

    fn out(&self) -> String {
        self.out.join("\n")
    }
}

/// Lines from a pipe.
struct Lines(Receiver<String>);

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(lines)
    }

    #[track_caller]
    fn next(&self) -> String {
        self.0.recv_timeout(LIMIT).expect("a line")
    }

    fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.0.recv_timeout(LIMIT).ok()).collect()
    }
}
