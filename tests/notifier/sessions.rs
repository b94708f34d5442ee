//! One session per database.

use notifyman::Notifier;

use super::support::*;
use crate::support::{Options, server};

#[test]
fn n12_ten_thousand_subscribers_over_a_thousand_channels_use_one_session() {
    let name = format!("many {}", std::process::id());
    let n = Notifier::builder(config().application_name(&name)).unwrap().autorun(false).build::<u32>();
    let (recorder, records) = recorder();
    for id in 0..10_000 {
        n.subscribe(id, format!("m{}", id % 1000), recorder.payloads()).unwrap();
    }
    n.start().unwrap();
    let stats = n.stats();
    assert_eq!((stats.sessions, stats.sessions_saved, stats.subscribers, stats.channels), (1, 9_999, 10_000, 1_000));
    let mut db = session();
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
    assert_eq!(ask(&mut db, &sessions), "1");
    db.notify_many((0..1000).map(|i| (format!("m{i}"), ""))).unwrap();
    records.take(10_000);
    // A channel is unlistened only with its last subscriber.
    n.autorun(true);
    for id in (0..10_000).step_by(1000).skip(1) {
        n.unsubscribe(&id, "m0").unwrap();
    }
    assert_eq!(n.stats().channels, 1000);
    n.unsubscribe(&0, "m0").unwrap();
    assert_eq!(n.stats().channels, 999);
}

#[test]
fn n12_a_hundred_databases_are_a_hundred_sessions_on_one_loop() {
    let server = server::start(Options::new().max_connections(130));
    let mut admin = connect(&server.url());
    let n: Notifier<u32> = Notifier::new(server.url()).unwrap();
    let (recorder, records) = recorder();
    let urls: Vec<_> = (0..99)
        .map(|i| {
            admin.execute(&format!("CREATE DATABASE d{i}")).unwrap();
            format!("{}d{i}", server.url().trim_end_matches("postgres"))
        })
        .collect();
    for (id, url) in (0..).zip(&urls) {
        let there = n.at(url.as_str()).unwrap();
        drop(there.subscribe_ticket(id, "c", recorder.payloads()).unwrap());
        drop(n.at(url.as_str()).unwrap().subscribe_ticket(id + 1000, "c", |_| ()).unwrap());
    }
    eventually("all are open", || n.stats().channels == 99);
    let stats = n.stats();
    assert_eq!((stats.sessions, stats.subscribers, stats.sessions_saved), (100, 198, 99));
    let listening = ask(&mut admin, "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'd%'");
    assert_eq!(listening, "99");
    for (id, url) in urls.iter().enumerate().step_by(20) {
        connect(url).notify("c", id.to_string()).unwrap();
        assert_eq!(records.next(), id.to_string());
    }
    // A restart opens all of them again.
    n.restart().unwrap();
    assert_eq!((n.stats().sessions, n.stats().channels), (100, 99));
}

#[test]
fn n12_only_databases_with_equal_configurations_share_a_session() {
    let n = notifier();
    let same = n.at(config().application_name("another name")).unwrap();
    let (recorder, records) = recorder();
    let channel = new_channel();
    same.subscribe(1, &channel, recorder.payloads()).unwrap();
    assert_eq!((n.stats().sessions, n.subscriptions().len()), (1, 1));
    let other = n.at(config().options("-c statement_timeout=10s")).unwrap();
    other.subscribe(1, &channel, recorder.payloads()).unwrap();
    assert_eq!((n.stats().sessions, n.stats().subscribers), (2, 2));
    session().notify(&channel, "once for each").unwrap();
    assert_eq!(records.take(2), ["once for each"; 2]);
    other.unsubscribe(&1, &channel).unwrap();
    assert_eq!(same.channels(), [channel]);
}

#[test]
fn n12_a_database_that_cannot_be_opened_has_no_effect_on_others() {
    let n = notifier();
    let bad = n.at(config().dbname("no such database")).unwrap();
    eventually("the session is lost", || matches!(bad.state(), notifyman::notifier::State::Lost(_)));
    let (recorder, records) = recorder();
    let channel = new_channel();
    n.subscribe(1, &channel, recorder.payloads()).unwrap();
    session().notify(&channel, "fine").unwrap();
    assert_eq!(records.next(), "fine");
}

#[test]
fn c18_the_session_of_a_notifier_executes_the_sql_of_its_configuration() {
    let name = format!("prepared {}", std::process::id());
    let n: Notifier<u32> = Notifier::new(config().after_connect(format!("SET application_name = '{name}'"))).unwrap();
    let (recorder, records) = recorder();
    let channel = new_channel();
    n.subscribe(1, &channel, recorder.payloads()).unwrap();
    let mut db = session();
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
    assert_eq!(ask(&mut db, &sessions), "1");
    // Another text is another session.
    let there = n.at(config().after_connect("SET application_name = 'another'")).unwrap();
    there.subscribe(2, &channel, |_| ()).unwrap();
    assert_eq!(n.stats().sessions, 2);
    db.notify(&channel, "1").unwrap();
    assert_eq!(records.next(), "1");
}
