//! The double entry: what was sent on each channel, and what each connection heard of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use notifyman::{Batch, ConnId, Gap};

/// What must never happen, and did.
#[derive(Debug, Clone)]
pub struct Breach(pub String);

impl Breach {
    pub fn because<E: Display>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{what}: {error}"))
    }
}

/// A channel of one cluster.
pub type Channel = (usize, String);

/// One side of the books.
#[derive(Default)]
struct Sent {
    /// The last number that was given out.
    last: u64,
    /// Of these it isn't known whether the server took them.
    unsure: BTreeSet<u64>,
}

/// The other side: one connection on one channel.
#[derive(Default)]
struct Heard {
    first: Option<u64>,
    last: Option<u64>,
    /// Every number after this one must come.
    since: Option<u64>,
    /// Whether a gap was told since the last number.
    gap: bool,
    /// What came lately. Out of its turn only those may whose sender never learnt what became of them: the request may
    /// have stuck in a link that was dead for its sender, and gone on later.
    late: BTreeSet<u64>,
}

#[derive(Default)]
struct Ledgers {
    sent: BTreeMap<Channel, Sent>,
    /// On which cluster a connection is.
    sites: BTreeMap<ConnId, usize>,
    heard: BTreeMap<(ConnId, String), Heard>,
    /// How many gaps were told of a connection.
    gaps: BTreeMap<ConnId, u64>,
    /// What each connection must hear up to, at the end.
    marks: Option<BTreeMap<Channel, u64>>,
    breach: Option<Breach>,
}

pub struct Books {
    ledgers: Mutex<Ledgers>,
    ended: AtomicBool,
    /// No faults and no changes any more.
    called_off: AtomicBool,
    /// Faults and controls that are still at work.
    pub busy: AtomicU64,
    /// When bytes were forged last.
    forged: Mutex<Option<Instant>>,
    pub faults: AtomicU64,
    pub tickets: AtomicU64,
    pub refused: AtomicU64,
    pub damaged: AtomicU64,
    pub covered: AtomicU64,
}

/// The channel that every connection of a cluster listens to.
pub const ALL: &str = "all";
/// The channel on which only handles send.
pub const BY_HANDLE: &str = "by handle";

