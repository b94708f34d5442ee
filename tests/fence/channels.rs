//! A channel that a notifier serves: fills in flight, losses, and everything that silences a subscription.

use std::time::{Duration, Instant};

use notifyman::fence::{Admission, AwaitedEntry, Entry, Fence, Invalidator};
use notifyman::notifier::{Policy, Queue};
use notifyman::{Error, Notifier};

use super::support::*;
use crate::support::{Options, Proxy, server};

#[test]
fn f01_a_fill_in_flight_is_refused_when_its_key_is_invalidated() {
    let server = server::start(Options::new());
    let (mut reader, mut writer) = (connect(&server.url()), connect(&server.url()));
    create_prices(&mut writer);
    let (fence, cache) = (Fence::new(), Cache::default());
    let prices = fence.channel::<u64>("prices");
    assert_eq!(cache.fill(&prices, &mut reader, 1), Admission::Away, "nothing listens yet");

    let notifier: Notifier<u32> = notifier(&server.url()).start().unwrap();
    prices.subscribe(&notifier, 1, cache.invalidator()).unwrap();
    assert!(prices.is_open());
    assert!(cache.fill(&prices, &mut reader, 1).is_stored());
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("old"));

    let lease = prices.begin(&1);
    let stale = price(&mut reader, 1);
    let invalidated = prices.stats().invalidated;
    set_price(&mut writer, 1, "new");
    eventually("the key is invalidated", || prices.stats().invalidated > invalidated);
    assert_eq!(cache.fresh(&prices, 1), None);
    assert_eq!(lease.admit(stale, |entry| cache.insert(1, entry)), Admission::Invalidated);
    assert_eq!(cache.fresh(&prices, 1), None);
    assert!(cache.fill(&prices, &mut reader, 1).is_stored());
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("new"));
}

#[test]
fn f01_a_payload_that_is_no_key_invalidates_the_whole_channel() {
    let server = server::start(Options::new());
    let mut db = connect(&server.url());
    create_prices(&mut db);
    let (fence, cache) = (Fence::new(), Cache::default());
    let prices = fence.channel::<u64>("prices");
    let notifier: Notifier<u32> = notifier(&server.url()).start().unwrap();
    prices.subscribe(&notifier, 1, cache.invalidator()).unwrap();
    assert!(cache.fill(&prices, &mut db, 1).is_stored());
    let lease = prices.begin(&1);
    db.notify("prices", "TRUNCATE").unwrap();
    eventually("everything is forgotten", || cache.fresh(&prices, 1).is_none());
    assert!(cache.get(1).is_some(), "without being removed");
    assert_eq!(lease.admit("old".to_owned(), |_| panic!("it was refused")), Admission::Invalidated);
    assert!(cache.fill(&prices, &mut db, 1).is_stored());
}

#[test]
fn f02_a_loss_bypasses_or_serves_the_cache_until_the_session_is_restored() {
    let server = server::start(Options::new());
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into());
    let mut db = connect(&server.url());
    create_prices(&mut db);
    let (fence, cache) = (Fence::new(), Cache::default());
    let prices = fence.channel::<u64>("prices");
    let serving = prices.serve_when_away();
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let notifier: Notifier<u32> = notifier(&url).start().unwrap();
    prices.subscribe(&notifier, 1, cache.invalidator()).unwrap();
    assert!(cache.fill(&prices, &mut db, 1).is_stored());

    proxy.refuse();
    proxy.cut_rst();
    eventually("the channel is away", || !prices.is_open());
    set_price(&mut db, 1, "new");
    assert_eq!(cache.fresh(&prices, 1), None);
    assert_eq!(cache.fresh(&serving, 1).as_deref(), Some("old"), "as stale as the loss is long");
    assert_eq!(cache.fill(&prices, &mut db, 1), Admission::Away);
    assert!(cache.fill(&serving, &mut db, 1).is_stored());
    let lease = serving.begin(&1);
    proxy.resume();
    eventually("the channel is back", || prices.is_open());
    assert_eq!((cache.fresh(&prices, 1), cache.fresh(&serving, 1)), (None, None), "all of it is forgotten");
    assert_eq!(lease.admit("old".to_owned(), |_| panic!("it was refused")), Admission::Invalidated);
    assert!(cache.fill(&prices, &mut db, 1).is_stored());
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("new"));
}

/// A name, a call that silences a subscription, and one that ends that.
type Silence<'s> = (&'static str, &'s dyn Fn(), &'s dyn Fn());

