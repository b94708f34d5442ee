//! Workers that follow a source in the place of databases.

use notifyman::changes::{ChangeEvent, Changes, Worker};
use notifyman::{Config, Error, Event};

use crate::support::source::{Hand, berlin, oslo, script};

const CHANNEL: &str = "notifyman";

fn payload(table: &str, id: u32) -> String {
    format!(
        r#"{{"number":{id},"table_schema":"public","table_name":"{table}","session_user":"app","method":"INSERT","old_data":null,"new_data":{{"id":{id}}},"query":null}}"#
    )
}

fn followed() -> (Changes, Hand) {
    let (script, hand) = script();
    hand.open(berlin(), &["other", CHANNEL]);
    (Worker::new([]).tables(["price", "sales.*"]).follow(script).unwrap(), hand)
}

/// Returns the next event as text, with the number of its database.
fn next(changes: &mut Changes) -> String {
    let (database, event) = changes.by_ref().flatten().next().unwrap();
    let event = match event {
        ChangeEvent::Change(change) => format!("{} {:?}", change.table_name, change.new_data.unwrap()["id"].as_u64()),
        ChangeEvent::Connected => "connected".into(),
        ChangeEvent::Disconnected(_) => "disconnected".into(),
        ChangeEvent::Gap(gap) => format!("gap {:?}", gap.channels()),
        ChangeEvent::Lost(error) => format!("lost: {error}"),
        other => format!("{other:?}"),
    };
    format!("{database} {event}")
}

#[test]
fn g08_a_worker_follows_the_connections_of_a_source() {
    let (mut changes, hand) = followed();
    assert_eq!(next(&mut changes), "1 connected");
    hand.open(oslo(), &[CHANNEL]);
    assert_eq!(next(&mut changes), "2 connected");
    hand.notify(berlin(), CHANNEL, &payload("price", 1));
    hand.notify(berlin(), "other", &payload("price", 2));
    hand.notify(berlin(), CHANNEL, &payload("stock", 3));
    hand.notify(oslo(), CHANNEL, &payload("price", 4));
    hand.notify(oslo(), CHANNEL, "no change");
    assert_eq!((next(&mut changes), next(&mut changes)), ("1 price Some(1)".into(), "2 price Some(4)".into()));
    assert!(next(&mut changes).starts_with("2 Unreadable"));
    let stopper = changes.stopper();
    stopper.stop();
    assert!(changes.next().is_none());
    drop(changes);
    assert_eq!(hand.state.lock().unwrap().starts, 1);
}

#[test]
fn g08_a_gap_of_a_source_is_reported_and_a_silence_without_one_is_none() {
    let (mut changes, hand) = followed();
    assert_eq!(next(&mut changes), "1 connected");
    hand.disconnect(berlin());
    hand.disconnect(berlin());
    hand.restore(berlin(), &["other"], &[CHANNEL]);
    hand.restore(berlin(), &[CHANNEL], &[CHANNEL]);
    hand.disconnect(berlin());
    hand.restore(berlin(), &[CHANNEL], &[CHANNEL]);
    let expected = [
        "1 disconnected",
        "1 connected",
        r#"1 gap ["notifyman"]"#,
        "1 disconnected",
        "1 connected",
        r#"1 gap ["notifyman"]"#,
    ];
    assert_eq!(expected.map(|_| next(&mut changes)), expected);
}

#[test]
fn g08_a_connection_that_does_not_carry_changes_is_lost() {
    let (mut changes, hand) = followed();
    assert_eq!(next(&mut changes), "1 connected");
    hand.open(oslo(), &["other"]);
    let lost = next(&mut changes);
    assert!(lost.starts_with("2 lost: the changes of tables are not relayed"), "{lost}");
    hand.send(Event::Unlistened(berlin(), ["other".into()].into()));
    hand.notify(berlin(), CHANNEL, &payload("price", 1));
    assert_eq!(next(&mut changes), "1 price Some(1)");
    hand.send(Event::Unlistened(berlin(), [CHANNEL.into()].into()));
    assert!(next(&mut changes).starts_with("1 lost: the changes of tables"));
    assert!(changes.next().is_none(), "all are lost");

    let (script, hand) = script();
    hand.state.lock().unwrap().refuses_to_start = true;
    let mut changes = Worker::new([]).follow(script).unwrap();
    let mut lost = [next(&mut changes), next(&mut changes)];
    lost.sort();
    assert!(lost[0].starts_with("1 lost") && lost[1].starts_with("2 lost") && changes.next().is_none(), "{lost:?}");
}

#[test]
fn g08_a_worker_with_databases_or_a_log_follows_no_source() {
    let with_database = Worker::new([Config::new()]).follow(script().0).unwrap_err();
    let with_name = Worker::new([]).name("orders").follow(script().0).unwrap_err();
    assert!(matches!((with_database, with_name), (Error::NoDatabase { .. }, Error::NoDatabase { .. })));
    // A stop may come before the source has been started.
    for _ in 0..100 {
        drop(Worker::new([]).follow(script().0).unwrap());
    }
}
