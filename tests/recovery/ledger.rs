//! A ledger of notifications: a writer numbers them, and each number must be received once and in order, or lie in a
//! reported gap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notifyman::{Batch, Config, ConnId, Connection, Gap, NotificationManager};

use crate::support::server::LIMIT;

pub const CHANNEL: &str = "ledger";

/// A thread that sends notifications numbered 1, 2, 3 and so on, and reconnects after faults of the server.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Sent>,
}

/// The numbers that the writer has sent.
#[derive(Default)]
pub struct Sent {
    last: u64,
    /// Numbers for which the server did not report whether it had committed them.
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

    /// Sends one more number once the server is available, and returns what was sent.
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
        if open.notify(CHANNEL, sent.last.to_string()).is_err() {
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

/// One item that the reader received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Number(u64),
    Gap,
}

/// Everything that one connection received, in order.
#[derive(Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    gaps: Vec<Gap>,
    of: Option<ConnId>,
}

impl Ledger {
    /// Records a batch. Asserts that the id is always the same, and that the gaps are consistent.
    pub fn enter(&mut self, id: ConnId, batch: &Batch) {
        if let Some(gap) = batch.gap() {
            self.enter_gap(id, gap);
        }
        assert_eq!(*self.of.get_or_insert(id), id, "the id stays the same");
        self.entries.extend(batch.iter().map(|n| Entry::Number(n.payload().parse().unwrap())));
    }

    /// Records a gap that is reported as an event of its own.
    pub fn enter_gap(&mut self, id: ConnId, gap: &Gap) {
        assert_eq!(*self.of.get_or_insert(id), id, "the id stays the same");
        let (epoch, last) = self.gaps.last().map_or((0, None), |last| (last.epoch(), Some(last.since())));
        assert!(gap.epoch() > epoch, "an epoch only grows: {gap:?}");
        assert!(gap.since() <= gap.until() && last.is_none_or(|last| last <= gap.since()), "{gap:?}");
        assert_eq!(gap.channels(), [CHANNEL.into()]);
        self.gaps.push(gap.clone());
        self.entries.push(Entry::Gap);
    }

    /// Returns the last reported gap.
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

    /// Iterates for this time.
    pub fn read_for(&mut self, nm: &mut NotificationManager, time: Duration) {
        let begun = Instant::now();
        self.read_until(nm, |_, _| begun.elapsed() >= time);
    }

    /// Iterates until the end, which must come within the limit.
    pub fn read_to_end(&mut self, nm: &mut NotificationManager) {
        let begun = Instant::now();
        while let Some(event) = nm.next() {
            assert!(begun.elapsed() < LIMIT, "the iterator does not end: {nm:?}");
            if let Some((id, batch)) = event {
                self.enter(id, &batch);
            }
        }
    }

    /// Iterates until the condition is true.
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

    /// Asserts that every number was received once and in order, or lies in a gap.
    pub fn balance(&self, sent: &Sent) {
        let mut expected = 1;
        let mut gap = false;
        for entry in &self.entries {
            match *entry {
                Entry::Gap => gap = true,
                Entry::Number(number) => {
                    assert!(number >= expected, "{number} was received twice or out of order instead of {expected}");
                    let missing = (expected..number).find(|n| !sent.unsure.contains(n));
                    assert!(gap || missing.is_none(), "{missing:?} was lost silently before {number}");
                    expected = number + 1;
                    gap = false;
                }
            }
        }
        assert_eq!(self.last(), sent.last, "the last number, sent after all faults");
    }
}
