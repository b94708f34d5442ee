//! The ledger: the numbers sent on each channel, compared with those received by each connection.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use notifyman::{Batch, ConnId, Gap};

/// A violation of a guarantee, with its description.
#[derive(Debug, Clone)]
pub struct Violation(pub String);

impl Violation {
    /// Returns a function that adds a context to an error, for `map_err`.
    pub fn context<E: Display>(context: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{context}: {error}"))
    }
}

/// A channel of one cluster.
pub type Channel = (usize, String);

/// The numbers sent on one channel.
#[derive(Default)]
struct SentNumbers {
    /// The last number that was assigned.
    last: u64,
    /// The numbers that the server may or may not have accepted.
    uncertain: BTreeSet<u64>,
}

/// The numbers received by one connection on one channel.
#[derive(Default)]
struct ReceivedNumbers {
    first: Option<u64>,
    last: Option<u64>,
    /// Every number after this one must be received.
    since: Option<u64>,
    /// `true` if a gap was reported after the last number.
    has_gap: bool,
    /// The numbers received recently. Only an uncertain number may be out of order: its request may have been held back in
    /// a link that failed for the sender, and forwarded later.
    recent: BTreeSet<u64>,
}

#[derive(Default)]
struct LedgerState {
    sent: BTreeMap<Channel, SentNumbers>,
    /// The site of each connection.
    sites: BTreeMap<ConnId, usize>,
    received: BTreeMap<(ConnId, String), ReceivedNumbers>,
    /// The number of gaps reported for each connection.
    gaps: BTreeMap<ConnId, u64>,
    /// The last number of each channel at the end, which each connection must receive.
    marks: Option<BTreeMap<Channel, u64>>,
    violation: Option<Violation>,
}

/// The ledger, and what the threads of the soak share.
pub struct Ledger {
    state: Mutex<LedgerState>,
    ended: AtomicBool,
    /// `true` once no more faults and changes are started.
    winding_down: AtomicBool,
    /// The number of threads that still inject faults or make changes.
    pub busy: AtomicU64,
    /// The time at which bytes were last forged.
    forged: Mutex<Option<Instant>>,
    pub faults: AtomicU64,
    pub tickets: AtomicU64,
    pub refused: AtomicU64,
    pub damaged: AtomicU64,
    pub covered: AtomicU64,
}

/// The channel that every connection of a cluster listens to.
pub const ALL: &str = "all";
/// The channel to which only handles send.
pub const BY_HANDLE: &str = "by handle";

