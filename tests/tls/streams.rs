//! Streams under TLS: no decrypted byte is left unread, for every reader and every division of the stream.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use notifyman::{Config, Connection, Error, Event, NotificationManager};

use super::{common, is_encrypted};
use crate::support::pki::self_signed;
use crate::support::server::{LIMIT, ask, config, eventually, in_time, refused};
use crate::support::tls_peer::{TlsPeer, TlsScript};
use crate::support::{Proxy, msg};

const IDLE: Duration = Duration::from_millis(50);

fn numbered(numbers: std::ops::Range<usize>) -> Vec<u8> {
    numbers.flat_map(|n| msg::notification(7, "c", &n.to_string())).collect()
}

fn listening(peer: &TlsPeer) -> Connection {
    let mut db = Connection::connect(config(&peer.dsn())).unwrap_or_else(|error| panic!("{error}"));
    db.listen(["c"]).unwrap();
    db
}

/// Starts a peer that accepts a client, answers its LISTEN, and sends these bytes on command.
fn saying(bytes: Vec<u8>) -> (TlsPeer, mpsc::Sender<()>) {
    let (go, gate) = mpsc::channel::<()>();
    let play: TlsScript = Box::new(move |wire| {
        wire.login_and_listen();
        gate.recv_timeout(LIMIT).unwrap();
        wire.send(&bytes);
        wire.expect_goodbye();
    });
    (TlsPeer::play(&self_signed(&["127.0.0.1"]), vec![play]), go)
}

fn payloads<'n>(batch: impl IntoIterator<Item = notifyman::NotificationRef<'n>>) -> Vec<usize> {
    batch.into_iter().map(|n| n.payload().parse().unwrap()).collect()
}

#[test]
fn a_thousand_notifications_in_one_record_are_delivered_in_one_turn() {
    let bytes = numbered(0..1000);
    assert!(bytes.len() < 16 * 1024, "one record");
    let (peer, go) = saying(bytes);
    let mut nm = NotificationManager::new([listening(&peer)]).timeout(IDLE);
    go.send(()).unwrap();
    let (_, batch) = (&mut nm).flatten().next().unwrap();
    assert_eq!(payloads(batch.iter()), (0..1000).collect::<Vec<_>>());
    drop(nm);
    peer.finish();
}

#[test]
fn a_poll_of_a_connection_takes_all_decrypted_bytes() {
    // Many records, with an incomplete one at the end of each read.
    let (peer, go) = saying(numbered(0..50_000));
    let mut db = listening(&peer);
    go.send(()).unwrap();
    let mut received = Vec::new();
    eventually("all has come", || {
        received.extend(db.wait(Duration::ZERO).flatten().map(|n| n.payload().parse::<usize>().unwrap()));
        received.len() == 50_000
    });
    assert!(received.iter().copied().eq(0..50_000), "each once, in order");
    drop(db);
    peer.finish();
}

#[test]
fn a_poll_of_a_manager_takes_all_decrypted_bytes() {
    let (peer, go) = saying(numbered(0..50_000));
    let mut nm = NotificationManager::new([listening(&peer)]).timeout(Duration::ZERO);
    go.send(()).unwrap();
    let mut received = Vec::new();
    eventually("all has come", || {
        (&mut nm).flatten().for_each(|(_, batch)| received.extend(payloads(batch.iter())));
        received.len() == 50_000
    });
    assert!(received.into_iter().eq(0..50_000));
    drop(nm);
    peer.finish();
}

/// Takes one event and then removes the connection; the rest must still be delivered.
fn left_over(remove: impl FnOnce(NotificationManager) -> Connection) {
    let (peer, go) = saying(numbered(0..30_000));
    let mut nm = NotificationManager::new([listening(&peer)]).timeout(IDLE);
    go.send(()).unwrap();
    let (_, first) = (&mut nm).flatten().next().unwrap();
    let mut received = payloads(first.iter());
    assert!(received.len() < 30_000, "there is something left over");
    let mut db = remove(nm);
    // Nothing more is sent, so the socket does not report its readiness again.
    received
        .extend(db.wait(LIMIT).flatten().take(30_000 - received.len()).map(|n| n.payload().parse::<usize>().unwrap()));
    assert!(received.into_iter().eq(0..30_000));
    drop(db);
    peer.finish();
}

