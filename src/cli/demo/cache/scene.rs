//! The threads of the act: writers, and the readers of the two caches.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use notifyman::fence::{Entry, Fence, FenceChannel, Invalidator};
use notifyman::notifier::Delivery;
use notifyman::{Config, Connection, Error, Notifier};

use super::counts::{CacheMeter, SceneCounts};

/// Sessions of the act: the notifier's, and one for each thread.
pub(crate) const SESSIONS: usize = 1 + WRITERS + 2 * READERS;
const WRITERS: usize = 2;
/// Readers of each cache.
const READERS: usize = 3;
/// The longest pause of a writer, the pause between two reads, and the shortest and longest time of a fill.
const WRITE_PAUSE: Duration = Duration::from_millis(160);
const READ_PAUSE: Duration = Duration::from_millis(1);
const FILL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(30));

const ITEM: u64 = 42;
const CHANNEL: &str = "cached_prices";

/// The cache of a price, without a fence or with it.
enum PriceCache {
    Plain(Mutex<Option<u64>>),
    Fenced(FenceChannel<u64>, Mutex<Option<Entry<u64>>>),
}

/// A cache and its counts.
struct CacheUnderTest {
    cache: PriceCache,
    /// The latest version whose invalidation was handled.
    handled: AtomicU64,
    meter: CacheMeter,
}

/// The state that the threads share.
struct SceneState {
    plain: Arc<CacheUnderTest>,
    fenced: Arc<CacheUnderTest>,
    written: AtomicU64,
    is_over: AtomicBool,
    error: Mutex<Option<Error>>,
}

/// The act while it runs.
pub(crate) struct CacheScene {
    state: Arc<SceneState>,
    threads: Vec<JoinHandle<()>>,
    notifier: Notifier<u32>,
}

impl CacheScene {
    /// Creates the table and starts the threads.
    pub(crate) fn start(config: &Config) -> Result<Self, Error> {
        let mut db = Connection::connect(config)?;
        db.query("CREATE TABLE cached_prices (item bigint PRIMARY KEY, version bigint)")?;
        db.query(&format!("INSERT INTO cached_prices VALUES ({ITEM}, 1)"))?;
        db.close()?;

        let prices = Fence::new().channel::<u64>(CHANNEL);
        let state = Arc::new(SceneState {
            plain: CacheUnderTest::new(PriceCache::Plain(Mutex::default())),
            fenced: CacheUnderTest::new(PriceCache::Fenced(prices.clone(), Mutex::default())),
            written: AtomicU64::new(1),
            is_over: AtomicBool::new(false),
            error: Mutex::default(),
        });
        let notifier = Notifier::new(config)?;
        let plain = Arc::clone(&state.plain);
        notifier.subscribe(1, CHANNEL, move |delivery: &Delivery<'_, u32>| {
            if let Delivery::Notification(n) = delivery {
                plain.remove();
                plain.set_handled(&n.payload().text());
            }
        })?;
        let fenced = Arc::clone(&state.fenced);
        let invalidator = Invalidator::new(move |n, outdated| {
            if outdated.key(&ITEM, || fenced.remove()).is_ok() {
                fenced.set_handled(&n.payload());
            }
        });
        prices.subscribe(&notifier, 2, invalidator)?;

        let writers = (0..WRITERS).map(|number| SceneState::spawn(&state, config, number, SceneState::write));
        let readers = (0..2 * READERS).map(|number| SceneState::spawn(&state, config, number, SceneState::read));
        let threads = writers.chain(readers).collect();
        Ok(Self { state, threads, notifier })
    }

    pub(crate) fn counts(&self) -> SceneCounts {
        let SceneState { plain, fenced, written, .. } = &*self.state;
        SceneCounts { written: written.load(Relaxed), plain: plain.meter.counts(), fenced: fenced.meter.counts() }
    }

    /// Returns `true` if a thread has ended because of an error.
    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.state.error).is_some()
    }

    /// Lets the threads end.
    pub(crate) fn stop(&self) {
        self.state.is_over.store(true, Relaxed);
    }

    /// Waits for the end of the threads. Returns the counts and the first error.
    pub(crate) fn finish(self) -> (SceneCounts, Option<Error>) {
        self.stop();
        for thread in self.threads {
            drop(thread.join());
        }
        self.notifier.stop();
        let SceneState { plain, fenced, written, error, .. } = &*self.state;
        let counts =
            SceneCounts { written: written.load(Relaxed), plain: plain.meter.counts(), fenced: fenced.meter.counts() };
        (counts, lock(error).take())
    }
}

