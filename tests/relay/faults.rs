//! Streams that lose entries, and new leaders.

use std::thread;

use notifyman::Event;

use super::support::{SILENCE, StreamWriter, expect, frame, next, open, settings, until, with_engines};

#[test]
fn r03_a_reader_receives_what_is_appended_in_order_from_the_end_on() {
    with_engines(&[], |engine| {
        let writer = StreamWriter::start(&engine, "shop", 5);
        writer.batch(&engine, &["earlier"]);
        let mut reader = open(settings(&engine));
        let id = reader.streams().next().unwrap();
        assert_eq!((id.label(), reader.channels(id).unwrap().join(" ").as_str()), (Some("shop"), "a b"));
        writer.batch(&engine, &["1", "2"]);
        writer.canary(&engine, 1);
        let bytes = [frame("a", b"\xff\x00"), frame("b", b"")].concat();
        writer.batch(&engine, &["3"]);
        expect(&mut reader, &["1 2", "3"]);
        writer.add(&engine, &[("k", b"batch"), ("n", &bytes), ("later", b"is ignored")]);
        let Some(Event::Notifies(_, batch)) = reader.next_event() else { panic!() };
        let found: Vec<_> = batch.iter().map(|n| (n.channel().into_owned(), n.payload_bytes(), n.pid())).collect();
        assert_eq!(found, [("a".to_owned(), &b"\xff\x00"[..], 1), ("b".to_owned(), b"", 1)]);
    });
}

#[test]
fn r03_a_new_leader_is_followed_with_a_gap_unless_it_continues_exactly_here() {
    with_engines(&[], |engine| {
        let first = StreamWriter::start(&engine, "shop", 5);
        let mut reader = open(settings(&engine));
        first.batch(&engine, &["1"]);
        // A claim without a start.
        engine.ask("XADD notifyman:shop 6-0 v 1 k claim s 7 t 1 d 5 r x");
        let second = StreamWriter::continue_after(&engine, &first, 7);
        second.batch(&engine, &["2"]);
        expect(&mut reader, &["1", "2"]);
        let third = StreamWriter::start(&engine, "shop", 8);
        third.batch(&engine, &["3"]);
        expect(&mut reader, &["gap [a b]: stream \"shop\": the leader that started with the entry 8-1 could not", "3"]);
        let fourth = StreamWriter::continue_after(&engine, &second, 9);
        fourth.batch(&engine, &["4"]);
        expect(&mut reader, &["gap [a b]: stream \"shop\": a new leader continues after the entry 7-2", "4"]);
        fourth.set_next(9);
        fourth.batch(&engine, &["5"]);
        expect(&mut reader, &["gap [a b]: stream \"shop\": the stream continues after the entry 9-2 with 9-9", "5"]);
        let gap: [(&str, &[u8]); 5] = [("k", b"gap"), ("c", b"b"), ("e", b"restarted"), ("a", b"1"), ("b", b"2")];
        fourth.add(&engine, &gap);
        expect(&mut reader, &["gap [b]: stream \"shop\": restarted"]);
        let fifth = StreamWriter::claim(&engine, &fourth.key, 10);
        fifth.add(&engine, &[("k", b"start"), ("c", b"b\0c"), ("w", b"20000"), ("p", b"9-10")]);
        expect(&mut reader, &["gap [c]: stream \"shop\": the relay has added channels", "unlistened [a]"]);
    });
}

