//! The server's end of a session's stream: unencrypted, or with TLS after the client's request.
//!
//! As in PostgreSQL, there are no tickets, and a record contains at most 8 KiB. Only one cipher suite is offered, so that
//! all clients do the same work.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, version};
use socket2::{Domain, Socket};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// The plaintext of one record: the size of PostgreSQL's buffer.
const RECORD: usize = 8 * 1024;
/// The rest of a record, as rustls counts it.
const RECORD_HEADER: usize = 5;

/// Returns a TLS configuration with a self-signed certificate.
pub fn encryption() -> io::Result<Arc<ServerConfig>> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let one = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    let mut config = ServerConfig::builder_with_provider(Arc::new(CryptoProvider {
        cipher_suites: one,
        ..ring::default_provider()
    }))
    .with_protocol_versions(&[&version::TLS13])
    .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key))
    .map_err(io::Error::other)?;
    config.send_tls13_tickets = 0;
    config.max_fragment_size = Some(RECORD + RECORD_HEADER);
    Ok(Arc::new(config))
}

/// One session's stream, which never blocks.
pub struct Stream {
    socket: Socket,
    filter: Filter,
}

enum Filter {
    Unencrypted,
    /// The client has not requested TLS yet.
    Pending(Arc<ServerConfig>),
    Tls(Box<Tls>),
}

impl Stream {
    /// Creates a stream over an accepted socket; with `encryption`, TLS is required.
    pub fn new(socket: Socket, encryption: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        if socket.domain()? != Domain::UNIX {
            socket.set_tcp_nodelay(true)?;
        }
        let filter = encryption.map_or(Filter::Unencrypted, |config| Filter::Pending(Arc::clone(config)));
        Ok(Self { socket, filter })
    }

    /// Returns `true` if a read that did not fill the buffer has read everything that is available.
    pub fn is_drained_by_short_read(&self) -> bool {
        matches!(self.filter, Filter::Unencrypted)
    }

    /// Encrypts bytes in advance, so that sending them costs no more than without TLS; returns `false` without TLS. An
    /// empty write then sends them.
    pub fn encrypt_in_advance(&mut self, parts: impl Iterator<Item = impl AsRef<[u8]>>) -> io::Result<bool> {
        let Filter::Tls(tls) = &mut self.filter else { return Ok(false) };
        for part in parts {
            tls.session.writer().write_all(part.as_ref())?;
        }
        Ok(true)
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Read for Stream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if let Filter::Pending(config) = &self.filter {
            let mut request = [0; SSL_REQUEST.len()];
            // The client writes the request in one piece, so it is available in one piece.
            (&self.socket).read_exact(&mut request)?;
            if request != SSL_REQUEST {
                return Err(io::Error::other("a client did not request TLS"));
            }
            let mut session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            session.set_buffer_limit(None);
            (&self.socket).write_all(b"S")?;
            self.filter = Filter::Tls(Box::new(Tls { session, unsent: 0 }));
        }
        match &mut self.filter {
            Filter::Tls(tls) => tls.read(&self.socket, space),
            _ => (&self.socket).read(space),
        }
    }
}

impl Write for Stream {
    /// Writes bytes. With TLS, bytes count as written once the system has accepted the records; until then the caller
    /// passes the same bytes again.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.filter {
            Filter::Tls(tls) => tls.write(&self.socket, bytes),
            _ => (&self.socket).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Tls {
    session: ServerConnection,
    /// The number of bytes that are encrypted and not accepted by the system.
    unsent: usize,
}

impl Tls {
    fn read(&mut self, mut socket: &Socket, space: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(space) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            if self.session.read_tls(&mut socket)? == 0 {
                return Ok(0);
            }
            self.session.process_new_packets().map_err(io::Error::other)?;
            self.flush(socket)?;
        }
    }

    fn write(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        if self.unsent == 0 {
            self.unsent = self.session.writer().write(bytes)?;
        }
        self.flush(socket)?;
        Ok(std::mem::take(&mut self.unsent))
    }

    fn flush(&mut self, mut socket: &Socket) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut socket)?;
        }
        Ok(())
    }
}
