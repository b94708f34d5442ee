//! Sessions that are lost and restored, and the reports to subscribers.

use std::time::Duration;

use notifyman::notifier::State;
use notifyman::{Backoff, Config, Notifier};

use super::support::*;
use crate::support::{Cluster, Options, Proxy, server};

fn short_backoff() -> Backoff {
    Backoff::default().first(Duration::from_millis(20)).longest(Duration::from_millis(100))
}

fn proxied() -> (Cluster, Proxy, Notifier<u32>) {
    let server = server::start(Options::new());
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into());
    let url = format!("postgres://postgres@{}/postgres?connect_timeout=2", proxy.addr());
    let heartbeat = Duration::from_millis(300);
    let n = Notifier::builder(url).unwrap().reconnect(short_backoff()).heartbeat(heartbeat, heartbeat).start().unwrap();
    (server, proxy, n)
}

#[test]
fn n09_a_lost_session_is_restored_and_each_subscriber_receives_one_report_in_order() {
    let (server, proxy, n) = proxied();
    let (one, records_one) = recorder();
    let (two, records_two) = recorder();
    n.subscribe(1, "a", one.payloads()).unwrap();
    n.subscribe(2, "b", two.payloads()).unwrap();
    n.add_channel("alone").unwrap().wait(LIMIT).unwrap();
    let mut db = connect(&server.url());
    for (round, cut) in [Proxy::cut_fin, Proxy::cut_rst].into_iter().enumerate() {
        db.notify_many([("a", "before"), ("b", "before")]).unwrap();
        assert_eq!((records_one.next(), records_two.next()), ("before".into(), "before".into()));
        cut(&proxy);
        assert_eq!(records_one.next_after_loss(), "[restored 0]");
        assert_eq!(records_two.next_after_loss(), "[restored 0]");
        db.notify_many([("a", "after"), ("b", "after")]).unwrap();
        assert_eq!((records_one.next(), records_two.next()), ("after".into(), "after".into()));
        let stats = n.stats();
        assert_eq!((stats.losses, stats.restores, stats.channels), (round as u64 + 1, round as u64 + 1, 3));
    }
}

#[test]
fn n09_a_silent_loss_is_detected() {
    let (server, proxy, n) = proxied();
    let (recorder, records) = recorder();
    n.subscribe(1, "a", recorder.payloads()).unwrap();
    proxy.black_hole();
    connect(&server.url()).notify("a", "lost").unwrap();
    eventually("the loss is detected", || matches!(n.state(), State::Away));
    proxy.cut_rst();
    proxy.resume();
    assert_eq!(records.next_after_loss(), "[restored 0]");
    assert!(n.is_running() && matches!(n.state(), State::Listening));
}

#[test]
fn n09_subscriptions_survive_restarts_of_the_server_and_can_change_meanwhile() {
    let mut server = server::start(Options::new());
    let n: Notifier<u32> = Notifier::builder(server.url()).unwrap().reconnect(short_backoff()).start().unwrap();
    let (recorder, records) = recorder();
    n.subscribe(1, "kept", recorder.payloads()).unwrap();
    n.subscribe(1, "dropped", recorder.payloads()).unwrap();
    for _ in 0..2 {
        server.stop().unwrap();
        eventually("the loss is detected", || matches!(n.state(), State::Away));
        n.unsubscribe(&1, "dropped").unwrap();
        let mut ticket = n.subscribe_ticket(1, "new", recorder.payloads()).unwrap();
        assert!(n.notify("kept", "").wait(LIMIT).is_err(), "without a session nothing can be sent");
        server.restart().unwrap();
        ticket.wait(LIMIT).unwrap();
        assert_eq!(records.next_after_loss(), "[restored 0]", "the new subscription has missed nothing");
        let mut db = connect(&server.url());
        db.notify_many([("dropped", "x"), ("kept", "1"), ("new", "2")]).unwrap();
        assert_eq!(records.take(2), ["1", "2"]);
        n.unsubscribe(&1, "new").unwrap();
        n.subscribe(1, "dropped", recorder.payloads()).unwrap();
    }
}

#[test]
fn n04_a_listen_whose_acknowledgement_is_lost_is_requested_again() {
    let (server, proxy, n) = proxied();
    let (recorder, records) = recorder();
    for id in 0..10 {
        proxy.black_hole();
        let mut ticket = n.subscribe_ticket(id, format!("c{id}"), recorder.payloads()).unwrap();
        assert!(ticket.wait(Duration::from_millis(5)).unwrap_err().is_timeout());
        proxy.cut_rst();
        proxy.resume();
        ticket.wait(LIMIT).unwrap();
        connect(&server.url()).notify(format!("c{id}"), format!("to {id}")).unwrap();
        while records.next() != format!("to {id}") {}
    }
    assert_eq!(n.stats().channels, 10);
}

