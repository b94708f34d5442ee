//! The sink against real servers, and connections to scripted ones.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::address::EngineConfig;
use super::commands;
use super::connection::EngineConnection;
use super::fault::FaultKind;
use super::sink::RedisSink;
use super::socket::Interrupt;
use crate::relay::engine_time::EngineTime;
use crate::relay::entry::{EntryContent, StreamEntry, StreamOrigin};
use crate::relay::identity::RelayIdentity;
use crate::relay::position::StreamPosition;
use crate::relay::sink::{AppendError, Sink as _};
use crate::relay::takeover::OpenStream;

#[path = "../../cli/cluster/mod.rs"]
#[allow(clippy::duplicate_mod, reason = "the tests of the configuration load it, too")]
mod servers;
#[path = "../../../tests/support/tools.rs"]
#[allow(dead_code, unreachable_pub, reason = "these tests use a part")]
mod tools;

pub(crate) use servers::{EngineKind, EngineServer};
pub(crate) use tools::not_run;

/// Starts each engine of this machine with these settings, and runs a test with it.
fn with_engines(settings: &[&str], test: impl Fn(EngineServer)) {
    for kind in [EngineKind::Redis, EngineKind::Valkey] {
        if kind.find().is_err() {
            tools::not_run(&format!("`{}` is missing", kind.program()));
            continue;
        }
        let settings = settings.iter().map(|line| (*line).to_owned()).collect();
        let mut engine = EngineServer::create(kind, settings).unwrap();
        engine.launch_on_free_port().unwrap();
        test(engine);
    }
}

fn config(url: &str) -> EngineConfig {
    let mut config = EngineConfig::new([url]).unwrap();
    (config.connect_timeout, config.answer_timeout) = (Duration::from_secs(5), Duration::from_secs(5));
    config
}

fn at(term: u64, sequence: u64) -> StreamPosition {
    StreamPosition { term, sequence }
}

fn entry(content: EntryContent) -> StreamEntry {
    StreamEntry { origin: StreamOrigin { system: 7, timeline: 1, database: 5 }, content }
}

fn canary(marker: &str) -> StreamEntry {
    entry(EntryContent::Canary {
        marker: marker.into(),
        sent: EngineTime::default(),
        channels: vec!["a".into()],
        silence_ms: 20_000,
    })
}

fn marker(entry: &StreamEntry) -> &str {
    let EntryContent::Canary { marker, .. } = &entry.content else { panic!("{entry:?}") };
    marker
}

#[test]
fn r06_an_engine_refuses_an_older_leader_and_keeps_the_order() {
    with_engines(&[], |engine| {
        let mut sink = RedisSink::new(config(&engine.url()), "shop", 100_000, Arc::default());
        assert_eq!(sink.top().unwrap(), None);
        assert!(sink.time().unwrap().unix_ms > 1_700_000_000_000);
        let claim = entry(EntryContent::Claim { relay: "a".into() });
        let start = entry(EntryContent::Start { continues: None, channels: vec!["a".into()], silence_ms: 20_000 });
        sink.append(&[]).unwrap();
        sink.append(&[(at(5, 0), claim.clone())]).unwrap();
        sink.append(&[(at(5, 1), start), (at(5, 2), canary("1")), (at(5, 3), canary("2"))]).unwrap();
        assert_eq!(sink.top().unwrap(), Some(at(5, 3)));

        // A lost answer: the entries are there, and the rest is appended behind them.
        let again = sink.append(&[(at(5, 2), canary("1")), (at(5, 3), canary("2")), (at(5, 4), canary("3"))]);
        assert!(matches!(again, Err(AppendError::Stale)), "{again:?}");
        let found = sink.read_back(None, 2).unwrap();
        let found: Vec<_> = found.iter().map(|(position, entry)| (*position, marker(entry))).collect();
        assert_eq!(found, [(at(5, 4), "3"), (at(5, 3), "2")]);
        assert_eq!(sink.read_back(Some(at(5, 3)), 1).unwrap()[0].0, at(5, 2));
        assert_eq!(sink.read_back(Some(at(5, 1)), 9).unwrap()[0].0, at(5, 0));
        assert!(sink.read_back(Some(at(5, 0)), 9).unwrap().is_empty());
        assert!(sink.read_back(Some(at(0, 0)), 9).unwrap().is_empty());

        // Another leader.
        let mut other = RedisSink::new(config(&engine.url()), "shop", 100_000, Arc::default());
        other.append(&[(at(6, 0), claim.clone())]).unwrap();
        for position in [at(5, 5), at(6, 0), at(5, u64::MAX)] {
            let refused = sink.append(&[(position, canary("4"))]);
            assert!(matches!(refused, Err(AppendError::Stale)), "{refused:?}");
        }
        let refused = sink.append(&[(at(5, 5), canary("4")), (at(5, 6), canary("5"))]);
        assert!(matches!(refused, Err(AppendError::Stale)), "{refused:?}");
        assert_eq!(other.top().unwrap(), Some(at(6, 0)));
    });
}

