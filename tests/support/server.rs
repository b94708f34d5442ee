//! Real servers that tests share, and what is often done with a connection to one.
//!
//! A shared server lies in a `static`, which is never dropped: it ends with this process all the same, because its
//! guard (see [`Cluster`]) waits for just that. Tests that share one take channels of their own, since every session of
//! a database hears the others. A test that stops a server, or kills one of its processes, starts its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use notifyman::{Config, Connection, Error, Notification};
use socket2::{Domain, Socket, Type};

use super::cluster::{self, Cluster, Options};

/// The longest wait for an event that must come: far longer than it takes, even on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A server of encoding UTF8 that lets everybody in.
pub fn utf8() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| start(Options::new()))
}

/// The same in LATIN1.
pub fn latin1() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| start(Options::new().encoding("LATIN1")))
}

/// The same in EUC_JP, whose characters have other lengths than in UTF-8.
pub fn euc_jp() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| start(Options::new().encoding("EUC_JP")))
}

/// The same in SQL_ASCII, which is no encoding at all.
pub fn sql_ascii() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| start(Options::new().encoding("SQL_ASCII")))
}

/// A server of the test's own.
pub fn start(options: Options) -> Cluster {
    Cluster::start(options).unwrap_or_else(|error| panic!("{error}"))
}

/// A standby without a primary: it stays in recovery until it is [promoted](promote).
pub fn standby() -> Cluster {
    start(replicating().file("standby.signal", ""))
}

/// A primary, and a standby that follows it: both begin with the same data.
pub fn primary_and_standby() -> (Cluster, Cluster) {
    let primary = start(replicating().hba("host replication all 127.0.0.1/32 trust"));
    let follow = format!("host=127.0.0.1 port={} user=postgres", primary.port());
    let standby = start(replicating().file("standby.signal", "").setting("primary_conninfo", follow));
    (primary, standby)
}

/// What a standby must allow for is as much as its data's first server did.
fn replicating() -> Options {
    let replica = Options::new().setting("wal_level", "replica").setting("hot_standby", "on");
    replica.setting("max_worker_processes", "8").setting("max_wal_senders", "10")
}

/// Makes a standby a primary; returns when it is one.
pub fn promote(standby: &Cluster) {
    assert_eq!(ask(&mut connect(&standby.url()), "SELECT pg_promote()"), "t");
}

/// A session with the shared server of encoding UTF8.
pub fn session() -> Connection {
    connect(&utf8().url())
}

/// A session that must come about.
pub fn connect(url: &str) -> Connection {
    Connection::connect(config(url)).unwrap_or_else(|error| panic!("{error}"))
}

/// A connection string without a look at the environment.
pub fn config(url: &str) -> Config {
    Config::without_env(url).unwrap()
}

/// The error of a dial that must fail.
pub fn refused(config: Config) -> Error {
    Connection::connect(config).expect_err("a dial that must fail")
}

/// Channel and payload.
pub type Pair = (String, String);

/// What a test expects to hear: pairs of channel and payload.
pub fn pairs<const N: usize>(expected: [(&str, &str); N]) -> Vec<Pair> {
    expected.map(|(channel, payload)| (channel.to_owned(), payload.to_owned())).into()
}

/// Channel and payload of one notification.
pub fn pair(n: &Notification) -> Pair {
    (n.channel().into_owned(), n.payload().into_owned())
}

/// The next `n` notifications, which must come.
pub fn next(db: &mut Connection, n: usize) -> Vec<Pair> {
    let heard: Vec<Pair> = db.wait(LIMIT).map_while(|event| event.as_ref().map(pair)).take(n).collect();
    assert_eq!(heard.len(), n, "came before {LIMIT:?} of silence or the end {:?}: {heard:?}", db.error());
    heard
}

/// What a look at the socket brings, and no more.
pub fn pending(db: &mut Connection) -> Vec<Pair> {
    db.wait(Duration::ZERO).flatten().map(|n| pair(&n)).collect()
}

/// Everything that sessions of its database have sent it so far, and nothing else.
///
/// Notifications come in the order of the commits: what isn't there before one that it sends to itself never comes.
pub fn everything(db: &mut Connection) -> Vec<Pair> {
    const LAST: &str = "the last one";
    db.listen([LAST]).unwrap();
    db.notify(LAST, "").unwrap();
    let me = db.pid();
    let mut heard = Vec::new();
    for event in db.wait(LIMIT) {
        let n = event.unwrap_or_else(|| panic!("no word of its own for {LIMIT:?}, only {heard:?}"));
        if n.channel() != LAST {
            heard.push(pair(&n));
        } else if n.pid() == me {
            break;
        }
    }
    db.unlisten([LAST]).unwrap();
    heard
}

/// The text of the only column of the only row.
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

/// Waits until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < LIMIT, "after {LIMIT:?} it still isn't so: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Repeats an attempt that succeeds if the server handles a cancel request within the second that the library waits: on
/// a busy machine it may need longer.
pub fn in_time(mut attempt: impl FnMut() -> bool) {
    assert!((0..10).any(|_| attempt()), "the server has never answered a cancel request in time");
}

/// Waits until these sessions' processes wait for their client: one that is still sending can't say a last word.
pub fn wait_until_idle<const N: usize>(server: &Cluster, pids: [i32; N]) {
    let pids = pids.map(|pid| pid.to_string()).join(", ");
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientRead' AND pid IN ({pids})");
    let mut watcher = connect(&server.url());
    eventually("the sessions are at rest", || ask(&mut watcher, &sql) == N.to_string());
}

/// Ends a session from another one.
pub fn terminate(server: &Cluster, pid: i32) {
    assert_eq!(ask(&mut connect(&server.url()), &format!("SELECT pg_terminate_backend({pid})")), "t");
}

/// A server's process that is stopped, until this drops.
pub struct PausedProcess(u32);

impl PausedProcess {
    /// Stops the server's process of this session.
    pub fn session(db: &Connection) -> Self {
        Self::process(db.pid().unsigned_abs())
    }

    /// Stops any process of ours.
    pub fn process(pid: u32) -> Self {
        cluster::signal(pid, "STOP").unwrap();
        Self(pid)
    }
}

impl Drop for PausedProcess {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        let _ = cluster::signal(self.0, "CONT");
    }
}
