//! A PostgreSQL server of one's own, thrown away at the end: for the program's demonstration and for the tests.
//!
//! ```text
//! let server = Cluster::start(Options::new().max_connections(500))?;     // about 70 ms; the first time 0.7 s
//! connect(&server.url());
//! drop(server);                                                          // stopped, and its folder gone
//! ```
//!
//! `initdb` runs once per process and encoding; each cluster is a copy of what it made, in memory where the system
//! has a place for that, with a port and a socket of its own. Everything that makes a server safe is switched off.
//!
//! Nothing is left behind, not even when this process is killed: a small `sh` guards the folder, reads what only this
//! process can write to, and when that ends stops the server and removes the folder.
//!
//! It refuses to touch a server or a folder that it didn't make, and to install one: `tests/with-postgres` does that.

#![allow(dead_code, unreachable_pub, reason = "the program and the tests use a part each, in private modules")]

mod find;
mod folder;

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

pub use self::find::find_server;
use self::folder::Folder;

/// The environment variable that names the folder with `postgres` and `initdb`.
pub const BIN_VARIABLE: &str = "NOTIFYMAN_PG_BIN";

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Always given to the server, before the settings that [`Options`] add.
const SETTINGS: &str = "listen_addresses=127.0.0.1 fsync=off full_page_writes=off synchronous_commit=off \
     shared_buffers=16MB autovacuum=off wal_level=minimal max_wal_senders=0 max_worker_processes=0 \
     dynamic_shared_memory_type=mmap";

/// Becomes the server, after leaving word of its process for the guard.
const SERVE: &str = r#"folder=$1; shift; echo "$$" >"$folder/server" && exec "$@""#;

/// Why there is no server. Its text is complete, and ends with what the server logged where it logged anything.
#[derive(Debug)]
pub struct ClusterError(String);

impl ClusterError {
    /// An error for "`what`: `reason`", fit for `map_err`.
    fn because<E: fmt::Display>(what: &str) -> impl FnOnce(E) -> Self {
        move |reason| Self(format!("{what}: {reason}"))
    }
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ClusterError {}

impl From<ClusterError> for io::Error {
    fn from(error: ClusterError) -> Self {
        Self::other(error)
    }
}

/// How a cluster shall be; [`Options::new`] makes one with 100 connections, UTF8, and no passwords.
#[derive(Debug, Clone)]
pub struct Options {
    encoding: String,
    settings: Vec<(String, String)>,
    hba: Vec<String>,
    method: String,
    password: Option<String>,
    files: Vec<(String, Vec<u8>)>,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// 100 connections, UTF8, and everybody may log in as anybody.
    pub fn new() -> Self {
        Self {
            encoding: "UTF8".into(),
            settings: Vec::new(),
            hba: Vec::new(),
            method: "trust".into(),
            password: None,
            files: Vec::new(),
        }
    }

    /// The server's `max_connections`.
    pub fn max_connections(self, n: u32) -> Self {
        self.setting("max_connections", n.to_string())
    }

    /// A setting as in `postgresql.conf`; the last one of a name counts.
    pub fn setting(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// A line of `pg_hba.conf`, before those that let everybody in; the first line that fits counts.
    pub fn hba(mut self, line: impl Into<String>) -> Self {
        self.hba.push(line.into());
        self
    }

    /// Demands a login by `scram-sha-256`, `md5` or `password`, and gives `postgres` this password.
    pub fn auth(mut self, method: &str, password: &str) -> Self {
        self.method = method.into();
        self.password = Some(password.into());
        self
    }

    /// The encoding of all databases: `UTF8`, `LATIN1`, `SQL_ASCII`.
    pub fn encoding(mut self, encoding: &str) -> Self {
        self.encoding = encoding.into();
        self
    }

    /// A file in the data folder that only the server can read, such as a TLS key; settings name it without a folder.
    pub fn file(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.into(), content.into()));
        self
    }
}

/// A running server that is stopped and deleted when this drops.
#[derive(Debug)]
pub struct Cluster {
    folder: Folder,
    bin: PathBuf,
    settings: Vec<(String, String)>,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    /// Makes a cluster and starts its server; returns when it takes connections.
    pub fn start(options: Options) -> Result<Self, ClusterError> {
        let bin = find_server()?;
        let folder = Folder::new()?;
        let data = folder.path.join("data");
        let template = template(&bin, &options.encoding)?;
        folder.run(folder.command("cp").arg("-pPR").arg(&template).arg(&data), "")?;

        let mut hba = options.hba.join("\n");
        for from in ["local all all", "host all all all"] {
            let _ = write!(hba, "\n{from} {}", options.method);
        }
        folder.write("data/pg_hba.conf", (hba + "\n").as_bytes())?;
        for (name, content) in &options.files {
            folder.write(&format!("data/{name}"), content)?;
        }
        if let Some(password) = &options.password {
            let kept_as = if options.method == "md5" { "md5" } else { "scram-sha-256" };
            let mut alone = folder.command(bin.join("postgres"));
            alone.args(["--single", "-F", "-c", &format!("password_encryption={kept_as}"), "-D"]).arg(&data);
            let sql = format!("alter role postgres password '{}'\n", password.replace('\'', "''"));
            folder.run(alone.arg("postgres"), &sql)?;
        }

        let mut cluster = Self { folder, bin, settings: options.settings, port: 0, server: None };
        for _ in 0..10 {
            cluster.port = free_port()?;
            match cluster.launch() {
                Err(ClusterError(text)) if text.contains("could not bind") => {}
                other => return other.map(|()| cluster),
            }
        }
        Err(ClusterError("ten free ports in a row were taken by others before the server could bind one".into()))
    }

