//! C01: connecting is bounded as a whole, and tries all hosts and addresses in turn.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use notifyman::{Connection, Error, SslMode, TargetSessionAttrs};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::server::{LIMIT, ask, config, refused, refusing_port, start, utf8};
use crate::support::{Options, Peer, Proxy, Step, msg};

const PATIENCE: Duration = Duration::from_millis(400);

/// The action in the error for a server that sends nothing.
const FIRST_WORD: &str = if cfg!(feature = "tls") { "negotiating TLS" } else { "logging in" };

/// Returns a listener that accepts connections into its backlog and sends nothing.
fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn hosts(ports: &[u16]) -> String {
    let each: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("postgres://postgres@{}/postgres", each.join(","))
}

fn port_of(db: &mut Connection) -> u16 {
    ask(db, "SHOW port").parse().unwrap()
}

#[test]
fn c01_a_silent_server_is_abandoned_at_the_limit() {
    let (_listener, port) = silent();
    let begin = Instant::now();
    let error = refused(config(&hosts(&[port])).connect_timeout(PATIENCE));
    assert!(begin.elapsed() >= PATIENCE && begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
    assert!(error.is_timeout() && error.is_transient(), "{error}");
    assert!(format!("{error:#}").contains(FIRST_WORD), "{error}");
}

#[test]
fn c01_an_address_may_have_a_zone() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return eprintln!("NOT RUN: this machine has no IPv6");
    }
    for kind in ["host", "hostaddr", "url"] {
        let peer = Peer::on(
            SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
            vec![vec![Step::startup(), Step::login_ok(), Step::serve()]],
        );
        // The first interface is the loopback on every system.
        let to = |zone: &str| match kind {
            "url" => format!("postgres://u@[::1%25{zone}]:{}/d?sslmode=disable", peer.addr().port()),
            kind => format!("{kind}=::1%{zone} port={} user=u dbname=d sslmode=disable", peer.addr().port()),
        };
        let error = refused(config(&to("no-such-if")));
        assert!(
            format!("{error:#}").contains("::1%no-such-if") && format!("{error:#}").contains("interface"),
            "{error}"
        );
        drop(Connection::connect(config(&to("1"))).unwrap());
        peer.finish();
    }
}

#[test]
fn c01_a_server_that_has_accepted_gets_more_than_its_share() {
    // A silent server gets most of the time, and one that has answered all of it.
    for (is_silent, limit, login) in [(true, 1_600, 1_200), (false, 1_600, 1_450)] {
        let (pause, limit) = (Duration::from_millis(login), Duration::from_millis(limit));
        let mut script = vec![Step::startup()];
        if !is_silent {
            script.push(Step::send([msg::auth_cleartext()]));
            script.push(Step::expect(b'p'));
        }
        script.extend([Step::pause(pause), Step::login_ok(), Step::serve()]);
        let peer = Peer::play(script);
        let (_other, port) = silent();
        let to = config(&hosts(&[peer.addr().port(), port])).password("pw").sslmode(SslMode::Disable);
        let db = Connection::connect(to.connect_timeout(limit));
        assert!(db.is_ok(), "{is_silent}: {db:?}");
        drop(db);
        peer.finish();
    }
}

#[test]
fn c01_a_frozen_server_leaves_time_for_the_next() {
    let (_frozen, port) = silent();
    let to = config(&hosts(&[port, port, utf8().port()])).connect_timeout(Duration::from_secs(4));
    let mut db = Connection::connect(to).unwrap();
    assert_eq!(port_of(&mut db), utf8().port());
}

/// A listener whose backlog is full, and the clients that fill it.
fn full(domain: Domain, address: &SockAddr) -> (Socket, Vec<Socket>) {
    let listener = Socket::new(domain, Type::STREAM, None).unwrap();
    listener.bind(address).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let clients = (0..4).map(|_| {
        let client = Socket::new(domain, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&address);
        client
    });
    let clients = clients.collect();
    (listener, clients)
}

#[test]
fn c01_an_address_that_accepts_no_connection_is_abandoned_at_the_limit() {
    let (listener, _clients) = full(Domain::IPV4, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into());
    let port = listener.local_addr().unwrap().as_socket().unwrap().port();
    let begin = Instant::now();
    let error = refused(config(&hosts(&[port])).connect_timeout(PATIENCE));
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
    assert!(error.is_timeout() && error.is_transient(), "{error}");
    // Linux drops further connection requests. Other systems may accept them without serving them.
    assert!(!cfg!(target_os = "linux") || format!("{error:#}").contains(": connecting took"), "{error}");
}