#[test]
fn decrypted_bytes_stay_with_a_removed_connection() {
    left_over(|mut nm| {
        let id = nm.connections().next().unwrap().0;
        nm.remove(id).unwrap().unwrap()
    });
    left_over(|nm| nm.into_connections().into_iter().next().unwrap().1);
}

#[test]
fn decrypted_bytes_are_delivered_by_the_next_manager() {
    let (peer, go) = saying(numbered(0..30_000));
    let mut nm = NotificationManager::new([listening(&peer)]).timeout(IDLE);
    go.send(()).unwrap();
    let mut received = payloads((&mut nm).flatten().next().unwrap().1.iter());
    let mut next = NotificationManager::new(nm.into_connections().into_iter().map(|(_, db)| db)).timeout(IDLE);
    let begin = Instant::now();
    while received.len() < 30_000 && begin.elapsed() < LIMIT {
        if let Some(Event::Notifies(_, batch)) = next.next_event() {
            received.extend(payloads(batch.iter()));
        }
    }
    assert!(received.into_iter().eq(0..30_000));
    drop(next);
    peer.finish();
}

#[test]
fn key_updates_and_tickets_are_not_events() {
    let (go, gate) = mpsc::channel::<()>();
    let play: TlsScript = Box::new(move |wire| {
        wire.login_and_listen();
        for _ in 0..3 {
            gate.recv_timeout(LIMIT).unwrap();
            wire.renew_keys();
        }
        gate.recv_timeout(LIMIT).unwrap();
        wire.send(&numbered(0..1));
        // Its query arrives under the new keys, which the client has confirmed.
        wire.message(b'Q');
        wire.send(&[msg::command_complete("SELECT"), msg::ready(b'I')].concat());
        wire.expect_goodbye();
    });
    let peer = TlsPeer::play(&self_signed(&["127.0.0.1"]), vec![play]);
    let mut nm = NotificationManager::new([listening(&peer)]).timeout(IDLE);
    for _ in 0..3 {
        go.send(()).unwrap();
        assert!(matches!(nm.next_event(), Some(Event::Idle)), "a socket that is ready, and no event");
    }
    go.send(()).unwrap();
    let (id, batch) = (&mut nm).flatten().next().unwrap();
    assert_eq!(payloads(batch.iter()), [0]);
    nm.get_mut(id).unwrap().query("SELECT").unwrap();
    drop(nm);
    peer.finish();
}

#[test]
fn closing_and_dropping_send_a_close_notify() {
    let plays: Vec<TlsScript> = (0..2)
        .map(|_| -> TlsScript {
            Box::new(|wire| {
                wire.login();
                wire.expect_goodbye();
            })
        })
        .collect();
    let peer = TlsPeer::play(&self_signed(&["127.0.0.1"]), plays);
    Connection::connect(config(&peer.dsn())).unwrap().close().unwrap();
    drop(Connection::connect(config(&peer.dsn())).unwrap());
    peer.finish();
}

#[test]
fn an_end_without_a_close_notify_is_an_end() {
    let play: TlsScript = Box::new(|wire| {
        wire.login_and_listen();
        wire.send(&numbered(0..3));
    });
    let peer = TlsPeer::play(&self_signed(&["127.0.0.1"]), vec![play]);
    let mut db = listening(&peer);
    peer.finish();
    assert_eq!(db.wait(LIMIT).flatten().count(), 3, "what came before is delivered");
    assert!(matches!(db.error(), Some(Error::Disconnected)), "{:?}", db.error());
}

