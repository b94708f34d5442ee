//! Notifiers over a source in the place of a database.

use std::thread;
use std::time::{Duration, Instant};

use notifyman::fence::{Admission, Entry, Fence, FenceChannel, Invalidator, Lsn, Serve};
use notifyman::notifier::{NotifierBuilder, State};
use notifyman::{ConnId, Error, Event, EventSource, Notifier};

use super::support::*;
use crate::support::source::{Hand, Script, berlin, oslo, script};

/// Starts a notifier whose two connections carry the channels "a" and "b".
fn started() -> (Notifier<u32>, Hand) {
    let (script, hand) = script();
    hand.open(berlin(), &["a", "b"]);
    hand.open(oslo(), &["a", "b"]);
    (Notifier::over(script).start().unwrap(), hand)
}

/// Starts a notifier on another thread, since that waits for its connections.
fn starting(builder: NotifierBuilder) -> thread::JoinHandle<Result<Notifier<u32>, Error>> {
    thread::spawn(move || builder.start())
}

#[test]
fn n14_each_connection_of_a_source_is_a_database_that_carries_its_channels() {
    let (n, hand) = started();
    let labels: Vec<_> = n.databases().iter().map(|it| it.config().get_label().unwrap().to_owned()).collect();
    assert_eq!(labels, ["berlin", "oslo"]);
    let (recorder, records) = recorder();
    n.subscribe(1, "a", recorder.payloads()).unwrap();
    n.databases()[1].subscribe(1, "a", recorder.payloads()).unwrap();
    hand.notify(berlin(), "a", "of berlin");
    hand.notify(berlin(), "b", "without subscriber");
    hand.notify(oslo(), "a", "of oslo");
    assert_eq!((records.next(), records.next()), ("of berlin".into(), "of oslo".into()));
    let stats = n.stats();
    assert_eq!((stats.received, stats.channels, stats.sessions), (3, 2, 2));
    assert!(matches!(n.state(), State::Listening) && n.session_pid().is_none());
    n.unsubscribe_ticket(&1, "a").unwrap().wait(LIMIT).unwrap();
    hand.notify(berlin(), "a", "no subscriber");
    hand.notify(oslo(), "a", "one");
    assert_eq!(records.next(), "one");
}

#[test]
fn n14_a_channel_that_is_not_carried_is_refused_and_nothing_stays() {
    let (n, hand) = started();
    let (recorder, records) = recorder();
    let refused = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        assert!(matches!(&error, Error::NotRelayed { channel } if **channel == *"c"), "{error}");
        assert!(error.to_string().starts_with("channel \"c\" is not relayed"), "{error}");
        assert!(n.channels().is_empty());
    };
    refused(n.subscribe(1, "c", recorder.payloads()));
    refused(n.subscribe_ticket(1, "c", recorder.payloads()).unwrap().wait(LIMIT));
    refused(n.add_channels(["a", "c"]).unwrap().wait(LIMIT).inspect_err(|_| drop(n.remove_channel("a"))));
    assert!(matches!(n.subscribe(1, "", recorder.payloads()), Err(Error::Value(_))));
    // Muted subscriptions need no channel, and learn it when they are unmuted.
    n.subscribe(1, "a", recorder.payloads()).unwrap();
    n.mute_channels(["a"]).unwrap();
    hand.notify(berlin(), "a", "muted");
    hand.send(Event::Unlistened(berlin(), ["a".into()].into()));
    hand.notify(berlin(), "b", "until here");
    receive(&n, 2);
    let error = n.unmute_channels(["a"]).unwrap().wait(LIMIT).unwrap_err();
    assert!(matches!(error, Error::NotRelayed { .. }), "{error}");
    hand.restore(berlin(), &["a"], &["a", "b"]);
    hand.notify(berlin(), "a", "again");
    assert_eq!((records.next(), records.next()), ("[muted 0]".into(), "again".into()));
}