impl Ledger {
    pub fn new(clusters: usize) -> Self {
        let both = [ALL, BY_HANDLE];
        let channels = (0..clusters).flat_map(|at| both.map(|name| ((at, name.to_owned()), SentNumbers::default())));
        Self {
            state: Mutex::new(LedgerState { sent: channels.collect(), ..LedgerState::default() }),
            ended: AtomicBool::new(false),
            winding_down: AtomicBool::new(false),
            busy: AtomicU64::new(2),
            forged: Mutex::new(None),
            faults: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            covered: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, LedgerState> {
        self.state.lock().unwrap()
    }

    /// Runs a part of the soak, and ends all parts if it fails.
    pub fn guarded<T>(&self, part: impl FnOnce() -> Result<T, Violation>) -> Option<T> {
        struct End<'a>(&'a Ledger);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.end();
                }
            }
        }
        let _end = End(self);
        part()
            .map_err(|violation| {
                self.lock().violation.get_or_insert(violation);
                self.end();
            })
            .ok()
    }

    pub fn violation(&self) -> Option<Violation> {
        self.lock().violation.clone()
    }

    pub fn end(&self) {
        self.ended.store(true, Relaxed);
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    pub fn wind_down(&self) {
        self.winding_down.store(true, Relaxed);
    }

    pub fn is_winding_down(&self) -> bool {
        self.winding_down.load(Relaxed) || self.has_ended()
    }

    pub fn forge(&self) {
        *self.forged.lock().unwrap() = Some(Instant::now());
    }

    /// Returns `true` if bytes were forged recently.
    pub fn is_forged(&self) -> bool {
        self.forged.lock().unwrap().is_some_and(|at| at.elapsed() < Duration::from_secs(20))
    }

    pub fn open(&self, channel: Channel) {
        self.lock().sent.entry(channel).or_default();
    }

    pub fn close(&self, channel: &Channel) {
        self.lock().sent.remove(channel);
    }

    /// Returns the channels to which a site's writer sends.
    pub fn channels(&self, site: usize) -> Vec<String> {
        let state = self.lock();
        let of_site = state.sent.keys().filter(|(at, name)| *at == site && name != BY_HANDLE);
        of_site.map(|(_, name)| name.clone()).collect()
    }

    pub fn next_number(&self, channel: &Channel) -> Option<u64> {
        let mut state = self.lock();
        let sent = state.sent.get_mut(channel)?;
        sent.last += 1;
        Some(sent.last)
    }

    pub fn last_number(&self, channel: &Channel) -> u64 {
        self.lock().sent.get(channel).map_or(0, |sent| sent.last)
    }

    /// Records that the server may or may not have accepted a number.
    pub fn set_uncertain(&self, channel: &Channel, number: u64) {
        if let Some(sent) = self.lock().sent.get_mut(channel) {
            sent.uncertain.insert(number);
        }
    }

    pub fn sent(&self) -> u64 {
        self.lock().sent.values().map(|sent| sent.last).sum()
    }

    /// Records that a connection listens: it must receive every number after `since`. `gaps` is the number of gaps
    /// reported for it before; it may have been lost and restored since.
    pub fn start_listening(&self, id: ConnId, (site, name): Channel, since: u64, gaps: u64) -> Result<(), Violation> {
        let mut state = self.lock();
        let LedgerState { sites, received, sent, gaps: reported, .. } = &mut *state;
        let has_new_gap = reported.get(&id).is_some_and(|reported| *reported > gaps);
        sites.insert(id, site);
        let received = received.entry((id, name.clone())).or_default();
        received.since = Some(since);
        if has_new_gap {
            received.has_gap |= received.first.is_none();
        } else if let Some(first) = received.first
            && !received.has_gap
        {
            check_missing(id, &(site, name), sent, since + 1..first)?;
        }
        Ok(())
    }

    pub fn gaps(&self, id: ConnId) -> u64 {
        self.lock().gaps.get(&id).copied().unwrap_or_default()
    }

    /// Records that a connection no longer listens to a channel.
    pub fn stop_listening(&self, id: ConnId, name: &str) {
        self.lock().received.remove(&(id, name.to_owned()));
    }

    /// Records that a connection was removed.
    pub fn remove(&self, id: ConnId) {
        let mut state = self.lock();
        state.sites.remove(&id);
        state.gaps.remove(&id);
        state.received.retain(|(of, _), _| *of != id);
    }

    /// Records a batch, and checks its numbers.
    pub fn record(&self, id: ConnId, batch: &Batch) -> Result<(), Violation> {
        let mut state = self.lock();
        let LedgerState { sites, received, sent, .. } = &mut *state;
        for n in batch {
            let name = n.channel().into_owned();
            let Some((site, number)) = parse_payload(&n.payload()) else {
                if !self.is_forged() {
                    return Err(Violation(format!("{id} received {:?}, which was not sent", n.payload())));
                }
                self.damaged.fetch_add(1, Relaxed);
                continue;
            };
            if sites.get(&id).is_some_and(|it| *it != site) {
                return Err(Violation(format!("{id} received a notification of another cluster")));
            }
            let entry = received.entry((id, name.clone())).or_default();
            let channel = (site, name);
            // An uncertain number can be out of order: it says nothing about other numbers or about a gap.
            if sent.get(&channel).is_none_or(|sent| sent.uncertain.contains(&number)) {
                if !entry.recent.insert(number) {
                    return Err(Violation(format!("{id} received {number} on {:?} twice", channel.1)));
                }
                continue;
            }
            match entry.last {
                Some(last) if number <= last => {
                    return Err(Violation(format!("{id} received {number} on {:?} after {last}", channel.1)));
                }
                _ if entry.has_gap => {
                    let after = entry.last.or(entry.since).unwrap_or(number);
                    self.covered.fetch_add(number.saturating_sub(after + 1), Relaxed);
                }
                Some(last) => check_missing(id, &channel, sent, last + 1..number)?,
                None => {
                    if let Some(since) = entry.since {
                        check_missing(id, &channel, sent, since + 1..number)?;
                    }
                }
            }
            entry.first.get_or_insert(number);
            entry.recent.insert(number);
            entry.recent.retain(|recent| recent + 1000 > number);
            entry.last = Some(number);
            entry.has_gap = false;
        }
        Ok(())
    }

    /// Records a gap, which must contain every channel of the connection.
    pub fn record_gap(&self, id: ConnId, gap: &Gap) -> Result<(), Violation> {
        let mut state = self.lock();
        *state.gaps.entry(id).or_default() += 1;
        for ((of, name), received) in &mut state.received {
            if *of != id {
                continue;
            }
            if gap.channels().iter().any(|channel| **channel == **name) {
                received.has_gap = true;
            } else if received.since.is_some() {
                return Err(Violation(format!(
                    "{id} listened to {name:?}, but its gap contains only {:?}",
                    gap.channels()
                )));
            }
        }
        Ok(())
    }

    /// Returns `true` if every connection has received a number that was sent after the last fault.
    pub fn is_balanced(&self) -> bool {
        self.open_items().is_empty()
    }

    /// Returns a description of what is missing for a balance.
    pub fn open_items(&self) -> String {
        let busy = self.busy.load(Relaxed);
        if busy > 0 {
            return format!("{busy} threads still inject faults or make changes");
        }
        let mut state = self.lock();
        if state.marks.is_none() {
            state.marks = Some(state.sent.iter().map(|(channel, sent)| (channel.clone(), sent.last)).collect());
        }
        let LedgerState { marks: Some(marks), sites, received, .. } = &*state else { return String::new() };
        let behind = |(id, name): &(ConnId, String), received: &ReceivedNumbers| {
            let site = *sites.get(id)?;
            let mark = *marks.get(&(site, name.clone()))?;
            let done = name == BY_HANDLE || received.since.is_none() || received.last > Some(mark);
            (!done).then(|| format!("{id} has received up to {:?} on {name:?}, expected {mark}", received.last))
        };
        let open: Vec<_> = received.iter().filter_map(|(key, received)| behind(key, received)).collect();
        open.first().map_or(String::new(), |first| format!("{} are behind: {first}", open.len()))
    }
}

/// Checks numbers that were not received and are in no gap: only uncertain ones may be missing.
fn check_missing(
    id: ConnId,
    channel: &Channel,
    sent: &BTreeMap<Channel, SentNumbers>,
    numbers: std::ops::Range<u64>,
) -> Result<(), Violation> {
    // No connection listens to a channel that was closed.
    let Some(sent) = sent.get(channel) else { return Ok(()) };
    match numbers.clone().find(|number| !sent.uncertain.contains(number)) {
        None => Ok(()),
        Some(lost) => Err(Violation(format!("{id} lost {lost} on {:?} silently, of {numbers:?}", channel.1))),
    }
}

/// Returns a payload. Its check word distinguishes it from forged bytes.
pub fn payload(site: usize, number: u64) -> String {
    format!("{site} {number} {:x}", check_word(site, number))
}

fn parse_payload(text: &str) -> Option<(usize, u64)> {
    let mut words = text.split(' ');
    let (site, number) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let check = u64::from_str_radix(words.next()?, 16).ok()?;
    (check == check_word(site, number) && words.next().is_none()).then_some((site, number))
}

fn check_word(site: usize, number: u64) -> u64 {
    (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(site as u32 % 64) >> 32
}
