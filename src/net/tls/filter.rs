//! The TLS filter: decrypts from the socket and encrypts to it.
//!
//! ```text
//!   socket ──▶ the thread's buffer, decrypted there ──▶ the reader's space
//!                  ▲                   │ partial                 │ no room
//!                  └──── next read ◀───┘      next read ◀─────┘
//! ```
//!
//! The filter never blocks, and expects a socket whose calls are not interrupted. It may have plaintext although the socket has no bytes, which
//! [`is_drained`](Tls::is_drained) reports. A socket that is ready may have no plaintext, if it received only tickets
//! or key updates, which the filter handles.
//!
//! An idle session has no buffer. Plaintext is not stored: written bytes are reported as written once the system has
//! accepted their ciphertext.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};

use rustls::ProtocolVersion;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic};

use super::encryption::Encryption;
use super::scratch::Scratch;
use super::{end_point, fault};
use crate::error::{TlsError, TlsErrorKind};

/// The smallest size of a read from the socket: the largest record and more.
const READ_MIN: usize = 20 * 1024;
/// The largest part of a handshake message that is stored until its end arrives.
const PARTIAL_MAX: usize = 64 * 1024;
/// The largest number of bytes without plaintext that are read in one call, such as session tickets, which PostgreSQL
/// does not send.
const WITHOUT_PLAINTEXT_MAX: usize = 256 * 1024;
/// The largest number of bytes that are encrypted in one call.
const WRITE_MAX: usize = 64 * 1024;
/// The initial estimate of how much longer ciphertext is than plaintext.
const OVERHEAD: usize = 512;

/// The TLS session of a socket.
pub(crate) struct Tls {
    session: UnbufferedClientConnection,
    encryption: Encryption,
    /// Ciphertext that ends within a record, or within a handshake message.
    partial: Vec<u8>,
    /// Plaintext for which the reader had no space.
    plain: Vec<u8>,
    /// Ciphertext that the system has not accepted yet.
    unsent: Vec<u8>,
    /// The number of plaintext bytes in `unsent`, which are the first of the next write.
    unwritten: usize,
    /// `true` if the last read took all bytes that the system had.
    is_drained: bool,
    /// `true` if the server has sent a close_notify.
    has_ended: bool,
    /// The error that ends the session once the plaintext before it was read.
    fault: Option<TlsError>,
}

impl Tls {
    /// Creates a session whose next step is the [handshake](Self::handshake).
    pub(crate) fn begin(encryption: Encryption) -> Result<Self, TlsError> {
        let mut it = Self {
            session: encryption.session()?,
            encryption,
            partial: Vec::new(),
            plain: Vec::new(),
            unsent: Vec::new(),
            unwritten: 0,
            is_drained: false,
            has_ended: false,
            fault: None,
        };
        // Encodes the first message.
        it.process(&mut [], |_| {});
        it.fault.take().map_or(Ok(it), Err)
    }

    /// Continues the handshake. Returns `false` while it needs more bytes from the server.
    pub(crate) fn handshake(&mut self, mut socket: impl Read + Write) -> Result<bool, TlsError> {
        loop {
            let flushed = self.flush(&mut socket);
            if let Some(fault) = &self.fault {
                return Err(fault.clone());
            }
            // After another error, bytes that the server sent before it closed the connection may still be readable.
            if flushed.is_err_and(|e| e.kind() == ErrorKind::WouldBlock) {
                return Ok(false);
            }
            if !self.session.is_handshaking() {
                return self.encryption.check(&self.session).map(|()| true);
            }
            match self.read_socket(&mut socket, &mut []) {
                Ok(Some(_)) => {}
                Ok(None) => return Err(self.interrupted("closed the connection")),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(self.interrupted(&format!("reset the connection ({e})"))),
            }
        }
    }

