//! Ids, channels, subscriptions and mutes, and names that are refused.

use notifyman::notifier::{Delivery, Id, Reason};
use notifyman::{Config, Error, Notifier};

use super::support::*;
use crate::support::{Options, server};

#[test]
fn n01_a_notification_has_the_id_channel_payload_and_pid() {
    let n: Notifier = Notifier::new(config()).unwrap();
    let (recorder, records) = recorder();
    let channel = new_channel();
    for id in [Id::from(42), "an_id".into(), (2, "another_id").into()] {
        let recorder = recorder.clone();
        n.subscribe(id, &channel, move |n| {
            let n = notification(n);
            recorder.record(format!("{} {} {} {}", n.id(), n.channel(), n.payload(), n.pid()));
        })
        .unwrap();
    }
    let mut db = session();
    db.notify(&channel, "hello").unwrap();
    let mut all = records.take(3);
    all.sort();
    let expected = ["(2, another_id)", "42", "an_id"].map(|id| format!("{id} {channel} hello {}", db.pid()));
    assert_eq!(all, expected);
}

#[test]
fn n02_adding_twice_is_a_no_op() {
    let n = notifier();
    for _ in 0..2 {
        n.add_channels(["b", "a"]).unwrap().wait(LIMIT).unwrap();
        n.add_channel("c").unwrap();
    }
    assert_eq!(n.channels(), ["a", "b", "c"]);
    n.subscribe(1, "d", |_| ()).unwrap();
    n.subscribe(2, "a", |_| ()).unwrap();
    n.subscribe(1, "a", |_| ()).unwrap();
    assert_eq!(n.subscriptions(), [("a".into(), vec![2, 1]), ("d".into(), vec![1])].into());
    n.remove_channels(["b", "d"]).unwrap();
    assert_eq!(n.channels(), ["a", "c"]);
    assert_eq!(n.subscriptions(), [("a".into(), vec![2, 1])].into());
}

#[test]
fn n02_the_last_unsubscribe_stops_listening_unless_the_channel_was_added() {
    let n = notifier();
    let (named, unnamed) = (new_channel(), new_channel());
    n.add_channel(&named).unwrap();
    for channel in [&named, &unnamed] {
        n.subscribe(1, channel, |_| ()).unwrap();
    }
    assert_eq!(n.stats().channels, 2);
    for channel in [&named, &unnamed] {
        n.unsubscribe(&1, channel).unwrap();
    }
    assert_eq!((n.channels(), n.stats().channels), (vec![named], 1));
}

#[test]
fn n03_unsubscribing_from_one_channel_leaves_other_subscriptions_alone() {
    let n = notifier();
    let (recorder, records) = recorder();
    let (a, b) = (new_channel(), new_channel());
    n.subscribe(1, &a, recorder.payloads()).unwrap();
    n.subscribe(1, &b, recorder.payloads()).unwrap();
    n.subscribe(2, &a, recorder.payloads()).unwrap();
    n.unsubscribe(&1, &a).unwrap();
    let mut db = session();
    send(&mut db, &a, ["to 2 only"]);
    send(&mut db, &b, ["to 1 as before"]);
    let mut all = records.take(2);
    all.sort();
    assert_eq!(all, ["to 1 as before", "to 2 only"]);
    assert!(records.so_far().is_empty());
}

#[test]
fn n03_subscribing_again_replaces_the_callback() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    n.subscribe(1, &channel, |_| panic!("this callback was replaced")).unwrap();
    n.subscribe(1, &channel, recorder.payloads()).unwrap();
    session().notify(&channel, "to the second").unwrap();
    assert_eq!(records.next(), "to the second");
    assert_eq!(n.stats().panics, 0);
}

#[test]
fn n03_waiting_notifications_go_to_the_callback_that_replaces_another() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    let latch = Latch::default();
    n.subscribe(1, &channel, blocking(&latch, &recorder)).unwrap();
    send(&mut session(), &channel, ["1", "2", "3"]);
    receive(&n, 3);
    assert_eq!(records.next(), "blocked");
    let new = recorder.clone();
    n.subscribe(1, &channel, move |call| new.record(format!("new {}", text(call)))).unwrap();
    latch.open();
    assert_eq!(records.take(3), ["1", "new 2", "new 3"]);
}

#[test]
fn n04_the_session_listens_only_to_channels_with_an_unmuted_subscriber_or_added_by_name() {
    let n = notifier();
    let (a, b) = (new_channel(), new_channel());
    let listening = || n.stats().channels;
    n.subscribe(1, &a, |_| ()).unwrap();
    n.add_channel(&b).unwrap().wait(LIMIT).unwrap();
    assert_eq!(listening(), 2);
    n.mute_channels([&a]).unwrap();
    assert_eq!(listening(), 1);
    n.mute_subscriber(&1).unwrap();
    n.unmute_channels([&a]).unwrap().wait(LIMIT).unwrap();
    assert_eq!(listening(), 1, "its only subscriber is muted");
    n.unmute_subscriber(&1).unwrap().wait(LIMIT).unwrap();
    assert_eq!(listening(), 2);
}

