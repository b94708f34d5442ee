//! The server's end of a session's stream: in clear, or in TLS from the client's wish for it on.
//!
//! What PostgreSQL does in TLS is done here, too: it gives no tickets, and puts at most 8 KiB into a record. It offers
//! one cipher suite, which all clients know, so that all do the same work.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, version};
use socket2::{Domain, Socket};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// What PostgreSQL encrypts at once: the size of its buffer.
const RECORD: usize = 8 * 1024;
/// What a record has beside that, as rustls counts it.
const RECORD_HEADER: usize = 5;

/// How to encrypt: with a certificate of its own, for which nobody vouches.
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
    Clear,
    /// The client must ask for it first.
    Unasked(Arc<ServerConfig>),
    Tls(Box<Tls>),
}

impl Stream {
    /// Over a socket that was accepted; `encryption` where nobody is to be served without.
    pub fn new(socket: Socket, encryption: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        if socket.domain()? != Domain::UNIX {
            socket.set_tcp_nodelay(true)?;
        }
        let filter = encryption.map_or(Filter::Clear, |config| Filter::Unasked(Arc::clone(config)));
        Ok(Self { socket, filter })
    }

    /// Whether a read that filled less than it was lent has taken all there was.
    pub fn short_read_means_drained(&self) -> bool {
        matches!(self.filter, Filter::Clear)
    }

    /// Encrypts what is to be sent, if it must be, so that sending costs no more than in clear; says whether it did.
    /// Then writing nothing sends it.
    pub fn encrypt_before(&mut self, parts: impl Iterator<Item = impl AsRef<[u8]>>) -> io::Result<bool> {
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
        if let Filter::Unasked(config) = &self.filter {
            let mut request = [0; SSL_REQUEST.len()];
            // It is written at once, so that it is there at once.
            (&self.socket).read_exact(&mut request)?;
            if request != SSL_REQUEST {
                return Err(io::Error::other("a client doesn't ask for TLS"));
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
    /// In TLS bytes count as written once the system has taken them: until then it is the same bytes that come again.
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
    /// How many bytes were encrypted and not yet taken by the system.
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