#[test]
fn n09_a_final_loss_is_reported_and_a_restart_can_recover_from_it() {
    let server = server::start(Options::new());
    let mut admin = connect(&server.url());
    admin.execute("CREATE DATABASE doomed").unwrap();
    let url = server.url().trim_end_matches("postgres").to_owned() + "doomed";
    let n: Notifier<u32> = Notifier::builder(url).unwrap().reconnect(short_backoff()).start().unwrap();
    let (recorder, records) = recorder();
    n.subscribe(1, "a", recorder.payloads()).unwrap();
    server::drop_with_its_sessions(&server, "doomed");
    assert_eq!(records.next_after_loss(), "[lost 0]");
    assert!(!n.is_running(), "nothing can arrive");
    assert!(matches!(n.state(), State::Lost(error) if error.sqlstate() == Some("3D000")));
    assert_eq!(n.restart().unwrap_err().sqlstate(), Some("3D000"));
    admin.execute("CREATE DATABASE doomed").unwrap();
    n.start().unwrap();
    assert_eq!(records.next(), "[stopped 0]");
    n.notify("a", "recovered");
    assert_eq!(records.next(), "recovered");
}

#[test]
fn n09_after_losses_during_changes_the_session_listens_to_the_wanted_channels() {
    let (server, proxy, n) = proxied();
    let (recorder, records) = recorder();
    let threads: Vec<_> = (0..4)
        .map(|id| {
            let n = n.clone();
            std::thread::spawn(move || {
                for round in 0..60 {
                    let channel = format!("c{}", (id + round) % 7);
                    drop(n.subscribe_ticket(id, &channel, |_| ()).unwrap());
                    if round % 3 != 0 {
                        let _ = n.unsubscribe(&id, &channel);
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
            })
        })
        .collect();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(20));
        proxy.cut_rst();
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    n.subscribe(9, "last", recorder.payloads()).unwrap();
    eventually("all channels are acknowledged", || n.stats().channels == n.channels().len() as u64);
    // Only notifications on channels that the session listens to are received.
    let mut db = connect(&server.url());
    let before = n.stats().received;
    let wanted = n.channels();
    db.notify_many((0..7).map(|i| (format!("c{i}"), "")).chain([("last".to_owned(), "")])).unwrap();
    while records.next() != "" {}
    eventually("all are received", || n.stats().received - before >= wanted.len() as u64);
    assert_eq!(n.stats().received - before, wanted.len() as u64, "{wanted:?}");
}

#[test]
fn a_subscribe_that_times_out_before_the_session_was_open_says_so() {
    let config = Config::without_env("host=127.0.0.1 port=1 user=app").unwrap().call_timeout(Duration::from_millis(50));
    let n: Notifier<u32> = Notifier::builder(config).unwrap().keep_trying(true).start().unwrap();
    let mut ticket = n.subscribe_ticket(1, "b", |_| ()).unwrap();
    let waited = ticket.wait(Duration::from_millis(1)).unwrap_err().to_string();
    assert!(waited.starts_with("the request took longer than 1ms"), "{waited}");
    for _ in 0..2 {
        let error = n.subscribe(1, "a", |_| ()).unwrap_err().to_string();
        assert_eq!(error, "opening the session took longer than 50ms; the connection is not open");
    }
}

#[test]
fn a_subscribe_that_times_out_while_the_server_is_down_changes_nothing() {
    let mut server = server::start(Options::new());
    let config = Config::without_env(&server.url()).unwrap().call_timeout(Duration::from_secs(3));
    let n: Notifier<u32> = Notifier::builder(config).unwrap().reconnect(short_backoff()).start().unwrap();
    server.stop().unwrap();
    eventually("the loss is detected", || matches!(n.state(), State::Away));
    let error = n.subscribe(1, "a", |_| ()).unwrap_err();
    assert!(error.is_timeout() && error.to_string().starts_with("restoring the session"), "{error}");
    assert!(n.channels().is_empty());
}

#[test]
fn n04_a_subscription_to_a_known_channel_waits_for_the_restore() {
    let mut server = server::start(Options::new());
    let config = Config::without_env(&server.url()).unwrap().call_timeout(Duration::from_secs(3));
    let n: Notifier<u32> = Notifier::builder(config).unwrap().reconnect(short_backoff()).start().unwrap();
    let (first, records_first) = recorder();
    let (second, records_second) = recorder();
    n.subscribe(1, "a", first.payloads()).unwrap();
    server.stop().unwrap();
    eventually("the loss is detected", || matches!(n.state(), State::Away));
    assert_eq!(n.stats().channels, 0, "no channel is listened to");
    assert!(n.subscribe(2, "a", |_| ()).unwrap_err().is_timeout(), "nothing is acknowledged");
    let mut ticket = n.subscribe_ticket(2, "a", second.payloads()).unwrap();
    n.mute_subscriber(&1).unwrap();
    let mut unmuted = n.unmute_subscriber(&1).unwrap();
    assert!(ticket.try_get().is_none() && unmuted.try_get().is_none());
    server.restart().unwrap();
    ticket.wait(LIMIT).unwrap();
    unmuted.wait(LIMIT).unwrap();
    connect(&server.url()).notify("a", "1").unwrap();
    assert_eq!(records_second.next(), "1", "no report: it was never acknowledged before");
    assert_eq!((records_first.next_after_loss(), records_first.next()), ("[muted 0]".into(), "1".into()));
}

#[test]
fn n09_a_loss_is_reported_immediately_and_so_is_the_restore() {
    let (_server, proxy, n) = proxied();
    let (recorder, records) = recorder();
    n.subscribe(1, "a", recorder.payloads()).unwrap();
    n.subscribe(2, "a", |_| ()).unwrap();
    n.mute_subscriber(&2).unwrap();
    proxy.refuse();
    proxy.cut_fin();
    assert_eq!(records.next(), "[disconnected 0]");
    assert!(n.is_running() && matches!(n.state(), State::Away));
    proxy.resume();
    assert_eq!(records.next(), "[restored 0]");
    // A call is counted after it has returned.
    eventually("both calls are counted", || n.stats().missed >= 2);
    let stats = n.stats();
    assert_eq!((stats.losses, stats.restores, stats.missed), (1, 1, 2), "a muted subscriber is not called");
}

#[test]
fn n09_a_final_loss_counts_once_and_the_notifier_can_be_started_again() {
    let server = server::start(Options::new());
    let mut admin = connect(&server.url());
    admin.execute("CREATE ROLE reader LOGIN").unwrap();
    let url = format!("postgres://reader@127.0.0.1:{}/postgres", server.port());
    let n: Notifier<u32> = Notifier::builder(url).unwrap().reconnect(short_backoff()).start().unwrap();
    let (recorder, records) = recorder();
    n.subscribe(1, "a", recorder.payloads()).unwrap();
    admin.execute("ALTER ROLE reader NOLOGIN").unwrap();
    admin.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'").unwrap();
    assert_eq!(records.next_after_loss(), "[lost 0]");
    assert_eq!(n.stats().losses, 1);
    assert!(!n.is_running() && n.start().unwrap_err().sqlstate() == Some("28000"));
    admin.execute("ALTER ROLE reader LOGIN").unwrap();
    n.start().unwrap();
    assert!(n.is_running());
    assert_eq!(records.next(), "[stopped 0]");
}

#[test]
fn n09_the_first_opening_after_a_start_without_a_server_is_reported() {
    let mut server = server::start(Options::new());
    server.stop().unwrap();
    let n: Notifier<u32> =
        Notifier::builder(server.url()).unwrap().reconnect(short_backoff()).keep_trying(true).autorun(false).build();
    let (recorder, records) = recorder();
    n.subscribe(1, "a", recorder.payloads()).unwrap();
    n.start().unwrap();
    n.autorun(true);
    let (late, records_late) = super::support::recorder();
    let mut ticket = n.subscribe_ticket(2, "a", late.payloads()).unwrap();
    server.restart().unwrap();
    assert_eq!(records.next(), "[opened 0]");
    ticket.wait(LIMIT).unwrap();
    connect(&server.url()).notify("a", "1").unwrap();
    assert_eq!(
        (records.next(), records_late.next()),
        ("1".into(), "1".into()),
        "the ticket resolves when the late subscriber listens"
    );
}

#[test]
fn n09_a_session_that_cannot_be_opened_is_reported_to_subscribers() {
    let server = server::start(Options::new());
    let url = format!("postgres://no_such_role@127.0.0.1:{}/postgres", server.port());
    let n: Notifier<u32> = Notifier::builder(url).unwrap().keep_trying(true).autorun(false).build();
    let (recorder, records) = recorder();
    n.subscribe(1, "a", recorder.payloads()).unwrap();
    n.start().unwrap();
    assert_eq!(records.next(), "[lost 0]");
    assert!(!n.is_running());
}

#[test]
fn n09_a_start_that_loses_its_session_is_reported_to_subscribers() {
    let server = server::start(Options::new());
    let mut admin = connect(&server.url());
    admin.execute("CREATE ROLE reader LOGIN").unwrap();
    let url = format!("postgres://reader@127.0.0.1:{}/postgres", server.port());
    let n: Notifier<u32> =
        Notifier::builder(url).unwrap().reconnect(short_backoff()).keep_trying(true).start().unwrap();
    let (recorder, records) = recorder();
    n.subscribe(1, "a", recorder.payloads()).unwrap();
    n.stop();
    admin.execute("ALTER ROLE reader NOLOGIN").unwrap();
    n.start().unwrap();
    assert_eq!(records.next(), "[lost 0]");
    assert!(!n.is_running());
    admin.execute("ALTER ROLE reader LOGIN").unwrap();
    n.start().unwrap();
    assert_eq!(records.next(), "[stopped 0]");
}
