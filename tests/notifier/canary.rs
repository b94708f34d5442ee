//! The canary on the system's channel, which proves delivery, and the audit.

use std::thread;
use std::time::Duration;

use notifyman::notifier::{NotifierBuilder, Reason};
use notifyman::{Backoff, Config, Error, Notifier};

use super::support::*;
use crate::support::{Options, PgBouncer, Proxy, server};

const PERIOD: Duration = Duration::from_millis(250);
const DEADLINE: Duration = Duration::from_millis(150);

fn builder(url: &str) -> NotifierBuilder {
    let soon = Backoff::default().first(Duration::from_millis(20)).longest(Duration::from_millis(100));
    Notifier::builder(Config::without_env(url).unwrap()).unwrap().reconnect(soon)
}

/// Subscribes to a channel with a callback that writes payloads, and for a gap its cause.
fn subscribe(n: &Notifier<u32>, channel: &str, scribe: &Scribe) {
    let scribe = scribe.clone();
    n.subscribe(1, channel, move |n| {
        scribe.write(match n.missed().map(|missed| missed.reason()) {
            Some(Reason::Disconnected(_)) => return,
            None => n.payload().text().into_owned(),
            Some(Reason::Restored(gap)) => match gap.cause() {
                Error::NotDelivering { .. } => "[not delivering]".to_owned(),
                Error::Unregistered => "[unregistered]".to_owned(),
                _ => "[another loss]".to_owned(),
            },
            Some(other) => panic!("{other:?}"),
        });
    })
    .unwrap();
}

#[test]
fn n11_a_session_that_is_delivered_nothing_is_brought_back_and_its_subscribers_are_told() {
    let server = server::start(Options::new());
    let pooler = PgBouncer::start(&server, "transaction", "");
    let proxy = Proxy::start(pooler.url().split(['@', '/']).nth(3).unwrap().parse().unwrap());
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let n: Notifier<u32> = builder(&url).canary_at_any_pace(PERIOD, DEADLINE).start().unwrap();
    let (scribe, told) = scribe();
    subscribe(&n, "a", &scribe);
    assert_eq!(told.next(), "[not delivering]");
    assert!(n.is_running() && n.stats().losses > 0);

    // And back at a server that delivers it stays.
    proxy.set_upstream(([127, 0, 0, 1], server.port()).into());
    drop(pooler);
    let mut db = connect(&server.url());
    eventually("it is heard", || {
        db.notify("a", "heard").unwrap();
        told.so_far().contains(&"heard".to_owned())
    });
    let losses = n.stats().losses;
    thread::sleep(4 * PERIOD);
    let stats = n.stats();
    assert!(stats.losses == losses && stats.canary_micros > 0, "{stats:?}");
}

#[test]
fn n11_canaries_and_unknown_messages_beside_them_reach_nobody() {
    let server = server::start(Options::new());
    let n: Notifier<u32> = builder(&server.url()).canary_at_any_pace(PERIOD, DEADLINE).start().unwrap();
    let elsewhere = server.url().trim_end_matches("postgres").to_owned() + "template1";
    let there = n.at(Config::without_env(&elsewhere).unwrap()).unwrap();
    let (scribe, told) = scribe();
    subscribe(&n, "a", &scribe);
    subscribe(&there, "a", &scribe);
    let (mut here, mut spy) = (connect(&server.url()), connect(&elsewhere));
    spy.listen(["PGNOTIFIER"]).unwrap();
    let mut overheard = 0;
    eventually("canaries come in both databases", || {
        send(&mut here, "PGNOTIFIER", ["", "true", "stop", "canary", "{'unknown': 1}"]);
        overheard += spy.wait(Duration::ZERO).flatten().count();
        overheard > 2 && n.stats().canary_micros > 0
    });
    here.notify("a", "here").unwrap();
    assert_eq!(told.next(), "here");
    spy.notify("a", "there").unwrap();
    assert_eq!(told.next(), "there");
    let stats = n.stats();
    assert_eq!((stats.heard, stats.losses, stats.channels), (2, 0, 2), "{stats:?}");
    assert!(n.subscribe(1, "PGNOTIFIER", |_| ()).unwrap_err().is_usage());
    assert!(n.is_running());
}

#[test]
fn n11_a_stopped_notifier_tells_of_no_canary() {
    let server = server::start(Options::new());
    let n: Notifier<u32> = builder(&server.url()).canary_at_any_pace(PERIOD, DEADLINE).start().unwrap();
    for _ in 0..2 {
        eventually("a canary has come", || n.stats().canary_micros > 0);
        n.stop();
        assert_eq!(n.stats().canary_micros, 0);
        n.start().unwrap();
    }
}

#[test]
fn n11_a_channel_that_the_server_forgot_is_listened_to_again_and_told() {
    let server = server::start(Options::new());
    // Both share the one session that the pooler has.
    let pooler = PgBouncer::start(&server, "transaction", "default_pool_size = 1");
    let n: Notifier<u32> = builder(&pooler.url()).audit(Duration::from_secs(1)).start().unwrap();
    let (scribe, told) = scribe();
    subscribe(&n, "a", &scribe);
    let mut meddler = connect(&pooler.url());
    for _ in 0..2 {
        meddler.query("UNLISTEN a").unwrap();
        assert_eq!(told.next(), "[unregistered]");
        eventually("it listens again", || {
            let channels = meddler.query("SELECT pg_listening_channels()").unwrap();
            channels.iter().any(|row| row.get(0).as_deref() == Some("a"))
        });
    }
    let stats = n.stats();
    assert_eq!((stats.losses, stats.restores), (0, 0), "the session went on: {stats:?}");
}
