//! The ledger: the numbers that were sent, compared with those that each reader receives.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notifyman::relay::RelayReader;
use notifyman::{Batch, Config, Connection, Event};

/// The pause between two notifications.
const PACE: Duration = Duration::from_millis(2);
/// The time without an entry after which a reader reports a loss: more than the period and the deadline of the relays' canary.
const SILENCE: Duration = Duration::from_secs(4);
/// The time limit for a reader to open.
const OPENING_TIMEOUT: Duration = Duration::from_secs(30);

/// The numbers that one reader has received.
#[derive(Default)]
struct ReceivedNumbers {
    is_open: bool,
    /// The last number; `None` behind a gap, behind which earlier numbers may come again.
    last: Option<u64>,
    highest: u64,
    gaps: u64,
    /// Numbers that were skipped, and are in a gap.
    in_gaps: u64,
    received: u64,
    silences: u64,
}

/// The state that the threads share.
#[derive(Default)]
struct LedgerState {
    readers: Vec<ReceivedNumbers>,
    /// The numbers of which it is not known whether the server has accepted them.
    uncertain: BTreeSet<u64>,
    violation: Option<String>,
}

/// The ledger. It is filled by a thread that sends, and one for each reader.
pub struct Ledger {
    /// The last number that was sent.
    pub sent: Arc<AtomicU64>,
    state: Arc<Mutex<LedgerState>>,
    is_over: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Ledger {
    /// Begins to send when all readers are open.
    pub fn start(database: &str, engine: &str, readers: usize) -> Result<Self, String> {
        let state = LedgerState {
            readers: (0..readers).map(|_| ReceivedNumbers::default()).collect(),
            ..LedgerState::default()
        };
        let ledger = Self {
            sent: Arc::default(),
            state: Arc::new(Mutex::new(state)),
            is_over: Arc::default(),
            threads: Mutex::default(),
        };
        for number in 0..readers {
            let builder = RelayReader::builder([engine]).unwrap().stream("shop").silence(SILENCE);
            let builder = builder.call_timeout(Duration::from_secs(1)).timeout(Duration::from_millis(50));
            let reader = builder.build().map_err(|error| error.to_string())?;
            let (state, is_over) = (Arc::clone(&ledger.state), Arc::clone(&ledger.is_over));
            ledger.threads.lock().unwrap().push(thread::spawn(move || read(reader, number, &state, &is_over)));
        }
        let begin = Instant::now();
        while !ledger.lock().readers.iter().all(|reader| reader.is_open) {
            if begin.elapsed() > OPENING_TIMEOUT {
                return Err("the readers do not open".to_owned());
            }
            thread::sleep(Duration::from_millis(10));
        }
        let config = Config::without_env(database).map_err(|error| error.to_string())?;
        let (state, is_over, sent) = (Arc::clone(&ledger.state), Arc::clone(&ledger.is_over), Arc::clone(&ledger.sent));
        ledger.threads.lock().unwrap().push(thread::spawn(move || send(&config, &sent, &state, &is_over)));
        Ok(ledger)
    }

    fn lock(&self) -> MutexGuard<'_, LedgerState> {
        self.state.lock().unwrap()
    }

    pub fn violation(&self) -> Option<String> {
        self.lock().violation.clone()
    }

    /// Returns `true` if each reader has received this number or a later one.
    pub fn has_all_received(&self, number: u64) -> bool {
        self.lock().readers.iter().all(|reader| reader.highest >= number)
    }

    pub fn summary(&self) -> String {
        let state = self.lock();
        let sum = |count: fn(&ReceivedNumbers) -> u64| state.readers.iter().map(count).sum::<u64>();
        format!(
            "{} sent; by {} readers {} received and {} in {} gaps, {} silences",
            self.sent.load(Relaxed),
            state.readers.len(),
            sum(|reader| reader.received),
            sum(|reader| reader.in_gaps),
            sum(|reader| reader.gaps),
            sum(|reader| reader.silences),
        )
    }

    /// Ends the threads.
    pub fn end(&self) {
        self.is_over.store(true, Relaxed);
        for thread in std::mem::take(&mut *self.threads.lock().unwrap()) {
            let _ = thread.join();
        }
    }
}

/// Sends numbers until it is over. What fails is sent, or not.
fn send(config: &Config, sent: &AtomicU64, state: &Mutex<LedgerState>, is_over: &AtomicBool) {
    let mut connection = None::<Connection>;
    while !is_over.load(Relaxed) {
        let Some(db) = &mut connection else {
            connection = Connection::connect(config).ok();
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let number = sent.load(Relaxed) + 1;
        // Readers may receive it before this thread continues.
        sent.store(number, Relaxed);
        if db.notify("a", number.to_string()).is_err() {
            state.lock().unwrap().uncertain.insert(number);
            connection = None;
        }
        thread::sleep(PACE);
    }
}

fn read(mut reader: RelayReader, number: usize, state: &Mutex<LedgerState>, is_over: &AtomicBool) {
    while !is_over.load(Relaxed) {
        let event = reader.next_event();
        let mut state = state.lock().unwrap();
        let LedgerState { readers, uncertain, violation } = &mut *state;
        let found = match event {
            Some(Event::Notifies(_, batch)) => readers[number].record(&batch, uncertain),
            Some(Event::Opened(_)) => {
                (readers[number].is_open, readers[number].last) = (true, Some(0));
                Ok(())
            }
            Some(Event::Restored(_, gap)) if !gap.channels().is_empty() => {
                readers[number].gaps += 1;
                readers[number].last = None;
                Ok(())
            }
            Some(Event::Disconnected(..)) => {
                readers[number].silences += 1;
                Ok(())
            }
            Some(Event::Lost(_, error)) => Err(format!("is lost: {error:#}")),
            None => Err("has ended".to_owned()),
            Some(_) => Ok(()),
        };
        if let Err(text) = found {
            violation.get_or_insert(format!("reader {}: {text}", number + 1));
            return;
        }
    }
}

impl ReceivedNumbers {
    fn record(&mut self, batch: &Batch, uncertain: &BTreeSet<u64>) -> Result<(), String> {
        for n in batch {
            let number: u64 =
                n.payload().parse().map_err(|_| format!("received {:?}, which was not sent", n.payload()))?;
            match self.last {
                Some(last) if number <= last => return Err(format!("received {number} after {last}, without a gap")),
                Some(last) => {
                    if let Some(lost) = (last + 1..number).find(|lost| !uncertain.contains(lost)) {
                        return Err(format!("did not receive {lost}, between {last} and {number}, without a gap"));
                    }
                }
                None => self.in_gaps += number.saturating_sub(self.highest + 1),
            }
            self.received += 1;
            self.last = Some(number);
            self.highest = self.highest.max(number);
        }
        Ok(())
    }
}
