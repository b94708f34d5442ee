//! Proxies between a client and its server: haproxy, which fails over, and PgBouncer, which is restarted.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use super::support::*;
use crate::support::server::{LIMIT, PausedProcess};
use crate::support::tools::not_run;

/// A proxy that runs with a configuration until it is dropped.
struct Daemon {
    child: Child,
    config: PathBuf,
}

impl Daemon {
    /// Starts the program, and waits until it accepts connections on this port.
    fn start(program: &str, options: &[&str], config: &str, port: u16) -> Self {
        let file = env::temp_dir().join(format!("notifyman-{program}-{}-{port}", process::id()));
        fs::write(&file, config).unwrap();
        let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let mut command = Command::new("env");
        command.arg(format!("PATH={path}")).arg(program).args(options).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut daemon = Self { child: command.spawn().unwrap(), config: file };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("{program} did not start ({status}); `tests/tools` installs it (Debian's package {program})");
            }
            assert!(begun.elapsed() < LIMIT, "{program} takes no connections");
            thread::sleep(Duration::from_millis(10));
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn through(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/postgres?connect_timeout=2")
}

#[test]
fn m13_connections_follow_a_failover_behind_haproxy() {
    if cfg!(not(target_os = "linux")) {
        return not_run("haproxy is installed by tests/tools on Linux only");
    }
    let (first, second, port) = (cluster(), cluster(), free_port());
    let config = format!(
        "defaults
  mode tcp
  timeout connect 500ms
  timeout check 300ms
  timeout client 60s
  timeout server 60s
listen servers
  bind 127.0.0.1:{port}
  option pgsql-check user postgres
  default-server check inter 100ms fall 2 rise 1 on-marked-down shutdown-sessions
  server first 127.0.0.1:{}
  server second 127.0.0.1:{} backup
",
        first.port(),
        second.port()
    );
    let _haproxy = Daemon::start("haproxy", &["-db", "-f"], &config, port);
    let mut story = Story::begin(&through(port), &through(port));
    let before = pid(&story.nm);
    // Its sessions would continue, but it accepts no new connection.
    let _frozen = PausedProcess::process(first.pid().unwrap());
    story.notice();
    story.ledger.read_until(&mut story.nm, |ledger, _| ledger.gaps() >= 1);
    let after = pid(&story.nm);
    let serves = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {after}");
    assert_eq!(crate::support::server::ask(&mut open(&second.url()), &serves), "1", "{before} became {after}");
    story.end_well();
}

#[test]
fn m13_connections_are_restored_after_a_restart_of_the_pooler() {
    if cfg!(not(target_os = "linux")) {
        return not_run("PgBouncer is restarted on Linux only");
    }
    let (server, port) = (cluster(), free_port());
    let config = format!(
        "[databases]
postgres = host=127.0.0.1 port={} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = session
",
        server.port()
    );
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let options: &[&str] = if root { &["-u", "nobody"] } else { &[] };
    let start = || Daemon::start("pgbouncer", options, &config, port);
    let pooler = start();
    let mut story = Story::begin(&through(port), &server.url());
    drop(pooler);
    story.notice();
    story.ledger.read_for(&mut story.nm, Duration::from_millis(300));
    assert_eq!(story.nm.restoring().count(), 1, "it continues to retry");
    let _pooler = start();
    story.end_well();
}