#[test]
fn r06_without_memory_no_entry_is_appended_behind_one_that_was_refused() {
    with_engines(&["maxmemory 4mb"], |engine| {
        let mut sink = RedisSink::new(config(&engine.url()), "shop", 100_000_000, Arc::default());
        let large: String = "x".repeat(300_000);
        let (mut last, mut error) = (1, None);
        while error.is_none() {
            let entries: Vec<_> = (last + 1..last + 4).map(|sequence| (at(5, sequence), canary(&large))).collect();
            match sink.append(&entries) {
                Ok(()) => last += 3,
                Err(AppendError::Failed(failed)) => error = Some(failed.to_string()),
                Err(AppendError::Stale) => panic!("it is behind the last"),
            }
            assert!(last < 100, "the server never refused");
        }
        let error = error.unwrap();
        assert!(
            error.contains("XADD notifyman:shop: OOM") && error.contains("raise the server's maxmemory"),
            "{error}"
        );
        assert_eq!(sink.top().unwrap(), Some(at(5, last)).filter(|_| last > 1));
    });
}

#[test]
fn r01_a_stream_is_trimmed_to_about_the_number_that_it_keeps() {
    with_engines(&[], |engine| {
        let mut sink = RedisSink::new(config(&engine.url()), "shop", 300, Arc::default());
        for first in (2..2_002).step_by(100) {
            let entries: Vec<_> = (first..first + 100).map(|sequence| (at(5, sequence), canary("x"))).collect();
            sink.append(&entries).unwrap();
        }
        let kept = sink.read_back(None, 5_000).unwrap().len();
        assert!((300..500).contains(&kept), "{kept}");
    });
}

#[test]
fn r06_a_paused_engine_ends_a_call_by_its_time_limit_and_the_next_call_connects_again() {
    with_engines(&[], |engine| {
        let mut limits = config(&engine.url());
        limits.answer_timeout = Duration::from_millis(200);
        let mut sink = RedisSink::new(limits, "shop", 100, Arc::default());
        sink.append(&[(at(5, 2), canary("1"))]).unwrap();
        let pid = engine.process.as_ref().unwrap().id();
        servers::signal(pid, "STOP").unwrap();
        for _ in 0..2 {
            let error = sink.append(&[(at(5, 3), canary("2"))]);
            let Err(AppendError::Failed(error)) = error else { panic!("{error:?}") };
            assert!(error.to_string().contains("took more than 200ms"), "{error}");
        }
        servers::signal(pid, "CONT").unwrap();
        // The paused server had received it.
        assert_eq!(sink.top().unwrap(), Some(at(5, 3)));
    });
}

#[test]
fn r06_the_server_that_is_a_master_is_used_also_after_a_failover() {
    with_engines(&[], |mut master| {
        let follow = format!("replicaof 127.0.0.1 {}", master.port);
        let kind = if master.log().contains("Valkey") { EngineKind::Valkey } else { EngineKind::Redis };
        let mut replica = EngineServer::create(kind, vec![follow]).unwrap();
        replica.launch_on_free_port().unwrap();
        let config = EngineConfig::new([replica.url(), master.url()]).unwrap();
        let mut sink = RedisSink::new(config, "shop", 100, Arc::default());
        sink.append(&[(at(5, 2), canary("1"))]).unwrap();
        let mut at_replica = EngineConfig::new([replica.url()]).unwrap();
        at_replica.answer_timeout = Duration::from_secs(5);
        let error = EngineConnection::open(&at_replica, &Arc::default()).err().unwrap();
        assert_eq!(error.kind, FaultKind::Unreachable);
        assert!(error.to_string().contains("no master: give the addresses of all servers"), "{error}");

        master.stop_with("KILL").unwrap();
        assert!(matches!(sink.append(&[(at(5, 3), canary("2"))]), Err(AppendError::Failed(_))));
        let mut raw = std::net::TcpStream::connect(("127.0.0.1", replica.port)).unwrap();
        raw.write_all(b"REPLICAOF NO ONE\r\n").unwrap();
        assert_eq!(raw.read(&mut [0; 5]).unwrap(), 5);
        sink.append(&[(at(5, 3), canary("2"))]).unwrap();
        assert_eq!(sink.top().unwrap(), Some(at(5, 3)));
    });
}

