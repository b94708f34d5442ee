//! Rule G08: the changes that a worker reports, and its detection of silent servers.

use std::time::{Duration, Instant};

use notifyman::changes::{ChangeEvent, Installer, Worker};
use serde_json::json;

use super::support::site;
use super::worker::{config, connected, next_but_warnings, worker};
use crate::support::Proxy;

/// The heartbeat of a worker finds a silent server in half of this.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn g08_a_pattern_of_a_partition_selects_only_that_partition() {
    let mut site = site();
    site.run(
        "CREATE SCHEMA parts; CREATE TABLE m (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE parts.m1 PARTITION OF m FOR VALUES FROM (0) TO (10);
        CREATE TABLE parts.m2 PARTITION OF m FOR VALUES FROM (10) TO (20)",
    );
    site.build(&Installer::new());
    for pattern in ["m1", "parts.m1", "*.?1"] {
        let mut changes = connected(worker(&[&site]).tables([pattern]), 1);
        site.run("DELETE FROM m; INSERT INTO m VALUES (11); INSERT INTO m VALUES (1)");
        let (_, event) = next_but_warnings(&mut changes);
        let ChangeEvent::Change(change) = event else { panic!("{pattern}: {event:?}") };
        let named = (&*change.table_name, change.partition_name.as_deref());
        assert_eq!((named, json!(change.new_data)), (("m", Some("m1")), json!({"id": 1})), "{pattern}");
        site.run("DELETE FROM m");
    }
    // The name of the partitioned table selects every partition.
    let mut changes = connected(worker(&[&site]).tables(["public.m"]), 1);
    site.run("INSERT INTO m VALUES (11)");
    let (_, event) = next_but_warnings(&mut changes);
    assert!(matches!(event, ChangeEvent::Change(change) if change.partition_name.as_deref() == Some("m2")));
}

#[test]
fn g08_a_heartbeat_detects_a_silent_server() {
    let mut site = site();
    site.build(&Installer::new());
    let server = config(&site.url);
    let proxy = Proxy::start(([127, 0, 0, 1], crate::support::server::utf8().port()).into());
    let database = server.get_dbname().unwrap_or("postgres");
    let url = format!("postgres://postgres@{}/{database}", proxy.addr());
    let mut changes = connected(Worker::new([config(&url)]).timeout(Duration::from_millis(100)), 1);
    // Let the initial requests finish.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        let event = changes.next();
        assert!(matches!(event, Some(None)), "{event:?}");
    }
    proxy.black_hole();
    let error = loop {
        assert!(begun.elapsed() < LIMIT, "the loss is not noticed");
        match changes.next() {
            Some(Some((1, ChangeEvent::Disconnected(error)))) => break error,
            Some(None) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(error.is_timeout() && format!("{error:#}").contains("heartbeat"), "{error}");
    proxy.resume();
    while !matches!(changes.next(), Some(Some((1, ChangeEvent::Gap(_))))) {
        assert!(begun.elapsed() < 2 * LIMIT, "no gap is reported");
    }
}
