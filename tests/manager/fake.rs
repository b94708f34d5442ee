//! A server that only logs clients in and sends what the test wants: cheap enough for thousands of sessions.
//!
//! ```text
//! let mut fake = Fake::new();
//! let (db, mut line) = fake.open();      // the client's end and the server's, of one session
//! line.notify("hello");
//! drop(line);                            // closes the session
//! ```

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver};
use std::{env, fs, process, thread};

use notifyman::Connection;

use super::support::{LIMIT, connect};
use crate::support::msg;

/// A server on a Unix socket in a directory of its own.
pub struct Fake {
    directory: PathBuf,
    over: Arc<AtomicBool>,
    lines: Receiver<(i32, Line)>,
    /// Sessions that a manager opened.
    strays: Vec<(i32, Line)>,
}

impl Fake {
    pub fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let directory = env::temp_dir().join(format!("nm-fake-{}-{}", process::id(), LAST.fetch_add(1, Relaxed)));
        fs::create_dir(&directory).unwrap();
        let listener = UnixListener::bind(directory.join(".s.PGSQL.1")).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (sender, lines) = mpsc::channel();
        thread::spawn({
            let over = Arc::clone(&over);
            move || {
                for (pid, stream) in (1..).zip(listener.incoming()) {
                    if over.load(SeqCst) {
                        return;
                    }
                    let mut line = Line { stream: stream.unwrap(), sent: 0, rest: Vec::new() };
                    if line.log_in(pid).is_ok() && sender.send((pid, line)).is_err() {
                        return;
                    }
                }
            }
        });
        Self { directory, over, lines, strays: Vec::new() }
    }

    /// Opens a session. Returns both ends.
    pub fn open(&mut self) -> (Connection, Line) {
        let db = connect(&format!("host={} port=1 user=any dbname=any", self.directory.display()));
        loop {
            match self.lines.recv_timeout(LIMIT).unwrap() {
                (pid, line) if pid == db.pid() => return (db, line),
                stray => self.strays.push(stray),
            }
        }
    }

    /// Returns the server's ends of the sessions that a manager has opened, with their process ids.
    pub fn strays(&mut self) -> &mut Vec<(i32, Line)> {
        self.strays.extend(self.lines.try_iter());
        &mut self.strays
    }

    pub fn open_many(&mut self, n: usize) -> (Vec<Connection>, Vec<Line>) {
        (0..n).map(|_| self.open()).unzip()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        let _ = UnixStream::connect(self.directory.join(".s.PGSQL.1"));
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The server's end of one session. Dropping it closes the session.
pub struct Line {
    stream: UnixStream,
    sent: usize,
    /// The part of the last message that did not fit into the socket.
    rest: Vec<u8>,
}

impl Line {
    fn log_in(&mut self, pid: i32) -> io::Result<()> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        self.stream.read_exact(&mut vec![0; i32::from_be_bytes(length) as usize - 4])?;
        let encoding = ["server_encoding", "client_encoding"].map(|name| msg::parameter_status(name, "UTF8")).concat();
        let login = [msg::auth_ok(), encoding, msg::backend_key_data(pid, &[0; 4]), msg::ready(b'I')];
        self.stream.write_all(&login.concat())
    }

    /// Answers the query of the client. Returns `false` if there is no query, or the client has closed the session.
    pub fn answer(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let asked = self.stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0);
        self.stream.set_nonblocking(false).unwrap();
        let answer = [msg::command_complete("LISTEN"), msg::ready(b'I')].concat();
        asked && self.stream.write_all(&answer).is_ok()
    }

    /// Returns `false` once the client has closed the session. What it sends is discarded.
    #[cfg(feature = "stream")]
    pub fn is_open(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let read = self.stream.read(&mut [0; 4096]);
        self.stream.set_nonblocking(false).unwrap();
        matches!(&read, Ok(1..)) || read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Sends any bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn notify(&mut self, payload: &str) {
        self.send(&msg::notification(1, "c", payload));
    }

    /// Sends notifications that are numbered from 0 until the socket is full. Returns the number of complete notifications
    /// sent so far. The last one may be incomplete; the next call continues it.
    pub fn flood(&mut self) -> usize {
        self.stream.set_nonblocking(true).unwrap();
        loop {
            if self.rest.is_empty() {
                self.rest = msg::notification(1, "c", &format!("{:0>4000}", self.sent));
                self.sent += 1;
            }
            match self.stream.write(&self.rest) {
                Ok(sent) => drop(self.rest.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.stream.set_nonblocking(false).unwrap();
        self.sent - usize::from(!self.rest.is_empty())
    }
}

/// Returns the number in a notification of [`Line::flood`].
pub fn number(payload: &str) -> usize {
    payload.parse().unwrap()
}