    /// The TCP port on 127.0.0.1, which also names the Unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the Unix socket, which goes for a host name in a connection string.
    pub fn socket_dir(&self) -> &Path {
        &self.folder.path
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path.join("data")
    }

    /// Where the superuser finds it by TCP, without a password.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The process of the server, the postmaster; none while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// The last 16 KiB of what the server logged.
    pub fn log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(16 << 10)..]).into_owned()
    }

    /// Ends all sessions with FATAL 57P01 and stops the server; without a server it does nothing.
    pub fn stop(&mut self) -> Result<(), ClusterError> {
        self.stop_by("INT")
    }

    /// Stops the server as an emergency would: every session gets WARNING 57P02 and the end.
    pub fn stop_immediate(&mut self) -> Result<(), ClusterError> {
        self.stop_by("QUIT")
    }

    /// Kills the postmaster; its sessions notice by themselves, so those that a test has paused must go on first.
    pub fn kill(&mut self) -> Result<(), ClusterError> {
        self.stop_by("KILL")
    }

    /// Starts the server again on the same port with the same data, stopping it first if it runs.
    pub fn restart(&mut self) -> Result<(), ClusterError> {
        self.stop()?;
        let begin = Instant::now();
        loop {
            match self.launch() {
                // A killed server's last sessions are still ending.
                Err(ClusterError(text))
                    if text.contains("pre-existing shared memory") && begin.elapsed() < PATIENCE => {}
                other => return other,
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path.join("log")
    }

    /// Starts the server on its port and waits until it is ready, or until it has failed.
    fn launch(&mut self) -> Result<(), ClusterError> {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.log_file());
        let log = log.map_err(ClusterError::because("opening the server's log"))?;
        let logged = log.metadata().map_or(0, |log| log.len() as usize);

        let mut command = self.folder.command("sh");
        command.args(["-c", SERVE, "sh"]).arg(&self.folder.path).arg(self.bin.join("postgres"));
        command.arg("-D").arg(self.data_dir()).arg("-k").arg(&self.folder.path);
        command.args(["-p", &self.port.to_string()]);
        for setting in SETTINGS.split_whitespace() {
            command.args(["-c", setting]);
        }
        for (name, value) in &self.settings {
            command.args(["-c", &format!("{name}={value}")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut server = command.spawn().map_err(ClusterError::because("starting the server"))?;

        let begin = Instant::now();
        let failure = loop {
            if self.is_ready(server.id()) {
                self.server = Some(server);
                return Ok(());
            }
            if let Ok(Some(status)) = server.try_wait() {
                break format!("the server didn't start ({status})");
            }
            if begin.elapsed() > PATIENCE {
                self.server = Some(server);
                self.kill()?;
                break format!("the server wasn't ready after {PATIENCE:?}");
            }
            thread::sleep(Duration::from_millis(5));
        };
        let log = fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(log.get(logged..).unwrap_or_default()).into_owned();
        Err(ClusterError(format!("{failure}; its log says:\n{log}")))
    }

    /// Line 8 of `postmaster.pid` says so. The first is its process: a killed server leaves the file of before.
    fn is_ready(&self, pid: u32) -> bool {
        let state = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
        let mut lines = state.lines().map(str::trim);
        lines.next() == Some(&pid.to_string()) && lines.nth(6) == Some("ready")
    }

    fn stop_by(&mut self, name: &str) -> Result<(), ClusterError> {
        let Some(server) = &mut self.server else { return Ok(()) };
        let begin = Instant::now();
        if !exited(server.try_wait()) {
            let signalled = signal(server.id(), name).and_then(|()| signal(server.id(), "CONT"));
            // A postmaster that a test has paused must go on to stop; one that is killed may be gone by now.
            if !exited(server.try_wait()) {
                signalled.map_err(ClusterError::because("signalling the server"))?;
            }
        }
        while !exited(server.try_wait()) {
            if begin.elapsed() > PATIENCE {
                return Err(ClusterError(format!("the server didn't stop within {PATIENCE:?} after SIG{name}")));
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.server = None;
        let _ = fs::remove_file(self.folder.path.join("server"));
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // There is nothing to save. Sessions that are paused get five seconds from the server before it kills them.
        if self.stop_immediate().is_err() {
            let _ = self.kill();
        }
    }
}

/// Sends a signal, named without its SIG: `STOP`, `CONT`, `KILL`. The shell's own `kill` is there on any system.
pub fn signal(pid: u32, name: &str) -> io::Result<()> {
    let mut kill = Command::new("sh");
    kill.args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &pid.to_string()]);
    let said = kill.stdin(Stdio::null()).output()?;
    match said.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("SIG{name} to {pid}: {}", String::from_utf8_lossy(&said.stderr).trim()))),
    }
}

/// What `initdb` made for this encoding: once in a process, and kept to its end, when the guard's input closes.
fn template(bin: &Path, encoding: &str) -> Result<PathBuf, ClusterError> {
    static MADE: Mutex<Option<HashMap<(PathBuf, String), Folder>>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let made = made.get_or_insert_default();
    let key = (bin.to_owned(), encoding.to_owned());
    if !made.contains_key(&key) {
        let folder = Folder::new()?;
        let mut initdb = folder.command(bin.join("initdb"));
        initdb.args(["--no-sync", "--locale=C", "-A", "trust", "-U", "postgres", "-E", encoding, "-D", "data"]);
        folder.run(&mut initdb, "")?;
        made.insert(key.clone(), folder);
    }
    Ok(made[&key].path.join("data"))
}

/// A port of 127.0.0.1 that nobody uses at this moment.
fn free_port() -> Result<u16, ClusterError> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| Ok(listener.local_addr()?.port()));
    port.map_err(ClusterError::because("looking for a free port"))
}

fn exited(state: io::Result<Option<ExitStatus>>) -> bool {
    !matches!(state, Ok(None))
}
