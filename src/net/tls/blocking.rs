//! TLS over a blocking socket, for a peer that is no PostgreSQL server.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::encryption::{PROVIDER, roots};
use super::fault;
use super::files::{self, Roots};
use crate::error::{TlsError, TlsErrorKind};

/// An encrypted stream whose peer was verified: its certificate is signed by a trusted authority, for the name of the host.
///
/// Calls block for as long as calls of the socket do, so the socket must have timeouts once it is connected.
pub(crate) struct BlockingTls(StreamOwned<ClientConnection, TcpStream>);

impl BlockingTls {
    /// Begins a session over a connected socket and completes its handshake. `root_file` has the trusted authorities in PEM
    /// format; without it, those of the operating system are trusted. `left` returns the time that is left for the handshake.
    ///
    /// # Errors
    /// Returns a [`TlsError`] if the file is invalid or the peer cannot be verified; else the error of the socket, or that of `left`.
    pub(crate) fn connect(
        socket: TcpStream,
        host: &str,
        root_file: Option<&Path>,
        left: impl Fn() -> io::Result<Duration>,
    ) -> io::Result<Self> {
        let session = session(host, root_file).map_err(io::Error::from)?;
        let mut stream = StreamOwned::new(session, socket);
        let mut limited = LimitedSocket(&mut stream.sock, left);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut limited).map_err(|error| translate(error, true))?;
        }
        Ok(Self(stream))
    }
}

/// A socket of which each call takes at most the time that is left, so that all of them together do.
struct LimitedSocket<'s, L>(&'s mut TcpStream, L);

impl<L: Fn() -> io::Result<Duration>> Read for LimitedSocket<'_, L> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.0.set_read_timeout(Some(self.1()?))?;
        self.0.read(space)
    }
}

impl<L: Fn() -> io::Result<Duration>> Write for LimitedSocket<'_, L> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.set_write_timeout(Some(self.1()?))?;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Read for BlockingTls {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self.0.read(space) {
            // Replies contain their length, so a truncated one is detected without a close_notify.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            other => other.map_err(|error| translate(error, false)),
        }
    }
}

impl Write for BlockingTls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|error| translate(error, false))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(|error| translate(error, false))
    }
}

fn session(host: &str, root_file: Option<&Path>) -> Result<ClientConnection, TlsError> {
    let from = match root_file {
        Some(path) => Roots::File(files::read(path.to_owned(), "the root file")?),
        None => Roots::System,
    };
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots(&from)?.into_iter().flatten());
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        let message = format!("no certificate can be valid for {host:?}: use the host's DNS name");
        TlsError::new(TlsErrorKind::WrongName, message)
    })?;
    let config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .map_err(|error| fault::of(error, true))?
        .with_root_certificates(store)
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), name).map_err(|error| fault::of(error, true))
}

/// Replaces an error of rustls by the crate's own, which says what to do.
fn translate(error: io::Error, in_handshake: bool) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => fault::of(inner.clone(), in_handshake).into(),
        None => error,
    }
}
