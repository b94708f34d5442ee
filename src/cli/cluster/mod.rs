//! A PostgreSQL server that is removed when it is dropped, for the demonstration and for the tests.
//!
//! ```text
//! let mut cluster = Cluster::create("UTF8", vec!["max_connections=500".into()])?;     // the first time about 0.6 s
//! cluster.launch_on_free_port()?;                                                     // about 70 ms
//! drop(cluster);                                                                      // stopped, and its directory removed
//! ```
//!
//! `initdb` runs once per process and encoding. Each cluster is a copy of its result, in memory if the system has room,
//! with its own port and socket. All settings that protect data are turned off. Every role can log in without a password.
//!
//! Nothing is left behind, even if this process is killed: a small `sh` process guards the directory and reads from a
//! pipe that only this process can write to. When the pipe is closed, it stops the server and removes the directory.
//!
//! [`EngineServer`] is the same for Redis and Valkey.
//!
//! This module changes no other server and no other directory, and installs no server: `tests/with-postgres` does that.
//! `tests/support/cluster.rs` has what only tests need: other logins, files, and signals.

#![allow(dead_code, unreachable_pub, reason = "the program and the tests each use a part, in private modules")]

mod directory;
mod engine;
mod error;
mod find;

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use self::directory::ServerDirectory;
#[allow(unused_imports, reason = "the tests use it")]
pub use self::engine::{EngineKind, EngineServer};
pub use self::error::ClusterError;
pub use self::find::find_server;

/// The time limit for the start and for the stop of a server.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The server's settings, before those of [`Cluster::create`].
const SETTINGS: &str = "listen_addresses=127.0.0.1 fsync=off full_page_writes=off synchronous_commit=off \
     shared_buffers=16MB autovacuum=off wal_level=minimal max_wal_senders=0 max_worker_processes=0 \
     dynamic_shared_memory_type=mmap";

/// Becomes the server, after writing its process id for the guard.
const SERVE: &str = r#"directory=$1; shift; echo "$$" >"$directory/server" && exec "$@""#;

/// A server. When dropped, it is stopped and removed.
#[derive(Debug)]
pub struct Cluster {
    pub directory: ServerDirectory,
    pub bin: PathBuf,
    /// Settings as in `postgresql.conf`: `name=value`. If a name is repeated, the last value is used.
    pub settings: Vec<String>,
    /// The TCP port on 127.0.0.1, which is also in the name of the Unix socket.
    pub port: u16,
    pub server: Option<Child>,
}

impl Cluster {
    /// Creates a cluster with databases of this encoding. Its server is not started yet.
    pub fn create(encoding: &str, settings: Vec<String>) -> Result<Self, ClusterError> {
        let bin = find_server()?;
        let directory = ServerDirectory::new()?;
        let template = template(&bin, encoding)?;
        let cluster = Self { directory, bin, settings, port: 0, server: None };
        let directory = &cluster.directory;
        directory.run(directory.command("cp").arg("-pPR").arg(&template).arg(cluster.data_dir()), "")?;
        Ok(cluster)
    }

    /// Chooses a port and starts the server; returns when it accepts connections.
    pub fn launch_on_free_port(&mut self) -> Result<(), ClusterError> {
        for _ in 0..10 {
            self.port = free_port()?;
            match self.launch() {
                Err(ClusterError(text)) if text.contains("could not bind") => {}
                other => return other,
            }
        }
        Err(ClusterError("another process took the port before the server could bind it, ten times".into()))
    }

