//! The steps that the tests of all faults share. A ledger records every notification.

use std::time::{Duration, Instant};

use notifyman::{Backoff, Config, Connection, NotificationManager};

use super::ledger::{CHANNEL, Ledger, Writer};
use crate::support::server::LIMIT;
use crate::support::{Cluster, Options, Proxy};

/// The heartbeat of these tests. A healthy server answers within the deadline even on a busy machine.
pub const IDLE: Duration = Duration::from_millis(300);
pub const DEADLINE: Duration = Duration::from_millis(1000);
/// The longest time for which a dead link may go unnoticed on a busy machine. The exact bound, `idle + deadline`, is
/// tested in virtual time; without a heartbeat the link would go unnoticed for hours.
pub const NOTICED: Duration = Duration::from_secs(20);

pub fn cluster() -> Cluster {
    Cluster::start(Options::new()).unwrap()
}

pub fn proxied() -> (Cluster, Proxy) {
    let server = cluster();
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into());
    (server, proxy)
}

pub fn through(proxy: &Proxy) -> String {
    format!("postgres://postgres@{}/postgres?connect_timeout=2", proxy.addr())
}

pub fn open(url: &str) -> Connection {
    // The time limit is short for dials that are never answered. The first dial may need longer.
    let begun = Instant::now();
    loop {
        match Connection::connect(Config::without_env(url).unwrap()) {
            Ok(db) => return db,
            Err(error) if error.is_timeout() && begun.elapsed() < LIMIT => {}
            Err(error) => panic!("{url}: {error}"),
        }
    }
}

/// Opens a session that listens to the ledger's channel.
pub fn listener(url: &str) -> Connection {
    let mut db = open(url);
    db.listen([CHANNEL]).unwrap();
    db
}

pub fn backoff() -> Backoff {
    Backoff::default().first(Duration::from_millis(20)).longest(Duration::from_millis(200))
}

/// Returns the process id of the only connection's backend.
pub fn pid(nm: &NotificationManager) -> i32 {
    nm.connections().next().expect("a good connection").1.pid()
}

/// A reader, a writer and their ledger.
pub struct Story {
    pub nm: NotificationManager,
    pub ledger: Ledger,
    writer: Writer,
}

impl Story {
    /// Starts a manager whose connection to `reads` listens and is restored after losses, and a writer on another path to the
    /// same server. Waits until the first numbers have been received.
    pub fn begin(reads: &str, writes: &str) -> Self {
        let nm = NotificationManager::new([listener(reads)])
            .timeout(Duration::from_millis(20))
            .reconnect(backoff())
            .heartbeat(IDLE, DEADLINE);
        let mut story = Self { nm, ledger: Ledger::default(), writer: Writer::start(writes.to_owned()) };
        story.receive_more();
        story
    }

    /// Reads until more numbers have been received.
    pub fn receive_more(&mut self) {
        let received = self.ledger.last();
        self.ledger.read_until(&mut self.nm, |ledger, _| ledger.last() >= received + 20);
    }

    /// Reads until the loss is noticed, which must be within the bound.
    pub fn notice(&mut self) {
        let begun = Instant::now();
        let before = self.nm.stats().losses;
        self.ledger.read_until(&mut self.nm, |_, nm| nm.stats().losses > before);
        assert!(begun.elapsed() <= NOTICED, "noticed after {:?}, not {NOTICED:?}", begun.elapsed());
    }

    /// Reads until the connection is in the garbage, which ends the loop.
    pub fn end_in_garbage(&mut self) {
        self.ledger.read_to_end(&mut self.nm);
        assert_eq!((self.nm.garbage().count(), self.nm.restoring().count()), (1, 0));
    }

    /// Reads until a gap and later notifications have been received. Then the ledger must balance.
    pub fn end_well(mut self) -> Ledger {
        let Self { nm, ledger, .. } = &mut self;
        ledger.read_until(nm, |ledger, _| ledger.gaps() >= 1);
        self.receive_more();
        let Self { mut nm, mut ledger, writer } = self;
        let sent = writer.finish();
        ledger.read_until(&mut nm, |ledger, _| ledger.last() >= sent.last());
        ledger.balance(&sent);
        assert_eq!(nm.garbage().count(), 0);
        assert!(nm.stats().restores + nm.stats().unregistered >= 1);
        ledger
    }
}
