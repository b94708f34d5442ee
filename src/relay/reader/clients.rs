//! Readers in other languages follow what this crate writes, and report the same gaps.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::RelayReader;
use crate::manager::Event;
use crate::notification::{Batch, Notification};
use crate::relay::engine_time::EngineTime;
use crate::relay::entry::{EntryContent, StreamEntry, StreamOrigin};
use crate::relay::position::StreamPosition;
use crate::relay::redis::tests::{EngineKind, EngineServer, not_run};
use crate::relay::redis::{EngineConfig, RedisSink};
use crate::relay::sink::Sink as _;

const LIMIT: Duration = Duration::from_secs(60);
/// The silence that the leader writes, in seconds.
const SILENCE: u64 = 1;

/// A reader that writes `CHANNEL:PAYLOAD`, `gap` and `silent`.
struct Client {
    name: &'static str,
    process: Option<Child>,
    lines: Receiver<String>,
    found: Vec<String>,
}

impl Client {
    fn run(name: &'static str, command: &mut Command) -> Self {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { name, process: Some(process), lines, found: Vec::new() }
    }

    /// Starts a reader of this crate.
    fn of_this_crate(url: &str) -> Self {
        let (sender, lines) = channel();
        let reader = RelayReader::builder([url]).unwrap().stream("shop").build();
        let mut reader = reader.unwrap();
        thread::spawn(move || {
            while let Some(event) = reader.next_event() {
                let found: Vec<String> = match event {
                    Event::Notifies(_, batch) => {
                        batch.iter().map(|n| format!("{}:{}", n.channel(), n.payload())).collect()
                    }
                    Event::Restored(_, gap) if !gap.channels().is_empty() => vec!["gap".into()],
                    Event::Disconnected(..) => vec!["silent".into()],
                    _ => Vec::new(),
                };
                if found.into_iter().try_for_each(|line| sender.send(line)).is_err() {
                    return;
                }
            }
        });
        Self { name: "this crate", process: None, lines, found: Vec::new() }
    }

    /// Reads until a line, which must come; a line that repeats the last one is skipped.
    fn read_until(&mut self, last: &str) {
        let begin = Instant::now();
        loop {
            let left = LIMIT.saturating_sub(begin.elapsed());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("{}: no {last:?} after {:?}", self.name, self.found));
            let is_last = line == last;
            if self.found.last() != Some(&line) {
                self.found.push(line);
            }
            if is_last {
                return;
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Returns the directory `target`, where `tests/tools` puts clients.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from)
}

/// Returns the reader of the page `relay` in a language.
fn code_of_page(language: &str) -> &'static str {
    let page = include_str!("../../docs/relay.md");
    page.split_once(&format!("```{language}\n")).unwrap().1.split_once("```").unwrap().0
}

/// Returns a process that prints what the reader in Python yields.
fn python(port: u16) -> Option<Client> {
    let modules = target().join("python");
    let has_client = Command::new("python3").args(["-c", "import redis"]).env("PYTHONPATH", &modules).output();
    if !has_client.is_ok_and(|output| output.status.success()) {
        not_run("redis-py is missing");
        return None;
    }
    let code = code_of_page("python");
    let show = format!(
        "for item in follow(redis.Redis(port={port}, protocol=2, socket_timeout=60), 'notifyman:shop'):\n    \
         if item[0] in ('open', 'again'): continue\n    \
         line = item[0] if isinstance(item[0], str) else (item[0] + b':' + item[1]).decode()\n    \
         print(line, flush=True)\n"
    );
    let program = format!("{code}\n{show}");
    Some(Client::run("redis-py", Command::new("python3").args(["-c", &program]).env("PYTHONPATH", &modules)))
}

/// Likewise, in JavaScript.
fn javascript(port: u16) -> Option<Client> {
    let modules = target().join("node/node_modules");
    if !modules.join("ioredis").exists() || Command::new("node").arg("--version").output().is_err() {
        not_run("ioredis is missing");
        return None;
    }
    let show = format!(
        "const Redis = require('ioredis');
        const client = new Redis({port}, {{ maxRetriesPerRequest: 0, commandTimeout: 60_000 }}).on('error', () => {{}});
        (async () => {{
            for await (const it of follow(client, 'notifyman:shop')) {{
                if (!it.open) console.log(it.gap ? 'gap' : it.silent ? 'silent' : `${{it.channel}}:${{it.payload}}`);
            }}
        }})();"
    );
    let program = format!("{}\n{show}", code_of_page("js"));
    Some(Client::run("ioredis", Command::new("node").args(["-e", &program]).env("NODE_PATH", modules)))
}

/// The leader of a stream.
struct Leader {
    sink: RedisSink,
    at: StreamPosition,
}

impl Leader {
    fn append(&mut self, content: EntryContent) {
        let entry = StreamEntry { origin: StreamOrigin { system: 7, timeline: 1, database: 5 }, content };
        self.sink.append(&[(self.at, entry)]).unwrap();
        self.at = self.at.next().unwrap();
    }

    fn start(&mut self, term: u64, continues: Option<StreamPosition>) {
        self.start_with(term, continues, &["a", "b"]);
    }

    fn start_with(&mut self, term: u64, continues: Option<StreamPosition>, channels: &[&str]) {
        self.at = StreamPosition::claim_of(term);
        self.append(EntryContent::Claim { relay: "test".into() });
        let channels = channels.iter().map(|channel| (*channel).into()).collect();
        self.append(EntryContent::Start { continues, channels, silence_ms: SILENCE * 1000 });
    }

