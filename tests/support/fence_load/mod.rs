//! A load for a cache behind a fence: programs that write, programs that read through the cache, and a link that is cut.
//!
//! ```text
//! writers ──UPDATE, NOTIFY──▶ server ──▶ proxy, cut again and again ──▶ receiver ──▶ fence ──remove──▶ cache
//! readers ──query, delay────▶ server                                                  fence ◀─get, insert─▶ cache
//! ```
//!
//! The versions of an item only grow. A hit is stale if its version is older than one whose invalidation had been handled
//! before the read began, or than one that was committed before the time that `as_of` returned before the read began.
//! Some fills are held until the invalidation of what they have read was handled: without a fence, these are the stale ones.

mod history;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::fence::{Admission, AwaitedEntry, Entry, Fence, FenceChannel, Invalidator, Lease, WhenAway};
use notifyman::notifier::Delivery;
use notifyman::{Backoff, Config, Connection, NotificationManager, Notifier};

use self::history::{Change, ItemHistory, Random, changes, lock};
use super::cluster::Cluster;
use super::proxy::Proxy;

const ITEMS: u64 = 64;
/// One update in this many changes all items of a residue class, whose invalidation is one of several keys.
const SWEEP: u64 = 50;
const WRITERS: u64 = 8;
const READERS: u64 = 16;
/// The longest pause of a writer, and the longest usual delay of a fill; one of [`SLOW`] fills takes [`SLOW_DELAY`] more.
const PAUSE: Duration = Duration::from_millis(4);
const DELAY: Duration = Duration::from_millis(2);
const SLOW_DELAY: Duration = Duration::from_millis(15);
const SLOW: u64 = 50;
/// One item in this many is stored as by a cache whose calls are awaited.
const AWAITED: u64 = 4;
/// One fill in this many is held until its invalidation was handled, or until a time limit, because the link was cut.
const HELD: u64 = 20;
const HELD_LIMIT: Duration = Duration::from_millis(500);
/// The period of the canary and its deadline, and one read in this many that is judged by `as_of`.
const CANARY: Duration = Duration::from_millis(50);
const CANARY_DEADLINE: Duration = Duration::from_secs(5);
const JUDGED: u64 = 16;

/// The way by which a cache receives its invalidations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadSource {
    /// The control run: the same cache, whose entries are only removed, by a callback.
    NoFence,
    Notifier,
    /// The events of a manager.
    Events,
}

/// The size of a load. It ends when all numbers are reached, or after the time limit.
#[derive(Debug, Clone, Copy)]
pub struct FenceLoad {
    pub source: LoadSource,
    /// Reads.
    pub operations: u64,
    pub invalidations: u64,
    /// Fills that are held until their invalidation was handled.
    pub held: u64,
    /// `0` to leave the link alone.
    pub cuts: u64,
    pub limit: Duration,
}

/// The counts of a load.
#[derive(Debug, Clone, Default)]
pub struct FenceFindings {
    pub hits: u64,
    pub misses: u64,
    /// Hits that are older than a version whose invalidation had been handled.
    pub stale: u64,
    /// Hits that are older than a version that was committed before `as_of`, and the hits that were compared with it.
    pub stale_as_of: u64,
    pub judged_as_of: u64,
    /// The fills by their results.
    pub fills: HashMap<Admission, u64>,
    /// Fills that were held until their invalidation was handled, and those of them that were stored.
    pub held: u64,
    pub held_stored: u64,
    pub writes: u64,
    pub invalidations: u64,
    pub cuts: u64,
    /// The time without a connection.
    pub away: Duration,
    pub elapsed: Duration,
}

impl FenceFindings {
    pub fn operations(&self) -> u64 {
        self.hits + self.misses
    }

    /// Returns the share of hits in all reads.
    pub fn hit_rate(&self) -> f64 {
        self.hits as f64 / self.operations().max(1) as f64
    }

    fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.stale += other.stale;
        self.stale_as_of += other.stale_as_of;
        self.judged_as_of += other.judged_as_of;
        self.held += other.held;
        self.held_stored += other.held_stored;
        self.writes += other.writes;
        for (admission, count) in &other.fills {
            *self.fills.entry(*admission).or_default() += count;
        }
    }
}

/// A value that a cache keeps.
#[derive(Debug, Clone)]
pub enum CachedItem {
    Fenced(Entry<u64>),
    /// One item in [`AWAITED`] is stored like this.
    Awaited(AwaitedEntry<u64>),
    Plain(u64),
}

