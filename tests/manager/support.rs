//! What the manager's tests share: one server, and the words in which they read as scripts.

use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use notifyman::{Batch, Config, ConnId, Connection, Event, NotificationManager};

pub use crate::support::server::LIMIT;
use crate::support::{Cluster, Options};

/// The server of all tests that do it no harm.
pub fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| Cluster::start(Options::new().max_connections(200)).unwrap())
}

/// A connection to it.
pub fn open() -> Connection {
    connect(&server().url())
}

pub fn connect(url: &str) -> Connection {
    Connection::connect(Config::without_env(url).unwrap()).unwrap()
}

/// A connection to it that listens.
pub fn listener(channel: &str) -> Connection {
    let mut db = open();
    db.listen([channel]).unwrap();
    db
}

/// Returns a channel that no other test uses.
pub fn channel() -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    format!("channel {} of {}", LAST.fetch_add(1, Relaxed), std::process::id())
}

pub fn payloads(batch: &Batch) -> Vec<String> {
    batch.iter().map(|n| n.payload().into_owned()).collect()
}

/// Tells an end that came by itself from one that came because nothing did.
pub struct Watchdog {
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    /// Stops this manager after [`LIMIT`], unless it is dropped before, so that a test fails and does not hang.
    pub fn over(nm: &NotificationManager) -> Self {
        let handle = nm.handle();
        let (alive, dropped) = mpsc::channel::<()>();
        thread::spawn(move || {
            if dropped.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("nothing came for {LIMIT:?}: the watchdog stops the manager");
                handle.stop();
            }
        });
        Self { _alive: alive }
    }
}

/// Returns the next batch and its connection, and skips idle events.
pub fn batch(nm: &mut NotificationManager) -> (ConnId, Batch) {
    let _watchdog = Watchdog::over(nm);
    loop {
        match nm.next().expect("a batch, not the end") {
            Some(received) => return received,
            None if nm.current_timeout().is_none() => panic!("idle without a timeout"),
            None => {}
        }
    }
}

/// Returns the next payloads, each with its connection.
pub fn receive(nm: &mut NotificationManager, n: usize) -> Vec<(ConnId, String)> {
    let mut received = Vec::new();
    while received.len() < n {
        let (id, batch) = batch(nm);
        assert!(!batch.is_empty() || batch.gap().is_some(), "an empty batch of {id}");
        received.extend(payloads(&batch).into_iter().map(|payload| (id, payload)));
    }
    received
}

/// The next event that is not idle; none at the end.
pub fn event(nm: &mut NotificationManager) -> Option<Event> {
    let _watchdog = Watchdog::over(nm);
    loop {
        match nm.next_event() {
            Some(Event::Idle) => {}
            other => return other,
        }
    }
}

/// Iterates to the next idle event, and collects what comes before.
pub fn until_idle(nm: &mut NotificationManager) -> Vec<(ConnId, String)> {
    let _watchdog = Watchdog::over(nm);
    let mut received = Vec::new();
    while let Some((id, batch)) = nm.next().expect("an idle event, not the end") {
        received.extend(payloads(&batch).into_iter().map(|payload| (id, payload)));
    }
    received
}

/// Iterates to the end; gives what came and how often it was idle.
pub fn until_end(nm: &mut NotificationManager) -> (Vec<(ConnId, String)>, usize) {
    let _watchdog = Watchdog::over(nm);
    let (mut received, mut idle) = (Vec::new(), 0);
    for event in nm {
        match event {
            None => idle += 1,
            Some((id, batch)) => received.extend(payloads(&batch).into_iter().map(|payload| (id, payload))),
        }
    }
    (received, idle)
}

/// Asks again and again until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The ids of a manager's good connections.
pub fn ids(nm: &NotificationManager) -> Vec<ConnId> {
    nm.connections().map(|(id, _)| id).collect()
}

/// The ids of a manager's dead.
pub fn dead(nm: &NotificationManager) -> Vec<ConnId> {
    nm.garbage().map(|(id, _)| id).collect()
}

/// Ends a session from another; returns when the server has done it.
pub fn terminate(pid: i32) {
    let mut admin = open();
    admin.query(&format!("select pg_terminate_backend({pid})")).unwrap();
    let alive = format!("select from pg_stat_activity where pid = {pid}");
    until("the session ends", || admin.query(&alive).unwrap().is_empty());
}

/// Set in a process that plays the child's part of a test.
const CHILD: &str = "NOTIFYMAN_TEST_CHILD";

/// What the parent gave it to know, in a process that plays the child's part.
pub fn child() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// This test once more in a process of its own, with so many descriptors if the system allows.
pub fn child_command(test: &str, descriptors: u32, knows: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -S -n "$1" || ulimit -S -n "$(ulimit -H -n)"; shift; exec "$@""#, "sh"]);
    command.arg(descriptors.to_string()).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, knows);
    command
}

/// Asserts that a child's part went well, and that it was played at all.
pub fn assert_passed(child: &Output) {
    let reported = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && reported.contains("1 passed"), "{reported}");
}