#[test]
fn f02_a_mute_a_stop_and_the_end_of_a_subscription_close_the_channel() {
    let server = server::start(Options::new());
    let mut db = connect(&server.url());
    create_prices(&mut db);
    let (fence, cache) = (Fence::new(), Cache::default());
    let prices = fence.channel::<u64>("prices");
    let n: Notifier<u32> = notifier(&server.url()).start().unwrap();
    prices.subscribe(&n, 1, cache.invalidator()).unwrap();
    let silences: [Silence<'_>; 4] = [
        ("mute_channels", &|| n.mute_channels(["prices"]).unwrap(), &|| drop(n.unmute_channels(["prices"]).unwrap())),
        ("mute_subscriber", &|| n.mute_subscriber(&1).unwrap(), &|| drop(n.unmute_subscriber(&1).unwrap())),
        ("stop", &|| n.stop(), &|| n.start().unwrap()),
        ("unsubscribe", &|| n.unsubscribe(&1, "prices").unwrap(), &|| {
            prices.subscribe(&n, 1, cache.invalidator()).unwrap();
        }),
    ];
    for (name, silence, undo) in silences {
        assert!(cache.fill(&prices, &mut db, 1).is_stored(), "before {name}");
        assert!(cache.fresh(&prices, 1).is_some());
        silence();
        assert!(!prices.is_open(), "{name}");
        assert_eq!(cache.fresh(&prices, 1), None, "{name}");
        assert_eq!(cache.fresh(&prices.serve_when_away(), 1), None, "{name}");
        undo();
        eventually(name, || prices.is_open());
        assert_eq!(cache.fresh(&prices, 1), None, "after {name}");
    }
    // Another callback takes the place of the fence's.
    assert!(cache.fill(&prices, &mut db, 1).is_stored());
    n.subscribe(1, "prices", |_| ()).unwrap();
    assert!(!prices.is_open() && cache.fresh(&prices, 1).is_none());
}

#[test]
fn f02_a_subscription_that_fails_leaves_the_one_before() {
    let server = server::start(Options::new());
    let (fence, cache) = (Fence::new(), Cache::default());
    let long = "c".repeat(64);
    let n: Notifier<u32> = notifier(&server.url()).start().unwrap();
    let error = fence.channel::<u64>(&long).subscribe(&n, 1, cache.invalidator()).unwrap_err();
    assert!(matches!(error, Error::Value(_)), "{error}");
    let prices = fence.channel::<u64>("prices");
    prices.subscribe(&n, 1, cache.invalidator()).unwrap();
    // Another channel of the same name, for keys of another type.
    let other = fence.channel::<u32>("prices");
    let error = other.subscribe(&n, 1, Invalidator::by_key(|_| None, |_| ())).unwrap_err();
    assert!(matches!(error, Error::AlreadySubscribed { .. }), "{error}");
    let error = prices.subscribe(&n, 1, cache.invalidator()).unwrap_err();
    assert!(matches!(error, Error::AlreadySubscribed { .. }) && prices.is_open(), "{error}");
    n.stop();
    let error = prices.subscribe(&n, 2, cache.invalidator()).unwrap_err();
    assert!(matches!(error, Error::NotRunning), "{error}");
    n.start().unwrap();
    assert!(prices.is_open());
}

#[test]
fn f02_notifications_that_were_dropped_are_forgotten_as_a_whole() {
    let server = server::start(Options::new());
    let mut db = connect(&server.url());
    let fence = Fence::new();
    let prices = fence.channel::<u64>("prices");
    let n: Notifier<u32> = notifier(&server.url()).start().unwrap();
    let (entered, has_entered) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let blocking = Invalidator::by_key(
        |n| n.payload().parse().ok(),
        move |_: &u64| {
            entered.send(()).unwrap();
            let _ = released.recv();
        },
    );
    prices.subscribe(&n, 1, blocking).unwrap();
    n.set_queue(&1, Queue::new(Policy::DropOldest).items(1)).unwrap();
    db.notify("prices", "1").unwrap();
    has_entered.recv().unwrap();
    let epoch = prices.stats().epoch;
    for item in 2..10 {
        db.notify("prices", item.to_string()).unwrap();
    }
    eventually("some are dropped", || n.stats().dropped > 0);
    drop(release);
    eventually("everything is forgotten", || prices.stats().epoch > epoch);
}

