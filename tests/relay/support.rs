//! Streams that are written by hand, as the page `relay` documents them, and readers of them.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use notifyman::relay::{RelayReader, RelayReaderBuilder};
use notifyman::{ConnId, Event};

use crate::support::server::LIMIT;
use crate::support::{EngineKind, EngineServer, engine};

/// The silence after which readers report a loss, if a test waits for that.
pub const SILENCE: Duration = Duration::from_millis(800);

/// Starts a server of each kind that this machine has, and runs a test with it.
pub fn with_engines(settings: &[&str], test: impl Fn(EngineServer)) {
    for kind in engine::kinds() {
        test(EngineServer::start(kind, settings.iter().copied()));
    }
}

/// Starts a server, for a test that needs only one kind; `None` if there is none, which is reported.
pub fn redis(settings: &[&str]) -> Option<EngineServer> {
    engine::has(EngineKind::Redis).then(|| EngineServer::start(EngineKind::Redis, settings.iter().copied()))
}

/// A writer of one stream, in the place of a leader.
pub struct StreamWriter {
    pub key: String,
    pub term: u64,
    /// The sequence number of the next entry.
    next: AtomicU64,
}

impl StreamWriter {
    /// Starts a term that begins with a gap, and carries the channels a and b.
    pub fn start(engine: &EngineServer, name: &str, term: u64) -> Self {
        let writer = Self::claim(engine, &format!("notifyman:{name}"), term);
        writer.add(engine, &[("k", b"start"), ("c", b"a\0b"), ("w", b"20000")]);
        writer
    }

    /// Starts a term that continues after the last entry of another writer.
    pub fn continue_after(engine: &EngineServer, other: &Self, term: u64) -> Self {
        let writer = Self::claim(engine, &other.key, term);
        let last = format!("{}-{}", other.term, other.next() - 1);
        writer.add(engine, &[("k", b"start"), ("c", b"a\0b"), ("w", b"20000"), ("p", last.as_bytes())]);
        writer
    }

    /// Returns the sequence number of the next entry.
    pub fn next(&self) -> u64 {
        self.next.load(SeqCst)
    }

    /// Continues with this sequence number.
    pub fn set_next(&self, sequence: u64) {
        self.next.store(sequence, SeqCst);
    }

    /// Claims a term of the same stream, without a start.
    pub fn claim(engine: &EngineServer, key: &str, term: u64) -> Self {
        let writer = Self { key: key.into(), term, next: AtomicU64::new(0) };
        writer.add(engine, &[("k", b"claim"), ("r", b"test")]);
        writer
    }

    /// Appends an entry with these fields and those that all have, which must succeed.
    pub fn add(&self, engine: &EngineServer, fields: &[(&str, &[u8])]) {
        let answer = engine.ask_bytes(&self.command(fields).iter().map(Vec::as_slice).collect::<Vec<_>>());
        assert_eq!(answer, format!("{}-{}", self.term, self.next() - 1));
    }

    /// Returns the command that appends the next entry.
    pub fn command(&self, fields: &[(&str, &[u8])]) -> Vec<Vec<u8>> {
        let id = format!("{}-{}", self.term, self.next.fetch_add(1, SeqCst));
        let mut words: Vec<Vec<u8>> = ["XADD", &self.key, &id].map(|word| word.as_bytes().to_vec()).into();
        for (name, value) in [("v", b"1" as &[u8]), ("s", b"7"), ("t", b"1"), ("d", b"5")].iter().chain(fields) {
            words.extend([name.as_bytes().to_vec(), value.to_vec()]);
        }
        words
    }

    /// Appends a batch with a notification on the channel a for each payload.
    pub fn batch(&self, engine: &EngineServer, payloads: &[&str]) {
        let frames: Vec<u8> = payloads.iter().flat_map(|payload| frame("a", payload.as_bytes())).collect();
        self.add(engine, &[("k", b"batch"), ("n", &frames)]);
    }