/// A cache of versions by item.
pub trait ItemCache: Send + Sync {
    fn get(&self, item: u64) -> Option<CachedItem>;
    fn insert(&self, item: u64, kept: CachedItem);
    fn remove(&self, item: u64);
}

impl ItemCache for Mutex<HashMap<u64, CachedItem>> {
    fn get(&self, item: u64) -> Option<CachedItem> {
        lock(self).get(&item).cloned()
    }

    fn insert(&self, item: u64, kept: CachedItem) {
        lock(self).insert(item, kept);
    }

    fn remove(&self, item: u64) {
        lock(self).remove(&item);
    }
}

/// The parts that all threads share.
struct LoadScene {
    load: FenceLoad,
    channel: FenceChannel<u64>,
    cache: Arc<dyn ItemCache>,
    items: Arc<[ItemHistory]>,
    invalidations: Arc<AtomicU64>,
    config: Config,
    operations: AtomicU64,
    held: AtomicU64,
    is_over: AtomicBool,
    findings: Mutex<FenceFindings>,
}

/// Runs a load on a server of its own.
pub fn run(load: FenceLoad, server: &Cluster, cache: Arc<dyn ItemCache>, seed: u64) -> FenceFindings {
    let config: Config = server.url().parse().unwrap();
    let mut db = Connection::connect(&config).unwrap();
    db.query("DROP TABLE IF EXISTS items").unwrap();
    db.query("CREATE TABLE items (item bigint PRIMARY KEY, version bigint) WITH (fillfactor = 10)").unwrap();
    db.query(&format!("INSERT INTO items SELECT item, 1 FROM generate_series(0, {}) item", ITEMS - 1)).unwrap();

    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into());
    let through_proxy = format!("postgres://postgres@{}/postgres", proxy.addr());
    let scene = LoadScene {
        load,
        channel: Fence::new().channel("items"),
        cache,
        items: (0..ITEMS).map(|_| ItemHistory::default()).collect(),
        invalidations: Arc::default(),
        config,
        operations: AtomicU64::new(0),
        held: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        findings: Mutex::default(),
    };
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| match load.source {
            LoadSource::Events => scene.receive_events(&through_proxy),
            LoadSource::Notifier | LoadSource::NoFence => scene.receive_callbacks(&through_proxy),
        });
        for number in 0..WRITERS {
            let scene = &scene;
            scope.spawn(move || scene.write(number, Random(seed.wrapping_mul(1_000) + number + 1)));
        }
        for number in 0..READERS {
            let scene = &scene;
            scope.spawn(move || scene.read(number, Random(seed.wrapping_mul(1_000) + 500 + number)));
        }
        // If a thread fails, the others end, too.
        scene.disturb(&proxy, begin, Random(seed + 1));
        scene.is_over.store(true, SeqCst);
    });
    let mut findings = lock(&scene.findings).clone();
    findings.elapsed = begin.elapsed();
    findings.invalidations = scene.invalidations.load(SeqCst);
    findings
}

impl LoadScene {
    fn has_fence(&self) -> bool {
        self.load.source != LoadSource::NoFence
    }

    // ---- invalidations ----------------------------------------------------------------------------------------------

    /// Receives the invalidations by a notifier, until the load is over.
    fn receive_callbacks(&self, url: &str) {
        let notifier = Notifier::builder(url).unwrap().reconnect(soon());
        let notifier: Notifier<u32> = notifier.canary_at_any_pace(CANARY, CANARY_DEADLINE).start().unwrap();
        if self.has_fence() {
            self.channel.subscribe(&notifier, 1, self.invalidator()).unwrap();
        } else {
            let (cache, handled) = (self.cache.clone(), self.handler());
            let callback = move |delivery: &Delivery<'_, u32>| {
                if let Delivery::Notification(n) = delivery {
                    let changes = changes(&n.payload().text());
                    changes.iter().for_each(|change| cache.remove(change.item));
                    handled(&changes);
                }
            };
            notifier.subscribe(1, "items", callback).unwrap();
        }
        while !self.is_over() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Receives the invalidations as events, until the load is over.
    fn receive_events(&self, url: &str) {
        let nm = NotificationManager::new([]).reconnect(soon()).timeout(Duration::from_millis(5));
        let mut nm = nm.canary_at_any_pace("canary", CANARY, CANARY_DEADLINE).report_canaries();
        let id = nm.dial(url, ["items"]).unwrap();
        let mut events = self.channel.events(&nm, id, self.invalidator()).unwrap();
        while !self.is_over() {
            events.apply(&nm.next_event().unwrap());
        }
    }

