//! A shared server, and functions that let the manager's tests read as scripts.

use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use notifyman::{Batch, Config, ConnId, Connection, Event, NotificationManager};

pub use crate::support::server::LIMIT;
use crate::support::{Cluster, Options};

/// Returns the server that all tests share that do not stop or reconfigure it.
pub fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| Cluster::start(Options::new().max_connections(200)).unwrap())
}

/// Opens a connection to the shared server.
pub fn open() -> Connection {
    connect(&server().url())
}

pub fn connect(url: &str) -> Connection {
    Connection::connect(Config::without_env(url).unwrap()).unwrap()
}

/// Opens a connection to the shared server, and listens.
pub fn listener(channel: &str) -> Connection {
    let mut db = open();
    db.listen([channel]).unwrap();
    db
}

/// Returns the name of a channel that no other test uses.
pub fn channel() -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    format!("channel {} of {}", LAST.fetch_add(1, Relaxed), std::process::id())
}

pub fn payloads(batch: &Batch) -> Vec<String> {
    batch.iter().map(|n| n.payload().into_owned()).collect()
}

/// Stops a manager that does not end by itself.
pub struct Watchdog {
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    /// Stops this manager after [`LIMIT`], unless it is dropped before, so that the test fails and does not hang.
    pub fn over(nm: &NotificationManager) -> Self {
        let handle = nm.handle();
        let (alive, dropped) = mpsc::channel::<()>();
        thread::spawn(move || {
            if dropped.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("nothing has arrived for {LIMIT:?}: the watchdog stops the manager");
                handle.stop();
            }
        });
        Self { _alive: alive }
    }
}

/// Returns the next batch and its connection, and discards idle events.
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

/// Receives at least `n` notifications. Returns their payloads, each with its connection.
pub fn receive(nm: &mut NotificationManager, n: usize) -> Vec<(ConnId, String)> {
    let mut received = Vec::new();
    while received.len() < n {
        let (id, batch) = batch(nm);
        assert!(!batch.is_empty() || batch.gap().is_some(), "an empty batch of {id}");
        received.extend(payloads(&batch).into_iter().map(|payload| (id, payload)));
    }
    received
}

/// Returns the next event other than an idle event; `None` at the end.
pub fn event(nm: &mut NotificationManager) -> Option<Event> {
    let _watchdog = Watchdog::over(nm);
    loop {
        match nm.next_event() {
            Some(Event::Idle) => {}
            other => return other,
        }
    }
}

/// Iterates until the next idle event. Returns the payloads received before it, each with its connection.
pub fn until_idle(nm: &mut NotificationManager) -> Vec<(ConnId, String)> {
    let _watchdog = Watchdog::over(nm);
    let mut received = Vec::new();
    while let Some((id, batch)) = nm.next().expect("an idle event, not the end") {
        received.extend(payloads(&batch).into_iter().map(|payload| (id, payload)));
    }
    received
}

/// Iterates until the end. Returns the payloads received, each with its connection, and the number of idle events.
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

/// Waits until the condition is true.
pub fn until(condition: &str, mut is_true: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_true() {
        assert!(begin.elapsed() < LIMIT, "{condition}: not within {LIMIT:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Returns the ids of a manager's live connections.
pub fn ids(nm: &NotificationManager) -> Vec<ConnId> {
    nm.connections().map(|(id, _)| id).collect()
}

/// Returns the ids in a manager's garbage.
pub fn dead(nm: &NotificationManager) -> Vec<ConnId> {
    nm.garbage().map(|(id, _)| id).collect()
}

/// Terminates a session, and waits until the server has ended it.
pub fn terminate(pid: i32) {
    let mut admin = open();
    admin.query(&format!("select pg_terminate_backend({pid})")).unwrap();
    let alive = format!("select from pg_stat_activity where pid = {pid}");
    until("the session ends", || admin.query(&alive).unwrap().is_empty());
}

/// The environment variable that is set in the child process of a test.
const CHILD: &str = "NOTIFYMAN_TEST_CHILD";

/// Returns the string passed by the parent, in the child process of a test.
pub fn child() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// Returns a command that runs the test in a child process with this limit on descriptors, if the system allows it.
pub fn child_command(test: &str, descriptors: u32, argument: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -S -n "$1" || ulimit -S -n "$(ulimit -H -n)"; shift; exec "$@""#, "sh"]);
    command.arg(descriptors.to_string()).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, argument);
    command
}

/// Asserts that the test has run in the child process, and passed.
pub fn assert_passed(child: &Output) {
    let output = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}
