//! Engines that cannot be reached, or are slow; and the ends of readers.

use std::thread;
use std::time::{Duration, Instant};

use notifyman::Event;
use notifyman::relay::RelayReader;

use super::support::{SILENCE, StreamWriter, expect, next, open, redis, settings, until, with_engines};
use crate::support::server::{LIMIT, eventually, refusing_port};
use crate::support::{EngineKind, Proxy};

#[test]
fn r06_a_paused_engine_is_a_loss_after_the_silence_and_nothing_is_missing() {
    with_engines(&[], |engine| {
        let writer = StreamWriter::start(&engine, "shop", 5);
        // The read that waits for entries does not take this long.
        let mut reader = open(settings(&engine).silence(SILENCE).call_timeout(LIMIT));
        engine.pause();
        let begin = Instant::now();
        expect(&mut reader, &["disconnected: "]);
        assert!(begin.elapsed() < LIMIT / 3, "{:?}", begin.elapsed());
        engine.resume();
        writer.batch(&engine, &["1"]);
        expect(&mut reader, &["gap []: ", "1"]);
    });
}

#[test]
fn r06_an_engine_that_restarts_within_the_silence_is_no_loss() {
    with_engines(&["appendonly yes", "appendfsync always"], |mut engine| {
        let writer = StreamWriter::start(&engine, "shop", 5);
        let mut reader = open(settings(&engine));
        for round in ["1", "2", "3"] {
            engine.kill();
            engine.restart();
            writer.batch(&engine, &[round]);
            expect(&mut reader, &[round]);
        }
    });
}

#[test]
fn r06_the_first_attempt_that_fails_is_reported_and_repeated() {
    with_engines(&[], |mut engine| {
        engine.kill();
        let mut reader = settings(&engine).silence(SILENCE).build().unwrap();
        expect(&mut reader, &["disconnected: redis://127.0.0.1:"]);
        engine.restart();
        let writer = StreamWriter::start(&engine, "shop", 5);
        expect(&mut reader, &["opened"]);
        writer.batch(&engine, &["1"]);
        expect(&mut reader, &["1"]);
    });
}

#[test]
fn r06_a_half_open_connection_is_replaced_within_the_silence_and_the_time_limit() {
    let Some(engine) = redis(&[]) else { return };
    let writer = StreamWriter::start(&engine, "shop", 5);
    let through = Proxy::start(([127, 0, 0, 1], engine.port).into());
    let reader = RelayReader::builder([format!("redis://{}", through.addr())]).unwrap().stream("shop").timeout(LIMIT);
    let mut reader = open(reader.silence(SILENCE).call_timeout(Duration::from_millis(300)));
    through.black_hole();
    let begin = Instant::now();
    expect(&mut reader, &["disconnected: "]);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    through.resume();
    writer.batch(&engine, &["1"]);
    expect(&mut reader, &["gap []", "1"]);
}

#[test]
fn r06_a_stopped_reader_continues_and_a_started_one_begins_again() {
    with_engines(&[], |engine| {
        let writer = StreamWriter::start(&engine, "shop", 5);
        let mut reader = settings(&engine).build().unwrap();
        let handle = reader.handle();
        handle.stop();
        expect(&mut reader, &["opened"]);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(50));
                handle.stop();
            });
            expect(&mut reader, &["end"]);
        });
        handle.stop();
        writer.batch(&engine, &["1"]);
        expect(&mut reader, &["1"]);
        writer.batch(&engine, &["2"]);
        handle.stop();
        expect(&mut reader, &["end", "2"]);
        writer.batch(&engine, &["3"]);
        reader.start().unwrap();
        expect(&mut reader, &["opened"]);
        writer.batch(&engine, &["4"]);
        expect(&mut reader, &["4"]);
        // One connection, which ends with the reader.
        let connections = || engine.ask("CLIENT LIST").matches("name=notifyman").count();
        eventually("the first connection has ended", || connections() == 1);
        drop(reader);
        eventually("it has ended", || connections() == 0);
    });
}

#[test]
fn r06_idle_events_come_about_every_timeout_also_under_load_and_zero_does_not_wait() {
    let Some(engine) = redis(&[]) else { return };
    let writer = StreamWriter::start(&engine, "shop", 5);
    let mut reader = open(settings(&engine));
    reader.set_timeout(Duration::from_millis(100));
    let begin = Instant::now();
    for _ in 0..3 {
        assert!(matches!(reader.next_event(), Some(Event::Idle)));
    }
    let lasted = begin.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(3)).contains(&lasted), "{lasted:?}");

    let (mut idle, mut received) = (0, 0);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            for _ in 0..300 {
                writer.batch(&engine, &["x"]);
                thread::sleep(Duration::from_millis(3));
            }
        });
        while !load.is_finished() || received < 300 {
            match reader.next_event() {
                Some(Event::Idle) => idle += 1,
                Some(Event::Notifies(_, batch)) => {
                    received += batch.len();
                    thread::sleep(Duration::from_millis(1));
                }
                other => panic!("{other:?}"),
            }
        }
    });
    assert!(idle >= 3, "{idle}");

    reader.set_timeout(Duration::ZERO);
    assert!(reader.next_event().is_none());
    writer.batch(&engine, &["1"]);
    eventually("it is received", || matches!(reader.next_event(), Some(Event::Notifies(..))));
    assert!(reader.next_event().is_none());
    // As an iterator: batches, and `None` when idle.
    writer.batch(&engine, &["2"]);
    reader.set_timeout(Duration::from_secs(1));
    let (_, batch) = reader.next().unwrap().unwrap();
    assert_eq!(batch.iter().next().unwrap().payload(), "2");
    assert!(reader.next().unwrap().is_none());
    writer.set_next(999);
    writer.batch(&engine, &["3"]);
    let (_, batch) = reader.find_map(|item| item).unwrap();
    assert!(batch.is_empty() && batch.gap().is_some_and(|gap| gap.channels().len() == 2), "{batch:?}");
}

#[test]
fn r06_an_unreachable_server_does_not_hide_the_master_behind_it() {
    with_engines(&[], |engine| {
        let writer = StreamWriter::start(&engine, "shop", 5);
        let dead = format!("redis://127.0.0.1:{}", refusing_port());
        let reader = RelayReader::builder([dead, engine.url()]).unwrap().stream("shop").timeout(LIMIT);
        let mut reader = open(reader);
        writer.batch(&engine, &["1"]);
        assert_eq!(next(&mut reader), "1");
    });
}

#[test]
fn r06_a_reader_whose_queue_was_full_leaves_a_server_that_was_demoted() {
    let Some(first) = redis(&[]) else { return };
    let second = first.start_replica(EngineKind::Redis);
    let writer = StreamWriter::start(&first, "shop", 5);
    let reader = RelayReader::builder([first.url(), second.url()]).unwrap().stream("shop").timeout(LIMIT);
    let mut reader = open(reader.silence(SILENCE));
    // The queue takes 16 MiB. A read that waits would be ended by the server.
    let large = "x".repeat(7_000);
    (0..24).for_each(|_| writer.batch(&first, &[large.as_str(); 150]));
    let length = first.ask("XLEN notifyman:shop");
    eventually("the replica has all", || second.ask("XLEN notifyman:shop") == length);
    second.ask("REPLICAOF NO ONE");
    first.ask(&format!("REPLICAOF 127.0.0.1 {}", refusing_port()));
    writer.batch(&second, &["1"]);
    let gaps = until(&mut reader, "1").iter().filter(|(_, found)| found.starts_with("gap [a")).count();
    assert_eq!(gaps, 0);
}
