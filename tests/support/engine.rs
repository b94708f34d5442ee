//! Throwaway Redis and Valkey servers for tests: those of the demonstration, with persistence, limits and replicas.
//!
//! ```text
//! let engine = EngineServer::start(EngineKind::Redis, ["maxmemory 16mb"]);
//! engine.ask("SET a 1");
//! ```

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::process::Child;
use std::time::Duration;

use super::cluster::signal;
pub use super::cluster::{EngineKind, EngineServer};
use super::server::{LIMIT, eventually};
use super::tools::not_run;

impl EngineServer {
    /// Starts a server with these lines of `redis.conf`.
    pub fn start<'s>(kind: EngineKind, settings: impl IntoIterator<Item = &'s str>) -> Self {
        let settings = settings.into_iter().map(str::to_owned).collect();
        let mut engine = Self::create(kind, settings).unwrap_or_else(|error| panic!("{error}"));
        engine.launch_on_free_port().unwrap_or_else(|error| panic!("{error}"));
        engine
    }

    /// Starts a server whose URL is for TLS, with this certificate and key, both in PEM format. Clients need no certificate.
    pub fn start_with_tls(kind: EngineKind, certificate: &str, key: &str) -> Self {
        let mut engine = Self::create(kind, Vec::new()).unwrap_or_else(|error| panic!("{error}"));
        for (name, content) in [("server.crt", certificate), ("server.key", key)] {
            let path = engine.path().join(name);
            std::fs::write(&path, content).unwrap();
            let (uid, gid) = engine.directory.account.unzip();
            chown(&path, uid, gid).unwrap();
            let setting = if name == "server.crt" { "tls-cert-file" } else { "tls-key-file" };
            engine.settings.push(format!("{setting} {}", path.display()));
        }
        let plain = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        engine.settings.extend(["tls-auth-clients no".into(), format!("port {plain}")]);
        engine.has_tls = true;
        engine.launch_on_free_port().unwrap_or_else(|error| panic!("{error}"));
        engine
    }

    /// Starts a server of the same kind that follows this one; returns when it has its data.
    pub fn start_replica(&self, kind: EngineKind) -> Self {
        let replica = Self::start(kind, [format!("replicaof 127.0.0.1 {}", self.port).as_str()]);
        eventually("the replica follows", || replica.ask("INFO replication").contains("master_link_status:up"));
        replica
    }

    /// Returns the process id, unless the server is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Pauses the process until [`resume`](Self::resume).
    pub fn pause(&self) {
        signal(self.pid().unwrap(), "STOP").unwrap();
    }

    /// Resumes a paused process.
    pub fn resume(&self) {
        signal(self.pid().unwrap(), "CONT").unwrap();
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        self.stop_with("KILL").unwrap();
    }

    /// Starts the server again, on its port and with what it has kept.
    pub fn restart(&mut self) {
        self.launch().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Runs a command whose words contain no spaces, on a connection of its own; returns the answer without its types, in
    /// lines.
    pub fn ask(&self, command: &str) -> String {
        self.ask_all([command]).remove(0)
    }

    /// Like [`ask`](Self::ask), with several commands on one connection.
    pub fn ask_all<'c>(&self, commands: impl IntoIterator<Item = &'c str>) -> Vec<String> {
        commands
            .into_iter()
            .map(|command| command.split(' ').map(str::as_bytes).collect::<Vec<_>>())
            .fold((BufReader::new(self.connect()), Vec::new()), |(mut connection, mut answers), words| {
                answers.push(ask_words(&mut connection, &words));
                (connection, answers)
            })
            .1
    }

    /// Like [`ask`](Self::ask), for words of any bytes.
    pub fn ask_bytes(&self, words: &[&[u8]]) -> String {
        ask_words(&mut BufReader::new(self.connect()), words)
    }

    /// Returns the port without TLS.
    fn plain_port(&self) -> u16 {
        let port = self.settings.iter().find_map(|line| line.strip_prefix("port "));
        port.map_or(self.port, |port| port.parse().unwrap())
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(("127.0.0.1", self.plain_port())).unwrap();
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        connection
    }
}

/// Returns the kinds of which this machine has a server. That one is missing is reported as a test that did not run.
pub fn kinds() -> Vec<EngineKind> {
    [EngineKind::Redis, EngineKind::Valkey].into_iter().filter(|kind| has(*kind)).collect()
}

/// Returns `true` if this machine has a server of this kind; otherwise reports that the test did not run.
pub fn has(kind: EngineKind) -> bool {
    let found = kind.find();
    if found.is_err() {
        not_run(&format!("`{}` is missing", kind.program()));
    }
    found.is_ok()
}

fn ask_words(connection: &mut BufReader<TcpStream>, words: &[&[u8]]) -> String {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend(format!("${}\r\n", word.len()).bytes());
        request.extend_from_slice(word);
        request.extend(b"\r\n");
    }
    connection.get_mut().write_all(&request).unwrap();
    let mut answer = String::new();
    read_answer(connection, &mut answer);
    answer.truncate(answer.trim_end_matches('\n').len());
    answer
}

fn read_answer(connection: &mut BufReader<TcpStream>, answer: &mut String) {
    let mut line = String::new();
    connection.read_line(&mut line).unwrap();
    let (kind, rest) = line.trim_end().split_at(1);
    match (kind, rest.parse::<i64>()) {
        ("$", Ok(length @ 0..)) => {
            let mut bytes = vec![0; usize::try_from(length).unwrap() + 2];
            connection.read_exact(&mut bytes).unwrap();
            let _ = writeln!(answer, "{}", String::from_utf8_lossy(&bytes[..bytes.len() - 2]));
        }
        ("*", Ok(length @ 0..)) => (0..length).for_each(|_| read_answer(connection, answer)),
        ("$" | "*", _) => answer.push_str("nil\n"),
        _ => {
            let _ = writeln!(answer, "{rest}");
        }
    }
}
