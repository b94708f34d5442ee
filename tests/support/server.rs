//! Throwaway servers that tests share, and common operations on connections to them.
//!
//! A shared server is in a `static`, which is never dropped. It ends with this process, because its guard (see
//! [`Cluster`]) waits for that. Tests that share a server use different channels, because every session of a database
//! can receive the notifications of all others. A test that stops a server, or kills one of its processes, starts its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use notifyman::{Config, Connection, Error, Notification};
use socket2::{Domain, Socket, Type};

use super::cluster::{self, Cluster, Options};

/// The longest wait for an event that must come: far longer than it takes, even on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Returns a shared server with the encoding UTF8 that accepts every login.
pub fn utf8() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| start(Options::new()))
}

/// Like [`utf8`], with the encoding LATIN1.
pub fn latin1() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| start(Options::new().encoding("LATIN1")))
}

/// Like [`utf8`], with the encoding EUC_JP, whose characters have other lengths than in UTF-8.
pub fn euc_jp() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| start(Options::new().encoding("EUC_JP")))
}

/// Like [`utf8`], with SQL_ASCII, in which strings can contain any bytes.
pub fn sql_ascii() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| start(Options::new().encoding("SQL_ASCII")))
}

/// Starts a server.
pub fn start(options: Options) -> Cluster {
    Cluster::start(options).unwrap_or_else(|error| panic!("{error}"))
}

/// Starts a standby without a primary. It stays in recovery until it is [promoted](promote).
pub fn standby() -> Cluster {
    start(replicating().file("standby.signal", ""))
}

/// Starts a primary, and a standby that follows it. Both begin with the same data.
pub fn primary_and_standby() -> (Cluster, Cluster) {
    let primary = start(replicating().hba("host replication all 127.0.0.1/32 trust"));
    let follow = format!("host=127.0.0.1 port={} user=postgres", primary.port());
    let standby = start(replicating().file("standby.signal", "").setting("primary_conninfo", follow));
    (primary, standby)
}

/// Returns options for a primary or a standby. A standby's limits must not be less than those of its primary.
fn replicating() -> Options {
    let replica = Options::new().setting("wal_level", "replica").setting("hot_standby", "on");
    replica.setting("max_worker_processes", "8").setting("max_wal_senders", "10")
}

/// Promotes a standby; returns when it is a primary.
pub fn promote(standby: &Cluster) {
    assert_eq!(ask(&mut connect(&standby.url()), "SELECT pg_promote()"), "t");
}

/// Connects to the shared server with the encoding UTF8.
pub fn session() -> Connection {
    connect(&utf8().url())
}

/// Connects, which must succeed.
pub fn connect(url: &str) -> Connection {
    Connection::connect(config(url)).unwrap_or_else(|error| panic!("{error}"))
}

/// Parses a connection string, without the environment.
pub fn config(url: &str) -> Config {
    Config::without_env(url).unwrap()
}

/// Connects, which must fail, and returns the error.
pub fn refused(config: Config) -> Error {
    Connection::connect(config).expect_err("the connection must fail")
}

/// A channel and a payload.
pub type Pair = (String, String);

/// Returns the expected channels and payloads of notifications.
pub fn pairs<const N: usize>(expected: [(&str, &str); N]) -> Vec<Pair> {
    expected.map(|(channel, payload)| (channel.to_owned(), payload.to_owned())).into()
}

/// Returns the channel and the payload of a notification.
pub fn pair(n: &Notification) -> Pair {
    (n.channel().into_owned(), n.payload().into_owned())
}

/// Receives the next `n` notifications, which must arrive.
pub fn next(db: &mut Connection, n: usize) -> Vec<Pair> {
    let received: Vec<Pair> = db.wait(LIMIT).map_while(|event| event.as_ref().map(pair)).take(n).collect();
    assert_eq!(
        received.len(),
        n,
        "received before {LIMIT:?} of silence, or before the end ({:?}): {received:?}",
        db.error()
    );
    received
}