#[test]
fn r03_an_engine_that_has_forgotten_the_stream_is_a_gap_when_a_leader_is_back() {
    with_engines(&[], |mut engine| {
        for fault in ["DEL", "FLUSHALL", "restart"] {
            let first = StreamWriter::start(&engine, "shop", 5);
            let mut reader = open(settings(&engine).silence(SILENCE));
            first.batch(&engine, &["1"]);
            expect(&mut reader, &["1"]);
            match fault {
                "restart" => {
                    engine.kill();
                    engine.restart();
                }
                "DEL" => drop(engine.ask("DEL notifyman:shop")),
                fault => drop(engine.ask(fault)),
            }
            expect(&mut reader, &["disconnected: stream \"shop\": no entry for"]);
            // The clock of the new leader is behind: a read after the position would wait for ever.
            let second = StreamWriter::start(&engine, "shop", 4);
            second.batch(&engine, &["2"]);
            // The reader begins again before or behind it.
            thread::sleep(SILENCE / 2);
            second.batch(&engine, &["3"]);
            let found = next(&mut reader);
            assert!(found.starts_with("gap [a b]: stream \"shop\": the stream "), "{fault}: {found}");
            let followed: Vec<_> = until(&mut reader, "3").into_iter().map(|(_, payload)| payload).collect();
            assert!(
                ["2", "3"].ends_with(&followed.iter().map(String::as_str).collect::<Vec<_>>()),
                "{fault}: {followed:?}"
            );
            engine.ask("FLUSHALL");
        }
    });
}

#[test]
fn r03_the_same_leader_continues_after_a_restart_without_data_and_nothing_is_missing() {
    with_engines(&[], |mut engine| {
        let writer = StreamWriter::start(&engine, "shop", 5);
        let mut reader = open(settings(&engine));
        writer.batch(&engine, &["1"]);
        expect(&mut reader, &["1"]);
        engine.kill();
        engine.restart();
        writer.batch(&engine, &["2"]);
        writer.batch(&engine, &["3"]);
        expect(&mut reader, &["2", "3"]);
        // The reader was behind.
        engine.kill();
        engine.restart();
        writer.set_next(9);
        writer.batch(&engine, &["4"]);
        expect(&mut reader, &["gap [a b]: stream \"shop\": the stream continues after the entry 5-4 with 5-9", "4"]);
    });
}

#[test]
fn r03_an_engine_with_an_old_snapshot_is_a_gap() {
    with_engines(&[], |mut engine| {
        let first = StreamWriter::start(&engine, "shop", 5);
        let mut reader = open(settings(&engine).silence(SILENCE));
        first.batch(&engine, &["1"]);
        engine.ask("SAVE");
        first.batch(&engine, &["2"]);
        expect(&mut reader, &["1", "2"]);
        engine.kill();
        engine.restart();
        expect(&mut reader, &["disconnected: stream \"shop\": no entry for"]);
        // A new leader continues the snapshot.
        first.set_next(3);
        let second = StreamWriter::continue_after(&engine, &first, 6);
        second.batch(&engine, &["3"]);
        // The reader compares the end of the stream before or after that.
        expect(&mut reader, &["gap [a b]: stream \"shop\": ", "3"]);
    });
}

#[test]
fn r03_a_replica_without_the_last_entries_that_is_promoted_is_a_gap() {
    with_engines(&[], |mut master| {
        let kind = if master.log().contains("Valkey") {
            crate::support::EngineKind::Valkey
        } else {
            crate::support::EngineKind::Redis
        };
        let first = StreamWriter::start(&master, "shop", 5);
        let replica = master.start_replica(kind);
        let reader = notifyman::relay::RelayReader::builder([master.url(), replica.url()]).unwrap();
        let mut reader = open(reader.stream("shop").timeout(crate::support::server::LIMIT));
        first.batch(&master, &["1"]);
        expect(&mut reader, &["1"]);
        crate::support::server::eventually("the replica has it", || {
            replica.ask("XLEN notifyman:shop") == master.ask("XLEN notifyman:shop")
        });
        // Acknowledged by the master, and lost.
        replica.ask(&format!("REPLICAOF 127.0.0.1 {}", crate::support::server::refusing_port()));
        first.batch(&master, &["2"]);
        expect(&mut reader, &["2"]);
        master.kill();
        replica.ask("REPLICAOF NO ONE");
        assert_eq!(replica.ask("XREVRANGE notifyman:shop + - COUNT 1").lines().next(), Some("5-2"));
        first.set_next(3);
        let second = StreamWriter::continue_after(&replica, &first, 6);
        second.batch(&replica, &["3"]);
        expect(&mut reader, &["gap [a b]: stream \"shop\": a new leader continues after the entry 5-2", "3"]);
    });
}
