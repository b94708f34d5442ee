//! Double-entry bookkeeping for notifications: a writer numbers them, and each number must have come, once and in order,
//! or lie in a gap that was reported.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notifyman::{Batch, Config, ConnId, Connection, Gap, NotificationManager};

use crate::support::server::LIMIT;

pub const CHANNEL: &str = "ledger";

/// Numbers notifications, 1, 2, 3 and so on, and sends them as long as it lives, through whatever happens to the server.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Sent>,
}

/// What the writer knows of each number.
#[derive(Default)]
pub struct Sent {
    last: u64,
    /// The server died before it said whether it had taken these.
    unsure: Vec<u64>,
}

impl Sent {
    pub fn last(&self) -> u64 {
        self.last
    }
}

impl Writer {
    pub fn start(url: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || write(&url, &stopped));
        Self { stop, thread }
    }

    /// Sends one more when everything is well again, and returns it.
    pub fn finish(self) -> Sent {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

fn write(url: &str, stop: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    let mut db = None;
    let begun = Instant::now();
    loop {
        let stopping = stop.load(Relaxed);
        let Some(open) = &mut db else {
            assert!(begun.elapsed() < LIMIT, "the writer cannot connect");
            db = Connection::connect(Config::without_env(url).unwrap()).ok();
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        sent.last += 1;
        if open.notify(CHANNEL, &sent.last.to_string()).is_err() {
            sent.unsure.push(sent.last);
            db = None;
            continue;
        }
        if stopping {
            return sent;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What the reader was given, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Number(u64),
    Gap,
}

/// The books on one connection.
#[derive(Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    gaps: Vec<Gap>,
    of: Option<ConnId>,
}

impl Ledger {
    /// Enters what one connection had; it is the same one throughout, and its gaps make sense.
    pub fn enter(&mut self, id: ConnId, batch: &Batch) {
        if let Some(gap) = batch.gap() {
            self.enter_gap(id, gap);
        }
        assert_eq!(*self.of.get_or_insert(id), id, "the id stays");
        self.entries.extend(batch.iter().map(|n| Entry::Number(n.payload().parse().unwrap())));
    }

    /// The same of a gap that is an event of its own.
    pub fn enter_gap(&mut self, id: ConnId, gap: &Gap) {
        assert_eq!(*self.of.get_or_insert(id), id, "the id stays");
        let (epoch, last) = self.gaps.last().map_or((0, None), |last| (last.epoch(), Some(last.since())));
        assert!(gap.epoch() > epoch, "an epoch only grows: {gap:?}");
        assert!(gap.since() <= gap.until() && last.is_none_or(|last| last <= gap.since()), "{gap:?}");
        assert_eq!(gap.channels(), [CHANNEL.into()]);
        self.gaps.push(gap.clone());
        self.entries.push(Entry::Gap);
    }

    /// The last gap that was reported.
    pub fn last_gap(&self) -> &Gap {
        self.gaps.last().expect("a gap was reported")
    }

    pub fn last(&self) -> u64 {
        self.numbers().last().unwrap_or(0)
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Number(number) => Some(*number),
            Entry::Gap => None,
        })
    }

    pub fn gaps(&self) -> usize {
        self.gaps.len()
    }

    /// Reads for so long.
    pub fn read_for(&mut self, nm: &mut NotificationManager, time: Duration) {
        let begun = Instant::now();
        self.read_until(nm, |_, _| begun.elapsed() >= time);
    }

    /// Reads to the end, which must come.
    pub fn read_to_end(&mut self, nm: &mut NotificationManager) {
        let begun = Instant::now();
        while let Some(event) = nm.next() {
            assert!(begun.elapsed() < LIMIT, "it does not end: {nm:?}");
            if let Some((id, batch)) = event {
                self.enter(id, &batch);
            }
        }
    }

    /// Reads until it is so.
    pub fn read_until(&mut self, nm: &mut NotificationManager, enough: impl Fn(&Self, &NotificationManager) -> bool) {
        let begun = Instant::now();
        while !enough(self, nm) {
            assert!(begun.elapsed() < LIMIT, "stuck at {} with {:?}: {:?}", self.last(), nm.stats(), nm);
            match nm.next().expect("the loop continues") {
                None => {}
                Some((id, batch)) => self.enter(id, &batch),
            }
        }
    }

    /// The law: whatever is not there, once and in order, lies in a gap.
    pub fn balance(&self, sent: &Sent) {
        let mut expected = 1;
        let mut gap = false;
        for entry in &self.entries {
            match *entry {
                Entry::Gap => gap = true,
                Entry::Number(number) => {
                    assert!(number >= expected, "{number} came twice or out of order, {expected} was next");
                    let missing = (expected..number).find(|n| !sent.unsure.contains(n));
                    assert!(gap || missing.is_none(), "{missing:?} was lost in silence before {number}");
                    expected = number + 1;
                    gap = false;
                }
            }
        }
        assert_eq!(self.last(), sent.last, "the last one, sent when all was well");
    }
}
