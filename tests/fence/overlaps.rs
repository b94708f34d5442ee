//! Fills that overlap an invalidation that does not name their key, and one that comes too early.

use notifyman::Notifier;
use notifyman::fence::{Admission, Fence, Invalidator};

use super::support::*;
use crate::support::{Options, server};

#[test]
fn f06_a_prefix_refuses_fills_in_flight_and_leaves_other_entries_fresh() {
    let server = server::start(Options::new());
    let mut db = connect(&server.url());
    let (fence, cache) = (Fence::new(), Cache::default());
    let prices = fence.channel::<u64>("prices");
    let removing = cache.clone();
    // All items up to 9.
    let by_prefix = Invalidator::new(move |_, outdated| {
        outdated.matching(|| (0..10).for_each(|item| removing.remove(item))).unwrap();
    });
    let notifier: Notifier<u32> = notifier(&server.url()).start().unwrap();
    prices.subscribe(&notifier, 1, by_prefix).unwrap();
    let store = |item| prices.begin(&item).admit("old".to_owned(), |entry| cache.insert(item, entry));
    assert!(store(1).is_stored() && store(10).is_stored());

    let leases = [1, 2, 10].map(|item| (item, prices.begin(&item)));
    let invalidated = prices.stats().invalidated;
    db.notify("prices", "up to 9").unwrap();
    eventually("the prefix is invalidated", || prices.stats().invalidated > invalidated && cache.get(1).is_none());
    assert_eq!(cache.fresh(&prices, 10).as_deref(), Some("old"));
    for (item, lease) in leases {
        let admission = lease.admit("old".to_owned(), |entry| cache.insert(item, entry));
        assert_eq!(admission, Admission::Invalidated, "{item}");
    }
    assert!(store(2).is_stored());
}

#[test]
fn f07_a_notification_before_the_commit_of_the_change_leaves_a_stale_value() {
    let server = server::start(Options::new());
    let (mut reader, mut writer) = (connect(&server.url()), connect(&server.url()));
    create_prices(&mut writer);
    let (fence, cache) = (Fence::new(), Cache::default());
    let prices = fence.channel::<u64>("prices");
    let notifier: Notifier<u32> = notifier(&server.url()).start().unwrap();
    prices.subscribe(&notifier, 1, cache.invalidator()).unwrap();

    // In a transaction of its own: what a reader stores now is not invalidated by the change.
    writer.notify("prices", "1").unwrap();
    eventually("the notification is applied", || prices.stats().invalidated > 0);
    assert!(cache.fill(&prices, &mut reader, 1).is_stored());
    writer.query("UPDATE prices SET price = 'new' WHERE item = 1").unwrap();
    assert_eq!(price(&mut reader, 1), "new");
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("old"), "stale until the next change");

    set_price(&mut writer, 1, "newer");
    eventually("the key is removed", || cache.fresh(&prices, 1).is_none());
}

#[test]
fn f07_the_trigger_of_the_documentation_sends_the_keys_before_and_after_a_change() {
    const PAGE: &str = include_str!("../../src/docs/caching.md");
    let sql = PAGE.split("```sql").find(|part| part.contains("CREATE FUNCTION")).unwrap().split("```").next().unwrap();
    let server = server::start(Options::new());
    let (mut db, mut listener) = (connect(&server.url()), connect(&server.url()));
    db.query("CREATE TABLE price (item bigint PRIMARY KEY, amount text)").unwrap();
    let is_old = crate::support::server::major(&db) < 11;
    db.query(&if is_old { sql.replace("EXECUTE FUNCTION", "EXECUTE PROCEDURE") } else { sql.to_owned() }).unwrap();
    listener.listen(["prices"]).unwrap();
    for change in
        ["INSERT INTO price VALUES (1, 'a')", "UPDATE price SET item = 2", "DELETE FROM price", "TRUNCATE price"]
    {
        db.query(change).unwrap();
    }
    let received = crate::support::server::next(&mut listener, 5);
    let payloads: Vec<_> = received.iter().map(|(_, payload)| payload.as_str()).collect();
    assert_eq!(payloads, ["1", "1", "2", "2", "all"]);
}

#[cfg(feature = "changes")]
#[test]
fn f07_a_write_to_a_partition_is_reported_if_the_patterns_match_its_root() {
    let server = server::start(Options::new());
    let (mut db, mut listener) = (connect(&server.url()), connect(&server.url()));
    db.query("CREATE TABLE price (item bigint PRIMARY KEY, amount text) PARTITION BY RANGE (item)").unwrap();
    db.query("CREATE TABLE price_1 PARTITION OF price FOR VALUES FROM (0) TO (100)").unwrap();
    let keys = notifyman::changes::Installer::new().tables(["price"]).shape(notifyman::changes::Shape::Keys);
    keys.build(&mut db).unwrap();
    listener.listen(["notifyman"]).unwrap();
    db.query("INSERT INTO price VALUES (1, 'a')").unwrap();
    db.query("UPDATE price_1 SET amount = 'b'").unwrap();
    for (_, payload) in crate::support::server::next(&mut listener, 2) {
        let change: notifyman::changes::Change = serde_json::from_str(&payload).unwrap();
        assert_eq!((&*change.table_name, change.keys.map(|keys| keys.len())), ("price", Some(1)), "{payload}");
    }
}
