//! A cache of prices, and the writes of other programs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use notifyman::fence::{Admission, Entry, FenceChannel, Invalidator, WhenAway};
use notifyman::notifier::NotifierBuilder;
use notifyman::{Backoff, Connection, Notifier};

pub use crate::support::server::{config, connect, eventually};

/// The cache of a program: prices by item.
#[derive(Debug, Clone, Default)]
pub struct Cache(Arc<Mutex<HashMap<u64, Entry<String>>>>);

impl Cache {
    pub fn get(&self, item: u64) -> Option<Entry<String>> {
        self.0.lock().unwrap().get(&item).cloned()
    }

    pub fn insert(&self, item: u64, entry: Entry<String>) {
        self.0.lock().unwrap().insert(item, entry);
    }

    pub fn remove(&self, item: u64) {
        self.0.lock().unwrap().remove(&item);
    }

    /// Returns the fresh price of an item, if the cache has one.
    pub fn fresh<A: WhenAway>(&self, prices: &FenceChannel<u64, A>, item: u64) -> Option<String> {
        prices.fresh(&self.get(item)?).cloned()
    }

    /// Reads the price of an item and stores it.
    pub fn fill<A: WhenAway>(&self, prices: &FenceChannel<u64, A>, db: &mut Connection, item: u64) -> Admission {
        let lease = prices.begin(&item);
        let price = price(db, item);
        lease.admit(price, |entry| self.insert(item, entry))
    }

    pub fn invalidator(&self) -> Invalidator<u64> {
        let cache = self.clone();
        Invalidator::by_key(|n| n.payload().parse().ok(), move |item| cache.remove(*item))
    }
}

/// Returns a builder of a notifier that restores its session soon.
pub fn notifier(url: &str) -> NotifierBuilder {
    let soon = Backoff::default().first(Duration::from_millis(20)).longest(Duration::from_millis(100));
    Notifier::builder(config(url)).unwrap().reconnect(soon)
}

/// Creates the table of prices, with an item.
pub fn create_prices(db: &mut Connection) {
    db.query("CREATE TABLE prices (item bigint PRIMARY KEY, price text)").unwrap();
    db.query("INSERT INTO prices VALUES (1, 'old')").unwrap();
}

pub fn price(db: &mut Connection, item: u64) -> String {
    db.query(&format!("SELECT price FROM prices WHERE item = {item}")).unwrap()[0].get(0).unwrap().into_owned()
}

/// Changes the price of an item, and notifies that in the same transaction.
pub fn set_price(db: &mut Connection, item: u64, price: &str) {
    db.query(&format!(
        "BEGIN; UPDATE prices SET price = '{price}' WHERE item = {item}; SELECT pg_notify('prices', '{item}'); COMMIT"
    ))
    .unwrap();
}