impl Books {
    pub fn new(clusters: usize) -> Self {
        let both = [ALL, BY_HANDLE];
        let channels = (0..clusters).flat_map(|at| both.map(|name| ((at, name.to_owned()), Sent::default())));
        Self {
            ledgers: Mutex::new(Ledgers { sent: channels.collect(), ..Ledgers::default() }),
            ended: AtomicBool::new(false),
            called_off: AtomicBool::new(false),
            busy: AtomicU64::new(2),
            forged: Mutex::new(None),
            faults: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            covered: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledgers> {
        self.ledgers.lock().unwrap()
    }

    /// Runs a part of the soak, and ends the whole where it fails.
    pub fn guarded<T>(&self, part: impl FnOnce() -> Result<T, Breach>) -> Option<T> {
        struct End<'a>(&'a Books);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.end();
                }
            }
        }
        let _end = End(self);
        part()
            .map_err(|breach| {
                self.lock().breach.get_or_insert(breach);
                self.end();
            })
            .ok()
    }

    pub fn breach(&self) -> Option<Breach> {
        self.lock().breach.clone()
    }

    pub fn end(&self) {
        self.ended.store(true, Relaxed);
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    pub fn call_off(&self) {
        self.called_off.store(true, Relaxed);
    }

    pub fn is_called_off(&self) -> bool {
        self.called_off.load(Relaxed) || self.has_ended()
    }

    pub fn forge(&self) {
        *self.forged.lock().unwrap() = Some(Instant::now());
    }

    /// Whether bytes were forged not long ago.
    pub fn is_forged(&self) -> bool {
        self.forged.lock().unwrap().is_some_and(|at| at.elapsed() < Duration::from_secs(20))
    }

    // ---- what is sent -------------------------------------------------------------------------------------------

    pub fn open(&self, channel: Channel) {
        self.lock().sent.entry(channel).or_default();
    }

    pub fn close(&self, channel: &Channel) {
        self.lock().sent.remove(channel);
    }

    /// The channels that a cluster's writer writes to.
    pub fn channels(&self, site: usize) -> Vec<String> {
        let ledgers = self.lock();
        let of_site = ledgers.sent.keys().filter(|(at, name)| *at == site && name != BY_HANDLE);
        of_site.map(|(_, name)| name.clone()).collect()
    }

    pub fn next_number(&self, channel: &Channel) -> Option<u64> {
        let mut ledgers = self.lock();
        let sent = ledgers.sent.get_mut(channel)?;
        sent.last += 1;
        Some(sent.last)
    }

    pub fn last_number(&self, channel: &Channel) -> u64 {
        self.lock().sent.get(channel).map_or(0, |sent| sent.last)
    }

    pub fn unsure(&self, channel: &Channel, number: u64) {
        if let Some(sent) = self.lock().sent.get_mut(channel) {
            sent.unsure.insert(number);
        }
    }

    pub fn sent(&self) -> u64 {
        self.lock().sent.values().map(|sent| sent.last).sum()
    }

    // ---- who listens --------------------------------------------------------------------------------------------

    /// From now on this connection must hear everything on this channel that comes after `since`, when so many gaps had
    /// been told of it: it may have been lost and restored before anybody could enter that it listens.
    pub fn listens(&self, id: ConnId, (site, name): Channel, since: u64, gaps: u64) -> Result<(), Breach> {
        let mut ledgers = self.lock();
        let Ledgers { sites, heard, sent, gaps: told, .. } = &mut *ledgers;
        let told_since = told.get(&id).is_some_and(|told| *told > gaps);
        sites.insert(id, site);
        let heard = heard.entry((id, name.clone())).or_default();
        heard.since = Some(since);
        if told_since {
            heard.gap |= heard.first.is_none();
        } else if let Some(first) = heard.first
            && !heard.gap
        {
            check_missing(id, &(site, name), sent, since + 1..first)?;
        }
        Ok(())
    }

    pub fn gaps(&self, id: ConnId) -> u64 {
        self.lock().gaps.get(&id).copied().unwrap_or_default()
    }

    /// From now on it need not.
    pub fn deaf(&self, id: ConnId, name: &str) {
        self.lock().heard.remove(&(id, name.to_owned()));
    }

    pub fn gone(&self, id: ConnId) {
        let mut ledgers = self.lock();
        ledgers.sites.remove(&id);
        ledgers.gaps.remove(&id);
        ledgers.heard.retain(|(of, _), _| *of != id);
    }

    // ---- what is heard ------------------------------------------------------------------------------------------

    pub fn enter(&self, id: ConnId, batch: &Batch) -> Result<(), Breach> {
        let mut ledgers = self.lock();
        let Ledgers { sites, heard, sent, .. } = &mut *ledgers;
        for n in batch {
            let name = n.channel().into_owned();
            let Some((site, number)) = read_payload(&n.payload()) else {
                if !self.is_forged() {
                    return Err(Breach(format!("{id} heard {:?}, which nobody sent", n.payload())));
                }
                self.damaged.fetch_add(1, Relaxed);
                continue;
            };
            if sites.get(&id).is_some_and(|it| *it != site) {
                return Err(Breach(format!("{id} heard what was sent on another cluster")));
            }
            let entry = heard.entry((id, name.clone())).or_default();
            let channel = (site, name);
            // Such a number has no turn: it says nothing about those before it, and nothing about a gap.
            if sent.get(&channel).is_none_or(|sent| sent.unsure.contains(&number)) {
                if !entry.late.insert(number) {
                    return Err(Breach(format!("{id} heard {number} on {:?} twice", channel.1)));
                }
                continue;
            }
            match entry.last {
                Some(last) if number <= last => {
                    return Err(Breach(format!("{id} heard {number} on {:?} after {last}", channel.1)));
                }
                _ if entry.gap => {
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
            entry.late.insert(number);
            entry.late.retain(|late| late + 1000 > number);
            entry.last = Some(number);
            entry.gap = false;
        }
        Ok(())
    }

    pub fn enter_gap(&self, id: ConnId, gap: &Gap) -> Result<(), Breach> {
        let mut ledgers = self.lock();
        *ledgers.gaps.entry(id).or_default() += 1;
        for ((of, name), heard) in &mut ledgers.heard {
            if *of != id {
                continue;
            }
            if gap.channels().iter().any(|told| **told == **name) {
                heard.gap = true;
            } else if heard.since.is_some() {
                return Err(Breach(format!(
                    "{id} listened to {name:?}, but its gap tells only of {:?}",
                    gap.channels()
                )));
            }
        }
        Ok(())
    }

    // ---- the end ------------------------------------------------------------------------------------------------

    /// Whether everybody has heard something that was sent after the last fault.
    pub fn is_balanced(&self) -> bool {
        self.open_items().is_empty()
    }

    /// What is missing for that.
    pub fn open_items(&self) -> String {
        let busy = self.busy.load(Relaxed);
        if busy > 0 {
            return format!("{busy} of control and faults are still at work");
        }
        let mut ledgers = self.lock();
        if ledgers.marks.is_none() {
            ledgers.marks = Some(ledgers.sent.iter().map(|(channel, sent)| (channel.clone(), sent.last)).collect());
        }
        let Ledgers { marks: Some(marks), sites, heard, .. } = &*ledgers else { return String::new() };
        let behind = |(id, name): &(ConnId, String), heard: &Heard| {
            let site = *sites.get(id)?;
            let mark = *marks.get(&(site, name.clone()))?;
            let done = name == BY_HANDLE || heard.since.is_none() || heard.last > Some(mark);
            (!done).then(|| format!("{id} has heard up to {:?} on {name:?}, not {mark}", heard.last))
        };
        let open: Vec<_> = heard.iter().filter_map(|(key, heard)| behind(key, heard)).collect();
        open.first().map_or(String::new(), |first| format!("{} are behind: {first}", open.len()))
    }
}

/// None of these numbers came, and no gap was told.
fn check_missing(
    id: ConnId,
    channel: &Channel,
    sent: &BTreeMap<Channel, Sent>,
    numbers: std::ops::Range<u64>,
) -> Result<(), Breach> {
    // A channel that was closed isn't listened to any more.
    let Some(sent) = sent.get(channel) else { return Ok(()) };
    match numbers.clone().find(|number| !sent.unsure.contains(number)) {
        None => Ok(()),
        Some(lost) => Err(Breach(format!("{id} lost {lost} on {:?} in silence, of {numbers:?}", channel.1))),
    }
}

/// What is sent: a check word keeps forged bytes from passing for a number.
pub fn payload(site: usize, number: u64) -> String {
    format!("{site} {number} {:x}", check_word(site, number))
}

fn read_payload(text: &str) -> Option<(usize, u64)> {
    let mut words = text.split(' ');
    let (site, number) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let check = u64::from_str_radix(words.next()?, 16).ok()?;
    (check == check_word(site, number) && words.next().is_none()).then_some((site, number))
}

fn check_word(site: usize, number: u64) -> u64 {
    (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(site as u32 % 64) >> 32
}
