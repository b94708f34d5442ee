//! C08 and C11 with peers that are not PostgreSQL or violate the protocol: a clear error, bounded memory, no panic, no wait.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use notifyman::{Connection, Error, ProtocolError};

use crate::support::server::{LIMIT, config, connect, next, pairs, refused, session, utf8};
use crate::support::{Peer, Proxy, Step, msg, subprocess};

/// Runs a test of this module in a process with less than a gigabyte of memory. (macOS has no such limit.)
fn in_little_memory(test: &str) {
    subprocess::run(&format!("connection::hostile::{test}"), "ulimit -v 786432", &[("MALLOC_ARENA_MAX", "1")]);
}

/// Returns the error of an idle session that receives these bytes.
fn idle(bytes: &[u8]) -> Error {
    let (go, gate) = Step::gate();
    let script = vec![Step::startup(), Step::login_ok(), gate, Step::send([bytes]), Step::expect_eof()];
    let peer = Peer::play(script);
    let mut db = connect(&peer.url());
    go.open();
    assert_eq!(db.wait(None).count(), 0);
    db.error().unwrap().clone()
}

/// Returns the error of a query that is answered with these bytes.
fn busy(bytes: &[u8]) -> Error {
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_any_query(),
        Step::send([bytes]),
        Step::expect_eof(),
    ]);
    let mut db = connect(&peer.url());
    let error = db.query("SELECT").unwrap_err();
    assert!(db.is_closed(), "{error}");
    error
}

/// Returns the error of a login that is answered with these bytes.
fn login(bytes: &[u8]) -> Error {
    let peer = Peer::play(vec![Step::startup(), Step::send([bytes]), Step::expect_eof()]);
    refused(config(&peer.url()))
}

const EVERY_TYPE: &[u8] = b"ACDEGHIKNRSTWZcdv";

#[test]
fn c11_a_length_of_two_gigabytes_costs_an_error_and_no_memory() {
    in_little_memory("hostile_lengths");
}

#[test]
#[ignore = "not by itself: another test runs it in a process with little memory"]
fn hostile_lengths() {
    if !subprocess::is_subprocess() {
        return;
    }
    for tag in EVERY_TYPE {
        for length in [i32::MAX, i32::MIN, -1, 0, 3] {
            let bytes = msg::raw_with_length(*tag, length, b"some of it");
            for error in [idle(&bytes), busy(&bytes), login(&bytes)] {
                assert!(error.is_protocol() && !error.is_transient(), "{:?} {length}: {error}", *tag as char);
                assert!(format!("{error:#}").contains(&length.to_string()), "{error}");
                assert!(format!("{error:#}").contains("not a PostgreSQL server"), "{error}");
            }
        }
    }
}

#[test]
fn c11_a_length_beyond_the_limit_of_its_type_is_refused_at_the_header() {
    for (tag, length) in [(b'A', 1 << 20), (b'Z', 6), (b'Z', 4), (b'K', 4096), (b'D', 0x4000_0000), (b'T', 0x3fff_ffff)]
    {
        let bytes = msg::raw_with_length(tag, length, b"");
        let error = busy(&bytes);
        assert!(matches!(error, Error::Protocol(ProtocolError::Length { .. })), "{:?}: {error}", tag as char);
    }
}

#[test]
fn c11_an_unknown_type_is_refused_at_its_first_byte() {
    for tag in [0, b'Q', b'X', b'p', b'1', b't', b'n', b's', 0x16, 0xff] {
        for error in [idle(&[tag]), busy(&[tag]), login(&[tag])] {
            assert!(error.is_protocol(), "{tag:#x}: {error}");
            assert!(format!("{error:#}").contains(&format!("{tag:#04x}")), "{error}");
        }
    }
}

#[test]
fn c11_the_error_names_a_malformed_message() {
    for (message, name) in [
        (msg::raw(b'A', b"\0\0\0\x07no end"), "NotificationResponse"),
        (msg::raw(b'A', b"\0\0\0\x07channel\0"), "NotificationResponse"),
        (msg::raw(b'A', b"\0\0\0\x07channel\0payload"), "NotificationResponse"),
        (msg::raw(b'S', b"name\0no end"), "ParameterStatus"),
        (msg::raw(b'S', b"name\0value\0more\0"), "ParameterStatus"),
        (msg::ready(b'?'), "ReadyForQuery"),
        (msg::raw(b'T', b"\0\x01x\0too short"), "RowDescription"),
        (msg::raw(b'T', b"\xff\xff"), "RowDescription"),
        ([msg::row_description(&["x"]), msg::data_row(&[None, None])].concat(), "DataRow"),
        ([msg::row_description(&["x"]), msg::raw(b'D', b"\0\x01\x7f\xff\xff\xffx")].concat(), "DataRow"),
        ([msg::row_description(&["x"]), msg::raw(b'D', b"\0\x01\x80\0\0\0x")].concat(), "DataRow"),
        (msg::data_row(&[Some("x")]), "DataRow"),
        (msg::raw(b'C', b"no end"), "CommandComplete"),
        (msg::backend_key_data(1, &[0; 4]), "BackendKeyData"),
        (msg::auth_ok(), "Authentication"),
    ] {
        let error = busy(&message);
        assert!(error.is_protocol() && format!("{error:#}").contains(name), "{name}: {error}");
    }
}

#[test]
fn c11_an_answer_without_a_request_is_refused() {
    for message in [
        msg::ready(b'I'),
        msg::command_complete("SELECT 1"),
        msg::row_description(&["x"]),
        msg::data_row(&[Some("x")]),
        msg::empty_query(),
        msg::copy_in_response(1),
        msg::auth_cleartext(),
    ] {
        assert!(idle(&message).is_protocol());
    }
}