#[test]
fn f03_a_canary_certifies_what_has_been_applied() {
    let server = server::start(Options::new());
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into());
    let mut db = connect(&server.url());
    let fence = Fence::new();
    let prices = fence.channel::<u64>("prices");
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let canary = (Duration::from_millis(100), Duration::from_secs(5));
    let n: Notifier<u32> = notifier(&url).canary_at_any_pace(canary.0, canary.1).start().unwrap();
    let (entered, has_entered) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::sync_channel::<()>(0);
    let blocking = Invalidator::by_key(
        |n| n.payload().parse().ok(),
        move |_: &u64| {
            entered.send(()).unwrap();
            let _ = released.recv();
        },
    );
    prices.subscribe(&n, 1, blocking).unwrap();
    let certified = |since: Instant| prices.as_of().is_some_and(|as_of| as_of > since);
    let start = Instant::now();
    eventually("an idle channel is certified", || certified(start));

    // A callback that has not returned holds back the certificate, also while canaries arrive.
    let before = Instant::now();
    db.notify("prices", "1").unwrap();
    has_entered.recv().unwrap();
    let (canaries, arrived) = (n.stats().canary_time, Instant::now());
    eventually("canaries arrive", || n.stats().canary_time != canaries || arrived.elapsed() > Duration::from_secs(1));
    assert!(!certified(before + Duration::from_millis(50)), "{:?}", prices.as_of());
    release.send(()).unwrap();
    let applied = Instant::now();
    eventually("it is applied", || certified(applied));

    // A loss withdraws it, and the first canary of the next session gives another.
    proxy.refuse();
    proxy.cut_rst();
    eventually("the channel is away", || !prices.is_open());
    assert_eq!(prices.as_of(), None);
    proxy.resume();
    let lost = Instant::now();
    eventually("it is certified again", || certified(lost));
    n.stop();
    assert_eq!(prices.as_of(), None);
}

#[test]
fn f05_an_awaited_removal_is_pending_until_it_is_done() {
    let server = server::start(Options::new());
    let mut db = connect(&server.url());
    create_prices(&mut db);
    let fence = Fence::new();
    let prices = fence.channel::<u64>("prices");
    let (sender, removals) = std::sync::mpsc::sync_channel(1);
    let awaited = Invalidator::awaited(|n| n.payload().parse().ok(), move |removal| drop(sender.try_send(removal)));
    let n: Notifier<u32> = notifier(&server.url()).start().unwrap();
    prices.subscribe(&n, 1, awaited).unwrap();
    let fill = |db: &mut notifyman::Connection| {
        let (entry, lease) = prices.begin(&1).unconfirmed(price(db, 1));
        assert_eq!(prices.begin(&1).fresh(&entry), None, "it is not confirmed");
        assert!(lease.confirm().is_stored());
        entry
    };
    let fresh = |entry: &AwaitedEntry<String>| prices.begin(&1).fresh(entry).cloned();
    let old = fill(&mut db);
    assert_eq!(fresh(&old).as_deref(), Some("old"));

    let (unconfirmed, lease) = prices.begin(&1).unconfirmed("old".to_owned());
    set_price(&mut db, 1, "new");
    let removal = removals.recv().unwrap();
    assert_eq!(*removal.key(), 1);
    assert_eq!(fresh(&old), None, "although it may not have been removed");
    assert_eq!(lease.confirm(), Admission::Invalidated);
    assert_eq!(fresh(&unconfirmed), None);
    let during = prices.begin(&1);
    removal.done();
    assert_eq!(during.fresh(&old), None, "the cache may have been read before the removal");
    assert_eq!(fresh(&fill(&mut db)).as_deref(), Some("new"));

    // A removal of the program's own.
    let stored = fill(&mut db);
    let removal = prices.begin_removal(1).unwrap();
    assert_eq!(fresh(&stored), None);
    removal.done();

    // One that cannot be handed over forgets everything.
    let epoch = prices.stats().epoch;
    for _ in 0..2 {
        set_price(&mut db, 1, "newer");
    }
    eventually("everything is forgotten", || prices.stats().epoch > epoch);
    assert_eq!(fresh(&old), None);
}

#[test]
fn f05_a_listener_for_evicted_entries_that_uses_the_fence_gets_an_error() {
    let server = server::start(Options::new());
    let mut db = connect(&server.url());
    let fence = Fence::new();
    let prices = fence.channel::<u64>("prices");
    let n: Notifier<u32> = notifier(&server.url()).start().unwrap();
    prices.subscribe(&n, 1, Cache::default().invalidator()).unwrap();
    let epoch = prices.stats().epoch;
    let mut results = Vec::new();
    let admission = prices.begin(&1).admit("price", |_: Entry<&str>| {
        results.push(prices.invalidate(&1, || panic!("not under the lock")));
        results.push(prices.invalidate_matching(|| panic!("not under the lock")));
        assert_eq!(prices.begin(&2).admit("price", |_| ()), Admission::Reentrant);
    });
    assert!(admission.is_stored() && prices.stats().epoch >= epoch + 2, "safe all the same");
    for result in results {
        assert!(matches!(result, Err(Error::InsideFence)), "{result:?}");
    }
    prices.invalidate(&1, || ()).unwrap();
    db.notify("prices", "1").unwrap();
}

