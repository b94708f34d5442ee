//! Streams and engines that cannot be read: one clear error.

use std::time::Duration;

use notifyman::relay::{Relay, RelayReader};

use super::support::{SILENCE, StreamWriter, expect, next, open, redis, settings, with_engines};
use crate::support::pki::Authority;
use crate::support::server::LIMIT;
use crate::support::{EngineServer, engine};

#[test]
fn r01_a_key_that_is_no_stream_of_a_relay_ends_the_reader() {
    with_engines(&[], |engine| {
        for (commands, error) in [
            (["SET notifyman:shop x"], "WRONGTYPE"),
            (["XADD notifyman:shop * name value"], "was not written by a relay"),
            (
                ["XADD notifyman:shop 5-2 v 2 k batch s 1 t 1 d 1"],
                "has the format \"2\", and this program reads the format 1",
            ),
            (["XADD notifyman:shop 5-2 v 1 k other s 1 t 1 d 1"], "is of the unknown kind \"other\""),
            (["XADD notifyman:shop 5-2 v 1 k batch s 1 t 1 d 1 n A"], "has no complete NotificationResponse"),
        ] {
            engine.ask_all(commands);
            let mut reader = settings(&engine).build().unwrap();
            let lost = next(&mut reader);
            assert!(lost.starts_with("lost: stream \"shop\": ") && lost.contains(error), "{lost}");
            assert_eq!((next(&mut reader), next(&mut reader)), ("end".into(), "end".into()));
            engine.ask("DEL notifyman:shop");
        }
    });
}

#[test]
fn r01_one_stream_that_becomes_unreadable_leaves_the_others() {
    with_engines(&[], |engine| {
        let names = ["shop", "b", "c", "d"];
        let writers = names.map(|name| StreamWriter::start(&engine, name, 5));
        let mut reader = names[1..].iter().fold(settings(&engine), |reader, name| reader.stream(name)).build().unwrap();
        let ids: Vec<_> = reader.streams().collect();
        assert_eq!(ids.iter().map(ToString::to_string).collect::<Vec<_>>(), names);
        expect(&mut reader, &["opened"; 4]);
        for writer in &writers {
            writer.batch(&engine, &[&writer.key]);
        }
        let mut found: Vec<_> = (0..4).map(|_| next(&mut reader)).collect();
        found.sort();
        assert_eq!(found, ["notifyman:b", "notifyman:c", "notifyman:d", "notifyman:shop"]);

        engine.ask_all(["DEL notifyman:b", "SET notifyman:b x", "XADD notifyman:c 5-3 v 9"]);
        writers[0].batch(&engine, &["1"]);
        let mut lost: Vec<_> = (0..3).map(|_| next(&mut reader)).collect();
        lost.sort();
        assert!(lost[0] == "1" && lost[1].contains("stream \"b\"") && lost[2].contains("stream \"c\""), "{lost:#?}");
        assert_eq!((reader.channels(ids[1]), reader.channels(ids[3]).map(|it| it.len())), (None, Some(2)));
        writers[3].batch(&engine, &["2"]);
        expect(&mut reader, &["2"]);
    });
}

#[test]
fn r01_a_login_is_used_and_a_wrong_one_ends_the_reader_without_showing_it() {
    with_engines(&["user app on >se%cret ~notifyman:* +@all"], |engine| {
        let writer = StreamWriter::start(&engine, "shop", 5);
        let reader = |login: &str| {
            RelayReader::builder([engine.url().replace("//", &format!("//{login}@"))])
                .unwrap()
                .stream("shop")
                .timeout(LIMIT)
        };
        let mut good = open(reader("app:se%25cret"));
        writer.batch(&engine, &["1"]);
        expect(&mut good, &["1"]);
        let mut bad = reader("app:hidden").build().unwrap();
        let lost = next(&mut bad);
        assert!(
            lost.starts_with("lost: redis://127.0.0.1:") && lost.contains("check the user and the password"),
            "{lost}"
        );
        assert!(!format!("{lost} {bad:?}").contains("hidden"), "{lost} {bad:?}");
        let mut other = reader("app:se%25cret").stream("../other");
        other = other.timeout(LIMIT);
        assert!(format!("{other:?}").contains("shop") && !format!("{other:?}").contains("cret"));
        // A missing privilege.
        engine.ask("ACL SETUSER app resetkeys ~other:*");
        let lost = next(&mut reader("app:se%25cret").build().unwrap());
        assert!(lost.starts_with("lost: redis://") && lost.contains("NOPERM") && lost.contains("grant it"), "{lost}");
    });
}

