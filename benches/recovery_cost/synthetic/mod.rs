//! A server for benches that is never the bottleneck, in a process of its own, so that none of its work is counted.
//!
//! ```text
//!   bench ── a line on its input: "flood 1000 …" ──▶ this program once more, as a server
//!     ▲                                                 │ one loop over all its clients
//!     └──────────────── frames, encoded before ─────────┘
//! ```
//!
//! It speaks as much of the protocol as a listener needs: a login by trust, LISTEN and UNLISTEN, the two questions that a
//! canary and an audit ask, NOTIFY of a canary, and `Sync`. Whoever measures begins with [`serve_if_told`].

mod client;
mod server;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Set in the process that is the server.
const ROLE: &str = "NOTIFYMAN_SYNTHETIC_SERVER";
/// The channel of everything that is measured.
pub const CHANNEL: &str = "c";

/// Becomes the server where this process was started to be it. It ends when its input does.
pub fn serve_if_told() {
    if std::env::var_os(ROLE).is_some() {
        server::serve().unwrap();
        std::process::exit(0);
    }
}

/// The server's process, as seen by whoever measures.
pub struct Server {
    child: Child,
    input: ChildStdin,
    port: u16,
}

impl Server {
    pub fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let input = child.stdin.take().unwrap();
        Self { child, input, port: line.trim().parse().unwrap() }
    }

    pub fn url(&self) -> String {
        format!("postgres://bench@127.0.0.1:{}/bench?connect_timeout=20&sslmode=disable", self.port)
    }

    /// Sends so many notifications to each listener, as fast as they are read.
    pub fn flood(&mut self, to_each: usize, payload: usize) {
        self.say(&format!("flood {to_each} {payload}\n"));
    }

    /// Sends so many notifications, each to a listener at random, and each after the one before was acknowledged.
    pub fn wake(&mut self, count: usize, payload: usize) {
        self.say(&format!("wake {count} {payload}\n"));
    }

    /// One has come.
    #[inline]
    pub fn acknowledge(&mut self) {
        self.say(".\n");
    }

    /// In one piece, since the server takes each for whole.
    fn say(&mut self, line: &str) {
        self.input.write_all(line.as_bytes()).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
