//! Tests of the support modules, with plain sockets. If another test fails for no clear reason, run these first.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Cluster, Options, Peer, Proxy, Step, cluster, msg};

const LIMIT: Duration = crate::support::server::LIMIT;

mod clusters {
    use super::*;

    #[test]
    fn a_cluster_answers_on_tcp_and_on_its_socket_and_is_removed_when_dropped() {
        let cluster = Cluster::start(Options::new()).unwrap();
        let directory = cluster.socket_dir().to_owned();
        assert_eq!(cluster.url(), format!("postgres://postgres@127.0.0.1:{}/postgres", cluster.port()));
        assert_eq!(Session::log_in(tcp(cluster.port())).query("select 6 * 7"), "42");
        let socket = UnixStream::connect(directory.join(format!(".s.PGSQL.{}", cluster.port()))).unwrap();
        assert_eq!(Session::log_in(socket).query("select 6 * 7"), "42");

        drop(cluster);
        assert!(!directory.exists());
    }

    #[test]
    fn a_cluster_restarts_on_its_port_with_its_data_after_any_kind_of_stop() {
        let mut cluster = Cluster::start(Options::new()).unwrap();
        let port = cluster.port();
        Session::log_in(tcp(port)).query("create table kept (n int)");
        Session::log_in(tcp(port)).query("checkpoint");
        for stop in [Cluster::stop, Cluster::stop_immediate, Cluster::kill] {
            let mut session = Session::log_in(tcp(port));
            stop(&mut cluster).unwrap();
            assert_eq!(cluster.pid(), None);
            session.0.read_to_end(&mut Vec::new()).unwrap();
            assert_eq!(TcpStream::connect(local(port)).unwrap_err().kind(), ErrorKind::ConnectionRefused);

            cluster.restart().unwrap();
            assert_eq!(Session::log_in(tcp(port)).query("select count(*) from kept"), "0");
        }
        assert!(cluster.log().contains("database system is ready to accept connections"));
    }

    #[test]
    fn clusters_can_start_concurrently() {
        let start = || Cluster::start(Options::new().max_connections(10)).unwrap();
        let starts: Vec<_> = (0..4).map(|_| thread::spawn(start)).collect();
        let clusters: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
        for cluster in &clusters {
            let mut session = Session::log_in(tcp(cluster.port()));
            assert_eq!(session.query("show data_directory"), cluster.data_dir().to_str().unwrap());
        }
    }

    #[test]
    fn options_determine_the_login() {
        for (method, request) in
            [("scram-sha-256", msg::auth_sasl(&["SCRAM-SHA-256"])), ("password", msg::auth_cleartext())]
        {
            let options = Options::new().auth(method, "a'b").hba("host all freely 127.0.0.1/32 trust");
            let cluster = Cluster::start(options).unwrap();
            let mut session = Session::new(tcp(cluster.port()), "postgres");
            assert_eq!(session.message(), (b'R', request[5..].to_vec()), "{method}");
            if method == "password" {
                session.send(&msg::raw(b'p', b"a'b\0"));
                assert_eq!(session.until_ready().unwrap(), "");
            }
            // The rule accepts this role without a password, but the role does not exist.
            let refusal = Session::new(tcp(cluster.port()), "freely").until_ready().unwrap_err();
            assert!(refusal.contains("C28000"), "{refusal}");
        }
        let cluster = Cluster::start(Options::new().auth("md5", "a'b")).unwrap();
        let (tag, body) = Session::new(tcp(cluster.port()), "postgres").message();
        assert_eq!((tag, &body[..4]), (b'R', &[0, 0, 0, 5][..]));
    }

    #[test]
    fn options_determine_encoding_settings_and_files() {
        for encoding in ["SQL_ASCII", "LATIN1"] {
            let options = Options::new().encoding(encoding).setting("cluster_name", "a'b c").file("a.key", "secret");
            let cluster = Cluster::start(options).unwrap();
            let mut session = Session::log_in(tcp(cluster.port()));
            assert_eq!(session.query("show server_encoding"), encoding);
            assert_eq!(session.query("show cluster_name"), "a'b c");
            assert_eq!(session.query("select pg_read_file('a.key')"), "secret");
        }
    }

