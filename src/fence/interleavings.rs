//! The fence that ships, run over chosen interleavings of fills, invalidations, readers and links.
//!
//! The versions of one row are numbers, which writers count up. A reader notes the version up to which invalidations have
//! returned, and then looks into the cache: a hit must not be older. How schedules are chosen and replayed is said in
//! `notifier::interleavings`, also that orderings that are too weak are not found. The reasons for the weaker ones:
//!
//! - `Stripe::stamp` is advanced with Release under the lock, and compared under it, so `admit` sees the latest value. `begin`
//!   loads it (Acquire) before the query. An older stamp only refuses the fill.
//! - `Stripe::removals` is changed with AcqRel, when a removal begins and when it has ended. A reader loads it before and after
//!   it looks into the cache (Acquire): if it has not changed, no removal has begun in between.
//! - `ChannelCore::sweeps` is raised before each lock is taken. A fill that has not seen the new value has released its lock
//!   before, so that what it has inserted is there when the removal looks.
//! - `Epoch` is one word. A reader that sees it open (Acquire) sees the floors that were marked before (Release).
//! - `Floor` is set under the lock of the floors, and loaded (Acquire) under that of the stripe. `invalidate` marks a floor
//!   before it takes the stripe's lock, so that a later holder sees the mark.

use std::sync::Arc;
use std::sync::atomic::AtomicU64 as UnscheduledU64;
use std::time::Duration;

use shuttle::thread;

use crate::clock;
use crate::fence::channel::{ChannelCore, FenceCore};
use crate::fence::entry::{AwaitedEntry, Entry};
use crate::fence::epoch::{Bypass, LinkState, Serve, WhenAway};
use crate::fence::fill::Admission;
use crate::fence::floor::Lsn;
use crate::fence::floors::FloorQuestion;
use crate::fence::lease::Lease;
use crate::fence::removal::Removal;
use crate::fence::source::SourceId;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering::*};
use crate::sync::explore::{explore, one_in, random};

/// The only key.
const KEY: u64 = 7;

/// A row, a cache of it, and what must be true of its readers.
struct FencedRow {
    channel: Arc<ChannelCore>,
    source: Mutex<SourceId>,
    cache: Mutex<Option<Entry<u64>>>,
    /// A cache whose inserts and removals are awaited.
    awaited: Mutex<Option<AwaitedEntry<u64>>>,
    /// The version of the row.
    committed: AtomicU64,
    /// The version that the standby has replayed, which is also its position.
    replayed: AtomicU64,
    /// Everything up to this version has been invalidated. No other thread runs while it changes.
    handled: UnscheduledU64,
    questions: Arc<std::sync::Mutex<Vec<FloorQuestion>>>,
}

impl FencedRow {
    /// Creates a row whose channel is open.
    fn new() -> Arc<Self> {
        let questions: Arc<std::sync::Mutex<Vec<FloorQuestion>>> = Arc::default();
        let asked = Arc::clone(&questions);
        let fence = FenceCore::new(1, Some(Box::new(move |question| asked.lock().unwrap().push(question))));
        let channel = Arc::new(ChannelCore::new(&Arc::new(fence), "rows", 0));
        let source = channel.add_source(None);
        channel.set_source(source, LinkState::Open);
        Arc::new(Self {
            channel,
            source: Mutex::new(source),
            cache: Mutex::default(),
            awaited: Mutex::default(),
            committed: AtomicU64::new(1),
            replayed: AtomicU64::new(1),
            handled: UnscheduledU64::new(1),
            questions,
        })
    }

