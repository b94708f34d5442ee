//! Slow programs, many streams, idle readers, and canaries.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use notifyman::Event;
use notifyman::relay::{Relay, RelayRole};

use super::support::{StreamWriter, expect, open, redis, settings, until, with_engines};
use crate::support::server::{LIMIT, config, eventually, start};
use crate::support::{EngineKind, Options, engine, subprocess};

#[test]
fn r06_a_program_slower_than_the_stream_is_kept_has_a_gap_and_nothing_else_is_missing() {
    with_engines(&[], |engine| {
        let writer = StreamWriter::start(&engine, "shop", 5);
        let mut reader = open(settings(&engine));
        let total = 9_000;
        for number in 0..total {
            writer.batch(&engine, &[&number.to_string()]);
        }
        let trimmed = engine.ask("XTRIM notifyman:shop MAXLEN 500");
        assert!(trimmed.parse::<u32>().unwrap() > 8_000, "{trimmed}");
        let found: Vec<_> = until(&mut reader, &(total - 1).to_string()).into_iter().map(|(_, it)| it).collect();
        let gap = found.iter().position(|it| it == "gap [a b]").expect("the queue is bounded");
        assert!((4_096..=4_096 + 512).contains(&gap), "{gap} waited");
        let (before, after) = (&found[..gap], &found[gap + 1..]);
        assert!(
            before.iter().enumerate().all(|(number, it)| *it == number.to_string()),
            "in order, without duplicates"
        );
        assert_eq!(after.len(), 500);
        assert!(after.iter().enumerate().all(|(number, it)| *it == (total - 500 + number).to_string()));
    });
}

#[test]
fn r06_a_full_queue_stops_the_reading_and_nothing_is_missing_if_the_stream_keeps_it() {
    let Some(engine) = redis(&[]) else { return };
    let writer = StreamWriter::start(&engine, "shop", 5);
    let mut reader = open(settings(&engine).silence(Duration::from_millis(300)));
    let large = "x".repeat(7_000);
    // 40 MB in all.
    for number in 0..400 {
        let payloads: Vec<_> = (0..14).map(|part| format!("{number}.{part} {large}")).collect();
        writer.batch(&engine, &payloads.iter().map(String::as_str).collect::<Vec<_>>());
    }
    writer.batch(&engine, &["end"]);
    // Longer than the silence, which is no loss while entries can be read.
    thread::sleep(Duration::from_millis(700));
    let found = until(&mut reader, "end");
    assert_eq!(found.len(), 400 * 14 + 1);
    let expected = (0..400).flat_map(|number| (0..14).map(move |part| format!("{number}.{part}")));
    assert!(expected.zip(&found).all(|(expected, (_, it))| it.starts_with(&expected)));
}

#[test]
fn r03_many_streams_are_read_on_one_connection() {
    with_engines(&[], |engine| {
        let names: Vec<_> = (0..100).map(|number| format!("db {number}")).collect();
        let writers: Vec<_> = names.iter().map(|name| StreamWriter::start(&engine, name, 5)).collect();
        let builder = notifyman::relay::RelayReader::builder([engine.url()]).unwrap().timeout(LIMIT);
        let mut reader = names.iter().fold(builder, |builder, name| builder.stream(name)).build().unwrap();
        expect(&mut reader, &["opened"; 100]);
        for round in 0..3 {
            for (number, writer) in writers.iter().enumerate() {
                writer.batch(&engine, &[&format!("{round}.{number}")]);
            }
        }
        let mut seen = vec![0; 100];
        for _ in 0..300 {
            let Some(Event::Notifies(id, batch)) = reader.next_event() else { panic!() };
            let number = usize::try_from(id.number()).unwrap() - 1;
            assert_eq!(batch.iter().next().unwrap().payload(), format!("{}.{number}", seen[number]));
            seen[number] += 1;
        }
        assert_eq!(engine.ask("CLIENT LIST").matches("name=notifyman").count(), 1);
    });
}

#[test]
fn r06_two_relays_wake_up_an_idle_reader_once_in_each_period() {
    let Some(engine) = redis(&[]) else { return };
    let server = start(Options::new());
    let second = Duration::from_secs(1);
    let relays = [0, 1].map(|_| {
        let database = config(&server.url()).label("shop");
        let relay = Relay::builder(engine.url()).unwrap().canary(second, second);
        relay.database(database, ["a"]).unwrap().start().unwrap()
    });
    let has = |role: RelayRole| relays.iter().any(|relay| relay.status()[0].role == role);
    eventually("one leads", || has(RelayRole::Leader) && has(RelayRole::Candidate));
    thread::sleep(2 * second);
    let entries = || engine.ask("XLEN notifyman:shop").parse::<u64>().unwrap();
    let before = entries();
    thread::sleep(5 * second);
    let appended = entries() - before;
    assert!((4..=6).contains(&appended), "{appended} entries in five periods");
    assert!(relays.iter().all(|relay| relay.status()[0].canary_age.is_some_and(|age| age < 2 * second)));
}

/// A minute has four canaries, so one wait for each is four wake-ups a minute.
#[cfg(target_os = "linux")]
#[test]
fn r06_an_idle_reader_wakes_up_once_for_each_canary() {
    if engine::has(EngineKind::Redis) {
        subprocess::run("relay::limits::the_only_reader_of_a_process", ":", &[]);
    }
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "runs in its own process, with one reader"]
fn the_only_reader_of_a_process() {
    if !subprocess::is_subprocess() {
        return;
    }
    let engine = redis(&[]).unwrap();
    let writer = StreamWriter::start(&engine, "shop", 5);
    let mut reader = open(settings(&engine));
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let mut threads = threads.filter(|it| fs::read_to_string(it.join("comm")).unwrap().starts_with("notifyman-reade"));
    let own = threads.next().unwrap();
    assert_eq!(threads.next(), None, "a reader has one thread");
    thread::sleep(Duration::from_millis(100));
    let begin = waits(&own);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(waits(&own), begin, "nothing happens without an entry");
    for _ in 0..20 {
        writer.canary(&engine, 1);
        thread::sleep(Duration::from_millis(50));
    }
    let woken = waits(&own) - begin;
    assert!((20..=25).contains(&woken), "{woken} wake-ups for 20 canaries");
    writer.batch(&engine, &["1"]);
    expect(&mut reader, &["1"]);
}

/// Returns how often a thread has waited.
#[cfg(target_os = "linux")]
fn waits(thread: &Path) -> u64 {
    let status = fs::read_to_string(thread.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn r03_a_canary_certifies_no_more_than_the_time_at_which_it_was_sent() {
    with_engines(&[], |engine| {
        let writer = StreamWriter::start(&engine, "shop", 5);
        let mut reader = open(settings(&engine).report_canaries(true));
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(20));
            let unix_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
            let sent = Instant::now();
            // The relay is slow to append it.
            thread::sleep(Duration::from_millis(30));
            writer.canary(&engine, u64::try_from(unix_ms).unwrap());
            let Some(Event::CanaryReceived(_, certified)) = reader.next_event() else { panic!() };
            assert!(certified <= sent, "{:?} too late", certified - sent);
            assert!(sent - certified < Duration::from_millis(500), "{:?} too early", sent - certified);
        }
    });
}