    #[test]
    fn the_error_of_a_failed_start_contains_the_log() {
        let error = Cluster::start(Options::new().setting("no_such_setting", "1")).unwrap_err().to_string();
        assert!(error.contains(r#"unrecognized configuration parameter "no_such_setting""#), "{error}");
    }

    #[test]
    fn a_paused_session_continues_when_it_is_resumed() {
        let cluster = Cluster::start(Options::new()).unwrap();
        let mut listener = Session::log_in(tcp(cluster.port()));
        let pid = listener.query("select pg_backend_pid()").parse().unwrap();
        cluster::signal(pid, "STOP").unwrap();
        listener.send(&msg::raw(b'Q', b"select 1\0"));
        assert!(is_silent(&mut listener.0));
        cluster::signal(pid, "CONT").unwrap();
        assert_eq!(listener.until_ready().unwrap(), "1");
        assert!(cluster::signal(pid, "NOSUCH").is_err());
    }

    #[test]
    fn a_paused_server_still_stops_quickly() {
        let mut cluster = Cluster::start(Options::new()).unwrap();
        cluster::signal(cluster.pid().unwrap(), "STOP").unwrap();
        let begin = Instant::now();
        cluster.stop().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(20), "must be less than the time limit of 30 seconds");
    }

    #[test]
    fn a_cluster_is_removed_if_its_process_is_killed() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "support_selftest::clusters::holds_a_cluster_until_killed", "--ignored", "--nocapture"])
            .env("NOTIFYMAN_TEST_HOLD", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.map(Result::unwrap).find(|line| line.starts_with("holds ")).unwrap();
        let (port, directory) = line["holds ".len()..].split_once(' ').unwrap();
        let (port, directory) = (port.parse().unwrap(), Path::new(directory));
        assert_eq!(Session::log_in(tcp(port)).query("select 1"), "1");
        let prefix = format!("notifyman-{}-", child.id());
        let left = || {
            let entries = directory.parent().unwrap().read_dir().unwrap();
            entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(&prefix)).count()
        };
        assert_eq!(left(), 2, "the cluster and its template");

        child.kill().unwrap();
        child.wait().unwrap();
        eventually(|| left() == 0 && TcpStream::connect(local(port)).is_err());
    }

    #[test]
    #[ignore = "another test runs this in a process that it kills"]
    fn holds_a_cluster_until_killed() {
        if std::env::var_os("NOTIFYMAN_TEST_HOLD").is_some() {
            let cluster = Cluster::start(Options::new()).unwrap();
            eprintln!("holds {} {}", cluster.port(), cluster.socket_dir().display());
            thread::sleep(Duration::from_secs(60));
        }
    }
}

mod proxies {
    use super::*;

    /// Returns a peer that sends "abcdef" when the test opens its gate, a proxy in front of it, and a client of the proxy.
    fn behind_a_proxy() -> (Peer, Proxy, TcpStream, crate::support::peer::Gate) {
        let (go, gate) = Step::gate();
        let peer = Peer::play(vec![
            gate,
            Step::send(["abcdef"]),
            Step::run("read", |stream| stream.read(1).map(drop).or(Ok(()))),
        ]);
        let proxy = Proxy::start(peer.addr());
        let client = tcp(proxy.port());
        proxy.wait_open(1);
        (peer, proxy, client, go)
    }

    #[test]
    fn bytes_are_forwarded_and_counted() {
        let peer = Peer::play(vec![Step::startup(), Step::login_ok(), Step::serve()]);
        let proxy = Proxy::start(peer.addr());
        let mut session = Session::log_in(tcp(proxy.port()));
        session.send(&msg::raw(b'Q', b"listen a\0"));
        assert_eq!(session.until_ready().unwrap(), "");
        drop(session);
        assert_eq!(peer.finish()[0].queries(), ["listen a"]);
        proxy.wait_open(0);
        assert_eq!(proxy.accepted(), 1);
        let reply = [msg::login(), msg::command_complete("LISTEN"), msg::ready(b'I')].concat();
        assert_eq!(proxy.bytes_from_server(), reply.len() as u64);
        assert_eq!(proxy.bytes_from_client(), (startup("postgres").len() + 14) as u64);
    }

    #[test]
    fn a_black_hole_is_silent_and_loses_nothing() {
        let (_peer, proxy, mut client, go) = behind_a_proxy();
        proxy.black_hole();
        go.open();
        assert!(is_silent(&mut client));
        proxy.resume();
        assert_eq!(read_exactly(&mut client, 6), "abcdef");
    }