/// Receives the notifications that are pending, without waiting.
pub fn pending(db: &mut Connection) -> Vec<Pair> {
    db.wait(Duration::ZERO).flatten().map(|n| pair(&n)).collect()
}

/// Receives all notifications that were committed before this call.
///
/// Notifications arrive in the order of the commits, so one that this session sends itself marks the end.
pub fn everything(db: &mut Connection) -> Vec<Pair> {
    const LAST: &str = "the last notification";
    db.listen([LAST]).unwrap();
    db.notify(LAST, "").unwrap();
    let me = db.pid();
    let mut received = Vec::new();
    for event in db.wait(LIMIT) {
        let n =
            event.unwrap_or_else(|| panic!("the last notification did not arrive within {LIMIT:?}, only {received:?}"));
        if n.channel() != LAST {
            received.push(pair(&n));
        } else if n.pid() == me {
            break;
        }
    }
    db.unlisten([LAST]).unwrap();
    received
}

/// Runs a query, and returns the text of the only column of the only row.
pub fn ask(db: &mut Connection, sql: &str) -> String {
    let rows = db.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!((rows.len(), rows[0].len()), (1, 1), "{sql}");
    rows[0].get(0).expect("not NULL").into_owned()
}

/// Returns a port of 127.0.0.1 that refuses connections. It stays bound, so that no other test is given it.
pub fn refusing_port() -> u16 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    std::mem::forget(socket);
    port
}

/// Returns the major version of the server.
pub fn major(db: &Connection) -> u32 {
    db.server_version().split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// Drops a database while sessions are connected to it, before any of them can reconnect.
pub fn drop_with_its_sessions(server: &Cluster, database: &str) {
    let mut db = connect(&server.url());
    if major(&db) >= 13 {
        db.execute(&format!("DROP DATABASE {database} WITH (FORCE)")).unwrap();
        return;
    }
    // The DROP locks new sessions out, and then waits for the existing ones to end.
    std::thread::scope(|scope| {
        let dropping = scope.spawn(|| db.execute(&format!("DROP DATABASE {database}")).unwrap());
        let mut admin = connect(&server.url());
        while !dropping.is_finished() {
            let terminated = format!(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{database}' AND EXISTS (
                    SELECT FROM pg_locks WHERE classid = 'pg_database'::regclass AND mode = 'AccessExclusiveLock' AND granted)"
            );
            ask(&mut admin, &terminated);
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

/// Waits until a condition is true; `what` describes it.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LIMIT, "not true within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Repeats an attempt that succeeds if the server handles a cancel request within the second that the library waits: on
/// a busy machine it may need longer.
pub fn in_time(mut attempt: impl FnMut() -> bool) {
    assert!((0..10).any(|_| attempt()), "the server never handled a cancel request in time");
}

/// Waits until the backends of these sessions wait for their client. A backend that is still sending cannot send its
/// last message.
pub fn wait_until_idle<const N: usize>(server: &Cluster, pids: [i32; N]) {
    let pids = pids.map(|pid| pid.to_string()).join(", ");
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientRead' AND pid IN ({pids})");
    let mut watcher = connect(&server.url());
    eventually("the sessions are idle", || ask(&mut watcher, &sql) == N.to_string());
}

/// Terminates a session from another one.
pub fn terminate(server: &Cluster, pid: i32) {
    assert_eq!(ask(&mut connect(&server.url()), &format!("SELECT pg_terminate_backend({pid})")), "t");
}

/// A process that is paused until this value is dropped.
pub struct PausedProcess(u32);

impl PausedProcess {
    /// Pauses the backend of this session.
    pub fn session(db: &Connection) -> Self {
        Self::process(db.pid().unsigned_abs())
    }

    /// Pauses any process.
    pub fn process(pid: u32) -> Self {
        cluster::signal(pid, "STOP").unwrap();
        Self(pid)
    }
}

impl Drop for PausedProcess {
    fn drop(&mut self) {
        // The process may have ended.
        let _ = cluster::signal(self.0, "CONT");
    }
}