#[test]
fn c11_a_stream_that_ends_inside_a_message_is_a_loss() {
    let whole = msg::notification(7, "a", "payload");
    for cut in 1..whole.len() {
        let (go, gate) = Step::gate();
        let sent = Step::send([&whole, &whole[..cut]]);
        let peer = Peer::play(vec![Step::startup(), Step::login_ok(), gate, sent, Step::close(), Step::expect_eof()]);
        let mut db = connect(&peer.url());
        go.open();
        assert_eq!(db.wait(None).flatten().count(), 1, "the whole one, and no part of the other");
        assert!(matches!(db.error(), Some(Error::Disconnected)), "{cut}: {:?}", db.error());
    }
}

#[test]
fn c01_a_peer_that_is_not_postgresql_is_an_immediate_error() {
    for banner in [
        &b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"[..],
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html></html>",
        b"220 mail.example ESMTP Postfix\r\n",
        b"-ERR unknown command\r\n",
        b"J\0\0\0\x0a5.7.44-log\0",
        b"\x15\x03\x03\0\x02\x02\x32",
        b"<?xml version='1.0'?>",
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket.write_all(banner).unwrap();
            // The server keeps the connection open until the client closes it.
            let _ = std::io::copy(&mut socket, &mut std::io::sink());
        });
        let begin = Instant::now();
        let error = refused(config(&format!("postgres://postgres@127.0.0.1:{port}/postgres")));
        assert!(begin.elapsed() < LIMIT, "without waiting for the limit");
        assert!(error.is_protocol() && !error.is_transient(), "{error}");
        assert!(format!("{error:#}").contains("not a PostgreSQL server"), "{error}");
        server.join().unwrap();
    }
}

#[test]
fn c11_malformed_bytes_end_the_session_after_the_valid_messages() {
    let proxy = Proxy::start(([127, 0, 0, 1], utf8().port()).into());
    let mut db = connect(&format!("postgres://postgres@{}/postgres", proxy.addr()));
    db.listen(["hostile"]).unwrap();
    session().notify("hostile", "good").unwrap();
    let mut received = next(&mut db, 1);
    proxy.inject(&[msg::notification(7, "hostile", "also"), b"\x00\x01\x02".to_vec()].concat());
    received.extend(db.wait(None).flatten().map(|n| (n.channel().into_owned(), n.payload().into_owned())));
    assert_eq!(received, pairs([("hostile", "good"), ("hostile", "also")]));
    assert!(db.error().unwrap().is_protocol(), "{:?}", db.error());
}

#[test]
fn c16_endless_notices_do_not_grow_the_memory() {
    in_little_memory("hostile_talk");
}

/// Sends a message a number of times.
fn repeat(message: Vec<u8>, times: usize) -> Step {
    Step::run("repeat", move |wire| (0..times).try_for_each(|_| wire.write(&message)))
}

#[test]
#[ignore = "not by itself: another test runs it in a process with little memory"]
fn hostile_talk() {
    if !subprocess::is_subprocess() {
        return;
    }
    let parameters: Vec<u8> =
        (0..100_000).flat_map(|n| msg::parameter_status(&format!("parameter {n}"), "x")).collect();
    assert!(busy(&parameters).is_protocol(), "no server has so many");

    // A gigabyte of each message that the server may send without a limit, more than is kept.
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_any_query(),
        repeat(msg::notice("NOTICE", "00000", &"x".repeat(1_000_000)), 1_000),
        Step::send([msg::copy_out_response(1)]),
        repeat(msg::copy_data(&vec![b'x'; 1_000_000]), 1_000),
        Step::send([msg::command_complete("COPY 0"), msg::row_description(&["x"])]),
        repeat(msg::data_row(&[Some(&"x".repeat(1_000_000))]), 1_000),
        Step::send([msg::command_complete("SELECT 1000"), msg::ready(b'I')]),
        Step::serve(),
    ]);
    let mut db = Connection::connect(config(&peer.url()).call_timeout(Duration::MAX)).unwrap();
    let error = db.query("COPY t TO STDOUT; SELECT x").unwrap_err();
    assert!(matches!(error, Error::AnswerTooLong(_)) && !db.is_closed(), "{error}");
    let notices: usize = db.take_notices().iter().map(|notice| notice.message().len()).sum();
    assert!(notices < 16 << 20, "{notices} bytes of notices");
    assert!(db.execute("SELECT").is_ok());
    drop(db);
    peer.finish();
}

#[test]
fn c08_more_notifications_than_the_limit_close_the_connection_and_the_first_are_kept() {
    let full = msg::notification(7, "a", &"x".repeat(7_999));
    let script = vec![Step::startup(), Step::login_ok(), Step::expect_any_query()];
    let flood = Step::run("flood", move |wire| {
        while wire.write(&full.repeat(100)).is_ok() {}
        Ok(())
    });
    let peer = Peer::play(script.into_iter().chain([flood]).collect());
    let mut db = connect(&peer.url());
    let error = db.query("SELECT 1").unwrap_err();
    let Error::Overflow { limit } = error else { panic!("{error}") };
    assert!(db.is_closed());
    let kept: usize = db.wait(None).flatten().map(|n| n.payload_bytes().len()).sum();
    assert!(kept > limit * 9 / 10 && kept < limit * 11 / 10, "{kept} of {limit}");
}