#[test]
fn n14_nothing_can_be_sent_and_no_database_added() {
    let (n, _hand) = started();
    let error = n.notify("a", "1").wait(LIMIT).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::NoDatabase { .. }) && error.is_usage(), "{error}");
    assert!(text.starts_with("cannot notify: ") && text.ends_with("in the transaction that writes"), "{text}");
    assert!(matches!(n.at(config()), Err(Error::NoDatabase { .. })));
    assert!(matches!(Notifier::over(script().0).database(config()), Err(Error::NoDatabase { .. })));
}

#[test]
fn n14_a_start_fails_with_the_first_connection_and_with_a_channel_that_is_not_carried() {
    let attempts: [&dyn Fn(&Hand); 3] =
        [&|hand| hand.state.lock().unwrap().refuses_to_start = true, &|hand| hand.disconnect(oslo()), &|hand| {
            hand.send(Event::Lost(oslo(), Error::Disconnected))
        }];
    for attempt in attempts {
        let (script, hand) = script();
        attempt(&hand);
        let error = starting(Notifier::over(script)).join().unwrap().map(drop).unwrap_err();
        assert!(matches!(error, Error::Unopened | Error::Disconnected), "{error}");
    }
    let (script, hand) = script();
    let n = Notifier::over(script).autorun(false).build::<u32>();
    n.databases()[1].subscribe(1, "c", |_| ()).unwrap();
    let start = || {
        hand.open(berlin(), &["a"]);
        hand.open(oslo(), &["a"]);
        n.start()
    };
    let error = start().unwrap_err();
    assert!(matches!(&error, Error::NotRelayed { channel } if **channel == *"c"), "{error}");
    assert!(matches!(n.state(), State::Failed(Error::NotRelayed { .. })));
    n.databases()[1].remove_channel("c").unwrap();
    start().unwrap();
    assert!(n.is_running() && hand.state.lock().unwrap().starts == 2);
}

#[test]
fn n14_a_source_is_started_again_with_the_notifier() {
    let (n, hand) = started();
    let (recorder, records) = recorder();
    n.subscribe(1, "a", recorder.payloads()).unwrap();
    n.stop();
    assert!(!n.is_running() && matches!(n.notify("a", "1").wait(LIMIT), Err(Error::NoDatabase { .. })));
    hand.open(berlin(), &["a"]);
    hand.open(oslo(), &["a"]);
    n.start().unwrap();
    hand.notify(berlin(), "a", "again");
    assert_eq!((records.next(), records.next()), ("[stopped 0]".into(), "again".into()));
    assert_eq!(hand.state.lock().unwrap().starts, 2);
    hand.send(Event::Lost(berlin(), Error::Disconnected));
    assert_eq!(records.next(), "[lost 0]");
    assert!(n.is_running() && matches!(n.state(), State::Lost(_)));
}

#[test]
fn n14_a_notifier_that_keeps_trying_waits_for_its_source() {
    let (script, hand) = script();
    let n = Notifier::over(script).keep_trying(true).start::<u32>().unwrap();
    let (recorder, records) = recorder();
    let mut carried = n.subscribe_ticket(1, "a", recorder.payloads()).unwrap();
    let mut refused = n.subscribe_ticket(1, "c", recorder.payloads()).unwrap();
    hand.disconnect(berlin());
    assert!(carried.wait(Duration::from_millis(20)).unwrap_err().is_timeout());
    hand.open(berlin(), &["a"]);
    carried.wait(LIMIT).unwrap();
    assert!(matches!(refused.wait(LIMIT), Err(Error::NotRelayed { .. })));
    hand.notify(berlin(), "a", "1");
    assert_eq!(records.next(), "1");
    assert_eq!(n.channels(), ["a"]);
}

