//! Throwaway servers for tests: those of the demonstration, with any logins, files and encoding.
//!
//! ```text
//! let server = Cluster::start(Options::new().max_connections(500))?;     // about 70 ms; the first time 0.7 s
//! connect(&server.url());
//! drop(server);                                                          // stopped, and its directory removed
//! ```

#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test uses a part, in private modules")]

#[path = "../../src/cli/cluster/mod.rs"]
mod program;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

pub use self::program::{Cluster, ClusterError, EngineKind, EngineServer, find_server, signal};

/// The time limit for the end of a killed server's sessions.
const TIME_LIMIT: Duration = Duration::from_secs(30);

impl Cluster {
    /// Creates a cluster and starts its server; returns when the server accepts connections.
    pub fn start(options: Options) -> Result<Self, ClusterError> {
        let mut cluster = Self::create(&options.encoding, options.settings)?;
        let mut hba = options.hba.join("\n");
        for from in ["local all all", "host all all all"] {
            let _ = write!(hba, "\n{from} {}", options.method);
        }
        cluster.write("data/pg_hba.conf", (hba + "\n").as_bytes())?;
        for (name, content) in &options.files {
            cluster.write(&format!("data/{name}"), content)?;
        }
        if let Some(password) = &options.password {
            let stored_as = if options.method == "md5" { "md5" } else { "scram-sha-256" };
            let mut single_user = cluster.directory.command(cluster.bin.join("postgres"));
            single_user.args(["--single", "-F", "-c", &format!("password_encryption={stored_as}"), "-D"]);
            let sql = format!("alter role postgres password '{}'\n", password.replace('\'', "''"));
            cluster.directory.run(single_user.arg(cluster.data_dir()).arg("postgres"), &sql)?;
        }
        cluster.launch_on_free_port()?;
        Ok(cluster)
    }

    /// Writes a file that only the server's account can read.
    fn write(&self, name: &str, content: &[u8]) -> Result<(), ClusterError> {
        let path = self.directory.path.join(name);
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(content));
        let (uid, gid) = self.directory.account.unzip();
        let context = format!("could not write {}", path.display());
        written.and_then(|()| chown(&path, uid, gid)).map_err(ClusterError::context(&context))
    }

    /// Returns the TCP port on 127.0.0.1, which is also in the name of the Unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory of the Unix socket, which a connection string can use as its host.
    pub fn socket_dir(&self) -> &Path {
        &self.directory.path
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
        let log = fs::read(self.directory.path.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(16 << 10)..]).into_owned()
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
}

impl From<ClusterError> for std::io::Error {
    fn from(error: ClusterError) -> Self {
        Self::other(error)
    }
}

/// The options of a cluster. [`Options::new`] sets 100 connections, the encoding UTF8, and logins without a password.
#[derive(Debug, Clone)]
pub struct Options {
    encoding: String,
    settings: Vec<String>,
    hba: Vec<String>,
    method: String,
    password: Option<String>,
    files: Vec<(String, Vec<u8>)>,
}

impl Options {
    /// Returns the defaults: 100 connections, UTF8, and any role can log in without a password.
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

    /// Sets the server's `max_connections`.
    pub fn max_connections(self, n: u32) -> Self {
        self.setting("max_connections", n.to_string())
    }

    /// Adds a setting, as in `postgresql.conf`. If a name is repeated, the last value is used.
    pub fn setting(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.push(format!("{name}={}", value.into()));
        self
    }

    /// Adds a line to `pg_hba.conf`, before those that allow every login. The first line that matches is used.
    pub fn hba(mut self, line: impl Into<String>) -> Self {
        self.hba.push(line.into());
        self
    }

    /// Requires a login by `scram-sha-256`, `md5` or `password`, and gives `postgres` this password.
    pub fn auth(mut self, method: &str, password: &str) -> Self {
        self.method = method.into();
        self.password = Some(password.into());
        self
    }

    /// Sets the encoding of all databases: `UTF8`, `LATIN1`, `SQL_ASCII`.
    pub fn encoding(mut self, encoding: &str) -> Self {
        self.encoding = encoding.into();
        self
    }

    /// Adds a file to the data directory that only the server can read, such as a TLS key. Settings refer to it by its
    /// name alone.
    pub fn file(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.into(), content.into()));
        self
    }
}