    /// Reads plaintext. 0 means that the peer will send no more, with or without a close_notify.
    pub(crate) fn read(&mut self, mut socket: impl Read + Write, space: &mut [u8]) -> io::Result<usize> {
        if !self.plain.is_empty() {
            let mut kept = self.plain.as_slice();
            let came = kept.read(space)?;
            self.plain = kept.to_vec();
            return Ok(came);
        }
        let mut without_plaintext = 0;
        loop {
            if let Some(fault) = &self.fault {
                return Err(fault.clone().into());
            }
            if self.has_ended {
                return Ok(0);
            }
            // A server that terminates sends no close_notify. Messages contain their length, so a truncated one is
            // detected.
            let Some(TlsRead { read, came }) = self.read_socket(&mut socket, space)? else { return Ok(0) };
            // This may be the answer to a key update. If it cannot be sent now, it is sent with the next write.
            let _ = self.flush(&mut socket);
            if came > 0 {
                return Ok(came);
            }
            // This loop delays all other connections until it has something to return.
            without_plaintext += read;
            if without_plaintext > WITHOUT_PLAINTEXT_MAX && self.fault.is_none() {
                self.fault = Some(endless());
            }
        }
    }

    /// Returns `true` if a read now would find nothing, because the last one took all bytes.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_drained && self.plain.is_empty() && self.fault.is_none() && !self.has_ended
    }

    /// Writes plaintext. After `WouldBlock`, the same bytes must be written again.
    pub(crate) fn write(&mut self, mut socket: impl Read + Write, bytes: &[u8]) -> io::Result<usize> {
        if self.unwritten == 0 {
            self.flush(&mut socket)?;
            let some = bytes.get(..WRITE_MAX).unwrap_or(bytes);
            self.encrypt(some.len(), |traffic, room| traffic.encrypt(some, room))?;
            self.unwritten = some.len();
        }
        self.flush(&mut socket)?;
        Ok(std::mem::take(&mut self.unwritten).min(bytes.len()))
    }

    /// Sends a close_notify, as far as possible without blocking.
    pub(crate) fn send_close_notify(&mut self, mut socket: impl Read + Write) {
        // If this fails, the peer has closed the connection, or does not read.
        let _ =
            self.encrypt(0, |traffic, room| traffic.queue_close_notify(room)).and_then(|()| self.flush(&mut socket));
    }

    /// Returns the encryption, for another stream to the same server.
    pub(crate) fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// Returns the version and the cipher suite under their usual names: `TLS 1.3, TLS_AES_256_GCM_SHA384`.
    pub(crate) fn description(&self) -> String {
        let version = match self.session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        };
        let suite = self.session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        // rustls distinguishes the suites of TLS 1.3 by their name.
        suite.map_or(version.to_owned(), |suite| format!("{version}, {}", suite.replace("TLS13_", "TLS_")))
    }

    /// Returns the channel binding (`tls-server-end-point`), if the server's certificate supports it.
    pub(crate) fn end_point(&self) -> Option<Vec<u8>> {
        end_point::of(self.session.peer_certificates()?.first()?)
    }

    /// Reads once from the socket and decrypts into `space`. Plaintext that does not fit is stored. Returns `None` if
    /// the peer has ended the stream.
    fn read_socket(&mut self, socket: &mut impl Read, mut space: &mut [u8]) -> io::Result<Option<TlsRead>> {
        let before = self.partial.len();
        if before > PARTIAL_MAX {
            self.fault = Some(endless());
            return Ok(Some(TlsRead { read: 0, came: 0 }));
        }
        // Plaintext is shorter than its ciphertext, so a read of the size of the space always fits.
        let mut scratch = Scratch::lend();
        let buffer = scratch.first(space.len().max(before + READ_MIN));
        let (partial, room) = buffer.split_at_mut(before);
        let read = socket.read(room)?;
        if read == 0 {
            return Ok(None);
        }
        self.is_drained = read < room.len();
        partial.copy_from_slice(&self.partial);

        let input = buffer.get_mut(..before + read).unwrap_or_default();
        let size = space.len();
        let mut left = std::mem::take(&mut self.plain);
        let used = self.process(input, |plain| {
            // A write to memory takes what fits, and never fails.
            let fits = space.write(plain).unwrap_or_default();
            left.extend_from_slice(plain.get(fits..).unwrap_or_default());
        });
        self.plain = left;
        let came = size - space.len();
        self.partial.clear();
        self.partial.extend_from_slice(input.get(used..).unwrap_or_default());
        if self.partial.is_empty() {
            self.partial = Vec::new();
        }
        Ok(Some(TlsRead { read, came }))
    }

    /// Decrypts `input` in place and returns the number of bytes that were used. Answers are appended to `unsent`, and
    /// an error is stored.
    fn process(&mut self, input: &mut [u8], mut see: impl FnMut(&[u8])) -> usize {
        let mut used = 0;
        let error = 'records: loop {
            let rest = input.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.session.process_tls_records(rest);
            used += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                used += record.discard;
                                see(record.payload);
                            }
                            Err(error) => break 'records error,
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.unsent),
                // The data is already in `unsent`, in the right order.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.has_ended = true,
                // The session needs more bytes, or the stream has ended.
                Ok(_) => return used,
                Err(error) => break error,
            }
        };
        self.fault = Some(fault::of(error, self.session.is_handshaking()));
        // The server receives an alert. The session must not receive the invalid bytes again, nor be used for anything
        // else.
        while self.session.wants_write() {
            match self.session.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.unsent),
                _ => break,
            }
        }
        used
    }

    /// Encrypts plaintext of this length and appends it to `unsent`.
    fn encrypt(
        &mut self,
        length: usize,
        mut write: impl FnMut(&mut WriteTraffic<'_, ClientConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        if self.fault.is_some() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        // The incomplete ciphertext may be within a message, which the session needs in every call.
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = self.session.process_tls_records(&mut self.partial).state
        else {
            return Err(ErrorKind::BrokenPipe.into());
        };
        let encrypted = append(&mut self.unsent, length + OVERHEAD, |room| match write(&mut traffic, room) {
            Err(EncryptError::InsufficientSize(e)) => Err(Some(e.required_size)),
            Err(EncryptError::EncryptExhausted) => Err(None),
            Ok(written) => Ok(written),
        });
        if encrypted { Ok(()) } else { Err(io::Error::other("the session's keys are exhausted")) }
    }

    fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match socket.write(&self.unsent)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                sent => drop(self.unsent.drain(..sent)),
            }
        }
        self.unsent = Vec::new();
        Ok(())
    }

    fn interrupted(&self, how: &str) -> TlsError {
        let why = if self.encryption.is_direct() {
            "a server older than 17 does not support sslnegotiation=direct: omit it"
        } else {
            "check the server's log"
        };
        TlsError::new(TlsErrorKind::Interrupted, format!("the server {how} during the handshake; {why}"))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.session.protocol_version())
    }
}

/// The number of bytes that a read took from the system, and the number of plaintext bytes that it wrote to the
/// reader's space.
struct TlsRead {
    read: usize,
    came: usize,
}

fn endless() -> TlsError {
    TlsError::new(TlsErrorKind::Handshake, "the server sends a message without an end")
}

/// Appends a message of the session itself.
fn encode(mut data: EncodeTlsData<'_, ClientConnectionData>, to: &mut Vec<u8>) {
    append(to, OVERHEAD, |room| match data.encode(room) {
        Err(EncodeError::InsufficientSize(e)) => Err(Some(e.required_size)),
        Err(EncodeError::AlreadyEncoded) => Err(None),
        Ok(written) => Ok(written),
    });
}

/// Appends bytes with a function that returns the number of bytes written, or the space that it needs. Returns `false`
/// if it fails for another reason.
fn append(to: &mut Vec<u8>, room: usize, mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>) -> bool {
    let (from, mut room) = (to.len(), room);
    loop {
        to.resize(from + room, 0);
        let written = write(to.get_mut(from..).unwrap_or_default());
        match written {
            Err(Some(needed)) if needed > room => room = needed,
            _ => {
                to.truncate(from + written.unwrap_or_default());
                return written.is_ok();
            }
        }
    }
}