#[test]
fn n14_a_gap_reports_what_may_be_missing_and_the_end_of_a_silence_what_is_not() {
    let (n, hand) = started();
    let (recorder, records) = recorder();
    n.subscribe(1, "a", recorder.payloads()).unwrap();
    n.subscribe(2, "b", |_| ()).unwrap();
    let disconnect = || {
        hand.disconnect(berlin());
        assert_eq!(records.next(), "[disconnected 0]");
        assert!(matches!(n.state(), State::Away));
    };
    disconnect();
    hand.restore(berlin(), &[], &["a", "b"]);
    hand.notify(berlin(), "a", "1");
    assert_eq!((records.next(), records.next()), ("[resumed 0]".into(), "1".into()));
    disconnect();
    hand.restore(berlin(), &["b"], &["a", "b"]);
    assert_eq!(records.next(), "[resumed 0]");
    disconnect();
    hand.restore(berlin(), &["a", "b"], &["a", "b"]);
    assert_eq!(records.next(), "[restored 0]");
    // Without a disconnect.
    hand.restore(berlin(), &["a"], &["a", "b"]);
    hand.restore(berlin(), &[], &["a", "b"]);
    hand.notify(berlin(), "a", "2");
    assert_eq!((records.next(), records.next()), ("[restored 0]".into(), "2".into()));
    let stats = n.stats();
    assert_eq!((stats.losses, stats.restores), (3, 5));
    n.stop();
}

#[test]
fn n14_subscribers_learn_that_their_channel_is_not_carried_any_more() {
    let (n, hand) = started();
    let (recorder, records) = recorder();
    n.subscribe(1, "a", recorder.payloads()).unwrap();
    hand.send(Event::Unlistened(berlin(), ["a".into(), "x".into()].into()));
    assert_eq!(records.next(), "[lost 0]");
    assert_eq!(n.stats().channels, 0);
    // Another one carries it again.
    hand.restore(berlin(), &[], &["a"]);
    hand.notify(berlin(), "a", "1");
    assert_eq!((records.next(), records.next()), ("[stopped 0]".into(), "1".into()));
    // The next leader does not, and has not said so before.
    hand.disconnect(berlin());
    assert_eq!(records.next(), "[disconnected 0]");
    hand.restore(berlin(), &["b"], &["b"]);
    assert_eq!(records.next(), "[lost 0]");
}

/// A cache of a fence that is subscribed to channel "a" of a connection.
struct Cached {
    channel: FenceChannel<u64>,
    serving: FenceChannel<u64, Serve>,
}

impl Cached {
    fn new(n: &Notifier<u32>) -> Self {
        let channel = Fence::new().channel::<u64>("a");
        let invalidator = Invalidator::by_key(|n| n.payload().parse().ok(), |_| ());
        channel.subscribe(n, 1, invalidator).unwrap();
        Self { serving: channel.serve_when_away(), channel }
    }

    fn stored(&self) -> (Entry<u32>, Entry<u32>) {
        let (mut one, mut other) = (None, None);
        assert_eq!(self.channel.begin(&1).admit(1, |entry| one = Some(entry)), Admission::Stored);
        assert_eq!(self.serving.begin(&1).admit(1, |entry| other = Some(entry)), Admission::Stored);
        (one.unwrap(), other.unwrap())
    }

    /// Returns `true` for each entry that is served: with what bypasses, and what serves.
    fn serves(&self, (one, other): &(Entry<u32>, Entry<u32>)) -> (bool, bool) {
        (self.channel.fresh(one).is_some(), self.serving.fresh(other).is_some())
    }
}