    /// Returns the data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path.join("data")
    }

    /// Ends all sessions with FATAL 57P01 and stops the server, if it runs.
    pub fn stop(&mut self) -> Result<(), ClusterError> {
        self.stop_with("INT")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path.join("log")
    }

    /// Starts the server on its port, also again after a stop; returns when it accepts connections, or has failed.
    pub fn launch(&mut self) -> Result<(), ClusterError> {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.log_file());
        let log = log.map_err(ClusterError::context("could not open the server's log"))?;
        let logged = log.metadata().map_or(0, |log| log.len() as usize);

        let mut command = self.directory.command("sh");
        command.args(["-c", SERVE, "sh"]).arg(&self.directory.path).arg(self.bin.join("postgres"));
        command.arg("-D").arg(self.data_dir()).arg("-k").arg(&self.directory.path);
        command.args(["-p", &self.port.to_string()]);
        for setting in SETTINGS.split_whitespace().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut server = command.spawn().map_err(ClusterError::context("could not start the server"))?;

        let begin = Instant::now();
        let failure = loop {
            if self.is_ready(server.id()) {
                self.server = Some(server);
                return Ok(());
            }
            if let Ok(Some(status)) = server.try_wait() {
                break format!("the server did not start ({status})");
            }
            if begin.elapsed() > TIME_LIMIT {
                self.server = Some(server);
                self.stop_with("KILL")?;
                break format!("the server was not ready after {TIME_LIMIT:?}");
            }
            thread::sleep(Duration::from_millis(5));
        };
        let log = fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(log.get(logged..).unwrap_or_default()).into_owned();
        Err(ClusterError(format!("{failure}; its log says:\n{log}")))
    }

    /// Returns `true` if line 8 of `postmaster.pid` is `ready`. Line 1 is the process id; a killed server leaves an old file.
    fn is_ready(&self, pid: u32) -> bool {
        let state = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
        let mut lines = state.lines().map(str::trim);
        lines.next() == Some(&pid.to_string()) && lines.nth(6) == Some("ready")
    }

    /// Stops the server by a signal, if it runs.
    pub fn stop_with(&mut self, name: &str) -> Result<(), ClusterError> {
        let Some(server) = &mut self.server else { return Ok(()) };
        let begin = Instant::now();
        if !has_exited(server.try_wait()) {
            let signalled = signal(server.id(), name).and_then(|()| signal(server.id(), "CONT"));
            // A postmaster that a test has paused must be resumed to stop. It may have ended by now.
            if !has_exited(server.try_wait()) {
                signalled.map_err(ClusterError::context("could not signal the server"))?;
            }
        }
        while !has_exited(server.try_wait()) {
            if begin.elapsed() > TIME_LIMIT {
                return Err(ClusterError(format!("the server did not stop within {TIME_LIMIT:?} after SIG{name}")));
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.server = None;
        let _ = fs::remove_file(self.directory.path.join("server"));
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // No data is kept. The server gives paused sessions five seconds before it kills them.
        if self.stop_with("QUIT").is_err() {
            let _ = self.stop_with("KILL");
        }
    }
}

/// Sends a signal, named without SIG: `STOP`, `CONT`, `KILL`. It uses the shell's `kill`, which every system has.
pub fn signal(pid: u32, name: &str) -> io::Result<()> {
    let mut kill = Command::new("sh");
    kill.args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &pid.to_string()]);
    let output = kill.stdin(Stdio::null()).output()?;
    let failed = || io::Error::other(format!("SIG{name} to {pid}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    output.status.success().then_some(()).ok_or_else(failed)
}

/// Returns the result of `initdb` for this encoding, which is created once per process and kept until it ends.
fn template(bin: &Path, encoding: &str) -> Result<PathBuf, ClusterError> {
    static CREATED: LazyLock<Mutex<HashMap<(PathBuf, String), ServerDirectory>>> = LazyLock::new(Mutex::default);
    let mut created = CREATED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (bin.to_owned(), encoding.to_owned());
    if !created.contains_key(&key) {
        let directory = ServerDirectory::new()?;
        let mut initdb = directory.command(bin.join("initdb"));
        initdb.args(["--no-sync", "--locale=C", "-A", "trust", "-U", "postgres", "-E", encoding, "-D", "data"]);
        directory.run(&mut initdb, "")?;
        created.insert(key.clone(), directory);
    }
    Ok(created[&key].path.join("data"))
}

/// Returns a port of 127.0.0.1 that is free at this moment.
fn free_port() -> Result<u16, ClusterError> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| Ok(listener.local_addr()?.port()));
    port.map_err(ClusterError::context("could not find a free port"))
}

fn has_exited(state: io::Result<Option<ExitStatus>>) -> bool {
    !matches!(state, Ok(None))
}