impl SceneState {
    /// Starts a thread with a connection of its own.
    fn spawn(
        state: &Arc<Self>,
        config: &Config,
        number: usize,
        run: fn(&Self, &mut Connection, usize) -> Result<(), Error>,
    ) -> JoinHandle<()> {
        let (state, config) = (Arc::clone(state), config.clone());
        thread::spawn(move || {
            let result = Connection::connect(&config).and_then(|mut db| run(&state, &mut db, number));
            if let Err(error) = result {
                lock(&state.error).get_or_insert(error);
                state.is_over.store(true, Relaxed);
            }
        })
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    /// Changes the price again and again.
    fn write(&self, db: &mut Connection, number: usize) -> Result<(), Error> {
        let mut random = RandomPauses(number as u64 + 1);
        while !self.is_over() {
            thread::sleep(random.between(Duration::ZERO, WRITE_PAUSE));
            let rows = db.query(&format!(
                "WITH price AS (UPDATE cached_prices SET version = version + 1 WHERE item = {ITEM} RETURNING version) \
                 SELECT version, pg_notify('{CHANNEL}', version::text) FROM price"
            ))?;
            self.written.fetch_max(version_in(&rows), Relaxed);
        }
        Ok(())
    }

    /// Reads the price again and again, from the cache if it is there.
    fn read(&self, db: &mut Connection, number: usize) -> Result<(), Error> {
        let cached = if number.is_multiple_of(2) { &self.plain } else { &self.fenced };
        let mut random = RandomPauses(number as u64 + 100);
        while !self.is_over() {
            cached.read(|| {
                let rows = db.query(&format!("SELECT version FROM cached_prices WHERE item = {ITEM}"))?;
                thread::sleep(random.between(FILL.0, FILL.1));
                Ok(version_in(&rows))
            })?;
            thread::sleep(READ_PAUSE);
        }
        Ok(())
    }
}

impl CacheUnderTest {
    fn new(cache: PriceCache) -> Arc<Self> {
        Arc::new(Self { cache, handled: AtomicU64::new(0), meter: CacheMeter::default() })
    }

    /// Reads the price; `query` reads it from the server.
    fn read(&self, query: impl FnOnce() -> Result<u64, Error>) -> Result<(), Error> {
        let handled = self.handled.load(SeqCst);
        let hit = match &self.cache {
            PriceCache::Plain(cache) => *lock(cache),
            PriceCache::Fenced(prices, cache) => lock(cache).as_ref().and_then(|entry| prices.fresh(entry).copied()),
        };
        if let Some(version) = hit {
            self.meter.count_hit(version, handled);
            return Ok(());
        }
        self.meter.count_miss();
        match &self.cache {
            PriceCache::Plain(cache) => {
                let version = query()?;
                *lock(cache) = Some(version);
            }
            PriceCache::Fenced(prices, cache) => {
                let lease = prices.begin(&ITEM);
                if !lease.admit(query()?, |entry| *lock(cache) = Some(entry)).is_stored() {
                    self.meter.count_refused();
                }
            }
        }
        Ok(())
    }

    fn remove(&self) {
        match &self.cache {
            PriceCache::Plain(cache) => *lock(cache) = None,
            PriceCache::Fenced(_, cache) => *lock(cache) = None,
        }
    }

    fn set_handled(&self, payload: &str) {
        self.handled.fetch_max(payload.parse().unwrap_or_default(), SeqCst);
    }
}

fn version_in(rows: &[notifyman::Row]) -> u64 {
    rows.first().and_then(|row| row.get(0)?.parse().ok()).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pauses that depend only on the seed.
struct RandomPauses(u64);

impl RandomPauses {
    fn between(&mut self, shortest: Duration, longest: Duration) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        shortest + (longest - shortest) * (self.0 >> 40) as u32 / (1 << 24)
    }
}
