//! The canary on the system channel, and the audit.

use std::thread;
use std::time::Duration;

use notifyman::notifier::{Delivery, NotifierBuilder, Reason};
use notifyman::{Backoff, Config, Error, Notifier};

use super::support::*;
use crate::support::{Options, PgBouncer, Proxy, server};

const PERIOD: Duration = Duration::from_millis(250);
const DEADLINE: Duration = Duration::from_millis(150);

fn builder(url: &str) -> NotifierBuilder {
    let soon = Backoff::default().first(Duration::from_millis(20)).longest(Duration::from_millis(100));
    Notifier::builder(Config::without_env(url).unwrap()).unwrap().reconnect(soon)
}

/// Subscribes to a channel with a callback that records payloads and the causes of gaps.
fn subscribe(n: &Notifier<u32>, channel: &str, recorder: &Recorder) {
    let recorder = recorder.clone();
    n.subscribe(1, channel, move |delivery| {
        recorder.record(match delivery {
            Delivery::Notification(n) => n.payload().text().into_owned(),
            Delivery::Missed(missed) => match missed.reason() {
                Reason::Disconnected(_) => return,
                Reason::Restored(gap) => match gap.cause() {
                    Error::NotDelivering { .. } => "[not delivering]".to_owned(),
                    Error::Unregistered => "[unregistered]".to_owned(),
                    _ => "[another loss]".to_owned(),
                },
                other => panic!("{other:?}"),
            },
        });
    })
    .unwrap();
}

#[test]
fn n11_a_session_without_delivery_is_restored_and_its_subscribers_get_a_report() {
    let server = server::start(Options::new());
    let pooler = PgBouncer::start(&server, "transaction", "");
    let proxy = Proxy::start(pooler.url().split(['@', '/']).nth(3).unwrap().parse().unwrap());
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let n: Notifier<u32> = builder(&url).canary_at_any_pace(PERIOD, DEADLINE).start().unwrap();
    let (recorder, records) = recorder();
    subscribe(&n, "a", &recorder);
    assert_eq!(records.next(), "[not delivering]");
    assert!(n.is_running() && n.stats().losses > 0);

    // With a server that delivers, the session stays open.
    proxy.set_upstream(([127, 0, 0, 1], server.port()).into());
    drop(pooler);
    let mut db = connect(&server.url());
    eventually("a notification is received", || {
        db.notify("a", "received").unwrap();
        records.so_far().contains(&"received".to_owned())
    });
    let losses = n.stats().losses;
    thread::sleep(4 * PERIOD);
    let stats = n.stats();
    assert!(stats.losses == losses && stats.canary_time.is_some(), "{stats:?}");
}

#[test]
fn n11_canaries_and_unknown_messages_on_the_system_channel_are_discarded() {
    let server = server::start(Options::new());
    let n: Notifier<u32> = builder(&server.url()).canary_at_any_pace(PERIOD, DEADLINE).start().unwrap();
    let elsewhere = server.url().trim_end_matches("postgres").to_owned() + "template1";
    let there = n.at(Config::without_env(&elsewhere).unwrap()).unwrap();
    let (recorder, records) = recorder();
    subscribe(&n, "a", &recorder);
    subscribe(&there, "a", &recorder);
    let (mut here, mut spy) = (connect(&server.url()), connect(&elsewhere));
    spy.listen(["PGNOTIFIER"]).unwrap();
    let mut overheard = 0;
    eventually("canaries are received in both databases", || {
        send(&mut here, "PGNOTIFIER", ["", "true", "stop", "canary", "{'unknown': 1}"]);
        overheard += spy.wait(Duration::ZERO).flatten().count();
        overheard > 2 && n.stats().canary_time.is_some()
    });
    here.notify("a", "here").unwrap();
    assert_eq!(records.next(), "here");
    spy.notify("a", "there").unwrap();
    assert_eq!(records.next(), "there");
    let stats = n.stats();
    assert_eq!((stats.received, stats.losses, stats.channels), (2, 0, 2), "{stats:?}");
    assert!(n.subscribe(1, "PGNOTIFIER", |_| ()).unwrap_err().is_usage());
    assert!(n.is_running());
}

#[test]
fn n11_a_stopped_notifier_reports_no_canary_delay() {
    let server = server::start(Options::new());
    let n: Notifier<u32> = builder(&server.url()).canary_at_any_pace(PERIOD, DEADLINE).start().unwrap();
    for _ in 0..2 {
        eventually("a canary is received", || n.stats().canary_time.is_some());
        n.stop();
        assert_eq!(n.stats().canary_time, None);
        n.start().unwrap();
    }
}

#[test]
fn n11_a_lost_registration_is_restored_and_reported() {
    let server = server::start(Options::new());
    // The notifier and the other client share the only session of the pooler.
    let pooler = PgBouncer::start(&server, "transaction", "default_pool_size = 1");
    let n: Notifier<u32> = builder(&pooler.url()).audit(Duration::from_secs(1)).start().unwrap();
    let (recorder, records) = recorder();
    subscribe(&n, "a", &recorder);
    let mut client = connect(&pooler.url());
    for _ in 0..2 {
        client.query("UNLISTEN a").unwrap();
        assert_eq!(records.next(), "[unregistered]");
        eventually("the session listens again", || {
            let channels = client.query("SELECT pg_listening_channels()").unwrap();
            channels.iter().any(|row| row.get(0).as_deref() == Some("a"))
        });
    }
    let stats = n.stats();
    assert_eq!((stats.losses, stats.restores), (0, 0), "the session was kept: {stats:?}");
}
