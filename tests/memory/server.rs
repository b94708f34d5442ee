//! A server of thousands of idle listeners, as thin as can be: it logs in, acknowledges one LISTEN, and then says what
//! the test writes. All that it allocates, it allocates on a thread of its own, so none of it is counted.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;
use std::{env, fs, process, thread};

use notifyman::{Config, Connection};

use crate::{beside, msg};

/// Listens on a Unix socket in a folder of its own.
pub struct Server {
    folder: PathBuf,
    lines: Receiver<UnixStream>,
    config: Config,
}

impl Server {
    pub fn start() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let folder = env::temp_dir().join(format!("nm-memory-{}-{}", process::id(), LAST.fetch_add(1, Relaxed)));
        fs::create_dir(&folder).unwrap();
        let listener = UnixListener::bind(folder.join(".s.PGSQL.1")).unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for (pid, stream) in (1..).zip(listener.incoming()) {
                let Ok(mut stream) = stream else { return };
                // One that only knocks is the end.
                if log_in(&mut stream, pid).is_err() || sender.send(stream).is_err() {
                    return;
                }
            }
        });
        let config = Config::new().host(folder.to_str().unwrap()).port(1).user("app").dbname("shop");
        Self { folder, lines, config }
    }

    /// A new session that listens, and the server's end of it.
    pub fn open(&self, channel: &str) -> (Connection, Line) {
        let mut db = Connection::connect(&self.config).unwrap();
        db.listen([channel]).unwrap();
        let stream = beside(|| self.lines.recv_timeout(Duration::from_secs(60)).unwrap());
        (db, Line { stream })
    }

    /// The server's ends of the sessions that a manager has opened since.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.try_iter().map(|stream| Line { stream }).collect()
    }

    pub fn open_many(&self, count: usize) -> (Vec<Connection>, Vec<Line>) {
        (0..count).map(|_| self.open(CHANNEL)).unzip()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = UnixStream::connect(self.folder.join(".s.PGSQL.1"));
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A channel of 16 bytes.
pub const CHANNEL: &str = "sixteen_letters_";

/// The server's end of one session; dropping it hangs up.
pub struct Line {
    stream: UnixStream,
}

impl Line {
    /// Sends these bytes.
    pub fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Answers what is asked, if something is asked by now; says whether.
    pub fn answer(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let asked = self.stream.read(&mut [0; 512]).is_ok_and(|n| n > 0);
        self.stream.set_nonblocking(false).unwrap();
        asked && self.stream.write_all(&[b'Z', 0, 0, 0, 5, b'I']).is_ok()
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

/// What a real server reports.
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
