//! The conditions on which the fence relies: each is broken here, and a stale value is served.

use notifyman::Notifier;
use notifyman::fence::{Admission, Fence, FenceChannel};

use super::standbys::{create_replicated_prices, delay};
use super::support::*;
use crate::support::server::primary_and_standby;
use crate::support::{Options, server};

/// Subscribes a cache of prices.
fn subscribe(prices: &FenceChannel<u64>, url: &str, cache: &Cache) -> Notifier<u32> {
    let notifier = notifier(url).start().unwrap();
    prices.subscribe(&notifier, 1, cache.invalidator()).unwrap();
    notifier
}

#[test]
fn f07_a_change_that_is_notified_after_its_transaction_may_never_be() {
    let server = server::start(Options::new());
    let (mut reader, mut writer) = (connect(&server.url()), connect(&server.url()));
    create_prices(&mut writer);
    let cache = Cache::default();
    let prices = Fence::new().channel::<u64>("prices");
    let _notifier = subscribe(&prices, &server.url(), &cache);
    assert!(cache.fill(&prices, &mut reader, 1).is_stored());

    // The writer ends between its two transactions.
    writer.query("UPDATE prices SET price = 'new' WHERE item = 1").unwrap();
    drop(writer);
    reader.notify("prices", "2").unwrap();
    eventually("everything is received", || prices.stats().invalidated > 0);
    assert_eq!(price(&mut reader, 1), "new");
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("old"), "stale until the next change");
}

#[test]
fn f07_a_query_with_a_snapshot_from_before_the_lease_stores_a_stale_value() {
    let server = server::start(Options::new());
    let (mut reader, mut writer) = (connect(&server.url()), connect(&server.url()));
    create_prices(&mut writer);
    let cache = Cache::default();
    let prices = Fence::new().channel::<u64>("prices");
    let _notifier = subscribe(&prices, &server.url(), &cache);

    // The lease precedes the first query.
    let early = prices.begin(&1);
    reader.query("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM prices").unwrap();
    set_price(&mut writer, 1, "new");
    eventually("the key is invalidated", || prices.stats().invalidated > 0);
    let late = prices.begin(&1);
    let old = price(&mut reader, 1);
    assert_eq!((old.as_str(), price(&mut writer, 1).as_str()), ("old", "new"));
    assert_eq!(early.admit(old.clone(), |_| panic!("it was refused")), Admission::Invalidated);
    assert_eq!(cache.fresh(&prices, 1), None);
    assert!(late.admit(old, |entry| cache.insert(1, entry)).is_stored());
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("old"), "stale until the next change");

    // Each statement of a READ COMMITTED transaction has a snapshot of its own.
    reader.query("COMMIT; BEGIN ISOLATION LEVEL READ COMMITTED; SELECT 1 FROM prices").unwrap();
    set_price(&mut writer, 1, "newer");
    eventually("the key is invalidated again", || prices.stats().invalidated > 1);
    assert!(cache.fill(&prices, &mut reader, 1).is_stored());
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("newer"));
}

#[test]
fn f07_a_query_to_a_standby_whose_lease_does_not_say_so_stores_a_stale_value() {
    let (primary, standby) = primary_and_standby();
    let (mut on_primary, mut on_standby) = (connect(&primary.url()), connect(&standby.url()));
    create_replicated_prices(&mut on_primary, &mut on_standby);
    delay(&mut on_standby, "1h");
    let cache = Cache::default();
    let prices = Fence::new().channel::<u64>("prices");
    let _notifier = subscribe(&prices, &primary.url(), &cache);
    set_price(&mut on_primary, 1, "new");
    eventually("the key is invalidated", || prices.stats().invalidated > 0);
    assert!(cache.fill(&prices, &mut on_standby, 1).is_stored());
    assert_eq!(price(&mut on_primary, 1), "new");
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("old"), "stale until the next change");
}

#[test]
fn f07_a_cache_whose_channels_belong_to_two_fences_stores_a_stale_value() {
    let server = server::start(Options::new());
    let (mut reader, mut writer) = (connect(&server.url()), connect(&server.url()));
    create_prices(&mut writer);
    writer.query("CREATE TABLE discounts (item bigint PRIMARY KEY, percent int)").unwrap();
    writer.query("INSERT INTO discounts VALUES (1, 0)").unwrap();
    let cache = Cache::default();
    let (prices, discounts) = (Fence::new().channel::<u64>("prices"), Fence::new().channel::<u64>("discounts"));
    // Both remove the item, but only one of them knows of the fill.
    let _notifiers = [&prices, &discounts].map(|channel| subscribe(channel, &server.url(), &cache));

    let lease = prices.begin(&1);
    let query = "SELECT price || ' less ' || percent || ' %' FROM prices JOIN discounts USING (item) WHERE item = 1";
    let old = server::ask(&mut reader, query);
    writer.query("BEGIN; UPDATE discounts SET percent = 50; SELECT pg_notify('discounts', '1'); COMMIT").unwrap();
    eventually("the discount is invalidated", || discounts.stats().invalidated > 0);
    assert!(lease.admit(old, |entry| cache.insert(1, entry)).is_stored());
    assert_eq!(server::ask(&mut reader, query), "old less 50 %");
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("old less 0 %"), "stale until the price changes");
}

#[test]
fn f07_a_changed_key_of_which_only_the_new_one_is_sent_leaves_a_stale_value() {
    let server = server::start(Options::new());
    let (mut reader, mut writer) = (connect(&server.url()), connect(&server.url()));
    create_prices(&mut writer);
    let cache = Cache::default();
    let prices = Fence::new().channel::<u64>("prices");
    let _notifier = subscribe(&prices, &server.url(), &cache);
    assert!(cache.fill(&prices, &mut reader, 1).is_stored());
    let change = |writer: &mut notifyman::Connection, from: u64, to: u64, keys: &[u64]| {
        let notify: String = keys.iter().map(|key| format!("SELECT pg_notify('prices', '{key}'); ")).collect();
        writer.query(&format!("BEGIN; UPDATE prices SET item = {to} WHERE item = {from}; {notify}COMMIT")).unwrap();
    };
    change(&mut writer, 1, 2, &[2]);
    eventually("the new key is invalidated", || prices.stats().invalidated > 0);
    assert!(reader.query("SELECT 1 FROM prices WHERE item = 1").unwrap().is_empty());
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("old"), "it does not exist any more");

    assert!(cache.fill(&prices, &mut reader, 2).is_stored());
    change(&mut writer, 2, 3, &[2, 3]);
    eventually("both keys are invalidated", || cache.fresh(&prices, 2).is_none());
}