#[test]
fn n06_notifications_to_a_muted_subscriber_are_lost_and_reported() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    let mut db = session();
    n.subscribe(1, &channel, recorder.payloads()).unwrap();
    n.subscribe(2, &channel, |_| ()).unwrap();
    send(&mut db, &channel, ["1"]);
    assert_eq!(records.next(), "1");

    n.mute_subscriber_on(&1, [&channel]).unwrap();
    send(&mut db, &channel, ["muted"]);
    receive(&n, 2);
    n.unmute_subscriber(&1).unwrap().wait(LIMIT).unwrap();
    send(&mut db, &channel, ["2"]);
    assert_eq!(records.take(2), ["[muted 0]", "2"]);

    n.mute_channels([&channel]).unwrap();
    send(&mut db, &channel, ["muted"]);
    n.unmute_channels([&channel]).unwrap().wait(LIMIT).unwrap();
    send(&mut db, &channel, ["3"]);
    assert_eq!(records.take(2), ["[muted 0]", "3"]);
}

#[test]
fn n06_a_subscribers_mute_survives_its_channels() {
    let n = notifier();
    let channel = new_channel();
    n.subscribe(1, &channel, |_| ()).unwrap();
    n.subscribe(2, &channel, |_| ()).unwrap();
    n.mute_subscriber(&1).unwrap();
    n.mute_channels([&channel]).unwrap();
    assert_eq!(n.muted_channels(), [channel.as_str()]);
    n.unmute_channels([&channel]).unwrap();
    assert_eq!(n.muted_subscribers(), [(channel, vec![1])].into());
    assert!(n.muted_channels().is_empty());
}

#[test]
fn n06_unknown_names_and_ids_are_errors_and_change_nothing() {
    let n = notifier();
    n.subscribe(1, "known", |_| ()).unwrap();
    let unknown_channels = [
        n.mute_channels(["known", "phantom"]).unwrap_err(),
        n.unmute_channels(["phantom"]).unwrap_err(),
        n.remove_channels(["known", "phantom"]).unwrap_err(),
        n.unsubscribe(&1, "phantom").unwrap_err(),
        n.mute_subscriber_on(&1, ["phantom"]).unwrap_err(),
    ];
    for error in unknown_channels {
        assert!(matches!(&error, Error::UnknownChannel { channel } if **channel == *"phantom"), "{error}");
        assert!(error.is_usage() && format!("{error:#}").contains("phantom"), "{error}");
    }
    n.subscribe(2, "other", |_| ()).unwrap();
    let unknown_subscribers = [
        n.unsubscribe(&9, "known").unwrap_err(),
        n.mute_subscriber(&9).unwrap_err(),
        n.unmute_subscriber(&9).unwrap_err(),
        n.mute_subscriber_on(&1, ["known", "other"]).unwrap_err(),
        n.set_queue(&9, Default::default()).unwrap_err(),
    ];
    for error in unknown_subscribers {
        assert!(matches!(error, Error::UnknownSubscriber { .. }) && error.is_usage(), "{error}");
    }
    assert_eq!((n.channels().len(), n.muted_channels().len(), n.muted_subscribers().len()), (2, 0, 0));
}

#[test]
fn n11_the_system_channel_is_reserved_and_its_notifications_are_discarded() {
    // All notifiers of a database receive and count what is sent on the system channel.
    let server = server::start(Options::new());
    let n = Notifier::<u32>::new(Config::without_env(&server.url()).unwrap()).unwrap();
    let (recorder, records) = recorder();
    let channel = new_channel();
    for error in
        [n.subscribe(1, "PGNOTIFIER", |_| ()).unwrap_err(), n.add_channels(["fine", "PGNOTIFIER"]).unwrap_err()]
    {
        assert!(error.is_usage() && format!("{error:#}").contains("PGNOTIFIER"), "{error}");
    }
    assert!(n.channels().is_empty(), "no other channel was added");
    n.subscribe(1, &channel, recorder.payloads()).unwrap();
    let mut db = connect(&server.url());
    send(&mut db, "PGNOTIFIER", ["", "true", "stop", "{'unknown': 1}"]);
    send(&mut db, &channel, ["still here"]);
    assert_eq!(records.next(), "still here");
    assert!(n.stats().received >= 5, "the session listens to the system channel: {:?}", n.stats());
}

#[test]
fn invalid_names_are_refused_and_change_nothing() {
    let n = notifier();
    let long = "x".repeat(64);
    for (name, part) in [("", "empty"), (long.as_str(), "63 bytes"), ("a\0b", "NUL")] {
        for error in [n.subscribe(1, name, |_| ()).unwrap_err(), n.add_channels(["fine", name]).unwrap_err()] {
            assert!(error.is_usage() && format!("{error:#}").contains(part), "{error}");
        }
    }
    assert!(n.channels().is_empty() && n.subscriptions().is_empty());
    n.subscribe(1, "x".repeat(63), |_| ()).unwrap();
}