#[test]
fn c01_a_full_unix_socket_is_retried_until_the_limit() {
    let directory = std::env::temp_dir().join(format!("notifyman-full-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join(".s.PGSQL.5432");
    let (listener, clients) = full(Domain::UNIX, &SockAddr::unix(&path).unwrap());
    let dsn = config(&format!("host={} port=5432 user=postgres", directory.display()));
    let begin = Instant::now();
    let error = refused(dsn.clone().connect_timeout(PATIENCE));
    assert!(begin.elapsed() < LIMIT && error.is_transient(), "{:?}: {error}", begin.elapsed());

    let dial = std::thread::spawn(move || Connection::connect(dsn.connect_timeout(LIMIT)));
    std::thread::sleep(PATIENCE / 4);
    drop(clients);
    let mut login = loop {
        let mut client = listener.accept().unwrap().0;
        // The abandoned attempts have only sent the end of the stream.
        if client.read(&mut [0; 512]).unwrap() > 0 {
            break client;
        }
    };
    login.write_all(&msg::login()).unwrap();
    assert_eq!(dial.join().unwrap().unwrap().pid(), 4242);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn c01_a_login_that_arrives_byte_by_byte_is_bounded() {
    let trickle = msg::login().into_iter().flat_map(|byte| [Step::send([[byte]]), Step::pause(PATIENCE / 4)]);
    let peer = Peer::play([Step::startup()].into_iter().chain(trickle).collect());
    let begin = Instant::now();
    let error = refused(config(&peer.url()).connect_timeout(PATIENCE));
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
    assert!(error.is_timeout(), "{error}");
}

/// Sends notices until the client closes the connection.
fn talk_on() -> Step {
    let notices = msg::notice("NOTICE", "00000", "hello").repeat(2000);
    Step::run("send without end", move |wire| {
        while wire.write(&notices).is_ok() {}
        Ok(())
    })
}

#[test]
fn c01_a_server_that_never_stops_sending_is_abandoned_and_delays_no_other() {
    let endless = || Peer::play(vec![Step::startup(), talk_on()]);
    let begin = Instant::now();
    let peer = endless();
    let error = refused(config(&peer.url()).connect_timeout(PATIENCE));
    assert!(begin.elapsed() < LIMIT && error.is_timeout(), "{:?}: {error}", begin.elapsed());
    assert!(format!("{error:#}").contains("logging in took"), "{error}");

    // After the login, the server does not answer the query for its role, or the LISTEN.
    let examined = Peer::play(vec![Step::startup(), Step::login_ok(), talk_on()]);
    let asked = config(&examined.url()).target_session_attrs(TargetSessionAttrs::Primary).connect_timeout(PATIENCE);
    let listening = Peer::play(vec![Step::startup(), Step::login_ok(), talk_on()]);
    let listens = config(&listening.url()).call_timeout(PATIENCE);
    let (first, good) = (endless(), utf8());
    let all = [config(&first.url()).connect_timeout(PATIENCE), asked, listens, config(&good.url())];
    let begin = Instant::now();
    for (index, result) in Connection::connect_many(all).listen(["news"]).unwrap() {
        match result {
            Ok(_) => assert_eq!(index, 3),
            Err(error) => assert!(index != 3 && error.is_timeout(), "{index}: {error}"),
        }
    }
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
}

#[test]
fn c01_the_error_names_a_host_without_an_address() {
    // A label of more than 63 bytes is invalid in DNS, so it is refused without a query.
    let name = format!("{}.invalid", "x".repeat(64));
    let begin = Instant::now();
    let error = refused(config(&format!("host={name} user=postgres")).connect_timeout(LIMIT / 2));
    assert!(begin.elapsed() < LIMIT);
    let Error::Connect(inner) = &error else { panic!("{error}") };
    assert!(matches!(inner.cause(), Error::Resolve { .. }), "{error}");
    assert!(format!("{error:#}").contains(&name) && error.is_transient(), "{error}");
}

#[test]
fn c01_an_error_is_transient_if_any_address_may_succeed_later() {
    let (here, gone) = (utf8().port(), refusing_port());
    let fails = |ports: &[u16], user: &str, database: &str| {
        refused(config(&hosts(ports)).user(user).dbname(database).connect_timeout(LIMIT))
    };
    for ports in [[here, gone], [gone, here]] {
        let error = fails(&ports, "postgres", "nowhere");
        assert!(error.is_transient(), "the unreachable server may become available: {error}");
    }
    assert!(!fails(&[here, here], "postgres", "nowhere").is_transient());
    let error = fails(&[gone, here], "unknown_role", "postgres");
    assert!(error.is_auth() && !error.is_transient(), "{error}");
}

#[test]
fn c01_hosts_are_tried_in_turn_until_one_succeeds() {
    let server = utf8();
    let unspoken = "x".repeat(64);
    for dsn in [
        hosts(&[refusing_port(), server.port()]),
        hosts(&[refusing_port(), refusing_port(), server.port()]),
        hosts(&[server.port(), refusing_port()]),
        format!("host={unspoken},127.0.0.1 port={} user=postgres dbname=postgres", server.port()),
        format!("host=/no/such/directory,{} port={} user=postgres", server.socket_dir().display(), server.port()),
    ] {
        let mut db = Connection::connect(config(&dsn)).unwrap_or_else(|error| panic!("{dsn}: {error}"));
        assert_eq!(port_of(&mut db), server.port(), "{dsn}");
    }
}

#[test]
fn c01_after_a_server_that_is_starting_up_or_full_the_next_is_tried() {
    for code in ["57P03", "53300"] {
        let peer = Peer::play(vec![Step::startup(), Step::send([msg::error("FATAL", code, "not now")])]);
        let mut db = Connection::connect(config(&hosts(&[peer.addr().port(), utf8().port()]))).unwrap();
        assert_eq!(port_of(&mut db), utf8().port(), "{code}");
        peer.finish();
    }
}

#[test]
fn c01_all_addresses_of_a_name_are_tried() {
    // If `localhost` is ::1 and 127.0.0.1, the server listens only on the second.
    let dsn = format!("host=localhost port={} user=postgres", utf8().port());
    assert_eq!(port_of(&mut Connection::connect(config(&dsn)).unwrap()), utf8().port());
}

#[test]
fn c01_with_hostaddr_the_name_is_not_resolved() {
    let dsn = format!("host=nowhere.invalid hostaddr=127.0.0.1 port={} user=postgres", utf8().port());
    assert_eq!(port_of(&mut Connection::connect(config(&dsn)).unwrap()), utf8().port());
}

#[test]
fn c01_a_silent_host_leaves_time_for_the_next() {
    let (_listener, port) = silent();
    let begin = Instant::now();
    let dsn = config(&hosts(&[port, utf8().port()])).connect_timeout(Duration::from_secs(10));
    let mut db = Connection::connect(dsn).unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1), "it was tried first, for its share");
    assert_eq!(port_of(&mut db), utf8().port());
}

#[test]
fn c01_silent_hosts_share_one_limit() {
    let listeners: Vec<_> = (0..8).map(|_| silent()).collect();
    let ports: Vec<u16> = listeners.iter().map(|(_, port)| *port).collect();
    let begin = Instant::now();
    let error = refused(config(&hosts(&ports)).connect_timeout(Duration::from_secs(4)));
    assert!(begin.elapsed() < Duration::from_secs(30), "4 seconds for all, not for each: {:?}", begin.elapsed());
    for port in ports {
        assert!(format!("{error:#}").contains(&format!("127.0.0.1:{port}")), "{port} is not in: {error}");
    }
}

#[test]
fn c01_the_reported_time_limit_is_not_longer_than_the_attempt() {
    let (_listener, port) = silent();
    let free = refusing_port();
    let others = [free; 7];
    let dsn = config(&hosts(&[&[port], &others[..]].concat())).connect_timeout(Duration::from_secs(2));
    let error = format!("{:#}", refused(dsn));
    assert!(error.contains(&format!("{FIRST_WORD} took longer than 1.7")), "the others keep an eighth of it: {error}");
}

#[test]
fn c01_a_refused_login_is_tried_nowhere_else() {
    let strict = start(Options::new().auth("scram-sha-256", "right"));
    let second = Proxy::start(([127, 0, 0, 1], utf8().port()).into());
    let error = refused(config(&hosts(&[strict.port(), second.port()])).password("wrong"));
    assert_eq!(error.sqlstate(), Some("28P01"), "{error}");
    assert!(error.is_auth() && !error.is_transient(), "{error}");
    assert_eq!(second.accepted(), 0, "another server would refuse the same password");
}

#[test]
fn c01_an_error_names_the_server_and_the_role_and_never_the_password() {
    let strict = start(Options::new().auth("scram-sha-256", "right"));
    let (_listener, silent) = silent();
    for (port, limit, cause) in
        [(strict.port(), LIMIT, "28P01"), (refusing_port(), LIMIT, "refused"), (silent, PATIENCE, FIRST_WORD)]
    {
        let dsn = format!("postgres://unknown_role:s3cr3t@127.0.0.1:{port}/shop");
        let error = refused(config(&dsn).connect_timeout(limit));
        let text = format!("{error:#}");
        for part in ["127.0.0.1", &port.to_string(), "unknown_role", "shop", cause] {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
        assert!(!text.contains("s3cr3t") && !format!("{error:?}").contains("s3cr3t"), "{error:?}");
        assert!(!text.contains('\n'), "{text:?}");
    }
}

#[test]
fn c01_a_peer_that_closes_or_resets_the_connection_is_an_immediate_error() {
    for end in [Step::close, Step::reset] {
        let peer = Peer::play(vec![Step::startup(), end()]);
        let begin = Instant::now();
        let error = refused(config(&peer.url()));
        assert!(begin.elapsed() < LIMIT, "not after the limit of 30 seconds");
        assert!(error.is_transient() && !error.is_timeout(), "{error}");
    }
}

#[test]
fn c01_the_unix_socket_and_tcp_lead_to_the_same_server() {
    let server = utf8();
    let dsn = format!("host={} port={} user=postgres", server.socket_dir().display(), server.port());
    let mut db = Connection::connect(config(&dsn)).unwrap();
    assert_eq!(port_of(&mut db), server.port());
    assert_eq!(ask(&mut db, "SELECT inet_server_addr() IS NULL"), "t");
}
