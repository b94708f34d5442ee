//! PgBouncer in front of a server, on its own port, with a temporary directory. It uses the installed program.
//!
//! ```text
//! let server = Cluster::start(Options::new())?;
//! let pooler = PgBouncer::start(&server, "transaction", "");
//! connect(&pooler.url());
//! ```
//!
//! It ends with the test, even if that fails or is killed: a small `sh` process ends it when its input is closed.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use super::Cluster;

const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Runs the pooler `$2` in the directory `$1` until standard input is closed. PgBouncer refuses to run as root.
const GUARD: &str = r#"
    directory=$1 program=$2; set --
    if [ "$(id -u)" = 0 ]; then set -- -u nobody; fi
    "$program" "$@" "$directory/pgbouncer.ini" </dev/null >"$directory/log" 2>&1 &
    while read -r _; do :; done
    kill "$!" 2>/dev/null; wait
    rm -rf "$directory"
"#;

/// A running pooler.
pub struct PgBouncer {
    port: u16,
    guard: Child,
}

impl PgBouncer {
    /// Starts it in a pool mode (`session`, `transaction`, `statement`), with additional settings.
    pub fn start(server: &Cluster, mode: &str, settings: &str) -> Self {
        let program = find()
            .expect("no pgbouncer found on this machine: install it, for example with `apt-get install pgbouncer`");
        (0..10)
            .find_map(|_| Self::try_start(&program, server, mode, settings))
            .expect("another process took the port, ten times")
    }

    fn try_start(program: &Path, server: &Cluster, mode: &str, settings: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!("notifyman-pgbouncer-{}-{number}", process::id()));
        fs::create_dir(&directory).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server_port = server.port();
        let users = directory.join("users");
        fs::write(&users, "\"postgres\" \"\"\n").unwrap();
        let users = users.display();
        let ini = format!(
            "[databases]\n* = host=127.0.0.1 port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {users}\n\
             pool_mode = {mode}\n{settings}\n"
        );
        fs::write(directory.join("pgbouncer.ini"), ini).unwrap();

        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "sh"]).arg(&directory).arg(program).process_group(0);
        let guard = guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pooler = Self { port, guard };
        let begin = Instant::now();
        loop {
            let mut log = String::new();
            let _ = fs::File::open(directory.join("log")).and_then(|mut file| file.read_to_string(&mut log));
            if log.contains(&format!("listening on 127.0.0.1:{port}")) {
                return Some(pooler);
            }
            if log.contains("Address already in use") {
                return None;
            }
            let has_failed = log.contains("FATAL") || begin.elapsed() > TIME_LIMIT;
            assert!(!has_failed, "pgbouncer did not start; its log:\n{log}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the superuser's connection string for the database `postgres`, through the pooler.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // `wait` closes the guard's input first, which ends the pooler.
        let _ = self.guard.wait();
    }
}

fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    directories.map(|directory| directory.join("pgbouncer")).find(|program| program.is_file())
}