    fn lease<A: WhenAway>(&self) -> Lease<'_, A> {
        Lease::new(&self.channel, self.channel.begin::<A>(self.channel.stripe_of(&KEY)))
    }

    fn store(&self, entry: Entry<u64>) {
        *self.cache.lock().unwrap() = Some(entry);
    }

    fn remove(&self) {
        *self.cache.lock().unwrap() = None;
    }

    fn fill<A: WhenAway>(&self) -> Admission {
        let lease = self.lease::<A>();
        let value = self.committed.load(SeqCst);
        lease.admit(value, |entry| self.store(entry))
    }

    /// Fills a cache whose insert is awaited.
    fn fill_unconfirmed(&self) -> Admission {
        let lease = self.lease::<Bypass>();
        let (entry, lease) = lease.unconfirmed(self.committed.load(SeqCst));
        *self.awaited.lock().unwrap() = Some(entry);
        lease.confirm()
    }

    /// Lets other threads run for a while, as a call that is awaited does.
    fn wait(&self) {
        (0..random(0..20)).for_each(|_| {
            self.committed.load(SeqCst);
        });
    }

    /// Reads the cache whose inserts and removals are awaited.
    fn read_awaited(&self) -> Option<u64> {
        let lease = self.lease::<Bypass>();
        self.wait();
        let handled = self.handled.load(SeqCst);
        let entry = self.awaited.lock().unwrap().clone();
        self.wait();
        let hit = lease.fresh(entry.as_ref()?).copied()?;
        assert!(hit >= handled, "a hit of version {hit}, after {handled} was invalidated");
        Some(hit)
    }

    /// Invalidates by a removal that is awaited, or is dropped.
    fn await_removal(&self) {
        let version = self.commit();
        let removal = Removal::begin(&self.channel, KEY).unwrap();
        self.handled(version);
        if one_in(4) {
            return drop(removal);
        }
        self.wait();
        *self.awaited.lock().unwrap() = None;
        removal.done();
    }

    fn fill_on_standby<A: WhenAway>(&self) -> Admission {
        let lease = self.lease::<A>();
        let lease = lease.on_standby(Lsn::from(self.replayed.load(SeqCst)));
        let value = self.replayed.load(SeqCst);
        lease.admit(value, |entry| self.store(entry))
    }

    fn commit(&self) -> u64 {
        self.committed.fetch_add(1, SeqCst) + 1
    }

    fn handled(&self, version: u64) {
        self.handled.fetch_max(version, SeqCst);
    }

    /// Commits a change, and handles its notification.
    fn invalidate(&self, kind: usize) {
        let version = self.commit();
        match kind {
            0 => self.channel.invalidate(self.channel.stripe_of(&KEY), |_| self.remove()).unwrap(),
            1 => self.channel.sweep(|| self.remove()).unwrap(),
            _ => self.channel.forget(),
        }
        self.handled(version);
    }

    /// Reads the cache.
    fn read<A: WhenAway>(&self) -> Option<u64> {
        let handled = self.handled.load(SeqCst);
        let entry = self.cache.lock().unwrap().clone();
        let hit = self.channel.fresh::<A, _>(entry.as_ref()?).copied()?;
        assert!(hit >= handled, "a hit of version {hit}, after {handled} was invalidated");
        Some(hit)
    }

    /// Loses the session, and restores it. A change in between is not notified.
    fn reconnect(&self) {
        let source = *self.source.lock().unwrap();
        if one_in(2) {
            self.commit();
        }
        self.channel.set_source(source, LinkState::Away);
        self.commit();
        let since = self.committed.load(SeqCst);
        self.channel.set_source(source, LinkState::Open);
        self.handled(since);
    }

    /// Ends the subscription, and subscribes again. A change in between is not notified.
    fn subscribe_again(&self) {
        let mut source = self.source.lock().unwrap();
        self.channel.remove_source(*source);
        self.commit();
        let handled = self.committed.load(SeqCst);
        self.handled(handled);
        *source = self.channel.add_source(None);
        self.channel.set_source(*source, LinkState::Open);
    }

    /// Replays the next changes on the standby.
    fn replay(&self) {
        for _ in 0..random(1..3) {
            if self.replayed.load(SeqCst) < self.committed.load(SeqCst) {
                self.replayed.fetch_add(1, SeqCst);
            }
        }
    }

    /// Answers the question that waits, or fails to.
    fn answer(&self) {
        let question = self.questions.lock().unwrap().pop();
        if let Some(question) = question
            && !one_in(4)
        {
            question.answer(1, Lsn::from(self.committed.load(SeqCst)));
        }
    }
}

