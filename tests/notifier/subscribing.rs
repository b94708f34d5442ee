//! Who hears what: ids, channels, subscriptions, mutes, and names that can't be.

use notifyman::notifier::{Delivery, Id, Reason};
use notifyman::{Error, Notifier};

use super::support::*;

#[test]
fn n01_a_callback_gets_its_id_the_channel_the_payload_and_the_pid() {
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
fn n02_adding_twice_is_a_no_op_and_what_is_there_is_told() {
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
fn n03_a_callback_belongs_to_its_channel_and_removing_it_leaves_the_others_alone() {
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
fn n03_subscribing_again_replaces_the_function() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    n.subscribe(1, &channel, |_| panic!("it was replaced")).unwrap();
    n.subscribe(1, &channel, recorder.payloads()).unwrap();
    session().notify(&channel, "to the second").unwrap();
    assert_eq!(records.next(), "to the second");
    assert_eq!(n.stats().panics, 0);
}

#[test]
fn n03_what_waits_for_a_function_that_is_replaced_goes_to_the_next() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    let latch = Latch::default();
    n.subscribe(1, &channel, blocking(&latch, &recorder)).unwrap();
    send(&mut session(), &channel, ["1", "2", "3"]);
    eventually("all have come", || n.stats().received == 3);
    assert_eq!(records.next(), "blocked");
    let new = recorder.clone();
    n.subscribe(1, &channel, move |call| new.record(format!("new {}", text(call)))).unwrap();
    latch.open();
    assert_eq!(records.take(3), ["1", "new 2", "new 3"]);
}

#[test]
fn n04_the_session_listens_to_what_is_wanted_and_to_the_system_channel() {
    let n = notifier();
    let (a, b) = (new_channel(), new_channel());
    let heard = || n.stats().channels;
    n.subscribe(1, &a, |_| ()).unwrap();
    n.add_channel(&b).unwrap().wait(LIMIT).unwrap();
    assert_eq!(heard(), 2);
    n.mute_channels([&a]).unwrap();
    assert_eq!(heard(), 1);
    n.mute_subscriber(&1).unwrap();
    n.unmute_channels([&a]).unwrap().wait(LIMIT).unwrap();
    assert_eq!(heard(), 1, "its only subscriber is muted");
    n.unmute_subscriber(&1).unwrap().wait(LIMIT).unwrap();
    assert_eq!(heard(), 2);
}

#[test]
fn n06_mute_drops_while_muted_and_says_so_afterwards() {
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
    eventually("it has come", || n.stats().received == 2);
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
        assert!(error.is_usage() && error.to_string().contains("phantom"), "{error}");
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
fn n11_the_system_channel_is_the_notifiers_own_and_what_is_sent_there_harms_nobody() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    for error in
        [n.subscribe(1, "PGNOTIFIER", |_| ()).unwrap_err(), n.add_channels(["fine", "PGNOTIFIER"]).unwrap_err()]
    {
        assert!(error.is_usage() && error.to_string().contains("PGNOTIFIER"), "{error}");
    }
    assert!(n.channels().is_empty(), "the other wasn't added either");
    n.subscribe(1, &channel, recorder.payloads()).unwrap();
    let mut db = session();
    send(&mut db, "PGNOTIFIER", ["", "true", "stop", "{'unknown': 1}"]);
    send(&mut db, &channel, ["still here"]);
    assert_eq!(records.next(), "still here");
    assert!(n.stats().received >= 5, "it listens there, too: {:?}", n.stats());
}

#[test]
fn names_that_cannot_be_are_refused_and_nothing_is_subscribed() {
    let n = notifier();
    let long = "x".repeat(64);
    for (name, part) in [("", "empty"), (long.as_str(), "63 bytes"), ("a\0b", "NUL")] {
        for error in [n.subscribe(1, name, |_| ()).unwrap_err(), n.add_channels(["fine", name]).unwrap_err()] {
            assert!(error.is_usage() && error.to_string().contains(part), "{error}");
        }
    }
    assert!(n.channels().is_empty() && n.subscriptions().is_empty());
    n.subscribe(1, &"x".repeat(63), |_| ()).unwrap();
}

#[test]
fn n08_a_payload_that_does_not_parse_reaches_the_callback_as_an_error_with_the_raw_text() {
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
fn a_gap_reads_as_a_sentence() {
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
fn a_name_that_only_the_server_can_refuse_is_an_error_too_and_takes_nothing_along() {
    let n: Notifier<u32> = Notifier::new(crate::support::server::euc_jp().url()).unwrap();
    // 40 characters, which are 80 bytes there.
    let long = "あ".repeat(40);
    let (recorder, records) = recorder();
    let (good, other) = (new_channel(), new_channel());
    n.subscribe(1, &good, recorder.payloads()).unwrap();
    for error in [
        n.subscribe(1, &long, |_| ()).unwrap_err(),
        n.subscribe_ticket(2, &long, |_| ()).unwrap().wait(LIMIT).unwrap_err(),
        n.add_channels([&other, &long]).unwrap().wait(LIMIT).unwrap_err(),
    ] {
        assert!(error.is_usage() && error.to_string().contains("63 bytes"), "{error}");
        assert_eq!(n.channels(), [good.as_str()]);
    }
    assert_eq!((n.stats().channels, n.subscriptions().len()), (1, 1));
    n.notify(&good, "as before");
    assert_eq!(records.next(), "as before");
}

#[test]
fn a_name_that_only_its_server_has_room_for_survives_a_restart() {
    let n: Notifier<u32> = Notifier::new(crate::support::server::latin1().url()).unwrap();
    // 80 bytes here, 40 there.
    let channel = "é".repeat(40);
    let (recorder, records) = recorder();
    n.subscribe(1, &channel, recorder.payloads()).unwrap();
    n.restart().unwrap();
    n.notify(&channel, "heard");
    assert_eq!(records.take(2), ["[stopped 0]", "heard"]);
}

#[test]
fn a_function_that_was_there_before_is_still_there_when_the_next_one_is_refused() {
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
    // Nobody acknowledges, so the new function can't be sure to hear anything.
    let error = n.subscribe(1, "a", |_| panic!("it was taken back")).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    proxy.cut_rst();
    proxy.resume();
    eventually("it is back", || n.stats().channels == 1);
    n.notify("a", "to the first").wait(LIMIT).unwrap();
    while records.next() != "to the first" {}
    assert_eq!(n.stats().panics, 0);
}

#[test]
fn n05_what_a_refused_apply_took_along_is_asked_for_again() {
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
