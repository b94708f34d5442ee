//! The same in TLS: what a connection holds that has nothing to say, and that it holds no more after a burst.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use notifyman::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use notifyman::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto};
use notifyman::{Config, Connection, NotificationManager};

use crate::server::{CHANNEL, log_in};
use crate::{beside, counted, msg};

type Line = StreamOwned<ServerConnection, TcpStream>;

/// What rustls holds for a session, and 300 bytes of ours.
const AN_IDLE_ONE: i64 = 4_500;

/// A server that speaks TLS; what it allocates isn't counted.
struct Server {
    config: Config,
    lines: Receiver<Line>,
}

impl Server {
    fn start() -> Self {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
        let mut tls = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        // As PostgreSQL.
        tls.send_tls13_tickets = 0;
        let tls = Arc::new(tls);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let line = greet(socket, &tls);
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let config = format!("host=127.0.0.1 port={port} user=app dbname=shop sslmode=require");
        Self { config: Config::without_env(&config).unwrap(), lines }
    }

    fn open(&self) -> (Connection, Line) {
        let mut db = Connection::connect(&self.config).unwrap();
        db.listen([CHANNEL]).unwrap();
        (db, beside(|| self.lines.recv_timeout(Duration::from_secs(60)).unwrap()))
    }
}

fn greet(mut socket: TcpStream, tls: &Arc<ServerConfig>) -> Line {
    socket.read_exact(&mut [0; 8]).unwrap();
    socket.write_all(b"S").unwrap();
    let mut line = StreamOwned::new(ServerConnection::new(Arc::clone(tls)).unwrap(), socket);
    log_in(&mut line, 1).unwrap();
    line
}

fn say(line: &mut Line, bytes: &[u8]) {
    line.write_all(bytes).unwrap();
    line.flush().unwrap();
}

#[test]
fn an_idle_connection_has_no_buffer() {
    let server = Server::start();
    let held = |connections: usize| {
        let (kept, counted) = counted(|| {
            let mut nm = NotificationManager::new([]).timeout(Duration::from_millis(1));
            let mut lines = beside(|| Vec::with_capacity(connections));
            for _ in 0..connections {
                let (db, line) = server.open();
                nm.insert(db);
                lines.push(line);
            }
            assert!(nm.next().unwrap().is_none(), "they are idle");
            (nm, lines)
        });
        beside(|| drop(kept.1));
        counted.bytes_current
    };
    held(1);
    let each = (held(256) - held(128)) / 128;
    println!("{each} bytes");
    assert!(each <= AN_IDLE_ONE, "{each} bytes");
}

#[test]
fn after_a_burst_it_has_none_either() {
    let server = Server::start();
    let (connections, mut lines): (Vec<_>, Vec<_>) = (0..100).map(|_| server.open()).unzip();
    let mut nm = NotificationManager::new(connections).timeout(Duration::from_millis(200));
    let hear = |nm: &mut NotificationManager, expected: usize| {
        let mut heard = 0;
        while heard < expected {
            heard += nm.next().unwrap().map_or(0, |(_, batch)| batch.len());
        }
    };
    let frame = msg::notification(1, CHANNEL, &"x".repeat(500));
    lines.iter_mut().for_each(|line| beside(|| say(line, &frame)));
    hear(&mut nm, 100);
    let burst = frame.repeat(200);
    let ((), counted) = counted(|| {
        lines.iter_mut().for_each(|line| beside(|| say(line, &burst)));
        hear(&mut nm, 100 * 200);
    });
    println!("{counted:?}");
    // As many as there are records, and more where one is torn; not one for each notification.
    assert!(counted.count_total < 100 * 200 / 10, "{counted:?}");
    // The loop's own: spares for parts of frames, 64 at the most.
    assert!(counted.bytes_current < 64 * 700, "{counted:?}");
}