    /// Appends a canary that was sent at this time of the engine's clock.
    pub fn canary(&self, engine: &EngineServer, unix_ms: u64) {
        let marker = format!("test {}", self.next());
        let (sent, info) = (unix_ms.to_string(), engine.ask("INFO server"));
        let clock = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap().trim();
        let fields = [
            ("m", marker.as_bytes()),
            ("u", sent.as_bytes()),
            ("g", clock.as_bytes()),
            ("c", b"a\0b"),
            ("w", b"20000"),
        ];
        self.add(engine, &[&[("k", &b"canary"[..])], &fields[..]].concat());
    }
}

/// Returns a message NotificationResponse.
pub fn frame(channel: &str, payload: &[u8]) -> Vec<u8> {
    let mut rest = 1_i32.to_be_bytes().to_vec();
    for text in [channel.as_bytes(), payload] {
        rest.extend_from_slice(text);
        rest.push(0);
    }
    let length = u32::try_from(rest.len() + 4).unwrap().to_be_bytes();
    [b"A".as_slice(), &length, &rest].concat()
}

/// Returns the settings of a reader of the stream `shop`, which waits at most [`LIMIT`] for an event.
pub fn settings(engine: &EngineServer) -> RelayReaderBuilder {
    RelayReader::builder([engine.url()]).unwrap().stream("shop").timeout(LIMIT)
}

/// Returns a reader of the stream `shop` that has reported [`Event::Opened`].
pub fn open(settings: RelayReaderBuilder) -> RelayReader {
    let mut reader = settings.build().unwrap();
    let event = reader.next_event();
    assert!(matches!(event, Some(Event::Opened(_))), "{event:?}");
    reader
}

/// Returns the next event as text, without the stream.
pub fn next(reader: &mut RelayReader) -> String {
    match reader.next_event() {
        Some(Event::Idle) => panic!("no event within {LIMIT:?}"),
        Some(Event::Opened(_)) => "opened".into(),
        Some(Event::Notifies(_, batch)) => batch.iter().map(|n| n.payload().into_owned()).collect::<Vec<_>>().join(" "),
        Some(Event::Disconnected(_, error)) => format!("disconnected: {error:#}"),
        Some(Event::Restored(_, gap)) => format!("gap [{}]: {:#}", gap.channels().join(" "), gap.cause()),
        Some(Event::Lost(_, error)) => format!("lost: {error:#}"),
        Some(Event::Unlistened(_, channels)) => format!("unlistened [{}]", channels.join(" ")),
        Some(Event::CanaryReceived(..)) => "canary".into(),
        None => "end".into(),
        Some(other) => panic!("{other:?}"),
    }
}

/// Receives the next events, each of which must begin with the expected text.
#[track_caller]
pub fn expect(reader: &mut RelayReader, expected: &[&str]) {
    for begin in expected {
        let found = next(reader);
        assert!(found.starts_with(begin), "{found:?} does not begin with {begin:?}");
    }
}

/// Returns the number and the payload of every notification until the one with this payload, and the channels of the gaps between.
pub fn until(reader: &mut RelayReader, last: &str) -> Vec<(ConnId, String)> {
    let mut found = Vec::new();
    let begin = Instant::now();
    while found.last().is_none_or(|(_, payload)| payload != last) {
        assert!(begin.elapsed() < LIMIT, "{last:?} did not come: {found:?}");
        match reader.next_event() {
            Some(Event::Notifies(id, batch)) => {
                found.extend(batch.iter().map(|n| (id, n.payload().into_owned())));
            }
            Some(Event::Restored(id, gap)) => found.push((id, format!("gap [{}]", gap.channels().join(" ")))),
            Some(Event::Idle | Event::Opened(_) | Event::Disconnected(..) | Event::CanaryReceived(..)) => {}
            other => panic!("{other:?} after {found:?}"),
        }
    }
    found
}