#[test]
fn f02_a_session_that_is_lost_for_good_closes_the_channel() {
    let server = server::start(Options::new());
    let mut db = connect(&server.url());
    create_prices(&mut db);
    db.query("CREATE ROLE listener LOGIN").unwrap();
    let cache = Cache::default();
    let prices = Fence::new().channel::<u64>("prices");
    let serving = prices.serve_when_away();
    let url = server.url().replace("postgres@", "listener@");
    let n: Notifier<u32> = notifier(&url).start().unwrap();
    prices.subscribe(&n, 1, cache.invalidator()).unwrap();
    assert!(cache.fill(&prices, &mut db, 1).is_stored());
    db.query("ALTER ROLE listener NOLOGIN").unwrap();
    db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'listener'").unwrap();
    eventually("the channel is closed", || cache.fill(&serving, &mut db, 1) == Admission::Away);
    assert_eq!((cache.fresh(&prices, 1), cache.fresh(&serving, 1)), (None, None));
}

#[test]
fn f02_a_subscription_that_ends_closes_the_channel_although_another_database_has_one() {
    let server = server::start(Options::new());
    let mut db = connect(&server.url());
    create_prices(&mut db);
    let elsewhere = server.url().trim_end_matches("postgres").to_owned() + "template1";
    let (fence, cache) = (Fence::new(), Cache::default());
    let prices = fence.channel::<u64>("prices");
    let n: Notifier<u32> = notifier(&server.url()).start().unwrap();
    let there = n.at(config(&elsewhere)).unwrap();
    prices.subscribe(&n, 0, cache.invalidator()).unwrap();
    prices.subscribe(&there, 1, cache.invalidator()).unwrap();
    assert!(cache.fill(&prices, &mut db, 1).is_stored());

    // Its queue is full: no call of the program ends it.
    there.set_queue(&1, Queue::new(Policy::Disconnect).items(1)).unwrap();
    let items: Vec<_> = (0..20).map(|item| ("prices", item.to_string())).collect();
    connect(&elsewhere).notify_many(items).unwrap();
    eventually("the subscription ends", || there.subscriptions().is_empty());
    eventually("the channel is closed", || !prices.is_open());
    assert_eq!((cache.fresh(&prices, 1), cache.fresh(&prices.serve_when_away(), 1)), (None, None));
    prices.subscribe(&there, 2, cache.invalidator()).unwrap();
    assert!(prices.is_open());
}

#[test]
fn f02_a_loss_does_not_open_a_muted_channel_for_serving() {
    let server = server::start(Options::new());
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into());
    let mut db = connect(&server.url());
    create_prices(&mut db);
    let (fence, cache) = (Fence::new(), Cache::default());
    let prices = fence.channel::<u64>("prices").serve_when_away();
    let n: Notifier<u32> = notifier(&format!("postgres://postgres@{}/postgres", proxy.addr())).start().unwrap();
    prices.subscribe(&n, 1, cache.invalidator()).unwrap();
    n.mute_channels(["prices"]).unwrap();
    proxy.cut_rst();
    eventually("the session is restored", || n.stats().restores == 1);
    assert_eq!(cache.fill(&prices, &mut db, 1), Admission::Away);
    n.unmute_channels(["prices"]).unwrap();
    eventually("the channel is open", || prices.is_open());
}

#[test]
fn f03_a_canary_certifies_also_while_there_is_always_more() {
    let server = server::start(Options::new());
    let mut db = connect(&server.url());
    let fence = Fence::new();
    let prices = fence.channel::<u64>("prices");
    let canary = (Duration::from_millis(100), Duration::from_millis(50));
    let n: Notifier<u32> = notifier(&server.url()).canary_at_any_pace(canary.0, canary.1).start().unwrap();
    let applied = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = applied.clone();
    let slow = Invalidator::by_key(
        |n| n.payload().parse().ok(),
        move |_: &u64| {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        },
    );
    prices.subscribe(&n, 1, slow).unwrap();
    let (start, mut sent) = (Instant::now(), 0);
    let mut certified = false;
    while !certified && start.elapsed() < Duration::from_secs(20) {
        // Some hundred wait, always.
        if sent < 300 + applied.load(std::sync::atomic::Ordering::SeqCst) {
            let items: Vec<_> = (sent..sent + 100).map(|item| ("prices", item.to_string())).collect();
            db.notify_many(items).unwrap();
            sent += 100;
        }
        certified = sent > 500 && prices.as_of().is_some_and(|as_of| as_of > start + Duration::from_millis(300));
    }
    assert!(certified);
}
