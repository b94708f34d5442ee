//! A minimal server for thousands of listeners: it accepts a login, acknowledges one LISTEN, and then sends what the test
//! writes. It allocates on a thread of its own, so its allocations are not counted.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;
use std::{env, fs, process, thread};

use notifyman::{Config, Connection};

use crate::{msg, uncounted};

/// The server, which listens on a Unix socket in its own directory.
pub struct Server {
    directory: PathBuf,
    ends: Receiver<UnixStream>,
    config: Config,
}

impl Server {
    pub fn start() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let directory = env::temp_dir().join(format!("nm-memory-{}-{}", process::id(), LAST.fetch_add(1, Relaxed)));
        fs::create_dir(&directory).unwrap();
        let listener = UnixListener::bind(directory.join(".s.PGSQL.1")).unwrap();
        let (sender, ends) = mpsc::channel();
        thread::spawn(move || {
            for (pid, stream) in (1..).zip(listener.incoming()) {
                let Ok(mut stream) = stream else { return };
                // A client that does not log in ends the server.
                if log_in(&mut stream, pid).is_err() || sender.send(stream).is_err() {
                    return;
                }
            }
        });
        let config = Config::new().host(directory.to_str().unwrap()).port(1).user("app").dbname("shop");
        Self { directory, ends, config }
    }

    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// Opens a session that listens, and returns it with the server's end of it.
    pub fn open(&self, channel: &str) -> (Connection, ServerEnd) {
        let mut db = Connection::connect(&self.config).unwrap();
        db.listen([channel]).unwrap();
        (db, uncounted(|| self.end()))
    }

    /// Returns the server's end of the next session that a client has opened, as soon as its LISTEN has been answered.
    pub fn end(&self) -> ServerEnd {
        ServerEnd { stream: self.ends.recv_timeout(Duration::from_secs(60)).unwrap() }
    }

    /// Returns the server's ends of the sessions that clients have opened so far, perhaps without the last one: a client can
    /// read the answer to its LISTEN before the server hands out its end.
    pub fn ends(&self) -> Vec<ServerEnd> {
        self.ends.try_iter().map(|stream| ServerEnd { stream }).collect()
    }

    pub fn open_many(&self, count: usize) -> (Vec<Connection>, Vec<ServerEnd>) {
        (0..count).map(|_| self.open(CHANNEL)).unzip()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = UnixStream::connect(self.directory.join(".s.PGSQL.1"));
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A channel name of 16 bytes.
pub const CHANNEL: &str = "sixteen_letters_";

/// The server's end of one session, which is closed when dropped.
pub struct ServerEnd {
    stream: UnixStream,
}

impl ServerEnd {
    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Answers a pending request; returns `false` if there is none.
    pub fn answer(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let is_requested = self.stream.read(&mut [0; 512]).is_ok_and(|n| n > 0);
        self.stream.set_nonblocking(false).unwrap();
        is_requested && self.stream.write_all(&[b'Z', 0, 0, 0, 5, b'I']).is_ok()
    }
}

pub fn log_in(stream: &mut (impl io::Read + io::Write), pid: i32) -> io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    stream.read_exact(&mut vec![0; i32::from_be_bytes(length) as usize - 4])?;
    let parameters = PARAMETERS.map(|(name, value)| msg::parameter_status(name, value)).concat();
    stream.write_all(&[msg::auth_ok(), parameters, msg::backend_key_data(pid, &[7; 4]), msg::ready(b'I')].concat())?;
    // The LISTEN.
    if stream.read(&mut [0; 512])? > 0 {
        stream.write_all(&[msg::command_complete("LISTEN"), msg::ready(b'I')].concat())?;
    }
    Ok(())
}

/// The parameters that a real server reports.
const PARAMETERS: [(&str, &str); 15] = [
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("TimeZone", "Europe/Berlin"),
    ("IntervalStyle", "postgres"),
    ("search_path", "\"$user\", public"),
    ("is_superuser", "off"),
    ("application_name", ""),
    ("default_transaction_read_only", "off"),
    ("scram_iterations", "4096"),
    ("DateStyle", "ISO, MDY"),
    ("standard_conforming_strings", "on"),
    ("session_authorization", "app"),
    ("client_encoding", "UTF8"),
    ("server_version", "18.0 (Debian 18.0-1.pgdg13+3)"),
    ("server_encoding", "UTF8"),
];
