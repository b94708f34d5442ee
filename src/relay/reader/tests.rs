//! A feed without an engine: entries, silence and failures in, events out.

use std::time::{Duration, Instant, SystemTime};

use super::feed::{FeedOutput, FeedSilence, ReadTime, StreamFeed, StreamStart};
use crate::error::Error;
use crate::manager::{ConnId, Event};
use crate::notification::{Batch, Notification};
use crate::relay::engine_time::EngineTime;
use crate::relay::entry::{EntryContent, StreamEntry, StreamOrigin};
use crate::relay::position::StreamPosition;

const SILENCE: Duration = Duration::from_secs(30);

fn at(term: u64, sequence: u64) -> StreamPosition {
    StreamPosition { term, sequence }
}

fn entry(content: EntryContent) -> StreamEntry {
    StreamEntry { origin: StreamOrigin { system: 7, timeline: 1, database: 5 }, content }
}

fn names(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| (*name).into()).collect()
}

fn start(continues: Option<StreamPosition>, channels: &[&str]) -> EntryContent {
    EntryContent::Start { continues, channels: names(channels), silence_ms: 20_000 }
}

fn canary(channels: &[&str]) -> EntryContent {
    EntryContent::Canary {
        marker: "a 1".into(),
        sent: EngineTime::default(),
        channels: names(channels),
        silence_ms: 20_000,
    }
}

fn batch(payload: &str) -> EntryContent {
    EntryContent::Notifications(Batch::from_iter([Notification::new("a", payload, 1)]))
}

/// A feed, with a clock that only the test advances, and the events as text.
struct Script {
    feed: StreamFeed,
    now: ReadTime,
}