#[test]
fn n14_a_fence_forgets_at_each_gap_and_serves_on_after_a_silence_without_one() {
    let (n, hand) = started();
    let cached = Cached::new(&n);
    let is_open = |is_open| eventually("the state", || cached.channel.is_open() == is_open);
    let entries = cached.stored();
    assert_eq!(cached.serves(&entries), (true, true));
    hand.disconnect(berlin());
    is_open(false);
    assert_eq!(cached.serves(&entries), (false, true));
    hand.restore(berlin(), &["b"], &["a", "b"]);
    is_open(true);
    // Readers that bypassed it have seen later values.
    assert_eq!(cached.serves(&entries), (false, true));
    let entries = cached.stored();
    let sent = Instant::now();
    hand.send(Event::CanaryReceived(berlin(), sent));
    eventually("the canary", || cached.channel.as_of() == Some(sent));
    // A gap without a disconnect.
    hand.restore(berlin(), &["a"], &["a", "b"]);
    eventually("it is forgotten", || cached.serves(&entries) == (false, false));
    is_open(true);
    let entries = cached.stored();
    hand.disconnect(berlin());
    is_open(false);
    hand.restore(berlin(), &["a", "b"], &["a", "b"]);
    is_open(true);
    assert_eq!(cached.serves(&entries), (false, false));
    hand.send(Event::Unlistened(berlin(), ["a".into()].into()));
    is_open(false);
}

#[test]
fn f02_the_events_of_a_source_open_a_channel_only_if_it_is_open_and_carries_the_channel() {
    let (mut script, hand) = script();
    let channel = Fence::new().channel::<u64>("a");
    let follow = |script: &Script, conn| {
        channel.events_of(script, conn, Invalidator::by_key(|n| n.payload().parse().ok(), |_| ()))
    };
    assert!(matches!(follow(&script, berlin()), Err(Error::Unopened)));
    assert!(matches!(follow(&script, ConnId::of_source(3, "lima")), Err(Error::UnknownConnection)));
    hand.open(berlin(), &["a"]);
    hand.open(oslo(), &["b"]);
    (0..2).for_each(|_| drop(script.next_event()));
    assert!(matches!(follow(&script, oslo()), Err(Error::NotRelayed { channel }) if *channel == *"a"));
    assert!(!channel.is_open());
    let mut events = follow(&script, berlin()).unwrap();
    assert!(channel.is_open());
    let mut apply = |script: &mut Script| events.apply(&script.next_event().unwrap());
    hand.disconnect(berlin());
    hand.restore(berlin(), &[], &["a"]);
    apply(&mut script);
    assert!(!channel.is_open() && matches!(follow(&script, berlin()), Err(Error::Unopened)));
    let epoch = channel.stats().epoch;
    apply(&mut script);
    assert!(channel.is_open() && channel.stats().epoch == epoch);
    hand.notify(berlin(), "a", "no key");
    apply(&mut script);
    assert_eq!(channel.stats().epoch, epoch + 1);
    hand.send(Event::Unlistened(berlin(), ["a".into()].into()));
    apply(&mut script);
    assert!(!channel.is_open());
}

#[test]
fn f04_a_silence_without_a_gap_makes_the_floors_unknown() {
    let (mut script, hand) = script();
    hand.open(berlin(), &["a"]);
    script.next_event();
    let (ask, questions) = std::sync::mpsc::channel();
    let fence = Fence::builder().primary(move |question| drop(ask.send(question))).build();
    let channel = fence.channel::<u64>("a");
    let invalidator = Invalidator::by_key(|n| n.payload().parse().ok(), |_| ());
    let mut events = channel.events_of(&script, berlin(), invalidator).unwrap();
    let lsn = |text: &str| text.parse::<Lsn>().unwrap();
    let fill = || channel.begin(&1).on_standby(lsn("0/5")).admit(1, |_| ());
    assert_eq!(fill(), Admission::Behind);
    questions.recv().unwrap().answer(1, lsn("0/4"));
    assert_eq!(fill(), Admission::Stored);
    hand.disconnect(berlin());
    hand.restore(berlin(), &[], &["a"]);
    (0..2).for_each(|_| events.apply(&script.next_event().unwrap()));
    // What was committed during the silence is not known here yet.
    assert_eq!(fill(), Admission::Behind);
    questions.recv().unwrap().answer(1, lsn("0/6"));
    assert_eq!(fill(), Admission::Behind);
}