#[test]
fn damaged_records_end_the_connection_and_deliver_nothing() {
    let proxy = Proxy::start(([127, 0, 0, 1], common().server.cluster.port()).into());
    let mut db = Connection::connect(through(&proxy)).unwrap();
    db.listen(["damaged"]).unwrap();
    proxy.inject(&[
        23, 3, 3, 0, 32, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    ]);
    assert_eq!(db.wait(LIMIT).flatten().count(), 0);
    assert!(db.error().unwrap().is_tls(), "{:?}", db.error());
}

#[test]
fn notifications_before_a_damaged_record_are_delivered() {
    let play: TlsScript = Box::new(|wire| {
        wire.login_and_listen();
        wire.send_with_garbage(&numbered(0..3), &[23, 3, 3, 0, 17, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
    });
    let peer = TlsPeer::play(&self_signed(&["127.0.0.1"]), vec![play]);
    let mut db = listening(&peer);
    assert_eq!(db.wait(LIMIT).flatten().count(), 3);
    assert!(db.error().unwrap().is_tls(), "{:?}", db.error());
    peer.finish();
}

#[test]
fn the_host_name_is_sent_unless_it_is_an_address_or_sni_is_disabled() {
    let names = [("host=db.example", Some("db.example")), ("", None), ("host=db.example sslsni=0", None)];
    let plays = names.map(|(_, name)| -> TlsScript {
        Box::new(move |wire| {
            assert_eq!(wire.stream.conn.server_name(), name);
            wire.login();
            wire.expect_goodbye();
        })
    });
    let peer = TlsPeer::play(&self_signed(&["127.0.0.1"]), plays.into());
    for (settings, _) in names {
        let text = format!("{} hostaddr=127.0.0.1 {settings}", peer.dsn());
        drop(Connection::connect(config(&text)).unwrap());
    }
    peer.finish();
}

#[test]
fn a_cancel_request_is_encrypted_if_the_session_is() {
    in_time(|| {
        let session: TlsScript = Box::new(|wire| {
            wire.login();
            wire.message(b'Q');
            // The second connection is served next; this one stays open until then.
            std::mem::forget(wire.stream.sock.try_clone());
        });
        let cancel: TlsScript = Box::new(|wire| {
            let packet = wire.packet();
            assert_eq!(packet[..4], 80_877_102_i32.to_be_bytes(), "a CancelRequest");
            assert_eq!(packet[4..], [4242_i32.to_be_bytes(), 1_i32.to_be_bytes()].concat());
        });
        let peer = TlsPeer::play(&self_signed(&["127.0.0.1"]), vec![session, cancel]);
        let mut db = Connection::connect(config(&peer.dsn())).unwrap();
        db.set_call_timeout(Duration::from_secs(1));
        let error = db.query("SELECT 1").unwrap_err();
        assert!(error.is_timeout(), "{error}");
        peer.has_succeeded()
    });
}

#[test]
fn a_query_that_takes_too_long_is_cancelled_through_tls() {
    in_time(|| {
        let mut db = Connection::connect(common().checked()).unwrap();
        db.set_call_timeout(Duration::from_secs(1));
        let error = db.query("SELECT pg_sleep(60)").unwrap_err();
        assert!(error.is_timeout(), "{error}");
        db.set_call_timeout(LIMIT);
        !db.is_closed() && ask(&mut db, "SELECT 1") == "1"
    });
}

#[test]
fn long_queries_and_long_answers_are_complete() {
    let mut db = Connection::connect(common().checked()).unwrap();
    let long = "x".repeat(8 * 1024 * 1024);
    assert_eq!(ask(&mut db, &format!("SELECT length('{long}')")), long.len().to_string());
    assert_eq!(ask(&mut db, "SELECT repeat('y', 4000000)").len(), 4_000_000);
    db.listen(["long"]).unwrap();
    let payloads: Vec<String> = (0..5000).map(|n| n.to_string()).collect();
    db.notify_many(payloads.iter().map(|payload| ("long", payload))).unwrap();
    let received: Vec<String> = db.wait(LIMIT).flatten().take(5000).map(|n| n.payload().into_owned()).collect();
    assert_eq!(received, payloads);
}

#[test]
fn data_that_does_not_fit_into_the_socket_is_sent_later() {
    const EACH: usize = 1000;
    let proxy = Proxy::start(([127, 0, 0, 1], common().server.cluster.port()).into());
    let mut db = Connection::connect(through(&proxy)).unwrap();
    db.listen(["room"]).unwrap();
    let mut nm = NotificationManager::new([db]).timeout(IDLE);
    let (id, handle) = (nm.connections().next().unwrap().0, nm.handle());
    proxy.black_hole();
    let long = "x".repeat(7900);
    for first in [0, EACH] {
        // Eight megabytes in one statement, more than any socket buffer; and another statement after it.
        drop(handle.notify_many(id, (first..first + EACH).map(|n| ("room", format!("{n} {long}")))));
    }
    for _ in 0..3 {
        assert!(matches!(nm.next_event(), Some(Event::Idle)));
    }
    proxy.resume();
    let mut received = 0;
    let begin = Instant::now();
    while received < 2 * EACH {
        assert!(begin.elapsed() < LIMIT, "{received} came");
        let Some(Event::Notifies(_, batch)) = nm.next_event() else { continue };
        for n in &batch {
            assert_eq!(n.payload().split_once(' '), Some((received.to_string().as_str(), long.as_str())));
            received += 1;
        }
    }
}

fn through(proxy: &Proxy) -> Config {
    let text = format!("host=localhost hostaddr=127.0.0.1 port={} user=postgres dbname=postgres", proxy.port());
    config(&format!("{text} connect_timeout=60 sslmode=verify-full sslrootcert={}", common().root))
}

#[test]
fn a_handshake_in_single_bytes_succeeds() {
    let proxy = Proxy::start(([127, 0, 0, 1], common().server.cluster.port()).into());
    proxy.one_byte_at_a_time();
    let mut db = Connection::connect(through(&proxy)).unwrap();
    assert!(is_encrypted(&mut db));
    db.listen(["bytes"]).unwrap();
    db.notify("bytes", "by bytes").unwrap();
    assert_eq!(db.wait(LIMIT).flatten().next().unwrap().payload(), "by bytes");
}

#[test]
fn an_interrupted_handshake_is_a_transient_error() {
    let proxy = Proxy::start(([127, 0, 0, 1], common().server.cluster.port()).into());
    // From before the answer to the SSLRequest, over each of the server's messages, to the login.
    for cut in [0, 1, 2, 5, 6, 50, 100, 128, 130, 200, 400, 600, 800] {
        proxy.cut_after(cut);
        let error = refused(through(&proxy));
        assert!(error.is_transient(), "{cut}: {error}");
        assert!(!format!("{error:#}").contains('\n'), "{error}");
    }
    proxy.resume();
    assert!(is_encrypted(&mut Connection::connect(through(&proxy)).unwrap()));
}

#[test]
fn a_server_that_becomes_silent_in_the_handshake_times_out() {
    let proxy = Proxy::start(([127, 0, 0, 1], common().server.cluster.port()).into());
    proxy.black_hole();
    let begin = Instant::now();
    let error = refused(through(&proxy).connect_timeout(Duration::from_millis(300)));
    assert!(error.is_timeout() && format!("{error:#}").contains("negotiating TLS"), "{error}");
    assert!(begin.elapsed() < LIMIT);
}

#[test]
fn connections_are_opened_and_revived_inside_the_loop() {
    let mut nm = NotificationManager::new([]).timeout(IDLE).reconnect(notifyman::Backoff::default());
    let mut db = Connection::connect(common().checked()).unwrap();
    db.listen(["revived"]).unwrap();
    let pid = db.pid();
    let id = nm.insert(db);
    crate::support::server::terminate(&common().server.cluster, pid);
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < LIMIT);
        if let Some(Event::Restored(restored, gap)) = nm.next_event() {
            assert_eq!((restored, gap.channels().len()), (id, 1));
            break;
        }
    }
    let mut db = nm.remove(id).unwrap().unwrap();
    assert!(is_encrypted(&mut db) && db.pid() != pid);
}
