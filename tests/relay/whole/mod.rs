//! Two relays as processes between PostgreSQL and an engine, with a ledger by number: everything that was sent is delivered, or a
//! gap is reported in its place.

mod clock;
mod engine_faults;
mod link_faults;
mod relay_faults;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notifyman::relay::RelayReader;
use notifyman::{Config, Connection, Event};

use crate::support::server::{LIMIT, eventually};
use crate::support::{Cluster, EngineServer, Options, Proxy, cluster};

const PROGRAM: &str = env!("CARGO_BIN_EXE_notifyman");
/// The pause between two notifications.
const PACE: Duration = Duration::from_millis(2);

/// A process of `notifyman relay`.
struct RelayProcess {
    child: Child,
    /// The lines that it has logged.
    lines: Arc<Mutex<Vec<String>>>,
}

impl RelayProcess {
    fn start(database: &str, engines: &[String]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["relay", "--url", &format!("shop={database}"), "--canary", "1s", "--canary-deadline", "1s", "a"]);
        command.args(engines.iter().flat_map(|url| ["--to", url]));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (log, output) = (Arc::clone(&lines), BufReader::new(child.stderr.take().unwrap()));
        thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| log.lock().unwrap().push(line)));
        Self { child, lines }
    }

    /// Returns the last role that it has logged.
    fn role(&self) -> Option<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().rev().find_map(|line| Some(line.split_once("this relay is ")?.1.to_owned()))
    }

    fn signal(&self, name: &str) {
        cluster::signal(self.child.id(), name).unwrap();
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The numbers that were sent, and what a reader made of them.
struct Ledger {
    is_over: Arc<AtomicBool>,
    /// The number of notifications that were sent.
    sent: Arc<AtomicU64>,
    sender: JoinHandle<Vec<u64>>,
    reader: JoinHandle<Vec<Received>>,
    /// The highest number that was delivered.
    delivered: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    Number(u64),
    Gap,
}

impl Ledger {
    /// Begins to send when the reader is open.
    fn start(database: &str, engines: &[String]) -> Self {
        let reader = RelayReader::builder(engines.to_vec()).unwrap().stream("shop").silence(Duration::from_secs(4));
        let mut reader =
            reader.call_timeout(Duration::from_secs(1)).timeout(Duration::from_millis(50)).build().unwrap();
        let begin = Instant::now();
        while !matches!(reader.next_event(), Some(Event::Opened(_))) {
            assert!(begin.elapsed() < LIMIT, "the reader does not open");
        }
        let (is_over, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let delivered = Arc::<AtomicU64>::default();
        let sender = thread::spawn({
            let (database, is_over, sent) = (database.to_owned(), Arc::clone(&is_over), Arc::clone(&sent));
            move || send(&database, &is_over, &sent)
        });
        let last_delivered = Arc::clone(&delivered);
        let (over, last_sent) = (Arc::clone(&is_over), Arc::clone(&sent));
        let reader = thread::spawn(move || {
            let mut found = Vec::new();
            let mut begin = Instant::now();
            // The last number may be lost in a gap, so the sender continues until the reader is here.
            while !over.load(SeqCst) {
                match reader.next_event() {
                    Some(Event::Notifies(_, batch)) => {
                        for n in &batch {
                            let number = n.payload().parse().unwrap();
                            found.push(Received::Number(number));
                            last_delivered.store(number, SeqCst);
                        }
                        begin = Instant::now();
                    }
                    Some(Event::Restored(_, gap)) if !gap.channels().is_empty() => {
                        println!("gap behind {:?}: {}", found.last(), gap.cause());
                        found.push(Received::Gap);
                    }
                    Some(Event::Lost(_, error)) => panic!("{error:#}"),
                    Some(Event::Idle | Event::Restored(..)) => {}
                    Some(event) => println!("{event:?} behind {:?}", found.last()),
                    None => panic!("the reader has ended"),
                }
                assert!(begin.elapsed() < LIMIT, "nothing arrives, and {} were sent", last_sent.load(SeqCst));
            }
            found
        });
        Self { is_over, sent, sender, reader, delivered }
    }

    /// Waits until something that is sent from now on has been delivered.
    fn wait_for_delivery(&self) {
        let sent = self.sent.load(SeqCst);
        eventually("what is sent is delivered", || self.delivered.load(SeqCst) > sent || self.reader.is_finished());
    }

    /// Ends the ledger, when everything is delivered again; returns the number of gaps, and of notifications that were sent.
    #[track_caller]
    fn close(self) -> (usize, u64) {
        self.wait_for_delivery();
        self.is_over.store(true, SeqCst);
        let (uncertain, found) = (self.sender.join().unwrap(), self.reader.join().unwrap());
        let mut last = Some(0);
        for (index, received) in found.iter().enumerate() {
            match (received, last) {
                (Received::Gap, _) => last = None,
                (Received::Number(number), Some(last)) => {
                    let missing = (last + 1..*number).filter(|missing| !uncertain.contains(missing)).count();
                    let near = &found[index.saturating_sub(5)..found.len().min(index + 5)];
                    assert!(*number > last && missing == 0, "{number} after {last}, without a gap: {near:?}");
                }
                (Received::Number(_), None) => {}
            }
            if let Received::Number(number) = received {
                last = Some(*number);
            }
        }
        let gaps = found.iter().filter(|it| **it == Received::Gap).count();
        (gaps, self.sent.load(SeqCst))
    }
}

/// Sends numbers until it is over; returns those of which it is not known that they were sent.
fn send(database: &str, is_over: &AtomicBool, sent: &AtomicU64) -> Vec<u64> {
    let (mut connection, mut uncertain) = (None::<Connection>, Vec::new());
    while !is_over.load(SeqCst) {
        let Some(db) = &mut connection else {
            connection = Connection::connect(Config::without_env(database).unwrap()).ok();
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let number = sent.load(SeqCst) + 1;
        if db.notify("a", number.to_string()).is_err() {
            uncertain.push(number);
            connection = None;
        }
        sent.store(number, SeqCst);
        thread::sleep(PACE);
    }
    uncertain
}

/// The links of one relay.
struct RelayLinks {
    postgres: Proxy,
    engine: Proxy,
}

/// PostgreSQL, two relays and an engine.
struct Whole {
    postgres: Cluster,
    relays: Vec<RelayProcess>,
    engines: Vec<String>,
}

impl Whole {
    /// Starts two relays that append by way of the first list of engines' URLs; readers use the second one.
    fn start(relay_engines: &[String], reader_engines: &[String]) -> (Self, Ledger) {
        let postgres = Cluster::start(Options::new().max_connections(20)).unwrap();
        let relays = (0..2).map(|_| RelayProcess::start(&postgres.url(), relay_engines)).collect();
        Self { postgres, relays, engines: relay_engines.to_vec() }.open(None, reader_engines)
    }

    /// Starts two relays that have links of their own to PostgreSQL and to the engine.
    fn with_links(engine: &EngineServer) -> (Self, Ledger, [RelayLinks; 2]) {
        let postgres = Cluster::start(Options::new().max_connections(20)).unwrap();
        let links = [0, 1].map(|_| RelayLinks {
            postgres: Proxy::start(([127, 0, 0, 1], postgres.port()).into()),
            engine: Proxy::start(([127, 0, 0, 1], engine.port).into()),
        });
        let start = |links: &RelayLinks| {
            let database = format!("postgres://postgres@{}/postgres", links.postgres.addr());
            RelayProcess::start(&database, &[format!("redis://{}", links.engine.addr())])
        };
        let relays = links.iter().map(start).collect();
        let (whole, ledger) = Self { postgres, relays, engines: Vec::new() }.open(None, &[engine.url()]);
        (whole, ledger, links)
    }

    /// Waits until everything runs, and begins to send, to the server or to another URL.
    fn open(self, database: Option<&str>, reader_engines: &[String]) -> (Self, Ledger) {
        let whole = self;
        whole.leader();
        eventually("the other one is a candidate", || whole.candidate().is_some());
        let ledger = Ledger::start(database.unwrap_or(&whole.postgres.url()), reader_engines);
        ledger.wait_for_delivery();
        // Both have received the same canary.
        thread::sleep(Duration::from_millis(2500));
        (whole, ledger)
    }

    fn of(engine: &EngineServer) -> (Self, Ledger) {
        let engines = [engine.url()];
        Self::start(&engines, &engines)
    }

    fn with_role(&self, role: &str) -> Option<usize> {
        self.relays.iter().position(|relay| relay.role().is_some_and(|it| it.starts_with(role)))
    }

    /// Waits for a leader.
    fn leader(&self) -> usize {
        eventually("a relay leads", || self.with_role("the leader").is_some());
        self.with_role("the leader").unwrap()
    }

    fn candidate(&self) -> Option<usize> {
        self.with_role("a candidate")
    }

    /// Replaces a relay that has ended by a new process.
    fn replace(&mut self, relay: usize) {
        self.relays[relay] = RelayProcess::start(&self.postgres.url(), &self.engines);
    }

    /// Prints what the relays have logged, which is shown if the test fails.
    fn print_logs(&self) {
        for (number, relay) in self.relays.iter().enumerate() {
            relay.lines.lock().unwrap().iter().for_each(|line| println!("relay {number}: {line}"));
        }
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.print_logs();
    }
}