    fn invalidator(&self) -> Invalidator<u64> {
        let (cache, handled) = (self.cache.clone(), self.handler());
        Invalidator::new(move |n, outdated| {
            let (changes, remove) = (changes(&n.payload()), |change: &Change| cache.remove(change.item));
            match &changes[..] {
                [change] => outdated.key(&change.item, || remove(change)).unwrap(),
                _ => outdated.matching(|| changes.iter().for_each(remove)).unwrap(),
            }
            handled(&changes);
        })
    }

    /// Returns a function that records handled invalidations.
    fn handler(&self) -> impl Fn(&[Change]) + Send + 'static {
        let (items, count) = (self.items.clone(), self.invalidations.clone());
        move |changes| {
            for change in changes {
                items[change.item as usize].handled.fetch_max(change.version, SeqCst);
            }
            count.fetch_add(1, SeqCst);
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    // ---- writers ----------------------------------------------------------------------------------------------------

    fn write(&self, number: u64, mut random: Random) {
        let mut db = Connection::connect(&self.config).unwrap();
        let mut findings = FenceFindings::default();
        while !self.is_over() {
            // Of two such updates at the same time, each could wait for the other.
            if number == 0 && random.below(SWEEP / WRITERS) == 0 {
                self.change(&mut db, &format!("item % 8 = {}", random.below(8)));
            } else {
                self.change(&mut db, &format!("item = {}", random.below(ITEMS)));
            }
            findings.writes += 1;
            thread::sleep(random.up_to(PAUSE));
        }
        lock(&self.findings).add(&findings);
    }

    /// Changes items, and notifies that in the same transaction. Returns the version of the last one.
    fn change(&self, db: &mut Connection, condition: &str) -> u64 {
        let rows = db.query(&format!(
            "WITH changed AS (UPDATE items SET version = version + 1 WHERE {condition} RETURNING item, version), \
             news AS (SELECT string_agg(item || '=' || version, ' ') AS payload FROM changed) \
             SELECT payload, pg_notify('items', payload) FROM news"
        ));
        let changes = changes(&rows.unwrap()[0].get(0).unwrap());
        changes.iter().for_each(|change| self.items[change.item as usize].add_commit(change.version));
        changes.last().unwrap().version
    }

    // ---- readers ----------------------------------------------------------------------------------------------------

    fn read(&self, number: u64, mut random: Random) {
        let mut db = Connection::connect(&self.config).unwrap();
        let mut findings = FenceFindings::default();
        while !self.is_over() {
            for turn in 0..JUDGED {
                self.read_once(random.below(ITEMS), turn == 0, number, &mut db, &mut random, &mut findings);
            }
            self.operations.fetch_add(JUDGED, Relaxed);
        }
        lock(&self.findings).add(&findings);
    }

    fn read_once(
        &self,
        item: u64,
        is_judged: bool,
        number: u64,
        db: &mut Connection,
        random: &mut Random,
        findings: &mut FenceFindings,
    ) {
        // First what is known before the read begins.
        let history = &self.items[item as usize];
        let handled = history.handled.load(SeqCst);
        let as_of = if is_judged { self.channel.as_of() } else { None };
        // Some programs serve what they have while the connection is away.
        let hit = match number % 4 {
            0 => self.hit_or_fill(&self.channel.serve_when_away(), item, db, random, findings),
            _ => self.hit_or_fill(&self.channel, item, db, random, findings),
        };
        let Some(version) = hit else {
            findings.misses += 1;
            return;
        };
        findings.hits += 1;
        findings.stale += u64::from(version < handled);
        if let Some(as_of) = as_of {
            findings.judged_as_of += 1;
            findings.stale_as_of += u64::from(version < history.committed_before(as_of));
        }
    }

    /// Returns the version that the cache has, or reads it from the server and stores it.
    fn hit_or_fill<A: WhenAway>(
        &self,
        channel: &FenceChannel<u64, A>,
        item: u64,
        db: &mut Connection,
        random: &mut Random,
        findings: &mut FenceFindings,
    ) -> Option<u64> {
        let lease = item.is_multiple_of(AWAITED).then(|| channel.begin(&item));
        let hit = match self.cache.get(item) {
            Some(CachedItem::Fenced(entry)) => channel.fresh(&entry).copied(),
            Some(CachedItem::Awaited(entry)) => lease.as_ref().unwrap().fresh(&entry).copied(),
            Some(CachedItem::Plain(version)) => Some(version),
            None => None,
        };
        if hit.is_none() {
            self.fill(lease.unwrap_or_else(|| channel.begin(&item)), item, db, random, findings);
        }
        hit
    }

    /// Reads an item from the server, and stores it.
    fn fill<A: WhenAway>(
        &self,
        lease: Lease<'_, A>,
        item: u64,
        db: &mut Connection,
        random: &mut Random,
        findings: &mut FenceFindings,
    ) {
        let rows = db.query(&format!("SELECT version FROM items WHERE item = {item}")).unwrap();
        let version: u64 = rows[0].get(0).unwrap().parse().unwrap();
        thread::sleep(random.up_to(DELAY));
        if random.below(SLOW) == 0 {
            thread::sleep(SLOW_DELAY);
        }
        let is_held = random.below(HELD) == 0 && self.hold(item, db);

        let admission = if !self.has_fence() {
            self.cache.insert(item, CachedItem::Plain(version));
            Admission::Stored
        } else if item.is_multiple_of(AWAITED) {
            let (entry, lease) = lease.unconfirmed(version);
            self.cache.insert(item, CachedItem::Awaited(entry));
            lease.confirm()
        } else {
            lease.admit(version, |entry| self.cache.insert(item, CachedItem::Fenced(entry)))
        };
        *findings.fills.entry(admission).or_default() += 1;
        findings.held += u64::from(is_held);
        self.held.fetch_add(u64::from(is_held), Relaxed);
        findings.held_stored += u64::from(is_held && admission.is_stored());
    }

    /// Changes an item, and waits until the invalidation was handled. Returns `false` if it was not, within the limit.
    fn hold(&self, item: u64, db: &mut Connection) -> bool {
        let version = self.change(db, &format!("item = {item}"));
        let begin = Instant::now();
        while self.items[item as usize].handled.load(SeqCst) < version {
            if begin.elapsed() > HELD_LIMIT {
                return false;
            }
            thread::sleep(Duration::from_micros(200));
        }
        true
    }

    // ---- the link ---------------------------------------------------------------------------------------------------

    /// Cuts the link again and again until the load is over, and measures the time without a connection.
    fn disturb(&self, proxy: &Proxy, begin: Instant, mut random: Random) {
        let (mut cuts, mut away, mut last) = (0, Duration::ZERO, Instant::now());
        let mut cut_at = last + Duration::from_millis(100);
        loop {
            thread::sleep(Duration::from_millis(1));
            let now = Instant::now();
            let is_open = self.channel.is_open() || !self.has_fence();
            if !is_open {
                away += now - last;
            }
            last = now;
            let FenceLoad { operations, invalidations, held, cuts: least, limit, .. } = self.load;
            let is_enough = self.operations.load(Relaxed) >= operations
                && self.invalidations.load(SeqCst) >= invalidations
                && self.held.load(Relaxed) >= held
                && cuts >= least;
            if is_enough || begin.elapsed() > limit {
                break;
            }
            if least > 0 && is_open && now >= cut_at {
                cut(proxy, cuts, &mut random);
                cuts += 1;
                cut_at = Instant::now() + Duration::from_millis(50) + random.up_to(Duration::from_millis(300));
            }
        }
        let mut findings = lock(&self.findings);
        (findings.cuts, findings.away) = (cuts, away);
    }
}

/// Returns the pauses between attempts to restore the link.
fn soon() -> Backoff {
    Backoff::default().first(Duration::from_millis(5)).longest(Duration::from_millis(50))
}

/// Cuts the link in one of four ways.
fn cut(proxy: &Proxy, number: u64, random: &mut Random) {
    match number % 4 {
        0 => proxy.cut_rst(),
        1 => proxy.cut_fin(),
        // In the middle of a message.
        2 => {
            proxy.cut_after(random.below(200));
            thread::sleep(Duration::from_millis(20));
            proxy.resume();
        }
        _ => {
            proxy.refuse();
            proxy.cut_rst();
            thread::sleep(random.up_to(Duration::from_millis(60)));
            proxy.resume();
        }
    }
}
