//! Relays of the changes of tables, and workers behind them.

use std::time::Duration;

use notifyman::Config;
use notifyman::changes::{ChangeEvent, Changes, DeliveryMode, Installer, Oversize, Worker};
use notifyman::relay::{Relay, RelayReader, RelayRole};

use super::support::redis;
use crate::support::server::{LIMIT, connect, eventually};
use crate::support::{Cluster, Options};

const SECOND: Duration = Duration::from_secs(1);

/// Returns the next event about data, as text.
fn next(changes: &mut Changes) -> String {
    let mut events = changes.by_ref().map(|event| event.expect("an event in time").1);
    let data = |event| match event {
        ChangeEvent::Change(change) if change.spilled => Some("spilled".to_owned()),
        ChangeEvent::Change(change) => Some(format!("change {}", change.new_data.unwrap()["id"])),
        ChangeEvent::Gap(gap) => Some(format!("gap: {:#}", gap.cause())),
        ChangeEvent::Connected | ChangeEvent::Disconnected(_) | ChangeEvent::Schema(_) => None,
        other => Some(format!("{other:?}")),
    };
    events.find_map(data).unwrap()
}

#[test]
fn r09_changes_are_relayed_while_they_are_notified_and_otherwise_there_is_a_fault_and_a_gap() {
    let Some(engine) = redis(&[]) else { return };
    let server = Cluster::start(Options::new()).unwrap();
    let mut db = connect(&server.url());
    db.execute("CREATE TABLE price (id int PRIMARY KEY, name text)").unwrap();
    let config = Config::without_env(&server.url()).unwrap().label("shop");
    let relay = Relay::builder(engine.url()).unwrap().canary(SECOND, SECOND);
    let relay = relay.database_with_changes(config, [] as [&str; 0]).unwrap().start().unwrap();
    let has_fault = |text: &str| {
        let status = relay.status().remove(0);
        status.role == RelayRole::Away && status.fault.is_some_and(|fault| fault.contains(text))
    };
    let leads = || relay.status()[0].role == RelayRole::Leader;
    eventually("there is nothing to relay", || has_fault("nothing is installed"));
    let installer = || Installer::new().oversize(Oversize::Spill);
    installer().build(&mut db).unwrap();
    eventually("the relay leads", leads);

    let reader = RelayReader::builder([engine.url()]).unwrap().stream("shop").silence(3 * SECOND).build().unwrap();
    let mut changes = Worker::new([]).timeout(LIMIT).follow(reader).unwrap();
    assert!(matches!(changes.next(), Some(Some((1, ChangeEvent::Connected)))));
    db.execute("INSERT INTO price VALUES (1, 'a')").unwrap();
    assert_eq!(next(&mut changes), "change 1");
    db.execute("INSERT INTO price SELECT 2, string_agg(md5(n::text), '') FROM generate_series(1, 300) n").unwrap();
    assert_eq!(next(&mut changes), "spilled");

    installer().delivery(DeliveryMode::Log).build(&mut db).unwrap();
    eventually("the log is refused", || has_fault("are delivered by a log"));
    let gap = next(&mut changes);
    assert!(gap.starts_with("gap: ") && gap.contains("are delivered by a log"), "{gap}");
    db.execute("INSERT INTO price VALUES (3, 'not relayed')").unwrap();
    installer().delivery(DeliveryMode::Notify).build(&mut db).unwrap();
    eventually("the relay leads again", leads);
    db.execute("INSERT INTO price VALUES (4, 'b')").unwrap();
    let mut last = next(&mut changes);
    assert!(last.starts_with("gap: "), "{last}");
    while last.starts_with("gap: ") {
        last = next(&mut changes);
    }
    assert_eq!(last, "change 4");
}