    /// Returns the place of the last entry.
    fn last(&self) -> StreamPosition {
        StreamPosition { sequence: self.at.sequence - 1, ..self.at }
    }

    fn notify(&mut self, notifications: &[(&str, &str)]) {
        let notifications = notifications.iter().map(|(channel, payload)| Notification::new(*channel, *payload, 9));
        self.append(EntryContent::Notifications(Batch::from_iter(notifications)));
    }
}

#[test]
fn r03_readers_in_other_languages_report_the_same_gaps() {
    if EngineKind::Redis.find().is_err() {
        return not_run("`redis-server` is missing");
    }
    let mut engine = EngineServer::create(EngineKind::Redis, Vec::new()).unwrap();
    engine.launch_on_free_port().unwrap();
    let mut leader = Leader {
        sink: RedisSink::new(EngineConfig::new([engine.url()]).unwrap(), "shop", 1000, Arc::default()),
        at: StreamPosition::claim_of(5),
    };
    leader.start(5, None);
    let mut clients = vec![Client::of_this_crate(&engine.url())];
    clients.extend(python(engine.port).into_iter().chain(javascript(engine.port)));

    // They begin at the end, so each must have received something first.
    for (number, client) in clients.iter_mut().enumerate() {
        let begin = Instant::now();
        while client.lines.recv_timeout(Duration::from_millis(50)).is_err() {
            assert!(begin.elapsed() < LIMIT, "{} does not begin", client.name);
            leader.notify(&[("a", &format!("begin {number}"))]);
        }
    }
    leader.notify(&[("a", "0")]);
    for client in &mut clients {
        client.read_until("a:0");
        client.found.clear();
    }

    leader.notify(&[("a", "1"), ("b", "é"), ("a", "")]);
    leader.append(EntryContent::Canary {
        marker: "x 1".into(),
        sent: EngineTime::default(),
        channels: vec!["a".into(), "b".into()],
        silence_ms: SILENCE * 1000,
    });
    // Entries that were trimmed or lost.
    leader.at.sequence += 5;
    leader.notify(&[("a", "2")]);
    // A claim without a start, and a new leader that continues.
    let last = leader.last();
    leader.at = StreamPosition::claim_of(6);
    leader.append(EntryContent::Claim { relay: "test".into() });
    leader.start(7, Some(last));
    leader.notify(&[("b", "3")]);
    // Leaders that do not continue, or continue another entry.
    leader.start(8, None);
    leader.notify(&[("a", "4")]);
    leader.start(9, Some(last));
    leader.notify(&[("a", "5")]);
    leader.append(EntryContent::Gap {
        channels: vec!["a".into()],
        cause: "restarted".into(),
        since_unix_ms: 1,
        until_unix_ms: 2,
    });
    leader.notify(&[("a", "6")]);
    // A leader that does not relay a channel, and one that relays it again.
    leader.start_with(10, Some(leader.last()), &["a"]);
    leader.notify(&[("a", "less")]);
    leader.start_with(11, Some(leader.last()), &["a", "b"]);
    leader.notify(&[("a", "more")]);
    clients.iter_mut().for_each(|client| client.read_until("silent"));
    // The silence was no loss.
    leader.notify(&[("a", "7")]);
    clients.iter_mut().for_each(|client| client.read_until("a:7"));

    // The stream is deleted, and the clock of the next leader is behind: a read after the position would wait for ever.
    leader.sink.delete();
    clients.iter_mut().for_each(|client| client.read_until("silent"));
    leader.start(4, None);
    leader.notify(&[("a", "8")]);
    // The readers begin again before or behind it.
    thread::sleep(Duration::from_secs(SILENCE) / 2);
    leader.notify(&[("a", "9")]);
    let expected = [
        ["a:1", "b:é", "a:", "gap", "a:2", "b:3", "gap", "a:4"],
        ["gap", "a:5", "gap", "a:6", "a:less", "gap", "a:more", "silent"],
    ];
    let expected: Vec<_> = expected.concat().into_iter().chain(["a:7"]).collect();
    for client in &mut clients {
        client.read_until("a:9");
        client.found.retain(|line| line != "a:8");
        assert_eq!(client.found[..expected.len()], expected, "{}", client.name);
        assert_eq!(client.found[expected.len()..], ["silent", "gap", "a:9"], "{}", client.name);
    }

    // The engine is away, and has lost everything once it is back.
    engine.stop_with("KILL").unwrap();
    clients.iter_mut().for_each(|client| client.read_until("silent"));
    engine.launch().unwrap();
    let begin = Instant::now();
    while leader.sink.top().is_err() {
        assert!(begin.elapsed() < LIMIT, "the leader does not reconnect");
    }
    clients.iter_mut().for_each(|client| client.found.clear());
    leader.start(10, None);
    for client in &mut clients {
        let begin = Instant::now();
        while !client.found.iter().any(|line| line.starts_with("a:")) {
            assert!(begin.elapsed() < LIMIT, "{} does not continue", client.name);
            leader.notify(&[("a", "10")]);
            client.found.extend(client.lines.recv_timeout(Duration::from_millis(50)));
        }
        assert!(client.found.contains(&"gap".to_owned()), "{}: {:?}", client.name, client.found);
    }
}
