//! The filter: ciphertext on the socket's side, plaintext on ours.
//!
//! It never blocks. Whoever reads goes on until this would block, since a socket without bytes may still have
//! plaintext here; and a socket that is ready may have none, where what came were the two sides' own affairs (tickets,
//! new keys), which are dealt with unseen.
//!
//! It keeps no plaintext of ours: bytes that were encrypted count as written once the system has taken them.

use std::fmt;
use std::io::{self, Read, Write};

use rustls::ClientConnection;

use super::encryption::Encryption;
use super::{end_point, fault};
use crate::error::{TlsError, TlsErrorKind};

/// The TLS session on a socket.
pub(crate) struct Tls {
    session: Box<ClientConnection>,
    encryption: Encryption,
    /// How many bytes were encrypted and not yet taken by the system: the first of the next write.
    unsent: usize,
    /// What ends the session, once the plaintext that came before it has been read.
    fault: Option<TlsError>,
}

impl Tls {
    /// Begins a session: the next step is to [shake hands](Self::shake_hands).
    pub(crate) fn begin(encryption: Encryption) -> Result<Self, TlsError> {
        Ok(Self { session: Box::new(encryption.session()?), encryption, unsent: 0, fault: None })
    }

    /// Goes on with the handshake; `false` while it needs more from the server.
    pub(crate) fn shake_hands(&mut self, mut socket: impl Read + Write) -> Result<bool, TlsError> {
        loop {
            match self.flush(&mut socket) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // What the server said before it went may still be there to be read.
                Err(_) | Ok(()) => {}
            }
            if !self.session.is_handshaking() {
                return self.encryption.check(&self.session).map(|()| true);
            }
            match self.session.read_tls(&mut socket) {
                Ok(0) => return Err(self.interrupted("closed the connection")),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.interrupted(&format!("broke the connection ({e})"))),
            }
            self.digest(&mut socket)?;
        }
    }

    /// Reads plaintext; nothing (0) means that the peer will send no more, whether it said so or not.
    pub(crate) fn read(&mut self, mut socket: impl Read + Write, space: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(space) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // Servers that die say no goodbye; messages know their length, so that nothing is cut unnoticed.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            if let Some(fault) = &self.fault {
                return Err(fault.clone().into());
            }
            self.session.read_tls(&mut socket)?;
            self.fault = self.digest(&mut socket).err();
            // An answer to new keys, say. If that can't be sent now, it is with the next write.
            let _ = self.flush(&mut socket);
        }
    }

    /// Writes plaintext, the same again where it would have blocked.
    pub(crate) fn write(&mut self, mut socket: impl Read + Write, bytes: &[u8]) -> io::Result<usize> {
        if self.unsent == 0 {
            self.flush(&mut socket)?;
            self.unsent = self.session.writer().write(bytes)?;
        }
        self.flush(&mut socket)?;
        Ok(std::mem::take(&mut self.unsent).min(bytes.len()))
    }

    /// Tells the server that no more will come, as far as that goes without waiting.
    pub(crate) fn say_goodbye(&mut self, mut socket: impl Read + Write) {
        self.session.send_close_notify();
        // Where it fails, the peer has gone already, or reads nothing.
        let _ = self.flush(&mut socket);
    }

    /// By what it is encrypted, to encrypt another stream to the same server.
    pub(crate) fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// What a login is bound to (`tls-server-end-point`), where the server's certificate has such a thing.
    pub(crate) fn end_point(&self) -> Option<Vec<u8>> {
        end_point::of(self.session.peer_certificates()?.first()?)
    }

    fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Decrypts what was read.
    fn digest(&mut self, socket: &mut impl Write) -> Result<(), TlsError> {
        if let Err(error) = self.session.process_new_packets() {
            // The server is told why, if it listens.
            let _ = self.flush(socket);
            return Err(fault::of(error, self.session.is_handshaking()));
        }
        Ok(())
    }

    fn interrupted(&self, how: &str) -> TlsError {
        let why = if self.encryption.is_direct() {
            "a server older than 17 doesn't know sslnegotiation=direct: leave that out there"
        } else {
            "its log tells why"
        };
        TlsError::new(TlsErrorKind::Interrupted, format!("the server {how} in the middle of the handshake; {why}"))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.session.protocol_version())
    }
}