    #[test]
    fn a_cut_by_fin_ends_the_stream_after_the_forwarded_bytes() {
        let (peer, proxy, mut client, go) = behind_a_proxy();
        go.open();
        eventually(|| proxy.bytes_from_server() == 6);
        proxy.cut_fin();
        assert_eq!(read_all(&mut client).unwrap(), "abcdef");
        drop(client);
        proxy.wait_open(0);
        peer.finish();
    }

    #[test]
    fn a_cut_by_rst_resets_both_ends_even_in_a_black_hole() {
        for black_hole in [false, true] {
            let (peer, proxy, mut client, go) = behind_a_proxy();
            if black_hole {
                proxy.black_hole();
                go.open();
            }
            proxy.cut_rst();
            assert_eq!(read_all(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
            assert_eq!(proxy.open(), 0);
            drop(peer);
        }
    }

    #[test]
    fn a_stream_can_be_cut_after_any_byte() {
        for n in 0..=6 {
            let (_peer, proxy, mut client, go) = behind_a_proxy();
            proxy.cut_after(n);
            go.open();
            if n == 6 {
                assert_eq!(read_exactly(&mut client, 6), "abcdef");
            }
            assert_eq!(read_all(&mut client).unwrap(), "abcdef"[..n as usize % 6]);
        }
    }

    #[test]
    fn a_slow_stream_loses_nothing() {
        let (_peer, proxy, mut client, go) = behind_a_proxy();
        proxy.slow(2, Duration::from_millis(30));
        let begin = Instant::now();
        go.open();
        assert_eq!(read_exactly(&mut client, 6), "abcdef");
        assert!(begin.elapsed() >= Duration::from_millis(60));

        let (_peer, proxy, mut client, go) = behind_a_proxy();
        proxy.one_byte_at_a_time();
        go.open();
        assert_eq!(read_exactly(&mut client, 6), "abcdef");
        assert_eq!(proxy.bytes_from_server(), 6);
    }

    #[test]
    fn injected_bytes_reach_the_client() {
        let (_peer, proxy, mut client, go) = behind_a_proxy();
        proxy.inject(b"xyz");
        go.open();
        assert_eq!(read_exactly(&mut client, 9), "xyzabcdef");
    }

    #[test]
    fn a_refusing_proxy_keeps_its_connections_and_refuses_new_ones() {
        let (_peer, proxy, mut client, go) = behind_a_proxy();
        for _ in 0..3 {
            eventually_refused(|| {
                proxy.resume();
                proxy.refuse();
                proxy.addr()
            });
            proxy.resume();
            TcpStream::connect(proxy.addr()).unwrap();
        }
        go.open();
        assert_eq!(read_exactly(&mut client, 6), "abcdef");
    }

    #[test]
    fn later_connections_go_to_the_new_upstream() {
        let (_peer, proxy, mut client, go) = behind_a_proxy();
        let other = Peer::play(vec![Step::send(["other"])]);
        proxy.set_upstream(other.addr());
        assert_eq!(read_all(&mut tcp(proxy.port())).unwrap(), "other");
        go.open();
        assert_eq!(read_exactly(&mut client, 6), "abcdef");
    }

    #[test]
    fn a_dropped_proxy_ends_quickly_in_any_state() {
        for fault in [Proxy::black_hole, Proxy::refuse, |it: &Proxy| it.slow(1, Duration::from_secs(60))] {
            let (_peer, proxy, mut client, go) = behind_a_proxy();
            fault(&proxy);
            go.open();
            let begin = Instant::now();
            drop(proxy);
            assert!(begin.elapsed() < Duration::from_secs(30), "must be less than the pause of a minute");
            let _ = read_all(&mut client);
        }
    }
}

mod peers {
    use super::*;

    #[test]
    fn a_script_runs_and_the_received_messages_are_returned() {
        let (go, gate) = Step::gate();
        let (here, mark) = Step::mark();
        let peer = Peer::play(vec![
            Step::startup(),
            Step::login_ok(),
            Step::expect_query("listen a"),
            Step::send([msg::command_complete("LISTEN"), msg::ready(b'I')]),
            mark,
            gate,
            Step::send([msg::notification(7, "a", "hello")]),
            Step::expect_eof(),
        ]);
        let mut session = Session::new(tcp(peer.addr().port()), "app");
        assert_eq!(session.until_ready().unwrap(), "");
        assert_eq!(session.query("listen a"), "");
        here.wait();
        go.open();
        assert_eq!(session.message(), (b'A', b"\0\0\0\x07a\0hello\0".to_vec()));
        session.send(&msg::raw(b'X', b""));
        drop(session);
        let received = peer.finish().remove(0);
        assert_eq!(received.version, 3 << 16);
        assert_eq!(received.startup["user"], "app");
        assert_eq!(received.queries(), ["listen a"]);
    }

    #[test]
    fn each_connection_has_its_script_and_further_ones_are_refused() {
        let addr = eventually_refused(|| {
            let peer = Peer::play_each(vec![vec![Step::send(["one"])], vec![Step::send(["two"])]]);
            let addr = peer.addr();
            assert_eq!(read_all(&mut tcp(addr.port())).unwrap(), "one");
            assert_eq!(read_all(&mut tcp(addr.port())).unwrap(), "two");
            peer.finish();
            addr
        });

        let again = Peer::on(addr, vec![vec![Step::send(["three"])]]);
        assert_eq!(read_all(&mut tcp(addr.port())).unwrap(), "three");
        again.finish();
    }

    #[test]
    fn a_peer_can_listen_on_a_unix_socket() {
        let directory = std::env::temp_dir().join(format!("notifyman-peer-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let peer = Peer::play_unix(&directory, 5432, vec![vec![Step::startup(), Step::login_ok(), Step::expect_eof()]]);
        let session = Session::log_in(UnixStream::connect(directory.join(".s.PGSQL.5432")).unwrap());
        drop(session);
        peer.finish();
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn tls_is_refused_and_a_cancel_request_is_read() {
        let peer =
            Peer::play_each(vec![vec![Step::startup()], vec![Step::expect_cancel()], vec![Step::ssl_request(b"S")]]);
        let ssl_request = [0, 0, 0, 8, 4, 210, 22, 47];
        let mut client = tcp(peer.addr().port());
        client.write_all(&ssl_request).unwrap();
        assert_eq!(read_exactly(&mut client, 1), "N");
        client.write_all(&startup("postgres")).unwrap();
        let cancel = [16, 80_877_102, 4242, 1].map(i32::to_be_bytes).concat();
        tcp(peer.addr().port()).write_all(&cancel).unwrap();
        let mut client = tcp(peer.addr().port());
        client.write_all(&ssl_request).unwrap();
        assert_eq!(read_exactly(&mut client, 1), "S");
        peer.finish();
    }

    #[test]
    fn a_reset_is_a_reset_and_a_close_is_an_end() {
        let close = vec![Step::send(["a"]), Step::close(), Step::expect(b'X')];
        let peer = Peer::play_each(vec![close, vec![Step::reset()]]);
        let mut client = tcp(peer.addr().port());
        assert_eq!(read_all(&mut client).unwrap(), "a");
        client.write_all(&msg::raw(b'X', b"")).unwrap();
        assert_eq!(read_all(&mut tcp(peer.addr().port())).unwrap_err().kind(), ErrorKind::ConnectionReset);
        peer.finish();
    }

    #[test]
    #[should_panic(expected = r#"connection 1, step 2 (expect query "listen a"): got query "listen b""#)]
    fn a_client_that_sends_something_else_fails_the_test() {
        let peer = Peer::play(vec![Step::startup(), Step::expect_query("listen a")]);
        let mut session = Session::new(tcp(peer.addr().port()), "postgres");
        session.send(&msg::raw(b'Q', b"listen b\0"));
        peer.finish();
    }

    #[test]
    #[should_panic(expected = "connection 1, step 2 (expect 'Q'): the client closed instead")]
    fn a_client_that_closes_early_fails_the_test() {
        let peer = Peer::play(vec![Step::startup(), Step::expect_any_query()]);
        drop(Session::new(tcp(peer.addr().port()), "postgres"));
        peer.finish();
    }
}

/// A minimal client: plain messages over any stream.
struct Session<S>(S);

impl<S: Stream> Session<S> {
    /// Sends a StartupMessage, and reads nothing.
    fn new(stream: S, user: &str) -> Self {
        let mut session = Session(stream);
        session.0.set_limit(LIMIT);
        session.send(&startup(user));
        session
    }

    fn log_in(stream: S) -> Self {
        let mut session = Self::new(stream, "postgres");
        assert_eq!(session.until_ready().unwrap(), "");
        session
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn message(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length - 4];
        self.0.read_exact(&mut body).unwrap();
        (head[0], body)
    }

    /// Returns the value of the only row and column, if there is one; an error contains the fields of ErrorResponse.
    fn until_ready(&mut self) -> Result<String, String> {
        let mut value = String::new();
        loop {
            match self.message() {
                (b'Z', _) => return Ok(value),
                (b'D', row) => value = String::from_utf8_lossy(&row[6..]).into_owned(),
                (b'E', fields) => return Err(String::from_utf8_lossy(&fields).replace('\0', " ")),
                _ => {}
            }
        }
    }

    fn query(&mut self, sql: &str) -> String {
        self.send(&msg::raw(b'Q', format!("{sql}\0").as_bytes()));
        self.until_ready().unwrap()
    }
}

trait Stream: Read + Write {
    fn set_limit(&self, limit: Duration);
}

impl Stream for TcpStream {
    fn set_limit(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).unwrap();
    }
}

impl Stream for UnixStream {
    fn set_limit(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).unwrap();
    }
}

/// Closes a listener, up to ten times, until connections to its address are refused: another test may have been given the
/// same port.
fn eventually_refused(close: impl Fn() -> SocketAddr) -> SocketAddr {
    for _ in 0..10 {
        let addr = close();
        if let Err(error) = TcpStream::connect(addr) {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            return addr;
        }
    }
    panic!("connections are accepted");
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect(local(port)).unwrap();
    stream.set_limit(LIMIT);
    stream
}

/// A StartupMessage of protocol 3.0.
fn startup(user: &str) -> Vec<u8> {
    let parameters = format!("user\0{user}\0database\0postgres\0\0");
    let length = parameters.len() as i32 + 8;
    [&length.to_be_bytes(), &(3i32 << 16).to_be_bytes(), parameters.as_bytes()].concat()
}

fn read_exactly(stream: &mut TcpStream, n: usize) -> String {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn read_all(stream: &mut TcpStream) -> io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).map(|_| text)
}

/// Returns `true` if nothing arrives for a tenth of a second. A read with a time limit can be interrupted at any time.
fn is_silent(stream: &mut impl Stream) -> bool {
    stream.set_limit(Duration::from_millis(100));
    let error = loop {
        match stream.read(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => break other.err(),
        }
    };
    stream.set_limit(LIMIT);
    error.is_some_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn eventually(condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LIMIT, "not true within {LIMIT:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

mod engines {
    use super::*;
    use crate::support::{EngineServer, engine};

    #[test]
    fn an_engine_forgets_when_killed_unless_it_has_saved_and_is_removed_when_dropped() {
        for kind in engine::kinds() {
            let mut engine = EngineServer::start(kind, []);
            let directory = engine.path().to_owned();
            assert_eq!(engine.ask_all(["SET a 1", "SAVE", "SET a 2", "GET a"]), ["OK", "OK", "OK", "2"]);
            engine.kill();
            engine.restart();
            assert_eq!(engine.ask("GET a"), "1");
            engine.ask("FLUSHALL");
            engine.kill();
            engine.restart();
            assert_eq!(engine.ask("GET a"), "1", "only SAVE writes");
            drop(engine);
            assert!(!directory.exists());
        }
    }

    #[test]
    fn an_engine_can_be_paused_and_followed() {
        for kind in engine::kinds() {
            let engine = EngineServer::start(kind, ["appendonly no"]);
            engine.ask("SET a 1");
            let replica = engine.start_replica(kind);
            assert_eq!(replica.ask("GET a"), "1");
            assert!(replica.ask("SET a 2").starts_with("READONLY"));
            engine.pause();
            let mut socket = tcp(engine.port);
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            socket.write_all(b"PING\r\n").unwrap();
            assert!(socket.read(&mut [0; 8]).is_err());
            engine.resume();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            assert_eq!(socket.read(&mut [0; 8]).unwrap(), 7);
        }
    }
}