#[test]
fn r01_a_login_that_is_refused_is_final_and_names_the_remedy_without_the_secret() {
    let settings = ["requirepass secret", "user app on >apps ~* +@all -xadd", "user off off >apps ~* +@all"];
    with_engines(&settings, |engine| {
        let at_url = |login: &str| config(&engine.url().replace("//", &format!("//{login}@")));
        let open = |login: &str| EngineConnection::open(&at_url(login), &Arc::default());
        for (login, problem) in [
            ("", "add a password"),
            (":secretly", "check the user and the password"),
            ("app:secret", "check the user and the password"),
            ("off:apps", "check the user and the password"),
        ] {
            let fault = open(login).err().unwrap();
            let text = fault.to_string();
            assert!(fault.kind == FaultKind::Final && text.contains(problem), "{login}: {fault:?}");
            assert!(!text.contains("secret") && !text.contains("apps"), "{text}");
        }
        assert!(open(":secret").is_ok() && open("app:apps").is_ok());
        let mut sink = RedisSink::new(at_url("app:apps"), "shop", 9, Arc::default());
        let Err(AppendError::Failed(error)) = sink.append(&[(at(5, 2), canary("1"))]) else { panic!() };
        assert!(error.to_string().contains("NOPERM") && error.to_string().contains("grant it"), "{error}");
        let mut database = at_url(":secret");
        database.addresses[0].database = 99;
        let fault = EngineConnection::open(&database, &Arc::default()).err().unwrap();
        assert!(fault.kind == FaultKind::Final && fault.to_string().contains("check the database"), "{fault:?}");
    });
}

/// Sends a command to an engine as its default user.
fn send(engine: &EngineServer, command: &str) {
    let mut admin = TcpStream::connect(engine.url().strip_prefix("redis://").unwrap()).unwrap();
    write!(admin, "{command}\r\n").unwrap();
    let mut answer = [0; 5];
    admin.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+OK\r\n");
}

/// The page `relay` lists these.
#[test]
fn r01_the_documented_privileges_of_a_relay_suffice() {
    let page = include_str!("../../docs/relay.md");
    let rule = page.lines().find_map(|line| line.strip_prefix("ACL SETUSER relay")).unwrap();
    let rule = format!("user relay {}", rule.trim());
    with_engines(&[&rule], |engine| {
        let mut config = config(&engine.url().replace("//", "//relay:SECRET@"));
        config.addresses[0].database = 1;
        let mut sink = RedisSink::new(config, "shop", 100, Arc::default());
        sink.append(&[(at(5, 2), canary("1"))]).unwrap();
        sink.append(&[(at(5, 3), canary("2")), (at(5, 4), canary("3"))]).unwrap();
        assert_eq!(sink.top().unwrap(), Some(at(5, 4)));
        assert!(sink.time().unwrap().unix_ms > 0);
        // Without one of them, the fault names it and the remedy.
        for command in ["multi", "exec", "xadd"] {
            send(&engine, &format!("ACL SETUSER relay -{command}"));
            let mut config = self::config(&engine.url().replace("//", "//relay:SECRET@"));
            config.addresses[0].database = 1;
            let mut sink = RedisSink::new(config, "shop", 100, Arc::default());
            let Err(AppendError::Failed(error)) = sink.append(&[(at(6, 3), canary("4")), (at(6, 4), canary("5"))])
            else {
                panic!("{command}")
            };
            let text = error.to_string();
            assert!(
                text.contains(&format!("'{command}'")) && text.contains("NOPERM") && text.contains("grant it"),
                "{command}: {text}"
            );
            assert!(!text.contains("EXECABORT"), "{text}");
            assert!(sink.check_writable().unwrap_err().to_string().contains(command), "{command}");
            send(&engine, &format!("ACL SETUSER relay +{command}"));
            send(&engine, "FLUSHALL");
        }
        // A relay that does not lead knows that it could not.
        sink.check_writable().unwrap();
        for command in ["time", "xinfo", "role", "xadd"] {
            send(&engine, &format!("ACL SETUSER relay -{command}"));
            let text = sink.check_writable().unwrap_err().to_string();
            assert!(text.contains("NOPERM") && text.contains(command), "{command}: {text}");
            send(&engine, &format!("ACL SETUSER relay +{command}"));
        }
    });
}

