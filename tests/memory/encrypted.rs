//! The memory of an idle connection with TLS, also after a burst.

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
use crate::{counted, msg, uncounted};

type ServerEnd = StreamOwned<ServerConnection, TcpStream>;

/// The most bytes of an idle connection: those of a rustls session, and 300 of this crate.
const IDLE_MAX: i64 = 4_500;

/// A server with TLS, whose allocations are not counted.
struct Server {
    config: Config,
    ends: Receiver<ServerEnd>,
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
        // PostgreSQL sends no tickets.
        tls.send_tls13_tickets = 0;
        let tls = Arc::new(tls);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, ends) = mpsc::channel();
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let end = accept(socket, &tls);
                if sender.send(end).is_err() {
                    return;
                }
            }
        });
        let config = format!("host=127.0.0.1 port={port} user=app dbname=shop sslmode=require");
        Self { config: Config::without_env(&config).unwrap(), ends }
    }

    fn open(&self) -> (Connection, ServerEnd) {
        let mut db = Connection::connect(&self.config).unwrap();
        db.listen([CHANNEL]).unwrap();
        (db, uncounted(|| self.ends.recv_timeout(Duration::from_secs(60)).unwrap()))
    }
}

fn accept(mut socket: TcpStream, tls: &Arc<ServerConfig>) -> ServerEnd {
    socket.read_exact(&mut [0; 8]).unwrap();
    socket.write_all(b"S").unwrap();
    let mut end = StreamOwned::new(ServerConnection::new(Arc::clone(tls)).unwrap(), socket);
    log_in(&mut end, 1).unwrap();
    end
}

fn send(end: &mut ServerEnd, bytes: &[u8]) {
    end.write_all(bytes).unwrap();
    end.flush().unwrap();
}

#[test]
fn an_idle_connection_has_no_buffer() {
    let server = Server::start();
    let held = |connections: usize| {
        let (kept, counted) = counted(|| {
            let mut nm = NotificationManager::new([]).timeout(Duration::from_millis(1));
            let mut ends = uncounted(|| Vec::with_capacity(connections));
            for _ in 0..connections {
                let (db, end) = server.open();
                nm.insert(db);
                ends.push(end);
            }
            assert!(nm.next().unwrap().is_none(), "the connections must be idle");
            (nm, ends)
        });
        uncounted(|| drop(kept.1));
        counted.bytes_current
    };
    held(1);
    let each = (held(256) - held(128)) / 128;
    println!("{each} bytes");
    assert!(each <= IDLE_MAX, "{each} bytes");
}

#[test]
fn after_a_burst_a_connection_has_no_buffer_either() {
    let server = Server::start();
    let (connections, mut ends): (Vec<_>, Vec<_>) = (0..100).map(|_| server.open()).unzip();
    let mut nm = NotificationManager::new(connections).timeout(Duration::from_millis(200));
    let receive = |nm: &mut NotificationManager, expected: usize| {
        let mut received = 0;
        while received < expected {
            received += nm.next().unwrap().map_or(0, |(_, batch)| batch.len());
        }
    };
    let frame = msg::notification(1, CHANNEL, &"x".repeat(500));
    ends.iter_mut().for_each(|end| uncounted(|| send(end, &frame)));
    receive(&mut nm, 100);
    let burst = frame.repeat(200);
    let ((), counted) = counted(|| {
        ends.iter_mut().for_each(|end| uncounted(|| send(end, &burst)));
        receive(&mut nm, 100 * 200);
    });
    println!("{counted:?}");
    // There is an allocation for each record, and for each partial record, but not for each notification.
    assert!(counted.count_total < 100 * 200 / 10, "{counted:?}");
    // The loop keeps up to 64 spare buffers for partial frames.
    assert!(counted.bytes_current < 64 * 700, "{counted:?}");
}
