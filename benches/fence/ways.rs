//! The operations that are measured.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Mutex;

use notifyman::fence::{Entry, FenceChannel};
use quick_cache::sync::GuardResult;

type MokaCache<V> = moka::sync::Cache<u64, V>;
type QuickCache<V> = quick_cache::sync::Cache<u64, V>;

/// The capacity of a cache, which has room for all keys.
const CAPACITY: usize = 100_000;
/// A key of which there is one.
const HOT: u64 = 42;

type Run<'c> = dyn Fn(&[u64], u32) + Sync + 'c;

/// A way to do something with a key, again and again.
pub struct CacheCall<'c> {
    pub name: &'static str,
    /// Does it with keys, one after the other, this many times.
    pub run: Box<Run<'c>>,
}

fn way<'c>(name: &'static str, once: impl Fn(u64) + Sync + 'c) -> CacheCall<'c> {
    let run = move |keys: &[u64], times| keys.iter().cycle().take(times as usize).for_each(|key| once(*key));
    CacheCall { name, run: Box::new(run) }
}

/// A map with a generation for each key, under one lock: what programs write without a fence.
#[derive(Default)]
struct Generations {
    generations: HashMap<u64, u64>,
    values: HashMap<u64, u64>,
}

impl Generations {
    fn generation(&mut self, key: u64) -> u64 {
        *self.generations.entry(key).or_default()
    }
}

/// The ways to fill a cache. The first one only begins and admits.
pub fn fills(channel: &FenceChannel<u64>) -> Vec<CacheCall<'_>> {
    let (generations, storing) = (Mutex::<Generations>::default(), Mutex::<Generations>::default());
    let (map, fenced_map) = (Mutex::<HashMap<u64, u64>>::default(), Mutex::<HashMap<u64, Entry<u64>>>::default());
    let (moka, fenced_moka) = (MokaCache::new(CAPACITY as u64), MokaCache::new(CAPACITY as u64));
    let (quick, fenced_quick, guarded) =
        (QuickCache::new(CAPACITY), QuickCache::new(CAPACITY), QuickCache::<u64>::new(CAPACITY));
    let fill = move |key: u64, insert: &dyn Fn(Entry<u64>)| _ = channel.begin(&key).admit(key, insert);
    vec![
        way("fence, alone", |key| _ = channel.begin(&key).admit(key, |entry| _ = black_box(entry))),
        way("fence, alone, one key", |key| _ = channel.begin(&HOT).admit(key, |entry| _ = black_box(entry))),
        way("generation under a mutex, alone", move |key| {
            let generation = generations.lock().unwrap().generation(key);
            let mut locked = generations.lock().unwrap();
            if locked.generation(key) == generation {
                black_box(key);
            }
        }),
        way("map under a mutex, generation", move |key| {
            let generation = storing.lock().unwrap().generation(key);
            let mut locked = storing.lock().unwrap();
            if locked.generation(key) == generation {
                locked.values.insert(key, key);
            }
        }),
        way("map under a mutex", move |key| _ = map.lock().unwrap().insert(key, key)),
        way("map under a mutex, fence", move |key| {
            fill(key, &|entry| _ = fenced_map.lock().unwrap().insert(key, entry))
        }),
        way("moka", move |key| moka.insert(key, key)),
        way("moka, fence", move |key| fill(key, &|entry| fenced_moka.insert(key, entry))),
        way("quick_cache", move |key| quick.insert(key, key)),
        way("quick_cache, fence", move |key| fill(key, &|entry| fenced_quick.insert(key, entry))),
        way("quick_cache, guard", move |key| {
            guarded.remove(&key);
            match guarded.get_value_or_guard(&key, None) {
                GuardResult::Guard(guard) => _ = guard.insert(key),
                // Another thread fills it.
                other => _ = black_box(other),
            }
        }),
    ]
}

/// The ways to read. The first one only checks an entry.
pub fn reads(channel: &FenceChannel<u64>) -> Vec<CacheCall<'_>> {
    let (map, moka, quick) =
        (Mutex::<HashMap<u64, Entry<u64>>>::default(), MokaCache::new(CAPACITY as u64), QuickCache::new(CAPACITY));
    let mut entries = Vec::new();
    for key in 0..crate::KEYS as u64 {
        let admission = channel.begin(&key).admit(key, |entry| {
            map.lock().unwrap().insert(key, entry.clone());
            moka.insert(key, entry.clone());
            quick.insert(key, entry.clone());
            entries.push(entry);
        });
        assert!(admission.is_stored());
    }
    let (plain_map, plain_moka, plain_quick) = (map.lock().unwrap().clone(), moka.clone(), std::sync::Arc::new(quick));
    let (plain_map, quick) = (Mutex::new(plain_map), plain_quick.clone());
    let fresh = move |entry: Entry<u64>| _ = black_box(channel.fresh(&entry).copied());
    vec![
        way("fresh, alone", move |key| _ = black_box(channel.fresh(black_box(&entries[key as usize])))),
        way("map under a mutex", move |key| _ = black_box(plain_map.lock().unwrap().get(&key).cloned())),
        way("map under a mutex, fresh", move |key| fresh(map.lock().unwrap().get(&key).unwrap().clone())),
        way("moka", move |key| _ = black_box(plain_moka.get(&key))),
        way("moka, fresh", move |key| fresh(moka.get(&key).unwrap())),
        way("quick_cache", move |key| _ = black_box(plain_quick.get(&key))),
        way("quick_cache, fresh", move |key| fresh(quick.get(&key).unwrap())),
    ]
}

/// The invalidations of a key.
pub fn invalidations(channel: &FenceChannel<u64>) -> Vec<CacheCall<'_>> {
    let (moka, fenced) = (MokaCache::<u64>::new(CAPACITY as u64), MokaCache::<u64>::new(CAPACITY as u64));
    vec![
        way("fence, alone", |key| channel.invalidate(&key, || _ = black_box(key)).unwrap()),
        way("moka, absent key", move |key| moka.invalidate(&key)),
        way("moka, absent key, fence", move |key| channel.invalidate(&key, || fenced.invalidate(&key)).unwrap()),
    ]
}

/// The invalidations that visit all stripes.
pub fn sweeps(channel: &FenceChannel<u64>) -> Vec<CacheCall<'_>> {
    vec![way("fence, alone", |key| channel.invalidate_matching(|| _ = black_box(key)).unwrap())]
}