/// Runs functions of a row, each on a thread, a few times.
fn run(row: &Arc<FencedRow>, threads: Vec<fn(&FencedRow)>) {
    let threads: Vec<_> = threads
        .into_iter()
        .map(|step| {
            let (row, times) = (Arc::clone(row), random(1..3));
            thread::spawn(move || (0..times).for_each(|_| step(&row)))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn fill<A: WhenAway>(row: &FencedRow) {
    row.fill::<A>();
}

fn read<A: WhenAway>(row: &FencedRow) {
    row.read::<A>();
}

/// After everything has been handled, the latest version is served, or none, and a fill is a hit.
fn check_end<A: WhenAway>(row: &FencedRow) {
    row.read::<A>();
    assert!(row.fill::<A>().is_stored());
    assert_eq!(row.read::<A>(), Some(row.committed.load(SeqCst)));
}

fn invalidate_keys() {
    let row = FencedRow::new();
    run(&row, vec![fill::<Bypass>, fill::<Serve>, |row| row.invalidate(0), read::<Bypass>]);
    check_end::<Bypass>(&row);
}

fn sweep_keys() {
    let row = FencedRow::new();
    run(&row, vec![fill::<Bypass>, fill::<Bypass>, |row| row.invalidate(1), read::<Serve>]);
    check_end::<Bypass>(&row);
}

fn forget_all() {
    let row = FencedRow::new();
    run(&row, vec![fill::<Bypass>, fill::<Serve>, |row| row.invalidate(2), read::<Serve>]);
    check_end::<Bypass>(&row);
}

fn lose_the_session() {
    let row = FencedRow::new();
    run(&row, vec![fill::<Bypass>, FencedRow::reconnect, |row| row.invalidate(random(0..3)), read::<Bypass>]);
    check_end::<Bypass>(&row);
}

/// While the session is away, what is served may be stale, but nothing of it is served afterwards.
fn serve_while_away() {
    let row = FencedRow::new();
    run(&row, vec![fill::<Serve>, fill::<Serve>, FencedRow::reconnect, read::<Serve>]);
    check_end::<Serve>(&row);
}

fn end_subscriptions() {
    let row = FencedRow::new();
    run(&row, vec![fill::<Bypass>, fill::<Serve>, FencedRow::subscribe_again, read::<Serve>]);
    check_end::<Bypass>(&row);
}

fn await_removals() {
    let row = FencedRow::new();
    let fill: fn(&FencedRow) = |row| {
        row.fill_unconfirmed();
    };
    let read: fn(&FencedRow) = |row| {
        row.read_awaited();
    };
    run(&row, vec![fill, fill, FencedRow::await_removal, FencedRow::await_removal, read]);
    row.read_awaited();
    assert!(row.fill_unconfirmed().is_stored());
    assert_eq!(row.read_awaited(), Some(row.committed.load(SeqCst)));
}

/// A reader finds an entry just before it is removed.
fn read_during_a_removal() {
    let row = FencedRow::new();
    assert!(row.fill_unconfirmed().is_stored());
    let read: fn(&FencedRow) = |row| {
        row.read_awaited();
    };
    run(&row, vec![FencedRow::await_removal, read]);
}

/// Runs fills from the standby against a change, once the floor of the channel is known.
fn fill_on_standbys(changes: Vec<fn(&FencedRow)>) {
    let row = FencedRow::new();
    row.fill_on_standby::<Bypass>();
    if let Some(question) = row.questions.lock().unwrap().pop() {
        question.answer(1, Lsn::from(1));
    }
    let fill: fn(&FencedRow) = |row| {
        row.fill_on_standby::<Bypass>();
    };
    run(&row, [vec![fill, read::<Bypass>], changes].concat());
    row.read::<Bypass>();
    // Once the standby has replayed everything and each question is answered, fills are stored.
    row.replayed.store(row.committed.load(SeqCst), SeqCst);
    for _ in 0..20 {
        if row.fill_on_standby::<Bypass>().is_stored() {
            return assert_eq!(row.read::<Bypass>(), Some(row.committed.load(SeqCst)));
        }
        row.answer();
    }
    panic!("fills from the standby are refused for ever");
}

fn lag_with_keys() {
    fill_on_standbys(vec![|row| row.invalidate(0), |row| row.invalidate(0), FencedRow::replay, FencedRow::answer]);
}

fn lag_with_others() {
    let change: fn(&FencedRow) = match random(0..3) {
        0 => FencedRow::reconnect,
        1 => |row| row.invalidate(1),
        _ => |row| row.invalidate(2),
    };
    fill_on_standbys(if one_in(2) { vec![change] } else { vec![change, FencedRow::replay, FencedRow::answer] });
}

/// A certificate is as late as what has been handled, and is withdrawn before the channel is away.
fn certify() {
    let row = FencedRow::new();
    let start = clock::now();
    let at = move |version: u64| start + Duration::from_secs(version);
    let handler = {
        let row = Arc::clone(&row);
        thread::spawn(move || {
            for _ in 0..2 {
                row.invalidate(0);
                let source = *row.source.lock().unwrap();
                row.channel.prove(source, Some(at(row.handled.load(SeqCst))));
            }
        })
    };
    let link = {
        let row = Arc::clone(&row);
        thread::spawn(move || {
            let source = *row.source.lock().unwrap();
            row.channel.set_source(source, LinkState::Away);
            assert_eq!(row.channel.as_of(), None);
            row.channel.set_source(source, LinkState::Open);
        })
    };
    let reader = {
        let row = Arc::clone(&row);
        thread::spawn(move || {
            let as_of = row.channel.as_of();
            let handled = row.handled.load(SeqCst);
            assert!(as_of.is_none_or(|as_of| as_of <= at(handled)), "{as_of:?}, but {handled} was handled");
        })
    };
    [handler, link, reader].into_iter().for_each(|thread| thread.join().unwrap());
}

macro_rules! explored {
    ($($name:ident: $scenario:expr;)*) => {$(
        #[test]
        fn $name() {
            explore(stringify!($name), 20, $scenario);
        }
    )*};
}

explored! {
    f01_a_key_that_is_invalidated_is_not_served: invalidate_keys;
    f06_a_prefix_that_is_invalidated_is_not_served: sweep_keys;
    f06_a_channel_that_is_forgotten_is_not_served: forget_all;
    f02_nothing_is_served_that_a_lost_session_could_have_invalidated: lose_the_session;
    f02_what_is_served_while_away_is_forgotten_then: serve_while_away;
    f02_nothing_is_served_after_the_last_subscription_has_ended: end_subscriptions;
    f05_awaited_inserts_and_removals_serve_nothing_stale: await_removals;
    f05_an_entry_that_is_found_before_its_removal_is_not_served_after_it: read_during_a_removal;
    f04_a_standby_that_lags_fills_nothing_stale: lag_with_keys;
    f04_a_standby_that_lags_fills_nothing_from_before_a_gap: lag_with_others;
    f03_a_certificate_is_not_later_than_what_was_handled: certify;
}