/// The page `relay` lists these.
#[test]
fn r01_the_documented_privileges_of_a_reader_suffice() {
    let page = include_str!("../../src/docs/relay.md");
    let rule = page.lines().find(|line| line.starts_with("ACL SETUSER reader")).unwrap();
    with_engines(&[], |engine| {
        let words: Vec<_> = rule.split_whitespace().map(str::as_bytes).collect();
        assert_eq!(engine.ask_bytes(&words), "OK");
        let writer = StreamWriter::start(&engine, "shop", 5);
        let url = engine.url().replace("//", "//reader:SECRET@");
        let reader = RelayReader::builder([url + "/0"]).unwrap().stream("shop").timeout(LIMIT).silence(SILENCE);
        let mut reader = open(reader.report_canaries(true));
        writer.batch(&engine, &["1"]);
        writer.canary(&engine, 4_000_000_000_000);
        expect(&mut reader, &["1", "canary", "disconnected: "]);
        writer.batch(&engine, &["2"]);
        expect(&mut reader, &["gap []", "2"]);
    });
}

#[test]
fn r01_an_encrypted_engine_is_verified() {
    let ca = Authority::new("engines");
    let identity = ca.server(&["localhost", "127.0.0.1"]);
    for kind in engine::kinds() {
        if kind == engine::EngineKind::Valkey {
            // The package has no TLS.
            continue;
        }
        let engine = EngineServer::start_with_tls(kind, &identity.certificate, &identity.key);
        let root = std::env::temp_dir().join(format!("notifyman-relay-root-{}.crt", std::process::id()));
        std::fs::write(&root, ca.pem()).unwrap();
        let writer = StreamWriter::start(&engine, "shop", 5);
        let reader = |url: String| RelayReader::builder([url]).unwrap().stream("shop").timeout(LIMIT).silence(SILENCE);
        for host in ["127.0.0.1", "localhost"] {
            let url = engine.url().replace("127.0.0.1", host) + "?sslrootcert=" + root.to_str().unwrap();
            let mut reader = open(reader(url));
            writer.batch(&engine, &["1"]);
            expect(&mut reader, &["1"]);
            // Stopped while it waits.
            drop(reader);
        }
        // An authority of the system has not signed it.
        let found = next(&mut reader(engine.url()).build().unwrap());
        assert!(found.starts_with("lost: rediss://") && found.contains("certificate"), "{found}");
        // TLS to a port without, and the reverse.
        let plain = engine.settings.iter().find_map(|line| line.strip_prefix("port ")).unwrap();
        let url = format!("rediss://127.0.0.1:{plain}?sslrootcert={}", root.to_str().unwrap());
        let found = next(&mut reader(url).call_timeout(Duration::from_millis(500)).build().unwrap());
        assert!(found.contains("rediss://127.0.0.1") && found.contains("the server expects TLS there"), "{found}");
        let found = next(&mut reader(engine.url().replace("rediss", "redis")).build().unwrap());
        assert!(found.starts_with("disconnected: redis://") && found.contains("expects no TLS there"), "{found}");
        std::fs::remove_file(&root).unwrap();
    }
}

#[test]
fn r01_a_reader_with_wrong_settings_is_a_usage_error() {
    for (builder, problem) in [
        (RelayReader::builder(["redis://a"]).unwrap(), "there is no stream"),
        (RelayReader::builder(["redis://a"]).unwrap().stream(""), "has 1 to 512 bytes"),
        (RelayReader::builder(["redis://a"]).unwrap().stream("x").stream("x"), "the stream \"x\" is given twice"),
        (RelayReader::builder(["redis://a"]).unwrap().stream("x").silence(Duration::ZERO), "a time limit of zero"),
        (RelayReader::builder(["redis://a"]).unwrap().stream("x").call_timeout(Duration::ZERO), "a time limit of zero"),
        (RelayReader::builder(["redis://a"]).unwrap().stream("notifyman:shop"), "give \"shop\""),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.is_usage() && error.to_string().contains(problem), "{error}");
    }
    // The engine of a reader and of a relay is given, and refused, in the same ways.
    let refused = [
        RelayReader::builder("http://a").map(drop),
        Relay::builder("http://a").map(drop),
        RelayReader::builder(["redis://a", "http://b"]).map(drop),
        Relay::builder(vec!["redis://a".to_owned(), "http://b".to_owned()]).map(drop),
        RelayReader::builder([] as [&str; 0]).map(drop),
        Relay::builder([] as [&str; 0]).map(drop),
    ];
    for (number, found) in refused.into_iter().enumerate() {
        let error = found.unwrap_err();
        let problem = if number < 4 { "unknown scheme \"http\"" } else { "give at least one" };
        assert!(error.is_usage() && error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn r01_a_unix_socket_works() {
    let Some(mut engine) = redis(&[]) else { return };
    let path = engine.path().join("engine.sock");
    engine.settings.push(format!("unixsocket {}", path.display()));
    engine.settings.push("unixsocketperm 777".into());
    engine.kill();
    engine.restart();
    let writer = StreamWriter::start(&engine, "shop", 5);
    let mut reader =
        open(RelayReader::builder([format!("unix://{}", path.display())]).unwrap().stream("shop").timeout(LIMIT));
    writer.batch(&engine, &["1"]);
    expect(&mut reader, &["1"]);
}
