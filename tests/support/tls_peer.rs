//! A scripted server with TLS. The script of each connection is a closure over an encrypted stream.
//!
//! ```text
//! let peer = TlsPeer::play(&identity, vec![Box::new(|stream| { stream.login(); stream.send(&..); stream.expect_goodbye() })]);
//! connect(&peer.dsn());
//! peer.finish();
//! ```

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use notifyman::rustls::pki_types::pem::PemObject as _;
use notifyman::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use notifyman::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto};

use super::msg;
use super::peer::TIME_LIMIT;
use super::pki::Identity;

pub type TlsScript = Box<dyn FnOnce(&mut TlsPeerStream) + Send>;

/// A server that runs its scripts, one for each connection, in order.
pub struct TlsPeer {
    port: u16,
    thread: JoinHandle<()>,
}

/// The server's end of one connection, after the handshake.
pub struct TlsPeerStream {
    pub stream: StreamOwned<ServerConnection, TcpStream>,
}

impl TlsPeer {
    pub fn play(identity: &Identity, scripts: Vec<TlsScript>) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = thread::spawn(move || {
            for script in scripts {
                let (socket, _) = listener.accept().unwrap();
                socket.set_read_timeout(Some(TIME_LIMIT)).unwrap();
                socket.set_nodelay(true).unwrap();
                script(&mut TlsPeerStream::accept(socket, Arc::clone(&config)));
            }
        });
        Self { port, thread }
    }

    /// Returns a connection string that requires TLS.
    pub fn dsn(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres sslmode=require connect_timeout=60", self.port)
    }

    /// Waits until every script has ended, and panics if one has panicked.
    pub fn finish(self) {
        assert!(self.has_succeeded(), "a script of the server panicked");
    }

    /// Like [`finish`](Self::finish), but returns `false` if a script panicked.
    pub fn has_succeeded(self) -> bool {
        self.thread.join().is_ok()
    }
}

impl TlsPeerStream {
    fn accept(mut socket: TcpStream, config: Arc<ServerConfig>) -> Self {
        let mut request = [0; 8];
        socket.read_exact(&mut request).unwrap();
        assert_eq!(request, [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f], "an SSLRequest");
        socket.write_all(b"S").unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        Self { stream }
    }

    /// Accepts the login.
    pub fn login(&mut self) {
        self.packet();
        self.send(&msg::login());
    }

    /// Accepts the login, and answers a LISTEN.
    pub fn login_and_listen(&mut self) {
        self.login();
        self.message(b'Q');
        self.send(&[msg::command_complete("LISTEN"), msg::ready(b'I')].concat());
    }

    /// Encrypts and sends bytes, in records of up to 16 KiB.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// Encrypts and sends bytes, followed in the same packet by bytes that are not TLS.
    pub fn send_with_garbage(&mut self, bytes: &[u8], garbage: &[u8]) {
        self.stream.conn.writer().write_all(bytes).unwrap();
        let mut all = Vec::new();
        while self.stream.conn.wants_write() {
            self.stream.conn.write_tls(&mut all).unwrap();
        }
        all.extend_from_slice(garbage);
        self.stream.sock.write_all(&all).unwrap();
    }

    /// Updates the traffic keys of both directions.
    pub fn renew_keys(&mut self) {
        self.stream.conn.refresh_traffic_keys().unwrap();
        while self.stream.conn.wants_write() {
            self.stream.conn.write_tls(&mut self.stream.sock).unwrap();
        }
    }

    /// Reads a length and a body.
    pub fn packet(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        self.stream.read_exact(&mut body).unwrap();
        body
    }

    /// Reads a message with this tag.
    pub fn message(&mut self, tag: u8) -> Vec<u8> {
        let mut got = [0];
        self.stream.read_exact(&mut got).unwrap();
        assert_eq!(got[0] as char, tag as char);
        self.packet()
    }

    /// Reads Terminate, and then the close_notify alert.
    pub fn expect_goodbye(&mut self) {
        self.message(b'X');
        // An end of the stream without a close_notify would be an error.
        assert_eq!(self.stream.read(&mut [0; 1]).expect("a close_notify"), 0);
    }
}