#[test]
fn n08_a_payload_that_does_not_parse_is_an_error_with_the_raw_text() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    n.subscribe(1, &channel, move |n| {
        #[cfg(feature = "json")]
        match notification(n).payload().value() {
            Ok(value) => recorder.record(value.to_string()),
            Err(error) => recorder.record(format!("raw: {}", error.raw())),
        }
        #[cfg(not(feature = "json"))]
        recorder.record(text(n));
    })
    .unwrap();
    let mut db = session();
    send(&mut db, &channel, ["", "plain text", "true", "007", "[1]"]);
    let all = records.take(5);
    if cfg!(feature = "json") {
        assert_eq!(all, ["raw: ", "raw: plain text", "true", "raw: 007", "[1]"]);
    }
}

#[test]
fn a_report_is_readable_text() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    n.subscribe(1, &channel, move |delivery| {
        if let Delivery::Missed(missed) = delivery {
            assert!(
                matches!(missed.reason(), Reason::Muted) && (*missed.id(), missed.channel()) == (1, delivery.channel())
            );
            recorder.record(missed.to_string());
        }
    })
    .unwrap();
    n.mute_subscriber(&1).unwrap();
    n.unmute_subscriber(&1).unwrap();
    assert_eq!(records.next(), "notifications may be missing: the channel or the subscriber was muted");
}

#[test]
fn a_name_that_only_the_server_can_refuse_is_an_error_and_changes_nothing() {
    let n: Notifier<u32> = Notifier::new(crate::support::server::euc_jp().url()).unwrap();
    // 40 characters, which are 80 bytes in EUC_JP.
    let long = "あ".repeat(40);
    let (recorder, records) = recorder();
    let (good, other) = (new_channel(), new_channel());
    n.subscribe(1, &good, recorder.payloads()).unwrap();
    for error in [
        n.subscribe(1, &long, |_| ()).unwrap_err(),
        n.subscribe_ticket(2, &long, |_| ()).unwrap().wait(LIMIT).unwrap_err(),
        n.add_channels([&other, &long]).unwrap().wait(LIMIT).unwrap_err(),
    ] {
        assert!(error.is_usage() && format!("{error:#}").contains("63 bytes"), "{error}");
        assert_eq!(n.channels(), [good.as_str()]);
    }
    assert_eq!((n.stats().channels, n.subscriptions().len()), (1, 1));
    n.notify(&good, "as before");
    assert_eq!(records.next(), "as before");
}

#[test]
fn a_name_that_is_too_long_in_utf8_but_not_in_latin1_survives_a_restart() {
    let n: Notifier<u32> = Notifier::new(crate::support::server::latin1().url()).unwrap();
    // 80 bytes in UTF-8, 40 in LATIN1.
    let channel = "é".repeat(40);
    let (recorder, records) = recorder();
    n.subscribe(1, &channel, recorder.payloads()).unwrap();
    n.restart().unwrap();
    n.notify(&channel, "received");
    assert_eq!(records.take(2), ["[stopped 0]", "received"]);
}

#[test]
fn a_failed_subscribe_keeps_the_earlier_callback() {
    let (recorder, records) = recorder();
    let server = crate::support::server::start(crate::support::Options::new());
    let proxy = crate::support::Proxy::start(([127, 0, 0, 1], server.port()).into());
    let url = format!("postgres://postgres@{}/postgres?connect_timeout=2", proxy.addr());
    let config = notifyman::Config::without_env(&url).unwrap().call_timeout(std::time::Duration::from_secs(3));
    let n: Notifier<u32> = Notifier::new(config).unwrap();
    n.subscribe(1, "a", recorder.payloads()).unwrap();
    n.mute_channels(["a"]).unwrap();
    proxy.black_hole();
    n.unmute_channels(["a"]).unwrap();
    // Without an acknowledgement, the new callback might receive nothing.
    let error = n.subscribe(1, "a", |_| panic!("this subscription was reverted")).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    proxy.cut_rst();
    proxy.resume();
    eventually("the session is restored", || n.stats().channels == 1);
    n.notify("a", "to the first").wait(LIMIT).unwrap();
    while records.next() != "to the first" {}
    assert_eq!(n.stats().panics, 0);
}

#[test]
fn n05_channels_of_a_refused_apply_are_requested_again() {
    let url = crate::support::server::latin1().url();
    let n: Notifier<u32> = Notifier::builder(url.as_str()).unwrap().autorun(false).build();
    n.start().unwrap();
    let (recorder, records) = recorder();
    let (one, two) = (new_channel(), new_channel());
    n.subscribe(1, &one, recorder.payloads()).unwrap();
    n.subscribe(2, &two, recorder.payloads()).unwrap();
    n.subscribe(3, "日", recorder.payloads()).unwrap();
    assert_eq!(n.apply().unwrap().wait(LIMIT).unwrap_err().sqlstate(), Some("22P05"));
    assert_eq!(n.stats().channels, 0, "all or none");
    n.autorun(true);
    n.subscribe(4, &one, |_| ()).unwrap();
    n.autorun(false);
    n.unsubscribe(&3, "日").unwrap();
    n.apply().unwrap().wait(LIMIT).unwrap();
    send(&mut connect(&url), &one, ["1"]);
    send(&mut connect(&url), &two, ["2"]);
    assert_eq!(records.take(2), ["1", "2"]);
}