/// Answers the first request of one connection; returns the URL.
fn scripted(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(answer);
        let _ = client.read(&mut [0; 1024]);
    });
    url
}

#[test]
fn r01_a_peer_that_is_no_engine_is_reported() {
    for (answer, kind, problem) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], FaultKind::Unreachable, "not that of Redis or Valkey"),
        (b"+OK\r\n", FaultKind::Unreachable, "not that of Redis or Valkey"),
        (b"", FaultKind::Unreachable, "took more than 300ms"),
        (b"-ERR unknown command `HELLO`\r\n", FaultKind::Final, "use Redis 6 or later"),
        (b"-ERR max number of clients reached\r\n", FaultKind::Unreachable, "max number of clients"),
        (b"-LOADING \x1b[2Jdataset\r\n", FaultKind::Unreachable, r"LOADING \u{1b}[2Jdataset"),
        (b"*4\r\n$4\r\nmode\r\n$7\r\ncluster\r\n$4\r\nrole\r\n$6\r\nmaster\r\n", FaultKind::Final, "a cluster"),
        (b"*-9\r\n", FaultKind::Unreachable, "not that of Redis or Valkey"),
    ] {
        let mut config = config(&scripted(answer));
        config.answer_timeout = if answer.is_empty() { Duration::from_millis(300) } else { Duration::from_secs(60) };
        let fault = EngineConnection::open(&config, &Arc::default()).err().unwrap();
        assert!(fault.kind == kind && fault.to_string().contains(problem), "{answer:?}: {fault:?}");
    }
}

#[test]
fn r06_a_call_that_waits_ends_when_it_is_interrupted() {
    let interrupt = Arc::<Interrupt>::default();
    let mut config = config(&scripted(b""));
    config.answer_timeout = Duration::from_secs(60);
    thread::scope(|scope| {
        let opened = scope.spawn(|| EngineConnection::open(&config, &interrupt).err().unwrap());
        thread::sleep(Duration::from_millis(50));
        interrupt.stop();
        assert_eq!(opened.join().unwrap().kind, FaultKind::Unreachable);
    });
    assert!(interrupt.sleep(Duration::from_secs(60)));
    let fault = EngineConnection::open(&config, &interrupt).err().unwrap();
    assert!(fault.to_string().contains("stopped"), "{fault:?}");
}

#[test]
fn r06_no_call_lasts_beyond_the_deadline_of_the_stop() {
    let mut config = config(&scripted(b""));
    config.answer_timeout = Duration::from_secs(60);
    let interrupt = Arc::<Interrupt>::default();
    let mut sink = RedisSink::new(config, "shop", 9, Arc::clone(&interrupt));
    let begin = Instant::now();
    interrupt.stop_by(begin + Duration::from_millis(200));
    let texts = [(), ()].map(|()| sink.time().unwrap_err().to_string());
    let lasted = begin.elapsed();
    assert!((Duration::from_millis(200)..Duration::from_secs(20)).contains(&lasted), "{lasted:?}");
    assert!(texts[0].contains("took more than") && texts[1].contains("stopped"), "{texts:?}");
}

/// A peer that sends a byte of its handshake now and then would keep each read short for ever.
#[test]
fn r06_a_handshake_is_limited_as_a_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let begun = [0x16, 3, 3, 0x40, 0].into_iter().chain(std::iter::repeat(2));
            for byte in begun {
                if socket.write_all(&[byte]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
    });
    let root = std::env::temp_dir().join(format!("notifyman-handshake-{}.pem", std::process::id()));
    std::fs::write(&root, rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()).unwrap();
    let mut config = config(&format!("rediss://localhost:{port}?sslrootcert={}", root.display()));
    config.connect_timeout = Duration::from_millis(300);
    let interrupt = Arc::<Interrupt>::default();
    let text = || EngineConnection::open(&config, &interrupt).err().unwrap().to_string();
    assert!(text().contains("took more than"), "{}", text());
    let begin = Instant::now();
    let mut config = config.clone();
    config.connect_timeout = Duration::from_secs(60);
    interrupt.stop_by(begin + Duration::from_millis(300));
    let text = EngineConnection::open(&config, &interrupt).err().unwrap().to_string();
    assert!(text.contains("stopped") && begin.elapsed() < Duration::from_secs(20), "{text}");
    std::fs::remove_file(root).unwrap();
}