impl Script {
    fn new() -> Self {
        let now = (Instant::now(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let id = ConnId::of_source(1, "shop");
        Self { feed: StreamFeed::new(id, "shop", "notifyman:shop".into(), FeedSilence::Fixed(SILENCE), true, now), now }
    }

    /// Returns a feed that is open at 5-9, with the channels a and b.
    fn open() -> Self {
        let mut script = Self::new();
        assert_eq!(script.begin(&[(at(5, 9), canary(&["a", "b"]))]), ["opened; a b"]);
        script
    }

    fn wait(&mut self, seconds: u64) {
        let time = Duration::from_secs(seconds);
        self.now = (self.now.0 + time, self.now.1 + time);
    }

    /// Begins with these entries, the newest first.
    fn begin(&mut self, entries: &[(StreamPosition, EntryContent)]) -> Vec<String> {
        let (mut start, mut out) = (StreamStart::default(), Vec::new());
        for (position, content) in entries {
            if !start.push(*position, &entry(content.clone())) {
                break;
            }
        }
        self.feed.begin(start, self.now, &mut out);
        shown(out)
    }

    fn receive(&mut self, position: StreamPosition, content: EntryContent) -> Vec<String> {
        let (entry, mut out) = (entry(content), Vec::new());
        let now = self.now;
        let is_of_leader = self.feed.receive((position, &entry.to_fields()), now, |_| Some(now.0), &mut out);
        assert_eq!(is_of_leader, !position.is_claim(), "a claim does not end a silence");
        shown(out)
    }

    /// Checks for silence; `top` is the end of the stream if the feed asks for it.
    fn silent(&mut self, top: Option<StreamPosition>) -> Vec<String> {
        let mut out = Vec::new();
        if self.feed.check_silence(self.now, &mut out) {
            self.feed.check_top(top);
        }
        shown(out)
    }
}

fn shown(out: Vec<FeedOutput>) -> Vec<String> {
    let show = |FeedOutput { event, channels }| {
        let event = match event {
            Event::Opened(_) => "opened".to_owned(),
            Event::Notifies(_, batch) => batch.iter().map(|n| n.payload().into_owned()).collect(),
            Event::Disconnected(_, error) => format!("disconnected: {error}"),
            Event::Restored(_, gap) => format!("gap [{}] {}: {}", gap.channels().join(" "), gap.epoch(), gap.cause()),
            Event::Lost(_, error) => format!("lost: {error}"),
            Event::CanaryReceived(..) => "canary".to_owned(),
            Event::Unlistened(_, channels) => format!("unlistened [{}]", channels.join(" ")),
            other => format!("{other:?}"),
        };
        format!("{event}; {}", channels.map_or("closed".into(), |channels| channels.join(" ")))
    };
    out.into_iter().map(show).collect()
}

#[track_caller]
fn assert_begins(found: &[String], expected: &[&str]) {
    let matches = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| a.starts_with(b));
    assert!(matches, "{found:#?} do not begin with {expected:#?}");
}

#[test]
fn r03_a_reader_begins_at_the_end_of_the_last_term_that_was_started() {
    let mut script = Script::new();
    let claims =
        [(at(7, 0), EntryContent::Claim { relay: "x".into() }), (at(6, 0), EntryContent::Claim { relay: "y".into() })];
    let older = [(at(5, 3), batch("3")), (at(5, 2), batch("2")), (at(5, 1), start(None, &["a"]))];
    assert_eq!(script.begin(&[&claims[..], &older[..]].concat()), ["opened; a"]);
    assert_eq!(script.feed.cursor(), at(5, 3));
    assert_eq!(script.receive(at(6, 0), claims[1].1.clone()), [] as [&str; 0]);
    assert_eq!(script.receive(at(7, 0), claims[0].1.clone()), [] as [&str; 0]);
    assert_eq!(script.receive(at(7, 1), start(Some(at(5, 3)), &["a"])), [] as [&str; 0]);
    assert_eq!(script.receive(at(7, 2), batch("4")), ["4; a"]);
}

#[test]
fn r03_a_reader_is_open_when_it_knows_the_channels_and_promises_nothing_before() {
    for first in [start(None, &["a"]), start(Some(at(1, 1)), &["a"])] {
        let mut script = Script::new();
        assert_begins(&script.begin(&[]), &["disconnected: stream \"shop\": the engine has no entry of a relay"]);
        assert_eq!(script.receive(at(5, 0), EntryContent::Claim { relay: "x".into() }), [] as [&str; 0]);
        assert_eq!(script.receive(at(5, 1), first), ["opened; a"]);
        assert_eq!(script.receive(at(5, 2), batch("1")), ["1; a"]);
    }
    // The entries that name the channels were trimmed.
    let mut script = Script::new();
    assert_eq!(script.begin(&[(at(5, 8), batch("8")), (at(5, 7), batch("7"))]), [] as [&str; 0]);
    assert_eq!(script.receive(at(5, 9), batch("9")), [] as [&str; 0]);
    assert_eq!(script.receive(at(5, 10), canary(&["a"])), ["opened; a"]);
    assert_eq!(script.receive(at(5, 11), batch("11")), ["11; a"]);
    assert_eq!(script.receive(at(5, 12), canary(&["a"])), ["canary; a"]);
}

#[test]
fn r03_what_is_missing_is_a_gap_before_what_follows() {
    let mut script = Script::open();
    script.wait(3);
    let found = script.receive(at(5, 11), batch("11"));
    assert_begins(
        &found,
        &["gap [a b] 1: stream \"shop\": the stream continues after the entry 5-9 with 5-11", "11; a b"],
    );
    assert_eq!(script.receive(at(6, 1), start(Some(at(5, 11)), &["a", "b"])), [] as [&str; 0]);
    let found = script.receive(at(7, 1), start(None, &["a", "b"]));
    assert_begins(&found, &["gap [a b] 2: stream \"shop\": the leader that started with the entry 7-1 could not"]);
    let found = script.receive(at(8, 1), start(Some(at(6, 9)), &["b", "c"]));
    assert_begins(&found, &["gap [a b c] 3: stream \"shop\": a new leader continues after", "unlistened [a]; b c"]);
    let gap =
        EntryContent::Gap { channels: names(&["c"]), cause: "x\u{1b}".into(), since_unix_ms: 1, until_unix_ms: 2 };
    assert_eq!(script.receive(at(8, 2), gap), [r#"gap [c] 4: stream "shop": x\u{1b}; b c"#]);
    let gap = EntryContent::Gap { channels: names(&[]), cause: "y".into(), since_unix_ms: 1, until_unix_ms: 2 };
    assert_eq!(script.receive(at(8, 3), gap), [r#"gap [b c] 5: stream "shop": y; b c"#]);
}

#[test]
fn r03_a_gap_begins_with_the_last_entry_or_earlier_if_the_relay_says_so() {
    let mut script = Script::open();
    let begin = script.now;
    script.wait(10);
    for (since_unix_ms, ago) in [(999_995_000, 5), (1_000_007_000, 0)] {
        let content = EntryContent::Gap { channels: names(&["a"]), cause: "x".into(), since_unix_ms, until_unix_ms: 9 };
        let mut feed = Script::open();
        feed.now = script.now;
        feed.feed.begin(StreamStart::default(), begin, &mut Vec::new());
        let (entry, mut out) = (entry(content), Vec::new());
        feed.feed.receive((at(5, 10), &entry.to_fields()), script.now, |_| None, &mut out);
        let Event::Restored(_, gap) = &out[0].event else { panic!("{out:?}") };
        let lasted = gap.until_wall().duration_since(gap.since_wall()).unwrap();
        assert_eq!(lasted, Duration::from_secs(10 + ago), "{gap:?}");
        assert!(gap.duration() >= Duration::from_secs(10 + ago) - Duration::from_millis(100), "{gap:?}");
    }
}

#[test]
fn r03_silence_is_a_loss_and_its_end_is_a_gap_without_channels_if_nothing_is_missing() {
    let mut script = Script::open();
    script.wait(29);
    assert_eq!(script.silent(None), [] as [&str; 0]);
    // A claim alone is no sign of a leader.
    assert_eq!(script.receive(at(6, 0), EntryContent::Claim { relay: "x".into() }), [] as [&str; 0]);
    script.wait(1);
    assert_begins(&script.silent(Some(at(6, 0))), &["disconnected: stream \"shop\": no entry for 30s"]);
    assert!(script.feed.deadline() == script.now.0 + SILENCE, "the end is compared again later");
    script.wait(1);
    assert_eq!(script.silent(None), [] as [&str; 0]);
    let found = script.receive(at(6, 1), start(Some(at(5, 9)), &["a", "b"]));
    assert_begins(&found, &["gap [] 1: stream \"shop\": no entry for 30s"]);
    assert!(found[0].ends_with("; a b"), "{found:?}");
    assert_eq!(script.receive(at(6, 2), batch("2")), ["2; a b"]);

    // What is missing is one gap.
    script.wait(30);
    assert_begins(&script.silent(Some(at(6, 2))), &["disconnected"]);
    assert_begins(&script.receive(at(6, 4), batch("4")), &["gap [a b] 2: stream \"shop\": the stream continues", "4"]);
}

#[test]
fn r03_the_silence_is_that_of_the_leader_unless_the_reader_has_another_one() {
    let seconds = Duration::from_secs;
    let slow_canary = |silence_ms| EntryContent::Canary {
        marker: "a 1".into(),
        sent: EngineTime::default(),
        channels: names(&["a"]),
        silence_ms,
    };
    let of_leader = || {
        let mut script = Script::new();
        script.feed.set_silence(FeedSilence::OfLeader(seconds(20)));
        script
    };
    // Before a leader is known; by the entry with which the reader begins; by a later one; and by a start.
    let mut script = of_leader();
    assert_eq!(script.feed.deadline(), script.now.0 + seconds(20));
    assert_eq!(script.begin(&[(at(5, 9), slow_canary(65_000))]), ["opened; a"]);
    assert_eq!(script.feed.deadline(), script.now.0 + seconds(65));
    script.wait(64);
    assert_eq!(script.silent(None), [] as [&str; 0]);
    assert_eq!(script.receive(at(5, 10), slow_canary(3_000)), ["canary; a"]);
    assert_eq!(script.feed.deadline(), script.now.0 + seconds(3));
    script.wait(3);
    assert_begins(&script.silent(Some(at(5, 10))), &["disconnected: stream \"shop\": no entry for 3s"]);
    script.receive(at(6, 1), start(Some(at(5, 10)), &["a"]));
    assert_eq!(script.feed.deadline(), script.now.0 + seconds(20));
    // A time that no clock reaches, and a reader's own.
    script.receive(at(6, 2), slow_canary(u64::MAX));
    assert!(script.feed.deadline() > script.now.0 + seconds(1_000_000));
    let mut script = Script::open();
    script.receive(at(5, 10), slow_canary(1_000));
    assert_eq!(script.feed.deadline(), script.now.0 + SILENCE);
}

#[test]
fn r03_a_stream_that_ends_before_the_position_begins_again_with_a_gap() {
    for (top, end, next, continues) in [
        (None, vec![], at(2, 1), start(None, &["a", "c"])),
        (None, vec![], at(2, 1), start(Some(at(1, 7)), &["a", "c"])),
        (Some(at(5, 8)), vec![(at(5, 8), batch("8")), (at(5, 7), canary(&["a"]))], at(5, 9), canary(&["a", "c"])),
        (Some(at(4, 2)), vec![(at(4, 2), canary(&["a", "c"]))], at(4, 3), canary(&["a", "c"])),
    ] {
        let mut script = Script::open();
        script.wait(30);
        assert_begins(&script.silent(top), &["disconnected"]);
        assert!(script.feed.must_begin(), "{top:?}");
        assert_eq!(script.begin(&end), [] as [&str; 0]);
        assert!(script.feed.cursor() < at(5, 9));
        script.wait(1);
        let found = script.receive(next, continues);
        assert_begins(&found[..2], &["gap [a b c] 1: stream \"shop\": the stream ", "unlistened [b]; a c"]);
        assert!(found[0].contains("lost") && found[0].contains("5-9"), "{found:?}");
        assert_eq!(script.receive(next.next().unwrap(), batch("x")), ["x; a c"]);
    }
    // A top that is not below it, and claims that are gone, change nothing.
    let mut script = Script::open();
    script.receive(at(9, 0), EntryContent::Claim { relay: "x".into() });
    script.wait(30);
    assert_begins(&script.silent(Some(at(5, 9))), &["disconnected"]);
    assert!(!script.feed.must_begin() && script.feed.cursor() == at(5, 9));
    assert_begins(&script.receive(at(5, 10), batch("10")), &["gap [] 1", "10; a b"]);
}

#[test]
fn r06_an_engine_that_is_away_is_a_loss_only_after_the_silence() {
    let error = Error::Relay("engine: refused".into());
    let fail = |script: &mut Script| {
        let mut out = Vec::new();
        script.feed.fail(&error, script.now, &mut out);
        shown(out)
    };
    let mut script = Script::open();
    script.wait(29);
    assert_eq!(fail(&mut script), [] as [&str; 0]);
    script.wait(1);
    assert_eq!(fail(&mut script), ["disconnected: engine: refused; closed"]);
    assert_eq!(fail(&mut script), [] as [&str; 0], "it is reported once");
    assert_eq!(script.receive(at(5, 10), batch("10")), ["gap [] 1: engine: refused; a b", "10; a b"]);
    // The first attempt is reported, because nothing else follows it.
    let mut script = Script::new();
    assert_eq!(fail(&mut script), ["disconnected: engine: refused; closed"]);
    assert_eq!(script.begin(&[(at(5, 9), canary(&["a"]))]), ["opened; a"]);
}

#[test]
fn r06_a_stream_without_a_relay_is_reported_immediately_and_once() {
    let mut script = Script::new();
    let found = script.begin(&[]);
    assert_begins(&found, &["disconnected: stream \"shop\": the engine has no entry of a relay at \"notifyman:shop\""]);
    script.wait(30);
    assert_eq!(script.silent(None), [] as [&str; 0]);
    assert_eq!(script.receive(at(5, 1), start(None, &["a"])), ["opened; a"]);
}

#[test]
fn r02_an_entry_that_cannot_be_read_ends_the_stream() {
    let mut script = Script::open();
    let mut out = Vec::new();
    let fields = [("v", "2"), ("k", "batch")];
    script.feed.receive((at(5, 10), &fields), script.now, |_| None, &mut out);
    assert_begins(&shown(out), &["lost: stream \"shop\": the entry 5-10 has the format \"2\""]);
    assert!(script.feed.is_lost());
}

#[test]
fn r03_channels_that_are_added_are_in_a_gap() {
    let mut script = Script::open();
    let found = script.receive(at(6, 1), start(Some(at(5, 9)), &["a", "b", "c"]));
    assert_begins(&found, &["gap [c] 1: stream \"shop\": the relay has added channels"]);
    assert!(found[0].ends_with("; a b c"), "{found:?}");
}
