// A table of prices for the examples of caches, which include this file.

include!("for_docs.rs");

/// Creates the table on the throwaway server, with the price of item 42. Returns a session.
fn prices_table() -> notifyman::Connection {
    prices_table_at(database())
}

#[allow(clippy::unwrap_used)]
fn prices_table_at(url: String) -> notifyman::Connection {
    let mut db = notifyman::Connection::connect(url).unwrap();
    db.execute("CREATE TABLE price (item bigint PRIMARY KEY, amount text)").unwrap();
    db.execute("INSERT INTO price VALUES (42, '9.95')").unwrap();
    db
}

/// Opens another session.
#[allow(clippy::unwrap_used)]
fn session() -> notifyman::Connection {
    notifyman::Connection::connect(database()).unwrap()
}

/// Reads the price of an item.
#[allow(clippy::unwrap_used)]
fn query(db: &mut notifyman::Connection, item: u64) -> Result<String, notifyman::Error> {
    let rows = db.query(&format!("SELECT amount FROM price WHERE item = {item}"))?;
    Ok(rows[0].get(0).unwrap().into_owned())
}

/// Reads the price of an item without a session of the caller's own, as from a pool.
#[allow(clippy::unwrap_used)]
async fn load(item: u64) -> Result<String, notifyman::Error> {
    let mut db = notifyman::Connection::connect_ticket(database()).await?;
    query(&mut db, item)
}

/// Changes the price of an item, and notifies that in the same transaction.
#[allow(clippy::unwrap_used)]
fn set_price(db: &mut notifyman::Connection, item: u64, amount: &str) {
    let update = format!("UPDATE price SET amount = '{amount}' WHERE item = {item}");
    db.execute(&format!("BEGIN; {update}; SELECT pg_notify('prices', '{item}'); COMMIT")).unwrap();
}

/// Waits for a condition.
fn eventually(mut condition: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "the condition must become true");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Returns the connection strings of a primary and its standby, which end with the process.
#[allow(clippy::unwrap_used)]
fn primary_and_standby() -> (String, String) {
    static CLUSTERS: std::sync::OnceLock<[cluster::Cluster; 2]> = std::sync::OnceLock::new();
    let [primary, standby] = CLUSTERS.get_or_init(|| {
        let options = || {
            let replica = cluster::Options::new().setting("wal_level", "replica").setting("hot_standby", "on");
            replica.setting("max_worker_processes", "8").setting("max_wal_senders", "10")
        };
        let primary = cluster::Cluster::start(options().hba("host replication all 127.0.0.1/32 trust")).unwrap();
        let follow = format!("host=127.0.0.1 port={} user=postgres", primary.port());
        let standby = options().file("standby.signal", "").setting("primary_conninfo", follow);
        [primary, cluster::Cluster::start(standby).unwrap()]
    });
    (primary.url(), standby.url())
}