#[test]
fn r05_a_claim_is_above_an_entry_that_was_deleted_and_a_stream_of_something_else_is_not_written_to() {
    with_engines(&[], |engine| {
        let mut sink = RedisSink::new(config(&engine.url()), "shop", 100, Arc::default());
        sink.append(&[(at(5, 2), canary("1")), (at(9, 2), canary("2"))]).unwrap();
        let ask = |words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            EngineConnection::open(&config(&engine.url()), &Arc::default()).unwrap().call(&command).unwrap()
        };
        ask(&["XDEL", "notifyman:shop", "9-2"]);
        assert_eq!(sink.top().unwrap(), Some(at(9, 2)));
        assert_eq!(sink.read_back(None, 1).unwrap()[0].0, at(5, 2));

        ask(&["DEL", "notifyman:shop"]);
        ask(&["XADD", "notifyman:shop", "5-1", "name", "value"]);
        let origin = StreamOrigin { system: 7, timeline: 1, database: 5 };
        let mut stream = OpenStream::new("shop".into(), origin, sink);
        let error = stream.claim(&mut RelayIdentity::new("a", 7)).err().unwrap();
        assert!(error.to_string().contains("was not written by a relay"), "{error}");
        assert_eq!(stream.sink.top().unwrap(), Some(at(5, 1)));
    });
}

#[test]
fn r06_a_server_that_was_demoted_is_left() {
    with_engines(&[], |first| {
        let kind = if first.log().contains("Valkey") { EngineKind::Valkey } else { EngineKind::Redis };
        let mut second = EngineServer::create(kind, Vec::new()).unwrap();
        second.launch_on_free_port().unwrap();
        let mut both = EngineConfig::new([first.url(), second.url()]).unwrap();
        both.answer_timeout = Duration::from_secs(5);
        let mut sink = RedisSink::new(both, "shop", 100, Arc::default());
        let engines = [sink.time().unwrap().engine, sink.time().unwrap().engine];
        assert!(engines[0] == engines[1] && engines[0].len() == 40, "{engines:?}");
        let mut connection = EngineConnection::open(&config(&first.url()), &Arc::default()).unwrap();
        let port = second.port.to_string();
        connection.call(redis::cmd("REPLICAOF").arg("127.0.0.1").arg(&port)).unwrap();
        for check in [sink.check_writable(), commands::check_role(&mut connection).map_err(Into::into)] {
            let error = check.unwrap_err().to_string();
            assert!(error.contains("has become a replica"), "{error}");
        }
        sink.check_writable().unwrap();
        assert_ne!(sink.time().unwrap().engine, engines[0]);
        // It is left before its clock is read.
        let mut connection = EngineConnection::open(&config(&second.url()), &Arc::default()).unwrap();
        connection.call(redis::cmd("REPLICAOF").arg("127.0.0.1").arg(first.port)).unwrap();
        assert!(sink.time().is_err());
    });
}

#[test]
fn r04_an_engine_that_appends_nothing_is_known_without_an_entry() {
    with_engines(&[], |engine| {
        let mut sink = RedisSink::new(config(&engine.url()), "shop", 100, Arc::default());
        let mut admin = EngineConnection::open(&config(&engine.url()), &Arc::default()).unwrap();
        let mut set = |name: &str, value: &str| {
            admin.call(redis::cmd("CONFIG").arg("SET").arg(name).arg(value)).unwrap();
        };
        sink.check_writable().unwrap();
        assert_eq!(sink.top().unwrap(), None, "nothing was created");
        for (name, faulty, fine, expected) in
            [("maxmemory", "1", "0", "OOM"), ("min-replicas-to-write", "1", "0", "NOREPLICAS")]
        {
            set(name, faulty);
            let error = sink.check_writable().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            set(name, fine);
            sink.check_writable().unwrap();
        }
        sink.append(&[(at(5, 0), canary("m"))]).unwrap();
        sink.check_writable().unwrap();
        assert_eq!(sink.top().unwrap(), Some(at(5, 0)));
    });
}
