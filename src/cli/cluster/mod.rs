//! A PostgreSQL server that is removed when it is dropped, for the demonstration and for the tests.
//!
//! ```text
//! let server = Cluster::start(Options::new().max_connections(500))?;     // about 70 ms; the first time 0.7 s
//! connect(&server.url());
//! drop(server);                                                          // stopped, and its directory removed
//! ```
//!
//! `initdb` runs once per process and encoding. Each cluster is a copy of its result, in memory if the system has room,
//! with its own port and socket. All settings that protect data are turned off.
//!
//! Nothing is left behind, even if this process is killed: a small `sh` process guards the directory and reads from a
//! pipe that only this process can write to. When the pipe is closed, it stops the server and removes the directory.
//!
//! This module changes no other server and no other directory, and installs no server: `tests/with-postgres` does that.

#![allow(dead_code, unreachable_pub, reason = "the program and the tests each use a part, in private modules")]

mod directory;
mod error;
mod find;
mod options;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use self::directory::ServerDirectory;
pub use self::error::ClusterError;
pub use self::find::find_server;
pub use self::options::Options;

/// The time limit for the start and for the stop of a server.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The server's settings, before those of [`Options`].
const SETTINGS: &str = "listen_addresses=127.0.0.1 fsync=off full_page_writes=off synchronous_commit=off \
     shared_buffers=16MB autovacuum=off wal_level=minimal max_wal_senders=0 max_worker_processes=0 \
     dynamic_shared_memory_type=mmap";

/// Becomes the server, after writing its process id for the guard.
const SERVE: &str = r#"directory=$1; shift; echo "$$" >"$directory/server" && exec "$@""#;

/// A running server. When dropped, it is stopped and removed.
#[derive(Debug)]
pub struct Cluster {
    directory: ServerDirectory,
    bin: PathBuf,
    settings: Vec<(String, String)>,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    /// Creates a cluster and starts its server; returns when the server accepts connections.
    pub fn start(options: Options) -> Result<Self, ClusterError> {
        let bin = find_server()?;
        let directory = ServerDirectory::new()?;
        let data = directory.path.join("data");
        let template = template(&bin, &options.encoding)?;
        directory.run(directory.command("cp").arg("-pPR").arg(&template).arg(&data), "")?;

        let mut hba = options.hba.join("\n");
        for from in ["local all all", "host all all all"] {
            let _ = write!(hba, "\n{from} {}", options.method);
        }
        directory.write("data/pg_hba.conf", (hba + "\n").as_bytes())?;
        for (name, content) in &options.files {
            directory.write(&format!("data/{name}"), content)?;
        }
        if let Some(password) = &options.password {
            let stored_as = if options.method == "md5" { "md5" } else { "scram-sha-256" };
            let mut single_user = directory.command(bin.join("postgres"));
            single_user.args(["--single", "-F", "-c", &format!("password_encryption={stored_as}"), "-D"]).arg(&data);
            let sql = format!("alter role postgres password '{}'\n", password.replace('\'', "''"));
            directory.run(single_user.arg("postgres"), &sql)?;
        }

        let mut cluster = Self { directory, bin, settings: options.settings, port: 0, server: None };
        for _ in 0..10 {
            cluster.port = free_port()?;
            match cluster.launch() {
                Err(ClusterError(text)) if text.contains("could not bind") => {}
                other => return other.map(|()| cluster),
            }
        }
        Err(ClusterError("another process took the port before the server could bind it, ten times".into()))
    }

    /// Returns the TCP port on 127.0.0.1, which is also in the name of the Unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory of the Unix socket, which a connection string can use as its host.
    pub fn socket_dir(&self) -> &Path {
        &self.directory.path
    }

    /// Returns the data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path.join("data")
    }

    /// Returns the superuser's connection string for TCP, without a password.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Returns the process id of the postmaster, unless the server is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// Returns the last 16 KiB of the server's log.
    pub fn log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(16 << 10)..]).into_owned()
    }

    /// Ends all sessions with FATAL 57P01 and stops the server, if it runs.
    pub fn stop(&mut self) -> Result<(), ClusterError> {
        self.stop_with("INT")
    }

    /// Stops the server immediately: every session receives WARNING 57P02 and is closed.
    pub fn stop_immediate(&mut self) -> Result<(), ClusterError> {
        self.stop_with("QUIT")
    }

    /// Kills the postmaster. Its sessions end when they notice; a session that a test has paused must be resumed first.
    pub fn kill(&mut self) -> Result<(), ClusterError> {
        self.stop_with("KILL")
    }

    /// Restarts the server on the same port with the same data; stops it first if it runs.
    pub fn restart(&mut self) -> Result<(), ClusterError> {
        self.stop()?;
        let begin = Instant::now();
        loop {
            match self.launch() {
                // The last sessions of a killed server have not ended yet.
                Err(ClusterError(text))
                    if text.contains("pre-existing shared memory") && begin.elapsed() < TIME_LIMIT => {}
                other => return other,
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path.join("log")
    }

    /// Starts the server on its port, and waits until it is ready or has failed.
    fn launch(&mut self) -> Result<(), ClusterError> {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.log_file());
        let log = log.map_err(ClusterError::context("could not open the server's log"))?;
        let logged = log.metadata().map_or(0, |log| log.len() as usize);

        let mut command = self.directory.command("sh");
        command.args(["-c", SERVE, "sh"]).arg(&self.directory.path).arg(self.bin.join("postgres"));
        command.arg("-D").arg(self.data_dir()).arg("-k").arg(&self.directory.path);
        command.args(["-p", &self.port.to_string()]);
        for setting in SETTINGS.split_whitespace() {
            command.args(["-c", setting]);
        }
        for (name, value) in &self.settings {
            command.args(["-c", &format!("{name}={value}")]);
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
                self.kill()?;
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

    fn stop_with(&mut self, name: &str) -> Result<(), ClusterError> {
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
        if self.stop_immediate().is_err() {
            let _ = self.kill();
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
